"""Reading data sets: layouts, names, metadata, splits made here, and what must be refused."""

import builtins
import csv
import json
import os
import random
import shutil
import sys
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bonaface.errors import ConfigError, DataError, MissingExtraError
from bonaface.layouts import Draft, Kind, label_by, label_of, split_of
from bonaface.samples import Sample, Samples, assign_splits, copies, load_samples

REAL_DATA = Path(__file__).parents[1] / ".." / "shared" / "data"


def fill(root, *paths):
    """Files with content of their own; the reader of data sets never decodes them."""
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(path)
    return root


def numbered(root, folders, n=4):
    return fill(root, *(f"{folder}/{i:03}.jpg" for folder in folders for i in range(n)))


def standard(root, n=4):
    splits = ("train", "validation", "test")
    return numbered(root, [f"{split}/{label}" for split in splits for label in ("real", "fake")], n)


def table(root, rows, name="metadata.csv"):
    columns = list(dict.fromkeys(key for row in rows for key in row))
    path = root / name
    if name.endswith(".jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif name.endswith(".parquet"):
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(
            pyarrow.table({c: [row.get(c) for row in rows] for c in columns}), path
        )
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
    return root


def refused(data, **options):
    with pytest.raises(DataError) as caught:
        load_samples(data, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# -- the folder layout --


def test_the_standard_layout(tmp_path):
    samples = load_samples(standard(tmp_path), need=("train", "validation", "test"))
    assert samples.counts() == {
        split: {"real": 4, "fake": 4} for split in ("train", "validation", "test")
    }
    assert list(samples.counts()) == ["train", "validation", "test"]
    assert [row.path for row in samples.rows] == sorted(row.path for row in samples.rows)
    assert samples.rows[0] == Sample("test/fake/000.jpg", 1, "test")
    assert samples.root.is_absolute()
    assert samples.absolute(samples.rows[0]).read_text() == "test/fake/000.jpg"
    assert len(samples) == 24
    assert samples.notes == (
        "label folders read as real: real",
        "label folders read as fake: fake",
    )


@pytest.mark.parametrize(
    ("split", "real", "fake"),
    [
        ("Train", "REAL", "FAKE"),
        ("training", "0_real", "1_fake"),
        ("TRAIN", "1_real", "0_fake"),  # the number says nothing
        ("train", "real_images", "fake-images"),
        ("train", "original", "manipulated"),
        ("train", "Originals", "DeepFakes"),
        ("train", "authentic", "ai_generated"),
        ("train", "genuine", "AI"),
        ("train", "bona_fide", "spoof"),
        ("train", "bonafide", "synthetic"),
        ("train", "live", "tampered"),
        ("train", "pristine", "forged"),
        ("train_set", "RealFaces", "FaceSwap"),
        ("train", "original_sequences", "manipulated_sequences"),
    ],
)
def test_labels_and_splits_are_told_by_name(tmp_path, split, real, fake):
    samples = load_samples(numbered(tmp_path, [f"{split}/{real}", f"{split}/{fake}"]))
    assert samples.counts() == {"train": {"real": 4, "fake": 4}}
    assert {row.path.split("/")[1]: row.label for row in samples.rows} == {real: 0, fake: 1}


@pytest.mark.parametrize("name", ["valid", "val", "dev", "Validation"])
def test_names_of_the_validation_split(tmp_path, name):
    assert load_samples(numbered(tmp_path, [f"{name}/real"])).counts() == {
        "validation": {"real": 4, "fake": 0}
    }


@pytest.mark.parametrize(
    "name",
    [
        *("0", "1", "", "class0", "images", "unreal", "not_real", "nonfake", "real_and_fake"),
        *("real_fake", "1fake2real", "training_fake", "face2face", "liveportrait", "LivePortrait"),
    ],
)
def test_names_that_tell_no_label(name):
    assert label_of(name) is None


@given(st.sampled_from(["real", "fake"]), st.text("0123456789_- .", max_size=4), st.booleans())
def test_digits_and_separators_around_a_name_do_not_matter(word, around, upper):
    name = around + (word.upper() if upper else word) + around[::-1]
    assert label_of(name) == (word == "fake")


@given(st.text(max_size=12))
def test_any_name_can_be_asked(name):
    assert label_of(name) in (None, 0, 1)
    assert split_of(name) in (None, "train", "validation", "test")


@pytest.mark.parametrize("top", ["", "train/"])
def test_folders_named_by_number_are_refused_with_the_way_out(tmp_path, top):
    message = refused(numbered(tmp_path, [f"{top}0", f"{top}1"]))
    assert f"found {top}0, {top}1" in message
    assert "numbers do not say which is which: rename them to real and fake" in message


def test_unknown_label_folders_are_listed(tmp_path):
    message = refused(numbered(tmp_path, ["train/real", "train/fake", "train/mixed"]))
    assert "found train/mixed" in message
    assert "metadata.csv" in message


def test_empty_and_imageless_folders_are_no_label_folders(tmp_path):
    fill(standard(tmp_path), "train/logs/a.txt", "train/logs/.hidden.jpg")
    (tmp_path / "train" / "masks").mkdir()
    assert len(load_samples(tmp_path)) == 24


def test_folder_below_the_label_is_generator_or_source(tmp_path):
    fill(tmp_path, "train/fake/stylegan2/seed1/a.png", "train/fake/b.png", "train/real/ffhq/c.png")
    by_path = {row.path: row for row in load_samples(tmp_path).rows}
    assert by_path["train/fake/stylegan2/seed1/a.png"].generator == "stylegan2"
    assert by_path["train/fake/b.png"].generator is None
    assert by_path["train/real/ffhq/c.png"].source == "ffhq"
    assert by_path["train/real/ffhq/c.png"].generator is None


def test_contradictions_in_folders(tmp_path):
    assert "says both real and fake" in refused(fill(tmp_path / "a", "train/fake/real/x.jpg"))
    assert "swap the two levels" in refused(fill(tmp_path / "b", "fake/train/x.jpg"))
    assert "found both: train, fake" in refused(
        fill(tmp_path / "c", "train/real/x.jpg", "fake/y.jpg")
    )
    assert "merge those that mean validation" in refused(
        fill(tmp_path / "d", "val/real/x.jpg", "dev/real/y.jpg")
    )


def test_a_folder_too_high_is_hinted_at(tmp_path):
    standard(tmp_path / "archive" / "set")
    assert f"did you mean {tmp_path / 'archive' / 'set'}?" in refused(tmp_path)


def test_images_outside_label_folders(tmp_path):
    fill(standard(tmp_path), "cover.jpg", "train/x.png", "extra/y.jpg")
    samples = load_samples(tmp_path)
    assert len(samples) == 24
    assert samples.notes[-1] == (
        "3 images lie outside the label folders and are left out: cover.jpg, extra/y.jpg, "
        "train/x.png"
    )
    assert "found 1 outside such folders" in refused(fill(tmp_path / "flat", "a.jpg"))


def test_endings_and_litter(tmp_path):
    endings = [
        "jpg",
        "jpeg",
        "png",
        "webp",
        "bmp",
        "tif",
        "tiff",
        "avif",
        "heic",
        "heif",
        "hif",
        "JPG",
        "Png",
    ]
    fill(tmp_path, *(f"train/real/{i}.{ending}" for i, ending in enumerate(endings)))
    fill(tmp_path, "train/real/.x.jpg", "train/real/._1.jpg", "__MACOSX/train/real/a.jpg")
    fill(tmp_path, "train/Thumbs.db", "train/real/notes.txt", "README.md")
    samples = load_samples(tmp_path)
    assert len(samples) == len(endings)
    assert samples.notes[0].startswith("2 files are not images by their ending and are left out: ")


def test_nothing_to_read(tmp_path):
    assert "found nothing at" in refused(tmp_path / "none")
    assert "found none; see docs/data.md" in refused(tmp_path)
    assert "got the file" in refused(fill(tmp_path, "a.jpg") / "a.jpg")
    assert "cannot be read" in refused(tmp_path / ("x" * 300))


# -- links and names --


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links(tmp_path):
    root = standard(tmp_path / "set")
    elsewhere = numbered(tmp_path / "elsewhere", ["sdxl"])
    (root / "train/real/link.jpg").symlink_to(fill(tmp_path, "outside.jpg") / "outside.jpg")
    (root / "train/fake/sdxl").symlink_to(elsewhere / "sdxl")
    samples = load_samples(root)
    assert samples.counts()["train"] == {"real": 5, "fake": 8}
    assert "1 folders are links and were followed: train/fake/sdxl" in samples.notes

    (root / "train/fake/lost.jpg").symlink_to("gone.jpg")
    assert "1 links in" in refused(root)
    (root / "train/fake/lost.jpg").unlink()

    loop = root / "train/fake/loop"
    for target in (root, root / "train", elsewhere / "sdxl", loop):
        loop.symlink_to(target)
        message = refused(root)
        assert "same folder as" in message or "lead nowhere" in message
        loop.unlink()
    assert len(load_samples(root)) == 29


@pytest.mark.skipif(sys.platform != "linux", reason="bytes as file names")
def test_names_that_are_not_utf8(tmp_path):
    standard(tmp_path)
    odd = os.path.join(os.fsencode(tmp_path), b"train/real/caf\xe9.jpg")  # noqa: PTH118
    with open(odd, "wb") as file:  # noqa: PTH123
        file.write(b"x")
    message = refused(tmp_path)
    assert "train/real/caf\\xe9.jpg" in message
    assert "rename them" in message
    message.encode()


def test_names_in_any_script_and_with_odd_letters(tmp_path):
    names = ["é", "人物", "a b", "a,b", 'q"q', "x'y", "😀", "-rf", "a#b?c"]
    fill(tmp_path, *(f"train/real/{name}.jpg" for name in names))
    assert {Path(row.path).stem for row in load_samples(tmp_path).rows} == set(names)


def test_a_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    standard(tmp_path)
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("fake"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert "cannot be listed (Permission denied)" in refused(tmp_path)


# -- the metadata layout --


def people(root):
    fill(root, *(f"{i}.jpg" for i in range(6)))
    return [
        {
            "file_name": f"{i}.jpg",
            "label": ("real", "fake")[i % 2],
            "split": ("train", "val", "testing")[i // 2],
            "group": f"person {i // 2}",
            "generator": "sdxl" if i % 2 else None,
            "age": 20 + i,
            "gender": "",
            "race": None,
            "source": " web ",
        }
        for i in range(6)
    ]


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet"])
def test_metadata_in_three_forms(tmp_path, name):
    rows = people(tmp_path)
    samples = load_samples(table(tmp_path, rows, name))
    assert samples.rows[3] == Sample(
        "3.jpg", 1, "validation", "person 1", "sdxl", "23", None, None, "web"
    )
    assert samples.counts() == {
        split: {"real": 1, "fake": 1} for split in ("train", "validation", "test")
    }
    assert samples.notes == ()
    assert load_samples(tmp_path / name).rows == samples.rows


def test_the_three_forms_are_one_data_set(tmp_path):
    prints = set()
    for name in ("metadata.csv", "metadata.jsonl", "metadata.parquet"):
        root = tmp_path / name.replace(".", "-")
        prints.add(load_samples(table(root, people(root), name)).fingerprint())
    assert len(prints) == 1


def test_another_table_beside_the_images_can_be_named(tmp_path):
    standard(tmp_path)
    rows = [{"file_name": f"train/{label}/000.jpg"} for label in ("real", "fake")]
    table(tmp_path, rows, "subset-2.csv")
    samples = load_samples(tmp_path / "subset-2.csv")
    assert samples.root == tmp_path
    assert samples.counts() == {"train": {"real": 1, "fake": 1}}
    assert samples.notes == (
        "22 images have no row in the metadata, left out: test/fake/000.jpg, test/fake/001.jpg, "
        "test/fake/002.jpg and 19 more",
    )
    # The folder itself is read as before, and what our own tools left there is no surprise.
    for name in ("failures.csv", "split_report.json", "splits.jsonl", "crop_recipe.json"):
        (tmp_path / name).write_text("{}")
    assert len(load_samples(tmp_path)) == 24
    assert len(load_samples(tmp_path).notes) == 2
    assert "a column file_name in" in refused(tmp_path / "failures.csv")
    (tmp_path / "labels.csv").touch()
    assert "labels.csv" in load_samples(tmp_path).notes[0]


def test_names_of_labels_and_of_files_can_be_told(tmp_path):
    numbered(tmp_path, ["Celeb-synth", "0", "real/1"])
    told = label_by({"celeb-SYNTH": 1, "0": 0})
    samples = load_samples(tmp_path, label_of=told)
    assert {row.path.split("/")[0]: row.label for row in samples.rows} == {
        "Celeb-synth": 1,
        "0": 0,
        "real": 0,
    }
    assert (told("fake"), told("1")) == (1, None)
    table(tmp_path, [{"file_name": "Celeb-synth/000.jpg", "label": "0"}])
    assert "contradicts" in refused(tmp_path, label_of=told)
    clips = fill(tmp_path / "clips", "train/real/a.MP4", "train/real/b.jpg")
    samples = load_samples(clips, kind=Kind(frozenset({".mp4"}), "clips"))
    assert [row.path for row in samples.rows] == ["train/real/a.MP4"]
    assert "1 files are not clips by their ending" in samples.notes[0]
    assert "expected clips (.mov)" in refused(clips, kind=Kind(frozenset({".mov"}), "clips"))


def test_two_metadata_files_need_a_choice(tmp_path):
    rows = people(tmp_path)
    table(table(tmp_path, rows), rows[:4], "metadata.jsonl")
    assert "metadata.csv, metadata.jsonl; keep one" in refused(tmp_path)
    assert len(load_samples(tmp_path / "metadata.jsonl")) == 4


def test_unused_columns_and_images_without_row_are_noted(tmp_path):
    fill(tmp_path, "train/real/a.jpg", "train/real/b.jpg")
    for name in ("metadata.csv", "metadata.parquet"):
        table(tmp_path, [{"file_name": "train/real/a.jpg", "pose": 3, "blur": 1}], name)
        samples = load_samples(tmp_path)
        assert samples.rows == (Sample("train/real/a.jpg", 0, "train"),)
        assert samples.notes == (
            "columns that are not used: blur, pose",
            "1 images have no row in the metadata, left out: train/real/b.jpg",
        )
        (tmp_path / name).unlink()


def test_what_columns_do_not_tell_the_folders_may(tmp_path):
    fill(tmp_path, "train/fake/sdxl/a.jpg", "train/real/ffhq/b.jpg")
    rows = [{"file_name": "train/fake/sdxl/a.jpg"}, {"file_name": "./train/real//ffhq/b.jpg"}]
    fake, real = load_samples(table(tmp_path, rows)).rows
    assert (fake.label, fake.split, fake.generator, fake.source) == (1, "train", "sdxl", None)
    assert (real.label, real.split, real.generator, real.source) == (0, "train", None, "ffhq")
    rows[0]["generator"] = "flux"
    assert load_samples(table(tmp_path, rows)).rows[0].generator == "flux"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"label": "0"}, "have a number as label"),
        ({"label": "1.0"}, "have a number as label"),
        ({"label": "maybe"}, "have a label that means neither"),
        ({"label": ""}, "have no label"),
        ({"split": "holdout"}, "unknown split; expected one of train, validation, test"),
        ({"file_name": "gone.jpg"}, "name files that are not there"),
        ({"file_name": "notes.txt"}, "not images by their ending"),
        ({"file_name": "1.jpg"}, "name a file a second time"),
        ({"file_name": ""}, "have no file_name"),
        ({"file_name": "../x.jpg"}, "outside the data set"),
        ({"file_name": "a/../../x.jpg"}, "outside the data set"),
        ({"file_name": "..\\x.jpg"}, "outside the data set"),
        ({"file_name": "/etc/x.jpg"}, "outside the data set"),
        ({"file_name": "C:\\x.jpg"}, "outside the data set"),
        ({"file_name": "\\\\host\\share\\x.jpg"}, "outside the data set"),
    ],
)
def test_bad_rows_are_counted_and_named(tmp_path, row, words):
    rows = people(tmp_path)
    fill(tmp_path, "notes.txt")
    rows[0] |= row
    rows[0], rows[1] = rows[1], rows[0]  # so that a doubled name comes second
    message = refused(table(tmp_path, rows))
    assert message.startswith("1 rows of ")
    assert words in message
    assert "line 3: " in message


