"""`bonaface audit`: exit codes, what is printed, and the files that it writes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bonaface import cli
from bonaface.drawn import write_drawn_set


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["audit", *map(str, arguments)])


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("audit") / "clean"
    write_drawn_set(root, {"train": 20, "validation": 2, "test": 12}, seed=5, size=48)
    return root


def numbered(clean: Path, out: Path) -> Path:
    for split in ("train", "test"):
        for name, number in (("real", "1"), ("fake", "0")):
            shutil.copytree(clean / split / name, out / split / number)
    return out


def test_a_clean_set_is_exit_0_and_written_down(clean: Path, tmp_path: Path) -> None:
    told, page = tmp_path / "out" / "a.json", tmp_path / "out" / "a.html"
    done = run(clean, "--json", told, "--html", page)
    assert done.exit_code == 0, done.output
    assert "nothing found that makes a test figure worthless" in done.stdout
    assert "file probe: AUC 0." in done.stdout
    value = json.loads(told.read_text())
    assert value["passed"] is True
    assert value["counts"]["test"] == {"real": 12, "fake": 12}
    assert len(value["fingerprint"]) == 64
    assert f"wrote {page}" in done.stdout.replace("\n", "")
    text = page.read_text()
    assert "Nothing was found that makes a test figure on this data set worthless" in text
    assert "<script" not in text
    assert not re.search(r"(src|href)=\"?http", text)
    assert str(clean) not in text
    assert "{{" not in text


def test_the_same_set_gives_the_same_bytes(clean: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        run(clean, "--limit", 24, "--json", tmp_path / f"{name}.json", "--html", tmp_path / name)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_numbers_as_labels_are_exit_1(clean: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = run(numbered(clean, tmp_path / "set"), "--html", page)
    assert done.exit_code == 1
    assert "FATAL   labels-are-numbers: " in done.stdout
    assert "a test figure on this data set would be worthless" in done.stdout
    assert "labels-are-numbers" in page.read_text()


def test_a_leak_is_exit_1_and_its_names_are_escaped(clean: Path, tmp_path: Path) -> None:
    data, page = Path(shutil.copytree(clean, tmp_path / "set")), tmp_path / "page.html"
    (data / "metadata.csv").unlink()
    shutil.copy(data / "train/real/00000.jpg", data / "test/real/<b>\x1b[31m.jpg")
    done = run(data, "--limit", 10, "--html", page)
    assert done.exit_code == 1
    assert "FATAL   exact-copies-across-splits: 1 picture in" in done.stdout
    assert "\x1b" not in done.stdout
    text = page.read_text()
    assert "&lt;b&gt;" in text
    assert "<b>" not in text


def test_wrong_use_is_exit_2_and_one_line(clean: Path, tmp_path: Path) -> None:
    for arguments in (
        (tmp_path / "nowhere",),
        (tmp_path,),
        (clean, "--limit", 0),
        (clean, "--ratios", "1/2"),
    ):
        done = run(*arguments)
        assert done.exit_code == 2
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert line.startswith("bonaface: expected ")
