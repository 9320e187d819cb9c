"""A data set to one whose splits were made anew: whole groups, alike in labels and generators.

No picture is read, only files that may be copies. The pictures of the new set are links to the same
files where the disk allows it; nothing here ever writes into a file that is there already.
"""

from __future__ import annotations

import filecmp
import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from bonaface.cropping.journal import (
    Steps,
    carry_out,
    check_place,
    keep,
    read_outcomes,
    resume,
)
from bonaface.cropping.tables import (
    count_reasons,
    crop_names,
    write_failures,
    write_metadata,
)
from bonaface.crops import RECIPE_FILE, read_recipe
from bonaface.errors import ConfigError, DataError, ImageError
from bonaface.files import atomic_path, write_json
from bonaface.images import os_reason, read_file
from bonaface.samples import (
    DEFAULT_RATIOS,
    LABELS,
    SPLITS,
    Sample,
    Samples,
    assign_splits,
    check_ratios,
    copies,
    read_drafts,
    with_splits,
)
from bonaface.tars import place

JOURNAL: Final = "splits.jsonl"
REPORT: Final = "split_report.json"
SCHEMA_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one picture.

    Attributes:
        path: as in the data set.
        file: in the new set; None: it could not be taken over.
        linked: it is the same file by another name, not a copy.
        reason: why it could not be taken over.
    """

    path: str
    file: str | None = None
    linked: bool = False
    reason: str | None = None


@dataclass(frozen=True)
class Splitting:
    """A data set and how it was split.

    Attributes:
        source: its name.
        header: its fingerprint, the shares and the seed.
        samples: the new set.
        subsets: the parts of it that were asked for, by their number of training pictures.
        failed: samples that could not be taken over, with the reason.
        linked: pictures that are links to the same file.
        same: sets of pictures with the same bytes, each kept in one split.
        redone: the data set had splits of its own, which do not count any more.
    """

    source: str
    header: dict[str, Any]
    samples: Samples
    subsets: dict[int, Samples]
    failed: tuple[tuple[Sample, str], ...]
    linked: int
    same: int
    redone: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: counts by split, label, generator and group."""
        rows = self.samples.rows
        return {
            **self.header,
            "source": self.source,
            "counts": {
                "pictures": len(rows),
                "linked": self.linked,
                "copied": len(rows) - self.linked,
                "failed": len(self.failed),
                "reasons": count_reasons(reason for _, reason in self.failed),
                "without_group": sum(row.group is None for row in rows),
                "sets_of_copies": self.same,
            },
            "splits": split_counts(self.samples),
            "subsets": {
                str(n): split_counts(part)["train"] | {"file": subset_name(n)}
                for n, part in self.subsets.items()
            },
            "notes": self._notes(),
        }

    def _notes(self) -> list[str]:
        notes = []
        if self.redone:
            notes.append("the splits that the data set had were made anew")
        if self.same:
            notes.append(f"{self.same} sets of identical files were kept in one split each")
        return notes + ungrouped(self.samples)


def ungrouped(samples: Samples) -> list[str]:
    """A note about pictures without a group, if there are such."""
    alone = sum(row.group is None for row in samples.rows)
    if not alone:
        return []
    return [
        f"{alone} pictures have no known group and count as one each: those that look alike may "
        "lie in two splits; run `bonaface audit` on the new set"
    ]


def split_counts(samples: Samples) -> dict[str, dict[str, Any]]:
    """Split -> pictures, groups, pictures by label, fakes by generator; no empty splits."""
    counts = {}
    for name in SPLITS:
        rows = samples.split(name).rows
        if rows:
            labels = Counter(row.label for row in rows)
            made = Counter(row.generator for row in rows if row.generator)
            counts[name] = {
                "pictures": len(rows),
                "groups": len({row.group or f"/{row.path}" for row in rows}),
                **{label: labels[at] for at, label in enumerate(LABELS)},
                "generators": dict(sorted(made.items())),
            }
    return counts


