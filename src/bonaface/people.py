"""Faces followed over the frames of a clip: who is the same person as before.

By place and by colours, without a network of identities: within a shot a person is where they were
and looks as they did; after a cut only a close likeness joins. So one person may be counted twice
after a cut or a long gap, and the numbers stay apart rather than being joined wrongly.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from bonaface.crops import CropRecipe
from bonaface.faces import Face

Look = NDArray[np.float32]

_SEEN: Final = CropRecipe(margin=1.3)
_CELLS: Final = 16
_NEAR: Final = 1.0  # in sides of the face
_GROWTH: Final = 1.7
# Mean absolute difference in CIELAB units. Of two frames in a row within a shot, 95 % of the same
# person's are below 4.8; of different people, 1 % are below 4.2, half below 12.
_LIKE_NEAR: Final = 7.0
_LIKE_ANYWHERE: Final = 3.0
_REMEMBERED: Final = 8  # looks
_ABSENT: Final = 3  # frames in a row after which a place says nothing more


def look_of(pixels: NDArray[np.uint8], face: Face) -> Look:
    """Uint8 HxWx3 and a face in it -> its colours in a grid, float32 (16, 16, 3).

    CIELAB, with the mean of the lightness taken out: exposure changes more than people do.
    """
    square = _SEEN.square(pixels, face)
    small = cv2.resize(square, (_CELLS, _CELLS), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small.astype(np.float32) / np.float32(255), cv2.COLOR_RGB2LAB)
    lab[..., 0] -= lab[..., 0].mean()
    return np.asarray(lab, np.float32)


class Follower:
    """Gives the faces of frame after frame the numbers of their people, from 0."""

    def __init__(self) -> None:
        self._last: dict[int, Face] = {}
        self._looks: dict[int, deque[Look]] = {}
        self._seen: dict[int, int] = {}  # when last
        self._now = self._met = 0

    def follow(self, faces: Sequence[Face], looks: Sequence[Look]) -> tuple[int, ...]:
        """The faces of the next frame -> the person of each; no two faces get the same one."""
        self._now += 1
        pairs = sorted(
            (self._distance(person, face, look), at, person)
            for at, (face, look) in enumerate(zip(faces, looks, strict=True))
            for person in self._last
        )
        given: dict[int, int] = {}
        taken: set[int] = set()
        for distance, at, person in pairs:
            if math.isinf(distance):
                break
            if at not in given and person not in taken:
                given[at] = person
                taken.add(person)
        for at, (face, look) in enumerate(zip(faces, looks, strict=True)):
            person = given.setdefault(at, self._met)
            if person == self._met:
                self._met += 1
                self._looks[person] = deque(maxlen=_REMEMBERED)
            self._last[person], self._seen[person] = face, self._now
            self._looks[person].append(look)
        return tuple(given[at] for at in range(len(faces)))

    def forget(self, person: int) -> None:
        """Know somebody no longer; the number is not given again."""
        del self._last[person], self._looks[person], self._seen[person]

    def _distance(self, person: int, face: Face, look: Look) -> float:
        """How far a face is from a person; infinite where they cannot be the same."""
        before = self._last[person]
        unlike = min(float(np.abs(look - known).mean()) for known in self._looks[person])
        apart = math.dist(face.centre, before.centre) / max(face.size, before.size)
        growth = max(face.size, before.size) / min(face.size, before.size)
        recent = self._now - self._seen[person] <= _ABSENT
        near = recent and apart <= _NEAR and growth <= _GROWTH
        if unlike > (_LIKE_NEAR if near else _LIKE_ANYWHERE):
            return math.inf
        return unlike + (apart if near else _NEAR + _LIKE_NEAR)
