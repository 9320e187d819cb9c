from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bonaface import bundle as bundle_module
from bonaface.bundle import SCHEMA_VERSION, load_bundle, model_card, sha256
from bonaface.errors import BundleError
from tiny import make_card

Make = Callable[..., Path]


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "card.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_what_was_written_is_read(make_bundle: Make) -> None:
    folder = make_bundle()
    bundle = load_bundle(folder)
    written = make_card().model_dump(mode="json", exclude={"files"})
    assert bundle.card.model_dump(mode="json", exclude={"files"}) == written
    assert bundle.card.files == {"model.onnx": sha256(folder / "model.onnx")}
    assert bundle.calibration.slope == 0.5
    assert bundle.preprocess.size == 16
    assert bundle.operating_point("fake_above").threshold == 0.7


def test_model_onnx_and_the_card_are_enough(make_bundle: Make) -> None:
    folder = make_bundle()
    (folder / "README.md").unlink()
    assert not (folder / "model.safetensors").exists()
    load_bundle(folder)


def test_a_tampered_network_is_refused(make_bundle: Make) -> None:
    folder = make_bundle()
    data = bytearray((folder / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.onnx").write_bytes(data)
    bundle = load_bundle(folder)
    with pytest.raises(BundleError, match="SHA-256"):
        bundle.network()


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, 0, None, "1", [1]])
def test_other_schemas_are_refused(make_bundle: Make, version: object) -> None:
    folder = make_bundle()
    edit(folder, lambda card: card.update(schema_version=version))
    with pytest.raises(BundleError, match="schema version"):
        load_bundle(folder)


def test_a_folder_without_a_card_is_no_bundle(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(BundleError, match="expected a bundle"):
            load_bundle(folder)


def test_a_missing_network_is_named(make_bundle: Make) -> None:
    folder = make_bundle()
    (folder / "model.onnx").unlink()
    with pytest.raises(BundleError, match=r"model\.onnx"):
        load_bundle(folder)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "sub/model.onnx", ""])
def test_the_card_names_no_files_elsewhere(make_bundle: Make, name: str) -> None:
    folder = make_bundle()
    edit(folder, lambda card: card["files"].update({name: "0" * 64}))
    with pytest.raises(BundleError, match="file names"):
        load_bundle(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda card: card["files"].clear(),
        lambda card: card.update(labels={"real": 1, "fake": 0}),
        lambda card: card["preprocess"].update(resampling="nearest"),
        lambda card: card["preprocess"].update(size=100_000),
        lambda card: card["calibration"].update(slope=float("nan")),
        lambda card: card["calibration"].update(slope="steep"),
        lambda card: card["calibration"].update(slope=0.0),
        lambda card: card["calibration"].update(slope=-1.0),
        lambda card: card["calibration"].update(kind="isotonic"),
        lambda card: card["calibration"].update(surprise=1),
        lambda card: card["operating_points"]["balanced"].pop("rule"),
        lambda card: card["operating_points"]["real_below"].update(threshold=0.71),
        lambda card: card["preprocess"].update(size=float("inf")),
        lambda card: card["validation"]["auc"].update(low=float("-inf")),
        lambda card: card["validation"].update(auc=0.9),
        lambda card: card["training"].update(seconds=float("nan")),
        lambda card: card["operating_points"]["balanced"].update(threshold=float("inf")),
        lambda card: card["operating_points"].pop("real_below"),
        lambda card: card.pop("calibration"),
        lambda card: card.update(surprise=1),
    ],
)
def test_damaged_cards_are_refused_in_one_line(
    make_bundle: Make, change: Callable[[dict[str, Any]], object]
) -> None:
    folder = make_bundle()
    edit(folder, change)
    with pytest.raises(BundleError, match="expected") as caught:
        load_bundle(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000, '"\\ud800"', "\x00"])
def test_files_that_are_no_cards_are_refused(make_bundle: Make, text: str) -> None:
    folder = make_bundle()
    (folder / "card.json").write_text(text)
    with pytest.raises(BundleError):
        load_bundle(folder)


def test_a_number_too_large_for_a_float_is_refused(make_bundle: Make) -> None:
    folder = make_bundle()
    text = (folder / "card.json").read_text()
    (folder / "card.json").write_text(text.replace('"size": 16', '"size": 1e999'))
    with pytest.raises(BundleError, match="1e999") as caught:
        load_bundle(folder)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_refused(make_bundle: Make) -> None:
    folder = make_bundle()
    (folder / "card.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BundleError):
        load_bundle(folder)


def test_an_unknown_operating_point_lists_the_choices(make_bundle: Make) -> None:
    with pytest.raises(BundleError, match="balanced, fake_above, real_below"):
        load_bundle(make_bundle()).operating_point("strict")


def test_the_model_card_shows_intervals_and_reasons() -> None:
    text = model_card(make_card())
    assert text.startswith("---\nlibrary_name: bonaface\n")
    assert "| auc | 0.9000 [0.8500, 0.9400] (n = 110) |" in text
    assert "| eer | no fakes |" in text
    assert "| train | 100 | 90 |" in text
    assert "seed 7" in text


def test_default_is_the_bundle_that_comes_with_the_install(
    make_bundle: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped, own = make_bundle("shipped"), make_bundle("own")
    monkeypatch.setattr(bundle_module, "_SHIPPED", shipped)
    monkeypatch.chdir(tmp_path)
    assert load_bundle(Path("default")).folder == shipped
    (tmp_path / "default").mkdir()  # its evaluations, say
    assert load_bundle(Path("default")).folder == shipped
    for path in own.iterdir():
        (tmp_path / "default" / path.name).write_bytes(path.read_bytes())
    assert load_bundle(Path("default")).folder == Path("default")


def test_a_model_card_tells_where_the_pictures_came_from() -> None:
    card = make_card()
    origins = {"train": {"real": {"": 3, "ffhq": 4}, "fake": {"a|b\nc": 5}}}
    text = model_card(card.model_copy(update={"data": card.data | {"origins": origins}}))
    assert "| train | real | not told | 3 |\n| train | real | ffhq | 4 |\n" in text
    assert "| train | fake | a/b c | 5 |" in text
    assert "source or generator" not in model_card(card)  # one of before


def test_a_model_card_tells_tests_and_terms() -> None:
    tests = {"swaps": {"auc": {"value": 0.9, "low": 0.8, "high": 0.95, "n": 40}}}
    text = model_card(make_card().model_copy(update={"tests": tests, "terms": "Research."}))
    assert "license: other" in text.split("---")[1]
    assert "## Terms\nResearch.\n" in text
    table = "### swaps\n| figure | value |\n|---|---|\n| auc | 0.9000 [0.8000, 0.9500] (n = 40) |"
    assert table in text
    plain = model_card(make_card())
    assert "license" not in plain
    assert "## Te" not in plain
