"""What every picture's file and pixels tell, read once: the ground that an audit stands on.

`read_facts` decodes every picture; `read_headers` reads no further than the header of some.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, TypeVar

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from bonaface.ahead import ahead
from bonaface.errors import ImageError, MissingExtraError
from bonaface.heif import BRANDS, check_area, check_heif
from bonaface.images import DEFAULT_LIMITS, FORMATS, Image, os_reason, read_file, read_image
from bonaface.samples import Sample, Samples
from bonaface.tars import open_binary

PROBED: Final = 12_000  # pictures that the probes look at, unless told otherwise
SIDE: Final = 32  # of a thumbnail
SPECTRUM: Final = 8  # rings
_LARGEST: Final = 512  # side of the middle part that statistics are taken of
_BLOCK: Final = 16
STATISTICS: Final = (
    *("mean red", "mean green", "mean blue", "spread red", "spread green", "spread blue"),
    *("mean saturation", "spread saturation", "sharpness", "noise"),
    *(f"spectrum {band + 1} of {SPECTRUM}" for band in range(SPECTRUM)),
)
_IJG_LUMA: Final = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA: Final = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}


def need_libraries() -> None:
    """Raise MissingExtraError where the libraries of an audit are not installed."""
    try:
        import imagehash  # noqa: F401
        import scipy  # noqa: F401
        import sklearn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("audit", "train") from error


class FileFacts(NamedTuple):
    """What a picture's file tells besides its pixels; None: its format has no such thing."""

    format: str
    extension: str
    width: int
    height: int
    bytes: int
    quality: int | None = None
    tables: str | None = None
    chroma: str | None = None
    exif: bool = False
    icc: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """What was read of a data set; rows are those of `samples` that could be read.

    Attributes:
        samples: all.
        rows: the samples that could be read.
        files: what each file tells.
        digests: (n, 16) uint8, BLAKE2b of the bytes.
        hashes: (n,) uint64, perceptual.
        thumbnails: (n, 32, 32) uint8, grey.
        probed: (m,) the rows that the probes look at.
        statistics: (m, k) float32, crude statistics of their pixels.
        unreadable: path and reason of the others.
    """

    samples: Samples
    rows: tuple[Sample, ...]
    files: tuple[FileFacts, ...]
    digests: NDArray[np.uint8]
    hashes: NDArray[np.uint64]
    thumbnails: NDArray[np.uint8]
    probed: NDArray[np.intp]
    statistics: NDArray[np.float32]
    unreadable: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Headers:
    """What the headers of some files tell.

    Attributes:
        rows: the samples whose header could be read.
        files: what each file tells.
        unreadable: path and reason of the others.
    """

    rows: tuple[Sample, ...]
    files: tuple[FileFacts, ...]
    unreadable: tuple[tuple[str, str], ...]


_T = TypeVar("_T")


class _Read(NamedTuple):
    file: FileFacts
    digest: bytes
    hash: np.uint64
    thumbnail: NDArray[np.uint8]
    statistics: NDArray[np.float32] | None


