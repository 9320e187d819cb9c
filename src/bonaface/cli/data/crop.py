"""``bonaface data crop``: photographs to face crops."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bonaface.cli._shared import parse_ratios, printable
from bonaface.cli.data._shared import (
    FinderFile,
    Like,
    Margin,
    Ratios,
    check_recipe,
    conclude,
    finder_of,
    recipe_of,
    resumable,
    show_reasons,
    table,
)

_LEAST_NAMED = 10  # pictures of a group


def crop(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Labelled photographs.")],
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the face crops.")],
    margin: Margin = None,
    like: Like = None,
    finder: FinderFile = None,
    ratios: Ratios = None,
) -> None:
    """Cut the largest face out of each picture, to train on; stop with Ctrl-C, go on by repeating.

    Writes PNG crops, metadata.csv, failures.csv and crop_report.json. Exit code 3 says that some
    pictures were not cut; they are listed.
    """
    check_recipe(margin, like)
    shares = parse_ratios(ratios)

    from bonaface.cropping import REPORT, crop_faces
    from bonaface.samples import load_samples

    recipe = recipe_of(margin, like, "crops cut by bonaface data crop")
    finds = finder_of(finder)
    samples = load_samples(source, ratios=shares)
    with resumable("cropping") as progress:
        found = crop_faces(samples, out, recipe, finds, progress=progress).to_dict()
    _show(found)
    notes = (*samples.notes, *found["notes"])
    conclude(out, REPORT, notes, found["counts"]["failed"], "pictures were not cut")


def _show(found: dict[str, Any]) -> None:
    counts = found["counts"]
    typer.echo(
        printable(
            f"{found['source']}: {counts['asked']} pictures, {counts['cut']} cut, "
            f"{counts['whole']} used whole (crops already), {counts['failed']} not cut"
        )
    )
    table(
        ("split", "label", "pictures", "cut", "whole", "not cut"),
        [
            (split, label, *(n[key] for key in ("asked", "cut", "whole", "failed")))
            for split, labels in found["splits"].items()
            for label, n in labels.items()
            if n["asked"]
        ],
    )
    show_reasons("not cut", counts["reasons"])
    rows = [
        (column, part, value, *_figures(share))
        for column, values in found["found"]["all"].items()
        for part, value, share in _ends(values)
    ]
    if rows:
        table(("face found in", "", "group", "share", "95% interval", "n"), rows)


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
