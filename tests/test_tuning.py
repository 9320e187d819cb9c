"""A search shares its study, loses no trial, keeps off the test split and says what it is worth."""

from __future__ import annotations

import csv
import gc
import json
import math
import multiprocessing
import os
import shutil
import signal
import sqlite3
import threading
import time
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
import torch

from bonaface import batches, training, tuning
from bonaface.checkpoints import State
from bonaface.config import TrainConfig
from bonaface.drawn import write_drawn_set
from bonaface.errors import ConfigError, TrainingError
from bonaface.history import Epoch
from bonaface.images import read_image
from bonaface.report.tuning import doubt, save_tuning, tuning_page, verdict, write_tuning_page
from bonaface.tuning import Importance, Trial, Tuning, TuningWatch, tune
from bonaface.tuning import study as studies
from bonaface.tuning import worker as workers
from bonaface.tuning.results import auc_interval
from bonaface.tuning.space import search_space, settings_of
from postgres import server
from test_report import Page, assert_stands_alone

CONFIG = TrainConfig(model="cnn", size=32, epochs=2, precision="float32")
CNN = {"name": "cnn", "size": 32, "dropout": 0.3}
RATES = {"adamw": 0.001, "sgd": 0.02}


@pytest.fixture(autouse=True)
def on_the_processor(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "data"
    write_drawn_set(folder, {"train": 12, "validation": 6, "test": 4}, seed=1, size=40)
    return folder


@pytest.fixture(scope="module")
def without_test(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("untested") / "data"
    shutil.copytree(data, folder)
    shutil.rmtree(folder / "test")
    lines = (folder / "metadata.csv").read_text().splitlines(keepends=True)
    (folder / "metadata.csv").write_text("".join(line for line in lines if "test/" not in line))
    return folder


@pytest.fixture(scope="module")
def prepared(without_test, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "glance", lambda samples: SimpleNamespace(line=""))
        return training.prepare(without_test, tmp_path_factory.mktemp("run") / "run", CONFIG)


class Fit:
    """Takes the place of a training: the figure depends on the dropout alone."""

    def __init__(self):
        self.runs = []
        self.before = {}

    def __call__(self, run, *, resume):
        assert resume
        assert (run.folder / "config.toml").read_text() == run.config.to_toml()
        self.runs.append(run)
        run.last.write_bytes(b"a checkpoint")
        if action := self.before.pop(len(self.runs), None):
            action(run)
        value = self.figure(run.config)
        for epoch in range(1, run.config.epochs + 1):
            run.watch.epoch_ended(row(epoch, value), best=epoch == 1)
        sign = -1 if run.config.monitor == "loss" else 1
        return State(epoch=run.config.epochs, best=sign * value, best_epoch=1)

    @staticmethod
    def figure(config):
        return 1 - abs(config.dropout - 0.55)


connect = sqlite3.connect


def hasty(*args, **options):
    """A database that does not wait for the disk."""
    base = connect(*args, **options)
    base.execute("pragma synchronous = off")
    return base


def row(epoch, value):
    return Epoch(epoch, 0.1, 0.5, 0.5, value, value, value, 1.5, 100.0)


@pytest.fixture
def fit(prepared, monkeypatch):
    """Every study of the test runs on one set of decoded pictures, without training."""
    made = Fit()
    monkeypatch.setattr(
        tuning, "prepare", lambda data, out, config, **_: replace(prepared, config=config)
    )
    monkeypatch.setattr(workers, "fit", made)
    monkeypatch.setattr(workers, "importance", lambda study: Importance(None, 0, "not asked for"))
    monkeypatch.setattr(workers, "POLL", 0.05)
    monkeypatch.setattr(studies.sqlite3, "connect", hasty)
    monkeypatch.setattr(gc, "collect", lambda *_: 0)  # a third of a second after each trial
    return made


class Noted(TuningWatch):
    def __init__(self):
        self.notes, self.begun, self.ended, self.waited = [], [], [], []

    def note(self, text):
        self.notes.append(text)

    def trial_begun(self, number, settings):
        self.begun.append((number, dict(settings)))

    def trial_ended(self, tuning, trial):
        self.ended.append((tuning, trial))

    def waiting(self, count):
        self.waited.append(count)


def params(found):
    return [trial.params for trial in found.trials]


# -- what is searched --


def test_what_is_named_is_not_searched():
    every = ["lr", "batch_size", "weight_decay", "dropout", "optimizer", "augment"]
    assert [one.name for one in search_space(CONFIG, CNN, 5000)] == every
    named = TrainConfig(lr=0.01, augment="flip", epochs=3)
    left = [one.name for one in search_space(named, CNN, 5000)]
    assert left == ["batch_size", "weight_decay", "dropout", "optimizer"]
    begun = TrainConfig(pretrained="weights")
    assert "freeze" in [one.name for one in search_space(begun, CNN, 5000)]
    frozen = TrainConfig(pretrained="weights", freeze="none")
    assert "freeze" not in [one.name for one in search_space(frozen, CNN, 5000)]


def test_what_makes_no_difference_is_not_searched():
    assert "dropout" not in [one.name for one in search_space(CONFIG, {"name": "spectrum"}, 5000)]
    sizes = {n: search_space(CONFIG, CNN, n)[1] for n in (100, 5000)}
    assert sizes[100].choices == (8, 32)
    assert sizes[5000].choices == (8, 16, 32, 64, 128)
    assert "batch_size" not in [one.name for one in search_space(CONFIG, CNN, 40)]


def test_nothing_to_search_is_refused(fit, tmp_path):
    everything = TrainConfig(**CONFIG.model_dump(exclude_none=True) | {"lr": 0.1})
    with pytest.raises(ConfigError, match="leave some out"):
        tune(tmp_path, tmp_path / "out", everything)
    assert not (tmp_path / "out").exists()


def test_the_learning_rate_is_searched_about_the_optimisers_own():
    found = {
        name: settings_of({"lr": 0.5, "optimizer": name}, CONFIG, RATES)["lr"] for name in RATES
    }
    assert found == {"adamw": 0.0005, "sgd": 0.01}
    assert settings_of({"lr": 1.23456}, CONFIG, RATES) == {"lr": 0.00123}


# -- the study --


def test_the_defaults_come_first_and_the_best_is_never_worse(fit, tmp_path):
    watch = Noted()
    found = tune(tmp_path, tmp_path / "out", CONFIG, trials=5, watch=watch)
    assert [trial.number for trial in found.trials] == list(range(5))
    number, settings = watch.begun[0]
    assert number == 0
    default = TrainConfig()
    assert settings == {"lr": 0.001} | {
        name: getattr(default, name) for name in ("weight_decay", "dropout", "optimizer", "augment")
    }
    assert found.defaults == found.trials[0]
    assert found.defaults.value == pytest.approx(Fit.figure(CONFIG))
    assert found.best.value == max(trial.value for trial in found.trials)
    assert found.best.value >= found.defaults.value
    assert [trial for _, trial in watch.ended] == list(found.trials)
    assert len({json.dumps(one) for one in params(found)}) == 5
    assert all(trial.seconds == 3.0 for trial in found.trials if trial.state == "complete")
    # The trials differ by what is searched alone.
    fixed = {run.config.model_copy(update=settings) for run in fit.runs}
    assert fixed == {CONFIG.model_copy(update=settings)}
    assert found.settings(found.best) == fit.runs[found.best.number].config


def test_checkpoints_of_finished_trials_are_dropped(fit, tmp_path):
    tune(tmp_path, tmp_path / "out", CONFIG, trials=2)
    left = sorted(
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")
    )
    assert left == [
        "study.db",
        "trials/0000/training/config.toml",
        "trials/0001/training/config.toml",
    ]


def test_what_falls_behind_is_ended_early(fit, tmp_path, monkeypatch):
    # The first five are all better than any later one.
    monkeypatch.setattr(fit, "figure", lambda config: 1 / len(fit.runs))
    found = tune(tmp_path, tmp_path / "out", CONFIG, trials=7)
    assert [trial.state for trial in found.trials] == ["complete"] * 5 + ["pruned"] * 2
    last = found.trials[-1]
    assert (last.value, last.epoch, last.seconds) == (pytest.approx(1 / 7), 1, 1.5)
    assert "median" in last.reason
    assert found.best.number == 0
    assert len(found.over) == 7


def test_a_loss_is_to_be_small(fit, tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "figure", lambda config: float(len(fit.runs)))
    config = TrainConfig(**CONFIG.model_dump(exclude_unset=True) | {"monitor": "loss"})
    found = tune(tmp_path, tmp_path / "out", config, trials=6)
    assert [trial.value for trial in found.ranking] == [1, 2, 3, 4, 5]
    assert [trial.state for trial in found.trials[5:]] == ["pruned"]


@pytest.mark.parametrize(("number", "epoch", "ends"), [(0, 1, False), (3, 1, True), (3, 2, False)])
def test_neither_the_defaults_nor_a_last_epoch_is_pruned(number, epoch, ends):
    reported = {}
    trial = SimpleNamespace(
        number=9,
        user_attrs={"number": number},
        set_user_attr=lambda *_: None,
        report=lambda value, step: reported.update({step: value}),
        should_prune=lambda: True,
    )
    reports = workers._Reports(trial, CONFIG, TuningWatch())
    if ends:
        with pytest.raises(optuna.TrialPruned):
            reports.epoch_ended(row(epoch, 0.25), best=True)
    else:
        reports.epoch_ended(row(epoch, 0.25), best=True)
    assert reported == {epoch: 0.25}


def test_a_diverged_trial_fails_and_the_study_goes_on(fit, prepared, tmp_path):
    def diverge(run):
        raise training._diverged(prepared, 1, State())

    def full(run):
        raise torch.OutOfMemoryError("4 GiB too few")

    fit.before = {1: diverge, 3: full}
    found = tune(tmp_path, tmp_path / "out", CONFIG, trials=4)
    assert [trial.state for trial in found.trials] == ["failed", "complete", "failed", "complete"]
    assert "tenth of the learning rate" in found.trials[0].reason
    assert "4 GiB too few" in found.trials[2].reason
    assert found.trials[0].value is None
    assert found.defaults.value is None
    assert "the defaults failed" in verdict(found)


def test_a_study_without_any_figure_says_so(fit, prepared, tmp_path):
    def diverge(run):
        raise training._diverged(prepared, 1, State())

    fit.before = {1: diverge, 2: diverge}
    found = tune(tmp_path, tmp_path / "out", CONFIG, trials=2)
    assert found.best is None
    assert verdict(found) == "None of 2 trials ended with a figure."
    assert [path.name for path in save_tuning(found, tmp_path)] == ["trials.csv", "tuning.json"]
    page = Page(tuning_page(found))
    assert "None of 2 trials ended with a figure." in page.text
    assert "expected a finite loss" in page.text
    assert "drawn at random" in page.text
    assert "No importance of the settings: not asked for." in page.text


@pytest.mark.parametrize("error", [TrainingError("disk full"), OSError("gone")])
def test_another_error_ends_the_command_but_loses_no_trial(fit, tmp_path, error):
    def fail(run):
        raise error

    fit.before = {2: fail}
    with pytest.raises(TrainingError, match=str(error)):
        tune(tmp_path, tmp_path / "out", CONFIG, trials=2)
    found = tune(tmp_path, tmp_path / "out", CONFIG, trials=2)
    assert [trial.state for trial in found.trials] == ["complete"] * 2
    assert fit.runs[1].config == fit.runs[2].config


def test_ctrl_c_goes_on_with_the_same_trial(fit, tmp_path):
    whole = tune(tmp_path, tmp_path / "whole", CONFIG, trials=4)

    def press(run):
        run.watch.epoch_ended(row(1, 0.4), best=True)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    before = signal.getsignal(signal.SIGTERM)
    fit.runs.clear()
    fit.before = {3: press}
    with pytest.raises(KeyboardInterrupt):
        tune(tmp_path, tmp_path / "out", CONFIG, trials=4)
    assert signal.getsignal(signal.SIGTERM) is before
    stopped = fit.runs[-1]
    assert stopped.last.is_file()
    watch = Noted()
    found = tune(tmp_path, tmp_path / "out", CONFIG, trials=4, watch=watch)
    assert watch.begun[0][0] == 2
    assert fit.runs[3].config == stopped.config
    assert fit.runs[3].out == stopped.out
    assert [trial.number for trial in found.trials] == [0, 1, 2, 3]
    assert found.trials[2].seconds == 4.5
    # A stop changes nothing of what is tried.
    assert params(found) == params(whole)


def test_a_larger_number_goes_on(fit, tmp_path):
    whole = tune(tmp_path, tmp_path / "whole", CONFIG, trials=3)
    first = tune(tmp_path, tmp_path / "out", CONFIG, trials=2)
    again = tune(tmp_path, tmp_path / "out", CONFIG, trials=1)
    assert again.trials == first.trials
    assert len(fit.runs) == 3 + 2
    assert params(tune(tmp_path, tmp_path / "out", CONFIG, trials=3)) == params(whole)


def test_another_seed_searches_elsewhere(fit, tmp_path):
    one = tune(tmp_path, tmp_path / "one", CONFIG, trials=2)
    config = TrainConfig(**CONFIG.model_dump(exclude_unset=True) | {"seed": 1})
    two = tune(tmp_path, tmp_path / "two", config, trials=2)
    assert one.trials[0].params == two.trials[0].params
    assert one.trials[1].params != two.trials[1].params


def test_a_study_goes_on_with_what_it_began(fit, prepared, tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr(workers.registry, "create", lambda config: SimpleNamespace(lr=0.02))
    tune(tmp_path, out, CONFIG, trials=1)
    changed = {
        "epochs = 2, now 3": {"epochs": 3},
        "model = 'cnn', now 'resnet18'": {"model": "resnet18"},
    }
    for told, change in changed.items():
        config = TrainConfig(**CONFIG.model_dump(exclude_unset=True) | change)
        with pytest.raises(ConfigError, match=told):
            tune(tmp_path, out, config, trials=2)
    named = TrainConfig(**CONFIG.model_dump(exclude_unset=True) | {"dropout": 0.3})
    with pytest.raises(ConfigError, match="dropout = 'searched from 0 to 0.7', now 0.3"):
        tune(tmp_path, out, named, trials=2)
    other = replace(prepared, fingerprint="f" * 64)
    monkeypatch.setattr(tuning, "prepare", lambda *_, **__: other)
    with pytest.raises(ConfigError, match=r"data = '?\w{12}\.\.\., now ffffffffffff\.\.\.;? ?"):
        tune(tmp_path, out, CONFIG, trials=2)
    assert len(fit.runs) == 1


def test_wrong_use_is_one_line_and_leaves_nothing(fit, tmp_path):
    for trials, epochs in ((0, 1), (1, 0)):
        config = TrainConfig(epochs=epochs)
        with pytest.raises(ConfigError, match="at least 1 trial of 1 epoch"):
            tune(tmp_path, tmp_path / "out", config, trials=trials)
    for url in ("nonsense", "nosuch://host/base"):
        with pytest.raises(ConfigError, match="database that Optuna can use"):
            tune(tmp_path, tmp_path / "remote", CONFIG, storage=url)
        assert not (tmp_path / "remote").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("mine")
    with pytest.raises(ConfigError, match="holds something else"):
        tune(tmp_path, tmp_path / "mine", CONFIG)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["README.md"]


def test_a_shared_database_has_the_folders_name(fit, tmp_path):
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    tune(tmp_path, tmp_path / "a" / "mine", CONFIG, trials=2, storage=url)
    # Another machine: another folder of that name.
    found = tune(tmp_path, tmp_path / "b" / "mine", CONFIG, trials=3, storage=url)
    assert len(fit.runs) == 3
    assert len(found.trials) == 3
    assert not (tmp_path / "a" / "mine" / "study.db").exists()
    with pytest.raises(ConfigError, match="begun with --storage"):
        tune(tmp_path, tmp_path / "a" / "mine", CONFIG, trials=2)
    tune(tmp_path, tmp_path / "own", CONFIG, trials=1)
    with pytest.raises(ConfigError, match="a study of its own"):
        tune(tmp_path, tmp_path / "own", CONFIG, trials=1, storage=url)


def test_any_folder_will_do_and_nothing_is_pickled(fit, tmp_path):
    out = tmp_path / "of {mine}, 50 %?#"
    tune(tmp_path, out, CONFIG, trials=1)
    assert tune(tmp_path, out, CONFIG, trials=1).trials
    with sqlite3.connect(out / "study.db") as base:
        tables = [
            name for (name,) in base.execute("select name from sqlite_master where type='table'")
        ]
        cells = [
            cell
            for name in tables
            for line in base.execute(f"select * from {name}")
            for cell in line
        ]
    assert cells
    assert not any(isinstance(cell, bytes) for cell in cells)


# -- several workers --


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request):
    """What `--storage` says; None: nothing."""
    if request.param == "sqlite":
        yield None
    else:
        with server() as url:
            yield url


def joined(out, storage):
    """The study as Optuna has it."""
    name = "study" if storage is None else out.name
    return optuna.load_study(study_name=name, storage=storage or f"sqlite:///{out / 'study.db'}")


def test_two_workers_lose_no_trial_when_one_is_killed(fit, tmp_path, monkeypatch, database):
    monkeypatch.setattr(studies, "HEARTBEAT", 1)
    monkeypatch.setattr(studies, "GRACE", 2)
    monkeypatch.setattr(workers, "POLL", 0.5)
    # A child of this process must not start PyTorch's threads.
    monkeypatch.setattr(workers.registry, "create", lambda config: SimpleNamespace(lr=0.02))
    monkeypatch.setattr(workers.torch, "manual_seed", lambda seed: None)
    out, reached = tmp_path / "out", tmp_path / "reached"
    fork = multiprocessing.get_context("fork")

    def hang(run):
        reached.write_text(run.out.name)
        time.sleep(60)

    def work(fit, before):
        fit.before = before
        tune(tmp_path, out, CONFIG, trials=5, storage=database)

    victim = fork.Process(target=work, args=(fit, {2: hang}), daemon=True)
    arrives = {1: lambda run: wait_for(reached)}
    other = fork.Process(target=work, args=(fit, arrives), daemon=True)
    victim.start()
    other.start()
    wait_for(reached)
    os.kill(victim.pid, signal.SIGKILL)
    victim.join(10)
    other.join(60)
    assert other.exitcode == 0

    watch = Noted()
    found = tune(tmp_path, out, CONFIG, trials=5, storage=database, watch=watch)
    assert watch.begun == []
    assert [trial.number for trial in found.trials] == [0, 1, 2, 3, 4]
    assert {trial.state for trial in found.trials} == {"complete"}
    assert found.best.value >= found.defaults.value
    assert len({json.dumps(one) for one in params(found)}) == 5
    lost = [one for one in joined(out, database).trials if one.state.name == "FAIL"]
    assert [f"{trial.number:04d}" for trial in lost] == [reached.read_text()]
    assert lost[0].params == found.trials[lost[0].number].params


def test_two_that_look_in_one_moment_begin_no_trial_too_many(fit, tmp_path, monkeypatch, database):
    monkeypatch.setattr(workers.registry, "create", lambda config: SimpleNamespace(lr=0.02))
    monkeypatch.setattr(workers.torch, "manual_seed", lambda seed: None)
    fork = multiprocessing.get_context("fork")
    both, read, before = fork.Barrier(2), workers.Worker._read, studies.Sampler.before_trial

    def read_together(worker, study):
        found = read(worker, study)
        if not found and not both.broken:
            with suppress(threading.BrokenBarrierError):
                both.wait(20)
            both.abort()  # once
        return found

    def begin_slowly(*given):
        time.sleep(0.5)
        before(*given)

    monkeypatch.setattr(workers.Worker, "_read", read_together)
    monkeypatch.setattr(studies.Sampler, "before_trial", begin_slowly)
    out = tmp_path / "out"
    two = [
        fork.Process(target=tune, args=(tmp_path, out, CONFIG), kwargs=options, daemon=True)
        for options in [{"trials": 1, "storage": database}] * 2
    ]
    for one in two:
        one.start()
    for one in two:
        one.join(60)
    assert [one.exitcode for one in two] == [0, 0]
    assert [one.state.name for one in joined(out, database).trials] == ["COMPLETE"]


def wait_for(path):
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.1)
    raise AssertionError(path)


def test_a_worker_that_slept_lets_go_of_its_trial(fit, tmp_path):
    out = tmp_path / "out"

    def asleep(run):
        base = optuna.load_study(study_name="study", storage=f"sqlite:///{out / 'study.db'}")
        frozen = base.trials[1]
        base.tell(1, state=optuna.trial.TrialState.FAIL)
        studies.run_again(base, frozen, died=True)

    watch = Noted()
    fit.before = {2: asleep}
    found = tune(tmp_path, out, CONFIG, trials=3, watch=watch)
    assert any("taken over" in note for note in watch.notes)
    assert [trial.number for trial in found.trials] == [0, 1, 2]
    assert fit.runs[1].config == fit.runs[2].config


def test_a_worker_waits_for_what_others_are_at(fit, tmp_path):
    out = tmp_path / "out"
    tune(tmp_path, out, CONFIG, trials=1)
    base = optuna.load_study(study_name="study", storage=f"sqlite:///{out / 'study.db'}")
    theirs = base.ask()
    theirs.set_user_attr("number", 1)
    theirs.suggest_float("dropout", 0.0, 0.7)

    class Patient(Noted):
        def waiting(self, count):
            super().waiting(count)
            theirs.set_user_attr("epoch", 1)
            base.tell(theirs, 0.6)

    watch = Patient()
    found = tune(tmp_path, out, CONFIG, trials=2, watch=watch)
    assert watch.waited == [1]
    assert [trial.value for trial in found.trials] == [pytest.approx(0.75), 0.6]


def test_a_trial_that_kills_its_workers_is_given_up(fit, tmp_path):
    out = tmp_path / "out"
    tune(tmp_path, out, CONFIG, trials=1)
    base = optuna.load_study(study_name="study", storage=f"sqlite:///{out / 'study.db'}")
    for attempt in range(studies.DEATHS + 1):
        trial = base.ask()
        trial.set_user_attr("number", 1)
        trial.suggest_float("dropout", 0.0, 0.7)
        base.tell(trial, state=optuna.trial.TrialState.FAIL)
        studies.run_again(base, base.trials[-1], died=True)
        studies.run_again(base, base.trials[trial.number], died=True)  # seen by two at once
        assert len(base.trials) == min(attempt + 3, studies.DEATHS + 2)
    found = tune(tmp_path, out, CONFIG, trials=3)
    assert [(trial.number, trial.state) for trial in found.trials][:2] == [
        (0, "complete"),
        (1, "failed"),
    ]
    assert "killed 4 times" in found.trials[1].reason
    assert len(found.over) == 3


# -- with real trainings --


@pytest.fixture
def lean(monkeypatch):
    monkeypatch.setattr(training, "TensorBoard", lambda *_: SimpleNamespace(add=id, close=str))
    monkeypatch.setattr(training, "glance", lambda samples: SimpleNamespace(line=""))
    monkeypatch.setattr(training, "draw_curves", lambda *_: None)
    monkeypatch.setattr(gc, "collect", lambda *_: 0)


def test_the_test_split_is_out_of_reach(data, without_test, tmp_path, monkeypatch, lean):
    opened = []

    def reading(path, *rest):
        opened.append(path)
        return read_image(path, *rest)

    monkeypatch.setenv("BONAFACE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(batches, "read_image", reading)
    with_test = tune(data, tmp_path / "one", CONFIG, trials=1)
    assert len(opened) == 2 * (12 + 6)
    assert not any("test" in path.relative_to(data).parts for path in opened)
    assert (tmp_path / "one" / "trials" / "0000" / "training" / "history.csv").is_file()
    assert not list((tmp_path / "one").rglob("*.safetensors"))

    # A set without the split gives the same, also when the first trial is stopped in between.
    class Press(Noted):
        def stepped(self, epoch, step, steps, loss, images):
            if epoch == 2:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        tune(without_test, tmp_path / "two", CONFIG, trials=1, watch=Press())
    found = tune(without_test, tmp_path / "two", CONFIG, trials=1)
    assert found.trials[0].value == with_test.trials[0].value
    assert found.trials[0].params == with_test.trials[0].params


# -- what it is worth --


def test_the_interval_of_an_auc_is_that_of_the_paper():
    # Hanley and McNeil (1982): 58 normal and 51 abnormal images, 0.893, standard error 0.032.
    low, high = auc_interval(0.893, 58, 51)
    assert math.log(0.893 / 0.107) - math.log(low / (1 - low)) == pytest.approx(
        1.96 * 0.0325 / (0.893 * 0.107), rel=0.01
    )
    assert low < 0.893 < high < 1


def test_the_interval_of_an_auc_holds_the_truth():
    rng, truth = np.random.default_rng(0), 0.8
    gap = math.sqrt(2) * 0.8416212335729143  # of two normal distributions with that AUC
    held = 0
    for _ in range(400):
        real, fake = rng.normal(0, 1, 40), rng.normal(gap, 1, 40)
        low, high = auc_interval(float((fake[:, None] > real).mean()), 40, 40)
        held += low <= truth <= high
    assert 0.92 < held / 400 < 0.98


@pytest.mark.parametrize("value", [0.0, 0.5, 0.999, 1.0])
def test_an_interval_is_within_its_range_and_wider_for_fewer(value):
    few, many = auc_interval(value, 20, 30), auc_interval(value, 200, 300)
    for low, high in (few, many):
        assert 0 <= low <= value <= high <= 1
    assert few[1] - few[0] > many[1] - many[0]


def made(n=30, monitor="auc", **changes):
    config = TrainConfig(model="resnet50", epochs=10, pretrained="weights", monitor=monitor)
    space = search_space(config, CNN, 5000)
    rng = np.random.default_rng(3)
    trials = []
    for number in range(n):
        drawn = {
            one.name: one.choices[rng.integers(len(one.choices))]
            if one.choices
            else float(rng.uniform(one.low, one.high))
            for one in space
        }
        state = "pruned" if number % 4 == 3 else "failed" if number == 5 else "complete"
        value = None if state == "failed" else 0.5 + 0.01 * number
        reason = "expected a <b>finite</b> loss" if state == "failed" else None
        settings = settings_of(drawn, config, RATES)
        trials.append(Trial(number, state, value, 2, 10.0, drawn, settings, reason))
    facts = {
        "name": "faces <i>",
        "fingerprint": "a" * 64,
        "counts": {"train": {"real": 2500, "fake": 2500}, "validation": {"real": 40, "fake": 60}},
        "config": config,
        "rates": RATES,
        "space": space,
        "trials": tuple(trials),
        "importance": Importance({"lr": 0.7, "freeze": 0.3}, 8),
        "asked": n,
    }
    return Tuning(**facts | changes)


def test_the_page_stands_alone_and_warns(tmp_path):
    found = made()
    page = assert_stands_alone(write_tuning_page(found, tmp_path).read_text(encoding="utf-8"))
    assert "Trial 29 is the best of 30 trials: validation AUC 0.790, against 0.500" in page.text
    assert "flatters itself" in page.text
    assert "100 validation pictures cannot tell small differences apart" in page.text
    assert "from 8 completed trials, which are too few for it to mean much" in page.text
    assert "expected a <b>finite</b> loss" in page.text
    assert "faces <i>" in page.text
    drawn = [a for tag, a in page.tags if tag == "svg" and "plot" in a.get("class", "")]
    assert len(drawn) == 2 + len(found.space)
    table = page.text[
        page.text.index("The best trials, and") : page.text.index("Setting by setting")
    ]
    assert table.count("(defaults)") == 1


def test_the_difference_may_be_chance():
    found = made(4)
    assert found.best.number == 2
    assert "may be chance" in doubt(found)
    assert "also the luckiest" in doubt(made(30))
    assert doubt(made(1)) is None
    assert "No trial did better on validation than the defaults" in verdict(made(1))
    assert doubt(made(4, monitor="loss")) is None
    assert "best of 4 trials" not in verdict(made(4, monitor="loss"))
    accuracy = made(30, monitor="accuracy")
    figure = accuracy.figure(accuracy.best)
    assert figure.low == pytest.approx(0.700, abs=2e-3)  # Wilson, 79 of 100
    assert figure.high == pytest.approx(0.858, abs=2e-3)


def test_the_files_hold_every_setting(tmp_path):
    found = made()
    save_tuning(found, tmp_path)
    best = TrainConfig.read(tmp_path / "best.toml")
    assert best == found.settings(found.best)
    assert best.lr == found.best.settings["lr"]
    assert best.model_fields_set >= {"lr", "batch_size", "epochs", "pretrained", "seed"}
    with (tmp_path / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(line["number"]) for line in rows] == list(range(30))
    assert list(TrainConfig.model_fields) == list(rows[0])[5:-1]
    assert float(rows[7]["lr"]) == found.trials[7].settings["lr"]
    assert rows[5]["value"] == ""
    assert rows[5]["reason"] == "expected a <b>finite</b> loss"
    card = json.loads((tmp_path / "tuning.json").read_text())
    assert card["schema_version"] == 1
    assert card["best"]["number"] == 29
    assert card["defaults"]["figure"]["value"] == 0.5
    assert card["importance"] == {"shares": {"lr": 0.7, "freeze": 0.3}, "n": 8, "reason": None}
    assert len(card["trials"]) == 30


def test_importance_follows_what_matters():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(3):
        study.add_trial(plain(study, 0.1, 0.2, 1.0))
    assert studies.importance(study) == Importance(None, 3, "3 completed trials, fewer than 4")
    study.add_trial(plain(study, 0.3, 0.4, 1.0))
    assert studies.importance(study).reason == "all completed trials have the same figure"
    rng = np.random.default_rng(0)
    for x, y in rng.uniform(0, 1, (20, 2)):
        study.add_trial(plain(study, x, y, 10 * x))
    found = studies.importance(study)
    assert found.n == 24
    assert list(found.shares) == ["x", "y"]
    assert sum(found.shares.values()) == pytest.approx(1, abs=1e-3)
    assert found.shares["x"] > 0.8


def plain(study, x, y, value):
    unit = optuna.distributions.FloatDistribution(0, 1)
    return optuna.trial.create_trial(
        params={"x": float(x), "y": float(y)}, distributions={"x": unit, "y": unit}, value=value
    )
