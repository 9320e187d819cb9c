"""Places, threads and batches: what keeps a full service quick to say so.

A request needs a place before its body is read; without one it is told to come again. Pictures are
decoded and searched for faces in a few threads, and the crops of all of them are scored together.
"""

from __future__ import annotations

import asyncio
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from bonaface.service.problems import Problem

Crops = Sequence[NDArray[np.uint8]]
Logits = Callable[[Crops], NDArray[np.float64]]

T = TypeVar("T")

_LONGEST_WAIT: Final = 60  # seconds, that a client is told to wait


class GoneError(Exception):
    """Nobody waits for the answer any more."""


class Places:
    """How many requests are accepted, and how many bytes of theirs are held.

    Args:
        requests: at most.
        held: bytes at most.
        threads: that work on them, for the guess when there will be room.
        told: called with both numbers whenever one changes.
    """

    def __init__(
        self, requests: int, held: int, threads: int, told: Callable[[int, int], None]
    ) -> None:
        self._most, self._most_held, self._threads = requests, held, threads
        self._told = told
        self.taken, self.held, self._seconds = 0, 0, 0.2

    def wait(self) -> int:
        """Seconds after which there should be room."""
        guess = self._seconds * max(self.taken, 1) / self._threads / 2
        return min(max(math.ceil(guess), 1), _LONGEST_WAIT)

    @contextmanager
    def one(self, length: int) -> Iterator[Callable[[int], None]]:
        """A place for a request.

        Args:
            length: of its body as its header says; 0 where it does not say.

        Yields:
            To be told of the bytes of the body so far, before they are held.

        Raises:
            Problem: 503, there is no room; also later, from what is yielded.
        """
        mine = length
        if self.taken >= self._most or self.held + length > self._most_held:
            raise Problem.busy("request", self.wait())
        self._change(1, length)
        began = time.monotonic()

        def grow(size: int) -> None:
            nonlocal mine
            more = max(size - mine, 0)
            if self.held + more > self._most_held:
                raise Problem.busy("request", self.wait())
            mine += more
            self._change(0, more)

        try:
            yield grow
            self._seconds += 0.1 * (time.monotonic() - began - self._seconds)
        finally:
            self._change(-1, -mine)

    def _change(self, taken: int, held: int) -> None:
        self.taken, self.held = self.taken + taken, self.held + held
        self._told(self.taken, self.held)


class Pool:
    """Threads for one kind of work; `run` waits for it from the event loop."""

    def __init__(self, threads: int, name: str) -> None:
        self._threads = ThreadPoolExecutor(threads, name)

    async def run(
        self, tasks: Sequence[Callable[[], T]], gone: threading.Event, left: asyncio.Future[None]
    ) -> list[T]:
        """Do the tasks, and give what they return in their order.

        Args:
            tasks: to be done in threads.
            gone: set when nobody waits any more; the tasks may look at it.
            left: is done when nobody waits any more.

        Raises:
            GoneError: `left` came first. What had not begun is not done; what had, has ended.
        """
        futures = [self._threads.submit(task) for task in tasks]
        every = asyncio.gather(*map(asyncio.wrap_future, futures))
        try:
            waited: set[asyncio.Future[Any]] = {every, left}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if every.done():
                return await every
            raise GoneError
        finally:
            gone.set()
            for future in futures:
                future.cancel()
            await asyncio.gather(every, return_exceptions=True)
            running = [asyncio.wrap_future(one) for one in futures if not one.cancelled()]
            await asyncio.gather(*running, return_exceptions=True)

    def close(self) -> None:
        """Wait for what runs."""
        self._threads.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class _Waiting:
    crops: Crops
    found: Future[NDArray[np.float64]] = field(default_factory=Future)


class Batcher:
    """Scores the crops of several threads together. To be called with crops, from any thread.

    Args:
        logits: of crops; is called from one thread only.
        size: crops from which no more are waited for.
        seconds: for which the first crop waits for others.
        told: called with the number of crops of each batch.
    """

    def __init__(
        self, logits: Logits, size: int, seconds: float, told: Callable[[int], None]
    ) -> None:
        self._logits, self._size, self._seconds, self._told = logits, size, seconds, told
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._thread.start()

    def __call__(self, crops: Crops) -> NDArray[np.float64]:
        """Logits of the crops, float64 (n,); waits for them."""
        one = _Waiting(crops)
        self._waiting.put(one)
        return one.found.result()

    def close(self) -> None:
        """End when all that waits is scored."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch, open_ = self._gathered(first)
            self._score(batch)
            if not open_:
                return

    def _gathered(self, first: _Waiting) -> tuple[list[_Waiting], bool]:
        batch, until = [first], time.monotonic() + self._seconds
        while sum(len(one.crops) for one in batch) < self._size:
            try:
                one = self._waiting.get(timeout=max(until - time.monotonic(), 0))
            except queue.Empty:
                break
            if one is None:
                return batch, False
            batch.append(one)
        return batch, True

    def _score(self, batch: list[_Waiting]) -> None:
        crops = [crop for one in batch for crop in one.crops]
        try:
            logits = self._logits(crops)
        except Exception as error:
            if len(batch) == 1:
                batch[0].found.set_exception(error)
            else:  # who is at fault fails alone
                for one in batch:
                    self._score([one])
            return
        self._told(len(crops))
        at = 0
        for one in batch:
            one.found.set_result(logits[at : at + len(one.crops)])
            at += len(one.crops)
