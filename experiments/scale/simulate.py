"""A thousand workers that die, dawdle and deliver twice: does every picture keep its rows, once?

What a scan does is real: listing, dealing, committing, joining (`bonaface.scan.carry_out` with its
`Pool` or `Cluster`). Simulated are the processes that judge, the time they take, and what goes
wrong, from a seed:

- a worker ends while it judges, or between its last picture and its next chunk; one in fifty is
  ten times as slow;
- a picture ends every process that looks at it;
- the process that deals is killed at any time, and while it lists, hashes, writes, renames, joins
  or removes: before a rename, after it, or with half a file written;
- the disk is full in a commit;
- the power fails: of the renames that no folder was synced after, some are lost;
- (`cluster`) a node is lost, and its chunk judged again by another; a chunk that was delivered is
  judged and delivered once more.

After each the same call is made again. The table has to be that of an undisturbed run, and what is
in a part must not be dealt again.

``python experiments/scale/simulate.py --pictures 1000000 --workers 1000``
"""

from __future__ import annotations

import argparse
import errno
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from bonaface.errors import ConfigError
from bonaface.scan import ScanWatch, carry_out
from bonaface.scan.parts import Work
from bonaface.scan.rows import TIMINGS
from faults import Broken, Disk, Killed, Setting, World
from simulated import Bytes, SimulatedPool, cluster, items

_LIVES = 1000  # of the process that deals, before it counts as never ending


class _Watch(ScanWatch):
    """Ends the process as it lists and hashes, and counts along."""

    def __init__(self, world: World, second: Callable[[], Any]) -> None:
        self._world = world
        self._second = second
        self.last = (0, 0)

    def found(self, pictures: int) -> None:
        self._may("in listing")

    def hashed(self, done: int, total: int) -> None:
        self._may("in hashing")

    def judged(self, done: int, total: int, counts: Counter[str]) -> None:
        self.last = done, total
        if done > total or (done % 1000 == 0 and counts.total() != done):
            raise Broken(f"{done} of {total} pictures are counted as judged, as {dict(counts)}")

    def joining(self) -> None:
        if self.last[0] != self.last[1]:
            raise Broken(f"{self.last[0]} of {self.last[1]} pictures were judged at the end")
        self._second()
        self._may("before joining")

    def _may(self, where: str) -> None:
        if self._world.chance(self._world.setting.crash):
            self._world.kill(where)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a scan.

    Attributes:
        setting: of it.
        seed: of what went wrong.
        rows: of the table.
        lives: of the process that deals.
        judged: pictures that were judged to the end, every time counted.
        wasted: of them, those that were judged before.
        most: times that one picture was judged.
        busy: share of the workers' time that they judged in.
        hours: simulated, of the whole.
        seconds: real ones, of this process.
        happened: how often what went wrong.
    """

    setting: Setting
    seed: int
    rows: int
    lives: int
    judged: int
    wasted: int
    most: int
    busy: float
    hours: float
    seconds: float
    happened: dict[str, int]


def run(out: Path, setting: Setting, seed: int) -> Outcome:
    """Scan until it is finished, whatever happens.

    Raises:
        Broken: what must not happen.
    """
    world, began = World(setting, random.Random(seed)), time.perf_counter()
    disk = Disk(world)
    for _ in range(_LIVES):
        world.new_life()
        if world.done and not out.exists():
            raise Broken("the finished table is gone")
        try:
            with disk.used():
                _call(out, world)
            break
        except Killed:
            if world.chance(setting.power):
                disk.lose_power()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise Broken(f"{type(error).__name__}: {error}") from error
        except ConfigError as error:
            if "processes that judge" not in str(error):
                raise Broken(f"{type(error).__name__}: {error}") from error
        except Exception as error:
            raise Broken(f"{type(error).__name__}: {error}") from error
    else:
        raise Broken(f"it did not end in {_LIVES} lives")
    left = sorted(path.name for path in out.parent.iterdir() if path.name.startswith(out.name))
    if left != [out.name]:
        raise Broken(f"expected {out.name} alone, found {left}")
    judged = sum(world.times)
    return Outcome(
        setting, seed, pq.read_metadata(out).num_rows, world.lives, judged,
        judged - sum(map(bool, world.times)), max(world.times),
        round(world.busy / world.held, 3) if world.held else 0.0, round(world.now / 3600, 3),
        round(time.perf_counter() - began, 1), dict(sorted(world.happened.items())),
    )  # fmt: skip


def _call(out: Path, world: World) -> None:
    """What `bonaface scan` does, once."""
    setting = world.setting
    asked = {"dedupe": setting.dedupe, "pictures_a_chunk": setting.chunk}
    folder = Work(out).folder

    def second() -> None:
        try:
            _scan(ScanWatch())
        except ConfigError:
            return
        raise Broken("two processes could write one table")

    def engine() -> Any:
        return SimulatedPool(world, folder) if setting.engine == "pool" else cluster(world, folder)

    def _scan(watch: ScanWatch) -> Any:
        return carry_out(
            out,
            asked,
            items=lambda: items(setting.pictures),
            engine=engine,
            reader=Bytes(setting.dedupe),  # type: ignore[arg-type]
            watch=watch,
        )

    found = _scan(_Watch(world, second))
    if found.summary.count != setting.pictures:
        raise Broken(f"{found.summary.count} pictures in the table, not {setting.pictures}")


def check(folder: Path, setting: Setting, seed: int) -> Outcome:
    """Scan in a new folder, and compare with a scan that nothing happens to.

    Raises:
        Broken: the tables differ, or what else must not happen.
    """
    whole, out = folder / "whole.parquet", folder / f"{seed}.parquet"
    if not whole.exists():
        run(whole, setting.undisturbed(), 0)
    found = run(out, setting, seed)
    ours, theirs = (pq.read_table(path).drop_columns(list(TIMINGS)) for path in (out, whole))
    if not ours.equals(theirs):
        raise Broken(f"{ours.num_rows} rows that are not the {theirs.num_rows} expected ones")
    out.unlink()
    return found


def main() -> None:
    """Run it, print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--chunk", type=int, default=256)
    parser.add_argument("--engine", choices=("pool", "cluster"), default="pool")
    parser.add_argument("--dedupe", action="store_true")
    parser.add_argument("--kills", type=float, default=4.0)
    parser.add_argument("--seeds", type=int, default=1)
    asked = parser.parse_args()
    chunks = -(-asked.pictures // asked.chunk)
    setting = Setting(
        asked.pictures, asked.workers, asked.chunk, asked.engine, asked.dedupe,
        lost=2e-4 if asked.engine == "pool" else 0.02, poison=2e-5, kills=asked.kills,
        crash=asked.kills / 4 / chunks, full=asked.kills / 4 / chunks,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="bonaface-simulated-") as folder:
        for seed in range(asked.seeds):
            print(json.dumps(asdict(check(Path(folder), setting, seed)), indent=2), flush=True)


if __name__ == "__main__":
    main()
