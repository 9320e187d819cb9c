"""A finished scan in figures: counts, spread of the scores, where the fakes are, what failed."""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq

from bonaface.scan.parts import read_note

SCHEMA_VERSION: Final = 1
BINS: Final = 40
LISTED: Final = 20
_FOLDERS: Final = 20_000  # counted side by side; beyond, those with the fewest fakes are let go
_REASONS: Final = 200  # told apart; any more are counted together
_USED: Final = (
    *("path", "readable", "picture", "face", "verdict", "reason", "score", "duplicate_of"),
    *("read_ms", "find_ms", "score_ms", "judge_ms"),
)


@dataclass(frozen=True, slots=True)
class Folder:
    """What lies in one folder or shard.

    Attributes:
        path: of the folder.
        pictures: in it.
        fakes: pictures that are called fake.
    """

    path: str
    pictures: int
    fakes: int


@dataclass(frozen=True, slots=True)
class Worst:
    """A picture with a high score.

    Attributes:
        path: of the picture.
        face: number of the face.
        score: of the face.
        verdict: of the face.
    """

    path: str
    face: int
    score: float
    verdict: str


@dataclass(frozen=True, slots=True)
class Summary:
    """A finished scan in figures.

    Attributes:
        out: the scan's name.
        pictures: by their answer.
        faces: by theirs.
        copies: pictures with the bytes of an earlier one; 0 without `--dedupe`.
        without_face: pictures that can be read and have no face.
        histogram: of the scores of faces: how many lie in each of 40 equal bins of [0, 1].
        unreadable: how many pictures could not be read, by reason.
        not_judged: how many pictures or faces could be read and were not judged, by reason.
        worst: the faces with the highest scores, one a picture; copies left out.
        folders: those with the most fakes, of those that have any.
        folders_exact: whether every folder was counted to the end.
        seconds: spent on pictures by all processes together: read, find, score, and judge, which
            is everything but reading, with the two before in it.
        note: model, settings and sources.
    """

    out: str
    pictures: dict[str, int]
    faces: dict[str, int]
    copies: int
    without_face: int
    histogram: tuple[int, ...]
    unreadable: dict[str, int]
    not_judged: dict[str, int]
    worst: tuple[Worst, ...]
    folders: tuple[Folder, ...]
    folders_exact: bool
    seconds: dict[str, float]
    note: dict[str, Any]
    schema_version: int = SCHEMA_VERSION

    @property
    def count(self) -> int:
        """Pictures in all."""
        return sum(self.pictures.values())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def summarise(path: Path) -> Summary:
    """Read a finished scan once, a batch of rows at a time.

    Raises:
        DataError: it is another kind of Parquet file.
    """
    pictures: Counter[str] = Counter()
    faces: Counter[str] = Counter()
    unreadable: Counter[str] = Counter()
    not_judged: Counter[str] = Counter()
    histogram = np.zeros(BINS, np.int64)
    spent = dict.fromkeys(("read", "find", "score", "judge"), 0.0)
    worst = _Worst()
    folders = _Folders()
    copies = without = 0
    note = read_note(path)
    for rows in _batches(path):
        scores = [row["score"] for row in rows if row["score"] is not None]
        histogram += np.histogram(scores, BINS, (0.0, 1.0))[0]
        for row in rows:
            if row["face"] in (None, 1):  # once a picture
                pictures[row["picture"]] += 1
                copies += row["duplicate_of"] is not None
                folders.add(row["path"], row["picture"] == "fake")
                for name in spent:
                    spent[name] += (row[f"{name}_ms"] or 0.0) / 1000
                if not row["readable"]:
                    _count(unreadable, row["reason"])
            if row["face"] is None:
                without += row["readable"]
            else:
                faces[row["verdict"]] += 1
                worst.add(row)
            if row["readable"] and row["verdict"] == "not_applicable":
                _count(not_judged, row["reason"])
    return Summary(
        out=path.name,
        pictures=dict(pictures),
        faces=dict(faces),
        copies=copies,
        without_face=without,
        histogram=tuple(int(n) for n in histogram),
        unreadable=dict(unreadable.most_common()),
        not_judged=dict(not_judged.most_common()),
        worst=worst.listed(),
        folders=folders.listed(),
        folders_exact=folders.exact,
        seconds={name: round(value, 3) for name, value in spent.items()},
        note=note,
    )


def _batches(path: Path) -> Iterator[list[dict[str, Any]]]:
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 16) as file:
        for batch in file.iter_batches(4096, columns=list(_USED), use_threads=False):
            yield batch.to_pylist()


def _count(counts: Counter[str], reason: str) -> None:
    """By what can be counted: brackets aside, any number for any other."""
    plain = re.sub(r"\d[\d.,]*", "…", reason.split(" (", maxsplit=1)[0])
    counts[plain if plain in counts or len(counts) < _REASONS else "other reasons"] += 1


class _Worst:
    """The highest scores, one face a picture."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Worst]] = []
        self._seen = 0
        self._now: Worst | None = None

    def add(self, row: dict[str, Any]) -> None:
        if row["score"] is None or row["duplicate_of"] is not None:
            return
        if self._now is None or row["path"] != self._now.path:
            self._take()
            self._now = None
        if self._now is None or row["score"] > self._now.score:
            self._now = Worst(row["path"], row["face"], row["score"], row["verdict"])

    def _take(self) -> None:
        if self._now is not None:
            self._seen -= 1  # of two with one score, the earlier stays
            entry = (self._now.score, self._seen, self._now)
            if len(self._heap) < LISTED:
                heapq.heappush(self._heap, entry)
            else:
                heapq.heappushpop(self._heap, entry)

    def listed(self) -> tuple[Worst, ...]:
        self._take()
        self._now = None
        return tuple(entry[2] for entry in sorted(self._heap, reverse=True))


class _Folders:
    """Pictures and fakes by folder, in bounded memory."""

    def __init__(self) -> None:
        self._counts: dict[str, list[int]] = {}
        self.exact = True

    def add(self, path: str, fake: bool) -> None:
        folder = path.rpartition("/")[0] or "."
        if folder not in self._counts and len(self._counts) >= _FOLDERS:
            self.exact = False
            kept = sorted(self._counts.items(), key=lambda one: (-one[1][1], one[0]))
            self._counts = dict(kept[: _FOLDERS // 2])
        counts = self._counts.setdefault(folder, [0, 0])
        counts[0] += 1
        counts[1] += fake

    def listed(self) -> tuple[Folder, ...]:
        found = [Folder(path, n, fakes) for path, (n, fakes) in self._counts.items() if fakes]
        found.sort(key=lambda one: (-one.fakes, -one.fakes / one.pictures, one.path))
        return tuple(found[:LISTED])
