"""What an operator decides about the service; the defaults suit one machine with a few users."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

LOCAL_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Settings:
    """Of one process; with several workers each has these limits for itself.

    Attributes:
        keys: SHA-256 of each API key in hex -> its name; empty: no key is asked for.
        hosts: names by which the service may be called, so that no web page reaches it under a
            name of its own; None: any, which is safe only where keys are asked for.
        origins: web pages from elsewhere that may call it, such as "https://desk.example".
        keep: a folder for uploads and verdicts; None: nothing is kept.
        max_file_bytes: of one picture.
        max_pixels: of one picture.
        max_files: in one request.
        max_body_bytes: of one request with pictures.
        body_seconds: within which a request's body must have come.
        stall_seconds: for which its sender may be silent.
        max_requests: whose bodies have come and that are not answered, at a time; more are told to
            come again.
        max_wait_seconds: that a request waits for room, before it is told to come again.
        max_arriving: that wait for that, or whose bodies are still coming, at a time.
        max_held_bytes: of the bodies of both.
        max_client_requests: of both, of one client.
        max_client_bytes: of their bodies.
        rate: requests a second from one client, in the long run; 0: no limit.
        burst: requests at once from one client.
        threads: that decode and look for faces at a time.
        batch: crops that are scored together.
        batch_seconds: for which a crop waits for others.
        max_clip_bytes: of one clip.
        max_clip_seconds: of one clip.
        max_jobs: clips waiting or being judged; one client gets half of them.
        job_seconds: for which the result of a clip can be fetched.
        jobs: a folder in memory that all workers share; None: a new one.
    """

    keys: Mapping[str, str] = field(default_factory=dict)
    hosts: frozenset[str] | None = LOCAL_NAMES
    origins: tuple[str, ...] = ()
    keep: Path | None = None
    max_file_bytes: int = 32 * 2**20
    max_pixels: int = 50_000_000
    max_files: int = 16
    max_body_bytes: int = 64 * 2**20
    body_seconds: float = 30.0
    stall_seconds: float = 10.0
    max_requests: int = 16
    max_wait_seconds: float = 0.05
    max_arriving: int = 64
    max_held_bytes: int = 256 * 2**20
    max_client_requests: int = 8
    max_client_bytes: int = 128 * 2**20
    rate: float = 20.0
    burst: int = 40
    threads: int = 2
    batch: int = 16
    batch_seconds: float = 0.004
    max_clip_bytes: int = 256 * 2**20
    max_clip_seconds: float = 600.0
    max_jobs: int = 4
    job_seconds: float = 3600.0
    jobs: Path | None = None
