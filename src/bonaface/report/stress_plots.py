"""The drawings of a stress report: how figures go down with severity and budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from bonaface.metrics import Figure
from bonaface.report.plots import _SIDE, SOFT, _canvas, _styled, _svg
from bonaface.report.study_plots import Look, _legend

Line = Sequence[tuple[float, Figure]]
_COLUMNS = 3


def panels_plot(
    key: str,
    title: str,
    across: str,
    panels: Mapping[str, Mapping[str, Line]],
    look: Mapping[str, Look],
    *,
    guessing: float | None = None,
    percent: bool = False,
) -> Markup:
    """A panel for each thing that was done, a line for each detector.

    Args:
        key: of this drawing on its page.
        title: of the figure.
        across: what grows from left to right.
        panels: by what was done, then by detector: places and figures.
        look: by detector.
        guessing: where a dashed line stands.
        percent: the figure is a share, shown in percent.
    """
    with _styled():
        down = math.ceil(len(panels) / _COLUMNS)
        canvas = _canvas(0.75 + 1.15 * down + 0.17 * math.ceil(len(look) / 2))
        canvas.set_figwidth(1.75 * _SIDE)
        grid = canvas.subplots(down, _COLUMNS, sharex=True, sharey=True, squeeze=False).ravel()
        for panel, (name, lines) in zip(grid, panels.items(), strict=False):
            panel.set_title(name, fontsize=9.5, loc="left")
            if guessing is not None:
                panel.axhline(guessing, color=SOFT, lw=0.9, ls=(0, (3, 3)))
            for detector, line in lines.items():
                _draw(panel, line, look[detector], detector)
            panel.tick_params(labelsize=8.5)
            panel.yaxis.set_major_locator(MaxNLocator(4))
            if percent:
                panel.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.3g}%"))
        for panel in grid[len(panels) :]:
            panel.remove()
        for panel in grid[max(0, len(panels) - _COLUMNS) : len(panels)]:
            panel.tick_params(labelbottom=True)
        canvas.supxlabel(across, fontsize=9.5)
        _legend(canvas, grid[0])
        return _svg(canvas, key, f"{title} over {across[:1].lower()}{across[1:]}")


def _draw(panel: Axes, line: Line, look: Look, name: str) -> None:
    known = [(at, figure.value) for at, figure in line if figure.value is not None]
    ranged = [(at, f.low, f.high) for at, f in line if f.low is not None and f.high is not None]
    if len(ranged) == len(known):
        places, low, high = zip(*ranged, strict=True) if ranged else ((), (), ())
        panel.fill_between(places, low, high, color=look.colour, alpha=0.15, lw=0)
    panel.plot(
        [at for at, _ in known],
        [value for _, value in known],
        color=look.colour,
        marker=look.mark,
        ls=look.dash,
        ms=3.5,
        lw=1.4,
        label=name,
    )
