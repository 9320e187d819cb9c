from __future__ import annotations

import io
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

from bonaface.corruptions import CORRUPTIONS, DELIVERIES, corrupt
from bonaface.drawn import draw_face
from bonaface.errors import ConfigError

NAMES = tuple(CORRUPTIONS)
SEVERITIES = range(1, 6)
PHOTO: NDArray[np.uint8] = np.ascontiguousarray(skimage.data.astronaut()[0:160, 140:300])


def changed(image: NDArray[np.uint8], name: str, severity: int, seed: int) -> NDArray[np.int16]:
    out = corrupt(image, name, severity, np.random.default_rng(seed))
    return out.astype(np.int16) - image


@given(
    image=arrays(
        np.uint8, st.tuples(st.integers(2, 24), st.integers(2, 24), st.just(3)), fill=st.nothing()
    ),
    name=st.sampled_from(NAMES),
    severity=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_any_small_image(image: NDArray[np.uint8], name: str, severity: int, seed: int) -> None:
    before = image.copy()
    first = corrupt(image, name, severity, np.random.default_rng(seed))
    second = corrupt(image, name, severity, np.random.default_rng(seed))
    assert first.shape == image.shape
    assert first.dtype == np.uint8
    assert first.flags.c_contiguous
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(image, before)
    assert not np.shares_memory(first, image)


@pytest.mark.parametrize("shape", [(17, 23, 3), (2, 2, 3), (1, 1, 3), (3, 200, 3)])
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
def test_change_grows_with_severity(name: str) -> None:
    mean = [
        np.mean([np.abs(changed(PHOTO, name, severity, seed)).mean() for seed in range(4)])
        for severity in SEVERITIES
    ]
    assert mean[0] > 0
    assert all(later > earlier * 1.05 for earlier, later in pairwise(mean)), mean


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0, 90, 255])
def test_constant_images(name: str, value: int) -> None:
    image = np.full((32, 48, 3), value, np.uint8)
    out = corrupt(image, name, 5, np.random.default_rng(2)).astype(int)
    if name == "webp":  # its loop filter dithers
        assert np.abs(out - value).max() <= 3
    elif name != "noise":
        assert np.ptp(out) == 0
        if name != "brightness":
            assert abs(out[0, 0, 0] - value) <= (2 if name == "jpeg" else 0)


@pytest.mark.parametrize("name", NAMES)
def test_colours_keep_their_places(name: str) -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    image[:] = (200, 120, 40)
    red, green, blue = corrupt(image, name, 5, np.random.default_rng(2)).mean((0, 1))
    assert red > green + 30 > blue + 60


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


def test_another_seed_another_grain() -> None:
    assert (changed(PHOTO, "noise", 1, 0) != changed(PHOTO, "noise", 1, 1)).any()


def test_unknown_name_lists_the_choices() -> None:
    with pytest.raises(ConfigError, match=r"jpeg, webp, rescale.*'jpg'"):
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
