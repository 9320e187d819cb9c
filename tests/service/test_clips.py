"""Clips are jobs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest
from starlette.testclient import TestClient

import credentials
import portraits
from bonaface.service.jobs import Job, Jobs, folder_in_memory
from bonaface.service.problems import Problem
from served import Held, OneFace, photo

from .test_photos import SCHEMA

Start = Callable[..., TestClient]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Two seconds of a portrait that moves."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (256, 256))
    frame = cv2.cvtColor(portraits.scaled(0.5), cv2.COLOR_RGB2BGR)
    for at in range(20):
        writer.write(np.roll(frame, 2 * at, axis=1))
    writer.release()
    return path.read_bytes()


def finished(client: TestClient, url: str, **options: Any) -> dict[str, Any]:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        job: dict[str, Any] = client.get(url, **options).json()
        if job["state"] in ("done", "failed"):
            return job
        time.sleep(0.02)
    raise AssertionError(f"still {job}")


def test_a_clip_is_judged_in_the_background(client: Start, clip: bytes) -> None:
    one = client()
    answer = one.post("/v1/detect/video?prevalence=0.1", files={"file": ("a.mp4", clip)})
    assert answer.status_code == 202
    assert answer.json()["state"] == "waiting"
    job = finished(one, answer.headers["location"])
    assert job["state"] == "done"
    jsonschema.validate([job["verdict"]], SCHEMA)
    assert job["verdict"]["path"] == "a.mp4"
    assert job["verdict"]["kind"] == "video"
    assert job["verdict"]["frames"]["judged"] == 20
    assert job["verdict"]["bands"]["prevalence"] == 0.1
    assert one.app.state.core.clip_places.taken == 0  # type: ignore[attr-defined]
    assert one.delete(answer.headers["location"]).status_code == 204
    assert one.get(answer.headers["location"]).status_code == 404


def test_content_credentials_stand_beside_the_verdict(client: Start) -> None:
    one, plain = client(), credentials.clip()
    signed = credentials.signed(plain, kind="mp4")
    verdicts = []
    for data in (plain, signed, credentials.tampered_clip(signed)):
        url = one.post("/v1/detect/video?faces=none", content=data).headers["location"]
        verdicts.append(finished(one, url)["verdict"])
    jsonschema.validate(verdicts, SCHEMA)
    states = [verdict["provenance"]["state"] for verdict in verdicts]
    assert states == ["absent", "valid", "invalid"]
    assert len({(verdict["answer"], verdict["score"]) for verdict in verdicts}) == 1


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="a Linux kernel's files in memory")
def test_a_clip_lies_in_memory(
    client: Start, clip: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a temporary file")

    seen: list[str] = []
    one = client()
    judge = one.app.state.core.judge  # type: ignore[attr-defined]

    def looked(source: Path, *rest: Any) -> Any:
        seen.append(str(Path(str(source).replace("/dev/fd", "/proc/self/fd")).readlink()))
        return judge(source, *rest)

    monkeypatch.setattr(one.app.state.core, "judge", looked)  # type: ignore[attr-defined]
    for name in ("TemporaryFile", "NamedTemporaryFile", "SpooledTemporaryFile", "mkstemp"):
        monkeypatch.setattr(f"tempfile.{name}", refuse)
    url = one.post("/v1/detect/video", content=clip).headers["location"]
    assert finished(one, url)["state"] == "done"
    assert seen == ["/memfd:clip (deleted)"]


def test_progress_is_told_and_a_clip_can_be_cancelled(client: Start, clip: bytes) -> None:
    class Slow(Held):
        def find(self, pixels: np.ndarray) -> Any:
            if pixels.shape[0] == 64:
                return ()
            self.begun.release()
            assert self.step.acquire(timeout=20)
            return OneFace.find(self, pixels)

    import threading

    finder = Slow()
    finder.step = threading.Semaphore(0)  # type: ignore[attr-defined]
    one = client(finder)
    url = one.post("/v1/detect/video", content=clip).headers["location"]
    for _ in range(3):
        finder.begun.acquire(timeout=20)
        finder.step.release()  # type: ignore[attr-defined]
    finder.begun.acquire(timeout=20)  # the fourth frame is looked at
    job = one.get(url).json()
    assert (job["state"], job["done"], job["planned"]) == ("judging", 3, 20)
    assert one.delete(url).status_code == 204
    finder.step.release()  # type: ignore[attr-defined]
    until_free(one)
    assert not finder.begun.acquire(blocking=False)  # no fifth
    assert one.get(url).status_code == 404


def until_free(client: TestClient) -> None:
    end = time.monotonic() + 20
    while client.app.state.core.clip_places.taken:  # type: ignore[attr-defined]
        assert time.monotonic() < end
        time.sleep(0.01)


def test_jobs_are_bounded(client: Start, clip: bytes) -> None:
    finder = Held()
    one = client(finder, max_jobs=4)  # of which one client gets half
    try:
        urls = [one.post("/v1/detect/video", content=clip).headers["location"] for _ in range(2)]
        refused = one.post("/v1/detect/video", content=clip)
        assert refused.status_code == 429
        assert refused.headers["retry-after"]
    finally:
        finder.go.set()
    assert [finished(one, url)["state"] for url in urls] == ["done", "done"]
    until_free(one)
    assert one.post("/v1/detect/video", content=clip).status_code == 202


@pytest.mark.parametrize(
    ("limits", "body", "status", "said"),
    [
        ({}, b"x" * 200, 415, "WebM"),
        ({}, None, 415, "/v1/detect"),
        ({"max_clip_bytes": 1000}, b"clip", 413, "smaller"),
    ],
)
def test_what_is_no_clip_is_refused_at_once(
    client: Start, clip: bytes, limits: Any, body: bytes | None, status: int, said: str
) -> None:
    content = {b"clip": clip, None: photo()}.get(body, body)
    one = client(**limits)
    answer = one.post("/v1/detect/video", content=content)
    assert (answer.status_code, said in answer.json()["detail"]) == (status, True)
    assert one.app.state.core.clip_places.taken == 0  # type: ignore[attr-defined]


def test_a_long_clip_and_a_damaged_one_are_answered_by_their_verdict(
    client: Start, clip: bytes
) -> None:
    one = client(max_clip_seconds=1)
    job = finished(one, one.post("/v1/detect/video", content=clip).headers["location"])
    assert job["verdict"]["reason"] == "longer than 0:01"
    broken = clip[:60] + bytes(len(clip) - 60)
    job = finished(one, one.post("/v1/detect/video", content=broken).headers["location"])
    assert (job["state"], job["verdict"]["answer"]) == ("done", "not_applicable")


def test_states_are_forgotten_after_their_time(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, 10)
    job = jobs.new("a")
    assert jobs.get(job.id, "a") == job
    os.utime(tmp_path / f"{job.id}.json", (time.time() - 11,) * 2)
    with pytest.raises(Problem):
        jobs.get(job.id, "a")
    assert list(tmp_path.iterdir()) == []


def test_a_dropped_job_stays_dropped(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, 10)
    job = jobs.new("a")
    jobs.drop(job.id, "a")
    jobs.update(Job(job.id, "done"), "a")
    with pytest.raises(Problem):
        jobs.get(job.id, "a")


def test_a_job_whose_worker_is_gone_has_failed(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from bonaface.service.jobs import Jobs; "
        "print(Jobs(Path(sys.argv[1]), 10).new('a').id)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    job = Jobs(tmp_path, 10).get(done.stdout.strip(), "a")
    assert (job.state, job.detail) == ("failed", "its worker ended; send the clip again")


@pytest.mark.parametrize("number", ["../secret", "x", "0" * 31, "", "0" * 32])
def test_a_name_leads_to_no_other_file(tmp_path: Path, number: str) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "secret.json").write_text("{}")
    with pytest.raises(Problem):
        Jobs(tmp_path / "jobs", 10).get(number, "a")


def test_the_folder_is_private_and_goes_away() -> None:
    with folder_in_memory() as folder:
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()
