"""What is exported answers as before, is a bundle again, and is refused where it does not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from bonaface import checkpoints, load_bundle, load_detector
from bonaface.bundle import SCHEMA_VERSION, finish_bundle
from bonaface.calibration import Calibration, OperatingPoint
from bonaface.drawn import write_drawn_set
from bonaface.errors import BonafaceError, BundleError, ConfigError, MissingExtraError
from bonaface.export import FORMS, export, forms, gate, hub
from bonaface.models import onnx as writing
from bonaface.samples import Samples, load_samples
from networks import make
from tiny import make_card

SIZE = 64
BUNDLES = tuple(name for name, form in FORMS.items() if form.format != "transformers")
# Networks that were not trained, on few pictures, do not say what coarser numbers cost.
LOOSE = {"max_difference": 0.9, "max_auc_drop": 0.9}
MATRIX = [
    *((name, form) for name in ("cnn", "resnet18", "efficientnet_lite0") for form in BUNDLES),
]
WITHOUT_DATA = tuple(name for name in BUNDLES if FORMS[name].precision != "int8")


@pytest.fixture(autouse=True, scope="module")
def _quick_intervals() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gate, "RESAMPLES", 100)
        yield


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    folder = tmp_path_factory.mktemp("drawn") / "faces"
    write_drawn_set(folder, {"train": 6, "validation": 1, "test": 12}, seed=1, size=80)
    return load_samples(folder)


def pictures(faces: Samples) -> list[np.ndarray[Any, Any]]:
    rows = faces.split("test").rows
    return [np.asarray(Image.open(faces.absolute(row)).convert("RGB")) for row in rows]


def trained(folder: Path, name: str, faces: Samples, **options: Any) -> Path:
    """A bundle of a network that was not trained, but gives scores as spread as one that was."""
    made = make(name, size=SIZE, **options)
    folder.mkdir()
    network = made.module
    pixels = np.stack([made.preprocess.resize(crop) for crop in pictures(faces)])
    images = torch.from_numpy(made.preprocess.normalise(pixels).copy())
    heads = [part for part in network.modules() if isinstance(part, torch.nn.Linear)]
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = 1.0  # its statistics become those of these pictures
    with torch.no_grad():
        network.train()(images)
        logits = network.eval()(images)
        heads[-1].bias -= logits.median()
        for weights in heads[-1].parameters():
            weights.copy_(weights / logits.std())
    writing.export_onnx(network, SIZE, folder / "model.onnx")
    checkpoints.save_weights(folder / "model.safetensors", network)
    card = make_card(
        name=folder.name,
        architecture=made.architecture,
        # Where no score lies: few pictures around a threshold would make any rate jump.
        operating_points={
            name: OperatingPoint(name, at, "made up", 0.02, 0.01, 50, 60).to_dict()
            for name, at in (("balanced", 0.001), ("fake_above", 0.7), ("real_below", 0.3))
        },
        preprocess=made.preprocess.to_dict(),
        calibration=Calibration("platt", 0.9, 0.1).to_dict(),
    )
    finish_bundle(folder, card)
    return folder


@pytest.fixture(scope="module")
def trained_as(tmp_path_factory: pytest.TempPathFactory, faces: Samples) -> Callable[[str], Path]:
    """A bundle of a network, made once."""
    folder = tmp_path_factory.mktemp("bundles")
    return cache(lambda name: trained(folder / name, name, faces))


@pytest.fixture(scope="module")
def exported_as(
    tmp_path_factory: pytest.TempPathFactory, faces: Samples, trained_as: Callable[[str], Path]
) -> Callable[[str, str], tuple[gate.Gate, Path]]:
    """An export of a network to a form that was compared on pictures, made once."""
    folder = tmp_path_factory.mktemp("exports")

    @cache
    def make_it(name: str, form: str) -> tuple[gate.Gate, Path]:
        out = folder / f"{name}-{form}"
        loose = {} if FORMS[form].precision == "float32" else LOOSE
        return export(trained_as(name), form, out, gate=faces, **loose), out

    return make_it


@pytest.fixture
def cnn(trained_as: Callable[[str], Path]) -> Path:
    return trained_as("cnn")


@pytest.fixture
def resnet(trained_as: Callable[[str], Path]) -> Path:
    return trained_as("resnet18")


@pytest.fixture
def crops(faces: Samples) -> list[np.ndarray[Any, Any]]:
    return pictures(faces)


Exported = Callable[[str, str], tuple[gate.Gate, Path]]


@pytest.mark.parametrize(("name", "form"), MATRIX)
def test_every_form_is_a_bundle_that_answers_as_before(
    trained_as: Callable[[str], Path],
    exported_as: Exported,
    name: str,
    form: str,
    crops: list[Any],
) -> None:
    network = trained_as(name)
    found, out = exported_as(name, form)
    assert found.passed, found.checks
    before, after = load_detector(network), load_detector(out)
    reached = np.abs(after.score(crops) - before.score(crops)).max()
    assert reached == pytest.approx(found.largest, abs=2e-3)
    alike = np.corrcoef(after.logits(crops), before.logits(crops))[0, 1]
    assert alike > {"float32": 0.99999, "float16": 0.9, "int8": 0.6}[FORMS[form].precision]
    old, new = before.bundle.card, after.bundle.card
    for same in ("preprocess", "crop", "calibration", "operating_points", "labels", "data"):
        assert getattr(new, same) == getattr(old, same)
    assert new.name == f"{old.name}-{form}"
    assert new.export is not None
    assert new.export.source_sha256 == old.files["model.onnx"]
    assert new.export.gate["passed"] is True
    assert json.loads((out / "gate.json").read_text())["largest"] == found.largest


@pytest.mark.parametrize("form", BUNDLES)
def test_one_picture_or_many(exported_as: Exported, form: str, crops: list[Any]) -> None:
    detector = load_detector(exported_as("cnn", form)[1], threads=1)
    together = detector.logits(crops)
    alone = np.concatenate([detector.logits([crop]) for crop in crops])
    np.testing.assert_allclose(alone, together, atol=0.02 * np.abs(together).max())
    assert detector.logits([]).shape == (0,)


@pytest.mark.parametrize("form", [name for name in BUNDLES if FORMS[name].format == "onnx"])
def test_onnx_files_take_and_give_float32_and_say_what_they_are(
    cnn: Path, exported_as: Exported, form: str
) -> None:
    model = onnx.load(exported_as("cnn", form)[1] / "model.onnx")
    for node in (*model.graph.input, *model.graph.output):
        assert node.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    shape = [d.dim_value or d.dim_param for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert shape[1:] == [3, SIZE, SIZE]
    assert isinstance(shape[0], str)
    about = json.loads({p.key: p.value for p in model.metadata_props}["bonaface"])
    card = load_bundle(cnn).card
    assert about["preprocess"] == card.preprocess
    assert about["calibration"] == card.calibration.to_dict()
    kinds = {t.data_type for t in model.graph.initializer}
    wanted = {"float32": onnx.TensorProto.FLOAT, "float16": onnx.TensorProto.FLOAT16}
    assert wanted.get(FORMS[form].precision, onnx.TensorProto.INT8) in kinds
    assert not any(node.metadata_props for node in model.graph.node)


def test_the_readme_says_how_to_run_it_without_bonaface(exported_as: Exported) -> None:
    text = (exported_as("cnn", "openvino")[1] / "README.md").read_text()
    for said in ("model.xml", "64 x 64", "0.485", "float32 (batch, 3, 64, 64)", "OpenVINO alone"):
        assert said in text


@pytest.mark.parametrize("form", WITHOUT_DATA)
def test_without_data_drawn_faces_are_compared_and_the_report_says_so(
    cnn: Path, form: str, tmp_path: Path
) -> None:
    found = export(cnn, form, tmp_path / "out")
    assert found.passed
    assert found.data is None
    assert found.changes == ()
    assert "is not known" in found.notes[0]
    assert len(found.checks) == 2


def test_int8_needs_data(cnn: Path, tmp_path: Path) -> None:
    for form in ("onnx-int8", "openvino-int8"):
        with pytest.raises(ConfigError, match="name a data set"):
            export(cnn, form, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_ranges_come_from_the_training_split_that_is_named(
    cnn: Path, faces: Samples, tmp_path: Path
) -> None:
    other = replace(faces, rows=faces.split("train").rows[:4])
    export(cnn, "onnx-int8", tmp_path / "out", gate=faces, calibrate=other, **LOOSE)
    made = load_bundle(tmp_path / "out").card.export
    assert made is not None
    assert made.calibration is not None
    assert made.calibration["pictures"] == 4
    without = replace(faces, rows=faces.split("test").rows)
    with pytest.raises(ConfigError, match="split 'train'"):
        export(cnn, "onnx-int8", tmp_path / "none", gate=without)


# -- what is broken is refused --


def shifted(model: onnx.ModelProto) -> None:
    """As if the mean were another: the input less one half."""
    name = model.graph.input[0].name
    for node in model.graph.node:
        node.input[:] = ["moved" if given == name else given for given in node.input]
    half = onnx.numpy_helper.from_array(np.float32(0.5), "half")
    model.graph.initializer.append(half)
    model.graph.node.insert(0, onnx.helper.make_node("Sub", [name, "half"], ["moved"]))


def mirrored(model: onnx.ModelProto) -> None:
    """As if red and blue were confused."""
    name = model.graph.input[0].name
    for node in model.graph.node:
        node.input[:] = ["turned" if given == name else given for given in node.input]
    order = onnx.numpy_helper.from_array(np.int64([2, 1, 0]), "order")
    model.graph.initializer.append(order)
    model.graph.node.insert(0, onnx.helper.make_node("Gather", [name, "order"], ["turned"], axis=1))


def worn(model: onnx.ModelProto) -> None:
    """One tensor of weights is off."""
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.ndim == 4:
            tensor.CopyFrom(onnx.numpy_helper.from_array(values * np.float32(1.5), tensor.name))
            return


@pytest.mark.parametrize(
    ("break_it", "form", "with_data"),
    [
        (shifted, "onnx-float16", True),
        (shifted, "openvino", False),
        (mirrored, "onnx", True),
        (mirrored, "onnx-float16", False),
        (worn, "openvino", True),
        (worn, "onnx", False),
    ],
)
def test_a_broken_export_leaves_its_report_alone(
    cnn: Path,
    faces: Samples,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    break_it: Callable[[onnx.ModelProto], None],
    form: str,
    with_data: bool,
) -> None:
    whole = forms._plain_onnx

    def broken(source: Any) -> Any:
        model = whole(source)
        break_it(model)
        return model

    monkeypatch.setattr(forms, "_plain_onnx", broken)
    found = export(cnn, form, tmp_path / "out", gate=faces if with_data else None)
    assert not found.passed
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["gate.json"]
    assert json.loads((tmp_path / "out" / "gate.json").read_text())["passed"] is False
    monkeypatch.setattr(forms, "_plain_onnx", whole)
    assert export(cnn, form, tmp_path / "out", gate=faces).passed  # over the report
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_another_recipe_in_the_card_is_noticed(
    cnn: Path, faces: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def careless(folder: Path, card: Any) -> Any:
        recipe = card.preprocess | {"mean": [0.0, 0.0, 0.0]}
        return finish_bundle(folder, card.model_copy(update={"preprocess": recipe}))

    monkeypatch.setattr("bonaface.export.finish_bundle", careless)
    assert not export(cnn, "onnx", tmp_path / "out", gate=faces).passed


def test_an_interval_that_reaches_beyond_the_bound_does_not_pass(faces: Samples) -> None:
    from bonaface.metrics import Figure

    unsure = Figure(-0.01, -0.03, 0.01, 20)
    sure = Figure(-0.01, -0.015, -0.005, 20)
    point = Figure(0.01, None, None, 5, "an interval needs at least 10 groups, has 5")
    bounds = gate.Bounds.of("int8")
    whole = Figure(0.9, None, None, 20, "")

    def holds(name: str, change: Figure) -> bool:
        (check,) = gate._risks([gate.Change(name, whole, whole, change)], bounds)
        return check.holds

    assert not holds("auc", unsure)
    assert holds("auc", sure)
    assert holds("apcer", point)
    assert not holds("bpcer", Figure(0.03, 0.0, 0.06, 20))
    undefined = Figure(None, None, None, 0, "needs both classes")
    assert gate._risks([gate.Change("auc", whole, whole, undefined)], bounds) == []


def test_a_set_of_one_class_is_compared_as_far_as_it_goes(
    cnn: Path, faces: Samples, tmp_path: Path
) -> None:
    reals = replace(faces, rows=tuple(row for row in faces.rows if row.label == 0))
    found = export(cnn, "onnx", tmp_path / "out", gate=reals)
    assert found.passed
    assert {one.name: one.difference.value for one in found.changes} == {
        "auc": None,
        "apcer": None,
        "bpcer": 0.0,
    }


@pytest.mark.parametrize(
    ("bounds", "message"),
    [({"max_difference": 0.0}, "largest difference"), ({"max_auc_drop": 2.0}, "largest AUC drop")],
)
def test_bounds_out_of_range_are_refused(
    cnn: Path, tmp_path: Path, bounds: dict[str, float], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        export(cnn, "onnx", tmp_path / "out", **bounds)


def test_nothing_is_written_over(cnn: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="take another --out"):
        export(cnn, "onnx", tmp_path)
    with pytest.raises(ConfigError, match="take another --out"):
        export(cnn, "onnx", tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_forms_and_sources_that_are_none(cnn: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="onnx-int8"):
        export(cnn, "tflite", tmp_path / "out")
    export(cnn, "onnx", tmp_path / "out")
    with pytest.raises(ConfigError, match="an export"):
        export(tmp_path / "out", "openvino", tmp_path / "again")


def test_a_converter_that_fails_is_one_line(
    cnn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("\nOp Foo is not known\nmore")

    monkeypatch.setattr(forms, "_save_onnx", fail)
    with pytest.raises(ConfigError, match="Op Foo is not known; export it") as caught:
        export(cnn, "onnx", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


# -- the bundle's side --


@pytest.fixture
def ir(exported_as: Exported, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported_as("cnn", "openvino")[1], tmp_path / "ir"))


@pytest.mark.parametrize("name", ["model.xml", "model.bin"])
def test_openvino_files_are_checked(ir: Path, name: str) -> None:
    data = bytearray((ir / name).read_bytes())
    data[len(data) // 2] ^= 1
    (ir / name).write_bytes(data)
    with pytest.raises(BundleError, match="SHA-256"):
        load_detector(ir)
    (ir / name).unlink()
    with pytest.raises(BundleError, match=name.replace(".", r"\.")):
        load_bundle(ir)


def test_without_openvino_the_extra_is_named(ir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"bonaface\[openvino\]") as caught:
        load_detector(ir)
    assert "\n" not in str(caught.value)


def test_exporting_without_openvino_names_the_extra(
    cnn: Path, faces: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(MissingExtraError, match=r"bonaface\[openvino\]"):
        export(cnn, "openvino-int8", tmp_path / "out", gate=faces)


@pytest.mark.parametrize(
    ("version", "missing"), [(2, ("export", "tests", "terms")), (3, ("tests", "terms"))]
)
def test_bundles_of_earlier_schemas_still_load(
    cnn: Path, tmp_path: Path, version: int, missing: tuple[str, ...]
) -> None:
    old = tmp_path / "old"
    shutil.copytree(cnn, old)
    card = json.loads((old / "card.json").read_text())
    for name in missing:
        del card[name]
    (old / "card.json").write_text(json.dumps(card | {"schema_version": version}))
    assert load_detector(old).bundle.card.export is None
    assert export(old, "onnx", tmp_path / "new").passed
    assert load_bundle(tmp_path / "new").card.schema_version == SCHEMA_VERSION


def test_detecting_with_an_export_loads_no_torch(ir: Path) -> None:
    code = (
        "import sys, numpy as np, bonaface\n"
        f"found = bonaface.load_detector({str(ir)!r}).score([np.zeros((80, 80, 3), np.uint8)])\n"
        "assert found.shape == (1,)\n"
        "assert not {'torch', 'nncf', 'scipy'} & set(sys.modules), sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


# -- Transformers --

ALONE = """
import json, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "bonaface":
            raise ImportError("not here")

