"""How good a method's maps of a detector are, over a set of face crops.

Faithfulness is that of `faithful`, as a mean over pictures. Where forgeries lie beside their reals,
as `bonaface data forge` writes them, there is also the pointing game (Zhang et al. 2016): is the
place that speaks most for fake within what was changed? A point within 3 % of the side counts, as
the game's 15 pixels of a picture of 500 do; chance, and the middle of the crop, get the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from bonaface.cropping.journal import Steps, carry_out, lasts, read_outcomes, resume
from bonaface.errors import DataError, ImageError
from bonaface.explain.explaining import MEANING, Explainer
from bonaface.explain.faithful import Curves, Faith
from bonaface.explain.maps import Pixels, Values
from bonaface.forging import JOURNAL as FORGERIES
from bonaface.images import read_image
from bonaface.metrics import Figure, clopper_pearson, interval
from bonaface.preprocess import centre_square
from bonaface.samples import Sample, Samples

SCHEMA_VERSION: Final = 1
JOURNAL: Final = "explained.jsonl"
RIVALS: Final = 5
RESAMPLES: Final = 2000
_TOLERANCE: Final = 0.03
_WHOLE: Final = 0.95  # share of a picture from which a mask points nowhere
ORDERS: Final = ("own", "random", "centre")
WAYS: Final = ("deletion", "insertion")


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one picture.

    Attributes:
        path: as in the data set.
        reason: why it could not be read; the rest is None then.
        score: of the picture.
        own_deletion: curve of the map, as in `faithful.Curves`; the others likewise.
        own_insertion: see there.
        random_deletion: mean curve of the random maps.
        random_insertion: likewise.
        centre_deletion: of a blob in the middle.
        centre_insertion: likewise.
        mask: share of the picture in which a point hits; None: no forgery is known.
        hit: whether the map's highest place does.
        centre_hit: whether the middle of the crop does.
    """

    path: str
    reason: str | None = None
    score: float | None = None
    own_deletion: tuple[float, ...] | None = None
    own_insertion: tuple[float, ...] | None = None
    random_deletion: tuple[float, ...] | None = None
    random_insertion: tuple[float, ...] | None = None
    centre_deletion: tuple[float, ...] | None = None
    centre_insertion: tuple[float, ...] | None = None
    mask: float | None = None
    hit: bool | None = None
    centre_hit: bool | None = None

    def curves(self, order: str) -> Curves:
        """One of `ORDERS`, of a picture that was read."""
        return Curves(*(getattr(self, f"{order}_{way}") for way in WAYS))


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """Deletion or insertion over all pictures, as areas in [0, 1].

    Attributes:
        way: deletion, where less is better, or insertion, where more is.
        own: mean of the maps.
        random: of random maps as smooth.
        centre: of a blob in the middle.
        over_random: how much better than random, paired; above 0 is better, whatever the way.
        over_centre: than the blob, likewise.
        curves: mean curves by order.
    """

    way: str
    own: Figure
    random: Figure
    centre: Figure
    over_random: Figure
    over_centre: Figure
    curves: dict[str, tuple[float, ...]]

    @property
    def beats_random(self) -> bool:
        """Whether the interval of the difference lies above 0."""
        return above_zero(self.over_random)


@dataclass(frozen=True, slots=True)
class Pointing:
    """The pointing game over some forgeries.

    Attributes:
        what: which, in words.
        hits: share whose map points into the mask.
        chance: mean share of the picture that the mask covers.
        centre: share whose middle lies in the mask.
        over_chance: paired difference.
        over_centre: paired difference.
    """

    what: str
    hits: Figure
    chance: Figure
    centre: Figure
    over_chance: Figure
    over_centre: Figure


@dataclass(frozen=True, slots=True)
class Assessment:
    """How good a method's maps of one detector are.

    Attributes:
        detector: name.
        model_sha256: of its model.onnx.
        method: of the maps.
        data: name of the set.
        fingerprint: of the set.
        split: of the set.
        real: pictures that were looked at.
        fake: likewise.
        groups: among them.
        seed: of everything random.
        rivals: random maps for each picture.
        faithfulness: deletion and insertion.
        pointing: all forgeries, those called fake, and each kind; empty where none is known.
        whole: forgeries left out of `pointing` because the whole picture was changed.
        unreadable: paths and reasons.
    """

    detector: str
    model_sha256: str | None
    method: str
    data: str
    fingerprint: str
    split: str
    real: int
    fake: int
    groups: int
    seed: int
    rivals: int
    faithfulness: tuple[Faithfulness, ...]
    pointing: tuple[Pointing, ...]
    whole: int
    unreadable: tuple[tuple[str, str], ...]

    @property
    def beats_random(self) -> bool:
        """Whether both deletion and insertion do."""
        return all(one.beats_random for one in self.faithfulness)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        told = asdict(self)
        for one, entry in zip(self.faithfulness, told["faithfulness"], strict=True):
            entry["beats_random"] = one.beats_random
        return {
            "schema_version": SCHEMA_VERSION,
            "meaning": MEANING,
            **told,
            "beats_random": self.beats_random,
        }


