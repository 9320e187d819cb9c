"""What a scan will look at: listed once, kept on the disk, so that a resumed scan has the same.

SQLite sorts and holds the items; in memory are only those that are being dealt.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from bonaface.ahead import ahead
from bonaface.errors import ImageError
from bonaface.files import atomic_path
from bonaface.scan.reading import Reader
from bonaface.scan.sources import Item

Progress = Callable[[int, int], None]

_TOGETHER: Final = 1024  # rows of the table in memory at a time
_NEXT: Final = (
    "SELECT number, folder, name, at, kind, size, member, reason, first, "
    "(SELECT sha256 FROM firsts WHERE firsts.number = items.first) FROM items "
    "WHERE number > ? ORDER BY number LIMIT ?"
)
_SORT: Final = (
    "INSERT INTO items (folder, name, at, kind, size, member, reason) "
    "SELECT folder, name, at, kind, size, member, reason FROM found ORDER BY folder, name, at"
)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive items, which are judged by one worker and committed together.

    Attributes:
        number: from 0.
        first: number of its first item, from 1.
        items: those to judge, with their numbers.
        copies: with `--dedupe`: number of an item -> (number of the first with the same bytes,
            SHA-256 of both, the item's path).
    """

    number: int
    first: int
    items: tuple[tuple[int, Item], ...]
    copies: dict[int, tuple[int, str, str]]


class Plan:
    """The table of items.

    Args:
        path: of the database.
        chunk: items that are committed together.
    """

    def __init__(self, path: Path, chunk: int) -> None:
        self._db = sqlite3.connect(path)
        self._chunk = chunk

    @property
    def count(self) -> int:
        """Items in all."""
        (count,) = self._db.execute("SELECT max(number) FROM items").fetchone()
        return count or 0

    def chunks(self) -> Iterator[Chunk]:
        """All chunks in order of folder, then name; each item is in exactly one."""
        for number in range(-(-self.count // self._chunk)):
            items, copies = [], {}
            for row in self._next(number * self._chunk, self._chunk):
                at, item, first, digest = row[0], _item(row[1:8]), row[8], row[9]
                if first is None:
                    items.append((at, item))
                else:
                    copies[at] = (first, digest.hex(), item.path)
            yield Chunk(number, number * self._chunk + 1, tuple(items), copies)

    def _next(self, after: int, count: int) -> list[tuple[Any, ...]]:
        return self._db.execute(_NEXT, (after, count)).fetchall()

    def copied(self, chunk: Chunk) -> set[int]:
        """Numbers of the items of a chunk that others are copies of."""
        ends = chunk.first, chunk.first + self._chunk - 1
        found = self._db.execute("SELECT first FROM items WHERE first BETWEEN ? AND ?", ends)
        return {number for (number,) in found}

    def keep(self, rows: Iterable[tuple[int, Any]]) -> None:
        """Put aside what was found for items, by number and JSON-ready; all or nothing."""
        with self._db:  # one wait for the disk
            self._db.executemany(
                "INSERT OR REPLACE INTO kept VALUES (?, ?)",
                ((number, json.dumps(value)) for number, value in rows),
            )

    def kept(self, number: int) -> Any:
        """What was put aside for an item."""
        (text,) = self._db.execute("SELECT value FROM kept WHERE number = ?", (number,)).fetchone()
        return json.loads(text)

    def find_copies(self, reader: Reader, progress: Progress | None = None) -> None:
        """Read every item and note which have the bytes of an earlier one; goes on if stopped.

        What cannot be read is no copy of anything.
        """
        (done,) = self._db.execute("SELECT hashed FROM state").fetchone()
        total = self.count

        def digest(one: tuple[int, Item]) -> tuple[int, bytes | None]:
            try:
                return one[0], hashlib.sha256(reader.read(one[1])).digest()
            except ImageError:
                return one[0], None

        while done < total:
            todo = [(row[0], _item(row[1:8])) for row in self._next(done, _TOGETHER)]
            plain = all(item.kind == "file" for _, item in todo)  # may be read side by side
            digests = ahead(todo, digest) if plain else map(digest, todo)
            with self._db:
                for number, value in digests:
                    if value is not None:
                        self._note(number, value)
                done = todo[-1][0]
                self._db.execute("UPDATE state SET hashed = ?", (done,))
            if progress:
                progress(done, total)

    def _note(self, number: int, digest: bytes) -> None:
        new = self._db.execute("INSERT OR IGNORE INTO firsts VALUES (?, ?)", (digest, number))
        if new.rowcount == 0:
            self._db.execute(
                "UPDATE items SET first = (SELECT number FROM firsts WHERE sha256 = ?) "
                "WHERE number = ?",
                (digest, number),
            )

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()


def write_plan(path: Path, items: Iterable[Item], progress: Callable[[int], None] | None) -> None:
    """List items into a new database, atomically; one that is named twice counts once.

    Args:
        path: of the database.
        items: in any order.
        progress: called with the number found so far.
    """
    with atomic_path(path) as temporary, closing(sqlite3.connect(temporary)) as db:
        # No journal: a list that was not finished is thrown away.
        db.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
            "CREATE TABLE found (folder BLOB, name BLOB, at INTEGER, kind TEXT, size INTEGER, "
            "member BLOB, reason TEXT, PRIMARY KEY (folder, name, at)) WITHOUT ROWID;"
            "CREATE TABLE items (number INTEGER PRIMARY KEY, folder BLOB, name BLOB, at INTEGER, "
            "kind TEXT, size INTEGER, member BLOB, reason TEXT, first INTEGER);"
            "CREATE TABLE firsts (sha256 BLOB PRIMARY KEY, number INTEGER) WITHOUT ROWID;"
            "CREATE INDEX of_number ON firsts (number);"
            "CREATE INDEX of_first ON items (first) WHERE first NOTNULL;"
            "CREATE TABLE kept (number INTEGER PRIMARY KEY, value TEXT);"
            "CREATE TABLE state (hashed INTEGER); INSERT INTO state VALUES (0);"
        )
        coming, count = iter(items), 0
        while some := [_row(item) for item in islice(coming, _TOGETHER)]:
            db.executemany("INSERT OR IGNORE INTO found VALUES (?, ?, ?, ?, ?, ?, ?)", some)
            count += len(some)
            if progress:
                progress(count)
        db.execute(_SORT)
        db.execute("DROP TABLE found")
        db.commit()


def _row(item: Item) -> tuple[Any, ...]:
    # By folder first, so that the pictures of one come one after the other.
    folder, slash, name = item.file.rpartition("/")
    member = None if item.member is None else os.fsencode(item.member)
    return (
        *(os.fsencode(folder + slash), os.fsencode(name), item.at),
        *(item.kind, item.size, member, item.reason),
    )


def _item(row: Sequence[Any]) -> Item:
    folder, name, at, kind, size, member, reason = row
    file = os.fsdecode(folder) + os.fsdecode(name)
    return Item(kind, file, at, size, None if member is None else os.fsdecode(member), reason)
