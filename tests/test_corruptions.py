from __future__ import annotations

import io
import random
from itertools import pairwise

import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from bonaface.corruptions import CORRUPTIONS, DELIVERIES, PRESETS, corrupt
from bonaface.drawn import draw_face
from bonaface.errors import ConfigError

NAMES = tuple(CORRUPTIONS)
SEVERITIES = range(1, 6)
PHOTO: NDArray[np.uint8] = np.ascontiguousarray(skimage.data.astronaut()[0:160, 140:300])
WITHOUT_CHANCE = {"jpeg", "webp", "blur", "sharpen"}
# What each makes of a picture of one grey, in levels of 255: of flat ones, the most they are off;
# None: another flat picture.
FLAT: dict[str, int | None] = {
    "jpeg": 2,
    "webp": 3,  # its loop filter dithers
    "messenger": 2,
    "social": 3,
    "screenshot": 2,
    "thumbnail": 2,
    "rescale": 0,
    "blur": 0,
    "motion_blur": 0,
    "sharpen": 0,
    "brightness": None,
    "contrast": 0,
    "gamma": None,
    "saturation": 0,
    "colour_cast": None,
    "shift": 0,
}
SMALL = arrays(
    np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24), st.just(3)), fill=st.nothing()
)


def changed(image: NDArray[np.uint8], name: str, severity: int, seed: int) -> NDArray[np.int16]:
    out = corrupt(image, name, severity, np.random.default_rng(seed))
    return out.astype(np.int16) - image


def size_of_change(image: NDArray[np.uint8], name: str, severity: int, seeds: int) -> float:
    """Mean absolute difference in levels of 255, over so many seeds."""
    each = [np.abs(changed(image, name, severity, seed)).mean() for seed in range(seeds)]
    return float(np.mean(each))


