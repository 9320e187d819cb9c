"""Drawn pictures, and a data set of them. Light: no torch."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image as PILImage

from bonaface.drawn import draw_face

QUALITY = 92


def jpegs(count: int, size: int) -> list[bytes]:
    """So many different drawn faces, as JPEG files."""
    found = []
    for seed in range(count):
        buffer = io.BytesIO()
        pixels = draw_face(np.random.default_rng(seed), size).pixels
        PILImage.fromarray(pixels).save(buffer, "JPEG", quality=QUALITY)
        found.append(buffer.getvalue())
    return found


def write_tree(root: Path, files: list[bytes], counts: dict[str, int]) -> None:
    """``<split>/<class>/<number>.jpg``, half real and half fake; no two files are the same.

    The pictures repeat. A number after the end of the JPEG, which decoders skip, tells the files
    apart, for a set with the same file in two splits is refused.
    """
    number = 0
    for split, count in counts.items():
        for label, name in enumerate(("real", "fake")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for _ in range(label, count, 2):
                data = files[number % len(files)] + number.to_bytes(4, "big")
                (folder / f"{number:07d}.jpg").write_bytes(data)
                number += 1
