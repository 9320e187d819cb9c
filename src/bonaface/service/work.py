"""Places, threads and batches: what keeps a full service quick to say so.

A full service says so before it reads a body; a request takes a place when its body has come.
Pictures are decoded and searched for faces in a few threads, and the crops of all of them are
scored together.
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


@dataclass(frozen=True, slots=True)
class Room:
    """How much there is.

    Attributes:
        requests: whose bodies have come and that are not answered.
        arriving: whose bodies are still coming.
        held: bytes of the bodies of both.
        client_requests: of both, of one client.
        client_held: bytes of their bodies.
        wait: seconds that an accepted picture may have to wait for its turn, as things look when it
            comes.
    """

    requests: int
    arriving: int
    held: int
    client_requests: int
    client_held: int
    wait: float = math.inf


@dataclass(slots=True)
class _Client:
    requests: int = 0
    held: int = 0


class Places:
    """How many requests are taken in, and how many bytes of theirs are held.

    A body that is still coming takes none of the places where requests are judged: who sends slowly
    keeps nobody from being judged. And one client gets a part of the room only.

    Args:
        room: that there is.
        threads: that work on pictures.
        told: called with the requests accepted and arriving, and the bytes held, when one changes.
    """

    def __init__(self, room: Room, threads: int, told: Callable[[int, int, int], None]) -> None:
        self._room, self._threads, self._told = room, threads, told
        self.taken = self.arriving = self.held = 0
        self._pictures = 0  # of the accepted requests, that are not done
        # Between two pictures that are done, while there are some.
        self._seconds, self._last = 0.05, -math.inf
        self._clients: dict[str, _Client] = {}

    @contextmanager
    def one(self, client: str, length: int) -> Iterator[Place]:
        """Take in a request, whose body is still to come.

        Args:
            client: whose it is.
            length: of its body as its header says; 0 where it does not say.

        Raises:
            Problem: 503, there is no room; 429, this client has its part already.
        """
        room, owner = self._room, self._clients.get(client, _Client())
        if self.arriving >= room.arriving:
            raise self.full()
        self._check_turn()
        if owner.requests >= room.client_requests:
            raise self._greedy()
        self._check(owner, length)
        self._clients[client] = owner
        owner.requests += 1
        self.arriving += 1
        place = Place(self, owner)
        self._tell()
        try:
            yield place
            for _ in range(place.pictures):  # of a clip nobody tells
                place.done()
        finally:
            self.taken -= place.accepted
            self.arriving -= not place.accepted
            self._pictures -= place.pictures
            self.hold(owner, -place.held)
            owner.requests -= 1
            if not owner.requests:
                del self._clients[client]

    def accept(self, pictures: int) -> None:
        """The body of one has come, with so many pictures.

        Raises:
            Problem: 503, there is no room for it.
        """
        self._check_turn()
        self.arriving -= 1
        self.taken += 1
        self._pictures += pictures
        self._tell()

    def done(self, began: float) -> None:
        """One of the pictures of a request that was accepted at that time is done."""
        now = time.monotonic()
        self._seconds += 0.1 * (now - max(began, self._last) - self._seconds)
        self._last = now
        self._pictures -= 1

    def hold(self, owner: _Client, more: int) -> None:
        """Count bytes that are to be held, or, below 0, no longer are; Problem as of `one`."""
        if more > 0:
            self._check(owner, more)
        owner.held += more
        self.held += more
        self._tell()

    def full(self) -> Problem:
        """503, with the seconds after which there should be room."""
        return Problem.busy("request", self._wait())

    def _check_turn(self) -> None:
        """Room to be judged, and that soon: a long queue would make all of them slow."""
        before = max(self._pictures - self._threads, 0)
        if self.taken >= self._room.requests or before * self._seconds > self._room.wait:
            raise self.full()

    def _check(self, owner: _Client, more: int) -> None:
        if self.held + more > self._room.held:
            raise self.full()
        if owner.held + more > self._room.client_held:
            raise self._greedy()

    def _greedy(self) -> Problem:
        room, seconds = self._room, self._wait()
        return Problem(
            429,
            f"expected at most {room.client_requests} requests with "
            f"{room.client_held / 2**20:.4g} MiB from you at a time, got more; wait for answers, "
            f"or try again in {seconds} s",
            {"Retry-After": str(seconds)},
        )

    def _wait(self) -> int:
        return min(max(math.ceil(self._seconds * self._pictures), 1), _LONGEST_WAIT)

    def _tell(self) -> None:
        self._told(self.taken, self.arriving, self.held)


class Place:
    """That of one request; `held` bytes of its body, which has come when it is `accepted`."""

    def __init__(self, places: Places, owner: _Client) -> None:
        self._places, self._owner = places, owner
        self.held, self.accepted, self.began = 0, False, time.monotonic()
        self.pictures = 0

    def grow(self, size: int) -> None:
        """To be told of the bytes of the body so far, before they are held; may raise a problem."""
        more = max(size - self.held, 0)
        self._places.hold(self._owner, more)
        self.held += more

    def accept(self, pictures: int = 1) -> None:
        """To be told when the body has come, and how much is in it; may raise a problem."""
        self._places.accept(pictures)
        self.accepted, self.began, self.pictures = True, time.monotonic(), pictures

    def done(self) -> None:
        """To be told when one of its pictures is done."""
        self.pictures -= 1
        self._places.done(self.began)


class Pool:
    """Threads for one kind of work; `run` waits for it from the event loop."""

    def __init__(self, threads: int, name: str) -> None:
        self._threads = ThreadPoolExecutor(threads, name)

    async def run(
        self,
        tasks: Sequence[Callable[[], T]],
        gone: threading.Event,
        left: asyncio.Future[None],
        done: Callable[[], None] = lambda: None,
    ) -> list[T]:
        """Do the tasks, and give what they return in their order.

        Args:
            tasks: to be done in threads.
            done: called when one of them is done; from the event loop.
            gone: set when nobody waits any more; the tasks may look at it.
            left: is done when nobody waits any more.

        Raises:
            GoneError: `left` came first. What had not begun is not done; what had, has ended.
        """
        futures = [self._threads.submit(task) for task in tasks]
        waiting = [asyncio.wrap_future(future) for future in futures]
        for one in waiting:
            one.add_done_callback(lambda one: None if one.cancelled() else done())
        every = asyncio.gather(*waiting)
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
