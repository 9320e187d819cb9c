"""A detector and a photo or clip -> where it looked in each face, and how far to believe that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import cv2
import numpy as np

from bonaface.annotate import picked
from bonaface.detector import Detector, Source, image_of
from bonaface.errors import ConfigError
from bonaface.explain.faithful import RIVALS, STEPS, Faith, measure_faith
from bonaface.explain.maps import MASKS, Ask, Map, Pixels, Values, occlusion, occlusion_places, rise
from bonaface.faces import Face
from bonaface.judging import Judge, Wishes
from bonaface.verdict import Answer, Verdict
from bonaface.video import read_frames

if TYPE_CHECKING:
    from bonaface.evaluate import Scorer

Progress = Callable[[int, int], None]
Box = tuple[float, float, float, float]

FREE: Final = ("occlusion", "rise")  # need the logits alone
METHODS: Final = (*FREE, "grad-cam", "integrated-gradients")
DEFAULT: Final = "occlusion"
MEANING: Final = "A heat map shows where the network looked, not what was forged."
FRAMES: Final = 64  # as `Detector.detect` looks at
SHOWN: Final = 8  # of them, of each person
MOST_PEOPLE: Final = 4
_SCENE: Final = 640  # longer side of a picture that is kept to be shown


@dataclass(frozen=True, eq=False, slots=True)
class Look:
    """One face, and where the network looked in it.

    Attributes:
        number: of the face or person, as `bonaface detect` numbers them.
        answer: of this face; of a clip, of the person over all frames.
        reason: one sentence for a person; of a clip's frame where it is not judged, why.
        score: of this face in this picture or frame; None: not judged, and there is no map.
        box: left, top, right, bottom in pixels; None where no face was looked for.
        frame: number of the frame in its clip; None: a photo.
        seconds: from the clip's beginning.
        scene: the picture or frame, uint8, made smaller.
        scale: of the scene, in its pixels for each of the picture.
        crop: as it was scored, uint8.
        map: in the centre square of the crop.
        faith: how far to believe the map.
    """

    number: int
    answer: Answer
    reason: str
    score: float | None
    box: Box | None
    frame: int | None
    seconds: float | None
    scene: Pixels
    scale: float
    crop: Pixels | None = None
    map: Map | None = None
    faith: Faith | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; the map is told in a few numbers."""
        return {
            "number": self.number,
            "answer": self.answer,
            "reason": self.reason,
            "score": self.score,
            "box": self.box,
            "frame": self.frame,
            "seconds": self.seconds,
            "map": None if self.map is None else summary(self.map),
            "faith": None if self.faith is None else self.faith.to_dict(),
        }


@dataclass(frozen=True, eq=False, slots=True)
class Explanation:
    """Where a detector looked in one photo or clip.

    Attributes:
        verdict: as `Detector.detect` gives it.
        looks: at each face of the photo, or each person in a few frames of the clip.
        method: of the maps.
        seed: of what is random in them and in their rivals.
        left_out: people of a clip that are not shown.
    """

    verdict: Verdict
    looks: tuple[Look, ...]
    method: str
    seed: int
    left_out: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        told = ("path", "kind", "answer", "reason", "score", "notes")
        verdict = self.verdict.to_dict()
        return {
            **{name: verdict[name] for name in told},
            "people_left_out": self.left_out,
            "looks": [look.to_dict() for look in self.looks],
        }


class Explainer:
    """Asks one detector where it looks.

    Args:
        detector: any; the gradients' methods also take the weights of its bundle.
        method: out of `METHODS`.
        seed: of what is random in the maps and in their rivals.

    Raises:
        ConfigError: there is no such method, or the bundle has no weights for it.
        MissingExtraError: the method's libraries are not installed.
    """

    def __init__(self, detector: Scorer, method: str = DEFAULT, seed: int = 0) -> None:
        self.detector, self.method, self.seed = detector, method, seed
        bundle = detector.bundle
        self._size = bundle.preprocess.size
        self._threshold = bundle.operating_point("balanced").threshold
        self._views = 1
        if method not in METHODS:
            raise ConfigError(
                f"expected a method out of {', '.join(METHODS)}, got {method!r}; choose one"
            )
        if method == "occlusion":
            self._map: Callable[[Ask, Pixels], Map] = occlusion
            self._views = 1 + len(occlusion_places(self._size)[1]) ** 2
        elif method == "rise":
            self._map = partial(rise, seed=seed)
            self._views = MASKS
        elif not (bundle.folder / "model.safetensors").is_file():
            raise ConfigError(
                f"expected the weights (model.safetensors) that {method} needs in the bundle of "
                f"{detector.name!r}, got none; take --method {' or '.join(FREE)}"
            )
        else:
            from bonaface.explain.gradients import Network

            network = Network(bundle)
            found = network.grad_cam if method == "grad-cam" else network.integrated_gradients
            self._map = lambda ask, view: found(view)

    def view(self, crop: Pixels) -> Pixels:
        """A crop as the network is shown it, uint8 size x size x 3."""
        return self.detector.bundle.preprocess.resize(crop)

    def look(
        self, view: Pixels, *, rivals: int = RIVALS, progress: Progress | None = None
    ) -> tuple[Map, Faith]:
        """The map of a view, and how far to believe it.

        Args:
            view: as `view` gives it.
            rivals: random maps to compare with.
            progress: called with views asked for and to be asked for.
        """
        total = self._views + 4 + 2 * (STEPS - 1) * (rivals + 2)
        done = 0

        def ask(views: Pixels) -> Values:
            nonlocal done
            logits = self.detector.logits(list(views))
            done += len(views)
            if progress:
                progress(min(done, total), total)
            return logits

        found = self._map(ask, view)
        faith = measure_faith(
            ask,
            self.detector.calibration,
            self._threshold,
            view,
            found.values,
            seed=self.seed,
            rivals=rivals,
        )
        return found, faith


