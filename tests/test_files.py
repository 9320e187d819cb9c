"""Atomic writing: the old one or the new one, whatever happens in between."""

import json
import math
import os
from pathlib import Path

import pytest

from bonaface.files import atomic_folder, atomic_path, write_json, write_text


class Stop(BaseException):
    """Like KeyboardInterrupt: not an Exception."""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_new_file_and_parents(tmp_path):
    path = tmp_path / "a" / "b" / "file.txt"
    write_text(path, "héllo\n")
    assert path.read_bytes() == "héllo\n".encode()
    assert names(path.parent) == ["file.txt"]


def test_old_file_is_replaced(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old, and longer")
    write_text(path, "new")
    assert path.read_text() == "new"
    assert names(tmp_path) == ["file.txt"]


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent  # so that the rename stays on one disk
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, Stop])
@pytest.mark.parametrize("exists", [True, False])
def test_a_failure_while_writing_leaves_the_old_file(tmp_path, error, exists):
    path = tmp_path / "file.txt"
    if exists:
        path.write_text("old")

    def write_half():
        with atomic_path(path) as temporary:
            temporary.write_text("ha")
            raise error

    with pytest.raises(error):
        write_half()
    assert names(tmp_path) == (["file.txt"] if exists else [])
    assert not exists or path.read_text() == "old"


def test_a_failure_to_reach_the_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def full(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_bytes_reach_the_disk_before_the_rename(tmp_path, monkeypatch):
    steps = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (steps.append("fsync"), fsync(handle)))
    monkeypatch.setattr(
        Path, "replace", lambda self, to: (steps.append("rename"), replace(self, to))
    )
    write_text(tmp_path / "file.txt", "new")
    assert steps == ["fsync", "rename"]


def test_nothing_written_is_an_error(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), atomic_path(path):
        pass
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_a_folder_is_not_overwritten_by_a_file(tmp_path):
    (tmp_path / "name").mkdir()
    (tmp_path / "name" / "kept").touch()
    with pytest.raises(OSError):
        write_text(tmp_path / "name", "text")
    assert names(tmp_path) == ["name"]
    assert names(tmp_path / "name") == ["kept"]


def test_json(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"é": [1, None, 0.5]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"é": [1, None, 0.5]}
    assert "é" in path.read_text(encoding="utf-8")
    assert path.read_bytes().endswith(b"}\n")


@pytest.mark.parametrize("value", [math.nan, math.inf, {"a": [-math.inf]}])
def test_json_refuses_what_json_cannot_say(tmp_path, value):
    path = tmp_path / "value.json"
    write_json(path, 1)
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, value)
    assert json.loads(path.read_text()) == 1
    assert names(tmp_path) == ["value.json"]


def old_folder(path):
    path.mkdir()
    (path / "old.txt").write_text("old")
    return path


def test_folder_new_and_replaced(tmp_path):
    path = tmp_path / "deep" / "bundle"
    for content in ("first", "second"):
        with atomic_folder(path) as temporary:
            (temporary / f"{content}.txt").write_text(content)
            (temporary / "sub").mkdir()
    assert names(path) == ["second.txt", "sub"]
    assert names(path.parent) == ["bundle"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, Stop])
@pytest.mark.parametrize("exists", [True, False])
def test_a_failure_while_filling_leaves_the_old_folder(tmp_path, error, exists):
    path = tmp_path / "bundle"
    if exists:
        old_folder(path)

    def fill_half():
        with atomic_folder(path) as temporary:
            (temporary / "half.txt").touch()
            raise error

    with pytest.raises(error):
        fill_half()
    assert names(tmp_path) == (["bundle"] if exists else [])
    assert not exists or names(path) == ["old.txt"]


def test_the_old_folder_can_be_read_until_the_new_one_is_whole(tmp_path):
    path = old_folder(tmp_path / "bundle")
    with atomic_folder(path) as temporary:
        (temporary / "new.txt").touch()
        assert names(path) == ["old.txt"]
    assert names(path) == ["new.txt"]


def test_a_failed_swap_loses_nothing(tmp_path, monkeypatch):
    """The second of the two renames fails: the old content goes back to its place."""
    path = old_folder(tmp_path / "bundle")
    replace = Path.replace

    def fail_onto_path(self, to):
        if to == path and (self / "new.txt").exists():
            raise OSError(5, "Input/output error")
        return replace(self, to)

    monkeypatch.setattr(Path, "replace", fail_onto_path)
    with pytest.raises(OSError, match="Input/output"), atomic_folder(path) as temporary:
        (temporary / "new.txt").touch()
    assert (path / "old.txt").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["bundle"]
