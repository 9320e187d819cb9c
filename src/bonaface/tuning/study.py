"""The study in its database: begun or joined, and what becomes of trials that workers lose."""

from __future__ import annotations

import math
import random
import sqlite3
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from bonaface.config import TrainConfig
from bonaface.errors import ConfigError
from bonaface.tuning.results import Importance, Parameter
from bonaface.tuning.space import DIED, NUMBER, Sampler, defaults, number_of

DATABASE: Final = "study.db"
DEATHS: Final = 3  # of workers in one trial, after which it is given up
HEARTBEAT = 30  # seconds
GRACE = 120  # seconds without a heartbeat, after which a worker counts as dead
_BUSY_SECONDS: Final = 60  # a worker waits so long for another one's writing
_TRIES: Final = 6
_FEWEST: Final = 4  # trials that an importance is computed from


def open_study(
    out: Path,
    storage: str | None,
    config: TrainConfig,
    space: Sequence[Parameter],
    fingerprint: str,
) -> optuna.Study:
    """Begin a study, or join it.

    Args:
        out: its folder.
        storage: URL of its database; None: SQLite in `out`.
        config: the settings that were given.
        space: what is searched.
        fingerprint: of the data.

    Raises:
        ConfigError: the folder holds something else, the study was begun with something else, or
            the database cannot be used.
    """
    _check_place(out, storage)
    if storage is None:
        out.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=_open_storage(out, storage),
        study_name="study" if storage is None else out.resolve().name,
        direction="minimize" if config.monitor == "loss" else "maximize",
        load_if_exists=True,
        sampler=Sampler(config.seed, defaults(space, config)),
        pruner=optuna.pruners.MedianPruner(
            n_startup_trials=5, n_warmup_steps=_warm_up(space, config)
        ),
    )
    ours = {"data": fingerprint, **config.model_dump(mode="json")}
    ours |= {one.name: str(one) for one in space}
    if "begun" not in study.user_attrs:
        study.set_user_attr("begun", ours)
    theirs = study.user_attrs["begun"]
    differ = [
        f"{key} = {_brief(theirs.get(key))}, now {_brief(value)}"
        for key, value in ours.items()
        if theirs.get(key) != value
    ]
    if differ:
        raise ConfigError(
            f"expected what the study in {str(out)!r} began with ({'; '.join(differ)}); repeat "
            "that, or name another folder"
        )
    return study


def _check_place(out: Path, storage: str | None) -> None:
    has_database = (out / DATABASE).is_file()
    if has_database and storage is not None:
        raise ConfigError(
            f"expected no --storage for {str(out)!r}, which has a study of its own; leave it out, "
            "or name another folder"
        )
    if has_database or (storage is not None and (out / "trials").is_dir()) or not out.exists():
        return
    if not out.is_dir() or any(not found.name.startswith(".") for found in out.iterdir()):
        raise ConfigError(
            f"expected a new or empty folder as --out, or that of a study, got {str(out)!r}, which "
            "holds something else (or a study that was begun with --storage); name another folder"
        )


def _open_storage(out: Path, url: str | None) -> RDBStorage:
    # The path does not go by the URL, in which some of its characters would mean something.
    connect = partial(
        sqlite3.connect, out / DATABASE, timeout=_BUSY_SECONDS, check_same_thread=False
    )
    for left in reversed(range(_TRIES)):
        try:
            return RDBStorage(
                url or f"sqlite:///{DATABASE}",
                engine_kwargs={} if url else {"creator": connect},
                heartbeat_interval=HEARTBEAT,
                grace_period=GRACE,
                heartbeat_stale_trial_callback=partial(run_again, died=True),
            )
        except (SQLAlchemyError, StorageInternalError, ImportError, RuntimeError) as error:
            # Workers that begin together meet while they make the tables; the next try finds them.
            if left == 0 or not isinstance(error, DBAPIError | StorageInternalError):
                raise ConfigError(
                    f"expected a database that Optuna can use, got: {error.__cause__ or error}; "
                    "check its address, and that its driver is installed"
                ) from error
            time.sleep(random.uniform(0.1, 0.5))  # noqa: S311
    raise AssertionError


def _brief(value: Any) -> str:
    return f"{value[:12]}..." if isinstance(value, str) and len(value) == 64 else repr(value)


def _warm_up(space: Sequence[Parameter], config: TrainConfig) -> int:
    """Epochs before which no trial is pruned; stages that open late need more of them."""
    staged = config.freeze == "staged" or any(one.name == "freeze" for one in space)
    return math.ceil(config.epochs / (2 if staged else 3))


def run_again(study: optuna.Study, trial: FrozenTrial, *, died: bool = False) -> None:
    """Queue the settings of a trial that a worker lost, to go on from its checkpoint."""
    trials = study.get_trials(deepcopy=False)
    number, deaths = number_of(trial, trials), int(trial.user_attrs.get(DIED, 0)) + died
    later = trials[trial.number + 1 :]
    if deaths > DEATHS or any(one.user_attrs.get(NUMBER) == number for one in later):
        return
    study.add_trial(
        create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs=trial.user_attrs | {NUMBER: number, DIED: deaths},
            intermediate_values=trial.intermediate_values,
        )
    )


def importance(study: optuna.Study) -> Importance:
    """Which parameters mattered in the completed trials."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    n = len(complete)
    if n < _FEWEST:
        return Importance(None, n, f"{n} completed trials, fewer than {_FEWEST}")
    try:
        shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    except RuntimeError:
        return Importance(None, n, "all completed trials have the same figure")
    return Importance({name: round(float(share), 4) for name, share in shares.items()}, n)


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna's log lines, and its warnings of what may change in it, are not for our users."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            warnings.filterwarnings("ignore", "The reported value is ignored")  # after a resume
            yield
    finally:
        optuna.logging.set_verbosity(before)
