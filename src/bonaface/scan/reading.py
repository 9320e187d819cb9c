"""The bytes of one picture, wherever they lie; what was open last stays open for the next."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from bonaface.errors import ImageError
from bonaface.images import DEFAULT_LIMITS, ImageLimits, os_reason, read_file
from bonaface.scan.sources import Item, find_column, is_url

_BATCH = 16  # rows of Parquet in memory at a time


class Reader:
    """Reads items, best in their order. Not to be shared between threads, but for plain files.

    Args:
        column: of Parquet, as for `sources.find_items`.
        limits: what a picture may cost.
    """

    def __init__(self, column: str | None = None, limits: ImageLimits = DEFAULT_LIMITS) -> None:
        self._column = column
        self._limits = limits
        self._name: str | None = None
        self._file: IO[bytes] | None = None
        self._table: _Table | None = None

    def read(self, item: Item) -> bytes:
        """The picture's bytes.

        Raises:
            ImageError: with the reason why there are none.
        """
        if item.reason is not None:
            raise ImageError(item.reason)
        if item.size is not None and item.size > self._limits.max_bytes:
            raise ImageError(f"larger than {self._limits.max_bytes / 2**20:.4g} MiB")
        if item.kind == "file" and not is_url(item.file):
            return read_file(Path(item.file), self._limits)
        try:
            return self._read(item)
        except ImageError:
            raise
        except MemoryError as error:
            raise ImageError("not enough memory") from error
        except OSError as error:
            raise ImageError(os_reason(Path(item.file), error)) from error
        except Exception as error:  # what lies behind an address may raise anything
            raise ImageError(f"cannot be read ({type(error).__name__})") from error

    def _read(self, item: Item) -> bytes:
        if item.kind == "parquet":
            return self._row(item)
        if is_url(item.file):
            from fsspec.core import url_to_fs

            system, path = url_to_fs(item.file)
            if item.kind == "file":
                return bytes(system.cat_file(path))
            data = bytes(system.cat_file(path, item.at, item.at + (item.size or 0)))
        else:
            file = self._open(item.file)
            file.seek(item.at)
            data = file.read(item.size)
        if len(data) != item.size:
            raise ImageError("truncated: the tar ends before it")
        return data

    def _row(self, item: Item) -> bytes:
        file = self._open(item.file)
        if self._table is None or item.at < self._table.start:
            self._table = _Table(file, self._column, item.at)
        data = self._table.row(item.at)
        if data is None:
            raise ImageError("no bytes in this row")
        if len(data) > self._limits.max_bytes:
            raise ImageError(f"larger than {self._limits.max_bytes / 2**20:.4g} MiB")
        return data

    def _open(self, name: str) -> Any:
        if self._file is None or self._name != name:
            self.close()
            if is_url(name):
                from fsspec.core import url_to_fs

                system, path = url_to_fs(name)
                self._file = system.open(path, "rb")
            else:
                self._file = Path(name).open("rb")  # noqa: SIM115  (until the next)
            self._name = name
        return self._file

    def close(self) -> None:
        """Close what is open."""
        self._table = None
        if self._file is not None:
            self._file.close()
            self._file = None


class _Table:
    """Rows of one Parquet file from a row on, forwards; the row group is streamed, not held."""

    def __init__(self, file: Any, column: str | None, first: int) -> None:
        import pyarrow.parquet as pq

        table = pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
        leaf = find_column(table.schema_arrow, column)
        if leaf is None:
            raise ImageError("its table has no column of pictures any more")
        groups: list[int] = []
        self.start = 0
        for number in range(table.num_row_groups):
            rows = table.metadata.row_group(number).num_rows
            if not groups and self.start + rows <= first:
                self.start += rows
            else:
                groups.append(number)
        self._batches: Iterator[Any] = table.iter_batches(
            _BATCH, row_groups=groups, columns=[leaf], use_threads=False
        )
        self._batch: Any = None

    def row(self, at: int) -> bytes | None:
        """Bytes of a row that is not before `start`; None: it has none."""
        while self._batch is None or at >= self.start + len(self._batch):
            self.start += 0 if self._batch is None else len(self._batch)
            self._batch = next(self._batches)
        values = self._batch.column(0)
        if hasattr(values, "field"):  # a struct
            values = values.field("bytes")
        found = values[at - self.start].as_py()
        return None if found is None else bytes(found)
