"""Logistic regression on the azimuthally averaged power spectrum: a baseline that learns no filter.

Enlarging a map leaves too much or too little of the highest frequencies, and a generator enlarges
many: Durall et al. (2019), "Unmasking DeepFakes with simple Features"; Dzanic et al. (2020),
"Fourier spectrum discrepancies in deep network generated images".
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from bonaface.models.weights import Channels, Parts
from bonaface.signals import FLOOR, LUMINANCE, ring_table

LARGEST = 512  # pixels; the fixed matrices grow with the square


class Rings(nn.Module):
    """Log of the mean power in rings of frequencies, each one cycle a picture wide, from 1 on.

    The Fourier transform is products with fixed matrices, so that ONNX needs no operator of its own
    for it. Of the spectrum, which is its own mirror image, one half is computed.

    Args:
        size: side of the input, at most `LARGEST`.
        std: that the input was divided by. What was subtracted is in frequency 0 alone, which is
            left out.
    """

    grey: torch.Tensor
    rows: torch.Tensor
    cosine: torch.Tensor
    sine: torch.Tensor
    places: torch.Tensor
    shares: torch.Tensor

    def __init__(self, size: int, std: Channels) -> None:
        super().__init__()
        at, half = np.arange(size), size // 2 + 1
        angles = 2 * np.pi / size * (np.outer(at, at) % size)
        cosine, sine = np.cos(angles) / size**0.5, np.sin(angles) / size**0.5
        places, shares = ring_table(size)
        fixed = {
            "grey": np.reshape(np.multiply(LUMINANCE, std), (1, 3, 1, 1)),
            "rows": np.hstack([cosine[:, :half], sine[:, :half]]),
            "cosine": cosine,
            "sine": sine,
            "shares": shares,
        }
        for name, values in fixed.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)
        self.register_buffer("places", torch.tensor(places), persistent=False)
        self.count = len(places)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """float32 (b, 3, size, size), normalised -> natural logarithms (b, count).

        The power is of luminance in [0, 1]; in each ring of white noise it is the noise's variance.
        """
        luminance = (images * self.grey).sum(1)
        # The rounding of a large mean would reach all other frequencies.
        luminance = luminance - luminance.mean((1, 2), keepdim=True)
        even, odd = (luminance @ self.rows).chunk(2, 2)
        real = self.cosine @ even - self.sine @ odd
        imaginary = self.sine @ even + self.cosine @ odd
        power = (real.square() + imaginary.square()).flatten(1)
        return ((power[:, self.places] * self.shares).sum(2) + FLOOR).log()


class Spectrum(nn.Module):
    """Log power in rings, each standardised over the training pictures, one linear layer.

    There is no dropout. Neighbouring rings say nearly the same, and what tells a fake is the small
    difference, which dropping one of them hides.

    Args:
        size: side of the input, at most `LARGEST`.
        std: that the input was divided by.
    """

    def __init__(self, size: int, std: Channels) -> None:
        super().__init__()
        self.rings = Rings(size, std)
        # No momentum: what it sees does not change in training, so all batches count alike.
        self.norm = nn.BatchNorm1d(self.rings.count, momentum=None, affine=False)
        self.head = nn.Linear(self.rings.count, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """float32 (b, 3, size, size) -> logits (b,), in float32 under autocast too."""
        # bfloat16 would leave less of the highest frequencies than its rounding adds to them.
        device = "cpu" if images.is_meta else images.device.type
        with torch.autocast(device, enabled=False):
            return self.head(self.norm(self.rings(images))).squeeze(1)  # type: ignore[no-any-return]

    def parts(self) -> Parts:
        """head: nothing else is learned."""
        return [("head", [self.norm, self.head])]
