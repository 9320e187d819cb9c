"""Every network by name, and how one is made from the settings of a training run."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from bonaface.bundle import Bundle, first_problem, load_bundle
from bonaface.config import TrainConfig
from bonaface.errors import BundleError, ConfigError
from bonaface.models import cnn, efficientnet_lite, hybrid, mesonet, resnet, resnet_v2, spectrum
from bonaface.models.modes import evaluating
from bonaface.models.weights import Channels, Parts, Start, fill, of_bundle, unfilled
from bonaface.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess

Architecture = dict[str, Any]
"""A network by its ``name`` and the options it is built with, as a card has it."""


@dataclass(frozen=True, slots=True)
class Made:
    """A network ready to train.

    Attributes:
        module: float32 (b, 3, size, size) -> logits (b,).
        preprocess: how its input is made.
        architecture: the name and the options it was built with.
        origin: what weights it began with. Unless from scratch: ``weights`` (their name),
            ``loaded`` (number of tensors), ``fresh`` (modules that none were for).
        lr: default peak learning rate for its optimiser.
    """

    module: nn.Module
    preprocess: Preprocess
    architecture: Architecture
    origin: dict[str, Any]
    lr: float

    def stages(self) -> Parts:
        """Its parts from input to head, as `stages` gives them; what began fresh is of the head."""
        return stages(self.module, self.origin.get("fresh", ()))


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One row of `bonaface models`.

    Attributes:
        build: (architecture, deviation of the input) -> module with fresh weights.
        read: (architecture, what `--pretrained` says, if that is no bundle) -> weights.
        size: default input side in pixels.
        lr: default peak learning rate with AdamW; SGD takes 20 times that.
        pretrained: what `--pretrained` takes besides a bundle, in words.
        licence: of those weights.
        mean: of the input, unless the weights say otherwise.
        std: likewise.
        options: settings that only some networks have, and this one.
        same: settings that a bundle to begin with must agree on.
    """

    build: Callable[[Architecture, Channels], nn.Module]
    read: Callable[[Architecture, str], Start]
    size: int
    lr: float
    pretrained: str
    licence: str
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD
    options: tuple[str, ...] = ()
    same: tuple[str, ...] = ()


def _cnn(architecture: Architecture, _std: Channels) -> nn.Module:
    return cnn.CNN(_halved_five_times(architecture), architecture["dropout"])


def _mesonet(architecture: Architecture, _std: Channels) -> nn.Module:
    size = _halved_five_times(architecture)
    return mesonet.MesoNet(architecture["name"], size, architecture["dropout"])


def _halved_five_times(architecture: Architecture) -> int:
    size: int = architecture["size"]
    if size % 32:
        raise ConfigError(
            f"expected a multiple of 32 as size of {architecture['name']}, got {size}; try "
            f"{size // 32 * 32 or 32}"
        )
    return size


def _spectrum(architecture: Architecture, std: Channels) -> nn.Module:
    size, largest = architecture["size"], spectrum.LARGEST
    if size > largest:
        raise ConfigError(
            f"expected a size of at most {largest} for spectrum, whose matrices grow with its "
            f"square, got {size}; try {largest}"
        )
    return spectrum.Spectrum(size, std)


def _nothing(architecture: Architecture, pretrained: str) -> Start:
    raise ConfigError(
        f"expected no weights for {architecture['name']}, or a bundle of it, got {pretrained!r}; "
        "leave them out"
    )


