"""What a data set's folder says: which images there are, and the label and split of each.

The two layouts of docs/data.md are read here: folders, and a metadata file. Labels and splits are
told by name, never by order or number. Clips are read as images are, by other endings.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Final, NamedTuple

from bonaface.errors import DataError, MissingExtraError
from bonaface.tars import TAR, index, tar_of

SPLITS: Final = ("train", "validation", "test")
LABELS: Final = ("real", "fake")  # LABELS[sample.label]
SUFFIXES: Final = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif", ".hif"}
)  # by which image files are found; the content decides how one is read
METADATA_NAMES: Final = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
COLUMNS: Final = ("group", "generator", "age", "gender", "race", "source")

_KNOWN: Final = frozenset({"file_name", "label", "split", *COLUMNS})
_OURS: Final = re.compile(  # what `bonaface data` writes at the top, besides the metadata
    r"subset-\d+\.csv|failures\.csv|crop_recipe\.json|\w+_report\.json"
    r"|(crops|forgeries|frames|imports|shards|splits)\.jsonl"
)
_IGNORED: Final = frozenset({"__macosx", "thumbs.db", "desktop.ini"})
_SPLIT_WORDS: Final = {
    word: split
    for split, words in {
        "train": "train training",
        "validation": "validation valid val dev",
        "test": "test testing",
    }.items()
    for word in words.split()
}
_LABEL_WORDS: Final = {
    word: label
    for label, words in {
        0: "real reals original originals authentic genuine bonafide live pristine "
        "unaltered unmodified unmanipulated untampered",
        1: "fake fakes manipulated manipulation manipulations deepfake deepfakes synthetic "
        "synthesis synthesized synthesised ai aigenerated generated forged forgery forgeries "
        "altered spoof spoofed spoofs swap swaps swapped faceswap faceswaps faceswapped tampered",
    }.items()
    for word in words.split()
}
_FILLERS: Final = frozenset(  # words that a label's folder may carry besides
    {"image", "images", "img", "imgs", "picture", "pictures", "photo", "photos", "face", "faces"}
    | {"frame", "frames", "video", "videos", "sample", "samples", "sequence", "sequences"}
    | {"crop", "crops", "data", "set", "split", "class"}
)


class Kind(NamedTuple):
    """What a data set consists of.

    Attributes:
        suffixes: lower-case endings by which its files are found.
        noun: what messages call them, in the plural.
    """

    suffixes: frozenset[str]
    noun: str


IMAGES: Final = Kind(SUFFIXES, "images")
LabelOf = Callable[[str], int | None]  # a name -> its label; None: it means neither


class Draft(NamedTuple):
    """What the layout says of one image; the fields of a `Sample`, but the split may be open."""

    path: str
    label: int
    split: str | None
    group: str | None = None
    generator: str | None = None
    age: str | None = None
    gender: str | None = None
    race: str | None = None
    source: str | None = None


def locate(data: Path) -> tuple[Path, Path | None]:
    """The data set's folder and its metadata file, if it has one."""
    try:
        return _locate(data)
    except OSError as error:
        raise DataError(f"{data} cannot be read ({error.strerror}); check the name") from error


def _locate(data: Path) -> tuple[Path, Path | None]:
    if data.is_file():
        if data.name not in METADATA_NAMES and data.suffix.lower() != ".csv":
            raise DataError(
                f"expected a folder, one of {', '.join(METADATA_NAMES)} or another table in CSV "
                f"beside the images, got the file {data}"
            )
        return data.parent, data
    if not data.is_dir():
        raise DataError(f"expected a data set's folder, found nothing at {data}")
    found = [data / name for name in METADATA_NAMES if (data / name).is_file()]
    if len(found) > 1:
        raise DataError(
            f"expected one metadata file in {data}, found {some(f.name for f in found)}; "
            "keep one, or name the one to read instead of the folder"
        )
    return data, found[0] if found else None


# -- what lies on disk --


