"""Bundles -> how fast each is with every runtime, against PyTorch eager, in one run of rounds."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from bonaface.bench.arms import TITLES, Arm, Clock, Stopwatch, arms_of, open_arm
from bonaface.bench.machine import Energy, Machine, this_machine
from bonaface.bench.rounds import Spread, interleave, ratios
from bonaface.bench.timing import BATCHES, Turn, take_turn
from bonaface.bundle import load_bundle
from bonaface.config import Config
from bonaface.detector import Detector
from bonaface.drawn import draw_face
from bonaface.errors import BonafaceError, BundleError, ConfigError
from bonaface.evaluate import Pixels, as_utf8, evaluate
from bonaface.metrics import Figure
from bonaface.runtimes import import_untold, processor_count
from bonaface.samples import Samples

SCHEMA_VERSION: Final = 1
CROP: Final = 256  # pixels
FACES: Final = 8  # different ones, in turn
FOR_P99: Final = 200  # calls: two of them lie above it
LIBRARIES: Final = ("bonaface", "torch", "onnxruntime", "openvino", "numpy", "pillow")
Progress = Callable[[str, int, int], None]


class BenchConfig(Config):
    """How much is measured.

    Attributes:
        rounds: in each every arm takes its turn; one more goes before them and is thrown away.
        calls: with one crop, of each arm in each round.
        starts: processes of each arm; one more goes before them and is thrown away.
        threads: of the processor, for every arm; None: all cores.
    """

    rounds: int = Field(default=10, ge=1)
    calls: int = Field(default=25, ge=1)
    starts: int = Field(default=3, ge=1)
    threads: int | None = Field(default=None, ge=1)


@dataclass(frozen=True, slots=True)
class Measured:
    """What one arm, a bundle with a runtime, came to. Milliseconds are from crop to logit.

    Attributes:
        name: of the arm.
        bundle: its label.
        runtime: a key of `TITLES`.
        form: of an export, its form; else "trained".
        source: SHA-256 of the network as trained, which arms with the same `against` share.
        against: name of the arm that ratios compare with; its own name: it is that arm.
        calls: with one crop.
        p50: milliseconds for one crop.
        p95: likewise.
        p99: likewise; None: under `FOR_P99` calls.
        network: milliseconds of the median call that the network took, without preprocessing.
        single: median milliseconds, by round.
        single_ratio: times as fast as `against` with one crop, by round.
        rates: crops a second, by batch size and round.
        rate_ratios: times as fast as `against`, by batch size and round.
        start: seconds from starting a process to its first score.
        memory: MiB, the most that process held until it had scored 16 crops; None: not known.
        joules: a crop, of the whole processor; None: not readable.
        bytes: size of the network's files.
        moved: largest difference of a score from that of `against`, on the drawn faces.
        auc: on validation, from the card, or on the test split that was given.
    """

    name: str
    bundle: str
    runtime: str
    form: str
    source: str | None
    against: str
    calls: int
    p50: float
    p95: float
    p99: float | None
    network: float
    single: Spread
    single_ratio: Spread
    rates: dict[int, Spread]
    rate_ratios: dict[int, Spread]
    start: Spread
    memory: Spread | None
    joules: Spread | None
    bytes: int
    moved: float
    auc: Figure

    @property
    def accuracy(self) -> float | None:
        """AUC to three decimals: what lies beyond them decides no choice."""
        return None if self.auc.value is None else round(self.auc.value, 3)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        found: dict[str, Any] = {key: getattr(self, key) for key in self.__slots__}
        return {key: _plain(value) for key, value in found.items()}


@dataclass(frozen=True, slots=True)
class Bench:
    """Every arm, what it was measured on, and what a reader must know.

    Attributes:
        machine: as it was at the start.
        settings: how much was measured; its threads are the number that was used.
        crops: what was scored, in words.
        accuracy: where the AUC comes from, in words.
        data: name, split and fingerprint of the scored files; None: the AUC is of the cards.
        measured: in the order of the bundles.
        notes: what a reader must know.
        unreadable: pictures of `data` without a score.
    """

    machine: Machine
    settings: BenchConfig
    crops: str
    accuracy: str
    data: dict[str, str] | None
    measured: tuple[Measured, ...]
    notes: tuple[str, ...]
    unreadable: int

    @property
    def groups(self) -> list[list[Measured]]:
        """Arms with the same baseline."""
        names = dict.fromkeys(one.against for one in self.measured)
        return [[one for one in self.measured if one.against == name] for name in names]

    @property
    def choices(self) -> list[Measured]:
        """Arms than which no other is as accurate and faster with one crop; the fastest first."""
        best, found = -1.0, []
        for one in sorted(self.measured, key=lambda one: one.p50):
            if one.accuracy is not None and one.accuracy > best:
                best = one.accuracy
                found.append(one)
        return found

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without NaN."""
        return {
            "schema_version": SCHEMA_VERSION,
            "machine": asdict(self.machine) | {"busy": self.machine.busy},
            "settings": self.settings.model_dump(),
            "crops": self.crops,
            "accuracy": self.accuracy,
            "data": self.data,
            "measured": [one.to_dict() for one in self.measured],
            "notes": [as_utf8(note) for note in self.notes],
            "unreadable": self.unreadable,
        }


