from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from bonaface.onnxfile import DATA_LOCATION, EXTERNAL_DATA, WAYS, has_external_data
from tiny import write_brightness_onnx


def inside() -> TensorProto:
    return helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])


def outside() -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "w.bin"
    return tensor


def initializer(tensor: TensorProto) -> onnx.ModelProto:
    return helper.make_model(helper.make_graph([], "g", [], [], [tensor]))


def constant(tensor: TensorProto) -> onnx.ModelProto:
    node = helper.make_node("Constant", [], ["c"], value=tensor)
    return helper.make_model(helper.make_graph([node], "g", [], []))


def branch(tensor: TensorProto) -> onnx.ModelProto:
    within = helper.make_graph([], "inner", [], [], [tensor])
    node = helper.make_node("If", ["x"], ["y"], then_branch=within, else_branch=within)
    return helper.make_model(helper.make_graph([node], "g", [], []))


def function(tensor: TensorProto) -> onnx.ModelProto:
    node = helper.make_node("Constant", [], ["c"], value=tensor)
    made = helper.make_function("d", "f", [], ["c"], [node], [helper.make_opsetid("", 18)])
    return helper.make_model(helper.make_graph([], "g", [], []), functions=[made])


def sparse(tensor: TensorProto) -> onnx.ModelProto:
    model = helper.make_model(helper.make_graph([], "g", [], []))
    model.graph.sparse_initializer.add().values.CopyFrom(tensor)
    return model


@pytest.mark.parametrize("place", [initializer, constant, branch, function, sparse])
def test_external_tensors_are_found_wherever_they_stand(
    place: Callable[[TensorProto], onnx.ModelProto],
) -> None:
    assert not has_external_data(place(inside()).SerializeToString())
    assert has_external_data(place(outside()).SerializeToString())


def test_every_way_to_a_tensor_is_known() -> None:
    """`WAYS` against the description that the onnx package carries."""
    known = onnx.ModelProto.DESCRIPTOR.file.message_types_by_name

    def reaches(kind: Any, seen: frozenset[str]) -> bool:
        if kind.name == "TensorProto":
            return True
        return kind.name not in seen and any(
            reaches(field.message_type, seen | {kind.name})
            for field in kind.fields
            if field.message_type is not None
        )

    wanted: dict[str, dict[int, str]] = {}
    waiting = ["ModelProto"]
    while waiting:
        name = waiting.pop()
        if name in wanted or name == "TensorProto":
            continue
        wanted[name] = {
            field.number: field.message_type.name
            for field in known[name].fields
            if field.message_type is not None and reaches(field.message_type, frozenset())
        }
        waiting += wanted[name].values()
    assert wanted == WAYS
    tensor = TensorProto.DESCRIPTOR.fields_by_name
    assert tensor["external_data"].number == EXTERNAL_DATA
    assert tensor["data_location"].number == DATA_LOCATION


def test_a_whole_network_has_none(tmp_path: Path) -> None:
    write_brightness_onnx(tmp_path / "model.onnx")
    assert not has_external_data((tmp_path / "model.onnx").read_bytes())


@given(st.binary(max_size=200))
def test_any_bytes_give_an_answer_or_a_value_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        has_external_data(data)


def test_a_file_that_ends_early_is_refused() -> None:
    whole = initializer(
        helper.make_tensor("w", TensorProto.FLOAT, [9], np.ones(9))
    ).SerializeToString()
    with pytest.raises(ValueError, match="too early"):
        has_external_data(whole[:-20])
