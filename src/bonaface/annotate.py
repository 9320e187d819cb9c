"""A verdict as a picture for people: a photo with its faces marked, or a sheet of its people."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from PIL import Image, ImageDraw

from bonaface.crops import CropRecipe
from bonaface.faces import Face
from bonaface.files import atomic_path
from bonaface.paper import (
    BOLD,
    FINE,
    INK,
    PALETTE,
    PAPER,
    RULE,
    SOFT,
    Page,
    Pixels,
    Point,
    chip_size,
    long,
    plain,
    sentence,
)
from bonaface.verdict import Answer, FaceVerdict, Moment, PersonVerdict, Verdict
from bonaface.video import Frame

Level = tuple[float, str, Answer, int]  # score, name, colour, thickness of its line
Box = tuple[int, int, int, int]  # left, top, right, bottom; the last two lie outside

MOST_SIDE: Final = 2000  # pixels of an annotated photo, with its band
LEAST_SIDE: Final = 300  # a smaller photo is enlarged
MOST_PEOPLE: Final = 8
THUMBNAILS: Final = 6
_WORDS: Final = {answer: answer for answer in PALETTE} | {"not_applicable": "not judged"}
_DESK: Final = 234
_TINTS: Final = {"fake": "#FBEDE3", "real": "#E5F0F8"}
_KEY: Final = (
    "Each dot is the score of one frame by itself; the answer goes by the mean over the frames. "
    "A grey tick is a frame in which the face was seen and not judged."
)
_FEW: Final = 12  # faces not judged, up to which each has its reason beside it
_SHEET, _MARGIN, _TEXT, _COLUMN = 1400, 36, 18, 330  # pixels of a clip's sheet
_START: Final = 2 * _MARGIN + _COLUMN  # where its pictures begin
_SIDE: Final = (_SHEET - _MARGIN - _START - 10 * (THUMBNAILS - 1)) // THUMBNAILS
_PLOT: Final = (_SHEET - _MARGIN - _START - 190, 132)
_SEEN: Final = CropRecipe(margin=1.6)
_STEPS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)


def annotate_photo(image: Pixels, verdict: Verdict) -> Pixels:
    """Mark each face of a photo; the answer and its reason stand in a band below.

    Args:
        image: uint8 HxWx3 RGB, upright, as the verdict saw it.
        verdict: of this photo.

    Returns:
        Uint8 RGB whose sides are at most `MOST_SIDE`. Where the photo fits it is not scaled, and
        away from boxes and labels its pixels are those of `image`.
    """
    height, width = image.shape[:2]
    longest = max(height, width)
    scale = min(max(1.0, LEAST_SIDE / longest), MOST_SIDE / longest)
    while True:
        size = max(1, int(width * scale)), max(1, int(height * scale))
        across = max(size[0], LEAST_SIDE)
        unit = max(13, round(min(0.016 * max(size), across / 28)))
        page = _head(verdict, across, unit, unit)
        page.notes(verdict)
        band = page.cut()
        if size[1] + len(band) <= MOST_SIDE:
            break
        scale *= (MOST_SIDE - len(band)) / size[1]
    photo = _resized(image, size)
    _mark(photo, verdict.faces, (size[0] / width, size[1] / height), unit)
    left = (across - size[0]) // 2
    ground = np.full((size[1], across, 3), _DESK, np.uint8)
    ground[:, left : left + size[0]] = photo
    return np.vstack([ground, band])


def annotate_video(frames: Iterable[Frame], verdict: Verdict) -> Pixels:
    """Draw a sheet of a clip's people: their faces, answers, and scores over time.

    Args:
        frames: of the clip, as `read_frames` gives them for the count that the verdict was made
            with. They are gone through once, and none is kept.
        verdict: of this clip.

    Returns:
        Uint8 RGB, 1400 pixels wide. Where there are more than `MOST_PEOPLE`, those who are fake or
        unsure come before the others.
    """
    urgent = {"fake": 0, "unsure": 1}
    ranked = sorted(verdict.people, key=lambda one: (urgent.get(one.answer, 2), one.number))
    people = sorted(ranked[:MOST_PEOPLE], key=lambda one: one.number)
    shown = [picked(person.moments) for person in people]
    wanted: dict[int, list[Moment]] = defaultdict(list)
    for moment in (moment for moments in shown for moment in moments):
        wanted[moment.frame].append(moment)
    times = {moment.frame: moment.seconds for one in verdict.people for moment in one.moments}
    faces: dict[Moment, Pixels] = {}
    for frame in frames:
        times.setdefault(frame.number, frame.seconds)
        faces |= {one: _thumbnail(frame.pixels, one) for one in wanted.get(frame.number, ())}
    head = _head(verdict, _SHEET, _TEXT + 4, _MARGIN).cut()
    rows = [
        _row(person, [(moment, faces.get(moment)) for moment in moments], verdict, times)
        for person, moments in zip(people, shown, strict=True)
    ]
    return np.vstack([head, *rows, _foot(verdict, ranked[MOST_PEOPLE:])])


def write_annotated(path: Path, pixels: Pixels) -> None:
    """Write uint8 RGB as PNG, atomically; the same pixels give the same bytes."""
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")


class _Page(Page):
    """Paper with what a verdict says."""

    def answer(self, of: Verdict | PersonVerdict, word: str, wide: int = 0) -> None:
        """The answer and the score in large type, and the reason."""
        size = round(1.35 * self.unit)
        x = self.margin + self.chip((self.margin, self.y), word.capitalize(), size, of.answer)
        if of.score is not None:
            at = x + 0.6 * size, self.y + 1.07 * size
            self.text(at, f"score {of.score:.3f}", size, INK)
        self.y += round(1.9 * size)
        self.write(sentence(of.reason), wide=wide)

    def counts(self, of: Sequence[FaceVerdict | PersonVerdict]) -> None:
        """How many have which answer: the key to the colours too."""
        x, counted = self.margin, Counter(one.answer for one in of)
        for answer in (answer for answer in PALETTE if counted[answer]):
            text = f"{counted[answer]} {_WORDS[answer]}"
            if x + chip_size(text, self.unit)[0] > self.margin + self.wide:
                x, self.y = self.margin, self.y + round(1.7 * self.unit)
            x += self.chip((x, self.y), text, self.unit, answer) + self.unit // 2
        self.y += round(2 * self.unit)

    def notes(self, verdict: Verdict) -> None:
        """What limits the answer, and where it comes from."""
        if verdict.notes:
            self.write(sentence("; ".join(verdict.notes)), SOFT, most=5)
        self.rule()
        made = f"Model {verdict.model} · bonaface {verdict.version}"
        self.write(f"Evidence, not proof. · {made} · {Path(verdict.path).name}", most=3)
        self.y += self.unit // 2


def _head(verdict: Verdict, width: int, unit: int, margin: int) -> _Page:
    page = _Page(width, unit, margin)
    page.answer(verdict, verdict.answer.replace("_", " "))
    if len(parts := verdict.faces or verdict.people) > 1:
        page.counts(parts)
    return page


# -- photos --


def _mark(
    photo: Pixels, faces: Sequence[FaceVerdict], scale: tuple[float, float], unit: int
) -> None:
    """Draw boxes, then labels; those of faces that were judged have the choice of places."""
    height, width = photo.shape[:2]
    line = max(2, round(unit / 6))
    order = sorted(faces, key=lambda face: (face.answer == "not_applicable", face.number))
    boxes = [_outer(face, scale, (width, height), line) for face in order]
    for face, box in reversed(list(zip(order, boxes, strict=True))):
        _outline(photo[box[1] : box[3], box[0] : box[2]], line, face.answer)
    few = sum(face.answer == "not_applicable" for face in faces) <= _FEW
    room, page = _Room(boxes, (width, height)), _Page(Image.fromarray(photo), unit)
    for face, box in zip(order, boxes, strict=True):
        if face.box is None:  # the band says it
            continue
        least, best = math.inf, ("", unit, (0, 0))
        for text, size in _texts(face, box[2] - box[0], unit, few=few):
            covered, at = room.place(box, chip_size(text, size))
            if covered < least:
                least, best = covered, (text, size, at)
            if not least:
                break
        if least and face.score is None and not few:  # the band counts it
            continue
        room.take(best[2], chip_size(best[0], best[1]))
        page.chip(best[2], best[0], best[1], face.answer)
    photo[:] = np.asarray(page.image)


def _outer(face: FaceVerdict, scale: tuple[float, float], size: tuple[int, int], line: int) -> Box:
    """Where the line about a face ends outside; at least one pixel of it is in the picture."""
    ends = face.box or (0.0, 0.0, size[0] / scale[0], size[1] / scale[1])
    low = [math.floor(end * by) - line - 2 for end, by in zip(ends[:2], scale, strict=True)]
    high = [math.ceil(end * by) + line + 2 for end, by in zip(ends[2:], scale, strict=True)]
    left, top = (min(max(at, 0), most - 1) for at, most in zip(low, size, strict=True))
    right, bottom = (min(at, most) for at, most in zip(high, size, strict=True))
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _outline(area: Pixels, line: int, answer: Answer) -> None:
    """A line between hairlines that set it off from any ground; thin grey dashes if not judged."""
    y, x = (np.arange(length) for length in area.shape[:2])
    depth = np.minimum.outer(np.minimum(y, y[::-1]), np.minimum(x, x[::-1]))
    if answer == "not_applicable":
        wide = max(1, line // 2)
        coloured = (depth < wide) & (np.add.outer(y, x) // (4 * wide) % 2 == 0)
    else:
        wide = line + 2
        coloured = (depth > 0) & (depth <= line)
    for where, colour in zip((depth < wide, coloured), reversed(PALETTE[answer]), strict=True):
        area[where] = tuple(bytes.fromhex(colour[1:]))


def _texts(face: FaceVerdict, wide: int, unit: int, *, few: bool) -> Iterator[tuple[str, int]]:
    """What a label may say and its size, the fullest first."""
    small, name = max(11, round(0.6 * unit)), f"{face.number} {_WORDS[face.answer]}"
    if face.score is not None:
        yield f"{name} {face.score:.3f}", min(unit, max(small, wide // 7))
        yield f"{name} {face.score:.3f}", small
        yield name, small
        return
    if few:
        yield f"{name}: {plain(face.reason).split(';')[0][:60]}", small
        yield name, small
    yield str(face.number), small


class _Room:
    """Where labels go: beside their boxes, off faces and other labels as far as can be."""

    def __init__(self, boxes: Sequence[Box], size: tuple[int, int]) -> None:
        self._taken = np.array(boxes, np.int64).reshape(-1, 4)
        self._cost, self._size = np.full(len(boxes), 2.0), size

    def place(self, box: Box, size: tuple[int, int]) -> tuple[float, tuple[int, int]]:
        """What a label would cover at the best place about a box, and that place."""
        (left, top, right, bottom), (wide, high) = box, size
        beside = [(left, top - high), (right - wide, top - high), (left, bottom)]
        beside += [(right - wide, bottom), (right, top), (left - wide, top)]
        beside += [(right, bottom - high), (left - wide, bottom - high)]
        inside = [(left, top), (left, bottom - high)]
        most = np.maximum(0, np.array(self._size) - size)
        places = np.clip(np.array(beside + inside), 0, most)[:, None]
        ends = np.minimum(places + size, self._taken[:, 2:])
        shared = np.maximum(0, ends - np.maximum(places, self._taken[:, :2])).prod(2)
        # A label inside another face's box would be taken for that face's.
        covered = shared @ np.where((self._taken == box).all(1), 1.0, self._cost)
        at = int(covered.argmin())
        return float(covered[at]), (int(places[at, 0, 0]), int(places[at, 0, 1]))

    def take(self, at: tuple[int, int], size: tuple[int, int]) -> None:
        """A label is there."""
        self._taken = np.vstack([self._taken, (*at, at[0] + size[0], at[1] + size[1])])
        self._cost = np.append(self._cost, 6.0)  # two labels on each other are both lost


# -- videos --


def picked(moments: Sequence[Moment], most: int = THUMBNAILS) -> list[Moment]:
    """Moments spread evenly over a person's time; of those that were judged, if any were."""
    seen = [moment for moment in moments if moment.score is not None] or moments
    if not seen:
        return []
    times = np.array([moment.seconds for moment in seen])
    wanted = np.linspace(times[0], times[-1], min(most, len(seen)))
    return list(dict.fromkeys(seen[int(np.abs(times - at).argmin())] for at in wanted))


