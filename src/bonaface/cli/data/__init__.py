"""``bonaface data``: what prepares data sets; one file a command."""

from __future__ import annotations

import typer

from bonaface.cli.data import crop, forge, frames, importing, shard, split

app = typer.Typer(
    help="Prepare data sets: bring them into the product's layout, split them, cut out faces, "
    "forge fakes, write shards.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
app.command("import")(importing.import_set)
app.command()(split.split)
app.command()(frames.frames)
app.command()(crop.crop)
app.command()(forge.forge)
app.command()(shard.shard)
