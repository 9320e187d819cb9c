import json
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics as sk

from bonaface.errors import ConfigError, ScoresError
from bonaface.metrics import (
    FIGURES,
    Figure,
    apcer_by_generator,
    confusion,
    det,
    figures,
    interval,
    precision_recall,
    reliability,
    replicates,
    roc,
    slices,
)
from bonaface.scores import Scores


def make(label, score, names=None, **meta):
    label, score = np.asarray(label), np.asarray(score, dtype=float)
    names = names or tuple(f"{i:06d}" for i in range(len(label)))
    return Scores(names, label, score, score, meta)


def simulated(n=400, seed=0, ties=False, strength=1.5, **meta):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    score = 1 / (1 + np.exp(-rng.normal(strength * label)))
    return make(label, np.round(score, 1) if ties else score, **meta)


def values(scores, threshold=0.5):
    return {k: f.value for k, f in figures(scores, threshold, resamples=0).items()}


def eer_by_hand(label, score):
    """Where the ROC polygon of scikit-learn crosses the falling diagonal."""
    fpr, tpr, _ = sk.roc_curve(label, score, drop_intermediate=False)
    for i in range(1, len(fpr)):
        if fpr[i] + tpr[i] >= 1:
            rise = fpr[i] + tpr[i] - fpr[i - 1] - tpr[i - 1]
            return fpr[i - 1] + (fpr[i] - fpr[i - 1]) * (1 - fpr[i - 1] - tpr[i - 1]) / rise
    raise AssertionError


def reference(label, score, threshold, weight=None):
    """Every figure that scikit-learn knows, from scikit-learn."""
    called = score >= threshold
    kw = {"sample_weight": weight}
    bpcer = 1 - sk.recall_score(label, called, pos_label=0, **kw)
    fpr, tpr, _ = sk.roc_curve(label, score, drop_intermediate=False, **kw)
    return {
        "accuracy": sk.accuracy_score(label, called, **kw),
        "balanced_accuracy": sk.balanced_accuracy_score(label, called, **kw),
        "precision": sk.precision_score(label, called, **kw),
        "recall": sk.recall_score(label, called, **kw),
        "f1": sk.f1_score(label, called, **kw),
        "auc": sk.roc_auc_score(label, score, **kw),
        "ap": sk.average_precision_score(label, score, **kw),
        "apcer": 1 - sk.recall_score(label, called, **kw),
        "bpcer": bpcer,
        "tpr_at_fpr_1": tpr[fpr <= 0.01 + 1e-12].max(),
        "brier": sk.brier_score_loss(label, score, **kw),
    }


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.9])
def test_figures_are_those_of_scikit_learn(ties, threshold):
    scores = simulated(ties=ties)
    got = values(scores, threshold)
    for name, value in reference(scores.label, scores.score, threshold).items():
        assert got[name] == pytest.approx(value, abs=1e-12), name
    assert got["eer"] == pytest.approx(eer_by_hand(scores.label, scores.score), abs=1e-12)
    assert tuple(got) == FIGURES


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5)), min_size=2, max_size=30))
def test_small_tables_full_of_ties_agree_too(rows):
    label, score = np.array(rows).T
    assume(0 < label.sum() < len(label))
    score = score / 5
    got = values(make(label, score))
    assert got["auc"] == pytest.approx(sk.roc_auc_score(label, score))
    assert got["ap"] == pytest.approx(sk.average_precision_score(label, score))
    assert got["eer"] == pytest.approx(eer_by_hand(label, score))
    assert got["brier"] == pytest.approx(sk.brier_score_loss(label, score))
    assert got["f1"] == pytest.approx(sk.f1_score(label, score >= 0.5, zero_division=0))


def test_a_draw_weighs_rows_as_scikit_learn_weighs_samples():
    # The draws are made again here, one by one, from the same generator.
    group = tuple(f"g{i % 37}" for i in range(300))
    scores = simulated(300, ties=True, group=group)
    draws = replicates(scores, 0.5, resamples=40, seed=7)
    drawn = np.random.default_rng(7).integers(37, size=(40, 37))
    for r in range(40):
        weight = np.bincount(drawn[r], minlength=37)[scores.groups()]
        for name, value in reference(scores.label, scores.score, 0.5, weight).items():
            assert draws[name][r + 1] == pytest.approx(value, abs=1e-9), name