sys.meta_path.insert(0, Blocker())
from transformers import pipeline

folder, *paths = sys.argv[1:]
judge = pipeline("image-classification", model=folder, device="cpu")
answers = [{row["label"]: row["score"] for row in answer} for answer in judge(paths)]
print(json.dumps(answers))
"""


def asked_alone(folder: Path, paths: list[Path]) -> list[dict[str, float]]:
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, str(folder), *map(str, paths)],
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def test_a_pipeline_without_bonaface_gives_the_calibrated_score(
    resnet: Path, tmp_path: Path, crops: list[Any]
) -> None:
    out = tmp_path / "out"
    found = export(resnet, "transformers", out)
    assert found.passed
    assert {path.name for path in out.iterdir()} == {
        *("config.json", "model.safetensors", "preprocessor_config.json"),
        *("README.md", "gate.json"),
    }
    detector = load_detector(resnet)
    shown = [detector.preprocess.resize(crop) for crop in crops[:6]] + crops[6:10]
    paths = [tmp_path / f"{at}.png" for at in range(len(shown))]
    for crop, path in zip(shown, paths, strict=True):
        Image.fromarray(crop).save(path)
    answers = asked_alone(out, paths)
    wanted = detector.score(shown)
    assert np.ptp(wanted) > 0.3  # else any answer would do
    for answer, score in zip(answers, wanted.tolist(), strict=True):
        assert answer["fake"] == pytest.approx(score, abs=1e-4)
        assert answer["real"] == pytest.approx(1 - score, abs=1e-4)


def test_a_transformers_folder_passes_the_gate_on_pictures(
    resnet: Path, faces: Samples, tmp_path: Path
) -> None:
    found = export(resnet, "transformers", tmp_path / "out", gate=faces)
    assert found.passed
    assert found.largest < 1e-4
    assert any("resizes them by itself" in note for note in found.notes)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["id2label"] == {"0": "real", "1": "fake"}
    assert config["bonaface"]["operating_points"]["fake_above"] == 0.7


def test_a_folder_with_another_mean_does_not_pass(
    resnet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = hub._processor
    wrong = {"image_mean": [0.9, 0.1, 0.5]}
    monkeypatch.setattr(hub, "_processor", lambda source: right(source) | wrong)
    assert not export(resnet, "transformers", tmp_path / "out").passed
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["gate.json"]


def test_other_networks_are_no_transformers_folder(cnn: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="resnet18"):
        export(cnn, "transformers", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_absent_are_named(resnet: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("model.onnx", "card.json"):
        (bare / name).write_bytes((resnet / name).read_bytes())
    with pytest.raises(BonafaceError, match=r"model\.safetensors"):
        export(bare, "transformers", tmp_path / "out")
    assert export(bare, "onnx", tmp_path / "out").passed


@pytest.fixture(autouse=True)
def _no_trace() -> Iterator[None]:
    """Converters leave no search paths behind."""
    path = sys.path.copy()
    yield
    assert sys.path == path


@pytest.mark.parametrize("what", ["detecting", "quantising"])
def test_nobody_is_told_of_it(ir: Path, tmp_path: Path, what: str) -> None:
    """On import, OpenVINO and NNCF would write to the home folder and call their makers."""
    code = {
        "detecting": f"import bonaface; bonaface.load_detector({str(ir)!r})",
        "quantising": "from bonaface.runtimes import import_untold as load; load('nncf')",
    }[what]
    code += "\nimport sys; assert 'openvino_telemetry' not in sys.modules"
    home = tmp_path / "home"
    home.mkdir()
    done = os.environ | {"HOME": str(home)}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300, env=done)
    assert not (home / "intel").exists()
