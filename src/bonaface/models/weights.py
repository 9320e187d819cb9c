"""Weights to begin with: read without running anything, mapped name by name, loaded if all fits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from bonaface.bundle import Bundle
from bonaface.errors import BonafaceError, BundleError, ConfigError

Channels = tuple[float, float, float]
Tensors = dict[str, torch.Tensor]
Parts = list[tuple[str, list[nn.Module]]]
"""A network's modules from input to head, by part; each of its parameters is in one of them."""

FILES = (".pth", ".pt", ".bin", ".safetensors")
_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Start:
    """Weights to begin with: read, not loaded yet.

    Attributes:
        tensors: by their names where they come from.
        rename: such a name to the network's; None: passed over; what it does not know stays.
        network: which they are for, in words.
        source: where they come from, in words.
        origin: what a card says about them.
        mean: per channel, of the inputs that they were trained on.
        std: likewise.
        size: side of those inputs, where it is known.
        complete: prefixes of the network's names that must all be filled.
        optional: prefixes among these that need not.
        bundle: whether a card promises that they fit.
    """

    tensors: Tensors
    rename: Callable[[str], str | None]
    network: str
    source: str
    origin: dict[str, Any]
    mean: Channels
    std: Channels
    size: int | None = None
    complete: tuple[str, ...] = ("",)
    optional: tuple[str, ...] = ()
    bundle: bool = False

    def refusal(self, got: str) -> BonafaceError:
        """The error that says what is wrong with them."""
        expected = f"expected the weights of {self.network} in {self.source!r}, got {got}"
        if self.bundle:
            return BundleError(f"{expected}; copy the bundle again")
        return ConfigError(f"{expected}; name the network that they are of, or other weights")


@dataclass(frozen=True, slots=True)
class Filled:
    """What became of a `Start`.

    Attributes:
        loaded: the network's names that were filled.
        passed_over: names of the source that have no place on purpose, such as 1000 classes.
    """

    loaded: frozenset[str]
    passed_over: tuple[str, ...]


def fill(module: nn.Module, start: Start) -> Filled:
    """Load weights into a network, all or none.

    Raises:
        ConfigError: a name has no place, a shape or type differs, a value is not finite, or
            something is missing; BundleError if a bundle's card promised otherwise.
    """
    own = module.state_dict()
    mapped: Tensors = {}
    passed_over, foreign, unlike, broken = [], [], [], []
    for name, tensor in start.tensors.items():
        target = start.rename(name)
        if target is None:
            passed_over.append(name)
        elif target not in own or target in mapped:
            foreign.append(name)
        elif (wanted := own[target]).shape != tensor.shape:
            unlike.append(f"{name} {tuple(tensor.shape)} for {tuple(wanted.shape)}")
        elif tensor.is_floating_point() != wanted.is_floating_point():
            unlike.append(f"{name} {tensor.dtype} for {wanted.dtype}")
        elif not torch.isfinite(tensor).all():
            broken.append(name)
        else:
            mapped[target] = tensor.to(wanted.dtype)
    placed = mapped.keys() | {start.rename(name) for name in start.tensors}
    missing = [
        name
        for name in own
        if name not in placed
        and name.startswith(start.complete)
        and not name.startswith(start.optional)
        and not _counter(name)
    ]
    problems = [
        f"{words} ({listed(names)})"
        for words, names in (
            ("names that have no place", foreign),
            ("other shapes or types", unlike),
            ("values that are not finite", broken),
            ("nothing for some of its tensors", missing),
        )
        if names
    ]
    if problems:
        raise start.refusal(", ".join(problems))
    module.load_state_dict(mapped, strict=False)
    return Filled(frozenset(mapped), tuple(sorted(passed_over)))


