"""`bonaface detect` on photographs and clips, and on folders of anything."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import bonaface
from bonaface import cli
from bonaface.corruptions import DELIVERIES
from portraits import BOX, group, overlap, portrait, scaled

Make = Callable[..., Path]
SCHEMA = Path(__file__).parents[2] / "docs" / "verdict.schema.json"


@pytest.fixture
def model(make_bundle: Make) -> Path:
    return make_bundle()


def detect(*arguments: object, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(cli.app, ["detect", *map(str, arguments)], input=stdin)


def judged(*arguments: object, stdin: bytes | None = None, code: int = 0) -> list[dict[str, Any]]:
    done = detect(*arguments, "--json", stdin=stdin)
    assert done.exit_code == code, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    jsonschema.validate(found, json.loads(SCHEMA.read_text(encoding="utf-8")))
    return found


def save(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def write_clip(path: Path, frames: list[np.ndarray]) -> Path:
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (width, height))
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[:, :, ::-1]))
    writer.release()
    return path


# -- photographs ----------------------------------------------------------------------------------


def test_the_one_face_of_a_photograph(model: Path, tmp_path: Path) -> None:
    (found,) = judged(save(tmp_path / "photo.png", portrait()), "--model", model)
    assert found["kind"] == "photo"
    assert (found["width"], found["height"]) == (512, 512)
    (face,) = found["faces"]
    assert overlap(tuple(face["box"]), BOX) > 0.8
    assert len(face["landmarks"]) == 5
    assert found["score"] == face["score"]
    # The crop of the bundle's recipe, scored: the brightness about the face.
    detector = bonaface.load_detector(model)
    (crop_of,) = detector.finder().find(portrait())
    crop = detector.bundle.recipe.cut(portrait(), crop_of)
    assert face["score"] == pytest.approx(float(detector.score([crop])[0]))


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_photo_turned_by_exif_and_its_upright_copy_are_the_same(
    model: Path, tmp_path: Path, orientation: int
) -> None:
    photo = group([(40, 60, 300), (420, 100, 160)], 500, 700)
    upright = save(tmp_path / "upright.png", photo)
    exif = Image.Exif()
    exif[274] = orientation
    # What a camera stores: turned back by what the tag will turn it.
    stored = np.rot90(photo, {3: 2, 6: 1, 8: 3}[orientation])
    turned = save(tmp_path / "turned.png", stored, exif=exif)
    first, second = judged(upright, turned, "--model", model)
    assert len(first["faces"]) == 2
    assert second["faces"] == first["faces"]
    assert second["score"] == first["score"]
    assert (second["width"], second["height"]) == (700, 500)


def test_every_face_of_a_group_gets_a_verdict(model: Path, tmp_path: Path) -> None:
    places = [(40, 60, 300), (420, 100, 200), (650, 100, 60)]
    (found,) = judged(save(tmp_path / "group.png", group(places, 500, 800)), "--model", model)
    answers = [face["answer"] for face in found["faces"]]
    assert answers[2] == "not_applicable"
    assert "at least 64 px" in found["faces"][2]["reason"]
    assert "not_applicable" not in answers[:2]
    assert "1 could not be judged" in found["reason"]


def test_a_large_photo_is_cropped_at_full_resolution(model: Path, tmp_path: Path) -> None:
    """Found on a small copy, but the crop holds detail that the small copy does not."""
    detector = bonaface.load_detector(model)
    photo = np.full((4000, 6000, 3), 90, np.uint8)
    photo[1000:3048, 2000:4048] = scaled(4)
    photo[::2, ::2] //= 2  # detail of one pixel
    seen: list[np.ndarray] = []
    logits = detector.logits
    detector.logits = lambda crops: (seen.extend(crops), logits(crops))[1]  # type: ignore[method-assign]
    verdict = detector.detect(photo)
    assert len(verdict.faces) == 1
    recipe = detector.bundle.recipe
    square = recipe.square(photo, detector.finder().find(photo)[0])
    np.testing.assert_allclose(seen[0].astype(int), recipe.shrink(square).astype(int), atol=3)
    assert square.shape[0] > 500


def test_no_face_is_said_and_is_no_failure(model: Path, tmp_path: Path) -> None:
    (found,) = judged(
        save(tmp_path / "grey.png", np.full((80, 80, 3), 99, np.uint8)), "--model", model
    )
    assert found["answer"] == "not_applicable"
    assert found["score"] is None
    assert "no face found" in found["reason"]


def test_stability_prints_a_range(model: Path, tmp_path: Path) -> None:
    photo = save(tmp_path / "photo.png", portrait())
    (found,) = judged(photo, "--model", model, "--stability")
    stability = found["faces"][0]["stability"]
    assert set(stability["scores"]) == set(DELIVERIES)
    assert stability["low"] <= found["score"] <= stability["high"]
    (plain,) = judged(photo, "--model", model)
    assert plain["faces"][0]["stability"] is None
    assert plain["score"] == found["score"]


def test_prevalence_is_used_and_checked(model: Path, tmp_path: Path) -> None:
    photo = save(tmp_path / "photo.png", np.full((40, 40, 3), 255, np.uint8))
    options = ("--faces", "none", "--model", model)
    (even,), (rare,) = judged(photo, *options), judged(photo, *options, "--prevalence", 0.001)
    assert (even["answer"], rare["answer"]) == ("fake", "unsure")
    assert rare["score"] == even["score"] == even["posterior"] > rare["posterior"]
    done = detect(photo, *options, "--prevalence", 0)
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1


# -- ways in --------------------------------------------------------------------------------------


def test_bytes_path_array_and_pillow_give_the_same_verdict(model: Path, tmp_path: Path) -> None:
    path = save(tmp_path / "photo.png", portrait())
    detector = bonaface.load_detector(model)
    verdicts = [
        detector.detect(source)
        for source in (path, str(path), path.read_bytes(), portrait(), Image.open(path))
    ]
    assert len({verdict.faces for verdict in verdicts}) == 1
    assert [v.path for v in verdicts] == [str(path), str(path), "bytes", "array", "image"]
    assert detector.detect(portrait().astype(np.float32)).answer == "not_applicable"
    with pytest.raises(bonaface.BonafaceError, match="expected a path"):
        detector.detect(3)  # type: ignore[arg-type]


def test_standard_input_patterns_folders_and_files_mix(model: Path, tmp_path: Path) -> None:
    for name in ("in/a.png", "in/b.jpg", "in/sub/c.png", "d.png"):
        save(tmp_path / name, scaled(0.5))
    save(tmp_path / "a[1].png", scaled(0.5))  # not a pattern: it is there
    data = (tmp_path / "d.png").read_bytes()
    found = judged(
        "-", tmp_path / "in" / "*.png", tmp_path / "in", tmp_path / "a[1].png",
        tmp_path / "**" / "nothing*.png", tmp_path / "d.png",
        "--model", model, stdin=data,
    )  # fmt: skip
    names = ["in/a.png", "in/b.jpg", "in/sub/c.png", "a[1].png", "d.png"]
    assert [one["path"] for one in found] == ["stdin", *(str(tmp_path / name) for name in names)]
    assert found[0]["faces"] == found[-1]["faces"]


def test_yunet_of_a_wrong_file_is_one_line(model: Path, tmp_path: Path) -> None:
    photo = save(tmp_path / "photo.png", portrait())
    done = detect(photo, "--model", model, "--finder", photo)
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert "YuNet" in line


# -- clips ----------------------------------------------------------------------------------------


def test_two_people_of_a_clip_get_a_verdict_each(model: Path, tmp_path: Path) -> None:
    frames = [group([(30 + 2 * i, 60, 220), (380 - i, 90, 180)], 360, 640) for i in range(20)]
    path = write_clip(tmp_path / "two.mp4", frames)
    (found,) = judged(path, "--model", model, "--frames", 10)
    assert found["kind"] == "video"
    assert found["frames"]["asked"] == found["frames"]["judged"] == 10
    assert [person["judged"] for person in found["people"]] == [10, 10]
    for person in found["people"]:
        numbers = [moment["frame"] for moment in person["moments"]]
        assert np.abs(np.subtract(numbers, range(1, 20, 2))).max() <= 1
    by_stdin = judged("-", "--model", model, "--frames", 10, stdin=path.read_bytes())
    assert by_stdin[0]["people"] == found["people"]


def test_a_clip_that_is_none_does_not_stop_the_rest(model: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(200))
    (tmp_path / "list.mp4").write_text("#EXTM3U\nhttp://127.0.0.1:1/a.ts\n")
    save(tmp_path / "photo.png", portrait())
    bad, listed, photo = judged(tmp_path, "--model", model, code=3)
    assert (bad["answer"], listed["answer"]) == ("not_applicable", "not_applicable")
    assert bad["kind"] is listed["kind"] is None
    assert photo["faces"]


# -- pictures for people --------------------------------------------------------------------------


def test_annotated_pictures_are_drawn_and_never_over_others(model: Path, tmp_path: Path) -> None:
    save(tmp_path / "in/a/photo.png", portrait())
    save(tmp_path / "in/b/photo.png", portrait())
    (tmp_path / "in/c.png").write_bytes(b"not a picture")
    write_clip(tmp_path / "in/clip.mp4", [group([(30, 60, 220)], 360, 480)] * 6)
    out = tmp_path / "out"
    for _ in range(2):  # the same names again
        done = detect(tmp_path / "in", "--model", model, "--annotate", out)
        assert done.exit_code == 3
        assert sorted(path.name for path in out.iterdir()) == [
            "clip.mp4.annotated.png",
            "photo.png-2.annotated.png",
            "photo.png.annotated.png",
        ]
    drawn = np.asarray(Image.open(out / "photo.png.annotated.png"))
    assert drawn.shape[0] > 512


# -- whatever people have in their folders --------------------------------------------------------


def bomb(side: int) -> bytes:
    """A grey PNG of one bit a pixel: a hundred kilobytes that unpack to `side` squared pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    press = zlib.compressobj(9)
    row = bytes(1 + (side + 7) // 8)
    packed = b"".join(press.compress(row) for _ in range(side)) + press.flush()
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    )


