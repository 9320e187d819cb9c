"""``bonaface audit``: what would make a test figure on a data set worthless."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bonaface.cli._shared import CHECK_FAILED, INTERRUPTED, parse_ratios, printable, progress_bar
from bonaface.errors import ConfigError, DataError

if TYPE_CHECKING:
    from bonaface.audit import Audit
    from bonaface.equalising import Equalised
    from bonaface.facts import Facts

_MARKS = {"fatal": "FATAL  ", "warning": "warning", "info": "note   "}


def audit(
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="A labelled data set: SPLIT/real|fake/.")
    ],
    *,
    fix: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT",
            help="Write a copy of DATA without copies and leaks, both classes saved alike.",
        ),
    ] = None,
    side: Annotated[
        int | None,
        typer.Option(
            metavar="PX",
            min=32,
            help="Of the pictures in OUT; smaller ones are left out [what 99 % of a class allow].",
        ),
    ] = None,
    json: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write everything about DATA as JSON."),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write a page about DATA for people."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", help="Pictures for the shortcut probes, at most [12000]."),
    ] = None,
    ratios: Annotated[
        str | None, typer.Option(metavar="80/10/10", help="For data without splits.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Of probes, intervals and --fix.")
    ] = 0,
) -> None:
    """Check a data set for copies, leaks and shortcuts before you believe a figure on it.

    Exit code 1 says that a test figure on it would be worthless, and why. With --fix it says that
    of OUT, which is audited in its turn; Ctrl-C stops, and the same command goes on.
    """
    shares = parse_ratios(ratios)
    if side is not None and fix is None:
        raise ConfigError(f"expected --fix OUT with --side, got --side {side} alone; leave it out")
    if fix is not None:
        from bonaface.equalising import check_out
        from bonaface.layouts import locate

        check_out(locate(data)[0], fix)
    try:
        found, facts = _look(data, shares, limit, seed)
        _show(found)
        _write(found, json, html)
        if fix is not None:
            found = _fix(found, facts, fix, side, limit, seed)
        elif facts is not None and not found.passed:
            typer.echo("--fix OUT writes a copy without copies and leaks, both classes saved alike")
    except KeyboardInterrupt:
        if fix is None:
            raise
        typer.echo("bonaface: stopped; the same command goes on", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if not found.passed:
        raise typer.Exit(CHECK_FAILED)


def _look(
    data: Path, ratios: tuple[float, float, float] | None, limit: int | None, seed: int
) -> tuple[Audit, Facts | None]:
    from bonaface.audit import PROBED, examine

    most = PROBED if limit is None else limit
    with progress_bar("reading") as progress:
        return examine(data, ratios=ratios, limit=most, seed=seed, progress=progress)


def _write(found: Audit, json: Path | None, html: Path | None) -> None:
    from bonaface.files import write_json

    if json is not None:
        write_json(json, found.to_dict())
        typer.echo(f"wrote {printable(str(json))}")
    if html is not None:
        from bonaface.report.audit import write_audit_page

        write_audit_page(found, html)
        typer.echo(f"wrote {printable(str(html))}")


def _fix(
    before: Audit, facts: Facts | None, out: Path, side: int | None, limit: int | None, seed: int
) -> Audit:
    """Write the equalised set, audit it, and tell how it went; gives its audit."""
    from bonaface.equalising import CHANGES, REPORT, equalise, write_report

    if facts is None:
        raise DataError(
            f"expected a data set whose labels and splits can be read, got {before.name} "
            f"({before.findings[0].name}); correct what the finding names, then fix the rest"
        )
    with progress_bar("saving alike") as progress:
        done = equalise(facts, before.copies, out, seed=seed, side=side, progress=progress)
    after, _ = _look(out, None, limit, seed)
    write_report(out, done, before, after)
    _show_changes(done)
    _compare(before, after)
    typer.echo(f"Set:     {printable(str(out))}")
    typer.echo(f"Changes: {printable(str(out / CHANGES))}, each picture by name")
    typer.echo(f"Report:  {printable(str(out / REPORT))}")
    if after.passed:
        typer.echo("nothing left that makes a test figure worthless, as far as an audit can see")
    else:
        _show(after)
    return after


def _show_changes(done: Equalised) -> None:
    told = done.to_dict()
    counts = told["counts"]
    typer.echo("")
    best, worst = max(told["qualities"]), min(told["qualities"])
    typer.echo(
        f"saved alike: a square of {told['base']} px, cut and shrunk to {told['side']} px, JPEG "
        + (f"{worst} to {best}" if worst < best else f"{best}")
    )
    for reason, n in counts["left_out"].items():
        typer.echo(printable(f"left out, {reason}: {n['real']:,} real, {n['fake']:,} fake"))
    for where, n in counts["moved"].items():
        typer.echo(f"moved, {where}: {n:,}")
    joined = counts["joined"]
    if joined["pictures"]:
        typer.echo(
            f"group joined: {joined['pictures']:,} pictures, now {joined['groups']:,} groups"
        )
    for label, lost in counts["cut_away"].items():
        more = ", ".join(f"{name}: {n:,}" for name, n in lost.items() if name != "median")
        typer.echo(f"cut away, {label}: {100 * lost['median']:.0f} % of the median picture; {more}")
    typer.echo("")


def _compare(before: Audit, after: Audit) -> None:
    both = (before, after)
    rows = [("", "before", "after")]
    probes = [{(one.name, one.scope): one.auc for one in found.probes} for found in both]
    for name, scope in dict.fromkeys([*probes[0], *probes[1]]):
        if name != "container":
            where = "" if scope == "all" else f", {scope} split"
            left, right = (str(found.get((name, scope), "-")) for found in probes)
            rows.append((f"{name} probe{where}", left, right))
    groups = [
        next((f.evidence["groups"] for f in found.findings if f.name == "groups-across-splits"), 0)
        for found in both
    ]
    pictures = [sum(sum(n.values()) for n in found.counts.values()) for found in both]
    for name, counts in (
        ("copies across splits", [_crossing(found) for found in both]),
        ("groups across splits", groups),
        ("pictures", pictures),
    ):
        rows.append((name, f"{counts[0]:,}", f"{counts[1]:,}"))
    widths = [max(len(row[at]) for row in rows) for at in range(2)]
    for row in rows:
        typer.echo(f"{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]}".rstrip())


def _crossing(found: Audit) -> int:
    """Pictures that lie in several splits; exact copies are near ones as well, unless blank."""
    sets = [one for one in found.copies if len(one.splits) > 1]
    near = {path for one in sets if one.kind == "near" for path in one.paths}
    return sum(one.kind == "near" or one.paths[0] not in near for one in sets)


def _show(found: Audit) -> None:
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
