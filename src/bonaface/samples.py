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
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

from bonaface.errors import ConfigError, DataError
from bonaface.layouts import (
    IMAGES,
    LABELS,
    SPLITS,
    Draft,
    Kind,
    LabelOf,
    from_folders,
    from_metadata,
    label_of,
    locate,
    scan,
    some,
)
from bonaface.tars import open_binary, status

__all__ = ["LABELS", "SPLITS", "Sample", "Samples", "load_samples"]

DEFAULT_RATIOS: Final = (0.8, 0.1, 0.1)
_Row = TypeVar("_Row", Draft, "Sample")


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

    def origins(self) -> dict[str, dict[str, dict[str, int]]]:
        """Images by split, label, and source (reals) or generator (fakes); "" where not told."""
        seen = Counter(
            (row.split, row.label, (row.generator if row.label else row.source) or "")
            for row in self.rows
        )
        found: dict[str, dict[str, dict[str, int]]] = {}
        for (split, label, origin), count in sorted(seen.items()):
            found.setdefault(split, {}).setdefault(LABELS[label], {})[origin] = count
        return found

    def absolute(self, sample: Sample) -> Path:
        """Where the sample lies on disk; in a shard, the tar's path and the name in it."""
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
                size, _ = status(self.absolute(row))
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
    kind: Kind = IMAGES,
    label_of: LabelOf = label_of,
) -> Samples:
    """Read a data set: a folder in one of the two layouts, or its metadata file.

    Args:
        data: the folder, or the metadata file or another table in CSV at its top.
        ratios: shares of train, validation and test for a data set without splits (80/10/10 when
            None); by label, whole groups only. A data set that has splits keeps them.
        seed: of that split.
        need: splits that must be there and hold both classes.
        check: refuse a group or the same file in two splits; without it, `audit` reports them.
        kind: what it consists of.
        label_of: what the names of labels mean.

    Raises:
        DataError: the data set cannot be used as it stands; the message says what to do.
        ConfigError: ratios or need make no sense.
        MissingExtraError: `metadata.parquet` without pyarrow.
    """
    check_ratios(ratios)
    _check_needed(need)
    samples = with_splits(*read_drafts(data, kind, label_of), ratios, seed)
    _check_needs(samples, need)
    if check:
        for leak in leaks(samples, kind.noun):
            raise DataError(leak)
    return samples


def read_drafts(
    data: Path, kind: Kind = IMAGES, label_of: LabelOf = label_of
) -> tuple[Path, list[Draft], list[str]]:
    """What a data set says of its files: its folder, at least one draft, and notes.

    Raises as `load_samples`, of which it is the first half.
    """
    root, metadata = locate(Path(os.path.abspath(data)))  # noqa: PTH100  (keeps links as named)
    files = scan(root, kind)
    notes: list[str] = []
    if metadata is None:
        drafts = from_folders(root, files, notes, label_of)
    else:
        drafts = from_metadata(metadata, root, files, notes, label_of)
    if not drafts:
        raise DataError(
            f"expected {kind.noun} ({' '.join(sorted(kind.suffixes))}) under {root}, found none; "
            "see docs/data.md for the layouts that are read"
        )
    return root, drafts, [*files.notes, *notes]  # only now is known which tars were not used


def check_ratios(ratios: tuple[float, float, float] | None) -> None:
    """Raise ConfigError unless they are None or three shares that add up to 1."""
    if ratios is not None and (
        len(ratios) != 3
        or not all(math.isfinite(share) and share >= 0 for share in ratios)
        or not math.isclose(sum(ratios), 1.0, abs_tol=1e-6)
    ):
        raise ConfigError(
            f"expected three shares (train, validation, test) that add up to 1, got {ratios}"
        )


def _check_needed(need: Collection[str]) -> None:
    for name in need:
        if name not in SPLITS:
            raise ConfigError(f"expected splits out of {', '.join(SPLITS)}, got {name!r}")


# -- splits made here --


def with_splits(
    root: Path,
    drafts: Sequence[Draft],
    notes: Iterable[str],
    ratios: tuple[float, float, float] | None,
    seed: int,
) -> Samples:
    """Samples with the splits that their drafts have, or, where none has one, with splits made now.

    Raises:
        DataError: some have a split and some have none.
    """
    without = [draft.path for draft in drafts if draft.split is None]
    if without and len(without) < len(drafts):
        raise DataError(
            f"expected a split for all rows of {root} or for none, but {len(without)} of "
            f"{len(drafts)} have none: {some(without)}; fill in the column split"
        )
    notes = list(notes)
    shares = None
    if without:
        shares = ratios or DEFAULT_RATIOS
        notes.append(
            f"no splits found: split here into {' / '.join(SPLITS)} as "
            + " / ".join(f"{share:g}" for share in shares)
            + f", by label, by generator and by group where known, seed {seed}"
        )
        splits: Mapping[str, str | None] = assign_splits(root, drafts, shares, seed)
    else:
        if ratios is not None:
            notes.append("the data set has its own splits; the ratios were not used")
        splits = {draft.path: draft.split for draft in drafts}
    rows = [
        Sample(draft.path, draft.label, split, *draft[3:])
        for draft in drafts
        if (split := splits[draft.path])
    ]
    return Samples(root, tuple(sorted(rows, key=lambda row: row.path)), tuple(notes), shares)


