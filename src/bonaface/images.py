"""Bytes to pixels: one door for every image, with limits that hold before anything is decoded.

What comes out is always 8-bit sRGB, upright, without transparency. Whatever is wrong with the
bytes comes out as an `ImageError` with a short reason, never as another exception. What is decoded
already, as a Pillow image or an array, takes the same way through `as_image`.
"""

from __future__ import annotations

import errno
import importlib
import importlib.util
import io
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import PIL.Image

from bonaface.errors import ImageError
from bonaface.heif import BRANDS, MOST, boxes, check_area, check_heif
from bonaface.layouts import SUFFIXES
from bonaface.tars import place

__all__ = [
    "DEFAULT_LIMITS",
    "FORMATS",
    "SUFFIXES",
    "Image",
    "ImageLimits",
    "as_image",
    "read_file",
    "read_image",
]

# Of a broken picture its reason is told and nothing else; Pillow's warnings would stand between the
# answers. Set once, as `catch_warnings` is not for threads; last, so that a user's filters win.
warnings.filterwarnings("ignore", module=r"PIL\.", append=True)

_HEIC: Final = ("HEIC",) if importlib.util.find_spec("pillow_heif") else ()
FORMATS: Final = ("JPEG", "PNG", "WebP", "BMP", "TIFF", "AVIF", *_HEIC)  # HEIC: with its extra
_GREY = 128  # transparency is composited over mid grey: neither class gets a black or white frame
_PLUGINS: Final = {
    "JPEG": ("PIL.JpegImagePlugin", "JpegImageFile"),
    "PNG": ("PIL.PngImagePlugin", "PngImageFile"),
    "WebP": ("PIL.WebPImagePlugin", "WebPImageFile"),
    "BMP": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "TIFF": ("PIL.TiffImagePlugin", "TiffImageFile"),
    "AVIF": ("PIL.AvifImagePlugin", "AvifImageFile"),
    "HEIC": ("pillow_heif", "HeifImageFile"),
}
_CLOSED: Final = "closed before it was read"
_OUR_NAMES: Final = {"WEBP": "WebP", "HEIF": "HEIC", "MPO": "JPEG"}  # of what Pillow calls formats
_TIFF_HEADS: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_FOREIGN: Final = (  # (offset, magic, name) of what people try that is not read
    (0, b"GIF8", "GIF"),
    (0, b"%PDF", "PDF"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\0\0\1\0", "ICO"),
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "XML or SVG"),
    (0, b"PK\3\4", "ZIP"),
    (0, b"\x1a\x45\xdf\xa3", "Matroska or WebM video"),
    (8, b"AVI ", "AVI video"),
    (8, b"WAVE", "WAV sound"),
)
_AVIF_BRANDS: Final = frozenset({b"avif", b"avis"})
_SRGB_LIKE: Final = ({1, 2, 5, 6, 7}, {1, 2, 6, 13, 14, 15})  # primaries, transfers (ITU-T H.273)
_TURNS: Final = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}
_ORIENTATION, _BITS, _PHOTOMETRIC, _TILE_WIDTH, _TILE_LENGTH, _DNG = 274, 258, 262, 322, 323, 50706


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What an image may cost, checked before it is decoded.

    Attributes:
        max_bytes: size of the file.
        max_pixels: width times height. At the default, decoding takes up to about 1.2 GB of memory
            for a JPEG and 2.7 GB for a WebP with transparency.
        min_side: the shorter side, in pixels.
    """

    max_bytes: int = 64 * 2**20
    max_pixels: int = 120_000_000
    min_side: int = 16


DEFAULT_LIMITS: Final = ImageLimits()


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """A decoded image.

    Attributes:
        pixels: uint8, height x width x 3, RGB in sRGB, upright, C-contiguous, writable.
        format: one of `FORMATS`, found from the content. From `as_image`: "array"; for a Pillow
            image the format of its file, or "PIL" where it has none.
        notes: what was done to the image that its owner may want to know.
    """

    pixels: np.ndarray
    format: str
    notes: tuple[str, ...] = ()


def read_image(source: Path | bytes, limits: ImageLimits = DEFAULT_LIMITS) -> Image:
    """Read one image from bytes, a regular file or one in a tar (`shard.tar/a.jpg`).

    Raises:
        ImageError: with the reason, whatever is wrong: no such file, not an image, a format that
            is not read, over a limit, truncated, damaged.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return _decode(bytes(source), limits, None)
    name = os.fsencode(source).decode("utf-8", "backslashreplace")
    return _decode(read_file(source, limits), limits, name)


