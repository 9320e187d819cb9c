"""The frozen recipe from a face crop to a network's input; one object trains and serves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from bonaface.errors import BundleError, ConfigError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_SIDES = (16, 1024)
_FIXED = {"square": "centre", "resampling": "bilinear-antialiased"}

_Kind = TypeVar("_Kind", bound=np.generic)


def centre_square(pixels: NDArray[_Kind]) -> NDArray[_Kind]:
    """HxW or HxWx3 -> a view of the largest square in its middle, which is what is resized."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


@dataclass(frozen=True, slots=True)
class Preprocess:
    """Centre square, antialiased bilinear resize, scale to [0, 1], subtract mean, divide by std.

    Attributes:
        size: side of the square input in pixels, 16 to 1024.
        mean: per channel (R, G, B), of pixels scaled to [0, 1].
        std: per channel, above 0.
    """

    size: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        if not _SIDES[0] <= self.size <= _SIDES[1]:
            raise ConfigError(
                f"expected an input size of {_SIDES[0]} to {_SIDES[1]} pixels, got {self.size}; "
                "choose a size in that range"
            )
        numbers = (*self.mean, *self.std)
        finite = all(math.isfinite(number) for number in numbers)
        if len(self.mean) != 3 or len(self.std) != 3 or not finite or min(self.std) <= 0:
            raise ConfigError(
                f"expected three finite means and three positive deviations, got {self.mean} and "
                f"{self.std}; correct the preprocessing recipe"
            )

    def resize(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Uint8 HxWx3 of any size -> uint8 size x size x 3 (the centre square)."""
        # Not resize(box=...): its filter reaches over the edge of the box.
        square = np.ascontiguousarray(centre_square(pixels))
        if len(square) == self.size:
            return square
        resized = PILImage.fromarray(square).resize(
            (self.size, self.size), PILImage.Resampling.BILINEAR
        )
        return np.asarray(resized)

    def normalise(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Uint8 NxHxWx3 -> float32 Nx3xHxW, a view in channels-last memory order."""
        count, height, width, channels = pixels.shape
        scale = np.float32(1) / (np.float32(255) * np.asarray(self.std, np.float32))
        shift = np.asarray(self.mean, np.float32) / np.asarray(self.std, np.float32)
        # Whole rows at once: a loop of three channels would cost six times as much.
        rows = pixels.reshape(count, height, width * channels) * np.tile(scale, width)
        rows -= np.tile(shift, width)
        whole = rows.reshape(count, height, width, channels)
        return np.asarray(whole, np.float32).transpose(0, 3, 1, 2)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with the parts of the recipe that are fixed spelled out."""
        return {"size": self.size, "mean": list(self.mean), "std": list(self.std)} | _FIXED

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Preprocess:
        """Inverse of `to_dict`.

        Raises:
            BundleError: the recipe was written by a version that preprocesses differently.
        """
        try:
            made = cls(int(value["size"]), tuple(value["mean"]), tuple(value["std"]))
        except (KeyError, TypeError, ValueError, OverflowError, ConfigError) as error:
            raise BundleError(
                f"expected a preprocessing recipe with size, mean and std, got {value!r}; "
                "use a bundle that this version wrote"
            ) from error
        known = {"size", "mean", "std"}
        if {key: fixed for key, fixed in value.items() if key not in known} != _FIXED:
            raise BundleError(
                f"expected the preprocessing {_FIXED}, got {value!r}; update bonaface"
            )
        return made
