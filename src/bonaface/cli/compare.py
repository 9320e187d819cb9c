"""``bonaface compare``: which detector is better on the same pictures, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bonaface.cli._shared import printable
from bonaface.errors import ScoresError

if TYPE_CHECKING:
    from bonaface.compare import Comparison
    from bonaface.evaluate import Evaluation


def compare(
    evaluations: Annotated[
        list[Path],
        typer.Argument(metavar="EVALUATION...", help="Two or more folders that `evaluate` wrote."),
    ],
    *,
    out: Annotated[Path, typer.Option(help="Folder to write into.")],
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the intervals.")] = 0,
) -> None:
    """Compare detectors that scored the same pictures: figures side by side, paired tests.

    Writes comparison.json, comparison.md and comparison.html.
    """
    from bonaface.compare import Entry, write_comparison
    from bonaface.compare import compare as contrast
    from bonaface.evaluate import read_evaluation
    from bonaface.report import write_comparison_page

    read = [read_evaluation(path) for path in evaluations]
    names = _names(read, evaluations)
    _same_pictures(read, names)
    entries = [
        Entry(name, one.scores, one.threshold) for name, one in zip(names, read, strict=True)
    ]
    found = contrast(entries, seed=seed)
    write_comparison(found, out)
    write_comparison_page(found, entries, out, notes=_notes(read, names))
    _show(found)
    for suffix in ("json", "md", "html"):
        typer.echo(f"wrote {out / f'comparison.{suffix}'}")


def _names(read: Sequence[Evaluation], paths: Sequence[Path]) -> list[str]:
    """Each detector's name; where two share one, with the path that was given."""
    names = [one.name for one in read]
    return [
        f"{name} ({path})" if names.count(name) > 1 else name
        for name, path in zip(names, paths, strict=True)
    ]


def _same_pictures(read: Sequence[Evaluation], names: Sequence[str]) -> None:
    """Paths alone cannot tell two data sets apart: many hold a test/real/00000.jpg."""
    first = read[0].data
    for name, one in zip(names, read, strict=True):
        if one.data.scored_fingerprint != first.scored_fingerprint:
            told = [
                f"{who!r} scored {data.name!r}, {data.split} "
                f"(fingerprint {data.scored_fingerprint[:12]})"
                for who, data in ((names[0], first), (name, one.data))
            ]
            raise ScoresError(
                f"expected evaluations of the same pictures, but {' and '.join(told)}; "
                "evaluate both detectors on one data set"
            )


def _notes(read: Sequence[Evaluation], names: Sequence[str]) -> list[str]:
    """What holds for all of them once; what holds for some with their names."""
    holders: dict[str, list[str]] = {}
    for name, one in zip(names, read, strict=True):
        for note in one.notes:
            holders.setdefault(note, []).append(name)
    return [
        note if len(who) == len(names) else f"{', '.join(who)}: {note}"
        for note, who in holders.items()
    ]


def _show(found: Comparison) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("figure", no_wrap=True)
    for one in found.contenders:
        table.add_column(Text(printable(one.name)), justify="right")
    for name in found.contenders[0].figures:
        table.add_row(name, *(Text(str(one.figures[name])) for one in found.contenders))
    Console().print(table)
    for pair in found.pairs:
        typer.echo(printable(pair.sentence))