def read_facts(
    samples: Samples,
    *,
    limit: int = PROBED,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Facts:
    """Read every picture once; about 1.5 KB of each are kept. Arguments as in `audit`."""
    need_libraries()
    PIL.Image.init()  # names the openers of all formats; not to be done by several threads
    wanted = {row.path for row in some_of(samples, limit, seed)}
    n = len(samples)
    digests = np.empty((n, 16), np.uint8)
    hashes = np.empty(n, np.uint64)
    thumbnails = np.empty((n, SIDE, SIDE), np.uint8)
    statistics = np.empty((len(wanted), len(STATISTICS)), np.float32)
    rows: list[Sample] = []
    files: list[FileFacts] = []
    probed: list[int] = []
    unreadable: list[tuple[str, str]] = []

    def read(row: Sample) -> _Read | str:
        try:
            return _read(samples.absolute(row), row.path in wanted)
        except ImageError as error:
            return error.reason

    for done, (row, found) in enumerate(_in_order(samples.rows, read, workers), start=1):
        if progress:
            progress(done, n)
        if isinstance(found, str):
            unreadable.append((row.path, found))
            continue
        at = len(rows)
        digests[at] = np.frombuffer(found.digest, np.uint8)
        hashes[at] = found.hash
        thumbnails[at] = found.thumbnail
        if found.statistics is not None:
            statistics[len(probed)] = found.statistics
            probed.append(at)
        rows.append(row)
        files.append(found.file)
    kept = len(rows)
    return Facts(
        samples,
        tuple(rows),
        tuple(files),
        digests[:kept],
        hashes[:kept],
        thumbnails[:kept],
        np.array(probed, np.intp),
        statistics[: len(probed)],
        tuple(unreadable),
    )


def read_headers(samples: Samples, *, limit: int, seed: int = 0) -> Headers:
    """Read the headers, without pixels, of the pictures that `read_facts` would probe."""
    PIL.Image.init()
    chosen = some_of(samples, limit, seed)
    rows: list[Sample] = []
    files: list[FileFacts] = []
    unreadable: list[tuple[str, str]] = []

    def read(row: Sample) -> FileFacts | str:
        try:
            return read_file_facts(samples.absolute(row))
        except ImageError as error:
            return error.reason

    for row, found in _in_order(chosen, read, None):
        if isinstance(found, str):
            unreadable.append((row.path, found))
        else:
            rows.append(row)
            files.append(found)
    return Headers(tuple(rows), tuple(files), tuple(unreadable))


def some_of(samples: Samples, limit: int, seed: int) -> tuple[Sample, ...]:
    """At most `limit` rows, half of them fake, whatever their splits (see `Samples.limit`)."""
    # `limit` works on splits, and these shall count as one.
    pool = replace(samples, rows=tuple(replace(row, split="test") for row in samples.rows))
    wanted = {row.path for row in pool.limit(limit, seed).rows}
    return tuple(row for row in samples.rows if row.path in wanted)


def _in_order(
    rows: Sequence[Sample], read: Callable[[Sample], _T], workers: int | None
) -> Iterator[tuple[Sample, _T]]:
    """Each row with what `read` made of it, some blocks ahead in threads."""
    count = workers or min(8, os.cpu_count() or 1)

    def read_all(block: Sequence[Sample]) -> list[tuple[Sample, _T]]:
        return [(row, read(row)) for row in block]

    blocks = (rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK))
    with closing(ahead(blocks, read_all, count, 2 * count + 1)) as coming:
        for block in coming:
            yield from block


def _read(path: Path, in_probe: bool) -> _Read:
    import imagehash

    data = read_file(path)
    image = read_image(data)
    grey = cv2.cvtColor(image.pixels, cv2.COLOR_RGB2GRAY)
    bits = imagehash.phash(PIL.Image.fromarray(grey)).hash
    return _Read(
        _file_facts(image, path.suffix.lower(), data),
        hashlib.blake2b(data, digest_size=16).digest(),
        np.packbits(bits.ravel()).view(np.uint64)[0],
        np.asarray(cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8),
        _pixel_statistics(image.pixels) if in_probe else None,
    )


def _file_facts(image: Image, extension: str, data: bytes) -> FileFacts:
    # Pillow has no opener for HEIC, and what it finds wrong with tags is no matter: the pixels
    # have been read.
    with suppress(Exception):
        return _from_header(image.format, io.BytesIO(data), extension, len(data))
    height, width = image.pixels.shape[:2]
    return FileFacts(image.format, extension, width, height, len(data))


def read_file_facts(path: Path) -> FileFacts:
    """What a file tells, from its header alone; the pixels may still turn out to be damaged.

    Raises:
        ImageError: with the reason: it cannot be opened, or has no header that is read.
    """
    extension = path.suffix.lower()
    try:
        with open_binary(path) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            start = file.read(16)
            file.seek(0)
            kind = _kind(start)
            if kind is None:
                raise ImageError("not an image" if start else "empty file")
            if kind == "HEIC":
                found = FileFacts(kind, extension, *_heic_sides(file.read()), size)
            else:
                found = _from_header(kind, file, extension, size)
    except ImageError:
        raise
    except OSError as error:  # Pillow's own have no number
        reason = "damaged" if error.errno is None else os_reason(path, error)
        raise ImageError(reason) from error
    except ImportError as error:
        raise ImageError("HEIC needs an extra") from error
    except Exception as error:  # Pillow raises nearly anything on hostile bytes
        raise ImageError("damaged") from error
    check_area(found.width, found.height, DEFAULT_LIMITS)
    if min(found.width, found.height) < DEFAULT_LIMITS.min_side:
        raise ImageError(f"smaller than {DEFAULT_LIMITS.min_side} px")
    return found


