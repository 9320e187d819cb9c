"""Which detector is better, on the same samples, and how sure that is.

Three looks at each pair, because each sees what the others miss: McNemar's test on the decisions at
the operating point that each detector brings; DeLong's test on the AUC; and differences of figures
with intervals from draws of whole groups. The two tests take samples as independent, which images
of one person or video are not, so a difference counts as shown only when test *and* interval say
so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bonaface.errors import MissingExtraError, ScoresError
from bonaface.files import write_json, write_text
from bonaface.metrics import FIGURES, Array, Figure, figures_of, interval, replicates
from bonaface.scores import Scores, paired

try:
    from scipy import stats
except ImportError as error:
    raise MissingExtraError("comparing detectors", "train") from error

SCHEMA_VERSION = 1
DIFFERENCES = ("accuracy", "balanced_accuracy", "f1", "auc", "ap", "brier")
_ALPHA = 0.05
_EXACT_BELOW = 25


@dataclass(frozen=True, slots=True)
class Entry:
    """A detector as it comes to the comparison: its scores and its own operating point."""

    name: str
    scores: Scores
    threshold: float


@dataclass(frozen=True, slots=True)
class Contender:
    """A detector's own figures, as `metrics.figures` gives them."""

    name: str
    threshold: float
    figures: dict[str, Figure]


@dataclass(frozen=True, slots=True)
class McNemar:
    """McNemar's test (1947): are the two right equally often?

    Attributes:
        first_only: samples that only the first detector decides rightly.
        second_only: samples that only the second decides rightly.
        statistic: chi-square, 1 degree of freedom; None for the exact test.
        p: two-sided.
        p_holm: `p` corrected over all pairs compared (Holm 1979).
        method: "exact binomial" for fewer than 25 discordant samples, else "chi-square with
            continuity correction" (Edwards 1948).
    """

    first_only: int
    second_only: int
    statistic: float | None
    p: float
    p_holm: float
    method: str


