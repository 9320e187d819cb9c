"""Samples -> crops, in a cache on disk or out of shards -> seeded batches, ready in time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import mmap
import os
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from bonaface.ahead import ahead
from bonaface.augment import recipe
from bonaface.errors import ConfigError, DataError, ImageError
from bonaface.files import atomic_folder, cache_root, write_json
from bonaface.images import read_image
from bonaface.mixing import Mix
from bonaface.preprocess import Preprocess
from bonaface.runtimes import processor_count
from bonaface.samples import Sample, Samples
from bonaface.streaming import Stream, is_sharded
from bonaface.tars import status

Progress = Callable[[int, int], None]

_VERSION = 1
_CHUNK = 256
_KEEP_BYTES = 20 << 30
_STALE_SECONDS = 86_400
_DROP_EVERY = 16
# Other names in the folder are not ours to delete.
_CACHE = re.compile(r"[0-9a-f]{32}")
_UNFINISHED = re.compile(r"\.[0-9a-f]{32}\.[0-9a-f]{8}\.tmp")


@dataclass(frozen=True)
class PixelCache:
    """Decoded, resized crops of one set of samples, memory-mapped from disk.

    Attributes:
        pixels: uint8 (n, size, size, 3), read-only; row i is `rows[i]`.
        rows: the samples that could be read, in the order of the samples given.
        unreadable: path -> reason, for those that could not.
        folder: where it lies.
    """

    pixels: NDArray[np.uint8]
    rows: tuple[Sample, ...]
    unreadable: dict[str, str]
    folder: Path
    _file: mmap.mmap

    def forget(self) -> None:
        """Let the system take back the memory of the pages read so far; they stay on disk."""
        self._file.madvise(mmap.MADV_DONTNEED)

    def mixed(self, drawn: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Any order of so many rows."""
        return rng.permutation(drawn)


CropSource = PixelCache | Stream


def open_source(
    samples: Samples, preprocess: Preprocess, *, progress: Progress | None = None
) -> CropSource:
    """Where the crops of these samples come from: shards are streamed, files decoded into a cache.

    Arguments and errors as for `open_cache`.
    """
    if not is_sharded(samples.rows):
        return open_cache(samples, preprocess, progress=progress)
    return Stream(samples, preprocess, cache_root() / _fingerprint(samples, preprocess))


