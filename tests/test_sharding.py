"""A data set as shards: the same samples, mixed, whole, and going on where it was stopped."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from bonaface import sharding
from bonaface.bundle import load_bundle
from bonaface.crops import RECIPE_FILE, CropRecipe, read_recipe
from bonaface.detector import Detector
from bonaface.errors import ConfigError, DataError, ImageError
from bonaface.evaluate import evaluate
from bonaface.facts import read_facts, read_headers
from bonaface.files import write_json
from bonaface.images import read_file, read_image
from bonaface.layouts import COLUMNS
from bonaface.samples import copies, load_samples
from bonaface.sharding import JOURNAL, REPORT, shard_set
from bonaface.splitting import split_set
from folders import listed, table, tree
from scanned import png

SIZE = 4000  # bytes of a shard: some 40 of these pictures


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A hundred people: in train two reals and a fake of most, sorted by label and by person."""
    rows = []
    root = tmp_path / "source"
    for at in range(300):
        person, label = at // 3, ("real", "real", "fake")[at % 3]
        split = ("train", "validation", "test")[(person >= 80) + (person >= 90)]
        name = f"{split}/{label}/{at:03d}.{'PNG' if at == 7 else 'png'}"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png(40 + at % 90 + 90 * (label == "fake"), at))
        known = {"file_name": name, "label": label, "split": split, "group": f"p{person}"}
        known |= {"age": "30", "race": "Süd, other"}
        rows.append(known | ({"generator": "gan"} if label == "fake" else {"source": "web"}))
    return listed(root, rows)


def origins(out: Path) -> dict[str, str]:
    """Member -> the picture that it was."""
    lines = (out / JOURNAL).read_text(encoding="utf-8").splitlines()[1:]
    return {one["file"]: one["path"] for one in map(json.loads, lines) if one["file"]}


def test_the_same_samples_come_back(source: Path, tmp_path: Path) -> None:
    before, out = load_samples(source), tmp_path / "out"
    shard_set(before, out, size=SIZE)
    there = load_samples(out, need=("train", "validation", "test"))
    assert there.notes == ()
    was = origins(out)
    rows = {row.path: row for row in before.rows}
    assert len(there) == len(before) == 300
    for row in there.rows:
        origin = rows[was[row.path]]
        assert replace(row, path=origin.path) == origin
        assert Path(row.path).suffix == Path(origin.path).suffix
        assert np.array_equal(
            read_image(there.absolute(row)).pixels, read_image(before.absolute(origin)).pixels
        )
    assert sorted(was.values()) == sorted(rows)
    header = ["file_name", "label", "split", *COLUMNS]
    assert list(table(out / "metadata.csv")[0]) == header


def test_shards_are_plain_tars_of_about_one_size(source: Path, tmp_path: Path) -> None:
    shard_set(load_samples(source), tmp_path / "out", size=SIZE)
    shards = sorted((tmp_path / "out").glob("train-*.tar"))
    assert [path.name for path in shards] == [f"train-{n:06d}.tar" for n in range(len(shards))]
    filled = []
    for path in shards:
        with tarfile.open(path) as tar:
            members = tar.getmembers()
        assert [one.name for one in members] == sorted(one.name for one in members)
        filled.append(sum(one.size for one in members))
    assert len(shards) > 3
    assert max(filled) <= SIZE
    assert min(filled[:-1]) > SIZE - 300


