"""Drawn faces and drawn forgeries: a data set without a download, for the demo and the tests.

A forgery here leaves the traces of a face swap: the inner face comes from another drawing, was
resampled, has other colours and other noise, and is blended in with a soft mask (Li et al. 2020,
"Face X-ray", builds its training pairs in the same way). Both classes are saved alike, so that
neither size nor compression gives the answer away. What a detector learns here says nothing about
photographs.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from bonaface.errors import DataError
from bonaface.files import atomic_folder

Pixels = NDArray[np.uint8]
Plane = NDArray[np.float32]

GENERATOR = "drawn-swap"
_OVER = 2  # shapes are drawn at twice the size and averaged down
_SKIN = np.array(
    [
        (0.98, 0.86, 0.77), (0.93, 0.76, 0.64), (0.85, 0.65, 0.50), (0.72, 0.51, 0.37),
        (0.54, 0.36, 0.25), (0.36, 0.23, 0.16),
    ],
    np.float32,
)  # fmt: skip
_HAIR = np.array(
    [
        (0.07, 0.06, 0.06), (0.20, 0.12, 0.07), (0.36, 0.22, 0.12), (0.60, 0.43, 0.22),
        (0.80, 0.66, 0.40), (0.48, 0.18, 0.08), (0.68, 0.67, 0.66),
    ],
    np.float32,
)  # fmt: skip
_IRIS = np.array(
    [(0.22, 0.13, 0.08), (0.36, 0.24, 0.12), (0.25, 0.42, 0.58), (0.30, 0.45, 0.30)], np.float32
)


@dataclass(frozen=True, slots=True, eq=False)
class DrawnFace:
    """One drawn picture.

    Attributes:
        pixels: uint8 HxWx3, RGB.
        landmarks: float32 (5, 2), x and y in pixels: left eye, right eye, nose tip, left and
            right corner of the mouth, as the viewer sees them.
    """

    pixels: Pixels
    landmarks: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Person:
    """Shape and colour of one face; lengths in units of the picture's side."""

    centre: tuple[float, float]
    width: float
    height: float
    tilt: float  # degrees
    eye_gap: float
    eye_size: float
    eye_level: float
    brow: float
    nose: float
    mouth_width: float
    mouth_open: float
    smile: float
    hair_length: float  # 0 bald, above 0.35 beside the face
    hairline: float
    skin: Plane
    hair: Plane
    iris: Plane
    lips: Plane


def draw_face(rng: np.random.Generator, size: int = 96) -> DrawnFace:
    """Draw one face, frontal, with hair, clothes, light and sensor noise.

    Args:
        rng: everything random comes from here.
        size: side of the picture in pixels.
    """
    person = _person(rng)
    side = size * _OVER
    canvas = _Canvas(_background(rng, side), person)
    _draw_bust(canvas, rng)
    _draw_head(canvas, rng)
    _draw_features(canvas)
    _draw_fringe(canvas, rng)
    lit = _light(canvas, rng)
    small = cv2.resize(lit, (size, size), interpolation=cv2.INTER_AREA)
    points = canvas.to_pixels(_landmarks(person)) / _OVER
    return DrawnFace(_camera(np.asarray(small, np.float32), rng), points.astype(np.float32))


def forge_drawn(face: DrawnFace, rng: np.random.Generator) -> Pixels:
    """Replace the inner face by another drawing's, as a face swap does.

    Args:
        face: the picture to forge; it is left as it is.
        rng: draws the donor and how well the swap was made.

    Returns:
        uint8, the same shape as `face.pixels`.
    """
    size = face.pixels.shape[0]
    donor = draw_face(rng, size)
    matrix, _ = cv2.estimateAffinePartial2D(donor.landmarks, face.landmarks, method=cv2.LMEDS)
    warped = cv2.warpAffine(
        donor.pixels,
        np.asarray(matrix),
        (size, size),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
    )
    swapped = _resample(_floats(warped), rng.uniform(1.0, 1.5))
    target = _floats(face.pixels)
    mask = _swap_mask(face.landmarks, size, rng)
    swapped = _match_colours(swapped, target, mask, float(rng.uniform(0.8, 1.0)))
    swapped = swapped + rng.normal(0, 0.012, 3).astype(np.float32)
    blend = mask[..., None]
    return _to_uint8(target * (1 - blend) + swapped * blend)


