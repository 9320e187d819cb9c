"""A picture to the faces in it: where, five landmarks each, and how sure the finder is.

`CenterFace` comes with the install; `YuNet` runs a file that the user names. Both are searched for
at two sizes of the picture, because a face that fills it and a face in the last row of a group
photograph do not fit one.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Final, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from bonaface.errors import ConfigError

Pixels = NDArray[np.uint8]

LEAST_CONFIDENCE: Final = 0.5
MOST_FACES: Final = 1000
_COARSE: Final = 192  # longest side in pixels, with the border
_FINE: Final = (448, 2048)  # longest side in pixels, at least and at most
_SHRINK: Final = 0.45  # a face of 64 px, the smallest that is judged, is still found at 29 px
_NEAR: Final = 2.0  # side of the square in which a face is looked at again, in faces
_AGAIN: Final = 50  # of the faces of a picture, the largest, are looked at again
_BORDER: Final = 0.25  # of the longest side, all round: a face that fills the picture needs ground
_GREY: Final = 128
_OVERLAP: Final = 0.35  # intersection over union from which two boxes are one face
_STRIDE: Final = 32  # CenterFace halves its input five times


@dataclass(frozen=True, slots=True)
class Face:
    """One face in a picture, in its pixels, x to the right and y down.

    Attributes:
        box: left, top, right, bottom; may reach a little beyond the picture.
        landmarks: (x, y) of the eye on the left of the picture, the eye on its right, the tip of
            the nose, and the corners of the mouth, left and right.
        confidence: of the finder that this is a face, in (0, 1].
    """

    box: tuple[float, float, float, float]
    landmarks: tuple[tuple[float, float], ...]
    confidence: float

    @property
    def size(self) -> float:
        """The longer side of the box in pixels."""
        return max(self.box[2] - self.box[0], self.box[3] - self.box[1])

    @property
    def centre(self) -> tuple[float, float]:
        """Of the box, (x, y)."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


class Finder(Protocol):
    """What finds faces; safe to share between threads."""

    @property
    def name(self) -> str:
        """What it calls itself."""

    def find(self, pixels: Pixels) -> tuple[Face, ...]:
        """Uint8 HxWx3 RGB -> its faces, the largest first, at most `MOST_FACES`."""


class CenterFace:
    """The finder that comes with the install (Xu et al. 2019, https://arxiv.org/abs/1911.03599).

    Args:
        threads: processor threads for one call; None takes all cores.
        frugal: hold no memory between calls; large pictures take half as long again. Else ONNX
            Runtime keeps what the largest picture took, 0.7 GB for 18 megapixels, for each thread.
    """

    name = "CenterFace"

    def __init__(self, *, threads: int | None = None, frugal: bool = False) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_cpu_mem_arena = not frugal
        options.enable_mem_pattern = not frugal  # a plan for each size of picture
        weights = resources.files("bonaface").joinpath("weights", "centerface.onnx")
        self._session = ort.InferenceSession(
            weights.read_bytes(), options, providers=["CPUExecutionProvider"]
        )

    def find(self, pixels: Pixels) -> tuple[Face, ...]:
        """Uint8 HxWx3 RGB -> its faces, the largest first."""
        return _search(pixels, self._look)

    def _look(self, pixels: Pixels) -> NDArray[np.float32]:
        height, width = pixels.shape[:2]
        whole = cv2.copyMakeBorder(
            pixels, 0, -height % _STRIDE, 0, -width % _STRIDE, cv2.BORDER_CONSTANT
        )
        batch = np.ascontiguousarray(whole.transpose(2, 0, 1)[None], np.float32)
        heat, scale, offset, marks = (
            found[0] for found in self._session.run(None, {"input.1": batch})
        )
        rows, columns = np.nonzero(heat[0] >= LEAST_CONFIDENCE)
        tall, wide = np.exp(scale[:, rows, columns]) * 4
        y, x = (offset[:, rows, columns] + 0.5 + (rows, columns)) * 4
        left, top = x - wide / 2, y - tall / 2
        points = marks[:, rows, columns]
        points = points * np.stack([tall, wide] * 5) + np.stack([top, left] * 5)
        swapped = points.reshape(5, 2, -1)[:, ::-1].reshape(10, -1)  # (y, x) -> (x, y)
        return np.asarray(
            np.stack([left, top, left + wide, top + tall, *swapped, heat[0, rows, columns]], 1),
            np.float32,
        )


class YuNet:
    """The finder of OpenCV's model zoo (Wu et al. 2023), from a file that the user names.

    Args:
        path: the ONNX file.

    Raises:
        ConfigError: OpenCV cannot open it as a YuNet.
    """

    name = "YuNet"

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ConfigError(
                f"expected a YuNet file, got {str(path)!r}, which is not there; name the .onnx file"
            )
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        try:
            self._net = cv2.FaceDetectorYN.create(
                str(path), "", (_STRIDE, _STRIDE), LEAST_CONFIDENCE, _OVERLAP, MOST_FACES
            )
            self._look(np.zeros((_STRIDE, _STRIDE, 3), np.uint8))
        except cv2.error as error:
            raise ConfigError(
                f"expected a YuNet file, got {str(path)!r}, which OpenCV cannot run "
                f"({' '.join(str(error).split())[-120:]}); name face_detection_yunet_*.onnx"
            ) from error
        finally:
            cv2.utils.logging.setLogLevel(level)
        self._lock = threading.Lock()  # OpenCV keeps the input's size between calls

    def find(self, pixels: Pixels) -> tuple[Face, ...]:
        """Uint8 HxWx3 RGB -> its faces, the largest first."""
        with self._lock:
            return _search(pixels, self._look)

    def _look(self, pixels: Pixels) -> NDArray[np.float32]:
        self._net.setInputSize((pixels.shape[1], pixels.shape[0]))
        _, found = self._net.detect(np.ascontiguousarray(pixels[:, :, ::-1]))
        if found is None:
            return np.empty((0, 15), np.float32)
        found = np.asarray(found, np.float32)
        found[:, 2:4] += found[:, :2]  # width and height -> right and bottom
        return found


