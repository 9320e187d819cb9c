from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import portraits
from bonaface.drawn import draw_face
from bonaface.errors import ConfigError
from bonaface.faces import CenterFace, Face
from bonaface.forge import KINDS, Donor, Forged, check_kinds, forge, pose_gap, transfer_colours

# Of a frontal face in its box.
MARKS = np.array([(0.3, 0.38), (0.7, 0.38), (0.5, 0.58), (0.34, 0.76), (0.66, 0.76)])
KIND = pytest.mark.parametrize("kind", KINDS)


@cache
def finder() -> CenterFace:
    return CenterFace(threads=1)


@cache
def portrait(side: int = 160) -> Donor:
    pixels = portraits.head(side)
    return pixels, finder().find(pixels)[0]


@cache
def donor(side: int = 96) -> Donor:
    drawn = draw_face(np.random.default_rng(3), side)
    left, top = drawn.landmarks.min(0) - 0.2 * side
    right, bottom = drawn.landmarks.max(0) + 0.2 * side
    box = float(left), float(top), float(right), float(bottom)
    return drawn.pixels, Face(box, tuple((float(x), float(y)) for x, y in drawn.landmarks), 1.0)


def face_at(centre: tuple[float, float], width: float, height: float, turn: float = 0) -> Face:
    """A frontal face turned by some degrees."""
    cos, sin = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    marks = (MARKS - 0.5) * (width, height) @ np.array([(cos, sin), (-sin, cos)]) + centre
    x, y = centre
    box = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    return Face(box, tuple((float(a), float(b)) for a, b in marks), 0.9)


def texture(height: int, width: int, seed: int, grey: bool = False) -> np.ndarray:
    """Smooth ground with noise, away from black and white."""
    rng = np.random.default_rng(seed)
    ground = cv2.resize(rng.uniform(70, 190, (4, 4, 3)), (width, height))
    pixels = np.clip(ground + rng.normal(0, 12, (height, width, 3)), 20, 235).astype(np.uint8)
    return np.repeat(pixels[:, :, :1], 3, 2) if grey else pixels


def made(
    kind: str, pixels: np.ndarray, face: Face, seed: int, other: Donor | None = None
) -> Forged:
    return KINDS[kind](pixels, face, np.random.default_rng(seed), other or donor())


@KIND
@settings(max_examples=60)
@given(
    height=st.integers(16, 150),
    width=st.integers(16, 150),
    size=st.floats(3, 400),
    aspect=st.floats(0.6, 1.1),
    place=st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)),
    turn=st.floats(-60, 60),
    seed=st.integers(0, 2**32 - 1),
    grey=st.booleans(),
)
def test_what_holds_for_every_face_in_every_picture(
    kind: str,
    height: int,
    width: int,
    size: float,
    aspect: float,
    place: tuple[float, float],
    turn: float,
    seed: int,
    grey: bool,
) -> None:
    pixels = texture(height, width, seed, grey)
    face = face_at((place[0] * width, place[1] * height), size * aspect, size, turn)
    before = pixels.copy()
    found = made(kind, pixels, face, seed)
    np.testing.assert_array_equal(pixels, before)
    assert found.kind == kind
    assert (found.image.dtype, found.image.shape) == (np.uint8, pixels.shape)
    assert not np.shares_memory(found.image, pixels)
    assert (found.mask.dtype, found.mask.shape) == (np.float32, (height, width))
    assert found.mask.min() >= 0
    assert 0 < found.mask.max() <= 1
    outside = found.mask == 0
    np.testing.assert_array_equal(found.image[outside], pixels[outside])
    if grey:
        assert (found.image == found.image[:, :, :1]).all()
    again = made(kind, pixels, face, seed)
    np.testing.assert_array_equal(again.image, found.image)
    np.testing.assert_array_equal(again.mask, found.mask)
    if kind == "resample" and found.mask.min() == 1:
        return
    # The mask lies on the face: hardly any of it beyond the box, drawn a fifth larger.
    rows, columns = np.mgrid[:height, :width]
    left, top, right, bottom = face.box
    reach = 0.2 * face.size + 3
    near = (columns > left - reach) & (columns < right + reach)
    near &= (rows > top - reach) & (rows < bottom + reach)
    assert found.mask[near].sum() >= 0.98 * found.mask.sum()


@KIND
def test_a_portrait_is_changed_where_the_mask_says_so(kind: str) -> None:
    pixels, face = portrait()
    shares = []
    for seed in range(30):
        found = made(kind, pixels, face, seed)
        moved = np.abs(found.image.astype(int) - pixels).max(2)
        inside = found.mask > 0.2
        assert (moved[inside] > 0).mean() > 0.2
        shares.append(moved[inside].mean())
        if found.mask.min() < 1:
            rows, columns = np.nonzero(inside)
            left, top, right, bottom = face.box
            assert left <= columns.mean() <= right
            assert top <= rows.mean() <= bottom
    assert np.median(shares) > 2


