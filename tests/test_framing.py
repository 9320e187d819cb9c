"""Clips to a set of faces: which frames, groups, failures, and going on."""

from __future__ import annotations

import csv
import json
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from bonaface import framing
from bonaface.cropping import FAILURES
from bonaface.crops import RECIPE_FILE, CropRecipe, read_recipe
from bonaface.errors import ConfigError, DataError, ImageError
from bonaface.faces import CenterFace
from bonaface.framing import JOURNAL, REPORT, Framing, frame_set, load_clips
from bonaface.images import read_image
from bonaface.samples import load_samples
from bonaface.video import Frames, read_frames
from finders import Blocks
from folders import table, tree

VIDEOS = Path(__file__).parents[2] / "shared" / "data" / "videos"
RECIPE = CropRecipe(1.5, origin="frames cut by a test")
FRAMES = 40
BRIGHT = 191  # what a codec leaves of white


def clip(
    path: Path, seed: int = 0, *, frames: int = FRAMES, side: int = 80, shown: int = 99
) -> Path:
    """A block that moves over noise of its own, in the first `shown` frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    codec = "MJPG" if path.suffix == ".avi" else "mp4v"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 10, (240, 160))
    ground = cv2.resize(rng.integers(0, 120, (8, 12, 3), np.uint8), (240, 160))
    for at in range(frames):
        pixels = ground.copy()
        if at < shown:
            pixels[20 : 20 + side, 20 + at : 20 + at + side] = 250
        writer.write(pixels)
    writer.release()
    return path


def listed(folder: Path, rows: list[dict[str, str]]) -> Path:
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def framed(source: Path, out: Path, **options: object) -> Framing:
    options = {"recipe": RECIPE, "finder": Blocks(BRIGHT), "count": 4} | options
    return frame_set(load_clips(source), out, **options)  # type: ignore[arg-type]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for at, split in enumerate(("train", "validation", "test")):
        clip(tmp_path / "source" / split / "real" / "a.mp4", 2 * at)
        clip(tmp_path / "source" / split / "fake" / "swap" / "b.mp4", 2 * at + 1)
    return tmp_path / "source"


def test_faces_of_frames_spread_over_the_clip_are_cut(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = framed(source, out).to_dict()
    assert told["counts"] == {
        "clips": 6,
        "clips_failed": 0,
        "frames": 24,
        "cut": 24,
        "whole": 0,
        "missed": 0,
        "failed": 0,
        "reasons": {},
        "several_faces": 0,
    }
    assert told == json.loads((out / REPORT).read_text())
    assert read_recipe(out) == RECIPE
    samples = load_samples(out)
    assert samples.counts()["test"] == {"real": 4, "fake": 4}
    assert {row.group for row in samples.split("test").rows} == {
        "test/real/a.mp4",
        "test/fake/swap/b.mp4",
    }
    assert {row.generator for row in samples.rows if row.label} == {"swap"}
    names = sorted(path.name for path in (out / "test" / "fake" / "swap").iterdir())
    assert names == [f"b-{number:05d}.png" for number in (5, 15, 25, 35)]
    frames = list(read_frames(source / "test" / "fake" / "swap" / "b.mp4", 4))
    for name, frame in zip(names, frames, strict=True):
        (face,) = Blocks(BRIGHT).find(frame.pixels)
        crop = read_image(out / "test" / "fake" / "swap" / name).pixels
        np.testing.assert_array_equal(crop, RECIPE.cut(frame.pixels, face))


def test_whole_frames_need_no_face(source: Path, tmp_path: Path) -> None:
    clip(source / "train" / "real" / "none.mp4", 9, shown=0)
    told = framed(source, tmp_path / "out", recipe=None, finder=None, count=2).to_dict()
    assert (told["counts"]["whole"], told["counts"]["failed"]) == (14, 0)
    assert not (tmp_path / "out" / RECIPE_FILE).exists()
    first = next(iter(read_frames(source / "train" / "real" / "none.mp4", 2)))
    made = read_image(tmp_path / "out" / "train" / "real" / f"none-{first.number:05d}.png")
    np.testing.assert_array_equal(made.pixels, first.pixels)


def test_known_groups_hold_and_unknown_clips_are_their_own(tmp_path: Path) -> None:
    source = tmp_path / "in"
    rows = []
    for at in range(6):  # as in FaceForensics++: two originals, and a swap each way
        for name, label in ((f"{at}", "original"), (f"{at}_x", "fake")):
            clip(source / "clips" / f"{name}.mp4", 10 * at + (label == "fake"), frames=8)
            rows.append(
                {"file_name": f"clips/{name}.mp4", "label": label, "group": f"pair {at // 2}"}
            )
    clips = load_clips(listed(source, rows), ratios=(0.4, 0.3, 0.3))
    frame_set(clips, tmp_path / "out", RECIPE, Blocks(BRIGHT), count=2)
    found = load_samples(tmp_path / "out")
    assert {row.group for row in found.rows} == {"pair 0", "pair 1", "pair 2"}
    assert found.counts() == {s: {"real": 4, "fake": 4} for s in ("train", "validation", "test")}
    told = framed(source, tmp_path / "again", count=1).to_dict()
    assert not any("no known group" in note for note in told["notes"])
    (source / "metadata.csv").unlink()
    (source / "clips").rename(source / "real")
    found = framed(source, tmp_path / "alone", count=2)
    assert len({row.split for row in load_samples(tmp_path / "alone").rows}) == 3
    assert "12 clips have no known group" in found.to_dict()["notes"][0]


def test_what_gives_no_face_is_listed_with_its_reason(source: Path, tmp_path: Path) -> None:
    clip(source / "train" / "real" / "part.mp4", 20, shown=20)
    clip(source / "train" / "real" / "small.mp4", 21, side=50)
    whole = clip(source / "train" / "real" / "cut.mp4", 22).read_bytes()
    (source / "train" / "real" / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (source / "train" / "fake" / "no.mp4").write_bytes(b"no clip")
    (source / "train" / "fake" / "note.txt").write_text("no clip")
    told = framed(source, tmp_path / "out").to_dict()
    rows = [tuple(row.values()) for row in table(tmp_path / "out" / FAILURES)]
    assert rows == [
        (
            "train/fake/no.mp4",
            "",
            "fake",
            "train",
            "not a video; expected MP4 or QuickTime, Matroska or WebM, AVI",
        ),
        ("train/real/cut.mp4", "", "real", "train", "truncated"),
        *(
            ("train/real/part.mp4", str(number), "real", "train", "no face found")
            for number in (25, 35)
        ),
        *(("train/real/small.mp4", str(n), "real", "train", rows[-1][-1]) for n in (5, 15, 25, 35)),
    ]
    assert rows[-1][-1].startswith("face smaller than 64 px (")
    counts = told["counts"]
    assert (counts["clips_failed"], counts["failed"], counts["cut"]) == (2, 6, 26)
    assert counts["reasons"]["face smaller than 64 px"] == 4
    assert told["splits"]["train"]["fake"]["clips_failed"] == 1
    assert len(load_samples(tmp_path / "out")) == 26


def test_of_a_clip_that_breaks_off_what_was_read_is_kept(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Frames.__next__

    def breaking(self: Frames) -> object:
        if self.read == 2 and self.clip.frames == 30:
            self.missed = 1
            raise ImageError("no frames can be read")
        return step(self)

    clip(source / "test" / "real" / "odd.mp4", 30, frames=30)
    monkeypatch.setattr(Frames, "__next__", breaking)
    told = framed(source, tmp_path / "out").to_dict()
    assert (told["counts"]["cut"], told["counts"]["clips_failed"]) == (26, 1)
    (row,) = table(tmp_path / "out" / FAILURES)
    assert row["path"] == "test/real/odd.mp4"
    assert len(list((tmp_path / "out" / "test" / "real").glob("odd-*"))) == 2


def test_the_same_picture_in_two_splits_is_kept_for_the_test(tmp_path: Path) -> None:
    source = tmp_path / "in"
    for at, split in enumerate(("train", "validation", "test")):
        clip(source / split / "real" / "still.avi", 1, frames=6 + 2 * at, side=0)
    told = framed(source, tmp_path / "out", recipe=None, finder=None, count=2).to_dict()
    assert told["counts"]["reasons"] == {"same picture as in a clip of another split": 4}
    assert load_samples(tmp_path / "out").counts() == {"test": {"real": 2, "fake": 0}}


@pytest.mark.parametrize("after", [1, 4])
def test_a_stopped_run_goes_on_and_ends_in_the_same_bytes(
    source: Path, tmp_path: Path, after: int
) -> None:
    out = tmp_path / "out"
    framed(source, tmp_path / "straight")

    def stop(done: int, total: int) -> None:
        assert total == 24
        if done == 4 * after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        framed(source, out, progress=stop)
    assert not (out / "metadata.csv").exists()
    lines = (out / JOURNAL).read_text().splitlines(keepends=True)
    assert len(lines) == after + 1
    (out / JOURNAL).write_text("".join(lines) + lines[-1][:40])
    finder = Blocks(BRIGHT)
    framed(source, out, finder=finder)
    assert finder.asked == 24 - 4 * after
    assert tree(out) == tree(tmp_path / "straight")
    finder = Blocks(BRIGHT)
    framed(source, out, finder=finder)
    assert finder.asked == 0
    (out / "train" / "real" / "a-00005.png").unlink()
    framed(source, out, finder=finder)
    assert finder.asked == 4
    assert tree(out) == tree(tmp_path / "straight")


def test_other_settings_and_foreign_folders_are_refused(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    framed(source, out)
    before = tree(out)
    other = Blocks(BRIGHT)
    other.name = "other"  # type: ignore[misc]
    for options in ({"count": 5}, {"recipe": CropRecipe(1.9)}, {"finder": other}):
        with pytest.raises(ConfigError, match="begun with"):
            framed(source, out, **options)
    with pytest.raises(ConfigError, match="begun with"):
        framed(source, out, recipe=None, finder=None)
    with pytest.raises(ConfigError, match="outside"):
        framed(source, source / "new")
    clip(source / "train" / "real" / "new.mp4", 40)
    with pytest.raises(ConfigError, match="data set"):
        framed(source, out)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(DataError, match="something else"):
        framed(source, tmp_path / "mine")
    assert tree(out) == before


def test_few_frames_are_in_memory_at_a_time(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, most = 0, 0
    lock = threading.Lock()

    class Counted(framing.Frame):
        def __init__(self, *given: object) -> None:
            nonlocal held, most
            super().__init__(*given)  # type: ignore[arg-type]
            with lock:
                held += 1
                most = max(most, held)

        def __del__(self) -> None:
            nonlocal held
            with lock:
                held -= 1

    step = Frames.__next__

    def counting(self: Frames) -> object:
        frame = step(self)
        return Counted(frame.number, frame.seconds, frame.pixels)

    monkeypatch.setattr(Frames, "__next__", counting)
    framed(source, tmp_path / "out", count=12)
    assert 2 <= most <= 8


@pytest.mark.realdata
@pytest.mark.skipif(not VIDEOS.is_dir(), reason="no real data here")
def test_real_clips(tmp_path: Path) -> None:
    source = tmp_path / "in"
    for split, label, name in (
        ("train", "real", "real_519.mp4"),
        ("train", "fake", "fake_519_515.mp4"),
        ("test", "real", "real_two_people.mp4"),
    ):
        path = source / split / label / name
        path.parent.mkdir(parents=True)
        path.symlink_to(VIDEOS / name)
    finder = CenterFace(threads=1)
    told = framed(source, tmp_path / "out", recipe=CropRecipe(), finder=finder, count=3).to_dict()
    assert told["counts"]["frames"] == 9
    assert told["splits"]["train"]["real"]["cut"] == told["splits"]["train"]["fake"]["cut"] == 3
    for row in load_samples(tmp_path / "out").split("train").rows:
        crop = read_image(tmp_path / "out" / row.path).pixels
        (face, *_) = finder.find(crop)
        assert crop.shape[0] / face.size == pytest.approx(1.3, rel=0.25)
