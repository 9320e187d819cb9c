from __future__ import annotations

import subprocess
import sys
import threading
from importlib import resources
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

from bonaface import faces
from bonaface.errors import ConfigError
from bonaface.faces import CenterFace, Face, YuNet, open_finder
from portraits import BOX, group, overlap, portrait, scaled

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="module")
def finder() -> CenterFace:
    return CenterFace(threads=1)


def test_the_weights_come_with_the_package_and_say_where_they_are_from() -> None:
    folder = resources.files("bonaface") / "weights"
    assert (folder / "centerface.onnx").is_file()
    assert "MIT" in (folder / "README.md").read_text(encoding="utf-8")


def test_one_face_with_its_landmarks(finder: CenterFace) -> None:
    (face,) = finder.find(portrait())
    assert overlap(face.box, BOX) > 0.8
    assert face.confidence > 0.8
    left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks
    # Seen on the picture: eyes at about (203, 102) and (245, 103), nose (222, 125).
    for found, seen in zip(
        face.landmarks, [(203, 102), (245, 103), (222, 125), (203, 142), (239, 143)], strict=True
    ):
        assert np.hypot(found[0] - seen[0], found[1] - seen[1]) < 7
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert left_eye[1] < nose[1] < left_mouth[1]


@pytest.mark.parametrize("factor", [0.3, 0.5, 1.7, 4.0])
def test_a_face_is_found_at_any_size_of_the_picture(finder: CenterFace, factor: float) -> None:
    (face,) = finder.find(scaled(factor))
    assert overlap(face.box, tuple(factor * side for side in BOX)) > 0.75


def test_a_box_does_not_depend_on_the_size_of_the_picture(finder: CenterFace) -> None:
    """Or a photo and its smaller copy would be cut, and scored, in different ways."""
    factors = (0.5, 0.7, 1.0, 1.9, 3.5, 6.0)
    boxes = np.array([finder.find(scaled(factor))[0].box for factor in factors])
    at_one = boxes / np.array(factors)[:, None]
    assert np.abs(at_one - at_one.mean(axis=0)).max() < 0.05 * 120  # of the face's height


def test_a_face_that_fills_the_picture(finder: CenterFace) -> None:
    left, top, right, bottom = BOX
    (face,) = finder.find(portrait()[top:bottom, left:right])
    assert overlap(face.box, (0, 0, right - left, bottom - top)) > 0.7


def test_every_face_of_a_group_the_largest_first(finder: CenterFace) -> None:
    places = [(40, 300, 420), (600, 60, 160), (900, 80, 100), (1100, 700, 240)]
    found = finder.find(group(places, 1000, 1500))
    assert len(found) == 4
    sides = sorted((side for *_, side in places), reverse=True)
    shares = [face.size / side for face, side in zip(found, sides, strict=True)]
    assert shares == pytest.approx([0.58] * 4, abs=0.08)
    for face in found:
        assert any(
            x < face.centre[0] < x + side and y < face.centre[1] < y + side for x, y, side in places
        )


