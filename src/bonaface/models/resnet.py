"""ResNet-18/34/50/101/152 (He et al. 2016) through Transformers.

The bottleneck's stride is in its 3x3 convolution, as in the published weights ("v1.5"); the paper
has it in the first 1x1, which saves 6 to 8 % of the multiply-adds.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bonaface.bundle import sha256
from bonaface.errors import ConfigError
from bonaface.models.weights import FILES, Channels, Parts, Start, listed, read_tensors
from bonaface.preprocess import IMAGENET_MEAN, IMAGENET_STD

LAYERS: dict[str, tuple[str, tuple[int, ...], tuple[int, ...]]] = {
    "resnet18": ("basic", (2, 2, 2, 2), (64, 128, 256, 512)),
    "resnet34": ("basic", (3, 4, 6, 3), (64, 128, 256, 512)),
    "resnet50": ("bottleneck", (3, 4, 6, 3), (256, 512, 1024, 2048)),
    "resnet101": ("bottleneck", (3, 4, 23, 3), (256, 512, 1024, 2048)),
    "resnet152": ("bottleneck", (3, 8, 36, 3), (256, 512, 1024, 2048)),
}


class Trunk(nn.Module):
    """Transformers' ResNet and global average pooling.

    Args:
        name: a key of `LAYERS`.
    """

    def __init__(self, name: str) -> None:
        from transformers import ResNetModel

        super().__init__()
        self.width = LAYERS[name][2][-1]
        self.backbone = ResNetModel(_config(name))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """float32 (b, 3, h, w) -> features (b, width)."""
        return self.backbone(images).pooler_output.flatten(1)  # type: ignore[no-any-return]

    def parts(self) -> Parts:
        """stem, stage1 to stage4."""
        stages = enumerate(self.backbone.encoder.stages, 1)
        return [("stem", [self.backbone.embedder]), *((f"stage{n}", [s]) for n, s in stages)]


class ResNet(Trunk):
    """The trunk, dropout, one linear layer.

    Args:
        name: a key of `LAYERS`.
        dropout: before the linear layer.
    """

    def __init__(self, name: str, dropout: float) -> None:
        super().__init__(name)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.width, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """float32 (b, 3, h, w) -> logits (b,)."""
        return self.head(self.dropout(super().forward(images))).squeeze(1)  # type: ignore[no-any-return]

    def parts(self) -> Parts:
        """stem, stage1 to stage4, head."""
        return [*super().parts(), ("head", [self.dropout, self.head])]


def read(name: str, pretrained: str) -> Start:
    """Weights of a ResNet: a file in known names, a Transformers folder, or a Hub id.

    Raises:
        ConfigError: they cannot be had, or are of another architecture.
    """
    path = Path(pretrained)
    if path.is_file():
        return _of_file(name, path)
    if not path.is_dir() and (path.suffix in FILES or not _HUB_ID.fullmatch(pretrained)):
        raise ConfigError(
            f"expected a file, a folder or a Hub id with weights of {name}, got {pretrained!r}, "
            "which is not there; check the path"
        )
    return _of_hub(name, pretrained)


def normalisation(pretrained: str) -> tuple[Channels, Channels] | None:
    """Mean and deviation that a Transformers folder or Hub id was trained with, if it says so.

    Raises:
        ConfigError: what it says cannot be read.
    """
    from transformers.utils.hub import cached_file

    try:
        path = cached_file(
            pretrained, "preprocessor_config.json", _raise_exceptions_for_missing_entries=False
        )
        if path is None:
            return None
        value: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        if not value.get("do_normalize", True):
            return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        if "image_mean" not in value or "image_std" not in value:
            return None
        return _channels(value["image_mean"]), _channels(value["image_std"])
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise _unavailable(pretrained, error) from error


# All that makes two ResNets compute differently with weights of the same shape, or differ in shape.
_SAME = (
    *("model_type", "layer_type", "depths", "hidden_sizes", "embedding_size", "num_channels"),
    *("hidden_act", "downsample_in_first_stage", "downsample_in_bottleneck"),
)


_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_BLOCK = re.compile(r"layer(\d+)\.(\d+)\.(?:(conv|bn)(\d)|downsample\.([01]))\.(\w+)")
_OPTIONAL = ("head.",)
_STEM = {"conv1": "embedder.embedder.convolution", "bn1": "embedder.embedder.normalization"}


def _config(name: str) -> Any:
    from transformers import ResNetConfig

    layer, depths, widths = LAYERS[name]
    return ResNetConfig(
        layer_type=layer, depths=list(depths), hidden_sizes=list(widths), embedding_size=64
    )


def _of_file(name: str, path: Path) -> Start:
    tensors = read_tensors(path)
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    if any(_BLOCK.fullmatch(key) for key in tensors):
        names, rename = "torchvision", _torchvision
    elif any(key.removeprefix("resnet.").startswith("encoder.stages.") for key in tensors):
        names, rename = "transformers", _transformers
        mean, std = normalisation(str(path.parent)) or (mean, std)
    else:
        raise ConfigError(
            f"expected weights of {name} in the names of torchvision, timm or Transformers in "
            f"{str(path)!r}, got {listed(tensors)}; name another file, or a bundle's folder"
        )
    return Start(
        tensors,
        rename,
        network=name,
        source=str(path),
        origin={"weights": path.name, "format": names, "sha256": sha256(path)},
        mean=mean,
        std=std,
        optional=_OPTIONAL,
    )


def _of_hub(name: str, pretrained: str) -> Start:
    from transformers import AutoConfig
    from transformers.utils.hub import cached_file

    try:
        found, wanted = AutoConfig.from_pretrained(pretrained), _config(name)
        for key in _SAME:
            if getattr(found, key, None) != getattr(wanted, key):
                raise ConfigError(
                    f"expected weights of {name} in {pretrained!r}, with {key} "
                    f"{getattr(wanted, key)}, got {getattr(found, key, None)}; name the model "
                    "that they belong to"
                )
        files = (
            cached_file(pretrained, file, _raise_exceptions_for_missing_entries=False)
            for file in ("model.safetensors", "pytorch_model.bin")
        )
        path = next((Path(file) for file in files if file is not None), None)
    except (OSError, ValueError, RuntimeError) as error:
        raise _unavailable(pretrained, error) from error
    if path is None:
        raise _unavailable(pretrained, FileNotFoundError("it has no model.safetensors"))
    mean, std = normalisation(pretrained) or (IMAGENET_MEAN, IMAGENET_STD)
    return Start(
        read_tensors(path),
        _transformers,
        network=name,
        source=pretrained,
        origin={"weights": pretrained, "format": "transformers", "sha256": sha256(path)},
        mean=mean,
        std=std,
        optional=_OPTIONAL,
    )


def _transformers(name: str) -> str | None:
    """The classifier of 1000 has no place in a detector."""
    if name.startswith("classifier."):
        return None
    return f"backbone.{name.removeprefix('resnet.')}"


def _torchvision(name: str) -> str | None:
    """Names of torchvision, which are timm's too."""
    if name.startswith("fc."):
        return None
    layer, _, kind = name.rpartition(".")
    if layer in _STEM:
        return f"backbone.{_STEM[layer]}.{kind}"
    match = _BLOCK.fullmatch(name)
    if match is None:
        return name
    stage, block, part, index, shortcut, kind = match.groups()
    at = f"backbone.encoder.stages.{int(stage) - 1}.layers.{block}"
    if shortcut is not None:
        return f"{at}.shortcut.{('convolution', 'normalization')[int(shortcut)]}.{kind}"
    type_ = "convolution" if part == "conv" else "normalization"
    return f"{at}.layer.{int(index) - 1}.{type_}.{kind}"


def _channels(values: Any) -> Channels:
    red, green, blue = map(float, values)
    return red, green, blue


def _unavailable(pretrained: str, error: Exception) -> ConfigError:
    first = (str(error).splitlines() or [""])[0]
    return ConfigError(
        f"expected a bundle, a Transformers folder or a Hub id with weights, got {pretrained!r} "
        f"({first}); check the name and the network, or name a local folder"
    )
