import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chi2

from bonaface.compare import (
    DIFFERENCES,
    Entry,
    auc_components,
    compare,
    delong,
    holm,
    mcnemar,
    write_comparison,
)
from bonaface.errors import ScoresError
from bonaface.metrics import FIGURES, figures
from bonaface.scores import Scores


def table(label, score, group=None):
    label, score = np.asarray(label), np.asarray(score, dtype=float)
    paths = tuple(f"{i:05d}" for i in range(len(label)))
    meta = {"group": group} if group is not None else {}
    return Scores(paths, label, score, score, meta)


def simulated(strength, n=300, seed=0, label_seed=0, group=None):
    label = np.random.default_rng(label_seed).integers(0, 2, n)
    noise = np.random.default_rng(seed).normal(size=n)
    return table(label, 1 / (1 + np.exp(-(strength * (label - 0.5) + noise))), group)


def entry(name, scores, threshold=0.5):
    return Entry(name, scores, threshold)


# -- McNemar --------------------------------------------------------------------------------------


def columns(both, first_only, second_only, neither):
    cells = [(1, 1)] * both + [(1, 0)] * first_only + [(0, 1)] * second_only + [(0, 0)] * neither
    return np.array(cells, dtype=bool).T


@pytest.mark.parametrize(
    ("cells", "statistic", "p"),
    [
        # Agresti, Categorical Data Analysis: approval ratings, 1600 voters.
        ((794, 150, 86, 570), (64 - 1) ** 2 / 236, 4.115e-05),
        # The same marginal change from fewer discordant pairs.
        ((101, 121, 59, 33), 20.672, 5.450e-06),
    ],
)
def test_mcnemar_with_many_discordant_pairs(cells, statistic, p):
    got = mcnemar(*columns(*cells))
    assert got.statistic == pytest.approx(statistic, rel=1e-4)
    assert got.p == pytest.approx(p, rel=1e-3)
    assert got.p == pytest.approx(chi2.sf(got.statistic, 1))
    assert got.method == "chi-square with continuity correction"
    assert (got.first_only, got.second_only) == cells[1:3]


def test_mcnemar_with_few_discordant_pairs_is_exact():
    # Armitage & Berry (1994), p. 127: two media for growing tubercle bacilli.
    got = mcnemar(*columns(20, 12, 2, 16))
    assert got.p == pytest.approx(0.0129, abs=5e-5)
    assert (got.statistic, got.method) == (None, "exact binomial")
    # 24 discordant pairs are the last exact case.
    assert mcnemar(*columns(0, 20, 4, 0)).p == pytest.approx(binomtest(4, 24).pvalue)
    assert mcnemar(*columns(0, 21, 4, 0)).statistic == pytest.approx(16**2 / 25)


def test_mcnemar_without_discordant_pairs_or_with_as_many_each_way_shows_nothing():
    assert mcnemar(*columns(10, 0, 0, 5)).p == 1
    assert mcnemar(*columns(0, 5, 5, 0)).p == 1
    even = mcnemar(*columns(0, 50, 50, 0))
    assert (even.statistic, even.p) == (0, 1)


# -- DeLong ---------------------------------------------------------------------------------------


def slow_delong(label, first, second):
    """AUCs and variance of their difference, as the paper of 1988 writes them."""

    def psi(x, y):
        return 1.0 if y < x else 0.5 if y == x else 0.0

    v10, v01 = [], []
    for score in (first, second):
        x = [s for s, y in zip(score, label, strict=True) if y == 1]
        y = [s for s, y in zip(score, label, strict=True) if y == 0]
        v10.append([sum(psi(a, b) for b in y) / len(y) for a in x])
        v01.append([sum(psi(a, b) for a in x) / len(x) for b in y])
    auc = [sum(v) / len(v) for v in v10]
    s = np.zeros((2, 2))
    for v, size in ((v10, len(v10[0])), (v01, len(v01[0]))):
        for r in range(2):
            for t in range(2):
                terms = zip(v[r], v[t], strict=True)
                s[r, t] += sum((a - auc[r]) * (b - auc[t]) for a, b in terms) / (size - 1) / size
    return auc, s[0, 0] + s[1, 1] - 2 * s[0, 1]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=12),
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=12),
)
def test_delong_is_the_formula_of_1988(fakes, reals):
    label = np.array([1] * len(fakes) + [0] * len(reals))
    first, second = np.array(fakes + reals, dtype=float).T
    auc, variance = slow_delong(label, first, second)
    got = delong(label == 1, first, second)
    assert got.difference == pytest.approx(auc[0] - auc[1], abs=1e-12)
    assert got.standard_error == pytest.approx(np.sqrt(max(variance, 0)), abs=1e-7)
    beats, beaten = auc_components(label == 1, np.stack([first, second]))
    assert beats.mean(axis=1) == pytest.approx(auc)
    assert beaten.mean(axis=1) == pytest.approx(auc)


