"""How long a person waits for the first answer: whole processes, from start to exit."""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from pictures import jpegs
from table import Row, interleave, ratios
from untrained import untrained


def measure(folder: Path, *, rounds: int = 7, model: str = "cnn", size: int = 128) -> list[Row]:
    """Seconds of whole processes. The files are in the system's memory, the process is new.

    Args:
        folder: new; holds a bundle and a picture.
        rounds: processes of each kind, after one of each that is thrown away.
        model: of the untrained detector, a name from `bonaface models`.
        size: side of its input in pixels.
    """
    bundle, _ = untrained(folder / "bundle", model, size)
    crop = folder / "crop.jpg"
    crop.write_bytes(jpegs(1, 256)[0])
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
    ]
    found = interleave({name: partial(_run, command) for name, command, _, _ in asked}, rounds)
    return [
        Row(
            "start-up",
            name,
            "s",
            tuple(found[name]),
            against,
            ratios(found[name], found[against]) if against else (),
            goal,
        )
        for name, _, against, goal in asked
    ]


def _run(command: list[str]) -> float:
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begun
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
    return seconds
