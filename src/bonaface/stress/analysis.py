"""What the scores of clean, corrupted and attacked pictures say together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bonaface.bundle import Bundle
from bonaface.compare import delong, holm, mcnemar
from bonaface.evaluate import DataFacts, DetectorFacts, Evaluation, Unreadable, answers
from bonaface.metrics import Array, Figure, differences, figures_of, interval, replicates
from bonaface.scores import Scores, paired
from bonaface.verdict import Bands

Kind = Literal["delivery", "corruption", "attack"]
Direction = Literal["hide", "smear"]

SCHEMA_VERSION = 1
RESAMPLES = 1000
_ALPHA = 0.05
_BOTH: Final[tuple[Direction, ...]] = ("hide", "smear")


@dataclass(frozen=True, slots=True)
class Condition:
    """What was done to the pictures.

    Attributes:
        kind: delivery (`bonaface.corruptions.DELIVERIES`), corruption or attack.
        name: of it.
        level: a corruption's severity, 1 to 5; an attack's budget in 1/255; 0 for a delivery.
        source: the detector that an attack was made on, where it is not the one that is measured.
    """

    kind: Kind
    name: str
    level: float = 0
    source: str | None = None

    def __str__(self) -> str:
        text = self.name if self.kind == "delivery" else f"{self.name} {self.level:g}"
        return text if self.source is None else f"{text}, made on {self.source}"


@dataclass(frozen=True, slots=True)
class Drop:
    """A condition against the clean pictures, the same ones.

    Attributes:
        differences: auc, apcer and bpcer, condition less clean, with intervals from paired draws
            of groups.
        p_auc: DeLong's test (1988), Holm-corrected over all conditions of a detector; None: none.
        p_decisions: McNemar's test (1947) on the decisions, corrected likewise.
        worse_auc: the AUC was shown to be lower: interval and test agree.
    """

    differences: dict[str, Figure]
    p_auc: float | None
    p_decisions: float
    worse_auc: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """A detector under one condition.

    Attributes:
        condition: what was done.
        direction: of an attack: "hide", where the fakes were attacked and the reals left as they
            were, or "smear", the other way round; None elsewhere.
        figures: of `bonaface.metrics.FIGURES`, at the same threshold as clean.
        answers: by class ("real", "fake"), how many get each of the words fake, unsure, real.
        drop: against clean.
        inside: share of pictures whose score lies in the stability range of the clean picture;
            None for deliveries, which the range is made of, and for attacks.
    """

    condition: Condition
    direction: Direction | None
    figures: dict[str, Figure]
    answers: dict[str, dict[str, int]]
    drop: Drop
    inside: Figure | None


@dataclass(frozen=True, slots=True)
class Fragile:
    """A picture that is decided rightly when clean and wrongly under a mild change.

    Attributes:
        path: of the sample.
        label: 1 fake, 0 real.
        condition: the mildest corruption that turns the decision.
        clean: score of the clean picture.
        changed: score under the condition.
        turned: by how many of all corruptions and severities the decision is turned.
    """

    path: str
    label: int
    condition: Condition
    clean: float
    changed: float
    turned: int


@dataclass(frozen=True, slots=True)
class Check:
    """Something that must hold if an attack is worth its name (Carlini et al. 2019).

    Attributes:
        claim: what must hold.
        holds: whether it does.
        found: the figures behind it.
    """

    claim: str
    holds: bool
    found: str


@dataclass(frozen=True, slots=True)
class Cost:
    """What an attack needs.

    Attributes:
        attack: its name.
        budget: in 1/255.
        gradients: forward and backward passes, a picture.
        queries: forward passes besides, a picture.
        seconds: a picture, on the machine that ran it.
    """

    attack: str
    budget: float
    gradients: float
    queries: float
    seconds: float


@dataclass(frozen=True, eq=False)
class Stressed:
    """One detector under all conditions.

    Attributes:
        detector: facts from its card.
        clean: its evaluation on the clean pictures.
        stable: share of clean pictures whose word (fake, unsure, real) holds over all deliveries.
        held: of the pictures whose word is held by all deliveries, the share of corrupted copies,
            by severity, that get the same word; and the same of the other pictures.
        outcomes: by condition.
        fragile: the most fragile pictures, first those that turn most often.
        checks: of the attacks on it.
        costs: of the attacks on it.
        attacked: figures of the clean pictures among those that were attacked; None: none was.
    """

    detector: DetectorFacts
    clean: Evaluation
    stable: Figure
    held: dict[int, tuple[Figure, Figure]]
    outcomes: tuple[Outcome, ...]
    fragile: tuple[Fragile, ...]
    checks: tuple[Check, ...]
    costs: tuple[Cost, ...]
    attacked: dict[str, Figure] | None

    @property
    def name(self) -> str:
        """Of the detector."""
        return self.detector.name

    def of(self, kind: Kind) -> tuple[Outcome, ...]:
        """The outcomes of one kind of condition."""
        return tuple(one for one in self.outcomes if one.condition.kind == kind)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "detector": asdict(self.detector),
            "threshold": self.clean.threshold,
            "clean": {name: asdict(figure) for name, figure in self.clean.figures.items()},
            "stable": asdict(self.stable),
            "held": {
                str(severity): {"stable": asdict(held), "others": asdict(others)}
                for severity, (held, others) in self.held.items()
            },
            "outcomes": [asdict(one) for one in self.outcomes],
            "fragile": [asdict(one) for one in self.fragile],
            "checks": [asdict(one) for one in self.checks],
            "costs": [asdict(one) for one in self.costs],
            "attacked": self.attacked and {k: asdict(v) for k, v in self.attacked.items()},
        }


@dataclass(frozen=True, eq=False)
class Stress:
    """What breaks some detectors, on the same pictures.

    Attributes:
        data: what was scored.
        settings: of the command.
        detectors: in the order given.
        unreadable: pictures that no detector could be shown.
        notes: what a reader must know before quoting a figure.
    """

    data: DataFacts
    settings: dict[str, Any]
    detectors: tuple[Stressed, ...]
    unreadable: tuple[Unreadable, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "schema_version": SCHEMA_VERSION,
            "data": asdict(self.data),
            "settings": self.settings,
            "detectors": [one.to_dict() for one in self.detectors],
            "unreadable": [asdict(one) for one in self.unreadable],
            "notes": list(self.notes),
            "resamples": RESAMPLES,
        }


@dataclass(frozen=True, eq=False)
class Tables:
    """The scores of one detector.

    Attributes:
        clean: its evaluation on the clean pictures.
        bundle: its bundle.
        changed: by condition; attacks may be of fewer pictures.
        unbounded: an attack that may change pixels as it likes, and its scores; None: not made.
        costs: of the attacks on it.
        norms: of every attack, by name, and whether it sees the network's gradients.
    """

    clean: Evaluation
    bundle: Bundle
    changed: Mapping[Condition, Scores]
    unbounded: tuple[Condition, Scores] | None
    costs: tuple[Cost, ...]
    norms: Mapping[str, tuple[str, bool]]


class _Pair(NamedTuple):
    """Clean scores and those of the same pictures changed, with the draws of both."""

    before: Scores
    after: Scores
    draws: dict[str, Array]
    changed: dict[str, Array]


def analyse(tables: Tables, shown: int = 8) -> Stressed:
    """What the tables of one detector say; `shown` is the number of fragile pictures."""
    clean, bundle = tables.clean, tables.bundle
    draws: dict[int, dict[str, Array]] = {}
    ranges = _ranges(clean.scores, tables.changed)
    drafts = []
    for condition, scores in tables.changed.items():
        before = _of_same(clean.scores, scores)
        if len(before) not in draws:
            draws[len(before)] = _draws(before, clean.threshold)
        directions: Sequence[Direction | None] = _BOTH if condition.kind == "attack" else (None,)
        for direction in directions:
            after = scores if direction is None else _one_sided(before, scores, direction)
            pair = _Pair(before, after, draws[len(before)], _draws(after, clean.threshold))
            drafts.append((condition, direction, pair))
    drops = _drops([pair for *_, pair in drafts], clean.threshold)
    outcomes = tuple(
        Outcome(
            condition,
            direction,
            figures_of(pair.changed, pair.after, clean.threshold),
            answers(pair.after, bundle),
            drop,
            _inside(pair.after, ranges) if condition.kind == "corruption" and ranges else None,
        )
        for (condition, direction, pair), drop in zip(drafts, drops, strict=True)
    )
    high, low = (bundle.operating_point(n).threshold for n in ("fake_above", "real_below"))
    stable, held = _held(clean.scores, tables.changed, Bands.at(0.5, high, low))
    attacked = next((pair for one, _, pair in drafts if one.kind == "attack"), None)
    return Stressed(
        clean.detector,
        clean,
        stable,
        held,
        outcomes,
        _fragile(clean.scores, tables.changed, clean.threshold, shown),
        _checks(tables),
        tables.costs,
        None if attacked is None else figures_of(attacked.draws, attacked.before, clean.threshold),
    )


def _draws(scores: Scores, threshold: float) -> dict[str, Array]:
    return replicates(scores, threshold, resamples=RESAMPLES)


def _of_same(clean: Scores, changed: Scores) -> Scores:
    """The clean scores of the pictures of `changed`, row by row."""
    known = set(changed.path)
    return paired(clean.where(np.array([path in known for path in clean.path])), changed)[0]


def _one_sided(clean: Scores, attacked: Scores, direction: Direction) -> Scores:
    """Attacked are the fakes (hide) or the reals (smear); the others stay as they were."""
    chosen = attacked.label == (direction == "hide")
    return Scores(
        clean.path,
        clean.label,
        np.where(chosen, attacked.score, clean.score),
        np.where(chosen, attacked.logit, clean.logit),
        clean.meta,
    )


def _drops(pairs: Sequence[_Pair], threshold: float) -> list[Drop]:
    """Of each pair; the tests are corrected over all of them."""
    ranked, decided, moved = [], [], []
    for before, after, draws, changed in pairs:
        fake = before.label == 1
        ranked.append(delong(fake, after.logit, before.logit).p)
        right = [(scores.score >= threshold) == fake for scores in (before, after)]
        decided.append(mcnemar(*right).p)
        moved.append(differences(before, draws, changed))
    tested = [at for at, p in enumerate(ranked) if p is not None]
    corrected = dict(zip(tested, holm([p for p in ranked if p is not None]), strict=True))
    return [
        Drop(found, corrected.get(at), p, _lower(found["auc"], corrected.get(at)))
        for at, (found, p) in enumerate(zip(moved, holm(decided), strict=True))
    ]


def _lower(difference: Figure, p: float | None) -> bool:
    return p is not None and p < _ALPHA and difference.high is not None and difference.high < 0


# -- the stability range --


def _ranges(
    clean: Scores, changed: Mapping[Condition, Scores]
) -> dict[str, tuple[float, float]] | None:
    """By path: the lowest and highest score over the clean picture and its deliveries."""
    delivered = [scores for one, scores in changed.items() if one.kind == "delivery"]
    if not delivered:
        return None
    every = np.stack([clean.score, *(paired(clean, scores)[1].score for scores in delivered)])
    return dict(zip(clean.path, zip(every.min(0), every.max(0), strict=True), strict=True))


def _inside(scores: Scores, ranges: Mapping[str, tuple[float, float]]) -> Figure:
    hits = [
        ranges[path][0] <= score <= ranges[path][1]
        for path, score in zip(scores.path, scores.score.tolist(), strict=True)
    ]
    return _share(np.array(hits, np.float64), scores.groups())


def _share(values: Array, groups: NDArray[np.intp]) -> Figure:
    """Mean of a value a picture, in [0, 1], with an interval from draws of groups."""
    n = len(values)
    if not n:
        return Figure(None, None, None, 0, "no such pictures")
    _, place = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(place, values), np.bincount(place)
    many = len(counts)
    drawn = np.random.default_rng(0).multinomial(many, np.full(many, 1 / many), RESAMPLES)
    low, high, reason = interval(drawn @ sums / (drawn @ counts), many)
    value = float(values.mean())
    if low is None or high is None:
        return Figure(value, None, None, n, reason)
    return Figure(value, min(low, value), max(high, value), n)


def _held(
    clean: Scores, changed: Mapping[Condition, Scores], bands: Bands
) -> tuple[Figure, dict[int, tuple[Figure, Figure]]]:
    """How many pictures keep their word over all deliveries, and how corrupted copies fare."""
    said = _words(clean, bands)
    groups = clean.groups()
    stable = np.ones(len(clean), bool)
    for condition, scores in changed.items():
        if condition.kind == "delivery":
            stable &= _words(paired(clean, scores)[1], bands) == said
    by_severity: dict[int, list[NDArray[np.bool_]]] = {}
    for condition, scores in changed.items():
        if condition.kind == "corruption":
            same = _words(paired(clean, scores)[1], bands) == said
            by_severity.setdefault(int(condition.level), []).append(same)
    held = {}
    for severity, found in sorted(by_severity.items()):
        each = np.mean(found, axis=0)
        held[severity] = (
            _share(each[stable], groups[stable]),
            _share(each[~stable], groups[~stable]),
        )
    return _share(stable.astype(np.float64), groups), held


def _words(scores: Scores, bands: Bands) -> NDArray[np.str_]:
    return np.array([bands.answer(score) for score in scores.score.tolist()])


# -- the pictures and the attacks --


def _fragile(
    clean: Scores, changed: Mapping[Condition, Scores], threshold: float, shown: int
) -> tuple[Fragile, ...]:
    """Pictures whose right decision is turned most often."""
    corrupted = sorted(
        (
            (one, paired(clean, scores)[1].score)
            for one, scores in changed.items()
            if one.kind == "corruption"
        ),
        key=lambda entry: entry[0].level,
    )
    if not corrupted:
        return ()
    fake = clean.label == 1
    decided = np.stack([score >= threshold for _, score in corrupted])
    turned = (decided != fake) & ((clean.score >= threshold) == fake)
    times = turned.sum(0)
    order = sorted(np.flatnonzero(times), key=lambda at: (-times[at], clean.path[at]))
    found = []
    for at in order[:shown]:
        condition, scores = corrupted[int(np.argmax(turned[:, at]))]
        found.append(
            Fragile(
                clean.path[at],
                int(clean.label[at]),
                condition,
                float(clean.score[at]),
                float(scores[at]),
                int(times[at]),
            )
        )
    return tuple(found)


def _checks(tables: Tables) -> tuple[Check, ...]:
    """What must hold of the attacks on one detector."""
    wrong = {
        condition: int(((scores.score >= tables.clean.threshold) != (scores.label == 1)).sum())
        for condition, scores in tables.changed.items()
        if condition.kind == "attack"
    }
    own = {(one.name, one.level): count for one, count in wrong.items() if one.source is None}
    checks = [_bigger_is_not_worse(own)] if own else []
    if tables.unbounded:
        condition, scores = tables.unbounded
        right = int(((scores.score >= tables.clean.threshold) == (scores.label == 1)).sum())
        checks.append(
            Check(
                "without a bound an attack turns every decision",
                right == 0,
                f"{condition.name} with a budget of {condition.level:g}: {right} of "
                f"{len(scores)} pictures are still decided rightly",
            )
        )
    checks += _gradients_help(own, tables.norms)
    foreign = {one: count for one, count in wrong.items() if one.source is not None}
    if foreign:
        better = [
            f"{one} turns {count}, its own {own[one.name, one.level]}"
            for one, count in foreign.items()
            if (one.name, one.level) in own and count > own[one.name, one.level]
        ]
        checks.append(
            Check(
                "attacks made on another detector do no more than its own",
                not better,
                "; ".join(better) or f"{len(foreign)} attacks looked at",
            )
        )
    return tuple(checks)


def _bigger_is_not_worse(own: Mapping[tuple[str, float], int]) -> Check:
    broken, looked = [], 0
    for name in dict.fromkeys(name for name, _ in own):
        levels = sorted(level for other, level in own if other == name)
        for low, high in pairwise(levels):
            looked += 1
            if own[name, high] < own[name, low]:
                broken.append(
                    f"{name}: {own[name, low]} wrong at {low:g}, {own[name, high]} at {high:g}"
                )
    return Check(
        "a bigger budget does no less",
        not broken,
        "; ".join(broken) or f"{looked} steps of budget looked at",
    )


def _gradients_help(
    own: Mapping[tuple[str, float], int], norms: Mapping[str, tuple[str, bool]]
) -> list[Check]:
    """Black-box attacks that beat white-box ones are a sign of gradients that mislead."""
    best: dict[tuple[str, float, bool], int] = {}
    for (name, level), count in own.items():
        norm, white = norms[name]
        best[norm, level, white] = max(best.get((norm, level, white), 0), count)
    looked = [
        (norm, level) for norm, level, white in best if white and (norm, level, False) in best
    ]
    if not looked:
        return []
    broken = [
        f"{norm} at {level:g}: {best[norm, level, False]} without, {best[norm, level, True]} with"
        for norm, level in looked
        if best[norm, level, False] > best[norm, level, True]
    ]
    return [
        Check(
            "attacks without gradients do no more than those with them",
            not broken,
            "; ".join(broken) or f"{len(looked)} budgets looked at",
        )
    ]
