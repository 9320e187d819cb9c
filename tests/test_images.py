"""Reading images: every format, mode and metadata, the limits, and hostile bytes."""

import io
import os
import socket
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import PIL.Image
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ImageCms, ImageFile, ImageOps

from bonaface.errors import BonafaceError, ImageError
from bonaface.images import (
    DEFAULT_LIMITS,
    FORMATS,
    SUFFIXES,
    ImageLimits,
    as_image,
    read_image,
)

TINY = ImageLimits(min_side=1)
LOSSLESS = {"PNG": {}, "WebP": {"lossless": True}, "BMP": {}, "TIFF": {}}


def picture(height=24, width=40, seed=0):
    """Smooth enough for lossy formats, different in every corner."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def encode(image, kind, **options):
    if isinstance(image, np.ndarray):
        image = PIL.Image.fromarray(image)
    if kind == "HEIC":
        return heic(image, **options)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def heic(image, *others, **options):
    import pillow_heif  # in the dev extra, and never registered with Pillow

    if isinstance(options.get("exif"), PIL.Image.Exif):
        options["exif"] = options["exif"].tobytes()  # else it would not see the turn
    heif = pillow_heif.from_pillow(image)
    for other in others:
        heif.add_from_pillow(other)
    file = io.BytesIO()
    heif.save(file, **{"quality": 95, "chroma": 444, **options})
    return file.getvalue()


def reason(source, limits=DEFAULT_LIMITS, read=read_image):
    with pytest.raises(ImageError) as caught:
        read(source, limits)
    return caught.value.reason


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, *, depth=8, colour=2, rows=b"", before=b""):
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + body + chunk(b"IEND", b"")


# -- formats --


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_told_by_content_and_comes_out_alike(kind, tmp_path):
    pixels = picture()
    options = LOSSLESS.get(kind, {"quality": 95})
    path = tmp_path / "misnamed.txt"
    path.write_bytes(encode(pixels, kind, **options))
    image = read_image(path)
    assert image.format == kind
    assert image.notes == ()
    assert image.pixels.dtype == np.uint8
    assert image.pixels.shape == (24, 40, 3)
    assert image.pixels.flags.c_contiguous
    assert image.pixels.flags.writeable
    error = np.abs(image.pixels.astype(int) - pixels)
    assert error.max() == 0 if kind in LOSSLESS else error.mean() < 4
    assert np.array_equal(read_image(path.read_bytes()).pixels, image.pixels)


def test_jpeg_agrees_with_opencv():
    data = encode(picture(64, 48), "JPEG", quality=90)
    theirs = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(read_image(data).pixels.astype(int) - theirs).max() <= 3


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (encode(picture(), "GIF"), "GIF"),
        (encode(picture(), "JPEG2000"), "JPEG 2000"),
        (encode(picture(), "ICO", sizes=[(16, 16)]), "ICO"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp41" + b"\0" * 40, "MP4 or QuickTime video"),
        (b"%PDF-1.7\n", "PDF"),
    ],
)
def test_other_formats_are_named_and_refused(data, name):
    assert reason(data) == f"{name} is not read; expected one of {', '.join(FORMATS)}"


@pytest.mark.parametrize("data", [b"hello", b"\0" * 64, b"\xff\xd8", b"<html>", b"BM"])
def test_what_is_no_image_says_so(data):
    assert reason(data) == "not an image"


def test_empty():
    assert reason(b"") == "empty file"


# -- modes --


def test_grey_and_one_bit():
    grey = picture()[..., 0]
    assert np.array_equal(read_image(encode(grey, "PNG")).pixels, np.dstack([grey] * 3))
    bits = PIL.Image.fromarray(np.where(grey > 128, 255, 0).astype(np.uint8)).convert("1")
    expected = np.dstack([np.where(grey > 128, 255, 0)] * 3)
    for kind in ("PNG", "TIFF", "BMP"):
        assert np.array_equal(read_image(encode(bits, kind)).pixels, expected)


def test_palette_with_and_without_transparency():
    index = PIL.Image.fromarray(np.repeat(np.arange(3, dtype=np.uint8), 16)[None].repeat(16, 0))
    index.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    opaque = read_image(encode(index, "PNG")).pixels
    assert opaque[0, [0, 16, 32]].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    image = read_image(encode(index, "PNG", transparency=bytes([0, 255, 128])))
    assert image.pixels[0, 0].tolist() == [128, 128, 128]
    assert image.pixels[0, 16].tolist() == [0, 255, 0]
    assert np.abs(image.pixels[0, 32].astype(int) - [64, 64, 191]).max() <= 1
    assert image.notes == ("transparency composited over grey",)


@pytest.mark.parametrize("kind", ["PNG", "WebP", "TIFF"])
def test_alpha_is_composited_over_grey(kind):
    colour = picture()
    alpha = picture(seed=1)[..., 0]
    image = read_image(encode(np.dstack([colour, alpha]), kind, **LOSSLESS[kind]))
    share = alpha[..., None] / 255
    expected = colour * share + 128 * (1 - share)
    seen = alpha > 0  # WebP may change colours under full transparency
    assert np.abs(image.pixels - expected)[seen].max() <= 1.01
    assert image.notes == ("transparency composited over grey",)


def test_grey_with_alpha_and_opaque_alpha():
    grey = picture()[..., 0]
    half = PIL.Image.merge("LA", [PIL.Image.fromarray(grey), PIL.Image.new("L", (40, 24), 0)])
    assert (read_image(encode(half, "PNG")).pixels == 128).all()
    opaque = read_image(encode(PIL.Image.fromarray(picture()).convert("RGBA"), "PNG"))
    assert np.array_equal(opaque.pixels, picture())
    assert opaque.notes == ()


def test_transparent_colour_of_a_png_without_alpha():
    pixels = np.full((16, 16, 3), 200, np.uint8)
    pixels[:, :8] = (10, 20, 30)
    image = read_image(encode(pixels, "PNG", transparency=(10, 20, 30)))
    assert image.pixels[0, 0].tolist() == [128] * 3
    assert image.pixels[0, 15].tolist() == [200] * 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(kind):
    values = np.linspace(0, 65535, 32 * 32).astype(np.uint16).reshape(32, 32)
    data = cv2.imencode("." + kind.lower(), values)[1].tobytes()
    image = read_image(data)
    assert np.array_equal(image.pixels[..., 1], np.round(values / 257).astype(np.uint8))
    assert image.notes == ("16-bit grey scaled to 8 bits",)


def test_16_bit_colour_png():
    values = (picture(32, 32).astype(np.uint16) * 257) ^ 0x0055
    data = cv2.imencode(".png", values[..., ::-1])[1].tobytes()
    assert np.abs(read_image(data).pixels - values / 257).max() <= 1


def tiff(order, photometric=1, extra=()):
    """A 16 x 16 TIFF of 16-bit grey, written by hand, and its values."""
    values = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    body = values.astype(order + "u2").tobytes()
    tags = [(256, 16), (257, 16), (258, 16), (259, 1), (262, photometric), (273, 8)]
    tags += [(277, 1), (278, 16), (279, len(body)), *extra]
    ifd = struct.pack(order + "H", len(tags))
    for tag, value in tags:
        ifd += struct.pack(order + "HHII", tag, 4, 1, value)
    head = (b"MM" if order == ">" else b"II") + struct.pack(order + "HI", 42, 8 + len(body))
    return head + body + ifd + b"\0\0\0\0", values


@pytest.mark.parametrize(("order", "photometric"), [(">", 1), ("<", 1), ("<", 0)])
def test_big_endian_and_white_is_zero_tiff(order, photometric):
    data, values = tiff(order, photometric)
    expected = np.round(values / 257)
    expected = 255 - expected if photometric == 0 else expected
    assert np.array_equal(read_image(data).pixels[..., 0], expected)


def test_camera_raw_is_refused():
    assert reason(tiff("<", extra=[(50706, 0x00000401)])[0]).startswith("camera raw (DNG) is not")


def test_integers_beyond_16_bits_and_floats_are_refused():
    wide = PIL.Image.fromarray(np.full((16, 16), 100_000, np.int32))
    assert reason(encode(wide, "TIFF")).startswith("pixel values beyond 16 bits")
    negative = PIL.Image.fromarray(np.full((16, 16), -1, np.int32))
    assert reason(encode(negative, "TIFF")).startswith("pixel values beyond 16 bits")
    floats = PIL.Image.fromarray(np.zeros((16, 16), np.float32))
    assert reason(encode(floats, "TIFF")) == "F pixels are not read; save it as 8-bit RGB"


def test_cmyk_plain_and_adobe_inverted():
    cmyk = PIL.Image.new("CMYK", (32, 32), (0, 255, 255, 0))  # red
    for kind in ("JPEG", "TIFF"):  # Pillow, like Photoshop, writes CMYK JPEG inverted
        image = read_image(encode(cmyk, kind))
        assert np.abs(image.pixels[5, 5].astype(int) - [255, 0, 0]).max() <= 6
        assert image.notes == ("CMYK converted to RGB",)


@pytest.mark.parametrize("kind", ["PNG", "WebP", "AVIF"])
def test_animations_give_their_first_frame(kind):
    first = PIL.Image.new("RGB", (32, 32), (200, 30, 30))
    others = [PIL.Image.new("RGB", (32, 32), (30, 30, 200 - 90 * i)) for i in range(2)]
    image = read_image(encode(first, kind, save_all=True, append_images=others, duration=50))
    assert np.abs(image.pixels[16, 16].astype(int) - [200, 30, 30]).max() <= 8
    assert image.notes == ("animated: first of 3 frames",)


def test_tiff_with_pages():
    pages = [PIL.Image.new("RGB", (32, 32), (0, 0, 255)) for _ in range(3)]
    image = read_image(encode(picture(), "TIFF", save_all=True, append_images=pages))
    assert np.array_equal(image.pixels, picture())
    assert image.notes == ("several pages: the first is used",)


# -- EXIF turn and colour profile --

UPRIGHT = {  # what a camera that writes this orientation has stored, from the upright picture
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WebP", "TIFF", "JPEG", "AVIF", "HEIC"])
def test_exif_turn(kind, turn):
    exif = PIL.Image.Exif()
    exif[0x0112] = turn
    stored = np.ascontiguousarray(UPRIGHT[turn](picture()))
    data = encode(stored, kind, exif=exif, **LOSSLESS.get(kind, {"quality": 95}))
    image = read_image(data)
    assert image.pixels.shape == (24, 40, 3)
    assert image.pixels.flags.c_contiguous
    assert np.abs(image.pixels.astype(int) - picture()).mean() < (0.1 if kind in LOSSLESS else 4)


@pytest.mark.parametrize("junk", [b"Exif\0\0junk", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"])
def test_damaged_exif_does_not_cost_the_picture(junk):
    data = encode(picture(), "JPEG", quality=95)
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(junk) + 2) + junk + data[2:]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert read_image(data).pixels.shape == (24, 40, 3)


def test_pillow_does_not_warn_of_it_on_stderr(tmp_path):
    entry = struct.pack("<HHHIII", 1, 271, 2, 100_000, 8, 0)  # a name of 100,000 letters
    junk = b"Exif\0\0II*\0\x08\0\0\0" + entry
    data = encode(picture(), "JPEG")
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(junk) + 2) + junk + data[2:]
    with pytest.warns(UserWarning, match="larger than file"):
        read_image(data)
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    code = (
        "import pathlib, sys\n"
        "from bonaface.images import read_image\n"
        "print(read_image(pathlib.Path(sys.argv[1])).format)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.stderr) == ("JPEG\n", "")


def icc_profile(gamma=None, space=b"RGB ", primaries="srgb"):
    """A minimal ICC v2 matrix (or grey) profile with one gamma, written by hand."""
    xyz = {
        "srgb": [(0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)],
        "gbr": [(0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141), (0.4361, 0.2225, 0.0139)],
    }[primaries]

    def s15(value):
        return struct.pack(">i", round(value * 65536))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    tags = {b"wtpt": b"XYZ \0\0\0\0" + b"".join(map(s15, (0.9642, 1.0, 0.8249)))}
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + b"\0" * 78
    tags |= {b"desc": text + b"\0" * (-len(text) % 4), b"cprt": b"text\0\0\0\0none\0\0\0\0"}
    if space == b"GRAY":
        tags[b"kTRC"] = curve
    else:
        for name, column in zip((b"r", b"g", b"b"), xyz, strict=True):
            tags[name + b"XYZ"] = b"XYZ \0\0\0\0" + b"".join(map(s15, column))
            tags[name + b"TRC"] = curve
    at = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += struct.pack(">4sII", name, at + len(body), len(data))
        body += data
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"lcms", 0x02100000, b"mntr", space, b"XYZ ")
    head += b"\0" * 12 + b"acsp" + b"\0" * 28 + b"".join(map(s15, (0.9642, 1.0, 0.8249)))
    return head.ljust(128, b"\0") + table + body


def srgb_encode(linear):
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("kind", ["PNG", "WebP", "TIFF"])
def test_profile_is_converted_to_srgb(kind):
    options = {**LOSSLESS[kind], "icc_profile": icc_profile(gamma=1.0)}
    image = read_image(encode(picture(), kind, **options))
    expected = 255 * srgb_encode(picture() / 255)
    assert np.abs(image.pixels - expected).max() <= 2
    assert image.notes == ("colour profile converted to sRGB",)


def test_profile_with_other_primaries():
    profile = icc_profile(gamma=2.2, primaries="gbr")  # its red is our green, ...
    image = read_image(encode(picture(), "PNG", icc_profile=profile))
    linear = (picture() / 255) ** 2.2
    assert np.abs(image.pixels - 255 * srgb_encode(linear[..., [2, 0, 1]])).max() <= 3


def test_profile_on_grey_alpha_and_palette():
    profile = icc_profile(gamma=1.0)
    grey = picture()[..., 0]
    expected = 255 * srgb_encode(grey / 255)
    for icc in (icc_profile(gamma=1.0, space=b"GRAY"), profile):
        image = read_image(encode(grey, "PNG", icc_profile=icc))
        assert np.abs(image.pixels[..., 0] - expected).max() <= 2
    clear = np.dstack([picture(), np.zeros((24, 40), np.uint8)])
    assert (read_image(encode(clear, "PNG", icc_profile=profile)).pixels == 128).all()
    index = PIL.Image.new("P", (16, 16), 0)
    index.putpalette([50, 50, 50])
    assert abs(int(read_image(encode(index, "PNG", icc_profile=profile)).pixels[0, 0, 0]) - 122) < 3


def test_srgb_profile_changes_nothing():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = read_image(encode(picture(), "PNG", icc_profile=profile))
    assert np.array_equal(image.pixels, picture())
    assert image.notes == ()


@pytest.mark.parametrize(
    "profile",
    [b"junk", b"\0" * 200, icc_profile(gamma=1.0)[:150], icc_profile(gamma=1, space=b"GRAY")],
)
def test_broken_or_unfit_profile_is_ignored_and_noted(profile):
    image = read_image(encode(picture(), "PNG", icc_profile=profile))
    assert np.array_equal(image.pixels, picture())
    assert image.notes == ("broken colour profile ignored",)


# -- HEIC --


def noisy(height, width):
    """Whose every row takes bytes, so that a cut in the file is a cut in the picture."""
    noise = np.random.default_rng(1).normal(0, 25, (height, width, 3))
    return PIL.Image.fromarray(np.clip(picture(height, width) + noise, 0, 255).astype(np.uint8))


def test_heic_without_its_library_names_the_extra(monkeypatch):
    data = encode(picture(), "HEIC")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert reason(data) == "HEIC needs an extra; install it with: pip install 'bonaface[heic]'"
    assert reason(data[:-1]) == "truncated"


def test_heic_endings_are_searched_for():
    assert {".heic", ".heif", ".jpg", ".avif"} <= SUFFIXES


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1"])
def test_heic_is_told_from_avif_by_its_brands(brand):
    data = encode(picture(), "HEIC")
    assert read_image(data[:8] + brand + data[12:]).format == "HEIC"
    data = encode(picture(), "AVIF")
    assert read_image(data[:8] + brand + data[12:]).format == "AVIF"


@pytest.mark.parametrize("turn", [1, 6, 7])
def test_heic_of_tiles_as_phones_write_it(turn):
    exif = PIL.Image.Exif()
    exif[0x0112] = turn
    stored = PIL.Image.fromarray(np.ascontiguousarray(UPRIGHT[turn](picture(150, 200))))
    data = heic(stored, tile_size=64, exif=exif)
    assert data.count(b"grid") == 1
    image = read_image(data)
    assert image.pixels.shape == (150, 200, 3)
    assert np.abs(image.pixels.astype(int) - picture(150, 200)).mean() < 4
    assert image.notes == ()


def test_heic_is_turned_by_its_own_property_and_not_by_exif():
    exif = PIL.Image.Exif()
    exif[0x0112] = 1
    data = encode(picture(), "HEIC", exif=exif)
    at = data.index(struct.pack(">HHI", 0x0112, 3, 1)) + 9  # ISO/IEC 23008-12: EXIF is not obeyed
    image = read_image(data[:at] + b"\6" + data[at + 1 :])
    assert np.abs(image.pixels.astype(int) - picture()).mean() < 4


def test_heic_in_grey_with_alpha_and_of_10_bits():
    grey = read_image(encode(picture()[..., 0], "HEIC")).pixels
    assert np.abs(grey.astype(int) - picture()[..., :1]).mean() < 4
    alpha = np.full((24, 40, 1), 128, np.uint8)
    clear = read_image(encode(np.dstack([picture(), alpha]), "HEIC"))
    assert np.abs(clear.pixels - (picture() + 128.0) / 2).mean() < 4
    assert clear.notes == ("transparency composited over grey",)
    import pillow_heif

    file = io.BytesIO()
    deep = (picture().astype(np.uint16) * 257).tobytes()
    pillow_heif.from_bytes("RGB;16", (40, 24), deep).save(file, quality=95, chroma=444)
    assert pillow_heif.open_heif(file.getvalue()).info["bit_depth"] == 10
    assert np.abs(read_image(file.getvalue()).pixels.astype(int) - picture()).mean() < 4


def test_heic_profile_is_converted_and_numbered_colours_are_noted():
    plain = read_image(encode(picture(), "HEIC")).pixels
    image = read_image(encode(picture(), "HEIC", icc_profile=icc_profile(gamma=1.0)))
    assert np.abs(image.pixels - 255 * srgb_encode(plain / 255)).max() <= 2
    assert image.notes == ("colour profile converted to sRGB",)
    for primaries, transfer, noted in ((1, 13, False), (9, 13, True), (1, 16, True)):
        colours = {"color_primaries": primaries, "transfer_characteristics": transfer}
        notes = read_image(encode(picture(), "HEIC", **colours)).notes
        assert notes == (("wide or HDR colours taken for sRGB",) if noted else ())


def test_heic_of_several_pictures_gives_the_main_one():
    pictures = [PIL.Image.fromarray(picture(32, 32, seed)) for seed in range(3)]
    image = read_image(heic(*pictures, primary_index=1))
    assert np.abs(image.pixels.astype(int) - picture(32, 32, 1)).mean() < 4
    assert image.notes == ("several pictures: the main one is used",)
    opened = pillow_image(heic(*pictures, primary_index=1))
    opened.seek(2)
    image = as_image(opened)
    assert np.abs(image.pixels.astype(int) - picture(32, 32, 2)).mean() < 4
    assert image.notes == ()


def test_heic_that_is_a_film_is_named():
    film = box(b"ftyp", b"hevc\0\0\0\0msf1hevc")
    assert reason(film + box(b"moov", bytes(40))) == RARE
    assert reason(film) == "truncated"


@pytest.mark.parametrize("open_end", [False, True])
@pytest.mark.parametrize("options", [{}, {"tile_size": 64}, {"alpha": True}])
def test_heic_cut_anywhere_is_refused(options, open_end):
    image = noisy(130, 200)
    if options.pop("alpha", False):
        image.putalpha(PIL.Image.fromarray(picture(130, 200, 1)[..., 0]))
    data = bytearray(heic(image, **options))
    at = data.index(b"mdat") - 4
    if open_end:  # a box that goes on to the end of the file, wherever that is
        data[at : at + 4] = b"\0\0\0\0"
    assert read_image(bytes(data)).pixels.shape == (130, 200, 3)
    for end in range(12, at, 7):
        assert reason(bytes(data[:end])) in ("truncated", "damaged")
    for end in [*range(at + 8, len(data), len(data) // 150), len(data) - 1]:
        assert reason(bytes(data[:end])) == "truncated"


def test_heic_tiles_that_were_never_written_are_damage():
    data = heic(noisy(130, 200), tile_size=64)
    half = data.index(b"mdat") + 4 + (len(data) - data.index(b"mdat")) // 2
    assert reason(data[:half] + bytes(len(data) - half)) == "damaged"


def box(kind, *content, version=None):
    body = b"".join(content)
    body = body if version is None else struct.pack(">I", version << 24) + body
    return struct.pack(">I4s", len(body) + 8, kind) + body


def heif(items, sizes, references, pad=0):
    """A HEIF file of one coded 64 x 64 picture, item 1, and what else is said of it.

    items: number -> kind and its content (None: what the coded picture has); sizes: the declared
    ones; references: kind, from, to. The last item is the main one.
    """
    source = heic(PIL.Image.fromarray(picture(64, 64)))
    at = source.index(b"hvcC") - 4
    codec = source[at : at + int.from_bytes(source[at : at + 4], "big")]
    stream = source[source.index(b"mdat") + 4 :] + bytes(pad)
    words = struct.Struct(">HHHHII").pack
    small = b"".join(content or b"" for _, content in items.values())
    kinds = [
        box(b"infe", struct.pack(">HH", number, 0), kind, b"\0", version=2)
        for number, (kind, _) in items.items()
    ]
    properties = [codec, *(box(b"ispe", struct.pack(">II", *s), version=0) for s in sizes.values())]
    owners = [
        struct.pack(">HBB", number, 2 if items[number][0] == b"hvc1" else 1, 2 + place)
        + (b"\x81" if items[number][0] == b"hvc1" else b"")
        for place, number in enumerate(sizes)
    ]
    named = [
        box(kind, struct.pack(f">HH{len(to)}H", start, len(to), *to))
        for kind, start, to in references
    ]

    def meta(offset):
        places, inside = [], 0
        for number, (_, content) in items.items():
            if content is None:
                places.append(words(number, 0, 0, 1, offset, len(stream)))
            else:
                places.append(words(number, 1, 0, 1, inside, len(content)))
                inside += len(content)
        return box(
            b"meta",
            box(b"hdlr", b"\0\0\0\0pict", bytes(13), version=0),
            box(b"pitm", struct.pack(">H", max(items)), version=0),
            box(b"iloc", b"\x44\0", struct.pack(">H", len(items)), *places, version=1),
            box(b"iinf", struct.pack(">H", len(items)), *kinds, version=0),
            box(
                b"iprp",
                box(b"ipco", *properties),
                box(b"ipma", struct.pack(">I", len(owners)), *owners, version=0),
            ),
            box(b"iref", *named, version=0),
            box(b"idat", small),
            version=0,
        )

    head = box(b"ftyp", b"heic\0\0\0\0mif1heic")
    return head + meta(len(head) + len(meta(0)) + 8) + box(b"mdat", stream)


def grid(rows, columns, width, height):
    return b"grid", struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, width, height)


CODED = {1: (b"hvc1", None)}


def test_heic_with_a_grid_written_by_hand():
    items = {**CODED, 2: (b"hvc1", None), 3: grid(1, 2, 128, 64)}
    data = heif(items, {1: (64, 64), 2: (64, 64), 3: (128, 64)}, [(b"dimg", 3, [1, 2])])
    pixels = read_image(data).pixels
    assert pixels.shape == (64, 128, 3)
    assert np.array_equal(pixels[:, :64], pixels[:, 64:])
    assert np.abs(pixels[:, :64].astype(int) - picture(64, 64)).mean() < 4


RARE = "a kind of HEIC that is not read; save it as 8-bit RGB"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (heif(CODED, {1: (12_000, 12_000)}, []), "more than 120 megapixels (12000 x 12000)"),
        (  # one tile, drawn 64 thousand times
            heif(
                {**CODED, 2: grid(255, 255, 64, 64)},
                {1: (16, 16), 2: (64, 64)},
                [(b"dimg", 2, [1] * 255 * 255)],
            ),
            "more than 120 megapixels in its tiles",
        ),
        (  # tiles that have tiles
            heif(
                {**CODED, 2: grid(10, 10, 640, 640), 3: grid(10, 10, 64, 64)},
                {1: (64, 64), 2: (64, 64), 3: (64, 64)},
                [(b"dimg", 2, [1] * 100), (b"dimg", 3, [2] * 100)],
            ),
            RARE,
        ),
        (
            heif({**CODED, 2: (b"iovl", b"")}, {1: (64, 64), 2: (64, 64)}, [(b"dimg", 2, [1])]),
            RARE,
        ),
        (  # 5 MB of metadata, of 40 pictures
            heif({**CODED, 2: (b"Exif", None)}, {1: (64, 64)}, [(b"cdsc", 2, [1] * 40)], 5_000_000),
            "damaged",
        ),
        (  # 40 times the same 5 MB of metadata
            heif(
                {**dict.fromkeys(range(2, 42), (b"Exif", None)), **CODED},
                {1: (64, 64)},
                [],
                5_000_000,
            ),
            "damaged",
        ),
        (heif(dict.fromkeys(range(1, 2000), (b"Exif", b"")), {}, []), RARE),
        (  # two tables of items, of which libheif may follow the one or the other
            box(b"ftyp", b"heic\0\0\0\0mif1heic")
            + box(b"meta", *[box(b"iinf", b"\0\0", version=0)] * 2, version=0),
            "damaged",
        ),
    ],
)
def test_heic_that_would_take_more_than_its_header_says(data, expected, monkeypatch):
    pillow_heif = pytest.importorskip("pillow_heif")
    monkeypatch.setattr(pillow_heif, "HeifImageFile", lambda _file: pytest.fail("was opened"))
    assert reason(data) == expected


def test_heic_limits_hold_before_it_is_decoded(monkeypatch):
    import pillow_heif

    data = encode(picture(), "HEIC")
    ok = ImageLimits(max_bytes=len(data), max_pixels=64 * 64, min_side=24)
    assert read_image(data, ok).pixels.shape == (24, 40, 3)
    lying = bytearray(encode(picture(600, 600), "HEIC"))
    at = lying.index(b"ispe") + 8
    lying[at : at + 8] = struct.pack(">II", 64, 64)
    assert reason(bytes(lying)) == "damaged"
    monkeypatch.setattr(pillow_heif.HeifImage, "load", lambda _self: pytest.fail("was decoded"))
    assert reason(data, ImageLimits(max_pixels=959)).startswith("more than 0.000959 megapixels (")
    assert reason(data, ImageLimits(min_side=25)) == "smaller than 25 px (40 x 24)"


# -- limits --


@pytest.fixture
def no_decoding(monkeypatch):
    """Whoever asks Pillow for memory for pixels fails."""

    def grab(*_args):
        pytest.fail("pixels were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load_prepare", grab)
    monkeypatch.setattr(PIL.Image.core, "new", grab)


def test_decompression_bomb_is_refused_before_decoding(no_decoding):
    bomb = png(30_000, 30_000, rows=b"\0" * 1000)
    assert reason(bomb) == "more than 120 megapixels (30000 x 30000)"


def webp_canvas(width, height):
    extended = b"\0" * 4 + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + extended + b"VP8 " + struct.pack("<I", 0)
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    "data",
    [
        webp_canvas(16_000, 16_000),
        encode(picture(), "BMP")[:18]
        + struct.pack("<iiHHI", 30_000, 30_000, 1, 24, 0)
        + b"\0" * 40,
        png(16_000, 8_000),
    ],
)
def test_bombs_of_other_formats(data, no_decoding):
    assert reason(data).startswith("more than 120 megapixels")


def test_tiff_with_a_huge_tile(no_decoding):
    data, _ = tiff("<", extra=[(322, 60_000), (323, 60_000)])
    assert reason(data) == "more than 120 megapixels (60000 x 60000)"


@pytest.mark.filterwarnings("error")
def test_a_50_megapixel_photo_passes_and_pillow_does_not_warn_at_100():
    # Headers only: whether the limit lets them through shows without decoding so much.
    assert reason(png(8660, 5774)) == "truncated"
    assert reason(png(10_000, 10_000)) == "truncated"
    assert reason(webp_canvas(10_000, 10_000)) == "damaged"


def test_limits_at_their_edges():
    data = encode(picture(24, 40), "PNG")
    ok = ImageLimits(max_bytes=len(data), max_pixels=24 * 40, min_side=24)
    assert read_image(data, ok).pixels.shape == (24, 40, 3)
    assert reason(data, ImageLimits(max_pixels=959)).endswith("(40 x 24)")
    assert reason(data, ImageLimits(min_side=25)) == "smaller than 25 px (40 x 24)"
    assert reason(data, ImageLimits(max_bytes=len(data) - 1)).startswith("larger than ")


def test_file_over_the_limit_is_not_read(tmp_path):
    path = tmp_path / "sparse.jpg"
    with path.open("wb") as file:
        file.truncate(2**31)
    assert reason(path) == "larger than 64 MiB (2048 MiB)"


def test_pillow_is_left_as_it_was():
    PIL.Image.init()
    before = (PIL.Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, warnings.filters[:])
    registered = dict(PIL.Image.OPEN)  # other libraries of the process may have added HEIF
    read_image(encode(picture(), "JPEG"))
    read_image(encode(picture(), "HEIC"))
    reason(png(30_000, 30_000))
    assert before == (
        PIL.Image.MAX_IMAGE_PIXELS,
        ImageFile.LOAD_TRUNCATED_IMAGES,
        warnings.filters[:],
    )
    assert registered == PIL.Image.OPEN


# -- files that are not files --


def test_what_is_not_there_or_not_a_file(tmp_path):
    assert reason(tmp_path / "none.jpg") == "no such file"
    assert reason(tmp_path) == "a folder, not a file"
    (tmp_path / "empty.jpg").touch()
    assert reason(tmp_path / "empty.jpg") == "empty file"
    assert reason(tmp_path / "empty.jpg" / "x") == "no such file"
    assert reason(tmp_path / ("x" * 300)).startswith("cannot be read (")
    assert reason(tmp_path / "a\0b") == "not a valid file name"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")
def test_links_pipes_sockets_and_devices(tmp_path):
    (tmp_path / "real.png").write_bytes(encode(picture(), "PNG"))
    (tmp_path / "link.png").symlink_to("real.png")
    assert np.array_equal(read_image(tmp_path / "link.png").pixels, picture())
    (tmp_path / "lost.png").symlink_to("gone.png")
    assert reason(tmp_path / "lost.png") == "broken link"
    (tmp_path / "loop.png").symlink_to("loop.png")
    assert reason(tmp_path / "loop.png") == "a link that leads back to itself"
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    assert reason(tmp_path / "zero.png") == "not a regular file"
    os.mkfifo(tmp_path / "pipe.png")
    assert reason(tmp_path / "pipe.png") == "not a regular file"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        assert reason(tmp_path / "s") == "not a regular file"


def test_no_permission(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(encode(picture(), "PNG"))

    def refuse(*_args, **_kwargs):  # the tests may run as root, whom no mode stops
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert reason(path) == "no permission to read it"


@pytest.mark.skipif(sys.platform != "linux", reason="bytes as file names")
def test_message_names_the_file_printably(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.jpg")
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert str(caught.value).endswith("caf\\xe9.jpg: no such file")
    assert isinstance(caught.value, BonafaceError)


# -- damage --


@pytest.mark.parametrize("kind", FORMATS)
def test_truncated_files_are_refused(kind):
    data = encode(picture(64, 64), kind)
    for share in (0.3, 0.5, 0.8, 0.97):
        assert reason(data[: int(len(data) * share)]) in ("truncated", "damaged")
    assert reason(data[: len(data) // 2]) == "truncated"


def test_tiff_that_declares_more_rows_than_it_holds():
    data, _ = tiff("<")
    assert read_image(data).pixels.shape == (16, 16, 3)
    at = data.index(struct.pack("<HHII", 257, 4, 1, 16))
    taller = data[: at + 8] + struct.pack("<I", 17) + data[at + 12 :]
    assert reason(taller) == "truncated"


def test_bytes_after_the_end_do_no_harm():
    for kind in ("JPEG", "PNG", "WebP"):
        data = encode(picture(), kind)
        assert np.array_equal(read_image(data + b"trailing bytes").pixels, read_image(data).pixels)


def test_wrong_checksum_is_damage():
    data = bytearray(encode(picture(), "PNG"))
    data[20] ^= 1
    assert reason(bytes(data)) == "damaged"


def test_lack_of_memory_is_a_reason(monkeypatch):
    def lack(_self):
        raise MemoryError

    data = encode(picture(), "PNG")
    monkeypatch.setattr(PIL.Image.Image, "load", lack)
    assert reason(data) == "not enough memory to decode it"


def seeds():
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    colour = PIL.Image.fromarray(picture(16, 24))
    other = colour.transpose(PIL.Image.Transpose.ROTATE_180)
    found = {kind: encode(colour, kind) for kind in FORMATS}
    for kind in ("JPEG", "PNG", "WebP", "TIFF", "AVIF", "HEIC"):
        icc = icc_profile(gamma=1.0)
        found[f"{kind} exif icc"] = encode(colour, kind, exif=exif.tobytes(), icc_profile=icc)
    found["HEIC alpha"] = heic(colour.convert("RGBA"))
    found["HEIC tiles"] = heic(PIL.Image.fromarray(picture(80, 120)), colour, tile_size=64)
    for kind in ("PNG", "WebP", "TIFF", "AVIF"):
        found[f"{kind} alpha"] = encode(colour.convert("RGBA"), kind)
        found[f"{kind} frames"] = encode(colour, kind, save_all=True, append_images=[other])
    for mode in ("P", "1", "L", "LA"):
        found[f"PNG {mode}"] = encode(colour.convert(mode), "PNG")
    wide = picture(16, 24)[..., 0].astype(np.uint16) * 257
    found["PNG 16"] = cv2.imencode(".png", wide)[1].tobytes()
    found["JPEG CMYK"] = encode(colour.convert("CMYK"), "JPEG")
    found["JPEG progressive"] = encode(colour, "JPEG", progressive=True)
    found["BMP P"] = encode(colour.convert("P"), "BMP")
    return found


SEEDS = seeds()


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_hostile_bytes_give_an_image_or_an_image_error(data):
    raw = bytearray(SEEDS[data.draw(st.sampled_from(sorted(SEEDS)))])
    for _ in range(data.draw(st.integers(1, 6))):
        limit = data.draw(st.sampled_from([min(64, len(raw)), min(200, len(raw)), len(raw)]))
        raw[data.draw(st.integers(0, limit - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(0, len(raw))) :]
    try:
        image = read_image(bytes(raw), ImageLimits(min_side=1, max_pixels=2**20))
    except ImageError:
        return
    assert image.pixels.dtype == np.uint8
    assert image.pixels.ndim == 3
    assert image.pixels.shape[2] == 3
    assert min(image.pixels.shape) >= 1
    assert image.pixels.flags.c_contiguous
    assert image.pixels.flags.writeable


@given(raw=st.binary(max_size=200), head=st.sampled_from([b"", b"BM", b"II*\0", b"\xff\xd8\xff"]))
@settings(max_examples=150, deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_any_bytes_give_an_image_error(raw, head):
    reason(head + raw)


# -- what is decoded already --


def pillow_image(data):
    """As a caller would have opened it."""
    if data[4:11] == b"ftyphei":
        import pillow_heif

        return pillow_heif.HeifImageFile(io.BytesIO(data))
    return PIL.Image.open(io.BytesIO(data))


@pytest.mark.parametrize("name", sorted(SEEDS))
def test_pillow_image_comes_out_as_its_file_does(name):
    from_file = read_image(SEEDS[name])
    for image in (
        as_image(pillow_image(SEEDS[name])),
        as_image(loaded := pillow_image(SEEDS[name])),
    ):
        assert np.array_equal(image.pixels, from_file.pixels)
        assert image.notes == from_file.notes
        assert image.format == from_file.format
        assert image.pixels.flags.c_contiguous
        assert image.pixels.flags.writeable
    assert np.array_equal(as_image(loaded).pixels, from_file.pixels)


@pytest.mark.parametrize(
    "mode", ["RGB", "L", "1", "P", "RGBA", "LA", "RGBa", "La", "CMYK", "YCbCr"]
)
def test_pillow_image_without_a_file(mode):
    picked = PIL.Image.fromarray(np.dstack([picture(), picture(seed=1)[..., :1]]))
    picked = picked.convert("LA").convert("La") if mode == "La" else picked.convert(mode)
    before = (picked.mode, picked.size, picked.tobytes(), dict(picked.info))
    image = as_image(picked)
    assert image.format == "PIL"
    same = {"RGBa": "RGBA", "La": "LA", "YCbCr": "RGB"}.get(mode, mode)
    kind = "TIFF" if mode == "CMYK" else "PNG"
    from_file = read_image(encode(picked.convert(same), kind))
    assert np.array_equal(image.pixels, from_file.pixels)
    assert image.notes == from_file.notes
    image.pixels[:] = 0
    assert before == (picked.mode, picked.size, picked.tobytes(), dict(picked.info))


def test_pillow_image_keeps_its_file_and_frame():
    frames = [PIL.Image.new("RGB", (32, 32), colour) for colour in ("red", "lime", "blue")]
    opened = pillow_image(encode(frames[0], "PNG", save_all=True, append_images=frames[1:]))
    assert as_image(opened).notes == ("animated: first of 3 frames",)
    for index, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255)]):
        opened.seek(index)  # possible: the file is still open
        image = as_image(opened)
        assert image.pixels[5, 5].tolist() == list(colour)
        assert opened.tell() == index
    assert image.notes == ()


def test_pillow_image_is_turned_by_its_info_once():
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    opened = pillow_image(encode(np.ascontiguousarray(UPRIGHT[6](picture())), "PNG", exif=exif))
    for image in (opened, opened.convert("RGBA"), ImageOps.exif_transpose(opened)):
        assert np.array_equal(as_image(image).pixels, picture())
    assert opened.size == (24, 40)


def test_pillow_image_of_a_jpeg_with_a_second_one_behind():
    first, second = (PIL.Image.fromarray(picture(seed=seed)) for seed in range(2))
    data = encode(first, "MPO", save_all=True, append_images=[second])
    opened = pillow_image(data)
    assert opened.format == "MPO"
    image = as_image(opened)
    assert np.array_equal(image.pixels, read_image(data).pixels)
    assert (image.format, image.notes) == ("JPEG", ()) == ("JPEG", read_image(data).notes)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP", "BMP", "TIFF"])
def test_pillow_image_of_a_cut_file(kind):
    data = encode(picture(64, 64), kind, **({"compression": "raw"} if kind == "TIFF" else {}))
    try:
        opened = pillow_image(data[: len(data) * 3 // 4])
    except OSError:  # Pillow says so itself, before there is an image
        return
    assert reason(opened, read=as_image) in ("truncated", "damaged")


def test_pillow_image_that_was_closed():
    with pillow_image(encode(picture(), "PNG")) as opened:
        pass
    assert reason(opened, read=as_image) == "closed before it was read"
    closed = PIL.Image.fromarray(picture())
    closed.close()
    assert reason(closed, read=as_image) == "closed before it was read"


def test_pillow_image_meets_the_limits(no_decoding):
    opened = pillow_image(png(9_000, 9_000))
    assert reason(opened, ImageLimits(max_pixels=10**7), as_image).startswith("more than 10 mega")
    small = pillow_image(png(15, 40))
    assert reason(small, read=as_image) == "smaller than 16 px (15 x 40)"


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a,
        np.asfortranarray,
        lambda a: np.repeat(a, 2, axis=1)[:, ::2],
        lambda a: np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1],
        lambda a: np.ma.masked_less(a, 9),
        lambda a: np.frombuffer(a.tobytes(), np.uint8).reshape(a.shape),  # read-only
    ],
)
def test_array_of_any_layout_comes_out_as_it_is(change):
    given = change(picture())
    image = as_image(given)
    assert type(image.pixels) is np.ndarray
    assert np.array_equal(image.pixels, picture())
    assert image.pixels.flags.c_contiguous
    assert image.pixels.flags.writeable
    assert not np.shares_memory(image.pixels, given)
    assert (image.format, image.notes) == ("array", ())


@pytest.mark.parametrize("channels", [0, 1, 4])
def test_array_in_grey_or_with_alpha_is_treated_as_a_file_of_it(channels):
    pixels = np.dstack([picture(), picture(seed=1)[..., :1]])
    given = {0: pixels[..., 0], 1: pixels[..., :1], 4: pixels}[channels]
    before = given.copy()
    image = as_image(given)
    from_file = read_image(encode(np.ascontiguousarray(given.squeeze()), "PNG"))
    assert np.array_equal(image.pixels, from_file.pixels)
    assert image.notes == from_file.notes
    image.pixels[:] = 7
    assert np.array_equal(given, before)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (np.zeros((3, 224, 224), np.float32), "got float32 (3, 224, 224)"),
        (np.zeros((224, 224, 3), np.int64), "got int64 (224, 224, 3)"),
        (np.zeros((224, 224, 3), bool), "got bool (224, 224, 3)"),
        (np.zeros((3, 224, 224), np.uint8), "got uint8 (3, 224, 224)"),
        (np.zeros((1, 224, 224, 3), np.uint8), "got uint8 (1, 224, 224, 3)"),
        (np.zeros((224, 224, 2), np.uint8), "got uint8 (224, 224, 2)"),
        (np.zeros(224, np.uint8), "got uint8 (224,)"),
        (np.zeros((0, 224, 3), np.uint8), "got uint8 (0, 224, 3)"),
        (np.array(None), "got object ()"),
    ],
)
def test_arrays_of_other_types_and_shapes_are_refused(given, expected):
    assert reason(given, TINY, as_image) == f"expected uint8 RGB height x width x 3, {expected}"


def test_array_meets_the_limits_before_it_is_copied():
    huge = np.broadcast_to(np.zeros(3, np.uint8), (200_000, 200_000, 3))
    assert reason(huge, read=as_image) == "more than 120 megapixels (200000 x 200000)"
    assert reason(picture(15, 40), read=as_image) == "smaller than 16 px (40 x 15)"
    assert as_image(picture(15, 40), TINY).pixels.shape == (15, 40, 3)


def test_what_is_neither_is_refused():
    wanted = "expected a Pillow image or a numpy array, got "
    assert reason([[0, 0, 0]], read=as_image) == wanted + "list"
    assert reason(None, read=as_image) == wanted + "NoneType"


def test_threads_see_the_same_pixels():
    profile = icc_profile(gamma=1.0)
    data = encode(picture(200, 300), "PNG", icc_profile=profile)
    expected = read_image(data).pixels
    barrier = threading.Barrier(4)

    def read(_):
        barrier.wait()
        return [read_image(data).pixels for _ in range(10)]

    with ThreadPoolExecutor(4) as pool:
        for results in pool.map(read, range(4)):
            assert all(np.array_equal(pixels, expected) for pixels in results)
