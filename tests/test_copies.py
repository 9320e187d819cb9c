"""Every copy is found, and no two faces are taken for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bonaface import copies as module
from bonaface import facts as reading
from bonaface.copies import candidates, find_copies, similarity
from bonaface.drawn import draw_face, write_drawn_set
from bonaface.facts import read_facts
from bonaface.samples import load_samples
from traps import resaved, saved

REAL_DATA = Path(__file__).parents[1] / ".." / "shared" / "data"
SIZE = 96


@pytest.fixture(scope="module")
def faces() -> list[np.ndarray]:
    return [draw_face(np.random.default_rng([9, seed]), SIZE).pixels for seed in range(100)]


def read_all(faces: list[bytes], folder: Path) -> Iterator[module._Read]:
    for at, data in enumerate(faces):
        path = folder / f"{at}.jpg"
        path.write_bytes(data)
        yield reading._read(path, False)


def test_every_re_saved_copy_is_found_and_no_two_faces_are_taken_for_one(
    faces: list[np.ndarray], tmp_path: Path
) -> None:
    first = [saved(Image.fromarray(face), format="JPEG", quality=90) for face in faces]
    paths = []
    for at, data in enumerate(first):
        paths.append(tmp_path / f"first{at}.jpg")
        paths[-1].write_bytes(data)
    read = list(read_all([*first, *map(resaved, paths)], tmp_path))
    hashes = np.array([one.hash for one in read])
    fine, _ = module.fine_structure(np.stack([one.thumbnail for one in read]))
    pairs = set()
    for left, right in candidates(hashes):
        alike = similarity(fine, left, right) >= module.SIMILAR
        pairs |= {tuple(sorted(pair)) for pair in zip(left[alike], right[alike], strict=True)}
    n = len(faces)
    copies = {(at, at + n) for at in range(n)}
    assert len(copies - pairs) <= 0.01 * n  # missed
    assert pairs <= copies  # 19,800 pairs of different faces, none of them taken for a copy


def test_candidates_are_all_pairs_that_differ_in_few_bits() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 300, dtype=np.uint64)
    for at in range(1, 200):  # most lie a few bits from another
        for bit in rng.integers(0, 64, rng.integers(0, 11)):
            hashes[at] = (
                hashes[rng.integers(at)] ^ np.uint64(1 << int(bit))
                if bit % 2
                else (hashes[at - 1] ^ np.uint64(1 << int(bit)))
            )
    seen = [
        tuple(sorted(pair))
        for left, right in candidates(hashes)
        for pair in zip(left.tolist(), right.tolist(), strict=True)
    ]
    assert len(seen) == len(set(seen))  # each once
    bits = np.bitwise_count(hashes[:, None] ^ hashes[None])
    near = {(i, j) for i, j in zip(*np.nonzero(bits <= 7), strict=True) if i < j}
    allowed = {(i, j) for i, j in zip(*np.nonzero(bits <= 10), strict=True) if i < j}
    assert len(near) > 200
    assert near <= set(seen) <= allowed


def test_few_pairs_at_a_time_are_the_same_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = np.random.default_rng(1).integers(0, 1 << 12, 400, dtype=np.uint64)

    def pairs() -> list[tuple[int, int]]:
        blocks = [np.stack(block, axis=1) for block in candidates(hashes)]
        return sorted(map(tuple, np.sort(np.concatenate(blocks), axis=1).tolist()))

    whole = pairs()
    monkeypatch.setattr(module, "_CELLS", 50)
    assert pairs() == whole
    assert len(whole) > 1000


@pytest.mark.parametrize("kind", [np.uint16, np.uint64])
def test_bits_are_counted_alike_with_older_numpy(kind: type) -> None:
    values = np.random.default_rng(2).integers(0, np.iinfo(kind).max, 100, dtype=kind)
    expected = [int(value).bit_count() for value in values]
    assert module._table_popcount(values).tolist() == expected
    assert module._popcount(values).tolist() == expected


def test_many_copies_of_one_picture_cost_no_more_than_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_drawn_set(tmp_path, {"train": 8, "test": 6}, seed=3, size=48)
    facts = read_facts(load_samples(tmp_path), limit=1)
    facts.thumbnails[:] = facts.thumbnails[0]
    facts.hashes[:] = facts.hashes[0]
    monkeypatch.setattr(module, "similarity", None)  # nothing is compared
    same = find_copies(facts)
    assert same.leaking.all()
    assert [len(one.paths) for one in same.copies if one.kind == "near"] == [28]


@pytest.mark.realdata
@pytest.mark.skipif(not (REAL_DATA / "fairface").is_dir(), reason="no real data here")
def test_real_faces_are_not_taken_for_each_other() -> None:
    samples = load_samples(REAL_DATA / "fairface").limit(300)
    facts = read_facts(samples, limit=1)
    assert len(facts.rows) == 600
    assert [one for one in find_copies(facts).copies if one.kind == "near"] == []