MODELS: dict[str, ModelSpec] = {
    "cnn": ModelSpec(_cnn, _nothing, 128, 1e-3, "none", "-", same=("size",)),
    **{
        name: ModelSpec(
            lambda made, _std: resnet.ResNet(made["name"], made["dropout"]),
            lambda made, pretrained: resnet.read(made["name"], pretrained),
            224,
            5e-4,
            "file, folder, Hub id",
            "Apache-2.0 (microsoft/*)",
        )
        for name in resnet.LAYERS
    },
    "resnet50v2": ModelSpec(
        lambda made, _std: resnet_v2.ResNet50V2(made["stages"], made["dropout"]),
        lambda made, pretrained: resnet_v2.read(made["stages"], pretrained),
        224,
        3e-4,
        "file by Gluon",
        "Apache-2.0 (Gluon)",
        options=("stages",),
        same=("stages",),
    ),
    "efficientnet_lite0": ModelSpec(
        lambda made, _std: efficientnet_lite.EfficientNetLite0(made["dropout"]),
        lambda _made, pretrained: efficientnet_lite.read(pretrained),
        224,
        5e-4,
        "imagenet",
        "Apache-2.0",
        efficientnet_lite.MEAN,
        efficientnet_lite.STD,
    ),
    "hybrid": ModelSpec(
        hybrid.build,
        hybrid.read,
        224,
        3e-4,
        "as its --depth",
        "as its --depth",
        options=("branches", "depth", "stages"),
    ),
    **{
        name: ModelSpec(
            _mesonet,
            lambda made, pretrained: mesonet.read(made["name"], made["size"], pretrained),
            mesonet.SIDE,
            1e-3,
            "file by the authors",
            "Apache-2.0 (MesoNet)",
            mesonet.MEAN,
            mesonet.STD,
            same=("size",),
        )
        for name in ("meso4", "mesoinception4")
    },
    "spectrum": ModelSpec(
        _spectrum, _nothing, 256, 3e-2, "none", "-", (0.0,) * 3, (1.0,) * 3, same=("size",)
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

    Settings that are left open are those of a bundle to begin with, if one is named.

    Raises:
        ConfigError: the name, an option, or the pre-trained weights do not fit.
        BundleError: a bundle to begin with is damaged.
    """
    chosen = spec(config.model)
    sources = [_source(name) for name in _named(config)]
    bundles = [(source, _settings(source)) for source in sources if isinstance(source, Bundle)]
    for _, settings in bundles:
        config = _take_over(config, settings)
    architecture = _architecture(config)
    starts = [
        _of_bundle(source, architecture)
        if isinstance(source, Bundle)
        else chosen.read(architecture, source)
        for source in sources
    ]
    if config.model == "hybrid":
        # The RGB branch feels the normalisation; the other does not.
        starts.sort(key=lambda start: not hybrid.fills(start, "rgb"))
        _check_apart(starts, architecture["branches"])
    mean, std = (starts[0].mean, starts[0].std) if starts else (chosen.mean, chosen.std)
    preprocess = Preprocess(architecture["size"], config.mean or mean, config.std or std)
    module = chosen.build(architecture, preprocess.std)
    origin = _fill_all(module, starts)
    lr = _peak(architecture) * (20 if config.optimizer == "sgd" else 1)
    return Made(module, preprocess, architecture, origin, lr)


def rebuild(bundle: Bundle) -> nn.Module:
    """The trained network of a bundle, in eval mode; it gives the logits of its model.onnx.

    Raises:
        BundleError: its weights are absent, or are not those that its card describes.
    """
    settings = _settings(bundle)
    size = bundle.preprocess.size
    if settings.size != size:
        raise BundleError(
            f"expected one size in the card of {str(bundle.folder)!r}, got {settings.size} of the "
            f"network and {size} of the preprocessing; copy the bundle again"
        )
    try:
        with torch.random.fork_rng(devices=[]):
            module = spec(settings.model).build(_architecture(settings), bundle.preprocess.std)
    except ConfigError as error:
        raise _misdescribed(bundle, error) from error
    fill(module, of_bundle(bundle))
    return module.eval()


def stages(module: nn.Module, fresh: Collection[str] = ()) -> Parts:
    """The parts of one of our networks from input to head, each with the modules it consists of.

    The last is ``head``: the last linear layer, and what else only a bundle of the same network
    has weights for. Every parameter is in exactly one part.

    Args:
        module: as `create` or `rebuild` made it.
        fresh: modules that began without weights, such as ``origin["fresh"]`` of `Made`; parts
            with one of them belong to the head, since there is nothing in them to keep.
    """
    names = {id(each): f"{name}." for name, each in module.named_modules()}
    begun = tuple(f"{name}." for name in fresh)
    kept: Parts = []
    joined: list[nn.Module] = []
    *parts, (last, head) = module.parts()  # type: ignore[operator]
    for part, modules in parts:
        if any(names[id(each)].startswith(begun) for each in modules):
            joined += modules
        else:
            kept.append((part, modules))
    return [*kept, (last, [*joined, *head])]


def _named(config: TrainConfig) -> list[str]:
    """What `--pretrained` names; a hybrid takes several."""
    if config.pretrained is None:
        return []
    several = config.model == "hybrid" and not Path(config.pretrained).exists()
    return re.split(r"\s*,\s*", config.pretrained) if several else [config.pretrained]


def _source(name: str) -> Bundle | str:
    folder = Path(name)
    return load_bundle(folder) if (folder / "card.json").is_file() else name


def _architecture(config: TrainConfig) -> Architecture:
    """The network that settings describe, with what they leave open filled in."""
    chosen = spec(config.model)
    for option in ("stages", "depth", "branches"):
        value = getattr(config, option)
        if value is not None and option not in chosen.options:
            owners = [name for name, row in MODELS.items() if option in row.options]
            raise ConfigError(
                f"expected {option} for {' or '.join(owners)} only, got {option}={value} for "
                f"{config.model}; leave it out"
            )
    found: Architecture = {"name": config.model, "size": config.size or chosen.size}
    if config.model == "spectrum":
        return found  # which has no dropout
    found["dropout"] = config.dropout
    if config.model == "hybrid":
        return found | hybrid.options(config)
    if config.model == "resnet50v2":
        found["stages"] = config.stages or resnet_v2.CUT
    return found


def _settings(bundle: Bundle) -> TrainConfig:
    """The settings that describe a bundle's network.

    Raises:
        BundleError: this version builds no such network.
    """
    found = bundle.card.architecture
    try:
        options = {key: value for key, value in found.items() if key != "name"}
        settings = TrainConfig.model_validate({"model": found.get("name")} | options)
        built = _architecture(settings)
    except (ValidationError, ConfigError, TypeError) as error:
        raise _misdescribed(bundle, error) from error
    if built != found:
        raise _misdescribed(bundle, ValueError(f"{found}, which would be built as {built}"))
    return settings


def _misdescribed(bundle: Bundle, error: Exception) -> BundleError:
    return BundleError(
        f"expected a network of this version in the card of {str(bundle.folder)!r}, got: "
        f"{first_problem(error)}; use the version of bonaface that wrote it"
    )


def _take_over(config: TrainConfig, settings: TrainConfig) -> TrainConfig:
    """Settings that were left open, as those of a bundle to begin with.

    Raises:
        ConfigError: the bundle is of another network.
    """
    depth: str | None = settings.depth
    if settings.model != config.model:
        if config.model != "hybrid" or settings.model not in hybrid.DEPTHS:
            raise ConfigError(
                f"expected a bundle of {config.model} to begin with, got one of {settings.model}; "
                f"train --model {settings.model}, or name other weights"
            )
        depth = settings.model
    taken: dict[str, Any] = {"size": settings.size, "depth": depth}
    if config.depth in (None, depth):
        taken["stages"] = settings.stages
    still_open = {key: value for key, value in taken.items() if getattr(config, key) is None}
    return config.model_copy(update=still_open)


def _of_bundle(bundle: Bundle, architecture: Architecture) -> Start:
    start, found = of_bundle(bundle), bundle.card.architecture
    if architecture["name"] == "hybrid":
        return hybrid.of_bundle(start, found, architecture)
    for key in spec(architecture["name"]).same:
        if found[key] != architecture[key]:
            raise ConfigError(
                f"expected a bundle with {key} {architecture[key]} to begin with, got {found[key]} "
                f"in {start.source!r}; leave --{key} out"
            )
    return start


def _check_apart(starts: Sequence[Start], branches: Sequence[str]) -> None:
    for branch in branches:
        twice = [start.source for start in starts if hybrid.fills(start, branch)]
        if len(twice) > 1:
            raise ConfigError(
                f"expected one source of weights for the branch {branch}, got "
                f"{' and '.join(map(repr, twice))}; name one of them"
            )


def _fill_all(module: nn.Module, starts: Sequence[Start]) -> dict[str, Any]:
    """Load what there is, and say what that was."""
    if not starts:
        return {"weights": "from scratch"}
    loaded: set[str] = set()
    sources = []
    for start in starts:
        filled = fill(module, start)
        loaded |= filled.loaded
        sources.append(
            start.origin
            | {"mean": list(start.mean), "std": list(start.std)}
            | {"loaded": len(filled.loaded), "passed_over": list(filled.passed_over)}
        )
    names = " and ".join(source["weights"] for source in sources)
    alone = sources[0] if len(sources) == 1 else {"sources": sources}
    return alone | {"weights": names, "loaded": len(loaded), "fresh": unfilled(module, loaded)}


def _peak(architecture: Architecture) -> float:
    """Default learning rate; a hybrid's is that of its RGB network, or else of the CNN."""
    if architecture["name"] == "hybrid":
        return MODELS[architecture.get("depth", "cnn")].lr
    return MODELS[architecture["name"]].lr


def parameters(module: nn.Module) -> int:
    """Number of trainable weights."""
    return sum(p.numel() for p in module.parameters())


def multiply_adds(module: nn.Module, size: int) -> int:
    """Multiply-adds of one forward pass of one image; convolutions and linear layers only."""
    from torch.utils.flop_counter import FlopCounterMode

    device = next(module.parameters()).device
    with evaluating(module), FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.empty(1, 3, size, size, device=device))
    return int(counter.get_total_flops()) // 2
