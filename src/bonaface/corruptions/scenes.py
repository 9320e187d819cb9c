"""Corruptions that move, hide or photograph again what is in the picture."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from bonaface.corruptions.steps import Pixels, grain, saved, tint, to_uint8

_SHIFT: Final = (0.03, 0.06, 0.1, 0.15, 0.22)
_HIDDEN: Final = (0.02, 0.05, 0.1, 0.17, 0.26)
_LEAN: Final = (0.01, 0.02, 0.03, 0.045, 0.06)
_MOIRE: Final = (1.0, 2.0, 3.5, 5.0, 7.0)
_LIFT: Final = (0.01, 0.02, 0.04, 0.06, 0.09)  # of black, and the strength of the tint
_VIGNETTE: Final = (0.04, 0.08, 0.14, 0.2, 0.28)
_SOFT: Final = (0.4, 0.5, 0.7, 1.0, 1.4)
_GRAIN: Final = (1.0, 1.5, 2.5, 4.0, 6.0)
_SENT: Final = (92, 85, 75, 65, 50)


def shift(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Cut 3, 6, 10, 15 or 22 % off the sides, more here than there, and enlarge to the old size.

    What is seen moves by up to that share of the side, and nothing is invented at the borders.
    """
    height, width = image.shape[:2]
    cut = _SHIFT[severity - 1]
    x, y = rng.uniform(0, cut, 2)
    # From pixels of the output to pixels of the input, whose centres lie at whole numbers.
    window = np.array([[1 - cut, 0, x * width - cut / 2], [0, 1 - cut, y * height - cut / 2]])
    return np.asarray(
        cv2.warpAffine(
            image,
            window,
            (width, height),
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        ),
        np.uint8,
    )


def occlusion(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Hide 2, 5, 10, 17 or 26 % of the picture behind a box or a stripe, one colour or noise.

    Its centre lies in the middle half of each side, where the face is.
    """
    height, width = image.shape[:2]
    hidden = _HIDDEN[severity - 1]
    aspect = np.exp(rng.uniform(-0.7, 0.7))  # of a box, 1 : 2 to 2 : 1
    box = np.sqrt(hidden * aspect), np.sqrt(hidden / aspect)
    tall, wide = ((hidden, 1.0), (1.0, hidden), box, box)[int(rng.integers(4))]
    top, rows = _near_middle(height, tall, rng)
    left, columns = _near_middle(width, wide, rng)
    colour = rng.integers(0, 256, 3, np.uint8)
    out = np.array(image, order="C")
    hole = out[top : top + rows, left : left + columns]
    hole[:] = colour if rng.random() < 0.7 else rng.integers(0, 256, hole.shape, np.uint8)
    return out


def rephotograph(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Shown or printed, and photographed again.

    Leaning by up to 1, 2, 3, 4.5 or 6 % of the side; black lifted and colours tinted by 1, 2, 4, 6
    or 9 %; moire of 1, 2, 3.5, 5 or 7 levels of 255; corners darker by up to 4, 8, 14, 20 or 28 %;
    blur of sigma 0.4, 0.5, 0.7, 1 or 1.4 pixels; grain of 1, 1.5, 2.5, 4 or 6 levels; JPEG 92, 85,
    75, 65 or 50.
    """
    at = severity - 1
    height, width = image.shape[:2]
    light = _leaning(image, _LEAN[at], rng) * (tint(_LIFT[at], rng) * np.float32(1 - _LIFT[at]))
    light += np.float32(255 * _LIFT[at]) + _moire(height, width, _MOIRE[at], rng)
    light *= _vignette(height, width, _VIGNETTE[at], rng)
    light = np.asarray(cv2.GaussianBlur(light, (0, 0), _SOFT[at]), np.float32)
    return saved(to_uint8(light + grain(image.shape, _GRAIN[at], rng)), "JPEG", _SENT[at])


def _near_middle(side: int, share: float, rng: np.random.Generator) -> tuple[int, int]:
    """Start and length of a share of the side, centred in its middle half, at least a pixel."""
    length = max(1, round(share * side))
    start = round(rng.uniform(0.25, 0.75) * side - length / 2)
    return min(max(start, 0), side - length), length


def _leaning(image: Pixels, share: float, rng: np.random.Generator) -> Pixels:
    """In perspective: each corner comes from up to that share of the side further in."""
    height, width = image.shape[:2]
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])
    inwards = 1 - 2 * corners
    seen = corners + inwards * rng.uniform(0, share, (4, 2))
    pixels, middle = np.array([width, height]), 0.5  # as in `shift`
    turn = cv2.getPerspectiveTransform(
        np.float32(corners * pixels - middle), np.float32(seen * pixels - middle)
    )
    return np.asarray(
        cv2.warpPerspective(
            image,
            turn,
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        ),
        np.uint8,
    )


def _moire(
    height: int, width: int, amplitude: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Waves 4 to 12 pixels long in a direction left to chance, each colour in its own phase."""
    pace = 2 * np.pi / rng.uniform(4, 12)
    angle = rng.uniform(0, np.pi)
    phases = rng.uniform(0, 2 * np.pi, 3)
    down = pace * np.sin(angle) * np.arange(height)
    across = (pace * np.cos(angle) * np.arange(width)[:, None] + phases).ravel()
    # cos(down + across), by the sum of angles
    left = amplitude * np.array([np.cos(down), -np.sin(down)], np.float32).T
    right = np.array([np.cos(across), np.sin(across)], np.float32)
    return (left @ right).reshape(height, width, 3).astype(np.float32, copy=False)


def _vignette(
    height: int, width: int, share: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Gains (height, width, 1): 1 near the middle, less by that share in the furthest corner."""
    middle = rng.uniform(0.35, 0.65, 2)
    y = (np.arange(height, dtype=np.float32) + 0.5) / height - np.float32(middle[0])
    x = (np.arange(width, dtype=np.float32) + 0.5) / width - np.float32(middle[1])
    away = (y**2)[:, None] + (x**2)[None, :]
    return np.asarray(1 - np.float32(share) * away / away.max(), np.float32)[:, :, None]