def open_finder(path: Path | None = None, *, threads: int | None = None) -> Finder:
    """The finder of a YuNet file, or the one that comes with the install, opened once.

    Args:
        path: of the file, whose finder runs on the threads of OpenCV.
        threads: processor threads for one call of the other; None takes all cores.

    Raises:
        ConfigError: the file is not one that can be run.
    """
    return _own(threads) if path is None else YuNet(path)


@lru_cache(maxsize=2)
def _own(threads: int | None) -> CenterFace:
    return CenterFace(threads=threads)


def _search(pixels: Pixels, look: Any) -> tuple[Face, ...]:
    """Look at a small copy with a border for large faces, and at a larger one for small ones."""
    height, width = pixels.shape[:2]
    longest = max(height, width)
    border = _BORDER * longest
    found = [_at_scale(pixels, look, _COARSE / (longest + 2 * border), border)]
    if longest > _COARSE:
        fine = min(max(_SHRINK * longest, _FINE[0]), _FINE[1])
        found.append(_at_scale(pixels, look, min(1.0, fine / longest), 0.0))
    rows = np.concatenate(found)
    # A centre outside the picture is the border's doing.
    x, y = (rows[:, 0] + rows[:, 2]) / 2, (rows[:, 1] + rows[:, 3]) / 2
    rows = rows[(x >= 0) & (x < width) & (y >= 0) & (y < height)]
    kept = rows[_apart(rows)][:MOST_FACES]
    kept = kept[np.argsort(-np.maximum(*(kept[:, 2:4] - kept[:, :2]).T), kind="stable")]
    for at in range(min(len(kept), _AGAIN)):
        kept[at] = _looked_at_again(pixels, look, kept[at])
    faces = [
        Face(
            (float(row[0]), float(row[1]), float(row[2]), float(row[3])),
            tuple((float(row[at]), float(row[at + 1])) for at in range(4, 14, 2)),
            float(min(row[14], 1.0)),
        )
        for row in kept
    ]
    return tuple(sorted(faces, key=lambda face: (-face.size, face.box)))


def _looked_at_again(pixels: Pixels, look: Any, row: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same face, seen at a size of its own: a box depends on the size at which it is found.

    So the crops of training and of a photo, of a small picture and a large one, are cut alike.
    """
    height, width = pixels.shape[:2]
    face = max(row[2] - row[0], row[3] - row[1])
    centre = (row[:2] + row[2:4]) / 2
    side = max(1, round(_NEAR * face))
    x, y = (round(float(value)) for value in centre - side / 2)
    part = pixels[max(0, y) : max(0, y + side), max(0, x) : max(0, x + side)]
    part = cv2.copyMakeBorder(
        part,
        max(0, -y),
        max(0, y + side - height),
        max(0, -x),
        max(0, x + side - width),
        cv2.BORDER_CONSTANT,
        value=(_GREY, _GREY, _GREY),
    )
    found = _at_scale(part, look, _COARSE / side, 0.0)
    found[:, 0:14:2] += x
    found[:, 1:14:2] += y
    apart = np.hypot(*((found[:, :2] + found[:, 2:4]) / 2 - centre).T)
    same = found[apart < face / 4]
    if not len(same):
        return row
    best = np.array(same[np.argmax(same[:, 14])])
    best[14] = max(best[14], row[14])
    return best


def _at_scale(pixels: Pixels, look: Any, scale: float, border: float) -> NDArray[np.float64]:
    height, width = pixels.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    seen = cv2.resize(pixels, size, interpolation=how) if scale != 1 else pixels
    edge = round(border * scale)
    if edge:
        seen = cv2.copyMakeBorder(
            seen, edge, edge, edge, edge, cv2.BORDER_CONSTANT, value=(_GREY, _GREY, _GREY)
        )
    rows = np.array(look(np.ascontiguousarray(seen)), np.float64)
    rows[:, :14] -= edge
    rows[:, 0:14:2] *= width / size[0]
    rows[:, 1:14:2] *= height / size[1]
    return rows


def _apart(rows: NDArray[np.float64]) -> Sequence[int]:
    """Which boxes stand for a face each, the surest first (non-maximum suppression)."""
    boxes = np.column_stack([rows[:, :2], rows[:, 2:4] - rows[:, :2]])
    kept = cv2.dnn.NMSBoxes(boxes.tolist(), rows[:, 14].tolist(), LEAST_CONFIDENCE, _OVERLAP)
    return [int(at) for at in np.asarray(kept, np.int64).reshape(-1)]
