"""What the process that deals, and its files, cost for each picture: the constants of `cost.toml`.

``python experiments/scale/measure.py --pictures 200000``; processor time, so that other work on the
machine changes it little. About two minutes and 300 MB in a temporary folder.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import random
import statistics
import tempfile
import time
from multiprocessing import Pipe
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq

import bonaface
from bonaface.drawn import draw_face
from bonaface.files import atomic_path
from bonaface.judging import Wishes
from bonaface.scan.parts import Work
from bonaface.scan.plan import Plan, write_plan
from bonaface.scan.rows import Job, Row, Scanner
from bonaface.scan.sources import Item, find_items
from bonaface.scan.summary import summarise

CHUNK = 256
ADDRESS = "s3://photos/2024/{:07d}/IMG_{:012d}.jpg"  # 44 characters
SHIPPED = Path(bonaface.__file__).parent / "weights" / "default"


class Clock:
    """Processor seconds of this process since the last look."""

    def __init__(self) -> None:
        self._then = time.process_time()

    def per(self, count: float, unit: float = 1e6) -> float:
        """For each of so many, in microseconds unless told otherwise."""
        now = time.process_time()
        spent, self._then = now - self._then, now
        return round(unit * spent / count, 3)


class Random:
    """A reader whose bytes are all different."""

    def read(self, item: Item) -> bytes:
        """The bytes of one."""
        return item.file.encode()


def measure(folder: Path, pictures: int, faces: int = 40, workers: int = 1000) -> dict[str, float]:
    """Name -> value, in the units that the names end in."""
    found = judged(folder, faces)
    rows = found.pop("rows")  # of the photographs
    return found | lists(folder) | dealt(folder, pictures, rows) | heard(rows, workers)


def judged(folder: Path, count: int) -> dict[str, Any]:
    """One thread of a worker: drawn faces, as photographs of 1 MP and as crops of 256 px."""
    found: dict[str, Any] = {}
    for name, size, faces in (("crop", 256, "none"), ("1mp", 1000, "auto")):
        scanner, items = Scanner(Job(SHIPPED, Wishes(faces))), []
        for number in range(count):
            face = cv2.resize(draw_face(np.random.default_rng(number), 128).pixels, (size, size))
            path = folder / f"{name}-{number}.jpg"
            cv2.imwrite(str(path), face[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
            items.append(Item("file", str(path)))
        clock = Clock()
        found["rows"] = [scanner.rows(item) for item in items]
        found[f"judge_{name}_ms"] = clock.per(len(items), 1e3)
    return found


def lists(folder: Path) -> dict[str, float]:
    """Files of a folder on this disk, a commit to it, and the hash of bytes in memory."""
    root, count = folder / "files", 20_000
    for number in range(count):
        place = root / f"{number // 1000:03d}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:06d}.jpg").touch()
    clock = Clock()
    assert sum(1 for _ in find_items(str(root))) == count
    listed = clock.per(count)
    waits = []
    for number in range(50):
        begun = time.perf_counter()
        with atomic_path(folder / f"synced-{number}") as path:
            path.write_bytes(bytes(CHUNK * 128))
        waits.append(time.perf_counter() - begun)
    data = os.urandom(64 << 20)
    clock = Clock()
    hashlib.sha256(data).digest()
    return {
        "find_us": listed,
        "sync_ms": round(1000 * statistics.median(waits), 2),
        "sha256_s_per_gb": clock.per(len(data) / 1e9, 1),
    }


def dealt(folder: Path, pictures: int, seen: list[list[Row]]) -> dict[str, float]:
    """List, find copies, deal, commit, look again, join, count."""
    rng, found, clock = random.Random(0), {}, Clock()
    work, out = Work(folder / "out.parquet"), folder / "out.parquet"
    work.folder.mkdir()
    items = (Item("file", ADDRESS.format(n // 1000, n)) for n in range(pictures))
    write_plan(work.plan_file, items, None)
    found["list_us"] = clock.per(pictures)
    found["plan_bytes"] = work.plan_file.stat().st_size / pictures
    plan = Plan(work.plan_file, CHUNK)
    chunks = list(plan.chunks())
    found["deal_us"] = clock.per(pictures)
    count = 0
    for chunk in chunks:
        pairs = []
        for at, item in chunk.items:
            rows = unlike(rng, rng.choice(seen), item.path)
            pairs += [(at, row) for row in rows]
            count += len(rows)
        clock = Clock()
        work.commit(chunk, pairs)
        found["commit_us"] = found.get("commit_us", 0.0) + clock.per(pictures)
    found["rows"] = round(count / pictures, 3)
    parts = [path.stat().st_size for path in work.folder.glob("part-*")]
    found["part_bytes"] = sum(parts) / pictures
    clock = Clock()
    assert all(work.committed(chunk) is not None for chunk in chunks)
    found["look_us_per_part"] = clock.per(len(chunks))
    work.finish(plan, {})
    found["join_us"] = clock.per(pictures)
    found["table_bytes_per_row"] = out.stat().st_size / count
    found["row_group_bytes"] = (pq.read_metadata(out).serialized_size
                                / pq.read_metadata(out).num_row_groups)  # fmt: skip
    clock = Clock()
    summarise(out)
    found["count_us"] = clock.per(pictures)
    plan.find_copies(Random())  # type: ignore[arg-type]
    found["copies_us"] = clock.per(pictures)
    plan.close()
    found["copies_bytes"] = work.plan_file.stat().st_size / pictures - found["plan_bytes"]
    return {name: round(value, 3) for name, value in found.items()}


def unlike(rng: random.Random, rows: list[Row], path: str) -> list[Row]:
    """Rows of another picture: what differs between pictures does."""
    digest, size = rng.randbytes(32).hex(), rng.randrange(50_000, 5_000_000)
    found = []
    for row in rows:
        other = row | {"path": path, "sha256": digest, "bytes": size}
        other["reason"] = f"score {rng.random():.3f} {' '.join(str(row['reason']).split()[2:])}"
        for name, value in row.items():
            if isinstance(value, float):
                digits = len(str(value).partition(".")[2])
                other[name] = round(value * rng.uniform(0.5, 1), digits)
        found.append(other)
    return found


def heard(seen: list[list[Row]], workers: int) -> dict[str, float]:
    """What the word of a worker costs who hears it, where all have one to say and where one has."""
    pairs = [Pipe() for _ in range(workers)]
    mine = [one for one, _ in pairs]
    words = [("rows", seen[number % len(seen)]) for number in range(workers)]
    for (_, theirs), word in zip(pairs, words, strict=True):
        theirs.send(word)
    clock = Clock()
    for one in wait(mine):
        one.recv()
    found = {"word_bytes": len(pickle.dumps(words[0])), "hear_all_us": clock.per(workers)}
    each = 0.0
    for (_, theirs), word in zip(pairs[:100], words, strict=False):
        theirs.send(word)
        clock = Clock()
        for one in wait(mine):
            one.recv()
        each += clock.per(min(100, workers))
    return found | {"hear_one_us": round(each, 3)}


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=200_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bonaface-scale-") as folder:
        print(json.dumps(measure(Path(folder), asked.pictures), indent=2))


if __name__ == "__main__":
    main()
