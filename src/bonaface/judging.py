"""A picture or a clip to verdicts: find, cut, score, and apply the rules of `verdict`.

Arrays in, verdicts out. What scores and what finds are given, so tests pass fakes of three lines.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from bonaface.calibration import Calibration, OperatingPoint
from bonaface.corruptions import DELIVERIES
from bonaface.crops import CropRecipe
from bonaface.errors import ConfigError
from bonaface.faces import Face, Finder
from bonaface.images import Image
from bonaface.people import Follower, look_of
from bonaface.verdict import (
    Bands,
    FaceVerdict,
    FrameCount,
    Judgement,
    Moment,
    PersonVerdict,
    Stability,
    chance_of_false_alarm,
    judge_score,
    judge_whole,
    with_frames,
    with_stability,
)
from bonaface.video import Frame, Frames

Pixels = NDArray[np.uint8]
Progress = Callable[[int, int], None]
Place = tuple[int, int, int]
Seen = NDArray[np.float64] | str  # logits of a face, or why it is not judged
FrameKind = Literal["judged", "without_face", "not_judged"]

MOST_JUDGED: Final = 200
FEWEST_FRAMES: Final = 3
_TOGETHER: Final = 16  # faces whose crops are in memory at a time
_NO_FACE: Final = "no face found"
_CROP_HINT: Final = "if the picture is a face crop, say so with --faces none"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the caller of `Detector.detect` asks for.

    Attributes:
        faces: "auto" finds faces; "none" takes the whole picture for a face crop.
        stability: score each face again as it would be after re-delivery.
        prevalence: share of fakes among the pictures that come in, in (0, 1).
        frames: of a video, how many to look at.
    """

    faces: Literal["auto", "none"] = "auto"
    stability: bool = False
    prevalence: float = 0.5
    frames: int = 64

    def __post_init__(self) -> None:
        if self.faces not in ("auto", "none"):
            raise ConfigError(f"expected faces auto or none, got {self.faces!r}; choose one")
        if not 1 <= self.frames <= 10_000:
            raise ConfigError(f"expected 1 to 10000 frames, got {self.frames}; choose fewer")


@dataclass(frozen=True)
class Rules:
    """What turns logits into answers: the parts of a bundle that are not its network.

    Attributes:
        calibration: from logits to scores.
        fake_above: the operating point from which the answer is fake.
        real_below: the operating point under which the answer is real.
        recipe: how faces are cut.
        doubt: why no answer of this detector counts; None where they do.
    """

    calibration: Calibration
    fake_above: OperatingPoint
    real_below: OperatingPoint
    recipe: CropRecipe
    doubt: str | None

    def bands(self, prevalence: float) -> Bands:
        """At a prevalence; ConfigError where it does not lie between 0 and 1."""
        return Bands.at(prevalence, self.fake_above.threshold, self.real_below.threshold)


@dataclass
class Tally:
    """What the frames of one person add up to.

    Attributes:
        judged: frames in which the face was judged.
        not_judged: frames in which it was seen and could not be judged.
        fakes: frames judged that look fake by themselves.
        total: of the logits of the frames judged; None: there are none.
        reason: why the first that was not judged was not.
    """

    judged: int = 0
    not_judged: int = 0
    fakes: int = 0
    total: NDArray[np.float64] | None = None
    reason: str | None = None

    def add(self, seen: Seen, fake: bool) -> None:
        """One frame more."""
        if isinstance(seen, str):
            self.not_judged += 1
            self.reason = self.reason or seen
        else:
            self.judged += 1
            self.fakes += fake
            self.total = seen if self.total is None else self.total + seen


