"""``POST /v1/detect/video``: a clip becomes a job, whose progress can be asked for."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import asdict, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from bonaface.service.core import FORM_BYTES, Core, Options, core_of
from bonaface.service.documents import CLIP, answers
from bonaface.service.jobs import Job, Jobs
from bonaface.service.photos import length_of
from bonaface.service.problems import Problem, context
from bonaface.service.telemetry import LOG
from bonaface.service.uploads import Bounds, Upload, in_memory_with_number, read_uploads
from bonaface.service.work import GoneError
from bonaface.video import CONTAINERS, is_video

router: Final = APIRouter(tags=["judging"])
_OF_JOB: Final = {"parameters": {"job": "$response.body#/id"}}
_LINKS: Final = {name: {"operationId": name, **_OF_JOB} for name in ("get_job", "drop_job")}
_SLOWER: Final = 10  # times the time of a picture, that the body of a clip may take


class Clips:
    """The jobs of this process, as tasks."""

    def __init__(self, core: Core, jobs: Jobs) -> None:
        self._core, self.jobs = core, jobs
        self._tasks: set[asyncio.Task[None]] = set()
        self._left: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(
        self, upload: Upload, options: Options, owner: str, held: contextlib.AsyncExitStack
    ) -> Job:
        """Judge it in the background; what is `held` is given back when that has ended."""
        job = self.jobs.new(owner)
        task = asyncio.create_task(self._run(job, upload, options, owner, held))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return job

    async def close(self) -> None:
        """Give up what is not done: nobody could fetch it any more."""
        if not self._left.done():
            self._left.set_result(None)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(
        self,
        job: Job,
        upload: Upload,
        options: Options,
        owner: str,
        held: contextlib.AsyncExitStack,
    ) -> None:
        gone = threading.Event()
        task = partial(self._judge, job, upload, options, owner, gone)
        async with held:
            try:
                await self._core.clips.run([task], gone, self._left)
            except GoneError:
                pass
            except Exception:
                LOG.exception("clip failed", extra={"fields": {"job": job.id}})
                why = "an error of the service's own; try again"
                self.jobs.update(replace(job, state="failed", detail=why), owner)

    def _judge(
        self, job: Job, upload: Upload, options: Options, owner: str, gone: threading.Event
    ) -> None:
        def seen(done: int, planned: int) -> None:
            if gone.is_set() or self.jobs.dropped(job.id):
                raise GoneError
            self.jobs.update(replace(job, state="judging", done=done, planned=planned), owner)

        self.jobs.update(replace(job, state="judging"), owner)
        if self.jobs.dropped(job.id):
            raise GoneError
        path = Path(f"/dev/fd/{upload.file.fileno()}")  # it has no other name
        verdict = self._core.judge(path, upload.name, options, gone, seen)
        self._core.keep(upload.file, verdict)
        count = verdict.frames.asked if verdict.frames else 0
        done = replace(job, state="done", done=count, planned=count, verdict=verdict.to_dict())
        self.jobs.update(done, owner)


@router.post(
    "/v1/detect/video",
    status_code=202,
    summary="Judge a clip",
    response_model=Job,
    response_description="The job; its address is in the header Location.",
    responses={202: {"links": _LINKS}, **answers(400, 408, 413, 415, 422, 503)},
    openapi_extra=CLIP,
)
async def detect_video(request: Request, options: Annotated[Options, Query()]) -> Response:
    """Send one clip as multipart/form-data, or its bytes as they are; then ask for the job."""
    core = core_of(request)
    clips: Clips = request.app.state.clips
    settings = core.settings
    bounds = Bounds(
        settings.max_clip_bytes + FORM_BYTES,
        settings.max_clip_bytes,
        1,
        _SLOWER * settings.body_seconds,
        settings.stall_seconds,
    )
    client = context(request.scope).client
    async with contextlib.AsyncExitStack() as held:
        place = await held.enter_async_context(
            core.clip_places.one(client, length_of(request, bounds), Fraction(0))
        )
        (upload,) = await read_uploads(request, bounds, in_memory_with_number, place.grow)
        held.callback(upload.file.close)
        head = upload.file.read(256)
        upload.file.seek(0)
        if not is_video(head):
            raise Problem(
                415,
                f"expected a clip ({', '.join(CONTAINERS)}), got something else; "
                "send pictures to /v1/detect",
            )
        await place.accept()
        job = clips.start(upload, options, client, held.pop_all())
    where = {"Location": f"/v1/jobs/{job.id}"}
    return JSONResponse(asdict(job), 202, headers=where)


@router.get(
    "/v1/jobs/{job}",
    summary="How a clip stands",
    response_model=Job,
    responses=answers(404, 422),
)
async def get_job(request: Request, job: str) -> Response:
    """The state of a job, and its verdict when it is done."""
    clips: Clips = request.app.state.clips
    return JSONResponse(asdict(clips.jobs.get(job, context(request.scope).client)))


@router.delete(
    "/v1/jobs/{job}",
    status_code=204,
    summary="Cancel a clip, or forget its verdict",
    responses=answers(404, 422),
)
async def drop_job(request: Request, job: str) -> Response:
    """A clip that is being judged is given up at its next frame."""
    clips: Clips = request.app.state.clips
    clips.jobs.drop(job, context(request.scope).client)
    return Response(status_code=204)
