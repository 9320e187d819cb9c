"""Maps of networks whose answer is known, and what must hold of any measure of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from bonaface.bundle import finish_bundle, load_bundle
from bonaface.detector import load_detector
from bonaface.errors import ConfigError, DataError
from bonaface.explain import (
    METHODS,
    Curves,
    Explainer,
    Faith,
    Map,
    evaluating,
    explain,
    explaining,
    faithful,
    maps,
)
from bonaface.explain.drawing import map_as_grey, overlay, panel, sheet, spectrum_view
from bonaface.explain.evaluating import Row, assess, forged_from, mean_figure, point
from bonaface.explain.gradients import Network, grad_cam, integrated_gradients
from bonaface.explain.writing import Writer
from bonaface.forging import forge_set
from bonaface.preprocess import Preprocess
from bonaface.samples import load_samples
from networks import bundle_of, make, stir
from portraits import group, portrait
from tiny import SIZE, make_card, write_linear_onnx

CORNER = (slice(0, 4), slice(0, 4))
PLAIN = Preprocess(SIZE, (0.0,) * 3, (1.0,) * 3)


def corner_weight(size: int = SIZE) -> np.ndarray:
    """Looks at one corner only."""
    weight = np.zeros((3, size, size))
    weight[:, *CORNER] = 0.2
    return weight


def corner_view(size: int = SIZE) -> np.ndarray:
    """Bright where that looks, and noise."""
    view = np.random.default_rng(0).integers(0, 100, (size, size, 3)).astype(np.uint8)
    view[CORNER] = 230
    return view


def corner_logits(views: np.ndarray) -> np.ndarray:
    return np.tensordot(views.astype(np.float64) / 255, corner_weight().transpose(1, 2, 0), 3)


class Corner(nn.Module):
    """The same network in PyTorch, with features to look at."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 1, 1, bias=False), nn.BatchNorm2d(1), nn.ReLU())
        self.features[0].weight.data.fill_(1.0)
        self.head = nn.Linear(SIZE * SIZE, 1, bias=False)
        self.head.weight.data = torch.tensor(corner_weight()[0]).float().reshape(1, -1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(images).flatten(1)).squeeze(1)

    def parts(self) -> Any:
        return [("features", [self.features]), ("head", [self.head])]


@pytest.fixture
def corner_bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "corner"
    folder.mkdir()
    write_linear_onnx(folder / "model.onnx", corner_weight(), -6.0)
    finish_bundle(folder, make_card(name="corner"))
    return folder


def lies_in_corner(values: np.ndarray) -> bool:
    y, x = np.unravel_index(int(values.argmax()), values.shape)
    return bool(y < 4 and x < 4)


# -- maps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_every_method_points_where_the_network_looks(method: str) -> None:
    view = corner_view()
    if method == "occlusion":
        found = maps.occlusion(corner_logits, view)
    elif method == "rise":
        found = maps.rise(corner_logits, view, 0)
    else:
        act = grad_cam if method == "grad-cam" else integrated_gradients
        found = act(Corner().eval(), PLAIN, view)
    assert found.values.shape == (SIZE, SIZE)
    assert lies_in_corner(found.values)
    assert "logit" in found.unit


def test_what_speaks_for_real_is_below_zero() -> None:
    view = corner_view()
    for found in (
        maps.occlusion(lambda views: -corner_logits(views), view),
        maps.rise(lambda views: -corner_logits(views), view, 0),
    ):
        assert lies_in_corner(-found.values)
        assert found.values[CORNER].max() < 0


def test_occlusion_is_the_fall_of_the_logit() -> None:
    view = corner_view()
    window, starts = maps.occlusion_places(SIZE)
    fill = np.rint(view.reshape(-1, 3).mean(0))
    covered = view.astype(np.float64)
    covered[:window, :window] = fill
    fall = corner_logits(view[None])[0] - corner_logits(covered[None])[0]
    # Only the first square covers the first pixel.
    assert starts[1] > 0
    assert maps.occlusion(corner_logits, view).values[0, 0] == pytest.approx(fall)


@given(st.integers(16, 300))
def test_squares_cover_every_pixel_and_stay_inside(size: int) -> None:
    window, starts = maps.occlusion_places(size)
    assert starts[0] == 0
    assert starts[-1] + window == size
    assert all(0 < step <= window for step in np.diff(starts))


