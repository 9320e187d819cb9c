"""What is searched, and how the next settings are proposed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial

from bonaface.augment import RECIPES
from bonaface.config import TrainConfig
from bonaface.errors import ConfigError
from bonaface.tuning.results import RANDOM_TRIALS, Parameter, Params

NUMBER: Final = "number"  # attribute of every trial that has begun
DIED: Final = "died"  # attribute of one that is run again: how many workers have died in it
_BATCH_SIZES: Final = (8, 16, 32, 64, 128)
_STEPS: Final = 8  # an epoch has at least so many, whatever the batch size


def number_of(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> int:
    """The number that settings go by through every attempt at them; without gaps.

    Args:
        trial: an attempt.
        trials: all of its study, of which Optuna counts each attempt.
    """
    if NUMBER in trial.user_attrs:
        return int(trial.user_attrs[NUMBER])
    return trial.number - sum(DIED in one.user_attrs for one in trials[: trial.number])


def search_space(
    config: TrainConfig, architecture: Mapping[str, Any], pictures: int
) -> tuple[Parameter, ...]:
    """What may be searched and was not named in making `config`.

    Args:
        config: the settings that were given.
        architecture: of the network; dropout is searched where it has some.
        pictures: of the training split.

    Raises:
        ConfigError: nothing is left to search.
    """
    sizes = tuple(n for n in _BATCH_SIZES if n == 32 or n * _STEPS <= pictures)
    every = [
        # In units of the default, since that of SGD is another one than that of AdamW.
        Parameter("lr", "learning rate, times the default", low=0.03, high=10.0, log=True),
        Parameter("batch_size", "batch size", sizes),
        Parameter("weight_decay", "weight decay", low=1e-5, high=0.1, log=True),
        Parameter("dropout", "dropout", low=0.0, high=0.7),
        Parameter("optimizer", "optimiser", ("adamw", "sgd")),
        Parameter("augment", "augmentation", tuple(RECIPES)),
    ]
    if config.pretrained is not None:
        every.append(Parameter("freeze", "freezing", ("none", "backbone", "staged")))
    fixed = set(config.model_fields_set)
    fixed |= {"dropout"} - set(architecture) | ({"batch_size"} if len(sizes) == 1 else set())
    space = tuple(one for one in every if one.name not in fixed)
    if not space:
        raise ConfigError(
            f"expected a setting to search out of {', '.join(one.name for one in every)}, got all "
            "of them fixed; leave some out"
        )
    return space


def suggest(trial: optuna.Trial, one: Parameter) -> Any:
    """The value that a study proposes."""
    if one.choices:
        return trial.suggest_categorical(one.name, one.choices)
    return trial.suggest_float(one.name, one.low, one.high, log=one.log)


def defaults(space: Sequence[Parameter], config: TrainConfig) -> Params:
    """The parameters that settings amount to."""
    return {one.name: 1.0 if one.name == "lr" else getattr(config, one.name) for one in space}


def settings_of(params: Params, config: TrainConfig, rates: Mapping[str, float]) -> dict[str, Any]:
    """The settings that parameters amount to, to three digits, so that a file can say them.

    Args:
        params: of a trial.
        config: what was given.
        rates: default learning rate by optimiser.
    """
    found = dict(params)
    if "lr" in found:
        found["lr"] *= rates[params.get("optimizer", config.optimizer)]
    return {
        name: float(f"{value:.3g}") if isinstance(value, float) else value
        for name, value in found.items()
    }


class Sampler(BaseSampler):
    """TPE whose chance is keyed by the trial's number; trial 0 is the defaults.

    So workers never draw the same, a study that was stopped draws what it would have drawn, and the
    defaults are tried once, whoever comes first.
    """

    def __init__(self, seed: int, defaults: Params) -> None:
        self._seed = seed
        self._defaults = defaults
        self._number = 0
        self._tpe = TPESampler()

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Optuna begins a trial."""
        self._number = number_of(trial, study.get_trials(deepcopy=False))
        key = np.random.SeedSequence([self._seed, self._number]).generate_state(1)
        self._tpe = TPESampler(
            n_startup_trials=RANDOM_TRIALS,
            seed=int(key[0]),
            multivariate=True,
            constant_liar=True,
        )

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """What is proposed jointly."""
        if self._number == 0:
            return {}
        return self._tpe.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Params:
        """Those values."""
        return self._tpe.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """The value of one that is not."""
        if self._number == 0:
            return self._defaults[param_name]
        return self._tpe.sample_independent(study, trial, param_name, param_distribution)
