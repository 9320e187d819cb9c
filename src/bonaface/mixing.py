"""Fakes made while a network is trained: real crops of the cache, forged anew in each epoch."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bonaface.errors import ConfigError, DataError
from bonaface.faces import Face, Finder
from bonaface.files import write_json
from bonaface.forge import KINDS, Donor, check_kinds, pose_gap
from bonaface.samples import Sample
from bonaface.streaming import Crops

FACES: Final = "faces.json"
_VERSION: Final = 1
_DONORS: Final = 4  # people looked at for one of a like pose
_BLOCK: Final = 64

Pixels = NDArray[np.uint8]


class Mix:
    """Makes fakes of real crops while a network is trained.

    Args:
        pixels: uint8 (n, size, size, 3), the crops; only read.
        rows: the samples of the crops.
        faces: row -> its face in the crop; the rows that may be forged.
        share: of the pictures of an epoch that are forged, in (0, 1).
        kinds: of forgery, out of `bonaface.forge.KINDS`, all equally likely.

    Raises:
        ConfigError: a kind is unknown, or `swap` alone is asked for and there is one person only.
        DataError: there is no face to forge.
    """

    def __init__(
        self,
        pixels: Crops,
        rows: Sequence[Sample],
        faces: dict[int, Face],
        share: float,
        kinds: Sequence[str],
    ) -> None:
        if not faces:
            raise DataError(
                "expected faces in the real training pictures to forge, found none; leave out "
                "--forge, or cut the faces out with `bonaface data crop`"
            )
        self._pixels = pixels
        self._faces = faces
        self._share = share
        self.kinds = check_kinds(kinds)
        self._people = {row: rows[row].group or rows[row].path for row in faces}
        if len(set(self._people.values())) < 2:
            self.kinds = tuple(kind for kind in self.kinds if kind != "swap")
        if not self.kinds:
            raise ConfigError(
                "expected real training faces of two groups for the kind swap, got one group; "
                "add another kind to --forge-kinds"
            )
        self.rows = np.array(sorted(faces), np.int64)

    def count(self, own: int) -> int:
        """How many forged pictures join `own` others, so that they are the share asked for."""
        return round(own * self._share / (1 - self._share))

    def forge(self, row: int, rng: np.random.Generator) -> Pixels:
        """The crop of a row, forged; uint8 (size, size, 3). Everything random comes from `rng`."""
        kind = self.kinds[int(rng.integers(len(self.kinds)))]
        donor = self._donor(row, rng) if kind == "swap" else None
        return KINDS[kind](self._pixels[row], self._faces[row], rng, donor).image

    def _donor(self, row: int, rng: np.random.Generator) -> Donor:
        """Of a few people, the one who looks most the same way."""
        others: list[int] = []
        while len(others) < _DONORS:
            drawn = rng.choice(self.rows, 2 * _DONORS)
            others += [int(one) for one in drawn if self._people[int(one)] != self._people[row]]
        face = self._faces[row]
        best = min(others[:_DONORS], key=lambda one: pose_gap(self._faces[one], face))
        return self._pixels[best], self._faces[best]


def find_faces(
    pixels: Crops,
    rows: Sequence[Sample],
    wanted: Sequence[int],
    finder: Finder,
    store: Path,
    *,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> dict[int, Face]:
    """The largest face of each wanted crop, looked for once and then read from a file.

    Args:
        pixels: uint8 (n, size, size, 3), the crops.
        rows: the samples of the crops.
        wanted: which of them.
        finder: of faces.
        store: JSON of earlier calls over the same crops; written anew, also when stopped.
        workers: crops that are searched at a time.
        progress: called with the number of crops searched and to search; not where all are known.

    Returns:
        Row -> face, for those that have one.
    """
    known = _read(store, finder.name)
    todo = [row for row in wanted if rows[row].path not in known]

    def find(row: int) -> list[float] | None:
        found = finder.find(pixels[row])
        return _plain(found[0]) if found else None

    try:
        with ThreadPoolExecutor(workers) as pool:
            for at in range(0, len(todo), _BLOCK):
                block = todo[at : at + _BLOCK]
                for row, face in zip(block, pool.map(find, block), strict=True):
                    known[rows[row].path] = face
                if progress:
                    progress(at + len(block), len(todo))
    finally:
        if todo:
            write_json(store, {"version": _VERSION, "finder": finder.name, "faces": known})
    there = {row: known[rows[row].path] for row in wanted}
    return {row: _face(values) for row, values in there.items() if values is not None}


def _read(store: Path, finder: str) -> dict[str, list[float] | None]:
    try:
        value = json.loads(store.read_text(encoding="utf-8"))
        if (value["version"], value["finder"]) == (_VERSION, finder):
            return dict(value["faces"])
    except (OSError, ValueError, LookupError, TypeError):
        pass
    return {}


def _plain(face: Face) -> list[float]:
    marks = [value for mark in face.landmarks for value in mark]
    return [float(value) for value in (*face.box, *marks, face.confidence)]


def _face(values: list[float]) -> Face:
    left, top, right, bottom, *marks, confidence = values
    pairs = tuple(zip(marks[::2], marks[1::2], strict=True))
    return Face((left, top, right, bottom), pairs, confidence)
