"""A detector on disk: a folder with model.onnx, card.json, model.safetensors and README.md.

``card.json`` is written last and holds the SHA-256 of the other files, so a folder with a card
that matches is whole. ``model.onnx`` and ``card.json`` alone are enough to run. A bundle that was
exported to OpenVINO has ``model.xml`` and ``model.bin`` in the place of ``model.onnx``.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from bonaface.calibration import Calibration, OperatingPoint
from bonaface.crops import CropRecipe
from bonaface.errors import BundleError
from bonaface.files import write_json, write_text
from bonaface.onnxfile import has_external_data
from bonaface.preprocess import Preprocess

SCHEMA_VERSION = 4
_READABLE = (2, 3, 4)  # 2: without `export`; 3: without `tests` and `terms`
MAX_MODEL_BYTES = 2 << 30
MAX_CARD_BYTES = 4 << 20
DEFAULT = "default"  # the bundle that comes with the install
_SHIPPED = Path(__file__).parent / "weights" / "default"
LABELS = {"real": 0, "fake": 1}
NETWORKS = {"onnx": ("model.onnx",), "openvino": ("model.xml", "model.bin")}


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Exported(_Strict):
    """What a bundle that `bonaface export` wrote was made from, and how it was checked.

    Attributes:
        form: "onnx", "onnx-float16", "onnx-int8", "openvino" or "openvino-int8".
        format: what runs it.
        source: name of the bundle it was made from.
        source_sha256: of that bundle's model.onnx.
        calibration: of int8, the pictures that its ranges were measured on; else None.
        gate: what the check came to, see gate.json.
        versions: of the libraries that made it.
    """

    form: str
    format: Literal["onnx", "openvino"]
    source: str
    source_sha256: str
    calibration: dict[str, Any] | None
    gate: dict[str, Any]
    versions: dict[str, str]


class Card(_Strict):
    """Everything about a detector but its weights.

    Attributes:
        schema_version: of this card.
        name: what the detector calls itself.
        architecture: a name from `bonaface models`, with the options it was built with.
        parameters: number of weights.
        preprocess: see `bonaface.preprocess.Preprocess.to_dict`.
        crop: how its faces were cut, see `bonaface.crops.CropRecipe.to_dict`.
        labels: what the output means; always fake is 1.
        calibration: fitted on validation.
        operating_points: by name; balanced, fake_above and real_below.
        validation: figures on the validation split, with intervals.
        data: fingerprint and counts of what it was trained on, and the cheap part of its audit.
        training: the configuration, the seed, the epoch that was kept, what weights it began with.
        parity: largest difference between the ONNX and the trained network's logits.
        versions: of the libraries that made it.
        files: SHA-256 of the bundle's other files.
        export: of an exported bundle, what it was made from; None: `bonaface train` wrote it.
        tests: data set -> figures on its test split, with intervals, measured when all was chosen.
        terms: for what the training data let it be used, in a sentence; None: nobody has said.
    """

    schema_version: int = SCHEMA_VERSION
    name: str
    architecture: dict[str, Any]
    parameters: int
    preprocess: dict[str, Any]
    crop: dict[str, Any]
    labels: dict[str, int]
    calibration: Calibration
    operating_points: dict[str, OperatingPoint]
    validation: dict[str, dict[str, float | int | str | None]]
    data: dict[str, Any]
    training: dict[str, Any]
    parity: dict[str, Any]
    versions: dict[str, str]
    files: dict[str, str] = {}
    export: Exported | None = None
    tests: dict[str, dict[str, dict[str, float | int | str | None]]] = {}
    terms: str | None = None


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that was read and checked.

    Attributes:
        folder: where it lies.
        card: its card.
    """

    folder: Path
    card: Card

    @property
    def format(self) -> Literal["onnx", "openvino"]:
        """What runs its network."""
        return self.card.export.format if self.card.export else "onnx"

    @property
    def model(self) -> Path:
        """The network that `Detector` runs; of OpenVINO its graph, whose weights lie beside it."""
        return self.folder / NETWORKS[self.format][0]

    @property
    def model_sha256(self) -> str | None:
        """Of the network's files; None while a bundle is being made."""
        found = [self.card.files.get(name) for name in NETWORKS[self.format]]
        if len(found) == 1 or None in found:
            return found[0]
        return hashlib.sha256("".join(map(str, found)).encode()).hexdigest()

    @property
    def preprocess(self) -> Preprocess:
        """The recipe that trained it."""
        return Preprocess.from_dict(self.card.preprocess)

    @property
    def recipe(self) -> CropRecipe:
        """How its faces were cut out of their pictures."""
        return CropRecipe.from_dict(self.card.crop)

    @property
    def calibration(self) -> Calibration:
        """From logits to scores."""
        return self.card.calibration

    @property
    def ratios(self) -> tuple[float, float, float] | None:
        """Shares by which its data were split for training; None where they came with splits."""
        found = self.card.data.get("ratios")
        if found is None:
            return None
        try:
            train, validation, test = map(float, found)
        except (TypeError, ValueError) as error:
            raise BundleError(
                f"expected three shares as ratios in the card of {str(self.folder)!r}, got "
                f"{found!r}; train it again"
            ) from error
        return train, validation, test

    @property
    def doubt(self) -> str | None:
        """Why no answer of this detector counts: it was at chance on validation. Else None."""
        auc = self.card.validation.get("auc", {})
        value, low, high = (auc.get(key) for key in ("value", "low", "high"))
        begin = "on its validation data this detector"
        if not isinstance(value, float | int):
            return f"{begin} could not be told from guessing (no AUC)"
        if not isinstance(low, float | int) or not isinstance(high, float | int) or low > 0.5:
            return None
        said = "was worse than" if high < 0.5 else "could not be told from"
        return f"{begin} {said} guessing (AUC {value:.2f}, 95 % interval {low:.2f}-{high:.2f})"

    def operating_point(self, name: str) -> OperatingPoint:
        """One of the card's operating points.

        Raises:
            BundleError: the card has none of that name.
        """
        points = self.card.operating_points
        if name not in points:
            raise BundleError(
                f"expected one of the operating points {', '.join(sorted(points))}, got {name!r}; "
                "name one of these"
            )
        return points[name]

    def network(self) -> tuple[bytes, ...]:
        """The network's files, read once, so that the bytes that are checked are those that run.

        Raises:
            BundleError: they are not those that the card names, or not the whole network.
        """
        parts = tuple(self._checked(name) for name in NETWORKS[self.format])
        if self.format == "onnx":
            self._check_whole(parts[0])
        return parts

    def _checked(self, name: str) -> bytes:
        path = self.folder / name
        data = path.read_bytes()
        expected = self.card.files.get(name)  # absent while a bundle is being made
        if expected is not None and hashlib.sha256(data).hexdigest() != expected:
            raise BundleError(
                f"expected {str(path)!r} with the SHA-256 {expected} of the card, "
                "got other bytes; copy the bundle again"
            )
        return data

    def _check_whole(self, data: bytes) -> None:
        try:
            whole = not has_external_data(data)
        except ValueError as error:
            raise BundleError(
                f"expected a network that ONNX Runtime runs in {str(self.model)!r}, got: {error}; "
                "export the bundle again"
            ) from error
        if not whole:
            raise BundleError(
                f"expected all weights in {str(self.model)!r}, got some in other files, which no "
                "checksum covers; do not use this bundle"
            )


