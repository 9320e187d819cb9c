"""Bringing sets from elsewhere into the layout: folders, pairs, tables, and the Hub's form."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import shutil
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bonaface import importing
from bonaface.audit import audit
from bonaface.crops import RECIPE_FILE, CropRecipe, read_recipe
from bonaface.drawn import write_drawn_set
from bonaface.errors import ConfigError, DataError, ImageError, MissingExtraError
from bonaface.files import write_json
from bonaface.images import ImageLimits, read_image
from bonaface.importing import JOURNAL, REPORT, hub, import_set
from bonaface.importing.hub import from_hub, is_id, is_repository
from bonaface.importing.sources import Columns, Splits, from_folder, from_pairs, from_table
from bonaface.samples import load_samples
from bonaface.splitting import split_set
from folders import table, tree


@cache
def picture(seed: int = 0, kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (24, 24, 3), np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def fill(root: Path, *paths: str) -> Path:
    """Pictures of their own."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(picture(len(list(root.rglob("*"))), "JPEG"))
    return root


def written(path: Path, rows: list[dict[str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def failures(out: Path) -> dict[str, str]:
    return {row["path"]: row["reason"] for row in table(out / "failures.csv")}


# -- folders --------------------------------------------------------------------------------------


def test_a_folder_keeps_its_bytes_and_what_was_known(tmp_path: Path) -> None:
    source = fill(
        tmp_path / "in",
        *(f"Testing/Originals/ffhq/{n}.jpg" for n in range(3)),
        *(f"valid/deepfakes/{n}.jpg" for n in range(3)),
    )
    (source / "valid" / "deepfakes" / "b b.webp").write_bytes(picture(50, "WEBP"))
    before = tree(source)
    made = import_set(from_folder(source, {}), tmp_path / "out").to_dict()
    rows = load_samples(tmp_path / "out").rows
    assert {row.path: (row.label, row.split, row.source) for row in rows} == {
        **{f"test/real/ffhq/{n}.jpg": (0, "test", "ffhq") for n in range(3)},
        **{f"validation/fake/{n}.jpg": (1, "validation", None) for n in range(3)},
        "validation/fake/b_b.webp": (1, "validation", None),
    }
    assert sorted(tree(source).values()) == sorted(
        (tmp_path / "out" / row.path).read_bytes() for row in rows
    )
    assert (tmp_path / "out" / rows[0].path).samefile(source / "Testing/Originals/ffhq/0.jpg")
    assert tree(source) == before
    assert made["counts"] == {
        "asked": 7,
        "imported": 7,
        "linked": 7,
        "written": 0,
        "failed": 0,
        "reasons": {},
    }
    assert made == json.loads((tmp_path / "out" / REPORT).read_text())
    missing, alone = made["notes"]
    assert missing == "nothing is in train: `bonaface data split` makes splits anew"
    assert alone.startswith("7 pictures have no known group")


def test_names_of_folders_can_be_told_and_say_what_made_the_fakes(tmp_path: Path) -> None:
    source = fill(
        tmp_path / "in",
        *(f"Celeb-real/{n}.jpg" for n in range(10)),
        *(f"Celeb-synthesis/{n}.jpg" for n in range(10)),
    )
    with pytest.raises(DataError, match="Celeb-real.*--label"):
        from_folder(source, {})
    told = from_folder(source, {"celeb-real": 0, "celeb-synthesis": 1})
    import_set(told, tmp_path / "out")
    found = load_samples(tmp_path / "out")
    assert found.counts() == {
        "train": {"real": 8, "fake": 8},
        "validation": {"real": 1, "fake": 1},
        "test": {"real": 1, "fake": 1},
    }
    assert {(row.label, row.generator, row.source) for row in found.rows} == {
        (1, "Celeb-synthesis", None),
        (0, None, "Celeb-real"),
    }


def test_a_pair_of_folders(tmp_path: Path) -> None:
    for name in ("x/faces", "y/faces", "sdxl", "sdxl/more"):
        fill(tmp_path / name, *(f"{'deep/' * (n % 2)}{n}.jpg" for n in range(5)))
    shutil.copytree(tmp_path / "x", tmp_path / "z")
    found = from_pairs([tmp_path / "x" / "faces"], [tmp_path / "y" / "faces", tmp_path / "sdxl"])
    import_set(found, tmp_path / "out")
    rows = load_samples(tmp_path / "out", need=("train",)).rows
    assert {(row.label, row.generator, row.source) for row in rows} == {
        (0, None, "faces"),
        (1, "faces", None),
        (1, "sdxl", None),
    }
    assert len(rows) == 20
    with pytest.raises(ConfigError, match="a name of its own"):
        from_pairs([tmp_path / "x" / "faces", tmp_path / "z" / "faces"], [])
    with pytest.raises(ConfigError, match="in one another"):
        from_pairs([tmp_path / "sdxl" / "more"], [tmp_path / "sdxl"])
    with pytest.raises(DataError, match="found none"):
        from_pairs([], [fill(tmp_path / "none")] if (tmp_path / "none").mkdir() is None else [])
    with pytest.raises(DataError, match="a folder with real pictures"):
        from_pairs([tmp_path / "gone"], [])
    with pytest.raises(ConfigError, match="outside"):
        import_set(found, tmp_path / "sdxl" / "new")


def test_copies_are_not_parted_by_a_split_that_is_made_here(tmp_path: Path) -> None:
    source = tmp_path / "in"
    for n in range(20):
        for name in ("a", "b"):
            path = source / "real" / f"{n}{name}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(n))
    made = import_set(from_folder(source, {}, splits=Splits((0.4, 0.3, 0.3), 5)), tmp_path / "out")
    assert made.crossing == ()
    assert load_samples(tmp_path / "out").counts()["test"]["real"] == 12


def test_what_crosses_splits_is_said(tmp_path: Path) -> None:
    source = fill(tmp_path / "in", "train/real/a.jpg", "test/real/b.jpg", "test/fake/c.jpg")
    shutil.copy(source / "train/real/a.jpg", source / "test/real/a.jpg")
    written(
        source / "metadata.csv",
        [
            {"file_name": name, "group": "g" if "c" not in name else "h"}
            for name in (
                "train/real/a.jpg",
                "test/real/a.jpg",
                "test/real/b.jpg",
                "test/fake/c.jpg",
            )
        ],
    )
    groups, copies, missing = import_set(from_folder(source, {}), tmp_path / "out").to_dict()[
        "notes"
    ]
    assert "1 groups of" in groups
    assert "g in train and test" in groups
    assert "test/real/a.jpg = train/real/a.jpg" in copies
    assert all("bonaface audit" in note and "--fix" in note for note in (groups, copies))
    assert "nothing is in validation" in missing


def test_what_cannot_be_decoded_is_listed_and_not_imported(tmp_path: Path) -> None:
    source = fill(
        tmp_path / "in", *(f"train/{label}/{n}.jpg" for label in ("real", "fake") for n in "ab")
    )
    (source / "train" / "real" / "a.jpg").write_bytes(b"no picture")
    (source / "train" / "fake" / "b.jpg").write_bytes(picture()[:300])
    for _ in range(2):
        made = import_set(from_folder(source, {}), tmp_path / "out").to_dict()
        assert made["counts"]["reasons"] == {"not an image": 1, "truncated": 1}
        assert failures(tmp_path / "out") == {
            "train/real/a.jpg": "not an image",
            "train/fake/b.jpg": "truncated",
        }
        assert len(load_samples(tmp_path / "out")) == 2
    assert {row["label"] for row in table(tmp_path / "out" / "failures.csv")} == {"real", "fake"}


def test_a_recipe_of_crops_goes_along(tmp_path: Path) -> None:
    source = fill(tmp_path / "in", "train/real/a.jpg")
    write_json(source / RECIPE_FILE, CropRecipe(1.7).to_dict())
    import_set(from_folder(source, {}), tmp_path / "out")
    assert read_recipe(tmp_path / "out") == CropRecipe(1.7)


# -- tables ---------------------------------------------------------------------------------------


def test_a_table_with_columns_of_its_own(tmp_path: Path) -> None:
    fill(tmp_path / "photos", *(f"sub/{n}.jpg" for n in range(4)))
    (tmp_path / "photos" / "noending").write_bytes(picture(9, "PNG"))
    rows = [
        {"id": f"sub\\{n}.jpg" if n % 2 else f"./sub/{n}.jpg", "y": "AI" if n % 2 else "Genuine"}
        for n in range(4)
    ] + [{"id": "noending", "y": "AI"}]
    for n, row in enumerate(rows):
        row |= {"who": f"p{n // 2}", "split": "val", "race": "A", "generator": "", "label": "7"}
    where = written(tmp_path / "tables" / "labels.csv", rows)
    columns = Columns("id", "y", "who")
    found = from_table(where, {}, root=tmp_path / "photos", columns=columns)
    made = import_set(found, tmp_path / "out")
    assert made.header["source"] == "labels.csv"
    assert found.notes == ("labels read as real: Genuine", "labels read as fake: AI")
    read = load_samples(tmp_path / "out").rows
    assert {row.path: (row.label, row.group, row.race) for row in read} == {
        "validation/real/0.jpg": (0, "p0", "A"),
        "validation/fake/1.jpg": (1, "p0", "A"),
        "validation/real/2.jpg": (0, "p1", "A"),
        "validation/fake/3.jpg": (1, "p1", "A"),
        "validation/fake/noending.png": (1, "p2", "A"),
    }
    with pytest.raises(DataError, match="a column person in .*found id, y, who"):
        from_table(where, {}, columns=Columns("id", "y", "person"))
    with pytest.raises(DataError, match="a column path in"):
        from_table(where, {}, columns=Columns("path"))


def test_numbers_say_nothing_until_told(tmp_path: Path) -> None:
    fill(tmp_path, "0.jpg", "1.jpg")
    where = written(
        tmp_path / "t.csv", [{"file_name": f"{n}.jpg", "label": str(n)} for n in (0, 1)]
    )
    with pytest.raises(DataError, match="a number as label.*--label 0=fake --label 1=real"):
        from_table(where, {})
    import_set(from_table(where, {"0": 1, "1": 0}), tmp_path / "out")
    rows = load_samples(tmp_path / "out").rows
    assert {(Path(row.path).name, row.label, row.generator) for row in rows} == {
        ("0.jpg", 1, None),
        ("1.jpg", 0, None),
    }
    written(where, [{"file_name": "0.jpg", "label": "Face2Face"}])
    with pytest.raises(DataError, match="neither real nor fake.*line 2: Face2Face.*--label"):
        from_table(where, {})
    (entry,) = from_table(where, {"face2face": 1}).entries(())
    assert entry.row is not None
    assert (entry.row.label, entry.row.generator) == (1, "Face2Face")


def test_rows_that_lead_nowhere_are_listed(tmp_path: Path) -> None:
    fill(tmp_path / "in", "a.jpg", "b.jpg")
    fill(tmp_path, "secret.jpg")
    names = ["a.jpg", "./a.jpg", "gone.jpg", "../secret.jpg", str(tmp_path / "secret.jpg")]
    names += ["C:\\secret.jpg", "..\\secret.jpg", "", "b.jpg", "x\0.jpg"]
    rows = [{"file_name": name, "label": "real", "split": "test"} for name in names]
    rows[8]["label"] = ""
    where = written(tmp_path / "in" / "t.csv", rows)
    made = import_set(from_table(where, {}), tmp_path / "out").to_dict()
    assert made["counts"]["imported"] == 1
    assert list(failures(tmp_path / "out").values()) == [
        "listed a second time",
        "no such file",
        *["leads outside the folder"] * 4,
        "no file name",
        "no label",
        "no such file",
    ]
    assert "line 5: ../secret.jpg" in failures(tmp_path / "out")
    where.write_text("file_name,label\ngone.jpg,real\n")
    with pytest.raises(DataError, match="pictures that are there.*none in 1 rows"):
        from_table(where, {})


def test_other_tables_are_read_too(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg")
    lines = tmp_path / "t.jsonl"
    lines.write_text('{"img": "a.jpg", "label": "fake", "extra": [1]}\n')
    (entry,) = from_table(lines, {}, columns=Columns("img")).entries(())
    assert entry.row is not None
    assert entry.row.label == 1
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = {"img": ["a.jpg"], "label": ["fake"], "who": [7.0], "junk": [b"x"]}
    parquet.write_table(pyarrow.table(rows), tmp_path / "t.parquet")
    found = from_table(tmp_path / "t.parquet", {}, columns=Columns("img", group="who"))
    (entry,) = found.entries(())
    assert entry.row is not None
    assert entry.row.group == "7"


def test_a_folder_with_metadata_may_name_its_columns(tmp_path: Path) -> None:
    source = fill(tmp_path / "in", "train/real/a.jpg")
    written(source / "metadata.csv", [{"file_name": "train/real/a.jpg", "identity": "p1"}])
    (entry,) = from_folder(source, {}, Columns(group="identity")).entries(())
    assert entry.row is not None
    assert (entry.row.group, entry.row.split) == ("p1", "train")


# -- the Hub's form -------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def _no_network(tmp_path_factory: pytest.TempPathFactory) -> Any:
    constants = pytest.importorskip("huggingface_hub.constants")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("home")))
        yield


Shard = Callable[..., Path]


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    """Writes rows as a Parquet shard of a repository, as `push_to_hub` does."""
    datasets = pytest.importorskip("datasets")

    def write(
        rows: list[dict[str, Any]],
        *,
        label: Any = None,
        name: str = "data/train-00000-of-00001.parquet",
        repository: str = "set",
        **features: Any,
    ) -> Path:
        named = datasets.ClassLabel(names=["fake", "real"]) if label is None else label
        kinds = {"image": datasets.Image(), "label": named, **features}
        kinds |= {key: datasets.Value("string") for key in rows[0] if key not in kinds}
        made = datasets.Dataset.from_list(rows, features=datasets.Features(kinds))
        path = tmp_path / repository / name
        path.parent.mkdir(parents=True, exist_ok=True)
        datasets.disable_progress_bars()
        made.to_parquet(path)
        datasets.enable_progress_bars()
        return tmp_path / repository

    return write


def some_rows(n: int = 6, first: int = 0, **known: str) -> list[dict[str, Any]]:
    """Even rows fake, which is 0 here, as in half of all public sets."""
    return [
        {"image": {"bytes": picture(first + at), "path": f"{at}.jpg"}, "label": at % 2, **known}
        for at in range(n)
    ]


def test_parquet_shards_are_read_by_the_names_of_their_labels(shard: Shard, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    races = datasets.ClassLabel(names=["A", "B"])
    rows = [row | {"race": at % 2, "junk": "x"} for at, row in enumerate(some_rows(6, person="p7"))]
    shard(rows, race=races)
    root = shard(
        [row | {"race": -1, "junk": "y"} for row in some_rows(4, 100, person="p8")],
        race=races,
        name="data/valid-00000-of-00001.parquet",
    )
    assert is_repository(root)
    found = from_hub(root, {}, columns=Columns(group="person"))
    made = import_set(found, tmp_path / "out").to_dict()
    assert found.notes == ("labels read as real: real", "labels read as fake: fake")
    samples = load_samples(tmp_path / "out")
    assert samples.counts() == {
        "train": {"real": 3, "fake": 3},
        "validation": {"real": 2, "fake": 2},
    }
    for row in samples.rows:
        at = int(Path(row.path).stem)
        assert row.label == 1 - at % 2
        train = row.split == "train"
        assert (row.group, row.race) == (("p7", "AB"[at % 2]) if train else ("p8", None))
        content = (tmp_path / "out" / row.path).read_bytes()
        assert content == picture(at if train else 100 + at)  # to the byte
    assert made["columns"] == {
        "image": "file_name", "label": "label", "person": "group", "race": "race",
    }  # fmt: skip


def test_several_shards_and_a_card(shard: Shard, tmp_path: Path) -> None:
    for at in range(3):
        root = shard(some_rows(4, 10 * at), name=f"data/test-{at:05d}-of-00003.parquet")
    (root / "README.md").write_text(
        "---\nconfigs:\n- config_name: faces\n  data_files:\n  - split: test\n"
        "    path: data/test-*\n- config_name: more\n  data_files:\n  - split: train\n"
        "    path: data/test-00000*\n---\n# A set\n"
    )
    with pytest.raises(DataError, match="Config name is missing.*'faces', 'more'"):
        from_hub(root, {})
    import_set(from_hub(root, {}, config="faces"), tmp_path / "out")
    assert load_samples(tmp_path / "out").counts() == {"test": {"real": 6, "fake": 6}}
    names = sorted(path.name for path in (tmp_path / "out" / "test" / "fake").iterdir())
    assert len(names) == 6  # of three called 0.jpg and three called 2.jpg
    assert names[0] == "0-" + names[0].split("-", 1)[1]
    assert "0.jpg" in names


def test_words_and_numbers_as_labels(shard: Shard, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    words = [row | {"label": ("Face2Face", "pristine")[row["label"]]} for row in some_rows()]
    root = shard(words, label=datasets.Value("string"))
    with pytest.raises(DataError, match="found Face2Face; say what each means.*Face2Face=fake"):
        from_hub(root, {})
    import_set(from_hub(root, {"Face2Face": 1}), tmp_path / "words")
    rows = load_samples(tmp_path / "words").rows
    assert {(row.label, row.generator) for row in rows} == {(1, "Face2Face"), (0, None)}
    root = shard(some_rows(), label=datasets.Value("int64"), repository="numbers")
    with pytest.raises(DataError, match="found 0, 1; numbers do not say which is which"):
        from_hub(root, {})
    import_set(from_hub(root, {"0": 1, "1": 0}), tmp_path / "numbers-out")
    assert load_samples(tmp_path / "numbers-out").rows[0].path == "train/fake/0.jpg"
    root = shard(some_rows(), label=datasets.ClassLabel(names=["0", "1"]), repository="named")
    with pytest.raises(DataError, match="numbers do not say which is which"):
        from_hub(root, {})


def test_hostile_and_broken_rows_are_listed(
    shard: Shard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = partial(read_image, limits=ImageLimits(max_bytes=2**20))
    monkeypatch.setattr(importing, "read_image", limited)
    names = [
        "/nowhere/hostname",
        "../../../x.jpg",
        "a.jpg",
        "A.jpg",
        "a.jpg",
        None,
        "..\\..\\b",
        ".x.png",
    ]
    rows = [
        {"image": {"bytes": picture(at), "path": name}, "label": 0} for at, name in enumerate(names)
    ]
    rows += [
        {"image": {"bytes": None, "path": "/etc/hostname"}, "label": 1},
        {"image": {"bytes": b"no picture", "path": "c.jpg"}, "label": 1},
        {"image": {"bytes": picture()[:200], "path": "c.jpg"}, "label": 1},
        {"image": {"bytes": b"\xff\xd8\xff" + bytes(2**20), "path": "c.jpg"}, "label": 1},
        {"image": None, "label": 1},
        {"image": {"bytes": picture(50), "path": "c.jpg"}, "label": None},
        {"image": {"bytes": picture(51), "path": "c.jpg"}, "label": -1},
    ]
    out = tmp_path / "out"
    made = import_set(from_hub(shard(rows), {}), out).to_dict()
    assert made["counts"]["reasons"] == {
        "no label": 2,
        "no picture in the row": 2,
        "larger than 1 MiB": 1,
        "not an image": 1,
        "truncated": 1,
    }
    found = load_samples(out).rows
    assert len({row.path.casefold() for row in found}) == len(names)
    assert {Path(row.path).name.split("-")[0] for row in found} == {
        "hostname.jpg", "x.jpg", "a.jpg", "A", "a", "0000005.jpg", "b.jpg", "x.png",
    }  # fmt: skip
    for row in found:
        assert (out / row.path).resolve().is_relative_to(out / "train" / "fake")
    assert not (tmp_path / "x.jpg").exists()
    assert table(out / "failures.csv")[0]["label"] == "real"


def test_an_imagefolder_with_a_card(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    root = fill(tmp_path / "set", *(f"train/{n}.jpg" for n in range(4)))
    written(
        root / "train" / "metadata.csv",
        [
            {"file_name": f"{n}.jpg", "label": ("real", "AI")[n % 2], "person": "p"}
            for n in range(4)
        ],
    )
    assert is_repository(root)
    import_set(from_hub(root, {}, columns=Columns(group="person")), tmp_path / "out")
    found = load_samples(tmp_path / "out").rows
    assert {row.path: row.label for row in found} == {
        f"train/{('real', 'fake')[n % 2]}/{n}.jpg": n % 2 for n in range(4)
    }
    assert {row.group for row in found} == {"p"}
    assert (tmp_path / "out" / "train/real/0.jpg").samefile(root / "train" / "0.jpg")
    with (root / "train" / "metadata.csv").open("a") as file:
        file.write("../../secret.jpg,real,p\n")
    with pytest.raises(DataError, match="cannot be read"):
        import_set(from_hub(root, {}), tmp_path / "again")


def test_what_is_no_set_of_pictures_is_refused(shard: Shard, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    root = shard(some_rows(), name="data/odd-00000-of-00001.parquet")
    (root / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: odd\n"
        "    path: data/odd-*\n---\n"
    )
    with pytest.raises(DataError, match="splits named train, validation and test.*found odd"):
        from_hub(root, {})
    rows = [row | {"other": None} for row in some_rows()]
    root = shard(rows, repository="columns", other=datasets.Image())
    with pytest.raises(DataError, match="one column of images.*found image, other.*--path-column"):
        from_hub(root, {})
    with pytest.raises(DataError, match="a column y in.*--label-column"):
        from_hub(root, {}, columns=Columns("image", "y"))
    text = tmp_path / "text"
    text.mkdir()
    (text / "train.json").write_text('{"text": "a"}\n')
    with pytest.raises(DataError, match="the format json"):
        from_hub(text, {})
    root = shard(some_rows(), repository="script")
    (root / "script.py").write_text("raise SystemExit('a script was run')")
    with pytest.raises(DataError, match="scripts are no longer supported"):
        from_hub(root, {})
    outside = shard(some_rows(), repository="outside") / "data"
    card = tmp_path / "card" / "README.md"
    card.parent.mkdir()
    card.write_text(
        f"---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n"
        f"    path: {outside}/*\n---\n"
    )
    with pytest.raises(DataError, match="names files outside it"):
        from_hub(card.parent, {})


@pytest.mark.parametrize("after", [1, 7])
def test_a_stopped_import_goes_on_and_ends_in_the_same_bytes(
    shard: Shard, tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard(some_rows(6))
    root = shard(some_rows(6, 50), name="data/test-00000-of-00001.parquet")
    import_set(from_hub(root, {}), tmp_path / "straight")
    out = tmp_path / "out"

    def stop(done: int, total: int) -> None:
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_set(from_hub(root, {}), out, progress=stop)
    assert not (out / "metadata.csv").exists()
    assert len((out / JOURNAL).read_text().splitlines()) == after + 1
    read: list[int] = []
    entry = hub._Table._entry
    monkeypatch.setattr(hub._Table, "_entry", lambda self, *a: read.append(1) or entry(self, *a))
    import_set(from_hub(root, {}), out)
    assert len(read) == 12 - after
    assert tree(out) == tree(tmp_path / "straight")
    with pytest.raises(ConfigError, match="labels.*begun with"):
        import_set(from_hub(root, {"fake": 0, "real": 1}), out)
    shard(some_rows(7))
    with pytest.raises(ConfigError, match="begun with"):
        import_set(from_hub(root, {}), out)


def test_the_library_is_left_as_it_was(shard: Shard, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")

    def state() -> tuple[object, ...]:
        return (
            datasets.config.STREAMING_READ_MAX_RETRIES,
            datasets.utils.logging.get_verbosity(),
            datasets.are_progress_bars_disabled(),
        )

    before = state()
    import_set(from_hub(shard(some_rows()), {}), tmp_path / "out")
    assert state() == before


def test_without_network_one_line_says_what_to_do() -> None:
    with pytest.raises(DataError) as caught:
        from_hub("someone/faces", {})
    message = str(caught.value)
    assert "HF_HUB_OFFLINE is set" in message
    assert "hf download someone/faces --repo-type dataset" in message
    assert "no folder someone/faces here" in message


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"bonaface\[hub\]"):
        from_hub("someone/faces", {})


def test_remote_files_are_fetched_only_from_the_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec = pytest.importorskip("fsspec")
    pytest.importorskip("datasets")
    root = fill(tmp_path / "set", "train/real/0.jpg", "train/fake/1.jpg")
    rows = hub._Table(hub._builder("set", f"{root}/", None, None), "set", f"{root}/", Columns())
    monkeypatch.setattr(rows, "_base", "memory://set/")
    with fsspec.open("memory://set/a.jpg", "wb") as file:
        file.write(picture())
    fetch = rows._content({"bytes": None, "path": "memory://set/a.jpg"})
    assert callable(fetch)
    assert fetch() == picture()
    for path in ("memory://other/a.jpg", "memory://set/../a.jpg", "/etc/hostname", "file:///x"):
        with pytest.raises(ImageError, match="outside"):
            rows._content({"bytes": None, "path": path})


@pytest.mark.parametrize(
    ("name", "yes"),
    [
        ("a/b", True),
        ("a-b/c.d_1", True),
        ("a", False),
        ("a/b/c", False),
        ("../a", False),
        ("a/.b", False),
    ],
)
def test_what_can_be_a_name_on_the_hub(name: str, yes: bool) -> None:
    assert is_id(name) == yes


def test_plain_folders_are_no_repositories(tmp_path: Path) -> None:
    assert not is_repository(fill(tmp_path / "a", "real/a.jpg", "README.md"))
    assert not is_repository(fill(tmp_path / "b", "train/metadata.csv", "metadata.csv"))


# -- fair sets stay fair --------------------------------------------------------------------------


def test_drawn_faces_pass_the_audit_after_import_and_split(tmp_path: Path) -> None:
    write_drawn_set(tmp_path / "drawn", {"train": 40}, seed=3, size=48)
    import_set(from_folder(tmp_path / "drawn", {}), tmp_path / "in")
    split_set(tmp_path / "in", tmp_path / "out", ratios=(0.5, 0.2, 0.3), subsets=(20,))
    assert load_samples(tmp_path / "out").counts()["test"] == {"real": 12, "fake": 12}
    found = audit(tmp_path / "out" / "subset-20.csv")
    assert found.counts["train"] == {"real": 10, "fake": 10}
    assert found.passed, [one.found for one in found.findings if one.severity == "fatal"]
