"""``bonaface data split``: the splits of a data set, made anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bonaface.cli._shared import parse_ratios, printable
from bonaface.cli.data._shared import Seed, conclude, resumable, show_reasons, show_splits, table
from bonaface.errors import ConfigError


def split(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A labelled data set.")],
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the new set.")],
    ratios: Annotated[
        str | None,
        typer.Option(metavar="A/B/C", help="Shares of train/validation/test [80/10/10]."),
    ] = None,
    seed: Seed = 0,
    subsets: Annotated[
        str | None,
        typer.Option(metavar="100,1000", help="Also tables with so many pictures of train."),
    ] = None,
) -> None:
    """Split a data set anew: whole groups, by label and generator; go on by repeating.

    Writes links to the pictures (copies where the disk has none), metadata.csv, failures.csv,
    split_report.json, and subset-N.csv for learning curves: `bonaface train DIR/subset-100.csv`.
    """
    shares = parse_ratios(ratios)
    numbers = _numbers(subsets)

    from bonaface.splitting import REPORT, split_set

    with resumable("splitting") as progress:
        made = split_set(data, out, ratios=shares, seed=seed, subsets=numbers, progress=progress)
    found = made.to_dict()
    _show(found)
    notes = (*made.samples.notes, *found["notes"])
    conclude(out, REPORT, notes, found["counts"]["failed"], "pictures were not taken over")


def _numbers(text: str | None) -> list[int]:
    try:
        return [int(part) for part in (text or "").split(",") if part.strip()]
    except ValueError:
        raise ConfigError(
            f"expected numbers of pictures such as 100,300,1000 after --subsets, got {text!r}"
        ) from None


def _show(found: dict[str, Any]) -> None:
    counts = found["counts"]
    typer.echo(
        printable(
            f"{found['source']}: {counts['pictures']} pictures, {counts['linked']} linked, "
            f"{counts['copied']} copied, {counts['failed']} not taken over"
        )
    )
    show_splits(found["splits"])
    if found["subsets"]:
        columns = ("pictures", "groups", "real", "fake")
        table(
            ("subset", *columns),
            [(n["file"], *(n[key] for key in columns)) for n in found["subsets"].values()],
        )
    show_reasons("not taken over", counts["reasons"])
