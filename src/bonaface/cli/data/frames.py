"""``bonaface data frames``: labelled clips to pictures of faces."""

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
from bonaface.errors import ConfigError


def frames(
    clips: Annotated[Path, typer.Argument(metavar="CLIPS", help="Labelled clips.")],
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the pictures.")],
    count: Annotated[
        int, typer.Option(min=1, help="Frames of a clip, spread evenly over it.")
    ] = 10,
    whole: Annotated[
        bool, typer.Option("--whole", help="Keep frames whole, cut no faces.")
    ] = False,
    margin: Margin = None,
    like: Like = None,
    finder: FinderFile = None,
    ratios: Ratios = None,
    seed: Annotated[int, typer.Option(min=0, help="Of a split that is made here.")] = 0,
) -> None:
    """Cut the largest face out of frames of each clip; stop with Ctrl-C, go on by repeating.

    Writes PNG pictures, metadata.csv, failures.csv and frames_report.json. Frames of a clip share a
    group. Exit code 3 says that some clips or frames were not used; they are listed.
    """
    check_recipe(margin, like)
    if whole and (margin, like, finder) != (None, None, None):
        raise ConfigError("expected --whole without --margin, --like and --finder; nothing is cut")
    shares = parse_ratios(ratios)

    from bonaface.framing import REPORT, frame_set, load_clips

    recipe = None if whole else recipe_of(margin, like, "frames cut by bonaface data frames")
    finds = None if whole else finder_of(finder)
    samples = load_clips(clips, ratios=shares, seed=seed)
    with resumable("reading") as progress:
        made = frame_set(samples, out, recipe, finds, count=count, progress=progress)
    found = made.to_dict()
    _show(found)
    counts = found["counts"]
    lost = counts["clips_failed"] + counts["failed"] + counts["missed"]
    conclude(out, REPORT, (*samples.notes, *found["notes"]), lost, "clips or frames were not used")


def _show(found: dict[str, Any]) -> None:
    counts = found["counts"]
    typer.echo(
        printable(
            f"{found['source']}: {counts['clips']} clips, {counts['clips_failed']} not read; "
            f"{counts['frames']} frames, {counts['cut']} cut, {counts['whole']} kept whole, "
            f"{counts['failed'] + counts['missed']} not used"
        )
    )
    columns = ("clips", "frames", "cut", "whole")
    table(
        ("split", "label", *columns, "not used"),
        [
            (split, label, *(n[key] for key in columns), n["failed"] + n["missed"])
            for split, labels in found["splits"].items()
            for label, n in labels.items()
            if n["clips"]
        ],
    )
    show_reasons("not used", counts["reasons"])
