"""Pictures to send, finders of faces that need no search, and real service processes."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import PIL.Image

import portraits
from bonaface.faces import Face
from bonaface.service.settings import Settings

OPEN = Settings(rate=0, stall_seconds=2, body_seconds=5)


def encoded(pixels: np.ndarray, kind: str = "JPEG", **options: Any) -> bytes:
    out = io.BytesIO()
    PIL.Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


def photo() -> bytes:
    return encoded(portraits.portrait())


class OneFace:
    """Finds the same face in every picture."""

    name = "one face"

    def find(self, pixels: np.ndarray) -> tuple[Face, ...]:
        height, width = pixels.shape[:2]
        return (Face((0.2 * width, 0.2 * height, 0.8 * width, 0.8 * height), (), 0.9),)


class Held(OneFace):
    """Holds every search until it is let go."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Semaphore(0), threading.Event()
        self.held = True

    def find(self, pixels: np.ndarray) -> tuple[Face, ...]:
        if self.held and pixels.shape[0] != 64:  # not the grey picture of the start
            self.begun.release()
            assert self.go.wait(60)
        return super().find(pixels)


class Server:
    """A process that serves, or several."""

    def __init__(self, model: Path, *arguments: str, **options: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bonaface", "serve", "--model", str(model), "--port", "0",
             "--rate", "0", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | options.pop("env", {}),
            **options,
        )  # fmt: skip
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = self._url()
        self.client = httpx2.Client(base_url=self.url, timeout=30)

    def _read(self) -> None:
        assert self.process.stderr
        self.lines.extend(iter(self.process.stderr.readline, ""))

    def _url(self) -> str:
        end = time.monotonic() + 60
        while time.monotonic() < end and self.process.poll() is None:
            found = re.search(r"running on (http://\S+)", "".join(self.lines))
            if found and self._ready(found[1]):
                return found[1]
            time.sleep(0.05)
        self.process.terminate()
        self.process.wait(60)
        raise AssertionError("did not start:\n" + "".join(self.lines))

    def _ready(self, url: str) -> bool:
        try:
            return httpx2.get(f"{url}/readyz", timeout=5).status_code in (200, 401)
        except httpx2.HTTPError:
            return False

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.end()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join(5)
