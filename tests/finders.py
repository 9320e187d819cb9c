"""Finders of faces that need no network: a face is a bright block."""

from __future__ import annotations

import threading

import cv2
import numpy as np

from bonaface.faces import Face


class Blocks:
    """Finds white blocks as faces, and counts how often it is asked.

    Args:
        least: value from which on a pixel is white; below 255 where a codec may have changed it.
        marks: (n, 2) landmarks within each face, in shares of its sides.
    """

    name = "blocks"

    def __init__(self, least: int = 255, marks: np.ndarray | None = None) -> None:
        self.asked = 0
        self._least, self._marks = least, np.empty((0, 2)) if marks is None else marks
        self._lock = threading.Lock()

    def find(self, pixels: np.ndarray) -> tuple[Face, ...]:
        with self._lock:
            self.asked += 1
        white = (pixels.min(2) >= self._least).astype(np.uint8)
        _, _, found, _ = cv2.connectedComponentsWithStats(white)
        faces = [
            Face(
                (x, y, x + w, y + h),
                tuple((float(a), float(b)) for a, b in self._marks * (w, h) + (x, y)),
                1.0,
            )
            for x, y, w, h, area in found[1:].tolist()
            if area > 99
        ]
        return tuple(sorted(faces, key=lambda face: -face.size))
