"""Pictures inside plain tars: who reads `shard.tar/name.jpg` need not know what it is."""

from __future__ import annotations

import errno
import io
import os
import stat
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, Final, NamedTuple

TAR: Final = ".tar"
_INTO: Final = f"{TAR}/"


class DamagedTarError(OSError):
    """A tar whose headers contradict themselves or that ends too early."""

    def __init__(self, why: str, tar: str | None = None) -> None:
        super().__init__(errno.EIO, f"damaged tar ({why})", tar)


class Member(NamedTuple):
    """One file in a tar: its name, and the offset and number of its bytes."""

    name: str
    at: int
    size: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where the bytes of a member lie, and the tar's time of change in nanoseconds."""

    tar: str
    at: int
    size: int
    mtime_ns: int

    def read(self) -> bytes:
        """The member's bytes. Raises OSError."""
        with open(self.tar, "rb", buffering=0) as file:  # noqa: PTH123  (speed)
            file.seek(self.at)
            data = file.read(self.size)
        if len(data) != self.size:
            raise DamagedTarError("it ends within a file", self.tar)
        return data


def members(file: IO[bytes]) -> Iterator[Member]:
    """The regular files of a plain tar but hidden ones, in the order in which they lie.

    Raises:
        DamagedTarError: where it cannot be read on.
    """
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (one := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # or every header stays
                hidden = any(part.startswith(".") for part in one.name.split("/") if part != ".")
                if one.isreg() and one.sparse is None and not hidden:
                    yield Member(one.name, one.offset_data, one.size)
            # To tarfile a header that is no header, behind others, is the end.
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise tarfile.ReadError("bad header")
    except (tarfile.TarError, EOFError) as error:
        raise DamagedTarError(str(error) or type(error).__name__) from error


class _Index(NamedTuple):
    status: tuple[int, int]  # the tar's size and time of change
    members: dict[str, Member]


_indexes: dict[str, _Index] = {}
_lock = threading.Lock()


def index(tar: str | Path) -> dict[str, Member]:
    """The members of a tar by name; its headers are read once, until it is changed.

    Raises:
        OSError: it cannot be read; `DamagedTarError`: not to its end.
    """
    name = os.fspath(tar)
    return _index(name, os.stat(name))  # noqa: PTH116  (speed)


def _index(name: str, status: os.stat_result) -> dict[str, Member]:
    key = status.st_size, status.st_mtime_ns
    with _lock:
        known = _indexes.get(name)
        if known is None or known.status != key:
            with Path(name).open("rb") as file:
                try:
                    known = _Index(key, {one.name: one for one in members(file)})
                except DamagedTarError as error:
                    error.filename = name
                    raise
            _indexes[name] = known
    return known.members


def tar_of(path: str) -> str | None:
    """The part of a path, with forward slashes, that names a tar; None: it leads into none.

    By name alone: a folder may be called so. Of several, the innermost.
    """
    at = path.lower().rfind(_INTO)
    return None if at < 0 else path[: at + len(TAR)]


def place(path: str | Path) -> Place | None:
    """Where the bytes of a member lie; None for a path that does not lead into a tar.

    Raises:
        OSError: the tar cannot be read, or has no such member.
    """
    text = os.fspath(path).replace(os.sep, "/")
    tar = tar_of(text)
    if tar is None:
        return None
    try:
        status = os.stat(tar)  # noqa: PTH116  (speed)
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    name = text[len(tar) + 1 :]
    found = _index(tar, status).get(name)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, "no such picture in the tar", text)
    return Place(tar, found.at, found.size, status.st_mtime_ns)


def status(path: str | Path) -> tuple[int, int]:
    """Bytes and time of change, in nanoseconds, of a file or a member. Raises OSError."""
    inside = place(path)
    if inside is not None:
        return inside.size, inside.mtime_ns
    found = os.stat(path)  # noqa: PTH116  (speed)
    return found.st_size, found.st_mtime_ns


def open_binary(path: str | Path) -> BinaryIO:
    """Open a file, or a member, which is read whole. Raises OSError."""
    inside = place(path)
    if inside is not None:
        return io.BytesIO(inside.read())
    return open(path, "rb")  # noqa: PTH123  (speed)