def test_neighbours_are_of_mixed_classes_and_people(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shard_set(load_samples(source), out, size=SIZE)
    rows = load_samples(out).split("train").rows  # by path: as they lie
    runs = [len(list(some)) for _, some in groupby(row.label for row in rows)]
    assert max(runs) < 20
    together = sum(a.group == b.group for a, b in zip(rows, rows[1:], strict=False))
    assert together < 12, "in the source two of three follow one of their own group"


def test_what_cannot_be_decoded_is_left_out_and_listed(source: Path, tmp_path: Path) -> None:
    (source / "train/real/004.png").write_bytes(b"no picture")
    found = shard_set(load_samples(source), tmp_path / "out", size=SIZE)
    (row,) = table(tmp_path / "out" / "failures.csv")
    assert (row["path"], row["reason"]) == ("train/real/004.png", "not an image")
    assert len(load_samples(tmp_path / "out")) == 299
    counts = json.loads((tmp_path / "out" / REPORT).read_text())["counts"]
    assert counts == found.to_dict()["counts"]
    assert (counts["written"], counts["failed"], counts["reasons"]) == (299, 1, {"not an image": 1})


def stop_at(number: int) -> Callable[[int, int], None]:
    def stop(done: int, total: int) -> None:
        if done == number:
            raise KeyboardInterrupt

    return stop


def test_stopped_anywhere_it_goes_on_and_ends_in_the_same_bytes(
    source: Path, tmp_path: Path
) -> None:
    (source / "train/real/004.png").write_bytes(b"no picture")
    samples = load_samples(source)
    shard_set(samples, tmp_path / "whole", size=SIZE)
    out = tmp_path / "out"
    for number in (1, 70, 150, 299):
        with pytest.raises(KeyboardInterrupt):
            shard_set(samples, out, size=SIZE, progress=stop_at(number))
        assert {path.name for path in out.iterdir()} <= set(tree(tmp_path / "whole"))
        assert not (out / "metadata.csv").exists()
    kept = {path: path.stat().st_ino for path in out.glob("*.tar")}
    told: list[int] = []
    shard_set(samples, out, size=SIZE, progress=lambda done, total: told.append(done))
    assert tree(out) == tree(tmp_path / "whole")
    assert kept, "shards that were whole"
    assert {path: path.stat().st_ino for path in kept} == kept
    assert told == list(range(told[0], 301))
    assert told[0] > 250


def test_a_shard_that_is_lost_or_cut_is_written_again(source: Path, tmp_path: Path) -> None:
    samples, out = load_samples(source), tmp_path / "out"
    shard_set(samples, out, size=SIZE)
    before = tree(out)
    (out / ".train-000003.tar.0123abcd.tmp").write_bytes(b"as a killed run leaves it")
    (out / "train-000001.tar").unlink()
    cut = out / "train-000002.tar"
    cut.write_bytes(cut.read_bytes()[:2000])
    shard_set(samples, out, size=SIZE)
    assert tree(out) == before


def test_a_picture_that_can_be_read_again_gets_its_place(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, out = load_samples(source), tmp_path / "out"

    def refuse(path: Path) -> bytes:
        if path.name == "004.png":
            raise ImageError("no permission to read it") from PermissionError()
        return read_file(path)

    with monkeypatch.context() as patch:
        patch.setattr(sharding, "read_file", refuse)
        assert len(shard_set(samples, out, size=SIZE).failed) == 1
    assert not shard_set(samples, out, size=SIZE).failed
    shard_set(samples, tmp_path / "whole", size=SIZE)
    assert tree(out) == tree(tmp_path / "whole")


def test_foreign_folders_and_other_settings_are_refused(source: Path, tmp_path: Path) -> None:
    samples, out = load_samples(source), tmp_path / "out"
    with pytest.raises(ConfigError, match="outside the data set"):
        shard_set(samples, source / "shards")
    shard_set(samples, out, size=SIZE)
    with pytest.raises(ConfigError, match="shard_bytes"):
        shard_set(samples, out, size=2 * SIZE)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("mine")
    with pytest.raises(DataError, match="something else"):
        shard_set(samples, tmp_path / "mine")


def test_the_crop_recipe_goes_along(source: Path, tmp_path: Path) -> None:
    recipe = CropRecipe(1.7, origin="a test")
    write_json(source / RECIPE_FILE, recipe.to_dict())
    shard_set(load_samples(source), tmp_path / "out")
    assert read_recipe(tmp_path / "out") == recipe


def test_copies_in_two_splits_are_found_inside_shards(source: Path, tmp_path: Path) -> None:
    (source / "test/real/297.png").write_bytes((source / "train/real/000.png").read_bytes())
    samples = load_samples(source, check=False)
    shard_set(samples, tmp_path / "out", size=SIZE)
    with pytest.raises(DataError, match="in more than one split.*train-000"):
        load_samples(tmp_path / "out")
    there = load_samples(tmp_path / "out", check=False)
    assert len(list(copies(there.root, there.rows))) == 1


def test_a_damaged_shard_is_one_clear_line(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shard_set(load_samples(source), out, size=SIZE)
    cut = out / "train-000002.tar"
    cut.write_bytes(cut.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"train-000002\.tar.*damaged tar.*write it again") as error:
        load_samples(out)
    assert "\n" not in str(error.value)
    cut.unlink()
    with pytest.raises(DataError, match="name files that are not there.*train-000002"):
        load_samples(out)


def test_tars_without_rows_are_noted_and_not_opened(source: Path) -> None:
    (source / "old.tar").write_bytes(b"no tar")
    samples = load_samples(source)
    assert len(samples) == 300
    assert samples.notes == ("1 files are not images by their ending and are left out: old.tar",)


def test_a_member_without_a_row_is_noted(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shard_set(load_samples(source), out)
    lines = (out / "metadata.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (out / "metadata.csv").write_text("".join(lines[:-1]), encoding="utf-8")
    (note,) = load_samples(out).notes
    assert note.startswith("1 images have no row in the metadata, left out: validation-000000.tar/")


def test_a_changed_tar_changes_the_fingerprint(source: Path, tmp_path: Path) -> None:
    samples = load_samples(source)
    shard_set(samples, tmp_path / "a", size=SIZE)
    shard_set(samples, tmp_path / "b", size=SIZE)
    one, other = load_samples(tmp_path / "a"), load_samples(tmp_path / "b")
    assert one.fingerprint() == other.fingerprint()
    (tmp_path / "b" / "train-000001.tar").unlink()
    with pytest.raises(DataError, match="train-000001.tar.*is not now"):
        other.fingerprint()


def test_a_detector_scores_shards_as_it_scores_files(
    source: Path, tmp_path: Path, make_bundle: Callable[..., Path]
) -> None:
    out, bundle = tmp_path / "out", make_bundle()
    shard_set(load_samples(source), out, size=SIZE)
    detector = Detector(load_bundle(bundle))
    plain = evaluate(detector, load_samples(source), resamples=0)
    found = evaluate(detector, load_samples(out), resamples=0)
    was = origins(out)
    named = dict(zip((was[path] for path in found.scores.path), found.scores.score, strict=True))
    assert named == dict(zip(plain.scores.path, plain.scores.score, strict=True))


def test_an_audit_reads_the_same_off_shards(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shard_set(load_samples(source), out, size=SIZE)
    was = origins(out)
    plain, found = read_facts(load_samples(source)), read_facts(load_samples(out))
    by_path = {
        row.path: (file, digest.tobytes())
        for row, file, digest in zip(plain.rows, plain.files, plain.digests, strict=True)
    }
    assert len(found.rows) == 300
    for row, file, digest in zip(found.rows, found.files, found.digests, strict=True):
        assert by_path[was[row.path]] == (file, digest.tobytes())
    headers = read_headers(load_samples(out), limit=50)
    assert not headers.unreadable
    files = dict(zip((row.path for row in found.rows), found.files, strict=True))
    assert [files[row.path] for row in headers.rows] == list(headers.files)


def test_shards_can_be_split_anew_into_files(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shard_set(load_samples(source), out, size=SIZE)
    made = split_set(out, tmp_path / "files", seed=1)
    assert made.linked == 0
    assert not made.failed
    was = {path.read_bytes() for path in source.rglob("*") if path.suffix.lower() == ".png"}
    now = {made.samples.absolute(row).read_bytes() for row in made.samples.rows}
    assert now == was


def test_shards_can_be_sharded_again(source: Path, tmp_path: Path) -> None:
    shard_set(load_samples(source), tmp_path / "a", size=SIZE)
    shard_set(load_samples(tmp_path / "a"), tmp_path / "b", size=2 * SIZE)
    one, other = load_samples(tmp_path / "a"), load_samples(tmp_path / "b")
    assert one.counts() == other.counts()
    assert len(sharding.Counter(row.path[:18] for row in other.rows)) > 1
