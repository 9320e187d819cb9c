"""Places, threads and batches: what keeps a full service quick to say so.

A full service says so before it reads a body; a request takes a place when its body has come.
Pictures are decoded and searched for faces in a few threads, in the order in which they came, and
the crops of all of them are scored together.
"""

from __future__ import annotations

import asyncio
import math
import queue
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from bonaface.service.problems import Problem

Crops = Sequence[NDArray[np.uint8]]
Logits = Callable[[Crops], NDArray[np.float64]]

T = TypeVar("T")

_LONGEST_WAIT: Final = 60  # seconds, that a client is told to wait
PRESSED: Final = 0.15  # seconds, after which a line that was never empty is no chance any more
_KEPT: Final = 0.02  # seconds, for which room is kept for a body that is to come
_LOOK_SECONDS: Final = 0.05  # after which a thread that waits for its turn sees who has left


class GoneError(Exception):
    """Nobody waits for the answer any more."""


@dataclass(frozen=True, slots=True)
class Room:
    """How much there is.

    Attributes:
        requests: whose bodies have come and that are not answered.
        arriving: that wait for room, or whose bodies are still coming.
        held: bytes of the bodies of both.
        client_requests: of both, of one client.
        client_held: bytes of their bodies.
        wait: seconds that a request waits for room before it is told that there is none. So who
            comes again at once costs little, and finds what became free meanwhile.
    """

    requests: int
    arriving: int
    held: int
    client_requests: int
    client_held: int
    wait: float


@dataclass(slots=True)
class _Client:
    requests: int = 0
    held: int = 0