def luma(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.asarray(image @ np.array([0.299, 0.587, 0.114]))


# -- every corruption ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@given(image=SMALL, severity=st.integers(1, 5), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_any_small_image(name: str, image: NDArray[np.uint8], severity: int, seed: int) -> None:
    before = image.copy()
    image.flags.writeable = False
    first = corrupt(image, name, severity, np.random.default_rng(seed))
    second = corrupt(image, name, severity, np.random.default_rng(seed))
    assert first.shape == image.shape
    assert first.dtype == np.uint8
    assert first.flags.c_contiguous
    assert first.flags.writeable
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(image, before)
    assert not np.shares_memory(first, image)


@pytest.mark.parametrize("shape", [(17, 23, 3), (2, 2, 3), (1, 1, 3), (3, 200, 3), (131, 64, 3)])
@pytest.mark.parametrize("name", NAMES)
def test_odd_sizes(name: str, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    for severity in SEVERITIES:
        assert corrupt(image, name, severity, np.random.default_rng(1)).shape == shape


@pytest.mark.parametrize("name", NAMES)
def test_views_are_taken_as_they_look(name: str) -> None:
    for view in (PHOTO[:, ::-1], PHOTO[::2, ::2], PHOTO.transpose(1, 0, 2), PHOTO[:, :, ::-1]):
        got = corrupt(view, name, 3, np.random.default_rng(4))
        wanted = corrupt(np.ascontiguousarray(view), name, 3, np.random.default_rng(4))
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("name", NAMES)
def test_the_generator_is_the_only_source_of_chance(name: str) -> None:
    outs = set()
    for seed in range(3):
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        cv2.setRNGSeed(seed)
        outs.add(corrupt(PHOTO, name, 3, np.random.default_rng(7)).tobytes())
    assert len(outs) == 1
    rng = np.random.default_rng(7)
    outs |= {corrupt(PHOTO, name, 3, rng).tobytes() for _ in range(12)}
    untouched = rng.bit_generator.state == np.random.default_rng(7).bit_generator.state
    if name in WITHOUT_CHANCE:
        assert len(outs) == 1
        assert untouched
    else:
        assert len(outs) > 1
        assert not untouched


@pytest.mark.parametrize("side", [96, 160])
@pytest.mark.parametrize("name", NAMES)
def test_change_grows_with_severity(name: str, side: int) -> None:
    photo = cv2.resize(PHOTO, (side, side), interpolation=cv2.INTER_AREA)
    mean = [size_of_change(photo, name, severity, 6) for severity in SEVERITIES]
    assert mean[0] > 0
    assert all(later > earlier * 1.02 for earlier, later in pairwise(mean)), mean
    assert mean[4] > 1.35 * mean[0], mean


@pytest.mark.parametrize("name", [name for name in NAMES if name != "shift"])
def test_the_first_severity_is_hardly_seen_and_the_last_leaves_a_face(name: str) -> None:
    """By correlation with the photograph, after what is finer than a face's features is gone."""

    def likeness(severity: int, sigma: float) -> float:
        outs = [corrupt(PHOTO, name, severity, np.random.default_rng(seed)) for seed in range(6)]
        smooth = [ndimage.gaussian_filter(luma(out), sigma).ravel() for out in (PHOTO, *outs)]
        return float(np.corrcoef(smooth)[0, 1:].min())

    assert likeness(1, 1.0) > 0.98
    assert likeness(5, 2.0) > {"occlusion": 0.6, "rephotograph": 0.75}.get(name, 0.95)


@pytest.mark.parametrize("name", list(FLAT))
@pytest.mark.parametrize("value", [0, 90, 255])
def test_constant_images(name: str, value: int) -> None:
    image = np.full((32, 48, 3), value, np.uint8)
    for severity in SEVERITIES:
        out = corrupt(image, name, severity, np.random.default_rng(2)).astype(int)
        most = FLAT[name]
        if most is None:
            assert (out == out[0, 0]).all()
        else:
            assert np.abs(out - value).max() <= most


@pytest.mark.parametrize("severity", SEVERITIES)
def test_what_does_more_than_recolour_a_constant_image(severity: int) -> None:
    assert set(NAMES) - set(FLAT) == {"noise", "occlusion", "rephotograph"}
    for value in (0, 90, 255):
        image = np.full((64, 48, 3), value, np.uint8)
        for seed in range(6):
            out = corrupt(image, "rephotograph", severity, np.random.default_rng(seed))
            low, high = value * (0.6 if severity > 2 else 0.85), value + 25 + 6 * severity
            smooth = ndimage.uniform_filter(out.astype(float), (5, 5, 0))
            assert smooth.min() > low - 6
            assert smooth.max() < high


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"noise", "occlusion", "rephotograph"}))
def test_a_grey_photograph_stays_without_colour(name: str) -> None:
    grey = np.repeat(luma(PHOTO).astype(np.uint8)[:, :, None], 3, axis=2)
    for severity in (1, 5):
        out = corrupt(grey, name, severity, np.random.default_rng(3)).astype(float)
        spread = np.ptp(out / out.mean((0, 1)) * out.mean(), axis=2)  # beside a cast
        assert np.quantile(spread, 0.95) <= 4


@pytest.mark.parametrize("name", NAMES)
def test_colours_keep_their_places(name: str) -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    image[:] = (200, 120, 40)
    for seed in range(4):
        out = corrupt(image, name, 5, np.random.default_rng(seed))
        red, green, blue = np.median(out, axis=(0, 1))
        apart = 1 if name == "saturation" else 20  # which may take nearly all colour
        assert red > green + apart > blue + 2 * apart


# -- one by one ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "qualities", "options"),
    [
        ("jpeg", "JPEG", (90, 75, 60, 45, 30), {"subsampling": "4:2:0"}),
        ("webp", "WEBP", (85, 65, 50, 35, 20), {}),
    ],
)
def test_codecs_agree_with_pillow(
    name: str, kind: str, qualities: tuple[int, ...], options: dict[str, str]
) -> None:
    for severity, quality in zip(SEVERITIES, qualities, strict=True):
        file = io.BytesIO()
        Image.fromarray(PHOTO).save(file, kind, quality=quality, **options)
        wanted = np.asarray(Image.open(file).convert("RGB")).astype(int)
        got = corrupt(PHOTO, name, severity, np.random.default_rng(0))
        off = np.abs(got - wanted).mean()
        own = np.abs(changed(PHOTO, name, severity, 0)).mean()
        assert off < 0.25 * own


