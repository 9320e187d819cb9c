"""``bonaface data shard``: what it prints, exit codes, and stopping."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bonaface import cli, sharding
from bonaface.samples import load_samples
from folders import table
from scanned import png


def shard(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["data", "shard", *map(str, arguments)])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for split, count in (("train", 12), ("validation", 4)):
        for label in ("real", "fake/gan"):
            for at in range(count):
                path = tmp_path / "data" / split / label / f"{at}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(png(at, at + 100 * len(split) + 50 * (label == "real")))
    return tmp_path / "data"


def test_a_set_is_written_and_told_about(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = shard(source, "--out", out)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines() == [
        "data: 32 pictures, 32 written to 2 shards, 0 left out",
        "split\tpictures\tgroups\treal\tfake",
        "train\t24\t24\t12\t12",
        "validation\t8\t8\t4\t4",
        "generator\ttrain\tvalidation",
        "gan\t12\t4",
        "note: label folders read as real: real",
        "note: label folders read as fake: fake",
        f"Set:    {out}",
        f"Report: {out / 'shard_report.json'}",
    ]
    assert load_samples(out).counts() == load_samples(source).counts()


def test_sizes_and_splits_can_be_told(source: Path, tmp_path: Path) -> None:
    for path in (source / "train").rglob("*.png"):
        path.write_bytes(path.read_bytes() + b"\0" * 200_000)
    done = shard(source / "train", "--out", tmp_path / "out", "--size", 1, "--ratios", "50/50/0")
    assert done.exit_code == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").glob("*.tar")) == [
        f"{split}-{number:06d}.tar" for split in ("train", "validation") for number in range(3)
    ]


def test_what_was_left_out_is_exit_3(source: Path, tmp_path: Path) -> None:
    (source / "train/real/3.png").write_bytes(b"")
    done = shard(source, "--out", tmp_path / "out")
    assert done.exit_code == 3
    assert "empty file" in done.stdout
    assert done.stderr.startswith("1 pictures were left out; they are listed in")
    assert [row["path"] for row in table(tmp_path / "out/failures.csv")] == ["train/real/3.png"]


def test_ctrl_c_says_how_to_go_on(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sharding.shard_set

    def stopped(*arguments: object, progress: object, **options: object) -> object:
        def stop(done: int, total: int) -> None:
            if done == 26:  # in the second shard
                raise KeyboardInterrupt

        return whole(*arguments, progress=stop, **options)  # type: ignore[arg-type]

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(sharding, "shard_set", stopped)
        done = shard(source, "--out", out)
    assert done.exit_code == 130
    assert done.stdout == ""
    assert done.stderr == "bonaface: stopped; the same command goes on\n"
    assert sorted(path.name for path in out.iterdir()) == ["shards.jsonl", "train-000000.tar"]
    assert shard(source, "--out", out).exit_code == 0
    assert len(load_samples(out)) == 32


def test_wrong_use_is_one_line(source: Path, tmp_path: Path) -> None:
    for arguments, words in (
        ((source, "--out", source / "in"), "outside the data set"),
        ((source, "--out", tmp_path / "out", "--ratios", "1"), "80/10/10"),
        ((tmp_path / "gone", "--out", tmp_path / "out"), "found nothing at"),
    ):
        done = shard(*arguments)
        assert done.exit_code == 2
        (line,) = done.stderr.splitlines()
        assert words in line
    assert not (tmp_path / "out").exists()
