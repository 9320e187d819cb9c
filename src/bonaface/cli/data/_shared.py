"""Options and output that the commands of ``bonaface data`` share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bonaface.cli._shared import INCOMPLETE, INTERRUPTED, printable, progress_bar
from bonaface.errors import ConfigError

if TYPE_CHECKING:
    from bonaface.crops import CropRecipe
    from bonaface.faces import Finder

Margin = Annotated[
    float | None, typer.Option(help="Side of the crop over the longer side of the face [1.3].")
]
Like = Annotated[
    Path | None, typer.Option(metavar="BUNDLE", help="Cut as this detector's faces were.")
]
FinderFile = Annotated[
    Path | None,
    typer.Option("--finder", metavar="FILE", help="A YuNet file to find faces with [CenterFace]."),
]
Ratios = Annotated[str | None, typer.Option(metavar="80/10/10", help="For data without splits.")]
Seed = Annotated[int, typer.Option(min=0, help="Of everything random.")]


@contextmanager
def resumable(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """What to report progress to; Ctrl-C inside says how to go on and exits."""
    try:
        with progress_bar(what) as progress:
            yield progress
    except KeyboardInterrupt:
        typer.echo("bonaface: stopped; the same command goes on", err=True)
        raise typer.Exit(INTERRUPTED) from None


def check_recipe(margin: float | None, like: Path | None) -> None:
    """Raise ConfigError where both say how to cut."""
    if margin is not None and like is not None:
        raise ConfigError(
            f"expected --margin or --like, got both ({margin:g} and {str(like)!r}); leave out one"
        )


def recipe_of(margin: float | None, like: Path | None, origin: str) -> CropRecipe:
    """The recipe that the options name."""
    from bonaface.bundle import load_bundle
    from bonaface.crops import CropRecipe

    if like is None:
        return CropRecipe(CropRecipe().margin if margin is None else margin, origin=origin)
    bundle = load_bundle(like)
    told, origin = bundle.recipe, f"{origin}, as those of {bundle.card.name}"
    return CropRecipe(told.margin, told.shift, told.max_side, told.min_face, origin)


def finder_of(file: Path | None) -> Finder:
    """The finder that the option names, with one thread a call: two pictures are at work."""
    from bonaface.faces import CenterFace, YuNet

    return CenterFace(threads=1) if file is None else YuNet(file)


def show_splits(splits: dict[str, Any]) -> None:
    """What is in each split, and which generators' fakes."""
    columns = ("pictures", "groups", "real", "fake")
    table(
        ("split", *columns),
        [(name, *(n[key] for key in columns)) for name, n in splits.items()],
    )
    made = {name: n["generators"] for name, n in splits.items()}
    generators = sorted({generator for n in made.values() for generator in n})
    if generators:
        table(
            ("generator", *made),
            [(name, *(n.get(name, 0) for n in made.values())) for name in generators],
        )


def show_reasons(what: str, reasons: dict[str, int]) -> None:
    """A table of why some were not used, if any."""
    if reasons:
        table((what, "why"), [(str(n), why) for why, n in reasons.items()])


def conclude(out: Path, report: str, notes: Iterable[str], failed: int = 0, what: str = "") -> None:
    """Notes, where the results lie, and exit code 3 where some inputs failed.

    Args:
        out: the new set.
        report: name of the report in it.
        notes: what a person should know.
        failed: inputs that could not be used.
        what: happened to them, such as "pictures were not cut".
    """
    for note in notes:
        typer.echo(f"note: {printable(note)}")
    typer.echo(f"Set:    {printable(str(out))}\nReport: {printable(str(out / report))}")
    if failed:
        from bonaface.cropping.tables import FAILURES

        where = printable(str(out / FAILURES))
        typer.echo(f"{failed} {what}; they are listed in {where}", err=True)
        raise typer.Exit(INCOMPLETE)


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table on a terminal; elsewhere one line a row, separated by tabs."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    lines = [[printable(str(cell)) for cell in row] for row in rows]
    if not console.is_terminal:
        for line in ([*header], *lines):
            typer.echo("\t".join(line))
        return
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for name in header:
        drawn.add_column(name)
    for line in lines:
        drawn.add_row(*map(Text, line))
    console.print(drawn)
