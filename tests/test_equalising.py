"""A fixed set passes its audit, nothing is lost but what is listed, the source is not touched."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from PIL import Image

from bonaface import equalising
from bonaface.audit import Audit, examine
from bonaface.copies import Copies
from bonaface.drawn import write_drawn_set
from bonaface.equalising import (
    CHANGES,
    JOURNAL,
    REPORT,
    Equalised,
    check_out,
    choose,
    equalise,
    plan,
    write_report,
)
from bonaface.errors import ConfigError, DataError, ImageError
from bonaface.facts import Facts, FileFacts, read_facts, read_file_facts
from bonaface.samples import Sample, Samples, load_samples
from traps import edit, png_fakes, saved, two_qualities

REAL_DATA = Path(__file__).parents[1] / ".." / "shared" / "data"


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("equalising") / "clean"
    write_drawn_set(root, {"train": 35, "validation": 5, "test": 30}, seed=3, size=96)
    return root


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("equalising") / "small"
    write_drawn_set(root, {"train": 4, "validation": 1, "test": 3}, seed=4, size=48)
    return root


@pytest.fixture
def few(small: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(small, tmp_path / "few"))


def fix(data: Path, out: Path, **settings: int) -> tuple[Audit, Equalised]:
    before, facts = examine(data, limit=10)
    assert facts is not None
    return before, equalise(facts, before.copies, out, **settings)


def table(out: Path, name: str = CHANGES) -> list[dict[str, str]]:
    with (out / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def tree(root: Path) -> dict[str, tuple[bytes, int]]:
    return {
        path.relative_to(root).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def contents(root: Path) -> dict[str, bytes]:
    return {name: data for name, (data, _) in tree(root).items()}


# -- the whole way --


@pytest.mark.parametrize("lay", [png_fakes, two_qualities])
def test_a_shortcut_in_the_files_is_gone_and_no_picture_with_it(
    clean: Path, tmp_path: Path, lay: Callable[[Path], None]
) -> None:
    data, out = Path(shutil.copytree(clean, tmp_path / "trap")), tmp_path / "out"
    lay(data)
    untouched = tree(data)
    before, facts = examine(data)
    assert facts is not None
    assert {probe.name for probe in before.probes if probe.tells} >= {"file"}
    done = equalise(facts, before.copies, out)
    after, _ = examine(out)
    assert after.passed
    assert after.counts == before.counts
    probes = [probe for probe in after.probes if probe.name == "file"]
    assert [probe.scope for probe in probes] == ["all", "test"]
    for probe in probes:
        assert probe.auc.value is not None
        assert not probe.tells
    assert tree(data) == untouched
    assert load_samples(out).counts() == before.counts
    for one in after.properties:
        if one.name not in ("bytes per pixel", "JPEG quality"):
            assert one.distance == 0, one
    write_report(out, done, before, after)
    told = json.loads((out / REPORT).read_text())
    assert told["schema_version"] == 1
    assert told["fingerprint"] == before.fingerprint
    assert told["passed"] == {"before": False, "after": True}
    assert told["counts"]["left_out"] == {}
    assert told["counts"]["before"] == told["counts"]["after"] == before.counts
    auc = {when: told["probes"][when][0]["auc"] for when in ("before", "after")}
    assert auc["before"]["low"] > 0.9
    assert auc["after"]["low"] < 0.55


def test_every_picture_is_saved_in_one_way_and_accounted_for(few: Path, tmp_path: Path) -> None:
    (few / "train/real/00000.jpg").write_bytes(b"no picture")
    shutil.copy(few / "train/fake/00001.jpg", few / "train/fake/00002.jpg")
    out = tmp_path / "out"
    _, done = fix(few, out)
    rows = table(out)
    source = load_samples(few, check=False)
    assert {row["path"] for row in rows} == {row.path for row in source.rows}
    written = [row for row in rows if row["change"] == "re-encoded"]
    gone = [row for row in rows if row["change"] == "left out"]
    assert len(written) + len(gone) == len(source)
    assert [(row["path"], row["detail"]) for row in gone] == [
        ("train/fake/00002.jpg", "exact copy (of train/fake/00001.jpg)"),
        ("train/real/00000.jpg", "unreadable (not an image)"),
    ]
    on_disk = {path.relative_to(out).as_posix() for path in out.rglob("*.jpg")}
    assert on_disk == {row["new_path"] for row in written}
    assert "train/fake/drawn-swap/00001.jpg" in on_disk
    for name in on_disk:
        told = read_file_facts(out / name)
        assert (told.width, told.height) == (40, 40)
        assert (told.format, told.chroma, told.exif, told.icc) == ("JPEG", "4:2:0", False, False)
        assert told.quality in done.header["qualities"]
    counts = done.to_dict()["counts"]
    assert counts["left_out"] == {
        "exact copy": {"real": 0, "fake": 1},
        "unreadable": {"real": 1, "fake": 0},
    }
    assert set(counts["cut_away"]) == {"real", "fake"}
    fixed = load_samples(out)
    assert len(fixed) == len(written)
    groups = {row.path: row.group for row in source.rows}
    new = {row.path: row.group for row in fixed.rows}
    joined = {row["path"] for row in rows if row["change"] == "group joined"}
    assert joined == {"train/real/00002.jpg"}  # whose fake was the same as another's
    for row in written:
        kept = row["path"] not in joined
        assert new[row["new_path"]] == (groups[row["path"]] if kept else "train-00001")


def test_all_that_was_known_is_kept(few: Path, tmp_path: Path) -> None:
    known = {
        "file_name": "test/real/00001.jpg",
        "age": "30",
        "gender": "f",
        "race": "x",
        "source": "s",
    }
    rows = table(few, "metadata.csv")
    with (few / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0], *known.keys() - rows[0].keys()], restval="")
        writer.writeheader()
        writer.writerows(
            row | (known if row["file_name"] == known["file_name"] else {}) for row in rows
        )
    fix(few, tmp_path / "out")
    (row,) = [row for row in load_samples(tmp_path / "out").rows if row.source == "s"]
    assert (row.path, row.age, row.gender, row.race) == ("test/real/s/00001.jpg", "30", "f", "x")


def test_what_a_picture_gets_does_not_depend_on_its_label(few: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    sources = sorted(few.glob("*/*/*.jpg"))[:12]
    for turned in (0, 1):
        lines = ["file_name,label,split"]
        for at, path in enumerate(sources):
            shutil.copy(path, flat / f"{at}.jpg")
            lines.append(f"{at}.jpg,{('real', 'fake')[(at + turned) % 2]},train")
        (flat / "metadata.csv").write_text("\n".join(lines) + "\n")
        fix(flat, tmp_path / f"out{turned}")
    bytes_of = [
        {path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.jpg")}
        for name in ("out0", "out1")
    ]
    assert len(bytes_of[0]) == 12
    assert bytes_of[0] == bytes_of[1]


def test_what_ends_in_the_same_bytes_stays_in_one_split(few: Path, tmp_path: Path) -> None:
    two_qualities(few)
    for split, size in (("train", 60), ("test", 70)):  # blank: no audit can compare them
        grey = Image.new("RGB", (size, size), (90, 90, 90))
        (few / split / "real" / "00000.jpg").write_bytes(saved(grey, format="JPEG", quality=75))
    fix(few, tmp_path / "out", side=40)
    gone = {
        row["path"]: row["detail"] for row in table(tmp_path / "out") if row["change"] == "left out"
    }
    reason = "saved alike, the same as one of another split (test/real/00000.jpg)"
    assert gone == {"train/real/00000.jpg": reason}
    load_samples(tmp_path / "out")


# -- stopping, and places --


def test_a_stopped_fix_goes_on_and_ends_in_the_same_bytes(few: Path, tmp_path: Path) -> None:
    before, facts = examine(few, limit=10)
    assert facts is not None

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    equalise(facts, before.copies, tmp_path / "whole")
    out = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        equalise(facts, before.copies, out, progress=stop)
    assert len(list(out.rglob("*.jpg"))) >= 5
    assert not (out / CHANGES).exists()
    with (out / JOURNAL).open("a") as journal:
        journal.write('{"path": "cut sho')
    early = {path: path.stat().st_mtime_ns for path in out.rglob("*.jpg")}
    calls: list[tuple[int, int]] = []
    equalise(facts, before.copies, out, progress=lambda *numbers: calls.append(numbers))
    assert calls[0][0] > 1
    assert calls[-1] == (16, 16)
    assert contents(out) == contents(tmp_path / "whole")
    assert {path: path.stat().st_mtime_ns for path in early} == early


def test_what_may_pass_is_tried_again(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, facts = examine(few, limit=10)
    assert facts is not None
    locked = few / "test/real/00001.jpg"

    def refuse(path: Path) -> NoReturn:
        raise ImageError("no permission to read it") from PermissionError(path)

    with monkeypatch.context() as patch:
        read = equalising.read_image
        patch.setattr(
            equalising, "read_image", lambda path: refuse(path) if path == locked else read(path)
        )
        done = equalise(facts, before.copies, tmp_path / "out")
    assert done.left_out == {"test/real/00001.jpg": "unreadable (no permission to read it)"}
    assert len(load_samples(tmp_path / "out")) == 15
    assert equalise(facts, before.copies, tmp_path / "out").left_out == {}
    assert len(load_samples(tmp_path / "out")) == 16


def test_the_new_folder_lies_elsewhere_and_is_ours(few: Path, tmp_path: Path) -> None:
    for place in (few, few / "train" / "fixed", tmp_path):
        with pytest.raises(ConfigError, match="outside the data set"):
            check_out(few, place)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    check_out(few, foreign)
    (foreign / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="new or empty folder"):
        check_out(few, foreign)
    out = tmp_path / "out"
    fix(few, out)
    check_out(few, out)
    with pytest.raises(ConfigError, match="seed that"):
        fix(few, out, seed=1)


def test_too_few_pixels_are_wrong_use(few: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 32 px, got 31"):
        fix(few, tmp_path / "out", side=31)
    with pytest.raises(DataError, match="all 16 of"):
        fix(few, tmp_path / "out", side=200)


# -- one way of saving for both classes --

NOTHING = np.zeros((0, 1), np.uint8)


def made(*rows: Sample) -> Facts:
    """Facts that nobody read: 100 px JPEGs of quality 90, the earlier the larger."""
    files = tuple(FileFacts("JPEG", ".jpg", 100, 100, 1000 - at, 90) for at in range(len(rows)))
    return Facts(
        Samples(Path("set"), rows), rows, files, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, ()
    )


def with_files(*kinds: tuple[int, str, int | None, int]) -> Facts:
    """(label, format, quality, shorter side) of each picture."""
    facts = made(*(Sample(f"{at}", label, "train") for at, (label, *_) in enumerate(kinds)))
    files = tuple(FileFacts(kind, "", side, side + 9, 1, q) for _, kind, q, side in kinds)
    return replace(facts, files=files)


def test_the_worse_class_decides_about_quality() -> None:
    reals = [(0, "JPEG", 70 + at, 100) for at in range(20)]
    for kind, quality in (("PNG", None), ("JPEG", 95), ("BMP", None)):
        facts = with_files(*reals, *[(1, kind, quality, 100)] * 3)
        assert choose(facts).qualities == tuple(range(70, 90))
    webp = with_files(*reals, *[(1, "WebP", None, 100)] * 3)
    assert choose(webp).qualities == (75,)  # nobody knows
    assert choose(with_files(*[(0, "PNG", None, 100), (1, "PNG", None, 100)] * 2)).qualities == (
        95,
    )


def test_nearly_all_of_either_class_reach_the_side() -> None:
    reals = [(0, "PNG", None, 300)] * 199 + [(0, "PNG", None, 20)]
    fakes = [(1, "PNG", None, 1000)] * 3
    chosen = choose(with_files(*reals, *fakes))
    assert (chosen.base, chosen.side) == (300, 264)
    assert choose(with_files(*reals, *fakes, (1, "PNG", None, 96))).base == 96
    assert (choose(with_files(*reals, *fakes), side=224)).base == 249
    with pytest.raises(DataError, match="name a --side"):
        choose(with_files(*reals, (1, "PNG", None, 35)))
    with pytest.raises(DataError, match="can be read"):
        choose(with_files())
    left_out = plan(with_files(*reals, *fakes), (), chosen.base).left_out
    assert left_out == {"199": "too small (20 px, 300 px needed)"}


# -- what becomes of each picture --


def rows_of(*texts: str) -> list[Sample]:
    """`train/fake/a @group` or `.../generator/a`."""
    rows = []
    for text in texts:
        path, _, group = text.partition(" @")
        split, label, *below, _ = path.split("/")
        generator = below[0] if below else None
        rows.append(Sample(path, int(label == "fake"), split, group or None, generator))
    return rows


def copies(kind: str, *paths: str) -> Copies:
    return Copies("exact" if kind == "exact" else "near", tuple(sorted(paths)), (), ())


def planned(*texts: str, exact: str = "", near: str = "") -> tuple[dict[str, str], dict[str, str]]:
    """Why pictures are left out, and split and group of the others; copies by their last names."""
    rows = rows_of(*texts)
    names = {row.path.rpartition("/")[2]: row.path for row in rows}
    found = [
        copies(kind, *(names[name] for name in word))
        for kind, words in (("exact", exact), ("near", near))
        for word in words.split()
    ]
    done = plan(made(*rows), found, 50)
    short = {path.rpartition("/")[2]: why.split(" (")[0] for path, why in done.left_out.items()}
    kept = {
        row.path.rpartition("/")[2]: f"{row.split} {row.group or '-'}" for row in done.kept.rows
    }
    assert short.keys() | kept.keys() == names.keys()
    return short, kept


def test_of_exact_copies_one_is_kept() -> None:
    assert planned("train/real/a", "test/real/b", "train/real/c", exact="abc", near="abc") == (
        {"a": "exact copy", "c": "exact copy"},
        {"b": "test -"},  # the test split keeps its own
    )
    # The one of which more is known; its group's other pictures stay with it.
    gone, kept = planned("train/real/a @g", "test/real/b", exact="ab", near="ab")
    assert (gone, kept) == ({"b": "exact copy"}, {"a": "train g"})


def test_the_same_bytes_with_both_labels_are_no_evidence() -> None:
    gone, kept = planned("train/real/a @g", "train/fake/b", "test/real/c", exact="ab", near="ab")
    assert gone == {"a": "both labels", "b": "both labels"}
    assert kept == {"c": "test -"}


def test_near_copies_in_one_group_are_frames_of_one_video() -> None:
    assert planned("train/real/a @g", "train/real/b @g", near="ab") == (
        {},
        {"a": "train g", "b": "train g"},
    )


def test_near_copies_in_known_groups_join_them() -> None:
    gone, kept = planned(
        *("train/real/a @h", "train/real/b @g", "train/fake/c @h", "test/real/d @i"), near="ab"
    )
    assert gone == {}
    assert kept == {"a": "train g", "b": "train g", "c": "train g", "d": "test i"}


def test_joins_reach_over_several_groups() -> None:
    groups = ("train/real/a @3", "train/real/b @2", "train/real/c @2", "train/real/d @1")
    others = ("train/real/e @4", "train/real/f @5")
    _, kept = planned(*groups, *others, near="ab cd ef")
    assert [kept[name] for name in "abcdef"] == ["train 1"] * 4 + ["train 4"] * 2


def test_of_near_copies_without_groups_the_best_is_kept() -> None:
    # The first is the largest file; see `made`.
    assert planned("train/real/b", "test/real/a", "train/real/c", near="abc") == (
        {"a": "near copy", "c": "near copy"},
        {"b": "train -"},
    )
    # Where one has a group, it stands for those without.
    gone, _ = planned("train/real/a", "train/real/b @g", near="ab")
    assert gone == {"a": "near copy"}
    # Fakes by two generators are two pictures.
    gone, kept = planned("train/fake/x/a", "train/fake/y/b", "train/fake/y/c", near="abc")
    assert gone == {"c": "near copy"}
    assert kept["a"] == kept["b"] != "train -"


def test_more_pixels_are_better_than_more_bytes() -> None:
    facts = made(*rows_of("train/real/a", "train/real/b"))
    facts = replace(
        facts,
        files=(FileFacts("JPEG", "", 90, 90, 9000, 90), FileFacts("JPEG", "", 91, 91, 10, 90)),
    )
    found = plan(facts, [copies("near", "train/real/a", "train/real/b")], 50)
    assert found.left_out == {"train/real/a": "near copy (of train/real/b)"}


def test_near_copies_across_classes_are_kept_in_one_group() -> None:
    gone, kept = planned("train/real/a", "test/fake/b", near="ab")
    assert gone == {}
    (place,) = set(kept.values())
    assert place.startswith("train copies-")  # a tie
    gone, kept = planned("test/real/a @g", "test/fake/b", "train/fake/c @h", near="ab")
    assert kept == {"a": "test g", "b": "test g", "c": "train h"}


@pytest.mark.parametrize(
    ("splits", "home"),
    [
        ("test test train", "test"),
        ("test train", "train"),
        ("test validation", "validation"),
        ("validation validation test train", "validation"),
        ("test", "test"),
    ],
)
def test_a_crossing_group_goes_where_most_of_it_is(splits: str, home: str) -> None:
    names = splits.split()
    texts = [f"{split}/real/{at} @g" for at, split in enumerate(names)]
    rows = rows_of(*texts, "test/real/x @other", "test/real/y", "train/fake/z @own")
    done = plan(made(*rows), (), 50)
    new = {row.path: row.split for row in done.kept.rows}
    assert {new[row.path] for row in rows[: len(names)]} == {home}
    assert [new[row.path] for row in rows[len(names) :]] == ["test", "test", "train"]
    assert set(done.moved) == {row.path for row in rows[: len(names)] if row.split != home}
    for path, how in done.moved.items():
        n = names.count(home)
        assert how == (
            f"{path.split('/')[0]} -> {home} (group g: {n} of {len(names)} pictures are there)"
        )


def test_moves_and_joins_are_written_down(few: Path, tmp_path: Path) -> None:
    edit(few, {"test/real/00001.jpg": {"group": "train-00002"}})
    out = tmp_path / "out"
    before, done = fix(few, out)
    assert "groups-across-splits" in {one.name for one in before.findings}
    moved = [row for row in table(out) if row["change"] == "moved"]
    assert [(row["path"], row["new_path"]) for row in moved] == [
        ("test/real/00001.jpg", done.outcomes["test/real/00001.jpg"].new)
    ]
    assert moved[0]["new_path"].startswith("train/real/")
    assert moved[0]["detail"].startswith("test -> train (group train-00002: 2 of 3")
    assert done.to_dict()["counts"]["moved"] == {"test -> train": 1}
    load_samples(out)


def test_groups_of_near_copies_are_joined_on_disk(few: Path, tmp_path: Path) -> None:
    with Image.open(few / "train/real/00000.jpg") as picture:
        again = saved(picture.resize((44, 44)), format="JPEG", quality=85)
    (few / "test/real/00002.jpg").write_bytes(again)
    out = tmp_path / "out"
    fix(few, out)
    rows = {row.path: row for row in load_samples(out).rows}
    joined = {row["path"]: row for row in table(out) if row["change"] == "group joined"}
    assert joined.keys() >= {"train/real/00000.jpg"}
    assert all(row["detail"] == "train-00000 -> test-00002" for row in joined.values())
    assert len({rows[row["new_path"]].split for row in joined.values()}) == 1


# -- real faces --


@pytest.mark.realdata
@pytest.mark.skipif(not (REAL_DATA / "stylegan").is_dir(), reason="no real data here")
def test_real_faces_of_two_qualities_are_saved_alike(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    some = load_samples(REAL_DATA / "stylegan").limit(20)
    for row in some.rows:
        with Image.open(some.absolute(row)) as picture:
            to = data / row.split / ("fake" if row.label else "real") / Path(row.path).name
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(
                saved(picture, format="PNG")
                if row.label
                else saved(picture, format="JPEG", quality=90)
            )
    before, facts = examine(data)
    assert facts is not None
    assert not before.passed
    equalise(facts, before.copies, out)
    after, _ = examine(out)
    assert after.passed
    assert not any(probe.tells for probe in after.probes if probe.name == "file")
    assert read_facts(load_samples(out), limit=1).files[0].width == 224
