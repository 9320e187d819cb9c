"""A `Comparison` as one page that stands alone."""

from __future__ import annotations

from collections.abc import Sequence

from bonaface.compare import Comparison, Entry
from bonaface.report import plots
from bonaface.report.render import FIGURES, count, in_words, render


def comparison_page(
    comparison: Comparison, entries: Sequence[Entry], *, notes: Sequence[str] = ()
) -> str:
    """The comparison as HTML.

    Args:
        comparison: what `compare` found.
        entries: what it compared; their scores make the ROC curves.
        notes: what a reader must know before quoting a figure.
    """
    c = comparison
    both = c.n_real > 0 and c.n_fake > 0
    contenders = c.contenders
    drawn = []
    for name in ("auc", "accuracy") if both else ("accuracy",):
        title = FIGURES[name][0]
        rows = [(one.name, one.figures[name]) for one in contenders]
        drawn.append({"title": title, "svg": plots.forest_plot(title, rows), "caption": ""})
    if both:
        drawn.append(
            {
                "title": "ROC",
                "svg": plots.roc_overlay(entries),
                "caption": "Dashed diagonal: guessing. Marks: each detector's own threshold.",
            }
        )
    return render(
        "comparison.html",
        c=c,
        verdict=_verdict(c),
        basis=_basis(c),
        notes=notes,
        figures=[
            (*FIGURES[name], [one.figures[name] for one in contenders])
            for name in contenders[0].figures
        ],
        plots=drawn,
        facts=[
            ("Detectors", ", ".join(one.name for one in contenders)),
            ("Intervals", f"95%, {count(c.resamples)} draws of whole groups, seed {c.seed}"),
            ("Samples", "joined by path; labels and groups agree"),
        ],
    )


def _verdict(c: Comparison) -> str:
    names = [one.name for one in c.contenders]
    if not (c.n_real and c.n_fake):
        shown = [(p.better_accuracy, p) for p in c.pairs if p.better_accuracy]
        what, verb = "decisions", "decides rightly more often than"
    else:
        shown = [(p.better_auc, p) for p in c.pairs if p.better_auc]
        what, verb = "AUC", "tells fakes from reals better than"
    if not shown:
        return f"No difference in {what} between these detectors could be shown."
    beaten = {
        name: [p.second if better == p.first else p.first for better, p in shown if better == name]
        for name in names
    }
    for name, others in beaten.items():
        if len(others) == len(names) - 1:
            return f"{name} {verb} {in_words(others)}."
    parts = [f"{name} {verb} {in_words(others)}" for name, others in beaten.items() if others]
    return "; ".join(parts) + ". Between the other pairs no difference could be shown."


def _basis(c: Comparison) -> str:
    n = c.n_real + c.n_fake
    groups = f" in {count(c.n_groups)} groups (identities or source videos)"
    return (
        f"{count(c.n_real)} real and {count(c.n_fake)} fake{groups if c.n_groups < n else ''}. "
        "Each detector decides at its own threshold, which was chosen on validation data."
    )
