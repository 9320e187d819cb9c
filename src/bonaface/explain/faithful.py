"""How far a map can be believed: does what it points at matter more than what random maps do?

Deletion and insertion are those of Petsiuk et al. 2018. *Deletion* gives the pixels of the view its
mean colour, those first that speak most for the answer: the earlier the score falls, the better the
map. *Insertion* gives a blurred view its pixels back in the same order: the earlier the score
rises, the better. Both are areas under the curve of the score of the side that the detector took,
over the share of pixels, in [0, 1].

A smooth map removes whole patches, which any network minds more than scattered pixels. So a map's
rivals are as smooth as it is: each is the map with its phases drawn anew (Theiler et al. 1992),
which keeps its power spectrum and forgets its places. A blob in the middle is the last rival: faces
are in the middle of their crops.

Occlusion and RISE cover parts themselves, so that the test is easier for them than for gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from bonaface.explain.maps import Ask, Pixels, Values, mean_colour

STEPS: Final = 20
RIVALS: Final = 19  # so that a map that none does as well as has p = 0.05
_BLUR: Final = 1 / 20  # standard deviation in sides of the view


@dataclass(frozen=True, slots=True)
class Curves:
    """What one order of pixels does to the score.

    Attributes:
        deletion: scores while 0, 1/20, ... of the pixels are taken away.
        insertion: scores while they are given back.
    """

    deletion: tuple[float, ...]
    insertion: tuple[float, ...]

    @property
    def deletion_auc(self) -> float:
        """Area under the curve of deletion; lower is better."""
        return float(np.trapezoid(self.deletion, dx=1 / STEPS))

    @property
    def insertion_auc(self) -> float:
        """Area under the curve of insertion; higher is better."""
        return float(np.trapezoid(self.insertion, dx=1 / STEPS))

    @property
    def gain(self) -> float:
        """Insertion less deletion: both in one number."""
        return self.insertion_auc - self.deletion_auc


@dataclass(frozen=True, slots=True)
class Faith:
    """A map against its rivals.

    Attributes:
        side: whose score the curves show: of the side of the balanced threshold where it lies.
        own: of the map.
        random: of random maps as smooth as it.
        centre: of a blob in the middle.
    """

    side: Literal["fake", "real"]
    own: Curves
    random: tuple[Curves, ...]
    centre: Curves

    @property
    def as_good(self) -> int:
        """How many random maps do at least as well, by insertion less deletion."""
        return sum(one.gain >= self.own.gain for one in self.random)

    @property
    def p(self) -> float:
        """Chance that a random map does as well: a permutation test."""
        return (1 + self.as_good) / (1 + len(self.random))

    @property
    def believed(self) -> bool:
        """Whether the map was shown to beat random ones, at 5 %."""
        return self.p <= 0.05

    def mean(self, name: Literal["deletion", "insertion"]) -> tuple[float, ...]:
        """The mean curve of the random maps."""
        return tuple(np.mean([getattr(one, name) for one in self.random], axis=0).tolist())

    @property
    def words(self) -> str:
        """For a person."""
        many = len(self.random)
        if self.believed:
            return (
                f"None of {many} random maps as smooth as this one points at what matters as well "
                f"(p = {self.p:.2f}): it can be read as where the network looked."
            )
        return (
            f"Of {many} random maps as smooth as this one, {self.as_good} point at what matters "
            f"as well or better (p = {self.p:.2f}): do not read anything into it."
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""

        def told(one: Curves) -> dict[str, Any]:
            areas = {"deletion_auc": one.deletion_auc, "insertion_auc": one.insertion_auc}
            return {name: round(area, 4) for name, area in areas.items()} | {
                name: [round(value, 4) for value in curve] for name, curve in asdict(one).items()
            }

        return {
            "side": self.side,
            "map": told(self.own),
            "random_mean": told(Curves(self.mean("deletion"), self.mean("insertion"))),
            "centre": told(self.centre),
            "random_maps": len(self.random),
            "random_as_good": self.as_good,
            "p": round(self.p, 4),
            "believed": self.believed,
            "words": self.words,
        }


def measure_faith(
    ask: Ask,
    calibration: Callable[[Values], Values],
    threshold: float,
    view: Pixels,
    values: Values,
    *,
    seed: int,
    rivals: int = RIVALS,
) -> Faith:
    """Delete and insert in the order of a map and of its rivals.

    Args:
        ask: views -> logits.
        calibration: logits -> scores.
        threshold: a score of at least this is on the side of fake.
        view: uint8 size x size x 3.
        values: of the map, (size, size), above 0 what makes the logit higher.
        seed: of the random maps.
        rivals: how many of them.
    """
    fake = bool(calibration(ask(view[None]))[0] >= threshold)
    plain = np.broadcast_to(np.rint(mean_colour(view)).astype(np.uint8), view.shape)
    sigma = _BLUR * len(view)
    blurred = np.asarray(cv2.GaussianBlur(view, (0, 0), sigma, borderType=cv2.BORDER_REFLECT))

    def score(views: Pixels) -> Values:
        found = calibration(ask(views))
        return found if fake else 1 - found

    # What every order shares: nothing taken, everything taken, nothing given back.
    whole, empty, start = score(np.stack([view, plain, blurred])).tolist()

    def curves(one: Values) -> Curves:
        away, back = (score(v).tolist() for v in _between(view, plain, blurred, one))
        return Curves((whole, *away, empty), (start, *back, whole))

    sign = 1.0 if fake else -1.0
    rng = np.random.default_rng(seed)
    return Faith(
        "fake" if fake else "real",
        curves(sign * values),
        tuple(curves(each) for each in random_maps(values, rivals, rng)),
        curves(centre_map(len(view))),
    )


def _between(view: Pixels, plain: Pixels, blurred: Pixels, values: Values) -> tuple[Pixels, Pixels]:
    """Views in which 1/20, 2/20, ... 19/20 are taken away, the highest first; and given back."""
    rank = np.empty(values.size, int)
    rank[np.argsort(-values.ravel(), kind="stable")] = np.arange(values.size)
    counts = np.arange(1, STEPS) * values.size / STEPS
    taken = (rank.reshape(values.shape) < counts[:, None, None])[..., None]
    return np.where(taken, plain, view), np.where(taken, view, blurred)


def random_maps(values: Values, count: int, rng: np.random.Generator) -> list[Values]:
    """Maps with the power spectrum of `values` and random phases (Theiler et al. 1992)."""
    strength = np.abs(np.fft.rfft2(values - values.mean()))
    found = []
    for _ in range(count):
        noise = np.fft.rfft2(rng.standard_normal(values.shape))
        phases = noise / np.maximum(np.abs(noise), 1e-12)
        found.append(np.fft.irfft2(strength * phases, s=values.shape))
    return found


def centre_map(size: int) -> NDArray[np.float64]:
    """Highest in the middle, falling with the distance from it: (size, size)."""
    away = np.arange(size) - (size - 1) / 2
    return np.asarray(-np.hypot(away[:, None], away[None]))
