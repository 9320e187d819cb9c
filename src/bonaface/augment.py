"""Training recipes: what is done at random to a crop before the network sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from bonaface.corruptions import PRESETS, corrupt
from bonaface.errors import ConfigError

Pixels = NDArray[np.uint8]
Recipe = Callable[[Pixels, np.random.Generator], Pixels]

_PRESETS: Final = tuple(PRESETS)


def none(image: Pixels, rng: np.random.Generator) -> Pixels:
    """The crop as it is."""
    return image


def flip(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Mirror half of the crops."""
    return np.ascontiguousarray(image[:, ::-1]) if rng.random() < 0.5 else image


def standard(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Mirror half of the crops; move half of them; change the light of about half.

    A move turns by up to 8 degrees, zooms by up to 12 % and shifts by up to 6 %, resampled once.
    Nothing here re-saves or blurs: the traces that tell a forgery stay as they are.
    """
    image = flip(image, rng)
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D(
        ((width - 1) / 2, (height - 1) / 2), rng.uniform(-8, 8), rng.uniform(1, 1.12)
    )
    turn[:, 2] += rng.uniform(-0.06, 0.06, 2) * (width, height)
    if rng.random() < 0.5:
        image = np.asarray(
            cv2.warpAffine(
                image,
                turn,
                (width, height),
                flags=cv2.INTER_CUBIC,
                borderMode=cv2.BORDER_REFLECT_101,
            ),
            np.uint8,
        )
    for name in ("brightness", "contrast"):
        if rng.random() < 0.3:
            image = corrupt(image, name, int(rng.integers(1, 4)), rng)
    return image


def robust(image: Pixels, rng: np.random.Generator) -> Pixels:
    """`standard`, then half of the crops are re-delivered, in one of two ways.

    Half of these by a preset of `corruptions.PRESETS`; the others are shrunk, blurred or made
    noisy by chance and re-saved.
    """
    image = standard(image, rng)
    return image if rng.random() < 0.5 else _redelivered(image, rng)


def delivered(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Mirror half of the crops; three in ten are re-delivered as in `robust`.

    The others are not resampled: they keep the finest traces of a forgery, which `robust` leaves
    on a quarter of the crops alone.
    """
    image = flip(image, rng)
    return image if rng.random() < 0.7 else _redelivered(image, rng)


def _redelivered(image: Pixels, rng: np.random.Generator) -> Pixels:
    if rng.random() < 0.5:
        preset = _PRESETS[int(rng.integers(len(_PRESETS)))]
        return corrupt(image, preset, int(rng.integers(1, 6)), rng)
    for name, share in (("rescale", 0.5), ("blur", 0.2), ("noise", 0.2)):
        if rng.random() < share:
            image = corrupt(image, name, int(rng.integers(1, 5)), rng)
    codec = "webp" if rng.random() < 0.2 else "jpeg"
    return corrupt(image, codec, int(rng.integers(1, 6)), rng)


RECIPES: dict[str, Recipe] = {
    "none": none,
    "flip": flip,
    "standard": standard,
    "delivered": delivered,
    "robust": robust,
}


def recipe(name: str) -> Recipe:
    """A recipe by name: (uint8 HxWx3, rng) -> uint8 HxWx3 of the same shape.

    Raises:
        ConfigError: no recipe has that name.
    """
    if name not in RECIPES:
        raise ConfigError(f"expected one of {', '.join(RECIPES)}, got {name!r}; name one of them")
    return RECIPES[name]
