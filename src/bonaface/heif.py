"""What the tables of a HEIF file (HEIC, ISO/IEC 23008-12) say, read before libheif opens it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Protocol

from bonaface.errors import ImageError

BRANDS: Final = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
)
_DERIVED: Final = frozenset({b"grid", b"iovl", b"iden", b"tmap"})  # drawn from other items
MOST: Final = 1000  # items, and whatever else is counted; as libheif
_EXTENTS: Final = 32  # pieces of an item; as libheif
_META: Final = 2**20  # bytes; photos of phones have some 10 kB
RARE: Final = "a kind of HEIC that is not read; save it as 8-bit RGB"


class Limits(Protocol):
    """The part of `bonaface.images.ImageLimits` that is needed here."""

    @property
    def max_bytes(self) -> int:
        """Size of the file."""

    @property
    def max_pixels(self) -> int:
        """Width times height."""


def boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The boxes in data[at:end]: kind, begin and end of the content. The last may reach too far.

    Stops at a size that cannot be: damage, for the decoder to name.
    """
    while at + 8 <= end:
        size, begin = int.from_bytes(data[at : at + 4], "big"), at + 8
        if size == 1:
            size, begin = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
        elif size == 0:  # to the end
            size = end - at
        if at + size < begin:
            return
        yield data[at + 4 : at + 8], begin, at + size
        at += size


@dataclass(slots=True)
class _Item:
    """What the tables of a HEIF file say of one item.

    Attributes:
        kind: "hvc1" (coded picture), "grid" (made of tiles), "Exif", ...
        parts: (offset, length) of its pieces in the file.
        cost: bytes to be read for it, its properties included.
        pixels: its declared size, width times height.
        prefix: bytes of each length in its HEVC stream; 0: no such stream.
        tile: whether a grid is made of it.
    """

    kind: bytes = b""
    parts: list[tuple[int, int]] = field(default_factory=list)
    cost: int = 0
    pixels: int = 0
    prefix: int = 0
    tile: bool = False


class _Fields:
    """Reads big-endian numbers one after another, never beyond the end."""

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self.data, self.at, self.end = data, at, min(end, len(data))

    def take(self, size: int) -> int:
        if self.at + size > self.end:
            raise ValueError("a table ends too soon")
        self.at += size
        return int.from_bytes(self.data[self.at - size : self.at], "big")

    def boxes(self) -> Iterator[tuple[bytes, _Fields]]:
        for kind, begin, end in boxes(self.data, self.at, self.end):
            yield kind, _Fields(self.data, begin, min(end, self.end))


def check_heif(data: bytes, limits: Limits) -> None:
    """Refuse what a HEIF file's own tables show to be incomplete or to cost too much (ImageError).

    libheif fills tiles of a grid that it cannot read with one colour and says nothing; it decodes a
    tile as often as grids name it before it compares sizes; it copies metadata as often as pictures
    name them. So cut files would pass, and small ones could take minutes and gigabytes.
    """
    outer = list(islice(_Fields(data, 0, len(data)).boxes(), MOST))
    metas = [content for kind, content in outer if kind == b"meta"]
    if not metas and all(kind != b"moov" for kind, _ in outer):
        raise ImageError("truncated")
    if len(metas) != 1 or len(outer) == MOST or metas[0].end - metas[0].at > _META:
        raise ImageError(RARE)
    metas[0].take(4)
    inside = [(kind, table) for kind, table in metas[0].boxes() if kind in _TABLES]
    tables = dict(inside)
    if len(tables) < len(inside):
        raise ImageError("damaged")
    items: dict[int, _Item] = {}
    for kind, read in _TABLES.items():
        if kind in tables:
            read(tables[kind], items, limits)
    if sum(item.cost for item in items.values()) > 2 * limits.max_bytes:
        raise ImageError("damaged")
    for item in items.values():
        if any(offset + length > len(data) for offset, length in item.parts):
            raise ImageError("truncated")
        if item.tile and item.prefix and len(item.parts) == 1:
            offset, length = item.parts[0]
            _check_stream(_Fields(data, offset, offset + length), item.prefix)


def _check_stream(stream: _Fields, prefix: int) -> None:
    """The lengths in an HEVC stream must lead to its end; those of a part never written do not."""
    for _ in range(MOST):
        if stream.at == stream.end:
            return
        length = stream.take(prefix)
        if not 2 <= length <= stream.end - stream.at:
            raise ImageError("damaged")
        stream.at += length


