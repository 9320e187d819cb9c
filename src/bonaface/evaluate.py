"""A detector and labelled samples -> what the detector does on them, with intervals."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol, get_type_hints

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, create_model

from bonaface import __version__
from bonaface.ahead import ahead
from bonaface.audit import glance
from bonaface.bundle import Bundle, first_problem, sha256
from bonaface.calibration import Calibration, OperatingPoint
from bonaface.errors import DataError, ImageError
from bonaface.fairness import Gap, gaps
from bonaface.files import write_json
from bonaface.images import read_image
from bonaface.metrics import (
    FIGURES,
    AttackErrors,
    Confusion,
    Figure,
    Slice,
    apcer_by_generator,
    confusion,
    figures,
    slices,
)
from bonaface.samples import Sample, Samples
from bonaface.scores import Scores, read_scores, write_scores
from bonaface.verdict import Bands

SCHEMA_VERSION = 1
BATCH = 16
BATCHES_AHEAD = 2
_LIBRARIES = ("numpy", "pillow", "onnxruntime", "scikit-learn", "scipy")
_FLATTERS = {
    "train": "The detector was trained on exactly these samples: the figures flatter it. "
    "Quote those of the test split.",
    "validation": "The detector's epoch, calibration and thresholds were chosen on exactly these "
    "samples: the figures flatter it. Quote those of the test split.",
}
_WITHOUT = {
    "fake": "The set holds no readable fakes: nothing can be said of the fakes that would pass "
    "(APCER), nor of anything that compares the two classes (AUC, precision, EER).",
    "real": "The set holds no readable reals: nothing can be said of the reals that would be "
    "called fake (BPCER), nor of anything that compares the two classes (AUC, precision, EER).",
}


Pixels = NDArray[np.uint8]
# A sample with its crop, or with the reason why there is none.
Read = tuple[Sample, Pixels | str]
# What is done to a sample's crop before it is scored.
Change = Callable[[Sample, Pixels], Pixels]


class Scorer(Protocol):
    """What `evaluate` needs of a detector; `bonaface.detector.Detector` is one."""

    @property
    def name(self) -> str:
        """What the detector calls itself."""

    @property
    def bundle(self) -> Bundle:
        """The bundle whose card holds the recipe, the calibration and the operating points."""

    @property
    def calibration(self) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
        """Logits (n,) -> calibrated P(fake) in [0, 1], (n,)."""

    def logits(self, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
        """Face crops (uint8 HxWx3, RGB) -> logits, float64 (n,)."""


@dataclass(frozen=True, slots=True)
class DetectorFacts:
    """What the bundle's card says, as far as a reader of the figures needs it.

    Attributes:
        name: what the detector calls itself.
        architecture: a name from `bonaface models`.
        parameters: number of weights.
        input_size: side of the network's input in pixels.
        calibration: from logits to scores, fitted on validation.
        operating_points: by name, chosen on validation.
        data_fingerprint: of the samples it was trained on; None when the card does not say.
        model_sha256: of the network's files; None when the card does not say.
        versions: of the libraries that trained it.
    """

    name: str
    architecture: str
    parameters: int
    input_size: int
    calibration: Calibration
    operating_points: dict[str, OperatingPoint]
    data_fingerprint: str | None
    model_sha256: str | None
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class DataFacts:
    """What was scored.

    Attributes:
        name: the data folder's own name, without its parents.
        fingerprint: of the whole set, all splits (`Samples.fingerprint`).
        scored_fingerprint: of the files that were to be scored (path, label, byte size): the split,
            or its sample. Two evaluations may be compared only where it is the same.
        split: train, validation or test.
        real: reals that were scored.
        fake: fakes that were scored.
        groups: identities or source videos among the scored.
    """

    name: str
    fingerprint: str
    scored_fingerprint: str
    split: str
    real: int
    fake: int
    groups: int


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A picture that could not be used, and why. It has no score and counts in no figure."""

    path: str
    label: int
    reason: str


