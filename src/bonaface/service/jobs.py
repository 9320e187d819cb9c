"""Clips are judged as jobs: their states lie in a folder in memory that all workers share.

A state holds no picture. A worker may be asked about the job of another one; a job whose worker
was killed is told to have failed.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from bonaface.files import write_json
from bonaface.service.problems import Problem

State = Literal["waiting", "judging", "done", "failed"]

_ID: Final = re.compile(r"[0-9a-f]{32}")
_MOST_STATES: Final = 1000
_MEMORY: Final = Path("/dev/shm")  # noqa: S108  (private folders are made in it)


@dataclass(frozen=True, slots=True)
class Job:
    """A clip that is judged, or was.

    Attributes:
        id: names it in its address.
        state: waiting, judging, done or failed.
        done: frames that were looked at.
        planned: frames to look at; null: not known yet.
        verdict: where it is done.
        detail: where it failed: what to do.
    """

    id: str
    state: State
    done: int = 0
    planned: int | None = None
    verdict: dict[str, Any] | None = None
    detail: str | None = None


@contextmanager
def folder_in_memory() -> Iterator[Path]:
    """A private folder for states, removed at the end; in memory where the system has a place."""
    place = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="bonaface-", dir=place))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Jobs:
    """The states of all jobs.

    Args:
        folder: that all workers share.
        seconds: after which a finished job is forgotten.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self._folder, self._seconds = folder, seconds

    def new(self, owner: str) -> Job:
        """A job that waits.

        Raises:
            Problem: 503, too many are known.
        """
        self._forget()
        if sum(1 for _ in self._folder.glob("*.json")) >= _MOST_STATES:
            raise Problem.busy("clip", 60)
        job = Job(secrets.token_hex(16), "waiting")
        self._write(job, owner)
        return job

    def get(self, number: str, owner: str) -> Job:
        """As it stands.

        Raises:
            Problem: 404, there is none of this name that belongs to `owner`.
        """
        self._forget()
        found = self._read(number)
        if found is None or found[1] != owner or self.dropped(number):
            raise Problem(
                404,
                f"expected a job that is known here, got another or one older than "
                f"{self._seconds:g} s; send the clip again",
            )
        job, _, worker = found
        if job.state in ("waiting", "judging") and not alive(worker):
            return replace(job, state="failed", detail="its worker ended; send the clip again")
        return job

    def update(self, job: Job, owner: str) -> None:
        """Write down how it stands, unless it was dropped."""
        if not self.dropped(job.id):
            self._write(job, owner)

    def drop(self, number: str, owner: str) -> None:
        """Cancel or forget it.

        Raises:
            Problem: 404, as of `get`.
        """
        self.get(number, owner)
        self._gone(number).touch()

    def dropped(self, number: str) -> bool:
        """Whether its client has no more use for it."""
        return self._gone(number).exists()

    def _forget(self) -> None:
        oldest = time.time() - self._seconds
        for path in self._folder.glob("*.json"):
            try:
                old = path.stat().st_mtime < oldest
            except FileNotFoundError:  # another worker was quicker
                continue
            if old:
                path.unlink(missing_ok=True)
                self._gone(path.stem).unlink(missing_ok=True)

    def _gone(self, number: str) -> Path:
        return self._folder / f"{number}.gone"

    def _write(self, job: Job, owner: str) -> None:
        state = {"job": asdict(job), "owner": owner, "worker": os.getpid()}
        write_json(self._folder / f"{job.id}.json", state)

    def _read(self, number: str) -> tuple[Job, str, int] | None:
        if not _ID.fullmatch(number):
            return None
        try:
            state = json.loads((self._folder / f"{number}.json").read_bytes())
        except FileNotFoundError:
            return None
        return Job(**state["job"]), state["owner"], state["worker"]


def alive(process: int) -> bool:
    """Whether there is a process of this number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True
