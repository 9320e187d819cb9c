"""The main job through the command line: train, evaluate, compare, detect."""

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bonaface import batches
from bonaface.cli import app
from bonaface.config import TrainConfig
from bonaface.drawn import write_drawn_set
from bonaface.images import read_image
from bonaface.scores import read_scores
from bonaface.training import train

REAL_DATA = Path(__file__).parents[3] / "shared" / "data"
SHORT = ["--epochs", "2", "--batch-size", "8", "--precision", "float32"]


def drawn(folder):
    write_drawn_set(folder, {"train": 40, "validation": 16, "test": 16}, seed=0, size=48)


def slice_of(name, folder):
    """A small set of links to real faces, with the metadata of those."""
    with (REAL_DATA / name / "metadata.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    quota = {"train": 30, "validation": 16, "test": 16}
    kept = []
    for split, count in quota.items():
        for label in ("real", "fake"):
            kept += [r for r in rows if r["split"] == split and r["label"] == label][:count]
    for row in kept:
        (folder / row["file_name"]).parent.mkdir(parents=True, exist_ok=True)
        (folder / row["file_name"]).write_bytes((REAL_DATA / name / row["file_name"]).read_bytes())
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(kept)


def real(name):
    marks = [
        pytest.mark.realdata,
        pytest.mark.skipif(not (REAL_DATA / name).is_dir(), reason="no real data here"),
    ]
    return pytest.param(lambda folder: slice_of(name, folder), id=name, marks=marks)


@pytest.mark.parametrize(
    "fill", [pytest.param(drawn, id="drawn"), real("stylegan"), real("faceswap")]
)
def test_from_a_folder_to_a_comparison(fill, tmp_path, monkeypatch):
    monkeypatch.setenv("BONAFACE_CACHE", str(tmp_path / "cache"))
    data, runs = tmp_path / "data", tmp_path / "runs"
    fill(data)

    def bonaface(*arguments, code=0):
        done = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert done.exit_code == code, done.output
        return done.stdout

    for name, options in (
        ("cnn", ["--model", "cnn", "--size", 32]),
        ("v2", ["--model", "resnet50v2", "--stages", 1, "--size", 32]),
    ):
        bonaface("train", data, "--out", runs / name, *SHORT, *options)
        said = bonaface("evaluate", runs / name, data, "--out", tmp_path / name)
        assert "auc" in said
        scores = read_scores(tmp_path / name / "scores.csv")
        assert len(scores) == 32
        assert scores.label.sum() == 16
        assert (tmp_path / name / "report.html").read_text().startswith("<!DOCTYPE html>")

    bonaface("compare", tmp_path / "cnn", tmp_path / "v2", "--out", tmp_path / "comparison")
    (pair,) = json.loads((tmp_path / "comparison" / "comparison.json").read_text())["pairs"]
    assert {pair["first"], pair["second"]} == {"cnn", "v2"}
    assert 0 <= pair["delong"]["p"] <= 1

    # The command line, the evaluation and the bundle tell one score.
    picture = data / scores.path[0]
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(picture.read_bytes()[:200])
    bonaface("detect", "--faces", "none", picture, "--model", runs / "v2")
    said = bonaface(
        "detect", "--faces", "none", picture, broken, "--model", runs / "v2", "--json", code=3
    )
    good, bad = json.loads(said)
    assert good["score"] == pytest.approx(scores.score[0], abs=1e-6)
    assert (bad["answer"], bad["score"]) == ("not_applicable", None)

    # ONNX and card alone are enough to run.
    for target in (runs / "v2").iterdir():
        if target.is_file() and target.name not in ("model.onnx", "card.json"):
            target.unlink()
    assert json.loads(
        bonaface("detect", "--faces", "none", picture, "--model", runs / "v2", "--json")
    ) == [good]


def test_data_without_splits_is_split_once(tmp_path, monkeypatch):
    """Whatever the seed of the run: no test picture was trained on."""
    drawn(tmp_path / "drawn")
    data, run = tmp_path / "data", tmp_path / "run"
    for path in (tmp_path / "drawn").rglob("*.jpg"):
        target = data / path.parent.name / f"{path.parent.parent.name}-{path.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    seen = []
    monkeypatch.setattr(
        batches,
        "read_image",
        lambda path: seen.append(path.relative_to(data).as_posix()) or read_image(path),
    )
    config = TrainConfig(model="cnn", size=32, epochs=1, batch_size=8, seed=3)
    train(data, run, config, ratios=(0.6, 0.2, 0.2))
    done = CliRunner().invoke(app, ["evaluate", str(run), str(data), "--seed", "7"])
    assert done.exit_code == 0, done.output
    scores = read_scores(run / "evaluations/data-test/scores.csv")
    tested = set(scores.path)
    assert len(tested) + len(seen) == 144
    assert len(tested) == pytest.approx(0.2 * 144, abs=2)
    assert not tested & set(seen)

    done = CliRunner().invoke(app, ["evaluate", str(run), str(data), "--ratios", "80/10/10"])
    assert done.exit_code == 2
    assert "repeat --ratios 60/20/20" in done.output
