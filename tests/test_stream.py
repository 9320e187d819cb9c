"""Videos that do not end: what is kept, what is dropped, how it ends; and that no name leaks."""

import os
import struct
import threading
import time
from functools import cache

import cv2
import numpy as np
import pytest

from bonaface import stream as streams
from bonaface.errors import ConfigError, ImageError
from bonaface.stream import Stream
from bonaface.video import VideoLimits
from test_video import picture, shown, written

FRAMES = 100
KINDS = {".ts": "mpg2", ".mkv": "VP80", ".mjpeg": "MJPG", ".avi": "MJPG"}
SOON = 60  # seconds that nothing here should take; the machine may be busy


@cache
def clip(ending, frames=FRAMES):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"c{ending}")
        return written(path, [picture(n) for n in range(frames)], KINDS.get(ending, "mp4v"))


@pytest.fixture
def pipe(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def fed(path, data, piece=4096):
    """A thread that writes into a pipe and closes it."""

    def feed():
        try:
            with path.open("wb", buffering=0) as file:
                for at in range(0, len(data), piece):
                    file.write(data[at : at + piece])
        except BrokenPipeError:
            pass

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    return thread


def everything(stream):
    """Frames taken as fast as they come, until the end."""
    found, until = [], time.monotonic() + SOON
    while time.monotonic() < until:
        arrived = stream.take(0.2)
        if arrived is not None:
            found.append(arrived.frame)
        elif stream.ended is not None:
            return found
    raise AssertionError("it does not end")


def adds_up(stream, taken):
    flow = stream.flow()
    return flow.seen == taken + flow.dropped + flow.waiting


@pytest.mark.parametrize("ending", KINDS)
def test_every_frame_comes_through_a_pipe(pipe, ending, monkeypatch):
    monkeypatch.setattr(streams, "_KEPT", FRAMES)  # whoever takes them may have to wait
    with Stream(pipe) as stream:
        fed(pipe, clip(ending))
        found = everything(stream)
        assert [shown(frame.pixels) for frame in found] == list(range(FRAMES))
        assert [frame.number for frame in found] == list(range(FRAMES))
        seconds = [frame.seconds for frame in found]
        assert np.diff(seconds) == pytest.approx(0.04, abs=0.002)
        flow = stream.flow()
        assert (flow.seen, flow.dropped, flow.waiting, flow.broken) == (FRAMES, 0, 0, 0)
        assert stream.ended == "the pipe was closed"


def test_a_fragmented_mp4_comes_through_a_pipe_and_one_without_is_refused(pipe):
    with Stream(pipe) as stream:
        fed(pipe, clip(".mp4"))
        assert everything(stream) == []
        assert "index at the end" in stream.ended
        assert "fragmented" in stream.ended


def test_who_does_not_keep_up_gets_the_newest(pipe):
    data = clip(".ts")
    with Stream(pipe) as stream:
        fed(pipe, data)
        taken = []
        while (arrived := stream.take(SOON)) is not None:
            taken.append(shown(arrived.frame.pixels))
            if stream.flow().seen < FRAMES - 10:
                before = stream.flow().seen
                while stream.flow().seen < min(before + 20, FRAMES):  # judging takes 20 frames
                    time.sleep(0.001)
            assert adds_up(stream, len(taken))
        assert taken == sorted(set(taken))
        assert len(taken) < FRAMES / 3
        assert taken[-1] == FRAMES - 1  # the end is never what is dropped
        # What was taken next had come within the last frames before it was asked for.
        assert stream.flow().dropped == FRAMES - len(taken)


def test_frames_that_wait_are_few(pipe):
    with Stream(pipe) as stream:
        fed(pipe, clip(".ts"))
        until = time.monotonic() + SOON
        while stream.ended is None and time.monotonic() < until:
            assert stream.flow().waiting <= streams._KEPT
            time.sleep(0.001)
        waiting = stream.flow().waiting
        assert 1 <= waiting <= streams._KEPT
        assert len(everything(stream)) == waiting
        assert adds_up(stream, waiting)


def test_closing_drops_what_waits_and_stops_the_writer(pipe):
    stream = Stream(pipe)
    writer = fed(pipe, clip(".ts") * 50)
    assert stream.take(SOON) is not None
    stream.close()
    stream.close()
    writer.join(SOON)
    assert not writer.is_alive()
    assert stream.ended == "stopped"
    assert stream.flow().waiting == 0
    assert adds_up(stream, 1)
    assert stream.take(0) is None


def test_a_file_that_grows_is_followed_until_it_stops(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "_KEPT", FRAMES)
    path, data = tmp_path / "growing.ts", clip(".ts")
    path.write_bytes(data[:1000])
    with Stream(path, idle=1.5) as stream, path.open("ab", buffering=0) as file:
        found = []
        for at in range(1000, len(data), 20_000):
            file.write(data[at : at + 20_000])
            time.sleep(0.05)
            while (arrived := stream.take(0)) is not None:
                found.append(arrived.frame)
        found += everything(stream)
        assert [shown(frame.pixels) for frame in found] == list(range(FRAMES))
        assert stream.ended == "no byte came for 1.5 s"
        assert stream.flow().unread == 0


def test_a_truncated_tail_ends_it_quietly(pipe, monkeypatch):
    monkeypatch.setattr(streams, "_KEPT", FRAMES)
    for ending in (".ts", ".mkv", ".mjpeg"):
        data = clip(ending)
        with Stream(pipe) as stream:
            fed(pipe, data[: int(0.7 * len(data))])
            numbers = [shown(frame.pixels) for frame in everything(stream)]
            assert numbers[:30] == list(range(30))
            assert 50 < len(numbers) < FRAMES
            assert stream.ended == "the pipe was closed"


@pytest.mark.parametrize("ending", [".ts", ".mkv", ".mjpeg"])
def test_a_broken_stretch_is_skipped_and_counted(pipe, ending, monkeypatch):
    monkeypatch.setattr(streams, "_KEPT", 3 * FRAMES)
    data = bytearray(clip(ending, 200))
    begin, end = int(0.4 * len(data)), int(0.6 * len(data))
    rng = np.random.default_rng(3)
    data[begin:end] = rng.integers(0, 255, end - begin, np.uint8).tobytes()
    with Stream(pipe) as stream:
        fed(pipe, bytes(data))
        found = everything(stream)
        assert shown(found[10].pixels) == 10
        assert shown(found[-1].pixels) == 199
        assert 100 < len(found) < 190
        assert stream.flow().broken == (ending != ".mjpeg")  # which has no clock to show a gap
        assert stream.ended == "the pipe was closed"


def test_a_listener_may_join_in_the_middle(pipe, monkeypatch):
    monkeypatch.setattr(streams, "_KEPT", FRAMES)
    data = clip(".ts")
    with Stream(pipe) as stream:
        fed(pipe, data[len(data) // 3 + 77 :])
        numbers = [shown(frame.pixels) for frame in everything(stream)]
    assert len(numbers) > 30
    assert numbers[-1] == FRAMES - 1


# -- streams that are none --


def test_one_that_never_starts(tmp_path, pipe):
    (tmp_path / "empty.ts").write_bytes(b"")
    for source in (pipe, tmp_path / "empty.ts"):
        with Stream(source, idle=0.3) as stream:
            assert everything(stream) == []
            assert stream.ended == "nothing came: no byte came for 0.3 s"
            assert stream.flow().seen == 0


def test_a_silent_pipe_can_be_closed(pipe):
    stream = Stream(pipe)
    assert stream.take(0.05) is None
    assert stream.ended is None
    stream.close()
    assert stream.ended == "nothing came: stopped"


SDP = b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n"
DISGUISED = b"G" + SDP.ljust(187, b"\n") + (b"G" + b"\n" * 187) * 9


@pytest.mark.parametrize(
    "data",
    [
        b"#EXTM3U\n#EXTINF:9,\n/etc/passwd\n" * 40,
        b"ffconcat version 1.0\nfile /etc/passwd\n" * 40,
        SDP * 20,
        b"<?xml version='1.0'?><MPD profiles='dash'></MPD>" * 40,
        b"text" * 400,
        b"x",
    ],
)
def test_what_is_no_video_never_reaches_ffmpeg(pipe, data, monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: pytest.fail("opened"))
    with Stream(pipe) as stream:
        fed(pipe, data)
        assert everything(stream) == []
        assert stream.ended.startswith("not a video; expected MP4")


def test_ffmpeg_is_told_the_format_and_given_a_number(pipe, monkeypatch):
    given = []
    real = cv2.VideoCapture

    def spying(*arguments):
        given.append((arguments[0], os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"]))
        return real(*arguments)

    streams.hush()
    monkeypatch.setattr(cv2, "VideoCapture", spying)
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "of;the user")
    with Stream(pipe) as stream:  # a playlist that looks like MPEG-TS is read as MPEG-TS
        fed(pipe, DISGUISED)
        assert everything(stream) == []
        assert stream.ended == "no frames can be read"
    ((name, options),) = given
    assert name.startswith("/dev/fd/")
    assert "input_format;mpegts|protocol_whitelist;file|" in options
    assert os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] == "of;the user"


@pytest.mark.parametrize("name", ["http://127.0.0.1:9/a.ts", "rtsp:a", "pipe:0", "a\0b"])
def test_an_address_is_no_such_file(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageError, match="no such file"):
        Stream(name)


def test_what_is_neither_file_nor_pipe_is_refused(tmp_path):
    with pytest.raises(ImageError, match="neither a file nor a pipe"):
        Stream(tmp_path)
    with pytest.raises(ImageError, match="neither a file nor a pipe"):
        Stream("/dev/null")


@pytest.mark.parametrize("idle", [0, -1, float("nan")])
def test_an_idle_time_is_above_zero(tmp_path, idle):
    with pytest.raises(ConfigError, match="above 0"):
        Stream(tmp_path / "a.ts", idle)


def test_large_frames_end_it(pipe):
    with Stream(pipe, limits=VideoLimits(max_pixels=1000)) as stream:
        fed(pipe, clip(".ts"))
        assert everything(stream) == []
        assert stream.ended == "more than 0.001 megapixels a frame"


def test_where_the_index_of_an_mp4_lies():
    def box(kind, size=16):
        return struct.pack(">I4s", size, kind) + bytes(size - 8)

    head = box(b"ftyp", 24)
    assert streams._index_comes_last(head + box(b"free") + box(b"mdat"))
    assert not streams._index_comes_last(head + box(b"moov") + box(b"mdat"))
    assert not streams._index_comes_last(head + struct.pack(">I4s", 0, b"free"))
