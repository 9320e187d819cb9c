"""Bodies that lie, stop, or never end."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from served import Server, encoded, photo

Start = Callable[..., TestClient]
FORM = {"content-type": "multipart/form-data; boundary=X"}


def form(*parts: tuple[str, bytes], end: bytes = b"--X--\r\n") -> bytes:
    return b"".join(
        b"--X\r\nContent-Disposition: form-data; " + head.encode() + b"\r\n\r\n" + data + b"\r\n"
        for head, data in parts
    ) + end  # fmt: skip


FILE = ('name="file"; filename="a.jpg"', b"data")


@pytest.mark.parametrize(
    ("status", "body", "headers", "said"),
    [
        (400, b"", {}, "nothing"),
        (400, form(FILE, end=b""), FORM, "last boundary"),
        (400, form(), FORM, "none"),
        (400, b"nonsense", FORM, "broken"),
        (400, form(FILE), {"content-type": "multipart/form-data"}, "boundary"),
        (400, form(FILE), {"content-type": f"multipart/form-data; boundary={'x' * 999}"}, "broken"),
        (400, form(('name="file"; filename="a"\r\nX: ' + "y" * 5000, b"")), FORM, "broken"),
        (422, form(('name="stability"', b"true")), FORM, "'stability'"),
        (413, form(*[FILE] * 4), FORM, "at most 3 files"),
        (413, form(('name="f"; filename="a"', bytes(3000))), FORM, "smaller"),
        (413, bytes(2001), {}, "smaller"),
        (413, bytes(9001), {}, "fewer"),
        (415, b"x", {"content-type": "text/plain"}, "text/plain"),
        (415, b"x", {"content-type": "application/x-www-form-urlencoded"}, "octet-stream"),
    ],
)
def test_a_body_that_is_no_good_is_a_problem(
    client: Start, status: int, body: bytes, headers: dict[str, str], said: str
) -> None:
    one = client(max_files=3, max_file_bytes=2000, max_body_bytes=9000)
    answer = one.post("/v1/detect", content=body, headers=headers)
    assert (answer.status_code, said in answer.json()["detail"]) == (status, True), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert one.app.state.core.places.taken == one.app.state.core.places.held == 0


def test_a_body_without_a_length_is_counted_as_it_comes(client: Start) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            yield bytes(1000)

    answer = client(max_body_bytes=9000).post("/v1/detect", content=endless())
    assert answer.status_code == 413


def test_names_are_fit_to_be_shown(client: Start) -> None:
    body = form(('name="f"; filename="C:\\\\dir\\\\\x1b[31mred.jpg"', photo()))
    (verdict,) = client().post("/v1/detect", content=body, headers=FORM).json()
    assert verdict["path"] == "[31mred.jpg"


def talk(address: tuple[str, int], *parts: bytes) -> bytes:
    """Send parts over a socket of its own; what comes back until the other side closes."""
    with socket.create_connection(address, timeout=30) as line:
        for part in parts:
            line.sendall(part)
        found = b""
        while chunk := line.recv(65536):
            found += chunk
        return found


HEAD = b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"


def test_hostile_connections_fail_alone(
    live: Callable[..., tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bonaface.service.run._HEADER_SECONDS", 1.0)
    address = live(stall_seconds=1)
    asked = {
        "stops": (HEAD + b"Content-Length: 10\r\n\r\n", b"abc"),
        "no header": (HEAD[:40],),
        "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",),
        "huge": (HEAD + b"Content-Length: 999999999999\r\nExpect: 100-continue\r\n\r\n",),
        "sound": (HEAD + b"Content-Length: %d\r\n\r\n" % len(photo()), photo()),
    }
    answers: dict[str, bytes] = {}

    def ask(name: str) -> None:
        answers[name] = talk(address, *asked[name])

    threads = [threading.Thread(target=ask, args=(name,)) for name in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    lines = {name: answer.split(b"\r\n")[0] for name, answer in answers.items()}
    assert b" 408 " in lines["stops"]
    assert b"no pause of 1 s" in answers["stops"]
    assert lines["no header"] == b""  # let go without a word
    assert b" 400 " in lines["chunks"]
    assert b" 413 " in lines["huge"]
    assert b" 200 " in lines["sound"]


def test_no_upload_reaches_the_disk(serve: Callable[..., Server]) -> None:
    """The process may not write a single byte to any file, and answers all the same."""
    resource = pytest.importorskip("resource")

    def forbid() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    server = serve(preexec_fn=forbid, env={"PYTHONDONTWRITEBYTECODE": "1"})
    noise = np.random.default_rng(0).integers(0, 255, (1800, 1800, 3), np.uint8)
    large = encoded(noise, "PNG")
    assert len(large) > 8 * 2**20  # far more than what Starlette keeps in memory
    files: Any = [("file", ("a.png", large)), ("file", ("b.png", large))]
    answer = server.client.post("/v1/detect", files=files)
    assert answer.status_code == 200
    assert [one["kind"] for one in answer.json()] == ["photo", "photo"]
    raw = server.client.post("/v1/detect", content=large)
    assert [one["kind"] for one in raw.json()] == ["photo"]


def test_that_limit_would_be_noticed(tmp_path: Path) -> None:
    """What the test above relies on: with this limit no file can be written."""
    resource = pytest.importorskip("resource")
    code = "open('x', 'wb', buffering=0).write(b'x')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
    )
    assert "File too large" in done.stderr


def test_broken_uploads_are_answered(
    client: Start, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    """A few of those that benchmarks/serving.py sends by thousands."""
    monkeypatch.syspath_prepend(pytestconfig.rootpath / "benchmarks")
    from broken import WAYS, broken_uploads

    one = client()
    statuses = Counter[int]()
    for kind, body in broken_uploads(12 * len(WAYS), seed=1):
        answer = one.post("/v1/detect", content=body, headers={"content-type": kind})
        assert answer.status_code < 500, (kind, body[:200], answer.text)
        statuses[answer.status_code] += 1
    assert min(statuses[200], statuses[400], statuses[415]) > 0
    assert one.post("/v1/detect", content=photo()).json()[0]["kind"] == "photo"
