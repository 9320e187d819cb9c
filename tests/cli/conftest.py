"""Fixtures of the tests of commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from bonaface.drawn import write_drawn_set


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small set of drawn faces, which no test writes to."""
    folder = tmp_path_factory.mktemp("drawn") / "faces"
    write_drawn_set(folder, {"train": 2, "validation": 2, "test": 12}, seed=1, size=24)
    return folder
