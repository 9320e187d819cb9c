"""A data set to one of tar shards, in WebDataset's form, whose pictures lie in a mixed order.

Which picture goes where is planned before one is read, from the sizes of the files and a seed. So a
run that was stopped keeps the shards that are whole, and ends in the same bytes.
"""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from bonaface.ahead import ahead
from bonaface.cropping.journal import Steps, carry_out, check_place, lasts, read_outcomes, resume
from bonaface.cropping.tables import count_reasons, write_failures, write_metadata
from bonaface.crops import RECIPE_FILE, read_recipe
from bonaface.errors import ImageError
from bonaface.files import atomic_path, write_json
from bonaface.images import read_file, read_image
from bonaface.samples import SPLITS, Sample, Samples
from bonaface.splitting import split_counts
from bonaface.tars import TAR, index, status, tar_of

JOURNAL: Final = "shards.jsonl"
REPORT: Final = "shard_report.json"
SCHEMA_VERSION: Final = 1
SHARD_BYTES: Final = 256 << 20
_SEED: Final = 0

Plan = Mapping[str, Sequence[tuple[Sample, str]]]  # shard -> its samples, each with its new path


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one picture.

    Attributes:
        path: as in the data set.
        file: shard and member in the new set, `train-000000.tar/000000012.jpg`; None: left out.
        reason: why it was left out.
    """

    path: str
    file: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Sharding:
    """A data set and the shards it was written to.

    Attributes:
        source: its name.
        header: its fingerprint and the size of a shard.
        samples: the new set.
        failed: samples that were left out, with the reason.
    """

    source: str
    header: dict[str, Any]
    samples: Samples
    failed: tuple[tuple[Sample, str], ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: counts by split, label and generator."""
        shards = Counter(tar_of(row.path) for row in self.samples.rows)
        return {
            **self.header,
            "source": self.source,
            "counts": {
                "asked": len(self.samples) + len(self.failed),
                "written": len(self.samples),
                "shards": len(shards),
                "failed": len(self.failed),
                "reasons": count_reasons(reason for _, reason in self.failed),
            },
            "splits": split_counts(self.samples),
        }


def shard_set(
    samples: Samples,
    out: Path,
    *,
    size: int = SHARD_BYTES,
    progress: Callable[[int, int], None] | None = None,
) -> Sharding:
    """Write a data set as shards; goes on where an earlier call was stopped.

    Args:
        samples: the data set.
        out: folder of the shards, new or empty or begun by the same call; a data set afterwards.
        size: of a shard, in bytes of its pictures; one that is larger gets a shard of its own.
        progress: called with the number of pictures done and of all.

    Raises:
        ConfigError: `out` lies in the data set or around it, or was begun with other settings.
        DataError: `out` holds something else.
    """
    check_place(samples.root, out)
    header: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": samples.fingerprint(),
        "shard_bytes": size,
    }
    header, lines = resume(out, JOURNAL, header, "shards", {})
    for left in out.glob(f".*{TAR}.*.tmp"):  # by a run that was killed
        left.unlink()
    known = read_outcomes(lines, Outcome)
    plan = _plan(samples, size)
    done = {
        row.path: known[row.path]
        for shard, rows in plan.items()
        if _is_whole(out / shard, rows, known)
        for row, _ in rows
    }
    steps = _steps(samples, out, plan, done, progress)
    order = [row.path for row in samples.rows]
    outcomes = carry_out(out / JOURNAL, header, done, steps, order=order)
    rows = (replace(row, path=file) for row in samples.rows if (file := outcomes[row.path].file))
    there = Samples(out.absolute(), tuple(sorted(rows, key=lambda row: row.path)), samples.notes)
    failed = ((row, why) for row in samples.rows if (why := outcomes[row.path].reason))
    found = Sharding(samples.root.name, header, there, tuple(failed))
    write_failures(out, found.failed)
    write_metadata(out / "metadata.csv", there.rows)
    recipe = read_recipe(samples.root)
    if recipe is not None:  # the faces lie where they lay
        write_json(out / RECIPE_FILE, recipe.to_dict())
    write_json(out / REPORT, found.to_dict())
    return found


def _plan(samples: Samples, size: int) -> Plan:
    """Which picture goes where: of each split in a random order, until a shard is full."""
    plan: dict[str, list[tuple[Sample, str]]] = {}
    for at, split in enumerate(SPLITS):
        rows = samples.split(split).rows
        number, filled = 0, 0
        for place, i in enumerate(np.random.default_rng([_SEED, at]).permutation(len(rows))):
            row = rows[i]
            bytes_, _ = status(samples.absolute(row))
            if filled and filled + bytes_ > size:
                number, filled = number + 1, 0
            filled += bytes_
            shard = f"{split}-{number:06d}{TAR}"
            name = f"{shard}/{place:09d}{Path(row.path).suffix}"
            plan.setdefault(shard, []).append((row, name))
    return plan


def _is_whole(
    shard: Path, rows: Sequence[tuple[Sample, str]], known: Mapping[str, Outcome]
) -> bool:
    """Whether all that became of a shard's pictures is noted down, and the shard holds them."""
    if not all(row.path in known for row, _ in rows):
        return False
    files = {file for row, _ in rows if (file := known[row.path].file)}
    try:
        return files == {f"{shard.name}/{name}" for name in index(shard)}
    except OSError:
        return False


def _steps(
    samples: Samples,
    out: Path,
    plan: Plan,
    done: Mapping[str, Outcome],
    progress: Callable[[int, int], None] | None,
) -> Steps[Outcome]:
    """Write one shard after the other; its outcomes come when it is there."""
    count = len(done)
    for shard, rows in plan.items():
        if rows[0][0].path in done:
            continue
        outcomes = []
        with atomic_path(out / shard) as temporary, tarfile.open(temporary, "w") as tar:
            for outcome, final in _members(samples, rows, tar):
                outcomes.append((outcome, final))
                count += 1
                if progress:
                    progress(count, len(samples))
        yield from outcomes


def _members(
    samples: Samples, rows: Sequence[tuple[Sample, str]], tar: tarfile.TarFile
) -> Iterator[tuple[Outcome, bool]]:
    def read(one: tuple[Sample, str]) -> bytes | ImageError:
        try:
            data = read_file(samples.absolute(one[0]))
            read_image(data)
        except ImageError as error:
            return error
        return data

    with closing(ahead(rows, read)) as coming:
        for (row, name), data in zip(rows, coming, strict=True):
            if isinstance(data, ImageError):
                yield Outcome(row.path, reason=data.reason), lasts(data)
                continue
            member = tarfile.TarInfo(name.partition("/")[2])
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
            yield Outcome(row.path, name), True
