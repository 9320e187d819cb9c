"""``bonaface data split``: what it prints, exit codes, and that its subsets can be trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bonaface import cli, splitting
from bonaface.errors import ImageError
from bonaface.samples import load_samples


def split(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["data", "split", *map(str, arguments)])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for label in ("real", "fake/gan"):
        for at in range(20):
            path = tmp_path / "data" / label / f"{at}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(path))
    return tmp_path / "data"


def test_a_set_is_split_and_told_about(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = split(source, "--out", out, "--ratios", "60/20/20", "--subsets", "4, 10", "--seed", 3)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines() == [
        "data: 40 pictures, 40 linked, 0 copied, 0 not taken over",
        "split\tpictures\tgroups\treal\tfake",
        "train\t24\t24\t12\t12",
        "validation\t8\t8\t4\t4",
        "test\t8\t8\t4\t4",
        "generator\ttrain\tvalidation\ttest",
        "gan\t12\t4\t4",
        "subset\tpictures\tgroups\treal\tfake",
        "subset-4.csv\t4\t4\t2\t2",
        "subset-10.csv\t10\t10\t5\t5",
        "note: label folders read as real: real",
        "note: label folders read as fake: fake",
        "note: 40 pictures have no known group and count as one each: those that look alike may "
        "lie in two splits; run `bonaface audit` on the new set",
        f"Set:    {out}",
        f"Report: {out / 'split_report.json'}",
    ]
    assert load_samples(out / "subset-4.csv").counts()["train"] == {"real": 2, "fake": 2}


def test_wrong_use_is_one_line(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for arguments, words in (
        (("--subsets", "a,2"), "100,300,1000"),
        (("--subsets", "40"), "1 to 32 pictures"),
        (("--ratios", "1"), "80/10/10"),
        (("--ratios", "nan/1/1"), "add up to 1"),
    ):
        done = split(source, "--out", out, *arguments)
        assert done.exit_code == 2
        (line,) = done.stderr.splitlines()
        assert words in line
    assert "found nothing at" in split(tmp_path / "gone", "--out", out).stderr
    assert not out.exists()


def test_what_was_not_taken_over_is_exit_3(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = splitting.take_over

    def failing(path: Path, target: Path) -> bool:
        if path.parent.name == "real" and path.name == "7.jpg":
            raise ImageError("no permission to read it")
        return whole(path, target)

    monkeypatch.setattr(splitting, "take_over", failing)
    done = split(source, "--out", tmp_path / "out")
    assert done.exit_code == 3
    assert "1\tno permission to read it" in done.stdout
    assert str(tmp_path / "out" / "failures.csv") in done.stderr


def test_ctrl_c_says_how_to_go_on(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(splitting, "take_over", stopped)
        done = split(source, "--out", tmp_path / "out")
    assert (done.exit_code, done.stdout) == (130, "")
    assert done.stderr == "bonaface: stopped; the same command goes on\n"
    assert split(source, "--out", tmp_path / "out").exit_code == 0