def unfilled(module: nn.Module, loaded: Collection[str]) -> list[str]:
    """What of a network was not loaded: a module's name stands for all that is in it."""
    kept = {prefix for name in loaded for prefix in _prefixes(name)}
    found = {
        next(prefix for prefix in _prefixes(name) if prefix not in kept)
        for name in module.state_dict()
        if name not in kept and not _counter(name)
    }
    return sorted(found)


def read_tensors(path: Path) -> Tensors:
    """Named tensors of a safetensors or PyTorch file, which is told by its first bytes.

    Of a PyTorch file only tensors are read, never objects. A state dict under ``state_dict`` or
    ``model`` is opened, and ``module.`` before every name is removed.

    Raises:
        ConfigError: it cannot be read, or holds something else.
    """
    advice = "name a state dict, saved alone"
    try:
        with path.open("rb") as file:
            head = file.read(9)
        if head[8:] == b"{":  # after the length of its header
            found: Any = safetensors.torch.load_file(path)
        else:
            found = _load_torch(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"expected a file of weights, got {str(path)!r} ({error}); {advice}"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not found:
        raise ConfigError(
            f"expected named tensors in {str(path)!r}, got {type(found).__name__}; {advice}"
        )
    others = [str(name) for name, value in found.items() if not _plain(name, value)]
    if others:
        raise ConfigError(
            f"expected named tensors alone in {str(path)!r}, got something else as "
            f"{listed(others)}; {advice}"
        )
    if all(name.startswith("module.") for name in found):
        return {name.removeprefix("module."): value for name, value in found.items()}
    return found


def of_bundle(bundle: Bundle) -> Start:
    """The weights of one of our own bundles, for the network that its card names.

    Raises:
        BundleError: it holds none, or others than its card says.
    """
    path = bundle.folder / "model.safetensors"
    expected = bundle.card.files.get(path.name)
    advice = "copy the whole bundle"
    if expected is None or not path.is_file():
        raise BundleError(
            f"expected {path.name} in {str(bundle.folder)!r}, and its SHA-256 in the card, found "
            f"none; {advice}"
        )
    data = path.read_bytes()  # once, so that the bytes that are checked are those that are loaded
    if hashlib.sha256(data).hexdigest() != expected:
        raise BundleError(
            f"expected {str(path)!r} with the SHA-256 {expected} of the card, got other bytes; "
            f"{advice}"
        )
    try:
        tensors = safetensors.torch.load(data)
    except SafetensorError as error:
        raise BundleError(f"expected weights in {str(path)!r}, got: {error}; {advice}") from error
    card, preprocess = bundle.card, bundle.preprocess
    return Start(
        tensors,
        rename=lambda name: name,
        network=f"its {card.architecture.get('name')}",
        source=str(bundle.folder),
        origin={
            "weights": card.name,
            "format": "bundle",
            "sha256": expected,
            "architecture": card.architecture,
            "data": card.data.get("fingerprint"),
        },
        mean=preprocess.mean,
        std=preprocess.std,
        size=preprocess.size,
        bundle=True,
    )


def listed(names: Collection[str]) -> str:
    """The first few names in order, and of how many."""
    first = ", ".join(sorted(names)[:_SHOWN])
    return f"{first}, ... {len(names)} in all" if len(names) > _SHOWN else first


def _load_torch(path: Path) -> Any:
    try:
        with path.open("rb") as file:  # of a path it would believe the name
            return torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    # The bytes are a program for the unpickler, which fails in as many ways as there are programs.
    # Its own message advises to run it without the guard.
    except Exception as error:
        raise ConfigError(
            f"expected a safetensors or PyTorch file of tensors alone, got {str(path)!r}, which is "
            "damaged, something else, or holds other objects too; name a state dict, saved alone"
        ) from error


def _plain(name: object, value: object) -> bool:
    return (
        isinstance(name, str)
        and isinstance(value, torch.Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
    )


def _prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _counter(name: str) -> bool:
    """Counts batches, which only training reads, and which older files lack."""
    return name.endswith("num_batches_tracked")
