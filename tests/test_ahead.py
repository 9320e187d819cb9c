"""Results in order, a bounded number of rows ahead, and nothing lost where a source breaks off."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from bonaface.ahead import ahead


def test_of_a_source_that_breaks_off_nothing_is_lost() -> None:
    def rows() -> Iterator[int]:
        yield from range(3)
        raise OSError("the line went dead")

    coming = ahead(rows(), lambda row: 10 * row)
    assert [next(coming) for _ in range(3)] == [0, 10, 20]
    with pytest.raises(OSError, match="dead"):
        next(coming)
    assert list(ahead(range(9), lambda row: 10 * row)) == list(range(0, 90, 10))
    coming = ahead(rows(), str)
    assert next(coming) == "0"
    coming.close()


def test_a_failure_comes_in_its_turn() -> None:
    coming = ahead([1, 0, 2], lambda row: 10 // row, workers=3, depth=5)
    assert next(coming) == 10
    with pytest.raises(ZeroDivisionError):
        next(coming)


@pytest.mark.parametrize(("workers", "depth"), [(1, 1), (3, 7)])
def test_no_more_rows_are_asked_for_than_may_wait(workers: int, depth: int) -> None:
    asked, threads = [], set()

    def rows() -> Iterator[int]:
        for row in range(30):
            asked.append(row)
            yield row

    def make(row: int) -> int:
        threads.add(threading.get_ident())
        return row

    most = 0
    for taken, row in enumerate(ahead(rows(), make, workers, depth)):
        assert row == taken
        most = max(most, len(asked) - taken)
    assert most == depth
    assert threading.get_ident() not in threads
    assert len(threads) <= workers
