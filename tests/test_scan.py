"""Scans: what is found in a source, the rows, and that each picture is judged exactly once."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import fsspec
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bonaface.scan
from bonaface.detector import load_detector
from bonaface.errors import BundleError, ConfigError, DataError, ImageError
from bonaface.faces import open_finder
from bonaface.judging import Wishes
from bonaface.scan import ScanWatch, scan, summarise
from bonaface.scan.parts import SCHEMA
from bonaface.scan.plan import Chunk, Plan, write_plan
from bonaface.scan.reading import Reader
from bonaface.scan.rows import Job, Scanner
from bonaface.scan.sources import Item, find_items
from bonaface.scan.workers import Pool
from portraits import group, portrait
from scanned import Serial, png, read, write_parquet, write_pictures, write_tar

posix = pytest.mark.skipif(os.name != "posix", reason="signals and pipes with names")


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[Serial]:
    """Scans judge in this process; the engines that they made."""
    made: list[Serial] = []

    def make(_name: str, job: Job, *_: Any) -> Serial:
        made.append(Serial(job))
        return made[-1]

    monkeypatch.setattr(bonaface.scan, "_engine", make)
    return made


def found_in(source: Path | str, **wishes: Any) -> dict[str, Item]:
    items = list(find_items(str(source), **wishes))
    assert len({item.path for item in items}) == len(items)
    return {item.path.removeprefix(f"{source}/"): item for item in items}


# -- sources --------------------------------------------------------------------------------------


def test_a_folder_gives_pictures_shards_and_tables_of_pictures(tmp_path: Path) -> None:
    files = ("a.jpg", "b/c.PNG", "b/d.txt", ".hidden.jpg", "b/.git/e.jpg")
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "gone.jpg").symlink_to("nowhere.jpg")
    write_tar(tmp_path / "s.tar", {"x/1.jpg": b"one", "x/1.json": b"{}", "2.png": b"two"})
    write_parquet(tmp_path / "t.parquet", [b"three"])
    write_parquet(tmp_path / "out.parquet", [b"four"])
    found = found_in(tmp_path, but=tmp_path / "out.parquet")
    assert set(found) == {
        *("a.jpg", "b/c.PNG", "gone.jpg", "s.tar/x/1.jpg", "s.tar/2.png", "t.parquet/000000000"),
    }
    reader = Reader()
    assert [reader.read(found[name]) for name in ("s.tar/2.png", "s.tar/x/1.jpg")] == [
        *(b"two", b"one"),
    ]
    with pytest.raises(ImageError, match="broken link"):
        reader.read(found["gone.jpg"])


def test_patterns_and_names_take_what_they_name(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "c.strange"):
        (tmp_path / name).write_bytes(b"")
    assert set(found_in(tmp_path / "*.jpg")) == {str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg")}
    assert set(found_in(tmp_path / "c.strange")) == {str(tmp_path / "c.strange")}
    with pytest.raises(DataError, match="nothing there"):
        found_in(tmp_path / "d")


@pytest.mark.parametrize("struct", [False, True])
def test_rows_of_parquet_are_read_in_any_order(tmp_path: Path, struct: bool) -> None:
    pictures = [None if n == 11 else f"picture {n}".encode() for n in range(40)]
    write_parquet(tmp_path / "t.parquet", pictures, struct=struct)
    items = list(find_items(str(tmp_path / "t.parquet")))
    reader = Reader()
    for number in (0, 1, 6, 7, 39, 20, 5, 19, 39):
        assert reader.read(items[number]) == pictures[number]
    with pytest.raises(ImageError, match="no bytes"):
        reader.read(items[11])


def test_parquet_without_pictures_is_an_error_only_where_it_is_named(tmp_path: Path) -> None:
    import pyarrow as pa

    blobs = pa.table({"left": [b"1"], "right": [b"2"], "n": [1]})
    pq.write_table(blobs, tmp_path / "t.parquet")
    assert found_in(tmp_path) == {}
    with pytest.raises(ConfigError, match="--column"):
        found_in(tmp_path / "t.parquet")
    (item,) = found_in(tmp_path / "t.parquet", column="right").values()
    assert Reader("right").read(item) == b"2"


def test_a_damaged_shard_keeps_what_comes_before_and_says_so(tmp_path: Path) -> None:
    shard = tmp_path / "s.tar"
    write_tar(shard, {f"{n}.png": png(n) for n in range(4)})
    shard.write_bytes(shard.read_bytes()[:1600])
    items = list(find_items(str(shard)))
    said = [item.reason for item in items if item.reason]
    assert len(said) == 1
    assert said[0].startswith("damaged tar")
    assert Reader().read(items[0]) == png(0)
    write_tar(shard, {f"{n}.png": png(n) for n in range(4)})
    at = next(item.at for item in find_items(str(shard)) if item.member == "2.png") - 512
    data = bytearray(shard.read_bytes())
    data[at : at + 8] = b"\xff" * 8
    shard.write_bytes(data)
    assert [item.reason or item.member for item in find_items(str(shard))] == [
        *("0.png", "1.png", "damaged tar (bad header)"),
    ]
    (tmp_path / "t.parquet").write_bytes(b"PAR1 no")
    (item,) = find_items(str(tmp_path / "t.parquet"))
    assert (item.reason or "").startswith("damaged Parquet")
    (tmp_path / "s.tar.gz").write_bytes(b"")
    with pytest.raises(DataError, match="compressed"):
        list(find_items(str(tmp_path / "s.tar.gz")))


def test_addresses_of_fsspec(tmp_path: Path) -> None:
    write_tar(tmp_path / "s.tar", {"1.jpg": b"in the shard"})
    write_parquet(tmp_path / "t.parquet", [b"in the table"])
    system = fsspec.filesystem("memory")
    system.pipe("/lib/a/1.jpg", b"one")
    system.pipe("/lib/a/note.txt", b"no")
    for name in ("s.tar", "t.parquet"):
        system.pipe(f"/lib/{name}", (tmp_path / name).read_bytes())
    try:
        reader = Reader()
        read = {item.path: reader.read(item) for item in find_items("memory://lib")}
        assert read == {
            "memory:///lib/a/1.jpg": b"one",
            "memory:///lib/s.tar/1.jpg": b"in the shard",
            "memory:///lib/t.parquet/000000000": b"in the table",
        }
        (item,) = find_items("memory://lib/a/*.jpg")
        assert item.size == 3
        system.rm("/lib/a/1.jpg")
        with pytest.raises(ImageError, match="no such file"):
            reader.read(item)
    finally:
        system.rm("/lib", recursive=True)


# -- the plan -------------------------------------------------------------------------------------


@given(st.lists(st.text("ab/é\udc80.", min_size=1, max_size=6)), st.integers(1, 5))
def test_every_item_is_in_one_chunk(tmp_path_factory: Any, names: list[str], size: int) -> None:
    path = tmp_path_factory.mktemp("plan") / "plan.db"
    write_plan(path, (Item("file", name) for name in names), None)
    plan = Plan(path, size)
    chunks = list(plan.chunks())
    plan.close()
    files = [item.file for chunk in chunks for _, item in chunk.items]
    assert sorted(files) == sorted(set(names))
    assert [at for chunk in chunks for at, _ in chunk.items] == list(range(1, len(files) + 1))
    assert all(len(chunk.items) == size for chunk in chunks[:-1])
    assert [chunk.first for chunk in chunks] == [1 + size * n for n in range(len(chunks))]


# -- rows -----------------------------------------------------------------------------------------


def test_rows_are_what_detect_says(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    bundle = make_bundle()
    pictures = {
        "one.png": portrait(),
        "two.png": group([(20, 20, 150), (200, 60, 120)], 240, 360),
        "none.png": group([], 100, 100),
        "small.png": group([(20, 20, 40)], 240, 240),
    }
    for name, pixels in pictures.items():
        cv2.imwrite(str(tmp_path / name), pixels[:, :, ::-1])
    (tmp_path / "clip.avi").write_bytes(b"RIFF\0\0\0\0AVI LIST")
    scanner, detector = Scanner(Job(bundle)), load_detector(bundle, threads=1)
    assert scanner._finder._ready() is open_finder(threads=1)  # workers share cores, not threads
    for name in pictures:
        path = str(tmp_path / name)
        rows, verdict = scanner.rows(Item("file", path)), detector.detect(path)
        assert len(rows) == max(1, len(verdict.faces))
        assert {row["picture"] for row in rows} == {verdict.answer}
        for row, face in zip(rows, verdict.faces, strict=bool(verdict.faces)):
            assert (row["face"], row["verdict"]) == (face.number, face.answer)
            assert (row["score"], row["reason"]) == (face.score, face.reason)
            box = tuple(row[f"box_{side}"] for side in ("left", "top", "right", "bottom"))
            assert box == face.box
        assert rows[0]["judge_ms"] >= rows[0]["find_ms"] + rows[0]["score_ms"]
        assert all("judge_ms" not in row for row in rows[1:])
    (row,) = scanner.rows(Item("file", str(tmp_path / "clip.avi")))
    assert (row["readable"], row["reason"][:6]) == (False, "a clip")
    assert row["sha256"] is not None


def test_whatever_happens_to_one_picture_is_its_reason(
    make_bundle: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(png(9))
    scanner = Scanner(Job(make_bundle(), Wishes("none")))

    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(scanner._detector, "detect", fail)
    (row,) = scanner.rows(Item("file", str(tmp_path / "a.png")))
    assert row["reason"] == "could not be judged (ZeroDivisionError)"
    (row,) = scanner.rows(Item("file", str(tmp_path / "b.png")))
    assert (row["reason"], row["sha256"], row["bytes"]) == ("no such file", None, None)


# -- a whole scan ---------------------------------------------------------------------------------


def test_a_scan_is_one_table_in_order(
    make_bundle: Callable[..., Path], tmp_path: Path, engines: list[Serial]
) -> None:
    root = write_pictures(tmp_path / "in", 120)
    write_tar(root / "shard.tar", {"b.png": png(255, 2**24 - 1), "a.png": png(3)})
    out = tmp_path / "out.parquet"
    found = scan([str(root)], make_bundle(), out, faces="none", chunk=16)
    rows = read(out)
    assert pq.read_schema(out).names == SCHEMA.names
    assert len(rows) == len({row["path"] for row in rows}) == found.judged == 122
    plain = [row["path"] for row in rows if "part" in row["path"]]
    assert plain == sorted(plain)
    assert not (tmp_path / "out.parquet.scan").exists()
    answers = Counter(row["picture"] for row in rows)
    assert found.summary.pictures == dict(answers)
    assert set(answers) == {"fake", "real", "unsure", "not_applicable"}
    assert found.summary.unreadable == {"not an image": 3}
    assert sum(found.summary.histogram) == 119
    assert found.summary.worst[0].path == str(root / "shard.tar/b.png")
    best = max(found.summary.folders, key=lambda one: one.fakes)
    inside = [row for row in rows if row["path"].startswith(f"{best.path}/")]
    assert (best.pictures, best.fakes) == (
        len(inside),
        sum(row["picture"] == "fake" for row in inside),
    )
    (tmp_path / "out.parquet.scan").mkdir()  # as if killed before it was removed
    again = scan([str(root)], tmp_path / "bundle", out, faces="none", chunk=16)
    assert not (tmp_path / "out.parquet.scan").exists()
    assert again.judged == 0
    assert again.summary == found.summary
    assert len(engines) == 1


class StopAfter(ScanWatch):
    def __init__(self, pictures: int) -> None:
        self._left = pictures

    def judged(self, done: int, total: int, counts: Counter[str]) -> None:
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt

    def joining(self) -> None:
        raise KeyboardInterrupt


def test_a_stopped_scan_goes_on_and_ends_the_same(
    make_bundle: Callable[..., Path], tmp_path: Path, engines: list[Serial]
) -> None:
    root = write_pictures(tmp_path / "in", 100)
    bundle, out = make_bundle(), tmp_path / "out.parquet"
    scan([str(root)], bundle, tmp_path / "whole.parquet", faces="none", chunk=8)
    for pictures in (30, 10, 35, 1000):
        with pytest.raises(KeyboardInterrupt):
            scan([str(root)], bundle, out, faces="none", chunk=8, watch=StopAfter(pictures))
        assert not out.exists()
        (root / "part 0" / f"new {pictures}.png").write_bytes(png(1))  # not of this scan
    parts = sorted((tmp_path / "out.parquet.scan").glob("part-*"))
    assert len(parts) == 13
    parts[4].write_bytes(parts[4].read_bytes()[:100])  # lost by the disk
    found = scan([str(root)], bundle, out, faces="none", chunk=8)
    assert found.judged == 8
    assert read(out) == read(tmp_path / "whole.parquet")
    committed = Counter(path for engine in engines[1:] for path in engine.paths)
    assert set(committed) == {row["path"] for row in read(out)}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"prevalence": 0.1}, "prevalence"),
        ({"faces": "auto"}, "faces"),
        ({"dedupe": True}, "dedupe"),
        ({"sources": ["elsewhere"]}, "sources"),
    ],
)
def test_other_settings_are_refused_before_and_after_the_end(
    make_bundle: Callable[..., Path],
    tmp_path: Path,
    engines: list[Serial],
    changed: dict[str, Any],
    named: str,
) -> None:
    root = write_pictures(tmp_path / "in", 20)
    wishes: dict[str, Any] = {
        "sources": [str(root)],
        "model": make_bundle(),
        "out": tmp_path / "out.parquet",
        "faces": "none",
    }
    with pytest.raises(KeyboardInterrupt):
        scan(**wishes, watch=StopAfter(5))
    with pytest.raises(ConfigError, match=f"expected the {named} that"):
        scan(**wishes | changed)
    scan(**wishes)
    with pytest.raises(ConfigError, match=f"expected the {named} that"):
        scan(**wishes | changed)


def test_a_place_that_is_taken_is_refused(
    make_bundle: Callable[..., Path], tmp_path: Path, engines: list[Serial]
) -> None:
    root = write_pictures(tmp_path / "in", 3)
    write_parquet(tmp_path / "other.parquet", [b"1"])
    with pytest.raises(DataError, match="another Parquet file"):
        scan([str(root)], make_bundle(), tmp_path / "other.parquet")
    with pytest.raises(ConfigError, match="the folder"):
        scan([str(root)], tmp_path / "bundle", root)
    with pytest.raises(DataError, match="found none"):
        scan([str(tmp_path / "bundle")], tmp_path / "bundle", tmp_path / "new.parquet")

    class Second(ScanWatch):
        def judged(self, *_: Any) -> None:
            with pytest.raises(ConfigError, match="no other scan"):
                scan([str(root)], tmp_path / "bundle", tmp_path / "new.parquet", faces="none")

    scan([str(root)], tmp_path / "bundle", tmp_path / "new.parquet", faces="none", watch=Second())


def test_copies_are_judged_once_and_point_to_the_first(
    make_bundle: Callable[..., Path], tmp_path: Path, engines: list[Serial]
) -> None:
    root = write_pictures(tmp_path / "in", 40)
    (root / "zz").mkdir()
    for number, name in enumerate(sorted(root.glob("*/*.png"))):
        if number % 3 == 0:
            (root / "zz" / f"{number}.png").write_bytes(name.read_bytes())
    bundle = make_bundle()
    wishes: dict[str, Any] = {"faces": "none", "chunk": 6}
    scan([str(root)], bundle, tmp_path / "all.parquet", **wishes)
    out = tmp_path / "once.parquet"
    with pytest.raises(KeyboardInterrupt):
        scan([str(root)], bundle, out, dedupe=True, **wishes, watch=StopAfter(20))
    found = scan([str(root)], bundle, out, dedupe=True, **wishes)
    every, once = read(tmp_path / "all.parquet"), read(out)
    first: dict[str, str] = {}
    for row in once:
        owner = first.setdefault(row["sha256"], row["path"])
        assert row.pop("duplicate_of") == (None if owner == row["path"] else owner)
    assert all(row.pop("duplicate_of") is None for row in every)
    assert once == every
    assert found.summary.copies == len(every) - len(first) > 10
    judged = [path for engine in engines[1:] for path in engine.paths]
    assert set(judged) == set(first.values())


def test_a_copy_whose_first_changed_says_so(
    make_bundle: Callable[..., Path], tmp_path: Path, engines: list[Serial]
) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png(250))

    class Change(ScanWatch):
        def judged(self, done: int, *_: Any) -> None:
            if not done:
                (tmp_path / "a.png").write_bytes(png(1))

    out = tmp_path / "o.parquet"
    scan([str(tmp_path / "*.png")], make_bundle(), out, faces="none", dedupe=True, watch=Change())
    first, copy = read(out)
    assert first["picture"] == "real"
    assert copy["picture"] == "not_applicable"
    assert "changed during the scan" in copy["reason"]


# -- processes ------------------------------------------------------------------------------------

SCRIPT = """
import sys
from pathlib import Path
from bonaface.scan import scan
if __name__ == "__main__":
    root, bundle, out = sys.argv[1:]
    scan([root], Path(bundle), Path(out), faces="none", workers=2, chunk=4)
