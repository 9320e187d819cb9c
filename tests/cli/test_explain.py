"""`bonaface explain` as a person calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from bonaface import cli
from bonaface.explain import evaluating
from portraits import portrait


def explain(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["explain", *map(str, arguments)])


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(portrait()).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_a_photo_becomes_a_picture_a_table_and_a_page(
    make_bundle: Callable[..., Path], photo: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = explain(make_bundle(), photo, "--out", out)
    assert done.exit_code == 0, done.stderr
    assert "face 1" in done.stdout
    assert "random ones" in done.stdout
    assert "not what was forged" in done.stderr
    assert Image.open(out / "photo-face1.png").width == 1500
    told = json.loads((out / "explain.json").read_text())
    assert told["method"] == "occlusion"
    page = (out / "explain.html").read_text()
    assert "A heat map shows where the network looked, not what was forged." in page
    assert page.count("<img") == page.count("data:image/png;base64,") == 1
    assert 'src="http' not in page


def test_an_input_that_cannot_be_read_is_exit_code_3(
    make_bundle: Callable[..., Path], photo: Path, tmp_path: Path
) -> None:
    (tmp_path / "none.png").write_bytes(b"no picture")
    done = explain(make_bundle(), photo, tmp_path / "none.png", "--out", tmp_path / "out")
    assert done.exit_code == 3
    assert "1 of 2 could not be read" in done.stderr
    assert (tmp_path / "out" / "photo-face1.png").is_file()
    assert "Not an image" in (tmp_path / "out" / "explain.html").read_text()


def test_a_method_is_measured_on_a_set(
    make_bundle: Callable[..., Path], drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluating, "RESAMPLES", 100)
    out = tmp_path / "out"
    bundle = make_bundle()
    done = explain(bundle, "--evaluate", drawn, "--out", out, "--limit", 20)
    assert done.exit_code == 0, done.stderr
    assert "deletion AUC" in done.stdout
    assert "pointing" not in done.stdout
    told = json.loads((out / "faithfulness.json").read_text())
    assert told["real"] + told["fake"] == 20
    page = (out / "faithfulness.html").read_text()
    assert page.count("<svg") == 2
    assert "Do they point" not in page
    first = (out / "explained.jsonl").read_bytes()
    assert explain(bundle, "--evaluate", drawn, "--out", out, "--limit", 20).exit_code == 0
    assert (out / "explained.jsonl").read_bytes() == first


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((), "got neither"),
        (("x.png", "--evaluate", "faces"), "got both"),
        (("x.png", "--faces", "some"), "expected --faces auto or none"),
        (("x.png", "--method", "lime"), "expected a method out of"),
        (("x.png", "--method", "grad-cam"), "expected the weights"),
        (("x.png", "--frames", "0"), "expected 1 to 10000 frames"),
    ],
)
def test_wrong_use_is_told_in_a_line(
    make_bundle: Callable[..., Path], tmp_path: Path, given: tuple[str, ...], words: str
) -> None:
    done = explain(make_bundle(), *given, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_it_works_with_the_base_install(
    make_bundle: Callable[..., Path], photo: Path, tmp_path: Path
) -> None:
    """Everything but the page, which says what it needs."""
    code = (
        "import sys\n"
        "for name in ('torch', 'captum', 'scipy', 'sklearn', 'matplotlib', 'jinja2'):\n"
        "    sys.modules[name] = None\n"
        "from bonaface.cli import main\nmain()"
    )
    arguments = ["explain", str(make_bundle()), str(photo), "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "no explain.html" in done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "explain.json", "maps", "photo-face1.png",
    ]  # fmt: skip