def test_rise_is_its_own_definition_and_leaves_numpys_generator_alone() -> None:
    view = corner_view()
    state = np.random.get_state()  # noqa: NPY002  (what must not change)
    found = maps.rise(corner_logits, view, 3)
    assert np.array_equal(np.random.get_state()[1], state[1])  # noqa: NPY002
    assert np.array_equal(found.values, maps.rise(corner_logits, view, 3).values)
    rng, fill = np.random.default_rng(3), view.reshape(-1, 3).mean(0)
    masks = np.concatenate([maps._masks(rng, 50, SIZE) for _ in range(maps.MASKS // 50)])
    assert masks.min() >= 0
    assert masks.max() <= 1
    assert masks.mean() == pytest.approx(0.5, abs=0.02)
    part = masks[..., None].astype(np.float64)
    logits = corner_logits(np.rint(view * part + fill * (1 - part)))
    wanted = (logits * masks[:, 2, 9]).sum() / masks[:, 2, 9].sum()
    wanted -= (logits * (1 - masks[:, 2, 9])).sum() / (1 - masks[:, 2, 9]).sum()
    assert found.values[2, 9] == pytest.approx(wanted, abs=1e-3)


# -- gradients ------------------------------------------------------------------------------------


def test_integrated_gradients_are_complete_and_see_nothing_else() -> None:
    view = corner_view()
    found = integrated_gradients(Corner().eval(), PLAIN, view)
    assert found.facts["sum"] == pytest.approx(found.facts["difference"], rel=1e-4)
    plain = np.broadcast_to(np.rint(maps.mean_colour(view)), view.shape)
    # Batch norm at rest divides by the root of 1 + 1e-5.
    wanted = (corner_logits(view[None]) - corner_logits(plain[None]))[0]
    assert found.facts["difference"] == pytest.approx(wanted, rel=1e-4)
    assert found.values.sum() / (SIZE * SIZE / 100) == pytest.approx(wanted, rel=1e-4)
    assert np.abs(found.values[8:, 8:]).max() == 0


def test_integrated_gradients_of_a_real_network_are_complete(small_cnn: Path) -> None:
    network = Network(load_bundle(small_cnn))
    view = cv2.resize(portrait(), (32, 32))
    found = network.integrated_gradients(view)
    gap = abs(found.facts["sum"] - found.facts["difference"])
    assert gap <= 0.05 * max(1, abs(found.facts["difference"]))


def test_grad_cam_of_pooled_features_adds_up_to_the_logit() -> None:
    class Pooled(Corner):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(nn.Conv2d(3, 5, 3, 2, 1), nn.ReLU())
            self.head = nn.Linear(5, 1, bias=False)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.head(self.features(images).mean((2, 3))).squeeze(1)

    torch.manual_seed(0)
    module, view = Pooled().eval(), corner_view()
    found = grad_cam(module, PLAIN, view)
    with torch.no_grad():
        logit = float(module(torch.from_numpy(view).permute(2, 0, 1)[None].float() / 255)[0])
    assert found.facts["cells"] == SIZE / 2
    assert found.facts["sum"] == pytest.approx(logit, rel=0.02)  # enlarging moves a little


@pytest.mark.parametrize("model", ["cnn", "hybrid"])
def test_gradients_leave_no_trace(model: str) -> None:
    options = {"size": 64, "stages": 1} if model == "hybrid" else {"size": 64}
    module = make(model, **options).module.train()
    next(iter(module.children())).eval()  # modes differ inside
    modes = [part.training for part in module.modules()]
    state = torch.get_rng_state()
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    view = cv2.resize(portrait(), (64, 64))
    for act in (grad_cam, integrated_gradients):
        found = act(module, Preprocess(64), view)
        assert np.isfinite(found.values).all()
        assert np.abs(found.values).max() > 0
    assert [part.training for part in module.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(weights[name], value) for name, value in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())
    for part in module.modules():
        assert not part._forward_hooks
        assert not part._forward_pre_hooks
        assert not part._backward_hooks


def test_grad_cam_sees_both_branches_of_a_hybrid() -> None:
    made = make("hybrid", size=64, stages=1)
    images = torch.zeros(1, 3, 64, 64)
    from bonaface.explain.gradients import _layers

    module: Any = made.module
    assert _layers(module.eval(), images) == [
        module.branches["rgb"].stages[0],
        module.branches["residual"].blocks[-1],
    ]


def test_a_network_without_features_has_no_grad_cam() -> None:
    module = make("spectrum", size=32).module
    with pytest.raises(ConfigError, match="take --method occlusion"):
        grad_cam(module, Preprocess(32), cv2.resize(portrait(), (32, 32)))


# -- faithfulness ---------------------------------------------------------------------------------


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-(logits - 5))))


