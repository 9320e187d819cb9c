"""One turn of one arm: single crops, then batches; every time is from crop to logit."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bonaface.bench.arms import Clock, Stopwatch
from bonaface.bench.machine import Energy
from bonaface.detector import Detector
from bonaface.evaluate import Pixels

BATCHES: Final = (1, 4, 16, 64)


@dataclass(frozen=True, slots=True)
class Turn:
    """What one arm did in one round.

    Attributes:
        singles: seconds of each call with one crop.
        inside: of each, seconds in the network; the rest resized and normalised the crop.
        rates: crops a second by batch size.
        joules: a crop, of the whole processor; None: not readable.
    """

    singles: tuple[float, ...]
    inside: tuple[float, ...]
    rates: dict[int, float]
    joules: float | None

    @property
    def single(self) -> float:
        """Median seconds of a call with one crop."""
        return statistics.median(self.singles)


def take_turn(
    detector: Detector,
    watch: Stopwatch,
    crops: Sequence[Pixels],
    calls: int,
    *,
    energy: Energy,
    clock: Clock,
) -> Turn:
    """Score single crops, `calls` times, then all of `crops` in batches of each size.

    Args:
        detector: the arm.
        watch: its network.
        crops: as many as the largest batch.
        calls: with one crop.
        energy: read before and after.
        clock: gives seconds.
    """
    detector.logits(crops[:1])  # others had the processor's caches, and their threads may yet spin
    before = energy.read()
    singles, inside = [], []
    for at in range(calls):
        crop = [crops[at % len(crops)]]
        watch.seconds = 0.0
        begun = clock()
        detector.logits(crop)
        singles.append(clock() - begun)
        inside.append(watch.seconds)
    rates = {1: calls / sum(singles)}
    for batch in BATCHES[1:]:
        begun = clock()
        detector.logits(crops, batch=batch)
        rates[batch] = len(crops) / (clock() - begun)
    used = energy.used(before, energy.read())
    done = calls + len(crops) * (len(BATCHES) - 1)
    return Turn(tuple(singles), tuple(inside), rates, None if used is None else used / done)