def test_numeric_labels_with_telling_folders(tmp_path):
    paths = [f"{name}/{i}.jpg" for name in ("real", "fake") for i in range(2)]
    fill(tmp_path, *paths)
    one_is_real = [
        {"file_name": path, "label": int(path.startswith("real")), "split": "test"}
        for path in paths
    ]
    samples = load_samples(table(tmp_path, one_is_real, "metadata.jsonl"))
    assert [row.label for row in samples.rows] == [1, 1, 0, 0]
    one_is_real[-1]["label"] = 1
    message = refused(table(tmp_path, one_is_real, "metadata.jsonl"))
    assert "contradicts the name of the folder" in message
    assert "line 4: fake/1.jpg" in message


def test_metadata_against_the_folders(tmp_path):
    standard(tmp_path)
    row = {"file_name": "test/fake/000.jpg", "label": "real", "split": "test"}
    assert "label that contradicts the name" in refused(table(tmp_path, [row]))
    row |= {"label": "fake", "split": "train"}
    assert "split that contradicts the split folder" in refused(table(tmp_path, [row]))
    row |= {"split": "testing"}
    assert load_samples(table(tmp_path, [row])).rows == (Sample("test/fake/000.jpg", 1, "test"),)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("metadata.csv", b"", "expected a column file_name"),
        ("metadata.csv", b"path,label\na.jpg,real\n", "found path, label"),
        ("metadata.csv", b"file_name;label\na.jpg;real\n", "found file_name;label"),
        ("metadata.csv", b"file_name,label\n", "expected rows"),
        ("metadata.csv", b"file_name,label\na,b.jpg,real\n", "expected 2 cells in line 2"),
        ("metadata.csv", b"file_name,label,label\na.jpg,x,y\n", "once, found label again"),
        ("metadata.csv", b'file_name,label\n"a.jpg,real\n', "is not CSV"),
        ("metadata.csv", b"file_name,label\na\0.jpg,real\n", "a\\x00.jpg"),
        ("metadata.csv", b"file_name,label\n\xe9.jpg,real\n", "in UTF-8"),
        ("metadata.csv", b"file_name\n" + b"x" * 200_000, "is not CSV"),
        ("metadata.jsonl", b'{"file_name": "a.jpg"', "line 1 of"),
        ("metadata.jsonl", b'\n["a.jpg"]\n', "expected an object in line 2"),
        ("metadata.jsonl", b'{"label": "real"}\n', "have no file_name"),
        ("metadata.jsonl", b'{"file_name": "\\ud800.jpg"}\n', "is not JSON"),
        ("metadata.jsonl", b"[" * 100_000, "is not JSON"),
        ("metadata.jsonl", b'{"a": ' + b"9" * 5000 + b"}", "is not JSON"),
        ("metadata.parquet", b"PAR1junkPAR1", "not a readable Parquet file"),
        ("metadata.parquet", b"", "not a readable Parquet file"),
    ],
)
def test_malformed_metadata(tmp_path, name, content, words):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    fill(tmp_path, "a.jpg")
    (tmp_path / name).write_bytes(content)
    assert words in refused(tmp_path)


