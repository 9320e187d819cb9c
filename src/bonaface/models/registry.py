"""Every network by name, and how one is made from the settings of a training run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bonaface.config import TrainConfig
from bonaface.errors import ConfigError
from bonaface.models import cnn, efficientnet_lite, resnet, resnet_v2
from bonaface.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess


@dataclass(frozen=True, slots=True)
class Made:
    """A network ready to train.

    Attributes:
        module: float32 (b, 3, size, size) -> logits (b,).
        preprocess: how its input is made.
        architecture: the name and the options it was built with.
        origin: what weights it began with.
        lr: default peak learning rate for its optimiser.
    """

    module: nn.Module
    preprocess: Preprocess
    architecture: dict[str, Any]
    origin: dict[str, Any]
    lr: float


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One row of `bonaface models`.

    Attributes:
        build: (settings, size) -> (module, origin of its weights).
        size: default input side in pixels.
        lr: default peak learning rate with AdamW; SGD takes 20 times that.
        pretrained: what `--pretrained` takes, in words.
        licence: of those weights.
        mean: of the input, unless the weights say otherwise.
        std: likewise.
    """

    build: Callable[[TrainConfig, int], tuple[nn.Module, dict[str, Any]]]
    size: int
    lr: float
    pretrained: str
    licence: str
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


def _cnn(config: TrainConfig, size: int) -> tuple[nn.Module, dict[str, Any]]:
    if config.pretrained is not None:
        raise ConfigError(
            f"expected no pre-trained weights for cnn, got {config.pretrained!r}; leave them out"
        )
    if size % 32:
        raise ConfigError(
            f"expected a multiple of 32 as size of cnn, got {size}; try {size // 32 * 32 or 32}"
        )
    return cnn.CNN(size, config.dropout), {"weights": "from scratch"}


def _resnet(name: str) -> Callable[[TrainConfig, int], tuple[nn.Module, dict[str, Any]]]:
    def build(config: TrainConfig, size: int) -> tuple[nn.Module, dict[str, Any]]:
        module = resnet.ResNet(name, config.dropout, config.pretrained)
        return module, {"weights": config.pretrained or "from scratch"}

    return build


def _resnet50v2(config: TrainConfig, size: int) -> tuple[nn.Module, dict[str, Any]]:
    module = resnet_v2.ResNet50V2(config.stages or 3, config.dropout)
    if config.pretrained is None:
        return module, {"weights": "from scratch"}
    filled = resnet_v2.load_imagenet(module, Path(config.pretrained))
    return module, {
        "weights": Path(config.pretrained).name,
        "loaded": len(filled["loaded"]),
        "fresh": filled["fresh"],
    }


def _efficientnet_lite0(config: TrainConfig, size: int) -> tuple[nn.Module, dict[str, Any]]:
    imagenet = efficientnet_lite.check_pretrained(config.pretrained)
    module = efficientnet_lite.EfficientNetLite0(config.dropout, imagenet=imagenet)
    return module, {"weights": config.pretrained or "from scratch"}


MODELS: dict[str, ModelSpec] = {
    "cnn": ModelSpec(_cnn, 128, 1e-3, "none", "-"),
    **{
        name: ModelSpec(
            _resnet(name),
            224,
            5e-4,
            "Hub id or local Transformers folder, such as microsoft/"
            + name.replace("resnet", "resnet-"),
            "Apache-2.0 (microsoft/resnet-*)",
        )
        for name in resnet.LAYERS
    },
    "resnet50v2": ModelSpec(
        _resnet50v2, 224, 3e-4, "safetensors file in Gluon's names", "Apache-2.0 (Gluon, ONNX zoo)"
    ),
    "efficientnet_lite0": ModelSpec(
        _efficientnet_lite0,
        224,
        5e-4,
        "imagenet, from its package",
        "Apache-2.0",
        efficientnet_lite.MEAN,
        efficientnet_lite.STD,
    ),
}


def spec(name: str) -> ModelSpec:
    """A row by name.

    Raises:
        ConfigError: no model has that name.
    """
    if name not in MODELS:
        raise ConfigError(f"expected one of {', '.join(MODELS)}, got {name!r}; name one of them")
    return MODELS[name]


def create(config: TrainConfig) -> Made:
    """Build the network of a training run; its fresh weights come from torch's seeded generator.

    Raises:
        ConfigError: the name, an option, or the pre-trained weights do not fit.
    """
    chosen = spec(config.model)
    if config.stages is not None and config.model != "resnet50v2":
        raise ConfigError(
            f"expected stages for resnet50v2 only, got stages={config.stages} for "
            f"{config.model}; leave it out"
        )
    size = config.size or chosen.size
    module, origin = chosen.build(config, size)
    mean, std = chosen.mean, chosen.std
    if config.model in resnet.LAYERS and config.pretrained is not None:
        own = resnet.normalisation(config.pretrained)
        if own is not None:
            mean, std = own
    architecture = {"name": config.model, "size": size, "dropout": config.dropout}
    if config.model == "resnet50v2":
        architecture["stages"] = config.stages or 3
    lr = chosen.lr * (20 if config.optimizer == "sgd" else 1)
    return Made(module, Preprocess(size, mean, std), architecture, origin, lr)


def parameters(module: nn.Module) -> int:
    """Number of trainable weights."""
    return sum(p.numel() for p in module.parameters())


def multiply_adds(module: nn.Module, size: int) -> int:
    """Multiply-adds of one forward pass of one image; convolutions and linear layers only."""
    from torch.utils.flop_counter import FlopCounterMode

    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        device = next(module.parameters()).device
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module(torch.empty(1, 3, size, size, device=device))
    finally:
        for part, training in modes:
            part.training = training
    return int(counter.get_total_flops()) // 2
