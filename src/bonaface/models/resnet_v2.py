"""Pre-activation ResNet-50 (He et al. 2016, "Identity mappings in deep residual networks").

Laid out as Gluon's resnet50_v2: batch norm on the input, stride in the 3x3 convolution.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from bonaface.bundle import sha256
from bonaface.errors import ConfigError
from bonaface.models.weights import Parts, Start, listed, read_tensors
from bonaface.preprocess import IMAGENET_MEAN, IMAGENET_STD

DEPTHS = (3, 4, 6, 3)
CUT = 3  # stages unless told otherwise: the ImageNet weights that can be had end there


class Unit(nn.Module):
    """Batch norm, ReLU, then 1x1, 3x3, 1x1; the first of a stage has a 1x1 shortcut."""

    def __init__(self, before: int, width: int, stride: int, *, first: bool) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, width, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.shortcut = nn.Conv2d(before, 4 * width, 1, stride, bias=False) if first else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, before, h, w) -> (b, 4 * width, h / stride, w / stride)."""
        y = functional.relu(self.norm1(x))
        kept = x if self.shortcut is None else self.shortcut(y)
        y = self.conv1(y)
        y = self.conv2(functional.relu(self.norm2(y)))
        y = self.conv3(functional.relu(self.norm3(y)))
        return y + kept  # type: ignore[no-any-return]


class Trunk(nn.Module):
    """Pre-activation ResNet-50, cut after a number of stages, with global average pooling.

    Args:
        stages: how many of the four stages to use.
    """

    def __init__(self, stages: int) -> None:
        super().__init__()
        self.norm0 = nn.BatchNorm2d(3)
        self.conv0 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.norm1 = nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.stages = nn.ModuleList()
        before = 64
        for stage in range(stages):
            width = 64 * 2**stage
            units = []
            for unit in range(DEPTHS[stage]):
                stride = 2 if unit == 0 and stage > 0 else 1
                units.append(Unit(before, width, stride, first=unit == 0))
                before = 4 * width
            self.stages.append(nn.Sequential(*units))
        self.norm = nn.BatchNorm2d(before)
        self.width = before
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """float32 (b, 3, h, w) -> features (b, width)."""
        x = self.conv0(self.norm0(images))
        x = self.pool(functional.relu(self.norm1(x)))
        for stage in self.stages:
            x = stage(x)
        return functional.relu(self.norm(x)).mean((2, 3))

    def parts(self) -> Parts:
        """stem, one for each stage, head: the last batch norm, which knows the cut alone."""
        return [
            ("stem", [self.norm0, self.conv0, self.norm1]),
            *((f"stage{n}", [stage]) for n, stage in enumerate(self.stages, 1)),
            ("head", [self.norm]),
        ]


class ResNet50V2(Trunk):
    """The trunk, dropout, one linear layer.

    Args:
        stages: how many of the four stages to use.
        dropout: before the linear layer.
    """

    def __init__(self, stages: int, dropout: float) -> None:
        super().__init__(stages)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.width, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """float32 (b, 3, h, w) -> logits (b,)."""
        return self.head(self.dropout(super().forward(images))).squeeze(1)  # type: ignore[no-any-return]

    def parts(self) -> Parts:
        """stem, one for each stage, head."""
        *stages, (name, last) = super().parts()
        return [*stages, (name, [*last, self.dropout, self.head])]


def read(stages: int, pretrained: str) -> Start:
    """A file in Gluon's names, for a network of so many stages, as far as the file goes.

    What belongs behind the cut, and the 1000 classes, is passed over.

    Raises:
        ConfigError: the file cannot be read, or is of another network.
    """
    path = Path(pretrained)
    tensors = read_tensors(path)
    held = {match[1] for name in tensors if (match := _NAME.fullmatch(name)) and match[1]}
    if "1" not in held:
        raise ConfigError(
            f"expected a pre-activation ResNet-50 in Gluon's names in {pretrained!r}, got "
            f"{listed(tensors)}; name another file, or a bundle's folder"
        )
    absent = [n for n in range(1, len(DEPTHS) + 1) if str(n) not in held]
    whole = stages == len(DEPTHS) and not absent
    return Start(
        tensors,
        rename=lambda name: None if _left_out(name, stages) else _target(name),
        network=f"resnet50v2 with {stages} stages",
        source=pretrained,
        origin={"weights": path.name, "format": "gluon", "sha256": sha256(path)},
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        optional=("head.", *(() if whole else ("norm.",)), *(f"stages.{n - 1}." for n in absent)),
    )


_KIND = {
    "weight": "weight",
    "gamma": "weight",
    "beta": "bias",
    "running_mean": "running_mean",
    "running_var": "running_var",
}
_NAME = re.compile(
    r"(?:stage(\d)_)?(conv|batchnorm)(\d+)_(weight|gamma|beta|running_mean|running_var)"
)
_CLASSES = {"dense0_weight", "dense0_bias"}


def _left_out(name: str, stages: int) -> bool:
    """Whether a tensor of the whole network has no place in one cut after some stages."""
    match = _NAME.fullmatch(name)
    if match is None:
        return name in _CLASSES
    if match[1] is None:
        # The last batch norm is as wide as stage 4, and was trained on its output.
        return stages < len(DEPTHS) and name.startswith("batchnorm2_")
    return stages < int(match[1]) <= len(DEPTHS)


def _target(name: str) -> str:
    """Gluon counts convolutions and batch norms through a stage; we count units."""
    match = _NAME.fullmatch(name)
    if match is None:
        return name
    stage, layer, index, kind = match[1], match[2], int(match[3]), _KIND[match[4]]
    if stage is None:
        top = {"conv0": "conv0", "batchnorm0": "norm0", "batchnorm1": "norm1", "batchnorm2": "norm"}
        return f"{top.get(layer + match[3], layer)}.{kind}"
    if layer == "conv" and index == 3:
        return f"stages.{int(stage) - 1}.0.shortcut.{kind}"
    if layer == "conv" and index > 3:
        index -= 1
    part = "conv" if layer == "conv" else "norm"
    return f"stages.{int(stage) - 1}.{index // 3}.{part}{index % 3 + 1}.{kind}"
