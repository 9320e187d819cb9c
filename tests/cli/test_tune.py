from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from bonaface import cli, training, tuning
from bonaface.config import TrainConfig
from bonaface.drawn import write_drawn_set
from bonaface.history import Epoch
from bonaface.tuning import Importance, Trial, Tuning, TuningWatch
from bonaface.tuning.space import search_space, settings_of

CONFIG = TrainConfig(model="cnn", epochs=2)
SPACE = search_space(CONFIG, {"dropout": 0.3}, 1000)
RATES = {"adamw": 0.001, "sgd": 0.02}


def tune(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["tune", *map(str, arguments)])


def made(*values: float | None) -> Tuning:
    """A study whose trials have these figures; None: it failed."""
    params = {
        "lr": 1.0, "batch_size": 32, "weight_decay": 0.01, "dropout": 0.3, "optimizer": "adamw",
        "augment": "flip",
    }  # fmt: skip
    trials = []
    for number, value in enumerate(values):
        drawn = params | {"dropout": 0.3 + 0.05 * number}
        state = "failed" if value is None else "complete"
        reason = "expected a finite loss\x1b[31m" if value is None else None
        settings = settings_of(drawn, CONFIG, RATES)
        trials.append(Trial(number, state, value, 1, 12.0, drawn, settings, reason))  # type: ignore[arg-type]
    counts = {split: {"real": 50, "fake": 50} for split in ("train", "validation")}
    nothing = Importance(None, len(values), "too few")
    found = Tuning(
        "faces", "a" * 64, counts, CONFIG, RATES, SPACE, tuple(trials), nothing, len(values)
    )
    assert [one.name for one in found.space] == list(params)
    return found


class Called:
    """What the command would have searched with."""

    def __init__(self) -> None:
        self.found = made(0.6, 0.8)
        self.given: dict[str, Any] = {}
        self.then: Callable[[TuningWatch], None] = lambda watch: None

    def __call__(self, data: Path, out: Path, config: TrainConfig, **options: Any) -> Tuning:
        self.given = {"data": data, "out": out, "config": config, **options}
        self.then(options["watch"])
        return self.found


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> Called:
    seen = Called()
    monkeypatch.setattr(tuning, "tune", seen)
    # Drawing the settings one by one is the page's business.
    monkeypatch.setattr("bonaface.report.tuning_plots.slice_plot", lambda *_: "")
    return seen


def test_a_search_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(training, "TensorBoard", lambda *_: SimpleNamespace(add=id, close=str))
    monkeypatch.setattr("bonaface.training.draw_curves", lambda *_: None)
    monkeypatch.setattr("bonaface.report.tuning_plots.slice_plot", lambda *_: "")
    monkeypatch.setattr(gc, "collect", lambda *_: 0)
    data, out = tmp_path / "data", tmp_path / "out"
    write_drawn_set(data, {"train": 4, "validation": 2}, seed=1, size=40)
    words = (data, "--size", 32, "--epochs", 1, "--optimizer", "sgd", "--trials", 2, "--out", out)
    done = tune(*words, "--precision", "float32")
    assert done.exit_code == 0, done.output
    lines = [line for line in done.stderr.splitlines() if line.startswith("trial ")]
    assert [line.split()[1] for line in lines] == ["0", "1"]
    assert "(defaults)" in lines[0]
    assert "validation AUC" in done.stdout
    for name in ("best.toml", "trials.csv", "tuning.json", "tuning.html"):
        assert (out / name).is_file()
        assert f"wrote {out / name}" in done.stdout
    assert f"bonaface train {data} --config {out / 'best.toml'} --out {out / 'best'}" in done.stdout
    best = TrainConfig.read(out / "best.toml")
    assert (best.optimizer, best.size, best.epochs) == ("sgd", 32, 1)
    card = json.loads((out / "tuning.json").read_text())
    assert "optimizer" not in card["trials"][1]["settings"]
    assert done.stderr.count("Warning") == 0

    shutil.rmtree(out / "trials")  # nothing is left to do
    again = tune(*words, "--precision", "float32")
    assert again.exit_code == 0
    assert again.stdout == done.stdout
    changed = tune(*words)
    assert changed.exit_code == 2
    assert changed.stderr.count("bonaface: ") == 1
    assert "precision = 'float32', now 'auto'" in changed.stderr


