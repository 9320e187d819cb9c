"""A process that opens one arm and scores: how long a start takes, how much memory it needs.

Run as ``python -m bonaface.bench.child FOLDER RUNTIME THREADS``; prints JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

from bonaface.bench.arms import Arm, Runtime, open_arm
from bonaface.bench.machine import peak_memory
from bonaface.bundle import load_bundle

CROPS: Final = 16  # what `bonaface evaluate` gives the network at once


def first_score(folder: Path, runtime: Runtime, threads: int) -> dict[str, Any]:
    """When the first score was there, on the system's monotonic clock; and the peak in MiB."""
    detector, _ = open_arm(Arm(load_bundle(folder), runtime), threads)
    crop = np.full((128, 128, 3), 128, np.uint8)
    detector.score([crop])
    at = time.monotonic()
    detector.score([crop] * CROPS)
    return {"at": at, "peak": peak_memory()}


if __name__ == "__main__":
    _folder, _runtime, _threads = sys.argv[1:]
    json.dump(first_score(Path(_folder), cast("Runtime", _runtime), int(_threads)), sys.stdout)
