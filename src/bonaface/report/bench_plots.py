"""Plots of speed; drawn as those of `bonaface.report.plots`."""

from __future__ import annotations

from typing import Any, Final

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from bonaface.bench.arms import TITLES
from bonaface.bench.measuring import Bench
from bonaface.report.plots import _SIDE, INK, SERIES, SOFT, _canvas, _short, _styled, _svg

_MARKS: Final[dict[str, Any]] = {"pytorch": "o", "onnxruntime": "s", "openvino": "^"}
_LINES: Final[dict[str, Any]] = {"pytorch": ":", "onnxruntime": "-", "openvino": "--"}


def accuracy_plot(found: Bench) -> Markup:
    """AUC with its interval over milliseconds for one crop, p50 to p95; the choices ringed."""
    with _styled():
        canvas = _canvas(1.1 * _SIDE)
        axes = canvas.add_subplot()
        colours = _colours(found)
        chosen = {one.name for one in found.choices}
        for one in found.measured:
            if one.auc.value is None:
                continue
            colour = colours[one.bundle]
            axes.plot([one.p50, one.p95], [one.auc.value] * 2, color=colour, lw=1, alpha=0.6)
            if one.auc.low is not None and one.auc.high is not None:
                ends = [one.auc.low, one.auc.high]
                axes.plot([one.p50] * 2, ends, color=colour, lw=1, alpha=0.6)
            axes.plot(one.p50, one.auc.value, _MARKS[one.runtime], color=colour, ms=6)
            if one.name in chosen:
                axes.plot(one.p50, one.auc.value, "o", color=INK, ms=12, mfc="none", mew=1.2)
        axes.set(xlabel="Milliseconds for one crop, p50 (line: to p95)", ylabel="AUC")
        _logarithmic(axes, axes.xaxis)
        _legend(canvas, found, lines=False)
        return _svg(canvas, "choice", "AUC of each detector and runtime over its time for one crop")


def throughput_plot(found: Bench) -> Markup:
    """Crops a second over the size of the batch, with the range over rounds."""
    with _styled():
        canvas = _canvas(1.1 * _SIDE)
        axes = canvas.add_subplot()
        colours = _colours(found)
        for one in found.measured:
            batches = list(one.rates)
            medians = [one.rates[batch].median for batch in batches]
            colour = colours[one.bundle]
            style = _LINES[one.runtime] + _MARKS[one.runtime]
            axes.plot(batches, medians, style, color=colour, ms=5, lw=1.4)
            for batch in batches:
                spread = one.rates[batch]
                axes.plot([batch] * 2, [spread.low, spread.high], color=colour, lw=1, alpha=0.6)
        axes.set_xscale("log", base=2)
        axes.set_xticks(batches, [str(batch) for batch in batches])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set(xlabel="Crops in a batch", ylabel="Crops a second")
        _logarithmic(axes, axes.yaxis)
        _legend(canvas, found, lines=True)
        return _svg(canvas, "rates", "Crops a second of each detector and runtime over batch size")


def _colours(found: Bench) -> dict[str, str]:
    bundles = dict.fromkeys(one.bundle for one in found.measured)
    return {name: SERIES[i % len(SERIES)] for i, name in enumerate(bundles)}


def _logarithmic(axes: Axes, axis: Axis) -> None:
    """Times differ by orders; labels at 1, 2 and 5 unless the range is narrow."""
    scale = axes.set_xscale if axis is axes.xaxis else axes.set_yscale
    scale("log")
    low, high = axis.get_view_interval()
    axis.set_view_interval(low / 1.15, high * 1.15, ignore=True)
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)) if high > 5 * low else MaxNLocator(5))
    axis.set_major_formatter(lambda value, _: f"{value:,g}")
    axis.set_minor_formatter(NullFormatter())


def _legend(canvas: Canvas, found: Bench, *, lines: bool) -> None:
    """Colours are bundles, marks are runtimes."""
    bundles = [
        Line2D([], [], color=colour, lw=4, label=_short(name))
        for name, colour in _colours(found).items()
    ]
    runtimes = []
    for runtime, title in TITLES.items():
        if any(one.runtime == runtime for one in found.measured):
            dash, mark = _LINES[runtime] if lines else "none", _MARKS[runtime]
            runtimes.append(Line2D([], [], color=SOFT, ls=dash, lw=1.4, marker=mark, label=title))
    blank = Line2D([], [], ls="none", label=" ")  # so that each kind has a column of its own
    longest = max(len(bundles), len(runtimes))
    keys = [key for some in (bundles, runtimes) for key in (some + longest * [blank])[:longest]]
    canvas.legend(handles=keys, loc="outside lower center", ncols=2)
