"""The files of a new data set: how they are called, and the tables beside them."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from bonaface.cropping.journal import digest
from bonaface.files import atomic_path
from bonaface.layouts import COLUMNS
from bonaface.samples import LABELS, Sample, Samples

FAILURES: Final = "failures.csv"
_LONGEST_NAME: Final = 150  # bytes; file systems take 255


def crop_names(samples: Samples, ending: str | None = ".png") -> dict[str, str]:
    """Sample's path -> its crop's: SPLIT/LABEL/[generator or source/]NAME.png, each once.

    Names keep letters, digits, `_`, `-` and `.`; where two would meet, also on a disk that takes
    `A` for `a`, both get a hash of their path. Without `ending`, files keep theirs.
    """
    names = {
        row.path: (place_of(row), Path(row.path).suffix if ending is None else ending)
        for row in samples.rows
    }
    while True:
        met = Counter("".join(name).casefold() for name in names.values())
        if max(met.values(), default=1) == 1:
            return {path: "".join(name) for path, name in names.items()}
        names = {
            path: (hashed(stem, path) if met[(stem + end).casefold()] > 1 else stem, end)
            for path, (stem, end) in names.items()
        }


def place_of(row: Sample) -> str:
    """Where a sample's picture goes, without its ending: SPLIT/LABEL/[generator or source/]NAME."""
    below = _safe((row.generator if row.label else row.source) or "").replace(".", "_")
    stem = _safe(Path(row.path).stem) or "picture"
    return "/".join(filter(None, (row.split, LABELS[row.label], below, stem)))


def hashed(stem: str, path: str) -> str:
    """A name that another one met, made unique by a hash of where it comes from."""
    return f"{stem}-{digest(path.encode(), 6)}"


def _safe(text: str) -> str:
    # Nothing hidden and no __MACOSX: readers of data sets pass over these.
    plain = re.sub(r"[^\w.-]+", "_", text).lstrip("._-")
    return plain.encode()[:_LONGEST_NAME].decode(errors="ignore").rstrip(".")


def count_reasons(reasons: Iterable[str | None]) -> dict[str, int]:
    """How often each was the reason, the most frequent first; what stands in brackets aside."""
    why = Counter(reason.split(" (")[0] for reason in reasons if reason is not None)
    return dict(sorted(why.items(), key=lambda pair: (-pair[1], pair[0])))


def write_failures(out: Path, pairs: Iterable[tuple[Sample, str | None]]) -> None:
    """Write the table of samples that have a reason why they are not in the new set."""
    write_csv(
        out / FAILURES,
        ("path", "label", "split", "reason"),
        (
            [row.path, LABELS[row.label], row.split, reason]
            for row, reason in pairs
            if reason is not None
        ),
    )


def write_metadata(path: Path, rows: Iterable[Sample]) -> None:
    """Write samples, with all that is known of each, as a table that `load_samples` reads."""
    write_csv(
        path,
        ("file_name", "label", "split", *COLUMNS),
        (
            [row.path, LABELS[row.label], row.split, *(getattr(row, name) for name in COLUMNS)]
            for row in rows
        ),
    )


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str | None]]) -> None:
    """Write a table, atomically; None is an empty cell."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
