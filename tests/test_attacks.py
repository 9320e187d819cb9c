"""Attacks against detectors whose margins are known, and what must hold of any result."""

from __future__ import annotations

import io
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from art.estimators.classification import BlackBoxClassifierNeuralNetwork
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from bonaface import attacks
from bonaface.attacks import ATTACKS, Attacked, Victim, attack, fit, prepare
from bonaface.bundle import Bundle, finish_bundle
from bonaface.calibration import Calibration, OperatingPoint
from bonaface.detector import Detector
from bonaface.errors import ConfigError
from bonaface.preprocess import Preprocess
from networks import bundle_of, make, stir
from tiny import SIZE, make_card, write_brightness_onnx

Pixels = NDArray[np.uint8]

SHAPE = (SIZE, SIZE, 3)
RECIPE = Preprocess(SIZE, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
PHOTO: Pixels = np.ascontiguousarray(skimage.data.astronaut()[0:160, 140:300])
WHITE = [name for name, row in ATTACKS.items() if row.white_box]
BLACK = [name for name, row in ATTACKS.items() if not row.white_box]
FEW: dict[str, int | None] = {
    "autoattack": 20,
    "autoattack-l2": 20,
    "square": 200,
    "hopskipjump": 4,
    "hopskipjump-l2": 4,
}


class Linear(nn.Module):
    """logit = sum of weight * pixel in [0, 1], plus bias, of normalised pixels."""

    def __init__(self, weight: NDArray[np.float64], bias: float = 0.0) -> None:
        super().__init__()
        std = np.array(RECIPE.std)
        mean = np.array(RECIPE.mean)
        self.weight = nn.Parameter(torch.tensor(weight * std).permute(2, 0, 1).float())
        self.bias = nn.Parameter(torch.tensor(bias + float((weight * mean).sum())))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images * self.weight).sum((1, 2, 3)) + self.bias  # type: ignore[no-any-return]


class Scorer:
    """What `evaluate` needs of a detector, with a PyTorch network instead of ONNX Runtime."""

    name = "linear"

    def __init__(self, bundle: Bundle, network: nn.Module) -> None:
        self.bundle = bundle
        self.calibration = bundle.calibration
        self.network = network
        self.seen: list[Pixels] = []

    def logits(self, crops: Any) -> NDArray[np.float64]:
        if not len(crops):
            return np.empty(0)
        self.seen += list(crops)
        recipe = self.bundle.preprocess
        images = recipe.normalise(np.stack([recipe.resize(crop) for crop in crops]))
        with torch.no_grad():
            found = self.network(torch.from_numpy(np.ascontiguousarray(images)))
        return np.asarray(found.double().numpy())


def linear_bundle(folder: Path) -> Bundle:
    card = make_card(
        preprocess=RECIPE.to_dict(),
        calibration=Calibration("platt", 0.5, 0.3).to_dict(),
        operating_points={"balanced": OperatingPoint("balanced", 0.7, "", 0, 0, 1, 1).to_dict()},
    )
    return Bundle(folder, card)


class Known:
    """A linear detector whose border lies at an even grey picture, and crops at known margins.

    `margins` are those of `crops` in grey levels, by norm: the least budget that turns them.
    """

    def __init__(
        self, folder: Path, weight: NDArray[np.float64], offsets: list[float], grey: int = 128
    ) -> None:
        (folder / "model.safetensors").touch()
        cut = (np.log(0.7 / 0.3) - 0.3) / 0.5
        self.network = Linear(weight, cut - float(weight.sum()) * grey / 255)
        self.scorer = Scorer(linear_bundle(folder), self.network)
        self.victim = Victim(self.scorer)
        self.victim.network = self.network.eval().requires_grad_(False)  # type: ignore[misc]
        self.crops = []
        for at, offset in enumerate(offsets):
            # As near to the offset as whole levels allow, which sets the margin anywhere.
            share = np.random.default_rng(at).permutation(weight.size) / weight.size
            levels = np.floor(abs(offset) + share.reshape(SHAPE))
            change = np.sign(weight) * np.sign(offset) * levels
            self.crops.append((grey + change).astype(np.uint8))
        self.logits = self.scorer.logits(self.crops)
        distance = 255 * np.abs(self.logits - cut)
        self.margins = {
            "linf": distance / np.abs(weight).sum(),
            "l2": distance / np.linalg.norm(weight) / weight.size**0.5,
        }
        self.labels = [int(offset > 0) for offset in offsets]
        self.scorer.seen.clear()

    def attack(self, name: str, budget: float, **changes: Any) -> Attacked:
        options = {"seed": 0, "steps": FEW.get(name)} | changes
        return attack(self.victim, self.crops, self.labels, name, budget, **options)