def test_draws_do_not_depend_on_how_many_rows_are_worked_on_at_a_time(monkeypatch):
    scores = simulated(200)
    whole = replicates(scores, 0.5, resamples=50)
    monkeypatch.setattr("bonaface.metrics._CELLS", 1400)
    parts = replicates(scores, 0.5, resamples=50)
    for name in FIGURES:
        assert len(whole[name]) == len(parts[name]) == 51
        assert whole[name][0] == parts[name][0]
    assert np.std(parts["auc"]) == pytest.approx(np.std(whole["auc"]), rel=0.5)


@given(st.randoms(use_true_random=False))
@settings(max_examples=15, deadline=None)
def test_the_order_of_rows_changes_nothing(random):
    base = simulated(60, ties=True, group=tuple(f"g{i // 3}" for i in range(60)))
    order = list(range(60))
    random.shuffle(order)
    mixed = make(
        base.label[order],
        base.score[order],
        tuple(base.path[i] for i in order),
        group=tuple(base.meta["group"][i] for i in order),
    )
    assert figures(mixed, 0.5, resamples=60) == figures(base, 0.5, resamples=60)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 8)), min_size=2, max_size=40))
def test_swapped_labels_turn_auc_around_and_swapped_scores_turn_it_back(rows):
    label, score = np.array(rows).T
    assume(0 < label.sum() < len(label))
    auc = values(make(label, score / 8))["auc"]
    assert values(make(1 - label, score / 8))["auc"] == pytest.approx(1 - auc)
    both = values(make(1 - label, 1 - score / 8))
    assert both["auc"] == pytest.approx(auc)
    assert both["eer"] == pytest.approx(values(make(label, score / 8))["eer"])


@pytest.mark.parametrize(
    ("label", "score", "eer"),
    [
        ([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], 0),
        ([1, 1, 0, 0], [0.1, 0.2, 0.8, 0.9], 1),
        ([0, 1, 0, 1], [0.5] * 4, 0.5),
        ([0, 0, 0, 0, 1, 1, 1, 1], [0.1, 0.2, 0.3, 0.7, 0.6, 0.8, 0.9, 1.0], 0.25),
        # (FPR, TPR): (0, 1/2), (1/2, 1/2), (1/2, 1): met at FPR 1/2.
        ([0, 0, 1, 1], [0.2, 0.7, 0.5, 0.9], 0.5),
        # Two tied in the middle: the step from (0, 1/2) to (1/2, 1) meets FPR = 1 - TPR at 1/4.
        ([0, 0, 1, 1], [0.2, 0.5, 0.5, 0.9], 0.25),
    ],
)
def test_eer_in_closed_cases(label, score, eer):
    assert values(make(label, score))["eer"] == pytest.approx(eer)


def test_scores_that_saturate_are_ranked_by_their_logits():
    rng = np.random.default_rng(3)
    label = rng.integers(0, 2, 400)
    logit = 60 + rng.normal(label, size=400)
    score = 1 / (1 + np.exp(-logit))
    assert np.unique(score).size == 1
    scores = Scores(tuple(f"{i:03d}" for i in range(400)), label, score, logit)
    got = values(scores)
    assert got["auc"] == pytest.approx(sk.roc_auc_score(label, logit), abs=1e-12)
    assert got["ap"] == pytest.approx(sk.average_precision_score(label, logit), abs=1e-12)
    assert got["eer"] == pytest.approx(eer_by_hand(label, logit), abs=1e-12)
    assert got["bpcer"] == 1
    fpr, tpr, _ = sk.roc_curve(label, logit, drop_intermediate=False)
    assert got["tpr_at_fpr_1"] == pytest.approx(tpr[fpr <= 0.01].max(), abs=1e-12)
    np.testing.assert_allclose(roc(scores).x, fpr)
    np.testing.assert_allclose(roc(scores).y, tpr)
    assert set(roc(scores).threshold) == {None, 1.0}


