"""Trains, tests, compares and runs deepfake detectors for face images.

The names below are imported when they are first used: ``import bonaface`` loads neither NumPy nor
PyTorch.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bonaface.bundle import Bundle, load_bundle
    from bonaface.compare import compare
    from bonaface.config import TrainConfig
    from bonaface.detector import Detector, load_detector
    from bonaface.errors import BonafaceError
    from bonaface.evaluate import evaluate
    from bonaface.images import read_image
    from bonaface.samples import Samples, load_samples
    from bonaface.scores import Scores, read_scores
    from bonaface.training import train
    from bonaface.verdict import Verdict

__version__ = "0.1.0"

_HOMES = {
    "BonafaceError": "errors",
    "Bundle": "bundle",
    "Detector": "detector",
    "Samples": "samples",
    "Scores": "scores",
    "TrainConfig": "config",
    "Verdict": "verdict",
    "compare": "compare",
    "evaluate": "evaluate",
    "load_bundle": "bundle",
    "load_detector": "detector",
    "load_samples": "samples",
    "read_image": "images",
    "read_scores": "scores",
    "train": "training",
}

__all__ = [
    "BonafaceError",
    "Bundle",
    "Detector",
    "Samples",
    "Scores",
    "TrainConfig",
    "Verdict",
    "__version__",
    "compare",
    "evaluate",
    "load_bundle",
    "load_detector",
    "load_samples",
    "read_image",
    "read_scores",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'bonaface' has no attribute {name!r}")
    value = getattr(import_module(f"bonaface.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """`bonaface.evaluate` is the function, also after someone imported the module of that name."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
