"""A stream to a running verdict on its people: each newest frame is judged, then the next newest.

The rules are those of a clip, applied twice: to a person's last frames (the answer of now), and to
all of them since they were first seen (the whole). Of a person only sums and the last frames are
kept, and who was not seen for long is told of once more and forgotten: memory does not grow.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal, Self

from bonaface.judging import FEWEST_FRAMES, FrameKind, Judge, Seen, Tally
from bonaface.people import Follower
from bonaface.stream import Arrived, Stream
from bonaface.verdict import Answer, Judgement, judge_whole, schema_of

SCHEMA_VERSION: Final = 1
_WAIT: Final = 1.0  # seconds without a frame after which an update says so
_HERE: Final = 2.0  # seconds for which who was seen counts as here
_GONE: Final = 60.0  # seconds after which who was not seen is forgotten
_MOST: Final = 100  # people who are remembered besides those in the newest frame


@dataclass(frozen=True, slots=True)
class StreamCount:
    """What became of the frames of a stream so far: seen = judged + dropped + waiting.

    Attributes:
        seen: frames that came and were decoded.
        judged: frames that were looked at, those without a face or with small ones included.
        dropped: frames that were never looked at, because newer ones had come.
        waiting: frames that came and are still to be looked at or dropped.
        without_face: of those judged, frames in which no face was found.
        not_judged: of those judged, frames with faces of which none could be judged.
        broken: stretches that could not be decoded, or over which the stream's clock jumped.
        unread: bytes of a growing file that are there and were not read yet; None of a pipe.
        behind: for how many seconds more has been there than could be decoded: the stream comes
            faster than this machine decodes, or a backlog is worked off; 0: it keeps up. At the
            end, the largest that was.
    """

    seen: int
    judged: int
    dropped: int
    waiting: int
    without_face: int
    not_judged: int
    broken: int
    unread: int | None
    behind: float


@dataclass(frozen=True, slots=True)
class FollowedPerson:
    """What can be said of one person of a stream.

    Attributes:
        number: from 1, in the order in which people were first seen; never given twice.
        answer: by the last frames: fake, real, unsure or not_applicable.
        reason: one sentence for a person.
        score: calibrated P(fake) of the mean logit over the last frames; None: not judged.
        posterior: P(fake) at the prevalence; None: not judged.
        whole: the same by all frames since the person was first seen.
        judged: frames in which the face was judged.
        not_judged: frames in which it was seen and could not be judged.
        first_seen: by the stream's clock, in seconds.
        last_seen: by the stream's clock, in seconds.
        last_fake: when the answer by the last frames was fake last; None: never.
        here: seen within two seconds before the newest frame that was judged.
    """

    number: int
    answer: Answer
    reason: str
    score: float | None
    posterior: float | None
    whole: Judgement
    judged: int
    not_judged: int
    first_seen: float
    last_seen: float
    last_fake: float | None
    here: bool


@dataclass(frozen=True, slots=True)
class Update:
    """What can be said of a stream up to now.

    Attributes:
        event: "frame": one more was judged; "waiting": none came for a second; "end".
        source: the stream's name as it was given.
        answer: of those who are here, by their last frames; at the end of all who were seen, by
            all of their frames.
        reason: one sentence for a person.
        score: of the person who decided; None: not applicable.
        posterior: the same at the prevalence.
        seconds: of the newest frame that was judged, by the stream's clock; None: there is none.
        lag: seconds from the decoding of that frame to this answer; at the end, the mean over all.
        most_lag: the largest so far.
        frames: what became of them.
        people: those who are remembered, in the order of their numbers.
        left: those who are forgotten with this update, for not having been seen for a minute.
        gone: how many were forgotten until now, by their answer over all frames.
        ended: why the stream is over; None before the end.
        model: name of the detector.
        version: version of bonaface that made the detector.
    """

    event: Literal["frame", "waiting", "end"]
    source: str
    answer: Answer
    reason: str
    score: float | None
    posterior: float | None
    seconds: float | None
    lag: float | None
    most_lag: float | None
    frames: StreamCount
    people: tuple[FollowedPerson, ...]
    left: tuple[FollowedPerson, ...]
    gone: dict[Answer, int]
    ended: str | None
    model: str
    version: str
    schema_version: int = SCHEMA_VERSION

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)


@dataclass
class _Known:
    """What is remembered of a person."""

    number: int
    first_seen: float
    window: deque[tuple[Seen, bool]]
    tally: Tally = field(default_factory=Tally)
    last_seen: float = 0.0
    last_fake: float | None = None
    at: float = 0.0  # when last, by our clock
    told: FollowedPerson | None = None  # what was said of them, until they are seen again


class Following(Iterator[Update]):
    """Updates on a stream, one for each frame that is judged; to be closed.

    Args:
        judge: of a detector.
        stream: is closed with this.
        model: name and version of the detector.
    """

    def __init__(self, judge: Judge, stream: Stream, model: tuple[str, str]) -> None:
        self._judge, self._stream, self._model = judge, stream, model
        self._follower = Follower()
        self._known: dict[int, _Known] = {}
        self._kinds: Counter[FrameKind] = Counter()
        self._gone: Counter[Answer] = Counter()
        self._told: dict[Answer, FollowedPerson] = {}  # of those gone, the highest score by answer
        self._seconds: float | None = None
        self._newest = 0.0  # when the newest frame that was judged came
        self._lags = self._most_lag = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the stream."""
        self._stream.close()

    def __next__(self) -> Update:
        """Judge the newest frame; where none comes for a second, say so."""
        arrived = self._stream.take(_WAIT)
        if arrived is None:
            if self._stream.ended is not None:
                raise StopIteration
            return self._update("waiting", None, ())
        self._look(arrived)
        left = self._forget()
        lag = time.monotonic() - arrived.at
        self._lags, self._most_lag = self._lags + lag, max(self._most_lag, lag)
        return self._update("frame", lag, left)

    def end(self) -> Update:
        """Close the stream, and say what can be said of all of it."""
        self._stream.close()
        least = min(FEWEST_FRAMES, self._judged)
        people = tuple(self._person(known, least) for known in self._known.values())
        told = [_by_whole(one) for one in (*people, *self._told.values())]
        others = self._gone - Counter(list(self._told))
        if told:
            found = judge_whole(told, "person", others)
        elif self._judged:
            found = Judgement("not_applicable", "no face found")
        else:
            found = Judgement("not_applicable", f"no frame was judged: {self._stream.ended}")
        lag = self._lags / self._judged if self._judged else None
        return self._told_as("end", found, people, lag, ())

    # -- the steps --

    @property
    def _judged(self) -> int:
        return self._kinds.total()

    def _look(self, arrived: Arrived) -> None:
        frame = arrived.frame
        self._seconds, self._newest = round(frame.seconds, 3), arrived.at
        kind, looked = self._judge.frame(frame, self._follower)
        self._kinds[kind] += 1
        for person, _, seen in looked:
            if person not in self._known:
                window: deque[tuple[Seen, bool]] = deque(maxlen=self._judge.wishes.frames)
                self._known[person] = _Known(person + 1, self._seconds, window)
            known = self._known[person]
            known.last_seen, known.at, known.told = self._seconds, arrived.at, None
            fake = self._judge.looks_fake(seen)
            known.tally.add(seen, fake)
            if not isinstance(seen, str):
                known.window.append((seen, fake))

    def _forget(self) -> tuple[FollowedPerson, ...]:
        """Let go of those who were not seen for long, or for longest where they are too many."""
        absent = sorted(
            (known.at, person) for person, known in self._known.items() if known.at < self._newest
        )
        surplus = max(0, len(absent) - _MOST)
        left = []
        for place, (at, person) in enumerate(absent):
            if place < surplus or self._newest - at > _GONE:
                left.append(self._person(self._known.pop(person)))
                self._follower.forget(person)
        for one in left:
            word = one.whole.answer
            self._gone[word] += 1
            if word not in self._told or _score(one) > _score(self._told[word]):
                self._told[word] = one
        return tuple(left)

    # -- the words --

    def _person(self, known: _Known, least: int = FEWEST_FRAMES) -> FollowedPerson:
        here = self._newest - known.at < _HERE
        if known.told is not None and least == FEWEST_FRAMES:
            return replace(known.told, here=here)
        whole, _ = self._judge.over_frames(known.tally, least)
        recent = Tally(not_judged=known.tally.not_judged, reason=known.tally.reason)
        for seen, fake in known.window:
            recent.add(seen, fake)
        now, _ = self._judge.over_frames(recent, least)
        if now.answer == "fake":
            known.last_fake = known.last_seen
        known.told = FollowedPerson(
            number=known.number,
            answer=now.answer,
            reason=now.reason,
            score=now.score,
            posterior=now.posterior,
            whole=whole,
            judged=known.tally.judged,
            not_judged=known.tally.not_judged,
            first_seen=known.first_seen,
            last_seen=known.last_seen,
            last_fake=known.last_fake,
            here=here,
        )
        return known.told

    def _update(
        self,
        event: Literal["frame", "waiting"],
        lag: float | None,
        left: tuple[FollowedPerson, ...],
    ) -> Update:
        people = tuple(self._person(known) for known in self._known.values())
        here = [person for person in people if person.here]
        found = Judgement("not_applicable", "nobody is seen")
        if here:
            found = judge_whole(here, "person")
        return self._told_as(event, found, people, lag, left)

    def _told_as(
        self,
        event: Literal["frame", "waiting", "end"],
        found: Judgement,
        people: tuple[FollowedPerson, ...],
        lag: float | None,
        left: tuple[FollowedPerson, ...],
    ) -> Update:
        flow = self._stream.flow()
        # Stopped by hand, the frame that was being looked at is not judged.
        dropped = flow.seen - self._judged if event == "end" else flow.dropped
        return Update(
            event=event,
            source=self._stream.name,
            answer=found.answer,
            reason=found.reason,
            score=found.score,
            posterior=found.posterior,
            seconds=self._seconds,
            lag=None if lag is None else round(lag, 3),
            most_lag=round(self._most_lag, 3) if self._judged else None,
            frames=StreamCount(
                seen=flow.seen,
                judged=self._judged,
                dropped=dropped,
                waiting=flow.waiting,
                without_face=self._kinds["without_face"],
                not_judged=self._kinds["not_judged"],
                broken=flow.broken,
                unread=flow.unread,
                behind=flow.most_behind if event == "end" else flow.behind,
            ),
            people=people,
            left=left,
            gone=dict(self._gone),
            ended=self._stream.ended if event == "end" else None,
            model=self._model[0],
            version=self._model[1],
        )


def _by_whole(person: FollowedPerson) -> FollowedPerson:
    """Somebody whose answer is that of all frames."""
    whole = person.whole
    return replace(
        person,
        answer=whole.answer,
        reason=whole.reason,
        score=whole.score,
        posterior=whole.posterior,
    )


def follow_schema() -> dict[str, Any]:
    """JSON Schema of each line that `bonaface detect --follow --json` prints."""
    described = (StreamCount, FollowedPerson, Update)
    return schema_of(Update, "bonaface detect --follow --json", described)


def _score(person: FollowedPerson) -> float:
    return person.whole.score or 0.0