def finish_bundle(folder: Path, card: Card) -> Bundle:
    """Add the model card and the card to a folder that holds the weights; the card comes last."""
    write_text(folder / "README.md", model_card(card))
    names = (*NETWORKS["onnx"], *NETWORKS["openvino"], "model.safetensors")
    present = [name for name in names if (folder / name).is_file()]
    card = card.model_copy(update={"files": {name: sha256(folder / name) for name in present}})
    write_json(folder / "card.json", card.model_dump(mode="json"))
    return Bundle(folder, card)


def load_bundle(folder: Path) -> Bundle:
    """Read and check a bundle; the network itself is checked by `Bundle.network`.

    Args:
        folder: of the bundle; "default" is the one that comes with the install, unless a bundle of
            that name lies here.

    Raises:
        BundleError: no bundle is there, it is damaged, or a newer version wrote it.
    """
    if folder == Path(DEFAULT) and not (folder / "card.json").is_file():
        folder = _SHIPPED
    path = folder / "card.json"
    if not path.is_file():
        raise BundleError(
            f"expected a bundle (a folder with card.json and model.onnx), got {str(folder)!r}; "
            f"name the --out folder of a finished `bonaface train`, or {DEFAULT}"
        )
    if path.stat().st_size > MAX_CARD_BYTES:
        raise BundleError(
            f"expected a card under {MAX_CARD_BYTES >> 20} MiB in {str(folder)!r}, "
            f"got {path.stat().st_size >> 20}; this is no card of ours"
        )
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text, parse_float=_finite, parse_constant=_finite)
        version = value.get("schema_version")
        if version not in _READABLE:
            raise BundleError(
                f"expected a card of schema version {' or '.join(map(str, _READABLE))} in "
                f"{str(folder)!r}, "
                f"got {version!r}; use the version of bonaface that wrote it"
            )
        bundle = Bundle(folder, Card.model_validate(value))
    except (OSError, ValidationError, ValueError, AttributeError, RecursionError) as error:
        raise BundleError(
            f"expected a card in {str(path)!r}, got something else ({first_problem(error)}); "
            "copy the bundle again"
        ) from error
    if bundle.card.labels != LABELS:
        raise BundleError(
            f"expected the labels {LABELS} in {str(path)!r}, got {bundle.card.labels}; "
            "this is no bundle of ours"
        )
    _ = bundle.preprocess, bundle.recipe  # refused here, not at the first picture
    _check_decisions(bundle)
    _check_files(bundle)
    return bundle


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number


