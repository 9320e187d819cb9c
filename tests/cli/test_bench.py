"""`bonaface bench` as a person calls it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bonaface import cli
from bonaface.bench import measuring

Make = Callable[..., Path]
QUICK = ("--rounds", 1, "--calls", 2, "--threads", 1)


def bench(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["bench", *map(str, arguments)])


@pytest.fixture(autouse=True)
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "_start", lambda one, threads: (1.5, None))
    monkeypatch.setattr(measuring, "CROP", 24)


def test_it_prints_tables_and_writes_what_was_asked(make_bundle: Make, tmp_path: Path) -> None:
    out, told = tmp_path / "out", tmp_path / "told.json"
    done = bench(make_bundle(), *QUICK, "--out", out, "--json", told)
    assert done.exit_code == 0, done.stderr
    for words in ("one crop, ms", "crops/s", "needs", "threads: 1", "brightness, ONNX Runtime"):
        assert words in done.stdout
    assert "Energy" in done.stdout
    assert sorted(path.name for path in out.iterdir()) == ["bench.html", "bench.json"]
    assert json.loads(told.read_text()) == json.loads((out / "bench.json").read_text())


def test_without_a_place_nothing_is_written(make_bundle: Make, tmp_path: Path) -> None:
    folder = make_bundle()
    before = sorted(tmp_path.rglob("*"))
    done = bench(folder, *QUICK)
    assert done.exit_code == 0, done.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nothing",), "expected a bundle"),
        (("nothing", "--limit", 3), "--limit with --data only"),
        (("nothing", "--rounds", 0), "setting 'rounds'"),
    ],
)
def test_wrong_use_is_one_line(arguments: tuple[object, ...], words: str) -> None:
    done = bench(*arguments)
    assert done.exit_code == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
