"""How fast a set becomes a cache of decoded crops, with one worker and with one a core."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from bonaface.batches import open_cache
from bonaface.bench.rounds import interleave, ratios
from bonaface.preprocess import Preprocess
from bonaface.samples import load_samples
from pictures import jpegs, write_tree
from table import Row

SOURCE = 256


def measure(folder: Path, *, count: int = 2000, size: int = 128, rounds: int = 5) -> list[Row]:
    """Pictures/s from JPEG files of 256 px to a cache on disk.

    Args:
        folder: new; holds the pictures and the caches.
        count: pictures in the set.
        size: side of the crops in the cache.
        rounds: measurements of each arm, after one of each that is thrown away.
    """
    data = folder / "data"
    write_tree(data, jpegs(64, SOURCE), {"train": count})
    samples = load_samples(data)

    def rate(workers: int) -> float:
        with tempfile.TemporaryDirectory(dir=folder) as root:
            begun = time.perf_counter()
            open_cache(samples, Preprocess(size), root=Path(root), workers=workers)
            return count / (time.perf_counter() - begun)

    cores = len(os.sched_getaffinity(0))
    found = interleave({"one": lambda: rate(1), "all": lambda: rate(cores)}, rounds)
    part, unit = f"decoding, {SOURCE} to {size} px", "pictures/s"
    one, every = "one worker", f"one worker a core ({cores})"
    return [
        Row(part, one, unit, tuple(found["one"])),
        Row(part, every, unit, tuple(found["all"]), one, ratios(found["all"], found["one"])),
    ]
