"""A request's body to files that lie in memory, with limits that hold while it comes.

Starlette's own form parser writes larger files to the disk; this one never does.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import IO, Any, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from bonaface.service.problems import Problem, context

_RAW: Final = re.compile(r"(image|video)/.*|application/octet-stream")
_KINDS: Final = "multipart/form-data, image/*, video/* or application/octet-stream"
_LONGEST_NAME: Final = 200


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a body may cost.

    Attributes:
        body_bytes: in all.
        file_bytes: of one file.
        files: how many.
        seconds: until it has come.
        stall_seconds: for which its sender may be silent.
    """

    body_bytes: int
    file_bytes: int
    files: int
    seconds: float
    stall_seconds: float


@dataclass(frozen=True, slots=True)
class Upload:
    """One file of a request.

    Attributes:
        name: as its sender calls it, without folders; fit to be shown.
        file: what it holds, in memory.
    """

    name: str
    file: IO[bytes]


def in_memory() -> IO[bytes]:
    """A file for a picture."""
    return io.BytesIO()


def in_memory_with_number() -> IO[bytes]:
    """A file for a clip, which FFmpeg opens by its number.

    On Linux it lies in memory (memfd). Elsewhere it is a temporary file without a name.
    """
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("clip", os.MFD_CLOEXEC), "w+b", buffering=0)  # noqa: PTH123
    return tempfile.TemporaryFile(buffering=0)


async def read_uploads(
    request: Request,
    bounds: Bounds,
    open_file: Callable[[], IO[bytes]],
    grow: Callable[[int], None],
) -> list[Upload]:
    """Read the body: multipart with files, or one file as it is.

    Args:
        request: whose body has not been read.
        bounds: beyond which a problem ends it.
        open_file: for each file.
        grow: told of bytes before they are held; may raise a problem.

    Raises:
        Problem: 400, 408, 413, 415 or 422.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    said = kind.decode("latin-1")
    receiver: _Raw | _Multipart
    if said == "multipart/form-data":
        receiver = _Multipart(options.get(b"boundary", b""), bounds, open_file)
    elif not said or _RAW.fullmatch(said):
        receiver = _Raw(bounds, open_file)
    else:
        raise Problem(415, f"expected {_KINDS}, got {_shown(said)}; send the file as one of these")
    try:
        async for chunk in _chunks(request, bounds, grow):
            receiver.write(chunk)
        found = receiver.finish()
        for upload in found:
            upload.file.seek(0)
    except BaseException:
        receiver.close()
        raise
    context(request.scope).files = len(found)
    return found


async def _chunks(
    request: Request, bounds: Bounds, grow: Callable[[int], None]
) -> AsyncIterator[bytes]:
    now = context(request.scope)
    try:
        async with asyncio.timeout(bounds.seconds):
            while not now.complete:
                async with asyncio.timeout(bounds.stall_seconds):
                    message: Any = await request.receive()
                if message["type"] != "http.request":
                    raise Problem(400, "expected the whole body, got a part; send it again")
                if now.received > bounds.body_bytes:
                    raise too_large(bounds.body_bytes, "request")
                chunk = message.get("body", b"")
                grow(now.received)
                if chunk:
                    yield chunk
    except TimeoutError as error:
        raise Problem(
            408,
            f"expected the body within {bounds.seconds:g} s and no pause of "
            f"{bounds.stall_seconds:g} s, got a slower one; send a smaller file or try again",
        ) from error


def too_large(most: int, what: str) -> Problem:
    """413 for a file or a request."""
    return Problem(
        413,
        f"expected a {what} of at most {most / 2**20:.4g} MiB, got a larger one; "
        + ("send fewer files at a time" if what == "request" else "send a smaller one"),
    )


class _Raw:
    def __init__(self, bounds: Bounds, open_file: Callable[[], IO[bytes]]) -> None:
        self._most, self._size, self._file = bounds.file_bytes, 0, open_file()

    def write(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._most:
            raise too_large(self._most, "file")
        self._file.write(data)

    def finish(self) -> list[Upload]:
        if not self._size:
            raise Problem(400, "expected a file in the body, got nothing; send one")
        return [Upload("upload", self._file)]

    def close(self) -> None:
        self._file.close()


@dataclass(slots=True)
class _Part:
    headers: dict[str, bytes] = field(default_factory=dict)
    name: bytearray = field(default_factory=bytearray)
    value: bytearray = field(default_factory=bytearray)
    size: int = 0


class _Multipart:
    def __init__(self, boundary: bytes, bounds: Bounds, open_file: Callable[[], IO[bytes]]) -> None:
        self._bounds, self._open = bounds, open_file
        self._found: list[Upload] = []
        self._part, self._ended = _Part(), False
        if not boundary:
            raise Problem(
                400, "expected a boundary in the content type, got none; let a library set it"
            )
        calls: Any = {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_end,
            "on_part_data": self._data,
            "on_end": self._end,
        }
        try:
            self._parser = MultipartParser(boundary, calls)
        except FormParserError as error:
            raise _broken(error) from error

    def write(self, data: bytes) -> None:
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise _broken(error) from error

    def finish(self) -> list[Upload]:
        if not self._ended:
            raise Problem(
                400, "expected a multipart body up to its last boundary, got less; send it again"
            )
        if not self._found:
            raise Problem(
                400, "expected at least one file in the multipart body, got none; add one"
            )
        return self._found

    def close(self) -> None:
        for upload in self._found:
            upload.file.close()

    # -- called by the parser --

    def _begin(self) -> None:
        self._part = _Part()

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._part.name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._part.value += data[start:end]

    def _header_end(self) -> None:
        part = self._part
        part.headers[part.name.decode("latin-1").lower()] = bytes(part.value)
        part.name, part.value = bytearray(), bytearray()

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._part.headers.get("content-disposition"))
        name = options.get(b"filename")
        if name is None:
            field_name = _shown(options.get(b"name", b"").decode("utf-8", "replace"))
            raise Problem(
                422,
                f"expected files only, got the field {field_name!r}; "
                "options such as stability and prevalence go into the address, after ?",
            )
        if len(self._found) == self._bounds.files:
            raise Problem(
                413,
                f"expected at most {self._bounds.files} files in a request, got more; "
                "send the others in another request",
            )
        self._found.append(Upload(_name(name), self._open()))

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._part.size += end - start
        if self._part.size > self._bounds.file_bytes:
            raise too_large(self._bounds.file_bytes, "file")
        self._found[-1].file.write(memoryview(data)[start:end])

    def _end(self) -> None:
        self._ended = True


def _broken(error: Exception) -> Problem:
    return Problem(
        400, f"expected a multipart body, got a broken one ({_shown(str(error))}); send it again"
    )


def _name(given: bytes) -> str:
    last = re.split(r"[/\\]", given.decode("utf-8", "replace"))[-1]
    return _shown(last) or "upload"


def _shown(text: str) -> str:
    return "".join(c for c in text if c.isprintable())[:_LONGEST_NAME]
