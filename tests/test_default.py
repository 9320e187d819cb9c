"""The detector that comes with the install."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from bonaface import cli, load_detector
from bonaface.bundle import load_bundle
from bonaface.cli import demo
from bonaface.detector import Detector

SETS = {"faceswap", "stylegan", "fairface", "generated", "portraits_sd3"}


@pytest.fixture(scope="module")
def detector() -> Detector:
    return load_detector(threads=1)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [Path(path) for path in demo._photographs(tmp_path_factory.mktemp("photographs"), 0)]


def test_it_is_small_whole_and_says_what_it_is() -> None:
    bundle = load_bundle(Path("default"))
    assert bundle.model.stat().st_size <= 25_000_000
    assert set(bundle.network()) != {b""}  # its SHA-256 is the card's
    assert {path.name for path in bundle.folder.iterdir()} == {
        "model.onnx",
        "card.json",
        "README.md",
    }
    assert set(bundle.card.tests) == SETS
    assert "research" in (bundle.card.terms or "")
    text = (bundle.folder / "README.md").read_text(encoding="utf-8")
    for name in SETS:
        assert f"### {name}\n" in text
    assert bundle.doubt is None


def test_a_photograph_is_not_called_fake_and_a_forged_copy_scores_higher(
    detector: Detector, photographs: list[Path]
) -> None:
    real, forged = (detector.detect(path) for path in photographs)
    assert real.answer in ("real", "unsure")
    assert real.reason
    assert real.score is not None
    assert forged.score is not None
    assert forged.score > real.score


def test_detect_takes_it_where_no_model_is_named(photographs: list[Path]) -> None:
    done = CliRunner().invoke(cli.app, ["detect", str(photographs[0])])
    assert done.exit_code == 0
    name, answer, *_ = done.stdout.split("\t")
    assert (name, answer in ("real", "unsure")) == (str(photographs[0]), True)
    assert "The detector bonaface-default-3: for research" in done.stderr