def test_eer_of_two_normals_is_the_known_one():
    # Equal variances, means 2 apart: EER = Phi(-1).
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1], 20_000)
    score = 1 / (1 + np.exp(-rng.normal(2 * label)))
    assert values(make(label, score))["eer"] == pytest.approx(0.158655, abs=0.005)


def test_a_score_at_the_threshold_is_a_decision_for_fake():
    got = confusion(make([1, 1, 0, 0, 0], [0.5, 0.4, 0.5, 0.49, 0.1]), 0.5)
    assert got.to_dict() == {"tp": 1, "fp": 1, "tn": 2, "fn": 1}


def test_tpr_at_fpr_counts_false_positives_exactly():
    # 200 reals allow 2 false positives at 1 %; the third false positive comes before fake no. 4.
    ranked = [1, 0, 1, 0, 1, 0, 1, *[0] * 197]
    scores = make(ranked, np.linspace(0.9, 0.1, len(ranked)))
    got = figures(scores, 0.5, resamples=0)
    assert got["tpr_at_fpr_1"].value == pytest.approx(3 / 4)
    assert got["tpr_at_fpr_01"].value is None
    assert got["tpr_at_fpr_01"].reason == "needs at least 1000 real samples, there are 200"


def test_ece_by_hand():
    # 15 bins of 2 rows; in each the mean score is known and the share of fakes is 0, 1/2 or 1.
    score = np.repeat(np.arange(15) / 15, 2)
    label = np.array([0] * 10 + [0, 1] * 5 + [1] * 10)
    gap = [abs(b / 15 - (0 if b < 5 else 0.5 if b < 10 else 1)) for b in range(15)]
    assert values(make(label, score))["ece"] == pytest.approx(np.mean(gap))


def test_ece_keeps_equal_scores_in_one_bin():
    # Half fakes at one score of 0.5 is perfect calibration, wherever bins of equal mass would cut.
    assert values(make([0, 1] * 50, [0.5] * 100))["ece"] == 0
    bins = reliability(make([0, 1] * 50 + [1] * 3, [0.5] * 100 + [0.9] * 3))
    assert bins.count.sum() == 103
    assert bins.predicted[0] == pytest.approx(0.5)


# -- undefined figures ----------------------------------------------------------------------------


def test_fakes_alone_give_recall_and_no_auc():
    got = figures(make([1] * 40, np.linspace(0.1, 0.9, 40)), 0.5)
    assert got["recall"].value == got["accuracy"].value == 0.5
    assert got["apcer"].low is not None
    assert got["recall"].n == 40
    for name in ("balanced_accuracy", "precision", "f1", "auc", "ap", "eer", "tpr_at_fpr_1"):
        assert (got[name].value, got[name].reason) == (None, "no real samples")
    assert (got["bpcer"].value, got["bpcer"].n) == (None, 0)


def test_reals_alone_give_bpcer_and_no_recall():
    got = figures(make([0] * 40, np.linspace(0.1, 0.9, 40)), 0.5)
    assert got["bpcer"].value == 0.5
    assert got["recall"].reason == got["auc"].reason == got["f1"].reason == "no fake samples"
    assert got["brier"].value is not None


def test_precision_without_a_positive_decision_is_undefined_and_f1_is_0():
    got = figures(make([0, 1] * 30, [0.1, 0.2] * 30), 0.5)
    assert (got["precision"].value, got["precision"].n) == (None, 0)
    assert got["precision"].reason == "no sample was called fake"
    assert got["f1"].value == got["recall"].value == 0
    assert got["apcer"].value == 1


def test_an_empty_table_has_no_figures_and_says_why():
    got = figures(make([], []), 0.5)
    assert {f.value for f in got.values()} == {None}
    assert {f.reason for f in got.values()} == {"no samples"}


def test_few_groups_have_no_interval():
    scores = simulated(300, group=tuple(f"g{i % 9}" for i in range(300)))
    got = figures(scores, 0.5)["auc"]
    assert got.value is not None
    assert (got.low, got.high) == (None, None)
    assert "at least 10 groups, has 9" in got.reason


