"""The local engine: processes that judge one chunk at a time, and one that deals and gathers.

A process asks for a chunk when it has nothing to do, so no queue grows. It tells each picture's
rows as it has them: when it is lost, only the picture it was at is judged again.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Final

from bonaface.errors import BonafaceError, ConfigError
from bonaface.scan.plan import Chunk
from bonaface.scan.rows import Job, Row, Scanner
from bonaface.scan.sources import Item

Told = Callable[[list[Row]], None]
Judged = tuple[Chunk, list[list[Row]]]  # with the rows of each of its items

_DEATHS: Final = 3  # that one picture may be the death of, before it counts as unreadable
_FAILURES: Final = 3  # to start, in a row


@dataclass
class _Task:
    """A chunk in work: the rows of its first items are there."""

    chunk: Chunk
    done: list[list[Row]] = field(default_factory=list)

    @property
    def left(self) -> list[Item]:
        return [item for _, item in self.chunk.items[len(self.done) :]]


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    task: _Task | None = None
    ready: bool = False


class Pool:
    """Judges chunks in processes of this machine.

    Args:
        job: what they judge with.
        workers: how many.
        lost: the rows of a picture that ended its process again and again, with the reason.
    """

    def __init__(self, job: Job, workers: int, lost: Callable[[Item, str], list[Row]]) -> None:
        self._job = job
        self._size = workers
        self._lost = lost
        self._context = multiprocessing.get_context("spawn")  # threads of the runtimes do not fork
        self._workers: list[_Worker] = []
        self._again: deque[_Task] = deque()
        self._deaths: Counter[tuple[int, int]] = Counter()
        self._failures = 0
        self.replaced = 0

    def judged(self, chunks: Iterator[Chunk], told: Told) -> Iterator[Judged]:
        """Each chunk with the rows of each of its items, in the order in which they are done.

        Args:
            chunks: with at least one item each.
            told: called with the rows of each picture.

        Raises:
            ConfigError: processes end before they have begun.
            BundleError: the bundle cannot be run.
        """
        try:
            self._workers = [self._started() for _ in range(self._size)]
            while self._workers:
                for worker in self._speaking():
                    yield from self._heard(worker, chunks, told)
        finally:
            self._end()

    def _heard(self, worker: _Worker, chunks: Iterator[Chunk], told: Told) -> Iterator[Judged]:
        try:
            word, value = worker.pipe.recv()
        except (EOFError, OSError):
            yield from self._replace(worker, told)
            return
        if word == "failed":
            raise value
        if word == "rows":
            assert worker.task is not None
            worker.task.done.append(value)
            told(value)
        elif word == "idle":
            worker.ready, self._failures = True, 0
            finished, worker.task = worker.task, self._next(chunks)
            if worker.task is None:
                self._let_go(worker)
            else:
                self._give(worker)
            if finished is not None:
                yield finished.chunk, finished.done

    def _next(self, chunks: Iterator[Chunk]) -> _Task | None:
        if self._again:
            return self._again.popleft()
        chunk = next(chunks, None)
        return None if chunk is None else _Task(chunk)

    def _give(self, worker: _Worker) -> None:
        assert worker.task is not None
        with contextlib.suppress(OSError):  # it ended just now: heard of next
            worker.pipe.send(worker.task.left)

    def _replace(self, worker: _Worker, told: Told) -> Iterator[Judged]:
        """Another process in the place of one that ended, which goes on at the same picture."""
        self._let_go(worker)
        code = worker.process.exitcode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        self.replaced += 1
        if not worker.ready:
            self._failures += 1
            if self._failures >= _FAILURES:
                raise ConfigError(
                    f"expected processes that judge, got {_FAILURES} in a row that ended as they "
                    f"began ({how}); is there enough memory? Use fewer --workers"
                )
        task = worker.task
        if task is not None and task.left:
            at = task.chunk.number, len(task.done)
            self._deaths[at] += 1
            if self._deaths[at] >= _DEATHS:
                rows = self._lost(task.left[0], f"its process ended {_DEATHS} times ({how})")
                task.done.append(rows)
                told(rows)
        if task is not None and not task.left:
            yield task.chunk, task.done
        elif task is not None:
            self._again.append(task)
        self._workers.append(self._started())

    # The two places that know of processes and time; experiments/scale has others.

    def _speaking(self) -> list[_Worker]:
        """Waits until some have a word to be heard, or have ended; those."""
        pipes = {worker.pipe: worker for worker in self._workers}
        return [pipes[pipe] for pipe in wait(list(pipes))]  # type: ignore[index]

    def _started(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(self._job, theirs), daemon=True)
        process.start()
        theirs.close()  # or its end would not be heard of
        return _Worker(process, ours)

    def _let_go(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.pipe.close()
        worker.process.join()

    def _end(self) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in list(self._workers):
            self._let_go(worker)


def _work(job: Job, pipe: Connection) -> None:
    """In a process of its own. When the other end is gone, however, it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that deals decides
    with contextlib.suppress(EOFError, OSError):
        try:
            scanner = Scanner(job)
        except BonafaceError as error:
            pipe.send(("failed", error))
            return
        while True:
            pipe.send(("idle", None))
            items: list[Item] = pipe.recv()
            for item in items:
                pipe.send(("rows", scanner.rows(item)))