def test_csv_with_mark_and_windows_lines_and_quotes(tmp_path):
    fill(tmp_path, "train/real/a,b.jpg", "train/fake/c.jpg")
    content = (
        '\ufefffile_name,group\r\n"train/real/a,b.jpg","two\nlines"\r\n\r\ntrain\\fake\\c.jpg,\r\n'
    )
    (tmp_path / "metadata.csv").write_text(content, encoding="utf-8", newline="")
    fake, real = load_samples(tmp_path).rows
    assert (real.path, real.group) == ("train/real/a,b.jpg", "two\nlines")
    assert (fake.path, fake.group) == ("train/fake/c.jpg", None)


def test_composed_and_decomposed_names_meet(tmp_path):
    on_disk = unicodedata.normalize("NFD", "train/real/é.jpg")
    fill(tmp_path, on_disk)
    rows = [{"file_name": unicodedata.normalize("NFC", on_disk)}]
    assert load_samples(table(tmp_path, rows)).rows[0].path == on_disk


def test_metadata_below_the_top_is_noted(tmp_path):
    fill(standard(tmp_path), "train/metadata.csv")
    assert "metadata is read at the top only, so not from train/metadata.csv" in (
        load_samples(tmp_path).notes
    )


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    fill(tmp_path, "train/real/a.jpg", "metadata.parquet")
    real_import = builtins.__import__

    def lack(name, *args, **kwargs):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", lack)
    with pytest.raises(MissingExtraError, match=r"bonaface\[train\]"):
        load_samples(tmp_path)


