"""Which part of a network trains when: all of it, its head, or stage by stage from the head."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final, Literal

from torch import nn

Stage = tuple[str, Sequence[nn.Module]]
Freeze = Literal["none", "backbone", "staged"]

# Howard and Ruder (2018), "Universal Language Model Fine-tuning": each stage learns 2.6 times as
# slowly as the one after it.
STEP: Final = 2.6


class Freezing:
    """Freezes and opens the stages of a network as the epochs go by.

    `staged` opens the head in the first epoch and the other stages one after the other, the last
    stage first, so that all are open after half of the epochs; a stage learns 2.6 times as slowly
    as the next one towards the head.

    Args:
        stages: from the input to the head; together they hold every parameter once.
        how: "none", "backbone" (only the head trains) or "staged".
        epochs: of the whole run.
    """

    def __init__(self, stages: Sequence[Stage], how: Freeze, epochs: int) -> None:
        self._stages = tuple(stages)
        self._how = how
        self._epochs = epochs

    def open(self, epoch: int) -> tuple[str, ...]:
        """Names of the stages that train in an epoch (counted from 0), the head's last."""
        return tuple(name for name, _ in self._stages[-self._count(epoch) :])

    def rates(self) -> Iterator[tuple[nn.Module, float]]:
        """Every part with its share of the learning rate."""
        last = len(self._stages) - 1
        for at, (_, modules) in enumerate(self._stages):
            for module in modules:
                yield module, STEP ** (at - last) if self._how == "staged" else 1.0

    def apply(self, network: nn.Module, epoch: int) -> None:
        """Set a network, whose stages these are, to train in an epoch, but for what is frozen.

        Their parameters need no gradient, and they are in evaluation: batch norm neither uses nor
        changes the statistics of a batch, and dropout lets everything through.
        """
        network.train()
        frozen = len(self._stages) - self._count(epoch)
        for at, (_, modules) in enumerate(self._stages):
            for module in modules:
                module.train(at >= frozen)
                module.requires_grad_(at >= frozen)

    def _count(self, epoch: int) -> int:
        others = len(self._stages) - 1
        if self._how == "none":
            return 1 + others
        if self._how == "backbone":
            return 1
        opened = (math.ceil(k * self._epochs / 2 / others) for k in range(1, others + 1))
        return 1 + sum(epoch >= first for first in opened)
