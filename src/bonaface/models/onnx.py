"""A trained network as ONNX, checked against itself."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from bonaface.errors import TrainingError
from bonaface.files import atomic_path

OPSET = 18
TOLERANCE = 1e-3


def export_onnx(module: nn.Module, size: int, path: Path) -> float:
    """Write a float32 network as ONNX with a free batch size, if it computes the same.

    Args:
        module: float32 (b, 3, size, size) -> logits (b,); left as it is.
        size: side of the input.
        path: of the file; one file, weights inside.

    Returns:
        The largest absolute difference of logits on random inputs of batches of 1 and 3.

    Raises:
        TrainingError: the difference exceeds 1e-3 of the logits' scale; nothing is written.
    """
    import onnxruntime as ort

    network = copy.deepcopy(module).to("cpu", torch.float32).eval()
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    example = torch.zeros(2, 3, size, size)
    with atomic_path(path) as temporary:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), _quiet("torch"):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network,
                (example,),
                str(temporary),
                input_names=["images"],
                output_names=["logits"],
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
        session = ort.InferenceSession(str(temporary), providers=["CPUExecutionProvider"])
        generator = torch.Generator().manual_seed(0)
        largest = scale = 0.0
        for count in (1, 3):
            images = torch.randn(count, 3, size, size, generator=generator)
            with torch.inference_mode():
                wanted = network(images).numpy().astype(np.float64)
            got = np.asarray(session.run(None, {"images": images.numpy()})[0], np.float64)
            if got.shape != wanted.shape or not np.isfinite(got).all():
                raise TrainingError(
                    f"expected ONNX logits of shape {wanted.shape}, got {got.shape} or values "
                    "that are not finite; this network cannot be exported"
                )
            largest = max(largest, float(np.abs(got - wanted).max()))
            scale = max(scale, float(np.abs(wanted).max()))
        if largest > TOLERANCE * max(scale, 1.0):
            raise TrainingError(
                f"expected ONNX logits within {TOLERANCE * max(scale, 1.0):g} of PyTorch's, got a "
                f"difference of {largest:g}; this network cannot be exported"
            )
    return largest


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
