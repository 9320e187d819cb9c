import os
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from bonaface import batches as module
from bonaface.batches import Batches, open_cache
from bonaface.errors import DataError, ImageError
from bonaface.faces import Face
from bonaface.images import read_image
from bonaface.mixing import Mix
from bonaface.preprocess import Preprocess
from bonaface.samples import Sample, Samples

RECIPE = Preprocess(16)


@pytest.fixture
def samples(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for i in range(23):
        path = f"train/{('real', 'fake')[i % 3 == 0]}/{i:02d}.png"
        target = tmp_path / "data" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(target)
        rows.append(Sample(path, int(i % 3 == 0), "train"))
    return Samples(tmp_path / "data", tuple(rows))


@pytest.fixture
def cache(samples, tmp_path):
    return open_cache(samples, RECIPE, root=tmp_path / "cache")


def every(batches, epoch, start=0):
    return [(b.images.numpy(), b.labels.numpy(), b.rows) for b in batches.shuffled(epoch, start)]


def same(first, second):
    return len(first) == len(second) and all(
        np.array_equal(a, b)
        for one, two in zip(first, second, strict=True)
        for a, b in zip(one, two, strict=True)
    )


def make(cache, **options):
    options = {"augment": "robust", "seed": 3, "workers": 0} | options
    return Batches(cache, np.arange(len(cache.rows)), RECIPE, 5, **options)


def test_cache_holds_what_preprocessing_gives(samples, cache):
    for i, row in enumerate(samples.rows):
        pixels = np.asarray(Image.open(samples.absolute(row)))
        assert np.array_equal(cache.pixels[i], RECIPE.resize(pixels))
    assert cache.rows == samples.rows
    assert not cache.pixels.flags.writeable


def test_cache_is_decoded_once(samples, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "read_image", lambda path: pytest.fail("decoded again"))
    again = open_cache(samples, RECIPE, root=tmp_path / "cache")
    assert np.array_equal(again.pixels, cache.pixels)


def test_changed_file_makes_a_new_cache(samples, cache, tmp_path):
    target = samples.absolute(samples.rows[4])
    before = target.stat()
    Image.fromarray(np.full((20, 24, 3), 7, np.uint8)).save(target)
    os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    again = open_cache(samples, RECIPE, root=tmp_path / "cache")
    assert (again.pixels[4] == 7).all()
    assert np.array_equal(again.pixels[5:], cache.pixels[5:])


def test_another_size_makes_another_cache(samples, cache, tmp_path):
    other = open_cache(samples, Preprocess(18), root=tmp_path / "cache")
    assert other.pixels.shape == (23, 18, 18, 3)


def test_crash_leaves_no_cache(samples, tmp_path, monkeypatch):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_cache(samples, RECIPE, root=tmp_path / "other", progress=stop)
    assert list((tmp_path / "other").iterdir()) == []


def test_full_disk_is_said(samples, tmp_path):
    def full(done, total):
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match="No space left.*BONAFACE_CACHE"):
        open_cache(samples, RECIPE, root=tmp_path / "other", progress=full)


def test_damaged_cache_is_refused(samples, cache, tmp_path):
    (pixels,) = (tmp_path / "cache").glob("*/pixels.u8")
    with pixels.open("ab") as file:
        file.write(b"more")
    with pytest.raises(DataError, match="delete that folder"):
        open_cache(samples, RECIPE, root=tmp_path / "cache")


def test_unreadable_files_are_listed_and_left_out(samples, tmp_path):
    samples.absolute(samples.rows[2]).write_bytes(b"")
    samples.absolute(samples.rows[9]).write_text("no picture")
    cache = open_cache(samples, RECIPE, root=tmp_path / "cache")
    assert set(cache.unreadable) == {samples.rows[2].path, samples.rows[9].path}
    assert len(cache.rows) == len(cache.pixels) == 21
    for i, row in enumerate(cache.rows):
        pixels = np.asarray(Image.open(samples.absolute(row)))
        assert np.array_equal(cache.pixels[i], RECIPE.resize(pixels))


def test_nothing_readable_is_an_error(samples, tmp_path):
    for row in samples.rows:
        samples.absolute(row).write_bytes(b"")
    with pytest.raises(DataError, match="got none"):
        open_cache(samples, RECIPE, root=tmp_path / "cache")