def test_blur_agrees_with_scipy() -> None:
    for severity, sigma in zip(SEVERITIES, (0.4, 0.7, 1.0, 1.5, 2.2), strict=True):
        wanted = ndimage.gaussian_filter(PHOTO.astype(float), (sigma, sigma, 0), mode="mirror")
        got = corrupt(PHOTO, "blur", severity, np.random.default_rng(0))
        assert np.abs(got - wanted).mean() < 0.5
        assert np.abs(got - wanted).max() < 4


def test_noise_has_its_deviation() -> None:
    grey = np.full((128, 128, 3), 128, np.uint8)
    for severity, deviation in zip(SEVERITIES, (2, 4, 7, 11, 16), strict=True):
        delta = changed(grey, "noise", severity, 0)
        assert delta.std() == pytest.approx(deviation, rel=0.03)
        assert abs(delta.mean()) < 0.25


def test_rescale_leaves_what_the_small_picture_holds() -> None:
    """A wave of 4 pixels survives 0.85 of the side and not 0.3 of it."""
    wave = (127.5 + 100 * np.sin(np.arange(120) * np.pi / 2 + 0.5)).astype(np.uint8)
    image = np.ascontiguousarray(np.broadcast_to(wave[None, :, None], (120, 120, 3)))
    left = [
        corrupt(image, "rescale", severity, np.random.default_rng(0)).std() / image.std()
        for severity in SEVERITIES
    ]
    assert left[0] > 0.6
    assert left[4] < 0.3


@pytest.mark.parametrize("severity", SEVERITIES)
def test_light_stays_within_its_share(severity: int) -> None:
    share = (0.06, 0.12, 0.2, 0.3, 0.4)[severity - 1]
    grey = np.full((8, 8, 3), 128, np.uint8)
    grey[:4] = 98
    shifts, stretches = [], []
    for seed in range(40):
        out = corrupt(grey, "brightness", severity, np.random.default_rng(seed))
        shifts.append((out[0, 0, 0] - 98.0) / 255)
        out = corrupt(grey, "contrast", severity, np.random.default_rng(seed))
        stretches.append((float(out[7, 0, 0]) - float(out[0, 0, 0])) / 30 - 1)
    for found, rounding in ((shifts, 0.5 / 255), (stretches, 1 / 30)):
        size = np.abs(found)
        assert size.max() <= share + rounding
        assert size.min() >= share / 2 - rounding
        assert min(found) < 0 < max(found)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_motion_blur_smears_a_dot_into_its_stroke(severity: int) -> None:
    length = (2, 3, 4.5, 7, 10)[severity - 1]
    dot = np.zeros((41, 41, 3), np.uint8)
    dot[18:23, 18:23] = 255
    own = np.cov(np.indices((41, 41)).reshape(2, -1), fweights=dot[:, :, 0].ravel(), ddof=0)
    angles = []
    for seed in range(8):
        out = corrupt(dot, "motion_blur", severity, np.random.default_rng(seed))[:, :, 0]
        assert out.mean() == pytest.approx(dot.mean(), rel=0.02)
        at = np.indices(out.shape).reshape(2, -1)
        assert np.average(at, axis=1, weights=out.ravel()) == pytest.approx([20, 20], abs=0.1)
        spread, ways = np.linalg.eigh(np.cov(at, fweights=out.ravel(), ddof=0) - own)
        # Sharing a point among its pixels spreads it by up to a quarter in each direction.
        assert length**2 / 12 - 0.1 <= spread[1] <= length**2 / 12 + 0.4
        assert spread[0] <= 0.3
        angles.append(np.arctan2(ways[0, 1], ways[1, 1]) % np.pi)
    assert np.ptp(angles) > 1


