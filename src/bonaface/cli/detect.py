"""``bonaface detect``: fake, real or unsure, for each picture."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bonaface.cli._shared import printable
from bonaface.errors import ConfigError, DataError

if TYPE_CHECKING:
    from bonaface.verdict import Verdict

_STYLES = {"fake": "bold red", "real": "green", "unsure": "yellow", "not_applicable": "dim"}
_MEANING = (
    "The score is the calibrated probability that a face is fake, given as many fakes as reals. "
    "It is evidence, not proof: on forgeries unlike those it was trained on, a detector may be "
    "no better than chance."
)
_SOME_UNREADABLE = 3


def detect(
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE", help="Face crops, or folders of them.")
    ],
    model: Annotated[Path, typer.Option(help="Bundle: the --out folder of `bonaface train`.")],
    faces: Annotated[
        str | None, typer.Option(metavar="none", help="The pictures are face crops already.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead.")] = False,
) -> None:
    """Judge face crops: fake, real or unsure, with the score and the reason.

    Exit code 3 says that some pictures could not be read; the others are judged.
    """
    if faces != "none":
        raise ConfigError(
            f"expected --faces none, got {'no --faces' if faces is None else repr(faces)}; this "
            "version does not find faces: cut them out, then pass --faces none with the crops"
        )
    paths = _collect(images)

    from bonaface.detector import load_detector

    detector = load_detector(model)
    verdicts = [detector.detect(path) for path in _progress(paths)]
    if as_json:
        typer.echo(json.dumps([verdict.to_dict() for verdict in verdicts], indent=2))
    else:
        _show(verdicts)
    if any(verdict.answer == "not_applicable" for verdict in verdicts):
        raise typer.Exit(_SOME_UNREADABLE)


def _collect(given: Sequence[Path]) -> list[Path]:
    from bonaface.images import SUFFIXES

    paths: list[Path] = []
    for path in given:
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
            paths += [p for p in found if p.is_file() and not p.name.startswith(".")]
        else:
            paths.append(path)  # a file that is missing gets its own verdict
    if not paths:
        raise DataError(
            f"expected pictures in {', '.join(repr(str(path)) for path in given)}, found none; "
            f"name files, or folders with files that end in {', '.join(sorted(SUFFIXES))}"
        )
    return list(dict.fromkeys(paths))


def _progress(paths: Sequence[Path]) -> Sequence[Path]:
    if len(paths) < 20 or not sys.stderr.isatty():
        return paths
    from rich.console import Console
    from rich.progress import track

    bar = track(paths, "judging", console=Console(stderr=True), transient=True)
    return bar  # type: ignore[return-value]  # iterated once


def _show(verdicts: Sequence[Verdict]) -> None:
    """A table on a terminal; elsewhere one line a picture, separated by tabs."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = [
        (
            printable(verdict.path),
            verdict.answer,
            "-" if verdict.score is None else f"{verdict.score:.3f}",
            printable("; ".join((verdict.reason, *verdict.notes))),
        )
        for verdict in verdicts
    ]
    console = Console()
    if console.is_terminal:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("picture", overflow="fold")
        table.add_column("answer", no_wrap=True)
        table.add_column("score", justify="right", no_wrap=True)
        table.add_column("reason")
        for path, said, score, reason in rows:
            table.add_row(Text(path), Text(said, _STYLES[said]), score, Text(reason))
        console.print(table)
    else:
        for row in rows:
            typer.echo("\t".join(row))
    typer.echo(_MEANING, err=True)
