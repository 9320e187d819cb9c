"""`evaluate` end to end with a scorer of a few lines, on pictures made here."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage
from sklearn.metrics import roc_auc_score

from bonaface.bundle import Bundle, Card
from bonaface.calibration import Calibration
from bonaface.crops import CropRecipe
from bonaface.errors import BundleError, DataError
from bonaface.evaluate import evaluate, read_evaluation, save_evaluation
from bonaface.images import Image
from bonaface.preprocess import Preprocess
from bonaface.samples import Samples, load_samples

SIZE = 16
module = sys.modules["bonaface.evaluate"]  # bonaface.evaluate is the function
POINTS = {"balanced": 0.5, "fake_above": 0.8, "real_below": 0.3}


def make_card(fingerprint="none", low=0.8) -> Card:
    return Card(
        name="shade",
        architecture={"name": "mean"},
        parameters=1,
        preprocess=Preprocess(SIZE).to_dict(),
        crop=CropRecipe().to_dict(),
        labels={"real": 0, "fake": 1},
        calibration={"kind": "temperature", "slope": 2.0, "offset": 0.0},
        operating_points={
            name: {
                "name": name,
                "threshold": threshold,
                "rule": "drawn by hand",
                "apcer": 0.05,
                "bpcer": 0.01,
                "n_real": 10,
                "n_fake": 10,
            }
            for name, threshold in POINTS.items()
        },
        validation={"auc": {"value": 0.9, "low": low, "high": 0.95, "n": 20, "reason": None}},
        data={"fingerprint": fingerprint, "counts": {}},
        training={},
        parity={},
        versions={"bonaface": "0"},
        files={"model.onnx": "ab" * 32},
    )


class Shade:
    """Calls bright pictures fake: logit = mean / 64 - 2."""

    name = "shade"
    calibration = Calibration("temperature", 2.0)

    def __init__(self, fingerprint="none"):
        self.bundle = Bundle(Path("nowhere"), make_card(fingerprint))
        self.batches = []

    def logits(self, crops):
        self.batches.append(len(crops))
        return np.array([crop.mean() / 64 - 2 for crop in crops])


def save(path: Path, shade: float, side=40) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(int(shade * 1000))
    pixels = np.clip(rng.normal(shade, 10, (side, side, 3)), 0, 255).astype(np.uint8)
    PILImage.fromarray(pixels).save(path)


@pytest.fixture
def data(tmp_path):
    """25 reals and 25 fakes with overlapping shades, a generator in a folder name."""
    root = tmp_path / "faces"
    rng = np.random.default_rng(0)
    for i in range(25):
        save(root / "test/real" / f"r{i:02d}.png", rng.uniform(40, 150))
        save(root / "test/fake" / f"f{i:02d}.png", rng.uniform(100, 220))
    return root


def test_figures_are_those_of_the_scores(data):
    scorer = Shade()
    found = evaluate(scorer, load_samples(data), resamples=100)
    scores = found.scores
    assert scorer.batches == [16, 16, 16, 2]
    assert len(scores) == 50
    assert scores.label.sum() == 25
    expected = {
        path: np.asarray(PILImage.open(data / path).resize((16, 16), 2)).mean() / 64 - 2
        for path in scores.path
    }
    np.testing.assert_allclose(scores.logit, [expected[p] for p in scores.path], atol=1e-12)
    np.testing.assert_allclose(scores.score, 1 / (1 + np.exp(-2 * scores.logit)))
    assert found.figures["auc"].value == pytest.approx(roc_auc_score(scores.label, scores.score))
    fake = scores.label == 1
    for measured in found.measured:
        threshold = POINTS[measured.point.name]
        assert measured.apcer.value == pytest.approx((scores.score[fake] < threshold).mean())
        assert measured.bpcer.value == pytest.approx((scores.score[~fake] >= threshold).mean())
    assert found.answers["fake"] == {
        "fake": int((scores.score[fake] >= 0.8).sum()),
        "unsure": int(((scores.score[fake] < 0.8) & (scores.score[fake] >= 0.3)).sum()),
        "real": int((scores.score[fake] < 0.3).sum()),
    }
    assert sum(found.confusion.to_dict().values()) == 50


def test_a_detector_at_chance_on_validation_is_unsure_of_all_as_detect_is(data):
    scorer = Shade()
    scorer.bundle = Bundle(Path("nowhere"), make_card(low=0.45))
    found = evaluate(scorer, load_samples(data), resamples=0)
    assert found.answers["fake"] == {"fake": 0, "unsure": 25, "real": 0}
    assert found.answers["real"] == {"fake": 0, "unsure": 25, "real": 0}
    (note,) = [note for note in found.notes if "unsure" in note]
    assert "0.45-0.95" in note
    sure = evaluate(Shade(), load_samples(data), resamples=0)
    assert sure.figures == found.figures
    assert not any("unsure" in note for note in sure.notes)


def test_the_operating_point_is_the_one_named(data):
    found = evaluate(Shade(), load_samples(data), operating_point="fake_above", resamples=0)
    assert found.threshold == 0.8
    assert found.figures["bpcer"].value == found.confusion.fp / 25
    with pytest.raises(BundleError, match="balanced"):
        evaluate(Shade(), load_samples(data), operating_point="best", resamples=0)


def test_unreadable_pictures_are_listed_and_never_scored(data):
    (data / "test/fake/broken.jpg").write_bytes(b"\xff\xd8 no picture")
    (data / "test/real/empty.png").write_bytes(b"")
    found = evaluate(Shade(), load_samples(data), resamples=0)
    assert [(u.path, u.label) for u in found.unreadable] == [
        ("test/fake/broken.jpg", 1),
        ("test/real/empty.png", 0),
    ]
    assert all(u.reason for u in found.unreadable)
    assert (found.data.real, found.data.fake) == (25, 25)
    assert not {u.path for u in found.unreadable} & set(found.scores.path)


def test_nothing_readable_is_an_error(tmp_path):
    for kind in ("real", "fake"):
        (tmp_path / "d/test" / kind).mkdir(parents=True)
        (tmp_path / "d/test" / kind / "x.jpg").write_bytes(kind.encode())
    with pytest.raises(DataError, match="none of 2"):
        evaluate(Shade(), load_samples(tmp_path / "d"), resamples=0)


def test_an_absent_split_is_an_error(data):
    with pytest.raises(DataError, match="'validation'"):
        evaluate(Shade(), load_samples(data), split="validation", resamples=0)


@pytest.mark.parametrize(("kept", "lost"), [("real", "fakes"), ("fake", "reals")])
def test_one_class_says_what_cannot_be_said(data, kept, lost):
    for path in (data / "test" / ("fake" if kept == "real" else "real")).iterdir():
        path.unlink()
    samples = load_samples(data)
    found = evaluate(Shade(), samples, resamples=100)
    assert any(f"no readable {lost}" in note for note in found.notes)
    assert found.figures["auc"].value is None
    assert found.figures["auc"].reason
    own = "bpcer" if kept == "real" else "apcer"
    assert found.figures[own].value is not None
    json.dumps(found.to_dict(), allow_nan=False)


def test_limit_scores_that_many_and_says_so(data):
    samples = load_samples(data)
    found = evaluate(Shade(), samples, limit=20, resamples=0)
    assert (found.data.real, found.data.fake) == (10, 10)
    assert any("20 of the split's 50" in note for note in found.notes)
    assert any("audit (cheap part, 50 pictures)" in note for note in found.notes)
    assert found.data.fingerprint == samples.fingerprint()
    assert found.data.scored_fingerprint != found.data.fingerprint
    assert not any("Only" in n for n in evaluate(Shade(), samples, limit=999, resamples=0).notes)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_the_training_data_flatter_and_that_is_said(data, split):
    for part in ("train", "validation"):
        for kind, shade in (("real", 60.0), ("fake", 200.0)):
            save(data / part / kind / f"{part}.png", shade + len(part))
    samples = load_samples(data)
    same = evaluate(Shade(samples.fingerprint()), samples, split=split, resamples=0)
    other = evaluate(Shade("another"), samples, split=split, resamples=0)
    assert any("flatter" in note for note in same.notes) == (split != "test")
    assert not any("flatter" in note for note in other.notes)


def test_progress_ends_at_the_total(data):
    seen = []
    evaluate(Shade(), load_samples(data), resamples=0, progress=lambda *where: seen.append(where))
    assert seen == [(16, 50), (32, 50), (48, 50), (50, 50)]


def test_reading_runs_ahead_but_not_far(data, monkeypatch):
    for i in range(80):
        save(data / "test/real" / f"more{i:02d}.png", 50.0 + i / 10)
    lock = threading.Lock()
    state = {"read": 0, "scored": 0, "most": 0, "at_once": 0, "most_at_once": 0}

    def counting(path):
        with lock:
            state["read"] += 1
            state["at_once"] += 1
            state["most"] = max(state["most"], state["read"] - state["scored"])
            state["most_at_once"] = max(state["most_at_once"], state["at_once"])
        time.sleep(0.001)
        with lock:
            state["at_once"] -= 1
        return Image(np.full((400, 300, 3), 90, np.uint8), "PNG")

    class Slow(Shade):
        def logits(self, crops):
            time.sleep(0.02)
            with lock:
                state["scored"] += len(crops)
            assert {crop.shape for crop in crops} == {(SIZE, SIZE, 3)}
            return super().logits(crops)

    monkeypatch.setattr(module, "read_image", counting)
    evaluate(Slow(), load_samples(data), resamples=0, workers=2)
    assert state["scored"] == 130
    assert state["most_at_once"] == 2
    # One batch being scored, and at most two batches read or waiting.
    assert 16 < state["most"] <= 3 * module.BATCH


def test_a_failing_scorer_stops_the_reading(data, monkeypatch):
    calls = []
    real = module.read_image
    monkeypatch.setattr(module, "read_image", lambda path: (calls.append(path), real(path))[1])

    class Broken(Shade):
        def logits(self, crops):
            raise BundleError("broken")

    before = threading.active_count()
    with pytest.raises(BundleError, match="broken"):
        evaluate(Broken(), load_samples(data), resamples=0)
    assert len(calls) < 50
    assert threading.active_count() == before


def test_saved_and_read_again_is_the_same(data, tmp_path):
    (data / "test/fake/broken.jpg").write_bytes(b"x")
    found = evaluate(Shade(), load_samples(data), resamples=100)
    card, table = save_evaluation(found, tmp_path / "out")
    text = card.read_text()
    assert json.loads(text)["schema_version"] == 1
    assert str(tmp_path) not in text
    for path in (tmp_path / "out", card):
        again = read_evaluation(path)
        assert again.to_dict() == found.to_dict()
        assert (again.name, again.threshold) == ("shade", 0.5)
        assert again.scores.path == found.scores.path
        np.testing.assert_array_equal(again.scores.score, found.scores.score)
    save_evaluation(again, tmp_path / "again")
    assert (tmp_path / "again/evaluation.json").read_text() == text
    assert (tmp_path / "again/scores.csv").read_bytes() == table.read_bytes()


def test_a_folder_that_is_no_evaluation_is_refused(data, tmp_path):
    with pytest.raises(DataError, match="expected an evaluation"):
        read_evaluation(tmp_path)
    out = tmp_path / "out"
    card, table = save_evaluation(evaluate(Shade(), load_samples(data), resamples=0), out)
    good = json.loads(card.read_text())
    point = good["operating_point"]
    for bad, words in (
        ([], "schema version"),
        (good | {"schema_version": 2}, "schema version"),
        ({k: v for k, v in good.items() if k != "figures"}, "something else"),
        (good | {"data": {"name": "x"}}, "something else"),
        (good | {"figures": 3}, "something else"),
        (good | {"figures": {}}, "figures"),
        (good | {"answers": {"real": {}}}, "answers"),
        (good | {"surprise": 1}, "surprise"),
        (good | {"seed": "0"}, "seed"),
        (good | {"operating_point": point | {"threshold": "abc"}}, "operating_point.threshold"),
        (good | {"operating_point": point | {"threshold": None}}, "operating_point.threshold"),
        (good | {"operating_point": point | {"threshold": float("nan")}}, "threshold"),
        (good | {"measured": [1]}, "measured"),
    ):
        card.write_text(json.dumps(bad))
        with pytest.raises(DataError, match=words) as caught:
            read_evaluation(out)
        assert "\n" not in str(caught.value)
    card.write_text(json.dumps(good))
    table.write_text(table.read_text().replace("r00", "r99"))
    with pytest.raises(DataError, match="other bytes"):
        read_evaluation(out)


def test_the_same_input_gives_the_same_bytes(data, tmp_path):
    samples = load_samples(data)
    for name, workers in (("a", 1), ("b", 3)):
        found = evaluate(Shade(), samples, resamples=100, workers=workers)
        save_evaluation(found, tmp_path / name)
    for file in ("evaluation.json", "scores.csv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_slices_and_generators(tmp_path):
    root = tmp_path / "set"
    rows = ["file_name,label,split,generator,age"]
    for i in range(40):
        for kind, shade in (("real", 60), ("fake", 140)):
            save(root / "img" / f"{kind}{i}.png", shade + i * 2)
            generator = "" if kind == "real" else ("rare" if i < 5 else "common")
            rows.append(f"img/{kind}{i}.png,{kind},test,{generator},{'young' if i % 2 else 'old'}")
    (root / "metadata.csv").write_text("\n".join(rows))
    samples = load_samples(root)
    assert isinstance(samples, Samples)
    found = evaluate(Shade(), samples, resamples=100)
    assert found.attacks is not None
    assert set(found.attacks.by_generator) == {"common", "rare"}
    by = {(s.key, s.value): s for s in found.slices}
    assert by["generator", "rare"].figures is None
    assert "too few" in by["generator", "rare"].reason
    young = by["age", "young"]
    mask = np.array([age == "young" for age in found.scores.meta["age"]])
    called = found.scores.score >= 0.5
    right = (called == (found.scores.label == 1))[mask].mean()
    assert young.figures["accuracy"].value == pytest.approx(right)
    assert {(gap.key, gap.error) for gap in found.gaps} == set()  # 20 of each: too few
    save_evaluation(found, tmp_path / "out")
    assert read_evaluation(tmp_path / "out").to_dict() == found.to_dict()


def test_an_evaluation_of_before_there_were_gaps_is_read(tmp_path, data):
    found = evaluate(Shade(), load_samples(data), resamples=40)
    path, _ = save_evaluation(found, tmp_path / "out")
    value = json.loads(path.read_text())
    del value["gaps"]
    path.write_text(json.dumps(value))
    assert read_evaluation(tmp_path / "out").gaps == ()


@pytest.fixture
def run(monkeypatch):
    """Runs one of the two commands with a scorer in place of a bundle's network."""
    from typer.testing import CliRunner

    from bonaface import cli, detector

    monkeypatch.setattr(detector, "load_detector", lambda _: Shade())
    return lambda *words: CliRunner().invoke(cli.app, [str(word) for word in words])


