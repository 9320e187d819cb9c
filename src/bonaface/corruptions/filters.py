"""Corruptions that leave all in its place: codecs, resolution, blur, noise, light, colour."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from bonaface.corruptions.steps import Pixels, blurred, grain, saved, tint, to_uint8

_JPEG: Final = (90, 75, 60, 45, 30)
_WEBP: Final = (85, 65, 50, 35, 20)
_SCALE: Final = (0.85, 0.7, 0.5, 0.4, 0.3)
_BLUR: Final = (0.4, 0.7, 1.0, 1.5, 2.2)
_MOTION: Final = (2.0, 3.0, 4.5, 7.0, 10.0)
_SHARPEN: Final = (0.3, 0.6, 1.0, 1.6, 2.5)
_NOISE: Final = (2.0, 4.0, 7.0, 11.0, 16.0)
_LIGHT: Final = (0.06, 0.12, 0.2, 0.3, 0.4)
_GAMMA: Final = (1.1, 1.2, 1.35, 1.6, 2.0)
_SATURATION: Final = (0.15, 0.3, 0.5, 0.7, 0.95)
_CAST: Final = (0.03, 0.06, 0.1, 0.15, 0.2)
_LUMA: Final = (0.299, 0.587, 0.114)
_LEVELS: Final = np.arange(256, dtype=np.float32)
_PER_PIXEL: Final = 16  # samples of a stroke


def jpeg(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Save as JPEG of quality 90, 75, 60, 45 or 30 (4:2:0) and open again."""
    return saved(image, "JPEG", _JPEG[severity - 1])


def webp(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Save as lossy WebP of quality 85, 65, 50, 35 or 20 and open again."""
    return saved(image, "WebP", _WEBP[severity - 1])


def rescale(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Shrink to 0.85, 0.7, 0.5, 0.4 or 0.3 of the side and enlarge again, as a thumbnail would.

    Down- and up-scaling in one: this is how a small picture looks that was enlarged to this size.
    One that is enlarged first and brought back changes less than by the first severity.
    """
    height, width = image.shape[:2]
    factor = _SCALE[severity - 1]
    small = (max(2, round(width * factor)), max(2, round(height * factor)))
    shrunk = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    up = (cv2.INTER_LINEAR, cv2.INTER_CUBIC)[int(rng.integers(2))]
    return np.asarray(cv2.resize(shrunk, (width, height), interpolation=up), np.uint8)


def blur(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Gaussian blur of sigma 0.4, 0.7, 1.0, 1.5 or 2.2 pixels."""
    return blurred(image, _BLUR[severity - 1])


def motion_blur(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Smear along a straight stroke of 2, 3, 4.5, 7 or 10 pixels in a direction left to chance."""
    stroke = _stroke(_MOTION[severity - 1], float(rng.uniform(0, np.pi)))
    out = cv2.filter2D(image, -1, stroke, borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(out, np.uint8)


def sharpen(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Unsharp mask: add 0.3, 0.6, 1.0, 1.6 or 2.5 times what a blur of 1 pixel takes away."""
    amount = _SHARPEN[severity - 1]
    return np.asarray(cv2.addWeighted(image, 1 + amount, blurred(image, 1.0), -amount, 0), np.uint8)


def noise(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Sensor noise: Gaussian of deviation 2, 4, 7, 11 or 16 of 255."""
    return to_uint8(image + grain(image.shape, _NOISE[severity - 1], rng))


def brightness(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Add up to 6, 12, 20, 30 or 40 % of the range, up or down."""
    return _by_level(image, _LEVELS + np.float32(255 * _signed(_LIGHT[severity - 1], rng)))


def contrast(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Stretch about the mean by up to 6, 12, 20, 30 or 40 %, up or down."""
    mean, factor = np.float32(image.mean()), np.float32(1 + _signed(_LIGHT[severity - 1], rng))
    return _by_level(image, (_LEVELS - mean) * factor + mean)


def gamma(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Raise to a power of up to 1.1, 1.2, 1.35, 1.6 or 2, or of one over that."""
    power = np.float32(np.exp(_signed(np.log(_GAMMA[severity - 1]), rng)))
    return _by_level(image, np.float32(255) * (_LEVELS / np.float32(255)) ** power)


def saturation(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Stretch colour about grey by up to 15, 30, 50, 70 or 95 %, up or down; luma stays."""
    factor = 1 + _signed(_SATURATION[severity - 1], rng)
    mixed = factor * np.eye(3) + (1 - factor) * np.array(_LUMA)
    return np.asarray(cv2.transform(image, mixed), np.uint8)


def colour_cast(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """A wrong white balance: gains of up to 3, 6, 10, 15 or 20 %, towards a hue left to chance."""
    gains = tint(_CAST[severity - 1] * float(rng.uniform(0.5, 1)), rng)
    return np.asarray(cv2.transform(image, np.diag(gains)), np.uint8)


def _stroke(length: float, angle: float) -> NDArray[np.float32]:
    """Kernel of a straight line through the middle, each point shared by its four pixels."""
    count = int(np.ceil(length * _PER_PIXEL))
    along = (np.arange(count) + 0.5) / count * length - length / 2
    reach = int(np.ceil(length / 2))
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float64)
    rows, columns = along * np.sin(angle) + reach, along * np.cos(angle) + reach
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = rows - top, columns - left
    for row, column, share in (
        (top, left, (1 - down) * (1 - right)),
        (top, left + 1, (1 - down) * right),
        (top + 1, left, down * (1 - right)),
        (top + 1, left + 1, down * right),
    ):
        np.add.at(kernel, (row, column), share / count)
    return kernel.astype(np.float32)


def _signed(most: float, rng: np.random.Generator) -> float:
    """Half of it to all of it, up or down."""
    return float(rng.choice((-1, 1)) * rng.uniform(0.5, 1) * most)


def _by_level(image: Pixels, levels: NDArray[np.float32]) -> Pixels:
    """Each level (0 to 255) to another one."""
    return np.asarray(cv2.LUT(image, to_uint8(levels)), np.uint8)
