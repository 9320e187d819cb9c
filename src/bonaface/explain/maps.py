"""Maps that need nothing but a detector's logits: cover parts of a face, and see what happens.

A map belongs to what the network is shown, the centre square of the crop at the input's size, here
called a *view*: uint8 size x size x 3. What is covered takes the view's mean colour.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Values = NDArray[np.float64]
Ask = Callable[[Pixels], Values]  # views, uint8 (n, size, size, 3) -> logits (n,)

MASKS: Final = 1000
WINDOW: Final = 1 / 6
_CELLS: Final = 7  # of a RISE mask, a side
_TOGETHER: Final = 50


@dataclass(frozen=True, eq=False, slots=True)
class Map:
    """Where a network looked in one view.

    Attributes:
        values: float64 (size, size); above 0 what makes the logit higher, which means fake.
        unit: of the values, in words; of every method it is a change of logit.
        facts: what else the method says, such as the number of views it asked for.
    """

    values: Values
    unit: str
    facts: dict[str, float]


def mean_colour(view: Pixels) -> NDArray[np.float32]:
    """Of a view, float32 (3,) in grey levels."""
    return np.asarray(view.reshape(-1, 3).mean(0), np.float32)


def occlusion(ask: Ask, view: Pixels, share: float = WINDOW) -> Map:
    """Cover a square after the other (Zeiler and Fergus 2014, with overlapping squares).

    A square moves by half of its side. A pixel's value is the mean, over the squares that cover it,
    of how far the logit falls when they do.

    Args:
        ask: for logits.
        view: as the network is shown it.
        share: side of the square, in sides of the view.
    """
    size = len(view)
    window, starts = occlusion_places(size, share)
    places = [(y, x) for y in starts for x in starts]
    fill = np.rint(mean_colour(view)).astype(np.uint8)
    before = float(ask(view[None])[0])
    total, times = np.zeros((size, size)), np.zeros((size, size))
    for at in range(0, len(places), _TOGETHER):
        some = places[at : at + _TOGETHER]
        views = np.repeat(view[None], len(some), 0)
        for covered, (y, x) in zip(views, some, strict=True):
            covered[y : y + window, x : x + window] = fill
        for logit, (y, x) in zip(ask(views), some, strict=True):
            total[y : y + window, x : x + window] += before - logit
            times[y : y + window, x : x + window] += 1
    unit = f"fall of the logit when a square of {window} px is covered"
    return Map(total / times, unit, {"views": 1 + len(places), "window": window})


def occlusion_places(size: int, share: float = WINDOW) -> tuple[int, list[int]]:
    """Side of the squares, and where they start in either direction."""
    window = max(2, round(size * share))
    steps = -(-2 * (size - window) // window) + 1
    return window, np.rint(np.linspace(0, size - window, steps)).astype(int).tolist()


def rise(ask: Ask, view: Pixels, seed: int) -> Map:
    """Show a thousand random parts (Petsiuk, Das and Saenko 2018, "RISE").

    Masks are random 7 x 7 grids of 0 and 1, half of each, enlarged bilinearly and shifted. A
    pixel's value is the mean logit, weighted by how much of it is shown, less the mean logit
    weighted by how much is covered; the paper has the first of the two.
    """
    size = len(view)
    rng = np.random.default_rng(seed)
    fill = mean_colour(view)
    shown, hidden = np.zeros((size, size)), np.zeros((size, size))
    weight = np.zeros((size, size))
    for _ in range(MASKS // _TOGETHER):
        masks = _masks(rng, _TOGETHER, size)
        part = masks[..., None]
        logits = ask(np.rint(view * part + fill * (1 - part)).astype(np.uint8))
        shown += np.tensordot(logits, masks, 1)
        hidden += np.tensordot(logits, 1 - masks, 1)
        weight += masks.sum(0)
    values = shown / weight - hidden / (MASKS - weight)
    unit = "mean logit where a place is shown, less where it is covered"
    return Map(values, unit, {"views": MASKS})


def _masks(rng: np.random.Generator, count: int, size: int) -> NDArray[np.float32]:
    """Float32 (count, size, size) in [0, 1]."""
    cell = -(-size // _CELLS)
    side = (_CELLS + 1) * cell
    masks = np.empty((count, size, size), np.float32)
    for mask in masks:
        grid = (rng.random((_CELLS + 1, _CELLS + 1)) < 0.5).astype(np.float32)
        y, x = rng.integers(0, cell, 2)
        large = np.asarray(cv2.resize(grid, (side, side), interpolation=cv2.INTER_LINEAR))
        mask[:] = large[y : y + size, x : x + size]
    return masks
