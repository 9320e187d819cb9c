"""Tables of scores: one row a sample, found by its path and never by its position."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bonaface.errors import ScoresError
from bonaface.files import atomic_path
from bonaface.samples import Sample

META = ("group", "generator", "source", "age", "gender", "race")
COLUMNS = ("path", "label", *META, "logit", "score")
_EXAMPLES = 3


@dataclass(frozen=True, eq=False)
class Scores:
    """What one detector said about each sample.

    The columns may be given in any order of rows: they are checked, sorted by path and made
    read-only. Empty tables are allowed, so that `where` never fails.

    Attributes:
        path: the sample's path relative to its data set, posix; unique; sorted.
        label: (n,) int8, 1 fake, 0 real.
        score: (n,) float64 in [0, 1], calibrated P(fake).
        logit: (n,) float64, finite, before calibration and sigmoid.
        meta: the six columns of `META`; None or "" is unknown (kept as None). A column that is
            not given is unknown throughout.

    Raises:
        ScoresError: columns of unequal length, a path twice, or a value out of its range.
    """

    path: tuple[str, ...]
    label: npt.NDArray[np.int8]
    score: npt.NDArray[np.float64]
    logit: npt.NDArray[np.float64]
    meta: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        paths = tuple(self.path)
        order = sorted(range(len(paths)), key=paths.__getitem__)
        unknown = set(self.meta) - set(META)
        if unknown:
            raise ScoresError(f"meta holds {sorted(unknown)}; the columns are {', '.join(META)}")
        label = self._column("label", self.label)
        if not np.isin(label, (0, 1)).all():
            raise ScoresError("label must be 0 (real) or 1 (fake) in every row")
        score = self._column("score", self.score)
        # Written so that NaN fails too.
        if not ((score >= 0) & (score <= 1)).all():
            raise ScoresError("score must lie in [0, 1] in every row")
        logit = self._column("logit", self.logit)
        if not np.isfinite(logit).all():
            raise ScoresError("logit must be finite in every row")
        object.__setattr__(self, "path", tuple(paths[i] for i in order))
        for name, column, kind in (
            ("label", label, np.int8),
            ("score", score, np.float64),
            ("logit", logit, np.float64),
        ):
            ordered = column[order].astype(kind)
            ordered.flags.writeable = False
            object.__setattr__(self, name, ordered)
        object.__setattr__(self, "meta", {name: self._meta(name, order) for name in META})
        for before, after in zip(self.path, self.path[1:], strict=False):
            if before == after:
                raise ScoresError(f"path {before!r} is there twice; a path names one sample")

    def _column(self, name: str, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
        column = np.asarray(values, dtype=np.float64)
        if column.shape != (len(self.path),):
            raise ScoresError(
                f"{name} must hold {len(self.path)} values, one a path; it has shape {column.shape}"
            )
        return column

    def _meta(self, name: str, order: Sequence[int]) -> tuple[str | None, ...]:
        values = self.meta.get(name)
        if values is None:
            return (None,) * len(order)
        if len(values) != len(order):
            raise ScoresError(f"{name} must hold {len(order)} values; it holds {len(values)}")
        return tuple(values[i] or None for i in order)

    def __len__(self) -> int:
        return len(self.path)

    def where(self, mask: npt.ArrayLike) -> Scores:
        """The rows where `mask`, (n,) bool, is true."""
        chosen = np.asarray(mask)
        if chosen.shape != (len(self),) or chosen.dtype != np.bool_:
            raise ScoresError(
                f"mask must be {len(self)} booleans; it is {chosen.dtype} of shape {chosen.shape}"
            )
        rows = np.flatnonzero(chosen)
        return Scores(
            tuple(self.path[i] for i in rows),
            self.label[rows],
            self.score[rows],
            self.logit[rows],
            {name: tuple(values[i] for i in rows) for name, values in self.meta.items()},
        )

    @classmethod
    def of_samples(
        cls, samples: Sequence[Sample], logits: npt.ArrayLike, scores: npt.ArrayLike
    ) -> Scores:
        """One row a sample, from logits and calibrated scores, (n,) in the samples' order."""
        return cls(
            tuple(sample.path for sample in samples),
            np.array([sample.label for sample in samples], np.int8),
            np.asarray(scores, np.float64),
            np.asarray(logits, np.float64),
            {name: tuple(getattr(sample, name) for sample in samples) for name in META},
        )

    def groups(self) -> npt.NDArray[np.intp]:
        """(n,) group numbers from 0; a row whose group is unknown is a group of its own."""
        numbers: dict[tuple[bool, str], int] = {}
        out = np.empty(len(self), dtype=np.intp)
        for i, (path, group) in enumerate(zip(self.path, self.meta["group"], strict=True)):
            key = (False, path) if group is None else (True, group)
            out[i] = numbers.setdefault(key, len(numbers))
        return out


def write_scores(path: Path, scores: Scores) -> None:
    """Write `scores` as CSV (`COLUMNS`), atomically; reading it back gives every bit again."""
    # Names that are not UTF-8 on disk come as lone surrogates and go back as the same bytes.
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        texts = (*scores.path, *(value or "" for name in META for value in scores.meta[name]))
        # Before Python 3.13 the writer leaves a lone carriage return unquoted.
        returns = any("\r" in text for text in texts)
        writer = csv.writer(
            file,
            lineterminator="\n",
            quoting=csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL,
        )
        writer.writerow(COLUMNS)
        for i, name in enumerate(scores.path):
            meta = (scores.meta[column][i] or "" for column in META)
            # float(): NumPy's own repr would be "np.float64(...)".
            numbers = (repr(float(scores.logit[i])), repr(float(scores.score[i])))
            writer.writerow((name, int(scores.label[i]), *meta, *numbers))


