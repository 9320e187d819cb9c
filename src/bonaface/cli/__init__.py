"""The command line: parses, calls, prints.

Nothing heavy is imported at the top of these files, so that ``bonaface --help`` answers at once.
Exit codes: 0 done; 1 a check failed (audit, export); 2 wrong use or unusable input; 3 done, but
some inputs could not be read; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from bonaface.cli import (
    audit,
    bench,
    compare,
    data,
    demo,
    detect,
    doctor,
    evaluate,
    explain,
    export,
    models,
    reproduce,
    scan,
    serve,
    stress,
    train,
    tune,
)
from bonaface.cli._shared import INTERRUPTED, printable
from bonaface.errors import BonafaceError

_BROKEN_PIPE = 141  # what a shell reports for a program that SIGPIPE ended


class _Group(TyperGroup):
    """Turns deliberate errors into one line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            found = super().invoke(ctx)
            sys.stdout.flush()
            return found
        except BonafaceError as error:
            _say(str(error))
            sys.exit(error.exit_code)
        except ModuleNotFoundError as error:
            if (error.name or "bonaface").split(".", maxsplit=1)[0] == "bonaface":
                raise
            _say(
                f"this needs {error.name}, which is not installed; install it with: "
                "pip install 'bonaface[train]' (see `bonaface doctor`)"
            )
            sys.exit(BonafaceError.exit_code)
        except KeyboardInterrupt:
            _say("interrupted")
            sys.exit(INTERRUPTED)
        except BrokenPipeError:
            _drop_stdout()
            sys.exit(_BROKEN_PIPE)
        except OSError as error:
            _say(f"a file cannot be read or written ({error}); check its place, rights and room")
            try:
                sys.stdout.flush()
            except OSError:
                _drop_stdout()
            sys.exit(BonafaceError.exit_code)


def _say(message: str) -> None:
    print(f"bonaface: {printable(' '.join(message.split()))}", file=sys.stderr)


def _drop_stdout() -> None:
    """Python flushes stdout once more at exit; that must not complain again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


app = typer.Typer(
    cls=_Group,
    name="bonaface",
    help="Trains, tests, compares and runs deepfake detectors for face images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from bonaface import __version__

        typer.echo(f"bonaface {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


app.command()(detect.detect)
app.command()(train.train)
app.command()(tune.tune)
app.command()(evaluate.evaluate)
app.command()(audit.audit)
app.command()(compare.compare)
app.command()(reproduce.reproduce)
app.command()(stress.stress)
app.command()(explain.explain)
app.command()(export.export)
app.command()(bench.bench)
app.command()(scan.scan)
app.command()(serve.serve)
app.command()(models.models)
app.command()(doctor.doctor)
app.command()(demo.demo)
app.add_typer(data.app, name="data")


def main() -> None:
    """Entry point of the ``bonaface`` program."""
    app()