def write_drawn_set(
    folder: Path, n_per_class: Mapping[str, int], seed: int, size: int = 96
) -> None:
    """Write a labelled set: ``<split>/real``, ``<split>/fake`` and ``metadata.csv``.

    The fake of each pair is forged from its real, so the two share a group, and no group is in
    two splits. The same seed gives the same bytes.

    Args:
        folder: must not exist, or be empty.
        n_per_class: pictures of each class, by split ("train", "validation", "test").
        seed: of everything.
        size: side of the pictures in pixels.

    Raises:
        DataError: the folder holds something already.
    """
    if folder.exists() and any(folder.iterdir()):
        raise DataError(
            f"expected a new folder for the drawn set, got {str(folder)!r}, which is not empty; "
            "name another folder"
        )
    rows: list[dict[str, str]] = []
    with atomic_folder(folder) as temporary:
        for number, (split, count) in enumerate(n_per_class.items()):
            for label in ("real", "fake"):
                (temporary / split / label).mkdir(parents=True)
            for index in range(count):
                # One stream per pair: a larger set begins with the smaller one's pictures.
                rng = np.random.default_rng([seed, number, index])
                group = f"{split}-{index:05d}"
                face = draw_face(rng, size)
                pictures = {"real": face.pixels, "fake": forge_drawn(face, rng)}
                for label, pixels in pictures.items():
                    path = f"{split}/{label}/{index:05d}.jpg"
                    (temporary / path).write_bytes(_jpeg(pixels, rng))
                    rows.append(_row(path, label, split, group))
        with (temporary / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]) if rows else ["file_name"])
            writer.writeheader()
            writer.writerows(sorted(rows, key=lambda row: row["file_name"]))


def _row(path: str, label: str, split: str, group: str) -> dict[str, str]:
    generator = GENERATOR if label == "fake" else ""
    made = {
        "file_name": path,
        "label": label,
        "split": split,
        "group": group,
        "generator": generator,
    }
    return made | {"age": "", "gender": "", "race": "", "source": "drawn"}


def _jpeg(pixels: Pixels, rng: np.random.Generator) -> bytes:
    file = io.BytesIO()
    PILImage.fromarray(pixels).save(file, "JPEG", quality=int(rng.integers(75, 96)))
    return file.getvalue()


# -- who it is ------------------------------------------------------------------------------------


def _person(rng: np.random.Generator) -> _Person:
    tone = rng.uniform(0, len(_SKIN) - 1)
    low = int(tone)
    skin = _SKIN[low] + (tone - low) * (_SKIN[min(low + 1, len(_SKIN) - 1)] - _SKIN[low])
    skin = skin * rng.normal(1, 0.03, 3).astype(np.float32)
    redness = np.array([1.0, rng.uniform(0.55, 0.72), rng.uniform(0.55, 0.75)], np.float32)
    width = rng.uniform(0.25, 0.30)
    return _Person(
        centre=(rng.uniform(0.46, 0.54), rng.uniform(0.48, 0.55)),
        width=width,
        height=width * rng.uniform(1.22, 1.42),
        tilt=rng.normal(0, 5),
        eye_gap=rng.uniform(0.40, 0.48),
        eye_size=rng.uniform(0.17, 0.22),
        eye_level=rng.uniform(0.08, 0.18),
        brow=rng.uniform(0.6, 1.6),
        nose=rng.uniform(0.8, 1.25),
        mouth_width=rng.uniform(0.32, 0.46),
        mouth_open=max(0.0, rng.normal(0.02, 0.03)),
        smile=rng.uniform(-0.03, 0.09),
        hair_length=rng.uniform(0.01, 1.0) if rng.random() > 0.06 else 0.0,
        hairline=rng.uniform(0.48, 0.72),
        skin=np.clip(skin, 0, 1).astype(np.float32),
        hair=np.clip(_HAIR[rng.integers(len(_HAIR))] * rng.uniform(0.8, 1.25), 0, 1),
        iris=_IRIS[rng.integers(len(_IRIS))],
        lips=np.clip(skin * redness * rng.uniform(0.85, 1.0), 0, 1).astype(np.float32),
    )


def _landmarks(person: _Person) -> NDArray[np.float32]:
    """In face coordinates: the face's half-axes are 1, the nose points to +y (down)."""
    eyes, mouth = -person.eye_level, 0.52 - person.smile
    return np.array(
        [
            (-person.eye_gap, eyes),
            (person.eye_gap, eyes),
            (0, 0.22),
            (-person.mouth_width, mouth),
            (person.mouth_width, mouth),
        ],
        np.float32,
    )


