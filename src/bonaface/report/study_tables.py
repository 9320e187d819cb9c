"""What the tables and drawings of a study's page hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from bonaface.config import TrainConfig
from bonaface.metrics import Figure
from bonaface.report import study_plots
from bonaface.report.render import FIGURES, count, in_words, p_value, percent, rate, span
from bonaface.report.study_plots import Curves, Look

if TYPE_CHECKING:  # its package trains, and so loads PyTorch, which the other reports do without
    from bonaface.reproduce.analysis import Cell, Contrast, Finished, Study

# Settings by which arms differ that are with and without a branch, or seeds of one arm.
_OF_BRANCHES = {"model", "branches", "depth", "stages", "pretrained", "seed", "pictures"}
COLUMNS = ("accuracy", "precision", "recall", "f1", "auc")
MAJORITY = "majority class"
_DRAWN = ("auc", "accuracy")
_KINDS = {"auc": "AUC", "recall": "Recall", "bpcer": "BPCER"}
_DECIMALS = ((100, 0), (10, 1), (1, 2))  # of a column whose smallest value is at least so much


def results(study: Study, epochs: int, look: Mapping[str, Look]) -> dict[str, Any]:
    """The table of the arms after one number of epochs, of which there is at least one."""
    cells = study.table(epochs)
    majority = study.majority
    highest = max(cells, key=lambda cell: cell.validation_auc) if len(cells) > 1 else None
    return {
        "id": f"epochs-{epochs}",
        "title": budget(epochs, study.budgets),
        "rows": [(cell, _marks(study, cell, cell is highest)) for cell in cells],
        "majority": majority,
        "single": any(len(cell.runs) == 1 for cell in cells),
        "reasons": _reasons([*((cell.arm, cell.figures) for cell in cells), (MAJORITY, majority)]),
        "plots": [
            {
                "title": f"{FIGURES[name][0]} on test",
                "svg": study_plots.arms_plot(
                    f"arms-{name}-{epochs}",
                    FIGURES[name][0],
                    [(cell.arm, cell.figures[name]) for cell in cells],
                    look,
                    hollow=[cell.arm for cell in cells if not cell.epochs],
                    line=majority[name].value,
                ),
                "caption": f"Dashed: {'guessing' if name == 'auc' else f'the {MAJORITY}'}."
                + ("" if all(cell.epochs for cell in cells) else " Hollow: not trained here."),
            }
            for name in _DRAWN
        ],
    }


def _marks(study: Study, cell: Cell, highest: bool) -> list[str]:
    marks = [] if cell.epochs else ["not trained here"]
    if cell is study.chosen:
        return [*marks, "chosen on validation"]
    return [*marks, "highest validation AUC here"] if highest else marks


def _reasons(rows: Iterable[tuple[str, Mapping[str, Figure]]]) -> list[str]:
    """Why a value or an interval is missing."""
    found: dict[tuple[str, str], list[str]] = {}
    for arm, figures in rows:
        for name in COLUMNS:
            if figures[name].low is None:
                found.setdefault((name, figures[name].reason or ""), []).append(arm)
    return [f"{within(name)} of {in_words(arms)}: {why}" for (name, why), arms in found.items()]


def curves(study: Study, look: Mapping[str, Look]) -> list[dict[str, Any]]:
    """Learning curves of the arms that were trained on the whole set."""
    whole = [cell for cell in study.cells if cell.whole and all(run.history for run in cell.runs)]
    if not whole:
        return []
    longest = list(
        {cell.arm: cell for cell in sorted(whole, key=lambda cell: cell.epochs)}.values()
    )
    shorter = sorted({cell.epochs for cell in whole if cell not in longest})
    caption = "Thick: mean over the seeds. Thin: single seeds. Dots: the epochs that were kept."
    if shorter:
        runs = in_words([several(epochs, "epoch") for epochs in shorter])
        caption += f" Dashed: the runs of {runs}, with a schedule of their own."
    if len(longest) > 1:
        caption += " Grey: from the lowest to the highest of the means."
    drawn = []
    for name in _DRAWN:
        title = f"{FIGURES[name][0]} on validation"
        arms = {
            cell.arm: Curves(
                [_along(run, name) for run in cell.runs],
                [run.card.training["epoch"] for run in cell.runs],
                [
                    [_along(run, name) for run in other.runs]
                    for other in whole
                    if other.arm == cell.arm and other is not cell
                ],
            )
            for cell in longest
        }
        svg = study_plots.curves_plot(f"curves-{name}", title, arms, look)
        drawn.append({"title": title, "svg": svg, "caption": caption})
    return drawn


def _along(run: Finished, name: str) -> list[float]:
    return [getattr(row, f"validation_{name}") for row in run.history]


def sizes(study: Study, look: Mapping[str, Look]) -> list[dict[str, Any]]:
    """Arms that were trained on a part of the set, by number of epochs."""
    found = []
    for epochs in study.budgets:
        by_arm: dict[str, dict[int, Cell]] = {}
        for cell in study.cells:
            if cell.epochs == epochs:
                by_arm.setdefault(cell.arm, {})[cell.pictures] = cell
        partly = {
            arm: dict(sorted(by.items()))
            for arm, by in by_arm.items()
            if not all(cell.whole for cell in by.values())
        }
        if not partly:
            continue
        columns = sorted({n for by in partly.values() for n in by})
        drawn = []
        for name in _DRAWN:
            points = {
                arm: [(n, cell.figures[name]) for n, cell in by.items()]
                for arm, by in partly.items()
            }
            title = FIGURES[name][0]
            svg = study_plots.sizes_plot(f"sizes-{name}-{epochs}", title, points, look)
            caption = "Bars: 95% intervals, a little apart so that they do not hide each other."
            drawn.append({"title": f"{title} on test", "svg": svg, "caption": caption})
        found.append(
            {
                "title": after(epochs).lower(),
                "columns": columns,
                "rows": [(arm, [by.get(n) for n in columns]) for arm, by in partly.items()],
                "plots": drawn,
            }
        )
    return found


def contrasts(study: Study, epochs: int) -> dict[str, Any]:
    """All pairs of arms after one number of epochs: a matrix, and a table with the tests."""
    found = [one for one in study.contrasts if one.epochs == epochs]
    arms = list(dict.fromkeys(arm for one in found for arm in (one.first, one.second)))
    seen = {
        (arm, other): _difference(one, arm, "auc")
        for one in found
        for arm, other in ((one.first, one.second), (one.second, one.first))
    }
    shown = {
        name: sum(getattr(one, f"better_{name}") is not None for one in found) for name in _DRAWN
    }
    return {
        "id": f"pairs-{epochs}",
        "title": budget(epochs, study.budgets),
        "matrix": [(arm, [seen.get((arm, other)) for other in arms]) for arm in arms],
        "pairs": sorted(map(_pair, found), key=lambda row: -(row["auc"]["figure"].value or 0)),
        "summary": f"Of {several(len(found), 'pair')}, a difference in AUC was shown for "
        f"{shown['auc'] or 'none'}, and one in accuracy for {shown['accuracy'] or 'none'}.",
    }


def _pair(one: Contrast) -> dict[str, Any]:
    """A row of the table of pairs, the arm with the higher AUC first."""
    turned = (one.differences["auc"].value or 0) < 0
    first, second = (one.second, one.first) if turned else (one.first, one.second)
    return {
        "first": first,
        "second": second,
        "auc": _difference(one, first, "auc"),
        "delong": one.pair.delong.p_holm,
        "accuracy": _difference(one, first, "accuracy"),
        "mcnemar": one.pair.mcnemar.p_holm,
        "seeds": one.seeds[::-1] if turned else one.seeds,
    }


def _difference(one: Contrast, arm: str, name: str) -> dict[str, Any]:
    """A difference as seen from one of the two arms, and whether that was shown to be better."""
    figure, better = one.differences[name], getattr(one, f"better_{name}")
    if arm != one.first:
        # The ends change places.
        ends = (figure.value, figure.high, figure.low)
        value, low, high = (None if end is None else 0.0 - end for end in ends)
        figure = Figure(value, low, high, figure.n, figure.reason)
    return {
        "figure": figure,
        "text": "—" if figure.value is None else _signed(figure.value),
        "shown": "" if better is None else "better" if better == arm else "worse",
    }


def ablation(study: Study, one: Contrast) -> str:
    """What a branch of a hybrid adds, in a sentence or two."""
    runs = {cell.arm: cell.runs[0] for cell in study.cells if cell.epochs == one.epochs}
    branches = {
        # A ResNet of a hybrid's depth is that hybrid's branch of RGB alone.
        arm: runs[arm].card.architecture.get("branches", ["rgb"])
        for arm in (one.first, one.second)
    }
    full, less = sorted(branches, key=lambda arm: -len(branches[arm]))
    added = [branch for branch in branches[full] if branch not in branches[less]]
    said = []
    for name, test, p in (
        ("auc", "DeLong", one.pair.delong.p_holm),
        ("accuracy", "McNemar", one.pair.mcnemar.p_holm),
    ):
        seen = _difference(one, full, name)
        sure = [f"95% interval {span(seen['figure'])}"] if seen["figure"].low is not None else []
        sure += [f"{test} p {p_value(p)}"] if p is not None else []
        outcome = {"better": "shown to help", "worse": "shown to harm"}
        inside = f" ({', '.join(sure)})" if sure else ""
        said.append(
            f"{within(name)} {seen['text']}{inside}, "
            f"{outcome.get(seen['shown'], 'no difference could be shown')}"
        )
    text = (
        f"{after(one.epochs)}, the {in_words(added)} branch beside {in_words(branches[less])} "
        f"({full} less {less}): {'; '.join(said)}."
    )
    configs = [runs[arm].planned.config for arm in (full, less)]
    also = [
        key
        for key in TrainConfig.model_fields
        if key not in _OF_BRANCHES and getattr(configs[0], key) != getattr(configs[1], key)
    ]
    return f"{text} Mind that the two also differ in {in_words(also)}." if also else text


def confusion(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Decisions of the first seed's run of each arm: counts, and shares of the class."""
    rows = []
    for cell in cells:
        c = cell.runs[0].evaluation.confusion
        fakes, reals = c.tp + c.fn, c.fp + c.tn
        kinds = (
            (c.tp, fakes, True),
            (c.fn, fakes, False),
            (c.fp, reals, False),
            (c.tn, reals, True),
        )
        rows.append(
            {
                "arm": cell.arm,
                "seed": cell.runs[0].planned.config.seed,
                "cells": [(n, percent(n / all_) if all_ else "—", good) for n, all_, good in kinds],
            }
        )
    return rows


