"""A PostgreSQL server of our own, in a folder of its own, for as long as a test needs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def server() -> Iterator[str]:
    """The URL of its database; it listens on a socket in its folder alone. Skips without one."""
    pytest.importorskip("psycopg", reason="no driver of PostgreSQL")
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    path = os.pathsep.join([os.environ["PATH"], *map(str, reversed(places))])
    initdb, control = (shutil.which(name, path=path) for name in ("initdb", "pg_ctl"))
    if initdb is None or control is None:
        pytest.skip("no initdb and pg_ctl of PostgreSQL")
    user = None
    if os.geteuid() == 0:  # as which it does not run
        import pwd

        known = {one.pw_name for one in pwd.getpwall()}
        user = next((name for name in ("postgres", "nobody") if name in known), None)
        if user is None:
            pytest.skip("PostgreSQL does not run as root, and there is nobody else")
    with tempfile.TemporaryDirectory(prefix="bonaface-pg-") as name:
        folder = Path(name)
        if user is not None:
            shutil.chown(folder, user)
        base = str(folder / "base")

        def call(*words: str) -> None:
            done = subprocess.run(
                words, check=False, user=user, cwd=folder, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stdout + done.stderr

        call(initdb, "-D", base, "-U", "bonaface", "-A", "trust", "-E", "UTF8", "--no-sync")
        # Its log goes to a file, or its pipe would be waited for.
        options = f"-k {folder} -c listen_addresses= -c fsync=off"
        call(control, "-D", base, "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield f"postgresql+psycopg://bonaface@/postgres?host={folder}"
        finally:
            call(control, "-D", base, "-w", "-m", "immediate", "stop")