# -- splits made here --


def test_a_pair_without_splits_is_split_by_label(tmp_path):
    numbered(tmp_path, ["real", "fake"], n=50)
    samples = load_samples(tmp_path, need=("train", "validation", "test"))
    assert samples.counts() == {
        "train": {"real": 40, "fake": 40},
        "validation": {"real": 5, "fake": 5},
        "test": {"real": 5, "fake": 5},
    }
    assert samples.notes[-1] == (
        "no splits found: split here into train / validation / test as 0.8 / 0.1 / 0.1, "
        "by label, by generator and by group where known, seed 0"
    )
    assert load_samples(tmp_path).rows == samples.rows
    assert load_samples(tmp_path, seed=1).rows != samples.rows
    assert load_samples(tmp_path, ratios=(0.5, 0, 0.5)).counts() == {
        "train": {"real": 25, "fake": 25},
        "test": {"real": 25, "fake": 25},
    }


def test_the_split_does_not_hang_on_the_order_of_the_disk(tmp_path):
    paths = [f"{label}/{i}.jpg" for label in ("real", "fake") for i in range(30)]
    rows = []
    for seed in range(3):
        random.Random(seed).shuffle(paths)
        rows.append(load_samples(fill(tmp_path / str(seed), *paths)).rows)
    assert rows[0] == rows[1] == rows[2]


