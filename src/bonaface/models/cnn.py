"""The paper's network, from scratch: convolution, batch norm, ReLU, max-pool; dropout, dense."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from bonaface.models.weights import Parts

WIDTHS = (32, 64, 128, 256, 256)


def convolution(before: int, after: int) -> list[nn.Module]:
    """3x3 convolution, batch norm, ReLU: (b, before, h, w) -> (b, after, h, w)."""
    return [
        nn.Conv2d(before, after, 3, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    ]


class CNN(nn.Module):
    """Five blocks of 3x3 convolution, batch norm, ReLU and 2x2 max-pooling, then two dense layers.

    Args:
        size: side of the square input, a multiple of 32.
        dropout: before each dense layer.
    """

    def __init__(self, size: int, dropout: float) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(
                nn.Sequential(*convolution(before, after), nn.MaxPool2d(2))
                for before, after in pairwise((3, *WIDTHS))
            )
        )
        side = size // 2 ** len(WIDTHS)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(WIDTHS[-1] * side * side, 256),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(256, 1),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """float32 (b, 3, size, size) -> logits (b,)."""
        return self.classifier(self.features(images).flatten(1)).squeeze(1)  # type: ignore[no-any-return]

    def parts(self) -> Parts:
        """block1 to block5, head."""
        blocks: Parts = [(f"block{n}", [block]) for n, block in enumerate(self.features, 1)]
        return [*blocks, ("head", [self.classifier])]
