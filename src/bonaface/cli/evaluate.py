"""``bonaface evaluate``: what a detector does on labelled pictures, with intervals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bonaface.cli._shared import INCOMPLETE, parse_ratios, printable, progress_bar
from bonaface.errors import ConfigError

if TYPE_CHECKING:
    from bonaface.evaluate import Evaluation

_LISTED = 20


def evaluate(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="The --out folder of `bonaface train`.")
    ],
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="Labelled face crops: SPLIT/real|fake/.")
    ],
    *,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write into [default: BUNDLE/evaluations/DATA-SPLIT]."),
    ] = None,
    operating_point: Annotated[
        str, typer.Option(help="The bundle's threshold: balanced, fake_above or real_below.")
    ] = "balanced",
    images: Annotated[
        bool, typer.Option("--images", help="Show the worst mistakes as small pictures.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(metavar="N", help="Score at most N pictures of the split.")
    ] = None,
    ratios: Annotated[
        str | None,
        typer.Option(
            metavar="80/10/10", help="For data without splits [those it was trained with]."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of intervals and limit.")] = 0,
) -> None:
    """Measure a detector on one split: figures with intervals, curves, mistakes, a report.

    Writes evaluation.json, scores.csv and report.html. Exit code 3 says that some pictures could
    not be read; they are listed and count in no figure.
    """
    from bonaface.detector import load_detector
    from bonaface.evaluate import evaluate as measure
    from bonaface.report import write_evaluation
    from bonaface.samples import load_samples

    if "/" in split:
        raise ConfigError(
            f"expected the name of a split after --split, got {split!r}; shares go to --ratios"
        )
    detector = load_detector(bundle)
    samples = load_samples(data, ratios=parse_ratios(ratios) or detector.bundle.ratios)
    with progress_bar("scoring") as progress:
        found = measure(
            detector,
            samples,
            split=split,
            operating_point=operating_point,
            seed=seed,
            progress=progress,
            limit=limit,
        )
    folder = out or bundle / "evaluations" / f"{found.data.name}-{split}"
    written = write_evaluation(found, folder, images=samples.root if images else None)
    _show(found)
    for path in written:
        typer.echo(f"wrote {printable(str(path))}")
    if found.unreadable:
        _list_unreadable(found)
        raise typer.Exit(INCOMPLETE)


def _show(found: Evaluation) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("figure", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("95% interval", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("")
    for name, figure in found.figures.items():
        value = "-" if figure.value is None else f"{figure.value:.4f}"
        between = (
            ""
            if figure.low is None or figure.high is None
            else f"{figure.low:.4f}-{figure.high:.4f}"
        )
        table.add_row(name, value, between, str(figure.n), Text(figure.reason or "", style="dim"))
    data = found.data
    typer.echo(
        printable(
            f"{found.name} on {data.name}, {data.split}: {data.real} real, {data.fake} fake; "
            f"fake from a score of {found.threshold:.4g} ({found.operating_point.name})"
        )
    )
    Console().print(table)
    for note in found.notes:
        typer.echo(f"note: {printable(note)}")


def _list_unreadable(found: Evaluation) -> None:
    typer.echo(f"{len(found.unreadable)} pictures could not be read:", err=True)
    for one in found.unreadable[:_LISTED]:
        typer.echo(f"  {printable(one.path)}: {printable(one.reason)}", err=True)
    if len(found.unreadable) > _LISTED:
        typer.echo(f"  and {len(found.unreadable) - _LISTED} more, in evaluation.json", err=True)