@dataclass(frozen=True, slots=True)
class Measured:
    """A threshold of the bundle with the error rates measured here, beside those on validation."""

    point: OperatingPoint
    apcer: Figure
    bpcer: Figure


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a detector does on a split of a data set.

    Attributes:
        detector: facts from its card.
        data: what was scored.
        operating_point: the threshold that `figures` and `confusion` use.
        figures: as in `bonaface.metrics.figures`.
        confusion: counts at the operating point.
        answers: by class ("real", "fake"), how many get each of the words fake, unsure, real.
        attacks: APCER of each generator's fakes, and the worst; None without fakes.
        measured: every operating point of the bundle as it behaves here.
        slices: by column and value.
        unreadable: pictures without a score.
        notes: what a reader must know before quoting a figure.
        scores: one row a picture.
        resamples: of the bootstrap.
        seed: of the bootstrap, and of the choice of samples where there was a limit.
        versions: of the libraries that measured.
        gaps: between groups of people, at the operating point.
    """

    detector: DetectorFacts
    data: DataFacts
    operating_point: OperatingPoint
    figures: dict[str, Figure]
    confusion: Confusion
    answers: dict[str, dict[str, int]]
    attacks: AttackErrors | None
    measured: tuple[Measured, ...]
    slices: tuple[Slice, ...]
    unreadable: tuple[Unreadable, ...]
    notes: tuple[str, ...]
    scores: Scores
    resamples: int
    seed: int
    versions: dict[str, str]
    gaps: tuple[Gap, ...] = ()

    @property
    def name(self) -> str:
        """The detector's name."""
        return self.detector.name

    @property
    def threshold(self) -> float:
        """A score of at least this counts as fake."""
        return self.operating_point.threshold

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without NaN; the scores are a table of their own (scores.csv)."""
        return {
            "schema_version": SCHEMA_VERSION,
            "detector": asdict(self.detector),
            "data": asdict(self.data),
            "operating_point": asdict(self.operating_point),
            "figures": _plain(self.figures),
            "confusion": asdict(self.confusion),
            "answers": self.answers,
            "attacks": asdict(self.attacks) if self.attacks else None,
            "measured": [asdict(m) for m in self.measured],
            "slices": [asdict(s) for s in self.slices],
            "gaps": [gap.to_dict() for gap in self.gaps],
            "unreadable": [asdict(u) | {"path": as_utf8(u.path)} for u in self.unreadable],
            "notes": [as_utf8(note) for note in self.notes],
            "resamples": self.resamples,
            "seed": self.seed,
            "versions": self.versions,
        }


def evaluate(
    detector: Scorer,
    samples: Samples,
    *,
    split: str = "test",
    operating_point: str = "balanced",
    resamples: int = 1000,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 2,
    limit: int | None = None,
) -> Evaluation:
    """Score one split and say how well the detector does on it.

    Pictures are read and shrunk to the network's input by `workers` threads, a few batches ahead
    of the detector, so memory does not grow with the set.

    Args:
        detector: the one to measure; every picture is taken to be a face crop.
        samples: labelled pictures; one class alone is enough.
        split: train, validation or test.
        operating_point: name of the bundle's threshold that turns scores into decisions.
        resamples: of the bootstrap behind the 95 % intervals.
        seed: of the bootstrap and of `limit`.
        progress: called with the number of pictures done and their total, after each batch.
        workers: reading threads.
        limit: score at most this many, chosen by `Samples.limit`.

    Raises:
        DataError: the detector was trained on these files with another split, or the split holds
            no samples, or none of them could be read.
        BundleError: the bundle has no such operating point, or its network gives no finite logits.
        ConfigError: `limit` is below 1, or `resamples` is neither 0 nor at least 40.
    """
    point = detector.bundle.operating_point(operating_point)
    _check_split(detector, samples)
    within = samples.split(split)
    if not len(within):
        raise DataError(
            f"expected samples in the split {split!r} of {str(samples.root)!r}, got none; "
            "name a split that is there, or let one be made with --ratios"
        )
    chosen = within if limit is None else within.limit(limit, seed)
    scores, unreadable = score_samples(detector, chosen, workers=workers, progress=progress)
    facts = _detector_facts(detector)
    data = _data_facts(samples, chosen, split, scores)
    measure = partial(figures, resamples=resamples, seed=seed)
    attacks = apcer_by_generator(scores, point.threshold, resamples=resamples, seed=seed)
    found = {key: measure(scores, p.threshold) for key, p in facts.operating_points.items()}
    notes = [*samples.notes, glance(within).line]
    if len(chosen) < len(within):
        notes.append(
            f"Only {len(chosen)} of the split's {len(within)} samples were scored, chosen at "
            f"random (seed {seed}), as many reals as fakes where there are."
        )
    if facts.data_fingerprint == data.fingerprint and split in _FLATTERS:
        notes.append(_FLATTERS[split])
    if detector.bundle.doubt:
        notes.append(f"`bonaface detect` answers unsure to everything: {detector.bundle.doubt}.")
    notes += [_WITHOUT[kind] for kind in ("fake", "real") if not getattr(data, kind)]
    return Evaluation(
        detector=facts,
        data=data,
        operating_point=point,
        figures=found[operating_point],
        confusion=confusion(scores, point.threshold),
        answers=answers(scores, detector.bundle),
        attacks=attacks if attacks.by_generator else None,
        measured=tuple(
            Measured(p, found[key]["apcer"], found[key]["bpcer"])
            for key, p in facts.operating_points.items()
        ),
        slices=tuple(slices(scores, point.threshold, resamples=resamples, seed=seed)),
        unreadable=unreadable,
        notes=tuple(notes),
        scores=scores,
        resamples=resamples,
        seed=seed,
        versions=_versions(),
        gaps=tuple(gaps(scores, point.threshold, seed=seed)),
    )


def _check_split(detector: Scorer, samples: Samples) -> None:
    """The files it was trained on, split in another way, would be test pictures it has seen."""
    trained = detector.bundle.card.data
    if (
        trained.get("files") == samples.fingerprint(with_split=False)
        and trained["fingerprint"] != samples.fingerprint()
    ):
        ratios = detector.bundle.ratios
        raise DataError(
            f"expected the split of {str(samples.root)!r} that {detector.name!r} was trained with, "
            "got another of the same files, so that it has seen its test pictures; "
            + (
                f"repeat --ratios {'/'.join(f'{100 * share:g}' for share in ratios)}"
                if ratios
                else "restore the split"
            )
        )


def save_evaluation(evaluation: Evaluation, folder: Path) -> tuple[Path, Path]:
    """Write evaluation.json and scores.csv, each atomically; returns their paths.

    The JSON comes last and holds the table's SHA-256.
    """
    table, card = folder / "scores.csv", folder / "evaluation.json"
    folder.mkdir(parents=True, exist_ok=True)
    write_scores(table, evaluation.scores)
    write_json(card, evaluation.to_dict() | {"files": {table.name: sha256(table)}})
    return card, table


def read_evaluation(path: Path) -> Evaluation:
    """Inverse of `save_evaluation`.

    Args:
        path: the folder, or its evaluation.json.

    Raises:
        DataError: no evaluation is there, another version wrote it, or the scores beside it are
            not the ones it was made with.
        ScoresError: the table of scores is malformed.
    """
    card = path / "evaluation.json" if path.is_dir() else path
    try:
        text = card.read_text(encoding="utf-8")
        value = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"expected an evaluation (a folder with evaluation.json and scores.csv), got "
            f"{str(path)!r} ({type(error).__name__}); name the --out folder of `bonaface evaluate`"
        ) from error
    found = value.get("schema_version") if isinstance(value, dict) else None
    if found != SCHEMA_VERSION:
        raise DataError(
            f"expected an evaluation of schema version {SCHEMA_VERSION} in {str(card)!r}, "
            f"got {found!r}; evaluate again with this version of bonaface"
        )
    table = card.with_name("scores.csv")
    scores = read_scores(table)
    try:
        if value["files"][table.name] != sha256(table):
            raise DataError(
                f"expected in {str(table)!r} the scores that {card.name} was made with, "
                "got other bytes; copy the whole folder or evaluate again"
            )
        return _from_json(text, scores)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(
            f"expected an evaluation in {str(card)!r}, got something else "
            f"({first_problem(error)}); evaluate again"
        ) from error


def as_utf8(text: str) -> str:
    r"""`text` with what UTF-8 cannot hold (bytes of odd file names) written as \xNN."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def score_samples(
    detector: Scorer,
    samples: Samples,
    *,
    change: Change | None = None,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Scores, tuple[Unreadable, ...]]:
    """Score every sample.

    Args:
        detector: what scores them.
        samples: at least one.
        change: what is done to each crop, at its own size, before it is scored.
        workers: reading threads, which also call `change`.
        progress: called with the number of pictures done and their total, after each batch.

    Raises:
        DataError: none of them could be read.
        BundleError: the network gives no finite logits.
    """
    # Shrinking in the threads and not in the detector: what waits is small, however large the
    # pictures are, and resizing what already has the right size changes nothing.
    resize = detector.bundle.preprocess.resize

    def prepare(sample: Sample, crop: Pixels) -> Pixels:
        return resize(change(sample, crop) if change else crop)

    scored: list[Sample] = []
    found: list[NDArray[np.float64]] = []
    unreadable: list[Unreadable] = []
    done = 0
    for batch in in_batches(read_ahead(samples, prepare, workers)):
        good = [(sample, crop) for sample, crop in batch if not isinstance(crop, str)]
        unreadable += [
            Unreadable(sample.path, sample.label, crop)
            for sample, crop in batch
            if isinstance(crop, str)
        ]
        if good:
            scored += [sample for sample, _ in good]
            found.append(np.asarray(detector.logits([crop for _, crop in good]), np.float64))
        done += len(batch)
        if progress:
            progress(done, len(samples))
    if not scored:
        raise DataError(
            f"expected pictures in {str(samples.root)!r}, could read none of {len(unreadable)} "
            f"(first: {as_utf8(unreadable[0].path)}: {unreadable[0].reason}); "
            "check the folder"
        )
    logits = np.concatenate(found)
    return Scores.of_samples(scored, logits, detector.calibration(logits)), tuple(unreadable)


