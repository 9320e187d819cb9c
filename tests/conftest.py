"""Fixtures for every test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from bonaface.bundle import finish_bundle
from tiny import SIZE, make_card, write_brightness_onnx

# Where tests run side by side, threads of PyTorch would wait for each other. It reads this once.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# No test is about time. In CI the same examples each time; elsewhere new ones.
settings.register_profile(
    "steady",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("steady")


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test writes into the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BONAFACE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    """Writes a bundle that calls bright pictures fake; returns its folder."""

    def make(name: str = "bundle", *, onnx_size: int | str = SIZE, **changes: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        write_brightness_onnx(folder / "model.onnx", size=onnx_size)
        finish_bundle(folder, make_card(**changes))
        return folder

    return make
