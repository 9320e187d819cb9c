from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import portraits
from bonaface import cli, forging
from bonaface.cropping import FAILURES
from bonaface.crops import RECIPE_FILE, CropRecipe, read_recipe
from bonaface.drawn import draw_face
from bonaface.errors import ConfigError, DataError, ImageError
from bonaface.faces import CenterFace, Face
from bonaface.files import write_json
from bonaface.forge import KINDS
from bonaface.forging import JOURNAL, REPORT, Forging, contact_sheet, forge_set
from bonaface.images import read_image
from bonaface.samples import load_samples
from finders import Blocks
from folders import listed, table, tree

SPLITS = ("train", "validation", "test")
MARKS = np.array([(0.3, 0.38), (0.7, 0.38), (0.5, 0.58), (0.34, 0.76), (0.66, 0.76)])


class Same:
    """Finds the same face everywhere."""

    name = "same"

    def find(self, pixels: np.ndarray) -> tuple[Face, ...]:
        marks = tuple((float(x), float(y)) for x, y in MARKS * 60 + 30)
        return (Face((30, 30, 90, 90), marks, 1.0),)


def photo(path: Path, *faces: tuple[int, int, int], seed: int = 0) -> Path:
    """Noise with white frames (left, top, side) in 120 x 140 pixels."""
    pixels = np.random.default_rng(seed).integers(0, 200, (120, 140, 3), np.uint8)
    for left, top, side in faces:
        inner = pixels[top + 2 : top + side - 2, left + 2 : left + side - 2].copy()
        pixels[top : top + side, left : left + side] = 255
        pixels[top + 2 : top + side - 2, left + 2 : left + side - 2] = inner
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def forged(source: Path, out: Path, **options: object) -> dict:
    options.setdefault("finder", Blocks(marks=MARKS))
    return forge_set(load_samples(source), out, **options).to_dict()  # type: ignore[arg-type]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Eight reals of four people in each split, and a fake that is not wanted."""
    folder, rows = tmp_path / "source", []
    for number, split in enumerate(SPLITS):
        for at in range(8):
            name = f"{split}/real/{at}.png"
            photo(folder / name, (30 + 2 * at, 20, 60 + at), seed=100 * number + at)
            row = {"file_name": name, "label": "real", "split": split, "source": "camera"}
            rows.append(row | {"group": f"{split} {at // 2}", "age": "30-39", "race": "A"})
        photo(folder / split / "fake" / "f.png", (30, 20, 60), seed=100 * number + 50)
        rows.append({"file_name": f"{split}/fake/f.png", "label": "fake", "split": split})
    return listed(folder, rows)


# -- the set that comes out -----------------------------------------------------------------------


