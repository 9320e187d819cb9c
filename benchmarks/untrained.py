"""A detector that nobody trained: as fast as a trained one, and worthless."""

from __future__ import annotations

from pathlib import Path

from bonaface.bundle import Bundle, Card, finish_bundle
from bonaface.calibration import Calibration, OperatingPoint
from bonaface.config import TrainConfig
from bonaface.crops import CropRecipe
from bonaface.models import registry
from bonaface.models.onnx import export_onnx


def untrained(folder: Path, model: str, size: int) -> tuple[Bundle, registry.Made]:
    """A bundle around a network with fresh weights, and that network, not training."""
    made = registry.create(TrainConfig(model=model, size=size))
    made.module.eval()
    difference = export_onnx(made.module, size, folder / "model.onnx")
    thresholds = {"balanced": 0.5, "fake_above": 0.9, "real_below": 0.1}
    card = Card(
        name=f"untrained-{model}",
        architecture=made.architecture,
        parameters=registry.parameters(made.module),
        preprocess=made.preprocess.to_dict(),
        crop=CropRecipe().to_dict(),
        labels={"real": 0, "fake": 1},
        calibration=Calibration(),
        operating_points={
            name: OperatingPoint(
                name=name,
                threshold=threshold,
                rule="none",
                apcer=0.5,
                bpcer=0.5,
                n_real=0,
                n_fake=0,
            )
            for name, threshold in thresholds.items()
        },
        validation={},
        data={"fingerprint": "none", "counts": {}},
        training={"config": {"seed": 0}, "origin": made.origin},
        parity={"largest_logit_difference": difference},
        versions={},
    )
    return finish_bundle(folder, card), made
