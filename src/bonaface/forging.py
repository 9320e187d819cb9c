"""The real pictures of a data set to a set of both classes: each real, and a fake forged from it.

Both are saved as PNG from the same pixels, so neither size nor compression tells them apart; what
does is the forgery. A fake stays in its real's group and split, and a swap takes its donor from
the same split, so no person crosses splits. As in `cropping`, a journal lets a stopped run go on.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

import cv2
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
    keep,
    key,
    lasts,
    left_to_do,
    read_outcomes,
    resume,
)
from bonaface.cropping.tables import (
    count_reasons,
    crop_names,
    write_failures,
    write_metadata,
)
from bonaface.crops import RECIPE_FILE, CropRecipe, read_recipe
from bonaface.errors import DataError, ImageError
from bonaface.faces import Face, Finder
from bonaface.files import atomic_path, write_json
from bonaface.forge import KINDS, Donor, Forged, check_kinds, forge, pose_gap
from bonaface.images import read_image
from bonaface.samples import SPLITS, Sample, Samples

JOURNAL: Final = "forgeries.jsonl"
REPORT: Final = "forge_report.json"
SCHEMA_VERSION: Final = 1
_LEAST_FACE: Final = 32  # pixels, longer side of the box
_DONORS: Final = 8  # pictures that are looked at, at most
_ALIKE: Final = 0.1  # gap of poses from which no other donor is looked for
_CELL: Final = 144  # side of a picture on a contact sheet
_TITLE: Final = 22  # height of a line of text on it


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one real picture.

    Attributes:
        path: as in the data set.
        kind: how it was, or should have been, forged.
        real: the picture, relative to the new folder; None: it is not in the new set.
        fake: its forgery, likewise.
        donor: path of the picture whose face was swapped in.
        reason: why it is not in the new set.
        box: of the face, (left, top, right, bottom) in the picture's pixels.
        digest: of the real's file, BLAKE2b.
    """

    path: str
    kind: str
    real: str | None = None
    fake: str | None = None
    donor: str | None = None
    reason: str | None = None
    box: tuple[float, ...] | None = None
    digest: str | None = None


_Made = tuple[Outcome, tuple[bytes, bytes] | None, bool]  # real and fake; whether this lasts


