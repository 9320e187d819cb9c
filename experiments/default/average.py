"""A bundle between two trainings, by their weights: `python average.py ONE OTHER OUT [SHARE]`.

Of two points of one descent, the middle does better than either (Izmailov et al. 2018, "Averaging
Weights Leads to Wider Optima and Better Generalization"). SHARE, a half unless given, is of OTHER,
whose calibration stays.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from bonaface.bundle import finish_bundle, load_bundle
from bonaface.checkpoints import save_weights
from bonaface.config import TrainConfig
from bonaface.files import atomic_folder
from bonaface.models import registry
from bonaface.models.onnx import export_onnx


def main(one: Path, other: Path, out: Path, share: float = 0.5) -> None:
    """Write the bundle."""
    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    bundle = load_bundle(other)
    card, size = bundle.card, bundle.preprocess.size
    network = registry.create(TrainConfig(model=str(card.architecture["name"]), size=size)).module
    network.load_state_dict(
        {
            name: torch.lerp(weight.double(), second[name].double(), share).to(weight.dtype)
            for name, weight in first.items()
        }
    )
    with atomic_folder(out) as folder:
        export_onnx(network.eval(), size, folder / "model.onnx")
        save_weights(folder / "model.safetensors", network)
        finish_bundle(folder, card.model_copy(update={"name": out.name}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), *map(float, sys.argv[4:]))