@KIND
def test_a_forged_portrait_is_still_a_face(kind: str) -> None:
    pixels, face = portrait()
    for seed in range(8):
        found = finder().find(made(kind, pixels, face, seed).image)
        assert found
        assert portraits.overlap(found[0].box, face.box) > 0.6


@KIND
@pytest.mark.parametrize("value", [0, 128, 255])
def test_flat_pictures_keep_to_the_rules(kind: str, value: int) -> None:
    pixels = np.full((61, 47, 3), value, np.uint8)
    flat = np.full((50, 50, 3), 90, np.uint8), face_at((25, 25), 30, 38)
    for seed in range(5):
        found = made(kind, pixels, face_at((23, 30), 30, 38), seed, flat)
        assert found.image.shape == pixels.shape
        if kind == "self_blend" and value == 128:
            assert (found.image != pixels).any()


def test_the_kinds_differ_and_no_two_seeds_agree() -> None:
    pixels, face = portrait()
    images = [made(kind, pixels, face, seed).image for kind in KINDS for seed in range(3)]
    for at, one in enumerate(images):
        assert all((one != other).any() for other in images[:at])


def test_self_blends_weigh_as_published() -> None:
    pixels, face = portrait()
    peaks = Counter(
        round(4 * float(made("self_blend", pixels, face, s).mask.max())) for s in range(240)
    )
    assert set(peaks) == {1, 2, 3, 4}
    assert peaks[4] == pytest.approx(120, abs=32)
    masks = [made("self_blend", pixels, face, seed).mask for seed in range(40)]
    areas = [(mask > mask.max() / 2).mean() for mask in masks]
    assert max(areas) > 2.5 * min(areas)  # hulls of several kinds


def test_a_swap_brings_the_other_persons_features_to_the_same_place() -> None:
    pixels = texture(150, 140, 1)
    face = face_at((70, 75), 80, 100, turn=15)
    other = np.full((120, 130, 3), 120, np.uint8)
    theirs = face_at((60, 60), 60, 75, turn=-10)
    for mark in theirs.landmarks:
        cv2.circle(other, tuple(round(at) for at in mark), 3, (0, 0, 0), -1)
    for seed in range(12):
        found = made("swap", pixels, face, seed, (other, theirs))
        grey = cv2.GaussianBlur(found.image.mean(2), (0, 0), 1)
        x, y = (round(at) for at in face.landmarks[2])  # the nose lies in every hull
        spot = grey[y - 1 : y + 2, x - 1 : x + 2].mean()
        ring = grey[y - 9 : y + 10, x - 9 : x + 10]
        assert spot < np.percentile(ring, 15)


def test_the_donor_is_left_alone_and_decides() -> None:
    pixels, face = portrait()
    other = donor()
    before = other[0].copy()
    one = made("swap", pixels, face, 0, other)
    np.testing.assert_array_equal(other[0], before)
    mirrored = np.ascontiguousarray(pixels[:, ::-1]), finder().find(pixels[:, ::-1])[0]
    two = made("swap", pixels, face, 0, mirrored)
    assert (one.image != two.image).any()
    for kind in KINDS.keys() - {"swap"}:
        alone = KINDS[kind](pixels, face, np.random.default_rng(5), None)
        np.testing.assert_array_equal(alone.image, made(kind, pixels, face, 5).image)


def test_colour_transfer_moves_mean_and_deviation() -> None:
    rng = np.random.default_rng(0)
    source = rng.normal((90, 80, 70), 8, (40, 50, 3)).clip(0, 255).astype(np.float32)
    target = rng.normal((170, 130, 110), 15, (40, 50, 3)).clip(0, 255).astype(np.float32)
    weights = np.zeros((40, 50), np.float32)
    weights[10:30, 10:40] = 1
    part = weights > 0
    moved = transfer_colours(source, target, weights)
    assert moved.dtype == np.float32

    def lab(pixels: np.ndarray) -> np.ndarray:
        return cv2.cvtColor(pixels / np.float32(255), cv2.COLOR_RGB2LAB)[part]

    np.testing.assert_allclose(lab(moved).mean(0), lab(target).mean(0), atol=0.6)
    np.testing.assert_allclose(lab(moved).std(0), lab(target).std(0), rtol=0.15)
    np.testing.assert_allclose(transfer_colours(source, target, weights, 0), source, atol=0.8)
    half = lab(transfer_colours(source, target, weights, 0.5)).mean(0)
    np.testing.assert_allclose(half, (lab(source).mean(0) + lab(target).mean(0)) / 2, atol=1)


def test_a_checkerboard_shows_in_the_spectrum() -> None:
    smooth = cv2.GaussianBlur(texture(128, 128, 4), (0, 0), 3)
    face = face_at((64, 64), 60, 80)

    def at_nyquist(pixels: np.ndarray) -> float:
        part = pixels[32:96, 32:96].mean(2)
        return float(np.abs(np.fft.fft2(part - part.mean()))[32].max())

    whole = [one for s in range(30) if (one := made("resample", smooth, face, s)).mask.min() == 1]
    assert 4 <= len(whole) <= 18
    assert np.median([at_nyquist(one.image) for one in whole]) > 5 * at_nyquist(smooth)


