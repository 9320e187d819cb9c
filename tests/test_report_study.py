"""The page of a study says what its runs say together, and stays a page whatever is missing."""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from bonaface.calibration import Calibration, OperatingPoint
from bonaface.config import TrainConfig
from bonaface.evaluate import DataFacts, DetectorFacts, Evaluation, Unreadable
from bonaface.history import Epoch
from bonaface.metrics import confusion, figures
from bonaface.report import study_page, write_study
from bonaface.report.study_plots import _round_costs, looks
from bonaface.reproduce import Finished, Planned, Study, analysis
from bonaface.samples import Sample, Samples
from bonaface.scores import Scores
from test_report import Page, assert_stands_alone
from tiny import make_card

HOSTILE = "<b>arm</b> $x$ {{ 7*7 }}"


class Listed(Samples):
    """Without files on disk."""

    def fingerprint(self, *, with_split: bool = True) -> str:
        return "f" * 64


AUDIT = "audit <i>: the files alone give AUC 0.58"


def make_samples(counts: dict[str, int], name: str = "home") -> Samples:
    rows = [
        Sample(f"{split}/{label}/{i:03d}.png", int(label == "fake"), split, f"{split}-{i // 2}")
        for split, n in counts.items()
        for label in ("real", "fake")
        for i in range(n)
    ]
    return Listed(Path("/sets") / name, tuple(sorted(rows, key=lambda row: row.path)))


HOME = make_samples({"train": 100, "validation": 20, "test": 40})


def make_evaluation(samples: Samples, skill: float, key: str, notes=(), kinds=(0, 1)) -> Evaluation:
    rows = [row for row in samples.split("test").rows if row.label in kinds]
    label = np.array([row.label for row in rows])
    # Arms see the same pictures: part of what they say is the picture's.
    shared = np.random.default_rng(1).normal(0, 0.8, len(rows))
    own = np.random.default_rng(zlib.crc32(key.encode())).normal(0, 0.6, len(rows))
    logit = skill * (label - 0.5) + shared + own
    scores = Scores.of_samples(rows, logit, 1 / (1 + np.exp(-logit)))
    fakes = int(label.sum())
    point = OperatingPoint("balanced", 0.5, "chosen by hand", 0.05, 0.01, 50, 50)
    return Evaluation(
        detector=DetectorFacts(
            key, "cnn", 1234, 64, Calibration(), {"balanced": point}, "a" * 64, "b" * 64, {}
        ),
        data=DataFacts(samples.root.name, "c" * 64, "d" * 64, "test", len(rows) - fakes, fakes, 60),
        operating_point=point,
        figures=figures(scores, 0.5, resamples=100),
        confusion=confusion(scores, 0.5),
        answers={},
        attacks=None,
        measured=(),
        slices=(),
        unreadable=(),
        notes=tuple(notes),
        scores=scores,
        resamples=100,
        seed=0,
        versions={"scipy": "1"},
    )


def make_history(epochs: int, skill: float, seed: int) -> tuple[Epoch, ...]:
    rng = np.random.default_rng(seed)
    rows = []
    for epoch in range(1, epochs + 1):
        auc = 1 - 0.5 * np.exp(-skill * (0.3 + epoch / 5)) + rng.normal(0, 0.01)
        rows.append(
            Epoch(epoch, 1e-3, 0.5, 0.8, 0.5, float(auc - 0.07), float(min(auc, 1.0)), 12.5, 310.0)
        )
    return tuple(rows)


