"""What goes wrong in a simulated scan, from a seed: processes end, power fails, disks are full."""

from __future__ import annotations

import errno
import os
import random
import shutil
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq

_PICTURE_SECONDS = 0.1  # that a worker takes for a picture, on average
SLOW = 10.0  # times
_YOUNG = 5.0  # seconds after which a rename outlasts a power cut, as with ext4


class Broken(Exception):
    """The scan did what it promises not to do."""


class Killed(BaseException):
    """The process that deals is gone: nothing of it runs any more, not even its cleaning up."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is scanned, by how many, and what goes wrong.

    Attributes:
        pictures: in the source.
        workers: that judge.
        chunk: pictures that are committed together.
        engine: "pool" or "cluster".
        dedupe: half of the pictures have the bytes of another one.
        lost: chance for each picture that its worker (with `cluster`: 256 times less, its node)
            is lost.
        poison: share of pictures that end every process; `pool` alone.
        twice: chance that a chunk is delivered and judged again; `cluster` alone.
        slow: share of the workers that take ten times as long.
        kills: of the process that deals while it waits, expected in all.
        crash: chance for each thing done to the disk that the process ends in it.
        full: chance for each write that the disk is full.
        power: share of the ends of the process that are those of the machine.
    """

    pictures: int = 2000
    workers: int = 50
    chunk: int = 16
    engine: str = "pool"
    dedupe: bool = False
    lost: float = 0.002
    poison: float = 0.001
    twice: float = 0.1
    slow: float = 0.02
    kills: float = 4.0
    crash: float = 0.004
    full: float = 0.004
    power: float = 0.5

    def undisturbed(self) -> Setting:
        """The same pictures, and nothing goes wrong."""
        return Setting(
            **asdict(self)
            | dict.fromkeys(("lost", "twice", "slow", "kills", "crash", "full"), 0.0)
            | {
                "engine": "pool",
                "workers": min(self.workers, 8),
                "poison": self.poison if self.engine == "pool" else 0.0,
            }
        )


@dataclass
class World:
    """What goes on beyond the process that deals.

    Attributes:
        setting: what may go wrong.
        rng: decides when it does.
        now: simulated seconds.
        lives: of the process that deals.
        done: whether the table is finished, and what it was made of may be gone.
        times: how often each picture was judged to the end.
        happened: how often what.
        busy: simulated seconds in which workers judged.
        held: simulated seconds in which workers were there.
    """

    setting: Setting
    rng: random.Random
    now: float = 0.0
    lives: int = 0
    done: bool = False
    times: bytearray = field(default_factory=bytearray)
    happened: Counter[str] = field(default_factory=Counter)
    busy: float = 0.0
    held: float = 0.0
    dead: bool = False
    kill_at: float = float("inf")
    deaths: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.times = bytearray(self.setting.pictures)

    def chance(self, probability: float) -> bool:
        """Whether something of this probability happens now."""
        return probability > 0 and self.rng.random() < probability

    def kill(self, how: str) -> NoReturn:
        """End the process that deals."""
        self.happened[f"killed: {how}"] += 1
        self.dead = True
        raise Killed(how)

    def seconds(self, pictures: int, slowness: float) -> float:
        """That a worker takes for so many."""
        return pictures * _PICTURE_SECONDS * slowness * self.rng.uniform(0.5, 1.5)

    def new_life(self) -> None:
        """The process that deals is started once more."""
        setting = self.setting
        self.dead = False
        self.lives += 1
        slowest = setting.chunk * (SLOW if setting.slow else 1.0)
        whole = (setting.pictures / setting.workers + slowest) * _PICTURE_SECONDS
        wait = self.rng.expovariate(setting.kills / whole) if setting.kills else float("inf")
        self.kill_at = self.now + wait


class Disk:
    """What the process that deals does to the disk: it may end in it, and so may the machine."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._renamed: list[tuple[float, Path, Path]] = []  # that a power cut may undo

    @contextmanager
    def used(self) -> Iterator[None]:
        """Everything goes by here."""
        real = {
            "replace": Path.replace, "unlink": Path.unlink, "rmtree": shutil.rmtree,
            "write": pq.write_table, "append": pq.ParquetWriter.write_table,
        }  # fmt: skip

        def write(table: pa.Table, where: Path, **options: Any) -> None:
            real["write"](table, where, **options)
            self._may_tear(Path(where), "a part")

        def append(writer: Any, table: pa.Table, *rest: Any, **options: Any) -> None:
            self._alive()
            self._may("in joining")
            if self._world.chance(self._world.setting.full):
                self._full()
            real["append"](writer, table, *rest, **options)

        def fsync(number: int) -> None:  # nothing here outlives the machine
            self._alive()
            if stat.S_ISDIR(os.fstat(number).st_mode):
                self._renamed.clear()
            self._may("before a rename")

        def replace(path: Path, target: Path) -> Path:
            self._alive()
            found = real["replace"](path, target)
            self._renamed.append((self._world.now, path, Path(target)))
            self._may("after a rename")
            return found

        def unlink(path: Path, missing_ok: bool = False) -> None:
            self._alive()
            real["unlink"](path, missing_ok=missing_ok)

        def rmtree(path: Path, ignore_errors: bool = False) -> None:
            self._alive()
            self._world.done = True
            for file in sorted(Path(path).iterdir()) if Path(path).is_dir() else ():
                real["unlink"](file)
                self._may("in removing")
            real["rmtree"](path, ignore_errors=ignore_errors)

        with ExitStack() as stack:
            for home, name, other in (
                (pq, "write_table", write), (pq.ParquetWriter, "write_table", append),
                (os, "fsync", fsync), (Path, "replace", replace), (Path, "unlink", unlink),
                (shutil, "rmtree", rmtree),
            ):  # fmt: skip
                stack.enter_context(mock.patch.object(home, name, other))
            yield

    def lose_power(self) -> None:
        """Undo some renames that no folder was synced after; what was removed stays so."""
        self._world.happened["power cut"] += 1
        for when, was, name in reversed(self._renamed):
            young = self._world.now - when <= _YOUNG
            if young and self._world.chance(0.5) and name.exists():
                self._world.happened["renames lost"] += 1
                if was.parent.is_dir():
                    name.rename(was)
                else:
                    name.unlink()
        self._renamed.clear()

    def _alive(self) -> None:
        if self._world.dead:
            raise Killed

    def _may(self, where: str) -> None:
        if self._world.chance(self._world.setting.crash):
            self._world.kill(where)

    def _may_tear(self, path: Path, what: str) -> None:
        crash, full = (self._world.chance(getattr(self._world.setting, name))
                       for name in ("crash", "full"))  # fmt: skip
        if crash or full:
            os.truncate(path, self._world.rng.randrange(path.stat().st_size))
        if crash:
            self._world.kill(f"with half of {what} written")
        if full:
            self._full()

    def _full(self) -> NoReturn:
        self._world.happened["disk full"] += 1
        raise OSError(errno.ENOSPC, "No space left on device")
