from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from scipy.special import expit

from bonaface import load_detector
from bonaface.bundle import finish_bundle, load_bundle
from bonaface.detector import Detector
from bonaface.errors import BundleError
from bonaface.faces import open_finder
from bonaface.runtimes import processor_count
from tiny import make_card

Make = Callable[..., Path]


@pytest.fixture
def detector(make_bundle: Make) -> Detector:
    return load_detector(make_bundle(), threads=1)


def flat(value: int, height: int = 16, width: int = 16) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def save(path: Path, value: int) -> Path:
    Image.fromarray(flat(value)).save(path)
    return path


def test_logits_are_the_networks(detector: Detector) -> None:
    rng = np.random.default_rng(0)
    crops = [rng.integers(0, 256, (16, 16, 3), np.uint8) for _ in range(5)]
    expected = [8 * (crop.mean() / 255 - 0.5) for crop in crops]
    np.testing.assert_allclose(detector.logits(crops), expected, atol=1e-5)
    np.testing.assert_allclose(detector.score(crops), expit(0.5 * np.array(expected)), atol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 33])
def test_batches_keep_number_and_order(detector: Detector, count: int) -> None:
    values = np.linspace(0, 255, count).astype(int)
    crops = [flat(int(v), 16 + i, 20) for i, v in enumerate(values)]
    scores = detector.score(crops)
    assert scores.shape == (count,)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, expit(4 * (values / 255 - 0.5)), atol=1e-6)


@pytest.mark.parametrize(("value", "expected"), [(255, "fake"), (128, "unsure"), (0, "real")])
def test_verdicts(detector: Detector, tmp_path: Path, value: int, expected: str) -> None:
    path = save(tmp_path / "face.png", value)
    verdict = detector.detect(path, faces="none")
    assert verdict.answer == expected
    assert verdict.path == str(path)
    assert verdict.score == pytest.approx(expit(4 * (value / 255 - 0.5)))
    assert (verdict.bands.fake_above, verdict.bands.real_below) == (0.7, 0.3)
    assert (verdict.model, verdict.version) == ("brightness", "0.1.0")
    assert detector.detect(path.read_bytes(), name="upload", faces="none").path == "upload"