def torture(folder: Path) -> dict[str, str]:
    """Writes the folder; name -> what the reason, or the notes, must say."""
    photo = Image.fromarray(portrait())
    packed = io.BytesIO()
    photo.save(packed, "JPEG", quality=90)
    expected = {}

    def put(name: str, data: bytes, words: str) -> None:
        (folder / name).write_bytes(data)
        expected[name] = words

    put("truncated.jpg", packed.getvalue()[: len(packed.getvalue()) // 2], "truncated")
    put("empty.png", b"", "empty file")
    put("text.jpg", b"Dear Sir or Madam, ", "not an image")
    put("bomb.png", bomb(30_000), "more than 120 megapixels")
    photo.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    expected["cmyk.jpg"] = "CMYK"
    grey = np.asarray(photo.convert("L"), np.uint16) * 257
    Image.fromarray(grey).save(folder / "deep.png")
    expected["deep.png"] = "16-bit"
    more = [photo.rotate(9)]
    photo.save(folder / "animated.webp", save_all=True, append_images=more, duration=99)
    expected["animated.webp"] = "animated"
    exif = Image.Exif()
    exif[274] = 6
    photo.rotate(90, expand=True).save(folder / "rotated.jpg", exif=exif, quality=95)
    expected["rotated.jpg"] = ""
    alpha = photo.convert("RGBA")
    alpha.putalpha(Image.fromarray(np.tile(np.linspace(90, 255, 512).astype(np.uint8), (512, 1))))
    alpha.save(folder / "alpha.png")
    expected["alpha.png"] = "transparency"
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    expected["dot.png"] = "smaller than 16 px"
    tile = np.asarray(photo.crop((125, 20, 325, 220)).resize((80, 80)))
    Image.fromarray(np.tile(tile, (50, 100, 1))).save(folder / "collage.jpg", quality=85)
    expected["collage.jpg"] = ""
    photo.save(folder / "two\nlines.png")
    expected["two\nlines.png"] = ""
    return expected


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_folder_of_torture_is_judged_to_its_end(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "torture"
    folder.mkdir()
    expected = torture(folder)
    # Its own high-water mark: the system's figure for a child includes the parent that forked it.
    watched = (
        "import atexit, re, sys\n"
        "def say():\n"
        "    status = open('/proc/self/status').read()\n"
        "    print('peak KiB', re.search(r'VmHWM:\\s+(\\d+)', status)[1], file=sys.stderr)\n"
        "atexit.register(say)\n"
        "from bonaface.cli import main\n"
        "main()"
    )
    command = [sys.executable, "-c", watched, "detect", folder, "--model", model, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 3, done.stderr
    found = {Path(one["path"]).name: one for one in json.loads(done.stdout)}
    assert found.keys() == expected.keys()
    for name, words in expected.items():
        assert words in "; ".join([found[name]["reason"], *found[name]["notes"]]), name
    unread = {"truncated.jpg", "empty.png", "text.jpg", "bomb.png", "dot.png"}
    assert {name for name, one in found.items() if one["kind"] is None} == unread
    whole = {"cmyk.jpg", "deep.png", "animated.webp", "rotated.jpg", "alpha.png", "two\nlines.png"}
    for name in whole:
        assert len(found[name]["faces"]) == 1, name
        assert overlap(tuple(found[name]["faces"][0]["box"]), BOX) > 0.75, name
    assert found["collage.jpg"]["answer"] == "not_applicable"
    assert "5 could not be read" in done.stderr
    peak = 1024 * int(done.stderr.rsplit("peak KiB", maxsplit=1)[1])
    assert 50e6 < peak < 1.5e9


def test_a_picture_of_5000_faces_is_searched_and_counted(model: Path, tmp_path: Path) -> None:
    """At a size at which they can be found: as many as the limit are listed, few are judged."""
    tile = group([(0, 0, 100)], 100, 100)
    photo = np.tile(tile, (50, 100, 1))
    detector = bonaface.load_detector(model)
    verdict = detector.detect(photo)
    assert verdict.answer == "not_applicable"
    assert all("at least 64 px" in face.reason for face in verdict.faces)


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_keeps_what_was_judged(model: Path, tmp_path: Path) -> None:
    from bonaface.detector import Detector

    save(tmp_path / "a.png", portrait())
    save(tmp_path / "b.png", portrait())
    whole = Detector.detect

    def stopping(self: Detector, source: Any, **wishes: Any) -> Any:
        if "b.png" in str(source):
            raise KeyboardInterrupt
        return whole(self, source, **wishes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Detector, "detect", stopping)
        done = detect(tmp_path, "--model", model, "--json")
    assert done.exit_code == 130
    assert [Path(one["path"]).name for one in json.loads(done.stdout)] == ["a.png"]
    assert "1 of 2 judged" in done.stderr
