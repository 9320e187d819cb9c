"""A data set in the form of the Hugging Face Hub, from there or from a folder laid out as there.

Read by the `datasets` library, row by row and undecoded. Only formats that hold data are read, no
script; a path in a foreign table is opened only where the library found that file in the set.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import tempfile
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from bonaface.errors import DataError, ImageError, MissingExtraError
from bonaface.images import DEFAULT_LIMITS
from bonaface.importing.sources import Columns, Entry, Source
from bonaface.layouts import (
    LABELS,
    METADATA_NAMES,
    LabelOf,
    cell,
    is_number,
    label_by,
    scan,
    some,
    split_of,
    told_name,
)
from bonaface.samples import Sample

_FORMATS: Final = ("parquet", "imagefolder", "arrow")  # of `datasets`, that hold pictures as data
_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_TIMEOUT: Final = 10.0  # seconds
_RETRIES: Final = 3
_ROWS: Final = 16  # of a Parquet file, held at a time
_OURS: Final = Columns()


def is_id(text: str) -> bool:
    """Whether it can name a data set on the Hub: owner/name."""
    return _ID.fullmatch(text) is not None and not text.endswith((".git", ".csv"))


def is_repository(folder: Path) -> bool:
    """Whether a folder is laid out as on the Hub, in a way that `layouts` does not read."""
    if any((folder / name).is_file() for name in METADATA_NAMES):
        return False
    if (folder / "dataset_infos.json").is_file() or _has_card(folder / "README.md"):
        return True
    if any(path.name in METADATA_NAMES for path in folder.glob("*/metadata.*")):
        return True
    files = scan(folder)
    return not files.images and any(name.endswith((".parquet", ".arrow")) for name in files.others)


def _has_card(path: Path) -> bool:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    parts = text.split("\n---", 1) if text.startswith("---") else [""]
    return re.search(r"^(dataset_info|configs):", parts[0], re.MULTILINE) is not None


def from_hub(
    name: str | Path,
    told: Mapping[str, int],
    *,
    columns: Columns = _OURS,
    revision: str | None = None,
    config: str | None = None,
) -> Source:
    """A data set on the Hub (owner/name) or a folder laid out as there.

    Args:
        name: of either.
        told: what names of labels, or numbers, mean besides the words that are known.
        columns: what its columns are called; the one with pictures is found by its type.
        revision: branch, tag or commit on the Hub.
        config: the part of the data set to read, where it has several.

    Raises:
        MissingExtraError: `datasets` is not installed.
        DataError: it cannot be reached or read, or speaks of labels or splits that nobody knows.
    """
    if not all(map(importlib.util.find_spec, ("datasets", "huggingface_hub"))):
        raise MissingExtraError("data import", "hub")
    if isinstance(name, Path):
        root, commit = name.absolute(), None
        header: dict[str, Any] = {"source": root.name, "fingerprint": _fingerprint(root)}
        base = f"{root}{os.sep}"
    else:
        commit = _commit(name, revision)
        header = {"source": name, "revision": commit}
        base = f"hf://datasets/{name}@{commit}/"
    with _quiet():
        table = _Table(_builder(str(name), base, commit, config), str(name), base, columns)
        means = table.meanings(label_by(told))
        splits = table.splits()
    header |= {"config": config, "columns": table.ours, "labels": means}
    known = (info.num_examples for info in (table.builder.info.splits or {}).values())
    read_as = {
        label: sorted(text for text, meant in means.items() if meant == label)
        for label in sorted(set(means.values()))
    }
    return Source(
        header,
        lambda done: table.entries(splits, means, done),
        sum(n or 0 for n in known) or None,
        (name.absolute(),) if isinstance(name, Path) else (),
        tuple(f"labels read as {LABELS[at]}: {some(texts, 9)}" for at, texts in read_as.items()),
    )


class _Table:
    """The rows of a data set of the Hub.

    Attributes:
        builder: of the `datasets` library.
        features: column -> its type, of all columns.
        image: the column with the pictures.
        label: the column with the labels.
        ours: the columns that are used -> what they are called here.
    """

    def __init__(self, builder: Any, title: str, base: str, columns: Columns) -> None:
        self.builder, self._title, self._base = builder, title, base
        self.features = dict(next(iter(self._streams().values())).features or {})
        self.image = columns.path or self._only_image()
        self.label = columns.label or "label"
        named = (self.image, self.label, columns.group)
        missing = [name for name in named if name is not None and name not in self.features]
        if missing:
            raise DataError(
                f"expected a column {missing[0]} in {title}, found {some(self.features, 12)}; name "
                "another with --path-column, --label-column or --group-column"
            )
        ours = replace(columns, path=self.image).ours(self.features)
        self.ours = {name: our for name, our in ours.items() if our != "split"}

    def _only_image(self) -> str:
        from datasets import Image

        found = [name for name, kind in self.features.items() if isinstance(kind, Image)]
        if len(found) != 1:
            raise DataError(
                f"expected one column of images in {self._title}, found {some(found) or 'none'} "
                f"among {some(self.features, 12)}; name it with --path-column"
            )
        return str(found[0])

    def _streams(self, columns: list[str] | None = None) -> dict[str, Any]:
        """Split -> its rows, of some columns only."""
        from datasets import Features

        if self.builder.name == "parquet":
            from pyarrow.dataset import ParquetFragmentScanOptions

            self.builder.config.batch_size, self.builder.config.columns = _ROWS, columns
            # With its buffer, Arrow would keep all that it has read of a file.
            self.builder.config.fragment_scan_options = ParquetFragmentScanOptions(pre_buffer=False)
            if columns:  # it keeps those of the last time
                self.builder.info.features = Features(self.features)
        with _reading(self._title):
            streams = self.builder.as_streaming_dataset()
        return {
            str(name): s.select_columns(columns) if columns else s for name, s in streams.items()
        }

    def meanings(self, means: LabelOf) -> dict[str, int]:
        """A label as it stands there -> what it means.

        Raises:
            DataError: one means neither real nor fake.
        """
        names = getattr(self.features[self.label], "names", None)
        if names is None:  # words or numbers in the rows: that column alone is read for them
            with _reading(self._title):
                streams = self._streams([self.label]).values()
                texts = {cell(row[self.label]) for stream in streams for row in stream} - {None}
            names = sorted(text for text in texts if text is not None)
        meant = {name: means(name) for name in names}
        unknown = [name for name, label in meant.items() if label is None]
        if unknown:
            numbers = all(map(is_number, unknown))
            raise DataError(
                f"expected labels that mean real or fake in the column {self.label} of "
                f"{self._title}, found {some(unknown, 9)}; "
                + ("numbers do not say which is which: " if numbers else "")
                + f"say what each means, as in --label {unknown[0]}=fake"
            )
        return {name: label for name, label in meant.items() if label is not None}

    def splits(self) -> list[tuple[str, str, Any]]:
        """(split as it is called there, as it is called here, its rows without decoding)."""
        from datasets import Image

        found = []
        for name, stream in self._streams(list(self.ours)).items():
            split = split_of(name)
            if split is None:
                raise DataError(
                    f"expected splits named train, validation and test in {self._title}, found "
                    f"{name}; choose a --config without it, or import its files"
                )
            undecoded = isinstance(self.features[self.image], Image)
            rows = stream.cast_column(self.image, Image(decode=False)) if undecoded else stream
            found.append((name, split, rows))
        return found

    def entries(
        self,
        splits: Iterable[tuple[str, str, Any]],
        means: Mapping[str, int],
        done: Container[str],
    ) -> Generator[Entry, None, None]:
        """The rows that are not done; what an earlier call has done in a row is jumped over."""
        with _quiet(), _reading(self._title):
            for name, split, stream in splits:
                start = 0
                while f"{name}/{start:07d}" in done:
                    start += 1
                for number, row in enumerate(stream.skip(start), start):
                    path = f"{name}/{number:07d}"
                    if path not in done:
                        yield self._entry(path, split, row, means)

    def _entry(
        self, path: str, split: str, row: Mapping[str, Any], means: Mapping[str, int]
    ) -> Entry:
        known = {
            our: self._text(name, row[name])
            for name, our in self.ours.items()
            if name != self.image
        }
        text = known.pop("label")
        if text is None:
            return Entry(path, reason="no label")
        label = means[text]
        by = "generator" if label else "source"
        known.setdefault(by, told_name(text))
        value = row[self.image] or {}
        stem = re.split(r"[/\\]", value.get("path") or "")[-1] or path
        sample = Sample(f"{path}/{stem}", label, split, **known)
        try:
            return Entry(path, sample, self._content(value))
        except ImageError as error:
            return Entry(path, sample, reason=error.reason)

    def _text(self, column: str, value: Any) -> str | None:
        """A cell as text, by name where its type has names."""
        names = getattr(self.features[column], "names", None)
        if names is not None and isinstance(value, int):
            return names[value] if 0 <= value < len(names) else None
        return cell(value)

    def _content(self, value: Mapping[str, Any]) -> Path | bytes | Callable[[], bytes]:
        data, path = value.get("bytes"), value.get("path")
        if isinstance(data, bytes):
            return data
        # A path may be opened only where the library found the file; in a table it may be any.
        if self.builder.name != "imagefolder" or not isinstance(path, str):
            raise ImageError("no picture in the row")
        if not path.startswith(self._base) or ".." in path.split("/"):
            raise ImageError("leads outside the data set")
        return partial(_fetch, path) if "://" in self._base else Path(path)


def _fetch(path: str) -> bytes:
    import fsspec

    with _reading(path), fsspec.open(path, "rb") as file:
        data: bytes = file.read(DEFAULT_LIMITS.max_bytes + 1)
    return data


def _commit(name: str, revision: str | None) -> str:
    """The commit that a branch or tag of a data set on the Hub stands at; asks the Hub once."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return str(HfApi().dataset_info(name, revision=revision, timeout=_TIMEOUT).sha)
    except GatedRepoError as error:
        what = "needs its terms accepted; do that on its page there, then `hf auth login`"
        raise DataError(f"the data set {name} of the Hub {what}") from error
    except RevisionNotFoundError as error:
        raise DataError(f"the data set {name} of the Hub has no revision {revision!r}") from error
    except RepositoryNotFoundError as error:
        raise DataError(
            f"expected a folder, a table or a data set of the Hub, found none that is called {name}"
            "; check the name, or `hf auth login` if it is private"
        ) from error
    except Exception as error:  # of whichever HTTP library it uses
        off = isinstance(error, OfflineModeIsEnabled)
        raise DataError(
            f"there is no folder {name} here, and the Hub cannot be asked for a data set of that "
            f"name ({'HF_HUB_OFFLINE is set' if off else _short(error)}); go online, or download "
            f"it elsewhere with `hf download {name} --repo-type dataset --local-dir DIR` and "
            "import DIR"
        ) from error


