"""The audit finds each trap that is laid, and finds none in a clean set."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from bonaface import audit as module
from bonaface.audit import Audit, audit, candidates, jpeg_quality, judge, read_facts, similarity
from bonaface.drawn import draw_face, write_drawn_set
from bonaface.errors import ConfigError, DataError, MissingExtraError
from bonaface.metrics import Figure
from bonaface.samples import load_samples

REAL_DATA = Path(__file__).parents[1] / ".." / "shared" / "data"
SIZE = 96


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("audit") / "clean"
    write_drawn_set(root, {"train": 35, "validation": 5, "test": 30}, seed=3, size=SIZE)
    return root


@pytest.fixture
def trap(clean: Path, tmp_path: Path) -> Path:
    """A copy to lay a trap in."""
    return Path(shutil.copytree(clean, tmp_path / "trap"))


def found(result: Audit, severity: str | None = None) -> set[str]:
    return {one.name for one in result.findings if severity in (None, one.severity)}


def finding(result: Audit, name: str) -> module.Finding:
    (one,) = [one for one in result.findings if one.name == name]
    return one


def saved(picture: Image.Image, **how: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, **how)
    return buffer.getvalue()


def resaved(path: Path, quality: int = 50) -> bytes:
    """At half the size, as JPEG."""
    with Image.open(path) as picture:
        half = picture.convert("RGB").resize((picture.width // 2, picture.height // 2))
    return saved(half, format="JPEG", quality=quality)


def edit(root: Path, change: dict[str, dict[str, str]]) -> None:
    """Change cells of metadata.csv, by file name."""
    table = root / "metadata.csv"
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | change.get(row["file_name"], {}) for row in rows)


# -- traps --


def test_a_clean_set_passes(clean: Path) -> None:
    result = audit(clean)
    assert result.passed
    assert found(result, "fatal") == set()
    assert {"near-copies-across-splits", "exact-copies-across-splits"}.isdisjoint(found(result))
    assert {(one.name, one.scope) for one in result.probes} == {
        (name, scope) for name in ("file", "image") for scope in ("all", "test")
    }
    for probe in result.probes:
        assert probe.auc.value is not None
        assert probe.auc.low is not None
    assert result.fingerprint == load_samples(clean).fingerprint()
    assert result.counts["test"] == {"real": 30, "fake": 30}
    assert result.groups == 70


def test_png_fakes_and_jpeg_reals_are_fatal(trap: Path) -> None:
    (trap / "metadata.csv").unlink()
    for path in sorted(trap.glob("*/fake/*.jpg")):
        with Image.open(path) as picture:
            path.with_suffix(".png").write_bytes(saved(picture, format="PNG"))
        path.unlink()
    result = audit(trap)
    assert {"file-shortcut-all", "file-shortcut-test"} <= found(result, "fatal")
    assert finding(result, "file-shortcut-all").evidence["AUC"] == pytest.approx(1.0)
    assert finding(result, "file-shortcut-all").evidence["AUC without bytes per pixel"] == 1
    assert "only the size" not in finding(result, "file-shortcut-all").effect
    assert "files-differ" in found(result, "warning")
    distances = {one.name: one.distance for one in result.properties}
    assert distances["format"] == distances["extension"] == 1
    assert distances["JPEG quality"] is None


def test_a_shortcut_in_the_test_split_only_is_fatal(trap: Path) -> None:
    for path in sorted(trap.glob("test/fake/*.jpg")):
        path.write_bytes(path.read_bytes())
        with Image.open(path) as picture:
            path.write_bytes(saved(picture, format="PNG"))  # under the name of a JPEG
    assert "file-shortcut-test" in found(audit(trap), "fatal")


def test_reals_and_fakes_of_different_quality_are_fatal(trap: Path) -> None:
    for path in sorted(trap.glob("*/*/*.jpg")):
        quality = 75 if path.parent.name == "real" else 95
        with Image.open(path) as picture:
            path.write_bytes(saved(picture.copy(), format="JPEG", quality=quality))
    result = audit(trap)
    assert "file-shortcut-all" in found(result, "fatal")
    (quality,) = [one for one in result.properties if one.name == "JPEG quality"]
    assert quality.by_label["real"]["half"] == 75
    assert quality.by_label["fake"]["half"] == 95
    assert quality.distance == 1


def test_files_that_are_only_smaller_are_fatal_and_it_says_so(trap: Path) -> None:
    for path in sorted(trap.glob("*/*/*.jpg")):
        with Image.open(path) as picture:
            fake = path.parent.name == "fake"
            changed = picture.filter(ImageFilter.GaussianBlur(2)) if fake else picture.copy()
        path.write_bytes(saved(changed, format="JPEG", quality=85))
    result = audit(trap)
    one = finding(result, "file-shortcut-all")
    assert one.severity == "fatal"
    assert "only the size of the files tells" in one.effect
    without = one.evidence["AUC without bytes per pixel"]
    assert isinstance(without, float)
    assert without < 0.6


def test_re_saved_train_pictures_in_the_test_split_are_fatal(trap: Path) -> None:
    chosen = [f"{at:05d}.jpg" for at in range(0, 30, 5)]
    for name in chosen:
        (trap / "test/real" / name).write_bytes(resaved(trap / "train/real" / name))
    result = audit(trap, limit=20)
    assert found(result, "fatal") == {"near-copies-across-splits"}
    one = finding(result, "near-copies-across-splits")
    # A forged test picture may look like the copy as well, never fewer than were laid.
    assert one.evidence["pictures"] == len(chosen)
    assert one.evidence["share"] == pytest.approx(len(chosen) / 60)
    paths = {path for copies in result.copies if len(copies.splits) > 1 for path in copies.paths}
    assert paths >= {f"{split}/real/{name}" for split in ("train", "test") for name in chosen}
    assert len(one.examples) == module.EXAMPLES
    assert all(" ~ " in example for example in one.examples)


def test_a_few_near_copies_are_a_warning(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = read_facts(load_samples(clean), limit=1)
    train = next(i for i, row in enumerate(facts.rows) if row.split == "train")
    test = next(i for i, row in enumerate(facts.rows) if row.split == "test")
    facts.thumbnails[test] = facts.thumbnails[train]
    facts.hashes[test] = facts.hashes[train]
    assert finding(judge(facts), "near-copies-across-splits").severity == "fatal"  # 1 of 60
    monkeypatch.setattr(module, "FATAL_COPIES", 0.02)
    assert finding(judge(facts), "near-copies-across-splits").severity == "warning"


def test_a_group_in_two_splits_is_fatal(trap: Path) -> None:
    edit(trap, {"test/real/00004.jpg": {"group": "train-00007"}})
    with pytest.raises(DataError, match="more than one split"):
        load_samples(trap)
    result = audit(trap, limit=20)
    assert found(result, "fatal") == {"groups-across-splits"}
    (example,) = finding(result, "groups-across-splits").examples
    assert example.startswith("train-00007: ")
    assert "test/real/00004.jpg" in example


def test_the_same_file_in_two_splits_is_fatal(trap: Path) -> None:
    shutil.copy(trap / "train/fake/00001.jpg", trap / "test/fake/00001.jpg")
    with pytest.raises(DataError, match="more than one split"):
        load_samples(trap)
    result = audit(trap, limit=20)
    assert found(result, "fatal") == {"exact-copies-across-splits", "near-copies-across-splits"}
    for name, sign in (("exact", "="), ("near", "~")):
        assert finding(result, f"{name}-copies-across-splits").examples == (
            f"test/fake/00001.jpg {sign} train/fake/00001.jpg",
        )


def test_the_same_file_in_both_classes_is_a_warning(trap: Path) -> None:
    shutil.copy(trap / "train/fake/00001.jpg", trap / "train/real/00002.jpg")
    result = audit(trap, limit=20)
    assert "exact-copies-across-classes" in found(result, "warning")
    assert result.passed


@pytest.mark.parametrize(
    ("names", "expected"),
    [(("0", "1"), "labels-are-numbers"), (("dogs", "cats"), "labels-missing")],
)
def test_labels_that_nobody_can_read_are_fatal(
    trap: Path, names: tuple[str, str], expected: str
) -> None:
    (trap / "metadata.csv").unlink()
    for split in ("train", "validation", "test"):
        for old, new in zip(("real", "fake"), names, strict=True):
            (trap / split / old).rename(trap / split / new)
    result = audit(trap)
    assert not result.passed
    assert found(result) == {expected}
    assert result.fingerprint is None
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["passed"] is False


# -- the rest of what it says --


def test_unreadable_pictures_are_named_with_their_reasons(trap: Path) -> None:
    (trap / "train/real/00000.jpg").write_bytes(b"")
    (trap / "train/fake/00000.jpg").write_bytes(b"no picture")
    result = audit(trap, limit=20)
    assert dict(result.unreadable) == {
        "train/real/00000.jpg": "empty file",
        "train/fake/00000.jpg": "not an image",
    }
    assert finding(result, "unreadable").evidence == {"real": 1, "fake": 1}


def test_a_set_of_which_nothing_can_be_read_is_still_told_of(tmp_path: Path) -> None:
    for name in ("train/real/a.jpg", "train/fake/b.jpg", "test/real/c.jpg", "test/fake/d.jpg"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(name)
    result = audit(tmp_path)
    assert len(result.unreadable) == 4
    assert all(probe.auc.value is None and probe.auc.reason for probe in result.probes)
    json.dumps(result.to_dict(), allow_nan=False)


def test_one_class_has_no_probe_and_says_so(trap: Path) -> None:
    for split in ("train", "validation", "test"):
        shutil.rmtree(trap / split / "fake")
    (trap / "metadata.csv").unlink()
    result = audit(trap)
    assert result.passed
    assert {"one-class-train", "one-class-test"} <= found(result, "warning")
    for probe in result.probes:
        assert probe.auc.value is None
        assert probe.auc.reason == "one class only: no fake pictures"
        assert not probe.tells
    for one in result.properties:
        assert one.distance is None
        assert one.reason
    json.dumps(result.to_dict(), allow_nan=False)


def test_missing_splits_and_rare_classes_are_told(clean: Path) -> None:
    samples = load_samples(clean)
    rows = tuple(
        row
        for row in samples.rows
        if row.split != "test" and (row.label == 0 or row.path.endswith(("00001.jpg", "00002.jpg")))
    )
    facts = read_facts(type(samples)(samples.root, rows), limit=1)
    result = judge(facts)
    assert finding(result, "splits-missing").severity == "warning"
    assert "class-balance-train" in found(result, "warning")


def test_splits_that_are_made_here_are_noted(clean: Path, tmp_path: Path) -> None:
    for label in ("real", "fake"):
        shutil.copytree(clean / "test" / label, tmp_path / "flat" / label)
    result = audit(tmp_path / "flat", ratios=(0.5, 0.2, 0.3), limit=10)
    assert finding(result, "splits-made-here").evidence == {
        "train": 0.5,
        "validation": 0.2,
        "test": 0.3,
    }


def test_wrong_use(clean: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found nothing"):
        audit(tmp_path / "nowhere")
    with pytest.raises(DataError, match="found none"):
        audit(tmp_path)
    with pytest.raises(ConfigError, match="limit of at least 1"):
        audit(clean, limit=0)


def test_a_missing_library_names_the_extra(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagehash", None)
    with pytest.raises(MissingExtraError, match=r"bonaface\[train\]"):
        audit(clean)


def test_the_same_set_gives_the_same_result_with_any_number_of_threads(clean: Path) -> None:
    one, three = (audit(clean, limit=60, workers=n, seed=4).to_dict() for n in (1, 3))
    assert json.dumps(one, allow_nan=False) == json.dumps(three)
    assert one["schema_version"] == module.SCHEMA_VERSION
    assert str(clean) not in json.dumps(one)


def test_the_limit_bounds_the_probes_and_not_the_search_for_copies(clean: Path) -> None:
    calls = []
    facts = read_facts(
        load_samples(clean), limit=30, progress=lambda done, total: calls.append((done, total))
    )
    assert len(facts.probed) == len(facts.statistics) == 30
    assert sum(facts.rows[at].label for at in facts.probed) == 15
    assert len(facts.hashes) == 140
    assert calls == [(done, 140) for done in range(1, 141)]


# -- a shortcut needs an AUC and an interval --


@pytest.mark.parametrize(
    ("value", "low", "expected"),
    [(0.61, 0.56, True), (0.61, 0.54, False), (0.59, 0.58, False), (0.9, None, False)],
)
def test_what_a_probe_needs_to_be_fatal(value: float, low: float | None, expected: bool) -> None:
    figure = Figure(value, low, None if low is None else 1.0, 100)
    probe = module.Probe("file", "all", figure, 5)
    assert probe.tells is expected
    assert [one.severity for one in module._probe_findings([probe])] == ["fatal"] * expected
    image = module.Probe("image", "all", figure, 5)
    assert [one.severity for one in module._probe_findings([image])] == ["warning"] * expected


# -- near copies --


@pytest.fixture(scope="module")
def faces() -> list[np.ndarray]:
    return [draw_face(np.random.default_rng([9, seed]), SIZE).pixels for seed in range(100)]


def read_all(faces: list[bytes], folder: Path) -> Iterator[module._Read]:
    for at, data in enumerate(faces):
        path = folder / f"{at}.jpg"
        path.write_bytes(data)
        yield module._read(path, False)


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


def test_pictures_without_structure_are_no_copies_of_each_other(trap: Path) -> None:
    for split in ("train", "test"):
        for at in range(3):
            grey = Image.new("RGB", (SIZE, SIZE), (40 * at + 9,) * 3)
            path = trap / split / "real" / f"{at:05d}.jpg"
            path.write_bytes(saved(grey, format="JPEG", quality=80 + (split == "test")))
    result = audit(trap, limit=10)
    assert finding(result, "blank-pictures").evidence == {"pictures": 6}
    assert "near-copies-across-splits" not in found(result)


def test_many_copies_of_one_picture_cost_no_more_than_others(
    clean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = read_facts(load_samples(clean), limit=1)
    facts.thumbnails[:] = facts.thumbnails[0]
    facts.hashes[:] = facts.hashes[0]
    monkeypatch.setattr(module, "similarity", None)  # nothing is compared
    same = module._find_copies(facts)
    assert same.leaking.all()
    assert [len(one.paths) for one in same.copies if one.kind == "near"] == [140]


# -- what files tell --


@pytest.mark.parametrize("quality", [5, 30, 50, 75, 76, 90, 95, 100])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_jpeg_quality_and_subsampling_are_those_it_was_saved_with(
    quality: int, subsampling: str, tmp_path: Path
) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    path = tmp_path / "a.JPG"
    exif = Image.Exif()
    exif[0x010F] = "maker"
    path.write_bytes(
        saved(picture, format="JPEG", quality=quality, subsampling=subsampling, exif=exif)
    )
    facts = module._read(path, True).file
    assert (facts.quality, facts.chroma, facts.exif, facts.icc) == (
        quality,
        subsampling,
        True,
        False,
    )
    assert (facts.format, facts.extension, facts.width) == ("JPEG", ".jpg", 32)


def test_a_table_that_ijg_never_made_has_the_nearest_quality() -> None:
    with Image.open(io.BytesIO(saved(Image.new("L", (16, 16)), format="JPEG", quality=80))) as one:
        table = list(one.quantization[0])
    table[10] += 1
    assert jpeg_quality(tuple(table)) == 80


def test_statistics_follow_the_picture() -> None:
    rng = np.random.default_rng(0)
    smooth = np.full((64, 64, 3), (200, 100, 50), np.uint8)
    rough = np.clip(smooth + rng.normal(0, 10, smooth.shape), 0, 255).astype(np.uint8)
    names = module._STATISTICS
    flat, noisy = (
        dict(zip(names, module._pixel_statistics(one), strict=True)) for one in (smooth, rough)
    )
    assert (flat["mean red"], flat["mean green"], flat["mean blue"]) == (200, 100, 50)
    assert flat["noise"] == 0
    # The grey of three independent channels: 10 times the norm of its weights.
    assert noisy["noise"] == pytest.approx(10 * np.linalg.norm((0.299, 0.587, 0.114)), rel=0.15)
    assert noisy["spread red"] == pytest.approx(10, rel=0.1)
    assert noisy["sharpness"] > flat["sharpness"]
    assert np.isfinite(list(flat.values())).all()


def test_the_spectrum_finds_the_frequency() -> None:
    across = np.arange(64)
    for ring in range(module._SPECTRUM):
        frequency = (ring + 0.5) / module._SPECTRUM / 2
        wave = np.tile(128 + 100 * np.sin(2 * np.pi * frequency * across), (64, 1))
        assert int(module._spectrum(wave.astype(np.float32)).argmax()) == ring


# -- real faces --


@pytest.mark.realdata
@pytest.mark.skipif(not (REAL_DATA / "fairface").is_dir(), reason="no real data here")
def test_real_faces_are_not_taken_for_each_other() -> None:
    samples = load_samples(REAL_DATA / "fairface").limit(300)
    facts = read_facts(samples, limit=1)
    assert len(facts.rows) == 600
    assert [one for one in module._find_copies(facts).copies if one.kind == "near"] == []
