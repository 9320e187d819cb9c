"""``detect --follow``: lines, JSON, a live table, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
from typer.testing import CliRunner, Result

from bonaface import cli
from terminal import on_terminal
from test_stream import clip, fed

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/follow.schema.json").read_text())
SOON = 60


@pytest.fixture
def model(make_bundle: Callable[..., Path]) -> Path:
    return make_bundle()


@pytest.fixture
def stream(tmp_path: Path) -> Path:
    """A pipe into which a clip of 100 frames is being written."""
    path = tmp_path / "[red]pipe"
    os.mkfifo(path)
    fed(path, clip(".ts"))
    return path


def command(model: Path, *arguments: object) -> list[str]:
    told = ["--follow", "--faces", "none", "--model", model, *arguments]
    return ["detect", *map(str, told)]


def fed_by_hand(model: Path) -> subprocess.Popen[bytes]:
    """What judges its standard input, which a clip was written to and which stays open."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bonaface", *command(model, "-", "--json")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(clip(".ts"))
    process.stdin.flush()
    return process


def follow(model: Path, *arguments: object) -> Result:
    return CliRunner().invoke(cli.app, command(model, *arguments))


def test_lines_of_json_fit_the_schema_and_end_with_a_summary(model: Path, stream: Path) -> None:
    done = follow(model, stream, "--json")
    assert done.exit_code == 0
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    for line in lines:
        jsonschema.validate(line, SCHEMA)
        count = line["frames"]
        assert count["seen"] == count["judged"] + count["dropped"] + count["waiting"]
    assert {line["event"] for line in lines[:-1]} <= {"frame", "waiting"}
    last = lines[-1]
    assert (last["event"], last["ended"]) == ("end", "the pipe was closed")
    assert last["frames"]["seen"] == 100
    # On a slow machine frames far apart may make two people of one.
    words = {person["whole"]["answer"] for person in last["people"]}
    assert last["answer"] == next(word for word in ("fake", "unsure", "real") if word in words)


def test_lines_for_programs_and_the_counts_on_stderr(model: Path, stream: Path) -> None:
    done = follow(model, stream)
    assert done.exit_code == 0
    for line in done.stdout.splitlines():
        seconds, person, answer, score, reason = line.split("\t")
        assert 0 <= float(seconds) <= 4
        assert person.startswith("person ")
        assert answer in ("real", "unsure", "fake", "not_applicable")
        assert score == "-" or 0 <= float(score) <= 1
        assert reason
    assert "frames: 100 seen" in done.stderr
    assert "judged" in done.stderr
    assert "dropped" in done.stderr
    assert "evidence, not proof" in done.stderr


def test_a_stream_that_never_starts_is_unreadable(model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.ts").write_bytes(b"")
    done = follow(model, tmp_path / "empty.ts", "--idle", 0.3)
    assert done.exit_code == 3
    assert "nothing came: no byte came for 0.3 s" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.ts", "b.ts"], "expected one input with --follow, got 2 inputs"),
        (["a.ts", "--annotate", "d"], "got --annotate"),
        (["a.ts"], "a.ts: no such file"),
        (["a.ts", "--idle", "0"], "above 0"),
        (["a.ts", "--prevalence", "2"], "prevalence"),
    ],
)
def test_wrong_use_is_one_line(model: Path, arguments: list[str], message: str) -> None:
    done = follow(model, *arguments)
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr


def test_idle_needs_follow(model: Path, tmp_path: Path) -> None:
    arguments = ["detect", str(tmp_path), "--model", str(model), "--idle", "3"]
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 2
    assert "with --follow" in done.stderr


def test_standard_input_and_ctrl_c_give_the_summary(model: Path) -> None:
    process = fed_by_hand(model)
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    assert first["event"] in ("frame", "waiting")
    process.send_signal(signal.SIGINT)
    process.wait(SOON)  # before `communicate` closes the pipe
    out, err = process.communicate()
    last = json.loads(out.splitlines()[-1])
    assert process.returncode == 130
    assert (last["event"], last["ended"]) == ("end", "stopped")
    assert last["frames"]["seen"] == last["frames"]["judged"] + last["frames"]["dropped"]
    assert b"frames: " in err
    assert b"Traceback" not in err


def test_a_reader_that_goes_away_ends_it(model: Path) -> None:
    process = fed_by_hand(model)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(SOON) != 0
    assert b"Traceback" not in process.stderr.read()
    process.stdin.close()
    process.stderr.close()


def test_a_terminal_gets_a_live_table(model: Path, stream: Path) -> None:
    code, text = on_terminal(command(model, stream), columns=160, seconds=SOON)
    assert code == 0
    assert "100 seen" in text
    assert "[red]pipe" in text
    assert "person" in text
