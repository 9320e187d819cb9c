"""`stress` on pictures made here with detectors of a few lines, and `analyse` on known tables."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from bonaface.bundle import finish_bundle
from bonaface.corruptions import DELIVERIES
from bonaface.detector import load_detector
from bonaface.errors import ConfigError, DataError
from bonaface.evaluate import evaluate
from bonaface.report import stress_page, write_stress
from bonaface.samples import load_samples
from bonaface.scores import Scores
from bonaface.stress import Condition, StressConfig, analysis, changed_crop, stress
from bonaface.stress.analysis import Tables, analyse
from test_report import assert_stands_alone
from tiny import make_card, write_brightness_onnx

FEW = {"corruptions": ["brightness", "jpeg"], "attacks": ["square"], "budgets": [2.0, 40.0]}


class Stop(BaseException):
    """Ends a run from inside, as a kill does."""


def settings(**changes) -> StressConfig:
    return StressConfig.read(None, **FEW | changes)


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> Path:
    """Fakes are brighter than reals, some by little."""
    root = tmp_path_factory.mktemp("faces") / "set"
    rng = np.random.default_rng(0)
    for split, count in (("train", 2), ("validation", 2), ("test", 14)):
        for kind, shade in (("real", 105), ("fake", 150)):
            for at in range(count):
                path = root / split / kind / f"{split[0]}{at}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = rng.normal(shade + 3 * (at - 6), 9, (20, 20, 3))
                PILImage.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)
    return root


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Without weights: what they can be attacked with only asks."""
    made = []
    for name, slope in (("one", 8.0), ("two <b>", 6.0)):
        folder = tmp_path_factory.mktemp("bundle")
        write_brightness_onnx(folder / "model.onnx", slope=slope)
        finish_bundle(folder, make_card(name=name))
        made.append(load_detector(folder))
    return made


@pytest.fixture(scope="module", autouse=True)
def quick_intervals():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analysis, "RESAMPLES", 200)
        yield


@pytest.fixture(scope="module")
def whole(two, faces, tmp_path_factory):
    """A run that nobody disturbs, and its folder."""
    out = tmp_path_factory.mktemp("whole")
    return stress(two, load_samples(faces), out, settings()), out


@pytest.fixture
def found(whole):
    return whole[0]


@pytest.fixture
def out(whole, tmp_path):
    """A copy of the folder, to go on in."""
    return Path(shutil.copytree(whole[1], tmp_path / "out"))


def numbers(found):
    """Results without what a clock gave."""
    value = found.to_dict()
    for one in value["detectors"]:
        for cost in one["costs"]:
            del cost["seconds"]
    return value


def test_every_detector_meets_every_condition(found, out):
    assert [one.name for one in found.detectors] == ["one", "two <b>"]
    for one in found.detectors:
        assert [o.condition.name for o in one.of("delivery")] == list(DELIVERIES)
        assert [(o.condition.name, o.condition.level) for o in one.of("corruption")] == [
            (name, level) for name in ("brightness", "jpeg") for level in range(1, 6)
        ]
        attacks = [(o.condition.level, o.direction, o.condition.source) for o in one.of("attack")]
        other = "two <b>" if one.name == "one" else "one"
        for source in (None, other):
            for budget in (2.0, 40.0):
                assert (budget, "hide", source) in attacks
                assert (budget, "smear", source) in attacks
        assert len(attacks) == 8
        assert [(c.attack, c.budget) for c in one.costs] == [("square", 2.0), ("square", 40.0)]
        assert all(c.queries > 0 and c.gradients == 0 for c in one.costs)
    tables = sorted(path.name for path in (out / "scores").rglob("*.csv"))
    # Clean, deliveries, corruptions, own and foreign attacks, and the one without a bound.
    assert len(tables) == 2 * (1 + len(DELIVERIES) + 10 + 2 + 2 + 1)


def test_each_is_judged_as_evaluate_judges_it(found, two, faces):
    clean = evaluate(two[0], load_samples(faces))
    assert found.detectors[0].clean.figures == clean.figures
    assert found.data == clean.data


