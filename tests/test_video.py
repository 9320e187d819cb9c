"""Reading clips: spread over the whole, exact after jumps, damage, lying headers, hostile files."""

import base64
import os
import random
import struct
import subprocess
import sys
import tempfile
import textwrap
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

from bonaface import video
from bonaface.errors import ConfigError, ImageError
from bonaface.video import CONTAINERS, SUFFIXES, VideoLimits, is_video, read_frames

REAL = Path(__file__).parents[2] / "shared" / "data" / "videos"
FPS, HEIGHT, WIDTH, BITS = 25, 96, 160, 16
MP4, MATROSKA, AVI = CONTAINERS
# ending and codec; those with B-frames hold their frames in another order than they show them in
KINDS = {
    **dict.fromkeys([(".mp4", "mp4v"), (".mov", "mp4v"), (".m4v", "mp4v"), (".mp4", "mpg2")], MP4),
    **dict.fromkeys([(".webm", "VP80"), (".webm", "VP90"), (".mkv", "mpg2")], MATROSKA),
    **dict.fromkeys([(".avi", "MJPG"), (".avi", "mp4v"), (".avi", "mpg2")], AVI),
}
WITH_B_FRAMES = "mpg2"


def picture(number):
    """A frame that shows its number: sixteen blocks, light for 1 and dark for 0."""
    bits = [220 if number >> bit & 1 else 30 for bit in range(BITS)]
    blocks = np.array(bits, np.uint8).reshape(4, 4)
    return np.repeat(np.repeat(blocks, HEIGHT // 4, 0), WIDTH // 4, 1)[..., None].repeat(3, 2)


def shown(pixels):
    """The number that a decoded frame shows."""
    middles = pixels[HEIGHT // 8 :: HEIGHT // 4, WIDTH // 8 :: WIDTH // 4].mean(-1)
    return sum(1 << bit for bit, level in enumerate(middles.ravel()) if level > 125)


def written(path, pictures, codec, *, colour=True, depth=cv2.CV_8U):
    first = pictures[0]
    settings = [cv2.VIDEOWRITER_PROP_IS_COLOR, int(colour), cv2.VIDEOWRITER_PROP_DEPTH, depth]
    writer = cv2.VideoWriter(
        str(path),
        cv2.CAP_FFMPEG,
        cv2.VideoWriter_fourcc(*codec),
        FPS,
        first.shape[1::-1],
        settings,
    )
    assert writer.isOpened(), (path, codec)
    for each in pictures:
        writer.write(each)
    writer.release()
    return path.read_bytes()


@cache
def clip(ending=".mp4", codec="mp4v", frames=300):
    with tempfile.TemporaryDirectory() as folder:
        return written(Path(folder, f"c{ending}"), [picture(n) for n in range(frames)], codec)


def read(data, count, **limits):
    """All frames as (number, number shown, seconds), and the iterator when it is through."""
    frames = read_frames(data, count, VideoLimits(**limits))
    return [(f.number, shown(f.pixels), f.seconds) for f in frames], frames


def reason(source, count=4, **limits):
    with pytest.raises(ImageError) as caught:
        list(read_frames(source, count, VideoLimits(**limits)))
    return caught.value.reason


def middles(count, frames):
    return [int((n + 0.5) * frames / count) for n in range(count)]


class Spy:
    """Stands for cv2.VideoCapture and counts the frames that are decoded on request."""

    def __init__(self, monkeypatch):
        self.decoded, self.modes = 0, []
        real = cv2.VideoCapture

        def spying(path, backend, settings=()):
            decodes = cv2.CAP_PROP_FORMAT not in settings[:1]
            self.modes.append("frames" if decodes else "packets")
            capture, spy = real(path, backend, settings), self

            class Counting:
                def grab(self):
                    grabbed = capture.grab()
                    spy.decoded += decodes and grabbed
                    return grabbed

                def __getattr__(self, name):
                    return getattr(capture, name)

            return Counting()

        video.hush()
        monkeypatch.setattr(cv2, "VideoCapture", spying)


# -- spread over the whole clip --


@pytest.mark.parametrize(("ending", "codec"), KINDS)
@pytest.mark.parametrize("count", [5, 16])
def test_the_frames_cover_the_whole_clip_evenly(ending, codec, count):
    total = 300
    frames, reader = read(clip(ending, codec, total), count)
    numbers = [seen for _, seen, _ in frames]
    assert numbers == [number for number, _, _ in frames] == middles(count, total)
    assert numbers[0] < total / count
    assert numbers[-1] >= total - total / count
    assert np.ptp(np.diff(numbers)) <= 1
    assert [seconds for _, _, seconds in frames] == pytest.approx([n / FPS for n in numbers])
    assert (reader.asked, reader.planned, reader.read, reader.missed) == (count, count, count, 0)
    assert (reader.damaged, reader.notes) == (False, ())
    assert reader.readable_seconds == pytest.approx(total / FPS)


@pytest.mark.parametrize(("ending", "codec"), KINDS)
def test_what_is_known_of_the_clip(ending, codec):
    known = read(clip(ending, codec), 1)[1].clip
    assert known.container == KINDS[ending, codec]
    assert known.codec
    assert (known.width, known.height, known.frames) == (WIDTH, HEIGHT, 300)
    assert known.seconds == pytest.approx(12)
    assert known.claimed_seconds == pytest.approx(12)
    assert not known.cut_short


@pytest.mark.parametrize("count", [12, 13, 1000])
def test_a_clip_with_few_frames_gives_each_once(count):
    frames, reader = read(clip(frames=12), count)
    assert [seen for _, seen, _ in frames] == list(range(12))
    assert (reader.asked, reader.planned, reader.read) == (count, 12, 12)


def test_one_frame():
    frames, reader = read(clip(frames=1), 8)
    assert frames == [(0, 0, 0)]
    assert reader.clip.seconds == pytest.approx(1 / FPS)


@pytest.mark.parametrize("count", [0, -1])
def test_no_frames_are_not_asked_for(count):
    with pytest.raises(ConfigError, match="at least 1"):
        read_frames(clip(), count)


@pytest.mark.parametrize(("ending", "codec"), [(".mp4", "mp4v"), (".webm", "VP90")])
def test_pixels_are_those_that_opencv_decodes_in_a_row(ending, codec, tmp_path):
    colours = [np.full((48, 64, 3), (n, 255 - n, 90), np.uint8) for n in range(100)]
    for n, each in enumerate(colours):
        each[:, : n % 60] = (200, 20, 20)  # blue in OpenCV's order
    path = tmp_path / f"c{ending}"
    written(path, colours, codec)
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    reference = [capture.read()[1] for _ in range(100)]
    for frame in read_frames(path, 7):
        assert np.array_equal(frame.pixels[..., ::-1], reference[frame.number])
        assert frame.pixels.dtype == np.uint8
        assert frame.pixels.flags.c_contiguous
        assert frame.pixels.flags.writeable
    assert frame.pixels[24, 2, 2] > 150 > frame.pixels[24, 2, 0]  # blue comes last


@pytest.mark.parametrize(
    ("depth", "codec"), [(cv2.CV_8U, "MJPG"), (cv2.CV_8U, "FFV1"), (cv2.CV_16U, "FFV1")]
)
def test_grey_and_deep_clips_come_out_as_rgb(depth, codec, tmp_path):
    scale = 257 if depth == cv2.CV_16U else 1
    dtype = np.uint16 if depth == cv2.CV_16U else np.uint8
    grey = [np.full((48, 64), n * 20 * scale, dtype) for n in range(10)]
    data = written(tmp_path / "c.avi", grey, codec, colour=False, depth=depth)
    for frame in read_frames(data, 5):
        assert (frame.pixels.shape, frame.pixels.dtype) == ((48, 64, 3), np.uint8)
        assert np.abs(frame.pixels.astype(int) - frame.number * 20).max() <= 3


def test_bytes_and_path_give_the_same(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip())
    assert read(path, 9)[0] == read(clip(), 9)[0] == read(memoryview(clip()), 9)[0]


# -- jumps --


@pytest.mark.parametrize(("ending", "codec"), KINDS)
def test_jumps_decode_little_and_land_where_reading_in_a_row_does(ending, codec, monkeypatch):
    total, count = 600, 5
    data = clip(ending, codec, total)
    spy = Spy(monkeypatch)
    jumped, _ = read(data, count)
    few = spy.decoded
    monkeypatch.setattr(video, "_WORTH_A_JUMP", total)
    in_a_row, _ = read(data, count)
    many = spy.decoded - few
    assert jumped == in_a_row
    assert few < 0.3 * total < total < many <= 2.1 * total


# -- times and headers --


def boxes(data, start, end):
    while start + 8 <= end:
        size, kind = struct.unpack(">I4s", data[start : start + 8])
        yield kind, start, size
        start += size


def find(data, *path):
    """Where a box of an MP4 stands, and those around it."""
    at, end, around = 0, len(data), []
    for kind in path:
        at, size = next((a, n) for k, a, n in boxes(data, at, end) if k == kind)
        around.append(at)
        at, end = at + 8, at + size
    return around


def replaced(data, path, content):
    """An MP4 whose index stands at its end, with another content of one box in it."""
    *above, at = find(data, *path)
    old = int.from_bytes(data[at : at + 4], "big")
    box = struct.pack(">I4s", 8 + len(content), path[-1]) + content
    out = bytearray(data[:at] + box + data[at + old :])
    for each in above:
        size = int.from_bytes(data[each : each + 4], "big") + len(box) - old
        out[each : each + 4] = size.to_bytes(4, "big")
    return bytes(out)


STTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts")
SCALE = 12800  # of the times that FFmpeg writes at 25 frames a second


def timed(lengths, data=None):
    """An MP4 whose frames are shown for so many milliseconds each."""
    runs = [(1, round(length * SCALE / 1000)) for length in lengths]
    content = struct.pack(">II", 0, len(runs)) + b"".join(struct.pack(">II", *run) for run in runs)
    data = poked(data or clip(frames=len(lengths)), b"edts", -4, b"free")  # its end would cut
    return replaced(data, STTS, content)


def expected(lengths, count):
    """Which frame is on show in the middle of each of `count` equal parts."""
    ends = np.cumsum(
        [*lengths[:-1], np.median(lengths[:-1])]
    )  # no time says when the last one ends
    return [int(np.argmax(ends > (n + 0.5) / count * ends[-1])) for n in range(count)]


def uneven(kind):
    rng = random.Random(kind)
    return {
        "slow then fast": [100] * 150 + [20] * 150,
        "fast then slow": [20] * 150 + [100] * 150,
        "a burst": [4] * 150 + [400] * 150,  # OpenCV lands past the first place
        "jitter": [rng.choice([10, 20, 33, 40, 100, 250]) for _ in range(300)],
        "one slow frame": [40] * 100 + [900] + [40] * 199,
    }[kind]


@pytest.mark.parametrize(
    "kind", ["slow then fast", "fast then slow", "a burst", "jitter", "one slow frame"]
)
@pytest.mark.parametrize("count", [8, 10])
def test_a_varying_rate_is_spread_by_time(kind, count):
    lengths = uneven(kind)
    frames, reader = read(timed(lengths), count)
    assert [seen for _, seen, _ in frames] == [number for number, _, _ in frames]
    assert [number for number, _, _ in frames] == expected(lengths, count)
    begins = np.cumsum([0, *lengths]) / 1000
    assert [s for _, _, s in frames] == pytest.approx([begins[n] for n, _, _ in frames], abs=0.01)
    assert reader.notes == ()


@pytest.mark.parametrize("count", [4, 10])
def test_a_frame_that_stands_still_does_not_take_the_places_of_others(count):
    lengths = [40] * 150 + [600_000] + [40] * 149  # by its rate, OpenCV jumps too far here
    frames, _ = read(timed(lengths), count)
    assert [seen for _, seen, _ in frames] == middles(count, 300)


def poked(data, mark, after, *values):
    """The bytes `after` the first `mark` overwritten."""
    at = data.index(mark) + len(mark) + after
    new = b"".join(values)
    return data[:at] + new + data[at + len(new) :]


def lying(lie):
    webm, avi, mp4 = clip(".webm", "VP90"), clip(".avi", "MJPG"), clip()
    duration, rate = b"\x44\x89\x88", b"\x23\xe3\x83"
    if lie in ("header says 0 frames", "header says 9 times as many"):
        number = struct.pack("<I", 0 if "0" in lie else 2700)
        return poked(poked(avi, b"avih", 4 + 16, number), b"strh", 4 + 32, number)
    return {
        "length of 2 minutes": lambda: poked(webm, duration, 0, struct.pack(">d", 120_000)),
        "length of 1 second": lambda: poked(webm, duration, 0, struct.pack(">d", 1000)),
        "no length": lambda: poked(webm, duration, 0, struct.pack(">d", 0)),
        "length is no number": lambda: poked(webm, duration, 0, struct.pack(">d", float("nan"))),
        "negative length": lambda: poked(webm, duration, 0, struct.pack(">d", -5000)),
        "1000 frames a second": lambda: poked(webm, rate, 1, (1_000_000).to_bytes(4, "big")),
        "2 frames a second": lambda: poked(webm, rate, 1, (500_000_000).to_bytes(4, "big")),
        "movie of length 0": lambda: poked(
            poked(mp4, b"mvhd", 16, bytes(4)), b"mdhd", 16, bytes(4)
        ),
        "size unknown": lambda: poked(webm, b"\x18\x53\x80\x67", 0, b"\x01" + b"\xff" * 7),
    }[lie]()


@pytest.mark.parametrize(
    "lie",
    [
        *("header says 0 frames", "header says 9 times as many", "length of 2 minutes"),
        *("length of 1 second", "no length", "length is no number", "negative length"),
        *("1000 frames a second", "2 frames a second", "movie of length 0", "size unknown"),
    ],
)
def test_a_header_that_lies_changes_nothing(lie):
    data = lying(lie)
    assert data not in (clip(), clip(".webm", "VP90"), clip(".avi", "MJPG"))
    frames, reader = read(data, 6)
    assert [seen for _, seen, _ in frames] == [n for n, _, _ in frames] == middles(6, 300)
    assert reader.clip.seconds == pytest.approx(12, abs=0.1)
    assert not reader.damaged


def test_a_length_that_the_pictures_do_not_reach_is_noted():
    _, reader = read(lying("length of 2 minutes"), 6)
    assert reader.notes == ("0:12 of 2:00 can be shown",)


@pytest.mark.parametrize(("turn", "matrix"), [(1, (0, 1, -1, 0)), (2, (-1, 0, 0, -1))])
@pytest.mark.parametrize("mirrored", [1, -1])
def test_rotated_clips_are_turned_upright(turn, matrix, mirrored):
    a, b, c, d = matrix
    if turn == 1:
        b, c, turn = b * mirrored, c * mirrored, turn * mirrored  # to the left
    fixed = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    upright = list(read_frames(clip(), 5))
    rotated = read_frames(poked(clip(), b"tkhd", 40, fixed), 5)
    for before, after in zip(upright, rotated, strict=True):
        assert np.array_equal(np.rot90(before.pixels, -turn), after.pixels)
        assert after.pixels.flags.c_contiguous
        assert (rotated.clip.height, rotated.clip.width) == after.pixels.shape[:2]


@pytest.mark.parametrize("hidden", [7, 20, 100])
@pytest.mark.parametrize("count", [10, 100])
def test_what_an_edit_list_hides_is_not_shown(hidden, count):
    start = struct.pack(">I", hidden * SCALE // FPS)
    frames, reader = read(poked(clip(), b"elst", 12, start), count)
    numbers = [seen for _, seen, _ in frames]
    assert numbers[0] >= hidden
    assert numbers[0] <= hidden + 300 / count
    assert numbers[-1] >= 300 - 300 / count
    assert np.ptp(np.diff(numbers)) <= 1
    assert not reader.damaged
    assert reader.missed == 0


# -- damage --


def index_first(data):
    """An MP4 with its index in front, as the web wants it: what is cut off can be missed."""
    (at,) = find(data, b"moov")
    index = data[at:]
    (offsets,) = (
        place[-1] - at + 16
        for place in [find(data, b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stco")]
    )
    (number,) = struct.unpack(">I", index[offsets - 4 : offsets])
    table = struct.unpack(f">{number}I", index[offsets : offsets + 4 * number])
    moved = struct.pack(f">{number}I", *(each + len(index) for each in table))
    head = int.from_bytes(data[:4], "big")
    index = index[:offsets] + moved + index[offsets + 4 * number :]
    return data[:head] + index + data[head:at]


def test_an_index_in_front_is_read():
    assert read(index_first(clip()), 7)[0] == read(clip(), 7)[0]


CUT = {
    "mp4": lambda: index_first(clip()),
    "mkv": lambda: clip(".mkv", "mpg2"),
    "webm": lambda: clip(".webm", "VP90"),
    "avi": lambda: clip(".avi", "MJPG"),
}


@pytest.mark.parametrize("kind", CUT)
@pytest.mark.parametrize("share", [0.4, 0.7])
def test_a_truncated_clip_is_spread_over_what_is_left(kind, share):
    whole = CUT[kind]()
    frames, reader = read(whole[: int(len(whole) * share)], 10)
    numbers = [seen for _, seen, _ in frames]
    left = reader.clip.frames
    assert 0.3 * 300 * share < left < 300 * min(1, 1.4 * share)
    assert np.abs(np.subtract(numbers, middles(10, left))).max() <= 1
    assert (reader.read, reader.missed) == (10, 0)
    assert reader.damaged
    assert reader.clip.cut_short
    assert reader.readable_seconds == pytest.approx(left / FPS, abs=0.09)
    assert reader.notes == (f"damaged: readable to 0:{int(reader.readable_seconds):02} of 0:12",)


def zeroed(data, begin, end):
    """An MP4 with zeros over a part of its pictures; its index is whole."""
    (at,) = find(data, b"mdat")
    size = int.from_bytes(data[at : at + 4], "big") - 8
    begin, end = at + 8 + int(begin * size), at + 8 + int(end * size)
    return data[:begin] + bytes(end - begin) + data[end:]


@pytest.mark.parametrize("codec", ["mp4v", "MJPG"])
def test_pictures_lost_at_the_end_are_planned_round(codec, monkeypatch):
    data = zeroed(clip(".mp4", codec), 0.5, 1)
    spy = Spy(monkeypatch)
    frames, reader = read(data, 10)
    numbers = [seen for _, seen, _ in frames]
    assert reader.clip.frames == 300
    assert (reader.read, reader.missed) == (10, 0)
    assert 100 < numbers[-1] < 160
    assert numbers[0] < 16
    assert np.ptp(np.diff(numbers)) <= 2
    assert reader.damaged
    (note,) = reader.notes
    assert note.startswith("damaged: readable to 0:0")
    assert note.endswith(" of 0:12")
    assert spy.decoded < 2.2 * 300


def test_pictures_lost_in_the_middle_are_counted():
    frames, reader = read(zeroed(clip(".mp4", "MJPG"), 0.4, 0.7), 10)
    numbers = [number for number, _, _ in frames]
    assert [seen for _, seen, _ in frames] == numbers
    assert set(numbers) > {15, 45, 75, 105, 225, 255, 285}
    assert reader.read + reader.missed == reader.planned == 10
    assert reader.missed in (2, 3)
    assert reader.notes == (f"{reader.missed} of 10 frames cannot be read",)
    assert not reader.damaged


def test_pictures_lost_at_the_end_of_a_clip_without_jumps_are_missed_and_noted():
    data = bytearray(lying("header says 0 frames"))
    at = len(data) // 2
    while (at := data.find(b"00dc", at) + 8) >= 8 and data[at] == 0xFF:
        size = int.from_bytes(data[at - 4 : at], "little")
        data[at : at + size] = bytes(size)
    frames, reader = read(bytes(data), 10)
    assert [seen for _, seen, _ in frames] == middles(10, 300)[: len(frames)]
    assert reader.clip.frames == 300
    assert reader.missed in (4, 5, 6)
    last = frames[-1][2]
    assert reader.readable_seconds == pytest.approx(last, abs=0.05)
    assert reader.notes == (
        f"damaged: readable to 0:0{int(last)} of 0:12",
        f"{reader.missed} of 10 frames cannot be read",
    )


def test_one_broken_picture_is_replaced_by_the_next():
    data = clip(".mp4", "MJPG")
    at = find(data, *STTS[:-1], b"stsz")[-1]
    sizes = struct.unpack(">300I", data[at + 20 : at + 20 + 1200])
    begin = find(data, b"mdat")[0] + 8 + sum(sizes[:15])
    broken = data[:begin] + bytes(sizes[15]) + data[begin + sizes[15] :]
    frames, reader = read(broken, 10)
    assert frames[0][0] == 16
    assert [seen for _, seen, _ in frames] == [number for number, _, _ in frames]
    assert reader.missed == 0


def test_nothing_but_broken_pictures():
    assert reason(zeroed(clip(".mp4", "MJPG"), 0, 1)) == "no frames can be read"
    assert reason(zeroed(timed([40] * 150 + [500] * 150), 0, 1)) == "no frames can be read"


AV1 = (  # two grey frames, compressed: OpenCV writes no AV1 either
    "c-oV4y}x*|Q(GgW({~{L)X3uWxsk)EsUtVBq$s~QJJG2fDAd}>BoW+@&d2})Osayuvr7)_Z#iA<ve$Qackt>KQO}"
    "iW!D|{9LU>{!>#~8okG{KmfIOj)!|B0mnivxxT$$kAK*=U1&NmR#7=jt74?ylYy}#wM{F^0O*EcrvJ306^^!g;0r"
    "I{J&83K`kQMe;2zj(=n^+Gx8XY97t`fdJG^Z6a8`!1aw4j~ZpKt6i4zvX~+`KNVIXGdReWGp_~q3Jy-J=NA)e@-K"
    "V($+c6rFkhGjSOwAVeyV(hRuzP%8#2{n3AFx9&~MJblBDC5VEO}CG=e*1I+VG3=GMOCNwheFmQ2!xa<En#4~V!g6"
    "!V@mU<DX4aLO^k`FYbpP1#kxZTyy+26%A$fX_4>BXCp4|FFZ+>(A`q3hxfm(U=`5Kn(Um-fj923BCCXJBCf0Sxla"
    "+e#1aZ~66ef#LH;hQ;$585kO1PUwtR;4tD5U|7e*Dxv_CVCGspt&u^4!AQV>iG@>TlClKY;S6&EK#@6pe~a|1jF{"
    "d1n;RLncL5X8$0o+Z9~wCU*)_Zc"
)


def test_a_codec_that_opencv_lacks_is_named():
    data = zlib.decompress(base64.b85decode(AV1))
    assert is_video(data)
    assert reason(data) == "AV1 is not read; convert it to H.264 or VP9"


def test_a_full_disk_is_told(monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    assert reason(clip()) == "no room for a temporary file (No space left on device)"


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_an_mp4_that_lost_its_index_is_truncated(share):
    whole = clip()
    assert reason(whole[: int(len(whole) * share)]) == "truncated"


@pytest.mark.parametrize("ending", [".mp4", ".webm", ".avi"])
def test_only_a_head(ending):
    data = clip(ending, {".mp4": "mp4v", ".webm": "VP90", ".avi": "MJPG"}[ending])
    assert reason(data[:64]) in ("truncated", "no frames can be read")


def test_damaged_bytes_give_frames_or_an_error_and_nothing_else():
    rng = random.Random(0)
    kinds = [clip(".mp4", "mp4v", 40), clip(".webm", "VP80", 40), clip(".avi", "MJPG", 40)]
    outcomes = set()
    for turn in range(120):
        data = bytearray(kinds[turn % 3])
        for _ in range(rng.choice([1, 5, 40])):
            near = rng.choice([len(data), 600])
            data[rng.randrange(near)] = rng.choice([0, 255, rng.randrange(256)])
        try:
            for frame in read_frames(bytes(data), 3):
                assert frame.pixels.ndim == 3
            outcomes.add("read")
        except ImageError as error:
            outcomes.add(error.reason)
    assert {"read", "no frames can be read"} <= outcomes


# -- what is a video --


def encoded(kind):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "p")
        PIL.Image.new("RGB", (32, 32)).save(path, kind)
        return path.read_bytes()


def boxed(brand):
    return struct.pack(">I4s4s", 24, b"ftyp", brand) + bytes(4) + brand + b"mif1" + bytes(64)


NO_VIDEOS = {
    "nothing": b"",
    "text": b"This is a text about videos.\n" * 20,
    "a playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n/etc/passwd\n#EXT-X-ENDLIST\n",
    "a list to concatenate": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "a session description": b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    "a manifest": b'<?xml version="1.0"?><MPD profiles="urn:mpeg:dash:profile:full:2011"></MPD>',
    "a manifest with a mark": b"<MPDftypisom" + b' dash:profile:full:2011 "/etc/passwd"' * 9,
    "a list with a mark": b"#EXTftyp\n#EXTM3U\n/etc/passwd\n",
    "Matroska without a type": b"\x1a\x45\xdf\xa3\x93" + bytes(90),
    "a sound": b"RIFF\x24\0\0\0WAVEfmt " + bytes(40),
    "a sound in boxes": boxed(b"M4A "),
    "a picture in boxes": boxed(b"avif"),
    "HEIC": boxed(b"heic"),
    "raw": boxed(b"crx "),
    "a short box": b"\0\0\0\x08ftypisom" + bytes(40),
    "four bytes": b"\0\0\0\x18",
}


@pytest.mark.parametrize("what", NO_VIDEOS)
def test_what_is_no_video_is_never_opened(what, tmp_path, monkeypatch):
    spy = Spy(monkeypatch)
    path = tmp_path / "clip.mp4"
    path.write_bytes(NO_VIDEOS[what])
    for source in (path, NO_VIDEOS[what]):
        assert not is_video(source)
        assert reason(source).startswith("empty file" if what == "nothing" else "not a video")
    assert spy.modes == []


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP", "BMP", "TIFF", "GIF", "AVIF"])
def test_pictures_are_no_videos(kind):
    assert not is_video(encoded(kind))


@pytest.mark.parametrize(("ending", "codec"), KINDS)
def test_the_content_tells_a_video_not_the_ending(ending, codec, tmp_path):
    path = tmp_path / "clip.txt"
    path.write_bytes(clip(ending, codec))
    assert is_video(path)
    assert is_video(clip(ending, codec))
    assert ending in SUFFIXES
    assert len(read(path, 3)[0]) == 3


@pytest.mark.parametrize("first", ["moov", "wide"])
def test_quicktime_of_old_has_no_type(first):
    data = clip(".mov")
    size = int.from_bytes(data[:4], "big")
    old = data[size:] if first == "wide" else index_first(data)[size:]
    old = poked(old, b"", 4, b"wide") if first == "wide" else old
    assert is_video(old)
    assert is_video(b"\0\0\0\x10wide" + bytes(8) + data)


def test_audio_and_video_in_one_file_may_say_it_in_other_words():
    assert is_video(boxed(b"isom").replace(b"mif1", b"mp42"))
    assert is_video(boxed(b"3gp4").replace(b"mif1", b"3gp5"))


# -- files and names --


@pytest.mark.parametrize(
    "name",
    [
        *(
            "two\nlines.mp4",
            "Zoë und 名前.mp4",
            "-y.mp4",
            "frame%03d.mp4",
            "frame%03d.jpg",
            "a|b.mp4",
        ),
        *(
            "concat:a.mp4",
            "file:a.mp4",
            "pipe:0",
            "rtsp:a",
            "*.mp4",
            "http:",
            "subfile,,start,0,end,9,,:a",
        ),
    ],
)
def test_a_name_is_only_a_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for n in range(3):  # what a pattern would find
        cv2.imwrite(f"frame{n:03}.jpg", np.zeros((64, 64, 3), np.uint8))
        Path(f"frame{n:03}.mp4").write_bytes(b"")
    Path("a.mp4").write_bytes(clip(frames=3))
    Path("a").write_bytes(clip(frames=3))
    Path(name).write_bytes(clip(frames=30))
    for path in (Path(name), tmp_path / name):
        assert is_video(path)
        assert [seen for _, seen, _ in read(path, 3)[0]] == [5, 15, 25]


@pytest.mark.parametrize(
    "name", ["http://127.0.0.1:9/a.mp4", "concat:a.mp4|b.mp4", "file:a.mp4", "frame%03d.jpg", "0"]
)
def test_an_address_or_pattern_is_no_such_file(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.mp4").write_bytes(clip())
    spy = Spy(monkeypatch)
    assert not is_video(Path(name))
    assert reason(Path(name)) == "no such file"
    assert spy.modes == []


def test_ffmpeg_is_given_no_name(tmp_path, monkeypatch):
    given = []
    real = cv2.VideoCapture
    video.hush()
    monkeypatch.setattr(cv2, "VideoCapture", lambda *a: (given.append(a), real(*a))[1])
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip())
    list(read_frames(path, 2))
    assert len(given) >= 2
    assert all(a[0].startswith("/dev/fd/") and a[1] == cv2.CAP_FFMPEG for a in given)


def test_an_error_tells_the_name_and_the_reason(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"text" * 99)
    with pytest.raises(ImageError) as caught:
        read_frames(path, 1)
    assert str(caught.value) == f"{path}: {caught.value.reason}"
    assert caught.value.reason == f"not a video; expected {', '.join(CONTAINERS)}"
    with pytest.raises(ImageError) as caught:
        read_frames(b"text" * 99, 1)
    assert str(caught.value) == caught.value.reason


def test_a_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    outcomes = []
    thread = threading.Thread(
        target=lambda: outcomes.extend(
            [is_video(tmp_path / "pipe.mp4"), reason(tmp_path / "pipe.mp4")]
        ),
        daemon=True,
    )
    thread.start()
    thread.join(20)
    assert outcomes == [False, "not a regular file"]


def test_what_is_no_file_is_refused(tmp_path):
    (tmp_path / "to nowhere.mp4").symlink_to(tmp_path / "missing")
    reasons = {
        tmp_path: "a folder, not a file",
        tmp_path / "missing.mp4": "no such file",
        tmp_path / "to nowhere.mp4": "broken link",
        Path("/dev/null"): "not a regular file",
        Path("a\0b.mp4"): "not a valid file name",
    }
    for path, expectation in reasons.items():
        assert not is_video(path)
        assert reason(path) == expectation


# -- limits --


def test_the_size_of_a_frame_is_checked_before_any_is_decoded(monkeypatch):
    spy = Spy(monkeypatch)
    assert reason(clip(), max_pixels=WIDTH * HEIGHT - 1) == "more than 0.01536 megapixels a frame"
    assert spy.modes == ["packets"]
    assert len(read(clip(), 2, max_pixels=WIDTH * HEIGHT)[0]) == 2


def test_a_size_that_no_frame_can_have_is_refused_at_once(monkeypatch):
    spy = Spy(monkeypatch)
    huge = poked(clip(".avi", "FFV1"), b"strf", 4 + 4, struct.pack("<ii", 16000, 16000))
    assert reason(huge) == "more than 40 megapixels a frame"
    assert spy.decoded == 0


def test_large_files_and_many_frames_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    path.write_bytes(clip())
    spy = Spy(monkeypatch)
    for source in (path, clip()):
        assert reason(source, max_bytes=1024) == "larger than 0.0009766 MiB"
    assert spy.modes == []
    assert reason(path, max_frames=299) == "more than 299 frames"
    assert spy.modes == ["packets"]
    assert len(read(path, 2, max_frames=300, max_bytes=len(clip()))[0]) == 2


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="Linux tells the peak")
def test_memory_does_not_grow_with_the_clip(tmp_path):
    shape = (240, 320, 3)
    for name, frames in (("short", 30), ("long", 1000)):
        pictures = [np.full(shape, n % 256, np.uint8) for n in range(256)]
        written(tmp_path / f"{name}.avi", [pictures[n % 256] for n in range(frames)], "MJPG")
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from bonaface.video import read_frames
        n = sum(1 for frame in read_frames(Path(sys.argv[1]), int(sys.argv[2])))
        lines = Path("/proc/self/status").read_text().splitlines()
        # getrusage would begin with the peak of the process that started this one
        print(n, *(line.split()[1] for line in lines if line.startswith("VmHWM")))
    """)
    peaks = {}
    for name, frames in (("short", 30), ("long", 1000)):
        command = [sys.executable, "-c", script, str(tmp_path / f"{name}.avi"), str(frames)]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        assert int(out[0]) == frames
        peaks[name] = int(out[1]) / 1024
    assert 1000 * np.prod(shape) / 2**20 > 200  # what it would take to hold them
    assert peaks["long"] - peaks["short"] < 60


# -- manners --


def test_nothing_is_written_to_the_terminal_and_settings_are_put_back(tmp_path):
    data = {"cut": clip()[:2000], "head": clip(".avi", "MJPG")[:300]}
    data["zeros"] = zeroed(clip(".mp4", "MJPG"), 0.3, 1)
    data["mp4v"] = zeroed(clip(), 0.3, 0.6)
    for name, each in data.items():
        (tmp_path / name).write_bytes(each)
    script = textwrap.dedent("""
        import os, sys
        from pathlib import Path
        import cv2
        from bonaface.errors import ImageError
        from bonaface.video import read_frames
        before, level = dict(os.environ), cv2.utils.logging.getLogLevel()
        assert level > 0
        for path in sys.argv[1:]:
            try:
                for frame in read_frames(Path(path), 9):
                    assert cv2.utils.logging.getLogLevel() == level
            except ImageError:
                pass
            assert cv2.utils.logging.getLogLevel() == level
        assert dict(os.environ) == before
        if os.environ.get("LOUD"):
            cv2.VideoCapture(sys.argv[1], cv2.CAP_FFMPEG)
    """)
    command = [sys.executable, "-c", script, *(str(tmp_path / name) for name in data)]
    clean = {name: value for name, value in os.environ.items() if "OPENCV" not in name}
    for loud in ("", "1"):
        done = subprocess.run(command, capture_output=True, check=True, env={**clean, "LOUD": loud})
        assert bool(done.stdout + done.stderr) == bool(loud)


def test_files_are_closed_and_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "clip.mp4").write_bytes(clip())

    def still_open():
        return len(list(Path("/dev/fd").iterdir()))

    before = still_open()
    for source in (tmp_path / "clip.mp4", clip()):
        to_the_end = read_frames(source, 3)
        assert len(list(to_the_end)) == 3
        assert still_open() == before
        with read_frames(source, 3) as not_to_the_end:
            next(not_to_the_end)
            assert list(tmp_path.iterdir()) == [tmp_path / "clip.mp4"]
            assert still_open() > before
        assert list(not_to_the_end) == []
        not_at_all = read_frames(source, 3)
        not_at_all.close()
        assert reason(source, max_pixels=1)
        assert reason(source, max_bytes=1)
        assert still_open() == before
    assert list(tmp_path.iterdir()) == [tmp_path / "clip.mp4"]


def test_several_threads_read_at_once():
    level = cv2.utils.logging.getLogLevel()
    sources = [clip(ending, codec) for ending, codec in KINDS] + [clip()[:900]] * 2

    def numbers(data):
        try:
            return [seen for _, seen, _ in read(data, 6)[0]]
        except ImageError as error:
            return error.reason

    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(numbers, sources))
    assert got == [middles(6, 300)] * len(KINDS) + ["truncated"] * 2
    assert cv2.utils.logging.getLogLevel() == level


# -- real clips --


@pytest.mark.realdata
@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data/videos is not here")
@pytest.mark.parametrize(
    ("name", "frames", "size"),
    [
        ("real_519.mp4", 751, (640, 480)),
        ("fake_519_515.mp4", 751, (640, 480)),
        ("real_two_people.mp4", 275, (640, 360)),
    ],
)
def test_real_clips(name, frames, size):
    reader = read_frames(REAL / name, 6)
    given = list(reader)
    assert (reader.clip.frames, reader.clip.width, reader.clip.height) == (frames, *size)
    assert [frame.number for frame in given] == middles(6, frames)
    assert reader.notes == ()
    capture = cv2.VideoCapture(str(REAL / name), cv2.CAP_FFMPEG)
    for n in range(given[1].number + 1):
        assert capture.grab()
        if n in {frame.number for frame in given}:
            expectation = capture.retrieve()[1][..., ::-1]
            (frame,) = (frame for frame in given if frame.number == n)
            assert np.array_equal(frame.pixels, expectation)


@pytest.mark.realdata
@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data/videos is not here")
def test_a_real_clip_with_a_hole_is_read_on_after_it():
    data = zeroed(index_first((REAL / "real_two_people.mp4").read_bytes()), 0.3, 0.5)
    reader = read_frames(data, 8)
    seconds = [frame.seconds for frame in reader]
    assert reader.clip.seconds == pytest.approx(9.176, abs=0.01)
    assert seconds[-1] > 8