def test_ratios_do_not_touch_splits_that_exist(tmp_path):
    samples = load_samples(standard(tmp_path), ratios=(1, 0, 0))
    assert len(samples.counts()) == 3
    assert samples.notes[-1] == "the data set has its own splits; the ratios were not used"


@settings(max_examples=60, deadline=None)
@given(
    groups=st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 4)).filter(any), min_size=1, max_size=40
    ),
    seed=st.integers(0, 3),
)
def test_groups_stay_whole_and_shares_are_kept(groups, seed):
    drafts = [
        Draft(f"{g}-{label}-{i}.jpg", label, None, group=str(g))
        for g, sizes in enumerate(groups)
        for label, n in enumerate(sizes)
        for i in range(n)
    ]
    splits = assign_splits(Path("/nowhere"), drafts, (0.6, 0.2, 0.2), seed)
    assert sorted(splits) == sorted(draft.path for draft in drafts)
    rows = [draft._replace(split=splits[draft.path]) for draft in drafts]
    assert len({(row.group, row.split) for row in rows}) == len(groups)
    for kind in (lambda s: s[0] and s[1], lambda s: not s[1], lambda s: not s[0]):
        members = {str(g) for g, sizes in enumerate(groups) if kind(sizes)}
        counts = Counter(row.split for row in rows if row.group in members)
        for split, share in (("train", 0.6), ("validation", 0.2), ("test", 0.2)):
            assert abs(counts[split] - share * counts.total()) <= 16  # two groups of the largest


