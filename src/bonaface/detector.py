"""The one door to inference: everything that scores a face goes through `Detector`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bonaface.bundle import Bundle, load_bundle
from bonaface.errors import BundleError, ImageError
from bonaface.images import read_image
from bonaface.verdict import Verdict, answer

_BATCH = 16


class Detector:
    """Runs a bundle's network with ONNX Runtime; no torch. Safe to share between threads.

    Args:
        bundle: from `load_bundle`.
        threads: processor threads for one call; None takes all cores.

    Raises:
        BundleError: the network is not the one of the card, or ONNX Runtime cannot run it.
    """

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or processor_count()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Not ONNX Runtime's own format, which the checks of the file do not know.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        network = bundle.network()
        try:
            self._session = ort.InferenceSession(
                network, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise _not_run(bundle, error) from error
        inputs = [node.name for node in self._session.get_inputs()]
        if len(inputs) != 1:
            raise BundleError(
                f"expected a network with one input in {str(bundle.onnx)!r}, got {inputs}; "
                "export the bundle again"
            )
        self.bundle = bundle
        self.preprocess = bundle.preprocess
        self.calibration = bundle.calibration
        self._input = inputs[0]
        self._doubt = bundle.doubt

    @property
    def name(self) -> str:
        """What the detector calls itself."""
        return self.bundle.card.name

    def logits(self, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
        """Face crops (uint8 HxWx3 of any size, RGB) -> logits, float64 (n,)."""
        found = [
            self._run(np.stack([self.preprocess.resize(crop) for crop in crops[at : at + _BATCH]]))
            for at in range(0, len(crops), _BATCH)
        ]
        return np.concatenate(found) if found else np.empty(0)

    def score(self, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
        """As `logits`, but calibrated: P(fake) in [0, 1], float64 (n,)."""
        return self.calibration(self.logits(crops))

    def detect(self, source: Path | bytes, *, name: str | None = None) -> Verdict:
        """Judge one picture that is a face crop.

        Args:
            source: a file or its bytes.
            name: what the verdict calls it; by default the path.

        Returns:
            A verdict; a picture that cannot be read is not_applicable, with the reason. A detector
            that validation could not tell from guessing is unsure of every picture.
        """
        label = name or (str(source) if isinstance(source, Path) else "bytes")
        fake_above = self.bundle.operating_point("fake_above").threshold
        real_below = self.bundle.operating_point("real_below").threshold
        score: float | None = None
        notes: tuple[str, ...] = ()
        try:
            image = read_image(source)
            notes = image.notes
            score = float(self.score([image.pixels])[0])
            said, reason = answer(score, fake_above, real_below)
            if self._doubt:
                said, reason = "unsure", self._doubt
        except ImageError as error:
            said, reason = "not_applicable", error.reason
        card = self.bundle.card
        return Verdict(
            label,
            said,
            reason,
            score,
            fake_above,
            real_below,
            card.name,
            card.versions.get("bonaface", "unknown"),
            notes,
        )

    def _run(self, batch: NDArray[np.uint8]) -> NDArray[np.float64]:
        normalised = np.ascontiguousarray(self.preprocess.normalise(batch))
        try:
            found = self._session.run(None, {self._input: normalised})[0]
        except Exception as error:
            raise _not_run(self.bundle, error) from error
        logits = np.asarray(found, np.float64).reshape(-1)
        if logits.shape != (len(batch),) or not np.isfinite(logits).all():
            raise BundleError(
                f"expected {len(batch)} finite logits from {self.name!r}, got shape "
                f"{logits.shape} or values that are not finite; do not use this bundle"
            )
        return logits


def _not_run(bundle: Bundle, error: Exception) -> BundleError:
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return BundleError(
        f"expected a network that ONNX Runtime runs in {str(bundle.onnx)!r}, got: {first}; "
        "export the bundle again"
    )


def processor_count() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS and Windows


def load_detector(model: Path | str, *, threads: int | None = None) -> Detector:
    """Open a bundle for inference.

    Args:
        model: the bundle's folder.
        threads: processor threads for one call; None takes all cores.

    Raises:
        BundleError: no bundle is there, or it cannot be run.
    """
    return Detector(load_bundle(Path(model)), threads=threads)
