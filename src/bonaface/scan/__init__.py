"""Millions of pictures to one table of verdicts, each exactly once, however often it is stopped.

The pictures are listed once (`plan`), dealt in chunks to processes (`workers`) or to a cluster
(`onray`), whose rows are committed chunk by chunk (`parts`). What was not committed is judged
again; what was, never. At the end the parts become one file, which `summary` reads.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from bonaface.bundle import Bundle, load_bundle
from bonaface.errors import ConfigError, DataError, MissingExtraError
from bonaface.judging import Rules, Wishes
from bonaface.scan.sources import Item, find_items, is_url

try:
    from bonaface.scan.parts import SCHEMA, SCHEMA_VERSION, Work, check_same, read_note
    from bonaface.scan.plan import Chunk, Plan, write_plan
    from bonaface.scan.reading import Reader
    from bonaface.scan.rows import Job, Row, unreadable
    from bonaface.scan.summary import Summary, summarise
    from bonaface.scan.workers import Judged, Pool, Told
except ImportError as error:
    raise MissingExtraError("a scan", "scale") from error

__all__ = ["SCHEMA", "Scan", "ScanWatch", "Summary", "scan", "summarise"]

CHUNK: Final = 256  # pictures that are committed together


class ScanWatch:
    """Is told how a scan goes; every method may stay as it is, which does nothing."""

    def found(self, pictures: int) -> None:
        """So many pictures were listed until now."""

    def hashed(self, done: int, total: int) -> None:
        """So many were read to find copies."""

    def judged(self, done: int, total: int, counts: Counter[str]) -> None:
        """So many are judged, those of earlier calls included, with these answers."""

    def joining(self) -> None:
        """All are judged; the parts become one file."""


@dataclass(frozen=True, slots=True)
class Scan:
    """A scan that is finished.

    Attributes:
        out: the file.
        summary: its figures.
        judged: pictures that this call judged; the others are of earlier calls, or copies.
        seconds: that this call spent on judging.
        replaced: processes that were lost, and replaced.
    """

    out: Path
    summary: Summary
    judged: int
    seconds: float
    replaced: int


class Engine(Protocol):
    """Judges chunks somewhere; `Pool` and `Cluster` are two."""

    replaced: int

    def judged(self, chunks: Iterator[Chunk], told: Told) -> Iterator[Judged]:
        """As `Pool.judged`: each chunk once, in any order."""
        ...


def scan(
    sources: Sequence[str],
    model: Path,
    out: Path,
    *,
    faces: Literal["auto", "none"] = "auto",
    stability: bool = False,
    prevalence: float = 0.5,
    finder: Path | None = None,
    workers: int | None = None,
    engine: Literal["local", "ray"] = "local",
    dedupe: bool = False,
    column: str | None = None,
    chunk: int = CHUNK,
    watch: ScanWatch | None = None,
) -> Scan:
    """Judge every picture of the sources into one Parquet file; goes on where it was stopped.

    Args:
        sources: files, folders, patterns, tar shards, Parquet, or addresses of them.
        model: the bundle's folder.
        out: the file to write. While the scan is not finished there is a folder beside it, called
            after it with `.scan`.
        faces: as for `Detector.detect`.
        stability: as for `Detector.detect`.
        prevalence: as for `Detector.detect`.
        finder: a YuNet file; None: the finder of the install.
        workers: processes; None: one for each core (of the cluster).
        engine: "local" or "ray".
        dedupe: judge files with the same bytes once. Every file is then read twice.
        column: of Parquet, the one with the pictures.
        chunk: pictures that are committed together: what a stop may cost, for each process.
        watch: is told how it goes.

    Returns:
        The finished scan; at once if it was finished before.

    Raises:
        ConfigError: a wish is out of range, or `out` was begun with other settings.
        DataError: a source is not there, or `out` is something else.
        BundleError: the bundle cannot be run.
    """
    wishes = Wishes(faces, stability, prevalence)
    watch = watch or ScanWatch()
    bundle = load_bundle(model)
    job = Job(model, wishes, finder, column)
    asked = _manifest(sources, bundle, job, dedupe, chunk)
    out = Path(os.path.abspath(out))  # noqa: PTH100  (a link stays one)
    if out.is_dir():
        raise ConfigError(f"expected the name of a file to write, got the folder {str(out)!r}")
    if workers is not None and workers < 1:
        raise ConfigError(f"expected at least 1 process, got {workers}; ask for more")
    return carry_out(
        out,
        asked,
        items=lambda: _items(sources, column, out),
        engine=lambda: _engine(engine, job, workers, bundle),
        reader=Reader(column),
        watch=watch,
    )


def carry_out(
    out: Path,
    asked: dict[str, Any],
    *,
    items: Callable[[], Iterable[Item]],
    engine: Callable[[], Engine],
    reader: Reader,
    watch: ScanWatch,
) -> Scan:
    """What of a scan is the same whatever is listed, and wherever it is judged.

    Args:
        out: absolute path of the file to write.
        asked: what the scan is, JSON-ready; with `dedupe` and `pictures_a_chunk`.
        items: lists the pictures; called where that was not done before.
        engine: makes what judges them; called where some may be left to judge.
        reader: reads them, to find copies.
        watch: is told how it goes.

    Raises:
        ConfigError: `out` was begun with other settings, or another process writes it.
        DataError: `out` is something else.
    """
    work = Work(out)
    judged, seconds, replaced = 0, 0.0, 0
    if not out.exists():
        with work.held():
            if not out.exists():  # another process may have finished it just now
                work.begin(asked, lambda path: write_plan(path, items(), watch.found))
                plan = Plan(work.plan_file, asked["pictures_a_chunk"])
                try:
                    if asked["dedupe"]:
                        plan.find_copies(reader, watch.hashed)
                    made = engine()
                    judged, seconds = _judge(work, plan, made, watch)
                    replaced = made.replaced
                    watch.joining()
                    work.finish(plan, asked)
                finally:
                    plan.close()
    check_same(read_note(out), asked, out)
    work.clear()  # also what an earlier call left that was killed just before
    return Scan(out, summarise(out), judged, seconds, replaced)


def _judge(work: Work, plan: Plan, engine: Engine, watch: ScanWatch) -> tuple[int, float]:
    """Judge and commit what is not committed; how many pictures that were, and the seconds."""
    counts: Counter[str] = Counter()
    todo = 0
    for chunk in plan.chunks():
        before = work.committed(chunk) if chunk.items else Counter()
        if before is None:
            todo += len(chunk.items)
        else:
            counts += before
    done = counts.total()
    total = done + todo
    watch.judged(done, total, counts)

    def told(rows: list[Row]) -> None:
        nonlocal done
        done += 1
        counts[rows[0]["picture"]] += 1
        watch.judged(done, total, counts)

    left = (c for c in plan.chunks() if c.items and work.committed(c) is None)
    begun = time.perf_counter()
    for chunk, found in engine.judged(left, told) if todo else ():
        pairs = zip(chunk.items, found, strict=True)
        work.commit(chunk, [(at, row) for (at, _), rows in pairs for row in rows])
    return todo, time.perf_counter() - begun


def _items(sources: Iterable[str], column: str | None, out: Path) -> Iterator[Item]:
    count = 0
    for source in sources:
        try:
            for item in find_items(source, column=column, but=out):
                count += 1
                yield item
        except (ImportError, ValueError) as error:
            if not is_url(source):
                raise
            raise ConfigError(
                f"expected an address that fsspec can read, got {source!r} ({error}); "
                "install the library for it"
            ) from error
    if not count:
        raise DataError(
            f"expected pictures in {', '.join(map(repr, sources))}, found none; name folders, "
            "patterns, tar shards or Parquet with a column of pictures"
        )


def _manifest(
    sources: Sequence[str], bundle: Bundle, job: Job, dedupe: bool, chunk: int
) -> dict[str, Any]:
    """What a scan is: two with the same are one."""
    fake_above, real_below = map(bundle.operating_point, ("fake_above", "real_below"))
    rules = Rules(bundle.calibration, fake_above, real_below, bundle.recipe, bundle.doubt)
    bands = rules.bands(job.wishes.prevalence)
    local = any(not is_url(source) for source in sources)
    return {
        "schema_version": SCHEMA_VERSION,
        "sources": list(sources),
        "working_folder": str(Path.cwd()) if local else None,  # what names are relative to
        "column": job.column,
        "model": {
            "name": bundle.card.name,
            "version": bundle.card.versions.get("bonaface", "unknown"),
            "sha256": bundle.model_sha256,
        },
        "prevalence": job.wishes.prevalence,
        "bands": asdict(bands),
        "faces": job.wishes.faces,
        "stability": job.wishes.stability,
        "finder": None if job.finder is None else str(job.finder),
        "dedupe": dedupe,
        "pictures_a_chunk": chunk,
    }


def _engine(name: str, job: Job, workers: int | None, bundle: Bundle) -> Engine:
    card = bundle.card

    def lost(item: Item, reason: str) -> list[Row]:
        return [unreadable(item.path, reason, card.name, card.versions.get("bonaface", "unknown"))]

    if name == "local":
        from bonaface.runtimes import processor_count

        return Pool(job, workers or processor_count(), lost)
    if name == "ray":
        from bonaface.scan.onray import Cluster

        return Cluster(job, workers)
    raise ConfigError(f"expected --engine local or ray, got {name!r}; choose one")