@dataclass(frozen=True, slots=True)
class _Opened:
    name: str
    label: str
    arm: Arm
    detector: Detector
    watch: Stopwatch


def bench(
    folders: Sequence[Path],
    settings: BenchConfig | None = None,
    *,
    samples: Samples | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
    clock: Clock = time.perf_counter,
) -> Bench:
    """Measure every bundle with every runtime that is installed, the arms taking turns.

    Ratios are to PyTorch eager of the same network as it was trained, where that bundle is among
    `folders`; otherwise to the first arm of ONNX Runtime, or the first, that shares its source.

    Args:
        folders: bundles that `bonaface train` or `export` wrote.
        settings: how much is measured.
        samples: each arm's AUC is measured on their test split; None: the cards' of validation.
        limit: of `samples`, at most so many.
        progress: called with what is done, how much of it, and its total.
        clock: gives seconds.

    Raises:
        ConfigError: no bundle, or one twice.
        BundleError: a folder is no bundle, or is damaged.
        MissingExtraError: a bundle needs OpenVINO, which is not installed.
        DataError: as `evaluate`.
    """
    settings = settings or BenchConfig()
    machine, energy = this_machine(LIBRARIES), Energy()
    threads = settings.threads or processor_count()
    settings = settings.model_copy(update={"threads": threads})
    rng = np.random.default_rng(0)
    faces = [draw_face(rng, CROP).pixels for _ in range(FACES)]
    crops = faces * (max(BATCHES) // FACES)
    with _torch_threads():
        opened, left_out = _open(_labelled(folders), threads, clock)
        starts = _starts(opened, settings, progress)
        turns = _turns(opened, crops, settings, energy=energy, progress=progress, clock=clock)
        scores = {one.name: one.detector.score(faces) for one in opened}
        aucs, accuracy, data, unreadable = _accuracy(opened, samples, limit, progress)
    measured = []
    for one in opened:
        against = _baseline(one, opened)
        measured.append(
            _measured(
                one,
                against.name,
                turns[one.name],
                turns[against.name],
                starts[one.name],
                moved=float(np.abs(scores[one.name] - scores[against.name]).max()),
                auc=aucs[one.name],
            )
        )
    return Bench(
        machine=machine,
        settings=settings,
        crops=f"{FACES} drawn faces of {CROP} x {CROP} px in turn",
        accuracy=accuracy,
        data=data,
        measured=tuple(measured),
        notes=(*_notes(machine, energy, settings, opened, samples), *left_out),
        unreadable=unreadable,
    )


# -- before -----------------------------------------------------------------------------------


def _labelled(folders: Sequence[Path]) -> dict[str, Path]:
    """Folders by the names of their cards; of those that share one, by their paths."""
    if not folders:
        raise ConfigError("expected at least one bundle, got none; name the --out of a training")
    places = [folder.resolve() for folder in folders]
    twice = [str(f) for f, place in zip(folders, places, strict=True) if places.count(place) > 1]
    if twice:
        raise ConfigError(f"expected each bundle once, got {twice[0]!r} twice; name it once")
    names = [load_bundle(folder).card.name for folder in folders]
    return {
        name if names.count(name) == 1 else f"{name} ({folder})": folder
        for name, folder in zip(names, folders, strict=True)
    }


def _open(
    folders: Mapping[str, Path], threads: int, clock: Clock
) -> tuple[list[_Opened], list[str]]:
    """The arms, and what could not be opened though the bundle itself can."""
    opened, left_out = [], []
    for label, folder in folders.items():
        for arm in arms_of([load_bundle(folder)]):
            name = f"{label}, {TITLES[arm.runtime]}"
            try:
                opened.append(_Opened(name, label, arm, *open_arm(arm, threads, clock)))
            except (BonafaceError, ImportError) as error:
                if arm.own:
                    raise
                left_out.append(f"{name} is left out: {error}.")
    return opened, left_out


@contextmanager
def _torch_threads() -> Iterator[None]:
    """PyTorch's number of threads is the process's: put it back."""
    if not find_spec("torch"):
        yield
        return
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _baseline(one: _Opened, opened: Sequence[_Opened]) -> _Opened:
    same = [other for other in opened if other.arm.source == one.arm.source]
    for runtime in ("pytorch", "onnxruntime"):
        for other in same:
            if other.arm.runtime == runtime:
                return other
    return same[0]


# -- measuring --------------------------------------------------------------------------------


def _starts(
    opened: Sequence[_Opened], settings: BenchConfig, progress: Progress | None
) -> dict[str, list[tuple[float, float | None]]]:
    done = 0

    def start(one: _Opened) -> tuple[float, float | None]:
        nonlocal done
        found = _start(one, settings.threads or 1)
        done += 1
        if progress:
            progress("starting", done, len(opened) * (settings.starts + 1))
        return found

    return interleave({one.name: partial(start, one) for one in opened}, settings.starts)


def _start(one: _Opened, threads: int) -> tuple[float, float | None]:
    """Seconds to the first score of a new process, and the MiB that it came to hold."""
    command = [sys.executable, "-m", "bonaface.bench.child", str(one.arm.bundle.folder)]
    begun = time.monotonic()
    done = subprocess.run(  # noqa: S603  (our own module)
        [*command, one.arm.runtime, str(threads)], capture_output=True, text=True, check=False
    )
    try:
        done.check_returncode()
        found = TypeAdapter(dict[str, float | None]).validate_json(done.stdout)
    except (subprocess.CalledProcessError, ValidationError) as error:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise BundleError(
            f"expected a first score of {one.name!r} in a process of its own, got: {last}; "
            "see `bonaface doctor`"
        ) from error
    return float(found["at"] or 0) - begun, found["peak"]


def _turns(
    opened: Sequence[_Opened],
    crops: Sequence[Pixels],
    settings: BenchConfig,
    *,
    energy: Energy,
    progress: Progress | None,
    clock: Clock,
) -> dict[str, list[Turn]]:
    done = 0

    def turn(one: _Opened) -> Turn:
        nonlocal done
        found = take_turn(
            one.detector, one.watch, crops, settings.calls, energy=energy, clock=clock
        )
        done += 1
        if progress:
            progress("timing", done, len(opened) * (settings.rounds + 1))
        return found

    return interleave({one.name: partial(turn, one) for one in opened}, settings.rounds)


def _accuracy(
    opened: Sequence[_Opened],
    samples: Samples | None,
    limit: int | None,
    progress: Progress | None,
) -> tuple[dict[str, Figure], str, dict[str, str] | None, int]:
    """AUC by arm; where it comes from; the data; how many pictures could not be read."""
    if samples is None:
        found = {one.name: _card_auc(one) for one in opened}
        return found, "AUC on validation, from the cards", None, 0
    found, data, unreadable = {}, {}, 0
    for one in opened:
        report = partial(progress, f"scoring with {one.name}") if progress else None
        done = evaluate(one.detector, samples, limit=limit, progress=report)
        found[one.name] = done.figures["auc"]
        unreadable = len(done.unreadable)
        data = {
            "name": done.data.name,
            "split": done.data.split,
            "fingerprint": done.data.scored_fingerprint,
        }
    words = f"AUC on {data['name']}, {data['split']}, measured here with each runtime"
    return found, words, data, unreadable


def _card_auc(one: _Opened) -> Figure:
    told = one.arm.bundle.card.validation.get("auc")
    try:
        return TypeAdapter(Figure).validate_python(told)
    except ValidationError:
        return Figure(None, None, None, 0, "the card does not say")


# -- after ------------------------------------------------------------------------------------


def _measured(
    one: _Opened,
    against: str,
    turns: Sequence[Turn],
    baseline: Sequence[Turn],
    starts: Sequence[tuple[float, float | None]],
    *,
    moved: float,
    auc: Figure,
) -> Measured:
    singles = np.array([value for turn in turns for value in turn.singles])
    inside = np.array([value for turn in turns for value in turn.inside])
    p50, p95, p99 = (float(1000 * q) for q in np.percentile(singles, (50, 95, 99)))
    own, base = ([turn.single for turn in some] for some in (turns, baseline))
    rates = {batch: [turn.rates[batch] for turn in turns] for batch in BATCHES}
    others = {batch: [turn.rates[batch] for turn in baseline] for batch in BATCHES}
    made = one.arm.bundle.card.export
    return Measured(
        name=one.name,
        bundle=one.label,
        runtime=one.arm.runtime,
        form=made.form if made else "trained",
        source=one.arm.source,
        against=against,
        calls=len(singles),
        p50=p50,
        p95=p95,
        p99=p99 if len(singles) >= FOR_P99 else None,
        network=float(1000 * np.median(inside)),
        single=Spread(tuple(1000 * value for value in own)),
        single_ratio=Spread(ratios(base, own)),
        rates={batch: Spread(tuple(values)) for batch, values in rates.items()},
        rate_ratios={batch: Spread(ratios(rates[batch], others[batch])) for batch in BATCHES},
        start=Spread(tuple(seconds for seconds, _ in starts)),
        memory=_spread([peak for _, peak in starts]),
        joules=_spread([turn.joules for turn in turns]),
        bytes=one.arm.bytes,
        moved=moved,
        auc=auc,
    )


def _spread(values: Sequence[float | None]) -> Spread | None:
    known = [value for value in values if value is not None]
    return Spread(tuple(known)) if known else None


def _notes(
    machine: Machine,
    energy: Energy,
    settings: BenchConfig,
    opened: Sequence[_Opened],
    samples: Samples | None,
) -> Iterator[str]:
    if machine.busy:
        yield (
            f"The machine was busy when this began: load {machine.load:.1f} on {machine.cores} "
            "cores. Ratios still compare like with like; do not quote the times."
        )
    for name in dict.fromkeys(_baseline(one, opened).name for one in opened):
        if not name.endswith(TITLES["pytorch"]):
            yield (
                f"Ratios are to {name}, not to PyTorch eager: the bundle as it was trained, with "
                "weights for PyTorch, is not among those given, or PyTorch cannot run it."
            )
    if energy.reason:
        yield f"Energy: not readable ({energy.reason})."
    else:
        yield "Energy is of the whole processor, with everything else that ran on it."
    calls = settings.rounds * settings.calls
    if calls < FOR_P99:
        yield f"p99 is left out: it needs {FOR_P99} calls, these are {calls}."
    if any(one.arm.runtime == "openvino" for one in opened):
        used = (
            import_untold("openvino")
            .Core()
            .get_property("CPU", "INFERENCE_PRECISION_HINT")
            .to_string()
        )
        yield f"OpenVINO computed in {used} where a network is not quantised; PyTorch in float32."
    if samples is None:
        yield "AUC on validation chose epoch and thresholds, so it flatters; --data measures it."
        if any(one.arm.bundle.card.export for one in opened):
            yield "Of an export the card has the AUC of its original; --data measures its own."


def _plain(value: Any) -> Any:
    if isinstance(value, Spread):
        return value.to_dict()
    if isinstance(value, Figure):
        return asdict(value)
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    return as_utf8(value) if isinstance(value, str) else value
