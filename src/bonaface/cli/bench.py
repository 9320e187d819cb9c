"""``bonaface bench``: how fast detectors are here, by what runs them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bonaface.cli._shared import INCOMPLETE, printable, progress_steps

if TYPE_CHECKING:
    from rich.table import Table

    from bonaface.bench.measuring import Bench, Measured
    from bonaface.bench.rounds import Spread


def bench(
    bundles: Annotated[
        list[Path], typer.Argument(metavar="BUNDLE...", help="Detectors and exports of them.")
    ],
    *,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write everything as JSON.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write bench.json and bench.html into.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DATA", help="Measure AUC on its test split [that of the cards, validation]."
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", help="Of --data, score at most N pictures.")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(help="In each, everything takes its turn [10].")
    ] = None,
    calls: Annotated[
        int | None, typer.Option(help="With one crop, in each round [25]; p99 needs 200 in all.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Of the processor, for all [every core].")
    ] = None,
) -> None:
    """Measure latency, throughput, start, memory and size with every runtime that is installed.

    ONNX Runtime, OpenVINO and PyTorch eager take turns in rounds; ratios are to PyTorch eager
    within each round. Run it on a machine that does nothing else. Exit code 3: some pictures of
    --data could not be read.
    """
    from bonaface.bench.measuring import BenchConfig
    from bonaface.bench.measuring import bench as measure
    from bonaface.bundle import load_bundle
    from bonaface.errors import ConfigError
    from bonaface.files import write_json
    from bonaface.report import write_bench
    from bonaface.samples import load_samples

    if limit is not None and data is None:
        raise ConfigError("expected --limit with --data only; leave it out, or name a data set")
    settings = BenchConfig.read(None, rounds=rounds, calls=calls, threads=threads)
    samples = load_samples(data, ratios=load_bundle(bundles[0]).ratios) if data else None
    with progress_steps(unit=None) as progress:
        found = measure(bundles, settings, samples=samples, limit=limit, progress=progress)
    _show(found)
    written = list(write_bench(found, out)) if out else []
    if json:
        write_json(json, found.to_dict())
        written.append(json)
    for path in written:
        typer.echo(f"wrote {printable(str(path))}")
    if found.unreadable:
        typer.echo(f"{found.unreadable} pictures could not be read", err=True)
        raise typer.Exit(INCOMPLETE)


def _show(found: Bench) -> None:
    from rich.console import Console

    machine, settings = found.machine, found.settings
    load = "" if machine.load is None else f", load {machine.load:.1f} before"
    typer.echo(
        printable(
            f"{machine.processor or 'processor not known'}, {machine.cores} cores{load}; "
            f"threads: {settings.threads}; {found.crops}, {settings.rounds} rounds of "
            f"{settings.calls} calls"
        )
    )
    for arms in found.groups:
        for lines in (_latency(arms), _throughput(arms), _needs(arms)):
            typer.echo()
            Console().print(_table(lines))
    typer.echo()
    for note in found.notes:
        typer.echo(f"note: {printable(note)}")


def _latency(arms: Sequence[Measured]) -> list[list[str]]:
    rows = [["one crop, ms", "p50", "p95", "p99", "times as fast", "min-max", "AUC"]]
    for one in arms:
        ratio = _ratio(one.single_ratio) if one.name != one.against else ["1", ""]
        quantiles = (_digits(value) for value in (one.p50, one.p95, one.p99))
        rows.append([one.name, *quantiles, *ratio, _digits(one.auc.value, 3)])
    return rows


def _throughput(arms: Sequence[Measured]) -> list[list[str]]:
    batches = list(arms[0].rates)
    rows = [["crops/s, in batches of", *map(str, batches), "times as fast", "min-max"]]
    for one in arms:
        last = one.rate_ratios[batches[-1]]
        ratio = _ratio(last) if one.name != one.against else ["1", ""]
        rows.append([one.name, *(f"{one.rates[b].median:,.0f}" for b in batches), *ratio])
    return rows


def _needs(arms: Sequence[Measured]) -> list[list[str]]:
    rows = [["needs", "start, s", "MiB", "file, MB", "mJ a crop", "moves"]]
    for one in arms:
        memory = "-" if one.memory is None else f"{one.memory.median:,.0f}"
        energy = "-" if one.joules is None else _digits(1000 * one.joules.median)
        moved = f"{one.moved:.1g}" if one.name != one.against else ""
        start, size = _digits(one.start.median), _digits(one.bytes / 1e6)
        rows.append([one.name, start, memory, size, energy, moved])
    return rows


def _table(lines: list[list[str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for at, title in enumerate(lines[0]):
        table.add_column(title, justify="right" if at else "left", no_wrap=at > 0)
    for line in lines[1:]:
        table.add_row(*(Text(printable(cell)) for cell in line))
    return table


def _ratio(spread: Spread) -> list[str]:
    return [f"{spread.median:.2f}", f"{spread.low:.2f}-{spread.high:.2f}"]


def _digits(value: float | None, after: int | None = None) -> str:
    if value is None:
        return "-"
    if after is None:
        after = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{after}f}"
