"""A clip to frames spread evenly over it, with limits that hold before anything is decoded.

What a header says of length and rate is not believed. The file is first read through without
decoding, which costs little more than reading its bytes and gives the time of every frame that is
really there; then only what lies between a key frame and a wanted frame is decoded. FFmpeg is
given the number of an open file, never a name that could be a pattern, an address or a protocol,
and never content that is a list of other files.
"""

from __future__ import annotations

import io
import math
import os
import stat
import tempfile
import threading
from array import array
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, Final, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from bonaface.errors import ConfigError, ImageError
from bonaface.images import os_reason

SUFFIXES: Final = frozenset(
    {".mp4", ".m4v", ".mov", ".3gp", ".webm", ".mkv", ".avi"}
)  # by which clips are found; the content decides how one is read
CONTAINERS: Final = ("MP4 or QuickTime", "Matroska or WebM", "AVI")
_MP4, _MATROSKA, _AVI = CONTAINERS
_NO_CLIP: Final = frozenset(  # brands of pictures and of sound in MP4's boxes
    {b"avif", b"avis", b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}
    | {b"crx ", b"M4A ", b"M4B ", b"M4P ", b"F4A ", b"F4B "}
)
_OLD_QUICKTIME: Final = frozenset({b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})
_THREADS: Final = 2  # each holds a frame
_LANDING: Final = 18  # told to go to a frame, OpenCV aims 16 before it; 2 more for rounding
_WORTH_A_JUMP: Final = 32  # as many frames in a row are decoded sooner than a jump is made
_PATIENCE: Final = 10_000  # damaged packets in a row after which a clip counts as ended
_HEAD: Final = 256
_MOST_BOXES: Final = 100_000
_LOCK: Final = threading.Lock()
_LEVELS: Final[list[int]] = []  # of OpenCV's log: the one to go back to, then one for each user


@dataclass(frozen=True, slots=True)
class VideoLimits:
    """What a clip may cost: size of the file, pixels of a frame, frames that it holds, length."""

    max_bytes: int = 4 * 2**30
    max_pixels: int = 40_000_000
    max_frames: int = 1_000_000
    max_seconds: float = math.inf


