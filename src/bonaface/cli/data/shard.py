"""``bonaface data shard``: a data set as tar shards, for sets too large to be held decoded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bonaface.cli._shared import parse_ratios, printable
from bonaface.cli.data._shared import Ratios, conclude, resumable, show_reasons, show_splits


def shard(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A labelled data set.")],
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the shards.")],
    size: Annotated[int, typer.Option(metavar="MIB", min=1, help="Of a shard.")] = 256,
    ratios: Ratios = None,
) -> None:
    """Write a data set as tars of mixed pictures; stop with Ctrl-C, go on by repeating.

    Writes SPLIT-000000.tar and so on, metadata.csv, failures.csv and shard_report.json. Exit code 3
    says that some pictures were left out; they are listed.
    """
    shares = parse_ratios(ratios)

    from bonaface.samples import load_samples
    from bonaface.sharding import REPORT, shard_set

    samples = load_samples(data, ratios=shares)
    with resumable("writing") as progress:
        found = shard_set(samples, out, size=size << 20, progress=progress).to_dict()
    counts = found["counts"]
    typer.echo(
        printable(
            f"{found['source']}: {counts['asked']} pictures, {counts['written']} written to "
            f"{counts['shards']} shards, {counts['failed']} left out"
        )
    )
    show_splits(found["splits"])
    show_reasons("left out", counts["reasons"])
    conclude(out, REPORT, samples.notes, counts["failed"], "pictures were left out")