class Places:
    """How many requests are taken in, and how many bytes of theirs are held.

    Room is kept for the body of who is let in, but not for long: a body that is still coming then
    takes none of the places where requests are judged, and waits for one when it has come.
    So who sends slowly keeps nobody from being judged. And one client gets a part of the room only.

    Args:
        room: that there is.
        told: called with the requests accepted and arriving, and the bytes held, when one changes.
        clock: seconds, to tell how long pictures take, and how long there always is a line.
    """

    def __init__(
        self,
        room: Room,
        told: Callable[[int, int, int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._room, self._told, self._clock = room, told, clock
        self.taken = self.arriving = self.held = 0
        self._busy = Fraction(0)  # of the room, with accepted pictures that are not done
        self._kept = Fraction(0)  # of it, for requests that were let in
        self._expected = 0  # of those, how many
        self._line: deque[tuple[asyncio.Future[None], Fraction]] = deque()
        self._empty = -math.inf  # when the line last was
        self._pictures = 0  # of the accepted requests, that are not done
        # Between two pictures that are done, while there are some.
        self._seconds, self._last = 0.05, -math.inf
        self._clients: dict[str, _Client] = {}

    @asynccontextmanager
    async def one(self, client: str, length: int, share: Fraction) -> AsyncIterator[Place]:
        """Take in a request, whose body is still to come; waits for room.

        Args:
            client: whose it is.
            length: of its body as its header says; 0 where it does not say.
            share: of the room, that each of its pictures takes.

        Raises:
            Problem: 503, there is no room; 429, this client has its part already.
        """
        room, owner = self._room, self._clients.get(client, _Client())
        if self.arriving >= room.arriving:
            raise self.full()
        if owner.requests >= room.client_requests:
            raise self._greedy()
        self._check(owner, length)
        self._clients[client] = owner
        owner.requests += 1
        self.arriving += 1
        place = Place(self, owner, share, self._clock)
        self._tell()
        try:
            await self._let_in(share)
            place.keep()
            yield place
            for _ in range(place.pictures):  # of a clip nobody tells
                place.done()
        finally:
            place.forget()
            self.taken -= place.accepted
            self.arriving -= not place.accepted
            self._pictures -= place.pictures
            self._busy -= place.pictures * share
            self.hold(owner, -place.held)
            owner.requests -= 1
            if not owner.requests:
                del self._clients[client]
            self._next()

    def forget(self, share: Fraction) -> None:
        """No longer keep room for one that was let in."""
        self._expect(-1, share)
        self._next()

    async def accept(self, pictures: int, share: Fraction, *, kept: bool) -> None:
        """The body of one has come; waits for room where none was kept.

        Args:
            pictures: in it.
            share: of the room, that each takes.
            kept: room was kept for it until now.

        Raises:
            Problem: 503, there is no room for it.
        """
        if not kept:
            await self._let_in(share)
        self._expect(-1, share)
        self.arriving -= 1
        self.taken += 1
        self._pictures += pictures
        self._busy += pictures * share
        self._tell()

    def done(self, began: float, share: Fraction) -> None:
        """One of the pictures of a request that was accepted at that time is done."""
        now = self._clock()
        self._seconds += 0.1 * (now - max(began, self._last) - self._seconds)
        self._last = now
        self._pictures -= 1
        self._busy -= share
        self._next()

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

    async def _let_in(self, share: Fraction) -> None:
        """Wait for room, which is then kept, in the order in which they come.

        Raises:
            Problem: 503, there is none.
        """
        turn = asyncio.get_running_loop().create_future()
        if not self._line:
            self._empty = self._clock()
        self._line.append((turn, share))
        self._next()
        try:
            async with asyncio.timeout(self._room.wait):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.forget(share)
            elif (turn, share) in self._line:
                self._line.remove((turn, share))
            if isinstance(error, TimeoutError):
                raise self.full() from None
            raise

    def _next(self) -> None:
        """Let in who waits, as far as there is room: when there always is someone, half of it."""
        pressed = self._clock() - self._empty > PRESSED
        while (
            self._line
            and self.taken + self._expected < self._room.requests
            and self._busy + self._kept < (Fraction(1, 2) if pressed else 1)
        ):
            turn, share = self._line.popleft()
            if not turn.done():
                self._expect(1, share)
                turn.set_result(None)

    def _expect(self, more: int, share: Fraction) -> None:
        self._expected += more
        self._kept += more * share

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

    def __init__(
        self, places: Places, owner: _Client, share: Fraction, clock: Callable[[], float]
    ) -> None:
        self._places, self._owner, self._share, self._clock = places, owner, share, clock
        self._kept: asyncio.TimerHandle | None = None
        self.held, self.accepted, self.began = 0, False, clock()
        self.pictures = 0

    def keep(self) -> None:
        """To be told when it is let in: room is kept for its body, for a while."""
        self._kept = asyncio.get_running_loop().call_later(_KEPT, self.forget)

    def forget(self) -> None:
        """To be told when no room need be kept for it any more."""
        if self._was_kept():
            self._places.forget(self._share)

    def _was_kept(self) -> bool:
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.cancel()
        return kept is not None

    def grow(self, size: int) -> None:
        """To be told of the bytes of the body so far, before they are held; may raise a problem."""
        more = max(size - self.held, 0)
        self._places.hold(self._owner, more)
        self.held += more

    async def accept(self, pictures: int = 1) -> None:
        """To be told when the body has come, and how much is in it; may raise a problem."""
        await self._places.accept(pictures, self._share, kept=self._was_kept())
        self.accepted, self.began, self.pictures = True, self._clock(), pictures

    def done(self) -> None:
        """To be told when one of its pictures is done."""
        self.pictures -= 1
        self._places.done(self.began, self._share)


def check_wanted(gone: threading.Event) -> None:
    """Raises GoneError where nobody waits any more."""
    if gone.is_set():
        raise GoneError


class Turns:
    """Lets so many threads work at a time, in the order in which they ask.

    Args:
        threads: that may work.
    """

    def __init__(self, threads: int) -> None:
        self._free = threads
        self._line: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def one(self, gone: threading.Event) -> Iterator[None]:
        """A turn for the time of the block.

        Raises:
            GoneError: `gone` was set before it came.
        """
        me = object()
        with self._changed:
            self._line.append(me)
            try:
                while self._free < 1 or self._line[0] is not me:
                    self._changed.wait(_LOOK_SECONDS)
                    check_wanted(gone)
                check_wanted(gone)
                self._free -= 1
            finally:
                self._line.remove(me)
                self._changed.notify_all()
        try:
            yield
        finally:
            self._give()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Another may work for the time of the block.

        Afterwards this one goes on at once, beside it: what is left is little, and would wait for
        all of another's work.
        """
        self._give()
        try:
            yield
        finally:
            with self._changed:
                self._free -= 1

    def _give(self) -> None:
        with self._changed:
            self._free += 1
            self._changed.notify_all()


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