def read_ahead(samples: Samples, prepare: Change, workers: int = 2) -> Iterator[Read]:
    """Each sample in order, with its crop as `prepare` makes it or the reason why there is none."""

    def read(sample: Sample) -> Read:
        try:
            pixels = read_image(samples.absolute(sample)).pixels
        except ImageError as error:
            return sample, error.reason
        return sample, prepare(sample, pixels)

    return ahead(samples.rows, read, workers, BATCH * BATCHES_AHEAD)


def in_batches(items: Iterator[Read]) -> Iterator[list[Read]]:
    """`BATCH` of them at a time."""
    batch: list[Read] = []
    for item in items:
        batch.append(item)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _detector_facts(detector: Scorer) -> DetectorFacts:
    card = detector.bundle.card
    return DetectorFacts(
        detector.name,
        str(card.architecture.get("name", "unknown")),
        card.parameters,
        detector.bundle.preprocess.size,
        detector.bundle.calibration,
        {name: detector.bundle.operating_point(name) for name in sorted(card.operating_points)},
        card.data.get("fingerprint"),
        detector.bundle.model_sha256,
        dict(card.versions),
    )


def _data_facts(samples: Samples, chosen: Samples, split: str, scores: Scores) -> DataFacts:
    fake = int(scores.label.sum())
    return DataFacts(
        samples.root.resolve().name,
        samples.fingerprint(),
        # Groups may be known to one evaluation only; which pictures these are is not theirs to say.
        replace(chosen, rows=tuple(replace(row, group=None) for row in chosen.rows)).fingerprint(
            with_split=False
        ),
        split,
        len(scores) - fake,
        fake,
        len(np.unique(scores.groups())),
    )


