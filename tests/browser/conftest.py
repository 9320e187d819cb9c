"""The system's Chromium, driven by Playwright, on a service in this process."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from bonaface.bundle import finish_bundle
from bonaface.detector import Detector
from bonaface.service.app import create_app
from bonaface.service.keys import hash_of
from bonaface.service.run import PatientProtocol
from served import OPEN
from tiny import make_card, write_brightness_onnx

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            if CHROMIUM is None:
                item.add_marker(pytest.mark.skip(reason="needs a Chromium: apt install chromium"))


@pytest.fixture(scope="session")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An open service, and one that asks for the key "secret"."""
    folder = tmp_path_factory.mktemp("bundle")
    write_brightness_onnx(folder / "model.onnx")
    bundle = finish_bundle(folder, make_card())
    keyed = replace(OPEN, keys={hash_of("secret"): "desk"}, hosts=None)
    found, ending = {}, []
    for name, settings in (("open", OPEN), ("keyed", keyed)):
        app = create_app(Detector(bundle, threads=1), settings)
        config = uvicorn.Config(
            app, port=0, http=PatientProtocol, log_config=None, access_log=False, ws="none"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        ending.append((server, thread))
        while not server.started:
            time.sleep(0.01)
        found[name] = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    yield found
    for server, thread in ending:
        server.should_exit = True
        thread.join(20)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--use-fake-device-for-media-stream",
                  "--use-fake-ui-for-media-stream"],
        )  # fmt: skip
        yield started
        started.close()


@pytest.fixture
def page(browser: Any, urls: dict[str, str]) -> Iterator[Any]:
    """The page, loaded; what it prints to its console fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(60_000)  # a machine that is shared may stand still for a while
    opened = context.new_page()
    said: list[str] = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.goto(urls["open"])
    opened.wait_for_selector("#figures:not(:empty)")
    yield opened
    context.close()
    assert said == []
