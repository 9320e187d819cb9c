"""What breaks a detector: the same pictures clean, re-delivered, corrupted and attacked.

`stress` makes a table of scores for every detector and condition and keeps it, so that a run goes
on where it was stopped and may grow; `analysis` says what the tables mean. Nothing here draws;
`bonaface.report.stress` does.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bonaface.attacks import ATTACKS, Victim
from bonaface.attacks import attack as perturb
from bonaface.config import Config
from bonaface.corruptions import CORRUPTIONS, DELIVERIES
from bonaface.cropping.journal import key
from bonaface.errors import ConfigError, DataError, ImageError
from bonaface.evaluate import (
    Evaluation,
    Scorer,
    evaluate,
    read_ahead,
    read_evaluation,
    save_evaluation,
    score_samples,
)
from bonaface.files import write_json
from bonaface.images import read_image
from bonaface.samples import Sample, Samples
from bonaface.scores import Scores, read_scores, write_scores
from bonaface.stress.analysis import (
    Check,
    Condition,
    Cost,
    Drop,
    Fragile,
    Outcome,
    Stress,
    Stressed,
    Tables,
    analyse,
)

__all__ = [
    "Check",
    "Condition",
    "Cost",
    "Drop",
    "Fragile",
    "Outcome",
    "Stress",
    "StressConfig",
    "Stressed",
    "changed_crop",
    "stress",
]

Pixels = NDArray[np.uint8]
Progress = Callable[[int, int, str], None]

SETTINGS: Final = "stress-settings.json"
SEVERITIES: Final = (1, 2, 3, 4, 5)
_DEFAULT_ATTACKS: Final = ("fgsm", "pgd", "pgd-l2")
_UNBOUNDED: Final = 255.0
_FEW: Final = 20  # pictures on which an attack without a bound is tried
_TOGETHER: Final = 64  # crops at their own size in memory
_Names = Annotated[tuple[str, ...], Field(strict=False)]


class StressConfig(Config):
    """What is done to which pictures.

    Attributes:
        split: train, validation or test.
        limit: at most so many pictures, half real and half fake; None: all.
        corruptions: names from `bonaface.corruptions.CORRUPTIONS`; None: all; empty: none.
        attacks: names from `bonaface.attacks.ATTACKS`; None: fgsm, pgd and pgd-l2, as far
            as they can be made on a detector; empty: none.
        budgets: of every attack, in 1/255 of the pixel range (`bonaface.attacks`).
        attack_limit: at most so many of the pictures are attacked.
        jpeg: attacked pictures are saved as JPEG of this quality; None: they are not.
        seed: of all chance.
    """

    split: str = "test"
    limit: int | None = Field(default=None, ge=2)
    corruptions: _Names | None = None
    attacks: _Names | None = None
    budgets: Annotated[tuple[Annotated[float, Field(gt=0, le=255)], ...], Field(strict=False)] = (
        1.0,
        2.0,
        4.0,
        8.0,
    )
    attack_limit: int = Field(default=100, ge=2)
    jpeg: int | None = Field(default=None, ge=1, le=100)
    seed: int = Field(default=0, ge=0, lt=2**32)


@dataclass(frozen=True)
class _Run:
    """What every step needs to know."""

    samples: Samples
    config: StressConfig
    out: Path

    @property
    def chosen(self) -> Samples:
        """The pictures."""
        within = self.samples.split(self.config.split)
        return within if self.config.limit is None else within.limit(self.config.limit, self.seed)

    @property
    def seed(self) -> int:
        return self.config.seed

    def folder(self, detector: Scorer) -> Path:
        """Of a detector's tables: its name, and what tells it from others of that name."""
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", detector.name).strip("._") or "detector"
        return self.out / "scores" / f"{name}-{str(detector.bundle.model_sha256)[:8]}"

    def table(self, detector: Scorer, condition: Condition, source: Scorer | None = None) -> Path:
        """Of a detector's scores; `source`: the other detector that an attack was made on."""
        words = [condition.kind, re.sub(r"[^A-Za-z0-9]+", "-", condition.name)]
        if condition.kind != "delivery":
            words.append(f"{condition.level:g}")
        if source is not None:
            words += ["from", self.folder(source).name]
        return self.folder(detector) / ("-".join(words) + ".csv")


