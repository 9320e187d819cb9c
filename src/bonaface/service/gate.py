"""What every request passes: an id, a log line, headers, then the door."""

from __future__ import annotations

import math
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bonaface.service.keys import name_of
from bonaface.service.problems import Context, Problem, ProblemResponse, context
from bonaface.service.settings import Settings
from bonaface.service.telemetry import LOG, Metrics

_REQUEST_ID: Final = re.compile(r"[\w.-]{1,64}", re.ASCII)
_OPEN: Final = frozenset(
    {"/", "/page.css", "/page.js", "/icon.svg", "/healthz", "/readyz"}
)  # without a key
_CLIENTS: Final = 10_000
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Rates:
    """A bucket of tokens for each client: `burst` at once, `rate` a second in the long run."""

    def __init__(
        self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> None:
        """Take a token.

        Raises:
            Problem: 429, there is none.
        """
        if not self._rate:
            return
        now = self._clock()
        left, seen = self._left.pop(client, (float(self._burst), now))
        left = min(left + (now - seen) * self._rate, self._burst)
        self._left[client] = max(left - 1, 0) if left >= 1 else left, now
        if len(self._left) > _CLIENTS:
            self._left.popitem(last=False)
        if left < 1:
            seconds = max(1, math.ceil((1 - left) / self._rate))
            raise Problem(
                429,
                f"expected at most {self._rate:g} requests a second from you, got more; "
                f"try again in {seconds} s",
                {"Retry-After": str(seconds)},
            )


class Record:
    """Gives each request an id, safe headers, a line in the log and its place in the figures."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 0
        given = Headers(scope=scope).get("x-request-id", "")
        now = Context(given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8))
        scope["bonaface"] = now

        async def received() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                now.received += len(message.get("body", b""))
                now.complete = not message.get("more_body", False)
            return message

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = now.request_id
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            await self._app(scope, received, sent)
        except Exception:
            LOG.exception("request failed", extra={"fields": {"request_id": now.request_id}})
            if not status:
                detail = (
                    "expected to answer, got an error of the service's own; "
                    "try again, and name the request id to its operator"
                )
                answer = ProblemResponse(Problem(500, detail), now.request_id)
                await answer(scope, received, sent)
        finally:
            self._note(scope, now, status, time.monotonic() - began)

    def _note(self, scope: Scope, now: Context, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in ("GET", "POST", "DELETE") else "other"
        route = getattr(scope.get("route"), "path", "other")  # without what names a job
        self._metrics.requests.labels(route, method, str(status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        fields: dict[str, Any] = {
            "request_id": now.request_id,
            "client": now.client,
            "method": method,
            "route": route,
            "status": status,
            "seconds": round(seconds, 4),
            "bytes": now.received,
            "files": now.files,
        }
        LOG.info("request", extra={"fields": fields})


class Door:
    """Lets in who may come in."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._rates = Rates(settings.rate, settings.burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer with a problem."""
        if scope["type"] == "http":
            try:
                self._check(scope)
            except Problem as problem:
                answer = ProblemResponse(problem, context(scope).request_id)
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers, settings = Headers(scope=scope), self._settings
        now = context(scope)
        now.client = (scope.get("client") or ("unknown", 0))[0]
        if settings.keys:
            now.client = self._key(headers, scope["path"]) or now.client
        host = _host(headers.get("host", ""))
        if settings.hosts is not None and host not in settings.hosts:
            raise Problem(
                403,
                "expected to be called by the name of this machine (localhost), got another; "
                "start the service with API keys to have it answer under any name",
            )
        origin = headers.get("origin")
        if origin and origin not in settings.origins and not _same(origin, headers):
            raise Problem(
                403,
                "expected a page of this service, got a request of another page; "
                "the operator may name that page with --origin",
            )
        if scope["path"].startswith("/v1/"):
            self._rates.take(now.client)

    def _key(self, headers: Headers, path: str) -> str | None:
        given = headers.get("authorization")
        if given is None and path in _OPEN:
            return None
        kind, _, key = (given or "").partition(" ")
        name = None
        if kind.lower() == "bearer":
            name = name_of(key.strip(), self._settings.keys)
        if name is None:
            raise Problem(
                401,
                f"expected a key in the header Authorization: Bearer KEY, got "
                f"{'another one' if given else 'none'}; ask the operator for a key",
                {"WWW-Authenticate": "Bearer"},
            )
        return name


def _host(header: str) -> str:
    """The name in a Host header, without its port."""
    name = header.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0]


def _same(origin: str, headers: Headers) -> bool:
    return origin.partition("://")[2].lower() == headers.get("host", "").lower()
