"""Small pictures inside a page."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from bonaface.errors import ImageError
from bonaface.images import read_image

_SIDE = 192  # twice the size on the page, for dense screens


def thumbnail(path: Path) -> str | None:
    """A small JPEG as a data URI; None where the picture is no longer to be read."""
    try:
        return small(read_image(path).pixels)
    except ImageError:
        return None


def small(pixels: NDArray[np.uint8]) -> str:
    """Uint8 HxWx3 -> a small JPEG as a data URI."""
    picture = PILImage.fromarray(pixels)
    picture.thumbnail((_SIDE, _SIDE))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")
