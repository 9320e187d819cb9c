"""Hyper-parameters by search: many short runs on train, judged on validation, one study on disk.

Optuna proposes settings (TPE), `bonaface.training.fit` trains them, and the median pruner ends what
falls behind. The study lies in a database, so that any number of workers share it, a stopped one
goes on, and the trial of a killed one is run again from its checkpoint. The test split is out of
reach: `bonaface.training.prepare` decodes train and validation alone.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import optuna
from sqlalchemy.exc import SQLAlchemyError

from bonaface.config import TrainConfig
from bonaface.errors import ConfigError, TrainingError
from bonaface.training import prepare
from bonaface.tuning.results import (
    ENOUGH_TRIALS,
    RANDOM_TRIALS,
    Importance,
    Parameter,
    Trial,
    Tuning,
)
from bonaface.tuning.study import open_study, quiet
from bonaface.tuning.worker import TuningWatch, Worker

__all__ = [
    "ENOUGH_TRIALS",
    "RANDOM_TRIALS",
    "Importance",
    "Parameter",
    "Trial",
    "Tuning",
    "TuningWatch",
    "tune",
]


def tune(
    data: Path,
    out: Path,
    config: TrainConfig,
    *,
    trials: int = 20,
    storage: str | None = None,
    ratios: tuple[float, float, float] | None = None,
    workers: int | None = None,
    watch: TuningWatch | None = None,
) -> Tuning:
    """Search settings until the study has so many finished trials; join it if it is there.

    Args:
        data: as for `bonaface.training.train`.
        out: folder of the study, new or empty, or one to join or go on with.
        config: settings of every trial. Those that were named in making it are held fixed; of the
            others, learning rate, batch size, weight decay, dropout, optimiser, augmentation and,
            with pre-trained weights, freezing are searched.
        trials: finished ones in the whole study. Workers whose `out` is not one folder may end with
            one more each.
        storage: URL of a database that Optuna can use, for workers on several machines, which must
            call `out` by the same name; None: ``study.db`` in `out`.
        ratios: shares of train, validation and test, for data that has no splits.
        workers: threads that prepare batches.
        watch: is told how it goes.

    Raises:
        ConfigError: a setting makes no sense, or the study was begun with others.
        DataError: the data cannot be used.
        TrainingError: a checkpoint cannot be written, or the database does not answer.
        KeyboardInterrupt: stopped; the same call goes on.
    """
    watch = watch or TuningWatch()
    if trials < 1 or config.epochs < 1:
        raise ConfigError(
            f"expected at least 1 trial of 1 epoch, got {trials} of {config.epochs}; ask for more"
        )
    with _sigterm_interrupts(), quiet():
        # Every check of a run before the folder is taken, and the pictures decoded once for all.
        with TemporaryDirectory() as scratch:
            unused = Path(scratch) / "run"
            run = prepare(data, unused, config, ratios=ratios, workers=workers, watch=watch)
        worker = Worker(replace(run, out=out), trials, watch)
        try:
            return worker.work(open_study(out, storage, config, worker.space, run.fingerprint))
        except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
            raise TrainingError(
                f"expected the database of the study to answer, got: {error.__cause__ or error}; "
                "go on with the same command"
            ) from error
        except OSError as error:
            raise TrainingError(
                f"expected to write in {str(out)!r}, got: {error}; free some room and go on with "
                "the same command"
            ) from error


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """SIGTERM is Ctrl-C between the runs too; within one, `fit` sees to both."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
