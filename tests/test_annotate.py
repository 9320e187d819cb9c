from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.color import deltaE_ciede2000, rgb2lab

from bonaface import annotate, paper
from bonaface.annotate import (
    LEAST_SIDE,
    MOST_PEOPLE,
    MOST_SIDE,
    PALETTE,
    THUMBNAILS,
    annotate_photo,
    annotate_video,
    write_annotated,
)
from bonaface.verdict import (
    Answer,
    Bands,
    FaceVerdict,
    FrameCount,
    Moment,
    PersonVerdict,
    Verdict,
)
from bonaface.video import Frame

Pixels = NDArray[np.uint8]
BANDS = Bands(0.5, 0.9, 0.2)
SCORES: dict[Answer, float | None] = {
    "fake": 0.95,
    "real": 0.1,
    "unsure": 0.5,
    "not_applicable": None,
}
REASON = "score 0.950 is at or above 0.900, which 1.0 % of 500 real validation faces reached"
NASTY = [
    "",
    "人脸/照片.jpg",
    "a\x1b[31m\0\r\n\t\u202eb",
    "é\u0301" * 50,
    "\udcff",
    "x" * 9000,
    "😀 ﬁ ½",
]
Spot = tuple[float, float, float, float]


def face(number: int, box: Spot | None, answer: Answer = "fake", reason: str = REASON) -> Any:
    score = SCORES[answer]
    return FaceVerdict(number, answer, reason, score, score, box, (), 0.9, None)


def photo(pixels: Pixels, faces: Sequence[Any], **changes: Any) -> Verdict:
    height, width = pixels.shape[:2]
    values: dict[str, Any] = {
        "path": "folder/portrait.jpg",
        "kind": "photo",
        "answer": "fake",
        "reason": REASON,
        "score": 0.95,
        "posterior": 0.95,
        "bands": BANDS,
        "rule": "",
        "width": width,
        "height": height,
        "faces": tuple(faces),
        "people": (),
        "frames": None,
        "model": "cnn",
        "version": "0.1.0",
    }
    return Verdict(**(values | changes))


def noise(height: int = 500, width: int = 700) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def grey(height: int = 500, width: int = 700) -> Pixels:
    return np.full((height, width, 3), 128, np.uint8)


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))


def shows(pixels: Pixels, colour: str) -> NDArray[np.bool_]:
    return np.asarray((pixels == rgb(colour)).all(-1))