@pytest.mark.parametrize("severity", SEVERITIES)
def test_gamma_is_a_power_within_its_share(severity: int) -> None:
    most = (1.1, 1.2, 1.35, 1.6, 2)[severity - 1]
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    powers = []
    for seed in range(20):
        out = corrupt(ramp, "gamma", severity, np.random.default_rng(seed))[0, :, 1]
        power = np.log(out[128] / 255) / np.log(128 / 255)
        wanted = 255 * (np.arange(256) / 255) ** power
        assert np.abs(out - wanted).max() <= 2.5
        powers.append(power)
    size = np.abs(np.log(powers))
    assert size.max() <= np.log(most) + 0.01
    assert size.min() >= np.log(most) / 2 - 0.01
    assert min(powers) < 1 < max(powers)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_saturation_stretches_colour_and_keeps_luma(severity: int) -> None:
    most = (0.15, 0.3, 0.5, 0.7, 0.95)[severity - 1]
    image = np.random.default_rng(0).integers(100, 150, (16, 16, 3), np.uint8)
    grey = luma(image)[:, :, None]
    factors = []
    for seed in range(20):
        out = corrupt(image, "saturation", severity, np.random.default_rng(seed))
        assert np.abs(luma(out) - luma(image)).max() <= 0.6
        factors.append(np.polyfit((image - grey).ravel(), (out - grey).ravel(), 1)[0])
    size = np.abs(np.array(factors) - 1)
    assert size.max() <= most + 0.02
    assert size.min() >= most / 2 - 0.02
    assert min(factors) < 1 < max(factors)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_a_cast_multiplies_each_colour_and_keeps_the_light(severity: int) -> None:
    most = (0.03, 0.06, 0.1, 0.15, 0.2)[severity - 1]
    image = np.random.default_rng(0).integers(60, 200, (16, 16, 3), np.uint8)
    largest = []
    for seed in range(20):
        out = corrupt(image, "colour_cast", severity, np.random.default_rng(seed))
        gains = (image * out.astype(float)).sum((0, 1)) / (image.astype(float) ** 2).sum((0, 1))
        assert np.abs(out - image * gains).max() < 1
        assert gains.mean() == pytest.approx(1, abs=0.005)
        largest.append(int(gains.argmax()))
        # Of three equally far hues, the largest is off by at least cos 30 degrees of the strength.
        assert 0.85 * most / 2 - 0.005 <= np.abs(gains - 1).max() <= most + 0.005
    assert set(largest) == {0, 1, 2}


def test_sharpening_is_an_unsharp_mask() -> None:
    for severity, amount in zip(SEVERITIES, (0.3, 0.6, 1.0, 1.6, 2.5), strict=True):
        away = PHOTO - ndimage.gaussian_filter(PHOTO.astype(float), (1, 1, 0), mode="mirror")
        wanted = np.clip(PHOTO + amount * away, 0, 255)
        got = corrupt(PHOTO, "sharpen", severity, np.random.default_rng(0))
        assert np.abs(got - wanted).mean() < 0.3 + 0.3 * amount
        assert np.abs(got - wanted).max() < 1 + 4 * amount


@pytest.mark.parametrize("severity", SEVERITIES)
def test_shift_shows_a_part_and_invents_nothing(severity: int) -> None:
    """Of a picture whose red is the column and whose green is the row."""
    cut, side = (0.03, 0.06, 0.1, 0.15, 0.22)[severity - 1], 200
    rows, columns = np.indices((side, side))
    image = np.stack([columns, rows, 0 * rows], axis=2).astype(np.uint8)
    starts = []
    for seed in range(20):
        out = corrupt(image, "shift", severity, np.random.default_rng(seed)).astype(float)
        for seen in (out[100, :, 0], out[:, 100, 1]):
            pace, start = np.polyfit(np.arange(side)[5:-5], seen[5:-5], 1)
            assert pace == pytest.approx(1 - cut, abs=0.002)
            assert np.abs(start + pace * np.arange(side) - seen).max() < 1.6
            edge = start + 0.5 - pace / 2  # where the first pixel begins
            assert -0.1 <= edge <= cut * side + 0.1
            starts.append(edge / side)
    assert min(starts) < 0.25 * cut
    assert max(starts) > 0.75 * cut