def test_command_writes_beside_the_bundle(run, data, tmp_path):
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    done = run("evaluate", bundle, data, "--limit", 30)
    assert done.exit_code == 0, done.output
    folder = bundle / "evaluations/faces-test"
    assert sorted(p.name for p in folder.iterdir()) == [
        "evaluation.json", "report.html", "scores.csv",
    ]  # fmt: skip
    found = read_evaluation(folder)
    assert f"{found.figures['auc'].value:.4f}" in done.stdout
    assert "note: Only 30 of the split's 50" in done.stdout
    assert str(folder / "report.html") in done.stdout


def test_command_lists_what_it_could_not_read(run, data, tmp_path):
    (data / "test/fake/bro\x1bken.jpg").write_bytes(b"x")
    done = run("evaluate", tmp_path, data, "--out", tmp_path / "out", "--images")
    assert done.exit_code == 3
    assert "bro\\x1bken.jpg" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert "data:image/jpeg" in (tmp_path / "out/report.html").read_text()


def test_commands_compare_two_evaluations_of_one_detector(run, data, tmp_path):
    for name, point in (("a", "balanced"), ("b", "fake_above")):
        words = ("--out", tmp_path / name, "--operating-point", point)
        assert run("evaluate", tmp_path, data, *words).exit_code == 0
    done = run("compare", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "c")
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == [
        "comparison.html", "comparison.json", "comparison.md",
    ]  # fmt: skip
    value = json.loads((tmp_path / "c/comparison.json").read_text())
    assert [c["name"] for c in value["contenders"]] == [
        f"shade ({tmp_path / 'a'})",
        f"shade ({tmp_path / 'b'})",
    ]
    assert [c["threshold"] for c in value["contenders"]] == [0.5, 0.8]


