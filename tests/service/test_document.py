"""The OpenAPI document is complete and true."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import jsonschema
from starlette.testclient import TestClient

from served import photo

Start = Callable[..., TestClient]
PATHS = {
    "/v1/detect",
    "/v1/detect/video",
    "/v1/jobs/{job}",
    "/v1/model",
    "/healthz",
    "/readyz",
    "/metrics",
}


def test_the_document_names_every_answer(client: Start) -> None:
    found = client().get("/openapi.json").json()
    assert set(found["paths"]) == PATHS
    for path, methods in found["paths"].items():
        for method, one in methods.items():
            where = f"{method} {path}"
            assert one["summary"], where
            assert one["description"], where
            assert {"401", "403", "429", "500"} <= set(one["responses"]), where
            for status, answer in one["responses"].items():
                if int(status) >= 400:
                    assert set(answer["content"]) == {"application/problem+json"}, where
    schemas = found["components"]["schemas"]
    assert set(schemas) >= {"Problem", "PhotoVerdict", "FaceVerdict", "Looked", "Job", "Model"}
    assert "HTTPValidationError" not in schemas
    for name in ("score", "explanation"):
        assert schemas["PhotoVerdict"]["properties"][name]["description"]
    assert "P(fake)" in schemas["FaceVerdict"]["properties"]["score"]["description"]


def test_a_verdict_and_a_problem_are_as_the_document_says(client: Start) -> None:
    one = client()
    found = one.get("/openapi.json").json()

    def check(answer: Any, path: str) -> None:
        said = found["paths"][path]["post"]["responses"][str(answer.status_code)]["content"]
        schema = said[answer.headers["content-type"]]["schema"]
        jsonschema.validate(answer.json(), schema | {"components": found["components"]})

    check(one.post("/v1/detect?stability=true", content=photo()), "/v1/detect")
    check(one.post("/v1/detect?explanation=true", content=photo()), "/v1/detect")
    check(one.post("/v1/detect", content=b"x"), "/v1/detect")
    check(one.post("/v1/detect", content=b""), "/v1/detect")
    check(one.post("/v1/detect/video", content=b"x"), "/v1/detect/video")


def test_no_request_finds_an_undocumented_answer(live: Any, tmp_path: Path) -> None:
    """Schemathesis, which makes requests of the document, sound and unsound ones."""
    address = live(max_requests=100)
    done = subprocess.run(
        [
            *(Path(sys.executable).parent / "schemathesis", "run"),
            f"http://localhost:{address[1]}/openapi.json",
            *("--max-examples", "10", "--generation-deterministic", "--no-color"),
            # No schema says which bytes are a clip.
            *("--exclude-checks", "positive_data_acceptance"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]
    assert "Tested: 8" in done.stdout


def test_broken_uploads_leave_the_service_healthy(live: Any) -> None:
    address = live()
    rng = random.Random(0)
    with httpx2.Client(base_url=f"http://localhost:{address[1]}", timeout=30) as client:
        for body, headers in broken(rng, 150):
            answer = client.post("/v1/detect", content=body, headers=headers)
            assert answer.status_code in (200, 400, 413, 415, 422), answer.text
        assert client.get("/healthz").status_code == 200
        (verdict,) = client.post("/v1/detect", content=photo()).json()
    assert verdict["kind"] == "photo"
    assert live.core().places.taken == live.core().places.held == 0


def broken(rng: random.Random, count: int) -> Any:
    """Pictures and forms with bytes that are changed, left out, doubled or made up."""
    form = (
        b'--X\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n'
        b"Content-Type: image/jpeg\r\n\r\n" + photo() + b"\r\n--X--\r\n"
    )
    for _ in range(count):
        kind = rng.choice(["multipart/form-data; boundary=X", "image/jpeg", ""])
        data = bytearray(form if "form" in kind else photo())
        for _ in range(rng.randrange(1, 12)):
            at = rng.choice([rng.randrange(len(data)), rng.randrange(min(len(data), 200))])
            match rng.randrange(4):
                case 0:
                    data[at] = rng.randrange(256)
                case 1:
                    del data[at : at + rng.randrange(1, 200)]
                case 2:
                    data[at:at] = data[at : at + rng.randrange(1, 200)]
                case 3:
                    data[at:at] = rng.randbytes(rng.randrange(1, 50))
            if not data:
                data = bytearray(b"x")
        yield bytes(data), {"content-type": kind} if kind else {}
