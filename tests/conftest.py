"""Fixtures for every test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bonaface.bundle import finish_bundle
from tiny import SIZE, make_card, write_brightness_onnx


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
