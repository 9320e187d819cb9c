"""A data set on disk to a table of samples: which file, real or fake, which split, which group.

Two layouts are read (docs/data.md): folders `SPLIT/real|fake/[GENERATOR/]`, and a `metadata.csv`,
`.jsonl` or `.parquet` at the top, in the Hugging Face imagefolder form. Labels and splits are told
by name, never by order or number. What would make a test result worthless (the same picture or the
same group in two splits) is an error here, not a finding later.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Final

from bonaface.errors import ConfigError, DataError, MissingExtraError

SPLITS: Final = ("train", "validation", "test")
LABELS: Final = ("real", "fake")  # LABELS[sample.label]
DEFAULT_RATIOS: Final = (0.8, 0.1, 0.1)
SUFFIXES: Final = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif"}
)  # by which image files are found; the content decides how one is read
METADATA_NAMES: Final = ("metadata.csv", "metadata.jsonl", "metadata.parquet")

_COLUMNS: Final = ("file_name", "label", "split", "group", "generator", "age", "gender", "race")
_KNOWN: Final = frozenset({*_COLUMNS, "source"})
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
        0: "real reals original originals authentic genuine bonafide live pristine natural "
        "unaltered unmodified unmanipulated untampered",
        1: "fake fakes manipulated manipulation manipulations deepfake deepfakes synthetic "
        "synthesis synthesized synthesised ai aigenerated generated forged forgery forgeries "
        "altered spoof spoofed spoofs swap swaps swapped faceswap faceswaps faceswapped tampered "
        "edited",
    }.items()
    for word in words.split()
}
_FILLERS: Final = frozenset(  # words that a label's folder may carry besides
    {"image", "images", "img", "imgs", "picture", "pictures", "photo", "photos", "face", "faces"}
    | {"frame", "frames", "video", "videos", "sample", "samples", "sequence", "sequences"}
    | {"crop", "crops", "data", "set", "split", "class"}
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a data set.

    Attributes:
        path: relative to `Samples.root`, with forward slashes.
        label: 1 fake, 0 real.
        split: "train", "validation" or "test".
        group: identity or source video; None: unknown, the sample is its own group.
        generator: what made the fake. The rest: as the data set tells them.
    """

    path: str
    label: int
    split: str
    group: str | None = None
    generator: str | None = None
    age: str | None = None
    gender: str | None = None
    race: str | None = None
    source: str | None = None


