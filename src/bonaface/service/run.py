"""From the decisions of an operator to processes that answer on a port."""

from __future__ import annotations

import ipaddress
import os
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.supervisors import Multiprocess

from bonaface.bundle import load_bundle
from bonaface.detector import Detector
from bonaface.errors import ConfigError
from bonaface.faces import CenterFace
from bonaface.runtimes import processor_count
from bonaface.service.app import create_app
from bonaface.service.jobs import folder_in_memory
from bonaface.service.settings import Settings
from bonaface.service.telemetry import log_config

_HEADER_SECONDS: Final = 10.0
_SHUTDOWN_SECONDS: Final = 60
_START_SECONDS: Final = 60  # a worker that is silent for longer, as while it loads, is replaced


@dataclass(frozen=True, slots=True)
class Serving:
    """Where a service runs.

    Attributes:
        model: the folder of the bundle.
        host: address to listen on.
        port: 0 takes a free one.
        workers: processes.
        settings: of each of them.
    """

    model: Path
    host: str
    port: int
    workers: int
    settings: Settings


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check(serving: Serving) -> Serving:
    """Close what is open by mistake.

    Raises:
        ConfigError: others could reach the service and no key is asked for, or the folder for
            uploads is not there.
    """
    settings = serving.settings
    if not settings.keys and not is_loopback(serving.host):
        raise ConfigError(
            f"expected API keys for a service on {serving.host}, which others can reach, got "
            "none; make one with `bonaface serve --new-key` and name its file with --keys"
        )
    if settings.keep is not None and not settings.keep.is_dir():
        raise ConfigError(
            f"expected a folder after --keep, got {str(settings.keep)!r}, which is none; make it"
        )
    return replace(serving, settings=replace(settings, hosts=None)) if settings.keys else serving


def make_app(model: Path, workers: int, settings: Settings) -> FastAPI:
    """The app of one worker; called in its process."""
    threads = max(1, processor_count() // workers)
    # Searches run beside each other, each on one core: two on two cores would take half as much
    # processor time again, most of it waiting for each other.
    detector = Detector(
        load_bundle(model), threads=threads, finder=CenterFace(threads=1, frugal=True)
    )
    return create_app(detector, replace(settings, threads=max(2, threads)))


def serve(serving: Serving) -> bool:
    """Answer until told to end (SIGTERM, SIGINT); then finish what was accepted.

    Returns:
        Whether it had begun to answer.

    Raises:
        ConfigError: see `check`.
        BundleError: the model cannot be run.
    """
    serving = check(serving)
    load_bundle(serving.model)  # says here, once, what is wrong with it
    with ExitStack() as stack:
        settings = serving.settings
        if serving.workers > 1:
            shared = stack.enter_context(folder_in_memory())
            settings = replace(settings, jobs=shared)
            figures = stack.enter_context(folder_in_memory())
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(figures)  # the workers inherit it
            stack.callback(os.environ.pop, "PROMETHEUS_MULTIPROC_DIR", None)
        config = uvicorn.Config(
            partial(make_app, serving.model, serving.workers, settings),
            factory=True,
            host=serving.host,
            port=serving.port,
            workers=serving.workers,
            http=PatientProtocol,
            ws="none",
            log_config=log_config(),
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
            timeout_worker_healthcheck=_START_SECONDS,
        )
        try:
            if serving.workers > 1:
                Multiprocess(config, sockets=[config.bind_socket()]).run()
                return True
            server = uvicorn.Server(config)
            server.run()
        except SystemExit:  # with codes of Uvicorn's own; its log says why
            return False
        return server.started


class PatientProtocol(H11Protocol):
    """Uvicorn's own, but a client that sends no whole header in time is let go."""

    _header_timer: Any = None

    def connection_made(self, transport: Any) -> None:
        """Wait for the first header."""
        super().connection_made(transport)
        self._wait_for_header()

    def data_received(self, data: bytes) -> None:
        """Wait for the next header where one has begun."""
        super().data_received(data)
        waits = self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]
        if not waits and self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
        elif waits and self._header_timer is None:
            self._wait_for_header()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        if self._header_timer is not None:
            self._header_timer.cancel()
        super().connection_lost(exc)

    def _wait_for_header(self) -> None:
        self._header_timer = self.loop.call_later(_HEADER_SECONDS, self.transport.close)