def assign_splits(
    root: Path,
    rows: Sequence[_Row],
    shares: tuple[float, float, float],
    seed: int,
) -> dict[str, str]:
    """Path -> split, in an order that only seed and names decide; splits of the rows do not count.

    Files of the same bytes count as one group with those of their groups, and groups stay whole.
    Each goes to the split that lacks most of its share. Groups that hold the same labels of the
    same generators are dealt out separately, so each split gets its share of each; what one kind
    leaves a split short of, the next kinds make up for.

    Args:
        root: folder of the files.
        rows: what is to be split; files that cannot be read are no copies of others.
        shares: of train, validation and test; they add up to 1.
        seed: of the order.
    """
    groups = _joined(rows, copies(root, rows))
    strata: dict[tuple[tuple[int, str], ...], list[str]] = defaultdict(list)
    for key, members in groups.items():
        kinds = {(member.label, member.generator or "") for member in members}
        strata[tuple(sorted(kinds))].append(key)
    splits: dict[str, str] = {}
    lacks: dict[frozenset[int], list[float]] = {}
    for kind, keys in sorted(strata.items()):
        total = sum(len(groups[key]) for key in keys)
        lack = lacks.setdefault(frozenset(label for label, _ in kind), [0.0] * len(shares))
        for at, share in enumerate(shares):
            lack[at] += share * total if share else -math.inf
        for key in sorted(keys, key=lambda key: (_rank(seed, key), key)):
            at = lack.index(max(lack))
            lack[at] -= len(groups[key])
            splits |= {member.path: SPLITS[at] for member in groups[key]}
    return splits


def _joined(rows: Sequence[_Row], same: Iterable[Sequence[_Row]]) -> dict[str, list[_Row]]:
    """The groups, by the least of their names; those that share a file are one."""

    def name(row: _Row) -> str:
        return f"g{row.group}" if row.group else f"p{row.path}"

    parents: dict[str, str] = {}

    def root_of(key: str) -> str:
        while (parent := parents.get(key, key)) != key:
            key = parent
        return key

    for alike in same:
        roots = sorted({root_of(name(row)) for row in alike})
        parents |= dict.fromkeys(roots, roots[0])
    groups: dict[str, list[_Row]] = defaultdict(list)
    for row in rows:
        groups[root_of(name(row))].append(row)
    return groups


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


def leaks(samples: Samples, noun: str = IMAGES.noun) -> Iterator[str]:
    """What makes a test result worthless, in words: groups and files in more than one split."""
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
        yield (
            f"{len(crossing)} groups of {samples.root} are in more than one split, so the test "
            f"result would be worthless: {some(crossing)}; put each "
            "group into one split (the column split of metadata.csv)"
        )
    pairs = [_pair(alike) for alike in copies(samples.root, samples.rows, _crosses)]
    if pairs:
        yield (
            f"{len(pairs)} {noun} of {samples.root} are in more than one split, so the test result "
            f"would be worthless: {some(sorted(pairs))}; keep each in one split only"
        )


def copies(
    root: Path, rows: Sequence[_Row], wanted: Callable[[Sequence[_Row]], bool] = bool
) -> Iterator[list[_Row]]:
    """Sets of two or more rows whose files hold the same bytes, without empty files.

    Args:
        root: folder of the files.
        rows: of any order, which theirs keep.
        wanted: of which sets one wants to know; files of the same size are read only if, taken
            together, they are such a set.
    """
    by_size: dict[int, list[_Row]] = defaultdict(list)
    for row in rows:
        # What cannot be read stays a sample: the reader of images says what is wrong with it.
        with suppress(OSError):
            by_size[status(f"{root}/{row.path}")[0]].append(row)

    def worth(alike: list[_Row]) -> bool:
        return len(alike) > 1 and wanted(alike)

    sizes = {
        row.path: size
        for size, members in by_size.items()
        if size and worth(members)
        for row in members
    }
    # In the order of the rows, which in a shard is that of the bytes.
    met = [row for row in rows if row.path in sizes]
    for alike in filter(worth, _alike(root, met, sizes, 2**16)):
        size = sizes[alike[0].path]
        same = [alike] if size <= 2**16 else _alike(root, alike, sizes, size)
        yield from filter(worth, same)


def _crosses(rows: Sequence[Sample]) -> bool:
    return any(row.split != rows[0].split for row in rows)


def _alike(
    root: Path, rows: Iterable[_Row], sizes: Mapping[str, int], length: int
) -> list[list[_Row]]:
    """Rows by the size and the first `length` bytes of their files."""
    found: dict[bytes, list[_Row]] = defaultdict(list)
    for row in rows:
        digest = hashlib.blake2b(b"%d " % sizes[row.path], digest_size=16)
        left = length
        with suppress(OSError), open_binary(f"{root}/{row.path}") as file:
            while left > 0 and (block := file.read(min(left, 2**20))):
                digest.update(block)
                left -= len(block)
            found[digest.digest()].append(row)
    return list(found.values())


def _pair(alike: Sequence[Sample]) -> str:
    other = next(row for row in alike if row.split != alike[0].split)
    return f"{alike[0].path} = {other.path}"
