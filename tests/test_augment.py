from __future__ import annotations

import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from bonaface import augment
from bonaface.augment import RECIPES, recipe
from bonaface.corruptions import PRESETS, corrupt
from bonaface.errors import ConfigError

NAMES = tuple(RECIPES)
PHOTO: NDArray[np.uint8] = np.ascontiguousarray(skimage.data.astronaut()[0:128, 160:288])


@given(
    image=arrays(
        np.uint8, st.tuples(st.integers(2, 24), st.integers(2, 24), st.just(3)), fill=st.nothing()
    ),
    name=st.sampled_from(NAMES),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=120, deadline=None)
def test_any_small_image(image: NDArray[np.uint8], name: str, seed: int) -> None:
    before = image.copy()
    image.flags.writeable = False
    out = recipe(name)(image, np.random.default_rng(seed))
    assert out.shape == image.shape
    assert out.dtype == np.uint8
    np.testing.assert_array_equal(out, recipe(name)(image, np.random.default_rng(seed)))
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("name", NAMES)
def test_views_are_taken_as_they_look(name: str) -> None:
    for view in (PHOTO[:, ::-1], PHOTO[::2, ::2], PHOTO.transpose(1, 0, 2)):
        for seed in range(8):
            got = recipe(name)(view, np.random.default_rng(seed))
            wanted = recipe(name)(np.ascontiguousarray(view), np.random.default_rng(seed))
            np.testing.assert_array_equal(got, wanted)


def test_none_is_identity() -> None:
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(recipe("none")(PHOTO, rng), PHOTO)
    assert rng.bit_generator.state == np.random.default_rng(0).bit_generator.state


def test_flip_mirrors_about_half() -> None:
    rng = np.random.default_rng(0)
    mirrored = 0
    for _ in range(400):
        out = recipe("flip")(PHOTO, rng)
        flipped = bool((out != PHOTO).any())
        if flipped:
            np.testing.assert_array_equal(out, PHOTO[:, ::-1])
        mirrored += flipped
    assert 160 <= mirrored <= 240  # four deviations


def test_recipes_other_than_none_vary() -> None:
    for name in NAMES[1:]:
        rng = np.random.default_rng(0)
        assert len({recipe(name)(PHOTO, rng).tobytes() for _ in range(60)}) > 1


def test_standard_leaves_a_constant_picture_constant() -> None:
    grey = np.full((48, 64, 3), (90, 120, 150), np.uint8)
    rng = np.random.default_rng(0)
    for _ in range(100):
        out = recipe("standard")(grey, rng).reshape(-1, 3)
        assert (out == out[0]).all()


def smoothness(image: NDArray[np.uint8]) -> float:
    """Energy of single pixels against that of the picture: grain has much, a blur little."""
    values = image.astype(float)
    return float(np.abs(np.diff(values, 2, axis=1)).mean() / values.std())


def test_standard_neither_saves_nor_blurs() -> None:
    """Grain that a codec or a blur would take away stays in every picture; robust takes it."""
    grain = np.random.default_rng(1).integers(64, 192, (96, 96, 3), np.uint8)
    kept = {
        name: min(
            smoothness(recipe(name)(grain, np.random.default_rng(seed))) / smoothness(grain)
            for seed in range(40)
        )
        for name in ("standard", "robust")
    }
    assert kept["standard"] > 0.55  # one cubic interpolation
    assert kept["robust"] < 0.3


def test_standard_moves_about_the_middle() -> None:
    """A dot in the middle of an oblong picture stays within the shift of 6 % and the mirror."""
    for height, width in ((64, 128), (128, 64), (96, 96)):
        image = np.full((height, width, 3), 20, np.uint8)
        image[height // 2 - 2 : height // 2 + 2, width // 2 - 2 : width // 2 + 2] = 220
        for seed in range(40):
            out = recipe("standard")(image, np.random.default_rng(seed)).astype(float).mean(2)
            weight = out - np.median(out)
            assert weight.max() > 50
            weight[weight < 50] = 0
            rows, columns = np.indices(out.shape)
            row = float((rows * weight).sum() / weight.sum())
            column = float((columns * weight).sum() / weight.sum())
            assert abs(row - (height - 1) / 2) <= 0.06 * height + 0.6
            assert abs(column - (width - 1) / 2) <= 0.06 * width + 0.6


@pytest.mark.parametrize(
    ("name", "before", "fewest", "most"),  # four deviations
    [("robust", "standard", 160, 240), ("delivered", "flip", 243, 317)],
)
def test_a_share_is_delivered_and_the_rest_left_as_it_was(
    name: str, before: str, fewest: int, most: int
) -> None:
    crop = np.ascontiguousarray(PHOTO[::2, ::2])
    same = sum(
        np.array_equal(
            recipe(name)(crop, np.random.default_rng(seed)),
            recipe(before)(crop, np.random.default_rng(seed)),
        )
        for seed in range(400)
    )
    assert fewest <= same <= most


def test_robust_delivers_by_presets_and_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[tuple[str, int]] = []

    def noted(
        image: NDArray[np.uint8], name: str, severity: int, rng: np.random.Generator
    ) -> NDArray[np.uint8]:
        steps.append((name, severity))
        return corrupt(image, name, severity, rng)

    monkeypatch.setattr(augment, "corrupt", noted)
    crop = np.ascontiguousarray(PHOTO[::4, ::4])
    ways = {"preset": 0, "codec": 0}
    seen: dict[str, set[int]] = {}
    for seed in range(1200):
        steps.clear()
        recipe("robust")(crop, np.random.default_rng(seed))
        last = steps[-1][0] if steps else ""
        ways["preset"] += last in PRESETS
        ways["codec"] += last in ("jpeg", "webp")
        names = [name for name, _ in steps if name not in ("brightness", "contrast")]
        if last in PRESETS:
            assert names == [last]
        elif names:
            assert [*names[:-1]] == [n for n in ("rescale", "blur", "noise") if n in names]
        for name, severity in steps:
            seen.setdefault(name, set()).add(severity)
    for count in ways.values():
        assert 240 <= count <= 360  # a quarter, four deviations
    for name in (*PRESETS, "jpeg", "webp"):
        assert seen.pop(name) == {1, 2, 3, 4, 5}
    for name in ("rescale", "blur", "noise"):
        assert seen.pop(name) == {1, 2, 3, 4}
    assert seen == {"brightness": {1, 2, 3}, "contrast": {1, 2, 3}}


def test_unknown_recipe_lists_the_choices() -> None:
    with pytest.raises(ConfigError, match=r"none, flip, standard, delivered, robust.*'strong'"):
        recipe("strong")