def _check_decisions(bundle: Bundle) -> None:
    slope = bundle.calibration.slope
    if slope <= 0:
        raise BundleError(
            f"expected a calibration slope above 0 in the card of {str(bundle.folder)!r}, got "
            f"{slope}: higher logits must mean fake; do not use this bundle"
        )
    for name in ("balanced", "fake_above", "real_below"):
        bundle.operating_point(name)
    low, high = (bundle.operating_point(name).threshold for name in ("real_below", "fake_above"))
    if low > high:
        raise BundleError(
            f"expected real_below not above fake_above in the card of {str(bundle.folder)!r}, "
            f"got {low} and {high}; do not use this bundle"
        )


def _check_files(bundle: Bundle) -> None:
    for name in NETWORKS[bundle.format]:
        if not (bundle.folder / name).is_file():
            raise BundleError(
                f"expected {name} in {str(bundle.folder)!r}, found none; copy the whole bundle"
            )
        if name not in bundle.card.files:
            raise BundleError(
                f"expected the SHA-256 of {name} in the card of {str(bundle.folder)!r}, "
                "found none; copy the bundle again"
            )
    for name in bundle.card.files:
        path = bundle.folder / name
        if path.parent != bundle.folder:
            raise BundleError(f"expected file names in the card, got {name!r}; do not use it")
        if not path.is_file():
            continue
        size = path.stat().st_size
        if size > MAX_MODEL_BYTES:
            raise BundleError(
                f"expected {name} under {MAX_MODEL_BYTES >> 30} GiB, "
                f"got {size >> 30}; do not use it"
            )


def first_problem(error: Exception) -> str:
    """What is wrong, in one line; of pydantic's report, the first finding."""
    if isinstance(error, ValidationError):
        found = error.errors()[0]
        return f"{'.'.join(str(part) for part in found['loc'])}: {found['msg']}"
    return (str(error).splitlines() or [type(error).__name__])[0]


