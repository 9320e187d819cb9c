from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from bonaface.bundle import Bundle
from bonaface.config import TrainConfig
from bonaface.drawn import write_drawn_set
from bonaface.models import hybrid, registry, resnet, resnet_v2
from bonaface.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from bonaface.training import train
from networks import bundle_of, gluon_tensors, make, on_meta, refused, stir

SMALL: dict[str, Any] = {"size": 64, "stages": 1}


# -- the high-pass filters ----------------------------------------------------------------------

LINE = torch.tensor([1.0, -2.0, 1.0])
KERNELS = torch.zeros(3, 3, 3)
KERNELS[0, 1] = LINE / 2  # along a row
KERNELS[1, :, 1] = LINE / 2  # along a column
KERNELS[2] = torch.outer(LINE, LINE) / 4  # SRM's 3x3 square


def test_filters_are_those_of_the_description() -> None:
    pixels = 255 * torch.rand(2, 3, 9, 12)
    wanted = [functional.conv2d(pixels, kernel.expand(3, 1, 3, 3), groups=3) for kernel in KERNELS]
    got = hybrid.high_pass(pixels)
    assert got.shape == (2, 9, 7, 10)
    torch.testing.assert_close(got, (torch.cat(wanted, 1) / hybrid.LIMIT).clamp(-1, 1))
    assert got.abs().max() == 1
    assert got.abs().min() < 0.1


def test_filters_leave_nothing_of_planes() -> None:
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    plane = (3 + 7 * x - 5 * y).expand(1, 3, 8, 8)
    assert hybrid.high_pass(plane).abs().max() == 0


def test_weak_traces_pass_and_edges_are_truncated() -> None:
    pixels = torch.full((1, 3, 9, 9), 100.0)
    pixels[0, :, 4, 4] += 1
    assert float(hybrid.high_pass(pixels)[0, 0, 3, 3]) == pytest.approx(-1 / hybrid.LIMIT)
    pixels[0, :, :, 4] += 100
    assert float(hybrid.high_pass(pixels)[0, 0, 3, 3]) == -1


def test_the_branch_sees_grey_levels_whatever_the_normalisation() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3), np.uint8)
    found = []
    for mean, std in ((IMAGENET_MEAN, IMAGENET_STD), ((0.5,) * 3, (0.1, 0.5, 1.0))):
        torch.manual_seed(0)
        branch = hybrid.Residual(std).eval()
        images = Preprocess(24, mean, std).normalise(pixels)
        with torch.inference_mode():
            found.append(branch(torch.from_numpy(np.ascontiguousarray(images))))
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4)


def test_autocast_does_not_round_the_pixels() -> None:
    branch = hybrid.Residual(IMAGENET_STD)
    seen: list[torch.Tensor] = []
    branch.blocks.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    images = torch.rand(1, 3, 24, 24)
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            branch(images)
    assert seen[1].dtype == torch.float32
    assert torch.equal(seen[0], seen[1])


# -- the network --------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", hybrid.DEPTHS)
def test_depths_and_their_features(depth: str) -> None:
    module: Any = on_meta("hybrid", depth=depth)
    alone: Any = on_meta(depth)
    width = alone.head.in_features
    assert module.head.in_features == width + 256
    fresh_part = registry.parameters(module.branches["residual"])
    trunk = registry.parameters(alone) - (width + 1)
    assert registry.parameters(module) == trunk + fresh_part + width + 256 + 1
    # All convolutions of both are counted, the fixed filters are not.
    both = registry.multiply_adds(module, 224)
    assert both == pytest.approx(registry.multiply_adds(alone, 224) + 0.8e9, rel=0.02)


def test_defaults() -> None:
    made = make("hybrid", size=64)
    assert made.architecture == {
        "name": "hybrid",
        "size": 64,
        "dropout": 0.3,
        "branches": ["rgb", "residual"],
        "depth": "resnet50v2",
        "stages": 3,
    }
    assert made.lr == registry.MODELS["resnet50v2"].lr
    assert make("hybrid", size=64, depth="resnet18").lr == registry.MODELS["resnet18"].lr


def test_branches_are_left_out() -> None:
    both = make("hybrid", branches=("residual", "rgb"), **SMALL)
    assert both.architecture["branches"] == ["rgb", "residual"], "one order"
    images = torch.randn(2, 3, 64, 64)
    for branch in hybrid.BRANCHES:
        made: Any = make("hybrid", branches=(branch,), **SMALL)
        assert list(made.module.branches) == [branch]
        assert ("depth" in made.architecture) == (branch == "rgb")
        # It is the same network less the other's part of the last layer.
        part: Any = both.module.branches[branch]  # type: ignore[index]
        made.module.branches[branch].load_state_dict(part.state_dict())
        begin = 0 if branch == "rgb" else 256
        with torch.no_grad():
            made.module.head.weight.copy_(both.module.head.weight[:, begin:][:, : part.width])  # type: ignore
            made.module.head.bias.copy_(both.module.head.bias)  # type: ignore
            whole: Any = both.module.eval()
            features = torch.cat([b(images) for b in whole.branches.values()], 1)
            features[:, slice(256, None) if branch == "rgb" else slice(256)] = 0
            wanted = (features @ whole.head.weight[0]) + whole.head.bias
            torch.testing.assert_close(made.module.eval()(images), wanted, rtol=1e-4, atol=1e-5)