def test_each_real_comes_with_a_fake_of_itself(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = forged(source, out)
    assert found["counts"] == {
        "asked": 24,
        "forged": 24,
        "kinds": dict.fromkeys(sorted(KINDS), 6),
        "failed": 0,
        "reasons": {},
    }
    assert found["splits"]["test"]["kinds"] == dict.fromkeys(sorted(KINDS), 2)
    assert found["notes"] == []
    assert json.loads((out / REPORT).read_text()) == found
    after = load_samples(out, need=SPLITS)
    assert after.counts() == {split: {"real": 8, "fake": 8} for split in SPLITS}
    before = {row.path: row for row in load_samples(source).rows}
    fakes = {Path(row.path).stem + row.split: row for row in after.rows if row.label}
    for row in after.rows:
        if row.label:
            assert row.path == f"{row.split}/fake/{row.generator}/{Path(row.path).name}"
            continue
        origin = before[f"{row.split}/real/{Path(row.path).name}"]
        fake = fakes[Path(row.path).stem + row.split]
        for one in (row, fake):
            assert (one.group, one.age, one.race) == (origin.group, origin.age, origin.race)
        pixels = read_image(source / origin.path).pixels
        np.testing.assert_array_equal(read_image(after.absolute(row)).pixels, pixels)
        changed = read_image(after.absolute(fake)).pixels
        assert changed.shape == pixels.shape
        assert (changed != pixels).any()


def test_nothing_but_the_pixels_tells_the_files_apart(source: Path, tmp_path: Path) -> None:
    for path in source.rglob("real/*.png"):
        picture = Image.open(path).convert("RGB")
        path.unlink()
        picture.save(path, "JPEG", quality=80)  # read by content, whatever the name says
    out = tmp_path / "out"
    forged(source, out, finder=Same())
    heads = set()
    for path in out.rglob("*.png"):
        picture = Image.open(path)
        chunks, data, at = [], path.read_bytes(), 8
        while at < len(data):
            length = int.from_bytes(data[at : at + 4])
            chunks.append(data[at + 4 : at + 8])
            at += 12 + length
        heads.add((picture.format, picture.mode, tuple(picture.info), tuple(dict.fromkeys(chunks))))
    assert heads == {("PNG", "RGB", (), (b"IHDR", b"IDAT", b"IEND"))}


def test_donors_are_other_people_of_the_same_split(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    forged(source, out, kinds=("swap",))
    groups = {row.path: (row.split, row.group) for row in load_samples(source).rows}
    lines = [json.loads(line) for line in (out / JOURNAL).read_text().splitlines()[1:]]
    assert len(lines) == 24
    for line in lines:
        (split, mine), (other, theirs) = groups[line["path"]], groups[line["donor"]]
        assert split == other
        assert mine != theirs
    assert len({line["donor"] for line in lines}) > 8


def test_the_donor_looks_the_same_way(tmp_path: Path) -> None:
    class Turned(Same):
        """The nose is as far aside as the first pixel is bright."""

        def find(self, pixels: np.ndarray) -> tuple[Face, ...]:
            (face,) = super().find(pixels)
            marks = list(face.landmarks)
            marks[2] = (marks[2][0] + float(pixels[0, 0, 0]) / 10, marks[2][1])
            return (Face(face.box, tuple(marks), 1.0),)

    for at in range(8):
        path = photo(tmp_path / "in" / "test" / "real" / f"{at}.png", seed=at)
        pixels = read_image(path).pixels
        pixels[0, 0] = 200 * (at % 2)
        Image.fromarray(pixels).save(path)
    forged(tmp_path / "in", tmp_path / "out", finder=Turned(), kinds=("swap",))
    lines = [json.loads(x) for x in (tmp_path / "out" / JOURNAL).read_text().splitlines()[1:]]
    assert len(lines) == 8
    for line in lines:
        mine, theirs = (int(Path(line[key]).stem) for key in ("path", "donor"))
        assert mine % 2 == theirs % 2
        assert mine != theirs


def test_without_groups_a_pair_is_one(tmp_path: Path) -> None:
    for at in range(12):
        photo(tmp_path / "in" / "real" / f"{at}.png", (30, 20, 60 + at), seed=at)
    samples = load_samples(tmp_path / "in", ratios=(0.5, 0.25, 0.25))
    found = forge_set(
        samples, tmp_path / "out", Blocks(marks=MARKS), kinds=("swap", "resample")
    ).to_dict()
    assert "a person each" in found["notes"][0]
    after = load_samples(tmp_path / "out")
    assert {len({row.path for row in after.rows if row.group == g}) for g in
            {row.group for row in after.rows}} == {2}  # fmt: skip
    assert after.counts() == {
        "train": {"real": 6, "fake": 6},
        "validation": {"real": 3, "fake": 3},
        "test": {"real": 3, "fake": 3},
    }


def test_what_cannot_be_forged_is_listed_with_its_reason(source: Path, tmp_path: Path) -> None:
    rows = table(source / "metadata.csv")
    for name in ("none", "small", "garbage", "first", "second"):
        split = "validation" if name == "second" else "train"
        path = source / split / "real" / f"{name}.png"
        photo(path, *{"none": [], "small": [(40, 40, 20)]}.get(name, [(30, 20, 64)]), seed=77)
        if name == "garbage":
            path.write_bytes(b"no picture")
        if name == "second":  # the same pixels in other bytes
            Image.open(path).save(path, compress_level=1)
        rows.append({"file_name": f"{split}/real/{name}.png", "label": "real", "split": split})
    out = tmp_path / "out"
    found = forged(listed(source, rows), out)
    told = {row["path"]: row["reason"] for row in table(out / FAILURES)}
    assert told == {
        "train/real/none.png": "no face found",
        "train/real/small.png": "face smaller than 32 px (20.0 px)",
        "train/real/garbage.png": "not an image",
        "train/real/first.png": (
            "same picture as one of another split (validation/real/second.png)"
        ),
    }
    assert found["counts"]["asked"] == 29
    assert found["counts"]["failed"] == 4
    assert found["counts"]["reasons"]["face smaller than 32 px"] == 1
    after = load_samples(out)
    assert Counter(row.label for row in after.rows) == {0: 25, 1: 25}


def test_one_person_alone_has_no_donor(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "test" / "real" / "a.png", (30, 20, 60))
    photo(tmp_path / "in" / "train" / "real" / "b.png", (30, 20, 60), seed=1)
    found = forged(tmp_path / "in", tmp_path / "out", kinds=("swap",))
    assert found["counts"]["reasons"] == {"no donor of another group in its split": 2}
    assert table(tmp_path / "out" / "metadata.csv") == []


def test_a_recipe_of_crops_goes_along(source: Path, tmp_path: Path) -> None:
    forged(source, tmp_path / "plain", kinds=("inpaint",))
    assert read_recipe(tmp_path / "plain") is None
    recipe = CropRecipe(1.7, (0.0, -0.1), 300, 40, "crops of a test")
    write_json(source / RECIPE_FILE, recipe.to_dict())
    forged(source, tmp_path / "out", kinds=("inpaint",))
    assert read_recipe(tmp_path / "out") == recipe


def test_the_seed_decides_and_the_rest_of_the_set_does_not(source: Path, tmp_path: Path) -> None:
    forged(source, tmp_path / "a", kinds=("self_blend",))
    forged(source, tmp_path / "b", kinds=("self_blend",))
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    forged(source, tmp_path / "c", kinds=("self_blend",), seed=1)
    fakes = list((tmp_path / "a").rglob("fake/**/*.png"))
    assert len(fakes) == 24
    for path in fakes:
        assert path.read_bytes() != (tmp_path / "c" / path.relative_to(tmp_path / "a")).read_bytes()
    listed(source, [row for row in table(source / "metadata.csv") if row["split"] == "test"])
    forged(source, tmp_path / "d", kinds=("self_blend",))
    few = {name: data for name, data in tree(tmp_path / "d").items() if name.endswith(".png")}
    assert len(few) == 16
    assert few.items() <= tree(tmp_path / "a").items()


# -- going on -------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [1, 13])
def test_a_stopped_run_goes_on_and_ends_in_the_same_bytes(
    source: Path, tmp_path: Path, after: int
) -> None:
    forged(source, tmp_path / "straight")

    def stop(done: int, total: int) -> None:
        assert total == 24
        assert len((tmp_path / "out" / JOURNAL).read_text().splitlines()) == done + 1
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        forged(source, tmp_path / "out", progress=stop)
    assert not (tmp_path / "out" / "metadata.csv").exists()
    with (tmp_path / "out" / JOURNAL).open("ab") as journal:
        journal.write('{"path": "train/real/1.png", "kind": "trüb'.encode()[:-2])
    steps: list[int] = []
    forged(source, tmp_path / "out", progress=lambda done, total: steps.append(done))
    assert steps == list(range(after + 1, 25))
    assert tree(tmp_path / "out") == tree(tmp_path / "straight")
    finder = Blocks(marks=MARKS)
    again = forged(source, tmp_path / "out", finder=finder)
    assert finder.asked == 0
    assert again == json.loads((tmp_path / "straight" / REPORT).read_text())
    next((tmp_path / "out").rglob("fake/self_blend/*.png")).unlink()
    forged(source, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "straight")


def test_what_may_pass_is_tried_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = source / "train" / "real" / "3.png"

    def read(path: Path):
        if path == locked:
            raise ImageError("no permission to read it", str(path)) from PermissionError(13)
        return read_image(path)

    with monkeypatch.context() as patch:
        patch.setattr(forging, "read_image", read)
        found = forged(source, tmp_path / "out")
    assert found["counts"]["reasons"]["no permission to read it"] >= 1
    forged(source, tmp_path / "out")
    forged(source, tmp_path / "straight")
    assert tree(tmp_path / "out") == tree(tmp_path / "straight")


@pytest.mark.parametrize(
    ("change", "word"), [({"kinds": ("inpaint",)}, "kinds"), ({"seed": 1}, "seed")]
)
def test_other_settings_are_refused(
    source: Path, tmp_path: Path, change: dict[str, object], word: str
) -> None:
    out = tmp_path / "out"
    forged(source, out)
    before = tree(out)
    with pytest.raises(ConfigError, match=f"expected the {word} that"):
        forged(source, out, **change)
    photo(source / "train" / "real" / "0.png", (30, 20, 60), seed=999).write_bytes(b"changed")
    with pytest.raises(ConfigError, match="expected the data set"):
        forged(source, out)
    assert tree(out) == before


def test_foreign_folders_and_sets_without_reals_are_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="or forgeries that were begun here"):
        forged(source, tmp_path / "mine")
    for out in (source, source / "below", tmp_path):
        with pytest.raises(ConfigError, match="outside the data set"):
            forged(source, out)
    photo(tmp_path / "fakes" / "train" / "fake" / "a.png", (30, 20, 60))
    with pytest.raises(DataError, match="expected real pictures in"):
        forged(tmp_path / "fakes", tmp_path / "out")
    with pytest.raises(ConfigError, match="expected kinds of forgery"):
        forged(source, tmp_path / "out", kinds=("morph",))
    assert not (tmp_path / "out").exists()


# -- faces, the sheet and the command -------------------------------------------------------------


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The portrait and drawn faces that are found, in two splits."""
    folder = tmp_path_factory.mktemp("faces")
    finder, drawn = CenterFace(threads=1), 0
    for split in ("train", "test"):
        (folder / split / "real").mkdir(parents=True)
        kept = 0
        while kept < 3:
            pixels = draw_face(np.random.default_rng(drawn), 160).pixels
            drawn += 1
            if finder.find(pixels):
                Image.fromarray(pixels).save(folder / split / "real" / f"drawn{drawn}.png")
                kept += 1
    Image.fromarray(portraits.head(180)).save(folder / "test" / "real" / "head.jpg", quality=95)
    return folder


def forge_command(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["data", "forge", *map(str, arguments)])


def test_the_command_forges_and_draws_a_sheet(faces: Path, tmp_path: Path) -> None:
    out, sheet = tmp_path / "out", tmp_path / "sheet.png"
    done = forge_command(faces, "--out", out, "--kinds", "self_blend, swap", "--sheet", sheet)
    assert done.exit_code == 0, done.stderr
    assert "7 reals, 7 forged, 0 not forged" in done.stdout
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert ["split", "reals", "not forged", "self_blend", "swap"] in rows
    assert ["test", "4", "0", "2", "2"] in rows
    assert str(sheet) in done.stdout
    assert load_samples(out).counts()["test"] == {"real": 4, "fake": 4}
    finder = CenterFace(threads=1)
    for path in out.rglob("head.png"):
        assert finder.find(read_image(path).pixels)
    drawn = read_image(sheet).pixels
    assert drawn.shape[1] > 3 * 100
    assert drawn.std() > 20
    before = tree(out)
    again = forge_command(faces, "--out", out, "--kinds", "self_blend,swap")
    assert again.exit_code == 0
    assert "Sheet" not in again.stdout
    assert tree(out) == before


def test_a_sheet_shows_what_was_made(faces: Path, tmp_path: Path) -> None:
    finder, samples = CenterFace(threads=1), load_samples(faces)
    found: Forging = forge_set(samples, tmp_path / "out", finder, kinds=("inpaint",))
    contact_sheet(samples, found, finder, tmp_path / "sheet.png", each=2)
    sheet = read_image(tmp_path / "sheet.png").pixels.astype(int)
    side = forging._CELL
    real, fake, mask = (
        sheet[forging._TITLE :][:side, at * side : (at + 1) * side] for at in range(3)
    )
    moved = np.abs(real - fake).max(2)
    assert moved.max() > 10
    assert moved[(mask == 0).all(2)].max() <= 10  # enlarging reads the neighbours
    contact_sheet(samples, found, finder, tmp_path / "again.png", each=2)
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "sheet.png").read_bytes()


def test_what_was_not_forged_is_exit_3_also_the_second_time(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "test" / "real"
    photo(folder / "none.png")
    Image.fromarray(portraits.head(160)).save(folder / "head.png")
    for _ in range(2):
        done = forge_command(tmp_path / "in", "--out", tmp_path / "out", "--kinds", "inpaint")
        assert done.exit_code == 3
        assert "1\tno face found" in done.stdout
        assert done.stderr.startswith("1 pictures were not forged")
        assert str(tmp_path / "out" / FAILURES) in done.stderr


def test_unknown_kinds_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    done = forge_command(tmp_path / "absent", "--out", tmp_path / "out", "--kinds", "swap,morph")
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith("bonaface: expected kinds of forgery out of ")
    assert "'morph'" in done.stderr