"""


def children(pid: int) -> list[int]:
    try:
        return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


@posix
def test_killed_at_any_moment_it_ends_in_the_same_rows(
    make_bundle: Callable[..., Path], tmp_path: Path, engines: list[Serial]
) -> None:
    root, bundle = write_pictures(tmp_path / "in", 300), make_bundle()
    scan([str(root)], bundle, tmp_path / "whole.parquet", faces="none")
    (tmp_path / "run.py").write_text(SCRIPT)
    out, folder = tmp_path / "out.parquet", tmp_path / "out.parquet.scan"
    command = [sys.executable, str(tmp_path / "run.py"), str(root), str(bundle), str(out)]
    rng, parts, orphans = random.Random(), 0, []
    for _ in range(3):
        with subprocess.Popen(command) as running:
            target = parts + rng.randint(1, 12)
            while running.poll() is None and parts < target:
                time.sleep(0.002)
                parts = len(list(folder.glob("part-*")))
            time.sleep(rng.uniform(0, 0.02))
            orphans += children(running.pid)
            running.kill()
        parts = len(list(folder.glob("part-*")))
    subprocess.run(command, check=True)
    assert read(out) == read(tmp_path / "whole.parquet")
    assert not folder.exists()
    deadline = time.monotonic() + 30
    while alive := [pid for pid in orphans if Path(f"/proc/{pid}/fd").exists()]:
        assert time.monotonic() < deadline, f"still running: {alive}"
        time.sleep(0.1)


def chunks_of(items: list[Item], size: int) -> list[Chunk]:
    numbered = list(enumerate(items, start=1))
    return [
        Chunk(number, at + 1, tuple(numbered[at : at + size]), {})
        for number, at in enumerate(range(0, len(items), size))
    ]


def no_loss(item: Item, reason: str) -> list[dict[str, Any]]:
    raise AssertionError((item, reason))


@posix
def test_a_lost_worker_loses_no_row(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    items = list(find_items(str(write_pictures(tmp_path / "in", 90))))
    chunks = chunks_of(items, 15)
    pool = Pool(Job(make_bundle(), Wishes("none")), 2, no_loss)
    told: list[str] = []

    def tell(rows: list[dict[str, Any]]) -> None:
        told.append(rows[0]["path"])
        if len(told) in (10, 40):
            multiprocessing.active_children()[0].kill()

    found = {
        chunk.number: [rows[0]["path"] for rows in every]
        for chunk, every in pool.judged(iter(chunks), tell)
    }
    assert found == {one.number: [item.path for _, item in one.items] for one in chunks}
    assert sorted(told) == sorted(item.path for item in items)
    assert pool.replaced == 2
    assert not multiprocessing.active_children()


@posix
def test_a_picture_that_ends_its_process_again_and_again_is_given_up(
    make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    for name in ("a.png", "c.png"):
        (tmp_path / name).write_bytes(png(200))
    trap = tmp_path / "b.tar"
    os.mkfifo(trap)  # whoever opens it waits
    items = [
        Item("file", str(tmp_path / "a.png")),
        Item("tar", str(trap), 0, 1, "b.png"),
        Item("file", str(tmp_path / "c.png")),
    ]

    given_up: list[tuple[str, str]] = []

    def lost(item: Item, reason: str) -> list[dict[str, Any]]:
        given_up.append((item.path, reason))
        return [{"path": item.path}]

    pool = Pool(Job(make_bundle(), Wishes("none")), 1, lost)

    def kill_who_waits() -> None:
        killed: set[int | None] = set()
        while len(killed) < 3:
            time.sleep(0.01)
            for worker in pool._workers:
                at_it = worker.task is not None and len(worker.task.done) == 1
                if at_it and worker.process.pid not in killed:
                    os.kill(worker.process.pid or 0, signal.SIGKILL)
                    killed.add(worker.process.pid)

    killer = threading.Thread(target=kill_who_waits)
    killer.start()
    ((_, found),) = pool.judged(iter(chunks_of(items, 3)), lambda rows: None)
    killer.join()
    assert [rows[0]["path"] for rows in found] == [item.path for item in items]
    assert given_up == [(items[1].path, "its process ended 3 times (signal 9)")]


def test_what_a_process_cannot_open_is_an_error_of_the_scan(
    make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    bundle = make_bundle()
    (bundle / "model.onnx").unlink()
    pool = Pool(Job(bundle, Wishes("none")), 1, no_loss)
    with pytest.raises(BundleError):
        list(pool.judged(iter(chunks_of([Item("file", "a.png")], 1)), lambda rows: None))


def test_another_table_is_no_scan(tmp_path: Path) -> None:
    write_parquet(tmp_path / "t.parquet", [b""])
    with pytest.raises(DataError, match="expected a scan"):
        summarise(tmp_path / "t.parquet")