def one_line(done, *words):
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    for word in words:
        assert word in line


def test_evaluations_of_other_pictures_of_the_same_names_are_not_compared(run, data, tmp_path):
    other = tmp_path / "others"
    shutil.copytree(data, other)
    assert run("evaluate", tmp_path, data, "--out", tmp_path / "a").exit_code == 0
    assert run("evaluate", tmp_path, other, "--out", tmp_path / "copied").exit_code == 0
    done = run("compare", tmp_path / "a", tmp_path / "copied", "--out", tmp_path / "c")
    assert done.exit_code == 0, done.output
    save(other / "test/real/r00.png", 90)
    assert run("evaluate", tmp_path, other, "--out", tmp_path / "b").exit_code == 0
    done = run("compare", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "d")
    one_line(done, "'faces'", "'others'", "one data set")
    assert not (tmp_path / "d").exists()


def test_pictures_that_one_knows_the_groups_of_and_cannot_all_read_are_compared(
    run, data, tmp_path
):
    (data / "test/fake/broken.jpg").write_bytes(b"x")
    assert run("evaluate", tmp_path, data, "--out", tmp_path / "a").exit_code == 3
    rows = [f"{p.relative_to(data).as_posix()},{p.stem}" for p in data.glob("test/*/*")]
    (data / "metadata.csv").write_text("\n".join(["file_name,group", *rows]))
    assert run("evaluate", tmp_path, data, "--out", tmp_path / "b").exit_code == 3
    assert read_evaluation(tmp_path / "b").scores.meta["group"][0]
    done = run("compare", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "c")
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_out_of_range_are_wrong_use(run, tmp_path, seed):
    for words in (("evaluate", tmp_path, tmp_path), ("compare", tmp_path, "--out", tmp_path)):
        done = run(*words, "--seed", seed)
        assert done.exit_code == 2
        assert "--seed" in done.stderr


def test_shares_after_split_name_the_option_for_them(run, data, tmp_path):
    one_line(run("evaluate", tmp_path, data, "--split", "80/10/10"), "--ratios", "80/10/10")


def test_an_output_folder_that_is_a_file_is_one_line(run, data, tmp_path):
    (tmp_path / "file").write_text("mine")
    one_line(run("evaluate", tmp_path, data, "--out", tmp_path / "file"), "file")
    assert (tmp_path / "file").read_text() == "mine"
