"""``bonaface serve``: a web service and a page that judge pictures and clips."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from bonaface.cli._shared import SHIPPED, ModelOption
from bonaface.errors import BonafaceError, MissingExtraError

_NEEDED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")


def serve(
    model: ModelOption = SHIPPED,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than this machine's need --keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes on that port.")] = 1,
    keys: Annotated[
        Path | None,
        typer.Option(help="File of key hashes; BONAFACE_KEYS may hold them too."),
    ] = None,
    new_key: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Print a new key and its hash for --keys, and end."),
    ] = None,
    origin: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="Another page that may call the service (CORS)."),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep what is sent, and its verdict; else nothing is."),
    ] = None,
    rate: Annotated[
        float, typer.Option(min=0, help="Requests a second from one client; 0: no limit.")
    ] = 20.0,
    queue: Annotated[
        int, typer.Option(min=1, help="Requests that a process accepts at a time.")
    ] = 16,
    wait: Annotated[
        float,
        typer.Option(min=0.0, help="Seconds a request waits for room before 503 is said."),
    ] = 0.05,
    per_client: Annotated[
        int | None, typer.Option(min=1, help="Of those, of one client; default: half of them.")
    ] = None,
    megabytes: Annotated[int, typer.Option(min=1, help="Of one picture, at most.")] = 32,
    megapixels: Annotated[int, typer.Option(min=1, max=120, help="Of one picture, at most.")] = 50,
) -> None:
    """Answer over HTTP: a page at /, `POST /v1/detect`, and what `/openapi.json` describes.

    Only this machine can reach it unless --host says otherwise. Nothing that is sent is kept.
    """
    if new_key is not None:
        _print_key(new_key)
        return
    if any(importlib.util.find_spec(name) is None for name in _NEEDED):
        raise MissingExtraError("bonaface serve", "serve")

    from bonaface.service.keys import read_keys
    from bonaface.service.run import Serving
    from bonaface.service.run import serve as run
    from bonaface.service.settings import Settings

    settings = Settings(
        keys=read_keys(keys),
        origins=tuple(origin or ()),
        keep=keep,
        rate=rate,
        burst=max(1, round(2 * rate)),
        max_requests=queue,
        max_wait_seconds=wait,
        max_arriving=4 * queue,
        max_client_requests=per_client or max(1, queue // 2),
        max_file_bytes=megabytes * 2**20,
        max_body_bytes=2 * megabytes * 2**20,
        max_held_bytes=8 * megabytes * 2**20,
        max_client_bytes=4 * megabytes * 2**20,
        max_pixels=megapixels * 1_000_000,
    )
    if not run(Serving(model, host, port, workers, settings)):
        raise BonafaceError(
            f"expected to listen on {host}:{port}, got an error (see above); choose another --port"
        )


def _print_key(name: str) -> None:
    from bonaface.service.keys import hash_of
    from bonaface.service.keys import new_key as make

    key = make()
    typer.echo("The key, for who calls the service. It is shown this once:", err=True)
    typer.echo(key)
    typer.echo("Its hash, for the file that --keys names:", err=True)
    typer.echo(f"{hash_of(key)} {name}")
