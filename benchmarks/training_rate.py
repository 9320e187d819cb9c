"""How busy training keeps the model.

One real training (`bonaface.training.train`, every setting at its default) whose epochs take turns:
the same batches again and again out of memory (the model's own step rate), our `Batches` over the
cache of decoded crops, the same with 0.3 of the crops forged on the fly, and the plain way, a
`Dataset` that opens each file with PIL behind a `DataLoader` with two workers.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PILImage
from torch.utils.data import DataLoader, Dataset

from bonaface import training
from bonaface.augment import recipe
from bonaface.batches import Batch, Batches, PixelCache
from bonaface.bench.rounds import ratios
from bonaface.config import TrainConfig
from bonaface.faces import Face
from bonaface.history import Epoch
from bonaface.mixing import Mix
from bonaface.preprocess import Preprocess
from bonaface.samples import Sample, Samples
from pictures import jpegs, write_tree
from table import Row

ARMS = ("memory", "batches", "forged", "plain")
FORGED = 0.3
PLAIN_WORKERS = 2
NO_ROWS = np.empty(0, np.int64)


def measure(
    folder: Path,
    *,
    model: str = "cnn",
    size: int = 128,
    batch_size: int = 32,
    steps: int = 24,
    rounds: int = 5,
    source: int = 256,
) -> list[Row]:
    """Images/s of whole epochs, from asking for the first batch to the end of the last step.

    Args:
        folder: new; holds the data set, its cache and the run.
        model: a name from `bonaface models`.
        size: side of the network's input in pixels.
        batch_size: images a step.
        steps: in an epoch, the same for all.
        rounds: epochs of each kind, after one of each that is thrown away.
        source: side of the JPEG files in pixels.
    """
    data = folder / "data"
    counts = {"train": steps * batch_size, "validation": batch_size}
    write_tree(data, jpegs(min(32, counts["train"]), source), counts)
    config = TrainConfig(
        model=model,
        size=size,
        batch_size=batch_size,
        epochs=len(ARMS) * (rounds + 1),
        forge=FORGED,
    )
    watch = Rates(config.epochs)
    with (
        mock.patch.object(training, "Batches", partial(InTurns, root=data, watch=watch)),
        mock.patch.object(training, "find_faces", partial(faces_in_the_middle, side=size)),
        mock.patch.dict(os.environ, {"BONAFACE_CACHE": str(folder / "cache")}),
        _signals_as_before(),
        contextlib.suppress(Enough),
    ):
        training.train(data, folder / "run", config, watch=watch)
    return _rows(f"training, {model} {size} px", watch)


@contextlib.contextmanager
def _signals_as_before() -> Iterator[None]:
    """A `DataLoader` with processes leaves a handler behind that every later child would call."""
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def _rows(part: str, watch: Rates) -> list[Row]:
    # The first epoch of each kind is thrown away.
    rates, work = (
        {arm: tuple(values[len(ARMS) + at :: len(ARMS)]) for at, arm in enumerate(ARMS)}
        for values in (watch.rates, watch.work)
    )
    own, ours, usual = "model alone, data in memory", "our batches", "PIL Dataset + DataLoader"
    mixed = f"our batches, {FORGED:g} forged"
    busy = ratios(rates["forged"], rates["memory"])
    again = ratios(rates["batches"], rates["memory"])
    faster = ratios(rates["batches"], rates["plain"])
    slower = ratios(rates["plain"], rates["memory"])
    work_own, work_ours = f"{own}, processor time", f"{ours}, processor time"
    more = ratios(work["batches"], work["memory"])
    return [
        Row(part, own, "images/s", rates["memory"]),
        Row(part, usual, "images/s", rates["plain"], own, slower),
        Row(part, ours, "images/s", rates["batches"], own, again, "0.9 or more"),
        Row(part, ours, "images/s", rates["batches"], usual, faster),
        Row(part, mixed, "images/s", rates["forged"], own, busy, "0.9 or more"),
        Row(part, work_own, "core-ms an image", work["memory"]),
        Row(part, work_ours, "core-ms an image", work["batches"], work_own, more),
    ]


class Enough(Exception):
    """Ends the training before it exports the network, which is not measured."""


class Rates(training.Watch):
    """Keeps, of every epoch, the images/s and the processor time of this process per image.

    Processor time is what a busy machine changes least; that of a `DataLoader`'s processes is
    not in it.
    """

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._begun = 0.0
        self._images = 0
        self.rates: list[float] = []
        self.work: list[float] = []

    def begin(self) -> None:
        """The first batch of an epoch is about to be asked for."""
        self._begun = time.process_time()
        self._images = 0

    def stepped(self, epoch: int, step: int, steps: int, loss: float, images: int) -> None:
        """Count, and at the last step look at the clock."""
        self._images += images
        if step == steps:
            self.work.append((time.process_time() - self._begun) * 1000 / self._images)

    def epoch_ended(self, row: Epoch, best: bool) -> None:
        """Keep the rate that training itself reports."""
        self.rates.append(row.images_per_second)
        if len(self.rates) == self._epochs:
            raise Enough


class InTurns(Batches):
    """`Batches` whose epochs take turns between `ARMS`."""

    def __init__(
        self,
        cache: PixelCache,
        chosen: NDArray[np.int64],
        preprocess: Preprocess,
        batch_size: int,
        *,
        root: Path,
        watch: Rates,
        augment: str = "none",
        mix: Mix | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(cache, chosen, preprocess, batch_size, augment=augment, **settings)
        # Fewer of its own, so that all arms take as many steps.
        own = chosen[: round((1 - FORGED) * len(chosen))]
        self._mixed = Batches(
            cache, own, preprocess, batch_size, augment=augment, mix=mix, **settings
        )
        samples = Samples(root, tuple(cache.rows[i] for i in chosen))
        self._plain = DataLoader(
            PlainDataset(samples, preprocess, augment),
            batch_size,
            shuffle=True,
            num_workers=PLAIN_WORKERS,
            persistent_workers=True,
        )
        self._watch = watch
        self._kept: list[Batch] = []

    def shuffled(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of the arm whose turn it is."""
        self._watch.begin()
        arm = ARMS[epoch % len(ARMS)]
        if arm == "batches":
            return super().shuffled(epoch, start)
        if arm == "forged":
            return self._mixed.shuffled(epoch, start)
        if arm == "plain":
            return (
                Batch(images, labels.float(), NO_ROWS, len(labels))
                for images, labels in self._plain
            )
        self._kept = self._kept or list(super().shuffled(0))
        return iter(self._kept)


