"""Uploads that are no good in many ways, the same ones for the same seed."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image as PILImage

from bonaface.drawn import draw_face

SIDE = 160
Upload = tuple[str, bytes]
"""Content type and body."""


def broken_uploads(count: int, seed: int = 0) -> Iterator[Upload]:
    """So many requests to ``/v1/detect``, each broken in one of the ways below, in turn."""
    rng = np.random.default_rng(seed)
    sound = _sound()
    for number in range(count):
        yield WAYS[number % len(WAYS)](sound, rng)


def _sound() -> dict[str, bytes]:
    """The same drawn face in each format."""
    image = PILImage.fromarray(draw_face(np.random.default_rng(0), SIDE).pixels)
    found = {}
    for kind in ("jpeg", "png", "webp", "gif", "bmp", "tiff"):
        buffer = io.BytesIO()
        image.save(buffer, kind)
        found[kind] = buffer.getvalue()
    return found


def _any(sound: dict[str, bytes], rng: np.random.Generator) -> tuple[str, bytes]:
    kind = list(sound)[int(rng.integers(len(sound)))]
    return kind, sound[kind]


def _cut(sound: dict[str, bytes], rng: np.random.Generator) -> Upload:
    """A picture without its end."""
    kind, data = _any(sound, rng)
    return f"image/{kind}", data[: int(rng.integers(1, len(data)))]


def _flipped(sound: dict[str, bytes], rng: np.random.Generator) -> Upload:
    """A picture with some bytes changed, often in its header."""
    kind, data = _any(sound, rng)
    changed = np.frombuffer(data, np.uint8).copy()
    end = len(changed) if rng.random() < 0.5 else min(len(changed), 200)
    places = rng.integers(0, end, int(rng.integers(1, 40)))
    changed[places] = rng.integers(0, 256, len(places))
    return f"image/{kind}", changed.tobytes()


def _crossed(sound: dict[str, bytes], rng: np.random.Generator) -> Upload:
    """The head of one format before the body of another."""
    kind, head = _any(sound, rng)
    _, tail = _any(sound, rng)
    at = int(rng.integers(2, 64))
    return f"image/{kind}", head[:at] + tail[at:]


def _two_things(sound: dict[str, bytes], rng: np.random.Generator) -> Upload:
    """A picture that is a page, a script or an archive as well."""
    kind, data = _any(sound, rng)
    others = (b"<html><script>alert(1)</script>", b"#!/bin/sh\nexit\n", b"PK\x03\x04" * 99)
    other = others[int(rng.integers(len(others)))]
    return f"image/{kind}", data + other if rng.random() < 0.5 else other + data


def _bomb(_sound: dict[str, bytes], rng: np.random.Generator) -> Upload:
    """A PNG of a few kB that promises, or holds, a great many pixels."""
    width, height = (int(rng.integers(1, 2**31)) for _ in range(2))
    if rng.random() < 0.5:
        width, height = 30_000, int(rng.integers(1_000, 30_000))
    rows = zlib.compress(bytes(min(width + 1, 30_001) * 300), 9)
    return "image/png", _png(width, height, rows)


def _text_bomb(_sound: dict[str, bytes], rng: np.random.Generator) -> Upload:
    """A small PNG whose text unfolds to tens of megabytes."""
    text = b"Comment\0\0" + zlib.compress(bytes(int(rng.integers(2**22, 2**25))), 9)
    return "image/png", _png(8, 8, zlib.compress(bytes(9 * 8)), _chunk(b"zTXt", text))


def _png(width: int, height: int, rows: bytes, extra: bytes = b"") -> bytes:
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + extra + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def _metadata(sound: dict[str, bytes], rng: np.random.Generator) -> Upload:
    """A JPEG with Exif, colour profile and content credentials that are noise."""
    noise = rng.bytes(int(rng.integers(1, 5_000)))
    kinds = ((0xE1, b"Exif\0\0MM\0*"), (0xE2, b"ICC_PROFILE\0\1\1"), (0xEB, b"JP\0\1\0\0\0\1"))
    parts = b""
    for marker, name in kinds:
        parts += struct.pack(">BBH", 0xFF, marker, 2 + len(name) + len(noise)) + name + noise
    jpeg = sound["jpeg"]
    return "image/jpeg", jpeg[:2] + parts + jpeg[2:]


def _noise(_sound: dict[str, bytes], rng: np.random.Generator) -> Upload:
    """Bytes that are nothing, or none."""
    return "application/octet-stream", rng.bytes(int(rng.integers(0, 20_000)))


def _clip(_sound: dict[str, bytes], rng: np.random.Generator) -> Upload:
    """The beginning of a clip."""
    return "image/jpeg", b"\0\0\0\x18ftypmp42" + rng.bytes(int(rng.integers(0, 5_000)))


def _form(sound: dict[str, bytes], rng: np.random.Generator) -> Upload:
    """multipart/form-data that is cut, without an end, of another border, or of too much."""
    _, data = _any(sound, rng)
    names = ("a.jpg", "../../etc/passwd", "a\0b", "x" * 5_000, "", "\u202egpj.exe", 'a"; b="c')
    name = names[int(rng.integers(len(names)))]
    head = f'--B\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
    part = head.encode() + b"Content-Type: image/jpeg\r\n\r\n" + data + b"\r\n"
    forms = (
        part,
        part * int(rng.integers(20, 60)) + b"--B--\r\n",
        part[: int(rng.integers(1, len(part)))],
        part.replace(b"--B", b"--C") + b"--B--\r\n",
        b"--B\r\n" + b"X-Header: " + rng.bytes(100).hex().encode() * 200 + b"\r\n\r\n",
        b'--B\r\nContent-Disposition: form-data; name="f"\r\n\r\nvalue\r\n' * 300 + b"--B--\r\n",
        b"--B--\r\n",
    )
    borders = ("; boundary=B", "", "; boundary=", "; boundary=C")
    border = borders[max(0, int(rng.integers(-12, 4)))]
    return f"multipart/form-data{border}", forms[int(rng.integers(len(forms)))]


WAYS: tuple[Callable[[dict[str, bytes], np.random.Generator], Upload], ...] = (
    _cut,
    _flipped,
    _crossed,
    _two_things,
    _bomb,
    _text_bomb,
    _metadata,
    _noise,
    _clip,
    _form,
)
