"""`bonaface models`: every network, its size and its cost."""

from __future__ import annotations

from typing import Annotated, Any

import typer


def models(
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the networks with weights, multiply-adds, file size and licence."""
    import json

    from rich.console import Console
    from rich.table import Column, Table

    from bonaface.config import TrainConfig
    from bonaface.errors import MissingExtraError

    try:
        import torch

        from bonaface.models import registry
    except ImportError as error:
        raise MissingExtraError("the list of models", "train") from error

    rows: list[dict[str, Any]] = []
    for name, spec in registry.MODELS.items():
        with torch.device("meta"):
            made = registry.create(TrainConfig(model=name))
        weights = registry.parameters(made.module)
        rows.append(
            {
                "name": name,
                "size": spec.size,
                "parameters": weights,
                "multiply_adds": registry.multiply_adds(made.module, spec.size),
                "file_bytes": 4 * weights,
                "pretrained": spec.pretrained,
                "licence": spec.licence,
            }
        )
    if json_:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table(
        Column("model", no_wrap=True),
        "input",
        "weights",
        "multiply-adds",
        "float32 file",
        Column("--pretrained takes", overflow="fold"),
        Column("its licence", overflow="fold"),
        caption="Multiply-adds: one image at that input, convolutions and linear layers, one for a "
        "multiplication with its addition. Bottleneck ResNets have their stride in the 3x3 "
        "convolution, as the published weights have (the paper's variant: 3.8, 7.6, 11.3 G).",
        caption_justify="left",
    )
    for row in rows:
        weights, size = row["parameters"], row["file_bytes"]
        table.add_row(
            row["name"],
            f"{row['size']} px",
            f"{weights / 1e6:.1f} M" if weights >= 1e5 else f"{weights:,}",
            f"{row['multiply_adds'] / 1e9:.2f} G",
            f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB",
            row["pretrained"],
            row["licence"],
        )
    Console().print(table)