def make_run(
    arm: str,
    *,
    seed: int = 0,
    epochs: int = 10,
    pictures: int | None = None,
    skill: float = 2.0,
    notes=(),
    others=(),
    architecture=None,
    origin=None,
    multiply_adds: int = 50_000_000,
    **settings,
) -> Finished:
    config = TrainConfig.read(None, seed=seed, epochs=epochs, pictures=pictures, **settings)
    skill *= (1 - 0.5 ** (1 + epochs / 5)) * (1 if pictures is None else 0.7)
    planned = Planned(arm, config)
    auc = 1 - 0.5 * float(np.exp(-skill))
    history = make_history(epochs, skill, seed)
    card = make_card(
        architecture=architecture or {"name": config.model, "size": 64, "dropout": 0.3},
        parameters=1_234_567,
        validation={"auc": {"value": auc, "low": 0.4, "high": 1.0, "n": 40, "reason": None}},
        training={
            "config": config.model_dump(exclude_none=True),
            "origin": origin or {"weights": "from scratch"},
            "epoch": max(epochs - 1, min(epochs, 1)),
            "epochs_run": epochs,
            "seconds": 12.5 * epochs,
        },
    )
    return Finished(
        planned,
        card,
        history,
        multiply_adds,
        make_evaluation(HOME, skill, planned.name, notes),
        {
            samples.root.name: make_evaluation(samples, skill / 4, planned.name, kinds=kinds)
            for samples, kinds in others
        },
    )


def make_study(runs, unfinished=None) -> Study:
    runs = sorted(runs, key=lambda run: run.planned.config.epochs)
    return analysis.analyse(HOME, runs, unfinished or {}, [run.planned.arm for run in runs])


def network(**options):
    return {"name": "hybrid", "size": 64, "dropout": 0.3, **options}


def section(html: str, name: str) -> str:
    """Text of one section of a page."""
    return Page(re.search(rf'<section aria-labelledby="{name}">.*?</section>', html, re.S)[0]).text


def row(html: str, arm: str) -> str:
    """Text of the row of an arm in the first table of `html`."""
    rows = re.findall(r"<tr>.*?</tr>", html, re.S)
    return next(Page(one).text for one in rows if re.search(rf"<bdi>\W*(<strong>)?{arm}\b", one))


def drawn(html: str) -> list[str]:
    return re.findall(r'<svg class="plot"[^>]* aria-label="([^"]+)"', html)


@pytest.fixture(scope="module", autouse=True)
def few_draws():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analysis, "RESAMPLES", 100)
        yield


@pytest.fixture(scope="module")
def study():
    """Four arms and one that was not trained here, all of whose parts the page has."""
    others = [
        (make_samples({"test": 30}, "swaps"), (0, 1)),
        (make_samples({"test": 30}, "fakes<b>"), (1,)),
        (make_samples({"test": 30}, "reals"), (0,)),
    ]
    arms = {
        "cnn": {"skill": 0.6, "architecture": {"name": "cnn", "size": 64, "dropout": 0.3}},
        "hybrid": {
            "skill": 3.0,
            "model": "hybrid",
            "architecture": network(branches=["rgb", "residual"], depth="resnet50v2", stages=3),
            "origin": {"weights": "imagenet", "loaded": 9, "fresh": ["residual", "head"]},
        },
        "residual": {
            "skill": 1.0,
            "model": "hybrid",
            "branches": ["residual"],
            "lr": 0.002,
            "architecture": network(branches=["residual"]),
        },
    }
    runs = [
        make_run(arm, seed=seed, epochs=epochs, others=others, notes=[AUDIT], **own)
        for epochs in (2, 6)
        for seed in (0, 1)
        for arm, own in arms.items()
        if (arm, epochs, seed) != ("residual", 6, 1)
    ]
    runs += [make_run("cnn", epochs=6, pictures=n, others=others, **arms["cnn"]) for n in (20, 100)]
    runs.append(make_run("as-is", epochs=0, others=others, skill=1.5, multiply_adds=90_000_000))
    return make_study(runs, {"residual-e6-s1": "loss <none>", "cnn-e6-s2": "not run yet"})


@pytest.fixture(scope="module")
def html(study):
    return study_page(study)


def cell_of(study, arm, epochs, pictures=200):
    return next(c for c in study.cells if (c.arm, c.epochs, c.pictures) == (arm, epochs, pictures))


def test_the_page_stands_alone(html):
    page = assert_stands_alone(html)
    assert "<script" not in html
    plots = [a for tag, a in page.tags if tag == "svg"]
    assert all(a["role"] == "img" and a["aria-label"] and a["viewbox"] for a in plots)
    assert not re.search(r"#0[1-6]0[1-6]", html)  # no colour for light or dark only
    assert len(drawn(html)) == 10  # two: tables (2), curves, sizes, costs
    assert AUDIT in page.text
    assert page.text.count(AUDIT) == 1