def elsewhere(study: Study, cells: Sequence[Cell]) -> dict[str, Any] | None:
    """Arms on every other set, by the one figure that the set allows; None without sets."""
    cells = [cell for cell in cells if cell.elsewhere]
    others = {name: e.data for cell in cells for name, e in cell.runs[0].elsewhere.items()}
    if not others:
        return None
    home = study.counts["test"]
    counts = {study.data: (home["real"], home["fake"])}
    counts |= {name: (data.real, data.fake) for name, data in others.items()}
    kinds = {
        name: "auc" if real and fake else "recall" if fake else "bpcer"
        for name, (real, fake) in counts.items()
    }
    rows = []
    for cell in cells:
        known = {study.data: cell.figures} | cell.elsewhere
        found = {name: known.get(name, {}).get(kind) for name, kind in kinds.items()}
        rows.append((cell.arm, [(one, _shade(one, kinds[name])) for name, one in found.items()]))
    return {
        "columns": [(name, _KINDS[kinds[name]], *counts[name]) for name in counts],
        "rows": rows,
        "kinds": set(kinds.values()),
    }


def _shade(figure: Figure | None, kind: str) -> int:
    """How strong a cell's shade is, in percent; guessing and worse has none."""
    if figure is None or figure.value is None:
        return 0
    good = {"auc": 2 * figure.value - 1, "recall": figure.value, "bpcer": 1 - figure.value}[kind]
    return round(30 * max(0.0, good))