def test_delong_variance_of_the_readings_of_hanley_and_mcneil():
    # Hanley & McNeil (1982), table I: 58 normal and 51 abnormal scans, rated 1 to 5. Stata's manual
    # ([R] roctab) gives area 0.8932 and, after DeLong, standard error 0.0307.
    rating = np.repeat([1, 2, 3, 4, 5, 1, 2, 3, 4, 5], [33, 6, 6, 11, 2, 3, 2, 2, 11, 33])
    abnormal = np.repeat([False, True], [58, 51])
    beats, beaten = auc_components(abnormal, rating[None].astype(float))
    error = np.sqrt(beats.var(ddof=1) / 51 + beaten.var(ddof=1) / 58)
    assert beats.mean() == pytest.approx(0.8932, abs=5e-5)
    assert error == pytest.approx(0.0307, abs=5e-5)


def test_delong_p_is_uniform_where_there_is_no_difference():
    rng = np.random.default_rng(0)
    label = np.repeat([False, True], 60)
    p = []
    for _ in range(400):
        common = rng.normal(size=120) + label
        p.append(delong(label, common + rng.normal(size=120), common + rng.normal(size=120)).p)
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.033)
    assert np.mean(p) == pytest.approx(0.5, abs=0.05)


def test_delong_of_detectors_that_rank_alike_has_p_1():
    label = np.repeat([False, True], 20)
    score = np.random.default_rng(0).uniform(size=40)
    for other in (score, score**3):
        got = delong(label, score, other)
        assert (got.difference, got.p, got.z) == (0, 1, None)


def test_delong_says_why_it_has_no_test():
    perfect = delong(np.array([0, 0, 1, 1], dtype=bool), np.array([0.0, 0, 1, 1]), np.zeros(4))
    assert (perfect.difference, perfect.p) == (0.5, None)
    assert perfect.reason == "the estimated variance is 0"
    lonely = delong(np.array([0, 0, 1], dtype=bool), np.zeros(3), np.zeros(3))
    assert lonely.p is None
    assert "1 fakes and 2 reals" in lonely.reason


# -- Holm -----------------------------------------------------------------------------------------


def test_holm_by_hand():
    # 4 x 0.005 = 0.02; 3 x 0.01 = 0.03; 2 x 0.03 = 0.06; 1 x 0.04 is below its forerunner: 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_no_correction_and_bonferroni_and_keeps_the_order(p):
    got = holm(p)
    for a, b in zip(p, got, strict=True):
        assert a <= b <= min(1, a * len(p)) or b == pytest.approx(max(a, min(1, a * len(p))))
    ranked = [got[i] for i in np.argsort(p, kind="stable")]
    assert ranked == sorted(ranked)


# -- the comparison -------------------------------------------------------------------------------


def test_saturated_scores_are_compared_by_their_logits():
    label = np.random.default_rng(0).integers(0, 2, 300)
    paths = tuple(f"{i:05d}" for i in range(300))
    logits = [
        60 + strength * label + np.random.default_rng(seed).normal(size=300)
        for seed, strength in ((1, 3.0), (2, 0.5))
    ]
    good, poor = (Scores(paths, label, 1 / (1 + np.exp(-x)), x) for x in logits)
    (pair,) = compare([entry("good", good), entry("poor", poor)]).pairs
    assert pair.better_auc == "good"
    assert pair.better_accuracy is None


def test_a_plainly_better_detector_is_called_better_wherever_it_stands():
    good, bad = entry("good", simulated(4)), entry("bad", simulated(0.5, seed=1))
    for entries in ([good, bad], [bad, good]):
        (pair,) = compare(entries, resamples=200).pairs
        assert (pair.better_auc, pair.better_accuracy) == ("good", "good")
        assert pair.sentence.startswith("good is better than bad: AUC 0.9")
        assert "difference 0." in pair.sentence
        assert "p < 0.001 (DeLong);" in pair.sentence
        sign = 1 if entries[0] is good else -1
        assert sign * pair.differences["auc"].value > 0
        assert sign * pair.differences["brier"].value < 0


