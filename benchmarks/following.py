"""How far behind a stream at its real speed `detect --follow` is, and what share it drops.

A portrait that moves, as MPEG-TS at 25 frames a second, through a named pipe at that speed.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from pathlib import Path

import cv2
import numpy as np

from bonaface.bench.rounds import ratios
from table import Row

FPS = 25
ALONE = "judging alone, p50"


def measure(
    folder: Path, *, seconds: float = 10.0, rounds: int = 5, model: str = "cnn", size: int = 128
) -> list[Row]:
    """Lag and share dropped, one value a round; judging the same frames alone is the baseline.

    Args:
        folder: new; holds a bundle, the clip and the pipe.
        seconds: length of the stream.
        rounds: after one that is thrown away.
        model: of the untrained detector, a name from `bonaface models`.
        size: side of its input in pixels.
    """
    from bonaface.detector import Detector
    from untrained import untrained

    bundle, _ = untrained(folder / "bundle", model, size)
    detector = Detector(bundle)
    frames = moving(round(seconds * FPS))
    data = as_stream(frames, folder / "stream.ts")
    alone, half, most, dropped, behind = [], [], [], [], []
    for _ in range(rounds + 1):
        alone.append(judged_alone(detector, frames[:40]))
        lags, share, late = followed(detector, data, seconds, folder / "pipe")
        half.append(1000 * float(np.percentile(lags, 50)))
        most.append(1000 * float(np.percentile(lags, 95)))
        dropped.append(share)
        behind.append(late)
    part = f"following, {model} {size} px"
    base = tuple(alone[1:])
    return [
        Row(part, ALONE, "ms", base),
        Row(part, "lag, p50", "ms", tuple(half[1:]), ALONE, ratios(half[1:], base)),
        Row(part, "lag, p95", "ms", tuple(most[1:]), ALONE, ratios(most[1:], base)),
        Row(part, f"frames dropped, of {FPS} a second", "%", tuple(dropped[1:])),
        Row(part, "decoding behind, at most", "s", tuple(behind[1:])),
    ]


def moving(count: int) -> list[np.ndarray]:
    """Frames of 640 x 480, RGB, in which a portrait goes to and fro."""
    import skimage.data

    portrait = cv2.resize(np.asarray(skimage.data.astronaut()), (400, 400))
    frames = []
    for number in range(count):
        frame = np.full((480, 640, 3), 128, np.uint8)
        left = 20 + abs(number * 2 % 400 - 200)
        frame[40:440, left : left + 400] = portrait
        frames.append(frame)
    return frames


def as_stream(frames: list[np.ndarray], path: Path) -> bytes:
    kind = cv2.VideoWriter_fourcc(*"mpg2")
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, kind, FPS, (640, 480))
    for frame in frames:
        writer.write(frame[..., ::-1])
    writer.release()
    return path.read_bytes()


def judged_alone(detector: object, frames: list[np.ndarray]) -> float:
    """Milliseconds a frame takes, in the median, with nothing decoded beside it."""
    from bonaface.judging import Wishes
    from bonaface.people import Follower
    from bonaface.video import Frame

    judge = detector.judge(Wishes())  # type: ignore[attr-defined]
    follower, taken = Follower(), []
    for number, pixels in enumerate(frames):
        begun = time.perf_counter()
        judge.frame(Frame(number, number / FPS, pixels), follower)
        taken.append(1000 * (time.perf_counter() - begun))
    return statistics.median(taken)


def followed(
    detector: object, data: bytes, seconds: float, pipe: Path
) -> tuple[list[float], float, float]:
    """Lags in seconds, the share dropped in percent, and for how long decoding was behind."""
    os.mkfifo(pipe)
    feeder = threading.Thread(target=_feed, args=(pipe, data, seconds), daemon=True)
    feeder.start()
    with detector.follow(pipe) as following:  # type: ignore[attr-defined]
        lags = [update.lag for update in following if update.lag is not None]
        count = following.end().frames
    feeder.join()
    pipe.unlink()
    return lags, 100 * count.dropped / count.seen, count.behind


def _feed(pipe: Path, data: bytes, seconds: float) -> None:
    with pipe.open("wb", buffering=0) as file:
        begun, at = time.monotonic(), 0
        while at < len(data):
            due = min(len(data), int(len(data) * (time.monotonic() - begun) / seconds))
            at += file.write(data[at:due]) if due > at else 0
            time.sleep(0.5 / FPS)
