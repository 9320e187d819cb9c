"""Where the time of one photo goes: decoding, finding faces, cutting, scoring.

Measured in a process of its own that never imports PyTorch, as a base install runs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from bonaface.bench.rounds import ratios
from table import Row

QUALITY = 90
STEPS = ("decode", "find", "cut", "score")
WHOLE = "Detector.detect"


def measure(
    folder: Path,
    *,
    megapixels: tuple[int, ...] = (1, 4, 12),
    rounds: int = 9,
    model: str = "cnn",
    size: int = 128,
) -> list[Row]:
    """Milliseconds of each step, and its share of the whole, for photos of several sizes.

    Args:
        folder: new; holds a bundle and the photos.
        megapixels: sizes of the photos, 4 : 3.
        rounds: of each photo, after one that is thrown away.
        model: of the untrained detector, a name from `bonaface models`.
        size: side of its input in pixels.
    """
    from untrained import untrained  # it imports PyTorch, which the child must not

    bundle, _ = untrained(folder / "bundle", model, size)
    rows = []
    for number in megapixels:
        file = folder / f"{number}.jpg"
        file.write_bytes(photo(number))
        command = [sys.executable, __file__, str(bundle.folder), str(file), str(rounds)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
        found = {name: tuple(values) for name, values in json.loads(done.stdout).items()}
        part = f"photo of {number} MP, {model} {size} px"
        rows.append(Row(part, WHOLE, "ms", found[WHOLE]))
        rows += [
            Row(part, step, "ms", found[step], WHOLE, ratios(found[step], found[WHOLE]))
            for step in STEPS
        ]
    return rows


def photo(megapixels: int) -> bytes:
    """A portrait 4 : 3 on a grey wall, with the grain of a sensor, as JPEG."""
    import skimage.data

    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    width = height * 4 // 3
    person = cv2.resize(skimage.data.astronaut(), (height, height), interpolation=cv2.INTER_CUBIC)
    wall = np.full((height, width, 3), 120, np.float32)
    wall[:, (width - height) // 2 :][:, :height] = person
    wall += np.random.default_rng(0).standard_normal(wall.shape, np.float32) * 3
    pixels = np.clip(np.rint(wall), 0, 255).astype(np.uint8)
    _, data = cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return data.tobytes()


def _child(bundle: Path, file: Path, rounds: int) -> dict[str, list[float]]:
    from bonaface.detector import load_detector
    from bonaface.images import read_image

    detector = load_detector(bundle)
    recipe, finder = detector.bundle.recipe, detector.finder()
    found: dict[str, list[float]] = {name: [] for name in (*STEPS, WHOLE)}
    for _ in range(rounds + 1):
        clock = [time.perf_counter()]

        def lap(clock: list[float] = clock) -> None:
            clock.append(time.perf_counter())

        pixels = read_image(file).pixels
        lap()
        faces = finder.find(pixels)
        lap()
        crops = [recipe.cut(pixels, face) for face in faces]
        lap()
        detector.score(crops)
        lap()
        verdict = detector.detect(file)
        lap()
        if len(faces) != 1 or len(verdict.faces) != 1:
            raise RuntimeError(f"expected one face in {file}, got {len(faces)}")
        for name, begun, ended in zip((*STEPS, WHOLE), clock, clock[1:], strict=False):
            found[name].append((ended - begun) * 1000)
    if "torch" in sys.modules:
        raise RuntimeError("expected no PyTorch where a base install runs, got it imported")
    return {name: values[1:] for name, values in found.items()}


if __name__ == "__main__":
    print(json.dumps(_child(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))))