def test_the_rgb_branch_alone_is_its_network() -> None:
    made: Any = make("hybrid", branches=("rgb",), **SMALL)
    alone: Any = make("resnet50v2", **SMALL)
    state = {k.removeprefix("branches.rgb."): v for k, v in made.module.state_dict().items()}
    alone.module.load_state_dict(state)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(made.module.eval()(images), alone.module.eval()(images))


def test_the_smallest_input() -> None:
    made = make("hybrid", size=16, stages=1)
    with torch.inference_mode():
        assert made.module.eval()(torch.randn(2, 3, 16, 16)).shape == (2,)


def test_options_that_do_not_go_together() -> None:
    assert "got stages=2 for resnet18" in refused("hybrid", depth="resnet18", stages=2)
    # Of an ablation only the branches change.
    made = make("hybrid", branches=("residual",), depth="resnet18", size=64)
    assert made.architecture.keys() == {"name", "size", "dropout", "branches"}
    assert made.lr == registry.MODELS["cnn"].lr


def test_the_residual_branch_learns_what_content_hides() -> None:
    """Fakes lack noise of two grey levels under content of a hundred; the label is nowhere else."""
    made = make("hybrid", branches=("residual",), size=32, dropout=0.0)
    module = made.module.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(module.parameters(), lr=made.lr)
    chance = np.random.default_rng(0)
    losses = []
    for _ in range(12):
        labels = torch.arange(16) % 2
        content = chance.uniform(50, 200, (16, 4, 4, 3)).repeat(8, 1).repeat(8, 2)
        noise = chance.normal(0, 2, content.shape) * (1 - labels.numpy())[:, None, None, None]
        pixels = (content + noise).round().clip(0, 255).astype(np.uint8)
        images = torch.from_numpy(made.preprocess.normalise(pixels))
        with torch.autocast("cpu", torch.bfloat16):
            logits = module(images).float()
        loss = functional.binary_cross_entropy_with_logits(logits, labels.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.2 < 0.6 < losses[0]


# -- weights to begin with ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    root = tmp_path_factory.mktemp("bundles")
    found = {}
    for name, model, branches in (
        ("network", "resnet50v2", None),
        ("rgb", "hybrid", ("rgb",)),
        ("residual", "hybrid", ("residual",)),
        ("both", "hybrid", None),
    ):
        options = SMALL if name != "residual" else {"size": 48}
        made = make(model, branches=branches, **options)
        stir(made.module, len(found))
        if name == "residual":
            made = replace(made, preprocess=Preprocess(48, (0.5,) * 3, (0.5,) * 3))
        found[name] = bundle_of(made, root / name)
    return found


def branch_of(module: Any, branch: str) -> dict[str, torch.Tensor]:
    return dict(module.branches[branch].state_dict())


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_each_branch_begins_with_a_bundle_that_has_it(bundles: dict[str, Bundle]) -> None:
    trained: dict[str, Any] = {name: registry.rebuild(b) for name, b in bundles.items()}
    rgb = {name: branch_of(trained[name], "rgb") for name in ("rgb", "both")}
    rgb["network"] = {
        k: v for k, v in trained["network"].state_dict().items() if not k.startswith("head.")
    }
    for name in ("network", "rgb"):
        made = make("hybrid", pretrained=str(bundles[name].folder))
        assert same(branch_of(made.module, "rgb"), rgb[name])
        assert made.architecture["stages"] == 1, "taken over"
        assert made.preprocess.size == 64
        assert made.origin["fresh"] == ["branches.residual", "head"]
        assert made.origin["passed_over"] == ["head.bias", "head.weight"]
    made = make("hybrid", pretrained=str(bundles["residual"].folder), **SMALL)
    wanted = branch_of(trained["residual"], "residual")
    assert same(branch_of(made.module, "residual"), wanted)
    assert made.origin["fresh"] == ["branches.rgb", "head"]
    assert made.preprocess.mean == (0.5,) * 3

    made = make("hybrid", pretrained=str(bundles["both"].folder))
    assert same(dict(made.module.state_dict()), dict(trained["both"].state_dict()))
    assert made.origin["fresh"] == []
    made = make("hybrid", pretrained=str(bundles["both"].folder), branches=("rgb",))
    assert same(branch_of(made.module, "rgb"), rgb["both"])
    assert made.origin["fresh"] == ["head"]
    assert all(
        name.startswith(("head.", "branches.residual.")) for name in made.origin["passed_over"]
    )


@pytest.mark.parametrize("order", [("residual", "network"), ("network", "residual")])
def test_both_branches_begin_with_bundles_of_their_own(
    bundles: dict[str, Bundle], order: tuple[str, str]
) -> None:
    trained: dict[str, Any] = {name: registry.rebuild(bundles[name]) for name in order}
    folders = [str(bundles[name].folder) for name in order]
    made = make("hybrid", pretrained=", ".join(folders))
    assert same(branch_of(made.module, "residual"), branch_of(trained["residual"], "residual"))
    rgb = branch_of(made.module, "rgb")
    assert same(rgb, {k: v for k, v in trained["network"].state_dict().items() if k in rgb})
    assert made.origin["fresh"] == ["head"]
    assert made.origin["weights"] == "network and residual"
    assert [source["weights"] for source in made.origin["sources"]] == ["network", "residual"]
    assert made.origin["loaded"] == len(made.module.state_dict()) - 2
    # The RGB branch's, since the other sees grey levels.
    assert made.preprocess.mean == IMAGENET_MEAN
    images = torch.randn(1, 3, 64, 64)
    grey = images * torch.tensor(IMAGENET_STD).view(3, 1, 1)
    trained["residual"].eval()
    with torch.inference_mode():
        wanted = trained["residual"].branches["residual"](grey / 0.5)
        got = made.module.eval().branches["residual"](images)  # type: ignore
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)