def _thumbnail(pixels: Pixels, moment: Moment) -> Pixels:
    height, width = pixels.shape[:2]
    left, top, right, bottom = np.clip(moment.box, 0, (width, height) * 2).tolist()
    face = Face((left, top, right, bottom), (), 1.0)
    return _resized(_SEEN.square(pixels, face), (_SIDE, _SIDE))


def _resized(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """A copy of a size (width, height)."""
    if (pixels.shape[1], pixels.shape[0]) == size:
        return np.array(pixels, order="C")
    how = cv2.INTER_AREA if size[0] < pixels.shape[1] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(np.ascontiguousarray(pixels), size, interpolation=how), np.uint8)


def _row(
    person: PersonVerdict,
    faces: Sequence[tuple[Moment, Pixels | None]],
    verdict: Verdict,
    times: Mapping[int, float],
) -> Pixels:
    page = _Page(_SHEET, _TEXT, _MARGIN)
    page.y = 0
    page.rule()
    top = page.y = page.y + 8
    page.text((_MARGIN, top + 20), f"Person {person.number}", _TEXT + 4, INK, BOLD)
    page.y += 36
    page.answer(person, _WORDS[person.answer], _COLUMN)
    left = f", seen and not judged in {person.not_judged}" if person.not_judged else ""
    frames = "1 frame" if person.judged == 1 else f"{person.judged} frames"
    page.write(f"Judged in {frames}{left}.", SOFT, wide=_COLUMN)
    for at, (moment, pixels) in enumerate(faces):
        x = _START + at * (_SIDE + 10)
        page.draw.rectangle((x, top, x + _SIDE - 1, top + _SIDE - 1), fill=(_DESK,) * 3)
        if pixels is not None:
            page.image.paste(Image.fromarray(pixels), (x, top))
        score = "not judged" if moment.score is None else f"{moment.score:.3f}"
        page.text((x, top + _SIDE + 18), f"{_clock(moment.seconds)} · {score}", 15)
    end = _timeline(page, top + _SIDE + 36, person, verdict, times)
    page.y = max(page.y, end) + 14
    return page.cut()


