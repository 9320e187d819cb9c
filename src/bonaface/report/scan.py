"""A scan's figures as JSON, and as one page that stands alone; no picture is on it unless asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from bonaface.files import write_json, write_text
from bonaface.report.plots import _SIDE, INK, SERIES, _canvas, _styled, _svg
from bonaface.report.render import count, percent, render
from bonaface.report.thumbnails import thumbnail
from bonaface.scan.summary import BINS, Summary

_ANSWERS = {
    "fake": "a face scores at or above fake_above",
    "unsure": "between the thresholds, or not to be relied on",
    "real": "below real_below",
    "not_applicable": "nothing to judge: no face, too small, unreadable",
}


def write_scan(summary: Summary, out: Path, *, images: bool = False) -> tuple[Path, Path]:
    """Write the summary beside a scan, with the endings .json and .html; returns their paths.

    Args:
        summary: what to write.
        out: the scan's file.
        images: embed small copies of the pictures with the highest scores, where they are plain
            files. Mind whether you may pass these pictures on.
    """
    card, page = out.with_suffix(".json"), out.with_suffix(".html")
    write_json(card, summary.to_dict())
    write_text(page, scan_page(summary, images=images))
    return card, page


def scan_page(summary: Summary, *, images: bool = False) -> str:
    """The figures as HTML; `images` as for `write_scan`."""
    note = summary.note
    model, bands = note["model"], note["bands"]
    total = max(summary.count, 1)
    return render(
        "scan.html",
        s=summary,
        lead=_lead(summary),
        answers=[
            (name, meaning, summary.pictures.get(name, 0), summary.pictures.get(name, 0) / total)
            for name, meaning in _ANSWERS.items()
        ],
        scored=sum(summary.histogram),
        histogram=scores_plot(summary),
        unreadable=sum(summary.unreadable.values()),
        worst=[(one, thumbnail(Path(one.path)) if images else None) for one in summary.worst],
        images=images,
        facts=[
            ("Sources", ", ".join(note["sources"])),
            ("Model", f"{model['name']}, made by bonaface {model['version']}"),
            ("SHA-256 of its network", model["sha256"] or "not known"),
            (
                "Thresholds",
                f"fake from {bands['fake_above']:.4g}, real below {bands['real_below']:.4g}, at a "
                f"prevalence of {bands['prevalence']:g}",
            ),
            ("Faces", "found" if note["faces"] == "auto" else "each picture taken for a crop"),
            ("Copies", "judged once" if note["dedupe"] else "judged as often as they come"),
            (
                "Time of all processes",
                ", ".join(f"{name} {value:,.0f} s" for name, value in summary.seconds.items())
                + " (find and score are part of judge)",
            ),
        ],
    )


def scores_plot(summary: Summary) -> Markup:
    """How many faces score how high, with the thresholds."""
    bands = summary.note["bands"]
    with _styled():
        canvas = _canvas(0.7 * _SIDE)
        axes = canvas.add_subplot()
        edges = np.linspace(0, 1, BINS + 1)
        axes.bar(edges[:-1], summary.histogram, width=1 / BINS, align="edge", color=SERIES[0], lw=0)
        for name, dash in (("fake_above", "--"), ("real_below", "-.")):
            axes.axvline(min(bands[name], 1.0), color=INK, lw=1.1, ls=dash, label=name)
        axes.set(xlabel="Score", ylabel="Faces", xlim=(-0.02, 1.02))
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.grid(axis="x", visible=False)
        canvas.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2)
        return _svg(canvas, "scores", "Histogram of the scores of all faces, with the thresholds")


def _lead(summary: Summary) -> str:
    fakes = summary.pictures.get("fake", 0)
    copies = f", {count(summary.copies)} of them copies of others" if summary.copies else ""
    lost = sum(summary.unreadable.values())
    unread = f"; {count(lost)} could not be read" if lost else ""
    if not summary.count:
        return "No pictures."
    return (
        f"{count(fakes)} of {count(summary.count)} pictures ({percent(fakes / summary.count)})"
        f"{copies} are called fake{unread}."
    )
