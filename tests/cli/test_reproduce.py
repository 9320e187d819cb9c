from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from bonaface import cli, training
from bonaface import reproduce as package
from bonaface.crops import RECIPE_FILE, CropRecipe
from bonaface.drawn import write_drawn_set
from bonaface.files import write_json
from tiny import write_brightness_onnx

STUDY = """
seeds = [0, 1]
epochs = [1]
[train]
model = "cnn"
size = 32
batch_size = 8
[arms.slow]
lr = 0.0001
[arms.fast]
lr = 0.01
"""


def reproduce(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["reproduce", *map(str, arguments)])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "faces"
    write_drawn_set(folder, {"train": 8, "validation": 6, "test": 12}, seed=1, size=40)
    write_json(folder / RECIPE_FILE, CropRecipe().to_dict())  # not to be measured
    return folder


@pytest.fixture(autouse=True)
def quick_export(monkeypatch: pytest.MonkeyPatch) -> None:
    def export(_module: object, size: int, path: Path) -> float:
        write_brightness_onnx(path, size=size)
        return 0.0

    monkeypatch.setattr(training, "export_onnx", export)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "study.toml"
    path.write_text(STUDY)
    return path


def test_a_study_ends_in_a_page_and_can_be_repeated(
    data: Path, config: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = reproduce(data, "--config", config, "--out", out)
    assert done.exit_code == 0, done.stderr
    assert "after 1 epoch" in done.stdout
    assert "majority class" in done.stdout
    assert "Validation chooses" in done.stdout
    assert "run 1 of 4: slow-e1-s0" in done.stderr
    pages = {name: (out / name).read_text() for name in ("study.html", "study.json")}
    assert "fast" in pages["study.html"]

    more = ("--seeds", "0,1,2")
    some = reproduce(data, "--config", config, "--out", out, "--finished", *more)
    assert some.exit_code == 3
    assert "2 runs are missing" in some.stderr
    assert "fast-e1-s2: not run yet" in some.stderr


def test_seeds_are_whole_numbers(data: Path, config: Path, tmp_path: Path) -> None:
    done = reproduce(data, "--config", config, "--out", tmp_path / "out", "--seeds", "a")
    assert done.exit_code == 2
    assert "expected seeds such as 0 or 0,1,2, got 'a'" in done.stderr


def test_ctrl_c_says_how_to_go_on(
    data: Path, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(package, "train", stopped)
    done = reproduce(data, "--config", config, "--out", tmp_path / "out")
    assert done.exit_code == 130
    assert "the same command goes on" in done.stderr
    assert not (tmp_path / "out" / "study.html").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("lr = 0.01", "lrr = 0.01"), "arm 'fast': setting 'lrr'"),
        (("seeds", "seed"), "setting 'seed'"),
        (("[arms.slow]", "[arms.'../slow']"), "arms"),
    ],
)
def test_a_wrong_study_is_one_line(
    data: Path, config: Path, tmp_path: Path, change: tuple[str, str], words: str
) -> None:
    config.write_text(STUDY.replace(*change))
    done = reproduce(data, "--config", config, "--out", tmp_path / "out")
    assert done.exit_code == 2
    lines = [text for text in done.stderr.splitlines() if text.startswith("bonaface: ")]
    assert len(lines) == 1
    assert words in lines[0]
    assert not (tmp_path / "out").exists()