def test_attacks_have_the_direction_that_they_are_named_for(found):
    for one in found.detectors:
        clean = one.attacked
        for outcome in one.of("attack"):
            left, moved = ("bpcer", "apcer") if outcome.direction == "hide" else ("apcer", "bpcer")
            assert outcome.figures[left].value == clean[left].value
            if outcome.condition.level == 40:
                assert outcome.figures[moved].value > clean[moved].value
        assert [check.holds for check in one.checks] == [True] * len(one.checks)
        assert "without a bound" in one.checks[1].claim


@pytest.mark.parametrize("at", [9, 25])
def test_stopped_anywhere_it_ends_in_the_same(found, two, faces, tmp_path, at):
    def stop(done, _total, _what):
        if done == at:
            raise Stop

    out = tmp_path / "again"
    with pytest.raises(Stop):
        stress(two, load_samples(faces), out, settings(), progress=stop)
    assert numbers(stress(two, load_samples(faces), out, settings())) == numbers(found)


def test_what_is_there_is_not_made_again(found, two, faces, out, monkeypatch):
    def logits(crops):
        raise AssertionError("nothing is to be scored")

    for detector in two:
        monkeypatch.setattr(detector, "logits", logits)
    again = stress(two, load_samples(faces), out, settings())
    assert again.to_dict() == found.to_dict()


def test_a_run_may_grow(found, two, faces, out):
    more = settings(corruptions=["jpeg", "noise"], attacks=[])
    grown = stress(two[:1], load_samples(faces), out, more)
    kept = {str(o.condition): o for o in found.detectors[0].of("corruption")}
    names = [o.condition.name for o in grown.detectors[0].of("corruption")]
    assert names == ["jpeg"] * 5 + ["noise"] * 5
    for outcome in grown.detectors[0].of("corruption")[:5]:
        assert outcome.figures == kept[str(outcome.condition)].figures
    assert grown.detectors[0].attacked is None
    assert grown.detectors[0].checks == ()


@pytest.mark.parametrize("change", [{"seed": 1}, {"limit": 10}, {"jpeg": 80}, {"attack_limit": 4}])
def test_other_settings_are_not_mixed_in(two, faces, out, change):
    with pytest.raises(ConfigError, match=f"got another {next(iter(change))}; take another --out"):
        stress(two, load_samples(faces), out, settings(**change))


def test_other_pictures_are_not_mixed_in(two, faces, out):
    fewer = load_samples(faces)
    fewer = replace(fewer, rows=fewer.rows[:-1])
    with pytest.raises(ConfigError, match="got another data"):
        stress(two, fewer, out, settings())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"corruptions": ["jpge"]}, "expected corruptions out of"),
        ({"attacks": ["ddos"]}, "expected attacks out of"),
        ({"attacks": ["pgd"]}, "expected the weights that the attack 'pgd' needs"),
    ],
)
def test_what_cannot_be_done_is_said_before_it_begins(two, faces, tmp_path, change, words):
    with pytest.raises(ConfigError, match=words):
        stress(two, load_samples(faces), tmp_path / "out", settings(**change))
    assert not (tmp_path / "out").exists()


def test_names_must_differ(two, faces, tmp_path):
    with pytest.raises(ConfigError, match="different names"):
        stress([two[0], two[0]], load_samples(faces), tmp_path / "out", settings())


def test_an_empty_split_is_an_error(two, faces, tmp_path):
    rows = tuple(row for row in load_samples(faces).rows if row.split != "test")
    with pytest.raises(DataError, match="'test'"):
        stress(two, replace(load_samples(faces), rows=rows), tmp_path / "out", settings())


def test_by_default_a_detector_without_weights_is_not_attacked(two, faces, tmp_path):
    plain = settings(corruptions=[], attacks=None, budgets=[2.0])
    assert stress(two[:1], load_samples(faces), tmp_path, plain).detectors[0].attacked is None