@pytest.mark.parametrize("severity", SEVERITIES)
def test_occlusion_hides_its_share_of_the_middle(severity: int) -> None:
    share = (0.02, 0.05, 0.1, 0.17, 0.26)[severity - 1]
    height, width = 250, 400
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    kinds = set()
    for seed in range(40):
        out = corrupt(image, "occlusion", severity, np.random.default_rng(seed))
        hidden = (out != image).any(axis=2)
        rows, columns = np.flatnonzero(hidden.any(1)), np.flatnonzero(hidden.any(0))
        hole = out[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert hidden.sum() >= 0.999 * hole[:, :, 0].size  # nothing shines through
        assert hole[:, :, 0].size == pytest.approx(share * height * width, rel=0.06)
        if hole.shape[0] < height and hole.shape[1] < width:
            assert 1 / 2.3 < hole.shape[0] / height / (hole.shape[1] / width) < 2.3
        for at, side in ((rows, height), (columns, width)):
            assert at[0] == 0 or at[-1] == side - 1 or 0.24 < at.mean() / side < 0.76
        flat = bool((hole == hole[0, 0]).all())
        assert flat or hole.std() > 60
        kinds.add((hole.shape[0] == height, hole.shape[1] == width, flat))
    stripes_and_boxes = {(True, False), (False, True), (False, False)}
    assert {kind[:2] for kind in kinds} == stripes_and_boxes
    assert {kind[2] for kind in kinds} == {True, False}


def test_a_rephotograph_leans_a_little() -> None:
    """Dots are found again within the share of the side, and not all moved alike."""
    at = np.array([(r, c) for r in (40, 80, 120) for c in (40, 80, 120)])
    image = np.full((160, 160, 3), 60, np.uint8)
    for row, column in at:
        image[row - 3 : row + 4, column - 3 : column + 4] = 220
    for severity, share in zip(SEVERITIES, (0.01, 0.02, 0.03, 0.045, 0.06), strict=True):
        furthest = 0.0
        for seed in range(6):
            out = corrupt(image, "rephotograph", severity, np.random.default_rng(seed))
            light = ndimage.gaussian_filter(luma(out), 1.5)
            labels, count = ndimage.label(light > (light.min() + light.max()) / 2)
            assert count == len(at)
            found = np.array(ndimage.center_of_mass(light, labels, range(1, count + 1)))
            near = np.linalg.norm(found[:, None] - at[None], axis=2)
            assert sorted(near.argmin(1)) == list(range(len(at)))
            moves = found - at[near.argmin(1)]
            assert np.ptp(moves, axis=0).max() > 0.1 * share * 160
            furthest = max(furthest, float(near.min(1).max()))
        assert 0.1 * share * 160 < furthest < 1.5 * share * 160 + 1


def test_a_rephotograph_has_dark_corners_and_waves() -> None:
    grey = np.full((128, 128, 3), 160, np.uint8)
    waves = 0
    darker = []
    for seed in range(8):
        out = corrupt(grey, "rephotograph", 3, np.random.default_rng(seed)).astype(float)
        corners = [out[rows, columns].mean() for rows in (slice(8), slice(-8, None))
                   for columns in (slice(8), slice(-8, None))]  # fmt: skip
        darker.append(1 - min(corners) / out[48:80, 48:80].mean())
        green = out[:, :, 1] - ndimage.gaussian_filter(out[:, :, 1], 8)
        power = np.abs(np.fft.rfft2(green * np.outer(np.hanning(128), np.hanning(128))))
        pace = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.rfftfreq(128)[None])
        band = (pace > 1 / 13) & (pace < 1 / 3.8)
        waves += power[band].max() > 8 * np.median(power[band])
    assert waves >= 6
    assert 0.08 < np.mean(darker) < 0.16


# -- presets ---------------------------------------------------------------------------------------

