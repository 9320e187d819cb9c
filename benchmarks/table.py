"""What a benchmark hands back: rows with a median, a range, and a ratio to a named baseline."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

HEADINGS = ("part", "what", "median", "min-max", "n", "ratio", "min-max", "against", "goal")


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was measured.

    Attributes:
        part: which benchmark.
        what: what was measured.
        unit: of `values`.
        values: one a round, in the order of the rounds.
        against: what `ratios` compare with; measured in the same rounds.
        ratios: one a round: this row's value through the baseline's of the same round.
        goal: what the design asks for, in words; never checked here.
    """

    part: str
    what: str
    unit: str
    values: tuple[float, ...]
    against: str = ""
    ratios: tuple[float, ...] = ()
    goal: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "part": self.part,
            "what": self.what,
            "unit": self.unit,
            "n": len(self.values),
            **_spread("value", self.values),
            "against": self.against or None,
            **(_spread("ratio", self.ratios) if self.ratios else {"ratio": None}),
            "goal": self.goal or None,
        }

    def cells(self) -> tuple[str, ...]:
        """The row as it is printed, in the order of `HEADINGS`."""
        ratio = (
            (f"{statistics.median(self.ratios):.2f}", _range(self.ratios, 2))
            if self.ratios
            else ("", "")
        )
        median = statistics.median(self.values)
        digits = 0 if median >= 100 else 1 if median >= 10 else 2
        return (
            self.part,
            self.what,
            f"{median:,.{digits}f} {self.unit}",
            _range(self.values, digits),
            str(len(self.values)),
            *ratio,
            self.against,
            self.goal,
        )


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import numpy
    import onnxruntime
    import PIL
    import torch

    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "system": platform.platform(),
        "load_before": load,
        "torch_threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "onnxruntime": onnxruntime.__version__,
            "numpy": numpy.__version__,
            "pillow": PIL.__version__,
        },
    }


def as_rich(rows: Sequence[Row]) -> Table:
    """For the terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in _WORDS else "right")
    for row in rows:
        table.add_row(*row.cells())
    return table


def as_markdown(rows: Sequence[Row]) -> str:
    """For a page."""
    lines = [HEADINGS, tuple("---" if name in _WORDS else "---:" for name in HEADINGS)]
    lines += [row.cells() for row in rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


_WORDS = {"part", "what", "against", "goal"}


def _spread(name: str, values: Sequence[float]) -> dict[str, Any]:
    return {
        name: statistics.median(values),
        f"{name}_min": min(values),
        f"{name}_max": max(values),
        f"{name}s": list(values),
    }


def _range(values: Sequence[float], digits: int) -> str:
    return f"{min(values):,.{digits}f}-{max(values):,.{digits}f}" if len(values) > 1 else ""