def test_chance_hangs_on_the_picture_alone(two, faces, tmp_path):
    """The same picture is corrupted alike, whichever others there are."""
    few = stress(two[:1], load_samples(faces), tmp_path / "a", settings(limit=6, attacks=[]))
    all_ = stress(two[:1], load_samples(faces), tmp_path / "b", settings(attacks=[]))
    tables = [
        {p.name: p for p in (tmp_path / part / "scores").rglob("corruption-brightness-3.csv")}
        for part in "ab"
    ]
    rows = [
        dict(
            line.split(",", 1) for line in table["corruption-brightness-3.csv"].read_text().split()
        )
        for table in tables
    ]
    assert few.data.real + few.data.fake == len(rows[0]) - 1 == 6
    assert all_.data.real + all_.data.fake == 28
    assert rows[0].items() <= rows[1].items()


def test_the_changed_picture_is_the_one_that_was_scored(two, faces, out):
    path = "test/fake/t3.png"
    crop = changed_crop(faces / path, path, Condition("corruption", "brightness", 4), 0)
    table = next((out / "scores").glob("one-*/corruption-brightness-4.csv"))
    told = next(line for line in table.read_text().splitlines() if line.startswith(path))
    assert f"{float(two[0].logits([crop])[0])!r}" in told.split(",")
    assert changed_crop(faces / "nowhere.png", path, Condition("delivery", "JPEG 50"), 0) is None


def test_unreadable_pictures_are_listed_and_the_rest_is_measured(two, faces, tmp_path):
    root = tmp_path / "broken"
    shutil.copytree(faces, root)
    (root / "test" / "real" / "t0.png").write_bytes(b"no picture")
    found = stress(two[:1], load_samples(root), tmp_path / "out", settings())
    assert [one.path for one in found.unreadable] == ["test/real/t0.png"]
    assert found.data.real == 13
    assert all(o.figures["auc"].n == 27 for o in found.detectors[0].of("corruption"))


# -- what tables say -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clean(two, faces):
    return evaluate(two[0], load_samples(faces))


def shifted(scores: Scores, change) -> Scores:
    logit = change(scores.logit, scores.label)
    return Scores(scores.path, scores.label, 1 / (1 + np.exp(-0.5 * logit)), logit, scores.meta)


def tables(clean, two, changed, *, unbounded=None):
    norms = {"pgd": ("linf", True), "square": ("linf", False)}
    return Tables(clean, two[0].bundle, changed, unbounded, (), norms)


def test_a_fall_is_shown_where_there_is_one(clean, two):
    rng = np.random.default_rng(0)
    noise = Condition("corruption", "noise", 5)
    none = Condition("corruption", "none", 1)
    found = analyse(
        tables(
            clean,
            two,
            {
                noise: shifted(clean.scores, lambda x, y: rng.normal(0, 1, len(x))),
                none: shifted(clean.scores, lambda x, y: 3 * x),
            },
        )
    )
    heavy, same = found.outcomes
    assert heavy.drop.worse_auc
    assert heavy.drop.differences["auc"].value == pytest.approx(
        heavy.figures["auc"].value - clean.figures["auc"].value
    )
    assert heavy.drop.differences["auc"].high < 0
    assert not same.drop.worse_auc
    assert same.drop.differences["auc"].value == 0
    assert same.drop.p_auc == 1
    assert same.drop.p_decisions == 1


def test_hits_of_the_stability_range(clean, two):
    """Deliveries reach half a logit down; one corruption stays within, one goes beyond."""
    changed = {
        Condition("delivery", "half size"): shifted(clean.scores, lambda x, y: x - 0.5),
        Condition("corruption", "mild", 1): shifted(clean.scores, lambda x, y: x - 0.4),
        Condition("corruption", "heavy", 2): shifted(clean.scores, lambda x, y: x - 0.6),
        Condition("corruption", "other", 3): shifted(clean.scores, lambda x, y: x - 0.4 - y),
    }
    found = analyse(tables(clean, two, changed))
    inside = [one.inside for one in found.of("corruption")]
    assert [one.value for one in inside] == [1, 0, 0.5]
    assert inside[2].low < inside[2].value < inside[2].high
    assert found.of("delivery")[0].inside is None
    assert set(found.held) == {1, 2, 3}
    kept, _ = found.held[1]
    assert kept.value == 1
    assert kept.n == round(found.stable.value * len(clean.scores))


