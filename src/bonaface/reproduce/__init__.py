"""A study as one file of settings: many training runs, each measured, and what they say together.

`plan` turns the file into runs, `reproduce` makes those that are missing, and `analysis` joins them
over seeds. Nothing here draws; `bonaface.report.study` does.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from filelock import FileLock, Timeout
from pydantic import Field

from bonaface.bundle import Bundle, load_bundle
from bonaface.config import Config, TrainConfig
from bonaface.detector import load_detector
from bonaface.errors import BundleError, ConfigError, DataError, DivergedError
from bonaface.evaluate import Evaluation, evaluate, read_evaluation, save_evaluation
from bonaface.history import read_history
from bonaface.models import registry
from bonaface.reproduce.analysis import Finished, Planned, Study, analyse
from bonaface.samples import Samples, load_samples
from bonaface.training import Watch, check_settings, train

__all__ = ["Finished", "Planned", "Study", "StudyConfig", "plan", "reproduce"]

POLL = 5.0  # seconds between looks at what other processes do

_Several = Field(strict=False, min_length=1)


class _Axes(Config):
    """What the runs of an arm differ in."""

    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], _Several] = (0,)
    epochs: Annotated[tuple[Annotated[int, Field(ge=0)], ...], _Several] = (10,)
    pictures: Annotated[tuple[int | Literal["all"], ...], _Several] = ("all",)


_AXES = tuple(_Axes.model_fields)


class StudyConfig(_Axes):
    """What a study consists of: every arm at every seed, number of epochs and size of the set.

    Attributes:
        seeds: of each arm's runs.
        epochs: lengths of a run, each with a schedule of its own; the first is the early look, the
            last should be convergence.
        pictures: sizes of the training set; "all" is the whole.
        compare: arms that are tested against each other and measured on other data; empty: all.
        transfer: data sets whose test splits these arms, trained on the whole set, are measured on
            besides their own; where the study's own is among them, it counts once.
        train: settings that all arms share, as of `bonaface train --config`.
        arms: by name, what is its own: settings, and any of seeds, epochs and pictures that differ
            from those of the study; under ``also`` a list of further such differences from these,
            each of which adds runs.
    """

    compare: Annotated[tuple[str, ...], Field(strict=False)] = ()
    transfer: Annotated[tuple[str, ...], Field(strict=False)] = ()
    train: dict[str, Any] = Field(default_factory=dict)
    arms: Annotated[
        dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")], dict[str, Any]],
        Field(min_length=1),
    ]


def plan(config: StudyConfig) -> tuple[Planned, ...]:
    """The runs of a study: short ones first, then by seed, so that an unfinished study says most.

    Raises:
        ConfigError: an arm's settings are unknown or out of range, or `compare` names no arm.
    """
    for name in config.compare:
        if name not in config.arms:
            raise ConfigError(
                f"expected names of arms in compare ({', '.join(config.arms)}), got {name!r}; "
                "correct it"
            )
    found = []
    for place, (arm, own) in enumerate(config.arms.items()):
        try:
            shared = _settings(config.train) | _settings(
                {key: value for key, value in own.items() if key not in (*_AXES, "also")}
            )
            for epochs, seed, pictures in _grid(config, own):
                settings = TrainConfig.read(
                    None,
                    **shared
                    | {"seed": seed, "epochs": epochs}
                    | ({} if pictures == "all" else {"pictures": pictures}),
                )
                found.append(((epochs, seed, place), Planned(arm, settings)))
        except ConfigError as error:
            raise ConfigError(f"arm {arm!r}: {error}") from error
    found.sort(key=lambda entry: entry[0])
    runs = tuple(planned for _, planned in found)
    for name, times in Counter(run.name for run in runs).items():
        if times > 1:
            raise ConfigError(
                f"expected every run once, got {name!r} {times} times; leave out what is there "
                "twice, or name an arm otherwise"
            )
    return runs


def _grid(config: StudyConfig, own: dict[str, Any]) -> list[tuple[int, int, int | str]]:
    """Epochs, seed and pictures of each run of an arm."""
    first = config.model_dump(include=set(_AXES)) | {k: own[k] for k in _AXES if k in own}
    also = own.get("also", [])
    if not isinstance(also, list) or not all(isinstance(part, dict) for part in also):
        raise ConfigError(
            f"expected also = [{{ epochs = [30], seeds = [0] }}] or the like, got {also!r}; "
            "correct it"
        )
    found: list[tuple[int, int, int | str]] = []
    for part in ({}, *also):
        axes = _Axes.read(None, **first | part)
        found += list(product(axes.epochs, axes.seeds, axes.pictures))
    return found


def _settings(given: dict[str, Any]) -> dict[str, Any]:
    """Settings of a run, without those that the study gives it."""
    for key in ("seed", "epochs", "pictures"):
        if key in given:
            raise ConfigError(
                f"expected {key} of a study as {key.removesuffix('s')}s = [...], beside [train] or "
                f"in an arm, got {key} = {given[key]!r}; put it there"
            )
    return given


def reproduce(
    data: Path,
    out: Path,
    config: StudyConfig,
    *,
    finished_only: bool = False,
    ratios: tuple[float, float, float] | None = None,
    workers: int | None = None,
    watch: Watch | None = None,
) -> Study:
    """Make the runs that are missing, measure each on test once all are there, and analyse them.

    Called again, it goes on where it was stopped; a study may also grow: runs that are there are
    kept. Several processes may work on one `out`: each takes runs that no other is at, and all
    end with the whole study. A run that fails (its loss diverges) is told of, and the others go on.

    Args:
        data: as for `bonaface.training.train`, with a test split.
        out: folder of the study; each run is a bundle in ``runs/``.
        config: the study.
        finished_only: train nothing, and analyse what is there.
        ratios: shares of train, validation and test, for data that has no splits.
        workers: threads that prepare batches, as for `train`.
        watch: is told how the runs go.

    Raises:
        ConfigError: a run in `out` was made with other settings; or a setting does not fit.
        DataError: the data cannot be used, a run was made with other data, or nothing is finished.
    """
    watch = watch or Watch()
    planned = plan(config)
    samples = load_samples(data, ratios=ratios, need=("train", "validation", "test"))
    others = _others(config.transfer, samples)
    # Each looks at every file of a set, which need not be done anew for every run.
    prints = {one.root: one.fingerprint() for one in (samples, *others.values())}
    bundles = {
        run.name: _finished(out / "runs" / run.name, run, samples, prints[samples.root])
        for run in planned
    }
    missing = [run for run in planned if bundles[run.name] is None]
    failed: dict[str, str] = {}
    if not finished_only:
        _try_out(missing, samples)
        with closing(_in_turn(missing, out, watch)) as turns:
            for run in turns:
                folder = out / "runs" / run.name
                # Another process may have made it since.
                bundles[run.name] = _finished(folder, run, samples, prints[samples.root])
                if bundles[run.name] is not None:
                    continue
                watch.note(f"run {missing.index(run) + 1} of {len(missing)}: {run.name}")
                try:
                    bundles[run.name] = train(
                        data,
                        folder,
                        run.config,
                        resume=(folder / "training" / "config.toml").is_file(),
                        ratios=ratios,
                        workers=workers,
                        watch=watch,
                    )
                except DivergedError as error:
                    failed[run.name] = str(error)
                    watch.note(f"{run.name}: {error}")
    trained = {name: bundle for name, bundle in bundles.items() if bundle is not None}
    there = [run for run in planned if run.name in trained]
    if not there:
        raise DataError(
            f"expected finished runs in {str(out / 'runs')!r}, found none of {len(planned)}; "
            "let them run first"
        )
    compared = config.compare or tuple(config.arms)
    measured: dict[str, dict[str, Evaluation]] = {}
    with closing(_in_turn(there, out, watch)) as turns:
        for run in turns:
            sets = {samples.root.name: samples}
            if run.arm in compared and run.config.pictures is None:
                sets |= others
            bundle = trained[run.name]
            measured[run.name] = {
                name: _measured(bundle, one, prints[one.root], watch) for name, one in sets.items()
            }
    costs: dict[str, int] = {}
    done = []
    for run in there:
        bundle = trained[run.name]
        if run.arm not in costs:
            costs[run.arm] = _multiply_adds(bundle)
        elsewhere = measured[run.name]
        home = elsewhere.pop(samples.root.name)
        history = read_history(bundle.folder / "training")
        done.append(Finished(run, bundle.card, history, costs[run.arm], home, elsewhere))
    unfinished = {
        run.name: failed.get(run.name, "not run yet") for run in planned if run.name not in trained
    }
    return analyse(samples, done, unfinished, compared)


def _in_turn(runs: Sequence[Planned], out: Path, watch: Watch) -> Generator[Planned]:
    """Each run once, locked while it is worked on; those that other processes hold come last."""
    locks = out / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    left = list(runs)
    told = 0
    while left:
        held = []
        for run in left:
            try:
                # The system frees it when the process ends, however it ends.
                with FileLock(locks / f"{run.name}.lock", blocking=False):
                    yield run
            except Timeout:
                held.append(run)
        if len(held) == len(left):
            if told != len(held):
                told = len(held)
                watch.note(f"waiting for other processes, which are at {told} runs")
            time.sleep(POLL)
        left = held


def _others(named: Sequence[str], home: Samples) -> dict[str, Samples]:
    """Data sets that are measured on besides the study's own, by the name of their folder."""
    found: dict[str, Samples] = {}
    for name in named:
        other = load_samples(Path(name), check=False)
        if other.root == home.root:
            continue
        key = other.root.name
        if key in found or key == home.root.name:
            raise ConfigError(
                f"expected data sets with different names in transfer, got {key!r} twice; "
                "rename a folder"
            )
        if not len(other.split("test")):
            raise DataError(
                f"expected a test split in {str(other.root)!r}, found none; leave it out of "
                "transfer"
            )
        found[key] = other
    return found


