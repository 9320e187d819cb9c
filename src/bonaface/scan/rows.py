"""One picture to its rows: read, hashed, judged as `bonaface detect` does, and timed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bonaface.bundle import load_bundle
from bonaface.detector import Detector
from bonaface.errors import ImageError
from bonaface.faces import Face, Finder, open_finder
from bonaface.judging import Wishes
from bonaface.scan.reading import Reader
from bonaface.scan.sources import Item
from bonaface.verdict import FaceVerdict, Verdict
from bonaface.video import is_video

Row = dict[str, Any]

COLUMNS: Final = {  # name -> Arrow's type
    "path": "string",
    "sha256": "string",
    "bytes": "int64",
    "readable": "bool",
    "width": "int32",
    "height": "int32",
    "picture": "string",
    "faces": "int32",
    "face": "int32",
    "verdict": "string",
    "reason": "string",
    "score": "float64",
    "posterior": "float64",
    **dict.fromkeys(("box_left", "box_top", "box_right", "box_bottom"), "float64"),
    "confidence": "float64",
    "stability_low": "float64",
    "stability_high": "float64",
    "credentials": "string",
    "model": "string",
    "version": "string",
    "duplicate_of": "string",
    **dict.fromkeys(("read_ms", "find_ms", "score_ms", "judge_ms"), "float32"),
}
TIMINGS: Final = tuple(name for name in COLUMNS if name.endswith("_ms"))


@dataclass(frozen=True, slots=True)
class Job:
    """What a process has to know to judge.

    Attributes:
        model: folder of the bundle.
        wishes: as for `Detector.detect`.
        finder: a YuNet file; None: the finder of the install.
        column: of Parquet.
    """

    model: Path
    wishes: Wishes = field(default_factory=Wishes)
    finder: Path | None = None
    column: str | None = None


class Scanner:
    """Judges items, one processor thread at a time; the only place where a scan scores.

    Raises:
        BundleError: the bundle cannot be run.
        ConfigError: the finder cannot.
    """

    def __init__(self, job: Job) -> None:
        import cv2

        cv2.setNumThreads(1)  # processes are what runs side by side
        self._wishes = job.wishes
        self._finder = _TimedFinder(job.finder)
        self._detector = Detector(load_bundle(job.model), threads=1, finder=self._finder)
        self._reader = Reader(job.column)
        self._scoring = 0.0
        side = self._detector.preprocess.size
        self._detector.score([np.zeros((side, side, 3), np.uint8)])  # or it fails for each picture

    def rows(self, item: Item) -> list[Row]:
        """The rows of one picture: one a face, or one that says why there is none.

        Never an error: what goes wrong with one picture is its reason.
        """
        begun = time.perf_counter()
        self._scoring = self._finder.seconds = 0.0
        data, digest, read = None, None, None
        try:
            data = self._reader.read(item)
            digest = hashlib.sha256(data).hexdigest()
            read = time.perf_counter()
            if is_video(data):
                raise ImageError("a clip, not a picture; bonaface detect judges clips")
            verdict = self._detector.detect(
                data,
                name=item.path,
                faces=self._wishes.faces,
                stability=self._wishes.stability,
                prevalence=self._wishes.prevalence,
                logits=self._logits,
            )
        except ImageError as error:
            found = [self.unreadable(item, error.reason)]
        except Exception as error:  # whatever one picture does, the others are judged
            found = [self.unreadable(item, f"could not be judged ({type(error).__name__})")]
        else:
            found = self._of(verdict)
        read = read or time.perf_counter()
        spent = (read - begun, self._finder.seconds, self._scoring, time.perf_counter() - read)
        found[0] |= {
            name: round(1000 * seconds, 3) for name, seconds in zip(TIMINGS, spent, strict=True)
        }
        size = None if data is None else len(data)
        return [row | {"sha256": digest, "bytes": size} for row in found]

    def unreadable(self, item: Item, reason: str) -> Row:
        """The row of a picture that could not be looked at."""
        card = self._detector.bundle.card
        return unreadable(item.path, reason, card.name, card.versions.get("bonaface", "unknown"))

    def _of(self, verdict: Verdict) -> list[Row]:
        whole: Row = {
            "path": verdict.path,
            "readable": verdict.readable,
            "width": verdict.width,
            "height": verdict.height,
            "picture": verdict.answer,
            "faces": len(verdict.faces),
            "credentials": None if verdict.provenance is None else verdict.provenance.state,
            "model": verdict.model,
            "version": verdict.version,
        }
        if not verdict.faces:
            return [whole | {"verdict": verdict.answer, "reason": verdict.reason}]
        return [whole | _of_face(face) for face in verdict.faces]

    def _logits(self, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
        begun = time.perf_counter()
        try:
            return self._detector.logits(crops)
        finally:
            self._scoring += time.perf_counter() - begun


def unreadable(path: str, reason: str, model: str, version: str) -> Row:
    """The row of a picture that could not be looked at."""
    return {
        **{"path": path, "readable": False, "picture": "not_applicable", "faces": 0},
        **{"verdict": "not_applicable", "reason": reason, "model": model, "version": version},
    }


def _of_face(face: FaceVerdict) -> Row:
    left, top, right, bottom = face.box or (None,) * 4
    held = face.stability
    return {
        "face": face.number,
        "verdict": face.answer,
        "reason": face.reason,
        "score": face.score,
        "posterior": face.posterior,
        "box_left": left,
        "box_top": top,
        "box_right": right,
        "box_bottom": bottom,
        "confidence": face.confidence,
        "stability_low": held.low if held else None,
        "stability_high": held.high if held else None,
    }


class _TimedFinder:
    """The finder, opened when it is first needed, with the time that it took."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._opened: Finder | None = None if path is None else open_finder(path)
        self.seconds = 0.0

    @property
    def name(self) -> str:
        """Of the finder."""
        return self._ready().name

    def find(self, pixels: NDArray[np.uint8]) -> tuple[Face, ...]:
        """As `Finder.find`."""
        finder = self._ready()
        begun = time.perf_counter()
        try:
            return finder.find(pixels)
        finally:
            self.seconds += time.perf_counter() - begun

    def _ready(self) -> Finder:
        # One thread, as all of a process that judges: it has one core to itself.
        self._opened = self._opened or open_finder(threads=1)
        return self._opened
