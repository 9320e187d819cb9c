"""``bonaface scan``: options, what is printed and written, exit codes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

import bonaface.scan
from bonaface import cli
from scanned import Serial, png, write_pictures

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def serial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bonaface.scan, "_engine", lambda _name, job, *_: Serial(job))


@pytest.fixture
def run(make_bundle: Callable[..., Path], tmp_path: Path, serial: None) -> Callable[..., Result]:
    bundle, root = make_bundle(), write_pictures(tmp_path / "in", 60)

    def call(*arguments: str) -> Result:
        out = tmp_path / "out.parquet"
        every = ["scan", str(root), "--model", str(bundle), "--out", str(out), "--faces", "none"]
        return CliRunner().invoke(cli.app, [*every, *arguments])

    return call


def test_the_table_the_figures_and_the_page(run: Callable[..., Result], tmp_path: Path) -> None:
    done = run()
    assert done.exit_code == 3  # two of the files hold no picture
    assert "60 pictures: " in done.stdout
    assert "2 not read: not an image" in done.stdout
    assert "2 pictures could not be read" in done.stderr
    table = pq.read_table(tmp_path / "out.parquet")
    card = json.loads((tmp_path / "out.json").read_text())
    assert sum(card["pictures"].values()) == table.num_rows == 60
    page = (tmp_path / "out.html").read_text()
    assert "<img" not in page
    assert page.count("<svg") == 1
    assert "not an image" in page
    assert str(tmp_path / "in/part 1") in page


def test_small_pictures_only_where_they_are_asked_for(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    assert run("--images").exit_code == 3
    assert "<img" in (tmp_path / "out.html").read_text()


def test_a_finished_scan_is_told_again(run: Callable[..., Result]) -> None:
    first = run()
    again = run()
    assert (again.exit_code, again.stdout.splitlines()[0]) == (3, first.stdout.splitlines()[0])
    assert "nothing was left to judge" in again.stdout
    assert run("--prevalence", "0.1").exit_code == 2


def test_ctrl_c_says_how_to_go_on(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bonaface.scan, "_judge", stop)
        done = run()
    assert done.exit_code == 130
    assert "the same command goes on" in done.stderr
    assert run().exit_code == 3


@pytest.mark.parametrize(
    "arguments",
    [("--out", "x.csv"), ("--faces", "some"), ("--engine", "spark"), ("--workers", "0")],
)
def test_wrong_use_is_exit_2(run: Callable[..., Result], arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


def test_the_program_needs_no_torch(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    bundle = make_bundle()
    (tmp_path / "a.png").write_bytes(png(250))
    script = tmp_path / "no_torch.py"
    script.write_text(
        "import sys\n"
        "class Refuse:\n"  # also in the processes that judge, which read this file too
        "    def find_spec(self, name, *_):\n"
        "        if name in ('torch', 'sklearn', 'transformers', 'ray'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from bonaface.cli import main\n"
        "if __name__ == '__main__':\n    main()\n"
    )
    arguments = [str(tmp_path / "*.png"), "--model", str(bundle), "--faces", "none"]
    out = tmp_path / "o.parquet"
    done = subprocess.run(
        [sys.executable, str(script), "scan", *arguments, "--out", str(out), "--workers", "1"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    assert done.returncode == 0, done.stderr
    assert "1 pictures: 1 fake" in done.stdout


@pytest.mark.skipif(not DOCS.is_dir(), reason="not in a checkout")
def test_the_questions_of_the_guide_have_answers(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    duckdb = pytest.importorskip("duckdb")
    for name in ("copy.png", "again.png"):
        (tmp_path / "in" / name).write_bytes(png(255, 2**24 - 1))
    run()
    (tmp_path / "out.parquet").rename(tmp_path / "scan.parquet")
    monkeypatch.chdir(tmp_path)
    found = re.findall(r"```sql\n(.*?)```", (DOCS / "scan.md").read_text(), re.S)
    answers = [duckdb.sql(query).fetchall() for query in found]
    assert len(answers) >= 8
    assert all(answers)
    by_answer, fakes, folders, unread, same, *_ = answers
    assert sum(count for _, count in by_answer) == 62
    assert len(fakes) == dict(by_answer)["fake"]
    assert sum(count for _, _, count in folders) == 62
    assert [row[:2] for row in unread] == [("not an image", 2)]
    assert same[0][1] == 2