def test_each_split_gets_its_share_of_each_generator():
    sizes = {"gan": 100, "sdxl": 40, "flux": 10, **{f"rare{i}": 1 for i in range(20)}}
    drafts = [
        Draft(f"{name}/{i}.jpg", 1, None, generator=name)
        for name, n in sizes.items()
        for i in range(n)
    ] + [Draft(f"real/{i}.jpg", 0, None) for i in range(100)]
    splits = assign_splits(Path("/nowhere"), drafts, (0.8, 0.1, 0.1), 3)
    seen = Counter((draft.generator, splits[draft.path]) for draft in drafts)
    for name, n in {**sizes, None: 100}.items():
        if n > 1:
            assert [seen[name, s] for s in ("train", "validation", "test")] == [
                round(n * share) for share in (0.8, 0.1, 0.1)
            ]
    # Of generators with one picture, too, some are tested on.
    rare = Counter(split for path, split in splits.items() if path.startswith("rare"))
    assert rare == {"train": 16, "validation": 2, "test": 2}


def test_copies_and_their_groups_stay_together_where_the_split_is_made(tmp_path):
    fill(tmp_path, *(f"{label}/{i}.jpg" for label in ("real", "fake") for i in range(40)))
    shutil.copy(tmp_path / "real/0.jpg", tmp_path / "real/copy.jpg")
    shutil.copy(tmp_path / "real/1.jpg", tmp_path / "fake/copy.jpg")
    (tmp_path / "real/empty.jpg").touch()
    (tmp_path / "fake/empty.jpg").touch()
    for seed in range(8):
        found = {row.path: row.split for row in load_samples(tmp_path, seed=seed).rows}
        assert found["real/copy.jpg"] == found["real/0.jpg"]
        assert found["fake/copy.jpg"] == found["real/1.jpg"]
    # Whole groups are joined by one file that they share.
    rows = [Draft(f"real/{i}.jpg", 0, None, group=str(i // 10)) for i in range(40)]
    rows += [Draft("real/copy.jpg", 0, None, group="3")]
    for seed in range(8):
        found = assign_splits(tmp_path, rows, (0.4, 0.3, 0.3), seed)
        assert len({found[row.path] for row in rows if row.group in "03"}) == 1
    assert len(set(found.values())) == 3
    assert [[row.path for row in alike] for alike in copies(tmp_path, rows)] == [
        ["real/0.jpg", "real/copy.jpg"]
    ]


def test_partly_filled_split_column(tmp_path):
    rows = people(tmp_path)
    rows[2]["split"] = None
    assert "1 of 6 have none: 2.jpg; fill in the column split" in refused(table(tmp_path, rows))


@pytest.mark.parametrize(
    "ratios", [(0.5, 0.5), (0.9, 0.2, 0.1), (1.5, -0.5, 0), (float("nan"),) * 3]
)
def test_senseless_ratios_and_needs(tmp_path, ratios):
    with pytest.raises(ConfigError, match="add up to 1"):
        load_samples(tmp_path, ratios=ratios)
    with pytest.raises(ConfigError, match="got 'dev'"):
        load_samples(tmp_path, need=("dev",))


# -- what must hold --


def test_needed_splits(tmp_path):
    numbered(tmp_path, ["train/real", "train/fake", "test/real"])
    assert load_samples(tmp_path, need=("train",)).counts()["train"] == {"real": 4, "fake": 4}
    message = refused(tmp_path, need={"test"})
    assert "the split test" in message
    assert "found no fake ones (train: 4 real, 4 fake; test: 4 real, 0 fake)" in message
    assert "add images under test/fake" in message
    assert "no real and no fake ones" in refused(tmp_path, need=["validation"])


def test_the_same_picture_in_two_splits(tmp_path):
    standard(tmp_path)
    assert len(load_samples(tmp_path)) == 24
    shutil.copy(tmp_path / "train/real/000.jpg", tmp_path / "test/real/renamed.png")
    message = refused(tmp_path)
    assert message.startswith("1 images of ")
    assert "worthless: test/real/renamed.png = train/real/000.jpg;" in message
    (tmp_path / "test/real/renamed.png").rename(tmp_path / "train/real/renamed.png")
    assert len(load_samples(tmp_path)) == 25  # twice in one split leaks nothing


def test_copies_are_told_by_every_byte(tmp_path):
    standard(tmp_path)
    start = b"\0" * (3 * 2**16)
    (tmp_path / "train/real/a.bmp").write_bytes(start + b"a")
    (tmp_path / "test/real/b.bmp").write_bytes(start + b"b")
    for split in ("train", "test"):  # of a size that others have too, and the same at first
        (tmp_path / split / "real/d.bmp").write_bytes(start + b"dd" + split.encode())
    (tmp_path / "validation/real/d.bmp").write_bytes(start + b"ddother")
    (tmp_path / "train/real/e.bmp").write_bytes(start + b"eetest")
    assert len(load_samples(tmp_path)) == 30
    (tmp_path / "validation/fake/c.bmp").write_bytes(start + b"b")
    assert "test/real/b.bmp = validation/fake/c.bmp" in refused(tmp_path)


def test_empty_files_are_samples_not_copies(tmp_path):
    standard(tmp_path)
    (tmp_path / "train/real/e.jpg").touch()
    (tmp_path / "test/real/e.jpg").touch()
    assert len(load_samples(tmp_path)) == 26


def test_a_group_in_two_splits(tmp_path):
    rows = people(tmp_path)
    rows[5]["group"] = "person 0"
    message = refused(table(tmp_path, rows))
    assert message.startswith("1 groups of ")
    assert "person 0 in train and test" in message


# -- Samples --


def test_split(tmp_path):
    samples = load_samples(standard(tmp_path))
    parts = [samples.split(name) for name in ("train", "validation", "test")]
    assert sorted(row.path for part in parts for row in part.rows) == [
        row.path for row in samples.rows
    ]
    assert parts[0].counts() == {"train": {"real": 4, "fake": 4}}
    assert parts[0].notes == samples.notes
    assert parts[0].split("test").counts() == {}
    with pytest.raises(DataError, match="train, validation, test, got 'val'"):
        samples.split("val")


def test_fingerprint(tmp_path):
    first = load_samples(standard(tmp_path / "a"))
    moved = load_samples(standard(tmp_path / "b"))
    for row in moved.rows:
        os.utime(moved.absolute(row), (0, 0))
    assert first.fingerprint() == moved.fingerprint()
    assert len(bytes.fromhex(first.fingerprint())) == 32
    assert first.split("train").fingerprint() != first.fingerprint()

    def changed(**values):
        row = Sample(**{name: values.get(name, getattr(rows[0], name)) for name in fields})
        return Samples(first.root, (row, *rows[1:])).fingerprint()

    rows, fields = first.rows, Sample.__slots__
    assert changed() == first.fingerprint()
    assert changed(generator="x") == first.fingerprint()
    assert changed(label=0) != first.fingerprint()
    assert changed(split="train") != first.fingerprint()
    assert changed(group="g") != first.fingerprint()
    moved.absolute(rows[0]).write_text("other size")
    assert moved.fingerprint() != first.fingerprint()
    moved.absolute(rows[0]).unlink()
    with pytest.raises(DataError, match="read the data set again"):
        moved.fingerprint()


def made(n_real, n_fake, *, group=1, split="train"):
    rows = [
        Sample(f"{split}/{label}/{i:04}.jpg", label, split, group=f"{label}g{i // group}")
        for label, n in enumerate((n_real, n_fake))
        for i in range(n)
    ]
    return Samples(Path("/data"), tuple(sorted(rows, key=lambda row: row.path)))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 5), st.integers(0, 9))
def test_limit_is_balanced_nested_and_repeatable(n_real, n_fake, group, seed):
    samples = made(n_real, n_fake, group=group)
    before: set[Sample] = set()
    for n in (1, 2, 5, 10, 33, 100):
        part = samples.limit(n, seed)
        assert part.rows == samples.limit(n, seed).rows
        assert len(part) == min(n, n_real + n_fake)
        assert before <= set(part.rows) <= set(samples.rows)
        assert list(part.rows) == sorted(part.rows, key=lambda row: row.path)
        labels = Counter(row.label for row in part.rows)
        spare = min(n_real, n_fake)
        assert abs(labels[0] - labels[1]) <= 1 or min(labels[0], labels[1]) == spare
        for label in (0, 1):  # at most one group of each class is cut
            sizes = Counter(row.group for row in samples.rows)
            taken = Counter(row.group for row in part.rows if row.label == label)
            assert sum(taken[g] < sizes[g] for g in taken) <= 1
        before = set(part.rows)


def test_origins_are_sources_of_reals_and_generators_of_fakes():
    rows = (
        Sample("a.jpg", 0, "train", source="ffhq", generator="no"),
        Sample("b.jpg", 1, "train", source="ffhq", generator="sdxl"),
        Sample("c.jpg", 1, "train", generator="sdxl"),
        Sample("d.jpg", 0, "test"),
    )
    assert Samples(Path(), rows).origins() == {
        "test": {"real": {"": 1}},
        "train": {"real": {"ffhq": 1}, "fake": {"sdxl": 2}},
    }


def test_limit_counts_each_split_and_hangs_on_the_seed():
    both = Samples(Path("/d"), made(50, 50).rows + made(50, 50, split="test").rows)
    assert both.limit(10).counts() == {
        "train": {"real": 5, "fake": 5},
        "test": {"real": 5, "fake": 5},
    }
    assert both.limit(10, seed=1).rows != both.limit(10, seed=2).rows
    with pytest.raises(ConfigError, match="at least 1"):
        both.limit(0)


def test_limit_takes_both_sides_of_a_pair():
    rows = [
        Sample(f"train/{label}/{i}.jpg", label, "train", group=str(i))
        for label in (0, 1)
        for i in range(100)
    ]
    taken = Counter(row.group for row in Samples(Path("/d"), tuple(rows)).limit(40).rows)
    assert set(taken.values()) == {2}


def test_a_row_carries_no_dict():  # there may be 100,000 of them
    assert not hasattr(Sample("a.jpg", 0, "train"), "__dict__")


# -- real data --


@pytest.mark.realdata
@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="the real faces are not here")
@pytest.mark.parametrize(
    ("name", "counts"),
    [
        (
            "faceswap",
            {"train": (4000, 4000), "validation": (750, 750), "test": (1250, 1250)},
        ),
        ("stylegan", {"train": (700, 700), "validation": (100, 100), "test": (200, 200)}),
        ("fairface", {"train": (1400, 0), "test": (1400, 0)}),
        ("diffusion", {"train": (0, 380), "validation": (0, 60)}),
        ("generated", {"test": (0, 480)}),
        ("portraits_sd3", {"test": (0, 200)}),
    ],
)
def test_real_data_sets(name, counts):
    samples = load_samples(REAL_DATA / name)
    assert samples.counts() == {
        split: {"real": real, "fake": fake} for split, (real, fake) in counts.items()
    }
    assert samples.notes == ()
    if any(0 in pair for pair in counts.values()):
        assert "expected real and fake" in refused(REAL_DATA / name, need=tuple(counts))


def test_a_split_made_here_is_remembered_and_one_that_came_is_not(tmp_path):
    pair = numbered(tmp_path / "pair", ["real", "fake"], 20)
    assert load_samples(pair).ratios == (0.8, 0.1, 0.1)
    assert load_samples(pair, ratios=(0.5, 0.25, 0.25)).ratios == (0.5, 0.25, 0.25)
    assert load_samples(standard(tmp_path / "whole"), ratios=(0.5, 0.25, 0.25)).ratios is None


def test_fingerprint_without_the_split_is_that_of_the_files(tmp_path):
    pair = numbered(tmp_path, ["real", "fake"], 20)
    one, other = load_samples(pair), load_samples(pair, ratios=(0.5, 0.25, 0.25))
    assert one.fingerprint() != other.fingerprint()
    assert one.fingerprint(with_split=False) == other.fingerprint(with_split=False)