def test_without_deliveries_there_is_no_range(clean, two):
    changed = {Condition("corruption", "mild", 1): shifted(clean.scores, lambda x, y: x - 0.4)}
    assert analyse(tables(clean, two, changed)).outcomes[0].inside is None


def test_fragile_pictures_come_with_the_mildest_change_that_turns_them(clean, two):
    one_off = clean.scores.path.index("test/fake/t13.png")

    def turn_one(x, _y):
        x = x.copy()
        x[one_off] = -5
        return x

    changed = {
        Condition("corruption", "b", 2): shifted(clean.scores, turn_one),
        Condition("corruption", "a", 4): shifted(clean.scores, lambda x, y: np.full(len(x), -1.0)),
    }
    found = analyse(tables(clean, two, changed)).fragile
    assert found[0].path == "test/fake/t13.png"
    assert (found[0].turned, found[0].condition.name, found[0].label) == (2, "b", 1)
    assert found[0].clean > 0.5 > found[0].changed
    assert {one.turned for one in found[1:]} == {1}
    right = (clean.scores.score >= 0.5) & (clean.scores.label == 1)
    assert {one.path for one in found} <= {
        path for path, is_right in zip(clean.scores.path, right, strict=True) if is_right
    }


def test_checks_find_attacks_that_are_not_worth_their_name(clean, two):
    def weaker(x, y):
        return x - 4 * (2 * y - 1)

    same = shifted(clean.scores, lambda x, y: x)
    turned = shifted(clean.scores, weaker)
    pgd, square = (Condition("attack", name, 2.0) for name in ("pgd", "square"))
    bad = analyse(
        tables(
            clean,
            two,
            {
                replace(pgd, level=1.0): turned,
                pgd: same,
                square: turned,
                replace(pgd, source="two"): turned,
            },
            unbounded=(replace(pgd, level=255.0), same),
        )
    )
    assert [check.holds for check in bad.checks] == [False] * 4
    assert "pgd: 28 wrong at 1" in bad.checks[0].found
    good = analyse(
        tables(
            clean,
            two,
            {replace(pgd, level=1.0): same, pgd: turned, square: same},
            unbounded=(replace(pgd, level=255.0), turned),
        )
    )
    assert [check.holds for check in good.checks] == [True] * 3


# -- the page --------------------------------------------------------------------------------------


def test_the_page_shows_all_and_stands_alone(found, faces, tmp_path):
    card, page = write_stress(found, tmp_path / "out")
    html = page.read_text()
    assert json.loads(card.read_text())["schema_version"] == 1
    text = assert_stands_alone(html).text
    assert "two <b>" in text
    for words in (
        "JPEG 50",
        "brightness",
        "Made on another detector",
        "Holds",
        "Score in the range",
    ):
        assert words in text
    assert "<img" not in html
    assert "nan" not in text.lower()
    with_pictures = stress_page(found, images=faces)
    assert_stands_alone(with_pictures)
    fragile = sum(len(one.fragile) for one in found.detectors)
    assert fragile
    assert with_pictures.count("<img") == 2 * fragile


def test_one_class_alone_has_a_page(two, faces, tmp_path):
    rows = tuple(r for r in load_samples(faces).rows if r.split != "test" or r.label)
    fakes = replace(load_samples(faces), rows=rows)
    found = stress(two[:1], fakes, tmp_path / "out", settings(attacks=[]))
    assert found.detectors[0].outcomes[0].drop.differences["auc"].value is None
    assert "brightness" in stress_page(found)