@pytest.mark.parametrize("content", [b"", b"not a picture", None])
def test_what_cannot_be_read_is_not_applicable(
    detector: Detector, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "face.png"
    if content is not None:
        path.write_bytes(content)
    verdict = detector.detect(path, faces="none")
    assert verdict.answer == "not_applicable"
    assert verdict.score is None
    assert verdict.reason


def test_faces_are_found_on_as_many_threads(detector: Detector) -> None:
    assert detector.finder() is open_finder(threads=1)


def test_threads_share_one_detector(detector: Detector) -> None:
    found: dict[int, float] = {}

    def work(value: int) -> None:
        found[value] = float(detector.score([flat(value)] * 20)[-1])

    threads = [threading.Thread(target=work, args=(value,)) for value in range(0, 250, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {v: pytest.approx(expit(4 * (v / 255 - 0.5)), abs=1e-6) for v in found}
    assert len(found) == 5


def test_a_network_of_another_input_size_is_the_bundles_fault(make_bundle: Make) -> None:
    detector = load_detector(make_bundle(onnx_size=32))
    with pytest.raises(BundleError, match="ONNX Runtime"):
        detector.score([flat(3)])


def test_bytes_that_are_no_network_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"these are not the weights you are looking for")
    finish_bundle(tmp_path, make_card())
    with pytest.raises(BundleError, match="ONNX Runtime") as caught:
        load_detector(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("slope", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_refused(make_bundle: Make, slope: float) -> None:
    folder = make_bundle()
    model = onnx.load(folder / "model.onnx")
    for constant in model.graph.initializer:
        if constant.name == "slope":
            constant.raw_data = np.float32(slope).tobytes()
    onnx.save(model, folder / "model.onnx")
    finish_bundle(folder, make_card())
    with pytest.raises(BundleError, match="finite"):
        load_detector(folder).score([flat(255)])


def test_a_network_with_weights_outside_the_bundle_is_refused(make_bundle: Make) -> None:
    """ONNX may keep tensors in other files; those bytes would be in no checksum."""
    folder = make_bundle()
    (folder.parent / "outside.bin").write_bytes(np.float32(8).tobytes())
    model = onnx.load(folder / "model.onnx")
    for constant in model.graph.initializer:
        if constant.name == "slope":
            constant.ClearField("raw_data")
            constant.data_location = onnx.TensorProto.EXTERNAL
            entry = constant.external_data.add()
            entry.key, entry.value = "location", "../outside.bin"
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    finish_bundle(folder, make_card())
    with pytest.raises(BundleError):
        load_detector(folder)


def save_external(folder: Path) -> None:
    """The bundle's network again, with a weight in a second file of the bundle."""
    model = onnx.load(folder / "model.onnx")
    onnx.save_model(
        model, folder / "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    assert (folder / "w.bin").is_file()
    finish_bundle(folder, make_card())


@pytest.mark.parametrize("working_folder_is_the_bundle", [False, True])
def test_a_network_with_weights_in_another_file_of_the_bundle_is_refused(
    make_bundle: Make, monkeypatch: pytest.MonkeyPatch, working_folder_is_the_bundle: bool
) -> None:
    folder = make_bundle()
    save_external(folder)
    if working_folder_is_the_bundle:
        monkeypatch.chdir(folder)
    with pytest.raises(BundleError, match="no checksum") as caught:
        load_detector(folder)
    assert "\n" not in str(caught.value)


def test_the_bytes_that_were_checked_are_those_that_run(
    make_bundle: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_bundle()
    bundle = load_bundle(folder)
    read: list[Path] = []
    whole = Path.read_bytes

    def once(path: Path) -> bytes:
        found = whole(path)
        read.append(path)
        path.unlink()
        return found

    monkeypatch.setattr(Path, "read_bytes", once)
    assert Detector(bundle, threads=1).score([flat(255)])[0] > 0.8
    assert read == [folder / "model.onnx"]


def auc(value: float | None, low: float | None, high: float | None) -> dict[str, object]:
    return {"auc": {"value": value, "low": low, "high": high, "n": 80, "reason": None}}


@pytest.mark.parametrize(
    ("validation", "words"),
    [
        (auc(0.53, 0.4, 0.66), "could not be told from guessing (AUC 0.53, 95 % interval 0.40-0.6"),
        (auc(0.6, 0.5, 0.7), "could not be told from guessing"),
        (auc(0.3, 0.2, 0.4), "was worse than guessing"),
        (auc(None, None, None), "could not be told from guessing"),
        ({}, "could not be told from guessing"),
    ],
)
def test_a_detector_at_chance_is_unsure_of_everything(
    make_bundle: Make, tmp_path: Path, validation: dict[str, object], words: str
) -> None:
    detector = load_detector(make_bundle(validation=validation), threads=1)
    for value in (0, 128, 255):
        verdict = detector.detect(save(tmp_path / f"{value}.png", value), faces="none")
        assert verdict.answer == "unsure"
        assert words in verdict.reason
        assert verdict.score == pytest.approx(expit(4 * (value / 255 - 0.5)))
    assert detector.detect(tmp_path / "absent.png").answer == "not_applicable"


@pytest.mark.parametrize("validation", [auc(0.7, 0.51, 0.9), auc(0.99, None, None)])
def test_a_detector_above_chance_says_what_it_finds(
    make_bundle: Make, tmp_path: Path, validation: dict[str, object]
) -> None:
    detector = load_detector(make_bundle(validation=validation), threads=1)
    assert detector.detect(save(tmp_path / "face.png", 255), faces="none").answer == "fake"


def test_processor_count_is_at_least_one() -> None:
    assert processor_count() >= 1