@dataclass(frozen=True)
class Samples:
    """The samples of a data set, or of a part of it.

    Attributes:
        root: the data set's folder, absolute.
        rows: sorted by path; paths are unique.
        notes: what a person should know about how the data set was read.
    """

    root: Path
    rows: tuple[Sample, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def split(self, name: str) -> Samples:
        """The samples of one split, possibly none. Raises DataError for an unknown name."""
        if name not in SPLITS:
            raise DataError(f"expected a split out of {', '.join(SPLITS)}, got {name!r}")
        return replace(self, rows=tuple(row for row in self.rows if row.split == name))

    def counts(self) -> dict[str, dict[str, int]]:
        """Images by split and label, as `{"train": {"real": 7, "fake": 7}}`; no empty splits."""
        seen = Counter((row.split, row.label) for row in self.rows)
        return {
            split: {name: seen[split, label] for label, name in enumerate(LABELS)}
            for split in SPLITS
            if seen[split, 0] + seen[split, 1]
        }

    def absolute(self, sample: Sample) -> Path:
        """Where the sample lies on disk."""
        return self.root / sample.path

    def fingerprint(self) -> str:
        """SHA-256, in hex, over path, label, split, group and byte size of every sample.

        The same files in another place, copied at another time, have the same fingerprint.
        Raises DataError when a file has gone since the data set was read.
        """
        digest = hashlib.sha256()
        for row in self.rows:
            try:
                size = self.absolute(row).stat().st_size
            except OSError as error:
                raise DataError(
                    f"{row.path} was there when {self.root} was read and is not now "
                    f"({error.strerror}); read the data set again"
                ) from error
            line = [row.path, row.label, row.split, row.group, size]
            digest.update(json.dumps(line).encode() + b"\n")
        return digest.hexdigest()

    def limit(self, n: int, seed: int = 0) -> Samples:
        """A subset of at most `n` samples of each split, half real, half fake.

        Where one class runs out, the other fills up. Groups are taken one after the other, so
        few are cut. For one seed the subsets are nested: `limit(100)` lies within `limit(200)`.
        """
        if n < 1:
            raise ConfigError(f"expected a limit of at least 1 sample, got {n}")
        chosen: list[Sample] = []
        for split in SPLITS:
            queues = [
                sorted(
                    (row for row in self.rows if row.split == split and row.label == label),
                    key=lambda row: (_rank(seed, row.group or row.path), _rank(seed, row.path)),
                )
                for label in (0, 1)
            ]
            order = [
                (at, label, row) for label in (0, 1) for at, row in enumerate(queues[label])
            ]  # the first of each class, then the second of each, ...
            order.sort(key=lambda entry: entry[:2])
            chosen += [row for _, _, row in order[:n]]
        return replace(self, rows=tuple(sorted(chosen, key=lambda row: row.path)))


def load_samples(
    data: Path,
    *,
    ratios: tuple[float, float, float] | None = None,
    seed: int = 0,
    need: Collection[str] = (),
) -> Samples:
    """Read a data set: a folder in one of the two layouts, or its metadata file.

    Args:
        data: the folder, or the metadata file at its top.
        ratios: shares of train, validation and test for a data set without splits (80/10/10 when
            None); by label, whole groups only. A data set that has splits keeps them.
        seed: of that split.
        need: splits that must be there and hold both classes.

    Raises:
        DataError: the data set cannot be used as it stands; the message says what to do.
        ConfigError: ratios or need make no sense.
        MissingExtraError: `metadata.parquet` without pyarrow.
    """
    _check_wishes(ratios, need)
    root, metadata = _locate(Path(os.path.abspath(data)))  # noqa: PTH100  (keeps links as named)
    files = _scan(root)
    notes = list(files.notes)
    if metadata is None:
        drafts = _from_folders(root, files, notes)
    else:
        drafts = _from_metadata(metadata, root, files, notes)
    if not drafts:
        raise DataError(
            f"expected images ({' '.join(sorted(SUFFIXES))}) under {root}, found none; "
            "see docs/data.md for the layouts that are read"
        )
    rows = tuple(sorted(_with_splits(drafts, root, ratios, seed, notes), key=lambda r: r.path))
    samples = Samples(root, rows, tuple(notes))
    _check_needs(samples, need)
    _check_groups(samples)
    _check_copies(samples, files.images)
    return samples


def _check_wishes(ratios: tuple[float, float, float] | None, need: Collection[str]) -> None:
    if ratios is not None and (
        len(ratios) != 3
        or not all(math.isfinite(share) and share >= 0 for share in ratios)
        or not math.isclose(sum(ratios), 1.0, abs_tol=1e-6)
    ):
        raise ConfigError(
            f"expected three shares (train, validation, test) that add up to 1, got {ratios}"
        )
    for name in need:
        if name not in SPLITS:
            raise ConfigError(f"expected splits out of {', '.join(SPLITS)}, got {name!r}")


def _locate(data: Path) -> tuple[Path, Path | None]:
    """The data set's folder and its metadata file, if it has one."""
    if data.is_file():
        if data.name not in METADATA_NAMES:
            raise DataError(
                f"expected a folder or one of {', '.join(METADATA_NAMES)}, got the file {data}"
            )
        return data.parent, data
    if not data.is_dir():
        raise DataError(f"expected a data set's folder, found nothing at {data}")
    found = [data / name for name in METADATA_NAMES if (data / name).is_file()]
    if len(found) > 1:
        raise DataError(
            f"expected one metadata file in {data}, found {_some(f.name for f in found)}; "
            "keep one, or name the one to read instead of the folder"
        )
    return data, found[0] if found else None


# -- what lies on disk --


@dataclass
class _Files:
    images: dict[str, int] = field(default_factory=dict)  # path -> bytes
    others: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _scan(root: Path) -> _Files:
    """Every file under `root`, except hidden ones and what macOS and Windows leave behind."""
    files = _Files()
    linked: list[str] = []
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
                    linked.append(path)
                folders.append((entry.path, path + "/"))
            elif entry.is_file() and os.path.splitext(path)[1].lower() in SUFFIXES:  # noqa: PTH122
                files.images[path] = status.st_size
            elif prefix or entry.name not in METADATA_NAMES:
                files.others.append(path)
    _check_names(files.images, lost, root)
    _note_scan(files, linked)
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
            f"{len(lost)} links in {root} lead nowhere: {_some(lost)}; restore what they point at "
            "or delete them"
        )
    alien = [path for path in images if not _is_utf8(path)]
    if alien:
        raise DataError(
            f"expected file names in UTF-8, but {len(alien)} in {root} are not: {_some(alien)}; "
            "rename them (convmv does it for a whole tree)"
        )


