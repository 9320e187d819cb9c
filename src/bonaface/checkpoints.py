"""Checkpoints of a training run: safetensors with a JSON note, written whole or not at all."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from bonaface.errors import ConfigError, TrainingError
from bonaface.files import atomic_path
from bonaface.history import Epoch

_VERSION = 2


@dataclass(frozen=True, slots=True)
class State:
    """Where a run stands; with the weights and the optimiser's memory, all that resuming needs."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    best: float | None = None
    best_epoch: int = 0
    history: tuple[Epoch, ...] = ()


def save(
    path: Path,
    module: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    state: State,
    note: dict[str, Any],
) -> None:
    """Write weights, optimiser memory, state, and a note of the data it was trained on.

    Raises:
        TrainingError: the disk is full or gone; the checkpoint that was there is whole.
    """
    tensors = {f"model.{name}": value for name, value in _plain(module).items()}
    for index, memory in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in memory.items()}
    about = {
        "version": _VERSION,
        "data": note,
        "state": {
            key: [row.to_dict() for row in value] if key == "history" else value
            for key, value in ((f, getattr(state, f)) for f in State.__slots__)
        },
    }
    _write(path, tensors, {"bonaface": json.dumps(about)})


def load(
    path: Path, module: torch.nn.Module, optimizer: torch.optim.Optimizer, note: dict[str, Any]
) -> State:
    """Fill `module` and `optimizer` from a checkpoint and return the state it was taken in.

    Raises:
        ConfigError: it was made with other data, or by another version.
        TrainingError: it is damaged.
    """
    tensors, about = _read(path)
    if about.get("version") != _VERSION or about.get("data") != note:
        raise ConfigError(
            f"expected the checkpoint {str(path)!r} to be of this version and this data, got "
            "another; name another --out, or the data it began with"
        )
    module.load_state_dict(_part(tensors, "model."))
    memory: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in _part(tensors, "optimizer.").items():
        index, key = name.split(".", 1)
        memory.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": memory})
    value = about["state"]
    return State(**value | {"history": tuple(Epoch(**row) for row in value["history"])})


def save_weights(path: Path, module: torch.nn.Module) -> None:
    """Write a network's weights alone."""
    _write(path, _plain(module), {"format": "pt"})


def load_weights(path: Path, module: torch.nn.Module) -> None:
    """Fill a network with weights from `save_weights`."""
    module.load_state_dict(_read(path)[0])


def _plain(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.contiguous().cpu() for name, value in module.state_dict().items()}


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _write(path: Path, tensors: dict[str, torch.Tensor], about: dict[str, str]) -> None:
    try:
        with atomic_path(path) as temporary:
            save_file({k: v.contiguous() for k, v in tensors.items()}, temporary, about)
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"expected to write {str(path)!r}, got: {error}; the last checkpoint is whole: free "
            "some room and go on with --resume"
        ) from error


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get("bonaface", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise TrainingError(
            f"expected a checkpoint in {str(path)!r}, got: {error}; start again in another folder"
        ) from error
