"""`bonaface audit`: exit codes, what is printed, and the files that it writes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageFilter
from typer.testing import CliRunner, Result

from bonaface import cli
from bonaface.drawn import write_drawn_set
from traps import saved, two_qualities


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
    assert "--fix" not in done.stdout
    assert "labels-are-numbers" in page.read_text()


def test_a_leak_is_exit_1_and_its_names_are_escaped(clean: Path, tmp_path: Path) -> None:
    data, page = Path(shutil.copytree(clean, tmp_path / "set")), tmp_path / "page.html"
    (data / "metadata.csv").unlink()
    shutil.copy(data / "train/real/00000.jpg", data / "test/real/<b>\x1b[31m.jpg")
    done = run(data, "--limit", 10, "--html", page)
    assert done.exit_code == 1
    assert "FATAL   exact-copies-across-splits: 1 picture in" in done.stdout
    assert "--fix OUT writes a copy" in done.stdout
    assert "\x1b" not in done.stdout
    text = page.read_text()
    assert "audit DATA --fix OUT" in text
    assert "&lt;b&gt;" in text
    assert "<b>" not in text


def test_wrong_use_is_exit_2_and_one_line(clean: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    for arguments in (
        (clean, "--side", 64),
        (clean, "--fix", clean / "fixed"),
        (clean, "--fix", tmp_path / "taken"),
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


# -- fixing --


@pytest.fixture
def leaky(clean: Path, tmp_path: Path) -> Path:
    """Fakes are saved at another quality, and a train picture lies in test."""
    data = Path(shutil.copytree(clean, tmp_path / "leaky"))
    two_qualities(data)
    shutil.copy(data / "train/real/00000.jpg", data / "test/real/00000.jpg")
    return data


def test_a_fixed_set_is_exit_0_and_compared_with_the_old_one(leaky: Path, tmp_path: Path) -> None:
    out, told = tmp_path / "out", tmp_path / "old.json"
    done = run(leaky, "--fix", out, "--json", told)
    assert done.exit_code == 0, done.output
    assert "FATAL   file-shortcut-all" in done.stdout  # of the old one
    assert json.loads(told.read_text())["passed"] is False
    assert "left out, exact copy: 1 real, 0 fake" in done.stdout
    assert "saved alike: a square of 48 px, cut and shrunk to 40 px, JPEG 75\n" in done.stdout
    table = {
        line[:25].strip(): line[25:].split("  ")
        for line in done.stdout.splitlines()
        if "  " in line
    }
    assert table["copies across splits"][0].strip() == "1"
    assert table["copies across splits"][-1].strip() == "0"
    assert table["pictures"][0].strip() == "68"
    assert table["pictures"][-1].strip() == "67"
    assert done.stdout.endswith("as far as an audit can see\n")
    for name in ("changes.csv", "fix_report.json"):
        assert str(out / name) in done.stdout.replace("\n", "")
        assert (out / name).is_file()
    report = json.loads((out / "fix_report.json").read_text())
    assert report["passed"] == {"before": False, "after": True}
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.jpg")}
    assert run(leaky, "--fix", out).exit_code == 0  # again: nothing is written anew
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.jpg")} == before


def test_what_cannot_be_equalised_is_exit_1(clean: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(clean, tmp_path / "smooth"))
    for path in sorted(data.glob("*/fake/*.jpg")):
        with Image.open(path) as picture:
            smooth = picture.filter(ImageFilter.GaussianBlur(3))
        path.write_bytes(saved(smooth, format="JPEG", quality=90))
    done = run(data, "--fix", tmp_path / "out")
    assert done.exit_code == 1
    assert done.stdout.count("FATAL   file-shortcut-all") == 2
    assert done.stdout.endswith("a test figure on this data set would be worthless\n")
    report = json.loads((tmp_path / "out" / "fix_report.json").read_text())
    assert report["passed"] == {"before": False, "after": False}


def test_labels_that_nobody_can_read_cannot_be_fixed(clean: Path, tmp_path: Path) -> None:
    done = run(numbered(clean, tmp_path / "set"), "--fix", tmp_path / "out")
    assert done.exit_code == 2
    assert "FATAL   labels-are-numbers" in done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("bonaface: expected a data set whose labels and splits can be read")
    assert not (tmp_path / "out").exists()


def test_a_stopped_fix_is_exit_130(
    leaky: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: object, **settings: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("bonaface.equalising.equalise", stop)
        done = run(leaky, "--fix", tmp_path / "out")
    assert done.exit_code == 130
    assert done.stderr == "bonaface: stopped; the same command goes on\n"
    assert run(leaky, "--fix", tmp_path / "out").exit_code == 0
