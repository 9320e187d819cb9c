"""Evaluations and comparisons as pages that open anywhere: one file, no script, no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bonaface.compare import Comparison, Entry
from bonaface.errors import MissingExtraError
from bonaface.evaluate import Evaluation, save_evaluation
from bonaface.files import write_text

try:
    from bonaface.report.bench import bench_page, write_bench
    from bonaface.report.comparison import comparison_page
    from bonaface.report.evaluation import evaluation_page
    from bonaface.report.gate import gate_page, write_gate
    from bonaface.report.stress import stress_page, write_stress
    from bonaface.report.study import study_page, write_study
except ImportError as error:
    raise MissingExtraError("the report", "train") from error

__all__ = [
    "bench_page",
    "comparison_page",
    "evaluation_page",
    "gate_page",
    "stress_page",
    "study_page",
    "write_bench",
    "write_comparison_page",
    "write_evaluation",
    "write_gate",
    "write_stress",
    "write_study",
]


def write_evaluation(
    evaluation: Evaluation, out_dir: Path, *, images: Path | None = None
) -> tuple[Path, Path, Path]:
    """Write evaluation.json, scores.csv and report.html; returns their paths.

    Args:
        evaluation: what to write.
        out_dir: made if need be.
        images: the data set's root, to embed small copies of the worst mistakes; None for none.
            Mind whether you may pass these pictures on.
    """
    page = out_dir / "report.html"
    card, table = save_evaluation(evaluation, out_dir)
    write_text(page, evaluation_page(evaluation, images=images))
    return card, table, page


def write_comparison_page(
    comparison: Comparison,
    entries: Sequence[Entry],
    out_dir: Path,
    *,
    notes: Sequence[str] = (),
) -> Path:
    """Write comparison.html and return its path; arguments as in `comparison_page`."""
    page = out_dir / "comparison.html"
    write_text(page, comparison_page(comparison, entries, notes=notes))
    return page
