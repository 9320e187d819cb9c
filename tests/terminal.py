"""What a command shows on a terminal."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Sequence


def on_terminal(
    command: Sequence[object], *, columns: int = 200, errors: bool = False, seconds: float = 60
) -> tuple[int, str]:
    """The exit code of `bonaface` with these arguments, and what it wrote to a terminal.

    Args:
        command: the arguments.
        columns: width of the terminal.
        errors: whether stderr is the terminal too; otherwise it is dropped.
        seconds: how long it may be silent.
    """
    import pty  # not on Windows

    outer, inner = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "bonaface", *map(str, command)],
        stdout=inner,
        stderr=inner if errors else subprocess.DEVNULL,
        env=os.environ | {"TERM": "xterm-256color", "COLUMNS": str(columns)},
    ) as process:
        os.close(inner)
        shown = b""
        while select.select([outer], [], [], seconds)[0]:
            try:
                piece = os.read(outer, 4096)
            except OSError:  # Linux, when the other end has closed
                break
            if not piece:
                break
            shown += piece
        else:
            process.kill()
        os.close(outer)
    return process.returncode, shown.decode()
