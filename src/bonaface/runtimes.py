"""What runs a bundle's network: ONNX Runtime, or OpenVINO for bundles exported to it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bonaface.bundle import Bundle
from bonaface.errors import BundleError, MissingExtraError

_TELEMETRY: Final = "openvino_telemetry"
_ABSENT: Final = object()

# float32 (n, 3, size, size) -> what the network gives, of any shape.
Network = Callable[[NDArray[np.float32]], NDArray[Any]]


def open_network(bundle: Bundle, threads: int | None = None) -> Network:
    """The network of a bundle, to be called with batches; safe to share between threads.

    Args:
        bundle: from `load_bundle`.
        threads: processor threads for one call; None takes all cores.

    Raises:
        BundleError: the network is not the one of the card, or cannot be run. So does a call.
        MissingExtraError: OpenVINO is not installed.
    """
    made = {"onnx": _onnx, "openvino": openvino_network}[bundle.format]
    return made(bundle, threads or processor_count())


def processor_count() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS and Windows


def import_untold(name: str) -> Any:
    """`openvino` or `nncf`, without the library by which each use is told to their makers, unasked.

    Raises:
        ImportError: it is not installed.
    """
    modules: dict[str, Any] = sys.modules
    before = modules.get(_TELEMETRY, _ABSENT)
    modules[_TELEMETRY] = None  # as if it were not installed, with which both can do
    try:
        return import_module(name)
    finally:
        del modules[_TELEMETRY]
        if before is not _ABSENT:
            modules[_TELEMETRY] = before


def _onnx(bundle: Bundle, threads: int) -> Network:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Not ONNX Runtime's own format, which the checks of the file do not know.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    (network,) = bundle.network()
    try:
        session = ort.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise _not_run(bundle, "ONNX Runtime", error) from error
    name = _only_input(bundle, [node.name for node in session.get_inputs()])

    def run(images: NDArray[np.float32]) -> NDArray[Any]:
        try:
            return np.asarray(session.run(None, {name: images})[0])
        except Exception as error:
            raise _not_run(bundle, "ONNX Runtime", error) from error

    return run


def openvino_network(bundle: Bundle, threads: int) -> Network:
    """As `open_network`, by OpenVINO, which reads ONNX bundles too."""
    try:
        openvino = import_untold("openvino")
    except ImportError as error:
        raise MissingExtraError(
            f"the OpenVINO bundle {str(bundle.folder)!r}", "openvino"
        ) from error
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    try:
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(*bundle.network()), "CPU", settings)
    except Exception as error:
        raise _not_run(bundle, "OpenVINO", error) from error
    _only_input(bundle, [each.any_name for each in compiled.inputs])
    requests = threading.local()  # a request serves one caller at a time

    def run(images: NDArray[np.float32]) -> NDArray[Any]:
        try:
            if not hasattr(requests, "own"):
                requests.own = compiled.create_infer_request()
            return np.array(requests.own.infer([images])[0])
        except Exception as error:
            raise _not_run(bundle, "OpenVINO", error) from error

    return run


def _only_input(bundle: Bundle, names: list[str]) -> str:
    if len(names) != 1:
        raise BundleError(
            f"expected a network with one input in {str(bundle.model)!r}, got {names}; "
            "export the bundle again"
        )
    return names[0]


def _not_run(bundle: Bundle, runtime: str, error: Exception) -> BundleError:
    first = next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)
    return BundleError(
        f"expected a network that {runtime} runs in {str(bundle.model)!r}, got: {first}; "
        "export the bundle again"
    )