def test_deletion_and_insertion_of_a_known_model() -> None:
    """The score is the mean brightness of a picture whose rows are taken from the top."""
    view = np.zeros((20, 20, 3), np.uint8)
    view[:10] = 200  # mean 100
    down = -np.repeat(np.arange(20.0)[:, None], 20, 1)

    def brightness(views: np.ndarray) -> np.ndarray:
        return views.mean((1, 2, 3)) / 255

    found = faithful.measure_faith(brightness, lambda x: x, 0.3, view, down, seed=0, rivals=2)
    assert found.side == "fake"
    means = [(200 * (10 - n) + 100 * n) / 20 for n in range(11)]
    means += [(1000 + 100 * n) / 20 for n in range(1, 11)]
    np.testing.assert_allclose(found.own.deletion, np.array(means) / 255)
    blurred = cv2.GaussianBlur(view, (0, 0), 1, borderType=cv2.BORDER_REFLECT)[:, 0, 0].astype(int)
    back = [(200 * min(n, 10) + blurred[n:].sum()) / 20 / 255 for n in range(21)]
    np.testing.assert_allclose(found.own.insertion, back)
    areas = np.mean([(a + b) / 2 for a, b in zip(means, means[1:], strict=False)]) / 255
    assert found.own.deletion_auc == pytest.approx(areas)
    # On the other side of the threshold the score of real is looked at, and the map turned.
    other = faithful.measure_faith(brightness, lambda x: x, 0.5, view, -down, seed=0, rivals=2)
    assert other.side == "real"
    np.testing.assert_allclose(other.own.deletion, 1 - np.array(means) / 255)


def test_a_true_map_is_believed_and_a_false_one_is_not() -> None:
    view, weight = corner_view(), corner_weight().sum(0)
    args: Any = (corner_logits, sigmoid, 0.5, view)
    good = faithful.measure_faith(*args, weight, seed=0)
    assert good.side == "fake"
    assert good.as_good == 0
    assert good.believed
    assert good.p == pytest.approx(0.05)
    assert "None of 19" in good.words
    bad = faithful.measure_faith(*args, -weight, seed=0)
    assert not bad.believed
    assert bad.as_good >= 15
    assert "do not read anything" in bad.words
    flat = faithful.measure_faith(*args, np.zeros((SIZE, SIZE)), seed=0)
    assert not flat.believed


def test_random_maps_are_as_smooth_as_the_map() -> None:
    rng = np.random.default_rng(0)
    for size in (15, 16):
        values = cv2.GaussianBlur(rng.standard_normal((size, size)), (0, 0), 2)
        strength = np.abs(np.fft.rfft2(values - values.mean()))
        made = faithful.random_maps(values, 3, rng)
        for one in made:
            np.testing.assert_allclose(np.abs(np.fft.rfft2(one)), strength, atol=1e-9)
        assert abs(np.corrcoef(made[0].ravel(), made[1].ravel())[0, 1]) < 0.9


def test_a_faith_is_told_in_plain_values() -> None:
    view = corner_view()
    found = faithful.measure_faith(
        corner_logits, sigmoid, 0.5, view, corner_weight().sum(0), seed=0, rivals=3
    )
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert len(told["map"]["deletion"]) == faithful.STEPS + 1
    mean = np.mean([one.deletion_auc for one in found.random])
    assert told["random_mean"]["deletion_auc"] == pytest.approx(mean, abs=1e-4)


# -- photos and clips -----------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def few_rivals(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Explainer.look

    def look(self: Explainer, view: Any, *, rivals: int = 3, progress: Any = None) -> Any:
        return original(self, view, rivals=min(rivals, 3), progress=progress)

    monkeypatch.setattr(Explainer, "look", look)


