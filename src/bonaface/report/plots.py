"""Plots as inline SVG whose colours are CSS variables, so that one drawing serves light and dark.

Matplotlib knows no CSS variables: each colour here is a stand-in that is replaced in its output.
Every function returns one `<svg>` element; the same input gives the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray
from scipy import stats

from bonaface.calibration import OperatingPoint
from bonaface.compare import Entry
from bonaface.metrics import Figure, det, precision_recall, reliability, roc
from bonaface.scores import Scores

INK, SOFT, RULE, REAL, FAKE = "#010101", "#020202", "#030303", "#040404", "#050505"
SERIES = tuple(f"#0601{i:02d}" for i in range(8))
_VARIABLES = {INK: "ink", SOFT: "soft", RULE: "rule", REAL: "real", FAKE: "fake"} | {
    colour: f"s{i}" for i, colour in enumerate(SERIES)
}
_DASHES = ("-", "--", "-.", ":")
_MARKS = {"balanced": "o", "fake_above": "^", "real_below": "v"}
_SIDE = 4.4  # inches; the page sets the size on screen
_STYLE: Any = {
    "text.parse_math": False,  # a dollar in a name is a dollar
    "svg.hashsalt": "bonaface",
    "svg.fonttype": "none",
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "axes.linewidth": 0.8,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}
_RATES = (0.001, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99)


def roc_plot(scores: Scores, points: Mapping[str, OperatingPoint]) -> Markup:
    """ROC with the operating points marked; needs both classes."""
    with _styled():
        canvas, axes = _square("Reals called fake (BPCER)", "Fakes caught (1 − APCER)")
        axes.plot([0, 1], [0, 1], color=SOFT, lw=0.9, ls=(0, (3, 3)))
        curve = roc(scores)
        axes.plot(curve.x, curve.y, color=SERIES[0])
        for name, point in points.items():
            apcer, bpcer = _errors(scores, point.threshold)
            axes.plot(bpcer, 1 - apcer, _MARKS.get(name, "s"), color=INK, ms=6, label=name)
        axes.legend(loc="lower right")
        return _svg(canvas, "roc", "ROC curve: share of fakes caught against reals called fake")


def precision_recall_plot(scores: Scores) -> Markup:
    """Precision over recall, with the precision of calling everything fake."""
    with _styled():
        canvas, axes = _square("Recall: fakes caught", "Precision: share fake among called fake")
        share = float(scores.label.mean())
        axes.axhline(share, color=SOFT, lw=0.9, ls=(0, (3, 3)))
        # A mean of several recalls would not be a threshold's precision: steps, no slopes.
        curve = precision_recall(scores)
        axes.step(curve.x, curve.y, where="pre", color=SERIES[0])
        return _svg(canvas, "pr", "Precision-recall curve; the dashed line calls everything fake")


def det_plot(scores: Scores, points: Mapping[str, OperatingPoint]) -> Markup:
    """Detection error trade-off on normal-deviate axes (Martin et al. 1997)."""
    with _styled():
        canvas, axes = _square("Reals called fake (BPCER)", "Fakes passed as real (APCER)")
        curve = det(scores)
        fakes = int((scores.label == 1).sum())
        # Below half an error the axis would show rates that this many samples cannot.
        floors = 0.5 / (len(scores) - fakes), 0.5 / fakes
        axes.plot(_deviate(curve.x, floors[0]), _deviate(curve.y, floors[1]), color=SERIES[0])
        for name, point in points.items():
            apcer, bpcer = _errors(scores, point.threshold)
            x, y = _deviate(bpcer, floors[0]), _deviate(apcer, floors[1])
            axes.plot(x, y, _MARKS.get(name, "s"), color=INK, ms=6, label=name)
        for axis, floor in ((axes.xaxis, floors[0]), (axes.yaxis, floors[1])):
            ticks = [rate for rate in _RATES if floor <= rate <= 1 - floor]
            axis.set_ticks(_deviate(ticks, 0), [f"{100 * rate:g}%" for rate in ticks])
            axis.set_ticks([], minor=True)
        axes.set_xlim(float(_deviate(0.0, floors[0])) - 0.1, float(_deviate(1.0, floors[0])) + 0.1)
        axes.set_ylim(float(_deviate(0.0, floors[1])) - 0.1, float(_deviate(1.0, floors[1])) + 0.1)
        axes.legend(loc="upper right")
        return _svg(canvas, "det", "DET curve: the two error rates against each other")


def reliability_plot(scores: Scores) -> Markup:
    """Share of fakes over mean score, per bin, with its Clopper-Pearson interval; counts below."""
    with _styled():
        found = reliability(scores)
        canvas = _canvas(_SIDE)
        upper, lower = canvas.subplots(2, 1, sharex=True, height_ratios=[4, 1])
        upper.plot([0, 1], [0, 1], color=SOFT, lw=0.9, ls=(0, (3, 3)))
        hits = np.rint(found.observed * found.count)
        low = np.nan_to_num(stats.beta.ppf(0.025, hits, found.count - hits + 1), nan=0.0)
        high = np.nan_to_num(stats.beta.ppf(0.975, hits + 1, found.count - hits), nan=1.0)
        bars = np.maximum(0, [found.observed - low, high - found.observed])
        upper.errorbar(
            found.predicted, found.observed, yerr=bars, fmt="o", ms=4, lw=1, color=SERIES[0]
        )
        upper.set(ylabel="Share that is fake", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        lower.vlines(found.predicted, 0, found.count, color=SOFT, lw=2)
        lower.set(xlabel="Score", ylabel="Samples", ylim=(0, None))
        lower.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        return _svg(
            canvas, "rel", "Reliability diagram: share of fakes among samples of a like score"
        )


def histogram_plot(scores: Scores, points: Mapping[str, OperatingPoint]) -> Markup:
    """How the scores of each class that is present are spread, with the thresholds."""
    with _styled():
        kinds = [("Real", 0, REAL), ("Fake", 1, FAKE)]
        kinds = [kind for kind in kinds if (scores.label == kind[1]).any()]
        canvas = _canvas(_SIDE if len(kinds) > 1 else 0.7 * _SIDE)
        panels = canvas.subplots(len(kinds), 1, sharex=True, squeeze=False)[:, 0]
        for panel, (title, label, colour) in zip(panels, kinds, strict=True):
            values = scores.score[scores.label == label]
            share = np.histogram(values, bins=40, range=(0, 1))[0] / len(values)
            edges = np.linspace(0, 1, 41)
            panel.bar(edges[:-1], share, width=1 / 40, align="edge", color=colour, lw=0)
            _thresholds(panel, points)
            panel.set(ylabel=f"{title} (n = {len(values):,})", xlim=(-0.02, 1.02))
            panel.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.3g}%"))
            panel.yaxis.set_major_locator(MaxNLocator(4))
            panel.grid(axis="x", visible=False)
        panels[-1].set_xlabel("Score")
        canvas.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
        return _svg(canvas, "hist", "Histograms of the scores, by class, with the thresholds")


def errors_plot(scores: Scores, points: Mapping[str, OperatingPoint]) -> Markup:
    """Both error rates over the threshold; needs both classes."""
    with _styled():
        canvas, axes = _square("Threshold on the score", "Share of the class decided wrongly")
        grid = np.linspace(0, 1, 401)
        fakes = np.sort(scores.score[scores.label == 1])
        reals = np.sort(scores.score[scores.label == 0])
        apcer = np.searchsorted(fakes, grid, side="left") / len(fakes)
        bpcer = 1 - np.searchsorted(reals, grid, side="left") / len(reals)
        _thresholds(axes, points)
        axes.plot(grid, apcer, color=FAKE, label="APCER")
        axes.plot(grid, bpcer, color=REAL, label="BPCER")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.3g}%"))
        canvas.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3)
        return _svg(canvas, "errors", "APCER and BPCER over the threshold on the score")


def roc_overlay(entries: Sequence[Entry]) -> Markup:
    """One ROC a detector, with its own threshold marked; needs both classes."""
    with _styled():
        canvas, axes = _square("Reals called fake (BPCER)", "Fakes caught (1 − APCER)")
        axes.plot([0, 1], [0, 1], color=SOFT, lw=0.9, ls=(0, (3, 3)))
        for i, entry in enumerate(entries):
            curve = roc(entry.scores)
            colour, dash = SERIES[i % len(SERIES)], _DASHES[i % len(_DASHES)]
            axes.plot(curve.x, curve.y, color=colour, ls=dash, label=_short(entry.name))
            apcer, bpcer = _errors(entry.scores, entry.threshold)
            axes.plot(bpcer, 1 - apcer, "o", color=colour, ms=6)
        axes.legend(loc="lower right")
        return _svg(canvas, "rocs", "ROC curves of the detectors compared")


def agreement_plot(before: NDArray[np.float64], after: NDArray[np.float64]) -> Markup:
    """Scores (n,) of the same pictures, before and after; on the diagonal nothing changed."""
    with _styled():
        canvas, axes = _square("Score of the original", "Score of the export")
        axes.plot([0, 1], [0, 1], color=SOFT, lw=0.9, ls=(0, (3, 3)))
        axes.plot(before, after, "o", color=SERIES[0], ms=3, mew=0, alpha=0.6)
        label = "Score of each picture by the export against that by the original"
        return _svg(canvas, "agreement", label)


def forest_plot(title: str, rows: Sequence[tuple[str, Figure]]) -> Markup:
    """One figure of each detector with its interval, drawn under each other."""
    with _styled():
        canvas = _canvas(0.9 + 0.34 * len(rows))
        axes = canvas.add_subplot()
        for i, (_, figure) in enumerate(rows):
            if figure.value is None:
                axes.text(0.5, i, "undefined", color=SOFT, va="center", transform=_across(axes))
                continue
            colour = SERIES[i % len(SERIES)]
            if figure.low is not None and figure.high is not None:
                axes.plot([figure.low, figure.high], [i, i], color=colour, lw=2)
            axes.plot(figure.value, i, "o", color=colour, ms=6)
        axes.set_yticks(range(len(rows)), [_short(name) for name, _ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(f"{title}, with 95% interval")
        key = "forest-" + re.sub(r"\W", "", title.lower())
        return _svg(canvas, key, f"{title} of each detector with its 95% interval")


def _styled() -> AbstractContextManager[None]:
    return mpl.rc_context(_STYLE)


def _canvas(height: float) -> Canvas:
    return Canvas(figsize=(_SIDE, height), layout="constrained")


def _square(across: str, up: str) -> tuple[Canvas, Axes]:
    canvas = _canvas(_SIDE)
    axes = canvas.add_subplot()
    axes.set(xlabel=across, ylabel=up, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    return canvas, axes


def _thresholds(axes: Axes, points: Mapping[str, OperatingPoint]) -> None:
    for (name, point), dash in zip(points.items(), _DASHES, strict=False):
        axes.axvline(min(max(point.threshold, 0.0), 1.0), color=INK, lw=1.1, ls=dash, label=name)


def _across(axes: Axes) -> Any:
    return axes.get_yaxis_transform()


def _short(name: str) -> str:
    return name if len(name) <= 28 else name[:27] + "…"


def _deviate(rate: Any, floor: float) -> NDArray[np.float64]:
    return np.asarray(stats.norm.ppf(np.clip(rate, floor, 1 - floor)))


def _errors(scores: Scores, threshold: float) -> tuple[float, float]:
    """APCER and BPCER."""
    called, fake = scores.score >= threshold, scores.label == 1
    return float((~called[fake]).mean()), float(called[~fake].mean())


def _svg(canvas: Canvas, key: str, label: str) -> Markup:
    out = io.BytesIO()
    canvas.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue().decode("utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    text = text.replace("xlink:href", "href")
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    # Several drawings share one page, so what is referred to is named after its drawing.
    used = set(re.findall(r"(?:url\(|href=\")#([^)\"]+)", text))
    rename = partial(_rename, used=used, key=key)
    text = re.sub(r' id="([^"]+)"', rename, text)
    text = re.sub(r"(url\(|href=\")#", rf"\1#{key}-", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    box = re.search(r'viewBox="[^"]+"', text)
    head = f'<svg class="plot" {box[0] if box else ""} role="img" aria-label="{escape(label)}">'
    return Markup(head + text[text.index(">") + 1 :].strip())  # noqa: S704  (our own drawing)


def _rename(match: re.Match[str], *, used: set[str], key: str) -> str:
    return f' id="{key}-{match[1]}"' if match[1] in used else ""