def test_what_is_named_is_what_is_fixed(tmp_path: Path, called: Called) -> None:
    (tmp_path / "config.toml").write_text('epochs = 3\naugment = "robust"\nlabel_smoothing = 0.1\n')
    tune(
        *(tmp_path, "--out", tmp_path / "out", "--config", tmp_path / "config.toml"),
        *("--model", "cnn", "--trials", 7, "--lr", 0.01, "--split", "60/20/20", "--workers", 1),
        *("--storage", "sqlite:///x.db"),
    )
    config = called.given["config"]
    assert config == TrainConfig(epochs=3, augment="robust", label_smoothing=0.1, lr=0.01)
    assert config.model_fields_set == {"epochs", "augment", "label_smoothing", "lr", "model"}
    assert called.given["ratios"] == pytest.approx((0.6, 0.2, 0.2))
    assert [called.given[name] for name in ("trials", "workers", "storage")] == [
        7, 1, "sqlite:///x.db",
    ]  # fmt: skip


def test_the_next_command_has_the_split(tmp_path: Path, called: Called) -> None:
    done = tune(tmp_path, "--out", tmp_path / "out", "--split", "80/10/10")
    assert done.stdout.rstrip().endswith("--split 80/10/10")
    assert "Trial 1 is the best of 2 trials: validation AUC 0.800, against 0.600" in done.stdout
    assert "also the luckiest" in done.stdout


def test_one_line_a_trial_and_the_results_after_each(tmp_path: Path, called: Called) -> None:
    out = tmp_path / "out"

    def then(watch: TuningWatch) -> None:
        found = made(0.6, None, 0.8)
        watch.note("read \x1b[31mred.png")
        for number, trial in enumerate(found.trials):
            watch.trial_begun(number, trial.settings)
            watch.stepped(1, 1, 2, 0.5, 8)
            watch.epoch_ended(Epoch(1, 0.1, 0.5, 0.5, 0.5, 0.5, 0.5, 1.0, 10.0), True)
            watch.trial_ended(replace(found, trials=found.trials[: number + 1]), trial)
            assert (out / "trials.csv").read_text().count("\n") == number + 2
        watch.waiting(1)

    called.then = then
    done = tune(tmp_path, "--out", out)
    lines = done.stderr.splitlines()
    assert len(lines) == 5
    assert "\x1b" not in done.stderr
    assert "AUC 0.6000* best 0.6000 (trial 0)" in lines[1]
    assert lines[1].endswith("(defaults)")
    assert "failed: expected a finite loss" in lines[2]
    assert "AUC 0.8000* best 0.8000 (trial 2)" in lines[3]
    assert "dropout 0.4" in lines[3]
    assert lines[4].startswith("waiting for 1 trial of other workers")


def test_a_search_that_was_stopped_says_how_to_go_on(tmp_path: Path, called: Called) -> None:
    out = tmp_path / "out"

    def then(watch: TuningWatch) -> None:
        watch.trial_ended(called.found, called.found.trials[1])
        raise KeyboardInterrupt

    called.then = then
    done = tune(tmp_path, "--out", out)
    assert done.exit_code == 130
    assert done.stdout == ""
    assert f"stopped; the same command goes on with {out}" in done.stderr
    assert sorted(path.name for path in out.iterdir()) == [
        "best.toml", "trials.csv", "tuning.html", "tuning.json",
    ]  # fmt: skip


def test_a_study_without_a_figure_is_an_error(tmp_path: Path, called: Called) -> None:
    called.found = made(None, None)
    done = tune(tmp_path, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "expected a trial that ends with a figure, got 2 that failed" in done.stderr
    assert not (tmp_path / "out" / "best.toml").exists()
    assert (tmp_path / "out" / "tuning.html").is_file()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--optimizer", "nonsense"), "optimizer"),
        (("--monitor", "nonsense"), "monitor"),
        (("--split", "80"), "80/10/10"),
        (("--config", "absent.toml"), "absent.toml"),
        (("--trials", "0"), "--trials"),
        (("--model", "nonsense"), ""),
    ],
)
def test_wrong_use_is_exit_2_and_leaves_nothing(
    tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    done = tune(tmp_path, "--out", tmp_path / "out", *words)
    assert done.exit_code == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_help_names_what_is_searched() -> None:
    text = CliRunner().invoke(cli.app, ["tune", "--help"], env={"COLUMNS": "200"}).stdout
    for one in SPACE:
        assert f"--{one.name.replace('_', '-')}" in text
    for name in ("--trials", "--storage", "--config", "--pretrained", "best.toml"):
        assert name in text
