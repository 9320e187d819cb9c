"""A data set on disk to a table of samples: which file, real or fake, which split, which group.

`layouts` reads what the folder says. Here splits are made where there are none, and what would make
a test result worthless (the same picture or the same group in two splits) is an error, not a
finding later.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bonaface.errors import ConfigError, DataError
from bonaface.layouts import (
    LABELS,
    SPLITS,
    SUFFIXES,
    Draft,
    from_folders,
    from_metadata,
    locate,
    scan,
    some,
)

__all__ = ["LABELS", "SPLITS", "Sample", "Samples", "load_samples"]

DEFAULT_RATIOS: Final = (0.8, 0.1, 0.1)


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a data set.

    Attributes:
        path: relative to `Samples.root`, with forward slashes.
        label: 1 fake, 0 real.
        split: "train", "validation" or "test".
        group: identity or source video; None: unknown, the sample is its own group.
        generator: what made the fake. The rest: as the data set tells them.
    """

    path: str
    label: int
    split: str
    group: str | None = None
    generator: str | None = None
    age: str | None = None
    gender: str | None = None
    race: str | None = None
    source: str | None = None


@dataclass(frozen=True)
class Samples:
    """The samples of a data set, or of a part of it.

    Attributes:
        root: the data set's folder, absolute.
        rows: sorted by path; paths are unique.
        notes: what a person should know about how the data set was read.
        ratios: shares by which it was split here; None where it came with splits.
    """

    root: Path
    rows: tuple[Sample, ...]
    notes: tuple[str, ...] = ()
    ratios: tuple[float, float, float] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def split(self, name: str) -> Samples:
        """The samples of one split, possibly none. Raises DataError for an unknown name."""
        if name not in SPLITS:
            raise DataError(f"expected a split out of {', '.join(SPLITS)}, got {name!r}")
        return replace(self, rows=tuple(row for row in self.rows if row.split == name))

    def counts(self) -> dict[str, dict[str, int]]:
        """Images by split and label, as `{"train": {"real": 7, "fake": 7}}`; no empty splits."""
        seen = Counter((row.split, row.label) for row in self.rows)
        return {
            split: {name: seen[split, label] for label, name in enumerate(LABELS)}
            for split in SPLITS
            if seen[split, 0] + seen[split, 1]
        }

    def absolute(self, sample: Sample) -> Path:
        """Where the sample lies on disk."""
        return self.root / sample.path

    def fingerprint(self, *, with_split: bool = True) -> str:
        """SHA-256, in hex, over path, label, split, group and byte size of every sample.

        The same files in another place, copied at another time, have the same fingerprint; without
        the split, also where they are split in another way.
        Raises DataError when a file has gone since the data set was read.
        """
        digest = hashlib.sha256()
        for row in self.rows:
            try:
                size = self.absolute(row).stat().st_size
            except OSError as error:
                raise DataError(
                    f"{row.path} was there when {self.root} was read and is not now "
                    f"({error.strerror}); read the data set again"
                ) from error
            line = [row.path, row.label, row.split if with_split else None, row.group, size]
            digest.update(json.dumps(line).encode() + b"\n")
        return digest.hexdigest()

    def limit(self, n: int, seed: int = 0) -> Samples:
        """A subset of at most `n` samples of each split, half real, half fake.

        Where one class runs out, the other fills up. Groups are taken one after the other, so
        few are cut. For one seed the subsets are nested: `limit(100)` lies within `limit(200)`.
        """
        if n < 1:
            raise ConfigError(f"expected a limit of at least 1 sample, got {n}")
        chosen: list[Sample] = []
        for split in SPLITS:
            queues = [
                sorted(
                    (row for row in self.rows if row.split == split and row.label == label),
                    key=lambda row: (_rank(seed, row.group or row.path), _rank(seed, row.path)),
                )
                for label in (0, 1)
            ]
            order = [
                (at, label, row) for label in (0, 1) for at, row in enumerate(queues[label])
            ]  # the first of each class, then the second of each, ...
            order.sort(key=lambda entry: entry[:2])
            chosen += [row for _, _, row in order[:n]]
        return replace(self, rows=tuple(sorted(chosen, key=lambda row: row.path)))