def costs(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """What each arm needs, to run and to train."""
    epochs = [[row for run in cell.runs for row in run.history] for cell in cells]
    columns: dict[str, list[float | None]] = {
        "seconds": [cell.seconds if cell.epochs else None for cell in cells],
        "epoch": [median(row.seconds for row in rows) if rows else None for rows in epochs],
        "speed": [
            median(row.images_per_second for row in rows) if rows else None for rows in epochs
        ],
    }
    shown = {name: _aligned(values) for name, values in columns.items()}
    return [
        {
            "arm": cell.arm,
            "size": cell.runs[0].card.preprocess["size"],
            "parameters": cell.runs[0].card.parameters,
            "multiply_adds": cell.runs[0].multiply_adds,
            "auc": cell.figures["auc"],
        }
        | {name: values[i] for name, values in shown.items()}
        for i, cell in enumerate(cells)
    ]


def cost_plots(cells: Sequence[Cell], look: Mapping[str, Look]) -> list[dict[str, Any]]:
    """Test AUC over what an arm needs to run, and over what it took to train."""
    running = {cell.arm: float(cell.runs[0].multiply_adds) for cell in cells}
    training = {cell.arm: cell.seconds for cell in cells if cell.epochs}
    drawn: list[dict[str, Any]] = []
    for title, across, cost in (
        ("AUC over the cost of running", "Multiply-adds a picture", running),
        ("AUC over the cost of training", "Seconds of training", training),
    ):
        arms = {
            cell.arm: (cost[cell.arm], cell.figures["auc"])
            for cell in cells
            if cost.get(cell.arm, 0) > 0
        }
        if len(arms) < 2:
            continue
        svg = study_plots.cost_plot(f"cost-{len(drawn)}", across, "AUC", arms, look)
        caption = "Up and to the left is better. Bars: 95% intervals."
        if len(arms) < len(cells):
            caption += " Left out: arms without this cost."
        drawn.append({"title": title, "svg": svg, "caption": caption})
    return drawn


def _aligned(values: Sequence[float | None]) -> list[str]:
    """Numbers of one column, with as many decimals as its smallest needs."""
    smallest = min((value for value in values if value), default=0)
    digits = next((digits for least, digits in _DECIMALS if smallest >= least), 3)
    return ["—" if value is None else f"{value:,.{digits}f}" for value in values]


def budget(epochs: int, budgets: Sequence[int]) -> str:
    """A number of epochs as a heading; the largest of several is where training has settled."""
    if len(budgets) > 1 and epochs == budgets[-1]:
        return f"At convergence ({several(epochs, 'epoch')})"
    return after(epochs)


def after(epochs: int) -> str:
    """As the beginning of a sentence."""
    return f"After {several(epochs, 'epoch')}" if epochs else "Not trained here"


def several(n: int, what: str) -> str:
    """A number of things."""
    return f"{count(n)} {what}{'' if n == 1 else 's'}"


def within(name: str) -> str:
    """A figure's title inside a sentence."""
    title = FIGURES[name][0]
    return title if title.isupper() else title.lower()


def _signed(value: float) -> str:
    """A difference; none that rounds to 0 has a sign."""
    value = round(value, 3)
    return f"+{rate(value)}" if value > 0 else rate(value + 0.0)