def _note_scan(files: _Files, linked: list[str]) -> None:
    if files.others:
        files.notes.append(
            f"{len(files.others)} files are not images by their ending and are left out: "
            f"{_some(files.others)}"
        )
    nested = [path for path in files.others if PurePosixPath(path).name in METADATA_NAMES]
    if nested:
        files.notes.append(f"metadata is read at the top only, so not from {_some(nested)}")
    if linked:
        files.notes.append(f"{len(linked)} folders are links and were followed: {_some(linked)}")


# -- the folder layout --


@lru_cache(maxsize=4096)
def _word(name: str) -> str:
    """The telling letters of a folder's name: '0_real', 'RealImages' and 'real-2' are 'real'."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = re.findall(r"[^\W\d_]+", spaced.casefold())
    return "".join(word for word in words if word not in _FILLERS) or "".join(words)


def _split_word(name: str) -> str | None:
    return _SPLIT_WORDS.get(_word(name))


def _label_word(name: str) -> int | None:
    return _LABEL_WORDS.get(_word(name))


def _from_folders(root: Path, files: _Files, notes: list[str]) -> list[Sample]:
    by_folder: dict[str, list[str]] = defaultdict(list)
    for path in files.images:
        by_folder[path.rpartition("/")[0]].append(path)
    tops = sorted({folder.split("/")[0] for folder in by_folder} - {""})
    has_splits = _check_tops(root, tops)
    drafts: list[Sample] = []
    matched: dict[int, set[str]] = {0: set(), 1: set()}
    unknown: set[str] = set()
    stray: list[str] = []
    for folder, paths in sorted(by_folder.items()):
        parts = folder.split("/") if folder else []
        split = _split_word(parts[0]) if parts else None
        depth = 1 if has_splits else 0
        if len(parts) <= depth or (has_splits and split is None):
            stray += paths
            continue
        label = _label_word(parts[depth])
        if label is None:
            unknown.add("/".join(parts[: depth + 1]))
            continue
        matched[label].add(parts[depth])
        below = parts[depth + 1] if len(parts) > depth + 1 else None
        _check_below(below, label, folder, root)
        drafts += [
            Sample(
                path,
                label,
                split or "",
                generator=below if label else None,
                source=None if label else below,
            )
            for path in paths
        ]
    if unknown:
        raise DataError(_unknown_labels(root, sorted(unknown)))
    for label, names in matched.items():
        if names:
            notes.append(f"label folders read as {LABELS[label]}: {', '.join(sorted(names))}")
    if stray:
        notes.append(
            f"{len(stray)} images lie outside the label folders and are left out: {_some(stray)}"
        )
    return drafts


def _check_tops(root: Path, tops: list[str]) -> bool:
    """Whether the folders at the top are splits; DataError where they are neither nor, or both."""
    splits = [top for top in tops if _split_word(top)]
    labels = [top for top in tops if _label_word(top) is not None]
    if splits and labels:
        raise DataError(
            f"expected split folders or label folders at the top of {root}, found both: "
            f"{_some(splits + labels)}; move the label folders into the splits"
        )
    doubled = [name for name, n in Counter(map(_split_word, splits)).items() if n > 1]
    if doubled:
        raise DataError(
            f"expected one folder for each split in {root}, found {_some(splits)}; "
            f"merge those that mean {doubled[0]}"
        )
    if tops and not splits and not labels:
        raise DataError(_unknown_labels(root, tops) + _nested_hint(root))
    return bool(splits)


def _check_below(below: str | None, label: int, folder: str, root: Path) -> None:
    if below is None:
        return
    if _split_word(below):
        raise DataError(
            f"expected SPLIT/{LABELS[label]}, found the split below the label in "
            f"{_readable(folder)} of {root}; swap the two levels"
        )
    if _label_word(below) == 1 - label:
        raise DataError(
            f"the folder {_readable(folder)} of {root} says both real and fake; rename one of them"
        )


def _unknown_labels(root: Path, seen: list[str]) -> str:
    numbers = not any(_word(PurePosixPath(name).name) for name in seen)
    return (
        f"expected folders named real and fake (or a name that means one of them), found "
        f"{_some(seen)} in {root}; "
        + (
            "numbers do not say which is which: rename them to real and fake"
            if numbers
            else "rename them, or list the files with their labels in metadata.csv"
        )
    )


def _nested_hint(root: Path) -> str:
    for folder, names, _ in os.walk(root):
        if any(_split_word(name) or _label_word(name) is not None for name in names):
            return f" (or did you mean {_readable(folder)}?)"
    return ""


# -- the metadata layout --


def _from_metadata(metadata: Path, root: Path, files: _Files, notes: list[str]) -> list[Sample]:
    problems: dict[str, list[str]] = defaultdict(list)  # kind of problem -> where
    drafts: dict[str, Sample] = {}
    numbers: dict[str, int] = {}
    extra: set[str] = set()
    by_nfc: dict[str, str] = {}
    for where, row in _metadata_rows(metadata):
        extra |= row.keys() - _KNOWN
        cells = {key: _cell(row.get(key)) for key in _KNOWN}
        path = _row_path(cells["file_name"], where, metadata)
        if path not in files.images:
            # macOS writes names decomposed; the table may hold them composed.
            by_nfc = by_nfc or {unicodedata.normalize("NFC", name): name for name in files.images}
            path = by_nfc.get(unicodedata.normalize("NFC", path), path)
        at = f"{where}: {_readable(path)}"
        if path not in files.images:
            problems["name files that are not there or are not images by their ending"].append(at)
            continue
        if path in drafts:
            problems["name a file a second time"].append(at)
            continue
        label = _row_label(cells["label"], path, numbers)
        split = _row_split(cells["split"], path)
        if isinstance(label, str):
            problems[label].append(at)
        elif split is None:
            problems["name a split that is unknown or is not the split folder's"].append(at)
        else:
            drafts[path] = _row_sample(cells, row, path, label, split)
    for problem, where_list in problems.items():
        raise DataError(f"{len(where_list)} rows of {metadata} {problem} ({_some(where_list)})")
    _note_metadata(drafts, files, extra, notes)
    return list(drafts.values())


def _row_sample(
    cells: dict[str, str | None], row: dict[str, Any], path: str, label: int, split: str
) -> Sample:
    parts = path.split("/")[:-1]
    at = next((i for i, part in enumerate(parts) if _label_word(part) is not None), len(parts))
    below = parts[at + 1] if len(parts) > at + 1 else None
    generator, source = cells["generator"], cells["source"]
    if "generator" not in row and label == 1:
        generator = below
    if "source" not in row and label == 0:
        source = below
    return Sample(
        path,
        label,
        split,
        group=cells["group"],
        generator=generator,
        age=cells["age"],
        gender=cells["gender"],
        race=cells["race"],
        source=source,
    )


def _note_metadata(
    drafts: dict[str, Sample], files: _Files, extra: set[str], notes: list[str]
) -> None:
    if extra:
        notes.append(f"columns that are not used: {_some(sorted(extra))}")
    left = [path for path in files.images if path not in drafts]
    if left:
        notes.append(f"{len(left)} images have no row in the metadata, left out: {_some(left)}")


def _row_path(name: str | None, where: str, metadata: Path) -> str:
    if name is None:
        raise DataError(f"{where} of {metadata} has no file_name; give each row one")
    windows = PureWindowsPath(name)
    path = PurePosixPath(name)
    if path.is_absolute() or windows.drive or windows.root or ".." in path.parts:
        raise DataError(
            f"{where} of {metadata} names {_readable(name)}, which is outside the data set; "
            "expected a path relative to the metadata file's folder, without '..'"
        )
    return str(path)


def _row_label(text: str | None, path: str, numbers: dict[str, int]) -> int | str:
    """The label, or what is wrong with it."""
    told = {_label_word(part) for part in path.split("/")[:-1]} - {None}
    folder = told.pop() if len(told) == 1 else None
    if text is None:
        return "have no label" if folder is None else folder
    if re.fullmatch(r"[+-]?\d+(\.0*)?", text):
        if folder is None:
            return "have a number as label, which does not say which is which: write real or fake"
        label = numbers.setdefault(text, folder)
    else:
        stated = _label_word(text)
        if stated is None:
            return "have a label that is neither real nor fake, nor a name for one of them"
        label = stated
    if folder not in (None, label):
        return "have a label that contradicts the name of the folder"
    return label


def _row_split(text: str | None, path: str) -> str | None:
    """The split, "" where neither column nor folder tells, None where it is wrong."""
    folder = _split_word(path.partition("/")[0]) if "/" in path else None
    if text is None:
        return folder or ""
    split = _split_word(text)
    return None if folder not in (None, split) else split


def _cell(value: Any) -> str | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() or None


def _metadata_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows with where they stand, such as "line 7"."""
    readers = {".csv": _csv_rows, ".jsonl": _jsonl_rows, ".parquet": _parquet_rows}
    try:
        yield from readers[path.suffix](path)
    except UnicodeDecodeError as error:
        raise DataError(f"expected {path} in UTF-8, but it is not; save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from error


def _check_columns(columns: Iterable[str], path: Path) -> None:
    names = list(columns)
    if "file_name" not in names:
        raise DataError(f"expected a column file_name in {path}, found {_some(names) or 'none'}")
    doubled = [name for name, n in Counter(names).items() if n > 1]
    if doubled:
        raise DataError(f"expected every column of {path} once, found {_some(doubled)} again")


def _csv_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = [name.strip() for name in next(reader, [])]
            _check_columns(header, path)
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


def _jsonl_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"line {number} of {path} is not JSON ({error})") from error
            if not isinstance(row, dict):
                raise DataError(f"expected an object in line {number} of {path}")
            yield f"line {number}", row