def test_each_face_has_a_map_of_its_own(make_bundle: Callable[..., Path]) -> None:
    detector = load_detector(make_bundle())
    photo = group([(40, 60, 300), (420, 100, 200), (650, 100, 60)], 500, 800)
    seen: list[tuple[int, int]] = []
    found = explain(Explainer(detector), photo, progress=lambda *at: seen.append(at))
    assert [look.number for look in found.looks] == [1, 2, 3]
    verdict = detector.detect(photo)
    for look, face in zip(found.looks[:2], verdict.faces, strict=False):
        assert look.box == face.box
        assert look.crop is not None
        assert look.score == pytest.approx(float(detector.score([look.crop])[0]))
        assert look.map is not None
        assert look.faith is not None
    small = found.looks[2]
    assert small.answer == "not_applicable"
    assert small.map is small.faith is small.crop is None
    assert "at least 64 px" in small.reason
    assert seen[-1][0] == seen[-1][1]
    assert json.loads(json.dumps(found.to_dict()))["looks"][2]["map"] is None


def test_without_a_search_the_picture_is_the_crop(make_bundle: Callable[..., Path]) -> None:
    detector = load_detector(make_bundle())
    found = explain(Explainer(detector), corner_view(40), faces="none")
    (look,) = found.looks
    assert look.box is None
    assert look.crop is not None
    assert look.crop.shape == (40, 40, 3)


def test_what_has_no_face_or_is_no_picture_is_said(make_bundle: Callable[..., Path]) -> None:
    explainer = Explainer(load_detector(make_bundle()))
    grey = explain(explainer, np.full((80, 80, 3), 99, np.uint8))
    assert grey.looks == ()
    assert "no face found" in grey.verdict.reason
    assert explain(explainer, b"no picture").verdict.kind is None


def write_clip(path: Path, frames: list[np.ndarray]) -> Path:
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (width, height))
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def test_a_clip_is_judged_as_ever_and_some_of_its_frames_explained(
    make_bundle: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explaining, "SHOWN", 2)
    photo = group([(20, 20, 200)], 240, 320)
    clip = write_clip(tmp_path / "clip.mp4", [photo] * 8)
    detector = load_detector(make_bundle())
    explainer = Explainer(detector)
    found = explain(explainer, clip, frames=4)
    verdict = detector.detect(clip, frames=4)
    assert found.verdict == verdict
    assert len(found.looks) == 2
    scores = {moment.frame: moment.score for moment in verdict.people[0].moments}
    for look in found.looks:
        assert look.crop is not None
        assert look.frame is not None
        assert float(detector.score([look.crop])[0]) == pytest.approx(scores[look.frame])
    assert sheet(found).shape[1] == 1500


