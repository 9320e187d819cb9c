"""How far an exported detector is from the one it was made from, and whether that will do.

On labelled pictures both score the same ones, and an export passes that

- moves no score by more than `MAX_DIFFERENCE` of its precision,
- does not lower the AUC by more than `MAX_AUC_DROP`, and
- does not raise APCER or BPCER at the operating point "balanced" by more than `MAX_RATE_RISE`.

Of AUC and rates it is the worse end of the 95 % interval that counts, from paired draws of groups:
few pictures must not let pass what many would not. Where there is no interval, the value counts.

Without labelled pictures only the numbers can be compared, on drawn faces: scores as above, and
logits, which tell also where scores lie near 0 or 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bonaface.drawn import draw_face, forge_drawn
from bonaface.errors import ConfigError
from bonaface.evaluate import Pixels, Scorer, Unreadable, as_utf8, score_samples
from bonaface.export.forms import Precision
from bonaface.metrics import Figure, differences, figures_of, replicates
from bonaface.samples import Samples
from bonaface.scores import Scores
from bonaface.verdict import Bands

SCHEMA_VERSION: Final = 1
MAX_DIFFERENCE: Final[dict[Precision, float]] = {"float32": 0.001, "float16": 0.03, "int8": 0.2}
MAX_AUC_DROP: Final = 0.02
MAX_RATE_RISE: Final = 0.05
MAX_LOGIT_DIFFERENCE: Final[dict[Precision, float]] = {"float32": 0.001, "float16": 0.05}
RESAMPLES: Final = 1000
_POINT: Final = "balanced"
_FIGURES: Final = {"auc": "AUC", "bpcer": "BPCER", "apcer": "APCER"}
_PROBES: Final = 32

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What an export may differ by.

    Attributes:
        difference: of any score.
        logit: of any logit, as a share of the largest; None: only looked at without labels.
        auc_drop: in AUC.
        rate_rise: in APCER and BPCER.
    """

    difference: float
    logit: float | None
    auc_drop: float
    rate_rise: float = MAX_RATE_RISE

    @classmethod
    def of(
        cls, precision: Precision, difference: float | None = None, auc_drop: float | None = None
    ) -> Bounds:
        """The bounds of a precision, or what a user says instead."""
        for name, value in (("difference", difference), ("AUC drop", auc_drop)):
            if value is not None and not 0 < value <= 1:
                raise ConfigError(
                    f"expected a largest {name} above 0 and up to 1, got {value}; try 0.02"
                )
        return cls(
            MAX_DIFFERENCE[precision] if difference is None else difference,
            MAX_LOGIT_DIFFERENCE.get(precision),
            MAX_AUC_DROP if auc_drop is None else auc_drop,
        )


@dataclass(frozen=True, slots=True)
class Check:
    """One bound.

    Attributes:
        name: what is bounded.
        value: what it came to.
        limit: the bound.
        holds: whether the value is within it.
    """

    name: str
    value: float
    limit: float
    holds: bool


@dataclass(frozen=True, slots=True)
class Change:
    """A figure of the original, of the export, and the difference, export less original."""

    name: str
    original: Figure
    exported: Figure
    difference: Figure


