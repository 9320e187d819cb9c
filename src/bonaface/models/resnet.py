"""ResNet-18/34/50/101/152 (He et al. 2016) through Transformers.

The bottleneck's stride is in its 3x3 convolution, as in the published weights ("v1.5"); the paper
has it in the first 1x1, which saves 6 to 8 % of the multiply-adds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bonaface.errors import ConfigError

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


def normalisation(pretrained: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and deviation that a Transformers folder or Hub id was trained with, if it says so."""
    from transformers.utils.hub import cached_file

    try:
        path = cached_file(
            pretrained, "preprocessor_config.json", _raise_exceptions_for_missing_entries=False
        )
    except OSError as error:
        raise _unavailable(pretrained, error) from error
    if path is None:
        return None
    value: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    if "image_mean" not in value or "image_std" not in value:
        return None
    return tuple(value["image_mean"]), tuple(value["image_std"])


def _load(name: str, config: Any, pretrained: str) -> nn.Module:
    from transformers import AutoConfig, ResNetModel

    try:
        found = AutoConfig.from_pretrained(pretrained)
        same = all(
            getattr(found, key, None) == getattr(config, key)
            for key in ("model_type", "layer_type", "depths", "hidden_sizes", "embedding_size")
        )
        if not same:
            raise ConfigError(
                f"expected weights of {name} in {pretrained!r}, got {found.model_type} with "
                f"depths {getattr(found, 'depths', None)}; name the model that they belong to"
            )
        model: nn.Module = ResNetModel.from_pretrained(pretrained, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise _unavailable(pretrained, error) from error
    return model


def _unavailable(pretrained: str, error: Exception) -> ConfigError:
    first = (str(error).splitlines() or [""])[0]
    return ConfigError(
        f"expected a Transformers folder or Hub id with safetensors weights, got {pretrained!r} "
        f"({first}); check the name and the network, or name a local folder"
    )
