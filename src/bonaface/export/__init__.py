"""A trained detector in the forms that others run, each checked against the original.

Exports to ONNX and OpenVINO are bundles: `load_detector` runs them, with the same recipe,
calibration and operating points. What does not pass the gate is not written.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np

from bonaface.bundle import (
    NETWORKS,
    SCHEMA_VERSION,
    Bundle,
    Exported,
    finish_bundle,
)
from bonaface.detector import Detector, load_detector
from bonaface.errors import ConfigError, DataError
from bonaface.evaluate import Pixels, Scorer, in_batches, read_ahead
from bonaface.export.forms import FORMS, Batches, find_form, versions, write_network
from bonaface.export.gate import (
    Bounds,
    Facts,
    Gate,
    Progress,
    compare_on_drawings,
    compare_on_samples,
    drawings,
)
from bonaface.export.hub import Pipeline, resize_difference, write_folder
from bonaface.files import atomic_folder, write_json
from bonaface.runtimes import import_untold
from bonaface.samples import Sample, Samples

__all__ = ["FORMS", "Gate", "export"]

CALIBRATION_PICTURES: Final = 300
REPORTS: Final = ("gate.json", "gate.html")
_RESIZED: Final = 64  # pictures that a pipeline is let resize by itself


@dataclass(frozen=True, slots=True)
class _Calibration:
    """Inputs to measure the ranges of int8 on, and what a card says about them."""

    inputs: Batches
    about: dict[str, Any]


def export(
    model: Path | str,
    form: str,
    out: Path | str,
    *,
    gate: Samples | None = None,
    split: str = "test",
    calibrate: Samples | None = None,
    max_difference: float | None = None,
    max_auc_drop: float | None = None,
    progress: Progress | None = None,
) -> Gate:
    """Write a bundle in another form, if it still answers as before.

    Args:
        model: folder of a bundle that `bonaface train` wrote.
        form: a key of `FORMS`.
        out: folder to write; absent, empty, or with the report of an export that did not pass.
            It gets the export and gate.json, or gate.json alone.
        gate: labelled face crops to compare both on; None: only numbers, on drawn faces.
        split: of `gate`.
        calibrate: of int8: its train split gives the ranges of activations; None: that of `gate`.
        max_difference: of any score; None: as `gate.MAX_DIFFERENCE` says.
        max_auc_drop: None: `gate.MAX_AUC_DROP`.
        progress: called with what is done, how much of it, and its total.

    Returns:
        What the check came to; `passed` says whether the export was written.

    Raises:
        ConfigError: the network cannot be written in this form, data are missing that it needs, a
            bound is out of range, or `out` is taken.
        BundleError: no bundle is there, or it is damaged.
        DataError: pictures are needed that cannot be read.
        MissingExtraError: a library is not installed.
    """
    chosen = find_form(form)
    bounds = Bounds.of(chosen.precision, max_difference, max_auc_drop)
    original = load_detector(model)
    source, out = original.bundle, Path(out)
    if source.card.export is not None:
        raise ConfigError(
            f"expected a bundle that was trained, got {str(source.folder)!r}, which is an export "
            f"of {source.card.export.source!r}; export that one"
        )
    _check_place(out)
    calibration = None
    if chosen.precision == "int8":
        if gate is None:
            raise ConfigError(
                f"expected labelled face crops for {form}, which needs pictures to measure ranges "
                "on and to be compared on, got none; name a data set"
            )
        calibration = _calibration(source, calibrate or gate, progress)
    with atomic_folder(out) as folder:
        if chosen.format == "transformers":
            write_folder(source, folder)
            exported: Scorer = Pipeline(folder, source)
        else:
            write_network(source, form, folder, calibration.inputs if calibration else ())
            made = _made(source, form, calibration)
            exported = _as_bundle(source, made, folder)
        about = Facts(form, _sizes(source, folder), tuple(_notes(original, folder, form, gate)))
        if gate is None:
            found = compare_on_drawings(original, exported, bounds, about)
        else:
            found = compare_on_samples(
                original,
                exported,
                bounds,
                about,
                samples=gate,
                split=split,
                progress=progress,
            )
        if not found.passed:
            _empty(folder)
        elif chosen.format != "transformers":
            told = made.model_copy(update={"gate": found.summary()})
            finish_bundle(folder, exported.bundle.card.model_copy(update={"export": told}))
        write_json(folder / "gate.json", found.to_dict())
    return found


def _check_place(out: Path) -> None:
    if out.exists() and (not out.is_dir() or {p.name for p in out.iterdir()} - set(REPORTS)):
        raise ConfigError(
            f"expected a folder that is not there yet or empty, got {str(out)!r}, which holds "
            "something; take another --out"
        )


def _calibration(source: Bundle, samples: Samples, progress: Progress | None) -> _Calibration:
    """The network's inputs of some training pictures, as many fakes as reals where there are."""
    train = samples.split("train")
    if not len(train):
        raise ConfigError(
            f"expected samples in the split 'train' of {str(samples.root)!r} to measure ranges on, "
            "got none; name a data set that has them"
        )
    chosen = train.limit(CALIBRATION_PICTURES)
    recipe, batches = source.preprocess, []
    for batch in in_batches(read_ahead(chosen, lambda _, crop: recipe.resize(crop))):
        crops = [crop for _, crop in batch if not isinstance(crop, str)]
        if crops:
            batches.append(np.ascontiguousarray(recipe.normalise(np.stack(crops))))
        if progress:
            progress("reading pictures for the ranges", sum(map(len, batches)), len(chosen))
    if not batches:
        raise DataError(
            f"expected pictures in the split 'train' of {str(samples.root)!r}, could read none of "
            f"{len(chosen)}; check the folder"
        )
    return _Calibration(
        batches,
        {
            "data": samples.root.resolve().name,
            "split": "train",
            "pictures": sum(map(len, batches)),
            "fingerprint": chosen.fingerprint(with_split=False),
        },
    )