@pytest.mark.parametrize(("longest", "side"), [(640, 70), (1200, 110), (4000, 110)])
def test_the_smallest_faces_that_are_judged_are_found(
    finder: CenterFace, longest: int, side: int
) -> None:
    """Faces of about 64 px (0.58 of the head's side), in pictures up to 12 megapixels."""
    places = [(longest * i // 5 + 20, 30 + 60 * i, side) for i in range(5)]
    found = finder.find(group(places, longest * 3 // 4, longest))
    assert len(found) == 5


def test_a_50_megapixel_photo_is_searched_small(
    finder: CenterFace, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []
    look = CenterFace._look

    def watched(self: CenterFace, pixels: np.ndarray) -> np.ndarray:
        seen.append(pixels.shape)
        return look(self, pixels)

    monkeypatch.setattr(CenterFace, "_look", watched)
    photo = group([(5000, 2000, 1200)], 5800, 8700)
    (face,) = finder.find(photo)
    assert max(side for shape in seen for side in shape) <= 2048
    assert 5000 < face.centre[0] < 6200
    assert face.size == pytest.approx(720, rel=0.2)


@pytest.mark.parametrize("name", ["coffee", "chelsea", "rocket", "page", "brick", "coins"])
def test_no_face_where_there_is_none(finder: CenterFace, name: str) -> None:
    picture = np.asarray(getattr(skimage.data, name)())
    if picture.ndim == 2:
        picture = np.stack([picture] * 3, axis=-1)
    assert finder.find(np.ascontiguousarray(picture)) == ()


@pytest.mark.parametrize("shape", [(16, 16), (16, 900), (900, 16), (17, 33)])
def test_odd_shapes_have_no_face_and_do_no_harm(finder: CenterFace, shape: tuple[int, int]) -> None:
    assert finder.find(np.zeros((*shape, 3), np.uint8)) == ()


def test_the_same_picture_gives_the_same_faces_and_stays_as_it_is(finder: CenterFace) -> None:
    photo = portrait()
    assert finder.find(photo) == finder.find(photo)
    np.testing.assert_array_equal(photo, portrait())
    # A view, too: what a crop of a picture is.
    assert finder.find(portrait()[:, ::-1][:, ::-1]) == finder.find(photo)


def test_mirrored_pictures_give_mirrored_faces(finder: CenterFace) -> None:
    (face,) = finder.find(portrait())
    (mirrored,) = finder.find(np.ascontiguousarray(portrait()[:, ::-1]))
    left, top, right, bottom = mirrored.box
    assert overlap(face.box, (512 - right, top, 512 - left, bottom)) > 0.85


def test_threads_share_one_finder(finder: CenterFace) -> None:
    expected = finder.find(portrait())
    found: list[tuple[Face, ...]] = []
    threads = [
        threading.Thread(target=lambda: found.append(finder.find(portrait()))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


def test_no_more_faces_than_the_limit(finder: CenterFace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faces, "MOST_FACES", 3)
    places = [(x, y, 100) for x in range(0, 500, 100) for y in range(0, 300, 100)]
    assert len(finder.find(group(places, 300, 500))) == 3


def test_the_finder_of_the_install_is_opened_once() -> None:
    assert open_finder() is open_finder()
    assert open_finder(threads=1) is open_finder(threads=1)
    assert open_finder(threads=1) is not open_finder()


@pytest.mark.parametrize("content", [None, b"", b"not a network" * 100])
def test_a_file_that_is_no_yunet_is_refused_in_one_line(
    tmp_path: Path, content: bytes | None, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "yunet.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="YuNet") as caught:
        open_finder(path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_another_network_is_no_yunet() -> None:
    with (
        resources.as_file(resources.files("bonaface") / "weights" / "centerface.onnx") as path,
        pytest.raises(ConfigError, match="YuNet"),
    ):
        YuNet(path)


@pytest.mark.realdata
def test_yunet_finds_the_same_faces(finder: CenterFace) -> None:
    path = SHARED / "weights" / "face_detection_yunet_2026may.onnx"
    if not path.is_file():
        pytest.skip("no weights in ../shared")
    level = cv2.utils.logging.getLogLevel()
    yunet = open_finder(path)
    assert cv2.utils.logging.getLogLevel() == level
    photo = group([(40, 300, 420), (600, 60, 160)], 1000, 1500)
    for ours, theirs in zip(finder.find(photo), yunet.find(photo), strict=True):
        assert overlap(ours.box, theirs.box) > 0.7
        assert np.abs(np.subtract(ours.landmarks, theirs.landmarks)).max() < 0.12 * ours.size


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("pattern", "share"),
    [("fairface/train/real/*.jpg", 0.95), ("diffusion/train/fake/*.jpg", 0.95)],
)
def test_faces_of_real_sets_are_found(finder: CenterFace, pattern: str, share: float) -> None:
    from bonaface.images import read_image

    paths = sorted((SHARED / "data").glob(pattern))[::40]
    if not paths:
        pytest.skip("no data in ../shared")
    found = [bool(finder.find(read_image(path).pixels)) for path in paths]
    assert np.mean(found) >= share


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").is_file(), reason="only Linux tells")
def test_a_frugal_finder_leaves_no_memory_behind() -> None:
    """What a runtime keeps of each size would add up in a service that is shown all sizes."""
    script = """
import re
import numpy as np
from bonaface.faces import CenterFace
def held():
    text = open("/proc/self/smaps_rollup").read()
    return int(re.search(r"Anonymous:\\s+(\\d+)", text)[1]) / 1024
finder = CenterFace(threads=1, frugal=True)
finder.find(np.zeros((256, 256, 3), np.uint8))
before = held()
finder.find(np.zeros((2800, 2800, 3), np.uint8))
print(held() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert float(done.stdout) < 120  # of about 400 MiB that it took