def test_the_groups_counted_are_those_the_figure_is_about():
    # 200 groups of fakes, 3 of reals, and 4 rows called fake.
    label = np.array([1] * 200 + [0] * 60)
    score = np.where(np.arange(260) < 4, 0.9, 0.1)
    group = tuple(f"f{i}" if i < 200 else f"r{i % 3}" for i in range(260))
    got = figures(make(label, score, group=group), 0.5)
    assert got["recall"].low is not None
    for name, has in (("bpcer", 3), ("auc", 3), ("precision", 4)):
        assert got[name].low is None
        assert f"has {has}" in got[name].reason


def test_an_interval_that_many_draws_do_not_define_is_withheld():
    # One draw in e misses the only group of reals.
    label = np.array([0] * 30 + [1] * 300)
    group = tuple("r" if y == 0 else f"f{i}" for i, y in enumerate(label))
    draws = replicates(make(label, np.linspace(0, 1, 330), group=group), 0.5)["auc"]
    assert 0.3 < np.isnan(draws).mean() < 0.45
    low, high, reason = interval(draws[1:], 50)
    assert (low, high) == (None, None)
    assert "of the resamples" in reason


@pytest.mark.parametrize("threshold", [math.nan, math.inf])
def test_a_threshold_that_is_no_number_is_refused(threshold):
    with pytest.raises(ScoresError, match="finite"):
        figures(simulated(20), threshold)


def test_too_few_resamples_are_refused_and_none_are_allowed():
    with pytest.raises(ConfigError, match="at least 40"):
        figures(simulated(20), 0.5, resamples=10)
    got = figures(simulated(20), 0.5, resamples=0)["accuracy"]
    assert got.low is None
    assert "no resamples" in got.reason


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 3), st.integers(0, 15)),
        min_size=1,
        max_size=40,
    ),
    st.sampled_from([0.0, 0.4, 1.0]),
)
def test_no_figure_is_ever_nan_or_without_width(rows, threshold):
    label, score, group = np.array(rows).T
    scores = make(label, score / 3, group=tuple(map(str, group)))
    for figure in figures(scores, threshold, resamples=60).values():
        if figure.value is None:
            assert figure.reason
            assert figure.low is figure.high is None
        elif figure.low is None:
            assert figure.reason
        else:
            assert 0 <= figure.low <= figure.value <= figure.high <= 1
            assert figure.high - figure.low > 1e-9
        json.dumps(figure.to_dict(), allow_nan=False)


# -- intervals ------------------------------------------------------------------------------------


def test_rows_copied_into_their_groups_do_not_narrow_the_interval():
    once = simulated(300, group=tuple(f"g{i:03d}" for i in range(300)))
    label, score = np.repeat(once.label, 4), np.repeat(once.score, 4)
    grouped = make(label, score, group=tuple(np.repeat(once.meta["group"], 4)))
    loose = make(label, score)
    a, b, c = (figures(s, 0.5) for s in (once, grouped, loose))
    for name in ("accuracy", "balanced_accuracy", "precision", "f1", "auc", "eer", "brier"):
        assert b[name].value == pytest.approx(a[name].value)
        assert b[name].low == pytest.approx(a[name].low)
        assert b[name].high == pytest.approx(a[name].high)
        # Taken for 1200 independent rows, they would feign half the uncertainty.
        width = (c[name].high - c[name].low) / (a[name].high - a[name].low)
        assert 0.4 < width < 0.62, name


def test_a_spotless_figure_has_the_exact_binomial_interval_over_groups():
    label = np.repeat([0, 1], 60)
    group = tuple(f"{y}{i % 20}" for i, y in enumerate(label))
    got = figures(make(label, label * 0.8 + 0.1, group=group), 0.5)
    exact = binomtest(20, 20).proportion_ci(method="exact")
    for name in ("recall", "balanced_accuracy", "auc", "ap", "f1"):
        assert got[name].value == 1
        assert (got[name].low, got[name].high) == pytest.approx((exact.low, 1))
    assert (got["apcer"].low, got["apcer"].high) == pytest.approx((0, 1 - exact.low))
    everyone = binomtest(40, 40).proportion_ci(method="exact")
    assert got["accuracy"].low == pytest.approx(everyone.low)


