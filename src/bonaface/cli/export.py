"""``bonaface export``: a detector in the forms that others run, each checked against it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bonaface.cli._shared import CHECK_FAILED, INCOMPLETE, printable, progress_steps
from bonaface.errors import ConfigError

if TYPE_CHECKING:
    from bonaface.export import Gate
    from bonaface.metrics import Figure


def export(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="The --out folder of `bonaface train`.")
    ],
    *,
    to: Annotated[str, typer.Option(help="onnx, openvino or transformers.")],
    out: Annotated[Path, typer.Option(help="Folder to write, not there yet.")],
    gate: Annotated[
        Path | None,
        typer.Option(metavar="DATA", help="Labelled face crops to compare both detectors on."),
    ] = None,
    float16: Annotated[
        bool, typer.Option("--float16", help="Half the size; OpenVINO has it anyway.")
    ] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="A quarter of the size; needs --gate.")
    ] = False,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="DATA", help="With --int8: its train split gives the ranges [that of --gate]."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Of --gate.")] = "test",
    max_difference: Annotated[
        float | None,
        typer.Option(metavar="D", help="Of any score [float32 0.001, float16 0.03, int8 0.2]."),
    ] = None,
    max_auc_drop: Annotated[
        float | None, typer.Option(metavar="D", help="In AUC, to the interval's end [0.02].")
    ] = None,
) -> None:
    """Write a detector as ONNX, OpenVINO or a Transformers folder, if it still answers as before.

    The original and the export score the same pictures; gate.html says what differs. Beyond the
    bounds nothing but that report is written, and the exit code is 1. Exit code 3: it was written,
    but some pictures could not be read.
    """
    from bonaface.bundle import load_bundle
    from bonaface.export import export as write
    from bonaface.report import write_gate
    from bonaface.samples import load_samples

    if calibrate and not int8:
        raise ConfigError("expected --calibrate with --int8 only; leave it out")
    ratios = load_bundle(bundle).ratios
    with progress_steps() as progress:
        found = write(
            bundle,
            _form(to, float16=float16, int8=int8),
            out,
            gate=load_samples(gate, ratios=ratios) if gate else None,
            split=split,
            calibrate=load_samples(calibrate, ratios=ratios) if calibrate else None,
            max_difference=max_difference,
            max_auc_drop=max_auc_drop,
            progress=progress,
        )
    page = write_gate(found, out)
    _show(found)
    typer.echo(f"wrote {printable(str(page))}")
    if not found.passed:
        typer.echo("bonaface: the export does not pass and was not written", err=True)
        raise typer.Exit(CHECK_FAILED)
    typer.echo(f"wrote {printable(str(out))}")
    if found.unreadable:
        typer.echo(f"{len(found.unreadable)} pictures could not be read; gate.json", err=True)
        raise typer.Exit(INCOMPLETE)


def _form(to: str, *, float16: bool, int8: bool) -> str:
    from bonaface.export.forms import find_form

    if float16 and int8:
        raise ConfigError("expected --float16 or --int8, got both; name one")
    if to == "openvino" and float16:
        return to
    form = f"{to}-float16" if float16 else f"{to}-int8" if int8 else to
    find_form(form)
    return form


def _show(found: Gate) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    before, after = (size / 1e6 for size in found.bytes)
    typer.echo(
        printable(
            f"{found.exported}: {after:.1f} MB (before {before:.1f}); {len(found.before)} "
            f"pictures, largest difference of a score {found.largest:.2g}, mean {found.mean:.2g}; "
            f"{found.words} get another word"
        )
    )
    if found.changes:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("figure", "before", "after", "difference, 95% interval"):
            table.add_column(title, justify="left" if title == "figure" else "right", no_wrap=True)
        for one in found.changes:
            values = [one.original.value, one.exported.value]
            cells = ["-" if value is None else f"{value:.4f}" for value in values]
            table.add_row(one.name, *cells, Text(_signed(one.difference)))
        Console().print(table)
    for check in found.checks:
        word = "holds" if check.holds else "DOES NOT HOLD"
        typer.echo(f"{word}: {check.name} {check.value:.4g}, at most {check.limit:g}")
    for note in found.notes:
        typer.echo(f"note: {printable(note)}")


def _signed(figure: Figure) -> str:
    if figure.value is None:
        return f"- ({figure.reason})"
    if figure.low is None or figure.high is None:
        return f"{figure.value:+.4f} ({figure.reason})"
    return f"{figure.value:+.4f} [{figure.low:+.4f}, {figure.high:+.4f}]"