def _finished(folder: Path, run: Planned, samples: Samples, fingerprint: str) -> Bundle | None:
    """The bundle of a run, if it is there and is that run; None if it is still to be trained."""
    if not (folder / "card.json").is_file():
        return None
    bundle = load_bundle(folder)
    changed = TrainConfig.read(None, **bundle.card.training["config"]).changes(run.config)
    if changed:
        raise ConfigError(
            f"expected the run {run.name!r} to have the study's settings, but it was made with "
            f"{'; '.join(changed)}; name the arm otherwise, or take another --out"
        )
    if bundle.card.data["fingerprint"] != fingerprint:
        raise DataError(
            f"expected the run {run.name!r} to be trained on {str(samples.root)!r}, got one of "
            "other data; take another --out"
        )
    return bundle


def _try_out(missing: Sequence[Planned], samples: Samples) -> None:
    """Let what cannot work fail before hours of training; each arm's network is built once."""
    built = set()
    for run in missing:
        try:
            check_settings(run.config, samples)
            if run.arm not in built:
                registry.create(run.config)
        except (ConfigError, BundleError) as error:
            raise type(error)(f"arm {run.arm!r}: {error}") from error
        built.add(run.arm)


def _multiply_adds(bundle: Bundle) -> int:
    return registry.multiply_adds(registry.rebuild(bundle), bundle.preprocess.size)


def _measured(bundle: Bundle, samples: Samples, fingerprint: str, watch: Watch) -> Evaluation:
    """What lies in the bundle's folder for this test split, or else a new evaluation there."""
    folder = bundle.folder / "evaluations" / f"{samples.root.name}-test"
    if (folder / "evaluation.json").is_file():
        found = read_evaluation(folder)
        scored = found.data.real + found.data.fake + len(found.unreadable)
        if (
            found.detector.model_sha256 == bundle.model_sha256
            and found.data.fingerprint == fingerprint
            and found.data.split == "test"
            and found.operating_point.name == "balanced"
            and scored == len(samples.split("test"))
        ):
            return found
    found = evaluate(load_detector(bundle.folder), samples, progress=watch.scored)
    save_evaluation(found, folder)
    return found
