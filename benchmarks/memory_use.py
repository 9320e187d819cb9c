"""Peak memory of reading, decoding and one epoch, at two sizes of the data set.

Each size runs in a process of its own, which is this file as a program.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bonaface.bench.machine import peak_memory
from pictures import jpegs, write_tree
from table import Row

EVERY_SECONDS = 0.005
STATUS = Path("/proc/self/status")


def measure(folder: Path, *, few: int = 1_000, many: int = 100_000, size: int = 32) -> list[Row]:
    """Resident memory in MiB, told apart into anonymous and file-backed pages.

    Args:
        folder: new; holds the data sets and their caches.
        few: samples of the small data set.
        many: samples of the large one.
        size: side of files and crops in pixels; small, for `many` files are written.
    """
    if not STATUS.is_file():
        return []  # only Linux tells the two kinds of pages apart
    files = jpegs(16, size)
    found = {}
    for count in (few, many):
        root = folder / str(count)
        write_tree(root / "data", files, {"train": count - count // 10, "test": count // 10})
        found[count] = _in_child(root, size)
    part = f"memory, {size} px"
    rows = []
    for count in (few, many):
        at = f"{count:,} samples"
        for name, what in _KINDS.items():
            value = found[count]["peak"][name]
            against = f"{few:,} samples" if count == many else ""
            ratio = (value / found[few]["peak"][name],) if count == many else ()
            rows.append(Row(part, f"{what}, {at}", "MiB", (value,), against, ratio))
    for phase in found[many]["phases"]:
        grown = _per_sample(found, phase, few, many)
        rows.append(Row(part, f"anonymous, per further sample, {phase}", "bytes", (grown,)))
    rate = many / found[many]["seconds"]["read"]
    rows.append(Row(part, f"load_samples, {many:,} files", "files/s", (rate,)))
    return rows


_KINDS = {"all": "peak resident", "anonymous": "peak anonymous", "file": "peak file-backed"}


def _per_sample(found: dict[int, Any], phase: str, few: int, many: int) -> float:
    grown = found[many]["phases"][phase]["anonymous"] - found[few]["phases"][phase]["anonymous"]
    return float(max(grown, 0.0)) * 2**20 / (many - few)


def _in_child(root: Path, size: int) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).resolve()), str(root), str(size)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# -- in the child ---------------------------------------------------------------------------------


class Sampler:
    """Highest resident memory so far, in MiB, by kind of page."""

    def __init__(self) -> None:
        self.phases: dict[str, dict[str, float]] = {}
        self._fields = {"VmRSS": "all", "RssAnon": "anonymous", "RssFile": "file"}
        self._now = dict.fromkeys(self._fields.values(), 0.0)
        self._lock = threading.Lock()

    def look(self) -> None:
        lines = (line.split() for line in STATUS.read_text().splitlines())
        seen = {words[0][:-1]: words[1] for words in lines if len(words) > 1}
        with self._lock:
            for field, name in self._fields.items():
                self._now[name] = max(self._now[name], int(seen[field]) / 1024)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Watch the memory while the body runs."""
        self._now = dict.fromkeys(self._now, 0.0)
        over = threading.Event()
        thread = threading.Thread(target=self._watch, args=(over,))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.look()
            self.phases[name] = dict(self._now)

    def _watch(self, over: threading.Event) -> None:
        while not over.wait(EVERY_SECONDS):
            self.look()


def child(root: Path, size: int) -> dict[str, Any]:
    """Read, decode and go through one epoch; peaks in MiB of each."""
    import time

    import numpy as np

    from bonaface.batches import Batches, open_cache
    from bonaface.preprocess import Preprocess
    from bonaface.samples import load_samples

    sampler = Sampler()
    preprocess = Preprocess(size)
    seconds = {}
    with sampler.phase("read"):
        begun = time.perf_counter()
        samples = load_samples(root / "data")
        seconds["read"] = time.perf_counter() - begun
    with sampler.phase("decode"):
        cache = open_cache(samples, preprocess, root=root / "cache")
    with sampler.phase("epoch"):
        chosen = np.arange(len(cache.rows))
        seen = 0
        for batch in Batches(cache, chosen, preprocess, 32, augment="standard").shuffled(0):
            seen += len(batch.labels)
    if seen != len(samples):
        raise RuntimeError(f"expected an epoch of {len(samples)} samples, got {seen}")
    peak = {
        kind: max(phase[kind] for phase in sampler.phases.values())
        for kind in ("all", "anonymous", "file")
    }
    return {"phases": sampler.phases, "peak": peak | {"all": peak_memory()}, "seconds": seconds}


if __name__ == "__main__":
    json.dump(child(Path(sys.argv[1]), int(sys.argv[2])), sys.stdout)