def as_image(picture: PIL.Image.Image | np.ndarray, limits: ImageLimits = DEFAULT_LIMITS) -> Image:
    """Take a picture that is decoded already: a Pillow image or an array.

    Args:
        picture: a Pillow image is treated as its file would be: what its `info` holds of an EXIF
            turn, a colour profile or transparency is applied. Of a sequence, the frame that it
            stands at. It is neither changed nor closed; if it was only opened, it is loaded.
            An array is uint8 in sRGB: height x width x 3 (RGB), x 4 (RGBA), x 1 or without the
            third axis (grey). BGR looks the same from here: the caller has to turn it round.
        limits: those of the pixels; there is no file for `max_bytes`.

    Returns:
        An image whose pixels are a copy.

    Raises:
        ImageError: with the reason: of another type or shape, over a limit, truncated, damaged.
    """
    notes: list[str] = []
    if isinstance(picture, PIL.Image.Image):
        kind = _OUR_NAMES.get(picture.format or "", picture.format or "PIL")
        with _reasons(kind, limits):
            if getattr(picture, "tile", None) and getattr(picture, "fp", None) is None:
                raise ImageError(_CLOSED)
            return Image(_pixels(picture, limits, notes), kind, tuple(notes))
    with _reasons("array", limits):
        return Image(_from_array(picture, limits, notes), "array", tuple(notes))


def _from_array(array: Any, limits: ImageLimits, notes: list[str]) -> np.ndarray:
    if not isinstance(array, np.ndarray):
        raise ImageError(f"expected a Pillow image or a numpy array, got {type(array).__name__}")
    channels = array.shape[2] if array.ndim == 3 else 1
    fits = array.ndim in (2, 3) and channels in (1, 3, 4) and array.size > 0
    if array.dtype != np.uint8 or not fits:
        raise ImageError(f"expected uint8 RGB height x width x 3, got {array.dtype} {array.shape}")
    _check_sides(array.shape[1], array.shape[0], limits)
    if channels == 3:
        return np.array(array, order="C", subok=False)
    plane = array.reshape(array.shape[:2]) if channels == 1 else array
    return np.array(_to_rgb(PIL.Image.fromarray(np.ascontiguousarray(plane)), notes))


def read_file(path: Path, limits: ImageLimits = DEFAULT_LIMITS) -> bytes:
    """The bytes of one regular file, or of one in a tar (`shard.tar/a.jpg`); of any content.

    Raises:
        ImageError: with the reason: no such file, larger than the limit, no permission, ...
    """
    name = os.fsencode(path).decode("utf-8", "backslashreplace")
    try:
        if (inside := place(path)) is not None:
            _check_bytes(inside.size, limits, name)
            return inside.read()
        # O_NONBLOCK: opening a pipe must not wait for a writer.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _binary())
        with open(handle, "rb", buffering=0) as file:  # noqa: PTH123  (a handle, not a path)
            status = os.fstat(handle)
            if stat.S_ISDIR(status.st_mode):
                raise ImageError("a folder, not a file", name)
            if not stat.S_ISREG(status.st_mode):
                raise ImageError("not a regular file", name)
            _check_bytes(status.st_size, limits, name)
            return file.read(limits.max_bytes + 1) if status.st_size == 0 else file.readall()
    except MemoryError as error:
        raise ImageError("not enough memory", name) from error
    except ValueError as error:
        raise ImageError("not a valid file name", name) from error
    except OSError as error:
        raise ImageError(os_reason(path, error), name) from error


