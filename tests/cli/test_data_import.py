"""``bonaface data import``: which source is which, what is printed, exit codes."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from bonaface import cli, importing
from bonaface.samples import load_samples


def bring(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["data", "import", *map(str, arguments)])


def refused(done: Result) -> str:
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("bonaface: ")
    return line


def photo(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (24, 24, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    path.write_bytes(file.getvalue())
    return path


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for at in range(10):
        photo(tmp_path / "in" / "ffhq" / f"{at}.png", at)
        photo(tmp_path / "in" / "sdxl" / f"{at}.png", 100 + at)
    return tmp_path / "in"


def test_a_pair_of_folders(folders: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = bring("--real", folders / "ffhq", "--fake", folders / "sdxl", "--out", out)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines() == [
        "ffhq and sdxl: 20 pictures, 20 linked, 0 written, 0 not imported",
        "split\tpictures\tgroups\treal\tfake",
        "train\t16\t16\t8\t8",
        "validation\t2\t2\t1\t1",
        "test\t2\t2\t1\t1",
        "generator\ttrain\tvalidation\ttest",
        "sdxl\t8\t1\t1",
        "note: no splits found: split here into train / validation / test as 0.8 / 0.1 / 0.1, by "
        "label, by generator and by group where known, seed 0",
        "note: 20 pictures have no known group and count as one each: those that look alike may "
        "lie in two splits; run `bonaface audit` on the new set",
        f"Set:    {out}",
        f"Report: {out / 'import_report.json'}",
    ]
    assert {row.generator for row in load_samples(out).rows} == {None, "sdxl"}


def test_a_folder_and_a_table(folders: Path, tmp_path: Path) -> None:
    named = ("--label", "FFHQ=real", "--label", "sdxl=fake")
    done = bring(folders, *named, "--ratios", "50/0/50", "--out", tmp_path / "no")
    assert "80/10/10" in refused(done)
    done = bring(folders, *named, "--ratios", "50/20/30", "--out", tmp_path / "a")
    assert done.exit_code == 0, done.stderr
    assert load_samples(tmp_path / "a").counts()["test"] == {"real": 3, "fake": 3}
    lines = [f"{kind}/{at}.png,{kind},p{at}" for kind in ("ffhq", "sdxl") for at in range(10)]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["file,y,who", *lines, "gone.png,sdxl,p9"]))
    columns = ("--path-column", "file", "--label-column", "y", "--group-column", "who")
    done = bring(table, "--root", folders, *columns, *named, "--out", tmp_path / "b")
    assert done.exit_code == 3
    assert "1\tno such file" in done.stdout
    assert done.stderr.startswith("1 pictures were not imported; they are listed in ")
    rows = load_samples(tmp_path / "b").rows
    assert len(rows) == 20
    assert len({row.group for row in rows}) == 10


def test_wrong_use_is_one_line(folders: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out")
    pair = ("--real", folders / "ffhq")
    assert "got neither" in refused(bring(*out))
    assert "got both" in refused(bring(folders, *pair, *out))
    assert "--label" in refused(bring(folders, "--label", "ffhq", *out))
    assert "--label" in refused(bring(folders, "--label", "ffhq=true", *out))
    assert "--label 0=fake" in refused(bring(folders, *out))
    assert "which is not there" in refused(bring(tmp_path / "gone", *out))
    assert "owner/name" in refused(bring(photo(tmp_path / "a.png", 1), *out))
    assert "80/10/10" in refused(bring(*pair, "--ratios", "x", *out))
    assert not (tmp_path / "out").exists()


def test_a_folder_in_the_hubs_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(pytest.importorskip("huggingface_hub.constants"), "HF_HUB_OFFLINE", True)
    rows = [
        {
            "image": {"bytes": photo(tmp_path / "x.png", at).read_bytes(), "path": None},
            "label": at % 2,
        }
        for at in range(4)
    ]
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["fake", "real"])}
    (tmp_path / "set" / "data").mkdir(parents=True)
    made = datasets.Dataset.from_list(rows, features=datasets.Features(kinds))
    made.to_parquet(tmp_path / "set" / "data" / "test-00000-of-00001.parquet")
    done = bring(tmp_path / "set", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert "test\t4\t4\t2\t2" in done.stdout
    assert done.stderr == ""  # no bars and no logs of the library
    monkeypatch.chdir(tmp_path)
    assert "hf download someone/faces" in refused(bring("someone/faces", "--out", tmp_path / "no"))


def test_ctrl_c_says_how_to_go_on(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(importing, "import_set", stopped)
    done = bring("--real", folders / "ffhq", "--out", tmp_path / "out")
    assert done.exit_code == 130
    assert done.stderr == "bonaface: stopped; the same command goes on\n"


@pytest.mark.parametrize("command", ["import", "split", "frames"])
def test_help_loads_nothing_heavy(command: str) -> None:
    code = (
        "import sys\nfrom bonaface.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('torch', 'numpy', 'cv2', 'PIL', 'datasets', 'huggingface_hub') "
        "if name in sys.modules])"
    )
    call = [sys.executable, "-c", code, "data", command, "--help"]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n[]\n")
    assert "--out" in done.stdout
