"""Where pictures to be imported come from: folders, pairs of folders, tables.

A source says what each picture is before any is read. Labels and splits are told by name, as
everywhere; what a name means beyond the words that `layouts` knows has to be said.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import (
    Callable,
    Container,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from bonaface.crops import CropRecipe, read_recipe
from bonaface.errors import ConfigError, DataError, ImageError
from bonaface.images import os_reason
from bonaface.layouts import (
    COLUMNS,
    LABELS,
    BadRowError,
    Draft,
    cell,
    inside,
    label_by,
    locate,
    row_draft,
    scan,
    some,
    table_rows,
)
from bonaface.samples import Sample, Samples, check_ratios, read_drafts, with_splits

HINT: Final = "or say what a name means, as in --label 0=fake --label 1=real"


class Entry(NamedTuple):
    """One picture of a source.

    Attributes:
        path: where it comes from, once in a source.
        row: what is known of it; None: not enough to import it.
        content: its file, its bytes, or what gets them.
        reason: why it cannot be imported, where that is known already.
    """

    path: str
    row: Sample | None = None
    content: Path | bytes | Callable[[], bytes] = b""
    reason: str | None = None


@dataclass(frozen=True)
class Source:
    """Pictures to be imported.

    Attributes:
        header: its name, and by what it is known again when an import goes on.
        entries: gives its pictures, in an order of their own, but for those done (by path).
        total: how many there are; None: not known.
        places: folders that the new set must lie outside of.
        notes: what a person should know about how it was read.
        recipe: by which its faces were cut; None: not known.
    """

    header: dict[str, Any]
    entries: Callable[[Container[str]], Generator[Entry, None, None]]
    total: int | None
    places: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    recipe: CropRecipe | None = None


@dataclass(frozen=True, slots=True)
class Columns:
    """What the columns of a foreign table are called; None: as ours are.

    Attributes:
        path: of the pictures, or of their paths.
        label: of the labels.
        group: of identities or source videos.
    """

    path: str | None = None
    label: str | None = None
    group: str | None = None

    def ours(self, names: Iterable[str]) -> dict[str, str]:
        """A column of theirs -> what it is called here, for those that are used."""
        named = {
            self.path or "file_name": "file_name",
            self.label or "label": "label",
            self.group or "group": "group",
        }
        free = {"split", *COLUMNS} - set(named.values())
        return {name: named.get(name, name) for name in names if name in named or name in free}


@dataclass(frozen=True, slots=True)
class Splits:
    """How a source without splits is split: shares of train, validation, test, and the seed."""

    ratios: tuple[float, float, float] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_ratios(self.ratios)


_OURS: Final = Columns()
_UNSPLIT: Final = Splits()


def from_folder(
    folder: Path, told: Mapping[str, int], columns: Columns = _OURS, splits: Splits = _UNSPLIT
) -> Source:
    """A data set in one of the two layouts; names in `told` mean the label that it says.

    Raises:
        DataError: it cannot be read as one.
    """
    root, metadata = locate(folder.absolute())
    if metadata is not None and columns != _OURS:
        made = from_table(metadata, told, columns=columns, splits=splits)
        return replace(made, places=(root,), recipe=read_recipe(root))
    try:
        root, drafts, notes = read_drafts(folder, label_of=label_by(told))
    except DataError as error:
        wrong = "label" in str(error) or "real and fake" in str(error)
        raise DataError(f"{error}; {HINT}" if wrong else str(error)) from error
    samples = with_splits(root, drafts, notes, splits.ratios, splits.seed)
    return replace(_files(samples, root.name), places=(root,), recipe=read_recipe(root))


def from_pairs(reals: Sequence[Path], fakes: Sequence[Path], splits: Splits = _UNSPLIT) -> Source:
    """Folders of reals and of fakes, whatever lies below; their names are source and generator.

    Raises:
        ConfigError: folders of a label have the same name, or lie in one another.
        DataError: one holds no images.
    """
    folders = [
        (label, Path(os.path.abspath(path)))  # noqa: PTH100  (keeps links as named)
        for label, given in enumerate((reals, fakes))
        for path in given
    ]
    if len({(label, path.name) for label, path in folders}) < len(folders):
        raise ConfigError(
            "expected a name of its own for each folder of reals and for each of fakes, got "
            f"{some(str(path) for _, path in folders)}; rename one"
        )
    root = Path(os.path.commonpath([path.parent for _, path in folders]))
    drafts: list[Draft] = []
    notes: list[str] = []
    for label, path in folders:
        if not path.is_dir():
            raise DataError(f"expected a folder with {LABELS[label]} pictures, got {str(path)!r}")
        files = scan(path)
        if not files.images:
            raise DataError(f"expected images in {str(path)!r}, found none; name another folder")
        notes += [f"{path.name}: {note}" for note in files.notes]
        made_by = {"generator" if label else "source": path.name}
        below = path.relative_to(root).as_posix()
        drafts += [Draft(f"{below}/{name}", label, None, **made_by) for name in files.images]
    if len({draft.path for draft in drafts}) < len(drafts):
        raise ConfigError(
            "expected folders that do not lie in one another, got "
            f"{some(str(path) for _, path in folders)}; name each picture's folder once"
        )
    samples = with_splits(root, drafts, notes, splits.ratios, splits.seed)
    name = " and ".join(path.name for _, path in folders)
    return replace(_files(samples, name), places=tuple(path for _, path in folders))


def from_table(
    table: Path,
    told: Mapping[str, int],
    *,
    root: Path | None = None,
    columns: Columns = _OURS,
    splits: Splits = _UNSPLIT,
) -> Source:
    """The pictures that a table (CSV, JSON lines, Parquet) lists, relative to it or to `root`.

    Labels and splits that its columns do not tell may be told by the names of folders. Rows without
    a path or a label, and those that lead nowhere or outside, become entries with a reason.

    Raises:
        DataError: it is no table, or speaks of labels or splits that nobody knows.
    """
    root = (root or table.parent).absolute()
    means = label_by(told)
    drafts: dict[str, Draft] = {}
    failed: list[Entry] = []
    problems: dict[str, list[str]] = defaultdict(list)
    read_as: dict[int, set[str]] = {0: set(), 1: set()}
    numbers: dict[str, int] = {}
    for where, row in _our_rows(table, columns):
        name, label = cell(row.get("file_name")), cell(row.get("label"))
        try:
            path = _listed(name, root, drafts)
            draft = row_draft(path, row, numbers, means)
        except ImageError as error:
            failed.append(Entry(f"{where}: {name or ''}", reason=error.reason))
        except BadRowError as error:
            if label is None and "label" in row:
                failed.append(Entry(f"{where}: {name}", reason="no label"))
            else:
                problems[str(error)].append(f"{where}: {label or name}")
        else:
            drafts[path] = draft
            read_as[draft.label].add(label or "(by folder)")
    for problem, rows in problems.items():
        raise DataError(f"{len(rows)} rows of {table} {problem} ({some(rows)}); {HINT}")
    if not drafts:
        raise DataError(
            f"expected pictures that are there in {table}, found none in {len(failed)} rows; check "
            "--root and the names of the columns"
        )
    notes = [
        f"labels read as {LABELS[label]}: {some(sorted(names), 9)}"
        for label, names in read_as.items()
        if names
    ]
    samples = with_splits(root, list(drafts.values()), notes, splits.ratios, splits.seed)
    return _files(samples, table.name, failed)


def _our_rows(table: Path, columns: Columns) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows with where they stand, by our names of the columns."""
    asked = [name for name in (columns.path, columns.label, columns.group) if name is not None]
    wanted = frozenset(columns.ours({"file_name", "label", "split", *COLUMNS, *asked}))
    for where, theirs in table_rows(table, columns.path or "file_name", wanted):
        missing = [name for name in asked if name not in theirs]
        if missing:
            raise DataError(
                f"expected a column {missing[0]} in {table}, found {some(theirs, 9)}; name another"
            )
        yield where, {ours: theirs[name] for name, ours in columns.ours(theirs).items()}


def _listed(name: str | None, root: Path, drafts: Container[str]) -> str:
    """The path of a row's picture, which is there and was not listed before."""
    if name is None:
        raise ImageError("no file name")
    try:
        either = inside(name)
    except BadRowError:
        raise ImageError("leads outside the folder") from None
    path = either[0] if (root / either[0]).exists() else either[1]
    try:
        (root / path).stat()
    except (OSError, ValueError) as error:
        told = error if isinstance(error, OSError) else FileNotFoundError()
        raise ImageError(os_reason(root / path, told)) from error
    if path in drafts:
        raise ImageError("listed a second time")
    return path


def _files(samples: Samples, name: str, failed: Sequence[Entry] = ()) -> Source:
    def entries(done: Container[str]) -> Generator[Entry, None, None]:
        yield from (entry for entry in failed if entry.path not in done)
        for row in samples.rows:
            if row.path not in done:
                yield Entry(row.path, row, samples.absolute(row))

    header = {"source": name, "fingerprint": samples.fingerprint()}
    return Source(header, entries, len(failed) + len(samples), notes=samples.notes)
