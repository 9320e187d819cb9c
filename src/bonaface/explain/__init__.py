"""Where a detector looked: maps of a face, how far to believe them, and how good a method is.

`maps` and `faithful` ask for logits alone and need no PyTorch; `gradients` does. `explaining` goes
from a photo or clip to explanations, `drawing` makes pictures of them, `evaluating` measures a
method on a data set.
"""

from __future__ import annotations

from bonaface.explain.explaining import (
    DEFAULT,
    FRAMES,
    MEANING,
    METHODS,
    Explainer,
    Explanation,
    Look,
    explain,
)
from bonaface.explain.faithful import Curves, Faith
from bonaface.explain.maps import Map

__all__ = [
    "DEFAULT",
    "FRAMES",
    "MEANING",
    "METHODS",
    "Curves",
    "Explainer",
    "Explanation",
    "Faith",
    "Look",
    "Map",
    "explain",
]
