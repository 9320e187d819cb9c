"""How long an audit takes and how much memory, at two sizes of the data set.

Each size runs in a process of its own, which is this file as a program.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PILImage

from bonaface.drawn import draw_face
from memory_use import STATUS, Sampler
from table import Row

FACES = 64


def measure(folder: Path, *, few: int = 2_000, many: int = 20_000, size: int = 48) -> list[Row]:
    """Seconds, pictures/s and anonymous memory of `read_facts` and `judge`, seconds of `glance`.

    Args:
        folder: new; holds the data sets.
        few: pictures of the small data set.
        many: pictures of the large one.
        size: side of the pictures; small, for `many` files are written.
    """
    if not STATUS.is_file():
        return []  # only Linux tells anonymous pages apart
    found = {}
    for count in (few, many):
        write_faces(folder / str(count), count, size)
        command = [sys.executable, str(Path(__file__).resolve()), str(folder / str(count))]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found[count] = json.loads(done.stdout)
    part = f"audit, {size} px"
    rows = []
    for phase in ("read", "judge", "glance"):
        for count in (few, many):
            against = f"{few:,} samples" if count == many else ""
            value = found[count]["seconds"][phase]
            ratio = (value / found[few]["seconds"][phase],) if count == many else ()
            rows.append(Row(part, f"{phase}, {count:,} samples", "s", (value,), against, ratio))
    for count in (few, many):
        seconds = sum(found[count]["seconds"][phase] for phase in ("read", "judge"))
        rows.append(Row(part, f"whole, {count:,} samples", "pictures/s", (count / seconds,)))
    peaks = {count: max(one["memory"].values()) for count, one in found.items()}
    for count, peak in peaks.items():
        rows.append(Row(part, f"peak anonymous, {count:,} samples", "MiB", (peak,)))
    grown = max(peaks[many] - peaks[few], 0.0) * 2**20 / (many - few)
    rows.append(Row(part, "anonymous, per further sample", "bytes", (grown,)))
    return rows


def write_faces(root: Path, count: int, size: int) -> None:
    """Pictures that differ, yet lie alike as face crops do: mixtures of three drawn faces."""
    faces = np.stack([draw_face(np.random.default_rng(seed), size).pixels for seed in range(FACES)])
    for split in ("train", "test"):
        for label in ("real", "fake"):
            (root / split / label).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        three = faces[rng.choice(FACES, 3, replace=False)]
        mixed = np.tensordot(rng.dirichlet((1.0, 1.0, 1.0)), three, 1).astype(np.uint8)
        split = "test" if number % 10 == 0 else "train"
        label = ("real", "fake")[number // 10 % 2]
        buffer = io.BytesIO()
        PILImage.fromarray(mixed).save(buffer, "JPEG", quality=90)
        (root / split / label / f"{number:07d}.jpg").write_bytes(buffer.getvalue())


# -- in the child ---------------------------------------------------------------------------------


def child(root: Path) -> dict[str, Any]:
    """Seconds and peak anonymous memory in MiB of each step."""
    from bonaface.audit import glance, judge, read_facts
    from bonaface.samples import load_samples

    sampler = Sampler()
    samples = load_samples(root, check=False)
    begun = time.perf_counter()
    with sampler.phase("read"):
        facts = read_facts(samples)
    read = time.perf_counter()
    with sampler.phase("judge"):
        judge(facts)
    judged = time.perf_counter()
    with sampler.phase("glance"):  # of at most 2,000 pictures
        glance(samples)
    seconds = {
        "read": read - begun,
        "judge": judged - read,
        "glance": time.perf_counter() - judged,
    }
    memory = {name: phase["anonymous"] for name, phase in sampler.phases.items()}
    return {"seconds": seconds, "memory": memory}


if __name__ == "__main__":
    json.dump(child(Path(sys.argv[1])), sys.stdout)
