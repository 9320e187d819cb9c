"""ResNet-18/34/50/101/152 (He et al. 2016) through Transformers.

The bottleneck's stride is in its 3x3 convolution, as in the published weights ("v1.5"); the paper
has it in the first 1x1, which saves 6 to 8 % of the multiply-adds.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from bonaface.errors import ConfigError

Channels = tuple[float, float, float]

LAYERS: dict[str, tuple[str, tuple[int, ...], tuple[int, ...]]] = {
    "resnet18": ("basic", (2, 2, 2, 2), (64, 128, 256, 512)),
    "resnet34": ("basic", (3, 4, 6, 3), (64, 128, 256, 512)),
    "resnet50": ("bottleneck", (3, 4, 6, 3), (256, 512, 1024, 2048)),
    "resnet101": ("bottleneck", (3, 4, 23, 3), (256, 512, 1024, 2048)),
    "resnet152": ("bottleneck", (3, 8, 36, 3), (256, 512, 1024, 2048)),
}


class ResNet(nn.Module):
    """Transformers' ResNet, global average pooling, dropout, one linear layer.

    Args:
        name: a key of `LAYERS`.
        dropout: before the linear layer.
        pretrained: Hub id or local folder in Transformers' format; None: from scratch.

    Raises:
        ConfigError: the weights cannot be had, or are of another architecture.
    """

    def __init__(self, name: str, dropout: float, pretrained: str | None = None) -> None:
        from transformers import ResNetConfig, ResNetModel

        super().__init__()
        layer, depths, widths = LAYERS[name]
        config = ResNetConfig(
            layer_type=layer, depths=list(depths), hidden_sizes=list(widths), embedding_size=64
        )
        if pretrained is None:
            self.backbone = ResNetModel(config)
        else:
            self.backbone = _load(name, config, pretrained)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(widths[-1], 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """float32 (b, 3, h, w) -> logits (b,)."""
        features = self.backbone(images).pooler_output.flatten(1)
        return self.head(self.dropout(features)).squeeze(1)  # type: ignore[no-any-return]


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


def _load(name: str, config: Any, pretrained: str) -> nn.Module:
    from transformers import AutoConfig, ResNetModel

    try:
        found = AutoConfig.from_pretrained(pretrained)
        for key in _SAME:
            got, wanted = getattr(found, key, None), getattr(config, key)
            if got != wanted:
                raise ConfigError(
                    f"expected weights of {name} in {pretrained!r}, with {key} {wanted}, got "
                    f"{got}; name the model that they belong to"
                )
        with _quiet():
            model, info = ResNetModel.from_pretrained(
                pretrained, use_safetensors=True, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise _unavailable(pretrained, error) from error
    if info["missing_keys"]:
        raise ConfigError(
            f"expected all weights of {name} in {pretrained!r}, got none for "
            f"{min(info['missing_keys'])!r}; name a complete folder"
        )
    return model  # type: ignore[no-any-return]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the table of weights that a detector has no use for, such as the 1000 classes."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _channels(values: Any) -> Channels:
    red, green, blue = map(float, values)
    return red, green, blue


def _unavailable(pretrained: str, error: Exception) -> ConfigError:
    first = (str(error).splitlines() or [""])[0]
    return ConfigError(
        f"expected a Transformers folder or Hub id with safetensors weights, got {pretrained!r} "
        f"({first}); check the name and the network, or name a local folder"
    )
