from __future__ import annotations

import csv
import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import ks_2samp

from bonaface.drawn import draw_face, forge_drawn, write_drawn_set
from bonaface.errors import DataError
from bonaface.samples import load_samples

COUNTS = {"train": 4, "validation": 2, "test": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("drawn") / "set"
    write_drawn_set(made, COUNTS, seed=3, size=48)
    return made


def digest(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_seed_fixes_every_byte(folder: Path, tmp_path: Path) -> None:
    write_drawn_set(tmp_path / "again", COUNTS, seed=3, size=48)
    assert digest(tmp_path / "again") == digest(folder)
    write_drawn_set(tmp_path / "other", COUNTS, seed=4, size=48)
    shared = set(digest(folder).values()) & set(digest(tmp_path / "other").values())
    assert len(shared) <= 1  # metadata.csv: the names are the same


def test_a_larger_set_begins_with_the_smaller(folder: Path, tmp_path: Path) -> None:
    write_drawn_set(tmp_path / "more", COUNTS | {"train": 5}, seed=3, size=48)
    more = digest(tmp_path / "more")
    for path, value in digest(folder).items():
        if path.endswith(".jpg"):
            assert more[path] == value


def test_bonaface_reads_it_without_a_note(folder: Path) -> None:
    samples = load_samples(folder, need=("train", "validation", "test"))
    assert samples.counts() == {split: {"real": n, "fake": n} for split, n in COUNTS.items()}
    assert samples.notes == ()
    assert {row.generator for row in samples.rows if row.label == 1} == {"drawn-swap"}
    assert {row.generator for row in samples.rows if row.label == 0} == {None}


def test_pairs_share_a_group_that_is_in_one_split(folder: Path) -> None:
    rows = list(csv.DictReader(io.StringIO((folder / "metadata.csv").read_text())))
    groups: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault(row["group"], []).append(row)
    assert len(groups) == sum(COUNTS.values())
    for members in groups.values():
        assert sorted(row["label"] for row in members) == ["fake", "real"]
        assert len({row["split"] for row in members}) == 1


def test_a_face_has_its_landmarks_inside_and_in_order() -> None:
    for seed in range(20):
        face = draw_face(np.random.default_rng(seed), 64)
        assert face.pixels.shape == (64, 64, 3)
        assert face.pixels.dtype == np.uint8
        left, right, nose, mouth_left, mouth_right = face.landmarks
        assert (face.landmarks > 0).all()
        assert (face.landmarks < 64).all()
        assert left[0] < nose[0] < right[0]
        assert max(left[1], right[1]) < nose[1] < min(mouth_left[1], mouth_right[1])
        assert mouth_left[0] < mouth_right[0]


def test_landmarks_lie_on_what_was_drawn() -> None:
    """Eyes and the corners of the mouth are darker or lighter than the skin beside the nose."""
    off = []
    for seed in range(30):
        face = draw_face(np.random.default_rng(seed), 192)
        grey = face.pixels.mean(2)

        def around(x: float, y: float, grey: np.ndarray = grey) -> np.ndarray:
            return grey[round(y) - 5 : round(y) + 6, round(x) - 5 : round(x) + 6]

        (ex, ey), (nx, ny) = face.landmarks[0], face.landmarks[2]
        cheek = around((ex + nx) / 2 - 6, ny + 2)
        off.append(around(ex, ey).std() > 1.5 * cheek.std())
    assert np.mean(off) > 0.9


def test_a_forgery_changes_the_inner_face_and_nothing_else() -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        face = draw_face(rng, 96)
        before = face.pixels.copy()
        forged = forge_drawn(face, rng)
        np.testing.assert_array_equal(face.pixels, before)
        assert forged.shape == before.shape
        assert forged.dtype == np.uint8
        changed = np.abs(forged.astype(int) - before).max(2) > 2
        x, y = face.landmarks.mean(0)
        rows, columns = np.nonzero(changed)
        assert 0.03 < changed.mean() < 0.5
        assert abs(columns.mean() - x) < 8
        assert abs(rows.mean() - y) < 8
        assert not changed[:8].any()


def test_neither_size_nor_compression_tells_the_classes_apart(tmp_path: Path) -> None:
    write_drawn_set(tmp_path / "set", {"train": 60}, seed=0, size=32)
    qualities, shapes = {}, set()
    for label in ("real", "fake"):
        files = sorted((tmp_path / "set" / "train" / label).iterdir())
        pictures = [Image.open(file) for file in files]
        shapes |= {picture.size for picture in pictures}
        # The quantisation table says which quality a JPEG was saved with.
        qualities[label] = [sum(picture.quantization[0]) for picture in pictures]
    assert shapes == {(32, 32)}
    assert len(set(qualities["real"])) > 10
    assert ks_2samp(qualities["real"], qualities["fake"]).pvalue > 0.01


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        write_drawn_set(tmp_path, {"train": 1}, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