def test_the_rgb_branch_begins_with_what_its_network_takes(tmp_path: Path) -> None:
    tensors = {n: t for n, t in gluon_tensors(0).items() if not n.startswith("stage4_")}
    path = tmp_path / "gluon.safetensors"
    save_file(tensors, path)
    made = make("hybrid", pretrained=str(path), **SMALL)
    alone: Any = resnet_v2.ResNet50V2(1, 0.0)
    from bonaface.models.weights import fill

    fill(alone, resnet_v2.read(1, str(path)))
    got = branch_of(made.module, "rgb")
    assert torch.equal(got["stages.0.0.conv1.weight"], alone.stages[0][0].conv1.weight)
    assert made.origin["format"] == "gluon"
    assert made.origin["fresh"] == ["branches.residual", "branches.rgb.norm", "head"]

    torch.manual_seed(1)
    trunk = resnet.Trunk("resnet18")
    file = tmp_path / "resnet18.safetensors"
    save_file(dict(trunk.backbone.state_dict()), file)
    made = make("hybrid", pretrained=str(file), depth="resnet18", size=64)
    assert same(branch_of(made.module, "rgb"), dict(trunk.state_dict()))
    assert made.origin["fresh"] == ["branches.residual", "head"]


def test_weights_that_do_not_fit(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    at = {name: str(bundle.folder) for name, bundle in bundles.items()}
    residual = {"branches": ("residual",), "size": 64}
    assert "stages 2" in refused("hybrid", pretrained=at["both"], stages=2)
    assert "got resnet50v2" in refused("hybrid", pretrained=at["network"], depth="resnet18")
    assert "branches residual, got rgb" in refused("hybrid", pretrained=at["rgb"], **residual)
    assert "add the branch rgb" in refused("hybrid", pretrained=at["network"], **residual)
    assert "add the branch rgb" in refused("hybrid", pretrained="microsoft/resnet-18", **residual)
    twice = refused("hybrid", pretrained=f"{at['network']},{at['rgb']}")
    assert "one source of weights for the branch rgb" in twice
    cnn = bundle_of(make("cnn", size=32), tmp_path / "cnn")
    assert "got one of cnn" in refused("hybrid", pretrained=str(cnn.folder))
    assert "names of torchvision" in refused(
        "hybrid", pretrained=at["network"] + "/model.safetensors", depth="resnet18"
    )


# -- the whole path -----------------------------------------------------------------------------


def test_training_gives_a_bundle_whose_onnx_is_the_rebuilt_network(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    write_drawn_set(data, {"train": 8, "validation": 8}, seed=1, size=40)
    config = TrainConfig(
        model="hybrid", size=32, stages=1, epochs=1, batch_size=8, precision="bf16", lr=1e-4
    )
    bundle = train(data, out, config)
    assert bundle.card.architecture["branches"] == ["rgb", "residual"]
    module = registry.rebuild(bundle)
    assert bundle.card.parameters == registry.parameters(module)
    images = torch.randn(3, 3, 32, 32)
    session = onnxruntime.InferenceSession(bundle.model)
    (wanted,) = session.run(None, {"images": images.numpy()})
    with torch.inference_mode():
        got = module(images)
    assert got.std() > 0
    torch.testing.assert_close(got, torch.from_numpy(wanted), rtol=1e-4, atol=1e-4)