def test_it_begins_with_the_arm_that_validation_chose_and_how_sure_that_is(html, study):
    text = Page(html).text
    assert study.chosen is cell_of(study, "hybrid", 6)
    auc, accuracy = study.chosen.figures["auc"], study.chosen.figures["accuracy"]
    assert (
        f"Validation chooses hybrid, after 6 epochs on all 200 pictures (2 seeds): on the test "
        f"split its AUC is {auc.value:.3f} (95% interval {auc.low:.3f}–{auc.high:.3f}) and its "
        f"accuracy {100 * accuracy.value:.1f}%"
    ) in text
    beaten = [c for c in study.contrasts if c.epochs == 6 and c.better_auc == "hybrid"]
    assert len(beaten) == 2
    assert "its AUC was shown to be higher than that of cnn and residual." in text
    assert "train 100 real and 100 fake; validation 20 real and 20 fake" in text
    assert "seeds 0 and 1; 0, 2 and 6 epochs; 20, 100 and 200 training pictures" in text


def test_what_is_missing_is_told_before_any_figure(html, study):
    text = Page(html).text
    runs = sum(len(cell.runs) for cell in study.cells)
    assert f"2 of {runs + 2} runs are missing" in text
    assert "Loss <none>: residual-e6-s1" in text
    assert "Not run yet: cnn-e6-s2" in text
    assert text.index("This study is not finished") < text.index("Test AUC")
    assert "settings must not be changed from here on" in text


@pytest.mark.parametrize(("epochs", "title"), [(2, "After 2 epochs"), (6, "At convergence (6 ep")])
def test_a_table_for_each_number_of_epochs(html, study, epochs, title):
    part = html[html.index(f'<h2 id="epochs-{epochs}">') :]
    assert part[part.index(">") + 1 :].startswith(title)
    for arm in ("as-is", "cnn", "hybrid", "residual"):
        cell = cell_of(study, arm, 0 if arm == "as-is" else epochs)
        text = row(part, arm)
        for name in ("accuracy", "precision", "recall", "f1", "auc"):
            figure = cell.figures[name]
            assert f"{figure.value:.3f} {figure.low:.3f}–{figure.high:.3f}" in text
        assert text.endswith(f"{cell.validation_auc:.3f}")
        assert ("not trained here" in text) == (arm == "as-is")
        assert ("1*" in text) == (len(cell.runs) == 1)
    assert ("chosen on validation" in row(part, "hybrid")) == (epochs == 6)
    assert ("highest validation AUC here" in row(part, "hybrid")) == (epochs == 2)
    text = section(html, f"epochs-{epochs}")
    assert "precision of majority class: no sample was called fake" in text


def test_pairs_come_with_the_better_arm_first(html, study):
    part = html[html.index('id="pairs-6"') : html.index('id="learning"')]
    for one in (c for c in study.contrasts if c.epochs == 6):
        value = one.differences["auc"].value
        first, second = (one.first, one.second) if value > 0 else (one.second, one.first)
        found = next(
            Page(r).text
            for r in re.findall(r"<tr>.*?</tr>", part, re.S)
            if f"<bdi>{first}</bdi> − <bdi>{second}</bdi>" in r
        )
        assert f"+{abs(value):.3f}" in found
        assert ("▲" in found) == (one.better_auc == first or one.better_accuracy == first)
    matrix = part[: part.index("</table>")]
    worse, better = row(matrix, "cnn"), row(matrix, "hybrid")
    one = next(c for c in study.contrasts if (c.first, c.second, c.epochs) == ("cnn", "hybrid", 6))
    shown = f"{-one.differences['auc'].value:.3f}".replace("0.", ".")
    assert f"▼ −{shown}" in worse
    assert f"▲ +{shown}" in better