def load_samples(
    data: Path,
    *,
    ratios: tuple[float, float, float] | None = None,
    seed: int = 0,
    need: Collection[str] = (),
    check: bool = True,
) -> Samples:
    """Read a data set: a folder in one of the two layouts, or its metadata file.

    Args:
        data: the folder, or the metadata file at its top.
        ratios: shares of train, validation and test for a data set without splits (80/10/10 when
            None); by label, whole groups only. A data set that has splits keeps them.
        seed: of that split.
        need: splits that must be there and hold both classes.
        check: refuse a group or the same file in two splits; without it, `audit` reports them.

    Raises:
        DataError: the data set cannot be used as it stands; the message says what to do.
        ConfigError: ratios or need make no sense.
        MissingExtraError: `metadata.parquet` without pyarrow.
    """
    _check_wishes(ratios, need)
    root, metadata = locate(Path(os.path.abspath(data)))  # noqa: PTH100  (keeps links as named)
    files = scan(root)
    notes = list(files.notes)
    if metadata is None:
        drafts = from_folders(root, files, notes)
    else:
        drafts = from_metadata(metadata, root, files, notes)
    if not drafts:
        raise DataError(
            f"expected images ({' '.join(sorted(SUFFIXES))}) under {root}, found none; "
            "see docs/data.md for the layouts that are read"
        )
    rows = tuple(sorted(_with_splits(drafts, root, ratios, seed, notes), key=lambda r: r.path))
    made_here = any(draft.split is None for draft in drafts)
    samples = Samples(root, rows, tuple(notes), (ratios or DEFAULT_RATIOS) if made_here else None)
    _check_needs(samples, need)
    if check:
        _check_groups(samples)
        _check_copies(samples, files.images)
    return samples


def _check_wishes(ratios: tuple[float, float, float] | None, need: Collection[str]) -> None:
    if ratios is not None and (
        len(ratios) != 3
        or not all(math.isfinite(share) and share >= 0 for share in ratios)
        or not math.isclose(sum(ratios), 1.0, abs_tol=1e-6)
    ):
        raise ConfigError(
            f"expected three shares (train, validation, test) that add up to 1, got {ratios}"
        )
    for name in need:
        if name not in SPLITS:
            raise ConfigError(f"expected splits out of {', '.join(SPLITS)}, got {name!r}")


# -- splits made here --


def _with_splits(
    drafts: list[Draft],
    root: Path,
    ratios: tuple[float, float, float] | None,
    seed: int,
    notes: list[str],
) -> list[Sample]:
    without = [draft.path for draft in drafts if draft.split is None]
    if not without:
        if ratios is not None:
            notes.append("the data set has its own splits; the ratios were not used")
        return [_sample(draft, draft.split) for draft in drafts if draft.split]
    if len(without) < len(drafts):
        raise DataError(
            f"expected a split for all rows of {root} or for none, but {len(without)} of "
            f"{len(drafts)} have none: {some(without)}; fill in the column split"
        )
    shares = ratios or DEFAULT_RATIOS
    notes.append(
        "no splits found: split here into train / validation / test as "
        + " / ".join(f"{share:g}" for share in shares)
        + f", by label and by group where known, seed {seed}"
    )
    return _assign(drafts, shares, seed)


def _sample(draft: Draft, split: str) -> Sample:
    return Sample(draft.path, draft.label, split, *draft[3:])