@dataclass(frozen=True, eq=False)
class Gate:
    """What the check of an export came to.

    Attributes:
        source: name of the original.
        exported: name of the export.
        form: a key of `FORMS`.
        data: name, split, fingerprint of the scored; None: drawn faces without labels.
        n_real: reals that were scored; with drawn faces 0.
        n_fake: fakes that were scored; likewise.
        n_groups: identities or source videos among them.
        largest: absolute difference of a score.
        mean: absolute difference of a score.
        largest_logit: absolute difference of a logit.
        words: pictures that get another word (fake, unsure, real).
        changes: AUC, and BPCER and APCER at the operating point "balanced".
        checks: the bounds.
        bytes: size of the network, before and after.
        notes: what a reader must know.
        unreadable: pictures without a score.
        before: scores of the original.
        after: of the export, row by row the same pictures.
    """

    source: str
    exported: str
    form: str
    data: dict[str, str] | None
    n_real: int
    n_fake: int
    n_groups: int
    largest: float
    mean: float
    largest_logit: float
    words: int
    changes: tuple[Change, ...]
    checks: tuple[Check, ...]
    bytes: tuple[int, int]
    notes: tuple[str, ...]
    unreadable: tuple[Unreadable, ...]
    before: NDArray[np.float64]
    after: NDArray[np.float64]

    @property
    def passed(self) -> bool:
        """Whether every bound holds."""
        return all(check.holds for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; the scores in the order of the pictures, without their paths."""
        value = asdict(self) | {"before": self.before.tolist(), "after": self.after.tolist()}
        value["unreadable"] = [asdict(u) | {"path": as_utf8(u.path)} for u in self.unreadable]
        return {"schema_version": SCHEMA_VERSION, "passed": self.passed, **value}

    def summary(self) -> dict[str, Any]:
        """What the card of the export keeps."""
        return {
            "passed": self.passed,
            "data": self.data,
            "pictures": len(self.before),
            "largest_score_difference": self.largest,
            "mean_score_difference": self.mean,
            "largest_logit_difference": self.largest_logit,
            "changes": {one.name: asdict(one.difference) for one in self.changes},
        }


@dataclass(frozen=True, slots=True)
class Facts:
    """What `Gate` says besides what is measured: its fields of these names."""

    form: str
    bytes: tuple[int, int]
    notes: tuple[str, ...]


def compare_on_samples(
    original: Scorer,
    exported: Scorer,
    bounds: Bounds,
    about: Facts,
    *,
    samples: Samples,
    split: str,
    progress: Progress | None = None,
) -> Gate:
    """Both score one split.

    Raises:
        ConfigError: the split has no samples.
        DataError: none of them can be read, or no split has that name.
    """
    chosen = samples.split(split)
    if not len(chosen):
        raise ConfigError(
            f"expected samples in the split {split!r} of {str(samples.root)!r}, got none; "
            "name a split that is there"
        )
    tables = []
    for name, scorer in (("original", original), ("export", exported)):
        told = partial(progress, f"scoring, {name}") if progress else None
        tables.append(score_samples(scorer, chosen, progress=told))
    (before, unreadable), (after, _) = tables
    changes = _changes(before, after, original.bundle.operating_point(_POINT).threshold)
    largest = float(np.abs(after.score - before.score).max())
    fakes = int(before.label.sum())
    return Gate(
        original.name,
        exported.name,
        about.form,
        {
            "name": samples.root.resolve().name,
            "split": split,
            "fingerprint": chosen.fingerprint(with_split=False),
        },
        len(before) - fakes,
        fakes,
        len(np.unique(before.groups())),
        largest,
        float(np.abs(after.score - before.score).mean()),
        float(np.abs(after.logit - before.logit).max()),
        _words(original, before.score, after.score),
        changes,
        (
            _check("largest difference of a score", largest, bounds.difference),
            *_risks(changes, bounds),
        ),
        about.bytes,
        about.notes,
        unreadable,
        before.score,
        after.score,
    )


def compare_on_drawings(original: Scorer, exported: Scorer, bounds: Bounds, about: Facts) -> Gate:
    """Both score drawn faces: nothing is said about AUC and error rates."""
    crops = drawings()
    logits = [scorer.logits(crops) for scorer in (original, exported)]
    before, after = (original.calibration(found) for found in logits)
    largest = float(np.abs(after - before).max())
    largest_logit = float(np.abs(logits[1] - logits[0]).max())
    checks = [_check("largest difference of a score", largest, bounds.difference)]
    if bounds.logit is not None:
        share = largest_logit / max(float(np.abs(logits[0]).max()), 1e-12)
        checks.append(_check("largest difference of a logit, of the largest", share, bounds.logit))
    note = (
        f"Only numbers were compared, on {len(crops)} drawn faces: what the export does to AUC and "
        "error rates on photographs is not known. Name a data set to have it measured."
    )
    return Gate(
        original.name,
        exported.name,
        about.form,
        None,
        *(0, 0, 0),
        largest,
        float(np.abs(after - before).mean()),
        largest_logit,
        _words(original, before, after),
        (),
        tuple(checks),
        about.bytes,
        (note, *about.notes),
        (),
        before,
        after,
    )


def drawings() -> list[Pixels]:
    """Drawn faces and drawn forgeries, 96 px, half and half."""
    rng = np.random.default_rng(0)
    faces = [draw_face(rng) for _ in range(_PROBES // 2)]
    return [*(face.pixels for face in faces), *(forge_drawn(face, rng) for face in faces)]


def _changes(before: Scores, after: Scores, threshold: float) -> tuple[Change, ...]:
    draws = [replicates(one, threshold, resamples=RESAMPLES) for one in (before, after)]
    found = [figures_of(d, s, threshold) for d, s in zip(draws, (before, after), strict=True)]
    moved = differences(before, *draws)
    return tuple(Change(name, found[0][name], found[1][name], moved[name]) for name in _FIGURES)


def _risks(changes: Sequence[Change], bounds: Bounds) -> list[Check]:
    """AUC may not fall and rates not rise beyond the bound, as far as the interval reaches."""
    checks = []
    for one in changes:
        found = one.difference
        if found.value is None:
            continue
        if one.name == "auc":
            worst = 0.0 - (found.value if found.low is None else min(found.low, found.value))
            checks.append(_check("fall of AUC", worst, bounds.auc_drop))
        else:
            worst = found.value if found.high is None else max(found.high, found.value)
            checks.append(_check(f"rise of {_FIGURES[one.name]}", worst, bounds.rate_rise))
    return checks


def _check(name: str, value: float, limit: float) -> Check:
    return Check(name, value, limit, value <= limit)


def _words(original: Scorer, before: NDArray[np.float64], after: NDArray[np.float64]) -> int:
    point = original.bundle.operating_point
    bands = Bands.at(0.5, point("fake_above").threshold, point("real_below").threshold)
    pairs = zip(before.tolist(), after.tolist(), strict=True)
    return sum(bands.answer(a) != bands.answer(b) for a, b in pairs)
