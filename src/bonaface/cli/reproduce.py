"""`bonaface reproduce`: a study from one file of settings, as one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bonaface.cli._shared import INCOMPLETE, INTERRUPTED, LoadersOption, SharesOption, parse_ratios
from bonaface.errors import ConfigError

if TYPE_CHECKING:
    from bonaface.metrics import Figure
    from bonaface.reproduce import Study


def reproduce(
    data: Annotated[Path, typer.Argument(help="Folder with train/ validation/ test/.")],
    *,
    config: Annotated[Path, typer.Option(help="TOML of the study: arms, seeds, epochs, sizes.")],
    out: Annotated[Path, typer.Option(help="Folder of the study.")],
    seeds: Annotated[
        str | None, typer.Option(metavar="N,N", help="In place of the study's, for a first look.")
    ] = None,
    finished: Annotated[
        bool, typer.Option("--finished", help="Train nothing; write the page of what is there.")
    ] = False,
    split: SharesOption = None,
    workers: LoadersOption = None,
) -> None:
    """Train what is missing of a study, measure it on test, write study.html and study.json.

    Stop it with Ctrl-C; the same command goes on. Exit code 3 says that runs are missing.
    """
    from bonaface.cli._watch import terminal_watch
    from bonaface.report import write_study
    from bonaface.reproduce import StudyConfig
    from bonaface.reproduce import reproduce as run

    settings = StudyConfig.read(config, seeds=None if seeds is None else _numbers(seeds))
    try:
        with terminal_watch() as watch:
            study = run(
                data,
                out,
                settings,
                finished_only=finished,
                ratios=parse_ratios(split),
                workers=workers,
                watch=watch,
            )
    except KeyboardInterrupt:
        typer.echo(f"bonaface: stopped; the same command goes on with {out}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    written = write_study(study, out)
    _show(study)
    for path in written:
        typer.echo(f"wrote {path}")
    if study.unfinished:
        typer.echo(f"{len(study.unfinished)} runs are missing:", err=True)
        for name, reason in study.unfinished.items():
            typer.echo(f"  {name}: {reason}", err=True)
        raise typer.Exit(INCOMPLETE)


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"expected seeds such as 0 or 0,1,2, got {text!r}; give whole numbers"
        ) from None


def _show(study: Study) -> None:
    width = max(len(cell.arm) for cell in study.cells) + 2
    for epochs in study.budgets:
        cells = study.table(epochs)
        title = f"after {epochs} epoch{'s' * (epochs > 1)}"
        width = max(width, len(title) + 2)
        typer.echo(f"{title:{width}}seeds  {'test accuracy':22}{'test AUC':22}validation AUC")
        typer.echo(f"{'majority class':{width}}       {_short(study.majority['accuracy'])}")
        for cell in cells:
            accuracy, auc = (_short(cell.figures[name]) for name in ("accuracy", "auc"))
            typer.echo(
                f"{cell.arm:{width}}{len(cell.runs):5d}  {accuracy:22}{auc:22}"
                f"{cell.validation_auc:.3f}"
            )
    chosen = study.chosen
    typer.echo(
        f"Validation chooses {chosen.arm} after {chosen.epochs} epochs: test accuracy "
        f"{chosen.figures['accuracy']}, AUC {chosen.figures['auc']}."
    )


def _short(figure: Figure) -> str:
    return str(figure).split(" (", maxsplit=1)[0]
