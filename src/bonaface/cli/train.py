"""`bonaface train`: a folder of faces in, a bundle out."""

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
    parse_channels,
    parse_ratios,
)


def train(
    data: Annotated[Path, typer.Argument(help="Folder with train/ validation/ test/.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; it becomes the bundle.")],
    model: NetworkOption = None,
    config: Annotated[Path | None, typer.Option(help="TOML of settings; options win.")] = None,
    pretrained: PretrainedOption = None,
    freeze: Annotated[
        str | None, typer.Option(help="none, backbone (head alone) or staged [none].")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training split [10].")] = None,
    pictures: PicturesOption = None,
    size: SizeOption = None,
    mean: Annotated[
        str | None, typer.Option(metavar="R,G,B", help="Of the input [that of the weights].")
    ] = None,
    std: Annotated[
        str | None, typer.Option(metavar="R,G,B", help="Of the input [that of the weights].")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step [32].")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate [the model's].")] = None,
    optimizer: Annotated[str | None, typer.Option(help="adamw or sgd [adamw].")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="[0.01]")] = None,
    warmup: Annotated[float | None, typer.Option(help="Share of all steps [0.05].")] = None,
    dropout: Annotated[float | None, typer.Option(help="Before the last layer [0.3].")] = None,
    label_smoothing: Annotated[float | None, typer.Option(help="[0]")] = None,
    clip: Annotated[float | None, typer.Option(help="Largest norm of the gradient [1].")] = None,
    balance: Annotated[
        str | None, typer.Option(help="weights, batches, sources or none [weights].")
    ] = None,
    augment: Annotated[
        str | None, typer.Option(help="none, flip, standard, delivered or robust [flip].")
    ] = None,
    forge: Annotated[
        float | None, typer.Option(help="Share of each epoch that is forged from its reals [0].")
    ] = None,
    forge_kinds: Annotated[
        str | None, typer.Option(metavar="A,B", help="self_blend, swap, resample, inpaint [all].")
    ] = None,
    adversarial: Annotated[
        float | None,
        typer.Option(
            metavar="EPS", help="PGD training within so many grey levels; 4 times the cost [0]."
        ),
    ] = None,
    stages: Annotated[int | None, typer.Option(help="Of resnet50v2, 1 to 4 [3].")] = None,
    branches: Annotated[
        str | None, typer.Option(metavar="A,B", help="Of hybrid: rgb, residual [both].")
    ] = None,
    depth: Annotated[
        str | None,
        typer.Option(help="Of hybrid: resnet18, resnet34, resnet50 or resnet50v2 [resnet50v2]."),
    ] = None,
    monitor: MonitorOption = None,
    patience: PatienceOption = None,
    precision: PrecisionOption = None,
    seed: Annotated[int | None, typer.Option(help="[0]")] = None,
    split: SharesOption = None,
    workers: LoadersOption = None,
    devices: Annotated[
        int, typer.Option(min=1, help="Processes on each node, which share each batch.")
    ] = 1,
    nodes: Annotated[
        int, typer.Option(min=1, help="Machines, on which torchrun or srun starts the processes.")
    ] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
) -> None:
    """Train a detector; stop it with Ctrl-C, go on with --resume."""
    given = dict(locals())
    from bonaface.cli._watch import terminal_watch
    from bonaface.config import TrainConfig
    from bonaface.devices import command_line, is_first, start, was_started
    from bonaface.training import check_run
    from bonaface.training import train as run

    overrides = {name: given[name] for name in TrainConfig.model_fields}
    for several in ("forge_kinds", "branches"):
        if overrides[several] is not None:
            overrides[several] = tuple(name.strip() for name in overrides[several].split(","))
    for channels in ("mean", "std"):
        if overrides[channels] is not None:
            overrides[channels] = parse_channels(overrides[channels])
    settings = TrainConfig.read(config, **overrides)
    ratios = parse_ratios(split)
    if devices > 1 and nodes == 1 and not was_started():
        check_run(data, out, settings, resume=resume, ratios=ratios)
        raise typer.Exit(start(command_line(), devices))
    try:
        with terminal_watch() as watch:
            bundle = run(
                data,
                out,
                settings,
                resume=resume,
                ratios=ratios,
                workers=workers,
                devices=devices,
                nodes=nodes,
                watch=watch,
            )
    except KeyboardInterrupt:
        if not is_first():
            raise typer.Exit(INTERRUPTED) from None
        typer.echo(
            f"bonaface: stopped; the same command with --resume goes on with {out}", err=True
        )
        raise typer.Exit(INTERRUPTED) from None
    if not is_first():
        return
    card = bundle.card
    auc = card.validation["auc"]
    typer.echo(
        f"Kept epoch {card.training['epoch']} of {card.training['epochs_run']}: validation AUC "
        f"{auc['value']:.3f} (n = {auc['n']}), {card.training['seconds']:.0f} s of training.\n"
        f"Bundle: {out}\n"
        + (f"Curves: {out / 'training' / 'learning_curves.svg'}\n" if settings.epochs else "")
        + f"Next:   bonaface evaluate {out} {data}"
    )
