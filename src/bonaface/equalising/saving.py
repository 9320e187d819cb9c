"""One way of saving pictures of both classes, and one picture saved in that way."""

from __future__ import annotations

import io
import math
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from bonaface.errors import ConfigError, DataError
from bonaface.facts import Facts

LEAST_SIDE: Final = 32
_SMALLEST: Final = 0.01  # share of a class that may be smaller than the common square
_KEPT: Final = 0.94  # of the common square's side, at least, after the cut
_SHRINK: Final = 0.9  # side over that of the common square; below _KEPT, so nothing is enlarged
_STEPS: Final = 20  # qualities that stand for the worse class
_BEST: Final = 95
_LOSSLESS: Final = ("PNG", "BMP", "TIFF")
_UNKNOWN: Final = 75  # quality of lossy formats other than JPEG
_GRID: Final = 16  # of a JPEG with 4:2:0


@dataclass(frozen=True, slots=True)
class Settings:
    """How every picture is saved.

    Attributes:
        base: side of the common square, in pixels; smaller pictures are left out.
        side: of the pictures that are written.
        qualities: JPEG qualities that are drawn from, each as likely as the others.
        seed: of everything random.
    """

    base: int
    side: int
    qualities: tuple[int, ...]
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self) | {"qualities": list(self.qualities)}


def choose(facts: Facts, *, seed: int = 0, side: int | None = None) -> Settings:
    """Sides and qualities that pictures of both classes can be brought to.

    Args:
        facts: of the data set.
        seed: of everything random.
        side: of the pictures that are written; None: as large as 99 % of either class allow.

    Raises:
        ConfigError: the side is too small.
        DataError: no picture could be read, or too many are too small.
    """
    if side is not None and side < LEAST_SIDE:
        raise ConfigError(f"expected a side of at least {LEAST_SIDE} px, got {side}")
    shorter: dict[int, list[int]] = defaultdict(list)
    quality: dict[int, list[int]] = defaultdict(list)
    for row, file in zip(facts.rows, facts.files, strict=True):
        shorter[row.label].append(min(file.width, file.height))
        lossy = _UNKNOWN if file.quality is None else file.quality
        quality[row.label].append(100 if file.format in _LOSSLESS else lossy)
    if not facts.rows:
        raise DataError(
            f"expected pictures that can be read in {str(facts.samples.root)!r}, got none; see "
            "`bonaface audit` for the reasons"
        )
    if side is None:
        base = min(int(np.quantile(found, _SMALLEST, method="lower")) for found in shorter.values())
        side = int(_SHRINK * base) // 8 * 8
        if side < LEAST_SIDE:
            raise DataError(
                f"expected pictures of at least {math.ceil(LEAST_SIDE / _SHRINK)} px, but 1 in 100 "
                f"of a class is not larger than {base} px; name a --side, and smaller ones are "
                "left out"
            )
    else:
        base = math.ceil(side / _SHRINK)
    worse = min(quality.values(), key=lambda found: sum(found) / len(found))
    points = np.quantile(worse, (np.arange(_STEPS) + 0.5) / _STEPS, method="inverted_cdf")
    qualities = tuple(min(int(point), _BEST) for point in points)
    return Settings(base, side, qualities if len(set(qualities)) > 1 else qualities[:1], seed)


def saved_alike(
    pixels: NDArray[np.uint8], settings: Settings, rng: np.random.Generator
) -> tuple[bytes, str, float]:
    """The new file, how it was made, and how many of the picture's pixels it shows."""
    base = settings.base
    past, quality = (int(chosen) for chosen in rng.choice(settings.qualities, 2))
    side = int(rng.integers(math.ceil(_KEPT * base), base + 1))
    top, left = (int(at) for at in rng.integers(0, base - side + 1, 2))
    square = _centre(pixels)
    scale = square.shape[0] / base
    common = _reopened(_resized(square, base), past)
    data = _jpeg(_resized(common[top : top + side, left : left + side], settings.side), quality)
    how = (
        f"square of {base} px, JPEG {past}, cut to {side} px at ({left}, {top}), "
        f"{settings.side} px, JPEG {quality}"
    )
    return data, how, (side * scale) ** 2


def _centre(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    side = min(height, width)
    # On the grid of an earlier JPEG, so that saving anew at the same quality changes little.
    top, left = ((longer - side) // 2 // _GRID * _GRID for longer in (height, width))
    return pixels[top : top + side, left : left + side]


def _resized(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    if pixels.shape[0] == side:
        return pixels
    small = PILImage.fromarray(pixels).resize((side, side), PILImage.Resampling.LANCZOS)
    return np.asarray(small)


def _jpeg(pixels: NDArray[np.uint8], quality: int) -> bytes:
    buffer = io.BytesIO()
    PILImage.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return buffer.getvalue()


def _reopened(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    with PILImage.open(io.BytesIO(_jpeg(pixels, quality))) as picture:
        return np.asarray(picture)
