"""Fakes made from real faces, so that a detector can be trained where no fakes exist.

Every kind is a function (pixels, face, rng, donor) -> `Forged` that leaves its input alone, takes
every random number from `rng` and keeps the picture's shape. Outside the mask the picture stays as
it was to the bit; where the whole picture is resampled the mask is 1 everywhere. A grey picture
stays grey: colour would give it away.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from bonaface.errors import ConfigError
from bonaface.faces import Face

Pixels = NDArray[np.uint8]
Plane = NDArray[np.float32]
Points = NDArray[np.float64]
Donor = tuple[Pixels, Face]
_Window = tuple[slice, slice]

_MARGIN: Final = 0.35  # of the box's sides, all round: where a mask may fade out
_BEYOND: Final = 0.06  # of the box's sides: how far a hull may reach over the box
_MASK_SIDE: Final = 112  # a mask is soft, so it is made at this side at most and enlarged
_FILLED_SIDE: Final = 112  # what is inpainted is shrunk to this side at most
_LEAST_ALPHA: Final = 1 / 255
_LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)
_ENLARGE: Final = (cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC)

# Half outlines in face coordinates, from the middle of the brow down to the chin: the eyes are at
# (-1, 0) and (1, 0), the middle of the mouth is at (0, 1).
# fmt: off
_WHOLE: Final = (
    (0, -1.05), (0.9, -0.95), (1.5, -0.6), (1.8, 0), (1.75, 0.6), (1.45, 1.15), (0.9, 1.6), (0, 1.8)
)
_INNER: Final = (
    (0, -0.4), (0.8, -0.55), (1.5, -0.4), (1.75, 0.1), (1.65, 0.7), (1.3, 1.2), (0.8, 1.55),
    (0, 1.7),
)
_CORE: Final = ((0, -0.3), (1, -0.5), (1.6, -0.25), (1.5, 0.35), (1.15, 1.05), (0.7, 1.4), (0, 1.5))
_EYES: Final = ((0, -0.35), (0.9, -0.55), (1.6, -0.35), (1.6, 0.25), (0.9, 0.4), (0, 0.3))
_NOSE_AND_MOUTH: Final = ((0, -0.3), (0.35, -0.2), (0.6, 0.6), (1, 0.85), (0.95, 1.25), (0, 1.5))
# fmt: on
_HULLS: Final = ((_WHOLE,), (_INNER,), (_CORE,), (_EYES, _NOSE_AND_MOUTH))
# Half-axes in face coordinates of the left eye, the right eye, the nose and the mouth.
_FEATURES: Final = ((0.62, 0.3), (0.62, 0.3), (0.5, 0.42), (1.0, 0.34))
_MIRRORED: Final = (1, 0, 2, 3)


@dataclass(frozen=True, slots=True, eq=False)
class Forged:
    """A forged picture.

    Attributes:
        image: uint8 HxWx3, RGB.
        mask: float32 HxW in [0, 1]: how much of each pixel comes from the forgery. Where it is 0,
            the pixel is the input's.
        kind: name of what was done, out of `KINDS`.
    """

    image: Pixels
    mask: Plane
    kind: str


Kind = Callable[[Pixels, Face, np.random.Generator, Donor | None], Forged]


def self_blend(
    pixels: Pixels, face: Face, rng: np.random.Generator, donor: Donor | None = None
) -> Forged:
    """Blend a face with a changed copy of itself.

    After Shiohara and Yamasaki (CVPR 2022, "Detecting Deepfakes with Self-Blended Images"): a copy
    gets other colours (RGB shift, hue, saturation, value, brightness, contrast) and other
    frequencies (shrunk and enlarged, or sharpened), is resized and moved a little with its mask,
    and is blended in. The mask is a hull of the face, deformed elastically, eroded or dilated by
    two Gaussian filters, and weighted by 0.25, 0.5, 0.75 or 1.

    What differs: the hulls are outlines laid by five landmarks and the box, not through 81
    landmarks. Only the copy is changed, never the ground, so that what lies outside the mask stays
    as it was; changes of colour are as likely in one direction as in the other, and sharpening the
    copy stands for blurring the ground. Whoever trains with this should change the colours of both
    classes afterwards. Hue, saturation and value are one linear map about the grey axis.

    Args:
        pixels: uint8 HxWx3, RGB.
        face: a face in it, with five landmarks.
        rng: everything random comes from here.
        donor: not used.
    """
    window, frame = _prepare(pixels, face)
    ground = pixels[window].astype(np.float32)
    source = _other_frequencies(_other_colours(ground, rng), rng)
    mask = _face_mask(frame, rng) * np.float32(rng.choice((0.25, 0.5, 0.75, 1, 1, 1)))
    move = np.eye(2, 3)
    move[0, 0], move[1, 1] = rng.uniform(0.95, 1 / 0.95, 2)
    wander = rng.uniform(-1, 1, 2) * (0.03, 0.015) * frame.size
    move[:, 2] = frame.centre - move[:, :2] @ frame.centre + wander
    size = ground.shape[1], ground.shape[0]
    how = (cv2.INTER_LINEAR, cv2.INTER_CUBIC)[int(rng.integers(2))]
    source = cv2.warpAffine(source, move, size, flags=how, borderMode=cv2.BORDER_REFLECT_101)
    mask = cv2.warpAffine(mask, move, size, borderMode=cv2.BORDER_REPLICATE)
    return _blended(pixels, window, source, mask, "self_blend")


def swap(
    pixels: Pixels, face: Face, rng: np.random.Generator, donor: Donor | None = None
) -> Forged:
    """Lay the face of another person over this one.

    The donor's landmarks are brought onto this face's by a similarity or an affine map, its colours
    are moved towards this face's in Lab (Reinhard et al. 2001), and it is blended in with a soft
    mask or by Poisson's equation (Pérez et al. 2003).

    Args:
        pixels: uint8 HxWx3, RGB.
        face: a face in it, with five landmarks.
        rng: everything random comes from here.
        donor: picture and face of the other person.

    Raises:
        ConfigError: there is no donor.
    """
    if donor is None:
        raise ConfigError(
            "expected a donor for the kind swap, got none; give another person's picture and face, "
            "or leave out swap"
        )
    window, frame = _prepare(pixels, face)
    ground = pixels[window].astype(np.float32)
    source, known = _warped(donor, frame, affine=bool(rng.random() < 0.5), rng=rng)
    mask = _face_mask(frame, rng, known)
    source = transfer_colours(source, ground, mask, float(rng.uniform(0.6, 1)))
    if rng.random() < 0.5:
        cloned = _poisson(source, ground, mask)
        if cloned is not None:
            # What is cloned meets the ground at its border, so nothing has to fade in.
            inside = np.asarray(cv2.blur((mask >= 0.5).astype(np.float32), (3, 3)))
            return _blended(pixels, window, cloned, inside, "swap")
    return _blended(pixels, window, source, mask, "swap")


def resample(
    pixels: Pixels, face: Face, rng: np.random.Generator, donor: Donor | None = None
) -> Forged:
    """Leave the traces of a generator's upsampling, in the face or, once in three, in a whole crop.

    Shrunk and enlarged again: by nearest, bilinear or bicubic interpolation, or doubled as a
    transposed convolution does it, by zeros between the pixels and a kernel whose phases do not
    weigh the same, which leaves a checkerboard. The whole picture, where a face fills half of it,
    is only ever treated in the last way, since the others happen to every picture on its way; its
    mask is then 1 everywhere.

    Args:
        pixels: uint8 HxWx3, RGB.
        face: a face in it, with five landmarks.
        rng: everything random comes from here.
        donor: not used.
    """
    window, frame = _prepare(pixels, face)
    ground = pixels[window].astype(np.float32)
    if rng.random() < 1 / 3 and 2 * ground.size >= pixels.size:
        image = _to_uint8(_like(_doubled(pixels.astype(np.float32), rng), pixels))
        return Forged(image, np.ones(pixels.shape[:2], np.float32), "resample")
    if rng.random() < 0.5:
        source = _doubled(ground, rng)
    else:
        source = _shrunk(ground, rng.uniform(1.5, 3), _ENLARGE[int(rng.integers(3))])
    return _blended(pixels, window, source, _face_mask(frame, rng), "resample")


def inpaint(
    pixels: Pixels, face: Face, rng: np.random.Generator, donor: Donor | None = None
) -> Forged:
    """Fill an eye, the nose or the mouth anew.

    From its border, by Telea (2004) or by Navier-Stokes (Bertalmio et al. 2001), or with another
    patch of the same face: the other eye mirrored, the feature itself mirrored, or a cheek.

    Args:
        pixels: uint8 HxWx3, RGB.
        face: a face in it, with five landmarks.
        rng: everything random comes from here.
        donor: not used.
    """
    window, frame = _prepare(pixels, face)
    ground = np.ascontiguousarray(pixels[window])
    seen = [at for at, middle in enumerate(frame.features) if frame.holds(middle)]
    at = seen[int(rng.integers(len(seen)))] if seen else 2
    axes = np.array(_FEATURES[at]) * rng.uniform(0.8, 1.25, 2)
    hole = frame.drawn([frame.features[at] + _oval(*axes) @ frame.axes])
    if not (hole >= 0.5).any() or (hole > 0).all():  # nothing to fill, or nothing to fill it from
        hole = frame.least()
    how = int(rng.integers(3))
    if how < 2:
        method = (cv2.INPAINT_TELEA, cv2.INPAINT_NS)[how]
        source = _filled(ground, (hole >= 0.5).astype(np.uint8), method, frame.size)
        return _blended(pixels, window, source, (hole >= 0.5).astype(np.float32), "inpaint")
    soft = np.asarray(cv2.GaussianBlur(hole, (0, 0), max(0.5, 0.02 * frame.size)))
    source = _patch(ground.astype(np.float32), soft, frame, at, rng)
    return _blended(pixels, window, source, soft, "inpaint")


KINDS: dict[str, Kind] = {
    "self_blend": self_blend,
    "swap": swap,
    "resample": resample,
    "inpaint": inpaint,
}


def forge(
    pixels: Pixels,
    face: Face,
    rng: np.random.Generator,
    kinds: Sequence[str] | None = None,
    donor: Donor | None = None,
) -> Forged:
    """Forge a picture in one of several ways, drawn by `rng`.

    Args:
        pixels: uint8 HxWx3, RGB; left as it is.
        face: a face in it, with five landmarks.
        rng: everything random comes from here.
        kinds: names out of `KINDS`, all equally likely; None: all that can be done.
        donor: picture and face of another person, for `swap`.

    Raises:
        ConfigError: a kind is unknown, `swap` has no donor, or the face cannot be used.
    """
    names = check_kinds(KINDS if kinds is None else kinds)
    if kinds is None and donor is None:
        names = tuple(name for name in names if name != "swap")
    elif donor is None and "swap" in names:
        return swap(pixels, face, rng)  # says what is missing, whatever would have been drawn
    return KINDS[names[int(rng.integers(len(names)))]](pixels, face, rng, donor)


def check_kinds(names: Sequence[str] | dict[str, Kind]) -> tuple[str, ...]:
    """The names, each once, in their order.

    Raises:
        ConfigError: there is none, or one is unknown.
    """
    unknown = [name for name in names if name not in KINDS]
    if unknown or not names:
        raise ConfigError(
            f"expected kinds of forgery out of {', '.join(KINDS)}, got "
            f"{', '.join(map(repr, unknown)) or 'none'}; name one of them"
        )
    return tuple(dict.fromkeys(names))


def transfer_colours(source: Plane, target: Plane, weights: Plane, strength: float = 1) -> Plane:
    """Move mean and deviation towards the target's in Lab, as Reinhard et al. (2001) do.

    Args:
        source: float32 HxWx3 RGB in [0, 255].
        target: the same shape.
        weights: float32 HxW, where both are measured; its sum is above 0.
        strength: 0 leaves the source, 1 gives it the target's mean and deviation.
    """
    ours, theirs = (
        np.asarray(cv2.cvtColor(np.clip(one, 0, 255) / np.float32(255), cv2.COLOR_RGB2LAB))
        for one in (source, target)
    )
    share = (weights / max(float(weights.sum()), 1e-6)).reshape(-1)
    (mean, deviation), (wanted, spread) = (
        _moments(one.reshape(-1, 3), share) for one in (ours, theirs)
    )
    # A flat source has no deviation to stretch.
    gain = np.clip((spread + 0.5) / (deviation + 0.5), 0.33, 3)
    moved = (ours - mean) * (1 + strength * (gain - 1)) + mean + strength * (wanted - mean)
    rgb = cv2.cvtColor(moved.astype(np.float32), cv2.COLOR_LAB2RGB)
    return np.asarray(np.clip(rgb, 0, 1) * np.float32(255), np.float32)


def pose_gap(one: Face, other: Face) -> float:
    """How far two faces' landmarks stay apart when one is turned and scaled onto the other.

    Returns:
        Root mean square distance over that of the other's landmarks from their middle: about
        0.1 between two frontal faces, 0.2 and more between a frontal one and one turned aside.
    """
    ours, theirs = (np.array(face.landmarks, np.float64) for face in (one, other))
    matrix = _similarity(ours, theirs)
    rest = ours @ matrix[:, :2].T + matrix[:, 2] - theirs
    spread = float(np.linalg.norm(theirs - theirs.mean(0)))
    return float(np.linalg.norm(rest)) / max(spread, 1e-9)


def _moments(pixels: Plane, share: Plane) -> tuple[Plane, Plane]:
    mean = share @ pixels
    return mean, np.sqrt(share @ np.square(pixels - mean))


# -- where the face is --


class _Frame:
    """A face in a window of the picture: its coordinates and its box, in the window's pixels.

    Args:
        box: left, top, right, bottom.
        marks: (5, 2), the landmarks.
        shape: height and width of the window.
    """

    def __init__(self, box: Points, marks: Points, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.box = box
        self.marks = marks
        self.centre = (box[:2] + box[2:]) / 2
        sides = box[2:] - box[:2]
        self.size = float(sides.max())
        self.eyes = (marks[0] + marks[1]) / 2
        self.across = (marks[1] - marks[0]) / 2
        self.down = (marks[3] + marks[4]) / 2 - self.eyes
        tall, wide = math.hypot(*self.down), math.hypot(*self.across)
        if tall < 0.15 * sides[1]:
            self.down = np.array([0, 0.36 * sides[1]])
            tall = 0.36 * sides[1]
        normal = np.array([self.down[1], -self.down[0]]) / tall
        # Seen from the side, the eyes lie close together although the head is as wide as ever.
        if self.across @ normal < 0.8 * wide or wide < 0.15 * sides[0]:
            self.across = normal * max(wide, 0.15 * sides[0])

    @property
    def axes(self) -> Points:
        """(2, 2): face coordinates (n, 2) times this are steps in pixels."""
        return np.stack([self.across, self.down])

    def to_pixels(self, points: Points) -> Points:
        """Face coordinates (n, 2) -> pixels of the window (n, 2)."""
        return np.asarray(self.eyes + points @ self.axes)

    def seat(self, points: Points) -> Points:
        """As `to_pixels`, for outlines of a whole face, which keeps behind eyes turned aside."""
        wide = math.hypot(*self.across)
        unit = self.across / wide
        aside = float((self.centre - self.eyes - 0.4 * self.down) @ unit)
        widened = points * (max(1, 0.22 * float(self.box[2] - self.box[0]) / wide), 1)
        return np.asarray(self.to_pixels(widened) + 0.7 * aside * unit)

    @property
    def features(self) -> Points:
        """Middles of the left eye, the right eye, the nose and the mouth, (4, 2) in pixels."""
        tip, mouth = self.marks[2], (self.marks[3] + self.marks[4]) / 2
        return np.stack([self.marks[0], self.marks[1], 0.8 * tip + 0.2 * self.eyes, mouth])

    def holds(self, point: Points) -> bool:
        """Whether a point lies in the window."""
        return bool((point >= 0).all() and (point <= np.array(self.shape[::-1]) - 1).all())

    def inside(self, points: Points) -> Points:
        """The points moved into the box, or a little beyond it."""
        reach = _BEYOND * (self.box[2:] - self.box[:2])
        return np.clip(points, self.box[:2] - reach, self.box[2:] + reach)

    def drawn(self, outlines: Sequence[Points], scale: float = 1) -> Plane:
        """Mask in [0, 1] of some polygons in pixels of the window, at another scale of it."""
        height, width = (max(1, round(side * scale)) for side in self.shape)
        mask = np.zeros((height, width), np.uint8)
        for outline in outlines:
            corners = np.rint(((outline + 0.5) * scale - 0.5) * 16).astype(np.int32)
            cv2.fillPoly(mask, [corners], 255, cv2.LINE_AA, 4)
        return mask * np.float32(1 / 255)

    def least(self) -> Plane:
        """Mask of a few pixels at the box's centre, for faces that leave room for nothing else."""
        mask = np.zeros(self.shape, np.float32)
        x, y = (
            int(np.clip(at, 0, n - 1)) for at, n in zip(self.centre, self.shape[::-1], strict=True)
        )
        mask[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2] = 1
        return mask