CHAINS: dict[str, tuple[tuple[int, tuple[tuple[str, int], ...]], ...]] = {
    "messenger": tuple(
        (size, (("JPEG", quality),))
        for size, quality in ((2048, 85), (1600, 75), (1280, 65), (960, 50), (640, 40))
    ),
    "social": tuple(
        (size, (("JPEG", stored), ("WEBP", served)))
        for size, stored, served in (
            (2048, 90, 85),
            (1440, 80, 75),
            (1080, 70, 60),
            (720, 60, 45),
            (480, 50, 30),
        )
    ),
    "screenshot": tuple(
        (size, (("JPEG", quality),))
        for size, quality in ((1440, 90), (1080, 80), (828, 70), (640, 55), (480, 40))
    ),
    "thumbnail": tuple(
        (size, (("JPEG", quality),))
        for size, quality in ((640, 85), (520, 80), (400, 75), (320, 65), (256, 55))
    ),
}


def resized(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    how = cv2.INTER_AREA if side < image.shape[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (side, side), interpolation=how))


def chain(
    crop: NDArray[np.uint8], factor: float, saves: tuple[tuple[str, int], ...], place: int
) -> NDArray[np.uint8]:
    """What Pillow makes of a crop that lies at a place of the codecs' grid."""
    sent = resized(crop, round(factor * crop.shape[0]))
    picture = Image.fromarray(np.pad(sent, [(place, 0), (place, 0), (0, 0)], "reflect"))
    for kind, quality in saves:
        file = io.BytesIO()
        options = {"subsampling": 2} if kind == "JPEG" else {}
        picture.save(file, kind, quality=quality, **options)
        picture = Image.open(file).convert("RGB")
    return resized(np.asarray(picture)[place:, place:], crop.shape[0])


@pytest.mark.parametrize("side", [96, 320])
@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("name", list(PRESETS))
def test_a_preset_loses_what_its_chain_loses(name: str, severity: int, side: int) -> None:
    """Of a crop that spans a quarter of the longer side of its picture."""
    crop = cv2.resize(PHOTO, (side, side), interpolation=cv2.INTER_CUBIC)
    size, saves = CHAINS[name][severity - 1]
    factor = min(1.3 if name == "screenshot" else 1.0, size / 4 / side)
    theirs = [np.abs(chain(crop, factor, saves, at) - crop.astype(int)) for at in range(0, 16, 3)]
    ours = size_of_change(crop, name, severity, 6)
    assert ours == pytest.approx(np.mean(theirs), rel=0.03)


def test_where_a_preset_puts_its_blocks_is_left_to_chance() -> None:
    """The steps between columns at a distance of eight are the largest in no fixed place."""
    ramp = np.repeat(np.linspace(90, 160, 96).astype(np.uint8)[None, :, None], 3, axis=2)
    image = np.repeat(ramp, 96, axis=0)
    places = set()
    for seed in range(20):
        out = luma(corrupt(image, "messenger", 5, np.random.default_rng(seed)))
        steps = np.abs(np.diff(out, axis=1)).mean(0)
        places.add(int(np.argmax([steps[at::8].mean() for at in range(8)])))
    assert len(places) >= 4


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_preset_shrinks_a_crop_that_is_too_large_for_it(name: str) -> None:
    """Checks of a pixel go from a crop of more than a quarter of the delivered size."""
    for side, kept in ((96, name != "screenshot"), (640, False)):  # a screen enlarges small ones
        fine = np.where(np.indices((side, side)).sum(0) % 2, 150, 106).astype(np.uint8)
        image = np.repeat(fine[:, :, None], 3, axis=2)
        out = luma(corrupt(image, name, 1, np.random.default_rng(0)))
        contrast = np.abs(np.diff(out, axis=1)).mean() / 44
        assert contrast > 0.7 if kept else contrast < 0.3


# -- names and severities --------------------------------------------------------------------------


def test_unknown_name_lists_the_choices() -> None:
    with pytest.raises(ConfigError, match=r"jpeg, webp,.* rephotograph, got 'jpg'"):
        corrupt(PHOTO, "jpg", 1, np.random.default_rng(0))


@pytest.mark.parametrize("severity", [0, 6, -1, 2.5, float("nan")])
def test_unknown_severity(severity: float) -> None:
    with pytest.raises(ConfigError, match="from 1 to 5"):
        corrupt(PHOTO, "jpeg", severity, np.random.default_rng(0))  # type: ignore[arg-type]