def test_inpainting_touches_a_feature_only() -> None:
    pixels, face = portrait()
    places = set()
    for seed in range(40):
        mask = made("inpaint", pixels, face, seed).mask
        assert (mask > 0.5).sum() < 0.25 * face.size**2
        rows, columns = np.nonzero(mask > 0.5)
        middle = columns.mean(), rows.mean()
        marks = np.array(face.landmarks)
        features = [marks[0], marks[1], marks[2], (marks[3] + marks[4]) / 2]
        gaps = [np.hypot(*(middle - mark)) for mark in features]
        assert min(gaps) < 0.1 * face.size
        places.add(int(np.argmin(gaps)))
    assert places == {0, 1, 2, 3}


def test_a_large_hole_is_filled_from_its_border() -> None:
    rows, columns = np.mgrid[:700, :640].astype(np.float32)
    ramp = np.stack([60 + rows / 8, 60 + columns / 8, 80 + (rows + columns) / 16], 2)
    pixels = np.rint(ramp).astype(np.uint8)
    face = face_at((320, 350), 480, 600)
    for x, y in face.landmarks:  # what is to go
        cv2.circle(pixels, (round(x), round(y)), 18, (0, 0, 0), -1)
    gone = 0
    for seed in range(12):
        found = made("inpaint", pixels, face, seed)
        np.testing.assert_array_equal(found.image[found.mask == 0], pixels[found.mask == 0])
        if set(np.unique(found.mask)) == {0, 1} and not pixels[found.mask == 1].all():
            inside = found.mask == 1
            gone += int(np.abs(found.image[inside] - ramp[inside]).mean() < 10)
    assert gone >= 3


def test_forge_draws_among_the_kinds_it_is_given() -> None:
    pixels, face = portrait(96)

    def drawn(kinds: tuple[str, ...] | None, other: Donor | None) -> set[str]:
        rngs = (np.random.default_rng(seed) for seed in range(40))
        return {forge(pixels, face, rng, kinds, other).kind for rng in rngs}

    assert drawn(None, donor()) == set(KINDS)
    assert drawn(None, None) == set(KINDS) - {"swap"}
    assert drawn(("inpaint", "resample"), None) == {"inpaint", "resample"}
    assert drawn(("swap",), donor()) == {"swap"}
    assert check_kinds(["swap", "inpaint", "swap"]) == ("swap", "inpaint")


def test_what_cannot_be_forged_is_said_in_one_line() -> None:
    pixels, face = portrait(96)
    rng = np.random.default_rng(0)
    for kinds in (("swap",), ("self_blend", "swap")):
        with pytest.raises(ConfigError, match="expected a donor for the kind swap, got none; give"):
            forge(pixels, face, rng, kinds)
    for names in ((), ("morph",), ("swap", "morph")):
        with pytest.raises(ConfigError, match="expected kinds of forgery out of self_blend, swap"):
            forge(pixels, face, rng, names, donor())
    for wrong in (
        replace(face, landmarks=()),
        replace(face, box=(-50.0, 0.0, -10.0, 40.0)),
        replace(face, box=(20.0, 20.0, 20.0, 40.0)),
        replace(face, landmarks=((float("nan"), 0.0),) * 5),
    ):
        for kind in KINDS:
            with pytest.raises(ConfigError, match="expected a face with its centre in the picture"):
                KINDS[kind](pixels, wrong, rng, donor())
    for shape in ((96, 96), (96, 96, 4)):
        with pytest.raises(ConfigError, match="expected uint8 RGB"):
            forge(np.zeros(shape, np.uint8), face, rng)
    with pytest.raises(ConfigError, match="expected uint8 RGB"):
        forge(pixels.astype(np.float32), face, rng)  # type: ignore[arg-type]


@KIND
@pytest.mark.parametrize(
    "marks",
    [((20.0, 20.0),) * 5, ((30.0, 20.0), (10.0, 20.0), (20.0, 25.0), (25.0, 10.0), (15.0, 10.0))],
)
def test_landmarks_that_make_no_face_do_no_harm(
    kind: str, marks: tuple[tuple[float, float], ...]
) -> None:
    pixels = texture(48, 40, 2)
    face = Face((5.0, 5.0, 35.0, 40.0), marks, 0.5)
    for seed in range(6):
        found = made(kind, pixels, face, seed, (pixels, face))
        assert np.isfinite(found.mask).all()
        assert found.mask.max() > 0


@given(
    turn=st.floats(-90, 90),
    size=st.floats(10, 300),
    x=st.floats(-50, 50),
    squeeze=st.floats(0.3, 1),
)
def test_the_gap_of_poses_forgets_place_size_and_turn(
    turn: float, size: float, x: float, squeeze: float
) -> None:
    frontal = face_at((0, 0), 80, 100)
    assert pose_gap(frontal, face_at((x, 3), 0.8 * size, size, turn)) == pytest.approx(0, abs=1e-6)
    assume(squeeze < 0.9)
    aside = face_at((x, 3), 0.8 * size * squeeze, size, turn)
    assert pose_gap(frontal, aside) > 0.02