def _binary() -> int:
    return getattr(os, "O_BINARY", 0)


def os_reason(path: Path, error: OSError) -> str:
    """Why a file cannot be read, in a few words."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "broken link" if path.is_symlink() else "no such file"
    if isinstance(error, IsADirectoryError) or (os.name == "nt" and path.is_dir()):
        return "a folder, not a file"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if error.errno == errno.ELOOP:
        return "a link that leads back to itself"
    if error.errno == errno.ENXIO:
        return "not a regular file"
    return f"cannot be read ({error.strerror or type(error).__name__})"


def _check_bytes(size: int, limits: ImageLimits, name: str | None) -> None:
    if size > limits.max_bytes:
        raise ImageError(
            f"larger than {limits.max_bytes / 2**20:.4g} MiB ({size / 2**20:.4g} MiB)", name
        )


def _decode(data: bytes, limits: ImageLimits, name: str | None) -> Image:
    _check_bytes(len(data), limits, name)
    kind = _sniff(data, name)
    module, opener = _PLUGINS[kind]
    notes: list[str] = []
    with _reasons(kind, limits, name):
        # The plugin itself, not PIL.Image.open: only one decoder meets hostile bytes, and Pillow's
        # own pixel limit (a process-wide setting and a warning) does not come before ours.
        plugin = getattr(importlib.import_module(module), opener)
        if kind == "HEIC":
            check_heif(data, limits)
        with plugin(io.BytesIO(data)) as image:
            pixels = _pixels(image, limits, notes)
    return Image(pixels, kind, tuple(notes))


def _pixels(image: Any, limits: ImageLimits, notes: list[str]) -> np.ndarray:
    """A Pillow image, loaded or not, to pixels that are its own."""
    _check_size(image, limits)
    _check_sequence(image, notes)
    image.load()
    return np.array(_turned(image, _to_rgb(image, notes), notes))


@contextmanager
def _reasons(kind: str, limits: ImageLimits, name: str | None = None) -> Iterator[None]:
    """Whatever goes wrong inside comes out as an `ImageError` with a reason."""
    try:
        yield
    except ImageError as error:
        raise ImageError(error.reason, name) from error.__cause__
    except PIL.Image.DecompressionBombError as error:
        raise ImageError(f"more than {limits.max_pixels / 1e6:.4g} megapixels", name) from error
    except MemoryError as error:
        raise ImageError("not enough memory to decode it", name) from error
    # Pillow raises nearly anything on hostile bytes: SyntaxError, struct.error, zlib.error, ...
    except Exception as error:
        raise ImageError(_damage(error, kind), name) from error


def _sniff(data: bytes, name: str | None) -> str:
    if not data:
        raise ImageError("empty file", name)
    kind = _kind(data)
    if kind is not None:
        if _cut_short(kind, data):
            raise ImageError("truncated", name)
        return kind
    foreign = next((n for at, magic, n in _FOREIGN if data[at : at + len(magic)] == magic), None)
    if data[4:8] == b"ftyp":
        foreign = "MP4 or QuickTime video"
    if foreign is None:
        raise ImageError("not an image", name)
    raise ImageError(f"{foreign} is not read; expected one of {', '.join(FORMATS)}", name)


def _kind(data: bytes) -> str | None:
    head = data[:16]
    is_kind = {
        "JPEG": head.startswith(b"\xff\xd8\xff"),
        "PNG": head.startswith(b"\x89PNG\r\n\x1a\n"),
        "WebP": head.startswith(b"RIFF") and head[8:12] == b"WEBP",
        "TIFF": head.startswith(_TIFF_HEADS),
        "AVIF": head[4:8] == b"ftyp" and not _AVIF_BRANDS.isdisjoint(_brands(data)),
        "HEIC": head[4:8] == b"ftyp" and head[8:12] in BRANDS,
        "BMP": head.startswith(b"BM") and len(data) >= 26,
    }
    return next((kind for kind, yes in is_kind.items() if yes), None)


def _brands(data: bytes) -> list[bytes]:
    box = data[8 : min(int.from_bytes(data[:4], "big"), 256)]  # major brand, version, others
    return [box[at : at + 4] for at in range(0, len(box), 4)]


def _cut_short(kind: str, data: bytes) -> bool:
    """Whether the container says that bytes are missing; the decoders would not always say so."""
    if kind == "WebP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if kind == "PNG":
        return data.rfind(b"IEND") < 0
    return kind in ("AVIF", "HEIC") and any(
        stop > len(data) for _, _, stop in islice(boxes(data, 0, len(data)), MOST)
    )


def _check_size(image: Any, limits: ImageLimits) -> None:
    sides = [image.size]
    if image.format == "TIFF":
        if _DNG in image.tag_v2:
            raise ImageError(f"camera raw (DNG) is not read; expected one of {', '.join(FORMATS)}")
        # libtiff takes memory for a whole tile, however small the image is.
        sides.append((image.tag_v2.get(_TILE_WIDTH, 1), image.tag_v2.get(_TILE_LENGTH, 1)))
    for width, height in sides:
        check_area(width, height, limits)
    width, height = image.size
    _check_sides(width, height, limits)
    # A TIFF may declare more rows than its strips hold; Pillow would leave the rest black.
    parts = [extents for _, extents, *_ in getattr(image, "tile", ())]
    if parts and sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in parts) < width * height:
        raise ImageError("truncated")


def _check_sides(width: int, height: int, limits: ImageLimits) -> None:
    check_area(width, height, limits)
    if min(width, height) < limits.min_side:
        raise ImageError(f"smaller than {limits.min_side} px ({width} x {height})")


def _check_sequence(image: Any, notes: list[str]) -> None:
    if not getattr(image, "is_animated", False) or image.format == "MPO":
        return  # MPO: a JPEG with another behind it, of which reading JPEG files knows nothing
    if image.format == "HEIF":
        if image.info.get("primary"):
            notes.append("several pictures: the main one is used")
    elif image.tell():
        return  # a caller went there
    elif image.format == "TIFF":  # counting the pages would walk the whole file
        notes.append("several pages: the first is used")
    else:
        notes.append(f"animated: first of {image.n_frames} frames")


def _to_rgb(image: Any, notes: list[str]) -> Any:
    """Any mode to 8-bit RGB in sRGB."""
    profile = image.info.get("icc_profile")
    _note_colours(image.info.get("nclx_profile"), notes)
    if image.mode == "La":  # which Pillow would convert to RGBA without its transparency
        image = image.convert("LA")
    if image.mode == "RGB" and not profile and "transparency" not in image.info:
        return image
    if image.mode in ("F", "LAB", "HSV"):
        raise ImageError(f"{image.mode} pixels are not read; save it as 8-bit RGB")
    if image.mode.startswith("I"):
        image = _eight_bits(image, notes)
    elif image.mode == "CMYK":
        notes.append("CMYK converted to RGB")
    elif image.has_transparency_data:
        image = image.convert("RGBA")
    elif image.mode not in ("RGB", "L"):
        image = image.convert("RGB")
    if isinstance(profile, bytes) and profile:
        image = _to_srgb(image, profile, notes)
    if image.mode == "RGBA" and image.getextrema()[3][0] < 255:
        notes.append("transparency composited over grey")
        ground = PIL.Image.new("RGBA", image.size, (_GREY, _GREY, _GREY, 255))
        image = PIL.Image.alpha_composite(ground, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _note_colours(numbers: Any, notes: list[str]) -> None:
    """HEIC names colours by number where it has no profile: BT.2020 and HDR are not converted."""
    if not isinstance(numbers, dict):
        return
    primaries, transfers = _SRGB_LIKE
    if (
        numbers.get("color_primaries", 2) not in primaries
        or numbers.get("transfer_characteristics", 2) not in transfers
    ):
        notes.append("wide or HDR colours taken for sRGB")


def _eight_bits(image: Any, notes: list[str]) -> Any:
    """16-bit grey to 8 bits by scaling the whole range; Pillow's own conversion clips at 255."""
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS, (16,))[0] if tags else 16
    top = 2 ** min(bits, 16) - 1
    values = np.asarray(image).astype(np.int32)
    if values.min() < 0 or values.max() > top:
        raise ImageError("pixel values beyond 16 bits are not read; save it as 8-bit RGB")
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero
        values = top - values
    notes.append(f"{min(bits, 16)}-bit grey scaled to 8 bits")
    return PIL.Image.fromarray(((values * 255 + top // 2) // top).astype(np.uint8))


def _to_srgb(image: Any, profile: bytes, notes: list[str]) -> Any:
    try:
        space, transform = _transform(profile, image.mode)
        if space == "RGB " and image.mode in ("L", "CMYK"):
            image = image.convert("RGB")
            space, transform = _transform(profile, "RGB")
    except Exception:  # ImageCms raises several kinds, PyCMSError is not among all of them
        notes.append("broken colour profile ignored")
        return image
    if transform is None:
        return image
    notes.append("colour profile converted to sRGB")
    return transform.apply(image)


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> tuple[str, Any]:
    """The profile's colour space, and the way from it to sRGB: None where there is nothing to do.

    Raises an exception of some kind for a profile that cannot be used with `mode`.
    """
    from PIL import ImageCms

    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = source.profile.xcolor_space
    fits = {"RGB ": ("RGB", "RGBA"), "GRAY": ("L",), "CMYK": ("CMYK",)}
    if space == "RGB " and mode in ("L", "CMYK"):
        return space, None
    if mode not in fits.get(space, ()):
        raise ValueError(f"a {space} profile in a {mode} image")
    target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    out = "RGBA" if mode == "RGBA" else "RGB"
    transform = ImageCms.ImageCmsTransform(
        source, target, mode, out, ImageCms.Intent.RELATIVE_COLORIMETRIC
    )
    if mode == "RGB" and _changes_nothing(transform):
        return space, None
    return space, transform


def _changes_nothing(transform: Any) -> bool:
    steps = np.arange(0, 256, 17, dtype=np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(64, 64, 3)
    after = np.asarray(transform.apply(PIL.Image.fromarray(grid)))
    return bool(np.abs(after.astype(int) - grid).max() <= 1)


def _turned(image: Any, rgb: Any, notes: list[str]) -> Any:
    """Apply the EXIF (or XMP) orientation. Pillow turns TIFF, and libheif HEIC, while loading."""
    if image.format in ("TIFF", "HEIF") or not any(
        key in image.info for key in ("exif", "xmp", "Raw profile type exif")
    ):
        return rgb
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged metadata is no reason to refuse sound pixels
        notes.append("damaged EXIF data: orientation unknown")
        return rgb
    return rgb if turn is None else rgb.transpose(turn)


def _damage(error: Exception, kind: str) -> str:
    """A reason that can be counted; Pillow's own words stay in the exception's cause."""
    if isinstance(error, ImportError) and kind == "HEIC":
        return "HEIC needs an extra; install it with: pip install 'bonaface[heic]'"
    text = str(error).lower()
    if isinstance(error, EOFError) or "truncat" in text or "unexpected end" in text:
        return "truncated"
    if "closed" in text:  # a caller's file, or Pillow image
        return _CLOSED
    if any(words in text for words in ("unknown pixel mode", "unsupported", "not yet supported")):
        return f"a kind of {kind} that is not read; save it as 8-bit RGB"
    return "damaged"