@dataclass
class Files:
    """What `scan` found: images, or what else was asked for, with their size, and other files."""

    kind: Kind = IMAGES
    images: dict[str, int] = field(default_factory=dict)  # path -> bytes
    tars: set[str] = field(default_factory=set)  # that nothing has asked about yet
    others: list[str] = field(default_factory=list)
    linked: list[str] = field(default_factory=list)  # folders

    @property
    def notes(self) -> list[str]:
        """What a person should know about what is left out."""
        notes = []
        if left := sorted([*self.others, *self.tars]):
            notes.append(
                f"{len(left)} files are not {self.kind.noun} by their ending and are left "
                f"out: {some(left)}"
            )
        nested = [path for path in left if PurePosixPath(path).name in METADATA_NAMES]
        if nested:
            notes.append(f"metadata is read at the top only, so not from {some(nested)}")
        if self.linked:
            notes.append(
                f"{len(self.linked)} folders are links and were followed: {some(self.linked)}"
            )
        return notes


def scan(root: Path, kind: Kind = IMAGES) -> Files:
    """Every file under `root`, except hidden ones and what macOS and Windows leave behind."""
    files = Files(kind)
    lost: list[str] = []
    status = root.stat()
    seen = {(status.st_dev, status.st_ino): "."}
    folders = [(str(root), "")]
    while folders:
        folder, prefix = folders.pop()
        for entry in _entries(folder, root):
            path = prefix + entry.name
            if entry.name.startswith(".") or entry.name.lower() in _IGNORED:
                continue
            try:
                status = entry.stat()
            except OSError:  # a link to nothing, or to itself
                lost.append(path)
                continue
            if entry.is_dir():
                identity = (status.st_dev, status.st_ino)
                if status.st_ino and identity in seen:
                    raise DataError(
                        f"expected every folder once, but {_readable(path)} is the same folder "
                        f"as {_readable(seen[identity])} in {root}; remove the link"
                    )
                seen[identity] = path
                if entry.is_symlink():
                    files.linked.append(path)
                folders.append((entry.path, path + "/"))
            elif entry.is_file() and os.path.splitext(path)[1].lower() in kind.suffixes:  # noqa: PTH122
                files.images[path] = status.st_size
            elif kind == IMAGES and path.lower().endswith(TAR):
                files.tars.add(path)
            elif prefix or not (entry.name in METADATA_NAMES or _OURS.fullmatch(entry.name)):
                files.others.append(path)
    _check_names(files.images, lost, root)
    return files