def _builder(name: str, base: str, commit: str | None, config: str | None) -> Any:
    import datasets

    path = base.rstrip(os.sep) if commit is None else name  # absolute: "csv" would be a format
    with _reading(name), tempfile.TemporaryDirectory() as cache:
        made = datasets.load_dataset_builder(path, config, revision=commit, cache_dir=cache)
        files = [str(file) for found in made.config.data_files.values() for file in found]
    if made.name not in _FORMATS:
        raise DataError(
            f"expected pictures in Parquet or Arrow files, or as files, in {name}, found the "
            f"format {made.name}; convert it, or sort its pictures into folders named real and fake"
        )
    outside = [file for file in files if not file.startswith(base) or ".." in file.split("/")]
    if outside:
        raise DataError(f"the card of {name} names files outside it: {some(outside)}; mend it")
    return made


@contextmanager
def _reading(title: str) -> Iterator[None]:
    """Whatever the library raises comes out as one line."""
    try:
        yield
    except (DataError, ImageError):
        raise
    except Exception as error:  # its own, and those of what it reads and fetches with
        raise DataError(
            f"{title} cannot be read ({_short(error)}); if that may pass, the same command goes on"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars and logs of the library, and few retries; afterwards all is as it was."""
    import datasets
    from huggingface_hub import utils as hub

    config, logging = datasets.config, datasets.utils.logging
    tries = ("STREAMING_READ_MAX_RETRIES", "STREAMING_OPEN_MAX_RETRIES")
    before = {name: getattr(config, name, None) for name in tries}
    level, parts = logging.get_verbosity(), (datasets, hub)
    shown = [part for part in parts if not part.are_progress_bars_disabled()]
    try:
        logging.set_verbosity(logging.CRITICAL)
        for part in shown:
            part.disable_progress_bars()
        for name in tries:
            setattr(config, name, _RETRIES)
        yield
    finally:
        for name, value in before.items():
            setattr(config, name, value)
        logging.set_verbosity(level)
        for part in shown:
            part.enable_progress_bars()


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def _fingerprint(root: Path) -> str:
    """SHA-256 over names and sizes of all files."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    lines = [[path.relative_to(root).as_posix(), path.stat().st_size] for path in files]
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()
