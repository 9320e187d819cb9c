"""Splits made anew: whole groups, shares, links, subsets, and going on."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

from bonaface import splitting
from bonaface.crops import RECIPE_FILE, CropRecipe, read_recipe
from bonaface.errors import ConfigError, DataError, ImageError
from bonaface.files import write_json
from bonaface.samples import load_samples
from bonaface.splitting import JOURNAL, REPORT, split_set, subset_name, take_over
from folders import COLUMNS, table, tree

SPLITS = ("train", "validation", "test")


def fill(root: Path, *paths: str) -> Path:
    """Files with content of their own; splitting never decodes them."""
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(path)
    return root


def listed(root: Path, rows: list[dict[str, str]]) -> Path:
    with (root / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return root


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Sixty people, all in train: two reals of each, and a fake of half of them by each of two."""
    rows = []
    for person in range(60):
        known = {"group": f"p{person}", "split": "train", "age": "30", "race": "Süd, other"}
        for shot in range(2):
            rows.append({"file_name": f"train/real/{person}-{shot}.jpg", "label": "real"} | known)
        kind = "gan" if person % 2 else "sdxl"
        fake = {"file_name": f"train/fake/{person}.PNG", "label": "fake", "generator": kind}
        rows.append(fake | known)
    root = fill(tmp_path / "source", *(row["file_name"] for row in rows))
    return listed(root, rows)


def test_groups_stay_whole_and_every_split_gets_its_share(source: Path, tmp_path: Path) -> None:
    before = tree(source)
    out = tmp_path / "out"
    made = split_set(source, out, ratios=(0.6, 0.2, 0.2))
    found = load_samples(out, need=SPLITS)  # with its checks of groups and copies
    assert found.ratios is None
    assert found.counts() == {
        "train": {"real": 72, "fake": 36},
        "validation": {"real": 24, "fake": 12},
        "test": {"real": 24, "fake": 12},
    }
    kinds = Counter((row.split, row.generator) for row in found.rows if row.label)
    assert {kinds[split, kind] for split in SPLITS[1:] for kind in ("gan", "sdxl")} == {6}
    told = made.to_dict()
    assert told == json.loads((out / REPORT).read_text())
    assert told["splits"]["test"] == {
        "pictures": 36,
        "groups": 12,
        "real": 24,
        "fake": 12,
        "generators": {"gan": 6, "sdxl": 6},
    }
    assert told["notes"] == ["the splits that the data set had were made anew"]
    assert tree(source) == before


