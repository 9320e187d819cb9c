from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest

import portraits
from bonaface import cropping
from bonaface.cropping import FAILURES, JOURNAL, REPORT, crop_faces, crop_names, wilson
from bonaface.crops import RECIPE_FILE, CropRecipe, read_recipe
from bonaface.errors import ConfigError, DataError, ImageError
from bonaface.faces import CenterFace
from bonaface.images import read_image
from bonaface.samples import Sample, Samples, load_samples
from finders import Blocks
from folders import listed, table, tree

REAL_DATA = Path(__file__).parents[2] / "shared" / "data"
RECIPE = CropRecipe(origin="crops cut by a test")


def photo(
    path: Path, *faces: tuple[int, int, int], size: tuple[int, int] = (200, 320), seed: int = 0
) -> Path:
    """Noise with white squares (left, top, side)."""
    pixels = np.random.default_rng(seed).integers(0, 200, (*size, 3), np.uint8)
    for left, top, side in faces:
        pixels[top : top + side, left : left + side] = 255
    return save(path, pixels)


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def crop_set(source: Path, out: Path, recipe: CropRecipe = RECIPE, **options: object) -> dict:
    options.setdefault("finder", Blocks())
    return crop_faces(load_samples(source), out, recipe, **options).to_dict()  # type: ignore[arg-type]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Twelve photographs; in each split one real has no face and one fake too small a one."""
    folder = tmp_path / "source"
    for at, split in enumerate(("train", "validation", "test")):
        photo(folder / split / "real" / "none.png", seed=4 * at)
        photo(folder / split / "real" / "face.png", (90, 50, 80), seed=4 * at + 1)
        photo(folder / split / "fake" / "gan" / "small.png", (90, 50, 40), seed=4 * at + 2)
        photo(folder / split / "fake" / "gan" / "face.png", (70, 40, 90), seed=4 * at + 3)
    return folder


# -- what is cut ----------------------------------------------------------------------------------


def test_the_largest_face_of_a_photograph_is_cut_out(tmp_path: Path) -> None:
    canvas = portraits.group([(40, 60, 150), (330, 100, 300)], 500, 700)
    source = save(tmp_path / "in" / "test" / "real" / "two.png", canvas).parents[2]
    finder = CenterFace(threads=1)
    found = crop_set(source, tmp_path / "out", finder=finder)
    assert found["finder"] == "CenterFace"
    crop = np.asarray(Image.open(tmp_path / "out" / "test" / "real" / "two.png"))
    # It is a piece of the photograph, about the large head's face and as large as the margin says.
    _, _, (x, y), _ = cv2.minMaxLoc(cv2.matchTemplate(canvas, crop, cv2.TM_SQDIFF))
    side = crop.shape[0]
    np.testing.assert_array_equal(crop, canvas[y : y + side, x : x + side])
    scale = 300 / 200
    assert side == pytest.approx(1.3 * (portraits.BOX[3] - portraits.BOX[1]) * scale, rel=0.1)
    assert x + side / 2 == pytest.approx(330 + 100 * scale, abs=15)
    assert y + side / 2 == pytest.approx(100 + 99 * scale, abs=15)
    # And it is what inference cuts.
    np.testing.assert_array_equal(crop, RECIPE.cut(canvas, finder.find(canvas)[0]))


def test_a_crop_is_used_whole_as_its_centre_square_and_shrunk(tmp_path: Path) -> None:
    path = photo(tmp_path / "in" / "test" / "real" / "a.png", (130, 100, 420), size=(600, 660))
    found = crop_set(path.parents[2], tmp_path / "out")
    assert (found["counts"]["cut"], found["counts"]["whole"]) == (0, 1)
    assert read_recipe(tmp_path / "out") is None  # nobody cut it so: `train` will measure
    assert "measures" in found["notes"][0]
    (note,) = found["notes"]  # such a set would be trained on with a recipe that is not its own
    assert "crops already" in note
    crop = read_image(tmp_path / "out" / "test" / "real" / "a.png").pixels
    square = read_image(path).pixels[:, 30:630]
    np.testing.assert_array_equal(crop, RECIPE.shrink(square))
    assert crop.shape == (512, 512, 3)


