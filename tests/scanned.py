"""A source of tiny pictures, and scans of it without processes."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from bonaface.scan.plan import Chunk
from bonaface.scan.rows import TIMINGS, Job, Row, Scanner


def png(value: int, mark: int = 0) -> bytes:
    """One grey; `mark` tells two files of one grey apart."""
    pixels = np.full((18, 18, 3), value, np.uint8)
    pixels[0, 0] = mark % 256, mark // 256 % 256, mark // 65536
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_pictures(root: Path, count: int) -> Path:
    """Greys of every brightness in a few folders, with some that cannot be read."""
    for number in range(count):
        folder = root / f"part {number % 5}"
        folder.mkdir(parents=True, exist_ok=True)
        data = b"no picture" if number % 50 == 7 else png(number * 37 % 256, number)
        (folder / f"{number:05d}.png").write_bytes(data)
    return root


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            facts = tarfile.TarInfo(name)
            facts.size = len(data)
            tar.addfile(facts, io.BytesIO(data))


def write_parquet(path: Path, pictures: list[bytes | None], *, struct: bool = False) -> None:
    values: list[Any] = list(pictures)
    if struct:
        values = [{"bytes": data, "path": None} for data in pictures]
    table = pa.table({"label": list(range(len(values))), "image": values})
    pq.write_table(table, path, row_group_size=7)


def read(path: Path) -> list[Row]:
    """All rows without their timings, which differ from scan to scan."""
    return pq.read_table(path).drop_columns(list(TIMINGS)).to_pylist()


class Serial:
    """An engine in this process."""

    def __init__(self, job: Job) -> None:
        self._scanner = Scanner(job)
        self.replaced = 0
        self.paths: list[str] = []

    def judged(self, chunks: Iterator[Chunk], told: Any) -> Iterator[tuple[Chunk, list[list[Row]]]]:
        for chunk in chunks:
            found = [self._scanner.rows(item) for _, item in chunk.items]
            for rows in found:
                self.paths.append(rows[0]["path"])
                told(rows)
            yield chunk, found
