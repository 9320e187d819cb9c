"""All benchmarks in one run: ``python benchmarks/run.py [--quick | --full] [--out FILE.json]``."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

import auditing
import decoding
import detector_speed
import following
import memory_use
import photos
import startup
import stressing
import training_rate
from bonaface.files import write_json, write_text
from table import Row, as_markdown, as_rich, machine

SCHEMA_VERSION = 1
Part = tuple[Callable[..., list[Row]], dict[str, Any]]

DEFAULT: dict[str, Part] = {
    "start-up": (startup.measure, {}),
    "detector": (detector_speed.measure, {}),
    "photos": (photos.measure, {}),
    "decoding": (decoding.measure, {}),
    "training": (training_rate.measure, {}),
    "memory": (memory_use.measure, {}),
    "audit": (auditing.measure, {}),
    "stress": (stressing.measure, {}),
    "following": (following.measure, {}),
}
QUICK: dict[str, Part] = {
    "start-up": (startup.measure, {"rounds": 3}),
    "detector": (detector_speed.measure, {"rounds": 3, "calls": 5}),
    "photos": (photos.measure, {"rounds": 3}),
    "decoding": (decoding.measure, {"count": 500, "rounds": 2}),
    "training": (training_rate.measure, {"steps": 8, "rounds": 2}),
    "memory": (memory_use.measure, {"many": 10_000}),
    "audit": (auditing.measure, {"few": 500, "many": 2_000}),
    "stress": (stressing.measure, {"count": 20, "corruptions": ("jpeg", "rescale")}),
    "following": (following.measure, {"seconds": 4, "rounds": 2}),
}
_SLOW = {"model": "resnet50v2", "size": 160, "steps": 8, "rounds": 3}
FULL: dict[str, Part] = DEFAULT | {
    "audit": (auditing.measure, {"many": 100_000}),
    "detector, resnet50": (
        detector_speed.measure,
        {"model": "resnet50", "size": 224, "rounds": 5, "calls": 3},
    ),
    "training, resnet50v2": (training_rate.measure, _SLOW),
}


def main() -> None:
    """Measure, print a table, and write it."""
    parser = argparse.ArgumentParser(description="Measure bonaface; see benchmarks/README.md.")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="fewer rounds, under a minute")
    size.add_argument("--full", action="store_true", help="ResNet-50 too, some minutes more")
    parser.add_argument("--only", help=f"one part: {', '.join(DEFAULT)}")
    parser.add_argument("--out", type=Path, help="write FILE.json, and FILE.md beside it")
    asked = parser.parse_args()
    mode = "quick" if asked.quick else "full" if asked.full else "default"
    parts = {"quick": QUICK, "full": FULL, "default": DEFAULT}[mode]
    if asked.only:
        parts = {name: part for name, part in parts.items() if name.startswith(asked.only)}
        if not parts:
            parser.error(f"expected one of {', '.join(DEFAULT)} as --only, got {asked.only!r}")
    console = Console(width=None if Console().is_terminal else 200)
    before = machine()
    rows, seconds = measure(parts, console)
    console.print(as_rich(rows))
    if asked.out:
        value = {
            "schema_version": SCHEMA_VERSION,
            "mode": mode,
            "machine": before,
            "seconds": seconds,
            "rows": [row.to_dict() for row in rows],
        }
        write_json(asked.out, value)
        write_text(asked.out.with_suffix(".md"), as_markdown(rows))


def measure(parts: dict[str, Part], console: Console) -> tuple[list[Row], dict[str, float]]:
    """The rows of all parts, and how many seconds each took."""
    rows: list[Row] = []
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="bonaface-bench-") as folder:
        for name, (part, settings) in parts.items():
            begun = time.perf_counter()
            with console.status(f"measuring {name} ..."):
                rows += part(Path(folder) / name.replace(", ", "-"), **settings)
            seconds[name] = round(time.perf_counter() - begun, 1)
    return rows, seconds


if __name__ == "__main__":
    main()
