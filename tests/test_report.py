"""The pages stand alone, say what can be said, escape what is hostile, and never change."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage

from bonaface.calibration import Calibration, OperatingPoint
from bonaface.compare import Entry, compare
from bonaface.evaluate import (
    DataFacts,
    DetectorFacts,
    Evaluation,
    Measured,
    Unreadable,
    read_evaluation,
)
from bonaface.metrics import Figure, apcer_by_generator, confusion, figures, slices
from bonaface.report import (
    comparison_page,
    evaluation_page,
    plots,
    write_comparison_page,
    write_evaluation,
)
from bonaface.report.render import percent, span, threshold
from bonaface.scores import Scores

VOID = {"meta", "link", "br", "img", "hr", "input"}
HOSTILE = "test/fake/<script>alert('x')</script>&\"{{ 7*7 }}.jpg"


class Page(HTMLParser):
    """Collects tags and text, and checks that every element is closed where it should be."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.words, self.ids = [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words)).replace("\u2060", "")


def make_scores(n=60, kinds=(0, 1), seed=0, gap=2.0, odd=True) -> Scores:
    rng = np.random.default_rng(seed)
    label = np.tile([0, 1], n)
    logit = rng.normal(np.where(label == 1, gap / 2, -gap / 2), 1.0)
    paths = [f"test/{'fake' if y else 'real'}/{i:03d}.jpg" for i, y in enumerate(label)]
    if odd:
        logit[1] = -9.0
        paths[1] = HOSTILE
    meta = {
        "group": tuple(f"v{i // 2}" for i in range(2 * n)),
        "generator": tuple(
            ("swap" if i % 3 else "gan") if y else None for i, y in enumerate(label)
        ),
        "age": tuple("old" if i % 40 < 2 else "young" for i in range(2 * n)),
    }
    scores = Scores(tuple(paths), label, 1 / (1 + np.exp(-logit)), logit, meta)
    return scores.where(np.isin(scores.label, kinds))


def make_evaluation(scores: Scores | None = None, **changes) -> Evaluation:
    scores = make_scores() if scores is None else scores
    points = {
        name: OperatingPoint(name, at, "chosen by hand", 0.05, 0.01, 50, 50)
        for name, at in (("balanced", 0.5), ("fake_above", 0.8), ("real_below", 0.3))
    }
    fake = int(scores.label.sum())

    def measure(at):
        return figures(scores, at, resamples=100)

    attacks = apcer_by_generator(scores, 0.5, resamples=100)
    words = {"fake": 0, "unsure": 0, "real": 0}
    facts = {
        "detector": DetectorFacts(
            "net", "cnn", 1234, 64, Calibration(), points, "a" * 64, "b" * 64, {"torch": "2"}
        ),
        "data": DataFacts("set", "c" * 64, "d" * 64, "test", len(scores) - fake, fake, 60),
        "operating_point": points["balanced"],
        "figures": measure(0.5),
        "confusion": confusion(scores, 0.5),
        "answers": {"real": words, "fake": words},
        "attacks": attacks if attacks.by_generator else None,
        "measured": tuple(
            Measured(p, measure(p.threshold)["apcer"], measure(p.threshold)["bpcer"])
            for p in points.values()
        ),
        "slices": tuple(slices(scores, 0.5, resamples=100)),
        "unreadable": (Unreadable("test/fake/<b>.jpg", 1, "truncated"),),
        "notes": ("mind <this>",),
        "scores": scores,
        "resamples": 100,
        "seed": 0,
        "versions": {"bonaface": "0"},
    }
    return Evaluation(**(facts | changes))


@pytest.fixture(scope="module")
def evaluation():
    return make_evaluation()


@pytest.fixture(scope="module")
def html(evaluation):
    return evaluation_page(evaluation)


@pytest.fixture(scope="module")
def compared():
    entries = [
        Entry(name, make_scores(seed=seed, gap=gap), 0.5)
        for name, seed, gap in (("good <i>", 1, 3.0), ("poor $x$", 2, 0.3))
    ]
    return compare(entries, resamples=100), entries


def assert_stands_alone(html):
    page = Page(html)
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form", "image"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"src", "href", "srcset", "data", "poster", "action", "xlink:href"}:
                assert value.startswith(("#", "data:image/jpeg;base64,"))
    assert not re.search(r"https?:|@import|url\((?!#)", html)
    assert len(page.ids) == len(set(page.ids))
    used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", html))
    assert used <= set(page.ids)
    assert used
    return page


