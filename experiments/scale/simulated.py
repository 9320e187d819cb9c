"""Workers and nodes that do not exist, for the real `Pool` and `Cluster` of a scan."""

from __future__ import annotations

import hashlib
import heapq
import json
import zlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from bonaface.errors import ImageError
from bonaface.scan.plan import Chunk
from bonaface.scan.rows import TIMINGS, Job, Row, unreadable
from bonaface.scan.sources import Item
from bonaface.scan.workers import Judged, Pool, Told, _Worker
from faults import SLOW, Broken, Setting, World

_WORDS = ("fake", "real", "unsure", "not_applicable")


def items(count: int) -> Iterator[Item]:
    """The source, in no order; some pictures are named twice."""
    step = next(n for n in (7919, 104729, 1299709) if count % n)
    for at in range(count):
        number = at * step % count
        item = Item("file", f"lib/{number // 1000:06d}/{number:09d}.jpg")
        yield item
        if number % 97 == 0:
            yield item


def number_of(item: Item) -> int:
    """Of a picture in the source."""
    return int(item.file[-13:-4])


def content(number: int, dedupe: bool) -> bytes:
    """Of a picture; with `dedupe` every second one is a copy of one before."""
    return str(number // 3 if dedupe and number % 3 else number).encode()


def rows_of(item: Item, number: int, dedupe: bool) -> list[Row]:
    """None to four faces, by the bytes alone; one in forty cannot be read."""
    data = content(number, dedupe)
    lot = zlib.crc32(data)
    if lot % 40 == 0:
        return [unreadable(item.path, "not an image", "simulated", "1")]
    whole: Row = {
        "path": item.path, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data),
        "readable": True, "width": 640, "height": 480, "picture": _WORDS[lot % 4],
        "faces": lot // 4 % 5, "model": "simulated", "version": "1",
    }  # fmt: skip
    if not whole["faces"]:
        return [whole | {"verdict": "not_applicable", "reason": "no face"}]
    return [
        whole | {"face": face, "verdict": _WORDS[lot % 4], "reason": f"by lot {lot}",
                 "score": lot // face % 1000 / 1000}
        for face in range(1, whole["faces"] + 1)
    ]  # fmt: skip


class Bytes:
    """Reads pictures to find copies."""

    def __init__(self, dedupe: bool) -> None:
        self._dedupe = dedupe

    def read(self, item: Item) -> bytes:
        """The bytes of one."""
        data = content(number_of(item), self._dedupe)
        if zlib.crc32(data) % 40 == 0:
            raise ImageError("not an image")
        return data


def judge(world: World, item: Item) -> list[Row]:
    """What any worker finds, whenever; only the timings differ."""
    number = number_of(item)
    world.times[number] = min(255, world.times[number] + 1)
    found = rows_of(item, number, world.setting.dedupe)
    found[0] |= {name: world.rng.random() for name in TIMINGS}
    return found


# -- workers of the local engine ------------------------------------------------------------------


class _Process:
    """Takes the place of a process: what has ended needs no ending."""

    exitcode = -9

    def join(self) -> None: ...
    def terminate(self) -> None: ...


class _Mouth:
    """Takes the place of the pipe to a worker: it says one thing after another, in its time."""

    def __init__(self, pool: SimulatedPool) -> None:
        self._pool = pool
        self._world = pool.world
        self._slowness = SLOW if self._world.chance(self._world.setting.slow) else 1.0
        self._items: list[Item] = []
        self._at = 0
        self._ready = False
        self._spent = 0.0
        self.worker: _Worker | None = None
        self._pool.later(self, self._world.rng.uniform(0.5, 2.0))  # to load the networks

    def send(self, some: list[Item]) -> None:
        """It is given pictures."""
        self._items, self._at = some, 0
        self._judge()

    def recv(self) -> tuple[str, Any]:
        """Its next word; EOFError: it has ended."""
        world, setting = self._world, self._world.setting
        if not self._ready:
            if world.chance(setting.lost):
                self._end("lost as it began")
            self._ready = True
            return "idle", None
        if world.chance(setting.lost) and self._may_die():
            self._end("worker lost")
        if self._at == len(self._items):
            return "idle", None
        item = self._items[self._at]
        if is_poison(item, setting):
            self._end("worker lost to a picture")
        rows = judge(world, item)
        world.busy += self._spent
        self._at += 1
        if self._at < len(self._items):
            self._judge()
        else:
            self._pool.later(self, 0.001)
        return "rows", rows

    def close(self) -> None: ...

    def _judge(self) -> None:
        self._spent = self._world.seconds(1, self._slowness)
        self._pool.later(self, self._spent)

    def _may_die(self) -> bool:
        """Not so often at one picture that it would count as unreadable."""
        if self._at == len(self._items):
            return True
        number = number_of(self._items[self._at])
        if self._world.deaths[number] >= 2:
            return False
        self._world.deaths[number] += 1
        return True

    def _end(self, how: str) -> NoReturn:
        self._world.happened[how] += 1
        raise EOFError


def is_poison(item: Item, setting: Setting) -> bool:
    """Whether a picture ends every process."""
    if setting.engine != "pool" or not setting.poison:
        return False
    return zlib.crc32(item.file.encode()) % 1_000_000 < setting.poison * 1_000_000


class SimulatedPool(Pool):
    """The local engine with other processes and another time."""

    def __init__(self, world: World, folder: Path) -> None:
        def lost(item: Item, reason: str) -> list[Row]:
            return [unreadable(item.path, reason, "simulated", "1")]

        super().__init__(Job(Path("none")), world.setting.workers, lost)
        self.world = world
        self._folder = folder
        self._heap: list[tuple[float, int, _Mouth]] = []
        self._count = 0

    def judged(self, chunks: Iterator[Chunk], told: Told) -> Iterator[Judged]:
        """As it is, and looked at."""
        return super().judged(watched(chunks, self._folder), told)

    def later(self, mouth: _Mouth, seconds: float) -> None:
        """A worker has a word to say by then."""
        self._count += 1
        heapq.heappush(self._heap, (self.world.now + seconds, self._count, mouth))

    def _started(self) -> _Worker:
        mouth = _Mouth(self)
        mouth.worker = _Worker(_Process(), mouth)  # type: ignore[arg-type]
        return mouth.worker

    def _speaking(self) -> list[_Worker]:
        if not self._heap:
            raise Broken(f"{len(self._workers)} workers are waited for that have nothing to do")
        first = self._heap[0][0]
        advance(self.world, first, len(self._workers))
        some = []
        while self._heap and self._heap[0][0] <= first + 0.001:
            worker = heapq.heappop(self._heap)[2].worker
            if worker is not None:
                some.append(worker)
        return some


def advance(world: World, until: float, workers: int) -> None:
    """Time goes on; the process that deals may end in it."""
    world.held += workers * (until - world.now)
    world.now = until
    if until >= world.kill_at:
        world.kill("as it waited")


def watched(chunks: Iterator[Chunk], folder: Path) -> Iterator[Chunk]:
    """The chunks that are dealt; Broken: one that has a part."""
    for chunk in chunks:
        if (folder / f"part-{chunk.number:08d}.parquet").exists():
            raise Broken(f"chunk {chunk.number} was dealt, though it is committed")
        yield chunk


# -- nodes of the cluster -------------------------------------------------------------------------


def cluster(world: World, folder: Path) -> Any:
    """The engine for Ray without Ray: chunks are delivered at least once."""
    from bonaface.scan.onray import Cluster

    class SimulatedCluster(Cluster):
        def judged(self, chunks: Iterator[Chunk], told: Told) -> Iterator[Judged]:
            return super().judged(watched(chunks, folder), told)

        def _results(self, chunks: dict[int, Chunk]) -> Iterator[tuple[int, Any]]:
            yield from delivered(world, chunks)

    return SimulatedCluster(Job(Path("none")), world.setting.workers)


def delivered(world: World, chunks: dict[int, Chunk]) -> Iterator[tuple[int, Any]]:
    """Chunks with their rows, some twice: a node that is lost takes one chunk with it."""
    setting, rng = world.setting, world.rng
    waiting, missing = deque(chunks), set(chunks)
    heap: list[tuple[float, float, int, int]] = []
    slowness = [SLOW if world.chance(setting.slow) else 1.0 for _ in range(setting.workers)]
    free = deque(range(setting.workers))
    while missing:
        while waiting and free:
            number, worker = waiting.popleft(), free.popleft()
            spent = world.seconds(len(chunks[number].items), slowness[worker])
            heapq.heappush(heap, (world.now + spent, spent, worker, number))
        until, spent, worker, number = heapq.heappop(heap)
        advance(world, until, setting.workers)
        world.busy += spent
        free.append(worker)
        found = [judge(world, item) for _, item in chunks[number].items]
        if world.chance(setting.lost):
            world.happened["node lost"] += 1
            waiting.append(number)
            continue
        if world.chance(setting.twice):
            world.happened["judged again, though delivered"] += 1
            waiting.insert(rng.randrange(len(waiting) + 1), number)
        missing.discard(number)
        yield number, json.loads(json.dumps(found))
    yield from ((number, found) for number in chunks if world.chance(setting.twice / 4))
