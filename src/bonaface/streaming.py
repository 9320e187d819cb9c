"""Crops decoded when they are asked for, out of shards that are read nearly in order.

For sets whose decoded pictures would not fit on a disk: nothing is kept of what was read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from bonaface.errors import DataError, ImageError
from bonaface.images import read_image
from bonaface.preprocess import Preprocess
from bonaface.samples import Sample, Samples
from bonaface.tars import tar_of

BUFFER: Final = 4096  # rows that are mixed at a time


class Crops(Protocol):
    """Crops of one size, by their row: an array of uint8 (n, size, size, 3), or alike."""

    @property
    def shape(self) -> tuple[Any, ...]:
        """(n, size, size, 3)."""

    def __getitem__(self, rows: Any, /) -> Any:
        """The crop of a row, or those of an array of rows."""

    def __len__(self) -> int:
        """How many there are."""


class StreamedCrops:
    """As an array of all crops of a set: each is read and decoded anew when it is asked for.

    May be asked by several threads at once.

    Args:
        samples: their pictures.
        preprocess: its `resize` makes the crops.
    """

    def __init__(self, samples: Samples, preprocess: Preprocess) -> None:
        self._samples = samples
        self._preprocess = preprocess
        self.shape = (len(samples), preprocess.size, preprocess.size, 3)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, rows: int | NDArray[np.int64]) -> NDArray[np.uint8]:
        """Uint8 (size, size, 3) of a row, or (k, size, size, 3) of k rows.

        Raises:
            DataError: a picture cannot be read any more.
        """
        if np.ndim(rows) == 0:
            return self._decode(int(rows))
        crops = np.empty((len(rows), *self.shape[1:]), np.uint8)  # type: ignore[arg-type]
        for at, row in enumerate(rows):  # type: ignore[arg-type]
            crops[at] = self._decode(int(row))
        return crops

    def _decode(self, row: int) -> NDArray[np.uint8]:
        sample = self._samples.rows[row]
        try:
            return self._preprocess.resize(read_image(self._samples.absolute(sample)).pixels)
        except ImageError as error:
            raise DataError(
                f"expected the picture {sample.path} of {str(self._samples.root)!r} to be read, "
                f"got: {error.reason}; put its shard right, then go on with --resume"
            ) from error


class Stream:
    """The crops of a set of shards, with the face of `batches.PixelCache`.

    Attributes:
        pixels: the crops; row i is `rows[i]`.
        rows: all samples.
        unreadable: nothing: `bonaface data shard` leaves such pictures out.
        folder: for what is found out about the crops; need not be there.
    """

    def __init__(self, samples: Samples, preprocess: Preprocess, folder: Path) -> None:
        self.pixels: Crops = StreamedCrops(samples, preprocess)
        self.rows = samples.rows
        self.unreadable: dict[str, str] = {}
        self.folder = folder
        names = [tar_of(row.path) or "" for row in samples.rows]
        self._shards = np.unique(names, return_inverse=True)[1]

    def forget(self) -> None:
        """Nothing is held."""

    def mixed(self, drawn: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """The rows of an epoch in an order that reads shard after shard, nearly from end to end.

        Shards come in a random order, and the rows of each as they lie, through a buffer of
        `BUFFER` rows of which a random one leaves for each that comes. Only numbers are moved.

        Args:
            drawn: rows, a number beyond the last meaning one again (modulo their number).
            rng: of the order.
        """
        rows = drawn % len(self.rows)
        places = rng.permutation(self._shards.max(initial=0) + 1)
        lying = drawn[np.lexsort((drawn, rows, places[self._shards[rows]]))]
        buffer = lying[:BUFFER].tolist()
        order = []
        for row, at in zip(
            lying[BUFFER:].tolist(),
            rng.integers(len(buffer) or 1, size=max(len(lying) - BUFFER, 0)).tolist(),
            strict=True,
        ):
            order.append(buffer[at])
            buffer[at] = row
        return np.array(order + rng.permutation(buffer).tolist(), np.int64)


def is_sharded(rows: Sequence[Sample]) -> bool:
    """Whether all of some samples lie in tars."""
    return all(tar_of(row.path) is not None for row in rows)