def split_set(
    data: Path,
    out: Path,
    *,
    ratios: tuple[float, float, float] | None = None,
    seed: int = 0,
    subsets: Sequence[int] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Splitting:
    """Split a data set anew into a folder of its own; goes on where an earlier call was stopped.

    Args:
        data: as for `load_samples`; splits that it has do not count.
        out: folder of the new set, new or empty or begun by the same call.
        ratios: shares of train, validation and test, which add up to 1; 80/10/10 when None.
        seed: of the splits and of the subsets.
        subsets: numbers of training pictures; each gives a table of so many of them, half real and
            half fake where there are enough, and of all others. Smaller ones lie within larger.
        progress: called with the number of pictures done and of all.

    Raises:
        ConfigError: the ratios make no sense, a subset is larger than the training split, or `out`
            lies in the data set or around it, or was begun with other settings.
        DataError: the data set cannot be read, or `out` holds something else.
    """
    check_ratios(ratios)
    ratios = ratios or DEFAULT_RATIOS
    root, drafts, notes = read_drafts(data)
    check_place(root, out)
    splits = assign_splits(root, drafts, ratios, seed)
    new = with_splits(root, [d._replace(split=splits[d.path]) for d in drafts], notes, None, seed)
    _check_subsets(subsets, len(new.split("train")))
    header: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": new.fingerprint(with_split=False),
        "ratios": list(ratios),
        "seed": seed,
    }
    header, lines = resume(out, JOURNAL, header, "splits", {})
    names = crop_names(new, None)
    done = {
        one.path: one
        for one in read_outcomes(lines, Outcome).values()
        if one.file and one.file == names.get(one.path) and (out / one.file).is_file()
    }
    order = [row.path for row in new.rows]
    steps = _steps(new, out, {path: name for path, name in names.items() if path not in done})
    outcomes = carry_out(out / JOURNAL, header, done, steps, order=order, progress=progress)
    rows = (replace(r, path=file) for r in new.rows if (file := outcomes[r.path].file))
    there = Samples(out.absolute(), tuple(sorted(rows, key=lambda row: row.path)), new.notes)
    found = Splitting(
        root.name,
        header,
        there,
        {n: _subset(there, n, seed) for n in sorted(set(subsets))},
        tuple((row, why) for row in new.rows if (why := outcomes[row.path].reason)),
        linked=sum(one.linked for one in outcomes.values()),
        same=sum(1 for _ in copies(root, drafts)),
        redone=any(draft.split for draft in drafts),
    )
    write_failures(out, found.failed)
    write_metadata(out / "metadata.csv", there.rows)
    for n, part in found.subsets.items():
        write_metadata(out / subset_name(n), part.rows)
    recipe = read_recipe(root)
    if recipe is not None:  # the faces lie where they lay
        write_json(out / RECIPE_FILE, recipe.to_dict())
    write_json(out / REPORT, found.to_dict())
    return found


def subset_name(n: int) -> str:
    """Of the table of a subset, beside the metadata."""
    return f"subset-{n}.csv"


def _check_subsets(subsets: Sequence[int], n: int) -> None:
    for wanted in subsets:
        if not 1 <= wanted <= n:
            raise ConfigError(
                f"expected subsets of 1 to {n} pictures, as many as train holds, got {wanted}; "
                "leave it out or give train a larger share"
            )


def _subset(samples: Samples, n: int, seed: int) -> Samples:
    train = samples.split("train").limit(n, seed).rows
    rows = (*train, *samples.split("validation").rows, *samples.split("test").rows)
    return replace(samples, rows=tuple(sorted(rows, key=lambda row: row.path)))


def _steps(samples: Samples, out: Path, names: Mapping[str, str]) -> Steps[Outcome]:
    for row in samples.rows:
        if name := names.get(row.path):
            try:
                linked = take_over(samples.absolute(row), out / name)
            except ImageError as error:
                yield Outcome(row.path, reason=error.reason), False
            else:
                yield Outcome(row.path, name, linked), True


def take_over(source: Path, target: Path) -> bool:
    """Give a file a second name, or copy it where the disk does not allow that.

    Returns:
        Whether the two are one file.

    Raises:
        ImageError: `source` cannot be read.
        DataError: `target` is there and holds something else.
    """
    if place(source) is not None:  # a part of a tar has no name to link to
        keep(target, read_file(source))
        return False
    origin = source.resolve()  # not a second name of a link
    if target.exists():
        if origin.exists() and (target.samefile(origin) or filecmp.cmp(origin, target, False)):
            return target.samefile(origin)
        raise DataError(
            f"expected no file at {str(target)!r}, got one that is not this picture; move it away"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):  # another disk, one without links, someone else's file: then a copy
        os.link(origin, target)
        return True
    try:
        file = origin.open("rb")
    except OSError as error:
        raise ImageError(os_reason(source, error), str(source)) from error
    with file, atomic_path(target) as temporary, temporary.open("wb") as copy:
        shutil.copyfileobj(file, copy)
    return False
