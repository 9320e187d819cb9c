"""The forms a detector can be exported in, and how the network of each is written."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from bonaface.bundle import Bundle
from bonaface.errors import BonafaceError, ConfigError, MissingExtraError
from bonaface.runtimes import import_untold

Precision = Literal["float32", "float16", "int8"]
Batches = Sequence[NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Form:
    """One row of the table of forms.

    Attributes:
        format: what runs it.
        precision: the coarsest numbers in it, which say how far it may be from the original.
        libraries: that write it.
    """

    format: Literal["onnx", "openvino", "transformers"]
    precision: Precision
    libraries: tuple[str, ...]


FORMS: Final[dict[str, Form]] = {
    "onnx": Form("onnx", "float32", ("onnx",)),
    "onnx-float16": Form("onnx", "float16", ("onnx", "onnxruntime")),
    "onnx-int8": Form("onnx", "int8", ("onnx", "onnxruntime")),
    "openvino": Form("openvino", "float16", ("openvino",)),
    "openvino-int8": Form("openvino", "int8", ("openvino", "nncf")),
    "transformers": Form("transformers", "float32", ("transformers", "safetensors")),
}


def find_form(name: str) -> Form:
    """A row of `FORMS`; ConfigError for an unknown name."""
    if name not in FORMS:
        raise ConfigError(f"expected a form out of {', '.join(FORMS)}, got {name!r}; name one")
    return FORMS[name]


def write_network(source: Bundle, form: str, folder: Path, inputs: Batches) -> None:
    """Write the network's files, which take float32 (b, 3, size, size) and give float32 (b,).

    Args:
        source: a bundle with model.onnx.
        form: "onnx...", "openvino...".
        folder: to write into; it exists.
        inputs: of int8, batches to measure the ranges of activations on.

    Raises:
        ConfigError: the network cannot be written in this form.
        MissingExtraError: a library is not installed.
    """
    chosen = FORMS[form]
    write = {
        "onnx": {"float32": _onnx, "float16": _onnx_float16, "int8": _onnx_int8},
        "openvino": {"float16": _openvino, "int8": _openvino_int8},
    }[chosen.format][chosen.precision]
    try:
        with _contained():
            write(source, form, folder, inputs)
    except ImportError as error:
        extra = "openvino" if chosen.format == "openvino" else "train"
        raise MissingExtraError(f"exporting to {form}", extra) from error
    except (BonafaceError, OSError):
        raise
    # Converters raise whatever their passes meet.
    except Exception as error:
        first = next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)
        raise ConfigError(
            f"expected a network that can be written as {form} in {str(source.folder)!r}, got: "
            f"{first}; export it to another form"
        ) from error


def facts(source: Bundle, form: str) -> dict[str, Any]:
    """What a program that has the network alone must know; it is put into the network's file."""
    card = source.card
    return {
        "name": card.name,
        "form": form,
        "preprocess": card.preprocess,
        "crop": card.crop,
        "labels": card.labels,
        "calibration": card.calibration.to_dict(),
        "operating_points": {
            name: point.threshold for name, point in sorted(card.operating_points.items())
        },
        "source_sha256": source.model_sha256,
    }


def versions(form: str) -> dict[str, str]:
    """Of the libraries that write a form."""
    return {name: version(name) for name in FORMS[form].libraries}


def _onnx(source: Bundle, form: str, folder: Path, _inputs: Batches) -> None:
    _save_onnx(_plain_onnx(source), source, form, folder)


def _onnx_float16(source: Bundle, form: str, folder: Path, _inputs: Batches) -> None:
    _add_search_path()
    from onnxruntime.transformers.float16 import convert_float_to_float16

    made = convert_float_to_float16(_plain_onnx(source), keep_io_types=True)
    _save_onnx(made, source, form, folder)


def _onnx_int8(source: Bundle, form: str, folder: Path, inputs: Batches) -> None:
    _add_search_path()
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    model = _plain_onnx(source)
    name = model.graph.input[0].name

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(inputs)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            batch = next(self._left, None)
            return None if batch is None else {name: batch}

    with tempfile.TemporaryDirectory() as kept:
        float32, prepared, made = (Path(kept) / f"{n}.onnx" for n in ("float32", "ready", "int8"))
        onnx.save(model, float32)
        quant_pre_process(str(float32), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(made),
            Reader(),
            per_channel=True,
            # Seven bits of weight: on processors without VNNI eight would saturate.
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        _save_onnx(onnx.load(made), source, form, folder)


def _plain_onnx(source: Bundle) -> Any:
    """The network without notes of the machine that trained it, such as paths in stack traces."""
    import onnx

    model = onnx.load_from_string(source.network()[0])
    for part in (model.graph, *model.graph.node, *model.graph.value_info):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    return model


def _save_onnx(model: Any, source: Bundle, form: str, folder: Path) -> None:
    import onnx

    onnx.helper.set_model_props(model, {"bonaface": json.dumps(facts(source, form))})
    onnx.save(model, folder / "model.onnx")


def _openvino(source: Bundle, form: str, folder: Path, _inputs: Batches) -> None:
    _save_openvino(_read_openvino(source), source, form, folder)


def _openvino_int8(source: Bundle, form: str, folder: Path, inputs: Batches) -> None:
    nncf = import_untold("nncf")
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    singles = [batch[at : at + 1] for batch in inputs for at in range(len(batch))]
    made = nncf.quantize(
        _read_openvino(source),
        nncf.Dataset(singles),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(singles),
        # By default it cuts off what only some pictures reach, which moved single scores by 0.5.
        advanced_parameters=AdvancedQuantizationParameters(
            activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX
        ),
    )
    _save_openvino(made, source, form, folder)


def _read_openvino(source: Bundle) -> Any:
    return import_untold("openvino").Core().read_model(_plain_onnx(source).SerializeToString())


def _save_openvino(model: Any, source: Bundle, form: str, folder: Path) -> None:
    model.set_rt_info(json.dumps(facts(source, form)), ["bonaface"])
    import_untold("openvino").save_model(model, folder / "model.xml", compress_to_fp16=True)


def _add_search_path() -> None:
    """Parts of ONNX Runtime import each other by bare names, and add this when first imported."""
    import onnxruntime

    sys.path.append(str(Path(onnxruntime.__file__).parent / "transformers"))


@contextlib.contextmanager
def _contained() -> Iterator[None]:
    """Without the converters' progress bars and advice, and what they add to the search path."""
    path, level = sys.path.copy(), logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(level)
            sys.path[:] = path
