"""Plots of a search for hyper-parameters; drawn as those of `bonaface.report.plots`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullFormatter
from numpy.typing import NDArray

from bonaface.report.plots import _SIDE, INK, SERIES, SOFT, _canvas, _styled, _svg
from bonaface.tuning import Parameter, Trial, Tuning

_DASHED = (0, (4, 3))
_SPREAD = 0.24  # of points that share a category, to either side


def history_plot(tuning: Tuning, title: str) -> Markup:
    """The value of each trial, and the best so far; needs a finished trial."""
    with _styled():
        canvas = _canvas(0.75 * _SIDE)
        axes = canvas.add_subplot()
        _defaults(axes, tuning)
        complete = [one for one in tuning.over if one.state == "complete"]
        better = np.minimum if tuning.monitor == "loss" else np.maximum
        if complete:
            numbers = [one.number for one in complete]
            best = better.accumulate(_values(complete))
            last = max(one.number for one in tuning.over)
            axes.step([*numbers, last], [*best, best[-1]], where="post", color=INK, lw=1.2)
        for kind, marker in (("complete", "o"), ("pruned", "x")):
            some = [one for one in tuning.over if one.state == kind]
            _points(axes, [one.number for one in some], some, marker)
        axes.set(xlabel="Trial", ylabel=f"Validation {title}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return _svg(canvas, "history", f"Validation {title} of each trial, and the best so far")


def importance_plot(tuning: Tuning) -> Markup:
    """Share of each parameter, the largest on top; needs shares."""
    shares = tuning.importance.shares or {}
    with _styled():
        canvas = _canvas(0.8 + 0.32 * len(shares))
        axes = canvas.add_subplot()
        labels = {one.name: one.label.split(",")[0] for one in tuning.space}
        axes.barh(range(len(shares)), list(shares.values()), height=0.6, color=SERIES[0], lw=0)
        axes.set_yticks(range(len(shares)), [labels[name] for name in shares])
        for at, share in enumerate(shares.values()):
            text = f"{100 * share:.0f}%"
            axes.annotate(text, (share, at), (4, 0), textcoords="offset points", va="center")
        axes.set(xlabel="Share explained", ylim=(len(shares) - 0.5, -0.5))
        axes.set_xlim(0, 1.15 * max(shares.values()))
        axes.xaxis.set_major_formatter(lambda x, _: f"{100 * x:.3g}%")
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        return _svg(canvas, "importance", "Importance of each setting")


def slice_plot(tuning: Tuning, parameter: Parameter, title: str) -> Markup:
    """The value of each trial over one of its parameters."""
    with _styled():
        canvas = _canvas(0.75 * _SIDE)
        axes = canvas.add_subplot()
        _defaults(axes, tuning)
        for kind, marker in (("complete", "o"), ("pruned", "x")):
            some = [one for one in tuning.over if one.state == kind]
            _points(axes, _places(some, parameter), some, marker)
        if tuning.best is not None:
            place, value = _places([tuning.best], parameter), _values([tuning.best])
            axes.plot(place, value, "o", color=INK, ms=10, mfc="none", mew=1.2)
        if parameter.choices:
            axes.set_xticks(range(len(parameter.choices)), [str(x) for x in parameter.choices])
            axes.set_xlim(-0.5, len(parameter.choices) - 0.5)
            axes.grid(axis="x", visible=False)
        else:
            if parameter.log:
                axes.set_xscale("log")
                axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
                axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_xlim(*_with_room(parameter))
        axes.set(xlabel=parameter.label, ylabel=f"Validation {title}")
        key = f"slice-{parameter.name}"
        return _svg(canvas, key, f"Validation {title} of the trials over {parameter.label}")


def _places(trials: Sequence[Trial], parameter: Parameter) -> list[float]:
    """Where the trials stand on the axis; those of one category beside each other."""
    if not parameter.choices:
        return [one.params[parameter.name] for one in trials]
    return [
        # Spread by the golden ratio, so that neighbours in time do not cover each other.
        parameter.choices.index(one.params[parameter.name])
        + _SPREAD * (2 * (one.number * 0.618 % 1) - 1) * (one.number > 0)
        for one in trials
    ]


def _values(trials: Sequence[Trial]) -> NDArray[np.float64]:
    return np.array([one.value for one in trials], np.float64)


def _with_room(parameter: Parameter) -> tuple[float, float]:
    """The range that was searched, and a little more to either side."""
    low, high = parameter.low, parameter.high
    if parameter.log:
        room = (high / low) ** 0.04
        return low / room, high * room
    return low - 0.04 * (high - low), high + 0.04 * (high - low)


def _points(axes: Axes, places: Sequence[float], trials: Sequence[Trial], marker: str) -> None:
    colour = SERIES[0] if marker == "o" else SOFT
    axes.plot(places, _values(trials), marker, color=colour, ms=5, alpha=0.85)


def _defaults(axes: Axes, tuning: Tuning) -> None:
    if tuning.defaults is not None and tuning.defaults.value is not None:
        axes.axhline(tuning.defaults.value, color=SOFT, lw=0.9, ls=_DASHED)
