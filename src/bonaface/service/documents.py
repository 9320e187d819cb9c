"""The OpenAPI document: every answer that an endpoint can give, with its schema."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from bonaface.service.problems import ProblemBody
from bonaface.verdict import verdict_schema

_FILE: Final = {"type": "string", "format": "binary", "minLength": 1}
_WHEN: Final = {
    400: "The body is empty, cut short or broken.",
    401: "Where the service asks for keys: there is none, or a wrong one.",
    403: "The service was called under a foreign name, or by another page.",
    404: "There is no such job, or no longer.",
    408: "The body did not come in time.",
    413: "A file, the request, or the number of files is over a limit.",
    415: "The content type, or the content, is not one that is read here.",
    422: "An option is unknown or out of range.",
    429: "This client asks too often.",
    500: "An error of the service's own.",
    503: "The service is full, or not ready; it says when to come again.",
}
_RETRY: Final = {
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}
}
_EVERYWHERE: Final = (401, 403, 500)


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Of an endpoint: these problems, and those that any endpoint can give."""
    found: dict[int | str, dict[str, Any]] = {}
    for status in sorted({*statuses, *_EVERYWHERE, 429}):
        found[status] = {
            "description": _WHEN[status],
            "content": {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
            },
        }
        if status in (429, 503):
            found[status]["headers"] = _RETRY
    return found


def body(*kinds: str, many: bool) -> dict[str, Any]:
    """Of an endpoint that takes files."""
    part: dict[str, Any] = {"type": "array", "items": _FILE, "minItems": 1} if many else _FILE
    form = {
        "type": "object",
        "properties": {"file": part},
        "required": ["file"],
        "additionalProperties": False,
    }
    content: dict[str, Any] = {"multipart/form-data": {"schema": form}}
    content |= {kind: {"schema": _FILE} for kind in kinds}
    return {"requestBody": {"required": True, "content": content}}


FILES: Final = body("application/octet-stream", "image/*", many=True)
CLIP: Final = body("application/octet-stream", "video/*", many=False)


def document(app: FastAPI) -> dict[str, Any]:
    """The document of an app, made once."""
    if app.openapi_schema is None:
        found = get_openapi(
            title=app.title,
            version=app.version,
            summary=app.summary,
            description=app.description,
            routes=app.routes,
        )
        schemas = found["components"]["schemas"]
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        schemas["Problem"] = ProblemBody.model_json_schema() | {"title": "Problem"}
        for name, described in verdict_schema()["$defs"].items():  # with a text for every field
            _describe(schemas.get("PhotoVerdict" if name == "Verdict" else name, {}), described)
        schemes = {"key": {"type": "http", "scheme": "bearer"}}
        found["components"]["securitySchemes"] = schemes
        found["security"] = [{}, {"key": []}]
        app.openapi_schema = found
    return app.openapi_schema


def _describe(schema: dict[str, Any], described: dict[str, Any]) -> None:
    for name, part in schema.get("properties", {}).items():
        if "description" in described["properties"].get(name, {}):
            part["description"] = described["properties"][name]["description"]
    if schema:
        schema["description"] = described["description"]
