"""``bonaface data frames``: what it prints, and exit codes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

import portraits
from bonaface import cli, framing
from bonaface.crops import read_recipe
from bonaface.samples import load_samples


def frames(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["data", "frames", *map(str, arguments)])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for split, label, left in (("train", "real", 0), ("train", "fake", 60), ("test", "real", 120)):
        path = tmp_path / "clips" / split / label / f"{left}.mp4"
        path.parent.mkdir(parents=True)
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (320, 200))
        for at in range(6):
            pixels = portraits.group([(left + 4 * at, 10, 170)], 200, 320)
            writer.write(np.ascontiguousarray(pixels[:, :, ::-1]))
        writer.release()
    return tmp_path / "clips"


def test_clips_become_faces(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = frames(source, "--out", out, "--count", 2, "--margin", 1.5)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines() == [
        "clips: 3 clips, 0 not read; 6 frames, 6 cut, 0 kept whole, 0 not used",
        "split\tlabel\tclips\tframes\tcut\twhole\tnot used",
        "train\treal\t1\t2\t2\t0\t0",
        "train\tfake\t1\t2\t2\t0\t0",
        "test\treal\t1\t2\t2\t0\t0",
        "note: label folders read as real: real",
        "note: label folders read as fake: fake",
        "note: 3 clips have no known group and count as one each: clips of one person, or a fake "
        "and its original, may lie in two splits; name groups in metadata.csv",
        f"Set:    {out}",
        f"Report: {out / 'frames_report.json'}",
    ]
    recipe = read_recipe(out)
    assert recipe is not None
    assert recipe.margin == 1.5
    assert load_samples(out).counts()["train"] == {"real": 2, "fake": 2}


def test_what_was_not_used_is_exit_3(source: Path, tmp_path: Path) -> None:
    (source / "train" / "real" / "bad.mp4").write_bytes(b"no clip")
    for _ in range(2):
        done = frames(source, "--out", tmp_path / "out", "--count", 1, "--whole")
        assert done.exit_code == 3
        assert "4 clips, 1 not read; 3 frames, 0 cut, 3 kept whole" in done.stdout
        (line,) = [text for text in done.stderr.splitlines() if "not used" in text]
        assert line.startswith("1 clips or frames were not used; they are listed in ")
    assert read_recipe(tmp_path / "out") is None


def test_wrong_use_is_one_line(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for arguments, words in (
        (("--whole", "--margin", "1.5"), "--whole"),
        (("--like", "b", "--margin", "1.5"), "--like"),
        (("--margin", "0.1"), "0.5 to 10"),
        (("--ratios", "1"), "80/10/10"),
    ):
        done = frames(source, "--out", out, *arguments)
        assert (done.exit_code, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert words in line
    (tmp_path / "none").mkdir()
    assert "expected clips (.3gp .avi" in frames(tmp_path / "none", "--out", out).stderr
    assert frames(source, "--out", out, "--count", 0).exit_code == 2
    assert not out.exists()


def test_ctrl_c_says_how_to_go_on(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(framing, "frame_set", stopped)
    done = frames(source, "--out", tmp_path / "out")
    assert done.exit_code == 130
    assert done.stderr == "bonaface: stopped; the same command goes on\n"
