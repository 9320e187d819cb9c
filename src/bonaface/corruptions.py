"""What happens to a picture on its way: pure functions (image, severity, rng) -> image.

Images are uint8 HxWx3 RGB and keep their shape; severity is 1 (hardly seen) to 5 (heavy). The
severities follow the idea of Hendrycks and Dietterich (2019), with values chosen for face crops.
The same functions feed training augmentation.

`DELIVERIES` are what a picture meets on its way to a reader, fixed and without chance: they may
change its size, and know how large the whole picture is of which they are given a part.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from bonaface.errors import ConfigError

Pixels = NDArray[np.uint8]
Corruption = Callable[[Pixels, int, np.random.Generator], Pixels]
Delivery = Callable[[Pixels, int], Pixels]

_JPEG = (90, 75, 60, 45, 30)
_WEBP = (85, 65, 50, 35, 20)
_SCALE = (0.85, 0.7, 0.5, 0.4, 0.3)
_BLUR = (0.4, 0.7, 1.0, 1.5, 2.2)
_NOISE = (2.0, 4.0, 7.0, 11.0, 16.0)
_JPEG_FLAG = cv2.IMWRITE_JPEG_QUALITY
_LIGHT = (0.06, 0.12, 0.2, 0.3, 0.4)


def jpeg(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Save as JPEG of quality 90, 75, 60, 45 or 30 (4:2:0) and open again."""
    return _reopen(image, ".jpg", _JPEG_FLAG, _JPEG[severity - 1])


def webp(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Save as lossy WebP of quality 85, 65, 50, 35 or 20 and open again."""
    return _reopen(image, ".webp", cv2.IMWRITE_WEBP_QUALITY, _WEBP[severity - 1])


def rescale(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Shrink to 0.85, 0.7, 0.5, 0.4 or 0.3 of the side and enlarge again, as a thumbnail would."""
    height, width = image.shape[:2]
    factor = _SCALE[severity - 1]
    small = (max(2, round(width * factor)), max(2, round(height * factor)))
    shrunk = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    up = (cv2.INTER_LINEAR, cv2.INTER_CUBIC)[int(rng.integers(2))]
    return np.asarray(cv2.resize(shrunk, (width, height), interpolation=up), np.uint8)


def blur(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Gaussian blur of sigma 0.4, 0.7, 1.0, 1.5 or 2.2 pixels."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), _BLUR[severity - 1]), np.uint8)


def noise(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Sensor noise: Gaussian of deviation 2, 4, 7, 11 or 16 of 255."""
    grain = rng.standard_normal(image.shape, np.float32) * np.float32(_NOISE[severity - 1])
    return _to_uint8(image + grain)


def brightness(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Add up to 6, 12, 20, 30 or 40 % of the range, up or down."""
    return _to_uint8(image + np.float32(255 * _signed(severity, rng)))


def contrast(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Stretch about the mean by up to 6, 12, 20, 30 or 40 %, up or down."""
    mean = np.float32(image.mean())
    return _to_uint8((image - mean) * np.float32(1 + _signed(severity, rng)) + mean)


CORRUPTIONS: dict[str, Corruption] = {
    "jpeg": jpeg,
    "webp": webp,
    "rescale": rescale,
    "blur": blur,
    "noise": noise,
    "brightness": brightness,
    "contrast": contrast,
}


def _saved_as(extension: str, flag: int, quality: int) -> Delivery:
    return lambda image, longest: _reopen(image, extension, flag, quality)


def half(image: Pixels, longest: int) -> Pixels:
    """Half the side, by area, and back, bilinear."""
    height, width = image.shape[:2]
    return _resized(_resized(image, max(1, width // 2), max(1, height // 2)), width, height)


def screenshot(image: Pixels, longest: int) -> Pixels:
    """Shown 1080 px long, small pictures 1.3 times their size at most; sent as JPEG 85."""
    return _reopen(_scaled(image, min(1.3, 1080 / longest)), ".jpg", _JPEG_FLAG, 85)


def messenger(image: Pixels, longest: int) -> Pixels:
    """At most 1600 px long, JPEG 70: about what messengers make of a photo."""
    return _reopen(_scaled(image, min(1.0, 1600 / longest)), ".jpg", _JPEG_FLAG, 70)


# Of a part of a picture (uint8 HxWx3) and the picture's longer side in pixels.
DELIVERIES: dict[str, Delivery] = {
    "JPEG 90": _saved_as(".jpg", _JPEG_FLAG, 90),
    "JPEG 70": _saved_as(".jpg", _JPEG_FLAG, 70),
    "JPEG 50": _saved_as(".jpg", _JPEG_FLAG, 50),
    "half size": half,
    "WebP 75": _saved_as(".webp", cv2.IMWRITE_WEBP_QUALITY, 75),
    "screenshot": screenshot,
    "messenger": messenger,
}


def corrupt(image: Pixels, name: str, severity: int, rng: np.random.Generator) -> Pixels:
    """Apply one corruption by name.

    Raises:
        ConfigError: no corruption has that name, or the severity is not 1 to 5.
    """
    if name not in CORRUPTIONS:
        raise ConfigError(
            f"expected one of {', '.join(CORRUPTIONS)}, got {name!r}; name one of them"
        )
    if severity not in range(1, 6):
        raise ConfigError(f"expected a severity from 1 to 5, got {severity}; choose one of these")
    return CORRUPTIONS[name](image, severity, rng)


def _reopen(image: Pixels, extension: str, flag: int, quality: int) -> Pixels:
    _, data = cv2.imencode(extension, image[:, :, ::-1], [flag, quality])
    return np.ascontiguousarray(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[:, :, ::-1])


def _scaled(image: Pixels, factor: float) -> Pixels:
    height, width = image.shape[:2]
    return _resized(image, max(1, round(width * factor)), max(1, round(height * factor)))


def _resized(image: Pixels, width: int, height: int) -> Pixels:
    if (height, width) == image.shape[:2]:
        return image
    how = cv2.INTER_AREA if width < image.shape[1] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=how), np.uint8)


def _signed(severity: int, rng: np.random.Generator) -> float:
    return float(rng.choice((-1, 1)) * rng.uniform(0.5, 1) * _LIGHT[severity - 1])


def _to_uint8(image: NDArray[np.float32]) -> Pixels:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
