"""What can be asked of an ONNX file without the onnx package, which detection does not need."""

from __future__ import annotations

from collections.abc import Iterator

# Of onnx.proto: message -> number of the field -> message; all ways to a tensor.
WAYS: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
}
EXTERNAL_DATA, DATA_LOCATION = 13, 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def has_external_data(model: bytes) -> bool:
    """Whether any tensor of an ONNX model has its values in another file.

    ONNX Runtime would read that file, from the working directory when the model comes as bytes.

    Raises:
        ValueError: the bytes are no ONNX model.
    """
    stack = [("ModelProto", memoryview(model))]
    while stack:
        kind, data = stack.pop()
        ways = WAYS.get(kind, {})
        for number, value in _fields(data):
            if kind == "TensorProto":
                if number == EXTERNAL_DATA or (number == DATA_LOCATION and value != 0):
                    return True
            elif number in ways and isinstance(value, memoryview):
                stack.append((ways[number], value))
    return False


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of a protocol buffer."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        value: int | memoryview
        if key & 7 == _VARINT:
            value, at = _varint(data, at)
        elif key & 7 in (_FIXED64, _FIXED32, _BYTES):
            size = {_FIXED64: 8, _FIXED32: 4}.get(key & 7)
            if size is None:
                size, at = _varint(data, at)
            if at + size > len(data):
                raise ValueError("a file that ends too early")
            value = data[at : at + size]
            at += size
        else:
            raise ValueError("a file that is no ONNX model")
        yield key >> 3, value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at == len(data):
            raise ValueError("a file that ends too early")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a file that is no ONNX model")
