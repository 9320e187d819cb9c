"""How fast detectors are, as one page that stands alone."""

from __future__ import annotations

from pathlib import Path

from bonaface.bench.arms import TITLES
from bonaface.bench.measuring import Bench, Measured
from bonaface.files import write_json, write_text
from bonaface.report.bench_plots import accuracy_plot, throughput_plot
from bonaface.report.render import render, versions


def write_bench(found: Bench, folder: Path) -> tuple[Path, Path]:
    """Write bench.json and bench.html; returns their paths."""
    card, page = folder / "bench.json", folder / "bench.html"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(card, found.to_dict())
    write_text(page, bench_page(found))
    return card, page


def bench_page(found: Bench) -> str:
    """The figures as HTML."""
    machine, settings = found.machine, found.settings
    bundles = len({one.bundle for one in found.measured})
    return render(
        "bench.html",
        b=found,
        title="How fast: " + (found.measured[0].bundle if bundles == 1 else f"{bundles} bundles"),
        lead=_lead(found),
        basis=(
            f"One crop to one logit: resized, normalised, through the network. {found.crops}; "
            f"{settings.rounds} rounds in which everything takes its turn, each with "
            f"{settings.calls} calls with one crop. Processor threads, for each: "
            f"{settings.threads}."
        ),
        batches=list(found.measured[0].rates),
        titles=TITLES,
        choice=accuracy_plot(found),
        rates=throughput_plot(found),
        digits=digits,
        facts=[
            ("Processor", machine.processor or "not known"),
            ("Cores", f"{machine.cores}; threads for each: {settings.threads}"),
            ("Load before", "not known" if machine.load is None else f"{machine.load:.2f}"),
            ("System", machine.system),
            ("Libraries", versions(machine.versions)),
            ("Accuracy", found.accuracy),
        ],
    )


def digits(value: float) -> str:
    """Three significant digits or all of the whole number."""
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def _lead(found: Bench) -> str:
    fastest = min(found.measured, key=lambda one: one.p50)
    begin = f"Fastest with one crop is {fastest.name}: {digits(fastest.p50)} ms"
    if fastest.name != fastest.against:
        begin += f", {_times(fastest)} as fast as {fastest.against}"
    if fastest.accuracy is None:
        return f"{begin}. Its AUC is not known."
    # The fastest of the most accurate.
    best = max(found.measured, key=lambda one: (one.accuracy or 0, -one.p50))
    if best.accuracy == fastest.accuracy:
        return f"{begin}. None is more accurate (AUC {best.accuracy:.3f})."
    return (
        f"{begin}, with AUC {fastest.accuracy:.3f}. Most accurate is {best.name}: AUC "
        f"{best.accuracy:.3f} at {digits(best.p50)} ms."
    )


def _times(one: Measured) -> str:
    ratio = one.single_ratio
    return f"{ratio.median:.1f} times ({ratio.low:.1f} to {ratio.high:.1f})"
