"""Work in threads, a few steps ahead of who takes the results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def ahead(
    rows: Iterable[_In], make: Callable[[_In], _Out], workers: int = 2, depth: int = 4
) -> Generator[_Out, None, None]:
    """What `make` makes of each row, in their order.

    Whoever may leave early closes it: what waits is dropped, what is at work is waited for.

    Args:
        rows: asked for in the caller's thread. Where they break off, what they gave comes first.
        make: called in the threads; what it raises comes in its row's turn.
        workers: threads.
        depth: rows that are at work or whose result waits, at the most.
    """
    coming, failed = iter(rows), None
    waiting: deque[Future[_Out]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            while failed is None:
                try:
                    waiting.append(pool.submit(make, next(coming)))
                except Exception as error:  # the end, or a source that broke off
                    failed = error
                if len(waiting) == depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
    if not isinstance(failed, StopIteration):
        raise failed