def test_a_person_who_is_not_judged_has_no_map(
    make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    there, gone = group([(20, 20, 200)], 240, 320), group([], 240, 320)
    clip = write_clip(tmp_path / "clip.mp4", [there] * 2 + [gone] * 10)
    found = explain(Explainer(load_detector(make_bundle())), clip, frames=6)
    assert found.verdict.people[0].answer == "not_applicable"
    assert [look.map for look in found.looks] == [None]
    assert "at least 3 are needed" in found.looks[0].reason
    sheet(found)


def test_methods_are_checked(corner_bundle: Path) -> None:
    detector = load_detector(corner_bundle)
    with pytest.raises(ConfigError, match="expected a method out of"):
        Explainer(detector, "lime")
    with pytest.raises(ConfigError, match="take --method occlusion or rise"):
        Explainer(detector, "grad-cam")


@pytest.fixture(scope="module")
def small_cnn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make("cnn", size=32)
    stir(made.module, 1)
    return bundle_of(made, tmp_path_factory.mktemp("cnn") / "cnn", exported=True).folder


@pytest.mark.parametrize("method", METHODS)
def test_every_method_through_a_bundle(method: str, small_cnn: Path) -> None:
    found = explain(Explainer(load_detector(small_cnn), method), portrait())
    (look,) = found.looks
    assert look.map is not None
    assert look.map.values.shape == (32, 32)
    assert found.method == method
    assert panel(found, look).shape[1] == 1500


# -- pictures -------------------------------------------------------------------------------------


def test_the_overlay_has_the_colour_of_the_side() -> None:
    values = np.zeros((16, 16))
    values[:, :8], values[:, 8:] = 1.0, -1.0
    found = Map(values, "change of logit", {})
    drawn = overlay(np.full((40, 40, 3), 128, np.uint8), found, 1.0).astype(int)
    assert drawn[50, 20, 0] > drawn[50, 20, 2] + 60  # vermilion for fake
    assert drawn[50, -20, 2] > drawn[50, -20, 0] + 60  # blue for real
    grey, scale = map_as_grey(found)
    assert scale == 1.0
    assert set(grey.ravel()) == {1, 255}
    assert map_as_grey(Map(np.zeros((4, 4)), "", {}))[0].max() == 128


@pytest.mark.parametrize("side", [16, 17])
def test_the_spectrum_is_the_whole_transform(side: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype(np.uint8)
    grey = pixels @ np.array([0.299, 0.587, 0.114]) / 255
    power = np.abs(np.fft.fftshift(np.fft.fft2(grey - grey.mean(), norm="ortho"))) ** 2
    shown = spectrum_view(pixels)[..., 0].astype(float)
    level = 10 * np.log10(power + 1e-8)
    high = np.percentile(level, 99.9)
    np.testing.assert_allclose(shown, 255 * np.clip((level - high + 60) / 60, 0, 1), atol=0.6)


def test_files_are_named_apart_and_told(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    explainer = Explainer(load_detector(make_bundle()))
    writer, out = Writer(explainer, tmp_path / "out"), tmp_path / "out"
    for name in ("a/x y.png", "b/x y.png"):
        writer.add(explain(explainer, corner_view(40), name=name, faces="none"))
    told = json.loads(writer.finish().read_text())
    files = [one["looks"][0]["file"] for one in told["pictures"]]
    assert files == ["x_y-face1.png", "x_y-2-face1.png"]
    entry = told["pictures"][0]["looks"][0]["map"]
    grey = np.asarray(Image.open(out / entry["file"]), np.float64)
    assert grey.shape == (SIZE, SIZE)
    assert (grey.max() - 128) * entry["step"] == pytest.approx(entry["highest"], abs=entry["step"])
    assert told["schema_version"] == 1
    assert "not what was forged" in told["meaning"]


# -- figures over a set ---------------------------------------------------------------------------


def test_the_pointing_game_by_hand() -> None:
    real = np.zeros((100, 100, 3), np.uint8)
    fake = real.copy()
    fake[60:80, 60:80, 1] = 1

    def play(y: int, x: int) -> tuple[float, bool, bool]:
        values = np.zeros((50, 50))
        values[y, x] = 1
        return point(values, real, fake)

    # A square of 20 and a disc of radius 3, which has 29 pixels: 4 sides, and 16 in its corners.
    assert play(35, 35) == (pytest.approx((400 + 4 * 60 + 16) / 10_000), True, False)
    assert play(28, 35)[1]  # row 57 is 3 away
    assert not play(27, 35)[1]
    assert not play(0, 0)[1]
    wide = np.zeros((100, 140, 3), np.uint8)
    other = wide.copy()
    other[40:60, 60:80] = 9
    assert point(np.eye(4), wide, other)[2], "the middle of the centre square"


def test_a_mean_has_an_interval_over_groups() -> None:
    rng = np.random.default_rng(0)
    per_group = rng.standard_normal(40)
    values, groups = np.repeat(per_group, 5), [f"g{n // 5}" for n in range(200)]
    found = mean_figure(values.tolist(), groups, 0)
    assert found.value == pytest.approx(values.mean())
    assert found.low is not None
    assert found.high is not None
    # Rows of a group say the same: the width is that of 40 values, not of 200.
    wanted = 2 * 1.96 * per_group.std() / 40**0.5
    assert found.high - found.low == pytest.approx(wanted, rel=0.12)
    assert mean_figure([], [], 0).value is None
    # Twelve of twelve is no certainty.
    same = mean_figure([1.0] * 12, [str(n) for n in range(12)], 0)
    assert (same.low, same.high) == (pytest.approx(0.025 ** (1 / 12)), 1.0)
    lead = mean_figure([1.0] * 12, [str(n) for n in range(12)], 0, lowest=-1.0)
    assert lead.low == pytest.approx(2 * 0.025 ** (1 / 12) - 1)


@pytest.fixture
def forged(tmp_path: Path) -> Path:
    """Twelve dark reals, each beside a forgery whose corner is bright."""
    root, rng = tmp_path / "forged", np.random.default_rng(0)
    lines = [{"schema_version": 1}]
    for number in range(12):
        real = rng.integers(60, 100, (32, 32, 3)).astype(np.uint8)
        fake = real.copy()
        fake[:8, :8] = 250
        names = f"test/real/{number}.png", f"test/fake/paint/{number}.png"
        for name, pixels in zip(names, (real, fake), strict=True):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / name)
        lines.append({"path": names[0], "real": names[0], "fake": names[1]})
    (root / "forgeries.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\ncut sho")
    return root


def test_a_detector_that_looks_at_the_forgery_beats_chance_and_the_middle(
    corner_bundle: Path, forged: Path, tmp_path: Path
) -> None:
    found = assess(Explainer(load_detector(corner_bundle)), load_samples(forged), tmp_path / "out")
    assert (found.real, found.fake, found.groups) == (12, 12, 24)
    assert found.beats_random
    deletion, insertion = found.faithfulness
    assert deletion.own.value is not None
    assert deletion.random.value is not None
    assert deletion.over_random.value == pytest.approx(deletion.random.value - deletion.own.value)
    assert insertion.over_random.value == pytest.approx(
        insertion.own.value - insertion.random.value  # type: ignore[operator]
    )
    game = found.pointing[0]
    assert (game.what, game.hits.n, game.hits.value, game.centre.value) == (
        "all forgeries", 12, 1.0, 0.0,
    )  # fmt: skip
    assert game.chance.value == pytest.approx((64 + 2 * 8 + 1) / 1024, abs=0.01)
    assert evaluating.above_zero(game.over_chance)
    assert evaluating.above_zero(game.over_centre)
    assert [one.what for one in found.pointing] == ["all forgeries", "called fake", "paint"]
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_run_goes_on_and_may_grow(
    corner_bundle: Path, forged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    explainer, samples = Explainer(load_detector(corner_bundle)), load_samples(forged)
    whole = assess(explainer, samples, tmp_path / "whole")
    made: list[str] = []
    original = evaluating._row

    def counted(*args: Any) -> tuple[Row, bool]:
        if len(made) == 5:
            raise KeyboardInterrupt
        made.append(args[2].path)
        return original(*args)

    monkeypatch.setattr(evaluating, "_row", counted)
    with pytest.raises(KeyboardInterrupt):
        assess(explainer, samples, tmp_path / "out", limit=10)
    first = list(made)
    made[:] = []
    made_before = len(first)
    monkeypatch.setattr(evaluating, "_row", lambda *a: (made.append(a[2].path), original(*a))[1])
    assert assess(explainer, samples, tmp_path / "out", limit=10).fake == 5
    assert len(made) == 10 - made_before
    assert assess(explainer, samples, tmp_path / "out") == whole
    assert sorted(first + made) == sorted(row.path for row in samples.rows)
    with pytest.raises(ConfigError, match="expected the seed"):
        assess(Explainer(explainer.detector, seed=1), samples, tmp_path / "out")
    with pytest.raises(DataError, match="name a split that is there"):
        assess(explainer, samples, tmp_path / "other", split="train")


def test_what_cannot_be_read_counts_in_no_figure(
    corner_bundle: Path, forged: Path, tmp_path: Path
) -> None:
    (forged / "test/real/3.png").write_bytes(b"no picture")
    found = assess(Explainer(load_detector(corner_bundle)), load_samples(forged), tmp_path / "out")
    # Its forgery cannot be compared with it either.
    assert [path for path, _ in found.unreadable] == ["test/fake/paint/3.png", "test/real/3.png"]
    assert found.pointing[0].hits.n == 11


def test_forgeries_are_found_where_data_forge_leaves_them(tmp_path: Path) -> None:
    reals = tmp_path / "reals/test/real"
    reals.mkdir(parents=True)
    Image.fromarray(portrait()).save(reals / "a.png")
    from bonaface.faces import CenterFace

    forge_set(load_samples(tmp_path / "reals"), tmp_path / "set", CenterFace(), kinds=("inpaint",))
    ((fake, real),) = forged_from(tmp_path / "set").items()
    assert fake.startswith("test/fake/inpaint/")
    before, after = (np.asarray(Image.open(tmp_path / "set" / name)) for name in (real, fake))
    share, _, _ = point(np.eye(SIZE), before, after)
    assert 0 < share < 0.5


def test_nothing_is_known_of_other_sets(tmp_path: Path) -> None:
    assert forged_from(tmp_path) == {}


def test_curves_know_their_areas() -> None:
    line = tuple(np.linspace(1, 0, faithful.STEPS + 1))
    one = Curves(line, (1.0,) * (faithful.STEPS + 1))
    assert one.deletion_auc == pytest.approx(0.5)
    assert one.insertion_auc == pytest.approx(1)
    assert one.gain == pytest.approx(0.5)
    faith = Faith("fake", one, (one, replace(one, deletion=one.insertion)), one)
    assert faith.as_good == 1
    assert faith.p == pytest.approx(2 / 3)