def read_scores(path: Path) -> Scores:
    """Read a CSV that holds exactly the columns of `write_scores`, in any order.

    Raises:
        ScoresError: the file cannot be read, or a line of it is wrong; the line is named.
    """
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    seen: dict[str, int] = {}
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = _checked_header(path, next(reader, []))
            start = reader.line_num + 1
            for cells in reader:
                if cells:
                    where = f"{path}, line {start}"
                    row = _parse(where, header, cells)
                    first = seen.setdefault(row["path"], start)
                    if first != start:
                        raise ScoresError(
                            f"{where}: path {row['path']!r} is already on line {first}; "
                            "keep one of the two"
                        )
                    for name, value in row.items():
                        columns[name].append(value)
                start = reader.line_num + 1
    except csv.Error as error:
        raise ScoresError(f"{path}, line {reader.line_num}: not valid CSV ({error})") from error
    except OSError as error:
        reason = error.strerror or error
        raise ScoresError(f"{path}: a table of scores was expected; {reason}") from error
    if not seen:
        raise ScoresError(f"{path}: the table holds a header and no rows")
    return Scores(
        tuple(columns["path"]),
        np.array(columns["label"], dtype=np.int8),
        np.array(columns["score"]),
        np.array(columns["logit"]),
        {name: tuple(columns[name]) for name in META},
    )


def _checked_header(path: Path, header: list[str]) -> list[str]:
    if not header:
        raise ScoresError(f"{path}: the file is empty; expected a header: {','.join(COLUMNS)}")
    missing = [name for name in COLUMNS if name not in header]
    extra = [name for name in header if name not in COLUMNS]
    twice = sorted({name for name in header if header.count(name) > 1})
    for what, names in (("missing", missing), ("unknown", extra), ("repeated", twice)):
        if names:
            raise ScoresError(
                f"{path}, line 1: {what} column{'s' if len(names) > 1 else ''} "
                f"{', '.join(map(repr, names))}; expected exactly {','.join(COLUMNS)}"
            )
    return header


def _parse(where: str, header: Sequence[str], cells: Sequence[str]) -> dict[str, Any]:
    if len(cells) != len(header):
        raise ScoresError(f"{where}: expected {len(header)} values, got {len(cells)}")
    row: dict[str, Any] = dict(zip(header, cells, strict=True))
    if not row["path"]:
        raise ScoresError(f"{where}: path is empty; every row needs one")
    if row["label"] not in ("0", "1"):
        raise ScoresError(f"{where}: label must be 0 (real) or 1 (fake), got {row['label']!r}")
    row["label"] = int(row["label"])
    row["logit"] = _number(where, "logit", row["logit"])
    row["score"] = _number(where, "score", row["score"])
    if not 0 <= row["score"] <= 1:
        raise ScoresError(f"{where}: score must lie in [0, 1], got {row['score']!r}")
    return row


def _number(where: str, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ScoresError(f"{where}: {name} must be a finite number, got {text!r}")
    return value


def paired(first: Scores, second: Scores) -> tuple[Scores, Scores]:
    """The same tables, row by row the same samples, with the same labels and the same groups.

    Where one table knows no groups at all, it takes those of the other.

    Raises:
        ScoresError: the sets of paths, the labels or the groups differ; the message says how.
    """
    if first.path != second.path:
        lacking_second = sorted(set(first.path) - set(second.path))
        lacking_first = sorted(set(second.path) - set(first.path))
        parts = [
            f"{len(paths)} of the {whose} table's samples are not in the other ({_some(paths)})"
            for whose, paths in (("first", lacking_second), ("second", lacking_first))
            if paths
        ]
        raise ScoresError(
            f"the tables hold different samples: {'; '.join(parts)}; score the same data with both"
        )
    differ = np.flatnonzero(first.label != second.label)
    if differ.size:
        raise ScoresError(
            f"the tables disagree on the label of {differ.size} of {len(first)} samples "
            f"({_some([first.path[i] for i in differ])}); score the same data with both"
        )
    ours, theirs = first.meta["group"], second.meta["group"]
    if ours == theirs:
        return first, second
    if not any(ours):
        return _with_groups(first, theirs), second
    if not any(theirs):
        return first, _with_groups(second, ours)
    paths = [p for p, a, b in zip(first.path, ours, theirs, strict=True) if a != b]
    raise ScoresError(
        f"the tables disagree on the group of {len(paths)} of {len(first)} samples "
        f"({_some(paths)}); score the same data with both"
    )


def _some(paths: Sequence[str]) -> str:
    return ", ".join(map(repr, paths[:_EXAMPLES])) + (", ..." if len(paths) > _EXAMPLES else "")


def _with_groups(scores: Scores, groups: tuple[str | None, ...]) -> Scores:
    meta = {**scores.meta, "group": groups}
    return Scores(scores.path, scores.label, scores.score, scores.logit, meta)
