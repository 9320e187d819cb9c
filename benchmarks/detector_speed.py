"""How fast a detector answers: ONNX Runtime against PyTorch, the same network and the same crops.

Both take uint8 crops that are larger than the input, so resizing and normalising count.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bonaface.bench.rounds import interleave, ratios
from bonaface.detector import Detector
from bonaface.drawn import draw_face
from bonaface.models.registry import Made
from table import Row
from untrained import untrained

BATCH = 16
Crops = list[NDArray[np.uint8]]


def measure(
    folder: Path,
    *,
    model: str = "cnn",
    size: int = 128,
    rounds: int = 9,
    calls: int = 10,
    source: int = 256,
) -> list[Row]:
    """Milliseconds for one crop (median of `calls`) and crops/s in batches of 16.

    Args:
        folder: new; holds the bundle.
        model: of the untrained detector, a name from `bonaface models`.
        size: side of its input in pixels.
        rounds: measurements of each kind, after one of each that is thrown away.
        calls: single crops, and batches, in one measurement.
        source: side of the crops in pixels.
    """
    bundle, made = untrained(folder, model, size)
    crops: Crops = [draw_face(np.random.default_rng(i), source).pixels for i in range(BATCH)]
    detector = Detector(bundle)
    eager = _eager(made)
    _check_same(detector.logits(crops), eager(crops))
    found = interleave(
        {
            "one onnx": lambda: _one(detector.logits, crops, calls),
            "one eager": lambda: _one(eager, crops, calls),
            "many onnx": lambda: _many(detector.logits, crops, calls),
            "many eager": lambda: _many(eager, crops, calls),
        },
        rounds,
    )
    part = f"detector, {model} {size} px"
    rows = []
    for kind, what, unit, goal in (
        ("one", "one crop, p50", "ms", "under 15 ms" if model == "cnn" else ""),
        ("many", "batches of 16", "crops/s", "100 or more" if model == "cnn" else "ratio 2"),
    ):
        ours, theirs = found[f"{kind} onnx"], found[f"{kind} eager"]
        name = f"{what}, PyTorch eager float32"
        rows.append(Row(part, name, unit, tuple(theirs)))
        against = ratios(ours, theirs)
        rows.append(Row(part, f"{what}, Detector", unit, tuple(ours), name, against, goal))
    return rows


def _eager(made: Made) -> Callable[[Crops], NDArray[np.float64]]:
    def run(crops: Crops) -> NDArray[np.float64]:
        resized = np.stack([made.preprocess.resize(crop) for crop in crops])
        with torch.no_grad():
            images = torch.from_numpy(made.preprocess.normalise(resized))
            return np.asarray(made.module(images.contiguous()), np.float64)

    return run


def _check_same(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> None:
    if not np.allclose(ours, theirs, atol=1e-3):
        raise RuntimeError(f"expected the same logits, got {ours} and {theirs}")


def _one(run: Callable[[Crops], object], crops: Crops, calls: int) -> float:
    seconds = []
    for at in range(calls):
        begun = time.perf_counter()
        run([crops[at % len(crops)]])
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds) * 1000


def _many(run: Callable[[Crops], object], crops: Crops, calls: int) -> float:
    begun = time.perf_counter()
    for _ in range(calls):
        run(crops)
    return calls * len(crops) / (time.perf_counter() - begun)
