"""The check of an export as one page that stands alone."""

from __future__ import annotations

from pathlib import Path

from bonaface.export import Gate
from bonaface.files import write_text
from bonaface.report import plots
from bonaface.report.render import FIGURES, count, render


def write_gate(gate: Gate, folder: Path) -> Path:
    """Write gate.html beside the gate.json that `export` wrote; returns its path."""
    page = folder / "gate.html"
    write_text(page, gate_page(gate))
    return page


def gate_page(gate: Gate) -> str:
    """The check as HTML."""
    before, after = (f"{size / 1e6:.1f} MB" for size in gate.bytes)
    return render(
        "gate.html",
        g=gate,
        title=f"{gate.source} as {gate.form}",
        verdict=_verdict(gate),
        basis=_basis(gate),
        figures=[(*FIGURES[one.name], one) for one in gate.changes],
        plot=plots.agreement_plot(gate.before, gate.after),
        facts=[
            ("Original", f"{gate.source}, {before}"),
            ("Export", f"{gate.exported}, {after}"),
            ("Pictures", gate.data["fingerprint"] if gate.data else "drawn faces"),
        ],
    )


def _verdict(gate: Gate) -> str:
    moved = f"No score moves by more than {_small(gate.largest)}; on average by {_small(gate.mean)}"
    words = f"{count(gate.words)} of {count(len(gate.before))} pictures get another word."
    if gate.passed:
        return f"The export passes. {moved}, and {words}"
    broken = " and ".join(check.name for check in gate.checks if not check.holds)
    return f"The export does not pass and was not written: beyond its bound is {broken}. {words}"


def _basis(gate: Gate) -> str:
    if gate.data is None:
        return f"Compared on {len(gate.before)} drawn faces, which carry no labels worth measuring."
    groups = f" in {count(gate.n_groups)} groups" if gate.n_groups < len(gate.before) else ""
    return (
        f"Both scored the same pictures, {gate.data['name']}, {gate.data['split']}: "
        f"{count(gate.n_real)} real and {count(gate.n_fake)} fake{groups}. Decisions at the "
        "operating point balanced."
    )


def _small(value: float) -> str:
    return f"{value:.2g}"
