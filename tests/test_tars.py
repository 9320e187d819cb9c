"""Paths that lead into a tar: read by offset, and clear where the tar is damaged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bonaface.errors import ImageError
from bonaface.images import ImageLimits, read_file, read_image
from bonaface.tars import DamagedTarError, index, members, open_binary, place, status
from scanned import png, write_tar


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    path = tmp_path / "s.tar"
    write_tar(path, {"a.png": png(1), "b/c.PNG": png(2), "._a.png": b"macOS", "n.txt": b"note"})
    return path


def test_a_member_is_read_as_a_file_is(tar: Path) -> None:
    assert read_file(tar / "a.png") == png(1)
    assert read_file(tar / "b/c.PNG") == png(2)
    assert read_image(tar / "a.png").pixels[5, 5].tolist() == [1, 1, 1]
    with open_binary(tar / "n.txt") as file:
        assert file.read() == b"note"
    assert status(tar / "n.txt") == (4, tar.stat().st_mtime_ns)
    assert status(tar) == (tar.stat().st_size, tar.stat().st_mtime_ns)


def test_limits_hold_for_members(tar: Path) -> None:
    with pytest.raises(ImageError, match="larger than"):
        read_file(tar / "a.png", ImageLimits(max_bytes=10))


def test_hidden_members_are_passed_over(tar: Path) -> None:
    assert sorted(index(tar)) == ["a.png", "b/c.PNG", "n.txt"]


def test_what_is_not_in_it_is_no_such_file(tar: Path) -> None:
    for gone in (tar / "z.png", tar.with_name("gone.tar") / "a.png"):
        with pytest.raises(ImageError, match="no such file"):
            read_file(gone)


def test_a_folder_may_be_called_so(tmp_path: Path) -> None:
    folder = tmp_path / "x.tar"
    folder.mkdir()
    (folder / "a.png").write_bytes(png(9))
    write_tar(folder / "y.TAR", {"b.png": png(3)})
    assert place(folder / "a.png") is None
    assert read_file(folder / "a.png") == png(9)
    assert read_file(folder / "y.TAR" / "b.png") == png(3)


def test_headers_are_read_once_until_the_tar_is_changed(
    tar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_file(tar / "a.png") == png(1)
    with monkeypatch.context() as patch:
        patch.setattr("bonaface.tars.members", lambda file: pytest.fail("read again"))
        assert read_file(tar / "b/c.PNG") == png(2)
    before = tar.stat()
    write_tar(tar, {"longer/than/before.png": b"x" * 700, "a.png": png(7)})
    os.utime(tar, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert read_file(tar / "a.png") == png(7)
    with pytest.raises(ImageError, match="no such file"):
        read_file(tar / "b/c.PNG")


def told(path: Path) -> tuple[list[str], str]:
    """The names of a damaged tar's members, as far as they go, and what is said then."""
    names = []
    with path.open("rb") as file:
        try:
            for one in members(file):
                names.append(one.name)
        except DamagedTarError as error:
            return names, str(error.strerror)
    raise AssertionError("taken for whole")


def test_damage_is_told_and_what_comes_before_is_given(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    write_tar(path, {f"{n}.png": png(n) for n in range(4)})
    whole = path.read_bytes()
    third = index(path)["2.png"].at - 512
    for length in (third + 520, third + 100):  # within its bytes, within its header
        path.write_bytes(whole[:length])
        names, why = told(path)
        assert names[:2] == ["0.png", "1.png"]
        assert "3.png" not in names
        assert why.startswith("damaged tar (")
        with pytest.raises(ImageError, match="damaged tar") as failed:
            read_file(path / "0.png")
        assert str(path) in str(failed.value)
    # tarfile alone takes a header that is none for the end.
    path.write_bytes(whole[:third] + b"\xff" * 8 + whole[third + 8 :])
    assert told(path) == (["0.png", "1.png"], "damaged tar (bad header)")


def test_a_tar_that_shrank_after_its_headers_were_read(tar: Path) -> None:
    found = place(tar / "b/c.PNG")
    assert found is not None
    tar.write_bytes(tar.read_bytes()[: found.at + 3])
    with pytest.raises(DamagedTarError, match="ends within a file"):
        found.read()
