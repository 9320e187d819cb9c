"""The frozen recipe from a face in a picture to a crop; one object makes training crops and serves.

A network knows faces at the size and place that its training crops gave them. So the recipe lies in
the bundle: written there by `bonaface data crop`, or measured on the training crops.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from bonaface.errors import BundleError, ConfigError
from bonaface.faces import Face

RECIPE_FILE: Final = "crop_recipe.json"
_FIXED: Final = {
    "shape": "square",
    "border": "moved inside, then mirrored",
    "resampling": "bilinear-antialiased",
}
_MARGINS: Final = (0.5, 10.0)
_LEAST_MEASURED: Final = 10
_WHOLE: Final = 0.85  # the square's side over the picture's shorter side, at least
_NEARLY_SQUARE: Final = 1.25


@dataclass(frozen=True, slots=True)
class CropRecipe:
    """A square about a face, moved into the picture as far as it fits.

    Attributes:
        margin: side of the square over the longer side of the face's box, 0.5 to 10.
        shift: (x, y) from the face's centre to the square's, in sides of the square.
        max_side: a larger crop is shrunk to this side, in pixels.
        min_face: a face whose box's longer side is smaller, in pixels, is not judged.
        origin: where the numbers come from, in words.
    """

    margin: float = 1.3
    shift: tuple[float, float] = (0.0, 0.0)
    max_side: int = 512
    min_face: int = 64
    origin: str = field(default="assumed", compare=False)

    def __post_init__(self) -> None:
        numbers = (self.margin, *self.shift)
        if (
            not all(math.isfinite(number) for number in numbers)
            or not _MARGINS[0] <= self.margin <= _MARGINS[1]
            or len(self.shift) != 2
            or max(map(abs, self.shift)) > 1
            or not 16 <= self.max_side <= 4096
            or not 16 <= self.min_face <= 4096
        ):
            raise ConfigError(
                f"expected a crop recipe with a margin of {_MARGINS[0]:g} to {_MARGINS[1]:g}, "
                "shifts of -1 to 1, max_side and min_face of 16 to 4096, got "
                f"{self.to_dict()}; correct it"
            )

    def side(self, face: Face) -> float:
        """Side of the square about a face, in pixels of the picture."""
        return self.margin * face.size

    def takes_whole(self, face: Face, width: int, height: int) -> bool:
        """Whether the picture is a crop of this face already, about as the recipe would cut it."""
        return self.side(face) >= _WHOLE * min(width, height) and max(
            width, height
        ) <= _NEARLY_SQUARE * min(width, height)

    def cut(self, pixels: NDArray[np.uint8], face: Face) -> NDArray[np.uint8]:
        """Uint8 HxWx3 and a face in it -> its crop, uint8 side x side x 3 (a copy)."""
        return self.shrink(self.square(pixels, face))

    def square(self, pixels: NDArray[np.uint8], face: Face) -> NDArray[np.uint8]:
        """As `cut`, at the picture's own resolution; may be a view of it."""
        height, width = pixels.shape[:2]
        x, y, side = self.place(face, width, height)
        left, top = max(0, -x), max(0, -y)
        right, bottom = max(0, x + side - width), max(0, y + side - height)
        part = pixels[max(0, y) : y + side, max(0, x) : x + side]
        if left or top or right or bottom:
            # Mirrored, not black: a black bar would be a trace of where the face stood.
            part = cv2.copyMakeBorder(part, top, bottom, left, right, cv2.BORDER_REFLECT_101)
        return np.asarray(part, np.uint8)

    def place(self, face: Face, width: int, height: int) -> tuple[int, int, int]:
        """Left, top and side of the square about a face, in pixels of a picture; see `square`."""
        side = max(1, round(self.side(face)))
        x, y = (
            _inside(centre + shift * side - side / 2, side, length)
            for centre, shift, length in zip(face.centre, self.shift, (width, height), strict=True)
        )
        return x, y, side

    def shrink(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A crop of at most `max_side`, uint8 HxWx3 (a copy)."""
        height, width = pixels.shape[:2]
        scale = self.max_side / max(height, width)
        if scale >= 1:
            return np.array(pixels, order="C")
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = PILImage.fromarray(np.ascontiguousarray(pixels))
        return np.array(image.resize(size, PILImage.Resampling.BILINEAR))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with the parts of the recipe that are fixed spelled out."""
        return asdict(self) | {"shift": list(self.shift)} | _FIXED

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> CropRecipe:
        """Inverse of `to_dict`.

        Raises:
            BundleError: a number is missing or out of range, or another version wrote it.
        """
        try:
            made = cls(
                float(value["margin"]),
                (float(value["shift"][0]), float(value["shift"][1])),
                int(value["max_side"]),
                int(value["min_face"]),
                str(value["origin"]),
            )
        except (LookupError, TypeError, ValueError, OverflowError, ConfigError) as error:
            raise BundleError(
                "expected a crop recipe with margin, shift, max_side, min_face and origin, got "
                f"{value!r}; use one that this version wrote"
            ) from error
        if {key: found for key, found in value.items() if key not in asdict(made)} != _FIXED:
            raise BundleError(f"expected the crop recipe {_FIXED}, got {value!r}; update bonaface")
        return made


def measure_recipe(
    faces: Sequence[Sequence[Face]], sizes: Sequence[tuple[int, int]], where: str
) -> CropRecipe:
    """The recipe that would have cut crops as these are: medians over their largest faces.

    Args:
        faces: what was found in each crop.
        sizes: (width, height) of each crop in pixels; its centre square is what a network sees.
        where: what they are, for `origin`.

    Returns:
        The recipe; the assumed one where a face was found in too few crops.
    """
    ratios, shifts = [], []
    for found, (width, height) in zip(faces, sizes, strict=True):
        if not found:
            continue
        face = max(found, key=lambda one: one.size)
        side = min(width, height)
        ratios.append(side / face.size)
        x, y = face.centre
        shifts.append(((width / 2 - x) / side, (height / 2 - y) / side))
    if len(ratios) < max(_LEAST_MEASURED, len(faces) / 2):
        return CropRecipe(
            origin=f"assumed: a face was found in {len(ratios)} of {len(faces)} {where}"
        )
    margin = float(np.clip(np.median(ratios), *_MARGINS))
    dx, dy = (float(value) for value in np.clip(np.median(shifts, axis=0), -1, 1))
    low, high = np.percentile(ratios, (5, 95))
    return CropRecipe(
        round(margin, 4),
        (round(dx, 4), round(dy, 4)),
        origin=f"measured on {len(ratios)} of {len(faces)} {where}, "
        f"margins {low:.2f} to {high:.2f} (5th to 95th percentile)",
    )


def read_recipe(folder: Path) -> CropRecipe | None:
    """The recipe that a data set was cut with, as `bonaface data crop` left it; None without one.

    Raises:
        BundleError: it is there and is not a recipe of this version.
    """
    path = folder / RECIPE_FILE
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(
            f"expected a crop recipe in {str(path)!r}, got something else; delete the file or run "
            "`bonaface data crop` again"
        ) from error
    return CropRecipe.from_dict(value if isinstance(value, dict) else {})


def _inside(start: float, side: int, length: int) -> int:
    """A span moved into [0, length) where it fits; centred on it where it does not."""
    if side >= length:
        return -((side - length) // 2)
    return round(min(max(start, 0), length - side))
