"""What a person names -> the pictures in it, one at a time: nothing here grows with their number.

Files, folders and patterns, tar shards (WebDataset's form) and Parquet with a column of pictures;
on this machine, or behind any address that fsspec knows.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Literal

from bonaface.errors import ConfigError, DataError
from bonaface.images import SUFFIXES, os_reason
from bonaface.tars import DamagedTarError, members

Kind = Literal["file", "tar", "parquet"]

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(://|::)")
_WILD: Final = frozenset("*?[")
_COMPRESSED: Final = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_CONTENT: Final = frozenset({"image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp"})


@dataclass(frozen=True, slots=True)
class Item:
    """One picture, and where its bytes lie.

    Attributes:
        kind: what `file` is.
        file: path or address.
        at: in a tar the offset of the bytes, in Parquet the number of the row; -1: the whole file.
        size: in bytes; None: not known.
        member: name within a tar.
        reason: why there is nothing to read, found while looking; None: there may be.
    """

    kind: Kind
    file: str
    at: int = -1
    size: int | None = None
    member: str | None = None
    reason: str | None = None

    @property
    def path(self) -> str:
        """What the picture is called, as text that can be written."""
        name = self.file
        if self.kind == "tar" and self.member is not None:
            name = f"{self.file}/{self.member}"
        elif self.kind == "parquet" and self.reason is None:
            name = f"{self.file}/{self.at:09d}"
        return shown(name)


def shown(name: str) -> str:
    """A name with bytes that are no UTF-8 escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def is_url(text: str) -> bool:
    """Whether fsspec is to read it."""
    return _URL.match(text) is not None


def find_items(
    source: str, *, column: str | None = None, but: Path | None = None
) -> Iterator[Item]:
    """The pictures of one source, in any order.

    Args:
        source: a file, a folder, a pattern or an address of one.
        column: of Parquet; None: the only one that can hold pictures, or the one called so.
        but: a path that is passed over, with all that begins with its name: what is written there.

    Raises:
        DataError: there is nothing of that name, or a tar is compressed.
        ConfigError: Parquet that was named has no such column.
        ImportError: fsspec lacks the library for this kind of address.
    """
    if is_url(source):
        yield from _remote(source, column)
        return
    path = Path(source)
    if path.is_dir():
        yield from _folder(source, column, but)
    elif path.exists() or path.is_symlink():
        yield from _opened(str(path), column)
    elif _WILD.isdisjoint(source):
        raise DataError(f"expected pictures at {source!r}, found nothing there; check the path")
    else:
        for name in glob.iglob(source, recursive=True):  # noqa: PTH207  (any root)
            if not Path(name).is_dir() and not _begins(name, but):
                yield from _opened(name, column)


def _begins(name: str, but: Path | None) -> bool:
    return but is not None and os.path.abspath(name).startswith(str(but))  # noqa: PTH100


def _folder(root: str, column: str | None, but: Path | None) -> Iterator[Item]:
    """What lies in a folder and below; hidden files are left out, links to folders not followed."""
    waiting = [str(Path(root))]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as found:
                for entry in found:
                    if entry.name.startswith(".") or _begins(entry.path, but):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif _wanted(entry.name):
                        yield from _opened(entry.path, column, named=False)
        except OSError as error:
            yield Item("file", folder, reason=os_reason(Path(folder), error))


def _wanted(name: str) -> bool:
    ending = os.path.splitext(name)[1].lower()  # noqa: PTH122  (a Path for each costs more)
    return ending in SUFFIXES or ending in (".tar", ".parquet")


def _opened(name: str, column: str | None, *, named: bool = True) -> Iterator[Item]:
    """A file, or what is in it; `named`: by the person, not found in a folder."""
    lower = name.lower()
    if lower.endswith(_COMPRESSED):
        raise DataError(f"expected a plain tar, got {name!r}, which is compressed; unpack it first")
    if not lower.endswith((".tar", ".parquet")):
        yield Item("file", name)
        return
    try:
        with Path(name).open("rb") as file:
            yield from _inside(name, file, column, named)
    except OSError as error:
        kind: Kind = "tar" if lower.endswith(".tar") else "parquet"
        yield Item(kind, name, reason=os_reason(Path(name), error))


def _inside(name: str, file: IO[bytes], column: str | None, named: bool) -> Iterator[Item]:
    if name.lower().endswith(".tar"):
        yield from _members(name, file)
    else:
        yield from _rows(name, file, column, named)


def _members(name: str, file: IO[bytes]) -> Iterator[Item]:
    """The pictures of a plain tar, by their endings; where it is damaged, an item says so."""
    end = 0
    try:
        for member in members(file):
            end = member.at
            if os.path.splitext(member.name)[1].lower() in SUFFIXES:  # noqa: PTH122
                yield Item("tar", name, member.at, member.size, member.name)
    except DamagedTarError as error:
        yield Item("tar", name, end + 1, reason=error.strerror)


def _rows(name: str, file: IO[bytes], column: str | None, named: bool) -> Iterator[Item]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
        if find_column(table.schema_arrow, column) is None:
            if not named:  # a folder may hold tables of other things
                return
            raise ConfigError(
                f"expected one column of pictures in {name!r}, got {table.schema_arrow.names}; "
                "name it with --column"
            )
        rows = table.metadata.num_rows
    except (pa.ArrowInvalid, OSError) as error:
        yield Item("parquet", name, reason=f"damaged Parquet ({str(error).splitlines()[0]})")
        return
    for at in range(rows):
        yield Item("parquet", name, at)


def find_column(schema: Any, column: str | None) -> str | None:
    """Path of the leaf with the bytes of pictures; None: there is none, or it is not clear which.

    A column of binary, or of structs with the field `bytes`, as Hugging Face writes them.
    """
    import pyarrow as pa

    found = {}
    for field in schema:
        if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
            found[field.name] = field.name
        elif pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
            found[field.name] = f"{field.name}.bytes"
    if column is not None:
        return found.get(column)
    if len(found) > 1:
        found = {name: leaf for name, leaf in found.items() if name.lower() in _CONTENT}
    return next(iter(found.values())) if len(found) == 1 else None


# -- behind an address --


def _remote(url: str, column: str | None) -> Iterator[Item]:
    from fsspec.core import url_to_fs

    system, path = url_to_fs(url)
    count = 0
    for name, size, named in _listed(system, path):
        count += 1
        address = system.unstrip_protocol(name)
        lower = name.lower()
        if lower.endswith(_COMPRESSED) and named:
            raise DataError(f"expected a plain tar, got {address!r}; unpack it first")
        if lower.endswith((".tar", ".parquet")):
            with system.open(name, "rb") as file:
                yield from _inside(address, file, column, named)
        else:
            yield Item("file", address, size=size)
    if not count:
        raise DataError(f"expected pictures at {url!r}, found none; check the address")


def _listed(system: Any, path: str) -> Iterator[tuple[str, int | None, bool]]:
    """Of each file its name, its size, and whether the person named it."""
    if not _WILD.isdisjoint(path):
        for name, facts in sorted(system.glob(path, detail=True).items()):
            if facts.get("type") != "directory":
                yield name, facts.get("size"), True
    elif system.isfile(path):
        yield path, system.info(path).get("size"), True
    else:
        for _, _, files in system.walk(path, detail=True):
            for name, facts in files.items():
                if _wanted(name) and not name.startswith("."):
                    yield facts["name"], facts.get("size"), False
