"""A video that does not end: a file that grows, a pipe, standard input, to its newest frames.

Two threads work. One carries bytes into a pipe of our own, the other decodes what comes out of it,
as fast as it comes; frames that nobody takes in time are dropped and counted. FFmpeg is given the
number of that pipe and the one format that the first bytes show, so that nothing in them can lead
it to other files or to a network.
"""

from __future__ import annotations

import os
import select
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

import cv2
import numpy as np

from bonaface.errors import ConfigError, ImageError
from bonaface.images import os_reason
from bonaface.video import CONTAINERS, DEFAULT_LIMITS, Frame, VideoLimits, container_of, hush, quiet

MPEG_TS: Final = "MPEG-TS"
MJPEG: Final = "MJPEG"
STDIN: Final = "-"
_MP4, _MATROSKA, _AVI = CONTAINERS
_DEMUXERS: Final = {  # FFmpeg's names
    _MP4: "mov", _MATROSKA: "matroska", _AVI: "avi", MPEG_TS: "mpegts", MJPEG: "mjpeg",
}  # fmt: skip
_HEAD: Final = 1024  # bytes that show what a stream is
_PACKET: Final = 188  # bytes of MPEG-TS, the first of which is _SYNC
_SYNC: Final = 0x47
_PIECE: Final = 65536  # bytes
_PULSE: Final = 0.1  # seconds between two looks at whether to stop
_FILE_IDLE: Final = 10.0  # seconds
_KEPT: Final = 4  # frames that may wait: pipes bring them in bursts
_PATIENCE: Final = 1000  # failures in a row after which a stream is over; at its end they cost 1 ms
_CALM: Final = 25  # good frames in a row that end a broken stretch
_JUMP: Final = 1.0  # seconds
_BEHIND: Final = 1.0  # seconds
_OPTIONS: Final = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
_OPENING: Final = threading.Lock()


@dataclass(frozen=True, slots=True)
class Arrived:
    """A frame, and when it was decoded (`time.monotonic`)."""

    frame: Frame
    at: float


@dataclass(frozen=True, slots=True)
class Flow:
    """What became of the frames so far: seen = taken + dropped + waiting.

    Attributes:
        seen: frames that were decoded.
        dropped: of these, never to be taken.
        waiting: of these, still to be had.
        broken: stretches that could not be decoded, or over which the stream's clock jumped.
        unread: bytes of a file that lie there and were not read yet; None of a pipe.
        behind: seconds since the source last had nothing more for us; 0.0 where that was within
            the last second. Above, decoding does not keep up, or a backlog is worked off.
        most_behind: the largest that was.
    """

    seen: int
    dropped: int
    waiting: int
    broken: int
    unread: int | None
    behind: float
    most_behind: float


