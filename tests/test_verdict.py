from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonaface.calibration import OperatingPoint
from bonaface.errors import ConfigError
from bonaface.verdict import (
    Answer,
    Bands,
    FaceVerdict,
    Judgement,
    Stability,
    chance_of_false_alarm,
    judge_score,
    judge_whole,
    verdict_schema,
    with_frames,
    with_stability,
)

BANDS = Bands.at(0.5, 0.8, 0.3)
POINTS = (
    OperatingPoint("fake_above", 0.8, "made up", 0.4, 0.01, 750, 700),
    OperatingPoint("real_below", 0.3, "made up", 0.05, 0.3, 750, 700),
)
probabilities = st.floats(0, 1)
inner = st.floats(0.001, 0.999)


def face(number: int, answer: Answer, score: float | None, reason: str = "why") -> FaceVerdict:
    return FaceVerdict(number, answer, reason, score, score, None, (), None, None)


# -- bands ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("score", "expected"),
    [(0.9, "fake"), (0.8, "fake"), (0.79, "unsure"), (0.3, "unsure"), (0.29, "real"), (0, "real")],
)
def test_answers(score: float, expected: str) -> None:
    assert BANDS.answer(score) == expected


def test_there_is_no_unsure_between_equal_thresholds() -> None:
    bands = Bands.at(0.5, 0.5, 0.5)
    assert {bands.answer(s) for s in (0.0, 0.49999, 0.5, 1.0)} == {"real", "fake"}


@given(inner, inner)
def test_the_posterior_is_that_of_bayes(score: float, prevalence: float) -> None:
    """By counting: of a fakes and b reals per unit, a share of each has a score like this one."""
    likelihood_ratio = score / (1 - score)
    odds = likelihood_ratio * prevalence / (1 - prevalence)
    found = Bands.at(prevalence, 0.8, 0.3).posterior(score)
    assert found == pytest.approx(odds / (1 + odds))


def test_a_known_posterior() -> None:
    # 99 : 1 for fake, and one fake in a hundred: even odds.
    assert Bands.at(0.01, 0.8, 0.3).posterior(0.99) == pytest.approx(0.5)


@given(inner, inner, inner, probabilities)
def test_an_answer_is_never_bolder_than_at_one_half(
    a: float, b: float, prevalence: float, score: float
) -> None:
    real_below, fake_above = sorted((a, b))
    even = Bands.at(0.5, fake_above, real_below)
    moved = Bands.at(prevalence, fake_above, real_below)
    assert moved.real_below <= moved.fake_above
    assert moved.answer(score) in (even.answer(score), "unsure")
    if moved.answer(score) == "fake":
        assert moved.posterior(score) >= fake_above - 1e-9
    if moved.answer(score) == "real":
        assert moved.posterior(score) < real_below + 1e-9


def test_rare_fakes_need_more_evidence_and_common_ones_less_doubt() -> None:
    rare, common = Bands.at(0.01, 0.8, 0.3), Bands.at(0.9, 0.8, 0.3)
    assert rare.fake_above == pytest.approx(0.99748, abs=1e-5)
    assert rare.real_below == 0.3
    assert common.fake_above == 0.8
    assert common.real_below == pytest.approx(0.0454545, abs=1e-6)


@pytest.mark.parametrize("prevalence", [0.01, 0.99])
def test_thresholds_that_nothing_reaches_stay(prevalence: float) -> None:
    bands = Bands.at(prevalence, 1.0000000001, 0.0)
    assert (bands.answer(1.0), bands.answer(0.0)) == ("unsure", "unsure")


@pytest.mark.parametrize("prevalence", [0.0, 1.0, -1.0, 2.0, float("nan")])
def test_a_prevalence_that_is_none_is_refused(prevalence: float) -> None:
    with pytest.raises(ConfigError, match="0.01"):
        Bands.at(prevalence, 0.8, 0.3)


# -- sentences ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("score", "answer", "words"),
    [
        (0.9, "fake", "1.0 % of 750 real validation faces reached"),
        (0.1, "real", "5.0 % of 700 fake validation faces lay"),
        (0.5, "unsure", "lies between 0.300 and 0.800"),
    ],
)
def test_a_reason_says_where_the_score_lies(score: float, answer: str, words: str) -> None:
    found = judge_score(score, BANDS, POINTS)
    assert (found.answer, found.score, found.posterior) == (answer, score, score)
    assert f"{score:.3f}" in found.reason
    assert words in found.reason


