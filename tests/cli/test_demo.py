from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from bonaface import cli
from bonaface.cli import demo


def test_the_whole_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo, "_PICTURES", {"train": 12, "validation": 8, "test": 8})
    monkeypatch.setattr(demo, "_SETTINGS", demo._SETTINGS | {"epochs": 1, "size": 32})
    out = tmp_path / "demo"
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    done = CliRunner().invoke(cli.app, ["demo", "--out", str(out), "--open"])
    assert done.exit_code == 0, done.output
    for name in ("data/metadata.csv", "detector/card.json", "report/report.html"):
        assert (out / name).is_file()
    assert "$ bonaface train " in done.stdout
    assert str(out / "report" / "report.html") in done.stdout
    assert opened[-1] == (out / "report" / "report.html").as_uri()


def test_a_second_demo_takes_the_place_of_the_first(tmp_path: Path) -> None:
    demo._claim(tmp_path / "demo", seed=0)
    for part in ("data", "detector", "report"):
        (tmp_path / "demo" / part).mkdir()
    (tmp_path / "demo" / "notes.txt").write_text("mine")
    demo._claim(tmp_path / "demo", seed=1)
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == ["demo.json", "notes.txt"]


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    kept = tmp_path / "data" / "mine.txt"
    kept.parent.mkdir()
    kept.write_text("mine")
    done = CliRunner().invoke(cli.app, ["demo", "--out", str(tmp_path)])
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1
    assert kept.read_text() == "mine"
    assert sorted(tmp_path.rglob("*")) == [kept.parent, kept]
