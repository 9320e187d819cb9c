"""Photographs with faces at known places, made of the one portrait that scikit-image ships."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import skimage.data

# Of the face in `portrait()`: left, top, right, bottom, as a person would draw it.
BOX = (180, 60, 270, 178)
GREY = 128


@cache
def _portrait() -> np.ndarray:
    return np.asarray(skimage.data.astronaut())


def portrait() -> np.ndarray:
    """Uint8 512x512x3, RGB, one face."""
    return _portrait().copy()


def scaled(factor: float) -> np.ndarray:
    """The portrait at another size."""
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(portrait(), None, fx=factor, fy=factor, interpolation=how))


def head(side: int) -> np.ndarray:
    """The face with its hair as a square crop of a side in pixels."""
    crop = portrait()[20:220, 125:325]
    how = cv2.INTER_AREA if side < 200 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(crop, (side, side), interpolation=how))


def group(places: list[tuple[int, int, int]], height: int, width: int) -> np.ndarray:
    """Heads on grey ground: of each (x, y, side), its left upper corner and its side."""
    photo = np.full((height, width, 3), GREY, np.uint8)
    for x, y, side in places:
        photo[y : y + side, x : x + side] = head(side)
    return photo


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)