def test_at_another_prevalence_the_reason_names_the_chance_and_bounds_the_rate() -> None:
    found = judge_score(0.999, Bands.at(0.01, 0.8, 0.3), POINTS)
    assert found.answer == "fake"
    assert "at most 1.0 %" in found.reason  # the threshold has risen: fewer reals reach it
    assert "prevalence of 0.01" in found.reason
    assert found.posterior is not None
    assert f"{found.posterior:.2g}" in found.reason


def test_doubt_wins_over_every_score() -> None:
    for score in (0.0, 0.5, 1.0):
        found = judge_score(score, BANDS, POINTS, "it was guessing")
        assert (found.answer, found.reason) == ("unsure", "it was guessing")


# -- stability ------------------------------------------------------------------------------------


def test_an_answer_that_does_not_hold_is_unsure() -> None:
    judged = judge_score(0.9, BANDS, POINTS)
    weak = Stability.of(0.9, {"JPEG 90": 0.85, "JPEG 50": 0.6, "half size": 0.2}, BANDS)
    assert (weak.low, weak.high) == (0.2, 0.9)
    assert weak.flips == ("JPEG 50", "half size")
    found = with_stability(judged, weak)
    assert found.answer == "unsure"
    assert found.score == 0.9
    assert "JPEG 50" in found.reason
    assert "fake as it came" in found.reason


def test_an_answer_that_holds_stays() -> None:
    judged = judge_score(0.9, BANDS, POINTS)
    firm = Stability.of(0.9, {"JPEG 90": 0.95, "JPEG 50": 0.8}, BANDS)
    assert firm.flips == ()
    assert with_stability(judged, firm) is judged
    assert with_stability(judged, None) is judged


def test_unsure_stays_unsure_with_its_own_reason() -> None:
    judged = judge_score(0.5, BANDS, POINTS)
    assert with_stability(judged, Stability.of(0.5, {"JPEG 50": 0.9}, BANDS)) is judged


# -- people ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fakes", "frames", "expected"),
    [(0, 20, "real"), (2, 20, "real"), (3, 20, "unsure"), (3, 60, "real"), (6, 60, "unsure")],
)
def test_who_looks_fake_in_part_of_the_frames_is_not_real(
    fakes: int, frames: int, expected: str
) -> None:
    found = with_frames(Judgement("real", "why", 0.2, 0.2), fakes, frames)
    assert found.answer == expected
    if expected == "unsure":
        assert f"{fakes} of them look fake" in found.reason


def test_frames_make_nobody_fake() -> None:
    for judged in (Judgement("unsure", "why", 0.5, 0.5), Judgement("fake", "why", 0.9, 0.9)):
        assert with_frames(judged, 30, 30) is judged


# -- the whole ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["real"], "real"),
        (["real", "unsure"], "unsure"),
        (["real", "unsure", "fake"], "fake"),
        (["not_applicable", "real"], "real"),
        (["not_applicable", "not_applicable"], "not_applicable"),
    ],
)
def test_the_whole_follows_from_its_parts(answers: list[Answer], expected: str) -> None:
    scores = {"real": 0.1, "unsure": 0.5, "fake": 0.9, "not_applicable": None}
    faces = [face(i, answer, scores[answer]) for i, answer in enumerate(answers, start=1)]
    for order in (faces, faces[::-1]):
        found = judge_whole(order, "face")
        assert found.answer == expected
        assert found.score == scores[expected]


def test_the_reason_names_the_face_that_decided_and_the_ones_left_out() -> None:
    faces = [
        face(1, "real", 0.1),
        face(2, "fake", 0.85),
        face(3, "fake", 0.95, "clearly"),
        face(4, "not_applicable", None),
    ]
    found = judge_whole(faces, "face")
    assert found.score == 0.95
    assert found.reason == "2 of 3 faces are fake, 1 could not be judged; face 3: clearly"
    alone = judge_whole([face(1, "real", 0.1, "well below")], "face")
    assert alone.reason == "well below"


def test_the_chance_of_a_false_alarm_grows_with_the_faces() -> None:
    assert chance_of_false_alarm(0.01, 1) == pytest.approx(0.01)
    assert chance_of_false_alarm(0.01, 30) == pytest.approx(0.2603, abs=1e-4)
    assert chance_of_false_alarm(0.0, 30) == 0


def test_the_schema_in_docs_is_that_of_the_code() -> None:
    path = Path(__file__).parents[1] / "docs" / "verdict.schema.json"
    assert json.loads(path.read_text(encoding="utf-8")) == verdict_schema(), "run: make schema"
