"""``bonaface data import``: pictures from elsewhere into the product's layout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bonaface.cli._shared import parse_ratios, printable
from bonaface.cli.data._shared import Ratios, conclude, resumable, show_reasons, show_splits
from bonaface.errors import ConfigError

if TYPE_CHECKING:
    from bonaface.importing.sources import Columns, Source, Splits

_TABLES = (".csv", ".jsonl", ".parquet")


def import_set(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[SOURCE]",
            help="A folder, a table (.csv .jsonl .parquet), or owner/name on the Hugging Face Hub.",
        ),
    ] = None,
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the new set.")],
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=real|fake", help="What a label or a folder's name means."),
    ] = None,
    real: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="A folder of reals, without SOURCE.")
    ] = None,
    fake: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="A folder of fakes, without SOURCE.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(metavar="DIR", help="What a table's paths are relative to.")
    ] = None,
    path_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of paths [file_name], or of the images.")
    ] = None,
    label_column: Annotated[str | None, typer.Option(metavar="NAME", help="[label]")] = None,
    group_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of persons or source videos [group].")
    ] = None,
    revision: Annotated[str | None, typer.Option(metavar="REF", help="On the Hub [main].")] = None,
    config: Annotated[
        str | None, typer.Option(metavar="NAME", help="On the Hub: which part of the set.")
    ] = None,
    ratios: Ratios = None,
    seed: Annotated[int, typer.Option(min=0, help="Of a split that is made here.")] = 0,
) -> None:
    """Bring a set into the layout that bonaface reads; stop with Ctrl-C, go on by repeating.

    Bytes stay as they are: pictures are linked, copied or written as they came. Writes
    metadata.csv, failures.csv and import_report.json. Exit code 3 says that some pictures cannot be
    decoded; they are listed.
    """
    told = _told(label or [])
    shares = parse_ratios(ratios)

    from bonaface.importing import REPORT
    from bonaface.importing import import_set as bring
    from bonaface.importing.sources import Columns, Splits, from_pairs

    columns, splits = Columns(path_column, label_column, group_column), Splits(shares, seed)
    pairs = bool(real or fake)
    if pairs == (source is not None):
        raise ConfigError(
            "expected SOURCE, or --real and --fake, got "
            + (f"both ({source!r} and folders)" if pairs else "neither")
            + "; name one"
        )
    with resumable("importing") as progress:
        if source is None:
            found = from_pairs(real or [], fake or [], splits)
        else:
            found = _open(source, told, root, columns, splits, revision, config)
        made = bring(found, out, progress=progress).to_dict()
    _show(made)
    counts = made["counts"]
    notes = (*found.notes, *made["notes"])
    conclude(out, REPORT, notes, counts["failed"], "pictures were not imported")


def _told(given: list[str]) -> dict[str, int]:
    from bonaface.layouts import LABELS

    told = {}
    for text in given:
        name, _, label = text.rpartition("=")
        if not name or label not in LABELS:
            raise ConfigError(f"expected --label NAME=real or NAME=fake, got {text!r}")
        told[name] = LABELS.index(label)
    return told


def _open(
    source: str,
    told: dict[str, int],
    root: Path | None,
    columns: Columns,
    splits: Splits,
    revision: str | None,
    config: str | None,
) -> Source:
    from bonaface.importing.hub import from_hub, is_id, is_repository
    from bonaface.importing.sources import from_folder, from_table

    path = Path(source)
    if path.is_file() and path.suffix.lower() in _TABLES:
        return from_table(path, told, root=root, columns=columns, splits=splits)
    if path.is_dir() and not is_repository(path):
        return from_folder(path, told, columns, splits)
    if path.is_dir():
        return from_hub(path, told, columns=columns, config=config)
    if not path.exists() and is_id(source):
        return from_hub(source, told, columns=columns, revision=revision, config=config)
    raise ConfigError(
        f"expected a folder, a table ({' '.join(_TABLES)}) or owner/name on the Hub, got "
        f"{source!r}" + ("" if path.exists() else ", which is not there")
    )


def _show(made: dict[str, Any]) -> None:
    counts = made["counts"]
    typer.echo(
        printable(
            f"{made['source']}: {counts['asked']} pictures, {counts['linked']} linked, "
            f"{counts['written']} written, {counts['failed']} not imported"
        )
    )
    show_splits(made["splits"])
    show_reasons("not imported", counts["reasons"])