def stress(
    detectors: Sequence[Scorer],
    samples: Samples,
    out: Path,
    config: StressConfig | None = None,
    *,
    progress: Progress | None = None,
    workers: int = 2,
) -> Stress:
    """Measure what corruptions and attacks do to detectors.

    Called again with the same folder, it makes the tables that are missing only.

    Args:
        detectors: at least one, with different names; all are shown the same pictures, and each is
            also shown what attacks on the others made.
        samples: labelled face crops.
        out: folder of the tables of scores.
        config: what is done.
        progress: called with conditions done, their number, and the one that is at work.
        workers: reading threads.

    Raises:
        ConfigError: a name is unknown or twice, a bundle cannot be attacked in the way that was
            asked for, or `out` holds another run.
        DataError: the split is empty, or nothing in it can be read.
    """
    config = config or StressConfig()
    run = _Run(samples, config, out)
    corruptions, attacks = _checked(detectors, config)
    if not len(run.chosen):
        raise DataError(
            f"expected samples in the split {config.split!r} of {str(samples.root)!r}, got none; "
            "name a split that is there"
        )
    _check_place(run)
    steps = _Steps(
        len(detectors) * (1 + len(DELIVERIES) + len(corruptions) * len(SEVERITIES))
        + sum(len(names) * len(config.budgets) + bool(names) for names in attacks),
        progress,
    )
    clean: list[Evaluation] = []
    changed: list[dict[Condition, Scores]] = []
    for detector in detectors:
        steps.next(f"{detector.name}: clean")
        clean.append(_evaluated(run, detector, workers))
        changed.append({})
        for condition in _plan(corruptions):
            steps.next(f"{detector.name}: {condition}")
            changed[-1][condition] = _corrupted(run, detector, condition, workers)
    costs: list[list[Cost]] = [[] for _ in detectors]
    unbounded: list[tuple[Condition, Scores] | None] = [None for _ in detectors]
    for at, (detector, names) in enumerate(zip(detectors, attacks, strict=True)):
        if not names:
            continue
        victim = Victim(detector)
        for name in names:
            for budget in config.budgets:
                steps.next(f"{detector.name}: {name} {budget:g}")
                made = _attacked(run, victim, detectors, Condition("attack", name, budget))
                costs[at].append(made.cost)
                for other, scores in enumerate(made.scores):
                    source = None if other == at else detector.name
                    changed[other][Condition("attack", name, budget, source)] = scores
        condition = Condition("attack", "pgd" if victim.white_box else "square", _UNBOUNDED)
        steps.next(f"{detector.name}: {condition.name} without a bound")
        tried = _attacked(run, victim, [detector], condition, few=True)
        unbounded[at] = condition, tried.scores[0]
    found = tuple(
        analyse(
            Tables(clean[at], one.bundle, changed[at], unbounded[at], tuple(costs[at]), _norms())
        )
        for at, one in enumerate(detectors)
    )
    return Stress(
        clean[0].data,
        config.model_dump(mode="json"),
        found,
        clean[0].unreadable,
        _notes(clean, config),
    )


def _norms() -> dict[str, tuple[str, bool]]:
    return {name: (one.norm, one.white_box) for name, one in ATTACKS.items()}


class _Steps:
    def __init__(self, total: int, progress: Progress | None) -> None:
        self._done, self._total, self._progress = -1, total, progress

    def next(self, what: str) -> None:
        self._done += 1
        if self._progress:
            self._progress(self._done, self._total, what)