def answers(scores: Scores, bundle: Bundle) -> dict[str, dict[str, int]]:
    """What `Detector.detect` would say: by class ("real", "fake"), how often each word."""
    high, low = (bundle.operating_point(n).threshold for n in ("fake_above", "real_below"))
    bands = Bands.at(0.5, high, low)
    counts = {kind: dict.fromkeys(("fake", "unsure", "real"), 0) for kind in ("real", "fake")}
    for label, score in zip(scores.label.tolist(), scores.score.tolist(), strict=True):
        said = "unsure" if bundle.doubt else bands.answer(score)
        counts["fake" if label else "real"][said] += 1
    return counts


def _versions() -> dict[str, str]:
    found = {"bonaface": __version__, "python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def _plain(values: dict[str, Figure]) -> dict[str, Any]:
    return {name: asdict(figure) for name, figure in values.items()}


@cache
def _document() -> type[BaseModel]:
    """evaluation.json, field by field as `Evaluation` declares them."""
    hints = get_type_hints(Evaluation)
    del hints["scores"]
    fields: dict[str, Any] = {
        name: (hint, ...)
        for name, hint in (hints | {"schema_version": int, "files": dict[str, str]}).items()
    }
    fields["gaps"] = (hints["gaps"], ())  # earlier versions did not look for any
    rules = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    return create_model("EvaluationDocument", __config__=rules, **fields)


def _from_json(text: str, scores: Scores) -> Evaluation:
    read = _document().model_validate_json(text)
    parts = {name: getattr(read, name) for name in get_type_hints(Evaluation) if name != "scores"}
    found = Evaluation(scores=scores, **parts)
    for what, names, expected in (
        ("figures", found.figures, FIGURES),
        ("answers", found.answers, ("real", "fake")),
        (
            "operating points",
            found.detector.operating_points,
            ("balanced", "fake_above", "real_below"),
        ),
    ):
        if set(names) != set(expected):
            raise ValueError(f"{what} {sorted(names)} instead of {sorted(expected)}")
    return found
