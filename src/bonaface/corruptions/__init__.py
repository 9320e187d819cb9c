"""What happens to a picture on its way: pure functions (image, severity, rng) -> image.

Images are uint8 HxWx3 RGB and keep their shape; severity is 1 (hardly seen) to 5 (heavy). The
severities follow the idea of Hendrycks and Dietterich (2019), with values chosen for face crops.
What is in pixels is in pixels of the crop. The same functions feed training augmentation.

`DELIVERIES` are what a picture meets on its way to a reader, fixed and without chance: they may
change its size, and know how large the whole picture is of which they are given a part. The
presets among the corruptions (`PRESETS`) are such ways too, in five severities.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from bonaface.corruptions.delivery import (
    DELIVERIES,
    Delivery,
    messenger,
    screenshot,
    social,
    thumbnail,
)
from bonaface.corruptions.filters import (
    blur,
    brightness,
    colour_cast,
    contrast,
    gamma,
    jpeg,
    motion_blur,
    noise,
    rescale,
    saturation,
    sharpen,
    webp,
)
from bonaface.corruptions.scenes import occlusion, rephotograph, shift
from bonaface.corruptions.steps import Pixels
from bonaface.errors import ConfigError

__all__ = ["CORRUPTIONS", "DELIVERIES", "PRESETS", "Corruption", "Delivery", "Pixels", "corrupt"]

Corruption = Callable[[Pixels, int, np.random.Generator], Pixels]

PRESETS: Final[dict[str, Corruption]] = {
    "messenger": messenger,
    "social": social,
    "screenshot": screenshot,
    "thumbnail": thumbnail,
}
CORRUPTIONS: Final[dict[str, Corruption]] = {
    "jpeg": jpeg,
    "webp": webp,
    **PRESETS,
    "rescale": rescale,
    "blur": blur,
    "motion_blur": motion_blur,
    "sharpen": sharpen,
    "noise": noise,
    "brightness": brightness,
    "contrast": contrast,
    "gamma": gamma,
    "saturation": saturation,
    "colour_cast": colour_cast,
    "shift": shift,
    "occlusion": occlusion,
    "rephotograph": rephotograph,
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
