"""The running verdict: the rules of a clip, a bounded window, counts that add up, who leaves."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cv2
import jsonschema
import numpy as np
import pytest
from scipy.special import expit

from bonaface import following as follows
from bonaface.following import Following, Update, follow_schema
from bonaface.judging import Judge, Wishes
from bonaface.stream import Arrived, Flow, Stream
from bonaface.video import Frame, hush
from test_judging import BLACK, RULES, WHITE, Changing, Clip, Squares, judge, photo
from test_stream import clip, fed

SCHEMA = Path(__file__).parents[1] / "docs" / "follow.schema.json"


class Drawn:
    """Stands for a `Stream` of frames that a test drew, all of which are taken."""

    name = "drawn"

    def __init__(self, pictures: list[np.ndarray]) -> None:
        self.pictures = iter(enumerate(pictures))
        self.seen, self.ended = 0, None

    def take(self, wait: float) -> Arrived | None:
        number, pixels = next(self.pictures, (0, None))
        if pixels is None:
            self.ended = "the pipe was closed"
            return None
        self.seen += 1
        return Arrived(Frame(number, number * 0.5, pixels), time.monotonic())

    def flow(self) -> Flow:
        return Flow(self.seen, 0, 0, 0, None, 0.0, 0.0)

    def close(self) -> None:
        self.ended = self.ended or "stopped"


def drawn(*frames: list[tuple[tuple[int, int, int, int], int]], **wishes: Any) -> Following:
    """A following of frames, with a finder that sees what was drawn in each."""
    finder = Changing([[box for box, _ in squares] for squares in frames])
    pictures = [photo(*squares).pixels for squares in frames]
    stream: Any = Drawn(pictures)
    return Following(judge(finder, **wishes), stream, ("brightness", "1"))


def test_the_whole_is_what_detect_says_of_the_same_frames() -> None:
    frames = [[(WHITE, 250), (BLACK, 5)], [(WHITE, 230), (BLACK, 0)]] * 5
    following = drawn(*frames)
    updates = list(following)
    last = following.end()
    finder = Changing([[box for box, _ in squares] for squares in frames])
    video: Any = Clip([photo(*squares).pixels for squares in frames])
    found, people, _, _ = judge(finder).video(video)
    assert (last.answer, last.reason) == (found.answer, found.reason)
    assert last.score == pytest.approx(found.score)
    for one, other in zip(last.people, people, strict=True):
        assert one.whole.answer == other.answer
        assert one.whole.score == pytest.approx(other.score)
        assert (one.judged, one.not_judged) == (other.judged, other.not_judged)
    assert [update.event for update in updates] == ["frame"] * 10
    assert [update.answer for update in updates] == ["not_applicable"] * 2 + ["fake"] * 8
    assert updates[-1].seconds == 4.5


def test_now_is_a_window_and_the_whole_is_all() -> None:
    following = drawn(*[[(WHITE, 0)]] * 20, *[[(WHITE, 255)]] * 5, *[[(WHITE, 0)]] * 5, frames=5)
    by_colours_one = [update.people[0] for update in following if len(update.people) == 1]
    assert by_colours_one  # one person, or two where black and white look too unlike
    last = following.end()
    assert sum(person.judged for person in last.people) == 30


def test_a_swap_in_between_is_fake_now_and_remembered_afterwards() -> None:
    logits = iter([-4.0] * 20 + [4.0] * 5 + [-4.0] * 75)
    one = Judge(
        lambda crops: np.array([next(logits)]), lambda: Squares(WHITE), RULES, Wishes(frames=5)
    )
    stream: Any = Drawn([photo((WHITE, 200)).pixels] * 100)
    following = Following(one, stream, ("m", "1"))
    answers = [update.people[0].answer for update in following]
    assert answers[19] == "real"
    assert answers[24] == "fake"
    assert answers[40] == "real"
    (person,) = following.end().people
    assert person.whole.answer == "real"  # 5 of 100 frames: less than a tenth, as of a clip
    assert person.whole.score == pytest.approx(expit(-3.6))
    assert person.last_fake == pytest.approx(0.5 * answers[:40][::-1].index("fake"), abs=20)
    assert person.last_fake is not None
    assert 10 <= person.last_fake <= 15


def test_the_rule_of_a_tenth_holds_for_the_whole() -> None:
    logits = iter([-3.0] * 16 + [2.0] * 4)
    one = Judge(lambda crops: np.array([next(logits)]), lambda: Squares(WHITE), RULES)
    stream: Any = Drawn([photo((WHITE, 200)).pixels] * 20)
    following = Following(one, stream, ("m", "1"))
    list(following)
    (person,) = following.end().people
    assert person.whole.answer == "unsure"
    assert "4 of them look fake" in person.whole.reason


def test_two_frames_are_judged_at_the_end_as_a_clip_of_two_is() -> None:
    following = drawn([(WHITE, 250)], [(WHITE, 250)])
    assert {update.answer for update in following} == {"not_applicable"}
    assert following.end().answer == "fake"


def test_no_face_and_no_frame() -> None:
    following = drawn([], [])
    updates = list(following)
    assert updates[-1].answer == "not_applicable"
    last = following.end()
    assert (last.reason, last.frames.without_face) == ("no face found", 2)
    last = drawn().end()
    assert "no frame was judged" in last.reason
    assert (last.seconds, last.lag, last.most_lag) == (None, None, None)


def test_who_was_not_seen_for_long_leaves_once_and_still_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(follows.time, "monotonic", lambda: clock.now)
    frames = [[(WHITE, 250)]] * 4 + [[(BLACK, 0)]] * 10
    following = drawn(*frames)
    left = []
    for number, update in enumerate(following):
        clock.now += 1 if number < 3 else 20
        left += [(number, person.number, person.whole.answer) for person in update.left]
    assert left == [(7, 1, "fake")]
    last = following.end()
    assert [person.number for person in last.people] == [2]
    assert last.gone == {"fake": 1}
    assert last.answer == "fake"
    assert last.reason.startswith("1 of 2 people is fake; person 1: ")
    assert set(following._follower._last) == {1}


class Strangers:
    """Stands for a `Follower` that never sees anybody twice."""

    def __init__(self) -> None:
        self.met, self.forgotten = 0, 0

    def follow(self, faces: Sequence[Any], looks: Sequence[Any]) -> tuple[int, ...]:
        self.met += len(faces)
        return tuple(range(self.met - len(faces), self.met))

    def forget(self, person: int) -> None:
        self.forgotten += 1


def test_who_was_just_judged_is_here_however_slow_that_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(follows.time, "monotonic", lambda: clock.now)

    def logits(crops: Sequence[np.ndarray]) -> np.ndarray:
        clock.now += 7
        return np.array([4.0] * len(crops))

    stream: Any = Drawn([photo((WHITE, 200)).pixels] * 4)
    following = Following(Judge(logits, lambda: Squares(WHITE), RULES), stream, ("m", "1"))
    last = list(following)[-1]
    assert (last.answer, last.people[0].here, last.lag) == ("fake", True, 7.0)


def test_a_crowd_of_passers_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follows, "_MOST", 5)
    monkeypatch.setattr(follows, "Follower", Strangers)
    following = drawn(*[[(WHITE, 200), (BLACK, 9)]] * 20)
    updates = list(following)
    assert max(len(update.people) for update in updates) == 5 + 2
    assert updates[-1].gone == {"not_applicable": 40 - 7}
    assert [one.number for one in updates[-1].people] == list(range(34, 41))
    follower: Any = following._follower
    assert follower.forgotten == 33
    assert following.end().reason.endswith("(and 39 more people)")


def test_every_update_fits_the_published_schema() -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert schema == follow_schema(), "run: make schema"
    following = drawn(*[[(WHITE, 250), (BLACK, 0)]] * 4, [])
    for update in [*following, following.end()]:
        jsonschema.validate(json.loads(json.dumps(update.to_dict())), schema)


# -- a stream that is piped in --


class Slow:
    """Scores in the time in which so many frames come: the decoder may do that many meanwhile."""

    def __init__(self, frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.frames, self.stream = frames, cast(Any, None)
        self.allowed = threading.Semaphore(1)
        real, allowed = cv2.VideoCapture, self.allowed

        class Paced:
            def __init__(self, *arguments: Any) -> None:
                self.capture = real(*arguments)

            def read(self) -> tuple[bool, Any]:
                allowed.acquire(timeout=10)
                found = self.capture.read()
                if not found[0]:
                    allowed.release()
                return found

            def __getattr__(self, name: str) -> Any:
                return getattr(self.capture, name)

        hush()
        monkeypatch.setattr(cv2, "VideoCapture", Paced)

    def __call__(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        before = self.stream.flow().seen
        self.allowed.release(self.frames)
        while self.stream.flow().seen < before + self.frames and self.stream.ended is None:
            time.sleep(0.001)
        return np.zeros(len(crops))


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def piped(pipe: Path, slow: Slow) -> Following:
    slow.stream = Stream(pipe)
    one = Judge(slow, Squares, RULES, Wishes(faces="none"))
    return Following(one, slow.stream, ("m", "1"))


def checked(updates: Iterator[Update]) -> list[Update]:
    found = []
    for update in updates:
        count = update.frames
        assert count.seen == count.judged + count.dropped + count.waiting
        found.append(update)
    return found


def test_a_slow_detector_drops_frames_and_says_how_many(
    pipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with piped(pipe, Slow(10, monkeypatch)) as following:
        fed(pipe, clip(".ts"))
        updates = checked(following)
        last = following.end()
    count = last.frames
    assert (count.seen, count.waiting, last.ended) == (100, 0, "the pipe was closed")
    assert (count.judged, count.dropped) == (len(updates), 100 - len(updates))
    assert 10 <= len(updates) <= 15
    numbers = [round(25 * (update.seconds or 0)) for update in updates]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 99
    # Ten frames came while this one was judged; before, it had waited for at most three more.
    for number, update in zip(numbers, updates, strict=True):
        assert update.frames.seen - number <= 10 + 4


def test_a_detector_as_fast_as_the_stream_drops_nothing(
    pipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with piped(pipe, Slow(1, monkeypatch)) as following:
        fed(pipe, clip(".ts"))
        checked(following)
        count = following.end().frames
    assert (count.seen, count.judged, count.dropped, count.broken) == (100, 100, 0, 0)


def test_waiting_is_told_and_stopping_by_hand_counts_the_frame_in_hand(
    pipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follows, "_WAIT", 0.05)
    slow = Slow(1, monkeypatch)
    with piped(pipe, slow) as following:
        assert next(following).event == "waiting"
        fed(pipe, clip(".ts"))
        while (update := next(following)).event == "waiting":
            pass
        assert update.frames.judged == 1

        def interrupted(*_: Any) -> Any:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Slow, "__call__", interrupted)
            with pytest.raises(KeyboardInterrupt):
                next(following)
        last = following.end()
    assert last.ended in ("stopped", "the pipe was closed")
    assert last.frames.seen == last.frames.judged + last.frames.dropped
    assert last.frames.dropped >= 1
