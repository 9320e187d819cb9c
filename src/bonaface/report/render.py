"""Templates, and how numbers are written on a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bonaface import __version__
from bonaface.evaluate import as_utf8
from bonaface.metrics import Figure

# Title and meaning of each figure, for a reader who is no statistician.
FIGURES = {
    "accuracy": ("Accuracy", "share decided rightly"),
    "balanced_accuracy": ("Balanced accuracy", "mean of recall and the share of reals called real"),
    "precision": ("Precision", "share of fakes among those called fake, in this mix"),
    "recall": ("Recall", "share of fakes caught"),
    "f1": ("F1", "harmonic mean of precision and recall"),
    "auc": ("AUC", "chance that a fake scores above a real; 0.5 is guessing"),
    "ap": ("Average precision", "area under precision over recall, in this mix"),
    "eer": ("Equal error rate", "where both error rates meet"),
    "apcer": ("APCER", "share of fakes passed as real"),
    "bpcer": ("BPCER", "share of reals called fake"),
    "tpr_at_fpr_1": ("Recall at 1% false alarms", "fakes caught when 1 real in 100 may be accused"),
    "tpr_at_fpr_01": (
        "Recall at 0.1% false alarms",
        "fakes caught when 1 real in 1,000 may be accused",
    ),
    "brier": ("Brier score", "mean squared error of the score; 0 is perfect"),
    "ece": ("ECE", "mean gap between score and share of fakes; 0 is perfect"),
}


def render(template: str, **context: Any) -> str:
    """Fill one of the templates beside this file; everything put in is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "rate": rate,
        "percent": percent,
        "span": span,
        "count": count,
        "threshold": threshold,
        "along": along,
        "p": p_value,
    }
    return as_utf8(environment.get_template(template).render(version=__version__, **context))


def rate(value: float) -> str:
    """Three decimals, with a true minus."""
    return _minus(f"{value:.3f}")


def percent(value: float) -> str:
    """One decimal; never rounded to 0% or 100% when it is neither."""
    shown = f"{100 * value:.1f}"
    if value > 0 and shown == "0.0":
        return "<0.1%"
    if value < 1 and shown == "100.0":
        return ">99.9%"
    return _minus(shown) + "%"


def span(figure: Figure, as_percent: bool = False) -> str:
    """The interval; of rates with an en dash, of differences (which may be negative) with "to"."""
    if figure.low is None or figure.high is None:
        return ""
    low, high = figure.low, figure.high
    # Word joiners keep a line from breaking inside.
    between = " to " if low < 0 else "\u2060–\u2060"
    if as_percent:
        return _minus(f"{100 * low:.1f}{between}{100 * high:.1f}") + "%"
    return f"{rate(low)}{between}{rate(high)}"


def count(value: int) -> str:
    """Thousands apart."""
    return f"{value:,}"


def threshold(value: float) -> str:
    """Four significant digits; thresholds may lie very near 0 or 1."""
    near_one = 1 - value
    return f"{value:.4g}" if value < 0.9995 or near_one <= 0 else f"1 − {near_one:.2g}"


def along(value: float) -> str:
    """[0, 1] -> place on the small axis of a table's row."""
    return f"{6 + 100 * value:.1f}"


def p_value(value: float | None) -> str:
    """As journals print it."""
    if value is None:
        return "—"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def with_interval(figure: Figure) -> str:
    """A share for running text."""
    if figure.value is None:
        return f"undefined ({figure.reason})"
    inside = (
        f"95% interval {span(figure, True)}"
        if figure.low is not None
        else f"no interval: {figure.reason}"
    )
    return f"{percent(figure.value)} ({inside})"


def in_words(names: Sequence[str]) -> str:
    """Names with commas, and "and" before the last."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def versions(found: Mapping[str, str]) -> str:
    """Libraries with their versions."""
    return ", ".join(f"{name} {number}" for name, number in found.items())


def _minus(text: str) -> str:
    return text.replace("-", "−")
