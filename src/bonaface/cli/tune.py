"""`bonaface tune`: search learning rate, batch size and more on train and validation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bonaface.cli._shared import (
    INTERRUPTED,
    LoadersOption,
    MonitorOption,
    NetworkOption,
    PatienceOption,
    PicturesOption,
    PrecisionOption,
    PretrainedOption,
    SharesOption,
    SizeOption,
    parse_ratios,
)


def tune(
    data: Annotated[Path, typer.Argument(help="Folder with train/ validation/ (test/).")],
    out: Annotated[Path, typer.Option(help="Folder of the study.")],
    model: NetworkOption = None,
    trials: Annotated[
        int, typer.Option(min=1, help="Finished ones in the whole study; more go on with it.")
    ] = 20,
    config: Annotated[
        Path | None, typer.Option(help="TOML of settings as `train` takes it; options win.")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Database for workers on several machines [in --out]."),
    ] = None,
    pretrained: PretrainedOption = None,
    size: SizeOption = None,
    epochs: Annotated[int | None, typer.Option(help="Of each trial, at most [10].")] = None,
    pictures: PicturesOption = None,
    lr: Annotated[float | None, typer.Option(help="Fix the peak learning rate.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Fix the images per step.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Fix the weight decay.")] = None,
    dropout: Annotated[float | None, typer.Option(help="Fix the dropout.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="Fix adamw or sgd.")] = None,
    augment: Annotated[str | None, typer.Option(help="Fix a recipe of train.")] = None,
    freeze: Annotated[
        str | None,
        typer.Option(help="Fix none, backbone or staged; else searched if --pretrained."),
    ] = None,
    monitor: MonitorOption = None,
    patience: PatienceOption = None,
    precision: PrecisionOption = None,
    seed: Annotated[int | None, typer.Option(help="Of the search, and of every trial [0].")] = None,
    split: SharesOption = None,
    workers: LoadersOption = None,
) -> None:
    """Search settings that do better on validation than the defaults; the test split is not read.

    Searched: learning rate, batch size, weight decay, dropout, optimiser, augmentation and, with
    --pretrained, freezing; what is named here or in --config is held fixed. Stop it with Ctrl-C;
    the same command goes on. The same command in another terminal is a second worker.

    Writes best.toml, trials.csv, tuning.json and tuning.html.
    """
    given = dict(locals())
    from bonaface.cli._tuning import terminal_tuning
    from bonaface.config import TrainConfig
    from bonaface.errors import TrainingError
    from bonaface.report.tuning import doubt, save_tuning, verdict, write_tuning_page
    from bonaface.tuning import tune as run

    named = {name: given[name] for name in TrainConfig.model_fields if name in given}
    settings = TrainConfig.read(config, **named)
    with terminal_tuning(out) as watch:
        try:
            found = run(
                data,
                out,
                settings,
                trials=trials,
                storage=storage,
                ratios=parse_ratios(split),
                workers=workers,
                watch=watch,
            )
        except KeyboardInterrupt:
            if watch.last is not None:
                write_tuning_page(watch.last, out)
            typer.echo(f"bonaface: stopped; the same command goes on with {out}", err=True)
            raise typer.Exit(INTERRUPTED) from None
    written = (*save_tuning(found, out), write_tuning_page(found, out))
    if found.best is None:
        raise TrainingError(
            f"expected a trial that ends with a figure, got {len(found.over)} that failed (see "
            f"{written[-1]}); fix the learning rate lower, or --precision float32"
        )
    typer.echo(" ".join(filter(None, (verdict(found), doubt(found)))))
    for path in written:
        typer.echo(f"wrote {path}")
    shares = f" --split {split}" if split else ""
    typer.echo(
        f"Next:   bonaface train {data} --config {out / 'best.toml'} --out {out / 'best'}{shares}"
    )