class _Canvas:
    """A picture being drawn in face coordinates, with the masks that light needs later."""

    def __init__(self, pixels: Plane, person: _Person) -> None:
        self.pixels = pixels
        self.person = person
        self.side = pixels.shape[0]
        self.head = np.zeros(pixels.shape[:2], np.float32)
        self._turn = math.radians(person.tilt)

    def to_pixels(self, points: Any) -> NDArray[np.float32]:
        """Face coordinates (n, 2) -> pixels of the canvas (n, 2)."""
        p = self.person
        scaled = np.asarray(points, np.float32) * (p.width, p.height)
        cos, sin = math.cos(self._turn), math.sin(self._turn)
        turned = scaled @ np.array([(cos, sin), (-sin, cos)])
        return np.asarray((turned + p.centre) * self.side, np.float32)

    def shape(self, points: Any, soft: float = 0.0) -> Plane:
        """Mask in [0, 1] of a polygon in face coordinates; `soft` is its blur in pixels."""
        mask = np.zeros((self.side, self.side), np.uint8)
        corners = np.round(self.to_pixels(points) * 16).astype(np.int32)
        cv2.fillPoly(mask, [corners], 255, cv2.LINE_AA, 4)
        plane = _floats(mask)
        return _blur(plane, soft) if soft else plane

    def paint(self, mask: Plane, colour: Any, strength: float = 1.0) -> None:
        """Lay a colour (3,) or a picture over the canvas where the mask is."""
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if len(rows) == 0:
            return
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        colour = np.asarray(colour, np.float32)
        self.pixels[box] += (mask[box] * np.float32(strength))[..., None] * (
            (colour[box] if colour.ndim == 3 else colour) - self.pixels[box]
        )


def _oval(
    x: float, y: float, width: float, height: float, power: float = 2.0
) -> NDArray[np.float64]:
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack(
        [
            x + width * np.sign(cos) * np.abs(cos) ** (2 / power),
            y + height * np.sign(sin) * np.abs(sin) ** (2 / power),
        ],
        axis=1,
    )


# -- what is drawn, back to front -----------------------------------------------------------------


def _noise(rng: np.random.Generator, side: int, cells: int, channels: int = 1) -> Plane:
    """Smooth noise of mean 0 with about `cells` bumps across."""
    shape = (cells, cells, channels) if channels > 1 else (cells, cells)
    grid = rng.standard_normal(shape, np.float32)
    return np.asarray(cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC))