def test_the_same_error_rate_in_every_group_still_has_an_interval():
    # Each of 20 groups holds one right and one wrong: the bootstrap never moves from 1/2.
    scores = make([1, 1] * 20, [0.9, 0.1] * 20, group=tuple(f"g{i // 2}" for i in range(40)))
    exact = binomtest(10, 20).proportion_ci(method="exact")
    got = figures(scores, 0.5)["recall"]
    assert (got.value, got.low, got.high) == pytest.approx((0.5, exact.low, exact.high))


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """Groups of 6 rows alike in label and shift: 95 % over groups, far less over rows."""
    names = ("accuracy", "auc", "recall", "eer", "brier")

    def draw(rng, groups=80):
        label = np.repeat(np.arange(groups) % 2, 6)
        shift = np.repeat(rng.normal(size=groups), 6)
        z = rng.normal(size=6 * groups) * 0.5 + shift + 1.5 * (label - 0.5)
        return label, 1 / (1 + np.exp(-z)), tuple(np.repeat(np.arange(groups), 6).astype(str))

    rng = np.random.default_rng(3)
    label, score, _ = draw(rng, 50_000)
    truth = values(make(label, score))
    runs = 80
    over_groups, over_rows = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for seed in range(runs):
        label, score, group = draw(rng)
        for hits, scores in (
            (over_groups, make(label, score, group=group)),
            (over_rows, make(label, score)),
        ):
            got = figures(scores, 0.5, resamples=200, seed=seed)
            for name in names:
                hits[name] += got[name].low <= truth[name] <= got[name].high
    for name in names:
        # Three standard errors about 95 %, and a little for the percentile method itself.
        assert over_groups[name] / runs >= 0.87, (name, over_groups)
        assert over_rows[name] / runs < 0.75, (name, over_rows)


@pytest.mark.parametrize("true_ece", [0, 0.15])
def test_the_interval_of_ece_covers_the_truth(true_ece):
    # The plug-in ECE of a perfectly calibrated score is never 0: a percentile interval misses 0.
    covered = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        chance = rng.uniform(size=500) * (1 - true_ece)
        label = rng.uniform(size=500) < chance
        got = figures(make(label, chance + true_ece), 0.5, resamples=200)["ece"]
        assert got.low <= got.value <= got.high
        covered += got.low <= true_ece + 1e-12 <= got.high
    assert covered >= 50


# -- generators and slices ------------------------------------------------------------------------


def labelled():
    """60 reals; 40 fakes of gan (a quarter missed), 35 of diffusion (all missed), 5 of swap."""
    label = [0] * 60 + [1] * 80
    generator = (None,) * 60 + ("gan",) * 40 + ("diffusion",) * 35 + ("swap",) * 5
    score = [0.3] * 60 + [0.9, 0.9, 0.9, 0.2] * 10 + [0.1] * 35 + [0.8] * 5
    age = ("young",) * 30 + ("old",) * 30 + ("young",) * 78 + (None,) * 2
    return make(label, score, generator=generator, age=age)


def test_apcer_is_given_per_generator_and_the_worst_is_named():
    got = apcer_by_generator(labelled(), 0.5)
    assert {k: f.value for k, f in got.by_generator.items()} == {
        "diffusion": 1.0,
        "gan": 0.25,
        "swap": 0.0,
    }
    assert got.worst == "diffusion"
    assert got.by_generator["gan"].n == 40
    assert got.by_generator["gan"].low < 0.25 < got.by_generator["gan"].high
    assert got.by_generator["swap"].low is None
    # The headline figure is over all fakes.
    assert figures(labelled(), 0.5)["apcer"].value == pytest.approx(45 / 80)


def test_fakes_of_unknown_origin_are_one_generator_and_no_fakes_are_none():
    assert list(apcer_by_generator(simulated(80), 0.5).by_generator) == ["(unknown)"]
    none = apcer_by_generator(make([0] * 20, [0.1] * 20), 0.5)
    assert none.to_dict() == {"by_generator": {}, "worst": None}


def test_slices_by_generator_set_its_fakes_against_all_reals():
    found = {(s.key, s.value): s for s in slices(labelled(), 0.5)}
    gan = found["generator", "gan"]
    assert (gan.n_real, gan.n_fake) == (0, 40)
    assert list(gan.figures) == ["recall", "apcer", "auc"]
    assert gan.figures["auc"].value == pytest.approx(0.75)
    assert gan.figures["auc"].n == 100
    assert gan.figures["recall"].n == 40
    assert gan.figures["apcer"] == apcer_by_generator(labelled(), 0.5).by_generator["gan"]
    swap = found["generator", "swap"]
    assert swap.figures is None
    assert "5 samples, fewer than 30" in swap.reason


