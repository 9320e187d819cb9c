"""A labelled data set of photographs to one of face crops, cut by the recipe that inference uses.

A run that was stopped goes on and ends in the same bytes (`journal`). Tables and report come last.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bonaface.ahead import ahead
from bonaface.cropping.journal import (
    Owners,
    Steps,
    as_png,
    carry_out,
    check_place,
    digest,
    journal_line,
    keep,
    lasts,
    left_to_do,
    read_outcomes,
    resume,
    write_journal,
)
from bonaface.cropping.tables import (
    FAILURES,
    count_reasons,
    crop_names,
    write_csv,
    write_failures,
    write_metadata,
)
from bonaface.crops import RECIPE_FILE, CropRecipe
from bonaface.errors import ImageError
from bonaface.faces import Finder
from bonaface.files import write_json
from bonaface.images import read_image
from bonaface.layouts import COLUMNS
from bonaface.preprocess import centre_square
from bonaface.samples import LABELS, SPLITS, Sample, Samples

__all__ = [
    "COLUMNS",
    "FAILURES",
    "JOURNAL",
    "REPORT",
    "Cropping",
    "Cut",
    "Outcome",
    "ahead",
    "as_png",
    "check_place",
    "crop_faces",
    "crop_names",
    "cut_face",
    "digest",
    "journal_line",
    "keep",
    "resume",
    "wilson",
    "write_csv",
    "write_journal",
    "write_recipe",
]

JOURNAL: Final = "crops.jsonl"
REPORT: Final = "crop_report.json"
SCHEMA_VERSION: Final = 1
_GROUPED: Final = ("race", "gender", "age", "generator", "source")
_Z: Final = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one picture.

    Attributes:
        path: as in the data set.
        crop: its crop, relative to the folder of crops; None: not cut.
        reason: why it was not cut.
        faces: how many are at least half as large as the largest; None: it could not be read.
        whole: it was a crop already.
        box: of the face, (left, top, right, bottom) in the picture's pixels.
        digest: of the crop's file, BLAKE2b.
    """

    path: str
    crop: str | None = None
    reason: str | None = None
    faces: int | None = None
    whole: bool = False
    box: tuple[float, ...] | None = None
    digest: str | None = None


_Pair = tuple[Sample, Outcome]
_Made = tuple[Outcome, bytes | None, bool]  # its crop as PNG; whether another try ends the same