def test_files_lie_by_split_label_and_generator_with_all_that_was_known(
    source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    split_set(source, out)
    for row in load_samples(out).rows:
        assert (row.age, row.race) == ("30", "Süd, other")
        below = f"{row.generator}/" if row.label else ""
        assert row.path.startswith(f"{row.split}/{('real', 'fake')[row.label]}/{below}")
        content = (out / row.path).read_text()
        assert Path(content).name == Path(row.path).name
        assert row.group == f"p{Path(content).stem.split('-')[0]}"
    (out / "metadata.csv").unlink()
    assert len(load_samples(out)) == 180  # the folders tell labels and splits as well


def test_pictures_are_the_same_files_where_that_can_be(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = source / "train" / "real" / "0-0.jpg"
    target.rename(tmp_path / "elsewhere")
    target.symlink_to(tmp_path / "elsewhere")
    found = split_set(source, tmp_path / "links")
    assert found.to_dict()["counts"]["linked"] == 180
    (first,) = [row for row in found.samples.rows if row.path.endswith("real/0-0.jpg")]
    made = tmp_path / "links" / first.path
    assert made.samefile(tmp_path / "elsewhere")
    assert not made.is_symlink()

    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    copied = split_set(source, tmp_path / "copies")
    assert copied.to_dict()["counts"]["copied"] == 180
    assert not (tmp_path / "copies" / first.path).samefile(tmp_path / "elsewhere")
    links, copies = tree(tmp_path / "links"), tree(tmp_path / "copies")
    for name in (JOURNAL, REPORT):
        assert links.pop(name) != copies.pop(name)
    assert links == copies


def test_the_seed_decides(source: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        split_set(source, tmp_path / name, seed=seed)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert tree(tmp_path / "a").keys() != tree(tmp_path / "c").keys()


def test_copies_without_a_group_are_kept_in_one_split(tmp_path: Path) -> None:
    root = fill(tmp_path / "in", *(f"real/{n}.jpg" for n in range(30)))
    for n in range(30):
        shutil.copy(root / "real" / f"{n}.jpg", root / "real" / f"again-{n}.jpg")
    made = split_set(root, tmp_path / "out", ratios=(0.4, 0.3, 0.3)).to_dict()
    assert load_samples(tmp_path / "out").counts()["test"]["real"] == 18
    assert made["counts"]["sets_of_copies"] == 30
    assert made["notes"][0] == "30 sets of identical files were kept in one split each"
    assert made["notes"][1].startswith("60 pictures have no known group")
    assert "bonaface audit" in made["notes"][1]


def test_subsets_are_nested_balanced_and_readable(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = split_set(source, out, subsets=(10, 30, 10)).to_dict()
    whole = load_samples(out)
    smaller: set[str] = set()
    for n in (10, 30):
        part = load_samples(out / subset_name(n), need=SPLITS)
        assert part.root == out
        assert part.counts()["train"] == {"real": n / 2, "fake": n / 2}
        for split in SPLITS[1:]:
            assert part.split(split).rows == whole.split(split).rows
        names = {row.path for row in part.split("train").rows}
        assert smaller < names
        assert set(part.rows) < set(whole.rows)
        smaller = names
    assert told["subsets"]["30"]["real"] == 15
    assert told["subsets"]["30"]["file"] == "subset-30.csv"
    notes = load_samples(out).notes
    assert not any("left out" in note for note in notes)


@pytest.mark.parametrize("n", [0, 145])
def test_a_subset_larger_than_train_is_refused(source: Path, tmp_path: Path, n: int) -> None:
    with pytest.raises(ConfigError, match=f"1 to 144 pictures.*got {n}"):
        split_set(source, tmp_path / "out", subsets=(10, n))
    assert not (tmp_path / "out").exists()


def test_it_goes_on_where_it_was_stopped(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    split_set(source, tmp_path / "straight", subsets=(10,))

    def stop(done: int, total: int) -> None:
        assert total == 180
        if done == 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        split_set(source, out, subsets=(10,), progress=stop)
    assert not (out / "metadata.csv").exists()
    lines = (out / JOURNAL).read_text().splitlines(keepends=True)
    (out / JOURNAL).write_text("".join(lines[:40]) + lines[40][:9])  # and ten were not noted down
    steps: list[int] = []
    split_set(source, out, subsets=(10,), progress=lambda done, _: steps.append(done))
    assert steps == list(range(40, 181))
    assert tree(out) == tree(tmp_path / "straight")
    before = tree(out)
    split_set(source, out, subsets=(10,))
    assert tree(out) == before
    for options in ({"seed": 1}, {"ratios": (0.5, 0.25, 0.25)}):
        with pytest.raises(ConfigError, match="begun with"):
            split_set(source, out, **options)  # type: ignore[arg-type]
    fill(source, "train/real/new.jpg")
    (source / "metadata.csv").unlink()
    with pytest.raises(ConfigError, match="data set"):
        split_set(source, out)
    assert tree(out) == before


def test_nothing_of_someone_else_is_touched(source: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine" / "notes.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(DataError, match="something else"):
        split_set(source, mine.parent)
    for out in (source, source / "new", tmp_path):
        with pytest.raises(ConfigError, match="outside the data set"):
            split_set(source, out)
    with pytest.raises(DataError, match="move it away"):
        take_over(source / "train" / "real" / "0-0.jpg", mine)
    assert mine.read_text() == "mine"


def test_what_cannot_be_taken_over_is_listed_and_tried_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = splitting.take_over

    def failing(path: Path, target: Path) -> bool:
        if path.name == "7-1.jpg":
            raise ImageError("no permission to read it", str(path))
        return whole(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(splitting, "take_over", failing)
        told = split_set(source, tmp_path / "out").to_dict()
    assert told["counts"]["failed"] == 1
    assert told["counts"]["reasons"] == {"no permission to read it": 1}
    (row,) = table(tmp_path / "out" / "failures.csv")
    assert (row["path"], row["label"]) == ("train/real/7-1.jpg", "real")
    assert len(load_samples(tmp_path / "out")) == 179
    assert split_set(source, tmp_path / "out").to_dict()["counts"]["failed"] == 0
    with pytest.raises(ImageError, match="no such file"):
        take_over(tmp_path / "gone", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_recipe_of_crops_goes_along(source: Path, tmp_path: Path) -> None:
    recipe = CropRecipe(1.7, origin="crops cut by a test")
    write_json(source / RECIPE_FILE, recipe.to_dict())
    split_set(source, tmp_path / "out")
    assert read_recipe(tmp_path / "out") == recipe


def test_the_seed_decides_which_pictures_a_subset_holds(source: Path, tmp_path: Path) -> None:
    made = [split_set(source, tmp_path / str(seed), subsets=(20,), seed=seed) for seed in (0, 1)]
    first, second = ({row.group for row in one.subsets[20].rows} for one in made)
    assert first != second
