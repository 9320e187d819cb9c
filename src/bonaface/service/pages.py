"""The page, and what the service tells of itself."""

from __future__ import annotations

from importlib import resources
from typing import Final, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from bonaface.service.core import Model, core_of, model_of
from bonaface.service.documents import answers
from bonaface.service.problems import Problem

router: Final = APIRouter()
_FILES: Final = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


class Health(BaseModel):
    """That the process runs."""

    status: Literal["ok"] = "ok"


@router.get("/v1/model", summary="The detector that answers", responses=answers(), tags=["about"])
async def model(request: Request) -> Model:
    """Its name, thresholds, figures on validation, and what is accepted here."""
    return model_of(core_of(request))


@router.get("/healthz", summary="Whether the process runs", responses=answers(), tags=["about"])
async def healthz() -> Health:
    """Always ok."""
    return Health()


@router.get("/readyz", summary="Whether it takes requests", responses=answers(503), tags=["about"])
async def readyz(request: Request) -> Health:
    """Ok from when the detector is loaded until the service is told to end."""
    if not core_of(request).ready:
        raise Problem(
            503,
            "expected a service that is ready, got one that starts or ends; try again in 1 s",
            {"Retry-After": "1"},
        )
    return Health()


@router.get(
    "/metrics",
    summary="Figures for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **answers()},
    tags=["about"],
)
async def metrics(request: Request) -> Response:
    """Of all workers together."""
    return Response(
        core_of(request).metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8"
    )


async def static(request: Request) -> Response:
    """A file of the page."""
    name, kind = _FILES[request.url.path]
    file = resources.files("bonaface.service").joinpath("static", name)
    return Response(file.read_bytes(), media_type=kind, headers={"Cache-Control": "no-cache"})


for _path in _FILES:
    router.add_api_route(_path, static, include_in_schema=False)
