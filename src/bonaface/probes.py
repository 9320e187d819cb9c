"""How the classes differ without a look at a face: properties of files, and shortcut probes.

Boosted trees are asked to tell real from fake: from the file alone, and from crude statistics of
the pixels. Whatever they can do is there for a detector to learn.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from bonaface.facts import STATISTICS, Facts, FileFacts
from bonaface.samples import LABELS, Sample

if TYPE_CHECKING:
    from bonaface.metrics import Figure

FATAL_AUC: Final = 0.6
FATAL_LOW: Final = 0.55  # of the interval
_FOLDS: Final = 5
_LEAST: Final = 10  # groups of either class for a probe
_WORTH_A_NAME: Final = 0.005  # fall of the AUC without a feature
_SHOWN_VALUES: Final = 12
_FILE: Final = (
    *("bytes per pixel", "width", "height", "JPEG quality", "EXIF", "ICC profile"),
    *("format", "extension", "chroma subsampling", "JPEG tables"),
)


@dataclass(frozen=True, slots=True)
class Probe:
    """How well fakes are told from reals without looking at faces.

    Attributes:
        name: "file" (nothing but the file), "container" (the same without bytes per pixel, which
            also follow from what the picture shows; only where "file" tells) or "image" (crude
            statistics of its pixels).
        scope: "all" or "test", the split.
        auc: cross-validated, with its interval over groups; None with the reason.
        folds: of the cross-validation, whole groups each; 0: it did not run.
        strongest: features and how far the AUC falls when one is shuffled, the worst first.
    """

    name: str
    scope: str
    auc: Figure
    folds: int
    strongest: tuple[tuple[str, float], ...] = ()

    @property
    def tells(self) -> bool:
        """Whether it finds the fakes, by the limits `FATAL_AUC` and `FATAL_LOW`."""
        value, low = self.auc.value, self.auc.low
        return value is not None and value > FATAL_AUC and low is not None and low > FATAL_LOW

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "name": self.name,
            "scope": self.scope,
            "auc": self.auc.to_dict(),
            "folds": self.folds,
            "strongest": [{"feature": name, "drop": drop} for name, drop in self.strongest],
            "tells": self.tells,
        }


@dataclass(frozen=True, slots=True)
class Property:
    """How one property of the files is spread in either class.

    Attributes:
        name: such as "JPEG quality".
        by_label: label -> counts of its values, or {"least", "5%", "half", "95%", "most", "n"}.
        distance: between the classes, in [0, 1]: the total variation distance of counts, the
            Kolmogorov-Smirnov distance of numbers. None: undefined.
        reason: why it is None.
    """

    name: str
    by_label: dict[str, dict[str, float | int]]
    distance: float | None
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


# -- properties of files --


def compare_files(facts: Facts) -> tuple[Property, ...]:
    """How each property of the files that were read is spread in either class."""
    labels = np.array([row.label for row in facts.rows], np.int8)
    files = facts.files
    area = [file.bytes / (file.width * file.height) for file in files]
    quality = [math.nan if file.quality is None else file.quality for file in files]
    return (
        _counted("format", [file.format for file in files], labels),
        _counted("extension", [file.extension for file in files], labels),
        _measured("width", [file.width for file in files], labels),
        _measured("height", [file.height for file in files], labels),
        _measured("bytes per pixel", area, labels),
        _measured("JPEG quality", quality, labels),
        _counted("chroma subsampling", [file.chroma or "none" for file in files], labels),
        _counted("EXIF", ["yes" if file.exif else "no" for file in files], labels),
        _counted("ICC profile", ["yes" if file.icc else "no" for file in files], labels),
    )


def _counted(name: str, values: Sequence[str], labels: NDArray[np.int8]) -> Property:
    counts = [
        Counter(value for value, label in zip(values, labels, strict=True) if label == which)
        for which in (0, 1)
    ]
    totals = [found.total() for found in counts]
    by_label = {}
    for which, found in enumerate(counts):
        shown: dict[str, float | int] = dict(
            sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))[:_SHOWN_VALUES]
        )
        if len(found) > _SHOWN_VALUES:
            shown["others"] = totals[which] - int(sum(shown.values()))
        by_label[LABELS[which]] = shown
    if not all(totals):
        return Property(name, by_label, None, "one class only")
    every = set(counts[0]) | set(counts[1])
    apart = sum(abs(counts[0][v] / totals[0] - counts[1][v] / totals[1]) for v in every) / 2
    return Property(name, by_label, float(apart))


def _measured(name: str, values: Sequence[float], labels: NDArray[np.int8]) -> Property:
    from scipy import stats

    array = np.asarray(values, np.float64)
    parts = [array[(labels == which) & ~np.isnan(array)] for which in (0, 1)]
    by_label: dict[str, dict[str, float | int]] = {}
    for which, part in enumerate(parts):
        found: dict[str, float | int] = {}
        if len(part):
            points = np.quantile(part, (0, 0.05, 0.5, 0.95, 1))
            found = dict(zip(("least", "5%", "half", "95%", "most"), points.tolist(), strict=True))
        by_label[LABELS[which]] = found | {"n": len(part)}
    if not all(map(len, parts)):
        present = "one class only" if len(set(labels.tolist())) < 2 else "no such files in a class"
        return Property(name, by_label, None, present)
    return Property(name, by_label, float(stats.ks_2samp(*parts).statistic))


# -- shortcuts --


def run_probes(facts: Facts, components: NDArray[np.intp], seed: int) -> tuple[Probe, ...]:
    """Every probe, on all splits and on the test split alone.

    Args:
        facts: what was read; `facts.probed` are looked at.
        components: (n,) for each row the number of what belongs together, which folds never part.
        seed: of folds, trees and intervals.
    """
    at = facts.probed
    table = _file_table([facts.files[i] for i in at])
    splits = np.array([facts.rows[i].split for i in at])
    scopes = {"all": np.ones(len(at), np.bool_)}
    if 0 < (splits == "test").sum() < len(at):
        scopes["test"] = splits == "test"
    found: list[Probe] = []
    with _one_thread():
        for scope, mask in scopes.items():
            rows = [facts.rows[i] for i in at[mask]]
            cut = _folds(rows, components[at[mask]], seed)
            found.append(_probe(cut, seed, ("file", scope), _FILE, table[mask]))
            if found[-1].tells:  # is it more than that one class is smoother?
                without = table[mask][:, 1:]
                found.append(_probe(cut, seed, ("container", scope), _FILE[1:], without))
            found.append(_probe(cut, seed, ("image", scope), STATISTICS, facts.statistics[mask]))
    order = ("file", "container", "image")
    return tuple(sorted(found, key=lambda probe: order.index(probe.name)))


def probe_files(rows: Sequence[Sample], files: Sequence[FileFacts], seed: int) -> Probe:
    """The file probe alone, on pictures of which only known groups belong together."""
    known = [f"g{row.group}" if row.group else f"p{row.path}" for row in rows]
    groups = np.unique(np.array(known, object), return_inverse=True)[1]
    with _one_thread():
        return _probe(_folds(rows, groups, seed), seed, ("file", "all"), _FILE, _file_table(files))


def _one_thread() -> AbstractContextManager[Any]:
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    # With more the trees take seven times as long where others use the machine as well.
    return threadpool_limits(1, user_api="openmp")  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True, eq=False)
class _Cut:
    """Rows, what belongs together, and the folds; without folds, the reason."""

    rows: Sequence[Sample]
    groups: NDArray[np.intp]
    labels: NDArray[np.int8]
    folds: list[tuple[NDArray[np.intp], NDArray[np.intp]]]
    reason: str | None = None


def _folds(rows: Sequence[Sample], groups: NDArray[np.intp], seed: int) -> _Cut:
    from sklearn.model_selection import StratifiedGroupKFold

    labels = np.array([row.label for row in rows], np.int8)
    kinds = [len(np.unique(groups[labels == label])) for label in (0, 1)]
    if min(kinds) < _LEAST:
        reason = f"a probe needs at least {_LEAST} groups of either class, has {min(kinds)}"
        if max(kinds) and not min(kinds):
            reason = f"one class only: no {LABELS[int(kinds[0] > 0)]} pictures"
        return _Cut(rows, groups, labels, [], reason)
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
    return _Cut(rows, groups, labels, list(folds.split(labels[:, None], labels, groups)))


def _file_table(files: Sequence[FileFacts]) -> NDArray[np.float32]:
    numbers = [
        (
            file.bytes / (file.width * file.height),
            file.width,
            file.height,
            -1 if file.quality is None else file.quality,  # all NaN cannot be fitted
            file.exif,
            file.icc,
        )
        for file in files
    ]
    named = [[file.format, file.extension, file.chroma or "", file.tables or ""] for file in files]
    columns = [_codes([row[at] for row in named]) for at in range(4)]
    left = np.asarray(numbers, np.float32).reshape(len(files), 6)
    return np.concatenate([left, np.stack(columns, axis=1)], axis=1)


def _codes(values: Sequence[str]) -> NDArray[np.float32]:
    """Names to numbers, the most frequent first."""
    ranked = sorted(Counter(values).items(), key=lambda pair: (-pair[1], pair[0]))
    code = {name: at for at, (name, _) in enumerate(ranked)}
    return np.array([code[value] for value in values], np.float32)


def _probe(
    cut: _Cut,
    seed: int,
    name: tuple[str, str],
    features: Sequence[str],
    values: NDArray[np.float32],
) -> Probe:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.inspection import permutation_importance

    from bonaface.metrics import Figure, figures
    from bonaface.scores import Scores

    n, labels = len(cut.rows), cut.labels
    if not cut.folds:
        return Probe(*name, Figure(None, None, None, n, cut.reason), 0)
    said = np.zeros(n)
    drops = np.zeros(len(features))
    for at, (train, test) in enumerate(cut.folds):
        model = HistGradientBoostingClassifier(
            max_iter=60,
            max_leaf_nodes=15,
            min_samples_leaf=int(np.clip(len(train) // 20, 3, 20)),
            early_stopping=False,
            random_state=seed,
        ).fit(values[train], labels[train])
        said[test] = model.predict_proba(values[test])[:, 1]
        if at == 0 and len(np.unique(labels[test])) == 2:
            drops = permutation_importance(
                model, values[test], labels[test], scoring="roc_auc", n_repeats=2, random_state=seed
            ).importances_mean
    clipped = np.clip(said, 1e-9, 1 - 1e-9)
    scores = Scores(
        tuple(row.path for row in cut.rows),
        labels,
        clipped,
        np.log(clipped / (1 - clipped)),
        {"group": tuple(map(str, cut.groups))},
    )
    worst = np.argsort(-drops, kind="stable")[:3]
    strongest = tuple((features[i], float(drops[i])) for i in worst if drops[i] > _WORTH_A_NAME)
    return Probe(*name, figures(scores, 0.5, seed=seed)["auc"], len(cut.folds), strongest)