def _kind(start: bytes) -> str | None:
    for kind in FORMATS:
        _, accepts = PIL.Image.OPEN.get(kind.upper(), (None, None))
        if accepts is not None and accepts(start) is True:
            return str(kind)
    return "HEIC" if start[4:8] == b"ftyp" and start[8:12] in BRANDS else None


def _from_header(kind: str, stream: BinaryIO, extension: str, size: int) -> FileFacts:
    """What Pillow reads before the pixels; raises whatever it does."""
    with PIL.Image.OPEN[kind.upper()][0](stream, "") as header:
        exif, icc = "exif" in header.info, bool(header.info.get("icc_profile"))
        found = FileFacts(kind, extension, *header.size, size, exif=exif, icc=icc)
        if kind == "JPEG":
            quality, tables, chroma = _jpeg_facts(header)
            found = found._replace(quality=quality, tables=tables, chroma=chroma)
        return found


def _heic_sides(data: bytes) -> tuple[int, int]:
    from pillow_heif import HeifImageFile

    check_heif(data, DEFAULT_LIMITS)
    with HeifImageFile(io.BytesIO(data)) as header:  # type: ignore[no-untyped-call]
        return header.width, header.height


def _jpeg_facts(header: Any) -> tuple[int, str, str]:
    from PIL import JpegImagePlugin

    tables = [tuple(table) for _, table in sorted(header.quantization.items())]
    digest = hashlib.blake2b(repr(tables).encode(), digest_size=6).hexdigest()
    if header.layers == 1:
        chroma = "grey"
    else:
        chroma = _CHROMA.get(JpegImagePlugin.get_sampling(header), "other")
    return jpeg_quality(tables[0]), digest, chroma


@lru_cache(maxsize=256)
def jpeg_quality(luma: tuple[int, ...]) -> int:
    """The quality, 1 to 100, whose tables in the IJG library are nearest to this one."""
    wanted = np.sort(np.asarray(luma))  # in whatever order Pillow gives it
    return int(np.abs(_ijg_tables() - wanted).sum(axis=1).argmin()) + 1


@lru_cache(maxsize=1)
def _ijg_tables() -> NDArray[np.int64]:
    quality = np.arange(1, 101)
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    tables = (np.asarray(_IJG_LUMA)[None] * scale[:, None] + 50) // 100
    return np.sort(np.clip(tables, 1, 255), axis=1)


def _pixel_statistics(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    height, width = (min(side, _LARGEST) for side in pixels.shape[:2])
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    part = np.ascontiguousarray(pixels[top : top + height, left : left + width])
    mean, spread = cv2.meanStdDev(part)
    saturation = cv2.cvtColor(part, cv2.COLOR_RGB2HSV)[..., 1]
    grey = cv2.cvtColor(part, cv2.COLOR_RGB2GRAY).astype(np.float32)
    sharp = float(cv2.Laplacian(grey, cv2.CV_32F).var())
    # Immerkaer (1996), "Fast noise variance estimation".
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    noise = float(np.abs(cv2.filter2D(grey, cv2.CV_32F, mask)).mean()) * math.sqrt(math.pi / 2) / 6
    return np.concatenate(
        [
            mean.ravel(),
            spread.ravel(),
            [saturation.mean(), saturation.std(), math.log1p(sharp), noise],
            _spectrum(grey),
        ]
    ).astype(np.float32)


def _spectrum(grey: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log share of the power in rings of equal width up to the Nyquist frequency."""
    window, ring = _rings(*grey.shape)
    parts = cv2.dft((grey - grey.mean()) * window, flags=cv2.DFT_COMPLEX_OUTPUT)
    power = np.bincount(ring, (parts**2).sum(axis=2).ravel(), minlength=SPECTRUM + 1)[:SPECTRUM]
    return np.asarray(np.log((power + 1e-3) / (power.sum() + 1e-3 * SPECTRUM)))


@lru_cache(maxsize=32)
def _rings(height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    window = np.outer(np.hanning(height), np.hanning(width)).astype(np.float32)
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]) * 2
    ring = np.minimum((radius * SPECTRUM).astype(np.intp), SPECTRUM)
    return window, ring.ravel()
