"""How long a person waits for the first answer: whole processes, from start to exit."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from bonaface.bench.rounds import interleave, ratios
from photos import photo
from pictures import jpegs
from table import Row
from untrained import untrained


def measure(folder: Path, *, rounds: int = 7, model: str = "cnn", size: int = 128) -> list[Row]:
    """Seconds of whole processes, and processor time; new processes, files in memory already.

    Args:
        folder: new; holds a bundle and two pictures.
        rounds: processes of each kind, after one of each that is thrown away.
        model: of the untrained detector, a name from `bonaface models`.
        size: side of its input in pixels.
    """
    bundle, _ = untrained(folder / "bundle", model, size)
    crop = folder / "crop.jpg"
    crop.write_bytes(jpegs(1, 256)[0])
    portrait = folder / "portrait.jpg"
    portrait.write_bytes(photo(12))
    ours = [sys.executable, "-m", "bonaface"]
    # Name, command, what it is held against, goal.
    asked: list[tuple[str, list[str], str, str]] = [
        ("python -c pass", [sys.executable, "-c", "pass"], "", ""),
        ("import onnxruntime", [sys.executable, "-c", "import onnxruntime"], "", ""),
        ("bonaface --version", [*ours, "--version"], "python -c pass", ""),
        ("bonaface --help", [*ours, "--help"], "python -c pass", "under 0.4 s"),
        (
            "bonaface detect, one crop",
            [*ours, "detect", str(crop), "--model", str(bundle.folder), "--faces", "none"],
            "import onnxruntime",
            "under 2 s",
        ),
        (
            "bonaface detect, one photo of 12 MP",
            [*ours, "detect", str(portrait), "--model", str(bundle.folder)],
            "import onnxruntime",
            "under 2 s",
        ),
    ]
    work: dict[str, list[float]] = {name: [] for name, *_ in asked}
    found = interleave(
        {name: partial(_run, command, work[name]) for name, command, *_ in asked}, rounds
    )
    rows = []
    for suffix, unit, values in (("", "s", found), (", processor time", "core-s", work)):
        for name, _, against, goal in asked:
            own = values[name][-rounds:]
            base = values[against][-rounds:] if against else []
            rows.append(
                Row(
                    "start-up",
                    name + suffix,
                    unit,
                    tuple(own),
                    against + suffix if against else "",
                    ratios(own, base) if against else (),
                    "" if suffix else goal,
                )
            )
    return rows


def _run(command: list[str], work: list[float]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
    work.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return seconds
