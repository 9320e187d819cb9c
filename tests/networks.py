"""Networks and weights to try the loading of: ours, torchvision's by hand, Gluon's by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from bonaface import checkpoints
from bonaface.bundle import Bundle, finish_bundle
from bonaface.config import TrainConfig
from bonaface.errors import BonafaceError, ConfigError
from bonaface.models import onnx, registry
from tiny import make_card, write_brightness_onnx

Tensors = dict[str, torch.Tensor]


def make(name: str, **options: Any) -> registry.Made:
    torch.manual_seed(0)
    return registry.create(TrainConfig(model=name, **options))


def on_meta(name: str, **options: Any) -> nn.Module:
    with torch.device("meta"):
        return make(name, **options).module


def refused(name: str, error: type[BonafaceError] = ConfigError, **options: Any) -> str:
    with pytest.raises(error) as caught:
        make(name, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert "; " in message
    return message


def stir(module: nn.Module, seed: int) -> None:
    """Give batch norms something to be told apart by, as training does."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for value in (part.weight, part.running_var):
                assert value is not None
                value.data = 0.5 + torch.rand(value.shape, generator=generator)
            for value in (part.bias, part.running_mean):
                assert value is not None
                value.data = 0.2 * torch.randn(value.shape, generator=generator)


def relative(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((got - wanted).abs().max() / wanted.abs().max())


def bundle_of(made: registry.Made, folder: Path, *, exported: bool = False) -> Bundle:
    """A bundle of a network; unless it is exported, the ONNX file is of another one."""
    folder.mkdir()
    if exported:
        onnx.export_onnx(made.module, made.preprocess.size, folder / "model.onnx")
    else:
        write_brightness_onnx(folder / "model.onnx")
    checkpoints.save_weights(folder / "model.safetensors", made.module)
    card = make_card(
        name=folder.name,
        architecture=made.architecture,
        preprocess=made.preprocess.to_dict(),
        data={"fingerprint": "f" * 64, "counts": {"train": {"real": 1, "fake": 1}}},
    )
    return finish_bundle(folder, card)


# -- torchvision's ResNet, written from its paper and the names of its published files ---------

BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}


class Block(nn.Module):
    def __init__(self, before: int, width: int, stride: int, *, deep: bool) -> None:
        super().__init__()
        after = 4 * width if deep else width
        if deep:
            self.conv1 = nn.Conv2d(before, width, 1, bias=False)
            self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
            self.conv3 = nn.Conv2d(width, after, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(after)
        else:
            self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
            self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.deep, self.downsample = deep, None
        if stride > 1 or before != after:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = x if self.downsample is None else self.downsample(x)
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        if self.deep:
            y = self.bn3(self.conv3(y.relu()))
        return (y + kept).relu()  # type: ignore[no-any-return]


class Reference(nn.Module):
    """Gives the 1000 logits; `features` is what they are made of."""

    def __init__(self, name: str) -> None:
        super().__init__()
        deep = name == "resnet50"
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        before = 64
        for stage, depth in enumerate(BLOCKS[name]):
            width = 64 * 2**stage
            blocks = []
            for at in range(depth):
                stride = 2 if stage > 0 and at == 0 else 1
                blocks.append(Block(before, width, stride, deep=deep))
                before = 4 * width if deep else width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(before, 1000)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        x = functional.max_pool2d(self.bn1(self.conv1(images)).relu(), 3, 2, 1)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)  # type: ignore[operator]
        return x.mean((2, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.features(images))  # type: ignore[no-any-return]


def torchvision_names(model: Any) -> Tensors:
    """The weights of a ResNetModel of Transformers by torchvision's names, module by module."""
    found: Tensors = {}

    def add(conv: str, norm: str, layer: Any) -> None:
        found[f"{conv}.weight"] = layer.convolution.weight.detach()
        for key, value in layer.normalization.state_dict().items():
            found[f"{norm}.{key}"] = value

    add("conv1", "bn1", model.embedder.embedder)
    for stage, blocks in enumerate(model.encoder.stages, 1):
        for at, block in enumerate(blocks.layers):
            name = f"layer{stage}.{at}"
            for n, layer in enumerate(block.layer, 1):
                add(f"{name}.conv{n}", f"{name}.bn{n}", layer)
            if not isinstance(block.shortcut, nn.Identity):
                add(f"{name}.downsample.0", f"{name}.downsample.1", block.shortcut)
    return found


# -- Gluon's pre-activation ResNet-50, written from its description ----------------------------

GLUON_DEPTHS = (3, 4, 6, 3)


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
    for stage, depth in enumerate(GLUON_DEPTHS, 1):
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
        for unit in range(GLUON_DEPTHS[stage - 1]):
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