@dataclass(frozen=True, slots=True)
class DeLong:
    """DeLong's test (1988): are the two AUCs equal? It assumes independent samples.

    Attributes:
        difference: AUC of the first less that of the second; None where AUC is undefined.
        standard_error: of the difference.
        z: difference / standard_error; None where the error is 0.
        p: two-sided; None where there is no test.
        p_holm: `p` corrected over all pairs that have one (Holm 1979).
        reason: why something is None.
    """

    difference: float | None
    standard_error: float | None
    z: float | None
    p: float | None
    p_holm: float | None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """Two detectors compared; every difference is first less second.

    A difference is shown when the corrected p is below 0.05 and 0 lies outside the interval over
    groups.

    Attributes:
        first: name of the first.
        second: name of the second.
        differences: per figure of `DIFFERENCES`, with the interval from paired draws of groups.
            For brier less is better, for the rest more.
        mcnemar: on the decisions.
        delong: on the AUC.
        better_auc: name of the one whose AUC was shown to be higher, or None.
        better_accuracy: name of the one shown to decide rightly more often, or None.
        sentence: the result in words.
    """

    first: str
    second: str
    differences: dict[str, Figure]
    mcnemar: McNemar
    delong: DeLong
    better_auc: str | None
    better_accuracy: str | None
    sentence: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """All contenders, in the order given, and all pairs of them."""

    n_real: int
    n_fake: int
    n_groups: int
    resamples: int
    seed: int
    contenders: tuple[Contender, ...]
    pairs: tuple[Pair, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def compare(entries: Sequence[Entry], *, resamples: int = 1000, seed: int = 0) -> Comparison:
    """Compare every pair of `entries`, joined by path.

    Args:
        entries: two or more detectors, with different names, scored on the same samples.
        resamples: draws of groups for each interval; 0 or at least 40. Without intervals no
            difference counts as shown.
        seed: of the draws, which are the same for every detector.

    Raises:
        ScoresError: fewer than two entries, a name twice, different samples, or no samples.
    """
    joined = _joined(entries)
    samples = joined[0].scores
    fake = samples.label == 1
    groups = samples.groups()
    n_groups = int(np.unique(groups).size)
    n_both = min(int(np.unique(groups[mask]).size) for mask in (fake, ~fake))
    draws = [replicates(e.scores, e.threshold, resamples=resamples, seed=seed) for e in joined]
    own = [figures_of(d, e.scores, e.threshold) for d, e in zip(draws, joined, strict=True)]
    right = [(e.scores.score >= e.threshold) == fake for e in joined]
    contenders = tuple(Contender(e.name, e.threshold, f) for e, f in zip(joined, own, strict=True))
    pairs = []
    for a, b in combinations(range(len(joined)), 2):
        differences = {
            name: _difference(
                draws[a][name] - draws[b][name],
                own[a][name],
                own[b][name],
                n_groups if name in ("accuracy", "brier") else n_both,
            )
            for name in DIFFERENCES
        }
        decided = mcnemar(right[a], right[b])
        ranked = delong(fake, joined[a].scores.logit, joined[b].scores.logit)
        pairs.append(
            Pair(joined[a].name, joined[b].name, differences, decided, ranked, None, None, "")
        )
    by_name = {c.name: c for c in contenders}
    return Comparison(
        n_real=int((~fake).sum()),
        n_fake=int(fake.sum()),
        n_groups=n_groups,
        resamples=resamples,
        seed=seed,
        contenders=contenders,
        pairs=_concluded(pairs, by_name),
    )


def _concluded(pairs: Sequence[Pair], contenders: Mapping[str, Contender]) -> tuple[Pair, ...]:
    """The pairs with p-values corrected over all of them, and what follows from those."""
    decided = holm([pair.mcnemar.p for pair in pairs])
    tested = [(k, p) for k, pair in enumerate(pairs) if (p := pair.delong.p) is not None]
    corrected = dict(zip((k for k, _ in tested), holm([p for _, p in tested]), strict=True))
    out = []
    for k, pair in enumerate(pairs):
        done = replace(
            pair,
            mcnemar=replace(pair.mcnemar, p_holm=decided[k]),
            delong=replace(pair.delong, p_holm=corrected.get(k)),
            better_auc=_better(pair, "auc", corrected.get(k)),
            better_accuracy=_better(pair, "accuracy", decided[k]),
        )
        sentence = _sentence(done, contenders, len(tested), len(pairs))
        out.append(replace(done, sentence=sentence))
    return tuple(out)


def mcnemar(first_right: npt.NDArray[np.bool_], second_right: npt.NDArray[np.bool_]) -> McNemar:
    """McNemar's test on two (n,) columns that say where each detector decided rightly."""
    first_only = int((first_right & ~second_right).sum())
    second_only = int((~first_right & second_right).sum())
    discordant = first_only + second_only
    if discordant < _EXACT_BELOW:
        p = float(stats.binomtest(first_only, discordant).pvalue) if discordant else 1.0
        return McNemar(first_only, second_only, None, p, p, "exact binomial")
    statistic = max(abs(first_only - second_only) - 1, 0) ** 2 / discordant
    p = float(stats.chi2.sf(statistic, 1))
    method = "chi-square with continuity correction"
    return McNemar(first_only, second_only, statistic, p, p, method)


def delong(fake: npt.NDArray[np.bool_], first: Array, second: Array) -> DeLong:
    """DeLong's test that two columns, (n,) each, of logits or scores have one AUC.

    `fake`, (n,), are the labels. The samples are taken as independent. Where they come in groups, p
    is too small.
    """
    fakes = int(fake.sum())
    reals = len(fake) - fakes
    if min(fakes, reals) < 2:
        have = f"{fakes} fakes and {reals} reals"
        return DeLong(None, None, None, None, None, f"needs 2 samples of each class, has {have}")
    beats, beaten = auc_components(fake, np.stack([first, second]))
    difference = float(beats[0].mean() - beats[1].mean())
    variance = float(
        np.var(beats[0] - beats[1], ddof=1) / fakes + np.var(beaten[0] - beaten[1], ddof=1) / reals
    )
    # Far below what one pair ranked differently among a million would leave.
    if variance > 1e-30:
        error = math.sqrt(variance)
        p = float(2 * stats.norm.sf(abs(difference) / error))
        return DeLong(difference, error, difference / error, p, p)
    if abs(difference) < 1e-12:
        return DeLong(0.0, 0.0, None, 1.0, 1.0, "both rank the samples alike")
    return DeLong(difference, 0.0, None, None, None, "the estimated variance is 0")


def auc_components(fake: npt.NDArray[np.bool_], scores: Array) -> tuple[Array, Array]:
    """What each sample adds to the AUC (DeLong, DeLong & Clarke-Pearson 1988).

    Computed from midranks in O(k n log n), after Sun & Xu (2014).

    Args:
        fake: (n,) labels, with at least one fake and one real.
        scores: (k, n), a row for each detector.

    Returns:
        For each fake the share of reals it outscores, (k, fakes), and for each real the share of
        fakes that outscore it, (k, reals); ties count half. The mean of either is the AUC.
    """
    ranks = stats.rankdata(scores, axis=1)
    fakes, reals = ranks[:, fake], ranks[:, ~fake]
    beats = (fakes - stats.rankdata(scores[:, fake], axis=1)) / reals.shape[1]
    beaten = 1 - (reals - stats.rankdata(scores[:, ~fake], axis=1)) / fakes.shape[1]
    return beats, beaten


def holm(values: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down correction of p-values, in the order given."""
    out = [1.0] * len(values)
    floor = 0.0
    for rank, i in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        floor = max(floor, min(1.0, (len(values) - rank) * values[i]))
        out[i] = floor
    return out


def _joined(entries: Sequence[Entry]) -> list[Entry]:
    if len(entries) < 2:
        raise ScoresError(f"a comparison needs at least 2 entries, got {len(entries)}")
    names = [e.name for e in entries]
    for name in names:
        if names.count(name) > 1:
            raise ScoresError(f"two entries are named {name!r}; give each its own name")
    if len(entries[0].scores) == 0:
        raise ScoresError(f"{names[0]!r} holds no samples; there is nothing to compare")
    reference = entries[0].scores
    others = []
    for entry in entries[1:]:
        try:
            # The reference may learn its groups from any of the others.
            reference, other = paired(reference, entry.scores)
        except ScoresError as error:
            raise ScoresError(f"{names[0]!r} and {entry.name!r}: {error}") from error
        others.append(replace(entry, scores=other))
    return [
        replace(entries[0], scores=reference),
        *(replace(e, scores=paired(reference, e.scores)[1]) for e in others),
    ]


def _difference(draws: Array, first: Figure, second: Figure, n_groups: int) -> Figure:
    for figure in (first, second):
        if figure.value is None:
            return Figure(None, None, None, figure.n, figure.reason)
    low, high, reason = interval(draws[1:], n_groups)
    if low is not None and high is not None and high - low < 1e-12:
        low, high, reason = None, None, "the same in every resample"
    return Figure(float(draws[0]), low, high, first.n, reason)


def _better(pair: Pair, name: str, p: float | None) -> str | None:
    """The better of the two by figure `name`, where test and interval agree that there is one."""
    difference = pair.differences[name]
    if p is None or p >= _ALPHA or difference.low is None or difference.high is None:
        return None
    if difference.low > 0:
        return pair.first
    return pair.second if difference.high < 0 else None


def _sentence(pair: Pair, by_name: Mapping[str, Contender], tests: int, pairs: int) -> str:
    ranked = _outcome(pair, by_name, "auc", pair.better_auc)
    if (p := pair.delong.p_holm) is not None:
        ranked += f", {_tested(p, 'DeLong', tests, pair.better_auc)}"
    elif pair.differences["auc"].value is not None:
        ranked += f", no DeLong test ({pair.delong.reason})"
    decided = _outcome(pair, by_name, "accuracy", pair.better_accuracy)
    test = f"McNemar, {pair.mcnemar.method}"
    decided += f", {_tested(pair.mcnemar.p_holm, test, pairs, pair.better_accuracy)}"
    return f"{ranked}; in decisions, each at its own threshold, {decided}."


def _outcome(pair: Pair, by_name: Mapping[str, Contender], name: str, better: str | None) -> str:
    """Who is better by figure `name`, with the numbers, seen from the better one."""
    difference = pair.differences[name]
    ahead, behind = by_name[pair.first], by_name[pair.second]
    if better == pair.second:
        ahead, behind, difference = behind, ahead, _negated(difference)
    if better:
        opening = f"{ahead.name} is better than {behind.name}"
    else:
        between = f"Between {ahead.name} and {behind.name} " if name == "auc" else ""
        opening = f"{between}no difference could be shown"
    label = "AUC" if name == "auc" else name
    if difference.value is None:
        return f"{opening}: {label} is undefined ({difference.reason})"
    values = f"{ahead.figures[name].value:.3f} against {behind.figures[name].value:.3f}"
    return f"{opening}: {label} {values}, difference {difference}"


def _tested(p: float, test: str, count: int, better: str | None) -> str:
    corrected = f", Holm-corrected over {count} pairs" if count > 1 else ""
    text = f"{_p(p)} ({test}{corrected})"
    if better is None and p < _ALPHA:
        text += ", which takes samples as independent and is not borne out by the interval"
    return text


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _negated(figure: Figure) -> Figure:
    # The ends change places.
    value, low, high = (None if v is None else -v for v in (figure.value, figure.high, figure.low))
    return Figure(value, low, high, figure.n, figure.reason)


def write_comparison(comparison: Comparison, out_dir: Path) -> None:
    """Write `comparison.json` and `comparison.md` into `out_dir`, which is made if need be."""
    document = {"schema_version": SCHEMA_VERSION, **comparison.to_dict()}
    write_json(out_dir / "comparison.json", document)
    write_text(out_dir / "comparison.md", _markdown(comparison))


def _markdown(comparison: Comparison) -> str:
    contenders = comparison.contenders
    lines = [
        "# Comparison",
        "",
        f"{comparison.n_real} real and {comparison.n_fake} fake samples in {comparison.n_groups} "
        f"groups. Intervals: 95 %, from {comparison.resamples} draws of groups "
        f"(seed {comparison.seed}).",
        "",
        "## Each detector, at its own operating point",
        "",
        *_table(
            ["figure", *(f"{c.name} (threshold {c.threshold:.4g})" for c in contenders)],
            [
                [name.replace("_", " "), *(str(c.figures[name]) for c in contenders)]
                for name in FIGURES
            ],
        ),
        "",
        "## Differences, first less second",
        "",
        *_table(
            [
                "first",
                "second",
                *(name.replace("_", " ") for name in DIFFERENCES),
                "DeLong p (Holm)",
                "McNemar p (Holm)",
            ],
            [
                [
                    pair.first,
                    pair.second,
                    *(str(pair.differences[name]) for name in DIFFERENCES),
                    _p(pair.delong.p_holm) if pair.delong.p_holm is not None else "no test",
                    _p(pair.mcnemar.p_holm),
                ]
                for pair in comparison.pairs
            ],
        ),
        "",
        "## In words",
        "",
        *(f"- {_cell(pair.sentence)}" for pair in comparison.pairs),
        "",
    ]
    return "\n".join(lines)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    body = ["| " + " | ".join(map(_cell, row)) + " |" for row in (header, *rows)]
    return [body[0], "|" + " --- |" * len(header), *body[1:]]


def _cell(text: str) -> str:
    """A name may hold anything, but must neither break out of its cell nor become markup."""
    return re.sub(r"([\\`*_|]|<(?=\S)|(?<=\])\()", r"\\\1", " ".join(text.split()))
