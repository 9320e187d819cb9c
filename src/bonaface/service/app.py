"""The service as an ASGI app."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.routing import Match

from bonaface import __version__
from bonaface.detector import Detector
from bonaface.service import clips, documents, pages, photos
from bonaface.service.core import Core
from bonaface.service.gate import Door, Record
from bonaface.service.jobs import Jobs, folder_in_memory
from bonaface.service.memory import trim_for_ever
from bonaface.service.problems import Problem, ProblemResponse, context
from bonaface.service.settings import Settings
from bonaface.service.telemetry import Metrics
from bonaface.service.work import GoneError

_CLIENT_LEFT = 499  # as nginx logs it; nobody reads it


def create_app(detector: Detector, settings: Settings) -> FastAPI:
    """The service of one detector.

    Args:
        detector: scores from one thread, and finds faces from several.
        settings: what the operator decided.
    """
    metrics = Metrics()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        core = Core(detector, settings, metrics)
        with contextlib.ExitStack() as stack:
            folder = settings.jobs or stack.enter_context(folder_in_memory())
            app.state.core = core
            app.state.clips = clips.Clips(core, Jobs(folder, settings.job_seconds))
            await run_in_threadpool(core.warm)
            trimming = asyncio.create_task(trim_for_ever())
            yield
            trimming.cancel()
            await app.state.clips.close()
            await run_in_threadpool(core.close)

    middleware = [Middleware(Record, metrics=metrics)]
    if settings.origins:
        middleware.append(_cors(settings))
    middleware.append(Middleware(Door, settings=settings))
    app = FastAPI(
        title="bonaface",
        version=__version__,
        summary="Judges faces in pictures and clips: fake, real or unsure, and why.",
        description=(
            "A score is the calibrated probability that a face is fake, given as many fakes as "
            "reals. It is evidence, not proof. "
            + (
                "The operator keeps what is sent."
                if settings.keep
                else "Nothing that is sent is kept."
            )
        ),
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
        lifespan=lifespan,
        middleware=middleware,
        exception_handlers={
            Problem: _problem,
            GoneError: _left,
            HTTPException: _http,
            RequestValidationError: _invalid,
        },
    )
    for part in (photos, clips, pages):
        app.include_router(part.router)
    setattr(app, "openapi", lambda: documents.document(app))  # noqa: B010  (as FastAPI says)
    return app


def _cors(settings: Settings) -> Middleware:
    return Middleware(
        CORSMiddleware,
        allow_origins=settings.origins,
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "X-Request-ID"],
        expose_headers=["Location", "Retry-After", "X-Request-ID"],
    )


async def _problem(request: Request, error: Any) -> Response:
    return ProblemResponse(error, context(request.scope).request_id)


async def _left(request: Request, error: Any) -> Response:
    return Response(status_code=_CLIENT_LEFT)


async def _http(request: Request, error: Any) -> Response:
    """What Starlette raises: no such address, or another method than those of the address."""
    asked = f"{request.method} {request.url.path[:200]}"
    detail, headers = str(error.detail), dict(error.headers or {})
    if error.status_code == 404:
        detail = f"expected an address of this service, got {asked}; see /openapi.json"
    if error.status_code == 405:
        headers["Allow"] = allowed = _methods(request)
        detail = f"expected {allowed}, got {asked}; see /openapi.json"
    problem = Problem(error.status_code, detail, headers)
    return ProblemResponse(problem, context(request.scope).request_id)


def _methods(request: Request) -> str:
    """Of this address; Starlette would name those of its first route only."""
    found = (
        route.methods or set()
        for part in (photos, clips, pages)
        for route in part.router.routes
        if isinstance(route, APIRoute) and route.matches(request.scope)[0] is not Match.NONE
    )
    return ", ".join(sorted(set().union(*found)))


async def _invalid(request: Request, error: Any) -> Response:
    """An option in the address that FastAPI refuses."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"][1:])
    got = str(first.get("input"))[:100]
    detail = f"expected a valid {name}, got {got!r} ({first['msg']}); correct the address"
    return ProblemResponse(Problem(422, detail), context(request.scope).request_id)
