"""Re-delivery: what a picture meets on its way to a reader, as chains of size, codec and quality.

`DELIVERIES` are fixed and without chance: they may change a picture's size, and are told how large
the whole picture is of which they are given a part.

The presets (`messenger`, `social`, `screenshot`, `thumbnail`) keep the shape and know the crop
alone. They take it to span a quarter of the longer side of its picture, so that a picture that is
delivered at 1600 px holds a face crop of 400 px: a crop of 512 px is shrunk to 400 and enlarged
again, one of 256 px meets the codec alone. Where the crop lies on the codec's grid of blocks is
left to chance. The sizes and qualities are about those of services in use; they change often.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import cv2
import numpy as np

from bonaface.corruptions.steps import Codec, Pixels, resized, saved, scaled

Delivery = Callable[[Pixels, int], Pixels]

_SPAN: Final = 0.25  # of the picture's longer side
_BLOCK: Final = 16  # px: the grid of 4:2:0 JPEG and of WebP
_ENLARGED: Final = 1.3  # by a screen, at most

_MESSENGER: Final = ((2048, 85), (1600, 75), (1280, 65), (960, 50), (640, 40))
_SOCIAL: Final = ((2048, 90, 85), (1440, 80, 75), (1080, 70, 60), (720, 60, 45), (480, 50, 30))
_SCREENSHOT: Final = ((1440, 90), (1080, 80), (828, 70), (640, 55), (480, 40))
_THUMBNAIL: Final = ((640, 85), (520, 80), (400, 75), (320, 65), (256, 55))


def messenger(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Sent as a photo: at most 2048, 1600, 1280, 960 or 640 px; JPEG 85, 75, 65, 50 or 40."""
    longest, quality = _MESSENGER[severity - 1]
    return _as_part(image, _fits(image, longest), [("JPEG", quality)], rng)


def social(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Shown in a feed: shrunk, stored as JPEG, served as WebP.

    At most 2048, 1440, 1080, 720 or 480 px; JPEG 90, 80, 70, 60 or 50; WebP 85, 75, 60, 45 or 30.
    """
    longest, stored, served = _SOCIAL[severity - 1]
    return _as_part(image, _fits(image, longest), [("JPEG", stored), ("WebP", served)], rng)


def screenshot(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Shown on a screen, captured without loss and sent as JPEG.

    Shown at 1440, 1080, 828, 640 or 480 px, small pictures enlarged 1.3 times at most; JPEG 90, 80,
    70, 55 or 40.
    """
    longest, quality = _SCREENSHOT[severity - 1]
    return _as_part(image, _fits(image, longest, _ENLARGED), [("JPEG", quality)], rng)


def thumbnail(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """A preview: at most 640, 520, 400, 320 or 256 px; JPEG 85, 80, 75, 65 or 55; enlarged."""
    longest, quality = _THUMBNAIL[severity - 1]
    return _as_part(image, _fits(image, longest), [("JPEG", quality)], rng)


def _saved_as(codec: Codec, quality: int) -> Delivery:
    return lambda image, longest: saved(image, codec, quality)


def _half(image: Pixels, longest: int) -> Pixels:
    """Half the side, by area, and back, bilinear."""
    height, width = image.shape[:2]
    return resized(resized(image, max(1, width // 2), max(1, height // 2)), width, height)


def _screenshot(image: Pixels, longest: int) -> Pixels:
    """Shown 1080 px long, small pictures 1.3 times their size at most; sent as JPEG 85."""
    return saved(scaled(image, min(_ENLARGED, 1080 / longest)), "JPEG", 85)


def _messenger(image: Pixels, longest: int) -> Pixels:
    """At most 1600 px long, JPEG 70: about what messengers make of a photo."""
    return saved(scaled(image, min(1.0, 1600 / longest)), "JPEG", 70)


# Of a part of a picture (uint8 HxWx3) and the picture's longer side in pixels.
DELIVERIES: dict[str, Delivery] = {
    "JPEG 90": _saved_as("JPEG", 90),
    "JPEG 70": _saved_as("JPEG", 70),
    "JPEG 50": _saved_as("JPEG", 50),
    "half size": _half,
    "WebP 75": _saved_as("WebP", 75),
    "screenshot": _screenshot,
    "messenger": _messenger,
}


def _fits(image: Pixels, longest: int, most: float = 1.0) -> float:
    """The factor of the side at which the crop's picture is so long."""
    return float(min(most, longest * _SPAN / max(image.shape[:2])))


def _as_part(
    image: Pixels, factor: float, saves: Sequence[tuple[Codec, int]], rng: np.random.Generator
) -> Pixels:
    """Scaled, saved as a part of a larger picture, and brought back to its size."""
    height, width = image.shape[:2]
    down, right = (int(at) for at in rng.integers(_BLOCK, size=2))
    part = np.asarray(
        cv2.copyMakeBorder(scaled(image, factor), down, 0, right, 0, cv2.BORDER_REFLECT_101),
        np.uint8,
    )
    for codec, quality in saves:
        part = saved(part, codec, quality)
    return np.ascontiguousarray(resized(part[down:, right:], width, height))