@dataclass(frozen=True)
class Judge:
    """One detector's way from pixels to answers.

    Attributes:
        logits: crops (uint8 HxWx3, RGB) -> logits, float64 (n,).
        finder: of faces.
        rules: of the bundle.
        wishes: of the caller.
    """

    logits: Callable[[Sequence[Pixels]], NDArray[np.float64]]
    finder: Callable[[], Finder]  # opened only where faces are looked for
    rules: Rules
    wishes: Wishes = field(default_factory=Wishes)

    @property
    def bands(self) -> Bands:
        """Those of the rules at the prevalence that was asked for."""
        return self.rules.bands(self.wishes.prevalence)

    def photo(self, image: Image) -> tuple[Judgement, tuple[FaceVerdict, ...], tuple[str, ...]]:
        """The answer for a photo, each of its faces, and notes."""
        height, width = image.pixels.shape[:2]
        notes = list(image.notes)
        if self.wishes.faces == "none":
            found: tuple[Face | None, ...] = (None,)
        else:
            found = self.finder().find(image.pixels)
        if not found:
            return Judgement("not_applicable", f"{_NO_FACE}; {_CROP_HINT}"), (), tuple(notes)
        if found[0] and self.rules.recipe.takes_whole(found[0], width, height):
            notes.append("already a face crop: used whole")
        looked = zip(found, self._looked_at(image.pixels, found), strict=True)
        faces = tuple(
            self._face(number, face, seen) for number, (face, seen) in enumerate(looked, start=1)
        )
        judged = sum(face.score is not None for face in faces)
        if judged > 1:
            notes.append(self._many(judged, "faces", "photos"))
        return judge_whole(faces, "face"), faces, tuple(notes)

    def video(
        self, frames: Frames, progress: Progress | None = None
    ) -> tuple[Judgement, tuple[PersonVerdict, ...], FrameCount, tuple[str, ...]]:
        """The answer for a clip, each person in it, and what became of its frames.

        Every frame is a photo; `progress` is called with the number of frames done and planned.
        """
        follower = Follower()
        moments: dict[int, list[Moment]] = defaultdict(list)
        tallies: dict[int, Tally] = defaultdict(Tally)
        kinds: Counter[FrameKind] = Counter()
        for frame in frames:
            kind, looked = self.frame(frame, follower)
            kinds[kind] += 1
            for person, face, seen in looked:
                score, reason = None, seen if isinstance(seen, str) else None
                if not isinstance(seen, str):
                    score = float(self.rules.calibration(seen[0]))
                tallies[person].add(seen, self.looks_fake(seen))
                moments[person].append(
                    Moment(frame.number, round(frame.seconds, 3), _rounded(face.box), score, reason)
                )
            if progress:
                progress(frames.read + frames.missed, frames.planned)
        least = min(FEWEST_FRAMES, frames.read)
        order = sorted(moments, key=lambda one: (-tallies[one].judged, -len(moments[one]), one))
        people_found = tuple(
            self._person(number, moments[one], tallies[one], least)
            for number, one in enumerate(order, start=1)
        )
        count = FrameCount(
            asked=frames.asked,
            judged=kinds["judged"],
            without_face=kinds["without_face"],
            not_judged=kinds["not_judged"],
            unreadable=frames.missed,
            seconds=round(frames.clip.seconds, 3),
        )
        notes = list(frames.notes)
        judged = sum(person.score is not None for person in people_found)
        if judged > 1:
            notes.append(self._many(judged, "people", "clips"))
        if not people_found:
            return Judgement("not_applicable", _NO_FACE), (), count, tuple(notes)
        return judge_whole(people_found, "person"), people_found, count, tuple(notes)

    def frame(
        self, frame: Frame, follower: Follower
    ) -> tuple[FrameKind, list[tuple[int, Face, Seen]]]:
        """Of one frame of a clip: what became of it; whose each face is, and what is seen of it."""
        found = self._found_in(frame)
        people = follower.follow(found, [look_of(frame.pixels, face) for face in found])
        looked = list(self._looked_at(frame.pixels, found))
        return _kind(looked), list(zip(people, found, looked, strict=True))

    def looks_fake(self, seen: Seen) -> bool:
        """Whether what is seen of a face is fake by itself."""
        if isinstance(seen, str):
            return False
        return self.bands.answer(float(self.rules.calibration(seen[0]))) == "fake"

    def over_frames(self, tally: Tally, least: int) -> tuple[Judgement, Stability | None]:
        """The answer for a person from what their frames add up to.

        Args:
            tally: of at least one frame.
            least: how many frames have to be judged for an answer.
        """
        if tally.judged >= least and tally.total is not None:
            judged, stability = self._judged(tally.total / tally.judged)
            judged = replace(judged, reason=f"mean of {tally.judged} frames: {judged.reason}")
            if self.rules.doubt is None:
                judged = with_frames(judged, tally.fakes, tally.judged)
            return judged, stability
        if tally.judged:
            reason = f"judged in {tally.judged} frames only; at least {least} are needed"
        else:
            seen = tally.not_judged
            reason = f"seen in {seen} frame{'s' * (seen > 1)}: {tally.reason}"
        return Judgement("not_applicable", reason), None

    def crops(self, pixels: Pixels) -> list[tuple[Face | None, Pixels | str]]:
        """The faces of a photo or frame, each with its crop as it is scored, or why it is not.

        Without a search for faces there is one, None, whose crop is the whole picture.
        """
        found: tuple[Face | None, ...] = (None,)
        if self.wishes.faces == "auto":
            found = self.finder().find(pixels)
        shrink = self.rules.recipe.shrink
        return [
            (face, self._unfit(at, face) or shrink(self._square(pixels, face, first=at == 0)))
            for at, face in enumerate(found)
        ]

    def place(self, face: Face | None, width: int, height: int, *, first: bool) -> Place:
        """Left, top and side of what the network is shown of a face, in pixels of the picture.

        Args:
            face: as `crops` gives it.
            width: of the picture.
            height: of the picture.
            first: whether it is the first of the picture's faces.
        """
        if self._whole(face, width, height, first=first):
            side = min(width, height)
            return (width - side) // 2, (height - side) // 2, side
        assert face is not None
        return self.rules.recipe.place(face, width, height)

    # -- the steps --

    def _found_in(self, frame: Frame) -> tuple[Face, ...]:
        if self.wishes.faces == "auto":
            return self.finder().find(frame.pixels)
        height, width = frame.pixels.shape[:2]
        return (Face((0.0, 0.0, float(width), float(height)), (), 1.0),)

    def _looked_at(self, pixels: Pixels, found: Sequence[Face | None]) -> Iterator[Seen]:
        """Of each face its logits, as `_scored` gives them, or why it is not judged."""
        reasons = [self._unfit(at, face) for at, face in enumerate(found)]
        squares = (
            self._square(pixels, face, first=at == 0)
            for at, (face, reason) in enumerate(zip(found, reasons, strict=True))
            if reason is None
        )
        scored = self._scored(squares, max(pixels.shape[:2]))
        return (next(scored) if reason is None else reason for reason in reasons)

    def _unfit(self, at: int, face: Face | None) -> str | None:
        """Why a face is not judged."""
        least = self.rules.recipe.min_face
        if face is None or self.wishes.faces == "none":
            return None
        if face.size < least:
            return f"the face is {face.size:.0f} px; at least {least} px are needed"
        if at >= MOST_JUDGED:
            return f"only the {MOST_JUDGED} largest faces of a picture are judged"
        return None

    def _square(self, pixels: Pixels, face: Face | None, *, first: bool) -> Pixels:
        height, width = pixels.shape[:2]
        if face is None or self._whole(face, width, height, first=first):
            return pixels
        return self.rules.recipe.square(pixels, face)

    def _whole(self, face: Face | None, width: int, height: int, *, first: bool) -> bool:
        """Whether the picture is taken for the crop of a face."""
        if face is None or self.wishes.faces == "none":
            return True
        return first and self.rules.recipe.takes_whole(face, width, height)

    def _scored(self, squares: Iterator[Pixels], longest: int) -> Iterator[NDArray[np.float64]]:
        """Logits of each face: as it came, then by delivery where that was asked for."""
        shrink = self.rules.recipe.shrink
        deliveries = tuple(DELIVERIES.values()) if self.wishes.stability else ()
        width = 1 + len(deliveries)
        crops: list[Pixels] = []

        def run() -> Iterator[NDArray[np.float64]]:
            yield from self.logits(crops).reshape(-1, width)
            crops.clear()

        for square in squares:
            crops.append(shrink(square))
            crops += [shrink(deliver(square, longest)) for deliver in deliveries]
            if len(crops) >= _TOGETHER * width:
                yield from run()
        if crops:
            yield from run()

    # -- the words --

    def _judged(self, row: NDArray[np.float64]) -> tuple[Judgement, Stability | None]:
        scores = [float(score) for score in self.rules.calibration(row)]
        points = self.rules.fake_above, self.rules.real_below
        judged = judge_score(scores[0], self.bands, points, self.rules.doubt)
        if not self.wishes.stability:
            return judged, None
        delivered = dict(zip(DELIVERIES, scores[1:], strict=True))
        stability = Stability.of(scores[0], delivered, self.bands)
        return with_stability(judged, stability), stability

    def _face(self, number: int, face: Face | None, seen: Seen) -> FaceVerdict:
        if isinstance(seen, str):
            judged, stability = Judgement("not_applicable", seen), None
        else:
            judged, stability = self._judged(seen)
        return FaceVerdict(
            number=number,
            answer=judged.answer,
            reason=judged.reason,
            score=judged.score,
            posterior=judged.posterior,
            box=_rounded(face.box) if face else None,
            landmarks=tuple((round(x, 1), round(y, 1)) for x, y in face.landmarks) if face else (),
            confidence=round(face.confidence, 3) if face else None,
            stability=stability,
        )

    def _person(
        self, number: int, moments: Sequence[Moment], tally: Tally, least: int
    ) -> PersonVerdict:
        judged, stability = self.over_frames(tally, least)
        return PersonVerdict(
            number=number,
            answer=judged.answer,
            reason=judged.reason,
            score=judged.score,
            posterior=judged.posterior,
            judged=tally.judged,
            not_judged=tally.not_judged,
            stability=stability,
            moments=tuple(moments),
        )

    def _many(self, judged: int, parts: str, pictures: str) -> str:
        chance = chance_of_false_alarm(self.rules.fake_above.bpcer, judged)
        return (
            f"of {pictures} with {judged} {parts}, all of them real, about {chance:.0%} would "
            "still have one that is called fake"
        )


def _kind(looked: Sequence[Seen]) -> FrameKind:
    if not looked:
        return "without_face"
    return "not_judged" if all(isinstance(seen, str) for seen in looked) else "judged"


def _rounded(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    left, top, right, bottom = (round(value, 1) for value in box)
    return left, top, right, bottom