def _at(seconds: float, score: float) -> Point:
    """Where in a plot; `seconds` as a share of the clip. Dots at its corners are whole."""
    return 6 + seconds * (_PLOT[0] - 12), 6 + (1 - score) * (_PLOT[1] - 12)


def _timeline(
    page: _Page, top: int, person: PersonVerdict, verdict: Verdict, times: Mapping[int, float]
) -> int:
    """Plot a person's scores over the clip, with its axes; returns where it ends."""
    told = verdict.frames.seconds if verdict.frames else None
    span = max(told or 0.0, *times.values(), 0.0) or 1.0
    (wide, high), left = _PLOT, _START + 30
    fake, real = verdict.bands.fake_above, verdict.bands.real_below
    levels: list[Level] = [
        (fake, f"fake from {fake:.3f}", "fake", 1)
        if fake <= 1
        else (1.0, "no score means fake", "fake", 0),
        (real, f"real below {real:.3f}", "real", 1)
        if real > 0
        else (0.0, "no score means real", "real", 0),
    ]
    if person.score is not None:
        levels.append((person.score, f"mean {person.score:.3f}", person.answer, 3))
    page.image.paste(_curve(person, times, span, levels), (left, top))
    page.draw.rectangle((left - 1, top - 1, left + wide, top + high), outline=RULE)
    for score in (0.0, 0.5, 1.0):
        text = f"{score:g}"
        page.text((left - 9 - long(text, 14), top + _at(0, score)[1] + 5), text, 14)
    lowest, y = top + high + 12 - 23 * len(levels), -math.inf
    for score, text, answer, width in sorted(levels, key=lambda one: -one[0]):
        lowest += 23
        y = min(max(top + _at(0, score)[1], y + 23), lowest)
        if width > 1:
            page.chip((left + wide + 8, round(y) - 10), text, 14, answer)
        else:
            page.text((left + wide + 15, y + 5), text, 14)
    step = next((step for step in _STEPS if span <= 8 * step), _STEPS[-1])
    for seconds in range(0, math.floor(span) + 1, step):
        x, text = left + _at(seconds / span, 0)[0], _clock(seconds)
        page.draw.line((x, top + high + 1, x, top + high + 5), SOFT)
        page.text((x - long(text, 14) / 2, top + high + 20), text, 14)
    return top + high + 26