@dataclass(frozen=True)
class Forging:
    """What became of the reals of a data set.

    Attributes:
        source: the data set's name.
        header: its fingerprint, the finder, the kinds and the seed.
        pairs: each real and its outcome.
    """

    source: str
    header: dict[str, Any]
    pairs: tuple[tuple[Sample, Outcome], ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: counts by split, kind and reason."""
        notes = []
        if "swap" in self.header["kinds"] and any(row.group is None for row, _ in self.pairs):
            notes.append(
                "pictures without a group count as a person each: where one person has several, a "
                "swap may give a face back to its owner"
            )
        by_split = {
            split: [one for row, one in self.pairs if row.split == split] for split in SPLITS
        }
        return {
            **self.header,
            "source": self.source,
            "counts": _counts([one for _, one in self.pairs]),
            "splits": {split: _counts(found) for split, found in by_split.items() if found},
            "notes": notes,
        }


def _counts(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    why = count_reasons(one.reason for one in outcomes)
    kinds = Counter(one.kind for one in outcomes if one.fake is not None)
    return {
        "asked": len(outcomes),
        "forged": kinds.total(),
        "kinds": dict(sorted(kinds.items())),
        "failed": sum(why.values()),
        "reasons": why,
    }


def forge_set(
    samples: Samples,
    out: Path,
    finder: Finder,
    *,
    kinds: Sequence[str] = tuple(KINDS),
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Forging:
    """Forge the largest face of each real; goes on where an earlier call was stopped.

    Args:
        samples: of which the reals are used. The kinds are dealt out evenly in each split.
        out: folder of the new set, new or empty or begun by the same call.
        finder: of faces.
        kinds: of forgery, out of `forge.KINDS`.
        seed: of everything random.
        progress: called with the number of reals done and of all.

    Raises:
        ConfigError: a kind is unknown, or `out` lies in the data set or around it, or was begun
            with other settings.
        DataError: there are no reals, or `out` holds something else.
    """
    kinds = check_kinds(kinds)
    check_place(samples.root, out)
    maker = _Maker(samples, finder, kinds, seed)
    reals = maker.reals
    header: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": reals.fingerprint(),
        "finder": finder.name,
        "kinds": list(kinds),
        "seed": seed,
    }
    header, lines = resume(out, JOURNAL, header, "forgeries", {})
    names = maker.names()
    done = {
        one.path: one
        for one in read_outcomes(lines, Outcome).values()
        if one.path in names
        and (
            one.reason is not None
            or ((one.real, one.fake) == names[one.path] and _are_files(out, names[one.path]))
        )
    }
    owners = Owners(reals, ((one.digest, one.path) for one in done.values()))

    def steps() -> Steps[Outcome]:
        with closing(ahead(left_to_do(reals, done), maker.make)) as coming:
            for made, files, final in coming:
                if files is None:
                    yield made, final
                elif rival := owners.rival(made.path, made.digest):
                    reason = f"same picture as one of another split ({rival})"
                    yield replace(made, reason=reason, digest=None), final
                else:
                    real, fake = names[made.path]
                    keep(out / real, files[0])
                    keep(out / fake, files[1])
                    yield replace(made, real=real, fake=fake), final

    order = [row.path for row in reals.rows]
    outcomes = carry_out(out / JOURNAL, header, done, steps(), order=order, progress=progress)
    found = Forging(
        samples.root.name,
        header,
        tuple((row, outcomes[row.path]) for row in reals.rows),
    )
    _write_tables(out, found, read_recipe(samples.root))
    return found


def contact_sheet(
    samples: Samples, found: Forging, finder: Finder, path: Path, *, each: int = 4
) -> None:
    """Write a picture for the eye: of each kind some faces, their forgeries and the masks.

    Args:
        samples: as they were given to `forge_set`.
        found: what it gave.
        finder: the same.
        path: of the PNG.
        each: examples of a kind.
    """
    maker = _Maker(samples, finder, found.header["kinds"], found.header["seed"])
    strips = []
    for kind in found.header["kinds"]:
        cells = []
        rows = [row for row, one in found.pairs if one.kind == kind and one.fake is not None]
        for row in rows[:each]:
            pixels, face, forged, _ = maker.forged(row)
            mask = np.repeat(np.rint(255 * forged.mask).astype(np.uint8)[:, :, None], 3, axis=2)
            cells.append(
                np.concatenate([_cell(part, face) for part in (pixels, forged.image, mask)], axis=1)
            )
        strips.append(_strip(kind, cells, each))
    with atomic_path(path) as temporary:
        temporary.write_bytes(as_png(np.concatenate(strips)))


class _Maker:
    """Makes the forgery of a real, always the same one, whatever was made before."""

    def __init__(self, samples: Samples, finder: Finder, kinds: Sequence[str], seed: int) -> None:
        self.reals = replace(samples, rows=tuple(row for row in samples.rows if row.label == 0))
        if not self.reals.rows:
            raise DataError(
                f"expected real pictures in {str(samples.root)!r}, got fakes only; name a data set "
                "with reals"
            )
        self._finder = finder
        self._seed = seed
        self._faces: dict[str, Face | None] = {}
        self._kinds: dict[str, str] = {}
        self._order: dict[str, list[Sample]] = {}
        for split in SPLITS:
            rows = self.reals.split(split).rows
            order = sorted(rows, key=lambda row: (key(seed, row.path), row.path))
            self._order[split] = order
            for at, row in enumerate(order):
                self._kinds[row.path] = kinds[at % len(kinds)]
        self._places = {
            row.path: at for rows in self._order.values() for at, row in enumerate(rows)
        }

    def names(self) -> dict[str, tuple[str, str]]:
        """A real's path -> its own and its fake's in the new set."""
        fakes = {
            row.path: replace(
                row,
                path=f"{self._kinds[row.path]}/{row.path}",
                label=1,
                generator=self._kinds[row.path],
            )
            for row in self.reals.rows
        }
        real = crop_names(self.reals)
        fake = crop_names(replace(self.reals, rows=tuple(fakes.values())))
        return {path: (real[path], fake[fakes[path].path]) for path in fakes}

    def make(self, row: Sample) -> _Made:
        """The real and its forgery as PNG, or why not."""
        outcome = Outcome(row.path, self._kinds[row.path])
        try:
            pixels, face, forged, donor = self.forged(row)
        except ImageError as error:
            return replace(outcome, reason=error.reason), None, lasts(error)
        outcome = replace(outcome, donor=donor, box=tuple(round(x, 1) for x in face.box))
        if np.array_equal(forged.image, pixels):
            return replace(outcome, reason="the forgery changed nothing"), None, True
        real, fake = as_png(pixels), as_png(forged.image)
        return replace(outcome, digest=digest(real)), (real, fake), True

    def forged(self, row: Sample) -> tuple[NDArray[np.uint8], Face, Forged, str | None]:
        """Pixels, face and forgery of a real, and the donor's path.

        Raises:
            ImageError: it cannot be read, has no face, or there is no donor for it.
        """
        pixels = read_image(self.reals.absolute(row)).pixels
        face = self._face(row, pixels)
        if face is None:
            raise ImageError("no face found")
        if face.size < _LEAST_FACE:
            raise ImageError(f"face smaller than {_LEAST_FACE} px ({face.size:.1f} px)")
        kind = self._kinds[row.path]
        donor: Donor | None = None
        path = None
        if kind == "swap":
            other, theirs = self._donor(row, face)
            donor, path = (read_image(self.reals.absolute(other)).pixels, theirs), other.path
        rng = np.random.default_rng(list(key(self._seed, row.path)))
        return pixels, face, forge(pixels, face, rng, (kind,), donor), path

    def _donor(self, row: Sample, face: Face) -> tuple[Sample, Face]:
        """Of a few people of the same split, the one who looks most the same way."""
        best: tuple[float, Sample, Face] | None = None
        for other in islice(self._others(row), _DONORS):
            theirs = self._known(other)
            if theirs is None or theirs.size < _LEAST_FACE:
                continue
            gap = pose_gap(theirs, face)
            if best is None or gap < best[0]:
                best = gap, other, theirs
            if gap < _ALIKE:
                break
        if best is None:
            raise ImageError("no donor of another group in its split")
        return best[1:]

    def _others(self, row: Sample) -> Iterator[Sample]:
        """Reals of other groups in its split, from its own place in their order on."""
        order, place = self._order[row.split], self._places[row.path]
        for step in range(1, len(order)):
            other = order[(place + step) % len(order)]
            if (other.group or other.path) != (row.group or row.path):
                yield other

    def _known(self, row: Sample) -> Face | None:
        """The face of a picture that may not have been read yet; None: not fit for a donor."""
        if row.path not in self._faces:
            try:
                return self._face(row, read_image(self.reals.absolute(row)).pixels)
            except ImageError as error:
                if not lasts(error):
                    raise  # another try may find it
                self._faces[row.path] = None
        return self._faces[row.path]

    def _face(self, row: Sample, pixels: NDArray[np.uint8]) -> Face | None:
        if row.path not in self._faces:
            found = self._finder.find(pixels)
            self._faces[row.path] = found[0] if found else None
        return self._faces[row.path]


def _are_files(out: Path, names: tuple[str, str]) -> bool:
    return all((out / name).is_file() for name in names)


def _write_tables(out: Path, found: Forging, recipe: CropRecipe | None) -> None:
    write_failures(out, ((row, one.reason) for row, one in found.pairs))
    rows = []
    for row, one in found.pairs:
        # A pair stays together, also where nobody knows who it is.
        known = replace(row, group=row.group or row.path)
        for path, label, kind in ((one.real, 0, row.generator), (one.fake, 1, one.kind)):
            if path is not None:
                rows.append(replace(known, path=path, label=label, generator=kind))
    write_metadata(out / "metadata.csv", rows)
    write_json(out / REPORT, found.to_dict())
    if recipe is not None:  # the faces lie where they lay
        write_json(out / RECIPE_FILE, recipe.to_dict())


# -- the contact sheet --


def _cell(pixels: NDArray[np.uint8], face: Face) -> NDArray[np.uint8]:
    """The face with what is around it, on grey ground where the picture ends."""
    height, width = pixels.shape[:2]
    x, y = face.centre
    reach = 0.8 * face.size
    part = pixels[
        max(0, int(y - reach)) : min(height, math.ceil(y + reach)),
        max(0, int(x - reach)) : min(width, math.ceil(x + reach)),
    ]
    tall, wide = part.shape[:2]
    scale = _CELL / max(tall, wide)
    size = max(1, round(wide * scale)), max(1, round(tall * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    cell = np.full((_CELL, _CELL, 3), 128, np.uint8)
    top, left = (_CELL - size[1]) // 2, (_CELL - size[0]) // 2
    cell[top : top + size[1], left : left + size[0]] = cv2.resize(part, size, interpolation=how)
    return cell


def _strip(title: str, cells: Sequence[NDArray[np.uint8]], each: int) -> NDArray[np.uint8]:
    """Two examples in a row, under the kind's name."""
    lines = max(1, (each + 1) // 2)
    gap = 8
    strip = np.full((_TITLE + lines * (_CELL + gap), 6 * _CELL + gap, 3), 255, np.uint8)
    cv2.putText(strip, title, (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    for at, cell in enumerate(cells):
        top = _TITLE + at // 2 * (_CELL + gap)
        left = at % 2 * (3 * _CELL + gap)
        strip[top : top + _CELL, left : left + 3 * _CELL] = cell
    return strip
