"""A detector that needs no training: a tiny network written with onnx.helper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bonaface import bundle as bundles
from bonaface.calibration import Calibration, OperatingPoint
from bonaface.crops import CropRecipe
from bonaface.preprocess import Preprocess

SIZE = 16


def write_brightness_onnx(path: Path, *, size: int | str = SIZE, slope: float = 8.0) -> None:
    """logit = slope * (mean over all pixels and channels - 0.5), of pixels in [0, 1]."""
    shape = ["batch", 3, size, size]
    constants = {"half": np.float32(0.5), "slope": np.float32(slope), "flat": np.int64([-1])}
    axes = helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3])
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["mean"], keepdims=0),
        helper.make_node("Sub", ["mean", "half"], ["centred"]),
        helper.make_node("Mul", ["centred", "slope"], ["scaled"]),
        helper.make_node("Reshape", ["scaled", "flat"], ["logit"]),
    ]
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["batch"])],
        [axes, *(numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())],
    )
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)


def make_card(**changes: Any) -> bundles.Card:
    points = {
        name: OperatingPoint(name, threshold, "made up", 0.02, 0.01, 50, 60).to_dict()
        for name, threshold in (("balanced", 0.5), ("fake_above", 0.7), ("real_below", 0.3))
    }
    values: dict[str, Any] = {
        "name": "brightness",
        "architecture": {"name": "brightness"},
        "parameters": 2,
        "preprocess": Preprocess(SIZE, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)).to_dict(),
        "crop": CropRecipe().to_dict(),
        "labels": {"real": 0, "fake": 1},
        "calibration": Calibration("temperature", 0.5).to_dict(),
        "operating_points": points,
        "validation": {
            "auc": {"value": 0.9, "low": 0.85, "high": 0.94, "n": 110, "reason": None},
            "eer": {"value": None, "low": None, "high": None, "n": 0, "reason": "no fakes"},
        },
        "data": {"fingerprint": "0" * 64, "counts": {"train": {"real": 100, "fake": 90}}},
        "training": {"config": {"seed": 7}},
        "parity": {"largest_logit_difference": 0.0},
        "versions": {"bonaface": "0.1.0"},
    }
    return bundles.Card.model_validate(values | changes)


def write_linear_onnx(path: Path, weight: np.ndarray, bias: float = 0.0) -> None:
    """logit = sum of weight * pixel + bias, of pixels in [0, 1]; weight is (3, size, size)."""
    size = weight.shape[-1]
    constants = {
        "weight": weight.reshape(1, 3, size, size).astype(np.float32),
        "bias": np.float32(bias),
        "axes": np.array([1, 2, 3], np.int64),
    }
    nodes = [
        helper.make_node("Mul", ["image", "weight"], ["parts"]),
        helper.make_node("ReduceSum", ["parts", "axes"], ["sum"], keepdims=0),
        helper.make_node("Add", ["sum", "bias"], ["logit"]),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, size, size])],
        [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["batch"])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