def test_differences_are_those_of_the_figures_and_turn_around_with_the_pair():
    a, b = entry("a", simulated(2), 0.4), entry("b", simulated(1, seed=1), 0.7)
    forth = compare([a, b], resamples=200)
    back = compare([b, a], resamples=200)
    for name in DIFFERENCES:
        own = [figures(e.scores, e.threshold, resamples=200)[name] for e in (a, b)]
        one, other = forth.pairs[0].differences[name], back.pairs[0].differences[name]
        assert one.value == pytest.approx(own[0].value - own[1].value)
        assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
        assert one.low < one.value < one.high
    assert forth.contenders[0].figures == figures(a.scores, 0.4, resamples=200)
    assert forth.pairs[0].delong.p == pytest.approx(back.pairs[0].delong.p)
    assert forth.pairs[0].mcnemar.p == pytest.approx(back.pairs[0].mcnemar.p)


def test_the_paired_interval_of_independent_samples_agrees_with_delong():
    shared = np.random.default_rng(5).normal(size=800)
    label = np.repeat([0, 1], 400)
    rng = np.random.default_rng(6)
    scores = [
        table(label, 1 / (1 + np.exp(-(k * label + shared + rng.normal(size=800)))))
        for k in (1.6, 1.2)
    ]
    (pair,) = compare([entry("a", scores[0]), entry("b", scores[1])]).pairs
    auc = pair.differences["auc"]
    assert (auc.high - auc.low) / (2 * 1.96) == pytest.approx(pair.delong.standard_error, rel=0.1)
    # Unpaired draws would be wider: what both find hard cancels.
    own = [figures(s, 0.5)["auc"] for s in scores]
    unpaired = np.hypot(*(f.high - f.low for f in own))
    assert auc.high - auc.low < 0.85 * unpaired


def test_copies_within_groups_fool_the_tests_but_not_the_verdict():
    a, b = simulated(1.2, n=60, seed=1), simulated(1.2, n=60, seed=2)
    copies = 40
    group = tuple(np.repeat(np.arange(60), copies).astype(str))
    many = [table(np.repeat(s.label, copies), np.repeat(s.score, copies), group) for s in (a, b)]
    (few_pair,) = compare([entry("a", a), entry("b", b)]).pairs
    (pair,) = compare([entry("a", many[0]), entry("b", many[1])]).pairs
    assert few_pair.better_auc is None
    assert pair.delong.z / few_pair.delong.z == pytest.approx(np.sqrt(copies), rel=0.03)
    assert pair.delong.p < 0.001 < 0.05 < few_pair.delong.p
    assert pair.differences["auc"].low == pytest.approx(few_pair.differences["auc"].low)
    assert pair.better_auc is None
    assert pair.sentence.startswith("Between a and b no difference could be shown: AUC")
    assert "takes samples as independent and is not borne out" in pair.sentence


def test_the_same_scores_twice_give_p_1_and_no_crash():
    scores = simulated(1)
    (pair,) = compare([entry("a", scores), entry("b", scores)], resamples=100).pairs
    assert pair.delong.p == pair.mcnemar.p == pair.delong.p_holm == 1
    assert pair.better_auc is pair.better_accuracy is None
    auc = pair.differences["auc"]
    assert (auc.value, auc.low, auc.reason) == (0, None, "the same in every resample")
    assert "no difference could be shown" in pair.sentence


def test_p_values_are_corrected_over_all_pairs_of_one_kind():
    entries = [entry(f"d{k}", simulated(k, seed=k)) for k in (1, 2, 3)]
    got = compare(entries, resamples=100)
    assert [(p.first, p.second) for p in got.pairs] == [("d1", "d2"), ("d1", "d3"), ("d2", "d3")]
    assert [p.delong.p_holm for p in got.pairs] == holm([p.delong.p for p in got.pairs])
    assert [p.mcnemar.p_holm for p in got.pairs] == holm([p.mcnemar.p for p in got.pairs])
    assert all("(DeLong, Holm-corrected over 3 pairs)" in p.sentence for p in got.pairs)


