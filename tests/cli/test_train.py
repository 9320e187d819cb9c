from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from bonaface import cli, training
from bonaface.config import TrainConfig
from bonaface.drawn import write_drawn_set
from bonaface.hardening import STEPS

SMALL = ("--model", "cnn", "--size", "32", "--epochs", "1", "--batch-size", "4")


def train(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["train", *map(str, arguments)])


def refused(done: Result) -> str:
    assert done.exit_code == 2
    assert done.stdout == ""
    (line,) = [text for text in done.stderr.splitlines() if text.startswith("bonaface: ")]
    assert "Traceback" not in done.stderr
    return line


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "data"
    write_drawn_set(folder, {"train": 4, "validation": 2}, seed=1, size=40)
    return folder


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command would have trained with."""
    seen: dict[str, Any] = {}

    def run(data: Path, out: Path, config: TrainConfig, **options: Any) -> None:
        seen.update(data=data, out=out, config=config, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", run)
    return seen


def test_help_names_every_setting() -> None:
    text = CliRunner().invoke(cli.app, ["train", "--help"], env={"COLUMNS": "200"}).stdout
    for name in TrainConfig.model_fields:
        assert f"--{name.replace('_', '-')}" in text
    for name in ("--out", "--config", "--resume", "--ratios"):
        assert name in text


def test_a_run_names_its_bundle_and_the_next_command(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = train(data, "--out", out, *SMALL)
    assert done.exit_code == 0, done.output
    assert json.loads((out / "card.json").read_text())["architecture"]["name"] == "cnn"
    assert "Kept epoch 1 of 1" in done.stdout
    assert f"Bundle: {out}" in done.stdout
    assert f"bonaface evaluate {out} {data}" in done.stdout
    assert (out / "training" / "learning_curves.svg").is_file()
    assert "epoch   1" in done.stderr
    again = refused(train(data, "--out", out, *SMALL))
    assert "--resume" in again


def test_options_win_over_the_file(data: Path, tmp_path: Path, called: dict[str, Any]) -> None:
    (tmp_path / "config.toml").write_text('epochs = 3\nsize = 48\nbalance = "batches"\n')
    words = ("--config", tmp_path / "config.toml", "--size", 32, "--workers", 1)
    train(data, "--out", tmp_path / "run", *words, "--ratios", "60/20/20")
    assert called["config"] == TrainConfig(epochs=3, size=32, balance="batches")
    assert called["ratios"] == pytest.approx((0.6, 0.2, 0.2))
    assert (called["workers"], called["resume"]) == (1, False)
    train(data, "--out", tmp_path / "run", "--split", "8/1/1", "--resume")
    assert called["config"] == TrainConfig()
    assert called["ratios"] == pytest.approx((0.8, 0.1, 0.1))
    assert called["resume"] is True


def test_kinds_of_forgery_are_separated_by_commas(
    data: Path, tmp_path: Path, called: dict[str, Any]
) -> None:
    train(data, "--out", tmp_path / "run", "--forge", 0.3, "--forge-kinds", "swap, inpaint")
    assert called["config"] == TrainConfig(forge=0.3, forge_kinds=("swap", "inpaint"))
    (tmp_path / "config.toml").write_text(called["config"].to_toml())
    train(data, "--out", tmp_path / "run", "--config", tmp_path / "config.toml")
    assert called["config"] == TrainConfig(forge=0.3, forge_kinds=("swap", "inpaint"))


def test_adversarial_training_says_what_it_costs(data: Path, tmp_path: Path) -> None:
    done = train(data, "--out", tmp_path / "run", *SMALL, "--adversarial", 2)
    assert done.exit_code == 0, done.output
    assert "adversarial training within 2 grey levels: 4 passes a step" in done.stderr
    card = json.loads((tmp_path / "run" / "card.json").read_text())
    assert card["training"]["config"]["adversarial"] == 2
    text = CliRunner().invoke(cli.app, ["train", "--help"], env={"COLUMNS": "200"}).stdout
    (line,) = [line for line in text.splitlines() if "--adversarial" in line]
    assert f"{STEPS + 1} times the cost" in line


def test_a_run_that_was_stopped_says_how_to_go_on(
    data: Path, tmp_path: Path, called: dict[str, Any]
) -> None:
    done = train(data, "--out", tmp_path / "run")
    assert called["out"] == tmp_path / "run"
    assert done.exit_code == 130
    assert done.stdout == ""
    assert "--resume" in done.stderr
    assert str(tmp_path / "run") in done.stderr


def test_notes_cannot_steer_the_terminal(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: Any, watch: training.Watch, **__: Any) -> None:
        watch.note("read \x1b[31mred\udcff.png")
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", run)
    done = train(data, "--out", tmp_path / "run")
    assert "\x1b" not in done.stderr
    assert "note: read \\x1b[31mred\\udcff.png" in done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--augment", "nonsense"), "nonsense"),
        (("--model", "nonsense"), "nonsense"),
        (("--balance", "nonsense"), "balance"),
        (("--epochs", "-1"), "epochs"),
        (("--adversarial", "-1"), "adversarial"),
        (("--adversarial", "65"), "adversarial"),
        (("--adversarial", "nan"), "adversarial"),
        (("--size", "33"), "32"),
        (("--split", "80"), "80/10/10"),
        (("--split", "80/20"), "80/10/10"),
        (("--split", "80/0/20"), "80/10/10"),
        (("--split", "a/b/c"), "80/10/10"),
        (("--ratios", "test"), "80/10/10"),
        (("--ratios", "inf/1/1"), ""),
        (("--config", "absent.toml"), "absent.toml"),
    ],
)
def test_wrong_settings_are_one_line_and_leave_nothing(
    data: Path, tmp_path: Path, words: tuple[str, str], told: str
) -> None:
    out = tmp_path / "run"
    assert told in refused(train(data, "--out", out, *SMALL, *words))
    assert not out.exists()


def test_an_unknown_setting_of_the_file_is_named(data: Path, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("epoch = 3\n")
    words = ("--config", tmp_path / "config.toml")
    line = refused(train(data, "--out", tmp_path / "run", *words))
    assert "'epoch'" in line
    assert "epochs" in line


@pytest.mark.parametrize("words", [("--workers", "-1"), ("--epochs", "many"), ("--nosuch",)])
def test_wrong_use_is_exit_2(data: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    done = train(data, "--out", tmp_path / "run", *words)
    assert done.exit_code == 2
    assert words[0] in done.stderr


@pytest.mark.parametrize("make", [Path.touch, lambda path: None])
def test_data_that_is_no_folder_is_one_line(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "data")
    assert "data" in refused(train(tmp_path / "data", "--out", tmp_path / "run", *SMALL))


def test_an_out_that_is_a_file_is_left_alone(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    assert "run" in refused(train(data, "--out", tmp_path / "run", *SMALL))
    assert (tmp_path / "run").read_text() == "mine"
    below = tmp_path / "run" / "below"
    assert "run" in refused(train(data, "--out", below, *SMALL))
