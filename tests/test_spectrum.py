from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bonaface.models import registry, spectrum
from bonaface.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from networks import bundle_of, make, on_meta, refused

ONES = (1.0, 1.0, 1.0)


def wanted_rings(pixels: NDArray[np.floating]) -> NDArray[np.float64]:
    """(size, size, 3) in [0, 1] -> what the description says, by NumPy's transform."""
    size = len(pixels)
    power = np.abs(np.fft.fft2(pixels.astype(np.float64) @ [0.299, 0.587, 0.114])) ** 2 / size**2
    frequency = np.fft.fftfreq(size, 1 / size)
    radius = np.rint(np.hypot(frequency[:, None], frequency)).astype(int)
    rings = [power[radius == ring].mean() for ring in range(1, radius.max() + 1)]
    return np.log(np.array(rings) + 1e-8)


def drawn(size: int, count: int = 2) -> NDArray[np.uint8]:
    """Noise on a ramp: much in low frequencies, a little in high ones."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(20, 220, size)[:, None, None]
    return np.clip(ramp + rng.normal(0, 5, (count, size, size, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [16, 33, 64, 128])
def test_rings_against_numpy(size: int) -> None:
    pixels = drawn(size)
    images = torch.from_numpy(Preprocess(size, (0.0,) * 3, ONES).normalise(pixels))
    got = spectrum.Rings(size, ONES)(images).numpy()
    wanted = np.stack([wanted_rings(each / 255) for each in pixels])
    assert got.shape == wanted.shape == (2, round(2**0.5 * (size // 2)))
    # Of the power itself, not of its logarithm.
    np.testing.assert_allclose(np.exp(got), np.exp(wanted), rtol=1e-3)


def test_what_a_ring_says() -> None:
    noise = torch.randn(1, 1, 64, 64).expand(1, 3, 64, 64)
    rings = spectrum.Rings(64, ONES)(noise).exp()
    assert float(rings[0, 10:].mean()) == pytest.approx(1, rel=0.1), "variance of white noise"
    x = torch.arange(64) * 2 * torch.pi / 64
    wave = torch.sin(12 * x).expand(1, 3, 64, 64)
    rings = spectrum.Rings(64, ONES)(wave)
    assert int(rings.argmax()) == 12 - 1, "the first ring is that of one cycle a picture"
    flat = spectrum.Rings(64, ONES)(torch.full((1, 3, 64, 64), 0.7))
    torch.testing.assert_close(flat.exp(), torch.full_like(flat, 1e-8), rtol=0.1, atol=0)


def test_mirrored_pictures_say_the_same() -> None:
    images = torch.rand(2, 3, 32, 32)
    rings = spectrum.Rings(32, ONES)
    torch.testing.assert_close(rings(images), rings(images.flip(3)), rtol=1e-3, atol=1e-3)


def test_the_normalisation_does_not_matter() -> None:
    found = []
    for mean, std in ((IMAGENET_MEAN, IMAGENET_STD), ((0.5,) * 3, (0.1, 0.5, 1.0))):
        images = torch.from_numpy(Preprocess(32, mean, std).normalise(drawn(32)))
        found.append(spectrum.Rings(32, std)(images))
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-3)


def test_autocast_rounds_nothing() -> None:
    module = make("spectrum", size=64).module.eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        plain = module(images)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(module(images), plain)


def test_standardised_over_all_that_was_seen() -> None:
    """Batch norm counts every batch alike, so in evaluation it knows the training pictures."""
    module = make("spectrum", size=32).module
    images = torch.rand(64, 3, 32, 32) * torch.linspace(0.2, 1, 64).view(-1, 1, 1, 1)
    for _ in range(2):
        for batch in images[torch.randperm(64)].chunk(8):
            module.train()(batch)
    seen: list[torch.Tensor] = []
    module.head.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))  # type: ignore[union-attr]
    module.eval()(images)
    assert float(seen[0].mean(0).abs().max()) < 0.05
    assert 0.8 < float(seen[0].std(0).mean()) < 1.2


def test_only_the_linear_layer_is_stored_and_learned() -> None:
    made = make("spectrum")
    assert made.architecture == {"name": "spectrum", "size": 256}
    assert made.preprocess == Preprocess(256, (0.0,) * 3, ONES)
    assert registry.parameters(made.module) == 181 + 1
    assert sum(tensor.numel() for tensor in made.module.state_dict().values()) < 1000
    assert [name for name, _ in registry.stages(made.module)] == ["head"]
    # The transform and the head; fixed or not, they are multiplied.
    half = 256 // 2 + 1
    by_hand = 256 * 256 * 2 * half + 4 * 256 * 256 * half + 181
    assert registry.multiply_adds(on_meta("spectrum"), 256) == by_hand


def test_it_learns_what_tells_them_apart() -> None:
    """Fakes lack the highest frequencies: a linear problem, and the default rate solves it."""
    made = make("spectrum", size=32)
    images = torch.rand(64, 3, 32, 32)
    labels = (torch.arange(64) % 2).float()
    images[1::2] = torch.nn.functional.avg_pool2d(images[1::2], 3, 1, 1)
    optimizer = torch.optim.AdamW(made.module.parameters(), lr=made.lr)
    for _ in range(30):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(made.module(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.inference_mode():
        logits = made.module.eval()(images)
    assert float(logits[labels == 1].min()) > float(logits[labels == 0].max())


def test_sizes_that_are_refused() -> None:
    assert "at most 512 for spectrum" in refused("spectrum", size=513)
    assert on_meta("spectrum", size=512)
    assert "leave them out" in refused("spectrum", pretrained="imagenet")


def test_onnx_and_bundle_give_the_same(tmp_path: Path) -> None:
    made = make("spectrum", size=64, std=(0.3, 0.4, 0.5))
    for _ in range(3):
        made.module.train()(torch.rand(8, 3, 64, 64))
    bundle = bundle_of(made, tmp_path / "bundle", exported=True)
    images = torch.rand(3, 3, 64, 64)
    with torch.inference_mode():
        wanted = made.module.eval()(images)
        torch.testing.assert_close(registry.rebuild(bundle)(images), wanted, rtol=0, atol=0)
    assert len(wanted.unique()) == 3
