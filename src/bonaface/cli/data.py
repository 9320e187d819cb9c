"""``bonaface data``: what prepares data sets; ``crop`` cuts faces out, ``forge`` makes fakes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from bonaface.cli._shared import parse_ratios, printable, progress_bar
from bonaface.errors import ConfigError

_SOME_FAILED = 3
_INTERRUPTED = 130
_LEAST_NAMED = 10  # pictures of a group

app = typer.Typer(
    help="Prepare data sets: cut the faces out of photographs, forge fakes from reals.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@app.command()
def crop(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Labelled photographs.")],
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the face crops.")],
    margin: Annotated[
        float | None, typer.Option(help="Side of the crop over the longer side of the face [1.3].")
    ] = None,
    like: Annotated[
        Path | None, typer.Option(metavar="BUNDLE", help="Cut as this detector's faces were.")
    ] = None,
    finder: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A YuNet file to find faces with [CenterFace]."),
    ] = None,
    ratios: Annotated[
        str | None, typer.Option(metavar="80/10/10", help="For data without splits.")
    ] = None,
) -> None:
    """Cut the largest face out of each picture, to train on; stop with Ctrl-C, go on by repeating.

    Writes PNG crops, metadata.csv, failures.csv and crop_report.json. Exit code 3 says that some
    pictures were not cut; they are listed.
    """
    if margin is not None and like is not None:
        raise ConfigError(
            f"expected --margin or --like, got both ({margin:g} and {str(like)!r}); leave out one"
        )
    shares = parse_ratios(ratios)

    from bonaface.bundle import load_bundle
    from bonaface.cropping import FAILURES, REPORT, crop_faces
    from bonaface.crops import CropRecipe
    from bonaface.faces import CenterFace, YuNet
    from bonaface.samples import load_samples

    origin = "crops cut by bonaface data crop"
    if like is not None:
        bundle = load_bundle(like)
        told, origin = bundle.recipe, f"{origin}, as those of {bundle.card.name}"
        recipe = CropRecipe(told.margin, told.shift, told.max_side, told.min_face, origin)
    else:
        recipe = CropRecipe(CropRecipe().margin if margin is None else margin, origin=origin)
    # One thread a call: two pictures are searched at a time.
    finds = CenterFace(threads=1) if finder is None else YuNet(finder)
    samples = load_samples(source, ratios=shares)
    try:
        with progress_bar("cropping") as progress:
            found = crop_faces(samples, out, recipe, finds, progress=progress).to_dict()
    except KeyboardInterrupt:
        typer.echo("bonaface: stopped; the same command goes on", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    _show(found)
    for note in (*samples.notes, *found["notes"]):
        typer.echo(f"note: {printable(note)}")
    typer.echo(f"Crops:  {printable(str(out))}\nReport: {printable(str(out / REPORT))}")
    failed = found["counts"]["failed"]
    if failed:
        where = printable(str(out / FAILURES))
        typer.echo(f"{failed} pictures were not cut; they are listed in {where}", err=True)
        raise typer.Exit(_SOME_FAILED)


@app.command("forge")
def forge_reals(
    source: Annotated[
        Path, typer.Argument(metavar="REALS", help="Labelled pictures, of which the reals count.")
    ],
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for reals and forgeries.")],
    kinds: Annotated[
        str, typer.Option(metavar="A,B", help="Of forgery, dealt out evenly.")
    ] = "self_blend,swap,resample,inpaint",
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    finder: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A YuNet file to find faces with [CenterFace]."),
    ] = None,
    ratios: Annotated[
        str | None, typer.Option(metavar="80/10/10", help="For data without splits.")
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a PNG with examples of each kind and its mask."),
    ] = None,
) -> None:
    """Make a fake of each real, where no fakes exist; stop with Ctrl-C, go on by repeating.

    Writes both as PNG, metadata.csv, failures.csv and forge_report.json. Exit code 3 says that some
    pictures were not forged; they are listed.
    """
    shares = parse_ratios(ratios)

    from bonaface.cropping import FAILURES
    from bonaface.faces import CenterFace, YuNet
    from bonaface.forge import check_kinds
    from bonaface.forging import REPORT, contact_sheet, forge_set
    from bonaface.samples import load_samples

    names = check_kinds([name.strip() for name in kinds.split(",") if name.strip()])
    finds = CenterFace(threads=1) if finder is None else YuNet(finder)
    samples = load_samples(source, ratios=shares)
    try:
        with progress_bar("forging") as progress:
            made = forge_set(samples, out, finds, kinds=names, seed=seed, progress=progress)
        if sheet is not None:
            contact_sheet(samples, made, finds, sheet)
    except KeyboardInterrupt:
        typer.echo("bonaface: stopped; the same command goes on", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    found = made.to_dict()
    counts = found["counts"]
    failed = counts["failed"]
    typer.echo(
        printable(
            f"{found['source']}: {counts['asked']} reals, {counts['forged']} forged, "
            f"{failed} not forged"
        )
    )
    _table(
        ("split", "reals", "not forged", *names),
        [
            (
                split,
                *(str(n[key]) for key in ("asked", "failed")),
                *(str(n["kinds"].get(name, 0)) for name in names),
            )
            for split, n in found["splits"].items()
        ],
    )
    if counts["reasons"]:
        _table(("not forged", "why"), [(str(n), why) for why, n in counts["reasons"].items()])
    for note in (*samples.notes, *found["notes"]):
        typer.echo(f"note: {printable(note)}")
    typer.echo(f"Set:    {printable(str(out))}\nReport: {printable(str(out / REPORT))}")
    if sheet is not None:
        typer.echo(f"Sheet:  {printable(str(sheet))}")
    if failed:
        where = printable(str(out / FAILURES))
        typer.echo(f"{failed} pictures were not forged; they are listed in {where}", err=True)
        raise typer.Exit(_SOME_FAILED)


def _show(found: dict[str, Any]) -> None:
    counts = found["counts"]
    typer.echo(
        printable(
            f"{found['source']}: {counts['asked']} pictures, {counts['cut']} cut, "
            f"{counts['whole']} used whole (crops already), {counts['failed']} not cut"
        )
    )
    _table(
        ("split", "label", "pictures", "cut", "whole", "not cut"),
        [
            (split, label, *(str(n[key]) for key in ("asked", "cut", "whole", "failed")))
            for split, labels in found["splits"].items()
            for label, n in labels.items()
            if n["asked"]
        ],
    )
    if counts["reasons"]:
        _table(("not cut", "why"), [(str(n), why) for why, n in counts["reasons"].items()])
    rows = [
        (column, part, value, *_figures(share))
        for column, values in found["found"]["all"].items()
        for part, value, share in _ends(values)
    ]
    if rows:
        _table(("face found in", "", "group", "share", "95% interval", "n"), rows)


def _ends(values: dict[str, Any]) -> list[tuple[str, str, Any]]:
    """The groups with the lowest and the highest share; of equal ones, the largest."""
    if list(values) == ["pictures"]:
        return [("", name, share) for name, share in values.items()]
    large = {name: share for name, share in values.items() if share["n"] >= _LEAST_NAMED}
    if len(large) < 2:
        return []
    low = min(large, key=lambda name: (large[name]["share"], -large[name]["n"]))
    high = max(large, key=lambda name: (large[name]["share"], large[name]["n"]))
    if large[low]["share"] == large[high]["share"]:
        return [("all alike", low, large[low])]
    return [("lowest", low, large[low]), ("highest", high, large[high])]


def _figures(share: dict[str, Any]) -> tuple[str, str, str]:
    between = f"{share['low']:.4f}-{share['high']:.4f}"
    return f"{share['share']:.4f}", between, str(share["n"])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on a terminal; elsewhere one line a row, separated by tabs."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        for row in (header, *rows):
            typer.echo("\t".join(map(printable, row)))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in header:
        table.add_column(name)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console.print(table)
