"""`bonaface stress` as a person calls it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bonaface import cli
from bonaface.drawn import write_drawn_set
from bonaface.stress import analysis

FEW = ("--corruptions", "jpeg", "--attacks", "none")


def stress(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["stress", *map(str, arguments)])


@pytest.fixture(autouse=True)
def quick_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, "RESAMPLES", 100)


def test_it_ends_in_a_table_and_a_page(
    make_bundle: Callable[..., Path], drawn: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = stress(make_bundle(), drawn, "--out", out, *FEW)
    assert done.exit_code == 0, done.stderr
    assert "brightness" in done.stdout
    assert "JPEG 50" in done.stdout
    assert "13 of 13: brightness: jpeg 5" in done.stderr
    assert json.loads((out / "stress.json").read_text())["settings"]["corruptions"] == ["jpeg"]
    assert "<img" not in (out / "stress.html").read_text()
    first = (out / "stress.json").read_bytes()
    assert stress(tmp_path / "bundle", drawn, "--out", out, *FEW).exit_code == 0
    assert (out / "stress.json").read_bytes() == first


def test_attacks_and_pictures_where_they_are_asked_for(
    make_bundle: Callable[..., Path], drawn: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    given = ("--attacks", "square", "--budgets", "4,30", "--attack-limit", 6, "--limit", 12)
    done = stress(make_bundle(), drawn, "--out", out, "--corruptions", "blur", "--images", *given)
    assert done.exit_code == 0, done.stderr
    assert "square 30, hide" in done.stdout
    found = json.loads((out / "stress.json").read_text())["detectors"][0]
    assert found["attacked"]["auc"]["n"] == 6
    assert ("<img" in (out / "stress.html").read_text()) == bool(found["fragile"])


def test_unreadable_pictures_end_in_exit_code_3(
    make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    data = tmp_path / "faces"
    write_drawn_set(data, {"train": 2, "validation": 2, "test": 12}, seed=1, size=24)
    next((data / "test" / "real").iterdir()).write_bytes(b"no picture")
    done = stress(make_bundle(), data, "--out", tmp_path / "out", *FEW)
    assert done.exit_code == 3
    assert "1 pictures could not be read" in done.stderr


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--budgets", "many"), "expected budgets such as"),
        (("--budgets", "0"), "setting 'budgets"),
        (("--corruptions", "jpge"), "expected corruptions out of"),
        (("--attacks", "pgd"), "expected the weights"),
        (("--jpeg", "101"), "setting 'jpeg'"),
    ],
)
def test_wrong_use_is_told_in_a_line(
    make_bundle: Callable[..., Path],
    drawn: Path,
    tmp_path: Path,
    given: tuple[str, str],
    words: str,
) -> None:
    done = stress(make_bundle(), drawn, "--out", tmp_path / "out", *given)
    assert done.exit_code == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_bundle_alone_is_not_enough(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    done = stress(make_bundle(), "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "at least one bundle and then a data set" in done.stderr