def _checked(
    detectors: Sequence[Scorer], config: StressConfig
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Names of corruptions, and of the attacks on each detector."""
    names = [detector.name for detector in detectors]
    if not names or len(set(names)) < len(names):
        raise ConfigError(
            f"expected detectors with different names, got {', '.join(names) or 'none'}; "
            "train under another --out, whose name the bundle takes"
        )
    for what, given, known in (
        ("corruptions", config.corruptions, CORRUPTIONS),
        ("attacks", config.attacks, ATTACKS),
    ):
        for name in given or ():
            if name not in known:
                raise ConfigError(
                    f"expected {what} out of {', '.join(known)}, got {name!r}; name some of them"
                )
    for detector in detectors:
        for name in config.attacks or ():
            if not Victim.allows(detector, name):
                raise ConfigError(
                    f"expected the weights that the attack {name!r} needs in the bundle of "
                    f"{detector.name!r}, got none; attack it with "
                    f"{' or '.join(n for n, a in ATTACKS.items() if not a.white_box)}"
                )
    if config.attacks is not None:
        return _all(config.corruptions), [tuple(dict.fromkeys(config.attacks)) for _ in detectors]
    return _all(config.corruptions), [
        tuple(n for n in _DEFAULT_ATTACKS if Victim.allows(detector, n)) for detector in detectors
    ]


def _all(corruptions: tuple[str, ...] | None) -> tuple[str, ...]:
    return tuple(CORRUPTIONS if corruptions is None else dict.fromkeys(corruptions))


def _plan(corruptions: Sequence[str]) -> Iterator[Condition]:
    for name in DELIVERIES:
        yield Condition("delivery", name)
    for name in corruptions:
        for severity in SEVERITIES:
            yield Condition("corruption", name, severity)


def _check_place(run: _Run) -> None:
    """Tables of other pictures or chance must not be mixed in; conditions may be added."""
    own = {
        "schema_version": 1,
        "data": run.samples.fingerprint(),
        **{name: getattr(run.config, name) for name in _FIXED},
    }
    path = run.out / SETTINGS
    if not path.is_file():
        write_json(path, own)
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if found != own:
        differs = [
            name for name in own if not isinstance(found, dict) or found.get(name) != own[name]
        ]
        raise ConfigError(
            f"expected in {str(run.out)!r} a run with the same settings, got another "
            f"{', '.join(differs)}; take another --out"
        )


_FIXED: Final = ("split", "limit", "attack_limit", "jpeg", "seed")


def _evaluated(run: _Run, detector: Scorer, workers: int) -> Evaluation:
    """On the clean pictures: what lies there, or made now."""
    folder = run.folder(detector) / "clean"
    if (folder / "evaluation.json").is_file():
        return read_evaluation(folder)
    found = evaluate(
        detector,
        run.samples,
        split=run.config.split,
        limit=run.config.limit,
        seed=run.seed,
        workers=workers,
    )
    save_evaluation(found, folder)
    return found


def _corrupted(run: _Run, detector: Scorer, condition: Condition, workers: int) -> Scores:
    table = run.table(detector, condition)
    if table.is_file():
        return read_scores(table)

    def change(sample: Sample, crop: Pixels) -> Pixels:
        return _changed(crop, sample.path, condition, run.seed)

    scores, _ = score_samples(detector, run.chosen, change=change, workers=workers)
    write_scores(table, scores)
    return scores


def _changed(crop: Pixels, path: str, condition: Condition, seed: int) -> Pixels:
    """A delivery or corruption; its chance hangs on the picture, not on what came before it."""
    if condition.kind == "delivery":
        return DELIVERIES[condition.name](crop, max(crop.shape[:2]))
    severity = int(condition.level)
    place = key(seed, f"{condition.name}\0{severity}\0{path}")
    return CORRUPTIONS[condition.name](crop, severity, np.random.default_rng([*place]))


def changed_crop(file: Path, path: str, condition: Condition, seed: int) -> Pixels | None:
    """The picture that a detector was shown, to look at; None where it is no longer to be read.

    Args:
        file: where the picture lies.
        path: of its sample, which its chance hangs on.
        condition: a delivery or a corruption.
        seed: of the run.
    """
    try:
        return _changed(read_image(file).pixels, path, condition, seed)
    except ImageError:
        return None


@dataclass(frozen=True)
class _Made:
    """What an attack came to: scores of each detector, and its cost."""

    scores: list[Scores]
    cost: Cost


def _attacked(
    run: _Run,
    victim: Victim,
    detectors: Sequence[Scorer],
    condition: Condition,
    *,
    few: bool = False,
) -> _Made:
    """Attack the pictures with one detector in sight, and show the result to all."""
    own = victim.detector
    tables = [run.table(d, condition, None if d is own else own) for d in detectors]
    if few:
        tables = [table.with_stem(f"{table.stem}-few") for table in tables]
    note = tables[list(detectors).index(own)].with_suffix(".json")
    if note.is_file() and all(table.is_file() for table in tables):
        cost = Cost(**json.loads(note.read_text(encoding="utf-8")))
        return _Made([read_scores(table) for table in tables], cost)
    at_most = min(run.config.attack_limit, _FEW) if few else run.config.attack_limit
    rows: list[Sample] = []
    logits: list[list[NDArray[np.float64]]] = [[] for _ in detectors]
    spent = np.zeros(3)
    for crops, samples in _both_classes(run.chosen.limit(at_most, run.seed)):
        began = time.monotonic()
        made = perturb(
            victim,
            crops,
            [sample.label for sample in samples],
            condition.name,
            condition.level,
            seed=run.seed,
            jpeg=run.config.jpeg,
        )
        spent += made.gradients, made.queries, time.monotonic() - began
        rows += samples
        for detector, found in zip(detectors, logits, strict=True):
            found.append(made.logits if detector is own else detector.logits(made.crops))
    scores = []
    for detector, found, table in zip(detectors, logits, tables, strict=True):
        every = np.concatenate(found)
        scores.append(Scores.of_samples(rows, every, detector.calibration(every)))
        write_scores(table, scores[-1])
    cost = Cost(condition.name, condition.level, *(spent / len(rows)).tolist())
    write_json(note, asdict(cost))
    return _Made(scores, cost)


def _both_classes(samples: Samples) -> Iterator[tuple[list[Pixels], list[Sample]]]:
    """Crops in batches that hold reals and fakes, which some attacks begin with."""
    taken = Counter[int]()
    order = []
    for row in samples.rows:
        taken[row.label] += 1
        order.append((taken[row.label], row.label, row))
    mixed = replace(samples, rows=tuple(row for *_, row in sorted(order, key=itemgetter(0, 1))))
    read = ((s, crop) for s, crop in read_ahead(mixed, _as_it_is) if not isinstance(crop, str))
    while batch := list(islice(read, _TOGETHER)):
        yield [crop for _, crop in batch], [sample for sample, _ in batch]


def _as_it_is(sample: Sample, crop: Pixels) -> Pixels:
    return crop


def _notes(clean: Sequence[Evaluation], config: StressConfig) -> tuple[str, ...]:
    found = [note for one in clean for note in one.notes]
    if config.attacks != ():
        found.append(
            f"Attacks were made on at most {config.attack_limit} pictures, and are as strong as "
            "their budget and steps: a detector that withstands them may fall to others."
        )
    return tuple(dict.fromkeys(found))
