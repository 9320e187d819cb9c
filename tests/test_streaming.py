"""Crops out of shards: pixels and rules of batches as ever, in an order nearly theirs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from bonaface import streaming
from bonaface.batches import Batch, Batches, open_cache, open_source
from bonaface.errors import DataError
from bonaface.faces import Face
from bonaface.files import cache_root
from bonaface.images import read_image
from bonaface.mixing import Mix
from bonaface.preprocess import Preprocess
from bonaface.samples import Sample, Samples, load_samples
from bonaface.sharding import shard_set
from bonaface.streaming import Stream, is_sharded
from folders import listed
from scanned import png, write_tar

RECIPE = Preprocess(16)
COUNT = 120


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """Shards of train with about 20 pictures each, a third of them fake."""
    root = tmp_path_factory.mktemp("sharded")
    (root / "files").mkdir()
    rows = []
    for at in range(COUNT):
        label, name = ("real", "fake")[at % 3 == 0], f"{at:03d}.png"
        (root / "files" / name).write_bytes(png(50 + at, at))
        rows.append({"file_name": name, "label": label, "split": "train", "group": f"p{at // 2}"})
    listed(root / "files", rows)
    shard_set(load_samples(root / "files"), root / "shards", size=1800)
    assert len(list((root / "shards").glob("*.tar"))) >= 5
    return load_samples(root / "shards")


@pytest.fixture
def stream(samples: Samples, tmp_path: Path) -> Stream:
    return Stream(samples, RECIPE, tmp_path / "none")


def shard_of(stream: Stream) -> np.ndarray:
    return np.array([int(row.path[6:12]) for row in stream.rows])


def make(stream: Stream, **options: object) -> Batches:
    known = {"augment": "robust", "seed": 3, "workers": 0}
    return Batches(stream, np.arange(len(stream.rows)), RECIPE, 7, **known | options)  # type: ignore[arg-type]


def rows_of(batches: Iterator[Batch]) -> list[int]:
    return [int(row) for batch in batches for row in batch.rows]


def same(one: Iterator[Batch], other: Iterator[Batch]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(
        np.array_equal(a.rows, b.rows)
        and np.array_equal(a.images.numpy(), b.images.numpy())
        and np.array_equal(a.labels.numpy(), b.labels.numpy())
        for a, b in pairs
    )


def test_crops_are_those_of_a_cache(samples: Samples, stream: Stream, tmp_path: Path) -> None:
    cache = open_cache(samples, RECIPE, root=tmp_path / "cache")
    assert stream.rows == cache.rows
    assert stream.unreadable == {} == cache.unreadable
    assert stream.pixels.shape == cache.pixels.shape
    assert len(stream.pixels) == len(cache.pixels)
    assert np.array_equal(stream.pixels[7], cache.pixels[7])
    some = np.array([5, 3, 3, 119])
    assert np.array_equal(stream.pixels[some], cache.pixels[some])
    in_order = Batches(cache, np.arange(COUNT), RECIPE, 7).in_order()
    assert same(make(stream).in_order(), in_order)


def test_shards_are_streamed_and_files_are_cached(
    samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BONAFACE_CACHE", str(tmp_path / "cache"))
    opened = open_source(samples, RECIPE)
    assert isinstance(opened, Stream)
    assert opened.folder.parent == cache_root()
    assert not (tmp_path / "cache").exists(), "nothing is kept"
    assert not is_sharded([*samples.rows, Sample("a.png", 0, "train")])


def test_an_epoch_holds_every_row_once(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (1, 8, COUNT - 1, COUNT, 4096):
        monkeypatch.setattr(streaming, "BUFFER", size)
        rows = rows_of(make(stream).shuffled(0))
        assert sorted(rows) == list(range(COUNT)), size


def test_the_order_is_that_of_the_seed_and_the_epoch(stream: Stream) -> None:
    assert same(make(stream).shuffled(1), make(stream, workers=3).shuffled(1))
    one, next_, other = (
        rows_of(make(stream, seed=seed).shuffled(epoch)) for seed, epoch in ((3, 0), (3, 1), (4, 0))
    )
    assert one != next_
    assert one != other


def test_starting_late_gives_the_rest(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "BUFFER", 16)
    whole = list(make(stream).shuffled(2))
    for start in (1, 9, len(whole) - 1):
        assert same(make(stream, workers=2).shuffled(2, start), iter(whole[start:]))


def test_shards_come_one_after_the_other(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "BUFFER", 1)  # nothing is mixed but the shards
    shards = shard_of(stream)
    orders = []
    for epoch in range(3):
        rows = rows_of(make(stream).shuffled(epoch))
        runs = [(shard, [*some]) for shard, some in groupby(rows, lambda row: shards[row])]
        assert len(runs) == shards.max() + 1, "each shard once, from its first row to its last"
        assert all(some == sorted(some) for _, some in runs)
        orders.append([shard for shard, _ in runs])
    assert orders[0] != orders[1]
    assert orders[0] != sorted(orders[0])


def test_a_buffer_mixes_and_stays_near(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "BUFFER", 24)
    rows = rows_of(make(stream).shuffled(0))
    shards = shard_of(stream)
    assert rows != sorted(rows, key=lambda row: (shards[row], row))
    labels = [stream.rows[row].label for row in rows]
    assert max(len(list(some)) for _, some in groupby(labels)) < 20
    # A row leaves the buffer no sooner than it came, less what the buffer holds.
    first = {row: at for at, row in enumerate(rows)}
    monkeypatch.setattr(streaming, "BUFFER", 1)
    lying = rows_of(make(stream).shuffled(0))
    assert all(first[row] >= at - 24 for at, row in enumerate(lying))
    open_at_once = [len({shards[row] for row in rows[at : at + 7]}) for at in range(0, COUNT, 7)]
    assert np.mean(open_at_once) < shards.max()


def test_what_is_drawn_again_is_there_again(stream: Stream) -> None:
    rows = rows_of(make(stream, balance="batches").shuffled(0))
    labels = np.array([row.label for row in stream.rows])[rows]
    assert labels.sum() * 2 == len(rows) == 160
    counts = np.bincount(rows)
    assert set(counts[np.array([row.label for row in stream.rows]) == 0]) == {1}
    assert set(counts) == {1, 2}


def test_shares_of_several_processes_are_one_epoch(stream: Stream) -> None:
    shares = [rows_of(make(stream, share=(rank, 3)).shuffled(0)) for rank in range(3)]
    assert sorted(np.concatenate(shares)) == list(range(COUNT))
    for rank, share in enumerate(shares):
        whole = [row for batch in make(stream).shuffled(0) for row in batch.rows[rank::3]]
        assert share == whole


def test_forged_crops_join(stream: Stream) -> None:
    marks = ((5.0, 6.0), (11.0, 6.0), (8.0, 9.0), (5.5, 12.0), (10.5, 12.0))
    faces = {
        at: Face((3, 2, 13, 15), marks, 1.0) for at, row in enumerate(stream.rows) if not row.label
    }
    mix = Mix(stream.pixels, stream.rows, faces, 0.5, ("self_blend", "swap"))
    rows = rows_of(make(stream, mix=mix).shuffled(0))
    assert len(rows) == 2 * COUNT
    assert same(make(stream, mix=mix).shuffled(1), make(stream, mix=mix, workers=2).shuffled(1))


def test_a_picture_that_is_gone_is_named_with_its_shard(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {f"{at}.png": png(at, at) for at in range(8)})
    listed(
        tmp_path,
        [
            {"file_name": f"a.tar/{at}.png", "label": ("real", "fake")[at % 2], "split": "train"}
            for at in range(8)
        ],
    )
    stream = Stream(load_samples(tmp_path), RECIPE, tmp_path / "none")
    batches = Batches(stream, np.arange(8), RECIPE, 4, workers=2)
    assert sorted(rows_of(batches.shuffled(0))) == list(range(8))
    write_tar(tmp_path / "a.tar", {f"{at}.png": png(at, at) for at in range(7)} | {"7.png": b"no"})
    with pytest.raises(DataError, match=r"a\.tar/7\.png of .*not an image.*--resume"):
        list(batches.shuffled(1))
    write_tar(tmp_path / "a.tar", {f"{at}.png": png(at, at) for at in range(7)})
    with pytest.raises(DataError, match=r"a\.tar/7\.png of .*no such file"):
        list(batches.shuffled(1))
    assert np.array_equal(
        stream.pixels[3], RECIPE.resize(read_image(tmp_path / "a.tar/3.png").pixels)
    )