class Stream:
    """The newest frames of a video that does not end; to be closed.

    While FFmpeg makes out what it is given (as long as that takes), clips that other threads of
    the process open are taken for the same format: OpenCV is told by an environment variable.

    Args:
        source: a file, which may grow; a named pipe; or "-", standard input.
        idle: seconds without a byte after which it is over; None: 10 for a file, and for a pipe
            none, which is over when it is closed.
        limits: `max_pixels` is kept; the others are those of a clip that ends.

    Attributes:
        name: the source as it was given.
        ended: why it is over; None while it goes on.

    Raises:
        ImageError: it is not there, or neither file nor pipe.
        ConfigError: this system has no /dev/fd, or `idle` is not above 0.
    """

    def __init__(
        self, source: Path | str, idle: float | None = None, limits: VideoLimits = DEFAULT_LIMITS
    ) -> None:
        if not Path("/dev/fd").exists():
            raise ConfigError("expected /dev/fd, got a system without it; follow on Linux or macOS")
        if idle is not None and not idle > 0:
            raise ConfigError(f"expected an idle time above 0 seconds, got {idle}; give more")
        self.name = str(source)
        self._handle, kind = _opened(self.name)
        self._grows, self._named = stat.S_ISREG(kind), self.name != STDIN
        self._idle = _FILE_IDLE if idle is None and self._grows else idle
        self._limits = limits
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._frames: deque[Arrived] = deque()
        self._seen = self._dropped = self._broken = 0
        self._calm, self._clock, self._step = _CALM, 0.0, 0.0
        self._why: str | None = None
        self._caught_up, self._most_behind = time.monotonic(), 0.0
        self.ended: str | None = None
        self._carrier = threading.Thread(target=self._carry, name="carry", daemon=True)
        self._carrier.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop both threads; frames that wait are dropped."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._carrier.join()
        os.close(self._handle)
        with self._changed:
            self._dropped += len(self._frames)
            self._frames.clear()

    def take(self, wait: float) -> Arrived | None:
        """The next frame, waited for so many seconds; None: none came, or the stream is over.

        Where frames come faster than they are taken, all but the newest are dropped.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self.ended, wait)
            if not self._frames:
                return None
            found = self._frames.popleft()
        pixels = np.asarray(cv2.cvtColor(found.frame.pixels, cv2.COLOR_BGR2RGB), np.uint8)
        return replace(found, frame=replace(found.frame, pixels=pixels))

    def flow(self) -> Flow:
        """What became of the frames so far."""
        unread = None
        if self._grows and not self._stop.is_set():
            unread = max(0, os.fstat(self._handle).st_size - os.lseek(self._handle, 0, os.SEEK_CUR))
        behind = self._behind() if self._why is None else 0.0
        with self._changed:
            return Flow(
                self._seen,
                self._dropped,
                len(self._frames),
                self._broken,
                unread,
                behind,
                self._most_behind,
            )

    # -- bytes --

    def _carry(self) -> None:
        """From the source to the decoder, until one of them ends."""
        pieces, head = self._pieces(), b""
        for piece in pieces:
            head += piece
            if len(head) >= _HEAD:
                break
        try:
            demuxer, start = _told(head)
        except ImageError as error:
            self._end(error.reason if head else f"nothing came: {self._why}")
            return
        exit_, entry = os.pipe()
        decoder = threading.Thread(
            target=self._decode, args=(exit_, demuxer), name="decode", daemon=True
        )
        decoder.start()
        try:
            _write(entry, head[start:])
            for piece in pieces:
                _write(entry, piece)
        except BrokenPipeError:  # the decoder gave up
            pass
        finally:
            os.close(entry)
            decoder.join()

    def _pieces(self) -> Iterator[bytes]:
        """What comes, piece by piece, until it ends; then `_why` says why."""
        last, begun = time.monotonic(), False
        while not self._stop.is_set():
            try:
                piece = self._piece(begun)
            except OSError as error:
                self._why = os_reason(Path(self.name), error)
                return
            if piece:
                begun = True
                yield piece
                last = time.monotonic()
                self._most_behind = max(self._most_behind, self._behind())
            elif piece is None:
                self._why = "the pipe was closed"
                return
            elif self._idle is not None and time.monotonic() - last > self._idle:
                self._why = f"no byte came for {self._idle:g} s"
                return
        self._why = "stopped"

    def _piece(self, begun: bool) -> bytes | None:
        """What is there now; b"" where nothing is, None at the end."""
        if self._grows:
            piece = os.read(self._handle, _PIECE)
            if not piece:
                self._caught_up = time.monotonic()
                self._stop.wait(_PULSE)
            return piece
        poll = select.poll()
        poll.register(self._handle, select.POLLIN)
        if not poll.poll(0):
            there = poll.poll(1000 * _PULSE)
            self._caught_up = time.monotonic()
            if not there:
                return b""
        piece = os.read(self._handle, _PIECE)
        if piece or begun or not self._named:
            return piece or None
        self._stop.wait(_PULSE)  # a named pipe that nobody has opened to write
        return b""

    def _behind(self) -> float:
        seconds = time.monotonic() - self._caught_up
        return round(seconds, 1) if seconds >= _BEHIND else 0.0

    # -- frames --

    def _decode(self, handle: int, demuxer: str) -> None:
        why = None
        try:
            with quiet():
                capture = _opened_as(demuxer, handle)
                try:
                    why = self._read(capture)
                finally:
                    capture.release()
        except cv2.error:
            pass
        finally:
            if not self._seen:
                why = why or "no frames can be read"
            self._end(why or self._why or "damaged: it cannot be read on")

    def _read(self, capture: Any) -> str | None:
        """Decode until the end; returns why, where that is not for want of bytes."""
        failed = 0
        while failed < _PATIENCE:
            if self._stop.is_set():
                return "stopped"
            try:
                there, pixels = capture.read()
            except cv2.error:
                there = False
            if not there:
                failed += 1
                continue
            if pixels.shape[0] * pixels.shape[1] > self._limits.max_pixels:
                return f"more than {self._limits.max_pixels / 1e6:.4g} megapixels a frame"
            self._arrive(pixels, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, failed > 0)
            failed = 0
        return None

    def _arrive(self, pixels: Any, seconds: float, trouble: bool) -> None:
        step = seconds - self._clock
        jumped = not 0 < step <= max(_JUMP, 5 * self._step)
        trouble = trouble or (jumped and self._seen > 0)
        self._clock, self._step = seconds, step
        # The edges of a gap come in disorder: that is one broken stretch.
        begins = trouble and self._calm >= _CALM
        self._calm = 0 if trouble else self._calm + 1
        frame = Frame(self._seen, seconds, pixels)
        with self._changed:
            self._seen += 1
            self._broken += begins
            if len(self._frames) >= _KEPT:  # whoever takes them does not keep up
                self._dropped += len(self._frames)
                self._frames.clear()
            self._frames.append(Arrived(frame, time.monotonic()))
            self._changed.notify_all()

    def _end(self, why: str) -> None:
        with self._changed:
            self.ended = why
            self._changed.notify_all()


def _opened(name: str) -> tuple[int, int]:
    """The number of an open file or pipe, and its mode."""
    try:
        if name == STDIN:
            handle = os.dup(sys.stdin.fileno())
        else:  # a pipe would wait for a writer
            handle = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
    except (ValueError, OSError) as error:
        reason = os_reason(Path(name), error) if isinstance(error, OSError) else "no such file"
        raise ImageError(reason, name) from error
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        return handle, mode
    os.close(handle)
    raise ImageError("neither a file nor a pipe", name)


def _told(head: bytes) -> tuple[str, int]:
    """Of the first bytes of a stream: what FFmpeg calls its format, and where it starts.

    Raises:
        ImageError: none of `_DEMUXERS`, or an MP4 that cannot be read before it ends.
    """
    found = container_of(head)
    if found == _MP4 and _index_comes_last(head):
        raise ImageError(
            "an MP4 with its index at the end can be read only when it is finished; write "
            "MPEG-TS, Matroska, or a fragmented MP4"
        )
    if found is None and head[:3] == b"\xff\xd8\xff":
        found = MJPEG
    if found:
        return _DEMUXERS[found], 0
    for start in range(_PACKET):  # a listener may join in the middle of a packet
        syncs = head[start::_PACKET][:3]
        if len(syncs) == 3 and set(syncs) == {_SYNC}:
            return _DEMUXERS[MPEG_TS], start
    raise ImageError(f"not a video; expected {', '.join(_DEMUXERS)}")


def _index_comes_last(head: bytes) -> bool:
    at = 0
    while at + 8 <= len(head):
        size, kind = int.from_bytes(head[at : at + 4], "big"), head[at + 4 : at + 8]
        if kind in (b"moov", b"mdat"):
            return kind == b"mdat"
        if size < 8:
            break
        at += size
    return False


def _opened_as(demuxer: str, handle: int) -> Any:
    """OpenCV's reader of the pipe with that number, which is closed here: FFmpeg opens it anew."""
    hush()
    # Little is read to make a stream out, and nothing is held back: what comes is to be seen.
    options = (
        f"input_format;{demuxer}|protocol_whitelist;file|probesize;65536|analyzeduration;500000"
    )
    settings = [
        *(cv2.CAP_PROP_N_THREADS, 2),
        *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 0),  # a camera may be silent for long
        *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, 0),
    ]
    with _OPENING:
        before = os.environ.get(_OPTIONS)
        os.environ[_OPTIONS] = options
        try:
            return cv2.VideoCapture(f"/dev/fd/{handle}", cv2.CAP_FFMPEG, settings)
        finally:
            os.close(handle)
            if before is None:
                del os.environ[_OPTIONS]
            else:
                os.environ[_OPTIONS] = before


def _write(handle: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(handle, rest) :]
