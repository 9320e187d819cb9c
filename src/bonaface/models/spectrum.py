"""Logistic regression on the azimuthally averaged power spectrum: a baseline that learns no filter.

Enlarging a map leaves too much or too little of the highest frequencies, and a generator enlarges
many: Durall et al. (2019), "Unmasking DeepFakes with simple Features"; Dzanic et al. (2020),
"Fourier spectrum discrepancies in deep network generated images".
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bonaface.models.weights import Channels, Parts

LARGEST = 512  # pixels; the fixed matrices grow with the square
LUMINANCE = (0.299, 0.587, 0.114)
# Rounding to 8 bits leaves 6e-7 at every frequency, so this speaks for flat pictures alone.
FLOOR = 1e-8


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


def ring_table(size: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """What belongs to each ring of the half spectrum (size, size // 2 + 1), flattened.

    A frequency is of the ring that its distance from 0 is nearest to.

    Returns:
        Places (rings, most of any ring), and the share of each in the ring's mean; the rows of
        smaller rings end in places of share 0.
    """
    down, across = np.fft.fftfreq(size, 1 / size), np.arange(size // 2 + 1)
    ring = np.rint(np.hypot(down[:, None], across)).astype(np.int64).ravel()
    # A column that mirrors itself counts once, any other for its mirror image too.
    times = np.where(2 * across % size, 2.0, 1.0)
    weight = np.tile(times, size)
    members = [np.flatnonzero(ring == number) for number in range(1, ring.max() + 1)]
    places = np.zeros((len(members), max(map(len, members))), np.int64)
    shares = np.zeros(places.shape)
    for row, found in enumerate(members):
        places[row, : len(found)] = found
        shares[row, : len(found)] = weight[found] / weight[found].sum()
    return places, shares
