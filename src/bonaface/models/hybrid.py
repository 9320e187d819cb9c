"""The paper's hybrid: a small CNN on what a high-pass filter leaves, beside a ResNet on the RGB.

Traces of forging are weak and of high frequency, and content drowns them. Steganalysis takes
content away first: the fixed filters and the truncation are of Fridrich and Kodovsky (2012), "Rich
models for steganalysis of digital images"; that a network may learn on top of such residuals
beside a network on the picture is of Zhou et al. (2018), "Learning rich features for image
manipulation detection".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from bonaface.config import TrainConfig
from bonaface.errors import ConfigError
from bonaface.models import resnet, resnet_v2
from bonaface.models.cnn import convolution
from bonaface.models.weights import Channels, Parts, Start
from bonaface.signals import LIMIT

BRANCHES = ("rgb", "residual")
DEPTHS = ("resnet18", "resnet34", "resnet50", "resnet50v2")
# Filters times colours, then the channels of the blocks.
WIDTHS = (9, 32, 64, 128, 256)


def high_pass(pixels: torch.Tensor) -> torch.Tensor:
    """Second differences along rows, along columns, and along both, truncated to +-1.

    They are written as differences, not as a convolution, because autocast would round the pixels
    of a convolution to bfloat16, by up to half a grey level.

    Args:
        pixels: float32 (b, 3, h, w), in grey levels above any mean.

    Returns:
        (b, 9, h - 2, w - 2), in units of `LIMIT` grey levels.
    """
    rows, columns = _second(pixels, 3), _second(pixels, 2)
    found = (rows[:, :, 1:-1] / 2, columns[..., 1:-1] / 2, _second(rows, 2) / 4)
    return (torch.cat(found, 1) / LIMIT).clamp(-1, 1)


def _second(x: torch.Tensor, dim: int) -> torch.Tensor:
    inner = x.shape[dim] - 2
    return x.narrow(dim, 0, inner) - 2 * x.narrow(dim, 1, inner) + x.narrow(dim, 2, inner)


class Residual(nn.Module):
    """High-pass filters, four blocks of 3x3 convolutions, global average pooling.

    Nothing is pooled before the first convolution, which is where such traces live.

    Args:
        std: that the input was divided by; the filters see grey levels, whatever it is, so that
            trained weights go with any normalisation.
    """

    grey: torch.Tensor

    def __init__(self, std: Channels) -> None:
        super().__init__()
        grey = torch.tensor([255 * value for value in std]).view(1, 3, 1, 1)
        self.register_buffer("grey", grey, persistent=False)
        self.width = WIDTHS[-1]
        blocks = [nn.Sequential(*convolution(before, after)) for before, after in pairwise(WIDTHS)]
        for block in blocks[:-1]:
            block.append(nn.MaxPool2d(2))
        self.blocks = nn.Sequential(*blocks)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """float32 (b, 3, h, w), normalised -> features (b, width)."""
        return self.blocks(high_pass(images * self.grey)).mean((2, 3))  # type: ignore[no-any-return]

    def parts(self) -> Parts:
        """block1 to block4."""
        return [(f"block{n}", [block]) for n, block in enumerate(self.blocks, 1)]


Trunk = resnet.Trunk | resnet_v2.Trunk


class Hybrid(nn.Module):
    """Pooled features of one or two branches side by side, dropout, one linear layer.

    Args:
        rgb: on the picture; None: left out.
        residual: on its high frequencies; None: left out.
        dropout: before the linear layer.
    """

    def __init__(self, rgb: Trunk | None, residual: Residual | None, dropout: float) -> None:
        super().__init__()
        both = zip(BRANCHES, (rgb, residual), strict=True)
        present = {name: branch for name, branch in both if branch is not None}
        self.branches = nn.ModuleDict(present)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(sum(branch.width for branch in present.values()), 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """float32 (b, 3, h, w) -> logits (b,)."""
        features = torch.cat([branch(images) for branch in self.branches.values()], 1)
        return self.head(self.dropout(features)).squeeze(1)  # type: ignore[no-any-return]

    def parts(self) -> Parts:
        """rgb.stem and so on, then residual.block1 and so on, then head.

        The RGB branch comes first, because it is the one with weights worth freezing.
        """
        found: Parts = []
        last: list[nn.Module] = [self.dropout, self.head]
        for branch, module in self.branches.items():
            for name, modules in module.parts():  # type: ignore[operator]
                if name == "head":
                    last = [*modules, *last]
                else:
                    found.append((f"{branch}.{name}", modules))
        return [*found, ("head", last)]


def options(config: TrainConfig) -> dict[str, Any]:
    """A hybrid's part of the architecture, with what the settings leave open filled in.

    Raises:
        ConfigError: a number of stages, and a network that cannot be cut.
    """
    given = BRANCHES if config.branches is None else config.branches
    found: dict[str, Any] = {"branches": [branch for branch in BRANCHES if branch in given]}
    if "rgb" not in given:
        return found  # so that only `branches` has to change to see what a branch is worth
    found["depth"] = config.depth or "resnet50v2"
    if found["depth"] == "resnet50v2":
        found["stages"] = config.stages or resnet_v2.CUT
    elif config.stages is not None:
        raise ConfigError(
            f"expected stages for the depth resnet50v2 only, got stages={config.stages} for "
            f"{found['depth']}; leave it out"
        )
    return found


def build(architecture: dict[str, Any], std: Channels) -> Hybrid:
    """The network that an architecture of a card names, for inputs that were divided by `std`."""
    branches = architecture["branches"]
    rgb: Trunk | None = None
    if "rgb" in branches:
        depth = architecture["depth"]
        if depth == "resnet50v2":
            rgb = resnet_v2.Trunk(architecture["stages"])
        else:
            rgb = resnet.Trunk(depth)
    residual = Residual(std) if "residual" in branches else None
    return Hybrid(rgb, residual, architecture["dropout"])


def read(architecture: dict[str, Any], pretrained: str) -> Start:
    """Weights of the RGB branch's network, that are no bundle.

    Raises:
        ConfigError: they cannot be had, do not fit, or there is no such branch.
    """
    if "rgb" not in architecture["branches"]:
        raise ConfigError(
            f"expected a bundle of a hybrid for its residual branch, got {pretrained!r}; "
            "leave the weights out, or add the branch rgb"
        )
    depth = architecture["depth"]
    if depth == "resnet50v2":
        start = resnet_v2.read(architecture["stages"], pretrained)
    else:
        start = resnet.read(depth, pretrained)
    return _into(start, "rgb")


def of_bundle(start: Start, found: dict[str, Any], wanted: dict[str, Any]) -> Start:
    """What a hybrid can begin with out of a bundle: all of its like, or the branches they share.

    Args:
        start: the bundle's weights.
        found: the bundle's architecture, a hybrid's or the RGB network's.
        wanted: the hybrid's.

    Raises:
        ConfigError: they share nothing, or their RGB networks differ.
    """
    if found["name"] != "hybrid":
        _check_rgb(start, {"depth": found["name"], "stages": found.get("stages")}, wanted)
        return _into(start, "rgb", without=("head.",))
    shared = [branch for branch in wanted["branches"] if branch in found["branches"]]
    if not shared:
        raise ConfigError(
            f"expected a bundle with one of the branches {', '.join(wanted['branches'])}, got "
            f"{', '.join(found['branches'])} in {start.source!r}; name another"
        )
    if "rgb" in shared:
        _check_rgb(start, found, wanted)
    if wanted["branches"] == found["branches"]:
        return start
    prefixes = tuple(f"branches.{branch}." for branch in shared)
    return replace(
        start,
        rename=lambda name: name if name.startswith(prefixes) else None,
        complete=prefixes,
    )


def fills(start: Start, branch: str) -> bool:
    """Whether weights are for a branch."""
    return f"branches.{branch}.".startswith(start.complete)


def _check_rgb(start: Start, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    if "rgb" not in wanted["branches"]:
        raise ConfigError(
            f"expected a bundle with the branch residual, got one of {found['depth']} in "
            f"{start.source!r}; name another, or add the branch rgb"
        )
    for key in ("depth", "stages"):
        if found.get(key) != wanted.get(key):
            raise ConfigError(
                f"expected a bundle with {key} {wanted.get(key)} for the branch rgb, got "
                f"{found.get(key)} in {start.source!r}; name another bundle, or leave --{key} out"
            )


def _into(start: Start, branch: str, without: Sequence[str] = ()) -> Start:
    """The same weights for one branch of a hybrid; what it is without is passed over."""
    prefix, left = f"branches.{branch}.", tuple(without)

    def rename(name: str) -> str | None:
        target = start.rename(name)
        return None if target is None or target.startswith(left) else prefix + target

    return replace(
        start,
        rename=rename,
        complete=(prefix,),
        optional=tuple(prefix + name for name in start.optional),
    )
