"""What the runs of a study say together: figures over seeds, and tests between arms.

**Interval over seeds and samples.** A draw of the bootstrap draws groups of test samples, the same
for all runs (`bonaface.metrics.replicates`), and then seeds with replacement; the draw's figure is
the mean over the seeds drawn. Deviations from the mean of all seeds are stretched by
sqrt(S / (S - 1)), because S draws from S seeds spread too little (Rao & Wu 1988). With one seed
the interval is that over samples alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from bonaface.bundle import Bundle, Card
from bonaface.compare import Comparison, Entry, Pair, compare
from bonaface.config import TrainConfig
from bonaface.evaluate import Evaluation, as_utf8
from bonaface.history import Epoch
from bonaface.metrics import MINIMUM_GROUPS, Array, Figure, figures, interval, replicates
from bonaface.models import hybrid
from bonaface.samples import LABELS, Samples
from bonaface.scores import Scores

SCHEMA_VERSION = 1
RESAMPLES = 1000
_CONTRASTED = ("auc", "accuracy")
_ALPHA = 0.05
_IN_HYBRIDS = {"hybrid", *hybrid.DEPTHS}


@dataclass(frozen=True, slots=True)
class Planned:
    """One run of a study: an arm at a seed, a number of epochs and a size of the training set."""

    arm: str
    config: TrainConfig

    @property
    def name(self) -> str:
        """Of its folder, and so of its bundle."""
        size = "" if self.config.pictures is None else f"-n{self.config.pictures}"
        return f"{self.arm}{size}-e{self.config.epochs}-s{self.config.seed}"


@dataclass(frozen=True, eq=False)
class Finished:
    """A run that was trained and measured.

    Attributes:
        planned: what it is.
        card: of its bundle.
        history: its epochs.
        multiply_adds: of one forward pass of one picture.
        evaluation: on the test split of the study's data.
        elsewhere: on the test splits of other sets, by the name of the set.
    """

    planned: Planned
    card: Card
    history: tuple[Epoch, ...]
    multiply_adds: int
    evaluation: Evaluation
    elsewhere: dict[str, Evaluation]

    @property
    def entry(self) -> Entry:
        """As `compare` takes it, by the name of its arm."""
        return Entry(self.planned.arm, self.evaluation.scores, self.evaluation.threshold)


@dataclass(frozen=True, eq=False)
class Cell:
    """One arm at one number of epochs and one size of the training set.

    Attributes:
        arm: its name.
        epochs: of each run; 0: weights that were not trained here.
        pictures: in the training set.
        whole: all there are was asked for.
        runs: by seed.
        figures: of `bonaface.metrics.FIGURES`, means over the seeds, with intervals over seeds and
            samples.
        elsewhere: the same on other sets, by name.
        validation_auc: mean over the seeds.
    """

    arm: str
    epochs: int
    pictures: int
    whole: bool
    runs: tuple[Finished, ...]
    figures: dict[str, Figure]
    elsewhere: dict[str, dict[str, Figure]]
    validation_auc: float

    @property
    def seeds(self) -> list[int]:
        """Of the runs."""
        return [run.planned.config.seed for run in self.runs]

    @property
    def seconds(self) -> float:
        """Of training, mean over the seeds."""
        return float(np.mean([run.card.training["seconds"] for run in self.runs]))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        first = self.runs[0]
        return {
            "arm": self.arm,
            "epochs": self.epochs,
            "pictures": self.pictures,
            "seeds": self.seeds,
            "figures": {name: asdict(figure) for name, figure in self.figures.items()},
            "elsewhere": {
                key: {name: asdict(figure) for name, figure in found.items()}
                for key, found in self.elsewhere.items()
            },
            "validation_auc": self.validation_auc,
            "seconds": self.seconds,
            "parameters": first.card.parameters,
            "multiply_adds": first.multiply_adds,
            "runs": [
                {
                    "name": run.planned.name,
                    "kept_epoch": run.card.training["epoch"],
                    "epochs_run": run.card.training["epochs_run"],
                    "confusion": asdict(run.evaluation.confusion),
                    "figures": {
                        name: asdict(figure) for name, figure in run.evaluation.figures.items()
                    },
                }
                for run in self.runs
            ],
        }


@dataclass(frozen=True, slots=True)
class Contrast:
    """Two arms on the same test samples, after as many epochs on the whole set.

    A difference counts as shown where 0 lies outside its interval and the corrected p of the test
    is below 0.05.

    Attributes:
        first: an arm.
        second: another.
        epochs: of both.
        seeds: how many runs each has.
        differences: auc and accuracy, first less second, means over the seeds, with intervals over
            seeds and samples.
        seed: that most arms have; DeLong's and McNemar's tests take its runs.
        pair: these tests.
        better_auc: the arm whose AUC was shown to be higher, or None.
        better_accuracy: the arm shown to decide rightly more often, or None.
    """

    first: str
    second: str
    epochs: int
    seeds: tuple[int, int]
    seed: int
    differences: dict[str, Figure]
    pair: Pair
    better_auc: str | None
    better_accuracy: str | None


@dataclass(frozen=True, eq=False)
class Study:
    """A study's results.

    Attributes:
        data: name of the data set.
        fingerprint: of its samples.
        counts: pictures by split and label.
        notes: what a reader must know before quoting a figure.
        cells: every arm at every number of epochs and size of the set, in the study's order.
        majority: figures on test of calling everything what most training pictures are.
        contrasts: between arms, by number of epochs.
        ablations: those of `contrasts` that say what a branch of a hybrid adds.
        chosen: the cell with the highest mean validation AUC.
        unfinished: runs that are missing, with the reason.
    """

    data: str
    fingerprint: str
    counts: dict[str, dict[str, int]]
    notes: tuple[str, ...]
    cells: tuple[Cell, ...]
    majority: dict[str, Figure]
    contrasts: tuple[Contrast, ...]
    ablations: tuple[Contrast, ...]
    chosen: Cell
    unfinished: dict[str, str]

    @property
    def budgets(self) -> tuple[int, ...]:
        """Numbers of epochs, ascending; without 0."""
        return tuple(sorted({cell.epochs for cell in self.cells if cell.epochs}))

    def table(self, epochs: int) -> tuple[Cell, ...]:
        """Cells on the whole set after so many epochs, and those that were not trained here."""
        return tuple(cell for cell in self.cells if cell.whole and cell.epochs in (0, epochs))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "schema_version": SCHEMA_VERSION,
            "data": self.data,
            "fingerprint": self.fingerprint,
            "counts": self.counts,
            "notes": list(self.notes),
            "cells": [cell.to_dict() for cell in self.cells],
            "majority": {name: asdict(figure) for name, figure in self.majority.items()},
            "contrasts": [asdict(contrast) for contrast in self.contrasts],
            "ablations": [[c.first, c.second, c.epochs] for c in self.ablations],
            "chosen": {
                "arm": self.chosen.arm,
                "epochs": self.chosen.epochs,
                "pictures": self.chosen.pictures,
                "validation_auc": self.chosen.validation_auc,
            },
            "unfinished": self.unfinished,
            "resamples": RESAMPLES,
        }


def analyse(
    samples: Samples,
    runs: Sequence[Finished],
    unfinished: Mapping[str, str],
    compared: Sequence[str],
) -> Study:
    """Join runs over their seeds, and test arms against each other.

    Args:
        samples: the study's data.
        runs: at least one, in the study's order; all measured on the same test samples.
        unfinished: runs that are missing, with the reason.
        compared: arms that are tested against each other.
    """
    total = len(samples.split("train"))
    grouped: dict[tuple[str, int, int | None], list[Finished]] = {}
    for run in runs:
        config = run.planned.config
        grouped.setdefault((run.planned.arm, config.epochs, config.pictures), []).append(run)
    cells = tuple(
        _cell(arm, epochs, total if pictures is None else pictures, pictures is None, some)
        for (arm, epochs, pictures), some in grouped.items()
    )
    contrasts = tuple(
        contrast
        for epochs in sorted({cell.epochs for cell in cells if cell.epochs})
        for contrast in _contrasts(
            [c for c in cells if c.whole and c.epochs == epochs and c.arm in compared]
        )
    )
    arms = {run.planned.arm: run.planned.config for run in runs}
    return Study(
        as_utf8(samples.root.name),
        samples.fingerprint(),
        samples.counts(),
        _notes(runs),
        cells,
        _majority(samples),
        contrasts,
        tuple(c for c in contrasts if _one_branch_less(arms[c.first], arms[c.second])),
        max(cells, key=lambda cell: cell.validation_auc),
        dict(unfinished),
    )


def over_seeds(draws: Array, seed: int = 0) -> Array:
    """Draws of a mean over seeds; see the module's text.

    Args:
        draws: (S, 1 + R), of each seed's run: its value, then draws of groups, the same for all.
        seed: of the draws of seeds.

    Returns:
        (1 + R,): the mean, then its draws.
    """
    mean = draws.mean(axis=0)
    count, width = draws.shape
    if count == 1:
        return np.asarray(mean)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(count, size=(count, width - 1))
    away = np.take_along_axis(draws[:, 1:] - mean[1:], drawn, axis=0).mean(axis=0)
    stretched = mean[1:] + math.sqrt(count / (count - 1)) * away
    return np.concatenate([mean[:1], stretched])


def _cell(arm: str, epochs: int, pictures: int, whole: bool, runs: Sequence[Finished]) -> Cell:
    return Cell(
        arm,
        epochs,
        pictures,
        whole,
        tuple(runs),
        _joined([run.evaluation for run in runs]),
        {key: _joined([run.elsewhere[key] for run in runs]) for key in runs[0].elsewhere},
        float(np.mean([run.card.validation["auc"]["value"] for run in runs])),
    )


def _draws(one: Evaluation) -> dict[str, Array]:
    return replicates(one.scores, one.threshold, resamples=RESAMPLES)


def _joined(runs: Sequence[Evaluation]) -> dict[str, Figure]:
    """Figures of one arm over its seeds; of a single run its own."""
    if len(runs) == 1:
        return dict(runs[0].figures)
    draws = [_draws(run) for run in runs]
    found = {}
    for name, own in runs[0].figures.items():
        without = next((run.figures[name] for run in runs if run.figures[name].value is None), None)
        if without is not None:
            found[name] = without
            continue
        joined = over_seeds(np.stack([draw[name] for draw in draws]))
        found[name] = _figure(joined, own, (0.0, 1.0))
    return found


def _figure(draws: Array, own: Figure, bounds: tuple[float, float]) -> Figure:
    """The mean and its interval; where a single run has none for lack of groups, nor has this."""
    value = float(draws[0])
    low, high, reason = interval(draws[1:], MINIMUM_GROUPS)
    if own.low is None:
        low, high, reason = None, None, own.reason
    elif low is not None and high is not None and high - low < 1e-12:
        low, high, reason = None, None, "the same in every resample"
    if low is None or high is None:
        return Figure(value, None, None, own.n, reason)
    return Figure(value, max(bounds[0], min(low, value)), min(bounds[1], max(high, value)), own.n)


def _contrasts(cells: Sequence[Cell]) -> list[Contrast]:
    """Every pair of arms after one number of epochs.

    The tests take the runs of one seed, that which most arms have; an arm without it is left out.
    """
    seeds = Counter(run.planned.config.seed for cell in cells for run in cell.runs)
    seed = min(seeds, key=lambda seed: (-seeds[seed], seed), default=0)
    cells = [cell for cell in cells if seed in cell.seeds]
    if len(cells) < 2:
        return []
    tested: Comparison = compare([_run(cell, seed).entry for cell in cells])
    pairs = {(pair.first, pair.second): pair for pair in tested.pairs}
    draws = [[_draws(run.evaluation) for run in cell.runs] for cell in cells]
    found = []
    for a, b in combinations(range(len(cells)), 2):
        first, second = cells[a], cells[b]
        pair = pairs[first.arm, second.arm]
        differences = {}
        for name in _CONTRASTED:
            one, two = (
                over_seeds(np.stack([draw[name] for draw in draws[at]]), seed=seed)
                for seed, at in enumerate((a, b))
            )
            differences[name] = _figure(one - two, pair.differences[name], (-1.0, 1.0))
        found.append(
            Contrast(
                first.arm,
                second.arm,
                first.epochs,
                (len(first.runs), len(second.runs)),
                seed,
                differences,
                pair,
                _better(first.arm, second.arm, differences["auc"], pair.delong.p_holm),
                _better(first.arm, second.arm, differences["accuracy"], pair.mcnemar.p_holm),
            )
        )
    return found


def _run(cell: Cell, seed: int) -> Finished:
    return next(run for run in cell.runs if run.planned.config.seed == seed)


def _better(first: str, second: str, difference: Figure, p: float | None) -> str | None:
    if p is None or p >= _ALPHA or difference.low is None or difference.high is None:
        return None
    if difference.low > 0:
        return first
    return second if difference.high < 0 else None


def _one_branch_less(one: TrainConfig, two: TrainConfig) -> bool:
    """Whether they are a hybrid and a part of it, begun and frozen alike where both see RGB.

    A ResNet of a hybrid's depth is that hybrid without its residual branch.
    """
    if "hybrid" not in (one.model, two.model) or not {one.model, two.model} <= _IN_HYBRIDS:
        return False
    first, second = _as_hybrid(one), _as_hybrid(two)
    branches = set(first.pop("branches")), set(second.pop("branches"))
    if not (branches[0] < branches[1] or branches[1] < branches[0]):
        return False
    if "rgb" not in branches[0] & branches[1]:
        return True
    return first == second and (one.pretrained, one.freeze) == (two.pretrained, two.freeze)


def _as_hybrid(config: TrainConfig) -> dict[str, Any]:
    if config.model != "hybrid":
        alone = {"model": "hybrid", "branches": ("rgb",), "depth": config.model}
        config = config.model_copy(update=alone)
    return hybrid.options(config)


def _notes(runs: Sequence[Finished]) -> tuple[str, ...]:
    """Each note of the evaluations once; what `detect` would not answer with as one of them."""
    doubts = {run.planned.name: Bundle(Path(), run.card).doubt for run in runs}
    found = [
        as_utf8(note)
        for run in runs
        for note in run.evaluation.notes
        if not (doubt := doubts[run.planned.name]) or doubt not in note
    ]
    unsure = [name for name, doubt in doubts.items() if doubt]
    if unsure:
        found.append(
            "Validation cannot tell these from guessing, so `bonaface detect` would answer unsure "
            f"to everything with them: {', '.join(unsure)}."
        )
    return tuple(dict.fromkeys(found))


def _majority(samples: Samples) -> dict[str, Figure]:
    """Of calling every test picture what most training pictures are."""
    train, rows = samples.counts()["train"], samples.split("test").rows
    called = float(train[LABELS[1]] > train[LABELS[0]])
    scores = Scores.of_samples(rows, np.zeros(len(rows)), np.full(len(rows), called))
    found = figures(scores, 0.5, resamples=RESAMPLES)
    auc = found["auc"]
    return found | {"auc": Figure(auc.value, None, None, auc.n, "one score for all ranks nothing")}