def test_the_page_stands_alone(html):
    page = assert_stands_alone(html)
    assert ("html", {"lang": "en"}) in page.tags
    drawn = [a for tag, a in page.tags if tag == "svg" and "plot" in a.get("class", "")]
    assert len(drawn) == 6
    assert all(a["role"] == "img" and a["aria-label"] and a["viewbox"] for a in drawn)
    # No colour that only one of light and dark could show.
    assert not re.search(r"#0[1-6]0[1-6]", html)
    assert "prefers-color-scheme: dark" in html


def test_hostile_names_are_text(html):
    assert "<script" not in html
    page = Page(html)
    assert HOSTILE in page.text
    assert "test/fake/<b>.jpg" in page.text
    assert "mind <this>" in page.text


def test_it_says_the_figures(html, evaluation):
    text = Page(html).text
    recall, bpcer = evaluation.figures["recall"], evaluation.figures["bpcer"]
    lead = (
        f"net catches {100 * recall.value:.1f}% (95% interval {100 * recall.low:.1f}–"
        f"{100 * recall.high:.1f}%) of the 60 fakes here, and wrongly calls "
        f"{100 * bpcer.value:.1f}%"
    )
    assert lead in text
    assert "better than chance" in text
    for figure in evaluation.figures.values():
        assert figure.reason in text if figure.value is None else f"{figure.value:.3f}" in text
    c = evaluation.confusion
    for n in (c.tp, c.fp, c.tn, c.fn):
        assert re.search(rf"\b{n}\b", text)
    assert "truncated" in text
    assert "6 samples, fewer than 30" in text
    assert "a" * 64 in text


def test_worst_mistakes_are_the_worst(html, evaluation):
    table = html[html.index('id="mistakes"') : html.index('id="unreadable"')]
    text = Page(f"<section><h2 {table[: table.rindex('<section')]}").text
    scores, fake = evaluation.scores, evaluation.scores.label == 1
    assert text.index(HOSTILE) < text.index("Reals called fake, highest")
    highest = max((s, p) for s, p, y in zip(scores.score, scores.path, fake, strict=True) if not y)
    assert text.index(highest[1]) == min(m.start() for m in re.finditer("test/real", text))
    shown = re.findall(r"test/fake/\d+\.jpg", text)
    assert set(shown) <= {
        p for s, p, y in zip(scores.score, scores.path, fake, strict=True) if y and s < 0.5
    }


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_leaves_out_what_makes_no_sense(label):
    page = assert_stands_alone(
        evaluation_page(make_evaluation(make_scores(kinds=(label,)), unreadable=()))
    )
    drawn = [a for tag, a in page.tags if tag == "svg" and "plot" in a.get("class", "")]
    assert len(drawn) == 1
    assert f"This set holds only {'fakes' if label else 'reals'}" in page.text
    assert "cannot be said" in page.text
    assert "better than chance. " not in page.text.split("Before you quote")[0]
    assert "were fake," not in page.text


def test_chance_is_called_chance():
    page = Page(evaluation_page(make_evaluation(make_scores(gap=0.0, odd=False))))
    assert "could not be shown to do better than chance" in page.text
    page = Page(evaluation_page(make_evaluation(make_scores(gap=-3.0, odd=False))))
    assert "ranks worse than chance" in page.text
    page = Page(evaluation_page(make_evaluation(make_scores(n=5, odd=False))))
    assert "Too little is here" in page.text


def test_thumbnails_only_where_asked_for(tmp_path):
    scores = make_scores(n=20)
    for path in scores.path:
        file = tmp_path / path.replace("</script>", "")
        file.parent.mkdir(parents=True, exist_ok=True)
        PILImage.new("RGB", (500, 300), (200, 30, 30)).save(file, "JPEG")
    evaluation = make_evaluation(scores)
    assert "<img" not in evaluation_page(evaluation)
    html = evaluation_page(evaluation, images=tmp_path)
    assert_stands_alone(html)
    found = [a for tag, a in Page(html).tags if tag == "img"]
    # The hostile path names no file: its row has no picture, and the page is made all the same.
    assert 0 < len(found) <= 20
    assert HOSTILE in Page(html).text
    for attributes in found:
        data = base64.b64decode(attributes["src"].split(",")[1])
        assert len(data) < 20_000
        assert max(PILImage.open(io.BytesIO(data)).size) == 192
        assert attributes["alt"]


def test_the_same_input_gives_the_same_bytes(evaluation, html, compared):
    before = dict(mpl.rcParams)
    assert evaluation_page(make_evaluation()) == html
    assert comparison_page(*compared) == comparison_page(*compared)
    assert dict(mpl.rcParams) == before


