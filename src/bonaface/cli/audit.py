"""``bonaface audit``: what would make a test figure on a data set worthless."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bonaface.audit import Audit

_FATAL = 1
_MARKS = {"fatal": "FATAL  ", "warning": "warning", "info": "note   "}


def audit(
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="A labelled data set: SPLIT/real|fake/.")
    ],
    *,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write everything as JSON.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page for people.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", help="Pictures for the shortcut probes, at most [12000]."),
    ] = None,
    ratios: Annotated[
        str | None, typer.Option(metavar="80/10/10", help="For data without splits.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of probes and intervals.")] = 0,
) -> None:
    """Check a data set for copies, leaks and shortcuts before you believe a figure on it.

    Exit code 1 says that a test figure on it would be worthless, and why.
    """
    from bonaface.audit import PROBED
    from bonaface.audit import audit as look
    from bonaface.cli._shared import parse_ratios, printable, progress_bar
    from bonaface.files import write_json

    with progress_bar("reading") as progress:
        found = look(
            data,
            ratios=parse_ratios(ratios),
            limit=PROBED if limit is None else limit,
            seed=seed,
            progress=progress,
        )
    _show(found)
    if json is not None:
        write_json(json, found.to_dict())
        typer.echo(f"wrote {printable(str(json))}")
    if html is not None:
        from bonaface.report.audit import write_audit_page

        write_audit_page(found, html)
        typer.echo(f"wrote {printable(str(html))}")
    if not found.passed:
        raise typer.Exit(_FATAL)


def _show(found: Audit) -> None:
    from bonaface.cli._shared import printable

    counts = "; ".join(
        f"{split}: {n['real']} real, {n['fake']} fake" for split, n in found.counts.items()
    )
    typer.echo(printable(f"{found.name}: {counts or 'cannot be read as a data set'}"))
    for probe in found.probes:
        where = "" if probe.scope == "all" else f", {probe.scope} split"
        typer.echo(f"{probe.name} probe{where}: AUC {probe.auc}, n = {probe.auc.n}")
    for one in found.findings:
        typer.echo(printable(f"{_MARKS[one.severity]} {one.name}: {one.found}"))
        if one.severity != "info":
            typer.echo(printable(f"        {one.effect}"))
            for example in one.examples[:3]:
                typer.echo(printable(f"        {example}"))
    typer.echo(
        "nothing found that makes a test figure worthless"
        if found.passed
        else "a test figure on this data set would be worthless"
    )
