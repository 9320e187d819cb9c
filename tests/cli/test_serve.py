"""``bonaface serve``, up to where it answers; what it answers is tested in tests/service."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from typer.testing import CliRunner

from bonaface.cli import app
from bonaface.service.keys import hash_of, read_keys
from served import Server, photo


def run(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "bonaface", "serve", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stderr


def test_a_new_key_is_printed_with_the_line_for_its_file(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["serve", "--new-key", "desk"])
    key, line = done.stdout.splitlines()
    path = tmp_path / "keys"
    path.write_text(line)
    assert read_keys(path) == {hash_of(key): "desk"}


def test_others_are_not_answered_without_keys(make_bundle: Callable[..., Path]) -> None:
    code, said = run("--model", str(make_bundle()), "--host", "0.0.0.0")
    assert code == 2
    assert said.startswith("bonaface: expected API keys for a service on 0.0.0.0")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--model", "default/nowhere"), "default/nowhere"),
        (("--model", "nowhere"), "nowhere"),
        (("--keys", "none", "--model", "b"), "none"),
    ],
)
def test_wrong_use_is_one_line(arguments: tuple[str, ...], said: str) -> None:
    code, line = run(*arguments)
    assert code == 2
    assert said in line
    assert len(line.splitlines()) == 1


def test_it_serves_with_keys_and_without_torch(
    make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text(f"{hash_of('secret')} desk\n")
    arguments = ("--keys", str(tmp_path / "keys"), "--host", "0.0.0.0")
    server = Server(make_bundle(), *arguments)
    try:
        url = server.url.replace("0.0.0.0", "127.0.0.1")
        given = {"authorization": "Bearer secret"}
        assert httpx2.post(f"{url}/v1/detect", content=photo()).status_code == 401
        answer = httpx2.post(f"{url}/v1/detect", content=photo(), headers=given, timeout=30)
        assert answer.json()[0]["faces"]
        maps = Path(f"/proc/{server.process.pid}/maps")
        if maps.exists():
            assert "libtorch" not in maps.read_text()
    finally:
        server.close()
    assert "secret" not in "".join(server.lines)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_that_is_taken_is_wrong_use(make_bundle: Callable[..., Path], workers: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, said = run("--model", str(make_bundle()), "--port", port, "--workers", workers)
    assert code == 2
    assert "choose another --port" in said.splitlines()[-1]
