"""What a search for hyper-parameters found."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from scipy import stats

from bonaface import __version__
from bonaface.config import TrainConfig
from bonaface.metrics import Figure

SCHEMA_VERSION: Final = 1
RANDOM_TRIALS: Final = 10  # before the search learns from them
ENOUGH_TRIALS: Final = 10  # with fewer, an importance means little

Params = dict[str, Any]
"""Name of a `Parameter` -> its value."""
Ending = Literal["complete", "pruned", "failed", "running", "waiting"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One dimension of the search.

    Attributes:
        name: the setting of `TrainConfig`.
        label: what its values are, in words.
        choices: from which one is taken; empty for a range.
        low: lower end of a range.
        high: upper end of a range.
        log: whether the range is searched by orders of magnitude.
    """

    name: str
    label: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False

    def __str__(self) -> str:
        if self.choices:
            return f"searched in {', '.join(map(str, self.choices))}"
        return f"searched from {self.low:g} to {self.high:g}"


@dataclass(frozen=True, slots=True)
class Trial:
    """One set of settings, and what came of it.

    Attributes:
        number: 0 is the defaults.
        state: complete; pruned (ended early, as it fell behind); failed; running; waiting (to be
            run again).
        value: best validation figure over its epochs; None where it has none.
        epoch: the epoch of that figure.
        seconds: of training and validation.
        params: name of a `Parameter` -> its value.
        settings: the same as settings of `TrainConfig`.
        reason: why it was pruned or failed.
    """

    number: int
    state: Ending
    value: float | None
    epoch: int | None
    seconds: float
    params: Params
    settings: dict[str, Any]
    reason: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether it counts as one of the trials that were asked for."""
        return self.state in ("complete", "pruned", "failed")


@dataclass(frozen=True, slots=True)
class Importance:
    """How much of the spread of the figures each parameter explains (fANOVA, Hutter et al. 2014).

    Attributes:
        shares: name of a `Parameter` -> share, largest first, adding up to 1; None: there is none.
        n: completed trials that it is computed from.
        reason: why there is none.
    """

    shares: dict[str, float] | None
    n: int
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Tuning:
    """A study as it stands.

    Attributes:
        name: of the data set's folder.
        fingerprint: of the data.
        counts: pictures used, as `{"train": {"real": 7, "fake": 7}, "validation": ...}`.
        config: the settings that were given; with what is searched at its defaults.
        rates: default peak learning rate by optimiser.
        space: what is searched.
        trials: by number; those that other workers are at included.
        importance: of the parameters.
        asked: finished trials that the last command asked for.
    """

    name: str
    fingerprint: str
    counts: dict[str, dict[str, int]]
    config: TrainConfig
    rates: dict[str, float]
    space: tuple[Parameter, ...]
    trials: tuple[Trial, ...]
    importance: Importance
    asked: int

    @property
    def monitor(self) -> str:
        """The validation figure that is searched by: auc, accuracy or loss."""
        return self.config.monitor

    @property
    def over(self) -> tuple[Trial, ...]:
        """The finished trials."""
        return tuple(trial for trial in self.trials if trial.is_over)

    @property
    def defaults(self) -> Trial | None:
        """Trial 0, as soon as it is finished."""
        return next((trial for trial in self.over if trial.number == 0), None)

    @property
    def ranking(self) -> tuple[Trial, ...]:
        """Completed trials, the best first; of equal ones the earlier."""
        sign = 1 if self.monitor == "loss" else -1
        complete = [trial for trial in self.trials if trial.state == "complete"]
        return tuple(sorted(complete, key=lambda trial: sign * (trial.value or 0.0)))

    @property
    def best(self) -> Trial | None:
        """The best completed trial; the defaults where nothing beat them."""
        return next(iter(self.ranking), None)

    def settings(self, trial: Trial) -> TrainConfig:
        """Every setting of a trial, given and searched."""
        return self.config.model_copy(update=trial.settings)

    def figure(self, trial: Trial) -> Figure:
        """A trial's value with an approximate 95 % interval, from the size of the validation set.

        Of AUC by Hanley and McNeil (1982) on the logit scale, of accuracy by Wilson. Both take
        pictures as independent, which those of one person are not, and neither knows that the best
        of several was chosen.
        """
        real, fake = (self.counts["validation"][label] for label in ("real", "fake"))
        n = real + fake
        if trial.value is None:
            return Figure(None, None, None, n, trial.reason or "not finished")
        if self.monitor == "auc":
            return Figure(trial.value, *auc_interval(trial.value, real, fake), n)
        if self.monitor == "accuracy":
            hits = round(trial.value * n)
            interval = stats.binomtest(hits, n).proportion_ci(method="wilson")
            return Figure(trial.value, float(interval.low), float(interval.high), n)
        return Figure(trial.value, None, None, n, "a loss has no interval that its size gives")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "schema_version": SCHEMA_VERSION,
            "bonaface": __version__,
            "data": {
                "name": self.name,
                "fingerprint": self.fingerprint,
                "counts": self.counts,
            },
            "monitor": self.monitor,
            "direction": "minimize" if self.monitor == "loss" else "maximize",
            "config": self.config.model_dump(mode="json", exclude_none=True),
            "default_rates": self.rates,
            "space": [asdict(one) for one in self.space],
            "asked": self.asked,
            "finished": len(self.over),
            "defaults": self._about(self.defaults),
            "best": self._about(self.best),
            "importance": asdict(self.importance),
            "trials": [asdict(trial) for trial in self.trials],
        }

    def _about(self, trial: Trial | None) -> dict[str, Any] | None:
        if trial is None:
            return None
        return {"number": trial.number, "figure": self.figure(trial).to_dict()}


def auc_interval(value: float, real: int, fake: int) -> tuple[float, float]:
    """Approximate 95 % interval of an AUC, from the numbers of reals and fakes.

    Hanley and McNeil (1982), on the logit scale. Where every pair is in order, or none, that has no
    width: then that of a share of as many trials as the smaller class has pictures (Clopper and
    Pearson).
    """
    if value in (0.0, 1.0):
        end = 0.025 ** (1 / min(real, fake))
        return (end, 1.0) if value else (0.0, 1 - end)
    pair_fake = value / (2 - value) - value**2
    pair_real = 2 * value**2 / (1 + value) - value**2
    spread = value * (1 - value)
    variance = (spread + (fake - 1) * pair_fake + (real - 1) * pair_real) / (fake * real)
    reach = 1.96 * math.sqrt(variance) / spread
    middle = math.log(value / (1 - value))
    return tuple(1 / (1 + math.exp(-(middle + sign * reach))) for sign in (-1, 1))  # type: ignore[return-value]
