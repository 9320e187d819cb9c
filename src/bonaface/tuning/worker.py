"""One worker of a study: it trains what is proposed, reports, and waits for the others."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import torch
from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial, TrialState

from bonaface.config import TrainConfig
from bonaface.errors import DivergedError
from bonaface.files import write_text
from bonaface.history import Epoch
from bonaface.models import registry
from bonaface.training import Run, Watch, fit
from bonaface.tuning.results import Trial, Tuning
from bonaface.tuning.space import DIED, NUMBER, number_of, search_space, settings_of, suggest
from bonaface.tuning.study import DEATHS, importance, run_again

POLL = 5.0  # seconds between looks at what other workers do
_BEGIN_SECONDS = 60  # that a worker waits for another one to begin
_FAILED, _EPOCH, _SECONDS = "failed", "epoch", "seconds"  # attributes of a trial


class TuningWatch(Watch):
    """Is told how a study goes; between its trials, and by the methods of `Watch` within one."""

    def trial_begun(self, number: int, settings: Mapping[str, Any]) -> None:
        """A trial begins, or goes on, with these searched settings."""

    def trial_ended(self, tuning: Tuning, trial: Trial) -> None:
        """A trial of this worker is finished; the study as it stands now."""

    def waiting(self, count: int) -> None:
        """Nothing is left to begin; so many trials are still with other workers."""


class Worker:
    """Runs trials of a study, one after the other."""

    def __init__(self, run: Run, trials: int, watch: TuningWatch) -> None:
        """Takes a run that was prepared with the defaults; its `out` is the study's folder."""
        self.run = run
        self.counts = {
            split: {
                label: sum((row.split, row.label) == (split, i) for row in run.cache.rows)
                for i, label in enumerate(("real", "fake"))
            }
            for split in ("train", "validation")
        }
        pictures = sum(self.counts["train"].values())
        self.space = search_space(run.config, run.made.architecture, pictures)
        self._trials = trials
        self._watch = watch
        self._taken = False
        self._beginning = FileLock(run.out / "trials" / "lock")
        optimizers = {run.config.optimizer} | {
            name for one in self.space if one.name == "optimizer" for name in one.choices
        }
        self._rates = {name: self._rate(name) for name in sorted(optimizers)}

    def work(self, study: optuna.Study) -> Tuning:
        """Run trials until enough are finished, and wait for those that others are at."""
        told = 0
        while True:
            optuna.storages.fail_stale_trials(study)
            trials = self._read(study)
            left = sum(not one.is_over for one in trials)
            if len(trials) - left >= self._trials:
                return self._tuning(study, trials)
            if self._is_due(trials):
                told = 0
                self._begin_one(study)
            else:
                if left != told:
                    told = left
                    self._watch.waiting(left)
                time.sleep(POLL)

    def _is_due(self, trials: Sequence[Trial]) -> bool:
        """Whether there is a trial to begin, or to begin again."""
        return len(trials) < self._trials or any(one.state == "waiting" for one in trials)

    def _begin_one(self, study: optuna.Study) -> None:
        """One worker at a time looks and begins, or both would take the last trial for theirs."""
        (self.run.out / "trials").mkdir(parents=True, exist_ok=True)
        with suppress(Timeout):  # of a worker that was halted there; one trial too many is cheaper
            self._beginning.acquire(timeout=_BEGIN_SECONDS)
        try:
            if self._is_due(self._read(study)):
                self._run_one(study)
        finally:
            self._beginning.release()

    def _run_one(self, study: optuna.Study) -> None:
        self._taken = False
        try:
            study.optimize(self, n_trials=1, callbacks=[self._ended], gc_after_trial=True)
        except Exception:
            if not self._taken:
                raise
            self._watch.note("a trial was taken over by another worker, as this one slept")

    def __call__(self, trial: optuna.Trial) -> float:
        """Train the settings that the study proposes; the best validation figure."""
        try:
            return self._train(trial)
        except optuna.TrialPruned:
            raise
        except BaseException:
            if self._is_ours(trial):
                run_again(trial.study, self._frozen(trial))
            raise
        finally:
            self._taken = not self._is_ours(trial)

    def _train(self, trial: optuna.Trial) -> float:
        trials = trial.study.get_trials(deepcopy=False)
        number = number_of(trials[trial.number], trials)
        trial.set_user_attr(NUMBER, number)
        self._beginning.release()
        params = {one.name: suggest(trial, one) for one in self.space}
        settings = settings_of(params, self.run.config, self._rates)
        config = self.run.config.model_copy(update=settings)
        torch.manual_seed(config.seed)
        run = replace(
            self.run,
            out=self._folder(number),
            config=config,
            made=registry.create(config),
            watch=_Reports(trial, config, self._watch),
        )
        write_text(run.folder / "config.toml", config.to_toml())
        self._watch.trial_begun(number, settings)
        try:
            state = fit(run, resume=True)
        except (torch.OutOfMemoryError, MemoryError) as error:
            trial.set_user_attr(_FAILED, f"out of memory ({error}); fix a smaller batch size")
            raise optuna.TrialPruned from error
        except DivergedError as error:
            # To Optuna it is the worst of the pruned ones, so that the search keeps away.
            trial.set_user_attr(_FAILED, str(error))
            raise optuna.TrialPruned from error
        best = state.best or 0.0
        trial.set_user_attr(_EPOCH, state.best_epoch)
        return -best if config.monitor == "loss" else best

    def _ended(self, study: optuna.Study, trial: FrozenTrial) -> None:
        # A study of a hundred trials would fill the disk.
        number = trial.user_attrs[NUMBER]
        for file in (self._folder(number) / "training").glob("*.safetensors"):
            file.unlink(missing_ok=True)
        trials = self._read(study)
        mine = next(one for one in trials if one.number == number)
        self._watch.trial_ended(self._tuning(study, trials), mine)

    def _folder(self, number: int) -> Path:
        return self.run.out / "trials" / f"{number:04d}"

    def _rate(self, optimizer: str) -> float:
        if optimizer == self.run.config.optimizer:
            return self.run.made.lr
        return registry.create(self.run.config.model_copy(update={"optimizer": optimizer})).lr

    def _frozen(self, trial: optuna.Trial) -> FrozenTrial:
        return trial.study.get_trials(deepcopy=False)[trial.number]

    def _is_ours(self, trial: optuna.Trial) -> bool:
        """False after a pause without heartbeats: another worker has it now, or has finished it."""
        return self._frozen(trial).state is TrialState.RUNNING

    def _read(self, study: optuna.Study) -> list[Trial]:
        """The trials by number, each as its last attempt left it."""
        # Without a number: a worker is about to begin it, or died in doing so.
        last = {
            one.user_attrs[NUMBER]: one
            for one in study.get_trials(deepcopy=False)
            if NUMBER in one.user_attrs
        }
        return [
            self._trial(one)
            for _, one in sorted(last.items())
            if one.state is not TrialState.FAIL or one.user_attrs.get(DIED) == DEATHS
        ]

    def _trial(self, found: FrozenTrial) -> Trial:
        attributes, reported = found.user_attrs, found.intermediate_values
        state, reason, value, epoch = found.state.name.lower(), None, None, None
        if found.state is TrialState.COMPLETE:
            value, epoch = found.value, attributes[_EPOCH]
        elif _FAILED in attributes:
            state, reason = "failed", attributes[_FAILED]
        elif found.state is TrialState.FAIL:
            state = "failed"
            reason = f"its worker was killed {DEATHS + 1} times; out of memory?"
        elif found.state is TrialState.PRUNED:
            better = min if self.run.config.monitor == "loss" else max
            epoch = better(reported, key=reported.__getitem__)
            value = reported[epoch]
            reason = f"behind the median of the trials before it, at epoch {found.last_step}"
        return Trial(
            found.user_attrs[NUMBER],
            state,  # type: ignore[arg-type]
            value,
            epoch,
            round(attributes.get(_SECONDS, 0.0), 1),
            found.params,
            settings_of(found.params, self.run.config, self._rates),
            reason,
        )

    def _tuning(self, study: optuna.Study, trials: Sequence[Trial]) -> Tuning:
        return Tuning(
            name=self.run.samples.root.name,
            fingerprint=self.run.fingerprint,
            counts=self.counts,
            config=self.run.config,
            rates=self._rates,
            space=self.space,
            trials=tuple(trials),
            importance=importance(study),
            asked=self._trials,
        )


class _Reports(Watch):
    """Passes on how the run of a trial goes, tells the study, and ends it when it falls behind."""

    def __init__(self, trial: optuna.Trial, config: TrainConfig, watch: TuningWatch) -> None:
        self._trial = trial
        self._config = config
        self._watch = watch
        self._number = trial.user_attrs[NUMBER]
        self._seconds = trial.user_attrs.get(_SECONDS, 0.0)

    def stepped(self, epoch: int, step: int, steps: int, loss: float, images: int) -> None:
        """Passed on."""
        self._watch.stepped(epoch, step, steps, loss, images)

    def epoch_ended(self, row: Epoch, best: bool) -> None:
        """Passed on, and reported."""
        self._watch.epoch_ended(row, best)
        self._seconds += row.seconds
        self._trial.set_user_attr(_SECONDS, self._seconds)
        self._trial.report(getattr(row, f"validation_{self._config.monitor}"), row.epoch)
        # The defaults run to their end, since the others are compared with them.
        if self._number and row.epoch < self._config.epochs and self._trial.should_prune():
            raise optuna.TrialPruned