def test_least_recently_used_caches_go_first(samples, tmp_path, monkeypatch):
    root = tmp_path / "cache"
    for size in (16, 17, 18):
        open_cache(samples, Preprocess(size), root=root)
    old = {p.parent.name: p.stat().st_size for p in root.glob("*/pixels.u8")}
    for age, name in enumerate(sorted(old, key=old.get)):
        os.utime(root / name, (1e9 - age, 1e9 - age))
    monkeypatch.setattr(module, "_KEEP_BYTES", 23 * (16 * 16 + 17 * 17) * 3)
    open_cache(samples, Preprocess(19), root=root)
    sizes = sorted(p.stat().st_size // (23 * 3) for p in root.glob("*/pixels.u8"))
    assert sizes == [16**2, 17**2, 19**2]


@pytest.mark.parametrize("workers", [1, 4])
def test_workers_change_nothing(cache, workers):
    assert same(every(make(cache), 1), every(make(cache, workers=workers), 1))


def test_starting_late_gives_the_rest(cache):
    assert same(every(make(cache), 2)[3:], every(make(cache, workers=2), 2, start=3))


def test_epochs_and_seeds_differ(cache):
    first = every(make(cache), 0)
    assert not same(first, every(make(cache), 1))
    assert not same(first, every(make(cache, seed=4), 0))


def test_an_epoch_holds_every_row_once_in_even_batches(cache):
    rows = [rows for _, _, rows in every(make(cache), 0)]
    assert sorted(np.concatenate(rows)) == list(range(23))
    assert {len(r) for r in rows} == {4, 5}
    assert len(make(cache)) == len(rows) == 5


def test_batches_belong_to_their_rows(cache):
    for images, labels, rows in every(make(cache, augment="none"), 0):
        assert np.array_equal(images, RECIPE.normalise(cache.pixels[rows]))
        assert list(labels) == [cache.rows[i].label for i in rows]


def test_in_order_is_in_order_and_plain(cache):
    (batch,) = make(cache).in_order()
    assert list(batch.rows) == list(range(23))
    assert np.array_equal(batch.images.numpy(), RECIPE.normalise(cache.pixels))


def test_balance_draws_the_small_class_again(cache):
    found = every(make(cache, balance="batches"), 0)
    labels = np.concatenate([labels for _, labels, _ in found])
    rows = np.concatenate([rows for _, _, rows in found])
    assert (labels == 1).sum() == (labels == 0).sum() == 15
    counts = np.bincount(rows, minlength=23)
    fakes = np.array([row.label for row in cache.rows]) == 1
    assert set(counts[~fakes]) == {1}
    assert set(counts[fakes]) <= {1, 2}


def test_sources_are_drawn_by_the_root_of_their_size(cache):
    left = [["large"] * 12 + ["small"] * 3, ["one"] * 6 + ["two"] * 2]
    rows = tuple(
        replace(row, **{("source", "generator")[row.label]: left[row.label].pop()})
        for row in cache.rows
    )
    found = every(make(replace(cache, rows=rows), balance="sources"), 0)
    drawn = [rows[i] for _, _, numbers in found for i in numbers]
    counts = Counter(row.source or row.generator for row in drawn)
    # 11 of each class; roots 3.46 : 1.73 and 2.45 : 1.41.
    assert counts == {"large": 7, "small": 4, "one": 7, "two": 4}
    small = {row.path for row in rows if row.source == "small"}
    assert {row.path for row in drawn if row.source == "small"} == small


def test_images_lie_channels_last(cache):
    import torch

    batch = next(iter(make(cache).shuffled(0)))
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.images.dtype == torch.float32


def test_leaving_early_ends_the_workers(cache):
    import threading

    before = threading.active_count()
    for _ in make(cache, workers=3).shuffled(0):
        break
    assert threading.active_count() == before


def test_a_last_odd_row_is_no_batch_of_its_own(cache):
    few = Batches(cache, np.arange(15), RECIPE, 2, workers=0)
    assert sorted({len(rows) for _, _, rows in every(few, 0)}) == [2, 3]


def test_only_our_own_folders_are_deleted(samples, tmp_path, monkeypatch):
    root = tmp_path / "project"
    unfinished = root / f".{'a' * 32}.{'b' * 8}.tmp"
    mine = [root / ".git", root / ".cache.tmp", root / "photos"]
    for folder in (unfinished, *mine):
        folder.mkdir(parents=True)
        (folder / "pixels.u8").write_bytes(b"x" * 1000)
        os.utime(folder, (1e9, 1e9))
    monkeypatch.setattr(module, "_KEEP_BYTES", 10)
    open_cache(samples, RECIPE, root=root)
    assert not unfinished.exists()
    assert all((folder / "pixels.u8").is_file() for folder in mine)


def test_a_file_that_can_be_read_again_is_read_again(samples, tmp_path, monkeypatch):
    def refuse(path):
        if path.name == "04.png":
            raise ImageError("no permission to read it", path.name)
        return read_image(path)

    with monkeypatch.context() as patch:
        patch.setattr(module, "read_image", refuse)
        assert len(open_cache(samples, RECIPE, root=tmp_path / "cache").rows) == 22
        assert len(open_cache(samples, RECIPE, root=tmp_path / "cache").rows) == 22
    assert len(open_cache(samples, RECIPE, root=tmp_path / "cache").rows) == 23


def test_two_that_build_one_cache_end_with_one_cache(samples, tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        for attempt in range(5):
            root = tmp_path / str(attempt)
            caches = list(pool.map(lambda root: open_cache(samples, RECIPE, root=root), [root] * 4))
            assert all(np.array_equal(c.pixels, caches[0].pixels) for c in caches)
            assert len(list(root.iterdir())) == 1


@pytest.mark.parametrize("lost", ["index.json", "pixels.u8"])
def test_a_cache_whose_deletion_was_cut_short_is_made_again(samples, cache, tmp_path, lost):
    (file,) = (tmp_path / "cache").glob(f"*/{lost}")
    file.unlink()
    again = open_cache(samples, RECIPE, root=tmp_path / "cache")
    assert np.array_equal(again.pixels, cache.pixels)


MARKS = ((5.0, 6.0), (11.0, 6.0), (8.0, 9.0), (5.5, 12.0), (10.5, 12.0))
FACE = Face((3, 2, 13, 15), MARKS, 1.0)


def mixed(cache, share=0.5, **options):
    faces = {i: FACE for i, row in enumerate(cache.rows) if row.label == 0}
    mix = Mix(cache.pixels, cache.rows, faces, share, ("self_blend", "resample"))
    return make(cache, mix=mix, **options)


def test_forged_crops_join_an_epoch_as_fakes(cache):
    batches = mixed(cache, augment="none")
    _, labels, rows = (np.concatenate(part) for part in zip(*every(batches, 0), strict=True))
    own = np.array([row.label for row in cache.rows])
    assert len(rows) == 46
    assert set(np.bincount(rows[own[rows] == 1])) <= {0, 1}, "a fake is not forged"
    forged = labels != own[rows]
    assert forged.sum() == 23
    assert (labels[forged] == 1).all()
    assert sorted(rows[~forged]) == list(range(23)), "the data set's own pictures are all there"


def test_forged_crops_are_other_ones_each_epoch_and_the_same_for_a_seed(cache):
    batches = mixed(cache, augment="none")
    own = np.array([row.label for row in cache.rows])

    def forged(epoch):
        found = {}
        for images, labels, rows in every(batches, epoch):
            for image, label, row in zip(images, labels, rows, strict=True):
                if label != own[row]:
                    found.setdefault(int(row), image)
        return found

    first, second = forged(0), forged(1)
    both = first.keys() & second.keys()
    plain = {
        int(b.rows[i]): b.images[i].numpy() for b in batches.in_order() for i in range(len(b.rows))
    }
    assert both
    for row in both:
        assert not np.array_equal(first[row], second[row])
        assert not np.array_equal(first[row], plain[row])
    assert same(every(mixed(cache, workers=2), 1), every(mixed(cache), 1))
    assert same(every(mixed(cache), 1, start=4), every(mixed(cache), 1)[4:])


def test_balanced_batches_count_the_forged(cache):
    batches = mixed(cache, 0.2, balance="batches")
    labels = np.concatenate([labels for _, labels, _ in every(batches, 0)])
    assert labels.sum() * 2 == len(labels) == 30


def test_sources_make_room_for_the_forged(cache):
    labels = np.concatenate([one for _, one, _ in every(mixed(cache, 0.2, balance="sources"), 0)])
    assert len(labels) == 28  # 23 and 6 forged, an odd one left out
    assert labels.sum() == 14


def test_a_face_that_no_forging_changes_stays_real(samples, tmp_path):
    for row in samples.rows:
        Image.fromarray(np.zeros((20, 24, 3), np.uint8)).save(samples.absolute(row))
    cache = open_cache(samples, RECIPE, root=tmp_path / "flat")
    faces = {1: FACE, 2: FACE}
    mix = Mix(cache.pixels, cache.rows, faces, 0.5, ("inpaint",))
    labels = np.concatenate([one for _, one, _ in every(make(cache, mix=mix, augment="none"), 0)])
    assert labels.sum() == sum(row.label for row in cache.rows)
