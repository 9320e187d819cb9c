"""Arms that take turns: A B C A B C ..., so that what slows a machine down slows all of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Spread:
    """Values of one quantity, one a round, in the order of the rounds; at least one."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle value."""
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        """The smallest value."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The largest value."""
        return max(self.values)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "median": self.median,
            "min": self.low,
            "max": self.high,
            "values": list(self.values),
        }


def interleave(arms: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Measure A B C A B C ...; one more round goes first, to warm up, and is thrown away."""
    found: dict[str, list[T]] = {name: [] for name in arms}
    for turn in range(rounds + 1):
        for name, measure in arms.items():
            value = measure()
            if turn:
                found[name].append(value)
    return found


def ratios(values: Sequence[float], baseline: Sequence[float]) -> tuple[float, ...]:
    """Round by round, so that what slows a whole round down cancels."""
    return tuple(a / b for a, b in zip(values, baseline, strict=True))