@pytest.mark.parametrize(("other", "several"), [(50, 1), (48, 0)])
def test_faces_of_half_the_size_make_the_label_doubtful(
    tmp_path: Path, other: int, several: int
) -> None:
    folder = tmp_path / "in"
    photo(folder / "test" / "real" / "a.png", (20, 20, 100), (200, 20, other))
    found = crop_set(folder, tmp_path / "out")
    assert found["counts"]["several_faces"] == several
    assert found["splits"]["test"]["real"]["several_faces"] == several
    assert [note for note in found["notes"] if "label may mean another" in note] == found["notes"]
    assert len(found["notes"]) == several
    assert found["counts"]["cut"] == 1


def test_what_cannot_be_cut_is_listed_with_its_reason(source: Path, tmp_path: Path) -> None:
    (source / "train" / "real" / "garbage.jpg").write_bytes(b"no picture")
    whole = save(tmp_path / "whole.jpg", portraits.portrait()).read_bytes()
    (source / "train" / "fake" / "gan" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    photo(source / "train" / "real" / "tiny.png", size=(10, 12))
    out = tmp_path / "out"
    found = crop_set(source, out)
    told = {row["path"]: row["reason"] for row in table(out / FAILURES)}
    assert told == {
        "train/real/garbage.jpg": "not an image",
        "train/fake/gan/cut.jpg": "truncated",
        "train/real/tiny.png": "smaller than 16 px (12 x 10)",
        **{f"{s}/real/none.png": "no face found" for s in ("train", "validation", "test")},
        **{
            f"{s}/fake/gan/small.png": "face smaller than 64 px (40.0 px)"
            for s in ("train", "validation", "test")
        },
    }
    for row in table(out / FAILURES):
        split, label = row["path"].split("/")[:2]
        assert (row["split"], row["label"]) == (split, label)
    counts = found["counts"]
    assert (counts["asked"], counts["cut"], counts["whole"], counts["failed"]) == (15, 6, 0, 9)
    assert counts["reasons"] == {
        "face smaller than 64 px": 3,
        "no face found": 3,
        "not an image": 1,
        "smaller than 16 px": 1,
        "truncated": 1,
    }
    by_split = found["splits"]["train"]
    assert by_split["real"] == {
        "asked": 4,
        "cut": 1,
        "whole": 0,
        "failed": 3,
        "reasons": {"no face found": 1, "not an image": 1, "smaller than 16 px": 1},
        "several_faces": 0,
    }


# -- the data set that comes out ------------------------------------------------------------------


def test_it_is_read_again_with_all_that_was_known(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    rows = []
    for at, (split, label) in enumerate(
        (s, n) for s in ("train", "validation", "test") for n in ("real", "fake") for _ in range(2)
    ):
        photo(folder / "all" / f"{at}.png", (90, 50, 80), seed=at)
        rows.append(
            {
                "file_name": f"all/{at}.png",
                "label": label,
                "split": split,
                "group": f'person "{split}", {at // 3}',
                "generator": "../StyleGAN 2: x" if label == "fake" else "",
                "age": "30-39",
                "gender": "female" if at % 2 else "",
                "race": "Südasiatisch, other",
                "source": "" if label == "fake" else ".hidden",
            }
        )
    out = tmp_path / "out"
    crop_set(listed(folder, rows), out)
    before, after = load_samples(folder), load_samples(out)
    assert len(after) == 12

    def known(samples: Samples) -> list[Sample]:
        rows = [replace(row, path=Path(row.path).stem) for row in samples.rows]
        return sorted(rows, key=lambda row: row.path)

    assert known(after) == known(before)
    assert after.counts() == before.counts()
    assert {path.parent.relative_to(out).as_posix() for path in out.rglob("*.png")} == {
        f"{split}/{below}"
        for split in ("train", "validation", "test")
        for below in ("real/hidden", "fake/StyleGAN_2_x")
    }


def test_labels_and_splits_hold_without_the_metadata_too(source: Path, tmp_path: Path) -> None:
    crop_set(source, tmp_path / "out")
    with_table = load_samples(tmp_path / "out")
    (tmp_path / "out" / "metadata.csv").unlink()
    assert load_samples(tmp_path / "out").rows == with_table.rows
    assert with_table.rows[0].generator == "gan"


def test_splits_made_by_ratios_are_written_down(tmp_path: Path) -> None:
    for at in range(10):
        for label in ("real", "fake"):
            seed = 2 * at + (label == "fake")
            photo(tmp_path / "in" / label / f"{at}.png", (90, 50, 80), seed=seed)
    samples = load_samples(tmp_path / "in", ratios=(0.6, 0.2, 0.2))
    crop_faces(samples, tmp_path / "out", RECIPE, Blocks())
    again = load_samples(tmp_path / "out")
    assert again.ratios is None
    assert again.counts() == samples.counts() == {
        "train": {"real": 6, "fake": 6},
        "validation": {"real": 2, "fake": 2},
        "test": {"real": 2, "fake": 2},
    }  # fmt: skip


def test_training_finds_the_recipe(source: Path, tmp_path: Path) -> None:
    recipe = CropRecipe(1.6, (0.0, -0.05), 300, 70, "crops cut by a test")
    crop_set(source, tmp_path / "out", recipe)
    told = read_recipe(tmp_path / "out")
    assert told == recipe
    assert told is not None
    assert told.origin == recipe.origin


def test_names_are_unique_and_stay_inside(tmp_path: Path) -> None:
    paths = [
        "test/real/a.jpg",
        "test/real/a.png",
        "test/real/deep/a.jpg",
        "test/real/A.JPG",
        "test/real/b b.jpg",
        "test/real/b_b.jpg",
        "test/real/___.jpg",
        f"test/real/{'ü' * 120}.jpg",
        f"test/real/{'ü' * 121}.jpg",
    ]
    digest = "-" + crop_names(made("test/real/a.jpg", "test/real/a.png"))[paths[0]].split("-")[1]
    paths.append(f"test/real/a{digest.removesuffix('.png')}.jpg")  # named as another will be
    names = crop_names(made(*paths))
    assert len({name.casefold() for name in names.values()}) == len(paths)
    for name in names.values():
        assert name.startswith("test/real/")
        assert name.endswith(".png")
        assert ".." not in name
        parts = name.split("/")
        assert len(parts) == 3
        assert not parts[2].startswith((".", "_"))
        assert len(parts[2].encode()) < 200
    assert names["test/real/a.png"] == crop_names(made(*reversed(paths)))["test/real/a.png"]
    pair = crop_names(made("test/real/b.png", "test/real/B.png")).values()
    assert len({name.casefold() for name in pair}) == 2
    assert crop_names(made("test/real/x.jpg"))["test/real/x.jpg"] == "test/real/x.png"


def made(*paths: str) -> Samples:
    return Samples(Path("/d"), tuple(Sample(path, 0, "test") for path in paths))


def test_one_crop_in_two_splits_is_kept_for_the_test(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    for split in ("train", "validation", "test"):
        photo(folder / split / "real" / f"{split}.png", (90, 50, 80), seed=1)
    # The same pixels in other bytes are no copy to `load_samples`; their crops would be.
    same = read_image(folder / "test" / "real" / "test.png").pixels
    Image.fromarray(same).save(folder / "train" / "real" / "train.png", compress_level=1)
    Image.fromarray(same).save(folder / "validation" / "real" / "validation.png", compress_level=2)
    photo(folder / "train" / "fake" / "other.png", (90, 50, 80), seed=2)
    found = crop_set(folder, out)
    assert found["counts"]["reasons"] == {"same crop as a picture of another split": 2}
    assert [row.path for row in load_samples(out).rows] == [
        "test/real/test.png",
        "train/fake/other.png",
    ]


def test_where_nothing_can_be_cut_it_says_so(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "test" / "real" / "a.png")
    found = crop_set(tmp_path / "in", tmp_path / "out")
    assert found["counts"]["failed"] == found["counts"]["asked"] == 1
    assert table(tmp_path / "out" / "metadata.csv") == []
    assert len(table(tmp_path / "out" / FAILURES)) == 1


# -- going on -------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [1, 5, 11])
def test_a_stopped_run_goes_on_and_ends_in_the_same_bytes(
    source: Path, tmp_path: Path, after: int
) -> None:
    crop_set(source, tmp_path / "straight")

    def stop(done: int, total: int) -> None:
        assert total == 12
        # A power cut would leave as much.
        assert len((tmp_path / "out" / JOURNAL).read_text().splitlines()) == done + 1
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crop_set(source, tmp_path / "out", progress=stop)
    for name in ("metadata.csv", FAILURES, REPORT):
        assert not (tmp_path / "out" / name).exists()
    with (tmp_path / "out" / JOURNAL).open("ab") as journal:
        journal.write('{"path": "train/real/face.png", "crop": "trüb'.encode()[:-2])
    finder = Blocks()
    steps: list[int] = []
    crop_set(
        source, tmp_path / "out", finder=finder, progress=lambda done, total: steps.append(done)
    )
    assert finder.asked == 12 - after
    assert steps == list(range(after + 1, 13))
    assert tree(tmp_path / "out") == tree(tmp_path / "straight")


def test_a_crop_that_was_not_noted_down_is_taken_over(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    crop_set(source, out)
    straight = tree(out)
    lines = (out / JOURNAL).read_text().splitlines(keepends=True)
    (out / JOURNAL).write_text("".join(lines[:4]))
    (out / "metadata.csv").unlink()
    crop_set(source, out)
    assert tree(out) == straight


def test_a_second_call_searches_no_picture_and_changes_no_byte(
    source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (source / "train" / "real" / "garbage.jpg").write_bytes(b"no picture")
    first = crop_set(source, out)
    straight = tree(out)
    shutil.move(source, tmp_path / "elsewhere" / "source")
    finder = Blocks()
    assert crop_set(tmp_path / "elsewhere" / "source", out, finder=finder) == first
    assert finder.asked == 0
    assert tree(out) == straight
    (out / "train" / "real" / "face.png").unlink()
    crop_set(tmp_path / "elsewhere" / "source", out, finder=finder)
    assert finder.asked == 1
    assert tree(out) == straight


def test_what_may_pass_is_tried_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = source / "train" / "real" / "face.png"

    def read(path: Path):
        if path == locked:
            raise ImageError("no permission to read it", str(path)) from PermissionError(13)
        return read_image(path)

    with monkeypatch.context() as patch:
        patch.setattr(cropping, "read_image", read)
        found = crop_set(source, tmp_path / "out")
    assert found["counts"]["reasons"]["no permission to read it"] == 1
    finder = Blocks()
    crop_set(source, tmp_path / "out", finder=finder)
    assert finder.asked == 1
    crop_set(source, tmp_path / "straight")
    assert tree(tmp_path / "out") == tree(tmp_path / "straight")


def test_only_a_few_pictures_are_read_ahead(tmp_path: Path) -> None:
    for at in range(30):
        photo(tmp_path / "in" / "test" / "real" / f"{at}.png", size=(20, 20), seed=at)
    finder = Blocks()
    ahead: list[int] = []
    crop_set(
        tmp_path / "in",
        tmp_path / "out",
        finder=finder,
        progress=lambda done, total: ahead.append(finder.asked - done),
    )
    assert len(ahead) == 30
    assert max(ahead) < 4


# -- what is refused ------------------------------------------------------------------------------


def refused(*arguments: object, kind: type[Exception] = ConfigError, **options: object) -> str:
    with pytest.raises(kind) as error:
        crop_set(*arguments, **options)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    assert "; " in str(error.value)
    return str(error.value)


def test_other_settings_are_refused(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    crop_set(source, out)
    before = tree(out)
    assert "1.7" in refused(source, out, replace(RECIPE, margin=1.7))
    other = Blocks()
    other.name = "another"  # type: ignore[misc]
    assert "finder" in refused(source, out, finder=other)
    photo(source / "train" / "real" / "new.png", seed=77)
    assert "data set" in refused(source, out)
    assert tree(out) == before
    crop_set(source, tmp_path / "beside", replace(RECIPE, margin=1.7))
    # Words about a recipe are no other recipe, and the first ones stay.
    (source / "train" / "real" / "new.png").unlink()
    crop_set(source, out, replace(RECIPE, origin="in other words"))
    assert tree(out) == before


@pytest.mark.parametrize("name", ["notes.txt", RECIPE_FILE, "train/real/face.png"])
def test_a_folder_that_holds_something_else_is_refused(
    source: Path, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    assert "holds something else" in refused(source, tmp_path / "out", kind=DataError)
    assert tree(tmp_path / "out") == {name: b"mine"}
    assert "something else" in refused(source, path, kind=DataError)
    assert path.read_text() == "mine"


@pytest.mark.parametrize("text", ["", "mine", "[]", '{"recipe": 3}', "\udcff"])
def test_a_journal_of_someone_else_is_refused(source: Path, tmp_path: Path, text: str) -> None:
    journal = tmp_path / "out" / JOURNAL
    journal.parent.mkdir()
    journal.write_bytes(text.encode("utf-8", "surrogateescape"))
    before = tree(tmp_path / "out")
    assert "something else" in refused(source, tmp_path / "out", kind=DataError)
    assert tree(tmp_path / "out") == before


def test_a_file_in_a_crops_place_is_not_overwritten(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crop_set(source, out, progress=stop)
    mine = photo(out / "train" / "real" / "face.png", seed=99)
    before = mine.read_bytes()
    assert "move it away" in refused(source, out, kind=DataError)
    assert mine.read_bytes() == before
    mine.unlink()
    crop_set(source, out)
    crop_set(source, tmp_path / "straight")
    assert tree(out) == tree(tmp_path / "straight")


def test_crops_and_photographs_do_not_mix(source: Path, tmp_path: Path) -> None:
    before = tree(tmp_path)
    (tmp_path / "link").symlink_to(source)
    for out in (source, source / "crops", tmp_path, tmp_path / "link" / "crops"):
        assert "outside the data set" in refused(source, out)
    (tmp_path / "link").unlink()
    assert tree(tmp_path) == before
    crop_set(source, tmp_path / "source-crops")  # a name that begins alike is no folder inside


# -- shares ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("found", "n"), [(0, 1), (1, 1), (0, 10), (95, 100), (1399, 1400)])
def test_the_interval_is_wilsons(found: int, n: int) -> None:
    reference = binomtest(found, n).proportion_ci(method="wilson")
    assert wilson(found, n) == pytest.approx((reference.low, reference.high), abs=1e-12)


def test_shares_tell_whose_faces_are_missed(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    rows = []
    for at in range(16):
        split, race, gender = "test" if at < 12 else "train", "AB"[at % 2], "fm"[at // 2 % 2]
        # Missed: the women of B in test; of the others none.
        missed = split == "test" and (race, gender) == ("B", "f")
        side = 40 if at == 0 else 80  # too small to cut, found all the same
        path = f"{split}/real/{at}.png"
        photo(folder / path, *([] if missed else [(90, 50, side)]), seed=at)
        rows.append({"file_name": path, "label": "real", "race": race, "gender": gender})
    rows.append({"file_name": "test/real/unreadable.png", "label": "real", "race": "B"})
    (folder / "test" / "real" / "unreadable.png").write_bytes(b"no picture")
    photo(folder / "test" / "fake" / "f.png", (90, 50, 80), seed=50)
    rows.append({"file_name": "test/fake/f.png", "label": "fake", "generator": "gan"})
    crop_set(listed(folder, rows), tmp_path / "out")
    found = json.loads((tmp_path / "out" / REPORT).read_text())["found"]
    assert list(found) == ["all", "train", "test"]

    def share(split: str, column: str, value: str) -> tuple[int, int]:
        cell = found[split][column][value]
        assert cell["share"] == cell["found"] / cell["n"]
        assert (cell["low"], cell["high"]) == pytest.approx(wilson(cell["found"], cell["n"]))
        return cell["found"], cell["n"]

    assert share("all", "all", "pictures") == (14, 17)
    assert share("test", "race", "A") == (6, 6)
    assert share("test", "race", "B") == (3, 6)
    assert share("test", "gender", "f") == (3, 6)
    assert share("test", "race and gender", "B, f") == (0, 3)
    assert share("test", "race and gender", "B, m") == (3, 3)
    assert share("train", "race and gender", "B, f") == (1, 1)
    assert share("all", "race and gender", "B, f") == (1, 4)
    assert share("test", "label", "fake") == share("test", "generator", "gan") == (1, 1)
    assert "age" not in found["all"]
    assert "generator" not in found["train"]


# -- real photographs -----------------------------------------------------------------------------


@pytest.mark.realdata
@pytest.mark.skipif(not (REAL_DATA / "portraits_sd3").is_dir(), reason="no real data here")
def test_portraits_are_cut_and_read_again(tmp_path: Path) -> None:
    samples = load_samples(REAL_DATA / "portraits_sd3").limit(12)
    found = crop_faces(samples, tmp_path / "out", RECIPE, CenterFace(threads=1)).to_dict()
    assert found["found"]["test"]["all"]["pictures"]["found"] >= 11
    made = found["counts"]["cut"] + found["counts"]["whole"]
    assert made >= 10
    again = load_samples(tmp_path / "out")
    assert again.counts() == {"test": {"real": 0, "fake": made}}
    finder = CenterFace(threads=1)
    for row in again.rows:  # the face fills the crop as the recipe says
        crop = read_image(again.absolute(row)).pixels
        (face, *_) = finder.find(crop)
        assert crop.shape[0] / face.size == pytest.approx(RECIPE.margin, rel=0.25)
