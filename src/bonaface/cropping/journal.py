"""How a long run over a data set goes on where it was stopped.

What became of each picture is a line in a journal, written as soon as its files are there. A run
that is repeated reads it, does what is left, and ends in the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Container, Generator, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from bonaface.errors import BundleError, ConfigError, DataError, ImageError
from bonaface.files import atomic_path, write_text
from bonaface.samples import SPLITS, Sample, Samples

_PASSING: Final = (FileNotFoundError, PermissionError, MemoryError, ImportError)  # may pass


def lasts(error: ImageError) -> bool:
    """Whether another try would end in the same error: not for want of permission or memory."""
    return not isinstance(error.__cause__, _PASSING)


class Owners:
    """Pictures by their bytes: in a second split, what was seen in another belongs to the first."""

    def __init__(self, samples: Samples, done: Iterable[tuple[str | None, str]]) -> None:
        self._splits = {row.path: row.split for row in samples.rows}
        self._firsts = dict(done)

    def rival(self, path: str, digest: str | None) -> str | None:
        """The sample of another split that has a picture's bytes already; None: they are free."""
        first = self._firsts.setdefault(digest, path)
        return None if self._splits[first] == self._splits[path] else first


def left_to_do(samples: Samples, done: Container[str]) -> list[Sample]:
    """What is left to do, test pictures first: of two that are the same they keep their place."""
    return [row for s in reversed(SPLITS) for row in samples.split(s).rows if row.path not in done]


def digest(data: bytes, size: int = 16) -> str:
    """BLAKE2b in hex."""
    return hashlib.blake2b(data, digest_size=size).hexdigest()


def key(seed: int, path: str) -> bytes:
    """16 bytes that a seed and a picture's path give, to draw by: the same whatever came before."""
    return hashlib.blake2b(f"{seed}\0{path}".encode(), digest_size=16).digest()


def as_png(pixels: NDArray[np.uint8]) -> bytes:
    """Uint8 HxWx3 RGB -> a PNG file."""
    buffer = io.BytesIO()
    PILImage.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def keep(path: Path, png: bytes) -> None:
    """Write a picture; one that a stopped run wrote and did not note down is the same."""
    if not path.exists():
        with atomic_path(path) as temporary:
            temporary.write_bytes(png)
    elif path.read_bytes() != png:
        raise DataError(
            f"expected no file at {str(path)!r}, got one that is not this picture; move it away"
        )


# -- the folder --


def check_place(root: Path, out: Path) -> None:
    """Raise ConfigError when `out` lies in a data set or around it."""
    inner, outer = out.resolve(), root.resolve()
    if inner == outer or outer in inner.parents or inner in outer.parents:
        raise ConfigError(
            f"expected the new folder outside the data set {str(root)!r} and not around it, got "
            f"{str(out)!r}; name another folder"
        )


def resume(
    out: Path,
    name: str,
    asked: dict[str, Any],
    what: str,
    read: Mapping[str, Callable[[Any], Any]],
) -> tuple[dict[str, Any], list[Any]]:
    """What the journal of an earlier call says.

    Args:
        out: the folder it was begun in.
        name: of the journal.
        asked: the header that this call would write.
        what: is made there, in words.
        read: how to read a value of the header before it is compared; others are compared as
            they are.

    Returns:
        The header as it stands there, or `asked` in a new folder, and the lines that are whole.

    Raises:
        ConfigError: it was begun with other settings.
        DataError: the folder holds something else.
    """
    foreign = DataError(
        f"expected a new or empty folder, or {what} that were begun here, got {str(out)!r}, which "
        "holds something else; name another folder"
    )
    journal = out / name
    if not journal.is_file():
        if out.exists() and (
            not out.is_dir() or any(not found.name.startswith(".") for found in out.iterdir())
        ):
            raise foreign
        return asked, []
    first, *rest = journal.read_text(encoding="utf-8", errors="replace").split("\n")
    try:
        begun = json.loads(first)
        pairs = {
            key: tuple(read.get(key, _as_it_is)(header[key]) for header in (begun, asked))
            for key in asked
        }
    except (ValueError, LookupError, TypeError, BundleError):
        raise foreign from None
    for key, (theirs, ours) in pairs.items():
        if theirs != ours:
            named = "data set, with all its sizes and splits," if key == "fingerprint" else key
            raise ConfigError(
                f"expected the {named} that {str(out)!r} was begun with ({theirs}), got {ours}; "
                "name another folder"
            )
    lines = []
    for line in rest:
        with suppress(ValueError):  # cut short when the run was stopped
            lines.append(json.loads(line))
    return {key: begun[key] for key in asked}, lines


def _as_it_is(value: Any) -> Any:
    return value


# -- the journal --


class Named(Protocol):
    """An outcome: a frozen dataclass that says what it is about."""

    @property
    def path(self) -> str:
        """As in the data set."""


_Outcome = TypeVar("_Outcome", bound=Named)
Steps = Generator[tuple[_Outcome, bool], None, None]


def read_outcomes(lines: Iterable[Any], kind: Callable[..., _Outcome]) -> dict[str, _Outcome]:
    """What the lines of a journal say, by path; those of another kind are passed over."""
    outcomes = {}
    for value in lines:
        with suppress(LookupError, TypeError, AttributeError):
            named = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
            one = kind(**named)
            outcomes[one.path] = one
    return outcomes


def carry_out(
    path: Path,
    header: dict[str, Any],
    done: Mapping[str, _Outcome],
    steps: Steps[_Outcome],
    *,
    order: Sequence[str] = (),
    total: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, _Outcome]:
    """Take the steps that are left, and note each outcome in the journal before the next.

    Args:
        path: of the journal.
        header: its first line.
        done: outcomes of earlier calls.
        steps: give outcomes, and whether each lasts. One that does not is not noted, so the next
            call tries again.
        order: of all paths, in which the journal ends; as they came when empty.
        total: how many there are, without `order`; 0: not known.
        progress: called with the number done and of all.

    Returns:
        All outcomes by path.
    """
    write_journal(path, header, done.values())
    lasting, passing = dict(done), {}
    with path.open("a", encoding="utf-8", newline="\n") as journal, closing(steps):
        for outcome, final in steps:
            if final:
                lasting[outcome.path] = outcome
                journal.write(journal_line(asdict(outcome)))  # type: ignore[call-overload]
                journal.flush()
            else:
                passing[outcome.path] = outcome
            if progress:
                n = len(lasting) + len(passing)
                progress(n, max(n, total, len(order)))
    write_journal(path, header, (lasting[name] for name in order or lasting if name in lasting))
    return lasting | passing


def write_journal(path: Path, header: dict[str, Any], outcomes: Iterable[Any]) -> None:
    """Write a journal anew: its header, and a line for each outcome (a dataclass)."""
    lines = [journal_line(header), *(journal_line(asdict(outcome)) for outcome in outcomes)]
    write_text(path, "".join(lines))


def journal_line(value: dict[str, Any]) -> str:
    """One line of a journal."""
    return json.dumps(value, ensure_ascii=False) + "\n"
