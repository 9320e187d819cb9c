from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from bonaface.calibration import (
    APCER_TARGET,
    BPCER_TARGET,
    Calibration,
    fit_calibration,
    fit_operating_points,
)


def simulated(n: int, slope: float, offset: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose true log odds are slope * logit + offset."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, n)
    return logits, (rng.random(n) < expit(slope * logits + offset)).astype(int)


# -- calibration ----------------------------------------------------------------------------------


def test_a_temperature_is_recovered() -> None:
    logits, labels = simulated(40_000, 0.4, 0.0)
    found = fit_calibration(logits, labels)
    assert found.kind == "temperature"
    assert found.offset == 0
    assert found.slope == pytest.approx(0.4, rel=0.03)


def test_slope_and_offset_are_recovered_and_platt_is_chosen() -> None:
    logits, labels = simulated(40_000, 0.7, 1.2)
    found = fit_calibration(logits, labels)
    assert found.kind == "platt"
    assert found.slope == pytest.approx(0.7, rel=0.03)
    # Both classes weigh the same, so the odds of the sample go out of the offset.
    odds = labels.sum() / (1 - labels).sum()
    assert odds > 1.5
    assert found.offset == pytest.approx(1.2 - math.log(odds), abs=0.05)


def test_platt_agrees_with_logistic_regression() -> None:
    logits, labels = simulated(5_000, 1.3, -0.8, seed=3)
    balanced = LogisticRegression(C=np.inf, tol=1e-8, class_weight="balanced")
    reference = balanced.fit(logits[:, None], labels)
    found = fit_calibration(logits, labels)
    # Platt's smoothed targets move the answer by about 1 / n.
    assert found.slope == pytest.approx(reference.coef_[0, 0], abs=0.01)
    assert found.offset == pytest.approx(reference.intercept_[0], abs=0.01)


@pytest.mark.parametrize(("reals", "fakes"), [(9_000, 1_000), (1_000, 9_000)])
def test_the_score_is_given_as_many_fakes_as_reals(reals: int, fakes: int) -> None:
    rng = np.random.default_rng(0)
    logits = np.concatenate([rng.normal(-1, 1, reals), rng.normal(1, 1, fakes)])
    labels = np.repeat([0, 1], [reals, fakes])
    # Two normals a distance of 2 apart: log likelihood ratio 2 * logit, so 0 is one half.
    found = fit_calibration(logits, labels)
    assert float(found(0.0)) == pytest.approx(0.5, abs=0.03)
    assert float(found(1.0)) == pytest.approx(expit(2.0), abs=0.02)


def test_far_logits_keep_their_order() -> None:
    logits = -np.arange(30.0, 700.0, 10.0)
    assert (np.diff(Calibration()(logits)) < 0).all()
    np.testing.assert_allclose(Calibration()(logits), expit(logits), rtol=1e-12)


@pytest.mark.parametrize("n", [100, 200, 500, 700, 1400, 2500])
def test_a_bpcer_of_exactly_one_percent_is_allowed(n: int) -> None:
    reals, fakes = np.linspace(0.0, 0.6, n), np.linspace(0.7, 0.9, n)
    scores = np.concatenate([reals, fakes])
    point = fit_operating_points(scores, np.repeat([0, 1], n))["fake_above"]
    assert point.bpcer == 0.01
    assert point.rule == "BPCER at most 1% on validation"


def test_too_few_reals_for_one_percent_is_said() -> None:
    point = fit_operating_points([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1])["fake_above"]
    assert point.bpcer == 0
    assert point.rule == "BPCER 0 on validation; too few (2) to tell 1%"


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_the_unit_of_the_logits_does_not_matter(scale: float) -> None:
    logits, labels = simulated(3_000, 0.7, 1.2, seed=5)
    one, other = fit_calibration(logits, labels), fit_calibration(logits * scale, labels)
    assert one.kind == other.kind
    np.testing.assert_allclose(other(logits * scale), one(logits), atol=1e-4)


def test_perfectly_separated_classes_give_a_finite_slope() -> None:
    logits = np.array([-50.0, -40, -30, -20, -10, 10, 20, 30, 40, 50])
    found = fit_calibration(logits, logits > 0)
    assert math.isfinite(found.slope)
    assert found.slope > 0
    scores = found(logits)
    assert (scores[5:] > 0.5).all()
    assert (scores[:5] < 0.5).all()
    assert scores.max() < 1 - 1e-6


def test_a_detector_that_knows_nothing_says_the_base_rate() -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random(20_000) < 0.5).astype(int)
    scores = fit_calibration(rng.normal(0, 5, 20_000), labels)(np.array([-5.0, 0.0, 5.0]))
    np.testing.assert_allclose(scores, 0.5, atol=0.05)


@pytest.mark.parametrize("offset", [0.0, 1.5])
def test_a_detector_worse_than_chance_is_not_turned_round(offset: float) -> None:
    logits, labels = simulated(4_000, -0.5, offset)
    found = fit_calibration(logits, labels)
    scores = found(np.sort(logits))
    assert found.slope > 0
    assert (np.diff(scores) > 0).all()
    base = labels.mean() if found.kind == "platt" else 0.5
    np.testing.assert_allclose(scores, base, atol=1e-3)