def _curve(
    person: PersonVerdict, times: Mapping[int, float], span: float, levels: Sequence[Level]
) -> Image.Image:
    """What stands inside the axes."""
    wide, high = (FINE * length for length in _PLOT)
    plot = Image.new("RGB", (wide, high), PAPER)
    pen = ImageDraw.Draw(plot)
    for score, _, answer, width in levels:
        y = FINE * _at(0, score)[1]
        if width == 1:
            box = (0.0, 0.0, wide, y) if answer == "fake" else (0.0, y, wide, high)
            pen.rectangle(box, _TINTS[answer])
        if width:
            pen.line((0, y, wide, y), PALETTE[answer][0], width * FINE)
    radius = FINE * min(4.0, max(1.5, _PLOT[0] / len(times) / 3)) if times else 0.0
    for run in _runs(person.moments, times):
        points = [
            tuple(FINE * length for length in _at(moment.seconds / span, moment.score or 0.0))
            for moment in run
        ]
        pen.line(points, INK, round(1.5 * FINE), joint="curve")
        for x, y in points:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), INK)
    for moment in (moment for moment in person.moments if moment.score is None):
        x = FINE * _at(moment.seconds / span, 0)[0]
        pen.rectangle((x - FINE, high - 12 * FINE, x + FINE, high), SOFT)
    return plot.reduce(FINE)


