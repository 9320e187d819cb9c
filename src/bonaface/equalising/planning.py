"""What becomes of each picture of a data set: who stays, in which split and group."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from bonaface.copies import Copies
from bonaface.cropping.journal import digest
from bonaface.facts import Facts
from bonaface.samples import SPLITS, Sample, Samples


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of each picture, before any is written.

    Attributes:
        kept: the new set's samples: new splits and groups, paths as they were.
        left_out: path -> why.
        moved: path -> from where to where, and why.
        joined: path -> old and new group.
    """

    kept: Samples
    left_out: dict[str, str]
    moved: dict[str, str]
    joined: dict[str, str]


def plan(facts: Facts, copies: Sequence[Copies], base: int) -> Plan:
    """Which pictures stay, in which split and group; nothing is read or written.

    Args:
        facts: of the data set.
        copies: that were found in it.
        base: side in pixels that a picture must have.
    """
    left_out = {path: f"unreadable ({reason})" for path, reason in facts.unreadable}
    rows = {row.path: row for row in facts.rows}
    value = {}  # of a picture, the least first
    for row, file in zip(facts.rows, facts.files, strict=True):
        value[row.path] = (-file.width * file.height, -file.bytes, row.path)
        if (shorter := min(file.width, file.height)) < base:
            left_out[row.path] = f"too small ({shorter} px, {base} px needed)"
    for kind, leave in (("exact", _leave_exact), ("near", _leave_near)):
        for one in copies:
            if one.kind == kind:
                alive = [rows[path] for path in one.paths if path not in left_out]
                left_out |= leave(sorted(alive, key=lambda row: value[row.path]))
    groups = _groups(rows, [one for one in copies if one.kind == "near"], left_out)
    kept = [
        replace(row, group=groups.get(row.path, row.group))
        for row in facts.rows
        if row.path not in left_out
    ]
    joined = {
        row.path: f"{rows[row.path].group or 'no group'} -> {row.group}"
        for row in kept
        if row.group != rows[row.path].group
    }
    placed, moved = _placed(kept)
    return Plan(replace(facts.samples, rows=placed), left_out, moved, joined)


def _leave_exact(rows: Sequence[Sample]) -> dict[str, str]:
    """Of files with the same bytes all but one; all, where one of the labels must be wrong."""
    if len({row.label for row in rows}) > 1:
        other = {row.label: row.path for row in rows}
        return {row.path: f"both labels (same bytes as {other[1 - row.label]})" for row in rows}
    # The test split keeps its own.
    ranked = sorted(rows, key=lambda row: (row.group is None, -SPLITS.index(row.split), row.path))
    return {row.path: f"exact copy (of {ranked[0].path})" for row in ranked[1:]}


def _leave_near(rows: Sequence[Sample]) -> dict[str, str]:
    """Of near copies, the best first, those of which nobody knows the group, all but one.

    Fakes by different generators are different pictures, however alike.
    """
    left_out: dict[str, str] = {}
    alike: dict[tuple[int, str | None], list[Sample]] = defaultdict(list)
    for row in rows:
        alike[row.label, row.generator].append(row)
    for same in alike.values():
        stays = min(same, key=lambda row: row.group is None)
        left_out |= {
            row.path: f"near copy (of {stays.path})"
            for row in same
            if row.group is None and row is not stays
        }
    return left_out


def _groups(
    rows: Mapping[str, Sample], near: Iterable[Copies], left_out: Mapping[str, str]
) -> dict[str, str]:
    """Path -> group, for every picture with one after groups that share a picture are joined."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while name in parent:
            name = parent[name]
        return name

    own = {path: row.group for path, row in rows.items() if row.group is not None}
    for one in near:
        known = sorted({root(own[path]) for path in one.paths if path in own})
        parent |= dict.fromkeys(known[1:], known[0]) if known else {}
        unknown = [path for path in one.paths if path not in own and path not in left_out]
        if known or len(unknown) > 1:
            name = known[0] if known else f"copies-{digest(one.paths[0].encode(), 6)}"
            own |= dict.fromkeys(unknown, name)
    return {path: root(name) for path, name in own.items()}


def _placed(rows: Sequence[Sample]) -> tuple[tuple[Sample, ...], dict[str, str]]:
    """Each group in the split where most of it is; the rows, and the moves."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        if row.group is not None:
            found[row.group][row.split] += 1
    # The first of equal ones, which is train before the others.
    home = {group: max(SPLITS, key=splits.__getitem__) for group, splits in found.items()}
    placed, moved = [], {}
    for row in rows:
        split = row.split if row.group is None else home[row.group]
        placed.append(replace(row, split=split))
        if row.group is not None and split != row.split:
            splits = found[row.group]
            moved[row.path] = (
                f"{row.split} -> {split} (group {row.group}: {splits[split]} of {splits.total()} "
                "pictures are there)"
            )
    return tuple(placed), moved