DEFAULT_LIMITS: Final = VideoLimits()


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One decoded frame.

    Attributes:
        number: its place among the frames that the file holds, from 0, in the order of showing.
        seconds: when it is shown, counted from the first.
        pixels: uint8, height x width x 3, RGB, upright, C-contiguous, writable.
    """

    number: int
    seconds: float
    pixels: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Clip:
    """What a file holds, found without decoding it.

    Attributes:
        container: one of `CONTAINERS`, found from the content.
        codec: four letters such as "h264" or "VP90"; empty where unknown.
        width: of an upright frame.
        height: of an upright frame.
        frames: how many there are; whether each can be decoded is not said.
        seconds: how long they last.
        claimed_seconds: how long the header says the clip lasts; None where it does not.
        cut_short: the container says that bytes are missing.
    """

    container: str
    codec: str
    width: int
    height: int
    frames: int
    seconds: float
    claimed_seconds: float | None
    cut_short: bool


def is_video(source: Path | bytes) -> bool:
    """Whether the content is a clip in one of `CONTAINERS`; False for what cannot be opened."""
    if isinstance(source, bytes | bytearray | memoryview):
        return container_of(bytes(source[:_HEAD])) is not None
    try:
        with _opened(source, None) as file:
            return container_of(file.read(_HEAD)) is not None
    except (ImageError, OSError):
        return False


def read_frames(source: Path | bytes, count: int, limits: VideoLimits = DEFAULT_LIMITS) -> Frames:
    """Give `count` frames spread evenly over the whole clip, in order, one at a time.

    They are those in the middle of `count` parts of equal length. A clip with fewer frames gives
    each once; one that can be read only up to some point has the frames spread up to there.

    Raises:
        ImageError: with the reason, at once or while iterating: not a video, over a limit,
            truncated, nothing that can be decoded.
    """
    if count < 1:
        raise ConfigError(f"expected at least 1 frame to read, got {count}; ask for more")
    name = None
    if isinstance(source, bytes | bytearray | memoryview):
        file = _written(source, limits)
    else:
        name = os.fsencode(source).decode("utf-8", "backslashreplace")
        file = _opened(source, name)
    reader = _Reader(file, name, limits)
    try:
        with quiet():
            return Frames(reader, count)
    except OSError as error:
        reader.close()
        raise ImageError(f"cannot be read ({error.strerror})", name) from error
    except BaseException:
        reader.close()
        raise


class Frames(Iterator[Frame]):
    """The frames of one clip, to be iterated over once; one decoded frame is held at a time.

    Attributes:
        clip: what the file holds.
        asked: how many frames were asked for.
        planned: how many of those the clip has.
        read: how many were given so far.
        missed: how many could not be read so far.
        readable_seconds: up to where the clip can be read, as far as is known.
    """

    def __init__(self, reader: _Reader, count: int) -> None:
        self._reader, self.clip = reader, reader.survey()
        self.asked, self.read, self.missed = count, 0, 0
        there = np.arange(self.clip.frames)
        plan = _spread(reader.times, reader.step, count)
        # What is there may not decode. The last place is tried first, where that is cheap; if it
        # fails, the frames are spread over those that do decode.
        if reader.fps > 0:
            if not reader.go(int(plan[-1])):
                there = reader.decodable()
                plan = there[_spread(reader.times[there], reader.step, count)]
            reader.start_over()
        self.planned = len(plan)
        self._end_at(int(there[-1]), self.clip.frames - len(there))
        self._frames = self._walk([*plan.tolist(), self.clip.frames])

    def __next__(self) -> Frame:
        return next(self._frames)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; reading to the end does it too."""
        self._frames.close()
        self._reader.close()

    @property
    def damaged(self) -> bool:
        """Whether bytes are missing or frames at the end cannot be decoded, as far as is known."""
        # An edit list hides frames too, but never as far as the second key frame.
        return self.clip.cut_short or self._lost >= self._reader.second_key

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know about the clip; complete when all frames are read."""
        end, whole = self.readable_seconds, max(self.clip.seconds, self.clip.claimed_seconds or 0)
        notes = []
        if self.damaged:
            of = f" of {_clock(whole)}" if whole > end + 0.5 else ""
            notes.append(f"damaged: readable to {_clock(end)}{of}")
        elif whole > end + max(1, 0.05 * whole):  # an edit list, sound that is longer, damage
            notes.append(f"{_clock(end)} of {_clock(whole)} can be shown")
        if self.missed:
            notes.append(f"{self.missed} of {self.planned} frames cannot be read")
        return tuple(notes)

    def _end_at(self, number: int, lost: int) -> None:
        self._lost = lost
        self.readable_seconds = float(self._reader.times[number] + self._reader.step) / 1000

    def _walk(self, bounds: list[int]) -> Generator[Frame]:
        reader = self._reader
        try:
            last, pixels = 0, None
            for number, beyond in pairwise(bounds):
                with quiet():
                    pixels = reader.read(number, beyond)
                if pixels is None:
                    self.missed += 1
                    continue
                self.read, last = self.read + 1, reader.at
                yield Frame(last, float(reader.times[last]) / 1000, pixels)
            if not self.read:
                raise reader.nothing()
            if pixels is None:
                self._end_at(last, self.clip.frames - 1 - last)
        finally:
            reader.close()


class _Reader:
    """Decodes forward through one clip, and jumps ahead; tells each frame by its time.

    Attributes:
        times: when each frame is shown, ascending, in milliseconds from the first.
        step: for how long most are.
        fps: what OpenCV takes for the rate; 0 where it cannot jump.
        second_key: number of the second frame that needs no other.
        at: number of the frame that was decoded last.
    """

    def __init__(self, file: IO[bytes], name: str | None, limits: VideoLimits) -> None:
        self._file, self._name, self._limits = file, name, limits
        self._capture: Any = None
        self._cut_short, self._late, self._codec = False, False, ""
        self.times, self.step, self.fps, self.at = np.zeros(0), 0.0, 0.0, -1

    def survey(self) -> Clip:
        """Read the file through without decoding, for the times of its frames."""
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        head = self._file.read(_HEAD)
        container = container_of(head)
        if container is None:
            no = f"not a video; expected {', '.join(CONTAINERS)}" if head else "empty file"
            raise ImageError(no, self._name)
        if size > self._limits.max_bytes:
            raise ImageError(f"larger than {self._limits.max_bytes / 2**20:.4g} MiB", self._name)
        self._cut_short = _cut_short(self._file, head, container, size)
        self._late = container == _AVI
        self.start_over(cv2.CAP_PROP_FORMAT, -1)
        self._check_size(*self._size())
        self._read_packets()
        get = self._capture.get
        fps, count = get(cv2.CAP_PROP_FPS), get(cv2.CAP_PROP_FRAME_COUNT)
        told = 0 < fps < math.inf and 0 < count < 1e9
        self.fps = fps if told and count > 1 else 0.0
        code = (int(get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF).to_bytes(4, "little").strip()
        self._codec = code.decode() if code.isalnum() else ""
        self.start_over()
        width, height = self._size()
        return Clip(
            container=container,
            codec=self._codec,
            width=width,
            height=height,
            frames=len(self.times),
            seconds=float(self.times[-1] + self.step) / 1000,
            claimed_seconds=count / fps if told else None,
            cut_short=self._cut_short,
        )

    def _read_packets(self) -> None:
        get, grab = self._capture.get, self._capture.grab
        shown, keys, failed = array("d"), array("b"), 0
        while failed < _PATIENCE:
            failed = 0 if (there := grab()) else failed + 1
            if there:
                shown.append(get(cv2.CAP_PROP_POS_MSEC))
                keys.append(get(cv2.CAP_PROP_LRF_HAS_KEY_FRAME) == 1)
            if len(shown) > self._limits.max_frames:
                raise ImageError(f"more than {self._limits.max_frames} frames", self._name)
        if not shown:
            raise self.nothing()
        times, first = np.unique(np.array(shown), return_index=True)
        self._keys = np.flatnonzero(np.array(keys)[first])
        self.second_key = int(self._keys[1]) if len(self._keys) > 1 else len(times)
        self._start = float(times[0])
        self.times = times - self._start
        self.step = float(np.median(np.diff(times))) if len(times) > 1 else 40.0
        if self.times[-1] > 1000 * self._limits.max_seconds:
            raise ImageError(f"longer than {_clock(self._limits.max_seconds)}", self._name)

    def _size(self) -> tuple[int, int]:
        sides = cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT
        return int(self._capture.get(sides[0])), int(self._capture.get(sides[1]))

    def start_over(self, setting: int = cv2.CAP_PROP_N_THREADS, value: int = _THREADS) -> None:
        """Go back to before the first frame."""
        if self._capture is not None:
            self._capture.release()
        hush()
        self.at, self._ended, self._delay = -1, False, None if self._late else 0.0
        handle = self._file.fileno()
        os.lseek(handle, 0, os.SEEK_SET)  # macOS lets the number share its place in the file
        path = Path(f"/dev/fd/{handle}")
        path = path if path.exists() else Path(str(self._file.name)).absolute()
        try:
            self._capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [setting, value])
        except cv2.error as error:
            raise self.nothing() from error
        if not self._capture.isOpened():
            raise self.nothing()

    def close(self) -> None:
        """Let go of the file."""
        if self._capture is not None:
            self._capture.release()
        self._file.close()

    def nothing(self) -> ImageError:
        """The error for a clip of which nothing can be read."""
        if self._codec.upper() == "AV01":  # OpenCV's wheels come without its decoder
            return ImageError("AV1 is not read; convert it to H.264 or VP9", self._name)
        return ImageError("truncated" if self._cut_short else "no frames can be read", self._name)

    def decodable(self) -> NDArray[np.intp]:
        """Decode the whole clip for the numbers of the frames that can be decoded."""
        self.start_over()
        found = []
        while self._grab():
            found.append(self.at)
        if not found:
            raise self.nothing()
        return np.array(found)

    def read(self, number: int, beyond: int) -> NDArray[np.uint8] | None:
        """The first frame from `number` on that can be read, if there is one before `beyond`."""
        found = self.go(number)
        while found and self.at < beyond:
            try:
                ok, pixels = self._capture.retrieve()
            except cv2.error:
                ok, pixels = False, None
            if ok:
                self._check_size(*pixels.shape[1::-1])
                return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
            found = self._grab()
        return None

    def go(self, number: int) -> bool:
        """Decode up to frame `number` or the first after it; False where the clip ends before."""
        if self.at < number:
            self._jump(number)
        while self.at < number:
            if not self._grab():
                return False
        return True

    def _jump(self, number: int) -> None:
        """Go to the last key frame before `number`, if it is far ahead."""
        if not self.fps or (self.at < 0 and not self._grab()):
            return
        before = int(np.searchsorted(self._keys, number - _LANDING, "right")) - 1
        key = int(self._keys[before]) if before >= 0 else 0
        if key - self.at < _WORTH_A_JUMP:
            return
        # OpenCV finds the key frame by its time and goes on from there by counting. So we end the
        # same few frames after it even where the rate varies and OpenCV's number is wrong.
        seconds = (self.times[key] + self._start) / 1000
        self._capture.set(
            cv2.CAP_PROP_POS_FRAMES, math.ceil(seconds * self.fps - 0.01) + _LANDING - 1
        )
        self.at = -1
        if not self._grab() or self.at > number:  # damage, or a header that lies: in a row, then
            self.fps = 0.0
            self.start_over()

    def _grab(self) -> bool:
        """Decode the next frame that can be decoded; False at the end."""
        tries = 0 if self._ended else min(_PATIENCE, len(self.times) - self.at)
        try:
            self._ended = not any(self._capture.grab() for _ in range(tries))
        except cv2.error:
            self._ended = True
        if not self._ended:
            time = float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) - self._start
            if self._delay is None:  # AVI holds no times of showing; FFmpeg's come a bit late
                self._delay = time if 0 < time < 5 * self.step else 0.0
            seen = int(np.searchsorted(self.times, time - self._delay + 0.05, "right")) - 1
            self.at = max(seen, self.at + 1)
            self._ended = self.at >= len(self.times)
        return not self._ended

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self._limits.max_pixels:
            most = f"{self._limits.max_pixels / 1e6:.4g}"
            raise ImageError(f"more than {most} megapixels a frame", self._name)


def _spread(times: NDArray[np.float64], step: float, count: int) -> NDArray[np.intp]:
    """Indices of the frames shown in the middle of `count` equal parts; all where they are few."""
    if len(times) <= count:
        return np.arange(len(times))
    middles = (np.arange(count) + 0.5) / count
    wanted = times[0] + middles * (times[-1] + step - times[0])
    chosen = np.unique(np.searchsorted(times, wanted + step / 1000, "right") - 1)
    # A frame that stands for minutes would take many places: then by number, not by time.
    return chosen if len(chosen) == count else (middles * len(times)).astype(np.intp)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _opened(source: Path, name: str | None) -> IO[bytes]:
    try:
        file = io.FileIO(source, opener=_without_waiting)
    except ValueError as error:
        raise ImageError("not a valid file name", name) from error
    except OSError as error:
        raise ImageError(os_reason(source, error), name) from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ImageError("not a regular file", name)
    return file


def _written(data: bytes, limits: VideoLimits) -> IO[bytes]:
    # OpenCV reads from memory too, but crashes on damaged bytes there (5.0.0).
    try:
        file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  (closed with the frames)
        rest = memoryview(data)[: limits.max_bytes + 1]
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        raise ImageError(f"no room for a temporary file ({error.strerror})") from error
    return file


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe would wait for a writer


def container_of(head: bytes) -> str | None:
    """Which of `CONTAINERS` a file is whose first bytes these are."""
    kind, size = head[4:8], int.from_bytes(head[:4], "big")
    if kind == b"ftyp" and 16 <= size <= 4096:
        others = {head[at : at + 4] for at in range(16, min(size, len(head)), 4)}
        return None if head[8:12] in _NO_CLIP or b"avif" in others or b"avis" in others else _MP4
    if kind in _OLD_QUICKTIME and size >= 8:
        return _MP4
    if head[:4] == b"\x1a\x45\xdf\xa3" and (b"matroska" in head[:64] or b"webm" in head[:64]):
        return _MATROSKA
    return _AVI if head[:4] == b"RIFF" and head[8:12] == b"AVI " else None


def _cut_short(file: IO[bytes], head: bytes, container: str, size: int) -> bool:
    """Whether the container says that bytes are missing; the decoder would not say so."""
    if container == _AVI:
        return int.from_bytes(head[4:8], "little") + 8 > size
    if container == _MATROSKA:  # the segment's length: a number of 1 to 8 bytes, all ones: unknown
        at = head.find(b"\x18\x53\x80\x67") + 4
        width = 9 - head[at].bit_length() if 4 <= at < len(head) else 9
        unknown = (1 << 7 * width) - 1
        length = int.from_bytes(head[at : at + width], "big") & unknown
        return width < 9 and length < unknown and at + width + length > size
    end = 0
    for _ in range(_MOST_BOXES):
        if end >= size:
            break
        file.seek(end)
        box = file.read(16)
        length = int.from_bytes(box[:4], "big")
        length = int.from_bytes(box[8:], "big") if length == 1 else length
        if len(box) < 8 or length < 8:  # 0: to the end of the file; the rest is damage
            break
        end += length
    return end > size


@contextmanager
def quiet() -> Iterator[None]:
    """OpenCV logs nothing: of a broken clip an error or a note tells."""
    with _LOCK:
        _LEVELS.append(cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT))
    try:
        yield
    finally:
        with _LOCK:
            first = _LEVELS.pop(0)
            if _LEVELS:
                _LEVELS[0] = first
            else:
                cv2.utils.logging.setLogLevel(first)


@lru_cache(maxsize=1)
def hush() -> None:
    """FFmpeg logs nothing; OpenCV asks for that once in a process, when it opens a first clip."""
    name = "OPENCV_FFMPEG_LOGLEVEL"
    if name not in os.environ and "OPENCV_FFMPEG_DEBUG" not in os.environ:
        os.environ[name] = "-8"
        try:
            cv2.VideoCapture(os.devnull, cv2.CAP_FFMPEG)
        finally:
            del os.environ[name]
