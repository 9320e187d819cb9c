"""The drawings of a study: every arm looks the same in all of them.

Colours are those of `bonaface.report.plots`; marks and dashes tell apart what shares one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from bonaface.metrics import Figure
from bonaface.report.plots import (
    _DASHES,
    _SIDE,
    INK,
    RULE,
    SERIES,
    SOFT,
    _across,
    _canvas,
    _styled,
    _svg,
)

# As many marks as have no common divisor with the colours, so that 56 arms look different.
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_COLUMNS = 2


@dataclass(frozen=True, slots=True)
class Look:
    """How one arm is drawn on a page."""

    colour: str
    mark: str
    dash: str


@dataclass(frozen=True, slots=True)
class Curves:
    """Learning curves of one arm.

    Attributes:
        longest: of each seed at the largest number of epochs, a value an epoch.
        kept: the epoch that each of these kept, counted from 1.
        shorter: of each seed, for every smaller number of epochs.
    """

    longest: Sequence[Sequence[float]]
    kept: Sequence[int]
    shorter: Sequence[Sequence[Sequence[float]]] = ()


def looks(arms: Sequence[str]) -> dict[str, Look]:
    """A look for each arm, by its place."""
    return {
        arm: Look(
            SERIES[i % len(SERIES)],
            _MARKERS[i % len(_MARKERS)],
            _DASHES[i // len(SERIES) % len(_DASHES)],
        )
        for i, arm in enumerate(arms)
    }


def arms_plot(
    key: str,
    title: str,
    rows: Sequence[tuple[str, Figure]],
    look: Mapping[str, Look],
    *,
    hollow: Sequence[str] = (),
    line: float | None = None,
) -> Markup:
    """One figure of each arm with its interval, one below the other.

    Args:
        key: of this drawing on its page.
        title: of the figure.
        rows: arms, from above.
        look: by arm.
        hollow: arms whose mark is not filled.
        line: where a dashed line stands: what guessing gives.
    """
    with _styled():
        canvas = _canvas(0.9 + 0.3 * len(rows))
        axes = canvas.add_subplot()
        if line is not None:
            axes.axvline(line, color=SOFT, lw=0.9, ls=(0, (3, 3)))
        for i, (arm, figure) in enumerate(rows):
            if figure.value is None:
                axes.text(0.5, i, "undefined", color=SOFT, va="center", transform=_across(axes))
                continue
            own = look[arm]
            if figure.low is not None and figure.high is not None:
                axes.plot([figure.low, figure.high], [i, i], color=own.colour, lw=2)
            # Empty inside: the page shows through, but not the interval's line.
            axes.plot(
                figure.value,
                i,
                own.mark,
                color=own.colour,
                ms=6,
                fillstyle="none" if arm in hollow else "full",
            )
        axes.set_yticks(range(len(rows)), [_short(arm) for arm, _ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(f"{title}, with 95% interval")
        return _svg(canvas, key, f"{title} of each arm with its 95% interval")


def curves_plot(
    key: str, title: str, arms: Mapping[str, Curves], look: Mapping[str, Look]
) -> Markup:
    """A panel an arm: mean and single seeds over the epochs, before what all arms span."""
    with _styled():
        down = math.ceil(len(arms) / _COLUMNS)
        across = min(_COLUMNS, len(arms))
        canvas = _canvas(0.5 + (1.35 if across > 1 else 2.4) * down)
        panels = canvas.subplots(down, across, sharex=True, sharey=True, squeeze=False).ravel()
        low, high = _span([_mean(curves.longest) for curves in arms.values()])
        for panel, (arm, curves) in zip(panels, arms.items(), strict=False):
            if len(arms) > 1:
                panel.fill_between(_epochs(low), low, high, color=RULE, alpha=0.6, lw=0)
            _own_curves(panel, curves, look[arm].colour)
            panel.set_title(_short(arm, 20), fontsize=9.5, loc="left")
            panel.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
            panel.yaxis.set_major_locator(MaxNLocator(4))
            panel.tick_params(labelsize=8.5)
        for panel in panels[len(arms) :]:
            panel.remove()
        # The panel above one that was left out has to show its epochs itself.
        for panel in panels[max(0, len(arms) - across) : len(arms)]:
            panel.tick_params(labelbottom=True)
        canvas.supxlabel("Epoch", fontsize=9.5)
        return _svg(canvas, key, f"{title} over the epochs, a panel for each arm")


def sizes_plot(
    key: str,
    title: str,
    arms: Mapping[str, Sequence[tuple[int, Figure]]],
    look: Mapping[str, Look],
) -> Markup:
    """A figure over the number of training pictures, with its interval, a line for each arm."""
    with _styled():
        canvas, axes = _with_room(len(arms))
        for i, (arm, found) in enumerate(arms.items()):
            # A little apart, so that intervals do not lie on each other.
            apart = 1.025 ** (i - (len(arms) - 1) / 2)
            own = look[arm]
            for n, figure in found:
                _bar(axes, n * apart, figure, own.colour)
            points = [(n * apart, figure.value) for n, figure in found if figure.value is not None]
            axes.plot(
                [n for n, _ in points],
                [value for _, value in points],
                color=own.colour,
                marker=own.mark,
                ls=own.dash,
                ms=5,
                lw=1.4,
                label=arm,
            )
        sizes = sorted({n for found in arms.values() for n, _ in found})
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(_spaced(sizes)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:,.0f}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set(xlabel="Pictures in the training set", ylabel=title)
        _legend(canvas, axes)
        return _svg(canvas, key, f"{title} over the number of training pictures")


def cost_plot(
    key: str,
    across: str,
    title: str,
    arms: Mapping[str, tuple[float, Figure]],
    look: Mapping[str, Look],
) -> Markup:
    """A figure over a cost above 0, a mark for each arm.

    Args:
        key: of this drawing on its page.
        across: the cost, with its unit.
        title: of the figure.
        arms: cost and figure, by arm.
        look: by arm.
    """
    with _styled():
        canvas, axes = _with_room(len(arms))
        for arm, (cost, figure) in arms.items():
            if figure.value is not None:
                own = look[arm]
                _bar(axes, cost, figure, own.colour)
                axes.plot(cost, figure.value, own.mark, color=own.colour, ms=7, label=arm)
        axes.set_xscale("log")
        costs = [cost for cost, _ in arms.values()]
        axes.set_xlim(min(costs) / 1.3, max(costs) * 1.3)
        axes.xaxis.set_major_locator(FixedLocator(_round_costs(min(costs), max(costs))))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda cost, _: _cost(cost)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set(xlabel=across, ylabel=title)
        _legend(canvas, axes)
        return _svg(canvas, key, f"{title} over {across[:1].lower()}{across[1:]}")


def _bar(axes: Axes, at: float, figure: Figure, colour: str) -> None:
    if figure.low is not None and figure.high is not None:
        axes.plot([at, at], [figure.low, figure.high], color=colour, lw=1)


def _own_curves(panel: Axes, curves: Curves, colour: str) -> None:
    for several in curves.shorter:
        mean = _mean(several)
        panel.plot(_epochs(mean), mean, color=colour, marker=_point(mean), lw=1.1, ls="--", ms=3)
    for seed, kept in zip(curves.longest, curves.kept, strict=True):
        panel.plot(_epochs(seed), seed, color=colour, lw=0.7, alpha=0.6)
        if 0 < kept <= len(seed):
            panel.plot(kept, seed[kept - 1], "o", color=INK, ms=2.5)
    mean = _mean(curves.longest)
    panel.plot(_epochs(mean), mean, color=colour, marker=_point(mean), lw=2, ms=4)


def _mean(seeds: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """As far as all seeds went: what is left of a few would not be the mean of the same."""
    shortest = min(map(len, seeds), default=0)
    return np.asarray([seed[:shortest] for seed in seeds]).mean(axis=0) if seeds else np.empty(0)


def _span(means: Sequence[NDArray[np.float64]]) -> tuple[NDArray[np.float64], ...]:
    """Lowest and highest of the curves, as far as each goes."""
    table = np.full((len(means), max(map(len, means))), np.nan)
    for row, mean in zip(table, means, strict=True):
        row[: len(mean)] = mean
    return np.nanmin(table, axis=0), np.nanmax(table, axis=0)


def _epochs(curve: Sequence[float] | NDArray[np.float64]) -> range:
    return range(1, len(curve) + 1)


def _point(curve: NDArray[np.float64]) -> str:
    """A single epoch makes no line."""
    return "s" if len(curve) == 1 else ""


def _spaced(sizes: Sequence[int]) -> list[int]:
    """Those that can be labelled without touching on a log axis; the last always."""
    kept: list[int] = []
    for n in reversed(sizes):
        if not kept or kept[-1] / n > (sizes[-1] / sizes[0]) ** 0.11:
            kept.append(n)
    return kept[::-1]


def _round_costs(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, ... inside; over a wide range powers of ten."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for steps, apart in (((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 2)):
        found = [step * 10.0**ten for ten in range(first, last + 1, apart) for step in steps]
        found = [cost for cost in found if low / 1.3 <= cost <= high * 1.3]
        if 1 < len(found) <= 6:
            return found
    return [low, high]


def _cost(value: float) -> str:
    for size, name in ((1e9, " G"), (1e6, " M")):
        if value >= size:
            return f"{value / size:g}{name}"
    return f"{value:,g}"


def _short(name: str, most: int = 28) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _with_room(arms: int) -> tuple[Canvas, Axes]:
    """A canvas with room for a legend of so many arms."""
    canvas = _canvas(0.8 * _SIDE + 0.17 * math.ceil(arms / _COLUMNS))
    return canvas, canvas.add_subplot()


def _legend(canvas: Canvas, axes: Axes) -> None:
    handles, arms = axes.get_legend_handles_labels()
    canvas.legend(
        handles,
        [_short(arm, 22) for arm in arms],
        loc="outside upper left",
        ncols=_COLUMNS,
        fontsize=8.5,
        handlelength=2.4,
        columnspacing=1.2,
    )