def open_cache(
    samples: Samples,
    preprocess: Preprocess,
    *,
    root: Path | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> PixelCache:
    """Open the cache of these samples, decoding them first if it is not there.

    The folder's name is a fingerprint of the resize recipe and of every file's name, size and
    time of change, so a changed file makes a new cache. It appears by one rename when it is
    whole. The least recently used caches go when all together exceed 20 GiB.

    Args:
        samples: what to decode.
        preprocess: its `resize` decides what is stored; mean and deviation do not matter.
        root: folder of caches; by default `bonaface.files.cache_root()`.
        workers: decoding threads; by default one a core.
        progress: called with (done, all).

    Raises:
        DataError: no sample can be read, or the disk is full.
    """
    root = root or cache_root()
    folder = root / _fingerprint(samples, preprocess)
    try:
        if folder.is_dir() and _is_outdated(samples, folder):
            shutil.rmtree(folder)
        if not folder.is_dir():
            root.mkdir(parents=True, exist_ok=True)
            _prune(root)
            with atomic_folder(folder, first_wins=True) as temporary:
                _decode(samples, preprocess, temporary, workers or processor_count(), progress)
        return _open(samples, preprocess, folder)
    except OSError as error:
        raise DataError(
            f"expected room for decoded crops in {str(root)!r}, got: {error}; free some, or "
            "set BONAFACE_CACHE to a folder on another disk"
        ) from error


@dataclass(frozen=True, slots=True)
class Batch:
    """What a training step takes.

    Attributes:
        images: float32 (b, 3, size, size), channels-last memory.
        labels: float32 (b,), 1 fake and 0 real; 1 where the crop was forged here.
        rows: int64 (b,), rows of the cache.
        whole: pictures of the batch in all processes that share it; b where there is one.
    """

    images: torch.Tensor
    labels: torch.Tensor
    rows: NDArray[np.int64]
    whole: int


@dataclass(frozen=True, slots=True)
class _Job:
    """A batch to prepare: rows drawn, size of the whole batch; in training also its places."""

    drawn: NDArray[np.int64]
    whole: int
    epoch: int | None = None
    places: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


class Batches:
    """Seeded batches over some rows of a cache.

    The batches of an epoch depend on the seed and the epoch alone, not on the number of workers,
    nor on that of the processes that share them. Sizes differ by at most one, so that no batch is
    too small for batch normalisation.

    Args:
        cache: where crops come from.
        chosen: rows of the cache.
        preprocess: normalises the crops.
        batch_size: largest size of a batch.
        augment: a recipe from `bonaface.augment.RECIPES`.
        balance: "batches" draws the smaller class again until both are as large; "sources" draws as
            many fakes as reals, and of each class every source (reals) or generator (fakes) in
            proportion to the root of its size, so that a large one does not drown the others.
        mix: joins forged crops to each epoch, other ones each time.
        seed: of order and augmentation.
        workers: threads that prepare batches ahead; 0 prepares them in the caller's thread.
        share: rank of this process, and how many share the batches: of each batch in training, and
            of the batches in order, every so-manieth is its.

    Raises:
        ConfigError: a batch would be smaller than the number of processes.
    """

    def __init__(
        self,
        cache: CropSource,
        chosen: NDArray[np.int64],
        preprocess: Preprocess,
        batch_size: int,
        *,
        augment: str = "none",
        balance: Literal["batches", "sources"] | None = None,
        mix: Mix | None = None,
        seed: int = 0,
        workers: int = 1,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self._cache = cache
        self._chosen = np.asarray(chosen, np.int64)
        # Row i of the cache, forged, is drawn as the number i + len(cache.rows).
        labels = [row.label for row in cache.rows] + [1] * len(cache.rows)
        self._labels = np.array(labels, np.float32)
        self._mix = mix
        self._preprocess = preprocess
        self._augment = recipe(augment)
        self._augments = augment != "none"
        self._balance = balance
        self._seed = seed
        self._workers = workers
        self._share = share
        count = len(self._epoch_rows(0))
        # A batch of one has no variance to normalise by, so a last odd row joins another batch.
        self._steps = max(1, min(-(-count // batch_size), count // 2))
        if min(batch_size, count // self._steps) < share[1]:
            raise ConfigError(
                f"expected batches of at least {share[1]} pictures, one for each process, got "
                f"{min(batch_size, count // self._steps)}; raise --batch-size, or take fewer "
                "devices"
            )

    def __len__(self) -> int:
        """Steps in an epoch."""
        return self._steps

    def shuffled(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch in training order, from step `start` on, or our part of them."""
        rows, (rank, size) = self._epoch_rows(epoch), self._share
        for_steps = np.array_split(np.arange(len(rows)), self._steps)[start:]
        return self._ahead(
            _Job(rows[places[rank::size]], len(places), epoch, places[rank::size])
            for places in for_steps
        )

    def in_order(self) -> Iterator[Batch]:
        """Every chosen row once, in order, without augmentation; of several processes, our part."""
        rank, size = self._share
        parts = np.array_split(self._chosen, -(-len(self._chosen) // 64))
        return self._ahead(_Job(part, len(part)) for part in parts[rank::size])

    def _epoch_rows(self, epoch: int) -> NDArray[np.int64]:
        rng = np.random.default_rng([self._seed, epoch])
        forged = self._chosen[:0]
        if self._mix is not None:
            forged = _drawn(self._mix.rows, self._mix.count(len(self._chosen)), rng)
            forged = forged + len(self._cache.rows)
        if self._balance == "sources":
            half = (len(self._chosen) + len(forged)) // 2
            reals = self._by_source(0, half, rng)
            fakes = self._by_source(1, max(half - len(forged), 0), rng)
            return self._cache.mixed(np.concatenate([reals, fakes, forged]), rng)
        rows = np.concatenate([self._chosen, forged])
        if self._balance == "batches":
            labels = self._labels[rows]
            fakes, reals = rows[labels == 1], rows[labels == 0]
            small, large = sorted((fakes, reals), key=len)
            rows = np.concatenate([large, small, _drawn(small, len(large) - len(small), rng)])
        return self._cache.mixed(rows, rng)

    def _by_source(self, label: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """About `count` rows of a class: of each origin a share by the root of its size."""
        members: dict[str, list[int]] = defaultdict(list)
        for row in self._chosen[self._labels[self._chosen] == label].tolist():
            sample = self._cache.rows[row]
            origin = sample.generator if label else sample.source
            members[origin or ""].append(row)
        roots = {origin: math.sqrt(len(rows)) for origin, rows in sorted(members.items())}
        share = count / max(sum(roots.values()), 1)
        drawn = [
            _drawn(np.array(members[one], np.int64), round(share * root), rng)
            for one, root in roots.items()
        ]
        return np.concatenate([self._chosen[:0], *drawn])

    def _ahead(self, jobs: Iterator[_Job]) -> Iterator[Batch]:
        if self._workers == 0:
            return map(self._make, jobs)
        return ahead(jobs, self._make, self._workers, 2 * self._workers + 1)

    def _make(self, job: _Job) -> Batch:
        drawn, epoch = job.drawn, job.epoch
        rows, labels = drawn % len(self._cache.rows), self._labels[drawn]
        # One read in the order of the file, then back to the order of the batch.
        order = np.argsort(rows, kind="stable")
        pixels = np.empty((len(rows), *self._cache.pixels.shape[1:]), np.uint8)
        pixels[order] = self._cache.pixels[rows[order]]
        if epoch is not None:
            # Keyed by the place in the epoch: a row drawn twice is changed in two ways.
            places = job.places.tolist()
            if self._mix is not None:
                for i in np.flatnonzero(drawn != rows).tolist():
                    rng = np.random.default_rng([self._seed, epoch, 2, places[i]])
                    forged = self._mix.forge(int(rows[i]), rng)
                    if np.array_equal(forged, pixels[i]):
                        labels[i] = 0  # a flat face: nothing was changed, so nothing is fake
                    pixels[i] = forged
            if self._augments:
                for i in range(len(rows)):
                    rng = np.random.default_rng([self._seed, epoch, 1, places[i]])
                    pixels[i] = self._augment(pixels[i], rng)
        if epoch is None or job.places[0] // job.whole % _DROP_EVERY == 0:
            self._cache.forget()
        return Batch(
            torch.from_numpy(self._preprocess.normalise(pixels)),
            torch.from_numpy(labels),
            rows,
            job.whole,
        )


def _drawn(rows: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """So many of the rows, none again before all were drawn."""
    again = [rng.permutation(rows) for _ in range(-(-count // max(len(rows), 1)))]
    return np.concatenate([rows[:0], *again])[:count]


def _fingerprint(samples: Samples, preprocess: Preprocess) -> str:
    digest = hashlib.sha256(f"{_VERSION} {preprocess.size} {samples.root.resolve()}".encode())
    for row in samples.rows:
        size, changed = status(samples.absolute(row))
        digest.update(f"\0{row.path}\0{size}\0{changed}".encode())
    return digest.hexdigest()[:32]


def _decode(
    samples: Samples,
    preprocess: Preprocess,
    folder: Path,
    workers: int,
    progress: Progress | None,
) -> None:
    def one(row: Sample) -> NDArray[np.uint8] | str:
        try:
            return preprocess.resize(read_image(samples.absolute(row)).pixels)
        except ImageError as error:
            return error.reason

    unreadable: dict[str, str] = {}
    with (folder / "pixels.u8").open("wb") as file, ThreadPoolExecutor(workers) as pool:
        for at in range(0, len(samples.rows), _CHUNK):
            rows = samples.rows[at : at + _CHUNK]
            for row, result in zip(rows, pool.map(one, rows), strict=True):
                if isinstance(result, str):
                    unreadable[row.path] = result
                else:
                    file.write(result.tobytes())
            if progress:
                progress(at + len(rows), len(samples.rows))
        file.flush()
        os.fsync(file.fileno())
    if len(unreadable) == len(samples.rows):
        path, reason = next(iter(unreadable.items()), ("no file", "no samples"))
        raise DataError(
            f"expected images that can be read in {str(samples.root)!r}, got none "
            f"({path}: {reason}); check the files"
        )
    write_json(folder / "index.json", {"unreadable": unreadable})


def _open(samples: Samples, preprocess: Preprocess, folder: Path) -> PixelCache:
    os.utime(folder)
    unreadable = _unreadable(folder)
    rows = tuple(row for row in samples.rows if row.path not in unreadable)
    shape = (len(rows), preprocess.size, preprocess.size, 3)
    path = folder / "pixels.u8"
    if path.stat().st_size != int(np.prod(shape)):
        raise DataError(
            f"expected {int(np.prod(shape))} bytes in {str(path)!r}, got {path.stat().st_size}; "
            "delete that folder and start again"
        )
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    pixels = np.frombuffer(mapped, np.uint8).reshape(shape)
    return PixelCache(pixels, rows, unreadable, folder, mapped)


def _is_outdated(samples: Samples, folder: Path) -> bool:
    """Half deleted, or a file that could not be read when the cache was made can be now."""
    if not (folder / "index.json").is_file() or not (folder / "pixels.u8").is_file():
        return True
    for path in _unreadable(folder):
        with contextlib.suppress(ImageError):
            read_image(samples.root / path)
            return True
    return False


def _unreadable(folder: Path) -> dict[str, str]:
    found = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    return dict(found["unreadable"])


def _prune(root: Path) -> None:
    caches = []
    for folder in root.iterdir():
        with contextlib.suppress(OSError):
            age = time.time() - folder.stat().st_mtime
            if _UNFINISHED.fullmatch(folder.name):
                if age > _STALE_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)
            elif _CACHE.fullmatch(folder.name) and (folder / "pixels.u8").is_file():
                caches.append((age, (folder / "pixels.u8").stat().st_size, folder))
    total = 0
    for _, size, folder in sorted(caches):
        total += size
        if total > _KEEP_BYTES:
            shutil.rmtree(folder, ignore_errors=True)
