"""Errors as RFC 9457 has them: a problem says what was expected, what came, and what to do."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Self

from pydantic import BaseModel, Field
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_DRAIN_SECONDS: Final = 3.0


class ProblemBody(BaseModel):
    """What the body of every answer that is not a success holds."""

    type: str = Field(description="Always about:blank: the status says what kind of problem it is.")
    title: str = Field(description="The status in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What was expected, what came, and what to do.")
    request_id: str = Field(description="Names the request in the log of the service.")


class Problem(Exception):
    """Ends a request with a problem."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})

    @classmethod
    def busy(cls, what: str, seconds: int) -> Self:
        """The service is full; come again after so many seconds."""
        return cls(
            503,
            f"expected room for another {what}, got a service that is full; "
            f"try again in {seconds} s",
            {"Retry-After": str(seconds)},
        )


@dataclass(slots=True)
class Context:
    """What is known of the request that is being answered; lies in the scope as "bonaface".

    Attributes:
        request_id: names it in the answer and in the log.
        client: for whom the rate is counted: the name of the key, else the address.
        received: bytes of the body so far.
        complete: the whole body has been received.
        files: how many pictures or clips came.
    """

    request_id: str
    client: str = ""
    received: int = 0
    complete: bool = False
    files: int = 0


def context(scope: Scope) -> Context:
    """Of the request of this scope."""
    found = scope["bonaface"]
    assert isinstance(found, Context)
    return found


class ProblemResponse(Response):
    """Sends a problem, and then reads what the client is still sending.

    A client that sends its whole body before it reads would otherwise find the connection broken
    instead of the answer.
    """

    media_type = "application/problem+json"

    def __init__(self, problem: Problem, request_id: str) -> None:
        body = ProblemBody(
            type="about:blank",
            title=HTTPStatus(problem.status).phrase,
            status=problem.status,
            detail=problem.detail,
            request_id=request_id,
        )
        super().__init__(
            json.dumps(body.model_dump()).encode(), problem.status, headers=problem.headers
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer at once; read on for a few seconds."""
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        if self.status_code != HTTPStatus.REQUEST_TIMEOUT:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DRAIN_SECONDS):
                    await _drain(scope, receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _drain(scope: Scope, receive: Receive) -> None:
    now, headers = context(scope), dict(scope["headers"])
    waits = headers.get(b"expect", b"").lower() == b"100-continue"  # no body after this answer
    length = headers.get(b"content-length", b"0")
    if not now.received and (waits or (length == b"0" and b"transfer-encoding" not in headers)):
        return
    while not now.complete:
        message: Any = await receive()
        if message["type"] != "http.request":
            return
