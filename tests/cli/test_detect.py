from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import credentials
from bonaface import cli
from bonaface.cli._shared import printable
from terminal import on_terminal

Make = Callable[..., Path]
SCHEMA = json.loads((Path(__file__).parents[2] / "docs/verdict.schema.json").read_text())


def save(path: Path, colour: str = "white") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 24), colour).save(path)
    return path


def detect(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["detect", *map(str, arguments)])


@pytest.fixture
def model(make_bundle: Make) -> Path:
    return make_bundle()


def test_verdicts_as_json(model: Path, tmp_path: Path) -> None:
    pictures = [save(tmp_path / f"{name}.png", name) for name in ("white", "grey", "black")]
    done = detect("--faces", "none", *pictures, "--model", model, "--json")
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert [one["path"] for one in found] == [str(path) for path in pictures]
    assert [one["answer"] for one in found] == ["fake", "unsure", "real"]
    assert all(0 <= one["score"] <= 1 for one in found)
    assert found[0]["bands"] == {"prevalence": 0.5, "fake_above": 0.7, "real_below": 0.3}


def test_lines_for_programs_have_five_fields(model: Path, tmp_path: Path) -> None:
    picture = save(tmp_path / "white.png")
    done = detect("--faces", "none", picture, "--model", model)
    path, answer, score, parts, reason = done.stdout.rstrip("\n").split("\t")
    assert (path, answer, parts) == (str(picture), "fake", "1 face: 1 fake")
    assert float(score) == pytest.approx(0.881, abs=1e-3)
    assert "0.881" in reason
    assert "\x1b" not in done.stdout
    assert "evidence, not proof" in done.stderr
    assert "as many fakes as reals" in done.stderr


def test_what_cannot_be_read_does_not_stop_the_rest(model: Path, tmp_path: Path) -> None:
    good = save(tmp_path / "good.png")
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    gone = tmp_path / "gone.png"
    done = detect("--faces", "none", bad, gone, good, "--model", model, "--json")
    assert done.exit_code == 3
    found = json.loads(done.stdout)
    assert [one["answer"] for one in found] == ["not_applicable", "not_applicable", "fake"]
    assert [one["score"] for one in found[:2]] == [None, None]
    assert all(one["reason"] for one in found)
    assert [one["kind"] for one in found] == [None, None, "photo"]
    assert "2 could not be read" in done.stderr
    assert f"{bad}: not an image" in done.stderr
    assert f"{gone}: no such file" in done.stderr


def test_folders_are_searched_for_pictures(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    names = ["b.png", "sub/a.jpg", "sub/deeper/c.WEBP"]
    for name in names:
        save(folder / name)
    save(folder / ".hidden.png")
    (folder / "notes.txt").write_text("no picture")
    done = detect("--faces", "none", folder, folder / "b.png", "--model", model, "--json")
    assert done.exit_code == 0
    found = [one["path"] for one in json.loads(done.stdout)]
    assert found == [str(folder / name) for name in names]


def test_a_folder_without_pictures_is_an_error(model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = detect("--faces", "none", tmp_path / "empty", "--model", model)
    assert done.exit_code == 2
    assert "found none" in done.stderr


def test_a_model_that_is_no_bundle_is_one_line(tmp_path: Path) -> None:
    done = detect("--faces", "none", save(tmp_path / "a.png"), "--model", tmp_path)
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1
    assert "expected a bundle" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
@pytest.mark.parametrize(
    "name",
    [b"a\n\x1b[31mred.png", b"[bold]x[@bold].png", b"bytes\xff.png", b"gr\xc3\xbcn.png"],
)
def test_names_cannot_steer_the_terminal(model: Path, tmp_path: Path, name: bytes) -> None:
    picture = tmp_path / os.fsdecode(name)
    save(tmp_path / "plain.png").rename(picture)
    done = detect("--faces", "none", tmp_path, "--model", model)
    assert done.exit_code == 0
    (line,) = [line for line in done.stdout.splitlines() if "model.onnx" not in line]
    assert "\x1b" not in line
    assert line.split("\t")[1] == "fake"
    as_json = detect("--faces", "none", tmp_path, "--model", model, "--json")
    assert json.loads(as_json.stdout)[0]["path"] == str(picture)


def test_printable_keeps_what_can_be_read() -> None:
    assert printable("grün 東京 a b") == "grün 東京 a b"
    assert printable("a\tb\x7f\u202e") == "a\\tb\\x7f\\u202e"


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_a_terminal_gets_a_coloured_table(model: Path, tmp_path: Path) -> None:
    picture = save(tmp_path / "[red]white.png")
    code, shown = on_terminal(["detect", "--faces", "none", picture, "--model", model])
    assert code == 0
    assert "picture" in shown.splitlines()[0]
    assert "[red]white.png" in shown
    assert "\x1b[1;31mfake" in shown


def test_content_credentials_stand_beside_the_answer(model: Path, tmp_path: Path) -> None:
    signed, plain = tmp_path / "signed.jpg", tmp_path / "plain.jpg"
    plain.write_bytes(credentials.picture())
    signed.write_bytes(credentials.signed(credentials.picture()))
    done = detect("--faces", "none", signed, plain, "--model", model)
    first, second = (line.split("\t") for line in done.stdout.splitlines())
    assert first[1:5] == second[1:5]  # the answer, the score and the reason do not depend on it
    assert "signed by Test Signer" in first[5]
    assert "they list: created by generative AI, with DrawBot" in first[5]
    assert len(second) == 5
    assert "1 of 2 without content credentials: most files carry none" in done.stderr
    done = detect("--faces", "none", signed, plain, "--model", model, "--json")
    found = json.loads(done.stdout)
    jsonschema.validate(found, SCHEMA)
    assert [one["provenance"]["state"] for one in found] == ["valid", "absent"]