def explain(
    explainer: Explainer,
    source: Source,
    *,
    name: str | None = None,
    faces: Literal["auto", "none"] = "auto",
    frames: int = FRAMES,
    progress: Progress | None = None,
) -> Explanation:
    """Where the explainer's detector looks in each face of a photo, or of frames of a clip.

    Args:
        explainer: of a `bonaface.detector.Detector`.
        source: a file, its bytes, a PIL image, or uint8 RGB pixels (HxWx3).
        name: what the explanation calls it; by default the path.
        faces: "auto" finds them; "none" takes the whole picture for a face crop.
        frames: of a clip, how many to look at, as in `Detector.detect`; a few of them are shown.
        progress: called with views asked for and to be asked for, anew for each face.

    Returns:
        What is not judged has no map, and says why.

    Raises:
        ConfigError: a wish is out of range, or `source` is of another type.
    """
    detector = explainer.detector
    if not isinstance(detector, Detector):
        raise ConfigError(f"expected a Detector, got {type(detector).__name__}; open a bundle")
    source = Path(source) if isinstance(source, str) else source
    verdict = detector.detect(source, name=name, faces=faces, frames=frames)
    judge = detector.judge(Wishes(faces=faces, frames=frames))
    looks: Iterator[Look] = iter(())
    left_out = 0
    if verdict.kind == "photo":
        looks = _photo(judge, image_of(source).pixels, verdict)
    elif verdict.kind == "video":
        assert isinstance(source, Path | bytes)
        looks = _video(judge, source, frames, verdict)
        left_out = max(0, len(verdict.people) - MOST_PEOPLE)
    seen = tuple(_explained(explainer, look, progress) for look in looks)
    return Explanation(verdict, seen, explainer.method, explainer.seed, left_out)


def _photo(judge: Judge, pixels: Pixels, verdict: Verdict) -> Iterator[Look]:
    scene, scale = _scene(pixels)
    for face, (_, crop) in zip(verdict.faces, judge.crops(pixels), strict=True):
        yield Look(
            face.number,
            face.answer,
            face.reason,
            face.score,
            face.box,
            None,
            None,
            scene,
            scale,
            None if isinstance(crop, str) else crop,
        )


def _video(judge: Judge, source: Path | bytes, frames: int, verdict: Verdict) -> Iterator[Look]:
    """Some of the same frames again, in which each face is found by its box."""
    shown = {
        (moment.frame, moment.box): (person, moment)
        for person in verdict.people[:MOST_PEOPLE]
        for moment in picked(person.moments, SHOWN if person.score is not None else 1)
    }
    wanted = {frame for frame, _ in shown}
    with read_frames(source, frames) as clip:
        for frame in clip:
            if frame.number not in wanted:
                continue
            scene, scale = _scene(frame.pixels)
            for face, crop in judge.crops(frame.pixels):
                box = _box(face, frame.pixels)
                if (frame.number, box) not in shown:
                    continue
                person, moment = shown[frame.number, box]
                judged = person.score is not None and not isinstance(crop, str)
                yield Look(
                    person.number,
                    person.answer,
                    moment.reason or person.reason,
                    moment.score if judged else None,
                    box if face else None,
                    frame.number,
                    moment.seconds,
                    scene,
                    scale,
                    crop if judged and not isinstance(crop, str) else None,
                )


def _explained(explainer: Explainer, look: Look, progress: Progress | None) -> Look:
    if look.crop is None:
        return look
    found, faith = explainer.look(explainer.view(look.crop), progress=progress)
    return replace(look, map=found, faith=faith)


def _box(face: Face | None, pixels: Pixels) -> Box:
    """As a verdict tells it."""
    height, width = pixels.shape[:2]
    left, top, right, bottom = face.box if face else (0.0, 0.0, float(width), float(height))
    return round(left, 1), round(top, 1), round(right, 1), round(bottom, 1)


def _scene(pixels: Pixels) -> tuple[Pixels, float]:
    height, width = pixels.shape[:2]
    scale = min(1.0, _SCENE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8), scale


def summary(found: Map) -> dict[str, Any]:
    """A map in a few numbers: its range, where it is highest and lowest, how much it is spread."""
    values, size = found.values, len(found.values)

    def place(at: int) -> list[float]:
        return [round((at % size + 0.5) / size, 4), round((at // size + 0.5) / size, 4)]

    strength = np.sort(np.abs(values).ravel())[::-1]
    total = float(strength.sum())
    half = int(np.searchsorted(np.cumsum(strength), total / 2)) + 1
    return {
        "size": size,
        "unit": found.unit,
        "lowest": float(values.min()),
        "highest": float(values.max()),
        "mean": float(values.mean()),
        "lowest_at": place(int(values.argmin())),
        "highest_at": place(int(values.argmax())),
        "half_lies_in": round(half / values.size, 4),
        "facts": {name: float(value) for name, value in found.facts.items()},
    }