def above_zero(figure: Figure) -> bool:
    """Whether the whole interval is."""
    return figure.low is not None and figure.low > 0


def assess(
    explainer: Explainer,
    samples: Samples,
    out: Path,
    *,
    split: str = "test",
    limit: int | None = None,
    rivals: int = RIVALS,
    progress: Callable[[int, int], None] | None = None,
) -> Assessment:
    """Explain the pictures of a split, each taken as a face crop, and say how good the maps are.

    Called again with the same folder it goes on where it was stopped; `limit` may grow.

    Args:
        explainer: of the detector and the method.
        samples: labelled crops.
        out: folder of the journal, new or begun by the same call.
        split: train, validation or test.
        limit: at most so many pictures, half real and half fake; None: all.
        rivals: random maps for each picture.
        progress: called with the number of pictures done and of all.

    Raises:
        ConfigError: `out` was begun with other settings.
        DataError: there are no pictures, none could be read, or `out` holds something else.
    """
    within = samples.split(split)
    chosen = within if limit is None else within.limit(limit, explainer.seed)
    if not len(chosen):
        raise DataError(
            f"expected samples in the split {split!r} of {str(samples.root)!r}, got none; "
            "name a split that is there"
        )
    header: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": samples.fingerprint(),
        "model": explainer.detector.bundle.model_sha256,
        "method": explainer.method,
        "seed": explainer.seed,
        "split": split,
        "rivals": rivals,
    }
    header, lines = resume(out, JOURNAL, header, "explanations", {})
    done = read_outcomes(lines, Row)
    originals = forged_from(samples.root)

    def steps() -> Steps[Row]:
        for sample in chosen.rows:
            if sample.path not in done:
                yield _row(explainer, samples.root, sample, originals, rivals)

    order = [row.path for row in chosen.rows]
    order += [path for path in done if path not in set(order)]
    found = carry_out(out / JOURNAL, header, done, steps(), order=order, progress=progress)
    return _assessed(explainer, samples, chosen, found, header)


def _row(
    explainer: Explainer, root: Path, sample: Sample, originals: Mapping[str, str], rivals: int
) -> tuple[Row, bool]:
    try:
        crop = read_image(root / sample.path).pixels
        original = originals.get(sample.path)
        real = None if original is None else read_image(root / original).pixels
    except ImageError as error:
        return Row(sample.path, error.reason), lasts(error)
    found, faith = explainer.look(explainer.view(crop), rivals=rivals)
    mask = hit = centre_hit = None
    if real is not None and real.shape == crop.shape:
        mask, hit, centre_hit = point(found.values, real, crop)
    row = Row(
        sample.path,
        None,
        _score(faith),
        own_deletion=_short(faith.own.deletion),
        own_insertion=_short(faith.own.insertion),
        random_deletion=_short(faith.mean("deletion")),
        random_insertion=_short(faith.mean("insertion")),
        centre_deletion=_short(faith.centre.deletion),
        centre_insertion=_short(faith.centre.insertion),
        mask=mask,
        hit=hit,
        centre_hit=centre_hit,
    )
    return row, True


def _score(faith: Faith) -> float:
    own = faith.own.deletion[0]
    return round(own if faith.side == "fake" else 1 - own, 6)


def _short(curve: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(value, 5) for value in curve)


# -- the pointing game --


def forged_from(root: Path) -> dict[str, str]:
    """Forgeries of a set that `bonaface data forge` wrote, and the reals they were made of."""
    journal = root / FORGERIES
    if not journal.is_file():
        return {}
    found = {}
    for line in journal.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(ValueError, AttributeError):
            outcome = json.loads(line)
            real, fake = outcome.get("real"), outcome.get("fake")
            if isinstance(real, str) and isinstance(fake, str):
                found[fake] = real
    return found