def test_written_beside_the_data(evaluation, html, tmp_path):
    card, table, page = write_evaluation(evaluation, tmp_path / "deep/out")
    assert [p.name for p in (card, table, page)] == [
        "evaluation.json", "scores.csv", "report.html",
    ]  # fmt: skip
    assert page.read_text(encoding="utf-8") == html
    assert json.loads(card.read_text())["schema_version"] == 1
    # What was read back makes the same page.
    assert evaluation_page(read_evaluation(card)) == html


def test_slices_come_in_the_order_of_a_reader():
    scores = make_scores(n=20, odd=False)
    names = ("20-29", "3-9", None, "more than 70")
    meta = scores.meta | {"age": tuple(names[i % 4] for i in range(40))}
    scores = Scores(scores.path, scores.label, scores.score, scores.logit, meta)
    text = Page(evaluation_page(make_evaluation(scores))).text
    text = text[text.index("By group of people") :]
    places = [text.index(name) for name in ("3-9", "20-29", "more than 70", "(unknown)")]
    assert places == sorted(places)


def test_nothing_readable_mistaken_and_nothing_wrong():
    scores = make_scores(n=40, gap=20.0, odd=False)
    text = Page(evaluation_page(make_evaluation(scores, unreadable=()))).text
    assert "every readable picture was decided rightly" in text
    assert "Pictures that could not be read None." in text


def test_a_very_small_set_makes_a_page():
    assert_stands_alone(evaluation_page(make_evaluation(make_scores(n=1, odd=False))))


def test_comparison(compared, tmp_path):
    found, entries = compared
    page = assert_stands_alone(comparison_page(found, entries, notes=["mind <that>"]))
    assert "good <i> tells fakes from reals better than poor $x$" in page.text
    assert "mind <that>" in page.text
    for pair in found.pairs:
        assert " ".join(pair.sentence.split()) in page.text
    for contender in found.contenders:
        assert f"{contender.figures['auc'].value:.3f}" in page.text
    drawn = [a for tag, a in page.tags if tag == "svg" and "plot" in a.get("class", "")]
    assert len(drawn) == 3
    written = write_comparison_page(found, entries, tmp_path / "out")
    assert written == tmp_path / "out/comparison.html"
    assert written.read_text(encoding="utf-8") == comparison_page(found, entries)


def test_comparison_that_shows_nothing():
    entries = [Entry(name, make_scores(seed=3), 0.5) for name in ("a", "b")]
    page = Page(comparison_page(compare(entries, resamples=100), entries))
    assert "No difference in AUC between these detectors could be shown." in page.text


def test_comparison_of_one_class():
    entries = [
        Entry(name, make_scores(seed=s, kinds=(0,), odd=False), 0.5)
        for name, s in (("a", 1), ("b", 2))
    ]
    page = assert_stands_alone(comparison_page(compare(entries, resamples=100), entries))
    assert sum(tag == "svg" and "plot" in a.get("class", "") for tag, a in page.tags) == 1


def test_roc_is_drawn_where_it_should_be():
    """A perfect detector's curve goes through the upper left corner of the axes."""
    scores = Scores(
        ("a", "b", "c", "d"),
        np.array([0, 0, 1, 1]),
        np.array([0.1, 0.2, 0.8, 0.9]),
        np.array([-2.0, -1.0, 1.0, 2.0]),
    )
    point = OperatingPoint("balanced", 0.5, "", 0.0, 0.0, 2, 2)
    svg = str(plots.roc_plot(scores, {"balanced": point}))
    line = re.search(r'd="(M [^"]+)"[^>]*style="[^"]*stroke: var\(--s0\)', svg)
    points = [tuple(map(float, p)) for p in re.findall(r"[ML] ([\d.]+) ([\d.]+)", line[1])]
    xs, ys = zip(*points, strict=True)
    assert (min(xs), min(ys)) in points


@given(st.floats(0, 1))
def test_percent_never_rounds_to_a_certainty(value):
    shown = percent(value)
    assert (shown == "0.0%") == (value == 0)
    assert (shown == "100.0%") == (value == 1)


@settings(max_examples=50)
@given(st.floats(-1, 1), st.floats(-1, 1))
def test_interval_keeps_its_signs(a, b):
    low, high = sorted((a, b))
    shown = span(Figure(low, low, high, 9)).replace("−", "-").replace("\u2060", "")
    first, last = re.split(" to |–", shown)
    assert float(first) == pytest.approx(low, abs=6e-4)
    assert float(last) == pytest.approx(high, abs=6e-4)


def test_thresholds_near_one_keep_their_digits():
    assert threshold(0.25) == "0.25"
    assert threshold(1 - 3e-6) == "1 − 3e-06"
    assert threshold(float(np.nextafter(1, 2))) == "1"
