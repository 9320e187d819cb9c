"""The way from pixels to answers, with a scorer and a finder of a few lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from bonaface.calibration import Calibration, OperatingPoint
from bonaface.corruptions import DELIVERIES
from bonaface.crops import CropRecipe
from bonaface.errors import ConfigError
from bonaface.faces import Face
from bonaface.images import Image
from bonaface.judging import MOST_JUDGED, Judge, Rules, Wishes
from bonaface.video import Frame

RULES = Rules(
    Calibration("temperature", 1.0),
    OperatingPoint("fake_above", 0.8, "made up", 0.4, 0.01, 100, 100),
    OperatingPoint("real_below", 0.3, "made up", 0.05, 0.3, 100, 100),
    CropRecipe(margin=1.0, min_face=20),
    None,
)


def brightness(crops: Sequence[np.ndarray]) -> np.ndarray:
    """Logits of -6 (black) to 6 (white)."""
    return np.array([12 * (crop.mean() / 255 - 0.5) for crop in crops])


class Squares:
    """Finds the squares that a test drew."""

    name = "squares"

    def __init__(self, *boxes: tuple[int, int, int, int]) -> None:
        self.boxes = boxes
        self.asked = 0

    def find(self, pixels: np.ndarray) -> tuple[Face, ...]:
        self.asked += 1
        found = [Face(tuple(map(float, box)), (), 0.9) for box in self.boxes]
        return tuple(sorted(found, key=lambda face: -face.size))


def photo(*squares: tuple[tuple[int, int, int, int], int], size: int = 300) -> Image:
    pixels = np.full((size, size, 3), 128, np.uint8)
    for (left, top, right, bottom), value in squares:
        pixels[top:bottom, left:right] = value
    return Image(pixels, "PNG", ("a note",))


def judge(finder: Any, rules: Rules = RULES, **wishes: Any) -> Judge:
    return Judge(brightness, lambda: finder, rules, Wishes(**wishes))


WHITE, GREY, BLACK = (10, 10, 60, 60), (100, 10, 145, 55), (10, 200, 50, 240)


# -- photos ---------------------------------------------------------------------------------------


def test_each_face_gets_its_own_answer_from_its_own_crop() -> None:
    picture = photo((WHITE, 255), (GREY, 128), (BLACK, 0))
    found, faces, notes = judge(Squares(BLACK, WHITE, GREY)).photo(picture)
    assert [face.box for face in faces] == [WHITE, GREY, BLACK]  # the largest first
    assert [face.number for face in faces] == [1, 2, 3]
    assert [face.answer for face in faces] == ["fake", "unsure", "real"]
    assert [face.score for face in faces] == pytest.approx(
        [expit(6), expit(12 * (128 / 255 - 0.5)), expit(-6)]
    )
    assert (found.answer, found.score) == ("fake", faces[0].score)
    assert notes[0] == "a note"
    assert "3 faces, all of them real, about 3%" in notes[1]


def test_a_small_face_is_not_guessed() -> None:
    small = (200, 200, 219, 215)
    found, faces, notes = judge(Squares(BLACK, small)).photo(photo((BLACK, 0), (small, 255)))
    assert [face.answer for face in faces] == ["real", "not_applicable"]
    assert faces[1].score is None
    assert faces[1].posterior is None
    assert "19 px; at least 20 px" in faces[1].reason
    assert found.answer == "real"
    assert "1 could not be judged" in found.reason
    assert notes == ("a note",)  # one face judged: no word about many


def test_only_small_faces_are_not_applicable_with_the_reason() -> None:
    found, faces, _ = judge(Squares((0, 0, 10, 10), (50, 50, 62, 62))).photo(photo())
    assert (found.answer, found.score) == ("not_applicable", None)
    assert "12 px" in found.reason
    assert len(faces) == 2


def test_no_face_is_not_applicable_and_hints_at_crops() -> None:
    found, faces, notes = judge(Squares()).photo(photo())
    assert (found.answer, faces, notes) == ("not_applicable", (), ("a note",))
    assert "no face found" in found.reason
    assert "--faces none" in found.reason


def test_faces_beyond_the_limit_are_listed_and_not_judged() -> None:
    boxes = [(i % 10 * 29, i // 10 * 12, i % 10 * 29 + 24, i // 10 * 12 + 24) for i in range(230)]
    found, faces, _ = judge(Squares(*boxes)).photo(photo())
    assert len(faces) == 230
    assert sum(face.score is not None for face in faces) == MOST_JUDGED
    assert faces[-1].answer == "not_applicable"
    assert str(MOST_JUDGED) in faces[-1].reason
    assert found.answer == "unsure"


def test_batches_do_not_mix_up_faces() -> None:
    boxes = [(i % 10 * 29, i // 10 * 29, i % 10 * 29 + 24, i // 10 * 29 + 24) for i in range(50)]
    values = [5 * i for i in range(50)]
    picture = photo(*zip(boxes, values, strict=True))
    for stability in (False, True):
        _, faces, _ = judge(Squares(*boxes), stability=stability).photo(picture)
        by_box = {face.box: face.score for face in faces}
        expected = [expit(12 * (value / 255 - 0.5)) for value in values]
        assert [by_box[box] for box in boxes] == pytest.approx(expected)


def test_without_looking_for_faces_the_whole_picture_is_the_crop() -> None:
    finder = Squares(WHITE)
    found, (face,), _ = judge(finder, faces="none").photo(photo(size=60))
    assert finder.asked == 0
    assert face.box is None
    assert face.landmarks == ()
    assert found.score == pytest.approx(expit(12 * (128 / 255 - 0.5)))


def test_a_crop_is_used_whole_and_says_so() -> None:
    box = (5, 5, 95, 95)  # white, on grey ground: cut out, it would be white all over
    found, faces, notes = judge(Squares(box)).photo(photo((box, 255), size=100))
    assert "already a face crop: used whole" in notes
    share = (90 * 90 * 255 + (100 * 100 - 90 * 90) * 128) / (100 * 100 * 255)
    assert found.score == pytest.approx(expit(12 * (share - 0.5)))
    assert faces[0].box == box


def test_doubt_makes_every_face_unsure_and_keeps_small_ones_unjudged() -> None:
    rules = Rules(*[getattr(RULES, name) for name in
                    ("calibration", "fake_above", "real_below", "recipe")], "guessing")  # fmt: skip
    finder = Squares(WHITE, BLACK, (0, 280, 10, 290))
    _, faces, _ = judge(finder, rules).photo(photo((WHITE, 255), (BLACK, 0)))
    assert [face.answer for face in faces] == ["unsure", "unsure", "not_applicable"]
    assert faces[0].reason == "guessing"


def test_prevalence_moves_posterior_and_answer_but_not_the_score() -> None:
    picture = photo((WHITE, 200))
    _, (even,), _ = judge(Squares(WHITE)).photo(picture)
    _, (rare,), _ = judge(Squares(WHITE), prevalence=0.001).photo(picture)
    assert (even.answer, rare.answer) == ("fake", "unsure")
    assert even.score == rare.score == even.posterior
    assert rare.posterior == pytest.approx(
        even.score * 0.001 / (even.score * 0.001 + (1 - even.score) * 0.999)
    )


def test_stability_scores_every_delivery_of_the_crop() -> None:
    seen: list[int] = []

    def logits(crops: Sequence[np.ndarray]) -> np.ndarray:
        seen.append(len(crops))
        return brightness(crops)

    whole = Judge(logits, lambda: Squares(WHITE), RULES, Wishes(stability=True))
    found, (face,), _ = whole.photo(photo((WHITE, 255)))
    assert seen == [1 + len(DELIVERIES)]
    assert face.stability is not None
    assert list(face.stability.scores) == list(DELIVERIES)
    assert face.stability.low <= face.score <= face.stability.high
    assert face.stability.flips == ()  # white stays white
    assert found.answer == "fake"


def test_a_verdict_that_does_not_survive_jpeg_is_unsure() -> None:
    """A scorer that sees the finest checks and nothing else: what half the size destroys."""

    def checks(crops: Sequence[np.ndarray]) -> np.ndarray:
        grey = [crop.astype(float).mean(axis=2) for crop in crops]
        return np.array([6 * np.abs(np.diff(plane, axis=1)).mean() / 255 - 3 for plane in grey])

    pixels = np.full((200, 200, 3), 128, np.uint8)
    pixels[50:114, 50:114] = np.where(np.indices((64, 64)).sum(0)[..., None] % 2, 255, 0)
    finder = Squares((50, 50, 114, 114))
    for stability, expected in ((False, "fake"), (True, "unsure")):
        one = Judge(checks, lambda: finder, RULES, Wishes(stability=stability))
        found, (face,), _ = one.photo(Image(pixels, "PNG"))
        assert found.answer == expected
        assert face.score == pytest.approx(expit(3))
    assert face.stability is not None
    assert "half size" in face.stability.flips
    assert "half size" in found.reason
    assert face.stability.low < 0.3


@pytest.mark.parametrize("wishes", [{"faces": "some"}, {"frames": 0}, {"frames": 10**6}])
def test_wishes_out_of_range_are_refused(wishes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        Wishes(**wishes)


# -- videos ---------------------------------------------------------------------------------------


class Clip:
    """What `read_frames` gives, of frames that a test drew."""

    def __init__(self, pictures: list[np.ndarray], missed: int = 0) -> None:
        self.pictures = pictures
        self.asked = self.planned = len(pictures) + missed
        self.read, self.missed = 0, missed
        self.clip = SimpleNamespace(seconds=float(len(pictures)))
        self.notes = ("the end is missing",) if missed else ()

    def __iter__(self) -> Iterator[Frame]:
        for number, pixels in enumerate(self.pictures):
            self.read += 1
            yield Frame(number, number + 0.5, pixels)


class Changing:
    """A finder whose boxes differ from frame to frame."""

    name = "changing"

    def __init__(self, boxes: list[list[tuple[int, int, int, int]]]) -> None:
        self.boxes = iter(boxes)

    def find(self, pixels: np.ndarray) -> tuple[Face, ...]:
        return Squares(*next(self.boxes)).find(pixels)


def clip(*frames: list[tuple[tuple[int, int, int, int], int]], missed: int = 0) -> Any:
    """A clip and a finder that sees what was drawn in each frame."""
    pictures = [photo(*squares).pixels for squares in frames]
    return Clip(pictures, missed), Changing([[box for box, _ in squares] for squares in frames])


def test_one_verdict_a_person_over_the_frames() -> None:
    frames = [[(WHITE, 250), (BLACK, 5)], [(WHITE, 230), (BLACK, 0)]] * 5
    video, finder = clip(*frames)
    done: list[tuple[int, int]] = []
    found, people, count, _ = judge(finder).video(video, lambda at, of: done.append((at, of)))
    assert [person.answer for person in people] == ["fake", "real"]
    assert [person.judged for person in people] == [10, 10]
    mean = np.mean([12 * (value / 255 - 0.5) for value in (250, 230)])
    assert people[0].score == pytest.approx(expit(mean))  # of the mean logit
    assert [moment.seconds for moment in people[0].moments] == [i + 0.5 for i in range(10)]
    assert people[0].moments[1].score == pytest.approx(expit(12 * (230 / 255 - 0.5)))
    assert (found.answer, found.score) == ("fake", people[0].score)
    assert (count.asked, count.judged, count.unreadable, count.seconds) == (10, 10, 0, 10.0)
    assert done == [(i, 10) for i in range(1, 11)]


def test_frames_are_counted_by_what_became_of_them() -> None:
    small = (200, 200, 212, 212)
    frames = [[(WHITE, 250)]] * 4 + [[]] * 3 + [[(small, 0)]] * 2
    video, finder = clip(*frames, missed=5)
    _, people, count, notes = judge(finder).video(video)
    assert (count.asked, count.judged, count.without_face) == (14, 4, 3)
    assert (count.not_judged, count.unreadable) == (2, 5)
    assert notes == ("the end is missing",)
    assert [person.answer for person in people] == ["fake", "not_applicable"]
    assert (people[1].judged, people[1].not_judged) == (0, 2)
    assert "12 px" in people[1].reason
    assert people[1].moments[0].score is None
    assert "12 px" in str(people[1].moments[0].reason)


def test_who_is_seen_in_a_frame_or_two_is_not_judged() -> None:
    video, finder = clip(*[[(WHITE, 250)]] * 2, *[[]] * 8)
    found, (person,), _, _ = judge(finder).video(video)
    assert (found.answer, person.score) == ("not_applicable", None)
    assert "2 frames only; at least 3" in person.reason


def test_a_clip_of_one_frame_is_judged_by_it() -> None:
    video, finder = clip([(WHITE, 250)])
    assert judge(finder).video(video)[0].answer == "fake"


def test_a_swap_in_part_of_the_clip_is_not_called_real() -> None:
    video, finder = clip(*[[(WHITE, 200)]] * 20)
    logits = iter([-3.0] * 16 + [2.0] * 4)
    one = Judge(lambda crops: np.array([next(logits)]), lambda: finder, RULES)
    found, (person,), _, _ = one.video(video)
    assert person.score == pytest.approx(expit(-2))
    assert found.answer == "unsure"
    assert "4 of them look fake" in person.reason


def test_a_clip_without_faces_is_not_applicable() -> None:
    video, finder = clip([], [], [])
    found, people, count, _ = judge(finder).video(video)
    assert (found.answer, people, count.without_face) == ("not_applicable", (), 3)


def test_a_clip_of_crops_needs_no_finder() -> None:
    video, finder = clip(*[[(WHITE, 255)]] * 4)
    found, (person,), _, _ = judge(finder, faces="none").video(video)
    assert person.judged == 4
    assert found.answer == "unsure"  # grey ground all over


def test_stability_of_a_person_is_that_of_the_mean() -> None:
    video, finder = clip(*[[(WHITE, 255)]] * 4)
    _, (person,), _, _ = judge(finder, stability=True).video(video)
    assert person.stability is not None
    assert list(person.stability.scores) == list(DELIVERIES)
    assert person.stability.low <= person.score <= person.stability.high


def test_the_crops_are_those_that_are_scored() -> None:
    boxes = ((10, 10, 110, 110), (150, 150, 160, 160), (200, 20, 250, 70))
    image = photo(*((box, 40 * n) for n, box in enumerate(boxes, 1)))
    one = judge(Squares(*boxes))
    _, faces, _ = one.photo(image)
    crops = one.crops(image.pixels)
    assert len(crops) == len(faces) == 3
    for face, (found, crop) in zip(faces, crops, strict=True):
        assert found is not None
        assert face.box == found.box
        if face.score is None:
            assert crop == face.reason
        else:
            assert not isinstance(crop, str)
            assert face.score == pytest.approx(float(expit(brightness([crop])[0])))
    ((none, whole),) = judge(Squares(), faces="none").crops(image.pixels)
    assert none is None
    assert np.array_equal(whole, image.pixels)