def _background(rng: np.random.Generator, side: int) -> Plane:
    base = rng.uniform(0.15, 0.85) + rng.uniform(-0.15, 0.15, 3).astype(np.float32)
    pixels = base + 0.07 * _noise(rng, side, 3, 3)
    for cells in (8, 20, side // 3):
        pixels = pixels + rng.uniform(0.0, 0.06) * _noise(rng, side, cells)[..., None]
    if rng.random() < 0.5:  # a wall, a shelf, a window frame
        x = int(rng.uniform(0.0, 0.9) * side)
        pixels[:, x : x + int(rng.uniform(0.05, 0.3) * side)] *= rng.uniform(0.6, 1.4)
    return np.clip(pixels, 0.02, 0.98).astype(np.float32)


def _draw_bust(canvas: _Canvas, rng: np.random.Generator) -> None:
    p = canvas.person
    if p.hair_length > 0.35:
        back = canvas.shape(_oval(0, 0.15 + 0.5 * p.hair_length, 1.28, 1.0 + 0.5 * p.hair_length))
        canvas.paint(back, _hair_texture(canvas, rng) * 0.7)
    cloth = rng.uniform(0.05, 0.95, 3).astype(np.float32)
    weave = cloth + 0.05 * _noise(rng, canvas.side, canvas.side // 4)[..., None]
    neck = canvas.shape([(-0.5, 0.6), (0.5, 0.6), (0.58, 1.7), (-0.58, 1.7)])
    canvas.paint(neck, p.skin * 0.82)
    canvas.paint(canvas.shape(_oval(0, 2.35, 2.0, 1.0, 2.6)), weave)
    canvas.paint(canvas.shape(_oval(0, 1.42, 0.45, 0.22)), p.skin * 0.85)


def _draw_head(canvas: _Canvas, rng: np.random.Generator) -> None:
    p = canvas.person
    for x in (-1.0, 1.0):
        canvas.paint(canvas.shape(_oval(x, 0.02, 0.16, 0.22)), p.skin * 0.9)
    canvas.head = canvas.shape(_oval(0, 0, 1, 1, rng.uniform(2.0, 2.4)))
    blotches = 0.03 * _noise(rng, canvas.side, 9) + 0.025 * _noise(
        rng, canvas.side, canvas.side // 3
    )
    canvas.paint(canvas.head, p.skin * (1 + blotches[..., None]))
    for x in (-0.52, 0.52):
        cheek = canvas.shape(_oval(x, 0.28, 0.26, 0.2), soft=canvas.side / 24)
        canvas.paint(cheek, p.lips, 0.35)


def _draw_features(canvas: _Canvas) -> None:
    p, unit = canvas.person, canvas.side / 192
    dark = p.skin * 0.55
    for x in (-p.eye_gap, p.eye_gap):
        y, w = -p.eye_level, p.eye_size
        canvas.paint(canvas.shape(_oval(x, y - 0.02, w * 1.45, w * 0.95), 2.5 * unit), dark, 0.45)
        eye = canvas.shape(_oval(x, y, w, w * 0.52, 1.7))
        canvas.paint(eye, (0.93, 0.92, 0.90))
        canvas.paint(eye * canvas.shape(_oval(x, y - 0.01, w * 0.52, w * 0.42)), p.iris)
        canvas.paint(eye * canvas.shape(_oval(x, y - 0.01, w * 0.25, w * 0.2)), (0.03, 0.03, 0.03))
        canvas.paint(canvas.shape(_oval(x + 0.04, y - 0.04, w * 0.12, w * 0.1)), (1, 1, 1), 0.9)
        lid = [(x - w, y), (x, y - w * 0.62), (x + w, y), (x, y - w * 0.42)]
        canvas.paint(canvas.shape(lid, 0.6 * unit), dark * 0.4)
        b = 0.035 * p.brow
        brow_y = y - w * 0.95 - 0.06
        inner, outer = x - math.copysign(w, x), x + math.copysign(w * 1.25, x)
        brow = [(inner, brow_y + b), (inner, brow_y - b), (x, brow_y - 0.06 - b),
                (outer, brow_y + 0.02), (x, brow_y - 0.06 + b)]  # fmt: skip
        canvas.paint(canvas.shape(brow, 0.8 * unit), p.hair * 0.8, 0.85)
    n = 0.15 * p.nose
    side = [(0.02, -0.15), (n, 0.2), (0.02, 0.24)]
    canvas.paint(canvas.shape(side, 2.2 * unit), dark, 0.5)
    canvas.paint(canvas.shape(_oval(-0.02, 0.05, 0.045, 0.22), 2 * unit), p.skin * 1.2, 0.5)
    for x in (-n * 0.6, n * 0.6):
        canvas.paint(canvas.shape(_oval(x, 0.25, n * 0.36, 0.035), 0.7 * unit), dark * 0.5, 0.8)
    _draw_mouth(canvas, unit)


def _draw_mouth(canvas: _Canvas, unit: float) -> None:
    p = canvas.person
    x = np.linspace(-1, 1, 21)
    line = 0.52 - p.smile * x**2 * 1.0
    bow = 0.075 * (1 - x**2) * (1 - 0.35 * np.exp(-((x / 0.18) ** 2)))
    upper = np.stack([x * p.mouth_width, line - bow], 1)
    lower = np.stack([x * p.mouth_width, line + p.mouth_open + 0.10 * (1 - x**2)], 1)
    canvas.paint(canvas.shape(np.concatenate([upper, lower[::-1]]), 0.8 * unit), p.lips)
    gap = 0.012 + p.mouth_open * (1 - x**2)
    inner = np.concatenate(
        [
            np.stack([x * p.mouth_width * 0.95, line - 0.01], 1),
            np.stack([x * p.mouth_width * 0.95, line + gap], 1)[::-1],
        ]
    )
    canvas.paint(canvas.shape(inner, 0.5 * unit), p.lips * 0.3)
    if p.mouth_open > 0.03:
        canvas.paint(canvas.shape(inner * (0.75, 1.0), 0.8 * unit), (0.9, 0.88, 0.83), 0.8)
    chin = canvas.shape(_oval(0, 0.73, 0.25, 0.04), 3 * unit)
    canvas.paint(chin, p.skin * 0.6, 0.4)


def _hair_texture(canvas: _Canvas, rng: np.random.Generator) -> Plane:
    grid = rng.standard_normal((4, canvas.side // 3), np.float32)
    strands = cv2.resize(grid, (canvas.side, canvas.side), interpolation=cv2.INTER_CUBIC)
    return np.asarray(canvas.person.hair * (1 + 0.28 * np.asarray(strands)[..., None]))


def _draw_fringe(canvas: _Canvas, rng: np.random.Generator) -> None:
    p = canvas.person
    if p.hair_length == 0:
        return
    parting = rng.uniform(-0.6, 0.6)
    x = np.linspace(-1.08, 1.08, 25)
    cap = np.stack([x, -1.2 * np.sqrt(np.clip(1 - (x / 1.09) ** 2, 0, 1)) - 0.02], 1)
    drop = 0.30 * np.abs(x - parting) ** 1.5
    edge = np.stack([x, -p.hairline + drop + 0.02 * rng.standard_normal(25)], 1)
    canvas.paint(
        canvas.shape(np.concatenate([cap, edge[::-1]]), canvas.side / 190),
        _hair_texture(canvas, rng),
    )
    if p.hair_length > 0.35:
        for sign in (-1, 1):
            lock = np.array(
                [(0.86, -0.75), (1.2, -0.5), (1.3, 0.3 + p.hair_length), (0.95, 0.4), (0.93, 0.0)]
            )
            canvas.paint(
                canvas.shape(lock * (sign, 1), canvas.side / 130), _hair_texture(canvas, rng)
            )


# -- light and camera -----------------------------------------------------------------------------


def _light(canvas: _Canvas, rng: np.random.Generator) -> Plane:
    """Shade the head as a ball under one lamp, and tint everything by the lamp's colour."""
    p, side = canvas.person, canvas.side
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    u, v = (x - p.centre[0]) / (1.15 * p.width), (y - p.centre[1]) / (1.15 * p.height)
    depth = np.sqrt(np.clip(1 - u**2 - v**2, 0, 1))
    angle, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.55, 0.95)
    flat = math.sqrt(1 - height**2)
    lamp = flat * math.cos(angle) * u + flat * math.sin(angle) * v + height * depth
    ambient = rng.uniform(0.5, 0.75)
    ball = ambient + (1.05 - ambient) * np.clip(lamp, 0, 1)
    shade = 1 + canvas.head * (ball - 1)
    fall = 1 + rng.uniform(0, 0.25) * (math.cos(angle) * (x - 0.5) + math.sin(angle) * (y - 0.5))
    tint = rng.normal(1, 0.05, 3).astype(np.float32) * rng.uniform(0.8, 1.1)
    return np.asarray(canvas.pixels * (shade * fall)[..., None] * tint, np.float32)


def _camera(pixels: Plane, rng: np.random.Generator) -> Pixels:
    """Lens blur, contrast, and noise that grows with the signal."""
    curve = np.clip(_blur(pixels, float(rng.uniform(0.3, 0.7))), 0, 1) ** rng.uniform(0.85, 1.2)
    spread = rng.uniform(0.006, 0.022) * np.sqrt(curve + 0.15)
    return _to_uint8(curve + spread * rng.standard_normal(curve.shape, np.float32))


def _blur(plane: Plane, sigma: float) -> Plane:
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), sigma), np.float32)