def _parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("Parquet metadata", "train") from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            _check_columns(columns, path)
            number = 0
            unused = dict.fromkeys(set(columns) - _KNOWN)  # named in a note, never read
            for batch in file.iter_batches(columns=[c for c in columns if c in _KNOWN]):
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", {**row, **unused}
    except pyarrow.ArrowException as error:
        raise DataError(f"{path} is not a readable Parquet file ({error})") from error


# -- splits made here --


def _with_splits(
    drafts: list[Sample],
    root: Path,
    ratios: tuple[float, float, float] | None,
    seed: int,
    notes: list[str],
) -> list[Sample]:
    without = [draft.path for draft in drafts if not draft.split]
    if not without:
        if ratios is not None:
            notes.append("the data set has its own splits; the ratios were not used")
        return drafts
    if len(without) < len(drafts):
        raise DataError(
            f"expected a split for all rows of {root} or for none, but {len(without)} of "
            f"{len(drafts)} have none: {_some(without)}; fill in the column split"
        )
    shares = ratios or DEFAULT_RATIOS
    notes.append(
        "no splits found: split here into train / validation / test as "
        + " / ".join(f"{share:g}" for share in shares)
        + f", by label and by group where known, seed {seed}"
    )
    return _assign(drafts, shares, seed)


def _assign(drafts: list[Sample], shares: tuple[float, float, float], seed: int) -> list[Sample]:
    """Whole groups to splits, in an order that only seed and names decide.

    Each group goes to the split that lacks most of its share; real groups, fake groups and mixed
    ones are dealt out separately, so each split gets its share of each.
    """
    groups: dict[str, list[Sample]] = defaultdict(list)
    for draft in drafts:
        groups[f"g{draft.group}" if draft.group else f"p{draft.path}"].append(draft)
    strata: dict[frozenset[int], list[str]] = defaultdict(list)
    for key, members in groups.items():
        strata[frozenset(member.label for member in members)].append(key)
    rows: list[Sample] = []
    for keys in strata.values():
        total = sum(len(groups[key]) for key in keys)
        lack = [share * total for share in shares]
        for key in sorted(keys, key=lambda key: (_rank(seed, key), key)):
            at = max(range(len(SPLITS)), key=lambda i: lack[i] if shares[i] else -math.inf)
            lack[at] -= len(groups[key])
            rows += [replace(member, split=SPLITS[at]) for member in groups[key]]
    return rows


