"""``bonaface scan``: any number of pictures to one Parquet file of verdicts."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bonaface.cli._shared import (
    INCOMPLETE,
    INTERRUPTED,
    SHIPPED,
    FacesOption,
    FinderOption,
    ModelOption,
    PrevalenceOption,
    StabilityOption,
    printable,
)
from bonaface.errors import ConfigError

if TYPE_CHECKING:
    from bonaface.scan import Scan, ScanWatch

_WORDS = ("fake", "unsure", "real", "not_applicable")
_EVERY = 30.0  # seconds between lines where stderr is no terminal
_LISTED = 5


def scan(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Folders, patterns, .tar shards, .parquet, or addresses such as s3://bucket/in.",
        ),
    ],
    *,
    out: Annotated[Path, typer.Option(metavar="FILE.parquet", help="File to write.")],
    model: ModelOption = SHIPPED,
    faces: FacesOption = "auto",
    stability: StabilityOption = False,
    prevalence: PrevalenceOption = 0.5,
    finder: FinderOption = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Processes [one for each core].")
    ] = None,
    engine: Annotated[
        str, typer.Option(metavar="local|ray", help="This machine, or a Ray cluster.")
    ] = "local",
    dedupe: Annotated[
        bool, typer.Option("--dedupe", help="Judge files with the same bytes once.")
    ] = False,
    column: Annotated[
        str | None, typer.Option(help="Of Parquet, the column with the pictures.")
    ] = None,
    images: Annotated[
        bool, typer.Option("--images", help="Show the highest scores' pictures, small.")
    ] = False,
) -> None:
    """Judge every picture of large sources into one table, one row a face.

    Stop it as you like, also by kill -9: the same command goes on, judges nothing that is written
    again, and ends in the same rows. Writes FILE.parquet, and FILE.json and FILE.html with its
    figures. Exit code 3: some pictures could not be read; their rows say why.
    """
    if engine not in ("local", "ray"):
        raise ConfigError(f"expected --engine local or ray, got {engine!r}; choose one of them")
    if out.suffix != ".parquet":
        raise ConfigError(f"expected --out FILE.parquet, got {str(out)!r}; name it so")
    from bonaface.report.scan import write_scan
    from bonaface.scan import scan as run

    try:
        with _watch() as watch:
            found = run(
                sources, model, out,
                faces=faces,  # type: ignore[arg-type]
                engine=engine,  # type: ignore[arg-type]
                stability=stability, prevalence=prevalence, finder=finder, workers=workers,
                dedupe=dedupe, column=column, watch=watch,
            )  # fmt: skip
    except KeyboardInterrupt:
        typer.echo("bonaface: stopped; the same command goes on", err=True)
        raise typer.Exit(INTERRUPTED) from None
    written = [found.out, *write_scan(found.summary, found.out, images=images)]
    _show(found)
    for path in written:
        typer.echo(f"wrote {printable(str(path))}")
    lost = sum(found.summary.unreadable.values())
    if lost:
        typer.echo(f"{lost:,} pictures could not be read; their rows say why", err=True)
        raise typer.Exit(INCOMPLETE)


def _show(found: Scan) -> None:
    summary = found.summary
    typer.echo(f"{summary.count:,} pictures: {_counted(Counter(summary.pictures))}")
    if found.judged:
        rate = found.judged / max(found.seconds, 1e-9)
        typer.echo(f"{found.judged:,} judged now in {_span(found.seconds)}, {rate:,.1f} a second")
    else:
        typer.echo("nothing was left to judge")
    if summary.copies:
        typer.echo(f"{summary.copies:,} have the bytes of another: judged once")
    if found.replaced:
        typer.echo(f"{found.replaced} processes were lost and replaced")
    for folder in summary.folders[:_LISTED]:
        typer.echo(
            f"  {folder.fakes:,} of {folder.pictures:,} called fake in {printable(folder.path)}"
        )
    for reason, count in list(summary.unreadable.items())[:_LISTED]:
        typer.echo(f"  {count:,} not read: {printable(reason)}")


def _counted(counts: Counter[str]) -> str:
    said = ", ".join(f"{counts[word]:,} {word}" for word in _WORDS if counts[word])
    return said or "none yet"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


@contextmanager
def _watch() -> Iterator[ScanWatch]:
    """A bar where stderr is a terminal, elsewhere a line every half minute."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}", markup=False),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        yield _terminal_watch(bar)


def _terminal_watch(bar: Any) -> ScanWatch:
    from bonaface.scan import ScanWatch

    class Terminal(ScanWatch):
        """Draws, or tells, what it is told."""

        def __init__(self) -> None:
            self._task = bar.add_task("listing", total=None, told="")
            self._what = "listing"
            self._before: int | None = None
            self._begun = self._said = time.monotonic()

        def found(self, pictures: int) -> None:
            self._tell("listing", pictures, None, "")

        def hashed(self, done: int, total: int) -> None:
            self._tell("finding copies", done, total, self._speed(done, total))

        def judged(self, done: int, total: int, counts: Counter[str]) -> None:
            self._tell("judging", done, total, f"{self._speed(done, total)}  {_counted(counts)}")

        def joining(self) -> None:
            self._tell("joining the parts", 0, None, "")

        def _speed(self, done: int, total: int) -> str:
            if self._before is None:
                return ""
            rate = (done - self._before) / max(time.monotonic() - self._begun, 1e-9)
            left = f", {_span((total - done) / rate)} left" if rate > 0 else ""
            return f"{rate:,.1f}/s{left}"

        def _tell(self, what: str, done: int, total: int | None, told: str) -> None:
            now = time.monotonic()
            if what != self._what:
                bar.remove_task(self._task)
                self._task = bar.add_task(what, total=total, told="")
                self._what, self._before, self._begun = what, done, now
            bar.update(self._task, completed=done, total=total, told=told)
            if bar.disable and now - self._said >= _EVERY:
                self._said = now
                of = "" if total is None else f" of {total:,}"
                print(f"{what}: {done:,}{of}  {told}", file=sys.stderr, flush=True)

    return Terminal()
