"""How fast a scan is against what it cannot beat, what it holds in memory, and what kill -9 does.

``python benchmarks/scanning.py [--few N --many N --kills N]``; not part of run.py, for it is long.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console

from bonaface.bench.rounds import ratios
from bonaface.files import write_json, write_text
from bonaface.runtimes import processor_count
from table import Row, as_markdown, as_rich, machine

Faces = Literal["auto", "none"]
FACES = 64
EVERY_SECONDS = 0.2


def measure(
    folder: Path,
    *,
    few: int = 20_000,
    many: int = 200_000,
    kills: int = 0,
    rounds: int = 3,
    model: str = "cnn",
    size: int = 96,
    bundle: Path | None = None,
) -> list[Row]:
    """Pictures a second by workers, against decode + find + score; memory; rows after kills.

    For memory and kills no faces are looked for: the pictures are crops, many more an hour.

    Args:
        folder: new; holds the pictures and the scans.
        few: pictures of the small source, on which rates are measured.
        many: pictures of the large one, for memory and kills.
        kills: how often the scan of the large source is killed, at random moments.
        rounds: of rates, in which the bound and the scans take turns; 0: none is measured.
        model: of the untrained detector, a name from `bonaface models`.
        size: side of the pictures in pixels, and of the network's input.
        bundle: a detector in the place of the untrained one.
    """
    if bundle is None:
        from untrained import untrained

        bundle = untrained(folder / "bundle", model, size)[0].folder
    for count in (few, many):
        write_faces(folder / str(count), count, size)
    part, cores = f"scan, {size} px", processor_count()
    rows = []
    for workers in sorted({1, cores}) if rounds else ():
        bound, whole = [], []
        for number in range(rounds):
            bound.append(_bound(folder / str(few), bundle, workers))
            out = folder / f"{few}-{workers}-{number}.parquet"
            whole.append(_scan(folder / str(few), bundle, out, workers, "auto")["rate"])
        what = f"decode + find + score, {workers} at a time"
        rows.append(Row(part, what, "pictures/s", tuple(bound)))
        against = ratios(whole, bound)
        goal = "0.85 or more"
        name = f"scan, {workers} workers"
        rows.append(Row(part, name, "pictures/s", tuple(whole), what, against, goal))
    for one, more, goal in ((0, 2, ""), (1, 3, "1.8 or more")) if cores > 1 and rounds else ():
        faster = ratios(rows[more].values, rows[one].values)
        what = f"{rows[more].what}, scaling"
        rows.append(Row(part, what, "pictures/s", rows[more].values, rows[one].what, faster, goal))
    return rows + _memory(folder, bundle, few, many, part) + _killed(folder, bundle, many, kills)


def write_faces(root: Path, count: int, size: int) -> None:
    """Mixtures of three drawn faces, a few kB each, 1,000 in a folder; every 500th is broken."""
    import cv2

    from bonaface.drawn import draw_face

    faces = np.stack([draw_face(np.random.default_rng(seed), size).pixels for seed in range(FACES)])
    rng = np.random.default_rng(0)
    for number in range(count):
        place = root / f"{number // 1000:04d}"
        place.mkdir(parents=True, exist_ok=True)
        three = faces[rng.choice(FACES, 3, replace=False)]
        mixed = np.tensordot(rng.dirichlet((1.0, 1.0, 1.0)), three, 1).astype(np.uint8)
        data = cv2.imencode(".jpg", mixed[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
        broken = number % 500 == 499
        (place / f"{number:07d}.jpg").write_bytes(data[:200] if broken else data)


def _memory(folder: Path, bundle: Path, few: int, many: int, part: str) -> list[Row]:
    peaks = {}
    for count in (few, many):
        out = folder / f"{count}-whole.parquet"
        peaks[count] = _scan(folder / str(count), bundle, out, processor_count(), "none")["peak"]
    small, large = f"peak of all processes, {few:,} pictures", f"the same, {many:,} pictures"
    against = ratios((peaks[many],), (peaks[few],))
    return [
        Row(part, small, "MiB", (peaks[few],)),
        Row(part, large, "MiB", (peaks[many],), small, against, "1.10 or less"),
    ]


def _killed(folder: Path, bundle: Path, many: int, kills: int) -> list[Row]:
    """The scan of the large source again, killed so many times, and compared row by row."""
    if not kills:
        return []
    root, out = folder / str(many), folder / f"{many}-killed.parquet"
    rng = random.Random(0)
    whole = pq.read_table(folder / f"{many}-whole.parquet")
    chunks = -(-many // 256)
    for number in range(kills):
        goal = chunks * (number + rng.random()) / kills
        command = _command(root, bundle, out, processor_count(), "none")
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as running:
            parts = Path(f"{out}.scan")
            while running.poll() is None and len(list(parts.glob("part-*"))) < goal:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.5))
            running.kill()
    _scan(root, bundle, out, processor_count(), "none")
    timings = [name for name in whole.column_names if name.endswith("_ms")]
    same = pq.read_table(out).drop_columns(timings).equals(whole.drop_columns(timings))
    if not same:
        raise RuntimeError(f"expected the rows of {many} pictures after {kills} kills, got others")
    what = f"rows that differ after {kills} kills, {many:,} pictures"
    return [Row("scan", what, "rows", (0.0,), goal="0")]


# -- in processes ---------------------------------------------------------------------------------


def _command(root: Path, bundle: Path, out: Path, workers: int, faces: Faces) -> list[str]:
    file = str(Path(__file__).resolve())
    return [sys.executable, file, "--scan", str(root), str(bundle), str(out), str(workers), faces]


def _scan(root: Path, bundle: Path, out: Path, workers: int, faces: Faces) -> dict[str, float]:
    """A scan in a process of its own: pictures a second once its workers are at work, peak MiB.

    The peak is that of the sum over its processes of the memory that is their own (PSS).
    """
    with subprocess.Popen(
        _command(root, bundle, out, workers, faces), stdout=subprocess.PIPE, text=True
    ) as running:
        peak, over = 0.0, threading.Event()

        def look() -> None:
            nonlocal peak
            while not over.wait(EVERY_SECONDS):
                peak = max(peak, sum(map(_own_memory, _family(running.pid))))

        thread = threading.Thread(target=look)
        thread.start()
        said, _ = running.communicate()
        over.set()
        thread.join()
    if running.returncode:
        raise RuntimeError(f"expected a scan of {root}, got exit code {running.returncode}")
    return json.loads(said) | {"peak": peak}


def _family(pid: int) -> list[int]:
    found = [pid]
    for one in found:
        for children in Path(f"/proc/{one}/task").glob("*/children"):  # each thread has its own
            with contextlib.suppress(OSError):
                found += map(int, children.read_text(encoding="ascii").split())
    return found


def _own_memory(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))


def _bound(root: Path, bundle: Path, workers: int) -> float:
    """Pictures a second of decode + find + score alone, in so many processes side by side."""
    file = str(Path(__file__).resolve())
    shares = [[sys.executable, file, "--bound", str(root), str(bundle), str(n), str(workers)]
              for n in range(workers)]  # fmt: skip
    pipe = subprocess.PIPE
    running = [subprocess.Popen(one, stdin=pipe, stdout=pipe, text=True) for one in shares]
    for one in running:  # all begin when the last has loaded
        if one.stdout is None or one.stdout.readline() != "ready\n":
            raise RuntimeError(f"expected a process that scores, got {one.args} ended")
    begun = time.perf_counter()
    for one in running:
        if one.stdin is not None:
            one.stdin.write("go\n")
            one.stdin.flush()
    found = [int(one.communicate()[0]) for one in running]
    return sum(found) / (time.perf_counter() - begun)


def _bound_child(root: Path, bundle: Path, number: int, workers: int) -> int:
    import cv2

    from bonaface.detector import load_detector
    from bonaface.errors import ImageError
    from bonaface.images import read_image

    cv2.setNumThreads(1)
    files = sorted(root.glob("*/*.jpg"))[number::workers]
    detector = load_detector(bundle, threads=1)
    recipe, finder = detector.bundle.recipe, detector.finder()
    finder.find(read_image(files[0]).pixels)
    print("ready", flush=True)
    sys.stdin.readline()
    for file in files:
        try:
            pixels = read_image(file).pixels
        except ImageError:
            continue
        height, width = pixels.shape[:2]
        faces = finder.find(pixels)
        crops = [
            pixels if recipe.takes_whole(face, width, height) else recipe.cut(pixels, face)
            for face in faces
            if face.size >= recipe.min_face
        ]
        if crops:
            detector.score(crops)
    return len(files)


def _scan_child(
    root: Path, bundle: Path, out: Path, workers: int, faces: Faces
) -> dict[str, float]:
    from collections import Counter

    from bonaface.scan import ScanWatch, scan

    class Clock(ScanWatch):
        """From the first picture that is judged to the last: without the start of processes."""

        begun = ended = (0.0, 0)

        def judged(self, done: int, total: int, counts: Counter[str]) -> None:
            self.ended = time.perf_counter(), done
            if self.begun[1] == 0:
                self.begun = self.ended

    clock = Clock()
    scan([str(root)], bundle, out, faces=faces, workers=workers, watch=clock)
    (begun, first), (ended, last) = clock.begun, clock.ended
    return {"rate": (last - first) / max(ended - begun, 1e-9)}


def main() -> None:
    """Measure and print, or be one of the processes that are measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--few", type=int, default=20_000)
    parser.add_argument("--many", type=int, default=200_000)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=96, help="of the pictures, in pixels")
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    console = Console(width=None if Console().is_terminal else 200)
    before = machine()
    with tempfile.TemporaryDirectory(prefix="bonaface-scan-") as folder:
        rows = measure(
            Path(folder), few=asked.few, many=asked.many, kills=asked.kills,
            rounds=asked.rounds, size=asked.size, bundle=asked.bundle,
        )  # fmt: skip
    console.print(as_rich(rows))
    if asked.out:
        write_json(asked.out, {"machine": before, "rows": [row.to_dict() for row in rows]})
        write_text(asked.out.with_suffix(".md"), as_markdown(rows))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--scan"]:
        root, bundle, out = map(Path, sys.argv[2:5])
        faces: Faces = "none" if sys.argv[6] == "none" else "auto"
        print(json.dumps(_scan_child(root, bundle, out, int(sys.argv[5]), faces)))
    elif sys.argv[1:2] == ["--bound"]:
        root, bundle = map(Path, sys.argv[2:4])
        print(json.dumps(_bound_child(root, bundle, *map(int, sys.argv[4:6]))))
    else:
        main()
