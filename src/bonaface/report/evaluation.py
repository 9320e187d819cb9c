"""An `Evaluation` as one page that stands alone."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bonaface.evaluate import Evaluation
from bonaface.metrics import UNKNOWN
from bonaface.report import plots
from bonaface.report.render import (
    FIGURES,
    count,
    percent,
    render,
    threshold,
    versions,
    with_interval,
)
from bonaface.report.thumbnails import thumbnail

WORST = 10
LISTED = 200
_RARE = 0.01


def evaluation_page(evaluation: Evaluation, *, images: Path | None = None) -> str:
    """The report as HTML.

    Args:
        evaluation: what to show.
        images: the data set's root, to put small copies of the worst mistakes on the page; None
            for paths only.
    """
    e = evaluation
    both = e.data.real > 0 and e.data.fake > 0
    return render(
        "evaluation.html",
        e=e,
        both=both,
        verdict=_verdict(e),
        basis=_basis(e),
        notes=e.notes,
        tiles=[
            ("AUC", e.figures["auc"], False),
            ("Accuracy", e.figures["accuracy"], True),
            ("Fakes passed as real (APCER)", e.figures["apcer"], True),
            ("Reals called fake (BPCER)", e.figures["bpcer"], True),
        ],
        figures=[(*FIGURES[name], figure) for name, figure in e.figures.items()],
        confusion=_confusion(e),
        answers=_answers(e),
        plots=_plots(e, both),
        generators=_generators(e),
        slices=_slices(e),
        titles=FIGURES,
        columns=("accuracy", "apcer", "bpcer", "auc")
        if both
        else ("apcer" if e.data.fake else "bpcer",),
        mistakes=_mistakes(e, images),
        thumbnails=images is not None,
        unreadable=e.unreadable[:LISTED],
        meaning=_meaning(e, both),
        facts=_facts(e),
    )


def _verdict(e: Evaluation) -> str:
    recall, bpcer, auc = e.figures["recall"], e.figures["bpcer"], e.figures["auc"]
    if not e.data.real:
        return (
            f"{e.name} catches {with_interval(recall)} of the {count(e.data.fake)} fakes here. The "
            "set holds no reals, so how many real faces it would accuse cannot be said."
        )
    accused = f"wrongly calls {with_interval(bpcer)} of the {count(e.data.real)} real faces fake"
    if not e.data.fake:
        return (
            f"{e.name} {accused}. The set holds no fakes, so how many of them it would catch "
            "cannot be said."
        )
    said = (
        f"{e.name} catches {with_interval(recall)} of the {count(e.data.fake)} fakes here, and "
        f"{accused}."
    )
    if auc.low is None or auc.high is None:
        return f"{said} Too little is here to say whether it does better than chance."
    if auc.low > 0.5:
        return f"{said} It tells fakes from reals better than chance."
    worse = "It ranks worse than chance" if auc.high < 0.5 else "It could not be shown to do better"
    return f"{said} {worse}{'' if auc.high < 0.5 else ' than chance'}."


def _basis(e: Evaluation) -> str:
    n = e.data.real + e.data.fake
    groups = (
        f" in {count(e.data.groups)} groups (identities or source videos)"
        if e.data.groups < n
        else ""
    )
    lost = f"; {count(len(e.unreadable))} more could not be read" if e.unreadable else ""
    return (
        f"Measured on {count(n)} pictures{groups}: {count(e.data.real)} real, "
        f"{count(e.data.fake)} fake{lost}. Decisions at the operating point "
        f"“{e.operating_point.name}” (score of at least {threshold(e.threshold)})."
    )


def _confusion(e: Evaluation) -> list[tuple[str, list[tuple[int, bool]], int]]:
    c = e.confusion
    rows = [
        ("Fakes", [(c.tp, True), (c.fn, False)], e.data.fake),
        ("Reals", [(c.fp, False), (c.tn, True)], e.data.real),
    ]
    return [row for row in rows if row[2]]


def _answers(e: Evaluation) -> list[tuple[str, list[int], int]]:
    rows = [("Fakes", "fake", e.data.fake), ("Reals", "real", e.data.real)]
    words = ("fake", "unsure", "real")
    return [(title, [e.answers[k][w] for w in words], n) for title, k, n in rows if n]


def _plots(e: Evaluation, both: bool) -> list[dict[str, Any]]:
    points = e.detector.operating_points
    spread = {
        "title": "Scores of either class" if both else "Scores",
        "svg": plots.histogram_plot(e.scores, points),
        "caption": "Share of the class in each of 40 bins. Lines: the bundle's thresholds.",
    }
    if not both:
        return [spread]
    return [
        {
            "title": "ROC",
            "svg": plots.roc_plot(e.scores, points),
            "caption": "All trade-offs between fakes caught and reals accused. Dashed: guessing.",
        },
        {
            "title": "Precision and recall",
            "svg": plots.precision_recall_plot(e.scores),
            "caption": f"In this mix, where {percent(float(e.scores.label.mean()))} are fake "
            "(dashed: calling everything fake). Where fakes are rarer, precision is lower.",
        },
        {
            "title": "Detection error trade-off",
            "svg": plots.det_plot(e.scores, points),
            "caption": "The two error rates on normal-deviate axes, which spread out the rare "
            "errors. Towards the lower left is better.",
        },
        {
            "title": "Reliability",
            "svg": plots.reliability_plot(e.scores),
            "caption": "Do scores mean what they say? On the dashed line, of pictures with score "
            "0.8 eight in ten are fake. Bins of equal mass, 95% intervals, counts below.",
        },
        spread,
        {
            "title": "Errors at every threshold",
            "svg": plots.errors_plot(e.scores, points),
            "caption": "What a stricter or a milder threshold would cost. Choose one on "
            "validation data, not here.",
        },
    ]


def _generators(e: Evaluation) -> list[dict[str, Any]]:
    if e.attacks is None or set(e.attacks.by_generator) <= {UNKNOWN}:
        return []
    sliced = {s.value: s for s in e.slices if s.key == "generator"}
    return [
        {
            "name": name,
            "n": sliced[name].n_fake,
            "reason": sliced[name].reason,
            "apcer": apcer,
            "auc": (sliced[name].figures or {}).get("auc"),
        }
        for name, apcer in e.attacks.by_generator.items()
    ]


def _slices(e: Evaluation) -> list[tuple[str, list[Any]]]:
    """By column, without generators (a table of their own) and columns with a single value."""
    by_key: dict[str, list[Any]] = {}
    for one in e.slices:
        if one.key != "generator":
            by_key.setdefault(one.key, []).append(one)
    return [
        (key.capitalize(), sorted(rows, key=lambda one: _natural(one.value)))
        for key, rows in by_key.items()
        if len(rows) > 1
    ]


def _natural(text: str) -> tuple[bool, list[tuple[int, str]]]:
    """Sorts "3-9" before "20-29", and the unknown last."""
    parts = re.findall(r"([0-9]*)([^0-9]*)", text)
    # Letters alone come after numbers: "more than 70" is the oldest.
    return text == UNKNOWN, [(int(a) if a else sys.maxsize, b) for a, b in parts]


def _mistakes(e: Evaluation, images: Path | None) -> list[tuple[str, list[dict[str, Any]], int]]:
    fake, called = e.scores.label == 1, e.scores.score >= e.threshold
    rank = e.scores.logit
    kinds = [
        ("Fakes passed as real, lowest scores", fake & ~called, rank, "a fake"),
        ("Reals called fake, highest scores", ~fake & called, -rank, "a real face"),
    ]
    found = []
    for title, mask, key, what in kinds:
        rows = np.flatnonzero(mask)
        worst = rows[np.argsort(key[rows], kind="stable")][:WORST]
        if len(rows):
            shown = [_mistake(e, int(i), what, images) for i in worst]
            found.append((title, shown, len(rows)))
    return found


def _mistake(e: Evaluation, i: int, what: str, images: Path | None) -> dict[str, Any]:
    path = e.scores.path[i]
    return {
        "path": path,
        "score": float(e.scores.score[i]),
        "thumbnail": thumbnail(images / path) if images else None,
        "alt": f"{what} that was decided wrongly: {path}",
    }


def _meaning(e: Evaluation, both: bool) -> list[str]:
    said = [
        f"They say how {e.name} does on pictures like these: these sources, these kinds of "
        "forgery, this size and compression. On others it may do better, worse, or no better than "
        "chance; forgeries of kinds it has never seen are usually harder. A figure measured on "
        "one set does not carry over to another.",
        "An interval says how far the figure would move with other pictures of the same kind. It "
        "does not cover other kinds, wrong labels, or a choice made after looking at these "
        "results.",
    ]
    recall, bpcer = e.figures["recall"].value, e.figures["bpcer"].value
    if both and recall is not None and bpcer is not None and recall + bpcer > 0:
        share = recall * _RARE / (recall * _RARE + bpcer * (1 - _RARE))
        said.append(
            f"How much to trust the word “fake” depends on how common fakes are. With the error "
            f"rates measured here, if one picture in a hundred were fake, {percent(share)} of "
            "those called fake would be fake. Precision, accuracy and the score itself hold for "
            "the mix of this set and of the validation data, not for yours."
        )
    said.append(
        "The score of one picture is evidence, not proof. Do not decide about a person on it "
        "alone: look for the original file, its source and its context."
    )
    return said


def _facts(e: Evaluation) -> list[tuple[str, str]]:
    d, c = e.detector, e.detector.calibration
    facts: Mapping[str, str | None] = {
        "Detector": f"{d.name}: {d.architecture}, {count(d.parameters)} weights, "
        f"input {d.input_size} px",
        "Network (SHA-256)": d.model_sha256,
        "Calibration": f"{c.kind}: score = sigmoid({c.slope:.4g} × logit + {c.offset:.4g})",
        "Trained on (fingerprint)": d.data_fingerprint,
        "Data measured": f"{e.data.name}, split {e.data.split}",
        "Data (fingerprint)": e.data.fingerprint,
        "Samples scored (fingerprint)": e.data.scored_fingerprint,
        "Intervals": f"95%, percentile bootstrap with {count(e.resamples)} draws of whole groups "
        f"(identities or source videos), seed {e.seed}; exceptions are in docs/evaluation.md"
        if e.resamples
        else "none were asked for",
        "Decision": f"fake when score ≥ {e.threshold!r}",
        "Measured with": versions(e.versions),
        "Trained with": versions(d.versions),
    }
    return [(term, fact) for term, fact in facts.items() if fact]
