"""`bonaface export` as a person calls it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bonaface import cli, load_detector
from bonaface.drawn import write_drawn_set
from bonaface.export import forms, gate

Make = Callable[..., Path]


def export(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["export", *map(str, arguments)])


@pytest.fixture(autouse=True)
def quick_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "RESAMPLES", 100)


def test_it_writes_a_bundle_and_says_what_changed(
    make_bundle: Make, drawn: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = export(make_bundle(), "--to", "onnx", "--gate", drawn, "--out", out)
    assert done.exit_code == 0, done.stderr
    assert "brightness-onnx" in done.stdout
    assert "holds: rise of APCER" in done.stdout
    assert load_detector(out).name == "brightness-onnx"
    page = (out / "gate.html").read_text()
    assert "The export passes" in page
    assert "<script" not in page
    assert "faces, test" in page


def test_what_does_not_pass_is_exit_1_and_leaves_the_report(
    make_bundle: Make, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = forms._plain_onnx

    def broken(source: object) -> object:
        model = whole(source)  # type: ignore[arg-type]
        del model.graph.node[2]  # the slope of the logit
        model.graph.node[2].input[0] = "centred"
        return model

    monkeypatch.setattr(forms, "_plain_onnx", broken)
    out = tmp_path / "out"
    done = export(make_bundle(), "--to", "onnx", "--gate", drawn, "--out", out)
    assert done.exit_code == 1
    assert "DOES NOT HOLD: largest difference of a score" in done.stdout
    assert "was not written" in done.stderr
    assert sorted(path.name for path in out.iterdir()) == ["gate.html", "gate.json"]
    assert json.loads((out / "gate.json").read_text())["passed"] is False
    assert "does not pass and was not written" in (out / "gate.html").read_text()


def test_a_bound_can_be_set(make_bundle: Make, tmp_path: Path) -> None:
    arguments = ("--to", "onnx", "--float16", "--max-difference", "1e-9", "--out", tmp_path / "out")
    assert export(make_bundle(), *arguments).exit_code == 1


def test_pictures_that_cannot_be_read_are_exit_3(make_bundle: Make, tmp_path: Path) -> None:
    faces = tmp_path / "faces"
    write_drawn_set(faces, {"train": 1, "validation": 1, "test": 2}, seed=1, size=24)
    next(faces.glob("test/real/*")).write_bytes(b"no picture")
    done = export(make_bundle(), "--to", "onnx", "--gate", faces, "--out", tmp_path / "out")
    assert done.exit_code == 3
    assert "1 pictures could not be read" in done.stderr
    assert "Could not be read" in (tmp_path / "out" / "gate.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "tflite"], "onnx-int8"),
        (["--to", "transformers", "--int8"], "transformers-int8"),
        (["--to", "onnx", "--int8", "--float16"], "got both"),
        (["--to", "onnx", "--int8"], "name a data set"),
        (["--to", "onnx", "--calibrate", "x"], "--int8 only"),
    ],
)
def test_wrong_use_is_one_line(
    make_bundle: Make, tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = export(make_bundle(), *arguments, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