# -- deliveries -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(DELIVERIES))
@pytest.mark.parametrize("shape", [(1, 1), (16, 16), (63, 40), (200, 200)])
def test_a_delivery_is_pure_and_without_chance(name: str, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    before = image.copy()
    first, second = (DELIVERIES[name](image, 3000) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(image, before)
    assert first.dtype == np.uint8
    assert first.shape[2] == 3
    assert first.flags.c_contiguous


def test_deliveries_are_these_steps_to_the_bit() -> None:
    """Stability ranges of earlier releases hold only as long as nothing here changes."""

    def saved(image: NDArray[np.uint8], extension: str, *options: int) -> NDArray[np.uint8]:
        _, data = cv2.imencode(extension, image[:, :, ::-1], options)
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[:, :, ::-1]

    def sized(side: int, how: int, image: NDArray[np.uint8] = PHOTO) -> NDArray[np.uint8]:
        return np.asarray(cv2.resize(image, (side, side), interpolation=how))

    jpeg, webp = cv2.IMWRITE_JPEG_QUALITY, cv2.IMWRITE_WEBP_QUALITY
    half = sized(160, cv2.INTER_LINEAR, sized(80, cv2.INTER_AREA))
    for longest, shown, sent in (
        (640, sized(208, cv2.INTER_LINEAR), PHOTO),
        (2400, sized(72, cv2.INTER_AREA), sized(107, cv2.INTER_AREA)),
    ):
        wanted = {
            "JPEG 90": saved(PHOTO, ".jpg", jpeg, 90),
            "JPEG 70": saved(PHOTO, ".jpg", jpeg, 70),
            "JPEG 50": saved(PHOTO, ".jpg", jpeg, 50),
            "half size": half,
            "WebP 75": saved(PHOTO, ".webp", webp, 75),
            "screenshot": saved(shown, ".jpg", jpeg, 85),
            "messenger": saved(sent, ".jpg", jpeg, 70),
        }
        assert list(DELIVERIES) == list(wanted)
        for name, deliver in DELIVERIES.items():
            np.testing.assert_array_equal(deliver(PHOTO, longest), wanted[name])


@pytest.mark.parametrize(
    ("name", "longest", "side"),
    [
        ("JPEG 50", 4000, 400),
        ("half size", 4000, 400),
        ("messenger", 4000, 160),  # 1600 of 4000
        ("messenger", 1000, 400),  # small ones are not enlarged
        ("screenshot", 4000, 108),  # 1080 of 4000
        ("screenshot", 400, 520),  # enlarged by 1.3 at most
        ("screenshot", 900, 480),
    ],
)
def test_a_part_shrinks_as_the_whole_picture_would(name: str, longest: int, side: int) -> None:
    image = cv2.resize(np.random.default_rng(1).integers(0, 256, (20, 20, 3), np.uint8), (400, 400))
    assert DELIVERIES[name](image, longest).shape == (side, side, 3)


def test_saving_is_that_of_another_encoder_of_the_same_quality() -> None:
    """Pillow's JPEG at that quality, 4:2:0, loses about as much as ours."""
    image = draw_face(np.random.default_rng(3), 192).pixels
    for quality in (90, 70, 50):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling=2)
        theirs = np.asarray(Image.open(file)).astype(int)
        ours = DELIVERIES[f"JPEG {quality}"](image, 192).astype(int)
        lost, reference = np.abs(ours - image).mean(), np.abs(theirs - image).mean()
        assert lost == pytest.approx(reference, rel=0.15)
        assert np.abs(ours - theirs).mean() < 0.3 * reference


def test_half_the_size_loses_the_finest_detail_and_keeps_the_rest() -> None:
    checks = np.where(np.indices((64, 64)).sum(0)[..., None] % 2, 255, 0).astype(np.uint8)
    checks = np.repeat(checks, 3, axis=2)
    assert np.ptp(DELIVERIES["half size"](checks, 64)) <= 2
    smooth = cv2.resize(np.uint8([[[0] * 3, [255] * 3]]), (64, 64))
    assert np.abs(DELIVERIES["half size"](smooth, 64).astype(int) - smooth).max() <= 4