def _prepare(pixels: Pixels, face: Face) -> tuple[_Window, _Frame]:
    """The window of the picture in which a face is forged, and the face in it."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ConfigError(
            f"expected uint8 RGB height x width x 3, got {pixels.dtype} of shape {pixels.shape}; "
            "read it with bonaface.images"
        )
    marks = np.array(face.landmarks, np.float64)
    box = np.array(face.box, np.float64)
    height, width = pixels.shape[:2]
    x, y = face.centre
    if (
        marks.shape != (5, 2)
        or not (np.isfinite(marks).all() and np.isfinite(box).all())
        or not (box[2] > box[0] and box[3] > box[1] and 0 <= x < width and 0 <= y < height)
    ):
        raise ConfigError(
            f"expected a face with its centre in the picture and five landmarks, got {face}; find "
            "faces in this picture"
        )
    sides = box[2:] - box[:2]
    left, top = np.maximum(0, np.floor(box[:2] - _MARGIN * sides - 2)).astype(int)
    right, bottom = np.minimum((width, height), np.ceil(box[2:] + _MARGIN * sides + 3)).astype(int)
    offset = np.array([left, top])
    window = slice(int(top), int(bottom)), slice(int(left), int(right))
    shape = int(bottom - top), int(right - left)
    return window, _Frame(box - np.tile(offset, 2), marks - offset, shape)


def _oval(across: float, down: float) -> Points:
    angle = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    return np.stack([across * np.cos(angle), down * np.sin(angle)], axis=1)


def _face_mask(frame: _Frame, rng: np.random.Generator, known: Plane | None = None) -> Plane:
    """Soft mask of one of the hulls, with 1 as its largest value; `known` is where it may lie."""
    scale = min(1.0, _MASK_SIDE / max(frame.shape))
    unit = frame.size * scale
    hull = _HULLS[int(rng.integers(len(_HULLS)))]
    stretch = rng.uniform(0.92, 1.06, 2)
    outlines = []
    for half in hull:
        right = np.array(half)
        whole = np.concatenate([right, right[-2:0:-1] * (-1, 1)]) * stretch
        whole += rng.normal(0, 0.04, whole.shape)
        seat = frame.seat(whole) if half in (_WHOLE, _INNER) else frame.to_pixels(whole)
        outlines.append(frame.inside(seat))
    mask = frame.drawn(outlines, scale)
    mask = _deformed(mask, float(rng.uniform(0, 0.025)) * unit, rng)
    if known is not None:
        height, width = mask.shape
        mask = mask * np.asarray(cv2.resize(known, (width, height), interpolation=cv2.INTER_AREA))
    first, second = np.maximum(0.3, rng.uniform(0.004, 0.03, 2) * unit)
    eroded = np.asarray(cv2.GaussianBlur(mask, (0, 0), first, borderType=cv2.BORDER_REPLICATE))
    eroded = np.where(eroded >= 0.99, np.float32(1), np.float32(0))
    soft = cv2.GaussianBlur(
        eroded if eroded.any() else mask, (0, 0), second, borderType=cv2.BORDER_REPLICATE
    )
    height, width = frame.shape
    soft = np.asarray(cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR))
    peak = float(soft.max())
    return np.clip(soft / np.float32(peak), 0, 1) if peak > 0.05 else frame.least()


def _deformed(mask: Plane, amount: float, rng: np.random.Generator) -> Plane:
    """Moved here and there by about `amount` pixels, smoothly."""
    height, width = mask.shape
    cells = int(rng.integers(4, 8))
    grid = rng.standard_normal((cells, cells, 2), np.float32) * np.float32(amount)
    field = np.asarray(cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC))
    field[:, :, 0] += np.arange(width, dtype=np.float32)
    field[:, :, 1] += np.arange(height, dtype=np.float32)[:, None]
    return np.asarray(
        cv2.remap(mask, field, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    )


# -- what is blended --


def _blended(pixels: Pixels, window: _Window, source: Plane, mask: Plane, kind: str) -> Forged:
    ground = pixels[window].astype(np.float32)
    mask = np.where(mask < _LEAST_ALPHA, np.float32(0), np.minimum(mask, np.float32(1)))
    mixed = ground + mask[:, :, None] * (np.clip(source, 0, 255) - ground)
    image = pixels.copy()
    image[window] = _to_uint8(_like(mixed, pixels[window]))
    whole = np.zeros(pixels.shape[:2], np.float32)
    whole[window] = mask
    return Forged(image, whole, kind)


def _like(image: Plane, original: Pixels) -> Plane:
    """Without colours where the original has none."""
    grey = original[:, :, 0]
    if not (np.array_equal(grey, original[:, :, 1]) and np.array_equal(grey, original[:, :, 2])):
        return image
    return np.repeat((image @ _LUMA)[:, :, None], 3, axis=2)


def _other_colours(image: Plane, rng: np.random.Generator) -> Plane:
    """RGB shift, hue, saturation, value, brightness and contrast, as one map of colours."""
    turn, saturation = rng.uniform(-8, 8), rng.uniform(0.8, 1.2)
    value, contrast = rng.uniform(0.92, 1.08), rng.uniform(0.88, 1.12)
    angle = math.radians(turn)
    third, root = (1 - math.cos(angle)) / 3, math.sin(angle) / math.sqrt(3)
    hue = np.full((3, 3), third) + math.cos(angle) * np.eye(3)
    hue += root * np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    grey = np.tile(_LUMA, (3, 1))
    linear = value * contrast * (grey + saturation * (np.eye(3) - grey)) @ hue
    mean = np.array(cv2.mean(image)[:3])
    # The same step is a nuance in daylight and another colour in the dark.
    step = float(np.clip(mean.mean() / 110, 0.25, 1))
    light = 255 * rng.choice((-1, 1)) * rng.uniform(0.01, 0.1)
    tint = rng.uniform(-20, 20, 3) if rng.random() < 0.5 else np.zeros(3)
    shift = value * (1 - contrast) * mean + step * (light + tint)
    changed = cv2.transform(image, np.column_stack([linear, shift]).astype(np.float32))
    return _bounded(changed)


def _other_frequencies(image: Plane, rng: np.random.Generator) -> Plane:
    if rng.random() < 0.5:
        return _shrunk(image, rng.uniform(1.3, 3), _ENLARGE[int(rng.integers(1, 3))])
    amount = np.float32(rng.uniform(0.3, 1.2))
    smooth = np.asarray(cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.7, 1.4))))
    return _bounded(image + amount * (image - smooth))


def _shrunk(image: Plane, factor: float, enlarge: int) -> Plane:
    height, width = image.shape[:2]
    small = max(1, round(width / factor)), max(1, round(height / factor))
    down = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    return _bounded(cv2.resize(down, (width, height), interpolation=enlarge))


def _doubled(image: Plane, rng: np.random.Generator) -> Plane:
    """Halved, then zeros between the pixels and a kernel of 3, 4 or 5 taps that is not even."""
    height, width = image.shape[:2]
    half = (width + 1) // 2, (height + 1) // 2
    down = np.asarray(cv2.resize(image, half, interpolation=cv2.INTER_AREA))
    spread = np.zeros((2 * half[1], 2 * half[0], 3), np.float32)
    spread[::2, ::2] = down
    taps = {3: (1, 2, 1), 4: (1, 3, 3, 1), 5: (1, 4, 6, 4, 1)}[int(rng.integers(3, 6))]
    kernel = np.outer(taps, taps) * (1 + rng.normal(0, 0.06, (len(taps), len(taps))))
    kernel *= 4 / kernel.sum()
    up = cv2.filter2D(spread, -1, kernel.astype(np.float32), borderType=cv2.BORDER_REFLECT_101)
    return _bounded(np.asarray(up)[:height, :width])


def _warped(
    donor: Donor, frame: _Frame, *, affine: bool, rng: np.random.Generator
) -> tuple[Plane, Plane]:
    """The donor's face brought onto another's, and where it is known."""
    window, theirs = _prepare(*donor)
    picture = donor[0][window].astype(np.float32)
    matrix = _similarity(theirs.marks, frame.marks)
    if affine:
        matrix = _affine(theirs.marks, frame.marks, matrix)
    scale = math.sqrt(abs(float(np.linalg.det(matrix[:, :2]))))
    if scale < 0.6:  # bilinear reads four pixels, so it would skip the others
        height, width = picture.shape[:2]
        small = max(1, round(width * scale)), max(1, round(height * scale))
        picture = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
        ratio = np.array([width / small[0], height / small[1]])
        # Pixels are areas: their middles move by half a pixel.
        matrix[:, 2] += matrix[:, :2] @ (ratio / 2 - 0.5)
        matrix[:, :2] = matrix[:, :2] * ratio
    size = frame.shape[1], frame.shape[0]
    how = (cv2.INTER_LINEAR, cv2.INTER_CUBIC)[int(rng.integers(2))]
    source = cv2.warpAffine(picture, matrix, size, flags=how, borderMode=cv2.BORDER_REFLECT_101)
    known = cv2.warpAffine(np.ones(picture.shape[:2], np.float32), matrix, size)
    return _bounded(source), np.asarray(known, np.float32)


def _similarity(source: Points, target: Points) -> Points:
    """Turn, scale and shift that bring points onto others with the least squares, (2, 3)."""
    start, end = source.mean(0), target.mean(0)
    ours = (source - start) @ (1, 1j)
    theirs = (target - end) @ (1, 1j)
    power = float(np.vdot(ours, ours).real)
    factor = complex(np.vdot(ours, theirs)) / power if power > 1e-9 else 1 + 0j
    if abs(factor) < 1e-3:
        factor = 1e-3 + 0j
    linear = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    return np.column_stack([linear, end - linear @ start])


def _affine(source: Points, target: Points, otherwise: Points) -> Points:
    """The affine map with the least squares, unless it squeezes the face by more than a third."""
    found, _, rank, _ = np.linalg.lstsq(np.column_stack([source, np.ones(5)]), target, rcond=None)
    matrix = np.ascontiguousarray(found.T)
    if rank < 3 or np.linalg.det(matrix[:, :2]) <= 0:
        return otherwise
    long, short = np.linalg.svd(matrix[:, :2], compute_uv=False)
    return matrix if short > 0 and long / short < 1.5 else otherwise


def _poisson(source: Plane, ground: Plane, mask: Plane) -> Plane | None:
    """The source's gradients under the mask with the ground's colours around; None: too small."""
    border = 4  # OpenCV erodes the mask by three pixels and wants ground all round it
    inside = (mask >= 0.5).astype(np.uint8)
    left, top, width, height = cv2.boundingRect(inside)
    if min(width, height) < 12:
        return None
    over, under = (
        cv2.copyMakeBorder(_to_uint8(part), *(border,) * 4, cv2.BORDER_REFLECT_101)
        for part in (source, ground)
    )
    where = cv2.copyMakeBorder(inside * np.uint8(255), *(border,) * 4, cv2.BORDER_CONSTANT)
    middle = left + border + width // 2, top + border + height // 2
    cloned = np.asarray(cv2.seamlessClone(over, under, where, middle, cv2.NORMAL_CLONE), np.float32)
    return cloned[border:-border, border:-border]


def _filled(ground: Pixels, hole: Pixels, method: int, size: float) -> Plane:
    """OpenCV's inpainting, of no more of the picture than it reads, and shrunk if that is much."""
    reach = 2 + max(2, round(0.03 * size))
    left, top, width, height = cv2.boundingRect(hole)
    part = (
        slice(max(0, top - reach), top + height + reach),
        slice(max(0, left - reach), left + width + reach),
    )
    around, inside = np.ascontiguousarray(ground[part]), np.ascontiguousarray(hole[part])
    tall, wide = inside.shape
    scale = min(1.0, _FILLED_SIDE / max(tall, wide))  # its time grows with the fourth power
    if scale < 1:
        small = max(1, round(wide * scale)), max(1, round(tall * scale))
        around = cv2.resize(around, small, interpolation=cv2.INTER_AREA)
        share = cv2.resize(inside * np.uint8(255), small, interpolation=cv2.INTER_AREA)
        inside = (np.asarray(share) > 0).astype(np.uint8)
    filled = cv2.inpaint(around, inside, max(2, round(0.03 * size * scale)), method)
    source = ground.astype(np.float32)
    source[part] = cv2.resize(filled, (wide, tall), interpolation=cv2.INTER_LINEAR)
    return source


def _patch(
    ground: Plane, mask: Plane, frame: _Frame, feature: int, rng: np.random.Generator
) -> Plane:
    """Another place of the face, moved under the mask and brought to the colours at its edge."""
    here, linear = frame.features[feature], np.eye(2)
    if rng.random() < 0.4:
        there = frame.to_pixels(np.array([1.1 * rng.choice((-1, 1)), 0.65]))  # a cheek
    else:
        there = frame.features[_MIRRORED[feature]]
        linear = frame.axes.T @ np.diag([-1.0, 1.0]) @ np.linalg.inv(frame.axes.T)
    back = np.column_stack([linear, there - linear @ here])
    size = ground.shape[1], ground.shape[0]
    moved = cv2.warpAffine(
        ground,
        back,
        size,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    edge = ((mask > 0.02) & (mask < 0.5)).astype(np.uint8)
    shift = np.array(cv2.mean(ground - moved, edge)[:3], np.float32)
    return _bounded(moved + shift)


def _bounded(image: NDArray[np.float32]) -> Plane:
    return np.asarray(np.clip(image, 0, 255), np.float32)


def _to_uint8(image: Plane) -> Pixels:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