def _made(source: Bundle, form: str, calibration: _Calibration | None) -> Exported:
    return Exported(
        form=form,
        format="onnx" if FORMS[form].format == "onnx" else "openvino",
        source=source.card.name,
        source_sha256=str(source.model_sha256),
        calibration=calibration.about if calibration else None,
        gate={},
        versions=versions(form),
    )


def _as_bundle(source: Bundle, made: Exported, folder: Path) -> Detector:
    """Opened from the disk, as a user's program will: the gate covers card and checksums too."""
    name = f"{source.card.name}-{made.form}"
    changes = {"schema_version": SCHEMA_VERSION, "name": name, "export": made}
    finish_bundle(folder, source.card.model_copy(update=changes))
    return load_detector(folder)


def _sizes(source: Bundle, folder: Path) -> tuple[int, int]:
    names = (*NETWORKS["onnx"], *NETWORKS["openvino"], "model.safetensors")
    return source.model.stat().st_size, sum(
        (folder / name).stat().st_size for name in names if (folder / name).is_file()
    )


def _notes(original: Detector, folder: Path, form: str, gate: Samples | None) -> Iterator[str]:
    if FORMS[form].format == "openvino":
        core = import_untold("openvino").Core()
        used = core.get_property("CPU", "INFERENCE_PRECISION_HINT").to_string()
        yield (
            f"OpenVINO computed in {used} here, as this processor does it best; on another the "
            "scores may differ by as much as that is coarse."
        )
    if FORMS[form].precision == "int8":
        yield "Integer arithmetic of another processor may round in another way."
    if FORMS[form].format == "transformers":
        crops = drawings() if gate is None else _crops(gate)
        moved = resize_difference(original, folder, crops)
        yield (
            "The pictures were resized to the input's size before the pipeline saw them. Where it "
            f"resizes them by itself, the largest difference of a score is {moved:.2g} "
            f"({len(crops)} pictures)."
        )


def _crops(samples: Samples) -> list[Pixels]:
    """Some pictures at their own size."""

    def keep(_: Sample, crop: Pixels) -> Pixels:
        return crop

    some = replace(samples, rows=samples.rows[:: max(1, len(samples) // _RESIZED)])
    read = (crop for _, crop in read_ahead(some, keep) if not isinstance(crop, str))
    return list(islice(read, _RESIZED))


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
