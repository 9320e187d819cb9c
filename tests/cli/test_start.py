"""What every command line shares: help, version, errors, and what it does not import."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

import bonaface
from bonaface import cli
from bonaface.errors import MissingExtraError

COMMANDS = (
    *("detect", "data", "train", "evaluate", "audit"),
    *("compare", "explain", "models", "doctor", "demo", "scan", "serve"),
)
HEAVY = ("torch", "numpy", "onnxruntime", "cv2", "PIL", "scipy", "sklearn")


def python(code: str, *arguments: str, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | (env or {}),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


LOADED = """
import json, sys
try:
    from bonaface.cli import main
    main()
except SystemExit as left:
    pass
print()
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""


def loaded(*arguments: str) -> set[str]:
    return set(json.loads(python(LOADED, *arguments).splitlines()[-1]))


def test_help_lists_the_commands_and_loads_nothing_heavy() -> None:
    out = python(LOADED, "--help")
    for command in COMMANDS:
        assert f" {command} " in out
    assert not set(json.loads(out.splitlines()[-1])) & set(HEAVY)


def test_help_of_a_command_loads_nothing_heavy() -> None:
    for command in ("train", "detect", "explain", "demo", "scan", "serve"):
        assert not loaded(command, "--help") & set(HEAVY)


def test_detect_never_loads_torch(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    Image.new("RGB", (20, 20), "white").save(tmp_path / "a.png")
    arguments = ("--faces", "none", str(tmp_path / "a.png"), "--model", str(make_bundle()))
    found = loaded("detect", *arguments)
    assert "onnxruntime" in found
    assert not found & {"torch", "transformers", "lightning_fabric", "sklearn", "scipy"}


def test_importing_the_package_loads_nothing_heavy() -> None:
    out = python("import bonaface, sys, json; print(json.dumps(list(sys.modules)))")
    assert not set(json.loads(out)) & {*HEAVY, "typer", "rich"}


@pytest.mark.parametrize("name", bonaface.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(bonaface, name) is not None
    assert name in dir(bonaface)


def test_public_functions_win_over_modules_of_their_name() -> None:
    code = (
        "import bonaface, bonaface.evaluate, bonaface.compare\n"
        "from bonaface.evaluate import Evaluation\n"
        "assert callable(bonaface.evaluate) and callable(bonaface.compare)\n"
        "from bonaface import evaluate, compare\n"
        "assert callable(evaluate) and callable(compare)"
    )
    python(code)


def test_unknown_names_of_the_package_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'verdicts'"):
        bonaface.verdicts  # noqa: B018


def test_version() -> None:
    done = CliRunner().invoke(cli.app, ["--version"])
    assert done.exit_code == 0
    assert done.stdout == f"bonaface {bonaface.__version__}\n"


def test_python_m_bonaface_is_the_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bonaface", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"bonaface {bonaface.__version__}\n"


@pytest.mark.parametrize("arguments", [["nosuch"], ["detect"], ["detect", "x", "--nosuch"]])
def test_wrong_use_is_exit_2(arguments: list[str]) -> None:
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr


def run_with(error: str) -> subprocess.CompletedProcess[str]:
    """The program, with a command that raises `error`, an expression."""
    code = (
        "import sys\nfrom bonaface import cli\nfrom bonaface.errors import *\n"
        f"def command():\n    raise {error}\n"
        "cli.app.command('boom')(command)\nsys.argv = ['bonaface', 'boom']\ncli.main()"
    )
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        ("BonafaceError('expected this,\\n  got that')", 2, "bonaface: expected this, got that\n"),
        ("KeyboardInterrupt", 130, "bonaface: interrupted\n"),
    ],
)
def test_errors_are_one_line_and_an_exit_code(error: str, code: int, line: str) -> None:
    done = run_with(error)
    assert done.returncode == code
    assert done.stderr == line
    assert done.stdout == ""


@pytest.mark.parametrize(
    "error",
    [
        "PermissionError(13, 'Permission denied', '/out/\x1b[31mred')",
        "NotADirectoryError(20, 'Not a directory', '/out/\x1b[31mred')",
        "OSError(28, 'No space left on device', '/out/\x1b[31mred')",
        "DataError('no such folder: /out/\x1b[31mred')",
        "ModuleNotFoundError('', name='/out/\x1b[31mred')",
    ],
)
def test_what_the_system_refuses_is_one_line_that_cannot_steer_the_terminal(error: str) -> None:
    done = run_with(error)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("bonaface: ")
    assert "/out/" in line
    assert "\x1b" not in line
    assert "x1b[31mred" in line


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_output_without_room_is_one_line() -> None:
    code = (
        "import sys\nfrom bonaface import cli\n"
        "cli.app.command('boom')(lambda: print('x'))\nsys.argv = ['bonaface', 'boom']\ncli.main()"
    )
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "No space left" in line


def test_a_missing_extra_survives_a_process_pool() -> None:
    error = MissingExtraError("training", "train")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is MissingExtraError
    assert str(again) == str(error)


@pytest.mark.parametrize(
    "error", ["ModuleNotFoundError('', name='torch.nn')", "MissingExtraError('training', 'train')"]
)
def test_a_library_that_is_missing_names_the_extra(error: str) -> None:
    done = run_with(error)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "bonaface[train]" in done.stderr


@pytest.mark.parametrize("error", ["ModuleNotFoundError('', name='bonaface.gone')", "1 / 0"])
def test_errors_of_ours_that_are_bugs_keep_their_traceback(error: str) -> None:
    done = run_with(error)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="pipes and signals are those of POSIX")
def test_a_reader_that_left_is_no_error() -> None:
    code = (
        "import sys\nfrom bonaface import cli\n"
        "def command():\n    for i in range(100_000):\n        print('x' * 50)\n"
        "cli.app.command('boom')(command)\nsys.argv = ['bonaface', 'boom']\ncli.main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(60) == 128 + signal.SIGPIPE
