"""What the endpoints share: the detector, its threads, places, and what is told of the model."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, Literal

import numpy as np
from fastapi import Request
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from bonaface.detector import Detector
from bonaface.files import atomic_path, write_json
from bonaface.images import FORMATS, SUFFIXES, ImageLimits, read_image
from bonaface.judging import Wishes
from bonaface.service.looking import Looked, look
from bonaface.service.settings import Settings
from bonaface.service.telemetry import Metrics
from bonaface.service.work import Batcher, Crops, Places, Pool, Room, Turns, check_wanted
from bonaface.verdict import Verdict
from bonaface.video import SUFFIXES as CLIP_SUFFIXES
from bonaface.video import VideoLimits

FORM_BYTES: Final = 2**16  # of a multipart body, beside its file
_WAITING: Final = 4  # threads for each that may work: the others wait for their crops' scores


class Options(BaseModel):
    """What a client may wish; in the address, after ?."""

    model_config = ConfigDict(extra="forbid")

    faces: Literal["auto", "none"] = Field(
        "auto", description="auto finds faces; none takes the whole picture for a face crop."
    )
    stability: bool = Field(
        False, description="Score each face also as it would be after re-delivery."
    )
    prevalence: float = Field(
        0.5,
        gt=0,
        lt=1,
        allow_inf_nan=False,
        description="Share of fakes among the pictures that reach you.",
    )


class PhotoOptions(Options):
    """What a client may wish of pictures."""

    explanation: bool = Field(
        False,
        description="Say where the network looked in the largest faces; takes one picture, and as "
        "long as 50 more faces for each.",
    )


class Core:
    """The detector and all that stands round it, of one process."""

    def __init__(self, detector: Detector, settings: Settings, metrics: Metrics) -> None:
        self.detector, self.settings, self.metrics = detector, settings, metrics
        self.places = Places(
            Room(
                settings.max_requests,
                settings.max_arriving,
                settings.max_held_bytes,
                settings.max_client_requests,
                settings.max_client_bytes,
                settings.max_wait_seconds,
            ),
            partial(metrics.places, "photos"),
        )
        clip, jobs = settings.max_clip_bytes + FORM_BYTES, settings.max_jobs
        part = max(1, jobs // 2)
        self.clip_places = Places(
            Room(jobs, jobs, jobs * clip, part, part * clip, settings.max_wait_seconds),
            partial(metrics.places, "clips"),
        )
        self.photos = Pool(_WAITING * settings.threads, "photos")
        self.clips = Pool(1, "clips")
        self._turns = Turns(settings.threads)
        self._batcher = Batcher(
            detector.logits, settings.batch, settings.batch_seconds, metrics.batches.observe
        )
        self._image_limits = ImageLimits(settings.max_file_bytes, settings.max_pixels)
        self.ready = False

    def warm(self) -> None:
        """Judge a grey picture, so that the first caller need not wait for libraries to load."""
        self.detector.detect(np.full((64, 64, 3), 128, np.uint8))
        self.ready = True

    def share(self, options: Options) -> Fraction:
        """Of the room, that a picture takes.

        Of those that are searched for faces as many may wait as there are threads, or chance alone
        would have many refused; what is only scored is quickest when a batch comes together.
        """
        searched = options.faces == "auto"
        return Fraction(1, 2 * (self.settings.threads if searched else self.settings.batch))

    def close(self) -> None:
        """Finish what was accepted."""
        self.ready = False
        self.photos.close()
        self.clips.close()
        self._batcher.close()

    def judge(
        self,
        source: bytes | Path,
        name: str,
        options: Options,
        gone: threading.Event,
        progress: Callable[[int, int], None] | None = None,
    ) -> Verdict:
        """One picture or clip to its verdict; called in a thread.

        Raises:
            GoneError: `gone` was set meanwhile.
        """
        settings = self.settings
        with self._turns.one(gone):
            verdict = self.detector.detect(
                source,
                name=name,
                faces=options.faces,
                stability=options.stability,
                prevalence=options.prevalence,
                progress=progress,
                image_limits=self._image_limits,
                video_limits=VideoLimits(
                    settings.max_clip_bytes, max_seconds=settings.max_clip_seconds
                ),
                logits=partial(self._score, gone),
            )
        self.metrics.answers.labels(verdict.answer).inc()
        self.metrics.faces.inc(len(verdict.faces) + len(verdict.people))
        return verdict

    def look(
        self,
        source: bytes,
        verdict: Verdict,
        options: Options,
        gone: threading.Event,
    ) -> Looked | None:
        """Where the network looked in a picture that was judged; called in a thread.

        Raises:
            GoneError: `gone` was set meanwhile.
        """
        if verdict.kind != "photo":
            return None
        judge = self.detector.judge(Wishes(options.faces), partial(self._score, gone))
        with self._turns.one(gone):
            pixels = read_image(source, self._image_limits).pixels
            return look(judge, self.detector.preprocess, pixels, verdict.faces)

    def keep(self, file: IO[bytes], verdict: Verdict) -> None:
        """Write an upload and its verdict, where the operator asked for that."""
        if self.settings.keep is None:
            return
        suffix = Path(verdict.path).suffix.lower()
        known = suffix in SUFFIXES or suffix in CLIP_SUFFIXES
        path = self.settings.keep / f"{secrets.token_hex(12)}{suffix if known else '.bin'}"
        file.seek(0)
        with atomic_path(path) as temporary, temporary.open("wb") as out:
            while part := file.read(2**20):
                out.write(part)
        write_json(path.with_suffix(".json"), verdict.to_dict())

    def _score(self, gone: threading.Event, crops: Crops) -> NDArray[np.float64]:
        """Called in a thread that works; while it waits for the scores, another one may."""
        check_wanted(gone)
        with self._turns.paused():
            return self._batcher(crops)


def core_of(request: Request) -> Core:
    """What the app that got this request was made with."""
    core = request.app.state.core
    assert isinstance(core, Core)
    return core


@dataclass(frozen=True, slots=True)
class Threshold:
    """A threshold on the score, with the error rate on validation that it was chosen for."""

    threshold: float
    error_rate: float
    faces: int


@dataclass(frozen=True, slots=True)
class Bound:
    """What is accepted."""

    formats: tuple[str, ...]
    files: int
    file_bytes: int
    body_bytes: int
    pixels: int
    clip_bytes: int
    clip_seconds: float


@dataclass(frozen=True, slots=True)
class Model:
    """The detector that answers.

    Attributes:
        name: what it calls itself.
        version: of bonaface, that made it.
        architecture: of its network.
        fake_above: the score from which the answer is fake; the share of real faces beyond it.
        real_below: the score under which the answer is real; the share of fakes beyond it.
        doubt: why none of its answers counts; null where they do.
        validation: figures on its validation faces, with 95 % intervals.
        limits: what is accepted.
        keeps_uploads: whether the operator keeps what is sent.
        terms: for what the detector may be used; null where its card does not say.
    """

    name: str
    version: str
    architecture: str
    fake_above: Threshold
    real_below: Threshold
    doubt: str | None
    validation: dict[str, Any]
    limits: Bound
    keeps_uploads: bool
    terms: str | None


def model_of(core: Core) -> Model:
    """What `GET /v1/model` tells."""
    bundle, settings = core.detector.bundle, core.settings
    fake, real = map(bundle.operating_point, ("fake_above", "real_below"))
    return Model(
        name=core.detector.name,
        version=bundle.card.versions.get("bonaface", "unknown"),
        architecture=str(bundle.card.architecture.get("name", "unknown")),
        fake_above=Threshold(fake.threshold, fake.bpcer, fake.n_real),
        real_below=Threshold(real.threshold, real.apcer, real.n_fake),
        doubt=bundle.doubt,
        validation=bundle.card.validation,
        limits=Bound(
            formats=FORMATS,
            files=settings.max_files,
            file_bytes=settings.max_file_bytes,
            body_bytes=settings.max_body_bytes,
            pixels=settings.max_pixels,
            clip_bytes=settings.max_clip_bytes,
            clip_seconds=settings.max_clip_seconds,
        ),
        keeps_uploads=settings.keep is not None,
        terms=bundle.card.terms,
    )


@contextmanager
def leaving(request: Request) -> Any:
    """A future that is done when the client goes away; for the time of the block."""
    left: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        if not left.done():
            left.set_result(None)

    task = asyncio.create_task(watch())
    try:
        yield left
    finally:
        task.cancel()
