"""What a scan has written so far: parts that are whole or not there, and at the end one file.

A part is written beside its place, flushed to the disk and renamed, so that its name is its commit.
A finished scan is one Parquet file under the name that was asked for: whatever reads Parquet reads
it, it can be copied, and a scan that is not finished cannot be taken for one that is.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from bonaface.errors import ConfigError, DataError
from bonaface.files import atomic_path, sync_folder, write_json
from bonaface.scan.plan import Chunk, Plan
from bonaface.scan.rows import COLUMNS, TIMINGS, Row, unreadable

SCHEMA: Final = pa.schema(
    [(name, getattr(pa, kind.replace("bool", "bool_"))()) for name, kind in COLUMNS.items()]
)
SCHEMA_VERSION: Final = 1
_MANIFEST, _PLAN, _LOCK = "manifest.json", "plan.db", "lock"
_KEY: Final = b"bonaface.scan"
_GROUP: Final = 65_536  # rows of a row group of the finished file

# Judged rows by the number of their item, with the number first where there are several.
Numbered = list[tuple[int, Row]]


class Work:
    """The folder of a scan that is not finished: manifest, plan and parts.

    Args:
        out: the file that will be written; the folder is called after it, with `.scan`.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = out.with_name(f"{out.name}.scan")
        self.plan_file = self.folder / _PLAN

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else may write here; the system lets go when this process ends, however.

        Raises:
            ConfigError: another process does.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / _LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ConfigError(
                f"expected no other scan that writes {str(self.out)!r}, got one that is running; "
                "wait for it or name another file"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def clear(self) -> None:
        """Remove the folder of a scan that is finished: the parts are in its file."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def begin(self, asked: Mapping[str, Any], write_plan: Callable[[Path], None]) -> None:
        """Make manifest and plan, or check that those of an earlier call are for the same scan.

        Raises:
            ConfigError: they are for another one.
        """
        manifest = self.folder / _MANIFEST
        if manifest.is_file() and self.plan_file.is_file():
            check_same(json.loads(manifest.read_text(encoding="utf-8")), asked, self.out)
        else:
            write_plan(self.plan_file)
            write_json(manifest, asked)
            sync_folder(self.folder)  # no part may outlast the plan that it is of

    def commit(self, chunk: Chunk, found: Numbered) -> None:
        """Write a chunk's rows; afterwards it is done, whatever happens."""
        counts = Counter(row["picture"] for _, row in found if row.get("face") in (None, 1))
        table = pa.Table.from_pylist([row for _, row in found], SCHEMA)
        table = table.append_column("item", pa.array([at for at, _ in found], pa.int64()))
        note = {"pictures": len(chunk.items), "counts": counts}
        with atomic_path(self._part(chunk.number)) as temporary:
            pq.write_table(_noted(table, note), temporary, compression="zstd")

    def committed(self, chunk: Chunk) -> Counter[str] | None:
        """Pictures by answer of a chunk that is done; None: it is not."""
        part = self._part(chunk.number)
        if not part.is_file():
            return None
        try:
            note = read_note(part)
            if note["pictures"] == len(chunk.items):
                return Counter(note["counts"])
        except (OSError, pa.ArrowInvalid, LookupError, ValueError):
            pass
        part.unlink()  # a disk that lost what it said it had written
        return None

    def finish(self, plan: Plan, note: Mapping[str, Any]) -> None:
        """Join the parts, with the rows of copies, to the file that was asked for."""
        plan.keep(self._copied_rows(plan))
        schema = SCHEMA.with_metadata({_KEY: json.dumps(dict(note))})
        whole = self.folder / "whole.parquet"  # here, so that what a kill leaves is removed
        with (
            atomic_path(whole) as temporary,
            pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
        ):
            for table in _grouped(self._joined(chunk, plan) for chunk in plan.chunks()):
                writer.write_table(table.replace_schema_metadata(schema.metadata))
        whole.replace(self.out)
        sync_folder(self.out.parent)  # before the parts go

    def _part(self, number: int) -> Path:
        return self.folder / f"part-{number:08d}.parquet"

    def _copied_rows(self, plan: Plan) -> Iterator[tuple[int, list[Row]]]:
        """The rows of the pictures that others are copies of, by the picture's number."""
        for chunk in plan.chunks():
            if wanted := plan.copied(chunk):
                found: dict[int, list[Row]] = {number: [] for number in wanted}
                for at, row in self._rows(chunk):
                    if at in wanted:
                        found[at].append(row)
                yield from found.items()

    def _rows(self, chunk: Chunk) -> Numbered:
        return [(row.pop("item"), row) for row in self._read(chunk).to_pylist()]

    def _read(self, chunk: Chunk) -> pa.Table:
        if not chunk.items:
            return SCHEMA.append(pa.field("item", pa.int64())).empty_table()
        return pq.read_table(self._part(chunk.number), partitioning=None)

    def _joined(self, chunk: Chunk, plan: Plan) -> pa.Table:
        if not chunk.copies:
            return self._read(chunk).drop_columns("item")
        rows = self._rows(chunk)
        for at, (first, digest, path) in chunk.copies.items():
            rows += [(at, row) for row in _copied(plan.kept(first), digest, path)]
        rows.sort(key=lambda pair: pair[0])  # stable: faces stay in their order
        return pa.Table.from_pylist([row for _, row in rows], SCHEMA)


def _copied(first: list[Row], digest: str, path: str) -> list[Row]:
    """The rows of a picture from those of the one it is a copy of."""
    if first[0]["sha256"] != digest:
        reason = f"{first[0]['path']}, which had the same bytes, changed during the scan"
        return [unreadable(path, reason, first[0]["model"], first[0]["version"])]
    of: Row = {"path": path, "duplicate_of": first[0]["path"]} | dict.fromkeys(TIMINGS)
    return [row | of for row in first]


def _grouped(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of at least `_GROUP` rows, but for the last."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(len(one) for one in waiting) >= _GROUP:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


def _noted(table: pa.Table, note: Mapping[str, Any]) -> pa.Table:
    return table.replace_schema_metadata({_KEY: json.dumps(note)})


def read_note(path: Path) -> dict[str, Any]:
    """What a file of a scan says of itself.

    Raises:
        DataError: it is not of a scan.
    """
    metadata = pq.read_schema(path).metadata or {}
    if _KEY not in metadata:
        raise DataError(
            f"expected a scan in {str(path)!r}, got another Parquet file; name another file"
        )
    note: dict[str, Any] = json.loads(metadata[_KEY])
    return note


def check_same(begun: Mapping[str, Any], asked: Mapping[str, Any], out: Path) -> None:
    """Raise ConfigError where a scan was begun with other settings than are asked for now."""
    for name, value in asked.items():
        if begun.get(name) != value:
            raise ConfigError(
                f"expected the {name.replace('_', ' ')} that {str(out)!r} was begun with "
                f"({begun.get(name)}), got {value}; name another file"
            )
