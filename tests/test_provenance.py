from __future__ import annotations

import importlib.util
import io
import json
import os
import random
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bonaface import provenance
from bonaface.bundle import load_bundle
from bonaface.detector import Detector
from bonaface.provenance import Provenance, read_provenance
from bonaface.video import is_video
from credentials import (
    CAMERA,
    CLIPS,
    MIME,
    clip,
    created,
    picture,
    signed,
    tampered,
    tampered_clip,
)

Make = Callable[..., Path]


def read(data: bytes) -> Provenance:
    found = read_provenance(data)
    assert found is not None
    return found


@pytest.mark.parametrize("kind", MIME)
def test_what_was_signed_is_told(kind: str) -> None:
    adjusted = {"action": "c2pa.color_adjustments", "parameters": {"name": "brightness"}}
    found = read(signed(picture(kind), created(), adjusted, kind=kind))
    assert found.state == "valid"
    assert found.signer == "Test Signer, Test Newsroom"
    assert found.generator == "test app 1.0"
    assert found.says_ai
    assert found.actions == ("created by generative AI, with DrawBot", "color adjustments")
    assert found.problems == ()
    assert found.signed_at is None
    assert "not checked against a list of trusted signers" in found.summary
    assert "generative AI" in found.summary


def test_a_camera_is_no_ai() -> None:
    found = read(signed(picture(), created(CAMERA, "Cam 1")))
    assert found.state == "valid"
    assert not found.says_ai
    assert found.actions == ("created by a camera, with Cam 1",)
    assert "AI" not in found.summary


def test_a_changed_picture_does_not_hold(tmp_path: Path) -> None:
    path = tmp_path / "changed.jpg"
    path.write_bytes(tampered(signed(picture())))
    found = read_provenance(path)
    assert found is not None
    assert found.state == "invalid"
    assert found.problems == ("the file was changed after it was signed",)
    assert "do not rely on what they say" in found.summary
    assert "unchanged" not in found.summary


def test_credentials_of_another_picture_do_not_hold() -> None:
    mine, other = signed(picture()), signed(picture(brightness=0))
    end = mine.index(b"\xff\xdb")  # its own tables and pixels
    assert read(other[: other.index(b"\xff\xdb")] + mine[end:]).state in ("invalid", "unreadable")


def test_none_says_nothing_and_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", None)
    found = read(picture())
    assert found.state == "absent"
    assert "says nothing" in found.summary
    assert not found.says_ai


def test_a_mark_alone_is_no_credential() -> None:
    assert read(picture() + b"c2pa").state == "absent"