def _rank(seed: int, key: str) -> bytes:
    return hashlib.blake2b(f"{seed}\0{key}".encode(), digest_size=8).digest()


# -- what must hold --


def _check_needs(samples: Samples, need: Collection[str]) -> None:
    counts = samples.counts()
    for split in SPLITS:
        if split not in need:
            continue
        missing = [name for name in LABELS if not counts.get(split, {}).get(name)]
        if missing:
            found = "; ".join(
                f"{name}: {n['real']} real, {n['fake']} fake" for name, n in counts.items()
            )
            raise DataError(
                f"expected real and fake images in the split {split} of {samples.root}, found no "
                f"{' and no '.join(missing)} ones ({found}); add images under "
                + " and ".join(f"{split}/{name}" for name in missing)
                + ", or make new splits with `bonaface data split`"
            )


def _check_groups(samples: Samples) -> None:
    splits: dict[str, set[str]] = defaultdict(set)
    for row in samples.rows:
        if row.group is not None:
            splits[row.group].add(row.split)
    crossing = [
        f"{group} in {' and '.join(name for name in SPLITS if name in found)}"
        for group, found in splits.items()
        if len(found) > 1
    ]
    if crossing:
        raise DataError(
            f"{len(crossing)} groups of {samples.root} are in more than one split, so the test "
            f"result would be worthless: {_some(crossing)}; make new splits with "
            "`bonaface data split`"
        )


