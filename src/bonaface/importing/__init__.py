"""Pictures from elsewhere to a data set in the product's layout; their bytes stay as they are.

Every picture is decoded once, to see whether it can be, and then linked, copied or written as it
came. As in `cropping`, a journal lets a stopped import go on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from bonaface.ahead import ahead
from bonaface.cropping.journal import (
    Steps,
    carry_out,
    check_place,
    keep,
    lasts,
    read_outcomes,
    resume,
)
from bonaface.cropping.tables import (
    FAILURES,
    count_reasons,
    hashed,
    place_of,
    write_csv,
    write_metadata,
)
from bonaface.crops import RECIPE_FILE
from bonaface.errors import ImageError
from bonaface.files import write_json
from bonaface.images import SUFFIXES, read_image
from bonaface.importing.sources import Entry, Source
from bonaface.layouts import LABELS, SPLITS
from bonaface.samples import Sample, Samples, leaks
from bonaface.splitting import split_counts, take_over, ungrouped

JOURNAL: Final = "imports.jsonl"
REPORT: Final = "import_report.json"
SCHEMA_VERSION: Final = 1
_ENDINGS: Final = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WebP": ".webp",
    "BMP": ".bmp",
    "TIFF": ".tif",
    "AVIF": ".avif",
    "HEIC": ".heic",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one picture.

    Attributes:
        path: where it comes from.
        file: in the new set; None: not imported.
        linked: it is the same file by another name, not a copy.
        reason: why it was not imported.
        label: 1 fake, 0 real; None: not known. It and the rest: as of a `Sample`.
    """

    path: str
    file: str | None = None
    linked: bool = False
    reason: str | None = None
    label: int | None = None
    split: str | None = None
    group: str | None = None
    generator: str | None = None
    age: str | None = None
    gender: str | None = None
    race: str | None = None
    source: str | None = None

    def sample(self) -> Sample | None:
        """As a sample of the new set; None: not imported."""
        if self.file is None or self.label is None or self.split is None:
            return None
        known = (self.group, self.generator, self.age, self.gender, self.race, self.source)
        return Sample(self.file, self.label, self.split, *known)


@dataclass(frozen=True)
class Importing:
    """What became of a source.

    Attributes:
        header: by which it is known again.
        samples: the new set.
        outcomes: of all its pictures.
        crossing: groups and files in more than one split, in words.
    """

    header: dict[str, Any]
    samples: Samples
    outcomes: tuple[Outcome, ...]
    crossing: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: counts by split, label, generator and reason."""
        made = [one for one in self.outcomes if one.file is not None]
        linked = sum(one.linked for one in made)
        why = count_reasons(one.reason for one in self.outcomes)
        return {
            **self.header,
            "counts": {
                "asked": len(self.outcomes),
                "imported": len(made),
                "linked": linked,
                "written": len(made) - linked,
                "failed": sum(why.values()),
                "reasons": why,
            },
            "splits": split_counts(self.samples),
            "notes": self._notes(),
        }

    def _notes(self) -> list[str]:
        notes = [
            f"{found}; `bonaface audit` lists them all, and with --fix takes them out"
            for found in self.crossing
        ]
        missing = [name for name in SPLITS if name not in self.samples.counts()]
        if missing:
            notes.append(
                f"nothing is in {' and '.join(missing)}: `bonaface data split` makes splits anew"
            )
        return notes + (ungrouped(self.samples) if len(missing) < 2 else [])


def import_set(
    source: Source, out: Path, *, progress: Callable[[int, int], None] | None = None
) -> Importing:
    """Import a source into a folder of its own; goes on where an earlier call was stopped.

    Args:
        source: of the pictures.
        out: folder of the new set, new or empty or begun by the same call.
        progress: called with the number of pictures done and of all, as far as that is known.

    Raises:
        ConfigError: `out` lies in the source or around it, or was begun with other settings.
        DataError: `out` holds something else, or the source cannot be read on.
    """
    for place in source.places:
        check_place(place, out)
    header = {"schema_version": SCHEMA_VERSION, **source.header}
    header, lines = resume(out, JOURNAL, header, "imports", {})
    done = {
        path: one
        for path, one in read_outcomes(lines, Outcome).items()
        if one.file is None or (out / one.file).is_file()
    }
    steps = _steps(source, out, done)
    found = carry_out(
        out / JOURNAL, header, done, steps, total=source.total or 0, progress=progress
    )
    rows = sorted(filter(None, (one.sample() for one in found.values())), key=lambda row: row.path)
    samples = Samples(out.absolute(), tuple(rows), source.notes)
    made = Importing(header, samples, tuple(found.values()), tuple(leaks(samples)))
    write_csv(
        out / FAILURES,
        ("path", "label", "split", "reason"),
        (
            [one.path, None if one.label is None else LABELS[one.label], one.split, one.reason]
            for one in made.outcomes
            if one.reason is not None
        ),
    )
    write_metadata(out / "metadata.csv", samples.rows)
    if source.recipe is not None:
        write_json(out / RECIPE_FILE, source.recipe.to_dict())
    write_json(out / REPORT, made.to_dict())
    return made


def _steps(source: Source, out: Path, done: Mapping[str, Outcome]) -> Steps[Outcome]:
    """Import one picture after the other, in the order of the source."""
    taken = {one.file.casefold() for one in done.values() if one.file is not None}
    with (
        closing(source.entries(done)) as entries,
        closing(ahead(entries, _checked)) as coming,
    ):
        for one, content, name, final in coming:
            if one.reason is not None:
                yield one, final
                continue
            file = _free(name, one.path, taken)
            try:
                linked = _place(content, out / file)
            except ImageError as error:
                yield replace(one, reason=error.reason), lasts(error)
            else:
                taken.add(file.casefold())
                yield replace(one, file=file, linked=linked), True


_Checked = tuple[Outcome, Path | bytes, str, bool]  # ..., where it goes, whether this lasts


def _checked(entry: Entry) -> _Checked:
    """Whether a picture can be decoded; if it can, what holds it and where it goes."""
    known = {} if entry.row is None else asdict(entry.row)
    one = Outcome(**known | {"path": entry.path, "reason": entry.reason})
    if entry.row is None or entry.reason is not None:
        return one, b"", "", False
    try:
        content = entry.content() if callable(entry.content) else entry.content
        kind = read_image(content).format
    except ImageError as error:
        return replace(one, reason=error.reason), b"", "", lasts(error)
    ending = Path(entry.row.path).suffix
    ending = ending if ending.lower() in SUFFIXES else _ENDINGS[kind]
    return one, content, place_of(entry.row) + ending, True


def _free(name: str, path: str, taken: Container[str]) -> str:
    """The name, or where it is taken, also on a disk that takes `A` for `a`, one with a hash."""
    while name.casefold() in taken:
        stem, ending = os.path.splitext(name)  # noqa: PTH122  (a name, not a file)
        name = hashed(stem, path) + ending
    return name


def _place(content: Path | bytes, target: Path) -> bool:
    """Put a picture into the new set; whether it is a link."""
    if isinstance(content, Path):
        return take_over(content, target)
    keep(target, content)
    return False