def test_constant_logits_are_calibrated_without_error() -> None:
    found = fit_calibration(np.full(40, 2.0), [0, 1] * 20)
    assert found([2.0])[0] == pytest.approx(0.5, abs=0.02)
    assert fit_calibration(np.zeros(10), [0, 1] * 5)([0.0])[0] == pytest.approx(0.5)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_tiny_validation_sets_work(n: int) -> None:
    found = fit_calibration([-1.0] * n + [1.0] * n, [0] * n + [1] * n)
    assert math.isfinite(found.slope)
    assert math.isfinite(found.offset)


def test_the_seed_fixes_the_folds() -> None:
    logits, labels = simulated(300, 0.5, 0.2)
    assert fit_calibration(logits, labels, seed=4) == fit_calibration(logits, labels, seed=4)


@given(
    hnp.arrays(np.float64, st.integers(1, 30), elements=st.floats(-1e6, 1e6)),
    st.floats(0, 100),
    st.floats(-50, 50),
)
def test_scores_are_probabilities_in_the_order_of_the_logits(
    logits: np.ndarray, slope: float, offset: float
) -> None:
    scores = Calibration("platt", slope, offset)(np.sort(logits))
    assert ((scores >= 0) & (scores <= 1)).all()
    assert (np.diff(scores) >= 0).all()
    np.testing.assert_allclose(scores, expit(slope * np.sort(logits) + offset), atol=1e-12)


# -- operating points -----------------------------------------------------------------------------

validation = st.integers(1, 60).flatmap(
    lambda n: st.tuples(
        hnp.arrays(
            np.float64,
            2 * n,
            # Few distinct values make ties, 0 and 1 included.
            elements=st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.25, 0.5, 1.0])),
        ),
        st.permutations([0, 1] * n),
    )
)


@settings(max_examples=200)
@given(validation)
def test_operating_points_obey_their_rules(data: tuple[np.ndarray, list[int]]) -> None:
    scores, labels = data[0], np.array(data[1])
    points = fit_operating_points(scores, labels)
    fakes, reals = scores[labels == 1], scores[labels == 0]
    for name, point in points.items():
        assert point.name == name
        assert point.apcer == pytest.approx((fakes < point.threshold).mean())
        assert point.bpcer == pytest.approx((reals >= point.threshold).mean())
        assert (point.n_fake, point.n_real) == (len(fakes), len(reals))
    assert points["fake_above"].bpcer <= BPCER_TARGET
    assert points["real_below"].apcer <= APCER_TARGET
    assert points["real_below"].threshold <= points["fake_above"].threshold
    best = min(
        (fakes < edge).mean() + (reals >= edge).mean()
        for edge in [*scores, np.nextafter(scores.max(), 2)]
    )
    assert points["balanced"].apcer + points["balanced"].bpcer == pytest.approx(best)


@settings(max_examples=100)
@given(validation)
def test_fake_above_is_not_higher_than_its_rule_asks(data: tuple[np.ndarray, list[int]]) -> None:
    """A lower threshold, one that calls one more score fake, would break the rule."""
    scores, labels = data[0], np.array(data[1])
    point = fit_operating_points(scores, labels)["fake_above"]
    lower = scores[scores < point.threshold]
    if len(lower):
        assert (scores[labels == 0] >= lower.max()).mean() > BPCER_TARGET


def test_separated_classes_leave_no_room_for_unsure() -> None:
    scores = np.concatenate([np.linspace(0.0, 0.3, 200), np.linspace(0.7, 1.0, 200)])
    points = fit_operating_points(scores, np.repeat([0, 1], 200))
    assert points["balanced"].threshold == pytest.approx(0.5)
    assert points["balanced"].apcer == points["balanced"].bpcer == 0
    assert points["real_below"].threshold <= points["fake_above"].threshold <= 0.7


def test_targets_are_used_up_where_classes_overlap() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 5_000)
    scores = expit(rng.normal(np.where(labels == 1, 1.5, -1.5), 1.5))
    points = fit_operating_points(scores, labels)
    assert 0.008 < points["fake_above"].bpcer <= 0.01
    assert 0.045 < points["real_below"].apcer <= 0.05
    assert points["real_below"].threshold < points["balanced"].threshold
    assert points["balanced"].threshold < points["fake_above"].threshold


def test_one_score_for_everything_is_never_called_fake() -> None:
    points = fit_operating_points([0.5] * 10, [0, 1] * 5)
    assert points["real_below"].threshold <= 0.5 < points["fake_above"].threshold


def test_scores_of_exactly_one_on_both_sides() -> None:
    """A saturated sigmoid: reals at 1.0 must not be called fake, so no score is."""
    points = fit_operating_points([0.0, 1.0, 1.0, 1.0], [0, 0, 1, 1])
    assert points["fake_above"].threshold > 1
    assert points["fake_above"].bpcer == 0
