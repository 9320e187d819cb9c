"""Where the network looked in the faces of a picture: coarse maps, at a bounded cost.

Occlusion, as `bonaface explain` makes it, with larger squares and without the test of each map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from bonaface.detector import Logits
from bonaface.explain.explaining import MEANING
from bonaface.explain.maps import Ask, Pixels, occlusion
from bonaface.judging import Judge
from bonaface.preprocess import Preprocess
from bonaface.verdict import FaceVerdict, Verdict

MOST_FACES: Final = 4
_SHARE: Final = 1 / 4  # of the view's side, that a square covers: 50 views a face
_CELLS: Final = 16  # of a map that is sent, a side
_TOGETHER: Final = 16  # views that are scored at a time, so that others need not wait for all


class FaceMap(BaseModel):
    """Where the network looked in one face."""

    number: int = Field(description="Of the face, as in the verdict.")
    square: tuple[int, int, int, int] = Field(
        description="Left, top, right, bottom of what the network was shown, in pixels of the "
        "picture; may reach beyond it."
    )
    values: list[list[float]] = Field(
        description="16 rows of 16 cells: how far the logit falls when a square about the place is "
        "covered. Above 0: what speaks for fake."
    )


class Looked(BaseModel):
    """Where the network looked, not what was forged."""

    meaning: str = Field(default=MEANING, description="What a map says, and what it does not.")
    method: str = Field(default="occlusion", description="How the maps were made.")
    maps: list[FaceMap] = Field(description="Of the largest faces that were judged, at most 4.")
    left_out: int = Field(description="Faces that were judged and have no map.")


@dataclass(frozen=True, slots=True)
class PhotoVerdict(Verdict):
    """What can be said of one picture, and where the network looked.

    Attributes:
        explanation: where the network looked; null where that was not asked for, or no face was
            judged.
    """

    explanation: Annotated[
        Looked | None,
        Field(description="Where the network looked; null: not asked for, or no face was judged."),
    ] = None


def look(
    judge: Judge, preprocess: Preprocess, pixels: Pixels, faces: tuple[FaceVerdict, ...]
) -> Looked | None:
    """Maps of the largest faces of a picture; None where none was judged.

    Args:
        judge: that gave the faces their verdicts.
        preprocess: of the bundle.
        pixels: of the picture.
        faces: of its verdict.
    """
    judged = [face.number for face in faces if face.score is not None]
    if not judged:
        return None
    height, width = pixels.shape[:2]
    maps = []
    for number, (face, crop) in enumerate(judge.crops(pixels), start=1):
        if number not in judged[:MOST_FACES] or isinstance(crop, str):
            continue
        found = occlusion(_in_parts(judge.logits), preprocess.resize(crop), _SHARE)
        small = cv2.resize(found.values, (_CELLS, _CELLS), interpolation=cv2.INTER_AREA)
        left, top, side = judge.place(face, width, height, first=number == 1)
        maps.append(
            FaceMap(
                number=number,
                square=(left, top, left + side, top + side),
                values=np.round(np.asarray(small), 4).tolist(),
            )
        )
    return Looked(maps=maps, left_out=len(judged) - len(maps))


def _in_parts(logits: Logits) -> Ask:
    def ask(views: NDArray[np.uint8]) -> NDArray[np.float64]:
        parts = range(0, len(views), _TOGETHER)
        return np.concatenate([logits(list(views[at : at + _TOGETHER])) for at in parts])

    return ask