def _assign(drafts: list[Draft], shares: tuple[float, float, float], seed: int) -> list[Sample]:
    """Whole groups to splits, in an order that only seed and names decide.

    Each group goes to the split that lacks most of its share; real groups, fake groups and mixed
    ones are dealt out separately, so each split gets its share of each.
    """
    groups: dict[str, list[Draft]] = defaultdict(list)
    for draft in drafts:
        groups[f"g{draft.group}" if draft.group else f"p{draft.path}"].append(draft)
    strata: dict[frozenset[int], list[str]] = defaultdict(list)
    for key, members in groups.items():
        strata[frozenset(member.label for member in members)].append(key)
    rows: list[Sample] = []
    for keys in strata.values():
        total = sum(len(groups[key]) for key in keys)
        lack = [share * total if share else -math.inf for share in shares]
        for key in sorted(keys, key=lambda key: (_rank(seed, key), key)):
            at = lack.index(max(lack))
            lack[at] -= len(groups[key])
            rows += [_sample(member, SPLITS[at]) for member in groups[key]]
    return rows


def _rank(seed: int, key: str) -> bytes:
    return hashlib.blake2b(f"{seed}\0{key}".encode(), digest_size=8).digest()


# -- what must hold --


def _check_needs(samples: Samples, need: Collection[str]) -> None:
    counts = samples.counts()
    for split in SPLITS:
        if split not in need:
            continue
        missing = [name for name in LABELS if not counts.get(split, {}).get(name)]
        if missing:
            found = "; ".join(
                f"{name}: {n['real']} real, {n['fake']} fake" for name, n in counts.items()
            )
            raise DataError(
                f"expected real and fake images in the split {split} of {samples.root}, found no "
                f"{' and no '.join(missing)} ones ({found}); add images under "
                + " and ".join(f"{split}/{name}" for name in missing)
                + ""
            )


def _check_groups(samples: Samples) -> None:
    splits: dict[str, set[str]] = defaultdict(set)
    for row in samples.rows:
        if row.group is not None:
            splits[row.group].add(row.split)
    crossing = [
        f"{group} in {' and '.join(name for name in SPLITS if name in found)}"
        for group, found in splits.items()
        if len(found) > 1
    ]
    if crossing:
        raise DataError(
            f"{len(crossing)} groups of {samples.root} are in more than one split, so the test "
            f"result would be worthless: {some(crossing)}; put each "
            "group into one split (the column split of metadata.csv)"
        )


def _check_copies(samples: Samples, sizes: dict[str, int]) -> None:
    """The same bytes in two splits. Only files that share their size are read."""
    by_size: dict[int, list[Sample]] = defaultdict(list)
    for row in samples.rows:
        by_size[sizes[row.path]].append(row)
    pairs: list[str] = []
    for size, rows in by_size.items():
        if size and _crosses(rows):
            for alike in _alike(samples.root, rows, 2**16):
                same = [alike] if size <= 2**16 else _alike(samples.root, alike, size)
                pairs += [_pair(copies) for copies in same]
    if pairs:
        raise DataError(
            f"{len(pairs)} images of {samples.root} are in more than one split, so the test result "
            f"would be worthless: {some(sorted(pairs))}; keep each in one split only"
        )


def _crosses(rows: list[Sample]) -> bool:
    return any(row.split != rows[0].split for row in rows)


def _alike(root: Path, rows: list[Sample], length: int) -> list[list[Sample]]:
    """Those whose first `length` bytes are the same and that cross splits."""
    found: dict[bytes, list[Sample]] = defaultdict(list)
    for row in rows:
        digest = hashlib.blake2b(digest_size=16)
        left = length
        try:
            with open(f"{root}/{row.path}", "rb", buffering=0) as file:  # noqa: PTH123  (speed)
                while left > 0 and (block := file.read(min(left, 2**20))):
                    digest.update(block)
                    left -= len(block)
        except OSError:
            continue  # it stays a sample: the reader of images says what is wrong with it
        found[digest.digest()].append(row)
    return [alike for alike in found.values() if _crosses(alike)]


def _pair(copies: list[Sample]) -> str:
    other = next(row for row in copies if row.split != copies[0].split)
    return f"{copies[0].path} = {other.path}"