def test_slices_of_people_have_all_figures_and_unknown_columns_none():
    found = slices(labelled(), 0.5)
    assert {s.key for s in found} == {"generator", "age"}
    by_age = {s.value: s for s in found if s.key == "age"}
    assert sorted(by_age) == ["(unknown)", "old", "young"]
    assert (by_age["young"].n_real, by_age["young"].n_fake) == (30, 78)
    young = labelled().where(np.array([a == "young" for a in labelled().meta["age"]]))
    assert by_age["young"].figures == figures(young, 0.5)
    assert by_age["old"].figures["auc"].reason == "no fake samples"
    assert by_age["old"].figures["bpcer"].value == 0
    assert by_age["(unknown)"].figures is None
    json.dumps([s.to_dict() for s in found], allow_nan=False)


# -- curves ---------------------------------------------------------------------------------------


def test_short_curves_are_those_of_scikit_learn():
    scores = simulated(120, ties=True)
    fpr, tpr, cut = sk.roc_curve(scores.label, scores.score, drop_intermediate=False)
    got = roc(scores)
    assert got.x == pytest.approx(fpr)
    assert got.y == pytest.approx(tpr)
    assert got.threshold[0] is None
    assert got.threshold[1:] == pytest.approx(cut[1:])
    precision, recall, cut = sk.precision_recall_curve(scores.label, scores.score)
    got = precision_recall(scores)
    assert got.x == pytest.approx(recall[-2::-1])
    assert got.y == pytest.approx(precision[-2::-1])
    assert got.threshold == pytest.approx(cut[::-1])
    got = det(scores)
    assert got.x == pytest.approx(fpr)
    assert got.y == pytest.approx(1 - tpr)
    json.dumps(got.to_dict(), allow_nan=False)


@pytest.mark.parametrize("curve", [roc, det, precision_recall])
def test_long_curves_are_thinned_and_keep_their_points(curve):
    scores = simulated(20_000)
    got = curve(scores)
    assert 250 < len(got.x) <= 502
    assert len(got.x) == len(got.y) == len(got.threshold)
    for i in (1, len(got.x) // 2, len(got.x) - 1):
        c = confusion(scores, got.threshold[i])
        expected = {
            roc: (c.fp / (c.fp + c.tn), c.tp / (c.tp + c.fn)),
            det: (c.fp / (c.fp + c.tn), c.fn / (c.tp + c.fn)),
            precision_recall: (c.tp / (c.tp + c.fn), c.tp / (c.tp + c.fp)),
        }[curve]
        assert (got.x[i], got.y[i]) == pytest.approx(expected)
    if curve is roc:
        area = np.trapezoid(got.y, got.x)
        assert area == pytest.approx(values(scores)["auc"], abs=1e-4)


def test_curves_need_both_classes():
    for curve in (roc, det, precision_recall):
        with pytest.raises(ScoresError, match="needs fakes and reals; the table holds 3 fakes"):
            curve(make([1] * 3, [0.5] * 3))
    with pytest.raises(ScoresError, match="empty"):
        reliability(make([], []))


def test_reliability_bins_hold_equal_mass_and_tell_the_truth():
    rng = np.random.default_rng(1)
    score = rng.uniform(size=30_000) ** 2
    got = reliability(make(rng.uniform(size=30_000) < score, score))
    assert len(got.count) == 15
    assert np.abs(got.count - 2000).max() <= 1
    assert got.predicted == pytest.approx(got.observed, abs=0.035)
    json.dumps(got.to_dict())


def test_a_figure_reads_as_one_phrase():
    assert str(Figure(0.5, 0.4, 0.6, 10)) == "0.500 [0.400, 0.600]"
    assert str(Figure(None, None, None, 0, "no samples")) == "undefined (no samples)"
    assert str(Figure(0.5, None, None, 3, "few")) == "0.500 (no interval: few)"