def test_a_pair_without_a_test_does_not_count_in_the_correction():
    label = np.repeat([0, 1], 20)
    perfect = entry("perfect", table(label, label))
    constant = entry("constant", table(label, label * 0 + 0.5))
    fair = entry("fair", table(label, simulated(1, n=40).score))
    got = {(p.first, p.second): p for p in compare([perfect, constant, fair], resamples=100).pairs}
    untested = got["perfect", "constant"]
    assert untested.delong.p_holm is None
    assert "no DeLong test (the estimated variance is 0)" in untested.sentence
    tested = [got["perfect", "fair"].delong, got["constant", "fair"].delong]
    assert [t.p_holm for t in tested] == holm([t.p for t in tested])
    assert "DeLong, Holm-corrected over 2 pairs" in got["perfect", "fair"].sentence


def test_each_detector_brings_its_own_threshold():
    # The second scores everything lower by half, and so does its threshold: the same decisions.
    scores = simulated(1)
    halved = table(scores.label, scores.score / 2)
    (pair,) = compare([entry("a", scores, 0.5), entry("b", halved, 0.25)], resamples=100).pairs
    assert (pair.mcnemar.first_only, pair.mcnemar.second_only, pair.delong.p) == (0, 0, 1)


def test_fakes_alone_are_compared_by_their_decisions():
    label = [1] * 60
    a, b = table(label, [0.9] * 50 + [0.1] * 10), table(label, [0.9] * 20 + [0.1] * 40)
    (pair,) = compare([entry("a", a), entry("b", b)], resamples=200).pairs
    assert pair.better_accuracy == "a"
    assert pair.better_auc is None
    assert pair.differences["auc"].reason == "no real samples"
    assert "AUC is undefined (no real samples); in decisions" in pair.sentence


def test_without_intervals_nothing_counts_as_shown():
    entries = [entry("a", simulated(4)), entry("b", simulated(0.5, seed=1))]
    (pair,) = compare(entries, resamples=0).pairs
    assert pair.delong.p < 0.001
    assert pair.better_auc is None


def test_groups_known_to_one_table_hold_for_all():
    group = tuple(str(i // 10) for i in range(300))
    entries = [
        entry("a", simulated(1)),
        entry("b", simulated(2, seed=1)),
        entry("c", simulated(3, seed=2, group=group)),
    ]
    got = compare(entries, resamples=100)
    assert got.n_groups == 30
    expected = figures(simulated(1, group=group), 0.5, resamples=100)
    assert got.contenders[0].figures == expected


def test_different_samples_are_refused_by_name():
    a = simulated(1)
    b = a.where(np.arange(300) != 7)
    with pytest.raises(ScoresError, match=r"'a' and 'b': .*1 of the first .*'00007'"):
        compare([entry("a", a), entry("b", b)])
    with pytest.raises(ScoresError, match=r"'a' and 'b': .*label of"):
        compare([entry("a", a), entry("b", simulated(1, label_seed=9))])


def test_too_few_entries_and_names_given_twice_are_refused():
    with pytest.raises(ScoresError, match="at least 2 entries, got 1"):
        compare([entry("a", simulated(1))])
    with pytest.raises(ScoresError, match="two entries are named 'a'"):
        compare([entry("a", simulated(1)), entry("a", simulated(2))])
    with pytest.raises(ScoresError, match="'a' holds no samples"):
        compare([entry("a", table([], [])), entry("b", table([], []))])


def test_the_written_comparison_can_be_read_by_machines_and_people(tmp_path):
    entries = [
        entry("cnn|v1", simulated(2)),
        entry("[x](http://e) <b>", simulated(1, seed=1)),
        entry("same", simulated(2)),
    ]
    got = compare(entries, resamples=100)
    write_comparison(got, tmp_path / "new" / "folder")
    document = json.loads((tmp_path / "new" / "folder" / "comparison.json").read_text())
    assert document.pop("schema_version") == 1
    assert document == json.loads(json.dumps(got.to_dict()))
    assert document["pairs"][0]["differences"]["auc"]["value"] > 0
    page = (tmp_path / "new" / "folder" / "comparison.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(FIGURES) + 2 + 3
    # A bar in a name must not open a column.
    bars = [line.replace("\\|", "").count("|") for line in rows]
    assert set(bars[: 2 + len(FIGURES)]) == {5}
    assert set(bars[2 + len(FIGURES) :]) == {len(DIFFERENCES) + 5}
    assert "](http" not in page
    assert "\\<b>" in page
    assert got.pairs[1].sentence.replace("cnn|v1", "cnn\\|v1") in page