def sha256(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_card(card: Card) -> str:
    """The card as a Hugging Face-style model card: YAML front matter, then Markdown."""
    figures = "\n".join(f"| {name} | {_cell(figure)} |" for name, figure in card.validation.items())
    points = "\n".join(
        f"| {p.name} | {p.threshold:.4f} | {p.rule} | {p.apcer:.3f} | {p.bpcer:.3f} "
        f"| {p.n_fake} / {p.n_real} |"
        for p in card.operating_points.values()
    )
    counts = "\n".join(
        f"| {split} | {n['real']} | {n['fake']} |" for split, n in card.data["counts"].items()
    )
    return f"""---
library_name: bonaface
pipeline_tag: image-classification
tags: [deepfake-detection, face, forensics]
{_licence(card)}---
# {card.name}

A detector of forged **face crops**: `{card.architecture["name"]}`, {card.parameters:,} weights,
input {card.preprocess["size"]} px. The score is the calibrated probability that the crop is fake,
given as many fakes as reals. It is evidence, not proof.

## Trained on
Data fingerprint `{card.data["fingerprint"]}`, seed {card.training["config"]["seed"]}.

| split | real | fake |
|---|---|---|
{counts}
{_origins(card)}{_audit(card)}{_terms(card)}{_export(card)}{_tests(card)}
## Validation
With 95 % intervals, resampled by group. These figures chose the epoch, the calibration and the
thresholds, so they flatter; quote the test figures of `bonaface evaluate`.

| figure | value |
|---|---|
{figures}

## Operating points
| name | score | chosen for | APCER | BPCER | fakes / reals |
|---|---|---|---|---|---|
{points}

Calibration: {card.calibration.kind}, slope {card.calibration.slope:.4f}, offset
{card.calibration.offset:.4f}.

## Limits
It knows the forgeries and the sources above. On others it may be no better than chance: measure it
on your own pictures with `bonaface evaluate` before you rely on it.

Not for: deciding about a person on its word alone, telling who somebody is, judging bodies, scenes,
drawings or text, or proving that a picture is real: `real` says that no trace was found of what it
knows.

When a photograph of yours is called fake: the original file, as the camera wrote it, with its
metadata or content credentials and the pictures taken before and after, says more than any score.
Ask whoever judged it to look at that, and to run it again on the original instead of a copy.
"""


def _licence(card: Card) -> str:
    return "license: other\n" if card.terms else ""


def _terms(card: Card) -> str:
    return f"\n## Terms\n{card.terms[0].upper()}{card.terms[1:]}\n" if card.terms else ""


def _tests(card: Card) -> str:
    """Figures on test splits, a table for each data set."""
    if not card.tests:
        return ""
    tables = (
        f"\n### {name}\n| figure | value |\n|---|---|\n"
        + "".join(f"| {key} | {_cell(figure)} |\n" for key, figure in found.items())
        for name, found in card.tests.items()
    )
    return (
        "\n## Tests\nMeasured once, when everything was chosen, with 95 % intervals.\n"
        + "".join(tables)
    )


def _origins(card: Card) -> str:
    """Where the pictures came from, where the data set told."""
    found = card.data.get("origins")
    if not found:
        return ""
    rows = [
        f"| {split} | {label} | {_plain(origin) or 'not told'} | {count} |\n"
        for split, labels in found.items()
        for label, origins in labels.items()
        for origin, count in origins.items()
    ]
    return "\n| split | label | source or generator | pictures |\n|---|---|---|---|\n" + "".join(
        rows
    )


def _plain(text: str) -> str:
    """A name that a data set gives, fit for a cell of a table."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split()).replace(
        "|", "/"
    )[:80]


def _audit(card: Card) -> str:
    found = card.data.get("audit")
    if found is None:
        return ""
    return (
        "\nHow well the files alone tell these fakes from reals, without a face (AUC; 0.5: not at "
        f"all): {_cell(found['probe']['auc'])}. Audit `{found['digest']}`.\n"
    )


def _export(card: Card) -> str:
    """How an exported network is run without bonaface."""
    made = card.export
    if made is None:
        return ""
    recipe, size = card.preprocess, card.preprocess["size"]
    files = " and ".join(f"`{name}`" for name in NETWORKS[made.format])
    runtime = {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}[made.format]
    return f"""
## The exported network
{files}: `{made.form}`, made from `{made.source}`, whose `model.onnx` has the SHA-256
`{made.source_sha256}`.
`bonaface.load_detector` runs this folder. With {runtime} alone, for one RGB face crop, uint8:

1. Cut out the centre square and resize it to {size} x {size}, bilinear with antialiasing, as Pillow
   does.
2. Divide by 255, subtract {recipe["mean"]} and divide by {recipe["std"]} (R, G, B).
3. Input: float32 (batch, 3, {size}, {size}). Output: logits, float32 (batch,); higher is more fake.
4. Score = 1 / (1 + exp(-({card.calibration.slope!r} * logit + {card.calibration.offset!r}))).

Faces are cut with a margin of {card.crop["margin"]:.3f}; `card.json` has the whole crop recipe.
How far this network is from what it was made from stands there too (`export.gate`); the validation
figures below are those of the original.
"""


def _cell(figure: dict[str, Any]) -> str:
    if figure.get("value") is None:
        return str(figure.get("reason") or "undefined")
    if figure.get("low") is None:
        return f"{figure['value']:.4f} (n = {figure['n']})"
    return f"{figure['value']:.4f} [{figure['low']:.4f}, {figure['high']:.4f}] (n = {figure['n']})"
