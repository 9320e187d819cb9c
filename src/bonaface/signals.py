"""What forensics looks at in a picture besides its content: high frequencies and the spectrum.

Both are what the networks of `bonaface.models.hybrid` and `bonaface.models.spectrum` see, without
PyTorch.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

# Residuals beyond so many grey levels are edges of the content: 80 to 95 % of a face lies within.
LIMIT: Final = 4.0
LUMINANCE: Final = (0.299, 0.587, 0.114)
# Rounding to 8 bits leaves 6e-7 at every frequency, so this speaks for flat pictures alone.
FLOOR: Final = 1e-8


def residual(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Second differences along rows and columns: the last of the hybrid's high-pass filters.

    Args:
        pixels: uint8 HxWx3, at least 3 pixels a side.

    Returns:
        float32 (H - 2, W - 2, 3), in units of `LIMIT` grey levels, truncated to +-1.
    """
    found = _second(_second(pixels.astype(np.float32), 0), 1) / (4 * LIMIT)
    return np.asarray(np.clip(found, -1, 1), np.float32)


def power_spectrum(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Power of a square picture's luminance in [0, 1] at each frequency, its mean taken away.

    Args:
        pixels: uint8 side x side x 3.

    Returns:
        float64 (side, side // 2 + 1), one half of the spectrum as `numpy.fft.rfft2` orders it; of
        white noise it is on average the noise's variance.
    """
    grey = pixels.astype(np.float64) @ (np.array(LUMINANCE) / 255)
    return np.asarray(np.abs(np.fft.rfft2(grey - grey.mean(), norm="ortho")) ** 2)


def ring_means(power: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean power in rings of frequencies, each one cycle a picture wide, from 1 on.

    Args:
        power: as `power_spectrum` gives it.
    """
    places, shares = ring_table(len(power))
    return np.asarray((power.ravel()[places] * shares).sum(1))


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


def _second(x: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    return np.diff(x, n=2, axis=axis)
