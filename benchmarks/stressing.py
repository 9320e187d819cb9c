"""What it costs to show a detector every corruption, against scoring the pictures as they are."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from bonaface.bench.rounds import interleave, ratios
from bonaface.corruptions import CORRUPTIONS, DELIVERIES
from bonaface.detector import Detector
from bonaface.evaluate import score_samples
from bonaface.samples import load_samples
from bonaface.stress import SEVERITIES, StressConfig, stress
from pictures import jpegs, write_tree
from table import Row
from untrained import untrained

SOURCE = 256


def measure(
    folder: Path,
    *,
    count: int = 200,
    size: int = 128,
    corruptions: tuple[str, ...] = tuple(CORRUPTIONS),
    rounds: int = 1,
) -> list[Row]:
    """Seconds of `bonaface.stress.stress` without attacks, with every interval and test.

    Args:
        folder: new; holds the pictures, the detector and the tables of scores.
        count: pictures, JPEG of 256 px, half real and half fake.
        size: side of the input of the detector, an untrained CNN.
        corruptions: which of them.
        rounds: measurements of each arm, after one of each that is thrown away.
    """
    data = folder / "data"
    write_tree(data, jpegs(64, SOURCE), {"test": count})
    samples = load_samples(data, check=False)
    detector = Detector(untrained(folder / "bundle", "cnn", size)[0])
    conditions = 1 + len(DELIVERIES) + len(corruptions) * len(SEVERITIES)

    def stressed() -> float:
        with tempfile.TemporaryDirectory(dir=folder) as out:
            begun = time.perf_counter()
            stress(
                [detector], samples, Path(out), StressConfig(corruptions=corruptions, attacks=())
            )
            return time.perf_counter() - begun

    def plain() -> float:
        begun = time.perf_counter()
        for _ in range(conditions):
            score_samples(detector, samples)
        return time.perf_counter() - begun

    found = interleave({"plain": plain, "stressed": stressed}, rounds)
    part = f"stress, cnn {size} px, {count} pictures"
    name = f"scored {conditions} times as they are"
    what = f"{len(corruptions)} corruptions x {len(SEVERITIES)}, {len(DELIVERIES)} deliveries"
    return [
        Row(part, name, "s", tuple(found["plain"])),
        Row(
            part,
            what,
            "s",
            tuple(found["stressed"]),
            name,
            ratios(found["stressed"], found["plain"]),
            "under 600 s",
        ),
    ]
