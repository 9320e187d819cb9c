"""The steps that corruptions are made of: saving, resizing, blur, grain, tint, rounding."""

from __future__ import annotations

from typing import Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Codec = Literal["JPEG", "WebP"]

_CODECS: Final[dict[Codec, tuple[str, int]]] = {
    "JPEG": (".jpg", cv2.IMWRITE_JPEG_QUALITY),  # 4:2:0
    "WebP": (".webp", cv2.IMWRITE_WEBP_QUALITY),
}


def saved(image: Pixels, codec: Codec, quality: int) -> Pixels:
    """Saved at a quality of 1 to 100 and opened again."""
    extension, flag = _CODECS[codec]
    _, data = cv2.imencode(extension, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [flag, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), np.uint8)


def scaled(image: Pixels, factor: float) -> Pixels:
    """By a factor of the side: smaller by area, larger bilinear."""
    height, width = image.shape[:2]
    return resized(image, max(1, round(width * factor)), max(1, round(height * factor)))


def resized(image: Pixels, width: int, height: int) -> Pixels:
    """To a size: smaller by area, larger bilinear, the image itself where it has that size."""
    if (height, width) == image.shape[:2]:
        return image
    how = cv2.INTER_AREA if width < image.shape[1] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=how), np.uint8)


def blurred(image: Pixels, sigma: float) -> Pixels:
    """Gaussian blur, sigma in pixels."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)


def grain(
    shape: tuple[int, ...], deviation: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Gaussian noise of a deviation in levels of 255."""
    return rng.standard_normal(shape, np.float32) * np.float32(deviation)


def tint(strength: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Gains of red, green and blue, of mean 1 and up to the strength off it, in a random hue."""
    hue = rng.uniform(0, 2 * np.pi)
    return (1 + strength * np.cos(hue + np.array([0, 2, 4]) * (np.pi / 3))).astype(np.float32)


def to_uint8(image: NDArray[np.float32]) -> Pixels:
    """Rounded and clipped."""
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
