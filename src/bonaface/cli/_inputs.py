"""What a person names on the command line -> what is to be judged."""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bonaface.errors import DataError

STDIN = "-"
_MOST_BYTES = 2**30
_WILD = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Input:
    """One picture or clip.

    Attributes:
        name: what the verdict calls it.
        source: where it lies, or its bytes.
    """

    name: str
    source: Path | bytes


def collect(given: Sequence[str]) -> list[Input]:
    """Files, folders, patterns and ``-`` in the order they were named, each file once.

    A folder is searched for endings of pictures and clips, its hidden files left out. A file that
    is missing stays, to get its own verdict.

    Raises:
        DataError: nothing is there to be judged, or standard input is too large.
    """
    found: dict[str, Input] = {}
    for text in given:
        if text == STDIN:
            found.setdefault(STDIN, Input("stdin", _stdin()))
            continue
        for path in _paths(text):
            found.setdefault(str(path), Input(str(path), path))
    if not found:
        from bonaface.images import SUFFIXES as OF_IMAGES
        from bonaface.video import SUFFIXES as OF_CLIPS

        raise DataError(
            f"expected pictures or clips in {', '.join(map(repr, given))}, found none; name files, "
            "patterns, or folders with files that end in "
            f"{', '.join(sorted(OF_IMAGES | OF_CLIPS))}"
        )
    return list(found.values())


def _paths(text: str) -> Iterator[Path]:
    path = Path(text)
    if path.is_dir():
        from bonaface.images import SUFFIXES as OF_IMAGES
        from bonaface.video import SUFFIXES as OF_CLIPS

        wanted = OF_IMAGES | OF_CLIPS
        for one in sorted(path.rglob("*")):
            hidden = any(part.startswith(".") for part in one.relative_to(path).parts)
            if one.suffix.lower() in wanted and not hidden and one.is_file():
                yield one
    elif not _WILD.isdisjoint(text) and not path.exists():
        for name in sorted(glob.glob(text, recursive=True)):  # noqa: PTH207  (any root)
            if Path(name).is_file():
                yield Path(name)
    else:
        yield path


def _stdin() -> bytes:
    data = sys.stdin.buffer.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise DataError(
            f"expected at most {_MOST_BYTES >> 20} MiB on standard input, got more; name the file"
        )
    return data
