"""API keys: only their hashes are written down."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bonaface.errors import ConfigError

VARIABLE: Final = "BONAFACE_KEYS"
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_NAME: Final = re.compile(r"[\w.@-]{1,64}")


def new_key() -> str:
    """A key of 256 random bits, which needs no slow hash."""
    return f"bona_{secrets.token_urlsafe(32)}"


def hash_of(key: str) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def read_keys(path: Path | None) -> dict[str, str]:
    """Hash -> name, from a file and from the environment variable BONAFACE_KEYS.

    A line of the file is a hash and, if wanted, a name; "#" begins a comment. The variable holds
    the same with commas between the lines.

    Raises:
        ConfigError: the file cannot be read, or a line is not a hash.
    """
    lines = os.environ.get(VARIABLE, "").split(",")
    places = [VARIABLE] * len(lines)
    if path is not None:
        try:
            read = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"expected a file of key hashes, got {str(path)!r}, which cannot be read "
                f"({error}); make one with `bonaface serve --new-key`"
            ) from error
        lines += read
        places += [f"line {at} of {str(path)!r}" for at in range(1, len(read) + 1)]
    found = {}
    for line, place in zip(lines, places, strict=True):
        words = line.partition("#")[0].split()
        if not words:
            continue
        name = words[1] if len(words) > 1 else f"key-{words[0][:8]}"
        if not _HASH.fullmatch(words[0]) or not _NAME.fullmatch(name) or len(words) > 2:
            raise ConfigError(
                f"expected a SHA-256 in hex and a name in {place}, got something else; "
                "write what `bonaface serve --new-key` prints there, never the key itself"
            )
        found[words[0]] = name
    return found


def name_of(key: str, keys: Mapping[str, str]) -> str | None:
    """The name of a key; None: it is not among them. Takes as long for any key."""
    given, found = hash_of(key), None
    for known, name in keys.items():
        if hmac.compare_digest(known, given):
            found = name
    return found
