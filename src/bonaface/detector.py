"""The one door to inference: everything that scores a face goes through `Detector`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from bonaface.bundle import DEFAULT, Bundle, load_bundle
from bonaface.errors import BundleError, ConfigError, ImageError
from bonaface.faces import Finder, open_finder
from bonaface.following import Following
from bonaface.images import DEFAULT_LIMITS, Image, ImageLimits, as_image, read_image
from bonaface.judging import Judge, Progress, Rules, Wishes
from bonaface.provenance import read_provenance
from bonaface.runtimes import Network, open_network
from bonaface.stream import Stream
from bonaface.verdict import (
    PERSON_RULE,
    RULE,
    FaceVerdict,
    Judgement,
    PersonVerdict,
    Verdict,
)
from bonaface.video import DEFAULT_LIMITS as VIDEO_LIMITS
from bonaface.video import VideoLimits, is_video, read_frames

Logits = Callable[[Sequence[NDArray[np.uint8]]], NDArray[np.float64]]
Source = Path | str | bytes | NDArray[np.uint8] | PIL.Image.Image


class Detector:
    """Runs a bundle's network with ONNX Runtime, or OpenVINO if it was exported to that; no torch.

    Safe to share between threads.

    Args:
        bundle: from `load_bundle`.
        threads: processor threads for one call; None takes all cores.
        finder: of faces; None takes the one that comes with the install.
        network: runs in the place of the bundle's own, which is then not opened.

    Raises:
        BundleError: the network is not the one of the card, or cannot be run.
        MissingExtraError: it needs OpenVINO, which is not installed.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int | None = None,
        finder: Finder | None = None,
        network: Network | None = None,
    ) -> None:
        self._network = network or open_network(bundle, threads)
        self.bundle = bundle
        self.preprocess = bundle.preprocess
        self.calibration = bundle.calibration
        self._finder = finder
        self._threads = threads

    @property
    def name(self) -> str:
        """What the detector calls itself."""
        return self.bundle.card.name

    def logits(self, crops: Sequence[NDArray[np.uint8]], *, batch: int = 16) -> NDArray[np.float64]:
        """Face crops (uint8 HxWx3 of any size, RGB) -> logits, float64 (n,).

        Args:
            crops: any number of them.
            batch: so many go through the network at once.
        """
        found = [
            self._run(np.stack([self.preprocess.resize(crop) for crop in crops[at : at + batch]]))
            for at in range(0, len(crops), batch)
        ]
        return np.concatenate(found) if found else np.empty(0)

    def score(self, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
        """As `logits`, but calibrated: P(fake) in [0, 1], float64 (n,)."""
        return self.calibration(self.logits(crops))

    def detect(
        self,
        source: Source,
        *,
        name: str | None = None,
        faces: Literal["auto", "none"] = "auto",
        stability: bool = False,
        prevalence: float = 0.5,
        frames: int = 64,
        progress: Progress | None = None,
        image_limits: ImageLimits = DEFAULT_LIMITS,
        video_limits: VideoLimits = VIDEO_LIMITS,
        logits: Logits | None = None,
    ) -> Verdict:
        """Judge the faces of one photo, or the people of one video.

        Args:
            source: a file, its bytes, a PIL image, or uint8 RGB pixels (HxWx3).
            name: what the verdict calls it; by default the path.
            faces: "auto" finds them; "none" takes the whole picture for a face crop.
            stability: score each face also as it would be after re-delivery
                (`bonaface.corruptions.DELIVERIES`); an answer that does not hold is unsure.
            prevalence: share of fakes among the pictures that reach you, in (0, 1).
            frames: of a video, how many to look at, spread evenly over it.
            progress: of a video, called with the number of frames done and planned.
            image_limits: what a photo may cost.
            video_limits: what a clip may cost.
            logits: called in the place of `self.logits`, which it calls in turn: the service
                gathers the crops of several calls there.

        Returns:
            A verdict; what cannot be read, and a picture without a face that is large enough, is
            not_applicable, with the reason. A detector that validation could not tell from
            guessing is unsure of every face.

        Raises:
            ConfigError: a wish is out of range, or `source` is of another type.
        """
        judge = self.judge(Wishes(faces, stability, prevalence, frames), logits)
        bands = judge.bands
        kind: Literal["photo", "video"] | None = None
        width = height = count = provenance = None
        of_faces: tuple[FaceVerdict, ...] = ()
        people: tuple[PersonVerdict, ...] = ()
        notes: tuple[str, ...] = ()
        source = Path(source) if isinstance(source, str) else source
        try:
            if isinstance(source, Path | bytes) and is_video(source):
                with read_frames(source, frames, video_limits) as clip:
                    judged, people, count, notes = judge.video(clip, progress)
                kind, width, height = "video", clip.clip.width, clip.clip.height
            else:
                image = image_of(source, image_limits)
                judged, of_faces, notes = judge.photo(image)
                kind, (height, width) = "photo", image.pixels.shape[:2]
            if isinstance(source, Path | bytes):
                provenance = read_provenance(source)
        except ImageError as error:
            judged = Judgement("not_applicable", error.reason)
        card = self.bundle.card
        return Verdict(
            path=name or (str(source) if isinstance(source, Path) else _kind_of(source)),
            kind=kind,
            answer=judged.answer,
            reason=judged.reason,
            score=judged.score,
            posterior=judged.posterior,
            bands=bands,
            rule=RULE if kind != "video" else f"{RULE}; a person {PERSON_RULE}",
            width=width,
            height=height,
            faces=of_faces,
            people=people,
            frames=count,
            model=card.name,
            version=card.versions.get("bonaface", "unknown"),
            notes=notes,
            provenance=provenance,
        )

    def follow(
        self,
        source: Path | str,
        *,
        faces: Literal["auto", "none"] = "auto",
        stability: bool = False,
        prevalence: float = 0.5,
        frames: int = 64,
        idle: float | None = None,
        video_limits: VideoLimits = VIDEO_LIMITS,
    ) -> Following:
        """Judge the people of a video that does not end, frame by frame, always the newest.

        Args:
            source: a file, which may grow; a named pipe; or "-", standard input.
            faces: as of `detect`.
            stability: as of `detect`.
            prevalence: as of `detect`.
            frames: a person's answer of now is that of so many frames, their last.
            idle: seconds without a byte after which the stream is over; None: 10 for a file, and
                for a pipe none.
            video_limits: what a frame may cost.

        Returns:
            An iterator over updates, to be closed; its `end()` sums all up.

        Raises:
            ConfigError: a wish is out of range.
            ImageError: the source is not there, or neither a file nor a pipe.
        """
        judge = self.judge(Wishes(faces, stability, prevalence, frames))
        card, _ = self.bundle.card, judge.bands  # which may refuse the prevalence
        if faces == "auto":
            judge.finder()  # opened before the stream is: it takes a while
        stream = Stream(source, idle, video_limits)
        return Following(judge, stream, (card.name, card.versions.get("bonaface", "unknown")))

    def judge(self, wishes: Wishes, logits: Logits | None = None) -> Judge:
        """The way from pixels to answers that `detect` takes."""
        # Read when they are needed: a bundle that is being made has no operating points yet.
        bundle = self.bundle
        fake_above, real_below = map(bundle.operating_point, ("fake_above", "real_below"))
        rules = Rules(bundle.calibration, fake_above, real_below, bundle.recipe, bundle.doubt)
        return Judge(logits or self.logits, self.finder, rules, wishes)

    def finder(self) -> Finder:
        """What finds faces, opened when it is first asked for."""
        return self._finder or open_finder(threads=self._threads)

    def _run(self, batch: NDArray[np.uint8]) -> NDArray[np.float64]:
        normalised = np.ascontiguousarray(self.preprocess.normalise(batch))
        logits = np.asarray(self._network(normalised), np.float64).reshape(-1)
        if logits.shape != (len(batch),) or not np.isfinite(logits).all():
            raise BundleError(
                f"expected {len(batch)} finite logits from {self.name!r}, got shape "
                f"{logits.shape} or values that are not finite; do not use this bundle"
            )
        return logits


def image_of(
    source: Path | bytes | NDArray[np.uint8] | PIL.Image.Image,
    limits: ImageLimits = DEFAULT_LIMITS,
) -> Image:
    """A photo's pixels, whatever it came as; ImageError where it cannot be read."""
    if isinstance(source, Path | bytes):
        return read_image(source, limits)
    if isinstance(source, np.ndarray | PIL.Image.Image):
        return as_image(source, limits)
    raise ConfigError(
        "expected a path, bytes, a NumPy array or a PIL image, got "
        f"{type(source).__name__}; give one of these"
    )


def _kind_of(source: Any) -> str:
    if isinstance(source, bytes):
        return "bytes"
    return "array" if isinstance(source, np.ndarray) else "image"


def load_detector(
    model: Path | str = DEFAULT, *, threads: int | None = None, finder: Path | str | None = None
) -> Detector:
    """Open a bundle for inference.

    Args:
        model: the bundle's folder; by default the bundle that comes with the install.
        threads: processor threads for one call; None takes all cores.
        finder: file of a YuNet face finder; None takes the finder that comes with the install.

    Raises:
        BundleError: no bundle is there, or it cannot be run.
        MissingExtraError: it needs OpenVINO, which is not installed.
        ConfigError: the finder's file cannot be run.
    """
    opened = None if finder is None else open_finder(Path(finder))
    return Detector(load_bundle(Path(model)), threads=threads, finder=opened)