def _floats(pixels: NDArray[Any]) -> Plane:
    return np.asarray(pixels, np.float32) * np.float32(1 / 255)


def _to_uint8(pixels: NDArray[Any]) -> Pixels:
    return np.clip(np.round(pixels * 255), 0, 255).astype(np.uint8)


# -- the forgery ----------------------------------------------------------------------------------


def _resample(pixels: Plane, factor: float) -> Plane:
    """Down by `factor` and up again: what a generator of lower resolution leaves."""
    side = pixels.shape[0]
    small = max(8, round(side / factor))
    down = cv2.resize(pixels, (small, small), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(down, (side, side), interpolation=cv2.INTER_CUBIC))


def _swap_mask(landmarks: NDArray[np.float32], size: int, rng: np.random.Generator) -> Plane:
    """Soft mask over eyes, nose and mouth."""
    centre = landmarks.mean(0)
    hull = (landmarks - centre) * rng.uniform(1.45, 1.75) + centre
    corners = np.round(np.asarray(cv2.convexHull(hull.astype(np.float32))) * 16)
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [corners.astype(np.int32)], 255, cv2.LINE_AA, 4)
    return _blur(_floats(mask), size * float(rng.uniform(0.02, 0.045)))


def _match_colours(source: Plane, target: Plane, mask: Plane, strength: float) -> Plane:
    """Move the source's mean and deviation under the mask towards the target's (Reinhard 2001)."""
    weight = (mask / max(float(mask.sum()), 1e-6))[..., None]

    def moments(pixels: Plane) -> tuple[Plane, Plane]:
        mean = (pixels * weight).sum((0, 1))
        return mean, np.sqrt((((pixels - mean) ** 2) * weight).sum((0, 1))) + 1e-4

    (from_mean, from_std), (to_mean, to_std) = moments(source), moments(target)
    matched = (source - from_mean) * (to_std / from_std) + to_mean
    return np.asarray(source + strength * (matched - source), np.float32)