def _runs(moments: Sequence[Moment], times: Mapping[int, float]) -> list[list[Moment]]:
    """Moments with a score, in runs without a frame between that gave none."""
    rank = {number: at for at, number in enumerate(sorted(times))}
    apart = np.diff([times[number] for number in rank])
    # Beyond twice the usual step, which rounding to whole frames can make, some were unreadable.
    most = 2.2 * float(np.median(apart)) if len(apart) else 0.0
    seen = [moment for moment in moments if moment.score is not None]
    ends = [
        at
        for at, (one, other) in enumerate(pairwise(seen), start=1)
        if rank[other.frame] > rank[one.frame] + 1 or other.seconds > one.seconds + most
    ]
    return [seen[start:end] for start, end in pairwise([0, *ends, len(seen)]) if end]


def _clock(seconds: float) -> str:
    minutes, left = divmod(math.floor(seconds), 60)
    return f"{minutes}:{left:02d}"


def _foot(verdict: Verdict, others: Sequence[PersonVerdict]) -> Pixels:
    page = _Page(_SHEET, _TEXT, _MARGIN)
    page.y = 0
    page.rule()
    if others:
        page.write(f"{len(others)} more {'people are' if len(others) > 1 else 'is'} not shown:")
        page.counts(others)
    if verdict.people:
        page.write(_KEY, SOFT)
    if count := verdict.frames:
        page.write(
            f"Of {count.asked} frames asked for, {count.judged} were judged, "
            f"{count.without_face} had no face, {count.not_judged} had faces that could not be "
            f"judged, {count.unreadable} could not be read."
        )
    page.notes(verdict)
    return page.cut()
