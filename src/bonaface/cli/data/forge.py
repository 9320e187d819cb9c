"""``bonaface data forge``: fakes of real faces."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bonaface.cli._shared import parse_ratios, printable
from bonaface.cli.data._shared import (
    FinderFile,
    Ratios,
    Seed,
    conclude,
    finder_of,
    resumable,
    show_reasons,
    table,
)


def forge(
    source: Annotated[
        Path, typer.Argument(metavar="REALS", help="Labelled pictures, of which the reals count.")
    ],
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for reals and forgeries.")],
    kinds: Annotated[
        str, typer.Option(metavar="A,B", help="Of forgery, dealt out evenly.")
    ] = "self_blend,swap,resample,inpaint",
    seed: Seed = 0,
    finder: FinderFile = None,
    ratios: Ratios = None,
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

    from bonaface.forge import check_kinds
    from bonaface.forging import REPORT, contact_sheet, forge_set
    from bonaface.samples import load_samples

    names = check_kinds([name.strip() for name in kinds.split(",") if name.strip()])
    finds = finder_of(finder)
    samples = load_samples(source, ratios=shares)
    with resumable("forging") as progress:
        made = forge_set(samples, out, finds, kinds=names, seed=seed, progress=progress)
        if sheet is not None:
            contact_sheet(samples, made, finds, sheet)
    found = made.to_dict()
    counts = found["counts"]
    failed = counts["failed"]
    typer.echo(
        printable(
            f"{found['source']}: {counts['asked']} reals, {counts['forged']} forged, "
            f"{failed} not forged"
        )
    )
    table(
        ("split", "reals", "not forged", *names),
        [
            (split, n["asked"], n["failed"], *(n["kinds"].get(name, 0) for name in names))
            for split, n in found["splits"].items()
        ],
    )
    show_reasons("not forged", counts["reasons"])
    if sheet is not None:
        typer.echo(f"Sheet:  {printable(str(sheet))}")
    notes = (*samples.notes, *found["notes"])
    conclude(out, REPORT, notes, failed, "pictures were not forged")