def test_what_lies_elsewhere_is_not_fetched() -> None:
    asked = []

    class Asked(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            asked.append(self.client_address)

    with socketserver.TCPServer(("127.0.0.1", 0), Asked) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        address = f"http://127.0.0.1:{server.server_address[1]}/there.c2pa"
        try:
            found = read(signed(picture(), elsewhere=address))
        finally:
            server.shutdown()
            thread.join()
    assert found.state == "unreadable"
    assert "elsewhere, which is not fetched" in found.summary
    assert asked == []


def test_the_library_knows_the_settings_that_keep_it_off_the_network() -> None:
    """It takes unknown names in silence; a wrong type shows that it knows one."""
    import c2pa

    c2pa.Context.from_dict(provenance._SETTINGS).close()
    for part, names in provenance._SETTINGS.items():
        for name in names:
            with pytest.raises(c2pa.C2paError):
                c2pa.Context.from_dict({part: {name: {"no": "such value"}}})


def test_names_are_one_line_and_not_long() -> None:
    bad = "evil\n\x1b[31m" + "x" * 5000
    many = [{"action": f"c2pa.edited{at}"} for at in range(500)]
    found = read(signed(picture(), created(agent=bad), *many, generator=bad))
    assert found.generator is not None
    assert "\n" not in found.generator
    assert len(found.generator) <= 130
    assert len(found.actions) == 20
    assert max(map(len, found.actions)) < 300


def test_hostile_manifests_are_answered() -> None:
    rng, whole = random.Random(0), signed(picture())
    for _ in range(8):
        data, at = bytearray(whole), whole.index(b"c2pa")
        for _ in range(rng.randrange(1, 5)):
            place = at + rng.randrange(-20, 3000)
            match rng.randrange(3):
                case 0:
                    data[place : place + 4] = b"\xff\xff\xff\xff"
                case 1:
                    del data[place : place + rng.randrange(1, 60)]
                case 2:
                    data[place:place] = data[at : at + rng.randrange(1, 200)]
        assert read(bytes(data)).state in ("valid", "invalid", "unreadable", "absent")


@pytest.mark.parametrize(
    "code",
    ["import os; os.abort()", "print('[')", "raise MemoryError", "import time; time.sleep(60)"],
    ids=["aborts", "writes nonsense", "runs out of memory", "hangs"],
)
def test_a_reader_that_ends_badly_ends_alone(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = subprocess.run

    def other(command: list[str], **options: Any) -> Any:
        return run([sys.executable, "-c", code], **options)

    monkeypatch.setattr(subprocess, "run", other)
    monkeypatch.setattr(provenance, "_SECONDS", 2)
    found = read(picture() + b"c2pa")
    assert found.state == "unreadable"
    assert found.problems


@pytest.mark.skipif(sys.platform != "linux", reason="limits are those of Linux")
def test_the_reader_may_not_write_or_take_all_memory() -> None:
    code = (
        "from bonaface import provenance, files; import resource as r; provenance._limit();"
        "print([r.getrlimit(x)[0] for x in (r.RLIMIT_FSIZE, r.RLIMIT_CORE, r.RLIMIT_AS)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [0, 0, 2**31]


# -- clips --


@pytest.mark.parametrize("ending", CLIPS)
def test_what_was_signed_of_a_clip_is_told(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"clip.{ending}"
    path.write_bytes(signed(clip(ending), kind=ending))
    assert is_video(path)
    found = read_provenance(path)
    assert found is not None
    assert found.state == "valid"
    assert found.signer == "Test Signer, Test Newsroom"
    assert found.actions == ("created by generative AI, with DrawBot",)
    assert found == read(path.read_bytes())

    path.write_bytes(tampered_clip(path.read_bytes()))
    found = read_provenance(path)
    assert found is not None
    assert found.state == "invalid"
    assert found.problems == ("the file was changed after it was signed",)


def test_a_clip_without_a_mark_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", None)
    assert read(clip()).state == "absent"


def test_containers_without_a_place_for_credentials_have_none() -> None:
    assert is_video(clip("mkv"))
    assert read(clip("mkv") + b"c2pa").state == "absent"


def test_what_cannot_be_read_of_a_clip_is_told() -> None:
    cut = read(signed(clip(), kind="mp4")[:-50])
    assert cut.state == "unreadable"
    assert cut.problems == ("they or the file are damaged",)
    away = read(signed(clip(), kind="mp4", elsewhere="http://127.0.0.1:9/there.c2pa"))
    assert away.state == "unreadable"
    assert "elsewhere, which is not fetched" in away.summary


def test_a_file_is_given_as_it_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, given = subprocess.run, []

    def seen(command: list[str], **options: Any) -> Any:
        given.append((options.get("input"), getattr(options.get("stdin"), "name", None)))
        return run(command, **options)

    path = tmp_path / "clip.mp4"
    path.write_bytes(signed(clip(), kind="mp4"))
    monkeypatch.setattr(subprocess, "run", seen)
    found = read_provenance(path)
    assert found is not None
    assert found.state == "valid"
    assert given == [(None, str(path))]


def test_marks_are_found_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_BLOCK", 32)
    for mark in provenance._MARKS:
        for at in range(70):
            data = bytes(at) + mark + bytes(40)
            assert provenance._marked(io.BytesIO(data))
            assert not provenance._marked(io.BytesIO(data.replace(mark, mark[:-1])))


def test_what_is_too_large_is_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(signed(clip(), kind="mp4"))
    os.truncate(path, 2**28 + 1)  # with a hole
    monkeypatch.setattr(subprocess, "run", None)
    found = read_provenance(path)
    assert found is not None
    assert found.state == "unreadable"
    assert found.summary == (
        "content credentials were not looked for: the file is larger than 256 MiB"
    )
    assert not found.says_ai


# -- beside the verdict --


def test_the_verdict_is_the_same_with_and_without(
    make_bundle: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = Detector(load_bundle(make_bundle()), threads=1)
    pictures = [picture(), signed(picture()), tampered(signed(picture())), signed(picture())[:-99]]
    found = [detector.detect(one, faces="none") for one in pictures]
    states = [one.provenance and one.provenance.state for one in found]
    assert states == ["absent", "valid", "invalid", None]  # a broken picture is not looked at
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "c2pa" else find(name)
    )
    for one, data in zip(found, pictures, strict=True):
        without = detector.detect(data, faces="none")
        assert without.provenance is None
        assert without == replace(one, provenance=None)
    assert len({one.score for one in found[:2]}) == 1


def test_the_verdict_on_a_clip_is_the_same(
    make_bundle: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = Detector(load_bundle(make_bundle()), threads=1)
    whole = signed(clip(), kind="mp4")
    no_clip = whole[: whole.index(b"moov")]  # its frames cannot be found
    path = tmp_path / "clip.mp4"
    found = []
    for data in (clip(), whole, tampered_clip(whole), no_clip):
        path.write_bytes(data)
        found.append(detector.detect(path, faces="none"))
    states = [one.provenance and one.provenance.state for one in found]
    assert states == ["absent", "valid", "invalid", None]
    assert [one.kind for one in found] == ["video", "video", "video", None]
    plain, *others, _ = (replace(one, provenance=None) for one in found)
    assert plain.score is not None
    assert others == [plain, plain]
    assert detector.detect(whole, faces="none").provenance == found[1].provenance

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "c2pa" else find(name)
    )
    path.write_bytes(whole)
    assert detector.detect(path, faces="none") == plain


def test_pixels_have_no_provenance(make_bundle: Make) -> None:
    detector = Detector(load_bundle(make_bundle()), threads=1)
    white = np.full((64, 64, 3), 255, np.uint8)
    assert detector.detect(white, faces="none").provenance is None