def point(values: Values, real: Pixels, fake: Pixels) -> tuple[float, bool, bool]:
    """One round of the game.

    Args:
        values: of the map of the forgery, (size, size).
        real: the picture before it was forged, uint8 HxWx3.
        fake: after.

    Returns:
        The share of the centre square in which a point hits, whether the map's highest place does,
        and whether the middle does. What differs by a grey level was changed.
    """
    square = centre_square((real != fake).any(2)).astype(np.uint8)
    side = len(square)
    reach = round(_TOLERANCE * side)
    away = np.arange(-reach, reach + 1)
    disc = (np.hypot(away[:, None], away[None]) <= reach).astype(np.uint8)
    near = np.asarray(cv2.dilate(square, disc)) > 0
    y, x = np.unravel_index(int(values.argmax()), values.shape)
    row, column = ((2 * int(place) + 1) * side // (2 * len(values)) for place in (y, x))
    return float(near.mean()), bool(near[row, column]), bool(near[side // 2, side // 2])


# -- figures --


def mean_figure(
    values: Sequence[float], groups: Sequence[str], seed: int, *, lowest: float = 0.0
) -> Figure:
    """A mean with its 95 % interval from draws of whole groups.

    Where all draws are the same, the interval is that of Clopper and Pearson for as many trials as
    there are groups, as in `bonaface.metrics`.

    Args:
        values: in [lowest, 1].
        groups: of each value.
        seed: of the draws.
        lowest: 0 of shares and areas, -1 of their differences.
    """
    each = np.asarray(values, np.float64)
    if not len(each):
        return Figure(None, None, None, 0, "no such pictures")
    _, place = np.unique(np.asarray(groups), return_inverse=True)
    sums, counts = np.bincount(place, each), np.bincount(place)
    many = len(counts)
    drawn = np.random.default_rng(seed).multinomial(many, np.full(many, 1 / many), RESAMPLES)
    low, high, reason = interval(drawn @ sums / (drawn @ counts), many)
    value = float(each.mean())
    if low is not None and high is not None and high - low < 1e-12:
        span = 1 - lowest
        share = min(max((value - lowest) / span, 0.0), 1.0)
        low, high = (lowest + span * end for end in clopper_pearson(share, many))
    return Figure(value, low, high, len(each), reason)


def _assessed(
    explainer: Explainer,
    samples: Samples,
    chosen: Samples,
    found: Mapping[str, Row],
    header: Mapping[str, Any],
) -> Assessment:
    rows = [(sample, found[sample.path]) for sample in chosen.rows]
    read = [(sample, row) for sample, row in rows if row.reason is None]
    if not read:
        raise DataError(
            f"expected pictures in {str(samples.root)!r}, could read none of {len(rows)}; "
            "check the folder"
        )
    seed = int(header["seed"])
    groups = [sample.group or sample.path for sample, _ in read]
    return Assessment(
        explainer.detector.name,
        header["model"],
        explainer.method,
        samples.root.resolve().name,
        header["fingerprint"],
        header["split"],
        sum(sample.label == 0 for sample, _ in read),
        sum(sample.label == 1 for sample, _ in read),
        len(set(groups)),
        seed,
        int(header["rivals"]),
        tuple(_faithful(way, [row for _, row in read], groups, seed) for way in WAYS),
        _pointing(explainer, read, seed),
        sum(row.mask is not None and row.mask > _WHOLE for _, row in read),
        tuple((sample.path, row.reason) for sample, row in rows if row.reason is not None),
    )


def _faithful(way: str, rows: Sequence[Row], groups: Sequence[str], seed: int) -> Faithfulness:
    areas: dict[str, NDArray[np.float64]] = {
        order: np.array([getattr(row.curves(order), f"{way}_auc") for row in rows])
        for order in ORDERS
    }
    sign = -1.0 if way == "deletion" else 1.0
    own, random, centre = (mean_figure(areas[order].tolist(), groups, seed) for order in ORDERS)
    over_random, over_centre = (
        mean_figure((sign * (areas["own"] - areas[other])).tolist(), groups, seed, lowest=-1.0)
        for other in ("random", "centre")
    )
    curves = {
        order: tuple(np.mean([getattr(row.curves(order), way) for row in rows], 0).tolist())
        for order in ORDERS
    }
    return Faithfulness(way, own, random, centre, over_random, over_centre, curves)


def _pointing(
    explainer: Explainer, read: Sequence[tuple[Sample, Row]], seed: int
) -> tuple[Pointing, ...]:
    threshold = explainer.detector.bundle.operating_point("balanced").threshold
    known = [(s, row) for s, row in read if row.mask is not None and row.mask <= _WHOLE]
    if not known:
        return ()
    parts = {
        "all forgeries": known,
        "called fake": [(s, row) for s, row in known if (row.score or 0) >= threshold],
    }
    for kind in sorted({sample.generator or "unknown" for sample, _ in known}):
        parts[kind] = [(s, row) for s, row in known if (s.generator or "unknown") == kind]
    return tuple(_game(what, part, seed) for what, part in parts.items())


def _game(what: str, part: Sequence[tuple[Sample, Row]], seed: int) -> Pointing:
    groups = [sample.group or sample.path for sample, _ in part]
    columns = [
        (float(row.hit or 0), row.mask or 0.0, float(row.centre_hit or 0)) for _, row in part
    ]
    hits, chance, centre = np.array(columns, np.float64).reshape(-1, 3).T
    return Pointing(
        what,
        *(mean_figure(each.tolist(), groups, seed) for each in (hits, chance, centre)),
        *(
            mean_figure((hits - other).tolist(), groups, seed, lowest=-1.0)
            for other in (chance, centre)
        ),
    )
