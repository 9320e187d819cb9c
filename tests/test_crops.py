from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bonaface.crops import RECIPE_FILE, CropRecipe, measure_recipe, read_recipe
from bonaface.errors import BundleError, ConfigError
from bonaface.faces import Face, open_finder
from portraits import group, portrait


def face(left: float, top: float, right: float, bottom: float) -> Face:
    return Face((left, top, right, bottom), (), 0.9)


def numbered(height: int, width: int) -> np.ndarray:
    """A picture whose pixels name their place: red the column, green the row."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0] = np.arange(width)
    picture[..., 1] = np.arange(height)[:, None]
    return picture


# -- cutting --------------------------------------------------------------------------------------


def test_the_square_lies_about_the_face() -> None:
    crop = CropRecipe(margin=2.0).cut(numbered(200, 240), face(100, 80, 130, 120))
    assert crop.shape == (80, 80, 3)  # twice the longer side
    assert tuple(crop[0, 0, :2]) == (75, 60)
    assert tuple(crop[-1, -1, :2]) == (154, 139)


def test_the_shift_is_in_sides_of_the_square() -> None:
    crop = CropRecipe(margin=2.0, shift=(0.25, -0.5)).cut(
        numbered(200, 240), face(100, 80, 130, 120)
    )
    assert tuple(crop[0, 0, :2]) == (75 + 20, 60 - 40)


@pytest.mark.parametrize(
    ("box", "corner"),
    [((0, 0, 40, 40), (0, 0)), ((210, 170, 250, 210), (160, 120)), ((-20, 90, 20, 130), (0, 70))],
)
def test_at_the_edge_the_square_moves_inside(
    box: tuple[int, int, int, int], corner: tuple[int, int]
) -> None:
    crop = CropRecipe(margin=2.0).cut(numbered(200, 240), face(*box))
    assert crop.shape == (80, 80, 3)
    assert tuple(crop[0, 0, :2]) == corner
    assert tuple(crop[-1, -1, :2]) == (corner[0] + 79, corner[1] + 79)  # nothing is invented


def test_what_does_not_fit_is_mirrored_on_both_sides() -> None:
    picture = numbered(60, 240)
    crop = CropRecipe(margin=2.0).cut(picture, face(100, 10, 140, 50))
    assert crop.shape == (80, 80, 3)
    np.testing.assert_array_equal(crop[10:70], picture[:, 80:160])
    np.testing.assert_array_equal(crop[9], picture[1, 80:160])
    np.testing.assert_array_equal(crop[70], picture[58, 80:160])


def test_a_picture_smaller_than_half_the_square_is_still_cut() -> None:
    crop = CropRecipe(margin=10.0).cut(numbered(20, 20), face(0, 0, 20, 20))
    assert crop.shape == (200, 200, 3)


def test_a_large_crop_is_shrunk_and_a_small_one_is_not_enlarged() -> None:
    recipe = CropRecipe(margin=1.0, max_side=64)
    assert recipe.cut(portrait(), face(100, 100, 300, 300)).shape == (64, 64, 3)
    assert recipe.cut(portrait(), face(100, 100, 140, 140)).shape == (40, 40, 3)
    assert recipe.shrink(portrait()[:256]).shape == (32, 64, 3)


@settings(max_examples=40)
@given(
    st.floats(-50, 250),
    st.floats(-50, 250),
    st.floats(1, 300),
    st.floats(0.5, 10),
    st.floats(-1, 1),
    st.integers(20, 200),
    st.integers(20, 200),
)
def test_any_face_gives_a_square_and_leaves_the_picture_alone(
    x: float, y: float, side: float, margin: float, shift: float, height: int, width: int
) -> None:
    picture = numbered(height, width)
    before = picture.copy()
    recipe = CropRecipe(margin=margin, shift=(shift, -shift))
    crop = recipe.cut(picture, face(x, y, x + side, y + side * 0.8))
    assert crop.shape[0] == crop.shape[1] == min(max(1, round(margin * side)), 512)
    assert crop.dtype == np.uint8
    crop[:] = 7
    np.testing.assert_array_equal(picture, before)


def test_a_mirrored_picture_gives_the_mirrored_crop() -> None:
    recipe = CropRecipe(margin=1.4, shift=(0.1, 0.05))
    mirrored = CropRecipe(margin=1.4, shift=(-0.1, 0.05))
    crop = recipe.cut(portrait(), face(180, 60, 270, 180))
    other = mirrored.cut(portrait()[:, ::-1], face(512 - 270, 60, 512 - 180, 180))
    np.testing.assert_array_equal(crop, other[:, ::-1])


# -- crops that are crops already -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "box", "expected"),
    [
        ((224, 224), (10, 10, 214, 214), True),
        ((224, 224), (60, 60, 164, 164), False),  # a portrait: the face is half of it
        ((600, 224), (200, 10, 404, 214), False),  # far from square
        ((260, 224), (20, 10, 224, 214), True),
    ],
)
def test_a_crop_is_known_by_how_the_face_lies_in_it(
    size: tuple[int, int], box: tuple[int, int, int, int], expected: bool
) -> None:
    assert CropRecipe(margin=1.0).takes_whole(face(*box), *size) is expected


def test_what_a_recipe_cut_is_a_crop_to_it() -> None:
    finder = open_finder()
    recipe = CropRecipe(margin=1.5)
    crop = recipe.cut(portrait(), finder.find(portrait())[0])
    assert recipe.takes_whole(finder.find(crop)[0], *crop.shape[:2])


# -- measuring ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("margin", "shift"), [(1.05, (0.0, 0.02)), (1.6, (0.04, -0.06))])
def test_the_recipe_of_crops_is_measured_off_them(
    margin: float, shift: tuple[float, float]
) -> None:
    """Crops cut by a known recipe out of a group photograph give that recipe back."""
    finder = open_finder()
    places = [(100 + 420 * i, 120 + 60 * (i % 2), 240 + 20 * i) for i in range(4)]
    photo = group(places, 700, 1900)
    known = CropRecipe(margin=margin, shift=shift)
    crops = [known.cut(photo, found) for found in finder.find(photo)] * 3
    sizes = [(crop.shape[1], crop.shape[0]) for crop in crops]
    found = measure_recipe([finder.find(crop) for crop in crops], sizes, "crops")
    assert found.margin == pytest.approx(margin, rel=0.08)
    assert found.shift == pytest.approx(shift, abs=0.045)  # of the finder at tight crops
    assert "measured on 12 of 12 crops" in found.origin


def test_oblong_crops_are_measured_by_their_centre_square() -> None:
    faces = [[face(100, 20, 180, 100)]] * 12  # in the middle of 280 x 120
    found = measure_recipe(faces, [(280, 120)] * 12, "crops")
    assert found.margin == pytest.approx(120 / 80)
    assert found.shift == (0, 0)


def test_the_largest_face_counts() -> None:
    faces = [[face(0, 0, 10, 10), face(25, 25, 75, 75)]] * 12
    assert measure_recipe(faces, [(100, 100)] * 12, "crops").margin == 2


@pytest.mark.parametrize("found", [0, 9, 12])
def test_with_too_few_faces_the_recipe_is_assumed_and_says_so(found: int) -> None:
    faces = [[face(10, 10, 50, 50)]] * found + [[]] * (30 - found)
    recipe = measure_recipe(faces, [(60, 60)] * 30, "crops")
    assert recipe == CropRecipe()
    assert recipe.origin == f"assumed: a face was found in {found} of 30 crops"


# -- on disk --------------------------------------------------------------------------------------


def test_a_recipe_comes_back_from_json(tmp_path: Path) -> None:
    recipe = CropRecipe(1.25, (0.01, -0.2), 300, 50, "measured")
    assert CropRecipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    (tmp_path / RECIPE_FILE).write_text(json.dumps(recipe.to_dict()))
    read = read_recipe(tmp_path)
    assert read == recipe
    assert read is not None
    assert read.origin == "measured"
    assert read_recipe(tmp_path / "elsewhere") is None


@pytest.mark.parametrize(
    "change",
    [
        {"margin": 0.1},
        {"margin": "wide"},
        {"margin": None},
        {"shift": [0.0]},
        {"shift": [0.0, float("nan")]},
        {"max_side": 10**9},
        {"min_face": 0},
        {"border": "black"},
        {"rotation": 3},
    ],
)
def test_a_recipe_that_is_none_is_refused(change: dict[str, object]) -> None:
    value = CropRecipe().to_dict()
    with pytest.raises(BundleError, match="crop recipe"):
        CropRecipe.from_dict(value | change)
    for key in change.keys() & value.keys():
        with pytest.raises(BundleError):
            CropRecipe.from_dict({k: v for k, v in value.items() if k != key})


@pytest.mark.parametrize("text", ["", "[]", "{", "3"])
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / RECIPE_FILE).write_text(text)
    with pytest.raises(BundleError, match="crop recipe"):
        read_recipe(tmp_path)


def test_numbers_out_of_range_are_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match="margin") as caught:
        CropRecipe(margin=float("inf"))
    assert "\n" not in str(caught.value)