def test_what_a_branch_adds_is_a_sentence(html, study):
    assert {(c.first, c.second, c.epochs) for c in study.ablations} == {
        ("hybrid", "residual", 2), ("hybrid", "residual", 6),
    }  # fmt: skip
    text = section(html, "pairs")
    auc = next(c for c in study.ablations if c.epochs == 6).differences["auc"]
    assert (
        f"After 6 epochs, the rgb branch beside residual (hybrid less residual): AUC "
        f"+{auc.value:.3f} (95% interval {auc.low:.3f}–{auc.high:.3f}, DeLong p "
    ) in text
    assert "shown to help" in text
    assert "Mind that the two also differ in lr." in text


def test_learning_over_epochs_and_sizes(html, study):
    text = section(html, "learning")
    assert "Dashed: the runs of 2 epochs" in text
    sizes = html[html.index("AUC on test by pictures") :]
    cells = [cell_of(study, "cnn", 6, n) for n in (20, 100, 200)]
    for cell in cells:
        assert f"{cell.figures['auc'].value:.3f}" in row(sizes, "cnn")


def test_decisions_are_those_of_the_first_seed(html, study):
    part = html[html.index('id="decisions"') :]
    c = cell_of(study, "cnn", 6).runs[0].evaluation.confusion
    words = [f"{n} {100 * n / 40:.1f}%" for n in (c.tp, c.fn, c.fp, c.tn)]
    assert " ".join(words) in row(part, "cnn")


def test_other_sets_get_the_figure_that_they_allow(html, study):
    part = html[html.index('<h2 id="elsewhere"') : html.index('<h2 id="cost"')]
    text = Page(f"<section>{part[: part.rindex('<section')]}").text
    assert "swaps AUC 30 real, 30 fake fakes<b> Recall 0 real, 30 fake reals BPCER 30 real" in text
    cell = cell_of(study, "hybrid", 6)
    found = [cell.figures["auc"], cell.elsewhere["swaps"]["auc"]]
    found += [cell.elsewhere["fakes<b>"]["recall"], cell.elsewhere["reals"]["bpcer"]]
    spans = [f"{f.value:.3f} {f.low:.3f}–{f.high:.3f}" for f in found]
    assert " ".join(spans) in row(part, "hybrid")
    shades = [int(n) for n in re.findall(r"var\(--s0\) (\d+)%", part)]
    assert len(shades) == 4 * 4
    assert min(shades) >= 0
    assert max(shades) <= 30


def test_costs_and_settings(html):
    cost = html[html.index('id="cost"') :]
    assert row(cost, "hybrid").split()[1:7] == [
        "16", "1,234,567", "50,000,000", "75.0", "12.5", "310",
    ]  # fmt: skip
    assert row(cost, "as-is").count("—") == 3
    arms = html[html.index('id="arms"') :]
    assert "hybrid, branches rgb + residual, depth resnet50v2, stages 3" in row(arms, "hybrid")
    assert "imagenet; fresh: residual, head" in row(arms, "hybrid")
    assert "lr = 0.002" in row(arms, "residual")
    assert "from scratch none" in row(arms, "cnn")
    text = section(html, "made")
    assert "100 draws" in text
    assert "f" * 64 in text
    assert "bonaface 0.1.0" in text
    assert "scipy 1" in text


def test_written_as_a_page_and_as_data(study, html, tmp_path):
    before = dict(mpl.rcParams)
    card, page = write_study(study, tmp_path / "deep" / "out")
    assert [p.name for p in (card, page)] == ["study.json", "study.html"]
    assert page.read_text(encoding="utf-8") == html  # the same input gives the same bytes
    assert json.loads(card.read_text(encoding="utf-8")) == json.loads(json.dumps(study.to_dict()))
    assert dict(mpl.rcParams) == before


def test_a_study_of_one_run():
    page = assert_stands_alone(study_page(make_study([make_run("only", epochs=1, skill=0.0)])))
    text = page.text
    assert "After 1 epoch " in text
    assert "No other arm was compared with it" in text
    assert "could not be shown to do better than guessing" in text
    assert "One seed: the interval is over samples alone." in text
    assert "The test split was read once for each run" in text
    for absent in ("convergence", "Which differences", "On other data sets", "not finished"):
        assert absent not in text
    assert {a["id"] for _, a in page.tags if "id" in a} >= {"epochs-1", "learning", "cost"}


