"""A service in this process, and real ones on a port of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.testclient import TestClient

from bonaface.bundle import load_bundle
from bonaface.detector import Detector
from bonaface.service.app import create_app
from bonaface.service.core import Core
from bonaface.service.run import PatientProtocol
from served import OPEN, OneFace, Server


@pytest.fixture
def client(make_bundle: Callable[..., Path]) -> Iterator[Callable[..., TestClient]]:
    """Starts a service with settings and a finder; returns its client."""
    clients: list[TestClient] = []
    bundle = load_bundle(make_bundle())

    def start(finder: Any = None, **changes: Any) -> TestClient:
        detector = Detector(bundle, threads=1, finder=finder or OneFace())
        app = create_app(detector, replace(OPEN, **changes))
        one = TestClient(app, base_url="http://localhost")
        one.__enter__()
        clients.append(one)
        return one

    yield start
    for one in clients:
        one.__exit__(None, None, None)


class Live:
    """Starts services in threads of this process."""

    def __init__(self, model: Path) -> None:
        self._bundle = load_bundle(model)
        self._started: list[tuple[uvicorn.Server, threading.Thread]] = []

    def __call__(self, finder: Any = None, **changes: Any) -> tuple[str, int]:
        """Start one with settings and a finder; returns its address."""
        detector = Detector(self._bundle, threads=1, finder=finder or OneFace())
        app = create_app(detector, replace(OPEN, **changes))
        config = uvicorn.Config(
            app, port=0, http=PatientProtocol, log_config=None, access_log=False, ws="none"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        self._started.append((server, thread))
        while not server.started:
            time.sleep(0.01)
        host, port = server.servers[0].sockets[0].getsockname()
        return host, port

    def server(self) -> uvicorn.Server:
        """The last that was started."""
        return self._started[-1][0]

    def core(self) -> Core:
        """Of the last that was started."""
        core: Core = self.server().config.app.state.core  # type: ignore[union-attr]
        return core

    def close(self) -> None:
        for server, _ in self._started:
            server.should_exit = True
        for _, thread in self._started:
            thread.join(20)


@pytest.fixture
def live(make_bundle: Callable[..., Path]) -> Iterator[Live]:
    started = Live(make_bundle("live"))
    yield started
    started.close()


@pytest.fixture
def serve(make_bundle: Callable[..., Path]) -> Iterator[Callable[..., Server]]:
    """Starts `bonaface serve` on a free port."""
    servers: list[Server] = []

    def start(*arguments: str, **options: Any) -> Server:
        servers.append(Server(make_bundle(f"bundle-{len(servers)}"), *arguments, **options))
        return servers[-1]

    yield start
    for one in servers:
        one.close()
