from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import fisher_exact

from bonaface.fairness import gaps
from bonaface.metrics import COMBINED, slices
from bonaface.samples import Sample
from bonaface.scores import Scores


def people(*groups: tuple[str | None, str | None, int, int, int]) -> Scores:
    """(race, gender, label, people, wrongly judged ones) -> scores of 0.9 and 0.1."""
    rows, score = [], []
    for race, gender, label, count, wrong in groups:
        for i in range(count):
            rows.append(Sample(f"{len(rows)}.png", label, "test", race=race, gender=gender))
            score.append(0.9 if (label == 1) != (i < wrong) else 0.1)
    values = np.array(score)
    return Scores.of_samples(rows, np.log(values / (1 - values)), values)


def test_the_largest_gap_and_who_it_is_between() -> None:
    scores = people(("a", "x", 0, 50, 1), ("b", "x", 0, 50, 9), ("c", "y", 0, 50, 3))
    found = {(gap.key, gap.error): gap for gap in gaps(scores, 0.5)}
    assert set(found) == {("race", "bpcer"), ("gender", "bpcer"), (COMBINED, "bpcer")}
    gap = found["race", "bpcer"]
    assert gap.value == pytest.approx(8 / 50)
    assert (gap.lowest, gap.highest, gap.groups, gap.n) == ("a", "b", 3, 150)
    assert found[COMBINED, "bpcer"].highest == "b, x"
    assert 0.005 < gap.p < 0.05


def test_two_groups_are_fishers_test() -> None:
    scores = people(("a", None, 1, 60, 3), ("b", None, 1, 40, 9))
    (gap,) = gaps(scores, 0.5)
    assert gap.error == "apcer"
    # Both condition on the margins; with so few errors the orders of extremity agree but for ties.
    assert gap.p == pytest.approx(fisher_exact([[3, 57], [9, 31]]).pvalue, abs=0.02)


def test_chance_gives_p_values_that_are_even() -> None:
    rng = np.random.default_rng(0)
    found = []
    for i in range(200):
        wrong = rng.binomial(100, 0.1, 4)
        scores = people(
            *((name, None, 0, 100, int(n)) for name, n in zip("abcd", wrong, strict=True))
        )
        found.append(gaps(scores, 0.5, seed=i)[0].p)
    assert np.mean(np.array(found) <= 0.05) < 0.1
    assert 0.4 < np.mean(found) < 0.65


def test_no_errors_and_small_or_unknown_groups() -> None:
    (none,) = gaps(people(("a", None, 0, 30, 0), ("b", None, 0, 30, 0)), 0.5)
    assert (none.value, none.p) == (0.0, 1.0)
    assert (
        gaps(people(("a", None, 0, 90, 3), ("b", None, 0, 29, 9), (None, None, 0, 90, 9)), 0.5)
        == []
    )


def test_it_is_the_same_again() -> None:
    scores = people(("a", "x", 0, 50, 1), ("b", "y", 1, 50, 9), ("b", "x", 0, 40, 4))
    assert gaps(scores, 0.5, seed=3) == gaps(scores, 0.5, seed=3)


def test_race_and_gender_together_are_slices() -> None:
    scores = people(("a", "x", 0, 40, 4), ("a", "y", 0, 40, 8), ("b", None, 0, 40, 1))
    by = {(one.key, one.value): one for one in slices(scores, 0.5, resamples=40)}
    assert by[COMBINED, "a, y"].figures is not None
    assert by[COMBINED, "a, y"].figures["bpcer"].value == pytest.approx(0.2)
    assert by[COMBINED, "(unknown)"].n_real == 40
