"""How fast a set becomes a cache of decoded crops, and shards of it a stream of batches."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import numpy as np

from bonaface.batches import Batches, open_cache, open_source
from bonaface.bench.rounds import interleave, ratios
from bonaface.preprocess import Preprocess
from bonaface.samples import load_samples
from bonaface.sharding import shard_set
from pictures import jpegs, write_tree
from table import Row

SOURCE = 256


def measure(folder: Path, *, count: int = 2000, size: int = 128, rounds: int = 5) -> list[Row]:
    """Pictures/s from JPEG files of 256 px to a cache on disk, and from shards to batches.

    Args:
        folder: new; holds the pictures and the caches.
        count: pictures in the set.
        size: side of the crops.
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

    shard_set(samples, folder / "shards", size=16 << 20)
    preprocess = Preprocess(size)
    source = open_source(load_samples(folder / "shards"), preprocess)

    def streamed(workers: int) -> float:
        batches = Batches(source, np.arange(count), preprocess, 32, augment="flip", workers=workers)
        begun = time.perf_counter()
        seen = sum(len(batch.rows) for batch in batches.shuffled(0))
        return seen / (time.perf_counter() - begun)

    cores = len(os.sched_getaffinity(0))
    found = interleave(
        {
            "one": lambda: rate(1),
            "all": lambda: rate(cores),
            "stream": lambda: streamed(1),
            "streams": lambda: streamed(cores),
        },
        rounds,
    )
    part, unit = f"decoding, {SOURCE} to {size} px", "pictures/s"
    one, every = "one worker", f"one worker a core ({cores})"
    stream, streams = f"shards to batches, {one}", f"shards to batches, {every}"
    return [
        Row(part, one, unit, tuple(found["one"])),
        Row(part, every, unit, tuple(found["all"]), one, ratios(found["all"], found["one"])),
        Row(part, stream, unit, tuple(found["stream"]), one, ratios(found["stream"], found["one"])),
        Row(
            part,
            streams,
            unit,
            tuple(found["streams"]),
            every,
            ratios(found["streams"], found["all"]),
        ),
    ]