def _check_copies(samples: Samples, sizes: dict[str, int]) -> None:
    """The same bytes in two splits. Only files that share their size are read."""
    by_size: dict[int, list[Sample]] = defaultdict(list)
    for row in samples.rows:
        by_size[sizes[row.path]].append(row)
    pairs: list[str] = []
    for size, rows in by_size.items():
        if size and _crosses(rows):
            for alike in _alike(samples.root, rows, 2**16):
                same = [alike] if size <= 2**16 else _alike(samples.root, alike, size)
                pairs += [_pair(copies) for copies in same]
    if pairs:
        raise DataError(
            f"{len(pairs)} images of {samples.root} are in more than one split, so the test result "
            f"would be worthless: {_some(sorted(pairs))}; keep each in one split only"
        )


def _crosses(rows: list[Sample]) -> bool:
    return any(row.split != rows[0].split for row in rows)


def _alike(root: Path, rows: list[Sample], length: int) -> list[list[Sample]]:
    """Those whose first `length` bytes are the same and that cross splits."""
    found: dict[bytes, list[Sample]] = defaultdict(list)
    for row in rows:
        digest = hashlib.blake2b(digest_size=16)
        left = length
        try:
            with open(f"{root}/{row.path}", "rb", buffering=0) as file:  # noqa: PTH123  (speed)
                while left > 0 and (block := file.read(min(left, 2**20))):
                    digest.update(block)
                    left -= len(block)
        except OSError:
            continue  # it stays a sample: the reader of images says what is wrong with it
        found[digest.digest()].append(row)
    return [alike for alike in found.values() if _crosses(alike)]


def _pair(copies: list[Sample]) -> str:
    other = next(row for row in copies if row.split != copies[0].split)
    return f"{copies[0].path} = {other.path}"


# -- words for messages --


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _readable(text: str) -> str:
    """A name as it can be printed, whatever bytes it holds."""
    raw = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return raw if raw.isprintable() else repr(raw)[1:-1]


def _some(names: Iterable[str], n: int = 3) -> str:
    """The first `n` names and how many more there are."""
    every = [_readable(name) for name in names]
    more = f" and {len(every) - n} more" if len(every) > n else ""
    return ", ".join(every[:n]) + more