def test_arms_that_were_only_measured():
    html = study_page(make_study([make_run("published", epochs=0, skill=4.0)]))
    text = assert_stands_alone(html).text
    assert "Validation chooses published, not trained here (1 seed)" in text
    assert "How they learn" not in text
    assert len(drawn(html)) == 2
    assert "Hollow: not trained here." in text


def test_what_is_undefined_has_its_reason():
    run = make_run("mute", epochs=2)
    scores = run.evaluation.scores
    silent = Scores(scores.path, scores.label, 0 * scores.score, scores.logit, scores.meta)
    own = figures(silent, 0.5, resamples=100)
    mute = replace(run.evaluation, scores=silent, figures=own, confusion=confusion(silent, 0.5))
    other = make_run("loud", epochs=2)
    html = study_page(make_study([replace(run, evaluation=mute), other]))
    assert_stands_alone(html)
    assert "—" in row(html[html.index('id="epochs-2"') :], "mute")
    text = section(html, "epochs-2")
    assert "precision of mute and majority class: no sample was called fake" in text


def test_a_smaller_set_may_be_chosen():
    runs = [make_run("net", epochs=2, skill=1.0), make_run("net", epochs=2, pictures=50, skill=9.0)]
    found = make_study(runs)
    assert not found.chosen.whole
    html = study_page(found)
    text = Page(html).text
    assert "after 2 epochs on 50 pictures" in text
    assert "No other arm was compared with it" in text
    assert "validation AUC here" not in section(html, "epochs-2")  # of one arm
    assert "chosen on validation" not in section(html, "epochs-2")
    assert "chosen" in row(html[html.index("AUC on test by pictures") :], "net")


def test_parts_of_the_set_alone():
    html = study_page(make_study([make_run("net", epochs=2, pictures=50)]))
    text = assert_stands_alone(html).text
    assert "No arm was trained on the whole training set" in text
    assert "Over the size of the training set, after 2 epochs" in text
    assert len(drawn(html)) == 2


def test_hostile_names_are_text():
    html = study_page(make_study([make_run(arm, epochs=2) for arm in (HOSTILE, "b" * 90)]))
    text = assert_stands_alone(html).text
    assert HOSTILE in text
    assert "<b>arm" not in html


def test_many_arms_stay_readable():
    arms = [f"arm-{i}" for i in range(14)]
    runs = [make_run(arm, epochs=3, skill=i / 4) for i, arm in enumerate(arms)]
    html = study_page(make_study(runs))
    page = assert_stands_alone(html)
    assert page.text.count("91 pairs") == 2
    assert [a for tag, a in page.tags if tag == "details"] == [{}]  # folded
    matrix = html[html.index('id="pairs-3"') :]
    assert matrix[: matrix.index("</table>")].count("<abbr") == 14
    tables = [a for tag, a in page.tags if tag == "table"]
    regions = [a for tag, a in page.tags if a.get("role") == "region"]
    assert len(tables) == len(regions)  # each scrolls by itself
    assert len(html) < 600_000


def test_many_notes_are_folded_and_lost_pictures_come_first():
    runs = [make_run("net", seed=s, epochs=1, notes=[f"note {s}"]) for s in range(12)]
    lost = (Unreadable("test/fake/<b>.jpg", 1, "truncated"),)
    runs = [replace(run, evaluation=replace(run.evaluation, unreadable=lost)) for run in runs]
    text = Page(study_page(make_study(runs))).text
    assert "1 test picture of home could not be read and counts in no figure. note 0" in text
    assert re.search(r"more note 9 note 10 note 11 Validation cannot tell these", text)


def test_every_arm_has_a_look_of_its_own():
    found = looks([str(i) for i in range(16)])
    assert len({(look.colour, look.mark, look.dash) for look in found.values()}) == 16
    assert len({look.colour for look in list(found.values())[:8]}) == 8


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (9, 110, [10, 20, 50, 100]),
        (100, 1e9, [100, 1e4, 1e6, 1e8]),
        (375, 375, [375, 375]),
        (0.2, 60, [0.3, 1, 3, 10, 30]),
    ],
)
def test_costs_have_a_few_round_ticks(low, high, wanted):
    assert _round_costs(low, high) == pytest.approx(wanted)