def span(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what is true, the last two outside."""
    y, x = np.nonzero(mask)
    return int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1


# -- photos --


def test_away_from_the_box_and_its_label_no_pixel_changes() -> None:
    pixels = noise()
    before = pixels.copy()
    out = annotate_photo(pixels, photo(pixels, [face(1, (300.0, 200.0, 400.0, 330.0))]))
    assert (pixels == before).all()
    assert out.shape[1] == 700
    assert out.shape[0] > 500
    changed = (out[:500] != pixels).any(-1)
    left, top, right, bottom = span(changed)
    assert 290 <= left < 300
    assert 400 < right <= 430
    assert 160 <= top < 190
    assert 330 < bottom <= 340
    assert not changed[200:330, 300:400].any()  # the face itself


@pytest.mark.parametrize("answer", ["fake", "real", "unsure"])
def test_the_line_has_the_colour_of_the_answer(answer: Answer) -> None:
    pixels = grey()
    out = annotate_photo(pixels, photo(pixels, [face(1, (300.0, 200.0, 400.0, 330.0), answer)]))
    for strip in (out[250, 285:300], out[250, 400:415], out[330:345, 350], out[185:200, 350]):
        assert shows(strip, PALETTE[answer][0]).sum() >= 2
        others = [colour for word, (colour, _) in PALETTE.items() if word != answer]
        assert not any(shows(strip, colour).any() for colour in others)


def test_a_face_not_judged_has_a_thin_dashed_line_and_its_reason() -> None:
    pixels, ground = grey(), PALETTE["not_applicable"][0]
    spot = (300.0, 200.0, 400.0, 330.0)
    small = face(1, spot, "not_applicable", "the face is 40 px; at least 64 px are needed")
    out = annotate_photo(pixels, photo(pixels, [small]))[:500]
    line = np.flatnonzero((out[250, 400:420] != 128).any(-1)) + 400
    full = annotate_photo(pixels, photo(pixels, [face(1, spot)]))
    assert 0 < len(line) < (full[250, 400:420] != 128).any(-1).sum()
    dashes = shows(out[200:330, line[0]], ground)
    assert 0.3 < dashes.mean() < 0.7
    assert np.count_nonzero(np.diff(dashes.astype(int))) > 8
    short = annotate_photo(pixels, photo(pixels, [face(1, spot, "not_applicable", "small; x")]))
    assert span((out != 128).any(-1))[2] > span((short[:500] != 128).any(-1))[2]


@pytest.mark.parametrize("x", [-60.0, 250.0, 560.0])
@pytest.mark.parametrize("y", [-60.0, 150.0, 360.0])
@pytest.mark.parametrize("answer", ["fake", "unsure"])
def test_a_label_is_whole_wherever_the_face_stands(x: float, y: float, answer: Answer) -> None:
    pixels = grey()

    def label(x: float, y: float) -> tuple[int, int]:
        out = annotate_photo(pixels, photo(pixels, [face(1, (x, y, x + 200, y + 200), answer)]))
        changed = (out[:500] != 128).any(-1)
        low, high = np.maximum(0, np.array([x, y], int) - 4), np.array([x, y], int) + 204
        changed[low[1] : high[1], low[0] : high[0]] = False  # the box with its line
        left, top, right, bottom = span(changed)
        return right - left, bottom - top

    assert label(x, y) == label(240.0, 160.0)


def test_labels_leave_all_faces_free_where_there_is_room() -> None:
    pixels = noise(700, 900)
    spots = [(200.0 + 110 * i, 300.0 + 5 * i, 290.0 + 110 * i, 400.0 + 5 * i) for i in range(5)]
    spots += [(250.0, 190.0, 330.0, 280.0), (0.0, 0.0, 80.0, 90.0), (820.0, 600.0, 900.0, 700.0)]
    words: list[Answer] = ["fake", "real", "unsure", "not_applicable"]
    faces = [face(i + 1, spot, words[i % 4]) for i, spot in enumerate(spots)]
    out = annotate_photo(pixels, photo(pixels, faces))
    for left, top, right, bottom in spots:
        inside = slice(int(top) + 8, int(bottom) - 8), slice(int(left) + 8, int(right) - 8)
        assert (out[inside] == pixels[inside]).all()


def test_without_room_a_label_lies_in_its_own_box_and_not_in_anothers() -> None:
    pixels = grey()
    faces = [face(1, (0.0, 0.0, 700.0, 250.0)), face(2, (0.0, 250.0, 700.0, 500.0), "real")]
    out = annotate_photo(pixels, photo(pixels, faces))
    assert (out[100:240, 10:690] == 128).all()
    assert shows(out[256:400], PALETTE["real"][0]).sum() > 500


def test_faces_that_were_judged_lie_above_those_that_were_not() -> None:
    pixels, spot = grey(), (300.0, 200.0, 400.0, 330.0)
    faces = [face(1, spot, "not_applicable"), face(2, spot, "real")]
    out = annotate_photo(pixels, photo(pixels, faces))
    assert shows(out[200:330, 400:410], PALETTE["real"][0]).any(1).all()
    assert not shows(out[200:330, 400:410], PALETTE["not_applicable"][0]).any()
    assert shows(out[150:200, 300:340], PALETTE["real"][0]).sum() > 200  # the first place
    for answer in ("real", "not_applicable"):
        assert shows(out[500:], PALETTE[answer][0]).sum() > 200  # how many of each


@pytest.mark.parametrize(
    ("height", "width"),
    [(2000, 5000), (5000, 2000), (1990, 1500), (60, 4000), (4000, 60), (16, 16), (300, 300)],
)
def test_sides_are_held_and_small_photos_enlarged(height: int, width: int) -> None:
    pixels = grey(height, width)
    spot = (width * 0.4, height * 0.4, width * 0.6, height * 0.6)
    out = annotate_photo(pixels, photo(pixels, [face(1, spot)], notes=("note " * 200,)))
    assert LEAST_SIDE <= max(out.shape[:2]) <= MOST_SIDE
    assert out.shape[1] >= LEAST_SIDE
    assert shows(out, PALETTE["fake"][0]).any()
    if height == 16:
        assert (out[:290] == 128).mean() > 0.8
    if (height, width) == (300, 300):
        assert (out[10:100] == 128).all()


def test_sizes_follow_the_picture() -> None:
    def line(side: int) -> int:
        pixels = grey(side, side)
        spot = (side * 0.4, side * 0.4, side * 0.6, side * 0.6)
        out = annotate_photo(pixels, photo(pixels, [face(1, spot)]))
        return int(shows(out[int(side * 0.5), : side // 2], PALETTE["fake"][0]).sum())

    assert 2 <= line(300) < line(1500)


def test_boxes_beyond_the_picture_and_boxes_without_extent() -> None:
    pixels = grey()
    spots = [(800.0, 600.0, 900.0, 700.0), (-90.0, -90.0, -10.0, -10.0), (-1e5, -1e5, 1e5, 1e5)]
    spots += [(50.0, 50.0, 50.0, 50.0), (0.0, 0.0, 700.0, 500.0), (699.0, 0.0, 701.0, 500.0)]
    for answer in PALETTE:
        faces = [face(i + 1, spot, answer) for i, spot in enumerate(spots)]
        out = annotate_photo(pixels, photo(pixels, faces))
        assert out.shape[1] == 700
        assert shows(out[:500], PALETTE[answer][0]).any()


def test_a_crop_in_which_no_face_was_looked_for_is_framed() -> None:
    pixels = noise()
    out = annotate_photo(pixels, photo(pixels, [face(1, None)]))
    changed = (out[:500] != pixels).any(-1)
    assert span(changed) == (0, 0, 700, 500)
    assert not changed[20:-20, 20:-20].any()


def test_a_thousand_faces() -> None:
    pixels = grey(700, 1000)
    faces = [
        face(i + 1, (x, y, x + 18.0, y + 20.0), "real" if i < 200 else "not_applicable")
        for i, (x, y) in enumerate((25.0 * (i % 40), 27.0 * (i // 40)) for i in range(1000))
    ]
    out = annotate_photo(pixels, photo(pixels, faces))
    assert shows(out[:130], PALETTE["real"][0]).mean() > 0.2
    free = (out[150:690] == 128).all(-1)
    assert free.mean() > 0.5  # faces not judged are outlined and counted, not covered


def test_the_answer_and_the_reason_stand_below_the_picture() -> None:
    pixels = grey()
    fake = annotate_photo(pixels, photo(pixels, []))
    assert (fake[:500] == 128).all()
    assert shows(fake[500:], PALETTE["fake"][0]).sum() > 500
    none = photo(pixels, [], answer="not_applicable", score=None, reason="no face found")
    out = annotate_photo(pixels, none)
    assert not shows(out, PALETTE["fake"][0]).any()
    assert shows(out[500:], PALETTE["not_applicable"][0]).sum() > 500
    longer = annotate_photo(pixels, photo(pixels, [], reason=" ".join([REASON] * 4)))
    assert longer.shape[0] > fake.shape[0]
    endless = annotate_photo(pixels, photo(pixels, [], reason="word " * 5000))
    assert endless.shape[0] < 1000


@pytest.mark.parametrize("text", NASTY)
def test_any_name_and_any_reason(text: str) -> None:
    pixels = grey()
    faces = [face(1, (300.0, 200.0, 400.0, 330.0), "not_applicable", text)]
    changes = {"path": text, "reason": text, "model": text, "version": text, "notes": (text,)}
    out = annotate_photo(pixels, photo(pixels, faces, **changes))
    assert out.shape[1] == 700
    moments = (Moment(0, 0.0, (1.0, 1.0, 9.0, 9.0), None, text),)
    person = PersonVerdict(1, "not_applicable", text, None, None, 0, 1, None, moments)
    assert annotate_video([], clip([person], **changes)).shape[1] == 1400


@given(st.text(max_size=80))
@settings(max_examples=40)
def test_no_character_that_could_steer_is_drawn(text: str) -> None:
    plain = paper.plain(text)
    assert plain.isprintable()
    if text.isascii() and text.isprintable():
        assert plain == text


@given(st.text(alphabet="abc WM.é", max_size=120), st.integers(1, 5), st.integers(20, 400))
@settings(max_examples=60)
def test_lines_fit_their_column(text: str, most: int, width: int) -> None:
    lines = paper.wrapped(text, 13, width, most)
    assert 1 <= len(lines) <= most
    assert all(paper.long(line, 13) <= width or len(line) <= 2 for line in lines)
    everything = paper.wrapped(text, 13, width, 1000)
    assert "".join(everything).replace(" ", "") == paper.plain(text).replace(" ", "")


def test_the_same_verdict_gives_the_same_bytes(tmp_path: Path) -> None:
    pixels = noise()
    faces = [face(1, (300.0, 200.0, 400.0, 330.0)), face(2, (10.0, 20.0, 90.0, 99.0), "real")]
    for name in ("one.png", "other.png"):
        write_annotated(tmp_path / name, annotate_photo(pixels, photo(pixels, faces)))
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "other.png").read_bytes()


def test_writing_keeps_the_pixels_and_is_atomic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "picture.jpg"  # the name does not decide
    write_annotated(path, noise())
    with PIL.Image.open(path) as image:
        assert image.format == "PNG"
        assert (np.asarray(image) == noise()).all()
    before = path.read_bytes()

    def half(self: PIL.Image.Image, where: Path, **_: Any) -> None:
        where.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(PIL.Image.Image, "save", half)
    with pytest.raises(OSError, match="disk full"):
        write_annotated(path, grey())
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["picture.jpg"]


# -- colours --


def simulated(colour: str, matrix: list[list[float]]) -> NDArray[np.float64]:
    """sRGB -> as a dichromat sees it, in sRGB (Viénot, Brettel and Mollon 1999)."""
    value = np.array(rgb(colour)) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(matrix) @ linear, 0, 1)
    return np.asarray(np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055))


@pytest.mark.parametrize(
    "matrix",
    [
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],  # protanopia
        [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],  # deuteranopia
    ],
)
def test_no_two_answers_look_alike_to_any_eye(matrix: list[list[float]]) -> None:
    seen = [rgb2lab(simulated(ground, matrix)) for ground, _ in PALETTE.values()]
    assert min(deltaE_ciede2000(one, other) for one, other in combinations(seen, 2)) > 15


def test_text_on_its_colour_has_the_contrast_that_wcag_asks_for() -> None:
    def luminance(colour: str) -> float:
        value = np.array(rgb(colour)) / 255
        linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    for pair in PALETTE.values():
        dark, light = sorted(map(luminance, pair))
        assert (light + 0.05) / (dark + 0.05) >= 4.5


# -- videos --


def clip(people: Sequence[PersonVerdict], seconds: float | None = 10.0, **changes: Any) -> Verdict:
    count = FrameCount(20, 15, 2, 2, 1, seconds)
    values = {"kind": "video", "people": tuple(people), "frames": count, "path": "clip.mp4"}
    return photo(grey(120, 160), [], **(values | changes))


def moments(scores: Sequence[float | None], *, numbers: Sequence[int] = ()) -> tuple[Moment, ...]:
    return tuple(
        Moment(10 * at, at / 2, (60.0, 40.0, 90.0, 80.0), score, None if score else "too small")
        for at, score in zip(numbers or range(len(scores)), scores, strict=True)
    )


def person(number: int, seen: Sequence[Moment], answer: Answer = "real") -> PersonVerdict:
    judged = sum(moment.score is not None for moment in seen)
    score = SCORES[answer]
    left = len(seen) - judged
    return PersonVerdict(number, answer, REASON, score, score, judged, left, None, tuple(seen))


def frames(numbers: Sequence[int], *, shade: int = 0) -> Iterator[Frame]:
    """Frames of one colour each, by their numbers."""
    for at in numbers:
        pixels = np.full((120, 160, 3), (200, 10 * at % 256, shade), np.uint8)
        yield Frame(10 * at, at / 2, pixels)


def test_faces_come_from_their_frames_evenly_over_the_persons_time() -> None:
    sheet = annotate_video(frames(range(20)), clip([person(1, moments([0.1] * 20))]))
    found = [at for at in range(20) if (sheet == (200, 10 * at, 0)).all(-1).sum() > 10_000]
    assert found == [0, 4, 8, 11, 15, 19]
    assert len(found) == THUMBNAILS
    places = [span((sheet == (200, 10 * at, 0)).all(-1))[0] for at in found]
    assert places == sorted(places)


def test_frames_are_gone_through_once_and_not_kept() -> None:
    alive: list[weakref.ref[Pixels]] = []

    def watched() -> Iterator[Frame]:
        for frame in frames(range(20)):
            assert sum(reference() is not None for reference in alive) <= 1
            alive.append(weakref.ref(frame.pixels))
            yield frame
            del frame

    annotate_video(watched(), clip([person(1, moments([0.1] * 20))]))
    assert len(alive) == 20


def test_a_line_joins_only_frames_that_follow_each_other() -> None:
    seen = moments([0.1] * 6, numbers=[0, 1, 2, 12, 13, 14])
    everywhere = {moment.frame: moment.seconds for moment in moments([0.5] * 20)}
    assert [len(run) for run in annotate._runs(seen, everywhere)] == [3, 3]
    only = {moment.frame: moment.seconds for moment in seen}
    assert [len(run) for run in annotate._runs(seen, only)] == [3, 3]  # the rest was unreadable
    holes = moments([0.1, None, 0.1, 0.1])
    times = {moment.frame: moment.seconds for moment in holes}
    assert [len(run) for run in annotate._runs(holes, times)] == [1, 2]
    assert annotate._runs((), {}) == []


def test_a_gap_is_a_gap_in_the_picture() -> None:
    apart = clip([person(1, moments([0.5] * 4, numbers=[0, 1, 18, 19]), "not_applicable")])
    whole = clip([person(1, moments([0.5] * 20), "not_applicable")])

    def columns(verdict: Verdict) -> NDArray[np.bool_]:
        sheet = annotate_video(frames(range(20)), verdict)
        left, top, right, _ = span(shows(sheet, "#E5F0F8"))  # where scores are real
        middle = sheet[top - 100 : top - 10, left + 3 : right - 3]
        return np.asarray((middle < 60).all(-1).any(0))

    assert columns(whole)[20:-60].mean() > 0.95
    assert 0.02 < columns(apart).mean() < 0.2


def test_frames_not_judged_are_ticks() -> None:
    seen = moments([0.5, None, 0.5, None, None])
    with_ticks = annotate_video([], clip([person(1, seen)]))
    without = annotate_video([], clip([person(1, [one for one in seen if one.score])]))
    assert shows(with_ticks, "#565B61").sum() > shows(without, "#565B61").sum() + 3 * 15


def test_of_many_people_those_who_look_fake_are_shown() -> None:
    people = [person(number, moments([0.1, 0.2, 0.1])) for number in range(1, 13)]
    late = [Moment(10 * at, at / 2, (60.0, 40.0, 90.0, 80.0), 0.95, None) for at in (30, 31, 32)]
    people.append(person(13, late, "fake"))
    given = [*frames(range(3)), *frames([30, 31, 32], shade=99)]
    sheet = annotate_video(given, clip(people))
    assert (sheet[..., 2] == 99).sum() > 30_000
    eight = annotate_video(given, clip(people[:MOST_PEOPLE]))
    more = sheet.shape[0] - eight.shape[0]
    assert 0 < more < 120
    foot = sheet[-more - 130 : -100]  # it says how many more there are, by answer
    assert shows(foot, PALETTE["real"][0]).sum() > 500
    assert not shows(eight[-130:], PALETTE["real"][0]).any()


@pytest.mark.parametrize("seconds", [0.0, None, 0.04, 7200.0])
def test_clips_of_any_length(seconds: float | None) -> None:
    for seen in ((), moments([0.1]), moments([None]), moments([0.0, 1.0])):
        answer: Answer = "real" if any(one.score for one in seen) else "not_applicable"
        sheet = annotate_video(frames([0]), clip([person(1, seen, answer)], seconds))
        assert sheet.shape[1] == 1400
    still = (Moment(0, 0.0, (60.0, 40.0, 90.0, 80.0), 0.5, None),)
    assert annotate_video(frames([0]), clip([person(1, still)], seconds)).shape[1] == 1400


def test_a_clip_without_people_and_one_without_a_count() -> None:
    none = clip([], answer="not_applicable", score=None, reason="no face found")
    assert shows(annotate_video(frames([0, 1]), none), PALETTE["not_applicable"][0]).any()
    assert annotate_video([], clip([person(1, moments([0.1]))], frames=None)).shape[1] == 1400


def test_thresholds_that_no_score_reaches_have_no_line() -> None:
    def tinted(bands: Bands) -> tuple[bool, bool]:
        sheet = annotate_video([], clip([person(1, moments([0.5] * 3), "unsure")], bands=bands))
        return bool(shows(sheet, "#FBEDE3").any()), bool(shows(sheet, "#E5F0F8").any())

    assert tinted(BANDS) == (True, True)
    assert tinted(Bands(0.5, 1.2, 0.2)) == (False, True)
    assert tinted(Bands(0.5, 0.9, 0.0)) == (True, False)


@pytest.mark.parametrize(
    "box", [(-500.0, -500.0, -400.0, -400.0), (-1e6, -1e6, 1e6, 1e6), (5.0, 5.0, 5.0, 5.0)]
)
def test_a_face_beyond_its_frame(box: Spot) -> None:
    seen = [Moment(0, 0.0, box, 0.5, None)]
    sheet = annotate_video(frames([0], shade=99), clip([person(1, seen)]))
    assert (sheet[..., 2] == 99).sum() > 20_000


def test_the_same_clip_gives_the_same_sheet() -> None:
    verdict = clip([person(1, moments([0.1, 0.95, None, 0.4]), "unsure")])
    one, other = (annotate_video(frames(range(4)), verdict) for _ in range(2))
    assert (one == other).all()
