"""``POST /v1/detect``: pictures to verdicts, in the answer to the request."""

from __future__ import annotations

import json
import threading
from functools import partial
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from bonaface.service.core import Core, PhotoOptions, core_of, leaving
from bonaface.service.documents import FILES, answers
from bonaface.service.looking import PhotoVerdict
from bonaface.service.problems import Problem, context
from bonaface.service.uploads import Bounds, Upload, in_memory, read_uploads, too_large
from bonaface.video import is_video

router: Final = APIRouter(tags=["judging"])


@router.post(
    "/v1/detect",
    summary="Judge pictures",
    response_model=list[PhotoVerdict],
    response_description="A verdict for each picture, in the order in which they came.",
    responses=answers(400, 408, 413, 415, 422, 503),
    openapi_extra=FILES,
)
async def detect(request: Request, options: Annotated[PhotoOptions, Query()]) -> Response:
    """Send one or more pictures as multipart/form-data, or the bytes of one as they are.

    A picture that cannot be read, or that has no face, is answered by a verdict that is
    not_applicable and says why. With explanation=true each face of one picture is answered by a map
    too: where the network looked, not what was forged.
    """
    core = core_of(request)
    settings = core.settings
    bounds = Bounds(
        settings.max_body_bytes,
        settings.max_file_bytes,
        settings.max_files,
        settings.body_seconds,
        settings.stall_seconds,
    )
    client = context(request.scope).client
    length = length_of(request, bounds)
    async with core.places.one(client, length, core.share(options)) as place:
        uploads = await read_uploads(request, bounds, in_memory, place.grow)
        if options.explanation and len(uploads) > 1:
            raise Problem(
                422,
                f"expected one picture with explanation=true, got {len(uploads)}; "
                "send each in a request of its own",
            )
        for upload in uploads:
            if is_video(upload.file.read(256)):
                raise Problem(
                    415,
                    f"expected pictures, got a clip ({upload.name}); send it to /v1/detect/video",
                )
        await place.accept(len(uploads))
        gone = threading.Event()
        tasks = [partial(_judged, core, upload, options, gone) for upload in uploads]
        with leaving(request) as left:
            found = await core.photos.run(tasks, gone, left, place.done)
    return Response(b"[" + b",".join(found) + b"]", media_type="application/json")


def _judged(core: Core, upload: Upload, options: PhotoOptions, gone: threading.Event) -> bytes:
    upload.file.seek(0)
    data = upload.file.read()
    verdict = core.judge(data, upload.name, options, gone)
    looked = core.look(data, verdict, options, gone) if options.explanation else None
    core.keep(upload.file, verdict)
    answer = verdict.to_dict() | {"explanation": looked and looked.model_dump()}
    return json.dumps(answer, allow_nan=False).encode()


def length_of(request: Request, bounds: Bounds) -> int:
    """Of the body, as the header says; 0 where it does not say.

    Raises:
        Problem: 413, it is over the bounds.
    """
    length = request.headers.get("content-length", "")
    size = int(length) if length.isascii() and length.isdigit() else 0
    if size > bounds.body_bytes:
        raise too_large(bounds.body_bytes, "request")
    return size
