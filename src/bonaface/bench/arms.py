"""What takes turns: a bundle and what runs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from bonaface.bundle import NETWORKS, Bundle
from bonaface.detector import Detector
from bonaface.runtimes import Network, open_network, openvino_network

Runtime = Literal["pytorch", "onnxruntime", "openvino"]
TITLES: Final[dict[Runtime, str]] = {
    "pytorch": "PyTorch eager",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
}
WEIGHTS: Final = "model.safetensors"
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Arm:
    """A bundle and what runs it."""

    bundle: Bundle
    runtime: Runtime

    @property
    def source(self) -> str | None:
        """SHA-256 of the network as it was trained: what arms may be compared by."""
        made = self.bundle.card.export
        return made.source_sha256 if made else self.bundle.model_sha256

    @property
    def own(self) -> bool:
        """Whether this is what `bonaface detect` runs the bundle with."""
        return self.runtime == ("onnxruntime" if self.bundle.format == "onnx" else "openvino")

    @property
    def bytes(self) -> int:
        """Size of the network's files that this runtime reads."""
        names = (WEIGHTS,) if self.runtime == "pytorch" else NETWORKS[self.bundle.format]
        return sum((self.bundle.folder / name).stat().st_size for name in names)


class Stopwatch:
    """A network that adds up the seconds spent inside of it."""

    def __init__(self, network: Network, clock: Clock) -> None:
        self._network, self._clock = network, clock
        self.seconds = 0.0

    def __call__(self, images: NDArray[np.float32]) -> NDArray[Any]:
        """float32 (n, 3, size, size) -> what the network gives."""
        begun = self._clock()
        found = self._network(images)
        self.seconds += self._clock() - begun
        return found


def arms_of(bundles: Sequence[Bundle]) -> list[Arm]:
    """Every bundle with every runtime that is installed and may run it; its own in any case."""
    found = []
    for bundle in bundles:
        runtimes: list[Runtime] = []
        if (bundle.folder / WEIGHTS).is_file() and find_spec("torch"):
            runtimes.append("pytorch")
        if bundle.format == "onnx":
            runtimes.append("onnxruntime")
        if bundle.format == "openvino" or find_spec("openvino"):
            runtimes.append("openvino")
        found += [Arm(bundle, runtime) for runtime in runtimes]
    return found


def open_arm(
    arm: Arm, threads: int, clock: Clock = time.perf_counter
) -> tuple[Detector, Stopwatch]:
    """A detector run by the arm's runtime, and what was spent inside of its network.

    With PyTorch, sets its number of threads for the whole process.

    Raises:
        BundleError: this runtime cannot run the bundle.
        MissingExtraError: OpenVINO is not installed.
    """
    made = {"pytorch": _eager, "onnxruntime": open_network, "openvino": openvino_network}
    watch = Stopwatch(made[arm.runtime](arm.bundle, threads), clock)
    return Detector(arm.bundle, network=watch), watch


def _eager(bundle: Bundle, threads: int) -> Network:
    """Float32, operation by operation: what a training script's own inference does."""
    import torch

    from bonaface.models.registry import rebuild

    torch.set_num_threads(threads)
    module = rebuild(bundle)

    def run(images: NDArray[np.float32]) -> NDArray[Any]:
        with torch.inference_mode():
            return np.asarray(module(torch.from_numpy(images)))

    return run
