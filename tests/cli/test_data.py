from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import portraits
from bonaface import cli, cropping
from bonaface.crops import CropRecipe, read_recipe
from bonaface.samples import load_samples
from terminal import on_terminal

Make = Callable[..., Path]


def crop(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["data", "crop", *map(str, arguments)])


def refused(done: Result) -> str:
    assert done.exit_code == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("bonaface: expected ")
    return line


def photo(folder: Path, name: str, place: int | None) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    places = [] if place is None else [(place, 10, 160)]
    pixels = portraits.group(places, 200, 320)
    pixels[::7, :: 5 + (place or 0) % 11] //= 2  # no two crops are the same
    Image.fromarray(pixels).save(folder / name)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for at, split in enumerate(("train", "validation", "test")):
        photo(folder, f"{split}/real/r.png", 30 + 40 * at)
        photo(folder, f"{split}/fake/f.jpg", 10 + 40 * at)
    return folder


def test_photographs_become_crops(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = crop(source, "--out", out)
    assert done.exit_code == 0, done.stderr
    assert "6 pictures, 6 cut, 0 used whole (crops already), 0 not cut" in done.stdout
    assert "\x1b" not in done.stdout
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert ["train", "fake", "1", "1", "0", "0"] in rows
    assert str(out / "crop_report.json") in done.stdout
    assert load_samples(out).counts() == load_samples(source).counts()
    told = read_recipe(out)
    assert told == CropRecipe()
    assert told is not None
    assert "data crop" in told.origin


def test_what_was_not_cut_is_exit_3_also_the_second_time(source: Path, tmp_path: Path) -> None:
    photo(source, "train/real/none.png", None)
    (source / "train" / "real" / "bad.png").write_bytes(b"no picture")
    for _ in range(2):
        done = crop(source, "--out", tmp_path / "out")
        assert done.exit_code == 3
        assert "1\tno face found" in done.stdout
        assert "1\tnot an image" in done.stdout
        (line,) = [text for text in done.stderr.splitlines() if "not cut" in text]
        assert line.startswith("2 pictures were not cut")
        assert str(tmp_path / "out" / "failures.csv") in line


def test_the_groups_with_the_lowest_share_are_named(tmp_path: Path) -> None:
    # 10 women of each of two races, 4 men; a face is missing for 3 of the women of B.
    folder = tmp_path / "data"
    rows = []
    for at in range(24):
        race, gender = ("A" if at < 10 else "B"), ("m" if at >= 20 else "f")
        name = f"test/real/{at}.png"
        photo(folder, name, None if 10 <= at < 13 else 5 * at)
        rows.append({"file_name": name, "race": race, "gender": gender, "age": "30"})
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    done = crop(folder, "--out", tmp_path / "out")
    assert done.exit_code == 3
    told = [line.split("\t") for line in done.stdout.splitlines()]
    head = told.index(["face found in", "", "group", "share", "95% interval", "n"])
    assert told[head + 1 : head + 6] == [
        ["all", "", "pictures", "0.8750", "0.6900-0.9566", "24"],
        ["race", "lowest", "B", "0.7857", "0.5241-0.9243", "14"],
        ["race", "highest", "A", "1.0000", "0.7225-1.0000", "10"],
        ["race and gender", "lowest", "B, f", "0.7000", "0.3968-0.8922", "10"],
        ["race and gender", "highest", "A, f", "1.0000", "0.7225-1.0000", "10"],
    ]  # with fewer than ten pictures, a group is not named
    assert told[head + 6][0].startswith("Set:")


def test_margin_and_like_choose_the_recipe(source: Path, tmp_path: Path, make_bundle: Make) -> None:
    assert crop(source, "--out", tmp_path / "wide", "--margin", 1.7).exit_code == 0
    told = read_recipe(tmp_path / "wide")
    assert told == CropRecipe(1.7)
    recipe = CropRecipe(1.9, (0.0, -0.04), 100, 32, "measured on crops")
    bundle = make_bundle(crop=recipe.to_dict())
    assert crop(source, "--out", tmp_path / "like", "--like", bundle).exit_code == 0
    told = read_recipe(tmp_path / "like")
    assert told == recipe
    assert told is not None
    assert "brightness" in told.origin
    assert Image.open(tmp_path / "like" / "test" / "real" / "r.png").size == (100, 100)


def test_ratios_split_what_has_no_splits(tmp_path: Path) -> None:
    for at in range(4):
        photo(tmp_path / "data", f"real/{at}.png", 20 * at)
    done = crop(tmp_path / "data", "--out", tmp_path / "out", "--ratios", "50/25/25")
    assert done.exit_code == 0, done.stderr
    assert "note: no splits found" in done.stdout
    counts = load_samples(tmp_path / "out").counts()
    assert {split: n["real"] for split, n in counts.items()} == {
        "train": 2,
        "validation": 1,
        "test": 1,
    }


def test_wrong_use_is_one_line(source: Path, tmp_path: Path, make_bundle: Make) -> None:
    out = tmp_path / "out"
    both = crop(source, "--out", out, "--margin", 1.5, "--like", tmp_path / "bundle")
    assert "--like" in refused(both)
    assert "0.5 to 10" in refused(crop(source, "--out", out, "--margin", 0.1))
    assert "0.5 to 10" in refused(crop(source, "--out", out, "--margin", "nan"))
    assert "a bundle" in refused(crop(source, "--out", out, "--like", tmp_path / "gone"))
    assert "YuNet" in refused(crop(source, "--out", out, "--finder", tmp_path / "gone.onnx"))
    assert "80/10/10" in refused(crop(source, "--out", out, "--ratios", "1/2"))
    assert "data set" in refused(crop(tmp_path / "gone", "--out", out))
    assert "outside" in refused(crop(source, "--out", source / "crops"))
    assert not out.exists()
    assert crop(source, "--out", out).exit_code == 0
    assert "margin=1.5" in refused(crop(source, "--out", out, "--margin", 1.5))
    assert crop(source).exit_code == 2


def test_ctrl_c_says_how_to_go_on(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = cropping.crop_faces

    def stopped(*arguments: object, progress: object, **options: object) -> object:
        def stop(done: int, total: int) -> None:
            if done == 2:
                raise KeyboardInterrupt

        return whole(*arguments, progress=stop, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(cropping, "crop_faces", stopped)
        done = crop(source, "--out", tmp_path / "out")
    assert done.exit_code == 130
    assert done.stdout == ""
    assert done.stderr == "bonaface: stopped; the same command goes on\n"
    assert not (tmp_path / "out" / "metadata.csv").exists()
    assert crop(source, "--out", tmp_path / "out").exit_code == 0
    report = json.loads((tmp_path / "out" / "crop_report.json").read_text())
    assert report["counts"]["cut"] == 6


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom bonaface.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('torch', 'numpy', 'cv2', 'PIL') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, "data", "crop", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n[]\n")
    for option in ("--out", "--margin", "--like", "--finder", "--ratios"):
        assert option in done.stdout


@pytest.mark.skipif(os.name == "nt", reason="terminals are those of POSIX")
def test_on_a_terminal_there_is_a_bar_and_a_table(source: Path, tmp_path: Path) -> None:
    photo(source, "train/real/none.png", None)
    command = ["data", "crop", source, "--out", tmp_path / "out"]
    code, text = on_terminal(command, columns=100, errors=True)
    assert code == 3
    assert "cropping" in text
    assert "7/7" in text
    assert "\t" not in text
    assert "no face found" in text
