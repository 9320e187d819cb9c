from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bonaface.errors import BundleError, ConfigError
from bonaface.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def triangle(from_side: int, to_side: int) -> np.ndarray:
    """Weights (to, from) of antialiased bilinear resizing, in double precision."""
    scale = from_side / to_side
    support = max(scale, 1.0)
    centres = (np.arange(to_side) + 0.5) * scale
    distance = np.abs(np.arange(from_side) + 0.5 - centres[:, None]) / support
    weights = np.clip(1 - distance, 0, None)
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("shape", [(64, 64), (50, 90), (91, 50), (17, 200), (300, 299)])
@pytest.mark.parametrize("size", [32, 64, 128])
def test_resize_agrees_with_double_precision(shape: tuple[int, int], size: int) -> None:
    pixels = noise(*shape)
    side = min(shape)
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    square = pixels[top : top + side, left : left + side].astype(float)
    weights = triangle(side, size)
    expected = np.einsum("ij,jkc,lk->ilc", weights, square, weights, optimize=True)
    found = Preprocess(size).resize(pixels)
    assert found.shape == (size, size, 3)
    assert found.dtype == np.uint8
    # Pillow rounds to 8 bits between the two passes and at the end.
    assert np.abs(found - expected).max() <= 1.01


def test_the_crop_comes_before_the_filter() -> None:
    """What lies outside the centre square must not bleed into it."""
    pixels = np.zeros((100, 300, 3), np.uint8)
    pixels[:, 100:200] = 200
    assert (Preprocess(37).resize(pixels) == 200).all()


@pytest.mark.parametrize("shape", [(64, 64), (64, 80), (81, 64)])
def test_the_same_size_changes_no_pixel(shape: tuple[int, int]) -> None:
    pixels = noise(*shape)
    top, left = (shape[0] - 64) // 2, (shape[1] - 64) // 2
    found = Preprocess(64).resize(pixels)
    np.testing.assert_array_equal(found, pixels[top : top + 64, left : left + 64])
    assert found.flags.c_contiguous


def test_resize_does_not_write_to_its_input() -> None:
    pixels = noise(64, 64)
    before = pixels.copy()
    recipe = Preprocess(64)
    recipe.normalise(recipe.resize(pixels)[None])
    np.testing.assert_array_equal(pixels, before)


@settings(max_examples=30, deadline=None)
@given(st.integers(16, 80), st.integers(16, 80), st.integers(16, 70), st.integers(0, 255))
def test_a_flat_picture_stays_flat(height: int, width: int, size: int, value: int) -> None:
    pixels = np.full((height, width, 3), value, np.uint8)
    found = Preprocess(size).resize(pixels)
    assert found.shape == (size, size, 3)
    assert (found == value).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(16, 80), st.integers(16, 80), st.integers(16, 70))
def test_resizing_commutes_with_mirroring_squares(side: int, size: int, seed: int) -> None:
    pixels = noise(side, side, seed)
    recipe = Preprocess(size)
    one = recipe.resize(np.ascontiguousarray(pixels[:, ::-1])).astype(int)
    assert np.abs(one - recipe.resize(pixels)[:, ::-1]).max() <= 1


def test_views_that_are_not_contiguous_are_taken() -> None:
    pixels = noise(60, 60)[::-1, ::2]
    expected = Preprocess(20).resize(np.ascontiguousarray(pixels))
    np.testing.assert_array_equal(Preprocess(20).resize(pixels), expected)


def test_normalise_is_the_textbook_formula() -> None:
    batch = np.stack([noise(24, 24, seed) for seed in range(3)])
    found = Preprocess(24).normalise(batch)
    expected = (batch / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    assert found.dtype == np.float32
    assert found.shape == (3, 3, 24, 24)
    np.testing.assert_allclose(found, expected.transpose(0, 3, 1, 2), atol=1e-6)


def test_normalise_keeps_channels_last_memory() -> None:
    found = Preprocess(24).normalise(noise(24, 24)[None])
    assert found.transpose(0, 2, 3, 1).flags.c_contiguous


def test_pillow_alone_gives_the_same_bytes() -> None:
    """The recipe written in the card's words, for whoever serves the network elsewhere."""
    pixels = noise(90, 120)
    square = Image.fromarray(pixels).crop((15, 0, 105, 90))
    expected = np.asarray(square.resize((48, 48), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(Preprocess(48).resize(pixels), expected)


@pytest.mark.parametrize("recipe", [Preprocess(64), Preprocess(128, (0.5,) * 3, (0.25, 0.5, 1.0))])
def test_round_trip_through_json(recipe: Preprocess) -> None:
    import json

    assert Preprocess.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


@pytest.mark.parametrize(
    "change",
    [
        {"square": "pad"},
        {"resampling": "bicubic"},
        {"square": None},
        {"size": "large"},
        {"mean": 3},
        {"colours": "bgr"},
    ],
)
def test_foreign_recipes_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(BundleError, match="expected"):
        Preprocess.from_dict(Preprocess(64).to_dict() | change)


@pytest.mark.parametrize("gone", ["size", "mean", "std", "square", "resampling"])
def test_incomplete_recipes_are_refused(gone: str) -> None:
    value = Preprocess(64).to_dict()
    del value[gone]
    with pytest.raises(BundleError):
        Preprocess.from_dict(value)


@pytest.mark.parametrize("change", [{"size": 8}, {"size": 5000}, {"std": [0.2, 0.2, 0.0]}])
def test_impossible_recipes_in_a_card_are_the_bundles_fault(change: dict[str, object]) -> None:
    with pytest.raises(BundleError):
        Preprocess.from_dict(Preprocess(64).to_dict() | change)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(value: float) -> None:
    with pytest.raises(ConfigError):
        Preprocess(64, (value, 0, 0))
    with pytest.raises(ConfigError):
        Preprocess(64, std=(value, 1, 1))


@pytest.mark.parametrize("size", [15, 1025, 0, -1])
def test_sizes_out_of_range_are_refused(size: int) -> None:
    with pytest.raises(ConfigError, match="16 to 1024"):
        Preprocess(size)