def even_weights(seed: int = 0) -> NDArray[np.float64]:
    """All of one size, so that both norms have the same margins and rounding changes nothing."""
    return 0.3 * np.random.default_rng(seed).choice([-1.0, 1.0], SHAPE)


def uneven_weights(seed: int = 0) -> NDArray[np.float64]:
    return 0.3 * np.random.default_rng(seed).standard_normal(SHAPE)


def smooth_weights() -> NDArray[np.float64]:
    """Four quarters of one sign each, which squares find."""
    signs = np.kron([[1.0, -1.0], [-1.0, 1.0]], np.ones((SIZE // 2, SIZE // 2)))
    return 0.3 * np.repeat(signs[:, :, None], 3, 2)


OFFSETS = [side * offset for side in (-1, 1) for offset in (0.5, 1.5, 2.5, 4.5, 7.5)]


@pytest.fixture
def known(tmp_path: Path) -> Known:
    return Known(tmp_path, even_weights(), OFFSETS)


def change(before: Pixels, after: Pixels) -> NDArray[np.int64]:
    return after.astype(np.int64) - before


def size(before: Pixels, after: Pixels, norm: str) -> float:
    found = change(before, after)
    return float(np.abs(found).max() if norm == "linf" else np.sqrt(np.mean(found**2)))


def as_jpeg(crop: Pixels, quality: int) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(crop).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


# -- gradients through the preprocessing -----------------------------------------------------------


@pytest.mark.parametrize("side", [17, 32, 47, 160])
@pytest.mark.parametrize("noisy", [False, True])
def test_prepare_is_the_recipe(side: int, noisy: bool) -> None:
    recipe = Preprocess(32, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    crop = PHOTO[:side, :side]
    if noisy:
        crop = np.random.default_rng(0).integers(0, 256, crop.shape, np.uint8)
    wanted = recipe.normalise(recipe.resize(crop)[None])
    pixels = torch.from_numpy(crop.copy()).permute(2, 0, 1)[None].float() / 255
    levels = 255 * np.array(recipe.std)[:, None, None]
    apart = np.abs(prepare(pixels, recipe).numpy() - wanted) * levels
    assert apart.max() < (1.01 if side != 32 else 1e-3)
    assert apart.mean() < 0.4


@pytest.mark.parametrize("name", ["cnn", "spectrum"])
@pytest.mark.parametrize("side", [24, 32, 45])
def test_gradients_agree_with_finite_differences(name: str, side: int) -> None:
    made = make(name, size=32)
    stir(made.module, 0)
    module = made.module.double().eval()

    def logit(pixels: torch.Tensor) -> torch.Tensor:
        return module(prepare(pixels, made.preprocess))[0]  # type: ignore[no-any-return]

    crop = PHOTO[30 : 30 + side, 40 : 40 + side]
    pixels = (torch.from_numpy(crop.copy()).permute(2, 0, 1)[None].double() / 255).requires_grad_()
    (gradient,) = torch.autograd.grad(logit(pixels), pixels)
    generator = torch.Generator().manual_seed(0)
    step = 1e-8  # in double precision, and hardly any ReLU changes sides
    for _ in range(4):
        way = torch.randn(pixels.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            slope = (logit(pixels + step * way) - logit(pixels - step * way)) / (2 * step)
        assert float((gradient * way).sum()) == pytest.approx(float(slope), rel=1e-3, abs=1e-6)
    assert int((gradient == 0).sum()) < gradient.numel() // 10


# -- a linear detector: the least budget is known --------------------------------------------------


@pytest.mark.parametrize("budget", [1, 3, 6])
@pytest.mark.parametrize("name", WHITE)
def test_crops_are_turned_where_the_margin_is_below_the_budget(
    known: Known, name: str, budget: int
) -> None:
    margins = known.margins[ATTACKS[name].norm]
    assert np.abs(margins - np.abs(OFFSETS)).max() < 0.1
    found = known.attack(name, budget)
    assert (found.wrong == (margins < budget)).all()
    assert found.tried == len(OFFSETS)


@pytest.mark.parametrize("name", ["fgsm-l2", "pgd-l2"])
def test_l2_reaches_margins_where_weights_differ(tmp_path: Path, name: str) -> None:
    known = Known(tmp_path, uneven_weights(), [-4.5, -1.5, 1.5, 4.5])
    margins = known.margins["l2"]
    for margin in sorted(margins):
        rounding = (1 + 1 / 12 / margin**2) ** 0.5  # errors of a level's width, at right angles
        assert known.attack(name, 1.02 * rounding * margin).wrong[margins <= margin].all()
        assert not known.attack(name, 0.99 * margin).wrong[margins >= margin].any()


@pytest.mark.parametrize("name", ["autoattack", "autoattack-l2"])
def test_auto_pgd_alone_reaches_the_margin(
    known: Known, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    row = ATTACKS[name]
    monkeypatch.setitem(ATTACKS, name, replace(row, stages=row.stages[1:2]))
    found = known.attack(name, 3)
    assert (found.wrong == (known.margins["l2"] < 3)).all()
    assert found.gradients == 20 * len(known.crops)


@pytest.mark.parametrize("name", ["pgd", "autoattack", "pgd-l2"])
def test_a_detector_that_is_sure_of_itself_is_attacked_as_well(tmp_path: Path, name: str) -> None:
    """Cross-entropy would be 0 in float32, and so would be its gradient."""
    known = Known(tmp_path, 1000 * even_weights(), OFFSETS)
    assert np.abs(known.logits).min() > 200
    found = known.attack(name, 3)
    assert (found.wrong == (known.margins["linf"] < 3)).all()


@pytest.mark.parametrize("name", ATTACKS)
def test_bigger_budgets_do_no_worse_and_without_a_bound_nothing_is_left(
    tmp_path: Path, name: str
) -> None:
    known = Known(tmp_path, smooth_weights(), [-6.5, -2.5, 2.5, 6.5])
    turned = [int(known.attack(name, budget).wrong.sum()) for budget in (1, 4, 16, 255)]
    assert turned == sorted(turned)
    assert turned[0] == 0
    assert turned[-1] == len(known.crops)


@pytest.mark.parametrize("name", BLACK)
def test_asking_succeeds_with_room_to_spare_but_never_below_the_margin(
    tmp_path: Path, name: str
) -> None:
    known = Known(tmp_path, smooth_weights(), [-4.5, -2.5, 2.5, 4.5])
    norm = ATTACKS[name].norm
    assert not known.attack(name, 2).wrong.any()
    assert known.attack(name, 4 * known.margins[norm].max()).wrong.all()
    with_gradients = known.attack("pgd" if norm == "linf" else "pgd-l2", 4).wrong
    assert not (known.attack(name, 4).wrong & ~with_gradients).any()


@pytest.mark.parametrize("offset", [-2.5, 2.5])
def test_hopskipjump_learns_from_pictures_of_8_bits(tmp_path: Path, offset: float) -> None:
    """From even pictures far off; with probes of less than a level it takes 2.5 margins or more."""
    known = Known(tmp_path, uneven_weights(1), [offset], grey=118)
    budget = 2 * known.margins["l2"][0]
    assert known.attack("hopskipjump-l2", budget, steps=10).wrong.all()
    assert not known.attack("hopskipjump-l2", budget, steps=1).wrong.any()


@pytest.mark.parametrize("norm", [2, np.inf])
def test_the_border_is_the_point_that_was_asked_about(norm: float) -> None:
    first, second = np.random.default_rng(0).random((2, 3, 8, 8), np.float32)
    one, other = (
        attacks._HopSkipJump._interpolate(
            current_sample=first, original_sample=second, alpha=alpha, norm=norm
        )
        for alpha in (0.3, np.array(0.3))
    )
    assert one.dtype == other.dtype
    assert (one == other).all()


def test_hopskipjump_does_not_search_for_ever() -> None:
    asked = 0

    def changing(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """The start is real the first time it is asked about, and nothing is ever after."""
        nonlocal asked
        asked += 1
        return np.tile(np.float32([1, 0] if asked != 2 else [0, 1]), (len(pixels), 1))

    classifier = BlackBoxClassifierNeuralNetwork(changing, (3, 8, 8), 2, clip_values=(0.0, 1.0))
    tool = attacks._HopSkipJump(
        classifier, targeted=True, max_iter=1, init_eval=5, max_eval=5, verbose=False
    )
    start, original = np.ones((1, 3, 8, 8), np.float32), np.zeros((1, 3, 8, 8), np.float32)
    tool.generate(original, np.float32([[0, 1]]), x_adv_init=start)
    assert asked < 200


@pytest.mark.parametrize("name", ATTACKS)
def test_fakes_are_pushed_to_real_and_reals_to_fake(tmp_path: Path, name: str) -> None:
    known = Known(tmp_path, smooth_weights(), [-9.5, 9.5])
    found = known.attack(name, 4)
    assert not found.wrong.any()
    moved = found.logits - known.logits
    assert moved[0] >= 0
    assert moved[1] <= 0
    if "hopskipjump" not in name:  # which sees only that nothing turns
        assert moved[0] > 0.1 * (0 - moved[1]) > 0


def test_one_direction_alone(known: Known) -> None:
    for label in (0, 1):
        crops = [
            crop for crop, each in zip(known.crops, known.labels, strict=True) if each == label
        ]
        found = attack(known.victim, crops, [label] * len(crops), "pgd", 3, seed=0)
        assert found.wrong.sum() == 3


# -- the detector's own word -----------------------------------------------------------------------


def test_another_operating_point_is_another_border(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    write_brightness_onnx(folder / "model.onnx")
    detector = Detector(finish_bundle(folder, make_card()), threads=1)
    crop = np.full(SHAPE, 131, np.uint8)  # balanced lies at 127.5, fake_above higher
    found = attack(Victim(detector), [crop, crop], [1, 0], "square", 2, seed=0, steps=20)
    assert found.wrong.tolist() == [False, True]
    strict = Victim(detector, "fake_above")
    found = attack(strict, [crop, crop], [1, 0], "square", 2, seed=0, steps=20)
    assert found.wrong.tolist() == [True, False]
    assert strict.is_fake(np.array([strict.cut - 1e-6, strict.cut + 1e-6])).tolist() == [
        False,
        True,
    ]


@pytest.mark.parametrize("threshold", [0.0, 1.0, float(np.nextafter(1, 2))])
def test_a_threshold_that_every_or_no_score_reaches(tmp_path: Path, threshold: float) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    write_brightness_onnx(folder / "model.onnx")
    point = OperatingPoint("balanced", threshold, "", 0, 0, 1, 1).to_dict()
    card = make_card(operating_points={"balanced": point})
    victim = Victim(Detector(finish_bundle(folder, card), threads=1))
    assert np.isfinite(victim.cut)
    crops = [np.full(SHAPE, level, np.uint8) for level in (90, 160)]
    right = int(threshold == 0.0)  # everything is called fake, or nothing
    found = attack(victim, crops, [right] * 2, "square", 8, seed=0, steps=20)
    assert found.tried == 2
    assert not found.wrong.any()


@pytest.mark.parametrize("name", ["pgd", "square", "hopskipjump"])
def test_what_is_decided_wrongly_stays_as_it_is(known: Known, name: str) -> None:
    labels = [1 - label for label in known.labels]
    found = attack(known.victim, known.crops, labels, name, 4, seed=0)
    assert found.tried == found.gradients == 0
    assert found.wrong.all()
    for old, new in zip(known.crops, found.crops, strict=True):
        assert (old == new).all()
        assert not np.shares_memory(old, new)


def test_an_attack_that_fails_changes_nothing(tmp_path: Path) -> None:
    """The gradients of a network that points the wrong way only help the detector."""
    known = Known(tmp_path, even_weights(), OFFSETS)
    known.victim.network = Linear(-even_weights()).requires_grad_(False)  # type: ignore[misc]
    found = known.attack("fgsm", 8)
    assert not found.wrong.any()
    assert (found.logits == known.logits).all()
    assert all((a == b).all() for a, b in zip(found.crops, known.crops, strict=True))


@pytest.mark.parametrize("name", ["pgd-l2", "square", "hopskipjump"])
def test_logits_are_the_detectors_of_the_crops(known: Known, name: str) -> None:
    found = known.attack(name, 3, jpeg=90)
    np.testing.assert_allclose(found.logits, known.scorer.logits(found.crops), rtol=1e-6)
    assert (found.wrong == (known.victim.is_fake(found.logits) != np.array(known.labels))).all()


# -- the pictures ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ATTACKS)
def test_budgets_hold_after_rounding(tmp_path: Path, name: str) -> None:
    budget = 2.7
    known = Known(tmp_path, uneven_weights(), OFFSETS)
    rng = np.random.default_rng(0)
    known.crops += [rng.choice(np.array([0, 1, 254, 255], np.uint8), SHAPE) for _ in range(2)]
    known.labels += known.victim.is_fake(known.scorer.logits(known.crops[-2:])).astype(int).tolist()
    found = known.attack(name, budget)
    norm = ATTACKS[name].norm
    sizes = [size(a, b, norm) for a, b in zip(known.crops, found.crops, strict=True)]
    assert max(sizes) <= (np.floor(budget) if norm == "linf" else budget)
    if name in WHITE:
        assert max(sizes) > 0.95 * np.floor(budget)
    for crop in found.crops:
        assert crop.dtype == np.uint8
        assert crop.shape == SHAPE


@given(
    square=arrays(np.uint8, (8, 8, 3), fill=st.nothing()),
    attacked=arrays(np.float32, (3, 8, 8), elements=st.floats(0, 1, width=32), fill=st.nothing()),
    norm=st.sampled_from(["linf", "l2"]),
    budget=st.floats(0.1, 255),
)
@settings(max_examples=50, deadline=None)
def test_any_square_fits_any_budget(square: Any, attacked: Any, norm: str, budget: float) -> None:
    found = fit(square, attacked, norm, budget)
    assert size(square, found, norm) <= budget


def test_a_small_even_change_does_not_vanish_in_l2() -> None:
    square = np.full((32, 32, 3), 100, np.uint8)
    wished = np.random.default_rng(0).normal(100, 0.2, (3, 32, 32)).astype(np.float32) / 255
    found = fit(square, wished, "l2", 0.2)
    assert 0.19 < size(square, found, "l2") <= 0.2
    up = wished.transpose(1, 2, 0) * 255 > 100
    assert (change(square, found)[up] >= 0).all()


def test_whole_levels_that_fit_stay_as_they_are() -> None:
    square, other = PHOTO[:32, :32], PHOTO[40:72, 40:72]
    found = fit(square, other.transpose(2, 0, 1).astype(np.float32) / np.float32(255), "l2", 255)
    np.testing.assert_array_equal(found, other)


@pytest.mark.parametrize("name", ["pgd-l2", "autoattack", "square", "hopskipjump-l2"])
def test_the_same_seed_gives_the_same_crops_and_leaves_no_trace(known: Known, name: str) -> None:
    before = [crop.copy() for crop in known.crops]
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    random.seed(5)
    states = np.random.get_state()[1], torch.get_rng_state(), random.getstate()  # noqa: NPY002
    first = known.attack(name, 4)
    assert (np.random.get_state()[1] == states[0]).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[1])
    assert random.getstate() == states[2]
    np.random.seed(6)  # noqa: NPY002
    second, other = known.attack(name, 4), known.attack(name, 4, seed=1)
    assert all((a == b).all() for a, b in zip(first.crops, second.crops, strict=True))
    if name != "autoattack":  # which ends at the same corners
        assert not all((a == b).all() for a, b in zip(first.crops, other.crops, strict=True))
    for old, crop, new in zip(before, known.crops, first.crops, strict=True):
        assert (old == crop).all()
        assert not np.shares_memory(crop, new)
    assert not known.network.training


def test_the_random_state_is_restored_when_an_attack_breaks(known: Known) -> None:
    known.victim.network = nn.Identity()  # type: ignore[misc]
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    with pytest.raises(RuntimeError):
        known.attack("pgd", 4)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_jpeg_saves_every_crop_attacked_or_not(known: Known) -> None:
    plain = known.attack("pgd", 6).crops
    labels = [*known.labels[:-1], 1 - known.labels[-1]]  # the last is wrong as it is
    found = attack(known.victim, known.crops, labels, "pgd", 6, seed=0, jpeg=60)
    untouched = [(a == as_jpeg(b, 60)).all() for a, b in zip(found.crops, known.crops, strict=True)]
    attacked = [(a == as_jpeg(b, 60)).all() for a, b in zip(found.crops, plain, strict=True)]
    assert all(one != other for one, other in zip(untouched, attacked, strict=True))
    assert untouched[-1]
    assert sum(attacked) >= 3


@pytest.mark.parametrize("name", BLACK)
def test_black_box_attacks_ask_about_what_arrives(known: Known, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)
    arrives = known.scorer.logits([as_jpeg(noise, 1)])
    labels = known.victim.is_fake(arrives).astype(int).tolist()
    known.scorer.seen.clear()
    attack(known.victim, [noise], labels, name, 3, seed=0, jpeg=1, steps=5)
    assert len(known.scorer.seen) > 5
    for crop in known.scorer.seen:  # with hardly any colour left
        assert np.ptp(crop.astype(int), axis=2).std() < 20
    assert np.ptp(noise.astype(int), axis=2).std() > 40


@pytest.mark.parametrize("name", ["pgd", "square", "hopskipjump-l2"])
def test_only_what_the_detector_sees_is_changed(known: Known, name: str) -> None:
    wide = np.full((SIZE, 25, 3), 90, np.uint8)
    wide[:, 4:20] = known.crops[6]
    tall = np.full((31, SIZE, 3), 90, np.uint8)
    tall[7:23] = known.crops[1]
    small = known.crops[6][:7, :9].copy()
    large = np.kron(known.crops[6], np.ones((2, 2, 1), np.uint8))
    crops = [wide, tall, small, large]
    labels = known.victim.is_fake(known.scorer.logits(crops)).astype(int).tolist()
    found = attack(known.victim, crops, labels, name, 8, seed=0, steps=FEW.get(name))
    assert found.tried == 3
    assert [crop.shape for crop in found.crops] == [crop.shape for crop in crops]
    assert (found.crops[0][:, :4] == 90).all()
    assert (found.crops[0][:, 20:] == 90).all()
    assert (found.crops[1][:7] == 90).all()
    assert (found.crops[1][23:] == 90).all()
    assert (found.crops[2] == small).all()
    if name == "pgd":
        assert found.wrong.tolist() == [True, True, False, True]


# -- cost, progress, mistakes ----------------------------------------------------------------------


def test_costs_are_counted(known: Known) -> None:
    n = len(known.crops)
    found = known.attack("fgsm", 1)
    assert (found.gradients, found.queries) == (n, 2 * n)
    assert known.attack("pgd", 1).gradients == 20 * n
    assert known.attack("pgd", 1, steps=7).gradients == 7 * n
    assert known.attack("autoattack", 1, steps=9).gradients == 20 * n + 9 * (n - 2)
    asked = known.attack("square", 1, steps=50)
    assert asked.gradients == 0
    assert 20 * n < asked.queries <= 54 * n
    known.scorer.seen.clear()
    asked = known.attack("hopskipjump", 1, steps=2)
    assert asked.queries == len(known.scorer.seen)
    assert asked.queries < 200 * n


def test_progress_is_told(known: Known) -> None:
    told: list[tuple[int, int]] = []
    crops = [*known.crops, np.kron(known.crops[0], np.ones((2, 2, 1), np.uint8))]
    labels = [*known.labels, 0]
    labels[3] = 1 - labels[3]
    attack(
        known.victim, crops, labels, "fgsm", 2, seed=0, progress=lambda *now: told.append(now)
    )  # fmt: skip
    assert told == [(10, 11), (11, 11)]


def test_nothing_to_attack(known: Known) -> None:
    found = attack(known.victim, [], [], "pgd", 2, seed=0)
    assert found.crops == ()
    assert found.logits.shape == found.wrong.shape == (0,)


@pytest.mark.parametrize("name", ["hopskipjump", "hopskipjump-l2"])
def test_hopskipjump_without_a_place_to_begin(known: Known, name: str) -> None:
    known.network.bias.data += 1e6  # everything is fake
    found = attack(known.victim, known.crops, [1] * len(known.crops), name, 8, seed=0)
    assert not found.wrong.any()
    assert all((a == b).all() for a, b in zip(found.crops, known.crops, strict=True))


class Needle(nn.Module):
    """Real is one picture alone."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        grey = torch.tensor([(1 - m) / s for m, s in zip(RECIPE.mean, RECIPE.std, strict=True)])
        apart = (images - grey[:, None, None]).abs().amax((1, 2, 3))
        return torch.where(apart < 1e-3, -9.0, 9.0)


@pytest.mark.parametrize("name", ["hopskipjump", "hopskipjump-l2"])
def test_hopskipjump_ends_where_there_is_no_border(tmp_path: Path, name: str) -> None:
    victim = Victim(Scorer(linear_bundle(tmp_path), Needle()))
    found = attack(victim, [PHOTO[:SIZE, :SIZE]], [1], name, 20, seed=0, steps=3)
    assert not found.wrong.any()
    assert attack(victim, [PHOTO[:SIZE, :SIZE]], [1], name, 255, seed=0, steps=3).wrong.all()


def test_a_bundle_without_weights_allows_what_only_asks(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    write_brightness_onnx(folder / "model.onnx")
    detector = Detector(finish_bundle(folder, make_card()), threads=1)
    victim = Victim(detector)
    assert not victim.white_box
    assert [name for name in ATTACKS if Victim.allows(detector, name)] == BLACK
    crops = [np.full(SHAPE, level, np.uint8) for level in (118, 137)]
    for name in WHITE:
        with pytest.raises(ConfigError) as caught:
            attack(victim, crops, [0, 1], name, 4, seed=0)
        message = str(caught.value)
        assert "\n" not in message
        assert message.endswith("; attack it with " + ", ".join(BLACK))
    for name in BLACK:  # margins are 9.5
        small, big = (
            attack(victim, crops, [0, 1], name, budget, seed=0, steps=FEW[name])
            for budget in (9, 40)
        )
        assert not small.wrong.any()
        assert big.wrong.all()


@pytest.mark.parametrize(
    ("name", "budget", "changes", "told"),
    [
        ("magic", 4, {}, "fgsm, fgsm-l2, pgd"),
        ("pgd", 0.5, {}, "1 to 255"),
        ("pgd", 256, {}, "1 to 255"),
        ("pgd-l2", 0, {}, "more than 0 to 255"),
        ("pgd-l2", float("nan"), {}, "more than 0 to 255"),
        ("pgd", float("nan"), {}, "1 to 255"),
        ("pgd", 4, {"jpeg": 0}, "1 to 100"),
        ("pgd", 4, {"jpeg": 101}, "1 to 100"),
        ("pgd", 4, {"steps": 0}, "at least one step"),
    ],
)
def test_mistakes_are_told(
    known: Known, name: str, budget: float, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        known.attack(name, budget, **changes)
    message = str(caught.value)
    assert told in message
    assert "\n" not in message
    assert "; " in message


@pytest.mark.parametrize("labels", [[0], [0, 2], [0, 1, 1]])
def test_labels_are_checked(known: Known, labels: list[int]) -> None:
    with pytest.raises(ConfigError, match="label of 0 or 1 for each of 2 crops"):
        attack(known.victim, known.crops[:2], labels, "pgd", 4, seed=0)


# -- our own networks ------------------------------------------------------------------------------


def test_a_bundle_of_ours_is_attacked_through_its_resize(tmp_path: Path) -> None:
    made = make("cnn", size=32)
    stir(made.module, 0)
    made.module.eval()
    bundle = bundle_of(made, tmp_path / "ours")
    crops = [PHOTO[at : at + 40, 2 * at : 2 * at + 48] for at in range(0, 60, 10)]
    middle = float(np.median(Scorer(bundle, made.module).logits(crops)))
    card = bundle.card.model_copy(update={"calibration": Calibration("platt", 5.0, -5.0 * middle)})
    scorer = Scorer(Bundle(bundle.folder, card), made.module)
    victim = Victim(scorer)
    assert victim.cut == pytest.approx(middle)
    labels = victim.is_fake(scorer.logits(crops)).astype(int).tolist()
    assert sorted(labels) == [0, 0, 0, 1, 1, 1]
    found = attack(victim, crops, labels, "pgd", 4, seed=0, steps=5)
    assert found.wrong.all()
    assert all(size(a, b, "linf") <= 4 for a, b in zip(crops, found.crops, strict=True))
    assert victim.network is not made.module
    assert not any(p.requires_grad for p in victim.network.parameters())
