"""Scans under every kind of loss, simulated; the same with a fault built in, which is found."""

from __future__ import annotations

import importlib
import tomllib
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from bonaface.scan import parts, workers
from bonaface.scan.parts import Work
from bonaface.scan.plan import Plan

FOLDER = Path(__file__).parents[1] / "experiments" / "scale"

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="not in a checkout")

# As small as may be, so that much goes wrong for each picture.
SMALL: dict[str, Any] = {"pictures": 300, "workers": 12, "chunk": 8, "crash": 0.01, "full": 0.01}
KINDS: dict[str, dict[str, Any]] = {
    "pool": {"lost": 0.01, "poison": 0.01},
    "copies": {"lost": 0.01, "dedupe": True},
    "cluster": {"engine": "cluster", "lost": 0.1, "twice": 0.2},
}


@pytest.fixture
def simulation(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("simulate")


def setting(simulation: Any, kind: str) -> Any:
    if KINDS[kind].get("engine") == "cluster":
        pytest.importorskip("ray")
    return simulation.Setting(**SMALL | KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_lost_the_rows_are_those_of_an_undisturbed_scan(
    simulation: Any, tmp_path: Path, kind: str
) -> None:
    asked, happened, wasted = setting(simulation, kind), Counter[str](), 0
    for seed in range(5):
        found = simulation.check(tmp_path, asked, seed)
        happened += Counter(found.happened)
        wasted += found.wasted
    assert wasted > 0
    assert len([how for how in happened if how.startswith("killed: ")]) >= 5
    expected = {"disk full", "power cut", "renames lost", "killed: as it waited"}
    if kind == "cluster":
        expected |= {"node lost", "judged again, though delivered"}
    else:
        expected |= {"worker lost"}
    if kind == "pool":
        expected |= {"worker lost to a picture", "lost as it began"}
    assert expected <= set(happened)


# -- a simulation that found nothing would be worth nothing ---------------------------------------


@contextmanager
def in_place(path: Path, **_: Any) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    yield path


def trust_names(patch: pytest.MonkeyPatch) -> None:
    """A part is written under its name, and what has its name is taken for whole."""

    def committed(self: Work, chunk: Any) -> Counter[str] | None:
        part = self._part(chunk.number)
        return Counter({"real": len(chunk.items)}) if part.is_file() else None

    patch.setattr(parts, "atomic_path", in_place)
    patch.setattr(Work, "committed", committed)


def forget_parts(patch: pytest.MonkeyPatch) -> None:
    """What is committed is judged again."""
    patch.setattr(Work, "committed", lambda *_: None)


def overlap(patch: pytest.MonkeyPatch) -> None:
    """The first picture of a chunk is also the last of the one before."""
    read = Plan._next

    def one_more(self: Plan, after: int, count: int) -> Any:
        return read(self, after, count + 1)

    patch.setattr(Plan, "_next", one_more)


def lose_tasks(patch: pytest.MonkeyPatch) -> None:
    """The chunk of a worker that is lost is nobody's."""

    class Hole(deque):
        def append(self, _: Any) -> None:
            pass

    patch.setattr(workers, "deque", Hole)


def begin_again(patch: pytest.MonkeyPatch) -> None:
    """Who takes over a chunk begins it anew, and the rows that are there stay."""
    every = property(lambda self: [item for _, item in self.chunk.items])
    patch.setattr(workers._Task, "left", every)


def join_in_place(patch: pytest.MonkeyPatch) -> None:
    """The table grows under its name."""

    def finish(self: Work, plan: Plan, note: Any) -> None:
        schema = parts.SCHEMA.with_metadata({parts._KEY: parts.json.dumps(note)})
        with pq.ParquetWriter(self.out, schema) as writer:
            for chunk in plan.chunks():
                table = self._joined(chunk, plan)
                writer.write_table(table.replace_schema_metadata(schema.metadata))

    patch.setattr(Work, "finish", finish)


def never_sync(patch: pytest.MonkeyPatch) -> None:
    """The parts are removed before it is sure that the table has its name."""
    patch.setattr(parts, "sync_folder", lambda _: None)


def take_no_lock(patch: pytest.MonkeyPatch) -> None:
    """Two processes may write one table."""

    @contextmanager
    def held(self: Work) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        yield

    patch.setattr(Work, "held", held)


def count_twice(patch: pytest.MonkeyPatch) -> None:
    """What is delivered twice counts twice."""
    from bonaface.scan import onray

    def judged(self: Any, chunks: Any, told: Any) -> Iterator[Any]:
        while some := {chunk.number: chunk for chunk in islice(chunks, 2048)}:
            for number, found in self._results(some):
                for rows in found:
                    told(rows)
                yield some[number], found

    patch.setattr(onray.Cluster, "judged", judged)


@pytest.mark.parametrize(
    ("kind", "fault", "found"),
    [
        ("pool", trust_names, "ArrowInvalid|rows that are not"),
        ("pool", forget_parts, "dealt, though it is committed|did not end"),
        ("pool", overlap, "rows that are not|pictures in the table"),
        ("pool", lose_tasks, "were judged at the end"),
        ("pool", begin_again, "are counted as judged|ValueError"),
        ("pool", join_in_place, "pictures in the table|ArrowInvalid"),
        ("pool", never_sync, "the finished table is gone"),
        ("pool", take_no_lock, "two processes could write"),
        ("cluster", count_twice, "are counted as judged"),
    ],
)
def test_a_fault_that_is_built_in_is_found(
    simulation: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    fault: Callable[[pytest.MonkeyPatch], None],
    found: str,
) -> None:
    asked = setting(simulation, kind)
    simulation.run(tmp_path / "whole.parquet", asked.undisturbed(), 0)
    fault(monkeypatch)

    def try_seeds() -> None:
        for seed in range(20):
            simulation.check(tmp_path, asked, seed)

    with pytest.raises(simulation.Broken, match=found):
        try_seeds()


# -- what it costs --------------------------------------------------------------------------------


def test_the_guide_has_the_tables_that_the_constants_give(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    cost = importlib.import_module("cost")
    monkeypatch.setattr("sys.argv", ["cost.py"])
    cost.main()
    guide = (FOLDER.parents[1] / "docs" / "scale.md").read_text()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("|", "-"))]
    assert len(lines) > 25
    assert [line for line in lines if line not in guide] == []
    for one in tomllib.loads((FOLDER / "cost.toml").read_text()).values():
        assert one["source"]
        assert one["what"]


def test_every_constant_that_is_measured_here_can_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    found = importlib.import_module("measure").measure(tmp_path, 600, faces=2, workers=20)
    constants = tomllib.loads((FOLDER / "cost.toml").read_text())
    measured = {name for name, one in constants.items() if one["source"].startswith("measure.py")}
    assert measured <= set(found)
    assert all(found[name] >= 0 for name in found)
    assert found["part_bytes"] > found["table_bytes_per_row"] / 4 > 0
