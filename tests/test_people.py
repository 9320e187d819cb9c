from __future__ import annotations

import cv2
import numpy as np
import pytest

from bonaface.faces import Face
from bonaface.people import Follower, Look, look_of
from portraits import portrait

RNG = np.random.default_rng(5)
COATS = [RNG.integers(0, 256, (8, 8, 3), np.uint8) for _ in range(3)]


def frame(*people: tuple[int, int, int], light: int = 0) -> tuple[list[Face], list[Look]]:
    """Faces and looks of a frame in which (who, x, y) stand, each 80 px large."""
    pixels = np.full((400, 600, 3), 90, np.uint8)
    faces = []
    for who, x, y in people:
        coat = cv2.resize(COATS[who], (110, 110), interpolation=cv2.INTER_CUBIC)
        pixels[y - 55 : y + 55, x - 55 : x + 55] = coat
        faces.append(Face((x - 40.0, y - 40.0, x + 40.0, y + 40.0), (), 0.9))
    pixels = np.clip(pixels.astype(int) + light, 0, 255).astype(np.uint8)
    return faces, [look_of(pixels, face) for face in faces]


def test_two_people_keep_their_numbers_while_they_move() -> None:
    follower = Follower()
    for step in range(12):
        found = follower.follow(*frame((0, 100 + 10 * step, 100), (1, 450 - 8 * step, 300)))
        assert found == (0, 1)
    # In whatever order the finder names them.
    assert follower.follow(*frame((1, 354, 300), (0, 220, 100))) == (1, 0)


def test_someone_new_gets_a_new_number_and_nobody_is_taken_twice() -> None:
    follower = Follower()
    assert follower.follow(*frame((0, 100, 100))) == (0,)
    assert follower.follow(*frame((0, 104, 100), (1, 300, 100), (2, 480, 300))) == (0, 1, 2)
    assert follower.follow(*frame()) == ()
    found = follower.follow(*frame((0, 104, 100), (0, 104, 250)))
    assert len(set(found)) == 2


def test_after_a_cut_the_same_face_is_known_by_its_colours() -> None:
    follower = Follower()
    for _ in range(3):
        follower.follow(*frame((0, 100, 100)))
    for _ in range(6):
        assert follower.follow(*frame((1, 300, 200))) == (1,)
    assert follower.follow(*frame((0, 450, 300))) == (0,)


def test_another_person_at_the_same_place_after_a_cut_is_another_person() -> None:
    follower = Follower()
    follower.follow(*frame((0, 300, 200)))
    assert follower.follow(*frame((1, 300, 200))) == (1,)


def test_a_change_of_light_is_no_change_of_person() -> None:
    follower = Follower()
    for light in (0, 15, 30, 15, -15):
        assert follower.follow(*frame((2, 300, 200), light=light)) == (0,)


def test_looks_ignore_exposure_and_know_faces_at_the_edge() -> None:
    picture = portrait()
    face = Face((181, 58, 270, 178), (), 0.9)
    dark = np.clip(picture * 0.9, 0, 255).astype(np.uint8)
    assert np.abs(look_of(picture, face) - look_of(dark, face)).mean() < 3
    edge = Face((-40, 400, 80, 560), (), 0.9)
    assert look_of(picture, edge).shape == (16, 16, 3)
    assert np.isfinite(look_of(picture, edge)).all()


@pytest.mark.parametrize("size", [1, 3, 500])
def test_faces_of_any_size_are_followed(size: int) -> None:
    face = Face((10, 10, 10 + size, 10 + size), (), 0.9)
    follower = Follower()
    look = look_of(portrait(), face)
    assert follower.follow([face], [look]) == follower.follow([face], [look]) == (0,)
