from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest

from bonaface import mixing
from bonaface.drawn import draw_face
from bonaface.errors import ConfigError, DataError
from bonaface.faces import Face
from bonaface.forge import KINDS
from bonaface.mixing import Mix, find_faces
from bonaface.samples import Sample

SIDE = 64
MARKS = ((22.0, 26.0), (42.0, 26.0), (32.0, 36.0), (24.0, 45.0), (40.0, 45.0))
FACE = Face((12, 10, 52, 58), MARKS, 0.9)


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    rng = np.random.default_rng(0)
    pixels = np.stack([draw_face(rng, SIDE).pixels for _ in range(6)])
    pixels.flags.writeable = False
    return pixels


def rows(groups: str = "abcdef") -> tuple[Sample, ...]:
    return tuple(Sample(f"{i}.png", 0, "train", group) for i, group in enumerate(groups))


def mix(crops: np.ndarray, *kinds: str, groups: str = "abcdef", share: float = 0.3) -> Mix:
    return Mix(crops, rows(groups), dict.fromkeys(range(6), FACE), share, kinds or tuple(KINDS))


class Finder:
    """Finds the same face, but none in the crops that are named."""

    name = "finder"

    def __init__(self, crops: np.ndarray, *blind: int) -> None:
        self.blind = [crops[at] for at in blind]
        self.asked = 0
        self._lock = threading.Lock()

    def find(self, pixels: np.ndarray) -> tuple[Face, ...]:
        with self._lock:
            self.asked += 1
        return () if any(np.array_equal(pixels, one) for one in self.blind) else (FACE,)


def found(crops: np.ndarray, finder: Finder, store: Path, wanted: range) -> dict[int, Face]:
    return find_faces(crops, rows(), wanted, finder, store, workers=2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_crop_is_forged_by_the_rng_alone(crops: np.ndarray, kind: str) -> None:
    one = mix(crops, kind)
    first, again, other = (one.forge(2, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.shape == crops[2].shape
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, crops[2])
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(("share", "own", "forged"), [(0.3, 700, 300), (0.5, 10, 10), (0.9, 1, 9)])
def test_the_share_is_of_all_pictures(
    crops: np.ndarray, share: float, own: int, forged: int
) -> None:
    assert mix(crops, share=share).count(own) == forged


def test_a_donor_is_of_another_group_and_looks_the_same_way(
    crops: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    aside = Face(FACE.box, ((20, 26), (26, 26), (18, 36), (20, 45), (26, 45)), 0.9)
    given = []

    def swap(pixels, face, rng, donor):
        given.append(donor)
        return KINDS["resample"](pixels, face, rng, None)

    monkeypatch.setitem(mixing.KINDS, "swap", swap)
    faces = {0: FACE, 1: FACE, 2: aside, 3: FACE}
    one = Mix(crops, rows("aabcxx"), faces, 0.3, ("swap",))
    for seed in range(20):
        one.forge(0, np.random.default_rng(seed))
    donors = [next(i for i in faces if np.array_equal(crops[i], donor[0])) for donor in given]
    assert 1 not in donors, "the same group"
    assert donors.count(3) > 15, "not the one of a like pose"


def test_with_one_person_nobody_is_swapped(crops: np.ndarray) -> None:
    assert mix(crops, groups="aaaaaa").kinds == ("self_blend", "resample", "inpaint")
    with pytest.raises(ConfigError, match=r"two groups.*another kind"):
        mix(crops, "swap", groups="aaaaaa")


def test_without_faces_there_is_nothing_to_mix(crops: np.ndarray) -> None:
    with pytest.raises(DataError, match="found none"):
        Mix(crops, rows(), {}, 0.3, tuple(KINDS))


def test_unknown_kinds_are_refused(crops: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="'morph'"):
        mix(crops, "morph")


def test_faces_are_looked_for_once(crops: np.ndarray, tmp_path: Path) -> None:
    finder = Finder(crops, 1)
    store = tmp_path / "faces.json"
    assert found(crops, finder, store, range(3)) == {0: FACE, 2: FACE}
    assert found(crops, finder, store, range(3)) == {0: FACE, 2: FACE}
    assert finder.asked == 3
    assert sorted(found(crops, finder, store, range(5))) == [0, 2, 3, 4]
    assert finder.asked == 5


def test_what_was_found_before_a_stop_is_kept(
    crops: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixing, "_BLOCK", 2)
    store = tmp_path / "faces.json"

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_faces(crops, rows(), range(6), Finder(crops), store, workers=1, progress=stop)
    finder, seen = Finder(crops), []
    find_faces(
        crops, rows(), range(6), finder, store, workers=1, progress=lambda *at: seen.append(at)
    )
    assert finder.asked == 4
    assert seen == [(2, 4), (4, 4)]


@pytest.mark.parametrize("text", ["", "[]", '{"version": 0, "finder": "finder", "faces": {}}'])
def test_a_file_of_another_kind_is_written_anew(
    crops: np.ndarray, tmp_path: Path, text: str
) -> None:
    store = tmp_path / "faces.json"
    store.write_text(text)
    finder = Finder(crops)
    assert len(found(crops, finder, store, range(6))) == finder.asked == 6
    assert len(json.loads(store.read_text())["faces"]) == 6


def test_another_finder_looks_for_itself(crops: np.ndarray, tmp_path: Path) -> None:
    store = tmp_path / "faces.json"
    found(crops, Finder(crops), store, range(6))
    other = Finder(crops)
    other.name = "other"
    found(crops, other, store, range(6))
    assert other.asked == 6