def faces_in_the_middle(
    pixels: NDArray[np.uint8],
    rows: Sequence[Sample],
    wanted: Sequence[int],
    *_: Any,
    side: int,
    **__: Any,
) -> dict[int, Face]:
    """In the place of the search, which is done once for a data set: where drawn faces lie."""
    marks = ((0.38, 0.45), (0.62, 0.45), (0.5, 0.58), (0.4, 0.7), (0.6, 0.7))
    box = (0.25 * side, 0.2 * side, 0.75 * side, 0.85 * side)
    face = Face(box, tuple((x * side, y * side) for x, y in marks), 1.0)
    return dict.fromkeys(wanted, face)


class PlainDataset(Dataset[tuple[torch.Tensor, float]]):
    """What most training scripts do, for each sample in each epoch anew."""

    def __init__(self, samples: Samples, preprocess: Preprocess, augment: str) -> None:
        self._samples = samples
        self._preprocess = preprocess
        self._augment = recipe(augment)
        self._mean = torch.tensor(preprocess.mean).view(3, 1, 1)
        self._std = torch.tensor(preprocess.std).view(3, 1, 1)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, at: int) -> tuple[torch.Tensor, float]:
        row = self._samples.rows[at]
        side = self._preprocess.size
        with PILImage.open(self._samples.absolute(row)) as file:
            image = file.convert("RGB").resize((side, side), PILImage.Resampling.BILINEAR)
        seed = int(torch.randint(2**31, ()))
        pixels = self._augment(np.asarray(image), np.random.default_rng(seed))
        tensor = torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 255
        return (tensor - self._mean) / self._std, float(row.label)
