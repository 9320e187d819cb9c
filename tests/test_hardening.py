from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from bonaface import training
from bonaface.config import TrainConfig
from bonaface.drawn import write_drawn_set
from bonaface.errors import ConfigError
from bonaface.freezing import Freezing
from bonaface.hardening import STEPS, perturbed
from bonaface.models import registry
from bonaface.preprocess import Preprocess
from bonaface.training import Watch, train
from networks import make, stir

SIZE = 16
PLAIN = Preprocess(SIZE, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
CHANNELS = Preprocess(SIZE, (0.5, 0.4, 0.3), (0.1, 0.2, 0.4))


class Linear(nn.Module):
    """logit = scale * (w . x)."""

    def __init__(self, weight: torch.Tensor, scale: float = 1.0) -> None:
        super().__init__()
        self.weight, self.scale = nn.Parameter(weight), scale

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.scale * (images * self.weight).sum((1, 2, 3))


def pictures(preprocess: Preprocess, count: int = 4, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Inputs of random pixels, black and white among them, and labels."""
    size = preprocess.size
    pixels = np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)
    pixels[0, :2], pixels[0, 2:4] = 0, 255
    return torch.from_numpy(preprocess.normalise(pixels)), torch.arange(count) % 2 * 1.0


def attack(
    network: nn.Module,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    preprocess: Preprocess,
    budget: float,
    seed: int = 0,
) -> torch.Tensor:
    chance = torch.Generator().manual_seed(seed)
    return perturbed(network, inputs, labels, preprocess, budget=budget, generator=chance)


def grey_levels(inputs: torch.Tensor, preprocess: Preprocess) -> torch.Tensor:
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (preprocess.mean, preprocess.std))
    return 255 * (inputs.double() * std + mean)


def small(model: str = "cnn", **options: Any) -> registry.Made:
    made = make(model, **({"size": 32} | options))
    stir(made.module, 1)
    return made


# -- where the pictures move ----------------------------------------------------------------------


@settings(max_examples=30)
@given(
    budget=st.floats(0, 64),
    mean=st.tuples(*[st.floats(-1, 1)] * 3),
    std=st.tuples(*[st.floats(0.05, 2)] * 3),
    seed=st.integers(0, 100),
)
def test_pictures_stay_in_the_ball_and_between_black_and_white(
    budget: float,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    seed: int,
) -> None:
    preprocess = Preprocess(SIZE, mean, std)
    inputs, labels = pictures(preprocess, seed=seed)
    kept = inputs.clone()
    weight = torch.randn(3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    found = attack(Linear(weight), inputs, labels, preprocess, budget, seed)
    assert torch.equal(inputs, kept), "the batch itself is left alone"
    before, after = grey_levels(inputs, preprocess), grey_levels(found, preprocess)
    slack = 1e-3
    assert (after - before).abs().max() <= budget + slack
    assert after.min() >= -slack
    assert after.max() <= 255 + slack
    assert (found.shape, found.dtype, found.requires_grad) == (inputs.shape, torch.float32, False)


@pytest.mark.parametrize("scale", [1.0, 1e4], ids=["unsure", "sure"])
@pytest.mark.parametrize("budget", [0.5, 4, 64])
def test_a_linear_network_is_taken_to_the_corner_from_any_start(
    budget: float, scale: float
) -> None:
    # The cross-entropy of one that is sure would have no gradient left.
    inputs, labels = pictures(CHANNELS)
    weight = torch.randn(3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))
    away = (1 - 2 * labels).view(-1, 1, 1, 1)
    before = grey_levels(inputs, CHANNELS)
    wanted = (before + budget * away * weight.sign()).clamp(0, 255)
    for seed in range(5):
        found = attack(Linear(weight, scale), inputs, labels, CHANNELS, budget, seed)
        torch.testing.assert_close(grey_levels(found, CHANNELS), wanted, rtol=0, atol=1e-3)


def test_without_a_slope_there_is_only_the_random_start() -> None:
    inputs, labels = pictures(PLAIN)
    network = Linear(torch.zeros(3, SIZE, SIZE))
    found = [attack(network, inputs, labels, PLAIN, 8, seed) for seed in (1, 1, 2)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    moved = (grey_levels(found[0], PLAIN) - grey_levels(inputs, PLAIN))[1:]  # 0: black and white
    assert moved.abs().max() > 7.5
    assert moved.abs().mean() == pytest.approx(4, rel=0.1)
    assert moved.mean() == pytest.approx(0, abs=0.5)


@pytest.mark.parametrize(
    ("model", "options"),
    [("cnn", {}), ("hybrid", {"branches": ("residual",)}), ("hybrid", {"stages": 1})],
)
def test_the_loss_rises_more_than_by_noise_of_the_same_size(
    model: str, options: dict[str, Any]
) -> None:
    made = small(model, **options)
    network = made.module.eval()
    inputs, labels = pictures(made.preprocess, 8)
    found = attack(network, inputs, labels, made.preprocess, 4)
    black, white = (torch.from_numpy(made.preprocess.normalise(
        np.full((1, 1, 1, 3), value, np.uint8))) for value in (0, 255))  # fmt: skip
    corners = torch.randint(0, 2, inputs.shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    noisy = (inputs + corners * (white - black) * 4 / 255).clamp(black, white)
    with torch.no_grad():
        clean, noise, worst = (
            cross_entropy(network(x), labels, reduction="none") for x in (inputs, noisy, found)
        )
    assert (worst > clean).all()
    assert (worst > noise).all()
    assert (worst - clean).mean() > 3 * (noise - clean).mean().abs()


class TwoFeatures(nn.Module):
    """Weighs the brightness of a picture, and a checkerboard in it."""

    def __init__(self) -> None:
        super().__init__()
        self.weigh = nn.Linear(2, 1)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        board = 1 - 2 * ((torch.arange(SIZE)[:, None] + torch.arange(SIZE)) % 2)
        features = [images.mean((1, 2, 3)), 8 * (images * board).mean((1, 2, 3))]
        return self.weigh(torch.stack(features, 1)).squeeze(1)


def test_training_on_them_takes_away_what_is_fainter_than_the_budget() -> None:
    # The checkerboard, of 2 grey levels, always tells; the brightness, 12 +- 10, mostly.
    preprocess = Preprocess(SIZE, (0.5,) * 3, (4 / 255,) * 3)
    rng = np.random.default_rng(0)
    labels = np.arange(64) % 2
    sides = (2 * labels - 1)[:, None, None, None]
    board = 1 - 2 * (np.indices((SIZE, SIZE, 3))[:2].sum(0) % 2)
    grey = 128 + 12 * sides + rng.normal(0, 10, (64, 1, 1, 1)) + 2 * sides * board
    x = torch.from_numpy(preprocess.normalise(grey.round().astype(np.uint8)))
    y = torch.from_numpy(labels).float()

    def accuracies(budget: float) -> list[float]:
        network = TwoFeatures()
        optimizer = torch.optim.Adam(network.parameters(), lr=0.3)
        for step in range(100):
            batch = attack(network, x, y, preprocess, budget, step) if budget else x
            cross_entropy(network(batch), y).backward()
            optimizer.step()
            optimizer.zero_grad()
        attacked = attack(network, x, y, preprocess, 4)
        with torch.no_grad():
            return [float(((network(z) > 0) == y.bool()).float().mean()) for z in (x, attacked)]

    plain, hard = accuracies(0), accuracies(4)
    assert plain[0] == 1
    assert 0.8 < hard[0] < 1, "clean accuracy is what it costs"
    assert plain[1] < 0.5
    assert hard[1] > 0.7


# -- what is left as it was -----------------------------------------------------------------------


def test_the_network_and_the_chance_of_others_are_left_as_they_were() -> None:
    made = small(freeze="none")
    network = made.module
    Freezing(made.stages(), "backbone", 1).apply(network, 0)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    modes = {name: module.training for name, module in network.named_modules()}
    needed = {name: p.requires_grad for name, p in network.named_parameters()}
    assert set(modes.values()) == set(needed.values()) == {True, False}
    state = {name: value.clone() for name, value in network.state_dict().items()}
    assert any("running_mean" in name for name in state)
    chance = torch.get_rng_state()
    inputs, labels = pictures(made.preprocess)
    found = attack(network, inputs, labels, made.preprocess, 4)
    assert not torch.equal(found, inputs)
    assert {name: module.training for name, module in network.named_modules()} == modes
    assert {name: p.requires_grad for name, p in network.named_parameters()} == needed
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in network.parameters())  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), chance)


def test_modes_are_restored_after_an_error_too() -> None:
    class Broken(Linear):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("broken")

    network = Broken(torch.zeros(3, SIZE, SIZE))
    with pytest.raises(RuntimeError, match="broken"):
        attack(network, *pictures(PLAIN), PLAIN, 4)
    assert network.training


def test_the_network_is_attacked_in_evaluation() -> None:
    seen = []

    class Asked(Linear):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(self.training)
            return super().forward(images)

    attack(Asked(torch.ones(3, SIZE, SIZE)), *pictures(PLAIN), PLAIN, 4)
    assert seen == [False] * STEPS


# -- in a training --------------------------------------------------------------------------------

CONFIG = TrainConfig(
    model="cnn",
    size=32,
    epochs=2,
    batch_size=8,
    precision="float32",
    augment="standard",
    label_smoothing=0.1,
    seed=5,
)
HARD = CONFIG.model_copy(update={"adversarial": 4.0})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "data"
    write_drawn_set(folder, {"train": 12, "validation": 4}, seed=1, size=40)
    return folder


@pytest.fixture(autouse=True)
def _no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_finish", lambda run, state: state)


def last(out: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(out / "training" / "last.safetensors")
    return found


def same(one: Path, two: Path) -> bool:
    first, second = last(one), last(two)
    assert first.keys() == second.keys()
    return all(torch.equal(value, second[key]) for key, value in first.items())


class Until(Watch):
    """Does something at one step of one epoch, and keeps the notes."""

    def __init__(self, at: tuple[int, int], action: Callable[[], None]) -> None:
        self.at, self.action = at, action
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def stepped(self, epoch: int, step: int, steps: int, loss: float, images: int) -> None:
        if (epoch, step) == self.at:
            self.action()


def test_a_stopped_run_resumes_bit_equal(data: Path, tmp_path: Path) -> None:
    train(data, tmp_path / "whole", HARD)
    press = Until((2, 2), lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "run", HARD, watch=press)
    (said,) = [note for note in press.notes if "adversarial" in note]
    assert said.startswith(f"adversarial training within 4 grey levels: {STEPS + 1} passes a step")
    train(data, tmp_path / "run", HARD, resume=True)
    assert same(tmp_path / "whole", tmp_path / "run")


def test_the_search_leaves_no_trace_but_the_pictures(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the found pictures thrown away, a run gives the bits of one without an attack."""
    train(data, tmp_path / "hard", HARD)
    calls = []

    def searched(
        network: nn.Module,
        inputs: torch.Tensor,
        labels: torch.Tensor,
        preprocess: Preprocess,
        *,
        budget: float,
        generator: torch.Generator,
    ) -> torch.Tensor:
        calls.append(generator.initial_seed())
        attack(network, inputs, labels, preprocess, budget)
        return inputs

    monkeypatch.setattr(training, "perturbed", searched)
    train(data, tmp_path / "plain", CONFIG)
    assert not calls, "0 is off"
    train(data, tmp_path / "searched", HARD)
    assert len(set(calls)) == len(calls) == 2 * 3, "every step has a chance of its own"
    assert same(tmp_path / "plain", tmp_path / "searched")
    assert not same(tmp_path / "plain", tmp_path / "hard")


@pytest.mark.parametrize(("precision", "mixed"), [("float32", False), ("bf16", True)])
def test_the_search_has_the_precision_of_the_training(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, mixed: bool
) -> None:
    seen = []

    def searched(_network: nn.Module, inputs: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        seen.append(torch.is_autocast_enabled(inputs.device.type))
        return inputs

    monkeypatch.setattr(training, "perturbed", searched)
    train(data, tmp_path / "run", HARD.model_copy(update={"precision": precision, "epochs": 1}))
    assert seen == [mixed] * 3


@pytest.mark.parametrize(
    "others",
    [
        {"precision": "bf16"},
        {"model": "hybrid", "stages": 1, "freeze": "backbone", "epochs": 1},
        {"model": "hybrid", "branches": ("residual",), "balance": "batches", "optimizer": "sgd"},
    ],
    ids=["bf16", "frozen", "residual"],
)
def test_it_goes_together_with_other_settings(
    data: Path, tmp_path: Path, others: dict[str, Any]
) -> None:
    state: Any = train(data, tmp_path / "run", HARD.model_copy(update=others))
    assert np.isfinite(state.history[-1].train_loss)
    if "freeze" in others:
        torch.manual_seed(HARD.seed)
        fresh = registry.create(HARD.model_copy(update=others))
        _, head = fresh.stages()[-1]
        trained = {id(t) for part in head for t in part.state_dict(keep_vars=True).values()}
        kept = last(tmp_path / "run")
        for name, value in fresh.module.state_dict(keep_vars=True).items():
            assert torch.equal(kept[f"model.{name}"], value) == (id(value) not in trained)


# -- settings -------------------------------------------------------------------------------------


def test_settings_from_before_there_was_one_mean_without(data: Path, tmp_path: Path) -> None:
    old = {k: v for k, v in CONFIG.model_dump(exclude_none=True).items() if k != "adversarial"}
    assert TrainConfig.read(None, **old).changes(CONFIG) == []
    assert TrainConfig.read(None, **old).changes(HARD) == ["adversarial = 0.0, now 4.0"]
    train(data, tmp_path / "run", CONFIG)
    settings_file = tmp_path / "run" / "training" / "config.toml"
    lines = settings_file.read_text().splitlines(keepends=True)
    settings_file.write_text("".join(line for line in lines if "adversarial" not in line))
    train(data, tmp_path / "run", CONFIG, resume=True)
    with pytest.raises(ConfigError, match=r"adversarial = 0\.0, now 4\.0"):
        train(data, tmp_path / "run", HARD, resume=True)


@pytest.mark.parametrize("wrong", [-1.0, 64.5, float("nan"), float("inf"), "4"])
def test_budgets_out_of_range_are_refused(wrong: object) -> None:
    with pytest.raises(ConfigError, match="'adversarial'") as caught:
        TrainConfig.read(None, adversarial=wrong)
    assert "\n" not in str(caught.value)