def _entries(folder: str, root: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        raise DataError(
            f"the folder {_readable(folder)} of {_readable(str(root))} cannot be listed "
            f"({error.strerror}); give yourself permission to read it"
        ) from error


def _check_names(images: Iterable[str], lost: list[str], root: Path) -> None:
    if lost:
        raise DataError(
            f"{len(lost)} links in {root} lead nowhere: {some(lost)}; restore what they point at "
            "or delete them"
        )
    alien = [path for path in images if not _is_utf8(path)]
    if alien:
        raise DataError(
            f"expected file names in UTF-8, but {len(alien)} in {root} are not: {some(alien)}; "
            "rename them (convmv does it for a whole tree)"
        )


# -- the folder layout --


@lru_cache(maxsize=4096)
def _word(name: str) -> str:
    """The telling letters of a folder's name: '0_real', 'RealImages' and 'real-2' are 'real'."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = re.findall(r"[^\W\d_]+", spaced.casefold())
    return "".join(word for word in words if word not in _FILLERS) or "".join(words)


def split_of(name: str) -> str | None:
    """The split that a name means; None: none of them."""
    return _SPLIT_WORDS.get(_word(name))


def label_of(name: str) -> int | None:
    """The label that a name means; None: neither. A number means nothing."""
    return _LABEL_WORDS.get(_word(name))


def label_by(told: Mapping[str, int]) -> LabelOf:
    """As `label_of`, but names in `told`, in any case, mean what it says."""
    names = {name.casefold(): label for name, label in told.items()}

    def label(name: str) -> int | None:
        return names.get(name.casefold(), label_of(name))

    return label


def from_folders(
    root: Path, files: Files, notes: list[str], means: LabelOf = label_of
) -> list[Draft]:
    """Read labels and splits off the folders' names; images outside such folders are noted."""
    noun = files.kind.noun
    by_folder: dict[str, list[str]] = defaultdict(list)
    for path in files.images:
        by_folder[path.rpartition("/")[0]].append(path)
    tops = sorted({folder.split("/")[0] for folder in by_folder} - {""})
    has_splits = _check_tops(root, tops, means)
    drafts: list[Draft] = []
    matched: dict[int, set[str]] = {0: set(), 1: set()}
    unknown: set[str] = set()
    stray: list[str] = []
    for folder, paths in sorted(by_folder.items()):
        parts = folder.split("/") if folder else []
        split = split_of(parts[0]) if parts else None
        depth = 1 if has_splits else 0
        if len(parts) <= depth or (has_splits and split is None):
            stray += paths
            continue
        label = means(parts[depth])
        if label is None:
            unknown.add("/".join(parts[: depth + 1]))
            continue
        matched[label].add(parts[depth])
        below = parts[depth + 1] if len(parts) > depth + 1 else None
        _check_below(below, label, folder, root, means)
        below = below or told_name(parts[depth])
        drafts += [
            Draft(
                path,
                label,
                split,
                generator=below if label else None,
                source=None if label else below,
            )
            for path in paths
        ]
    if unknown:
        raise DataError(_unknown_labels(root, sorted(unknown)))
    if stray and not drafts:
        raise DataError(
            f"expected {noun} in folders named real and fake, found {len(stray)} outside such "
            f"folders in {root}: {some(stray)}; sort them into real and fake"
        )
    for label, names in matched.items():
        if names:
            notes.append(f"label folders read as {LABELS[label]}: {', '.join(sorted(names))}")
    if stray:
        notes.append(
            f"{len(stray)} {noun} lie outside the label folders and are left out: {some(stray)}"
        )
    return drafts


def _check_tops(root: Path, tops: list[str], means: LabelOf) -> bool:
    """Whether the folders at the top are splits; DataError where they are neither nor, or both."""
    splits = [top for top in tops if split_of(top)]
    labels = [top for top in tops if means(top) is not None]
    if splits and labels:
        raise DataError(
            f"expected split folders or label folders at the top of {root}, found both: "
            f"{some(splits + labels)}; move the label folders into the splits"
        )
    doubled = [name for name, n in Counter(map(split_of, splits)).items() if n > 1]
    if doubled:
        raise DataError(
            f"expected one folder for each split in {root}, found {some(splits)}; "
            f"merge those that mean {doubled[0]}"
        )
    if tops and not splits and not labels:
        raise DataError(_unknown_labels(root, tops) + _nested_hint(root))
    return bool(splits)


def _check_below(below: str | None, label: int, folder: str, root: Path, means: LabelOf) -> None:
    if below is None:
        return
    if split_of(below):
        raise DataError(
            f"expected SPLIT/{LABELS[label]}, found the split below the label in "
            f"{_readable(folder)} of {root}; swap the two levels"
        )
    if means(below) == 1 - label:
        raise DataError(
            f"the folder {_readable(folder)} of {root} says both real and fake; rename one of them"
        )


def _unknown_labels(root: Path, seen: list[str]) -> str:
    numbers = not any(_word(PurePosixPath(name).name) for name in seen)
    return (
        f"expected folders named real and fake (or a name that means one of them), found "
        f"{some(seen)} in {root}; "
        + (
            "numbers do not say which is which: rename them to real and fake"
            if numbers
            else "rename them, or list the files with their labels in metadata.csv"
        )
    )


def _nested_hint(root: Path) -> str:
    for folder, names, _ in os.walk(root):
        if any(split_of(name) or label_of(name) is not None for name in names):
            return f" (or did you mean {_readable(folder)}?)"
    return ""


# -- the metadata layout --


class BadRowError(Exception):
    """What is wrong with a row, worded to follow "3 rows"."""


def from_metadata(
    metadata: Path, root: Path, files: Files, notes: list[str], means: LabelOf = label_of
) -> list[Draft]:
    """Read the metadata file; images without a row are left out, and noted."""
    problems: dict[str, list[str]] = defaultdict(list)
    drafts: dict[str, Draft] = {}
    numbers: dict[str, int] = {}
    extra: set[str] = set()
    # macOS writes names decomposed; the table may hold them composed.
    composed = {
        unicodedata.normalize("NFC", path): path for path in files.images if not path.isascii()
    }
    for where, row in table_rows(metadata):
        extra |= row.keys() - _KNOWN
        try:
            path = _row_path(cell(row.get("file_name")), root, files, composed)
            if path in drafts:
                raise BadRowError("name a file a second time; keep one row for each")
            drafts[path] = row_draft(path, row, numbers, means)
        except BadRowError as error:
            problems[str(error)].append(f"{where}: {row.get('file_name') or ''}")
    for problem, rows in problems.items():
        raise DataError(f"{len(rows)} rows of {metadata} {problem} ({some(rows)})")
    if not drafts:
        raise DataError(f"expected rows in {metadata}, found none; list the images in it")
    if extra:
        notes.append(f"columns that are not used: {some(sorted(extra))}")
    left = sorted(path for path in files.images if path not in drafts)
    if left:
        notes.append(
            f"{len(left)} {files.kind.noun} have no row in the metadata, left out: {some(left)}"
        )
    return list(drafts.values())


def _row_path(name: str | None, root: Path, files: Files, composed: dict[str, str]) -> str:
    if name is None:
        raise BadRowError("have no file_name; give each one")
    for path in inside(name):
        found = composed.get(unicodedata.normalize("NFC", path), path)
        if found in files.images or (_look_into(root, found, files) and found in files.images):
            return found
    raise BadRowError(
        f"name files that are not there or not {files.kind.noun} by their ending; restore the "
        "files or drop the rows"
    )


def _look_into(root: Path, path: str, files: Files) -> bool:
    """List the pictures of the tar that a path leads into, unless that has been done."""
    tar = tar_of(path)
    if tar not in files.tars:
        return False
    files.tars.remove(tar)
    try:
        inside = index(f"{root}/{tar}")
    except OSError as error:
        raise DataError(
            f"expected pictures in {tar} of {root}, but it cannot be read to its end: "
            f"{error.strerror}; copy or write it again"
        ) from error
    files.images |= {
        f"{tar}/{one.name}": one.size
        for one in inside.values()
        if os.path.splitext(one.name)[1].lower() in files.kind.suffixes  # noqa: PTH122
    }
    return True


def inside(name: str) -> tuple[str, str]:
    """A path from a table as it may be meant, with either kind of slash; never leads outside.

    Raises:
        BadRowError: it is absolute or climbs up.
    """
    windows = PureWindowsPath(name)  # it understands both kinds of slash
    if windows.drive or windows.root or ".." in windows.parts:
        raise BadRowError(
            "name files outside the data set; expected paths relative to the metadata file, "
            "without '..'"
        )
    return str(PurePosixPath(name)), windows.as_posix()


def told_name(name: str | None) -> str | None:
    """A label's name that means a label only because somebody said so: it says what made it."""
    return None if name is None or label_of(name) is not None or is_number(name) else name


def row_draft(path: str, row: dict[str, Any], numbers: dict[str, int], means: LabelOf) -> Draft:
    """What a row of a table says of the file at `path`.

    Raises:
        BadRowError: it says nothing of the label, nothing that is known, or contradicts itself.
    """
    parts = path.split("/")[:-1]
    label = _row_label(cell(row.get("label")), parts, numbers, means)
    at = next((i for i, part in enumerate(parts) if means(part) is not None), len(parts))
    below = parts[at + 1] if len(parts) > at + 1 else told_name(cell(row.get("label")))
    if below is not None:  # what the columns do not tell, the folder may
        row = {"generator" if label else "source": below, **row}
    split = _row_split(cell(row.get("split")), parts)
    return Draft(path, label, split, *(cell(row.get(name)) for name in COLUMNS))


def _row_label(text: str | None, parts: list[str], numbers: dict[str, int], means: LabelOf) -> int:
    told = {means(part) for part in parts} - {None}
    folder = told.pop() if len(told) == 1 else None
    if text is None or (means(text) is None and is_number(text)):
        if folder is None:
            raise BadRowError(
                "have no label; write real or fake"
                if text is None
                else "have a number as label, which does not say which is which; write real or fake"
            )
        label = folder if text is None else numbers.setdefault(text, folder)
    else:
        stated = means(text)
        if stated is None:
            raise BadRowError("have a label that means neither real nor fake; write one of them")
        label = stated
    if folder not in (None, label):
        raise BadRowError("have a label that contradicts the name of the folder; correct one")
    return label


def _row_split(text: str | None, parts: list[str]) -> str | None:
    folder = split_of(parts[0]) if parts else None
    if text is None:
        return folder
    split = split_of(text)
    if split is None:
        raise BadRowError(f"have an unknown split; expected one of {', '.join(SPLITS)}")
    if folder not in (None, split):
        raise BadRowError("have a split that contradicts the split folder; correct one")
    return split


def is_number(text: str) -> bool:
    """Whether a label is a number, which does not say which is which."""
    return re.fullmatch(r"[+-]?\d+(\.0*)?", text) is not None


def cell(value: Any) -> str | None:
    """A cell of a table as text without space around it; None where there is nothing in it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() or None


_Rows = Iterator[tuple[str, dict[str, Any]]]


def table_rows(path: Path, need: str = "file_name", known: frozenset[str] = _KNOWN) -> _Rows:
    """The rows of a table in CSV, JSON lines or Parquet, with where they stand, such as "line 7".

    Args:
        path: ends in .csv, .jsonl or .parquet.
        need: a column that must be there; in JSON lines it may be missing.
        known: columns whose values are wanted; others may be None.

    Raises:
        DataError: it is not such a table.
        MissingExtraError: Parquet without pyarrow.
    """
    try:
        match path.suffix.lower():
            case ".jsonl":
                yield from _jsonl_rows(path)
            case ".parquet":
                yield from _parquet_rows(path, need, known)
            case _:
                yield from _csv_rows(path, need)
    except UnicodeDecodeError as error:
        raise DataError(f"expected {path} in UTF-8, but it is not; save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from error


def _check_columns(columns: Iterable[str], path: Path, need: str) -> None:
    names = list(columns)
    if need not in names:
        raise DataError(f"expected a column {need} in {path}, found {some(names, 9) or 'none'}")
    doubled = [name for name, n in Counter(names).items() if n > 1]
    if doubled:
        raise DataError(f"expected every column of {path} once, found {some(doubled)} again")


def _csv_rows(path: Path, need: str) -> _Rows:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = [name.strip() for name in next(reader, [])]
            _check_columns(header, path, need)
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise DataError(
                        f"expected {len(header)} cells in line {reader.line_num} of {path}, "
                        f"found {len(cells)}; quote cells that hold a comma"
                    )
                yield f"line {reader.line_num}", dict(zip(header, cells, strict=True))
        except csv.Error as error:
            raise DataError(f"line {reader.line_num} of {path} is not CSV ({error})") from error


def _jsonl_rows(path: Path) -> _Rows:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair is no text
            except (ValueError, RecursionError) as error:
                raise DataError(f"line {number} of {path} is not JSON ({error})") from error
            if not isinstance(row, dict):
                raise DataError(
                    f"expected an object in line {number} of {path}, such as "
                    '{"file_name": "a.jpg", "label": "real"}'
                )
            yield f"line {number}", row


def _parquet_rows(path: Path, need: str, known: frozenset[str]) -> _Rows:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("Parquet metadata", "train") from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            _check_columns(columns, path, need)
            number = 0
            unused = dict.fromkeys(set(columns) - known)  # named in a note, never read
            for batch in file.iter_batches(columns=[c for c in columns if c in known]):
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", {**row, **unused}
    except pyarrow.ArrowException as error:
        raise DataError(f"{path} is not a readable Parquet file ({error})") from error


# -- words for messages --


def _is_utf8(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def _readable(text: str) -> str:
    """A name as it can be printed, whatever bytes it holds."""
    try:
        plain = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        plain = ascii(text)[1:-1]
    return plain if plain.isprintable() else repr(plain)[1:-1]


def some(names: Iterable[str], n: int = 3) -> str:
    """The first `n` names and how many more there are."""
    every = [_readable(name) for name in names]
    more = f" and {len(every) - n} more" if len(every) > n else ""
    return ", ".join(every[:n]) + more
