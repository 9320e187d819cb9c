"""``bonaface stress``: what corruptions and attacks do to detectors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bonaface.cli._shared import INCOMPLETE, INTERRUPTED, printable
from bonaface.errors import ConfigError

if TYPE_CHECKING:
    from bonaface.metrics import Figure
    from bonaface.stress import Stress

_WORST = 6


def stress(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="BUNDLE... DATA", help="One or more detectors, then labelled face crops."
        ),
    ],
    *,
    out: Annotated[Path, typer.Option(help="Folder to write into.")],
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    limit: Annotated[
        int | None, typer.Option(metavar="N", help="At most N pictures of the split.")
    ] = None,
    corruptions: Annotated[
        str | None,
        typer.Option(metavar="NAME,NAME", help="These instead of all; none for none."),
    ] = None,
    attacks: Annotated[
        str | None,
        typer.Option(metavar="NAME,NAME", help="Instead of fgsm, pgd, pgd-l2; none for none."),
    ] = None,
    budgets: Annotated[
        str | None, typer.Option(metavar="B,B", help="Of attacks, in 1/255 [1,2,4,8].")
    ] = None,
    attack_limit: Annotated[
        int | None, typer.Option(metavar="N", help="Attack at most N of the pictures [100].")
    ] = None,
    jpeg: Annotated[
        int | None, typer.Option(metavar="Q", help="Save attacked pictures as JPEG of quality Q.")
    ] = None,
    images: Annotated[
        bool, typer.Option("--images", help="Show the most fragile pictures, small.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Of all chance [0].")] = None,
) -> None:
    """Measure what re-saving, corruptions and attacks do to detectors.

    Writes stress.json and stress.html. Stop it with Ctrl-C; the same command goes on, and may ask
    for more corruptions, attacks or detectors. Exit code 3: some pictures could not be read.
    """
    from bonaface.detector import load_detector
    from bonaface.report import write_stress
    from bonaface.samples import load_samples
    from bonaface.stress import StressConfig
    from bonaface.stress import stress as measure

    if len(paths) < 2:
        raise ConfigError(
            f"expected at least one bundle and then a data set, got {len(paths)} path; name both"
        )
    settings = StressConfig.read(
        None,
        split=split,
        limit=limit,
        corruptions=_names(corruptions),
        attacks=_names(attacks),
        budgets=_numbers(budgets),
        attack_limit=attack_limit,
        jpeg=jpeg,
        seed=seed,
    )
    detectors = [load_detector(path) for path in paths[:-1]]
    samples = load_samples(paths[-1], ratios=detectors[0].bundle.ratios)
    try:
        with _steps() as progress:
            found = measure(detectors, samples, out, settings, progress=progress)
    except KeyboardInterrupt:
        typer.echo(f"bonaface: stopped; the same command goes on with {out}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    written = write_stress(found, out, images=samples.root if images else None)
    _show(found)
    for path in written:
        typer.echo(f"wrote {path}")
    if found.unreadable:
        typer.echo(f"{len(found.unreadable)} pictures could not be read; stress.json", err=True)
        raise typer.Exit(INCOMPLETE)


def _names(text: str | None) -> list[str] | None:
    if text is None:
        return None
    return [] if text == "none" else [name.strip() for name in text.split(",")]


def _numbers(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"expected budgets such as 1,2,4, got {text!r}; give numbers with commas between them"
        ) from None


@contextmanager
def _steps() -> Iterator[Callable[[int, int, str], None] | None]:
    """A bar over the conditions on a terminal; otherwise a line a condition."""
    if not sys.stderr.isatty():
        yield lambda done, total, what: typer.echo(f"{done + 1} of {total}: {what}", err=True)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, what: bar.update(
            task, completed=done, total=total, description=printable(what)
        )


def _show(found: Stress) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    for one in found.detectors:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column(Text(printable(one.name)), no_wrap=True)
        for title in ("AUC", "fakes passed", "reals accused", "ECE"):
            table.add_column(title, justify="right", no_wrap=True)
        table.add_row("clean", *_cells(one.clean.figures))
        corrupted = one.of("corruption")
        worst = sorted(corrupted, key=lambda o: o.figures["auc"].value or 0)[:_WORST]
        attacked = [o for o in one.of("attack") if o.condition.source is None]
        for outcome in (*one.of("delivery"), *worst, *attacked):
            what = f"{outcome.condition}" + (f", {outcome.direction}" if outcome.direction else "")
            table.add_row(Text(printable(what)), *_cells(outcome.figures))
        Console().print(table)
        if len(corrupted) > len(worst):
            typer.echo(f"of {len(corrupted)} corruptions the {len(worst)} worst; all: stress.html")
        for check in one.checks:
            if not check.holds:
                typer.echo(printable(f"note: it does not hold that {check.claim}: {check.found}"))
    for note in found.notes:
        typer.echo(f"note: {printable(note)}")


def _cells(figures: Mapping[str, Figure]) -> list[str]:
    values = [figures[name].value for name in ("auc", "apcer", "bpcer", "ece")]
    return ["-" if value is None else f"{value:.3f}" for value in values]