def _item(items: dict[int, _Item], number: int) -> _Item:
    if number not in items and len(items) == MOST:
        raise ImageError(RARE)
    return items.setdefault(number, _Item())


def _read_kinds(table: _Fields, items: dict[int, _Item], _limits: Limits) -> None:
    table.take(4 if table.take(4) >> 24 else 2)
    for _, entry in table.boxes():
        item = _item(items, entry.take(4 if entry.take(4) >> 24 == 3 else 2))
        entry.take(2)
        item.kind = entry.take(4).to_bytes(4, "big")
        if item.kind == b"iovl":  # pictures laid over each other: no camera's photo
            raise ImageError(RARE)


def _read_places(table: _Fields, items: dict[int, _Item], _limits: Limits) -> None:
    version = table.take(4) >> 24
    sizes = table.take(2)
    wide = 4 if version == 2 else 2
    for _ in range(table.take(wide)):
        item = _item(items, table.take(wide))
        in_file = not version or table.take(2) & 15 == 0
        table.take(2)
        base = table.take(sizes >> 4 & 15)
        extents = table.take(2)
        if extents > _EXTENTS:
            raise ImageError(RARE)
        for _ in range(extents):
            table.take(sizes & 15 if version else 0)
            offset, length = base + table.take(sizes >> 12), table.take(sizes >> 8 & 15)
            item.cost += length
            if in_file:
                item.parts.append((offset, length))


def _read_properties(table: _Fields, items: dict[int, _Item], limits: Limits) -> None:
    boxes = list(table.boxes())
    properties = [
        _property(kind, content, limits)
        for container, part in boxes
        if container == b"ipco"
        for kind, content in part.boxes()
    ]
    for part in (part for kind, part in boxes if kind == b"ipma"):
        flags = part.take(4)
        for _ in range(part.take(4)):
            item = _item(items, part.take(4 if flags >> 24 else 2))
            for _ in range(part.take(1)):
                index = part.take(2) & 0x7FFF if flags & 1 else part.take(1) & 0x7F
                if 0 < index <= len(properties):
                    cost, pixels, prefix = properties[index - 1]
                    item.cost += cost
                    item.pixels = max(item.pixels, pixels)
                    item.prefix = prefix or item.prefix


def _property(kind: bytes, content: _Fields, limits: Limits) -> tuple[int, int, int]:
    """What a property gives to an item that has it: cost, pixels and prefix."""
    cost = content.end - content.at
    if kind == b"ispe":
        content.take(4)
        width, height = content.take(4), content.take(4)
        check_area(width, height, limits)
        return cost, width * height, 0
    if kind == b"hvcC":
        content.at += 21
        return cost, 0, (content.take(1) & 3) + 1
    return cost, 0, 0


def _read_references(table: _Fields, items: dict[int, _Item], limits: Limits) -> None:
    wide = 4 if table.take(4) >> 24 else 2
    for kind, entry in table.boxes():
        source = _item(items, entry.take(wide))
        numbers = [entry.take(wide) for _ in range(entry.take(2))]
        if kind != b"dimg":
            source.cost *= max(len(numbers), 1)
        elif source.kind == b"grid":
            tiles = [_item(items, number) for number in numbers]
            # libheif lets a tile be as large as it says, and any be 256 x 256.
            if sum(max(tile.pixels, 2**16) for tile in tiles) > 2 * limits.max_pixels:
                raise ImageError(f"more than {limits.max_pixels / 1e6:.4g} megapixels in its tiles")
            if any(tile.kind in _DERIVED for tile in tiles):
                raise ImageError(RARE)
            for tile in tiles:
                tile.tile = True


# In this order: references are judged by what the others say.
_TABLES: Final[Mapping[bytes, Callable[[_Fields, dict[int, _Item], Limits], None]]] = {
    b"iinf": _read_kinds,
    b"iloc": _read_places,
    b"iprp": _read_properties,
    b"iref": _read_references,
}


def check_area(width: int, height: int, limits: Limits) -> None:
    """Refuse more pixels than the limit, before anything is decoded (ImageError)."""
    if width * height > limits.max_pixels:
        raise ImageError(f"more than {limits.max_pixels / 1e6:.4g} megapixels ({width} x {height})")
