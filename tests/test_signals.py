"""Residuals and spectra without PyTorch are those that the networks see."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bonaface.models.hybrid import high_pass
from bonaface.models.spectrum import Rings
from bonaface.signals import FLOOR, power_spectrum, residual, ring_means


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_the_residual_is_the_last_filter_of_the_hybrid() -> None:
    pixels = picture(20, 31)
    smooth = (pixels // 128 + 100).astype(np.uint8)  # within the limit, where nothing is truncated
    for one in (pixels, smooth):
        wanted = high_pass(torch.from_numpy(one).permute(2, 0, 1)[None].float())[0, 6:]
        np.testing.assert_allclose(residual(one), wanted.permute(1, 2, 0), atol=1e-6)
    assert np.abs(residual(smooth)).max() < 1


@pytest.mark.parametrize("size", [32, 33])
def test_rings_are_those_of_the_network(size: int) -> None:
    pixels = picture(size, size, size)
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    wanted = Rings(size, (1.0, 1.0, 1.0))(images)[0]
    got = np.log(ring_means(power_spectrum(pixels)) + FLOOR)
    np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-3)