@dataclass(frozen=True)
class Cropping:
    """What became of a data set.

    Attributes:
        source: the data set's name.
        header: its fingerprint, the finder and the recipe.
        pairs: each sample and its outcome.
    """

    source: str
    header: dict[str, Any]
    pairs: tuple[_Pair, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: counts, and in which share of whose pictures a face was found."""
        by_split = {
            split: [pair for pair in self.pairs if pair[0].split == split] for split in SPLITS
        }
        by_split = {split: pairs for split, pairs in by_split.items() if pairs}
        counts = _counts(self.pairs)
        notes = []
        if counts["several_faces"]:
            notes.append(
                f"pictures with faces of similar size: {counts['several_faces']}; the largest was "
                f"cut, the label may mean another; see faces in {JOURNAL}"
            )
        if counts["whole"] > counts["cut"]:
            notes.append(
                f"most crops ({counts['whole']}) were crops already and lie as their maker cut "
                f"them, so there is no {RECIPE_FILE}: `bonaface train` measures how they lie"
            )
        return {
            **self.header,
            "source": self.source,
            "counts": counts,
            "splits": {
                split: {
                    name: _counts([pair for pair in pairs if pair[0].label == label])
                    for label, name in enumerate(LABELS)
                }
                for split, pairs in by_split.items()
            },
            "found": {
                split: _shares(pairs) for split, pairs in ({"all": self.pairs} | by_split).items()
            },
            "notes": notes,
        }


def _counts(pairs: Sequence[_Pair]) -> dict[str, Any]:
    why = count_reasons(one.reason for _, one in pairs)
    made = [one for _, one in pairs if one.crop is not None]
    return {
        "asked": len(pairs),
        "cut": sum(not one.whole for one in made),
        "whole": sum(one.whole for one in made),
        "failed": sum(why.values()),
        "reasons": why,
        "several_faces": sum((one.faces or 0) > 1 for one in made),
    }


def _shares(pairs: Sequence[_Pair]) -> dict[str, dict[str, Any]]:
    """Column -> value -> how often a face was found, of any size, in pictures that can be read."""
    seen: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for row, outcome in pairs:
        if outcome.faces is None:
            continue
        values = {name: getattr(row, name) for name in _GROUPED}
        if row.race and row.gender:
            values["race and gender"] = f"{row.race}, {row.gender}"
        for column, value in {"all": "pictures", "label": LABELS[row.label], **values}.items():
            if value is not None:
                seen[column][value].append(outcome.faces > 0)
    return {
        column: {value: _share(sum(found), len(found)) for value, found in sorted(values.items())}
        for column, values in seen.items()
    }


def _share(found: int, n: int) -> dict[str, float]:
    low, high = wilson(found, n)
    return {"share": found / n, "low": low, "high": high, "found": found, "n": n}


def wilson(found: int, n: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927), as if no two pictures were of one person."""
    centre = found + _Z**2 / 2
    half = _Z * math.sqrt(found * (n - found) / n + _Z**2 / 4)
    return max(0.0, (centre - half) / (n + _Z**2)), min(1.0, (centre + half) / (n + _Z**2))


def crop_faces(
    samples: Samples,
    out: Path,
    recipe: CropRecipe,
    finder: Finder,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Cropping:
    """Cut the largest face out of each picture; goes on where an earlier call was stopped.

    Args:
        samples: the photographs.
        out: folder of the crops, new or empty or begun by the same call; a data set afterwards.
        recipe: how to cut.
        finder: of faces.
        progress: called with the number of pictures done and of all.

    Raises:
        ConfigError: `out` lies in the data set or around it, or was begun with other settings.
        DataError: `out` holds something else.
    """
    check_place(samples.root, out)
    names = crop_names(samples)
    header: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": samples.fingerprint(),
        "finder": finder.name,
        "recipe": recipe.to_dict(),
    }
    header, lines = resume(out, JOURNAL, header, "crops", {"recipe": CropRecipe.from_dict})
    known = read_outcomes(lines, Outcome)
    done = {
        row.path: one
        for row in samples.rows
        if (one := known.get(row.path))
        and (one.crop is None or (one.crop == names[row.path] and (out / one.crop).is_file()))
    }
    owners = Owners(samples, ((one.digest, one.path) for one in done.values()))

    def steps() -> Steps[Outcome]:
        todo = left_to_do(samples, done)
        with closing(ahead(todo, lambda row: _make(samples, row, recipe, finder))) as coming:
            for made, png, final in coming:
                if png is None:
                    yield made, final
                elif rival := owners.rival(made.path, made.digest):
                    reason = f"same crop as a picture of another split ({rival})"
                    yield replace(made, reason=reason, digest=None), final
                else:
                    keep(out / names[made.path], png)
                    yield replace(made, crop=names[made.path]), final

    order = [row.path for row in samples.rows]
    outcomes = carry_out(out / JOURNAL, header, done, steps(), order=order, progress=progress)
    pairs = tuple((row, outcomes[row.path]) for row in samples.rows)
    found = Cropping(samples.root.name, header, pairs)
    _write_tables(out, found)
    return found


def _make(samples: Samples, row: Sample, recipe: CropRecipe, finder: Finder) -> _Made:
    try:
        pixels = read_image(samples.absolute(row)).pixels
    except ImageError as error:
        return Outcome(row.path, reason=error.reason), None, lasts(error)
    cut = cut_face(pixels, recipe, finder)
    outcome = Outcome(row.path, None, cut.reason, cut.faces, cut.whole, cut.box)
    if cut.pixels is None:
        return outcome, None, True
    png = as_png(cut.pixels)
    return replace(outcome, digest=digest(png)), png, True


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """The largest face of a picture, cut out.

    Attributes:
        pixels: the crop, uint8 side x side x 3; None: not cut.
        reason: why not.
        faces: how many are at least half as large as the largest.
        whole: the picture was a crop already.
        box: of the face, (left, top, right, bottom) in the picture's pixels, rounded to 0.1.
    """

    pixels: NDArray[np.uint8] | None
    reason: str | None
    faces: int
    whole: bool = False
    box: tuple[float, ...] | None = None


def cut_face(pixels: NDArray[np.uint8], recipe: CropRecipe, finder: Finder) -> Cut:
    """Uint8 HxWx3 -> the crop of its largest face; the picture whole where it is a crop already."""
    found = finder.find(pixels)
    if not found:
        return Cut(None, "no face found", 0)
    face = found[0]
    rivals = sum(2 * one.size >= face.size for one in found)
    box = tuple(round(x, 1) for x in face.box)
    if face.size < recipe.min_face:
        reason = f"face smaller than {recipe.min_face} px ({face.size:.1f} px)"
        return Cut(None, reason, rivals, box=box)
    height, width = pixels.shape[:2]
    whole = recipe.takes_whole(face, width, height)
    crop = recipe.shrink(centre_square(pixels)) if whole else recipe.cut(pixels, face)
    return Cut(crop, None, rivals, whole, box)


def _write_tables(out: Path, found: Cropping) -> None:
    write_failures(out, ((row, one.reason) for row, one in found.pairs))
    crops = (replace(row, path=one.crop) for row, one in found.pairs if one.crop is not None)
    write_metadata(out / "metadata.csv", crops)
    report = found.to_dict()
    write_json(out / REPORT, report)
    write_recipe(out, found.header["recipe"], report["counts"])


def write_recipe(out: Path, recipe: dict[str, Any], counts: Mapping[str, Any]) -> None:
    """Leave the recipe with the crops, unless most of them were crops already."""
    if counts["whole"] > counts["cut"]:
        (out / RECIPE_FILE).unlink(missing_ok=True)
    else:
        write_json(out / RECIPE_FILE, recipe)
