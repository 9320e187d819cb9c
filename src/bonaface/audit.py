"""A data set to what would make a test figure on it worthless: copies, leaks, shortcuts.

Steps that do not know each other: `facts` reads every picture once, `copies` and `probes` look at
what was read, `judge` draws the findings, `bonaface.report.audit` writes them down.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from bonaface.copies import SIMILAR, Copies, CopySearch, find_copies
from bonaface.errors import ConfigError, DataError
from bonaface.facts import PROBED, Facts, need_libraries, read_facts, read_headers
from bonaface.layouts import locate, scan
from bonaface.probes import (
    FATAL_AUC,
    FATAL_LOW,
    Probe,
    Property,
    compare_files,
    probe_files,
    run_probes,
)
from bonaface.samples import LABELS, SPLITS, Sample, Samples, load_samples

if TYPE_CHECKING:
    from bonaface.metrics import Figure

__all__ = [
    "FATAL_AUC",
    "FATAL_COPIES",
    "FATAL_LOW",
    "PROBED",
    "SIMILAR",
    "Audit",
    "Copies",
    "Facts",
    "Finding",
    "Glance",
    "Probe",
    "Property",
    "audit",
    "examine",
    "glance",
    "judge",
    "read_facts",
]

SCHEMA_VERSION: Final = 1
FATAL_COPIES: Final = 0.005  # of the test split
EXAMPLES: Final = 5
_DIFFER: Final = 0.2  # distance of the classes that is worth a word
_RARE_CLASS: Final = 0.1

Severity = Literal["info", "warning", "fatal"]
_ORDER: Final = {"fatal": 0, "warning": 1, "info": 2}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a person should know before quoting a figure.

    Attributes:
        name: the same for all data sets, for programs.
        severity: "fatal": a test figure would be worthless; "warning": it may mislead; "info".
        found: what was found, one sentence.
        effect: what it would do to a test figure.
        evidence: the numbers; None where one is undefined.
        examples: some of the paths, or pairs of them.
    """

    name: str
    severity: Severity
    found: str
    effect: str
    evidence: dict[str, float | int | str | None]
    examples: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found in a data set.

    Attributes:
        name: the data set's.
        fingerprint: of its samples; None: its layout cannot be read, as a finding says.
        counts: pictures by split and label.
        groups: how many are known.
        findings: the worst first.
        probes: see `Probe`.
        properties: see `Property`.
        copies: every set of copies.
        unreadable: path and reason.
        notes: of how the data set was read.
        seed: of probes, intervals and of the choice of pictures.
        limit: pictures that the probes look at, at most.
    """

    name: str
    fingerprint: str | None
    counts: dict[str, dict[str, int]]
    groups: int
    findings: tuple[Finding, ...]
    probes: tuple[Probe, ...] = ()
    properties: tuple[Property, ...] = ()
    copies: tuple[Copies, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    seed: int = 0
    limit: int = PROBED

    @property
    def passed(self) -> bool:
        """Whether no finding is fatal."""
        return all(finding.severity != "fatal" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; the same data set gives the same values, wherever it lies."""
        return {
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "fingerprint": self.fingerprint,
            "passed": self.passed,
            "counts": self.counts,
            "groups": self.groups,
            "limits": {
                "auc": FATAL_AUC,
                "auc_low": FATAL_LOW,
                "copies": FATAL_COPIES,
                "similar": SIMILAR,
                "probed": self.limit,
            },
            "seed": self.seed,
            "findings": [finding.to_dict() for finding in self.findings],
            "probes": [probe.to_dict() for probe in self.probes],
            "properties": [one.to_dict() for one in self.properties],
            "copies": [one.to_dict() for one in self.copies],
            "unreadable": [{"path": path, "reason": why} for path, why in self.unreadable],
            "notes": list(self.notes),
        }


def audit(
    data: Path,
    *,
    ratios: tuple[float, float, float] | None = None,
    limit: int = PROBED,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Audit:
    """Look for everything that would make a test figure on this data set worthless.

    Args:
        data: as for `load_samples`. Labels that cannot be read are a finding, not an error.
        ratios: as for `load_samples`.
        limit: pictures that the probes look at, half of them fake; copies are sought in all.
        seed: of probes, intervals and of the choice of pictures.
        workers: threads; None: one a core, at most 8.
        progress: called with the number of pictures read and of all.

    Raises:
        DataError: there is no data set.
        ConfigError: limit or ratios make no sense.
        MissingExtraError: scikit-learn, SciPy or ImageHash is missing.
    """
    found, _ = examine(
        data, ratios=ratios, limit=limit, seed=seed, workers=workers, progress=progress
    )
    return found


def examine(
    data: Path,
    *,
    ratios: tuple[float, float, float] | None = None,
    limit: int = PROBED,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Audit, Facts | None]:
    """As `audit`, with what was read; None where the data set's layout cannot be read."""
    need_libraries()
    if limit < 1:
        raise ConfigError(f"expected a limit of at least 1 picture, got {limit}")
    root, _ = locate(data)
    try:
        samples = load_samples(data, ratios=ratios, seed=seed, check=False)
    except DataError as error:
        if not scan(root).images:
            raise
        return _refused(root.absolute().name, str(error), seed, limit), None
    facts = read_facts(samples, limit=limit, seed=seed, workers=workers, progress=progress)
    return judge(facts, limit=limit, seed=seed), facts


def _refused(name: str, message: str, seed: int, limit: int) -> Audit:
    """The labels, or the rest of the layout, cannot be read."""
    if "number" in message:
        kind = "labels-are-numbers"
        effect = (
            "half of all public sets call fakes 0, the others 1: a wrong guess turns every figure "
            "round, and an AUC of 0.9 is told as 0.1"
        )
    elif re.search(r"label|real and (no )?fake", message):
        kind = "labels-missing"
        effect = "without labels there is no figure at all; with wrong ones it measures the names"
    else:
        kind = "layout"
        effect = "what cannot be read as train, validation and test cannot be kept apart either"
    return Audit(
        name, None, {}, 0, (Finding(kind, "fatal", message, effect, {}),), seed=seed, limit=limit
    )


# -- judging --


def judge(facts: Facts, *, limit: int = PROBED, seed: int = 0) -> Audit:
    """Draw the findings from what was read. Arguments as in `audit`."""
    need_libraries()
    samples = facts.samples
    same = find_copies(facts)
    properties = compare_files(facts)
    probes = run_probes(facts, same.components, seed)
    findings = [
        *_split_findings(samples),
        *_group_findings(samples),
        *_unreadable_findings(facts),
        *_copy_findings(facts, same),
        *_property_findings(properties),
        *_probe_findings(probes),
    ]
    return Audit(
        samples.root.name,
        samples.fingerprint(),
        samples.counts(),
        len({row.group for row in samples.rows if row.group is not None}),
        tuple(sorted(findings, key=lambda finding: _ORDER[finding.severity])),
        probes,
        properties,
        same.copies,
        facts.unreadable,
        samples.notes,
        seed,
        limit,
    )


# -- at a glance --


@dataclass(frozen=True, slots=True)
class Glance:
    """The cheap part of an audit: whether the files alone tell fakes from reals.

    Attributes:
        fingerprint: of the samples.
        counts: pictures by split and label.
        probe: the file probe, on all splits; see `Probe`.
        n: pictures whose header was read.
        unreadable: pictures whose header could not be read.
        seed: of the probe and of the choice of pictures.
    """

    fingerprint: str
    counts: dict[str, dict[str, int]]
    probe: Probe
    n: int
    unreadable: int
    seed: int = 0

    @property
    def passed(self) -> bool:
        """Whether the files alone do not tell fakes from reals; also where nobody can say."""
        return not self.probe.tells

    @property
    def line(self) -> str:
        """What people should know, in one line."""
        auc = self.probe.auc
        lost = f", {self.unreadable:,} unreadable" if self.unreadable else ""
        begin = f"audit (cheap part, {_many(self.n, 'picture')}{lost}): "
        if not self.passed:
            told = ", ".join(feature for feature, _ in self.probe.strongest)
            return (
                f"WARNING {begin}the files alone tell fakes from reals, AUC {_short(auc)}"
                f"{f' ({told})' if told else ''}: a test figure here would be worthless; see "
                "`bonaface audit DATA`, and `bonaface audit DATA --fix OUT` for a way out"
            )
        said = (
            f"whether the files alone tell fakes from reals cannot be said ({auc.reason})"
            if auc.low is None
            else f"the files alone give AUC {_short(auc)}, no shortcut in them"
        )
        return f"{begin}{said}; `bonaface audit DATA` looks for copies as well"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `digest` is the SHA-256 of the rest as canonical JSON."""
        rest = {
            "schema_version": SCHEMA_VERSION,
            "fingerprint": self.fingerprint,
            "passed": self.passed,
            "counts": self.counts,
            "probe": self.probe.to_dict(),
            "n": self.n,
            "unreadable": self.unreadable,
            "limits": {"auc": FATAL_AUC, "auc_low": FATAL_LOW},
            "seed": self.seed,
        }
        text = json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return rest | {"digest": hashlib.sha256(text.encode()).hexdigest()}


def _short(auc: Figure) -> str:
    return f"{auc.value:.2f} [{auc.low:.2f}, {auc.high:.2f}]"


def glance(samples: Samples, *, limit: int = 2_000, seed: int = 0) -> Glance:
    """Ask whether the files alone tell fakes from reals; no pixel is decoded.

    Args:
        samples: of all splits that matter.
        limit: pictures whose header is read, half of them fake.
        seed: of the probe and of the choice of pictures.

    Raises:
        ConfigError: the limit makes no sense.
        DataError: a file has gone since the data set was read.
        MissingExtraError: scikit-learn or SciPy is missing.
    """
    need_libraries()
    found = read_headers(samples, limit=limit, seed=seed)
    return Glance(
        samples.fingerprint(),
        samples.counts(),
        probe_files(found.rows, found.files, seed),
        len(found.rows),
        len(found.unreadable),
        seed,
    )


# -- findings --


def _split_findings(samples: Samples) -> Iterator[Finding]:
    counts = samples.counts()
    missing = [split for split in SPLITS if split not in counts]
    if samples.ratios is not None:
        yield Finding(
            "splits-made-here",
            "info",
            "the set has no splits; it was split here as train, validation and test",
            "figures by others on this set come from other pictures",
            dict(zip(SPLITS, samples.ratios, strict=True)),
        )
    elif missing:
        yield Finding(
            "splits-missing",
            "warning" if "test" in missing else "info",
            f"there is no {' and no '.join(missing)} split",
            "without a test split there is no figure; without validation the thresholds are "
            "chosen on pictures that are trained or tested on",
            {split: sum(n.values()) for split, n in counts.items()},
        )
    for split, found in counts.items():
        total = sum(found.values())
        share = found["fake"] / total
        evidence: dict[str, float | int | str | None] = {**found, "share of fakes": share}
        absent = [name for name in LABELS if not found[name]]
        if absent:
            yield Finding(
                f"one-class-{split}",
                "warning",
                f"the {split} split holds no {absent[0]} pictures",
                "one error rate can be measured on it, and nothing that compares the classes "
                "(AUC, precision, EER)",
                evidence,
            )
        elif not _RARE_CLASS <= share <= 1 - _RARE_CLASS:
            rare = "fake" if share < 0.5 else "real"
            yield Finding(
                f"class-balance-{split}",
                "warning",
                f"{found[rare]:,} of the {total:,} pictures of the {split} split are {rare}",
                f"accuracy is {max(share, 1 - share):.3f} for a detector that always says the "
                "same; quote AUC and both error rates",
                evidence,
            )


def _group_findings(samples: Samples) -> Iterator[Finding]:
    members: dict[str, list[Sample]] = defaultdict(list)
    for row in samples.rows:
        if row.group is not None:
            members[row.group].append(row)
    crossing = [rows for rows in members.values() if len({row.split for row in rows}) > 1]
    if crossing:
        rows = [row for found in crossing for row in found]
        yield Finding(
            "groups-across-splits",
            "fatal",
            f"{_many(len(crossing), 'group')} (people or source videos) in more than one split",
            "the detector is asked about people that it was trained on: the figure is too high, "
            "nobody can say by how much",
            {"groups": len(crossing), "of": len(members), "pictures": len(rows)},
            tuple(_in_two_splits(found) for found in crossing[:EXAMPLES]),
        )
    unknown = sum(row.group is None for row in samples.rows)
    if unknown:
        yield Finding(
            "groups-unknown",
            "info",
            f"of {unknown:,} of {len(samples):,} pictures nobody wrote down the person or video",
            "one person in two splits cannot be found except by like pictures, and intervals are "
            "too narrow if pictures belong together",
            {"unknown": unknown, "of": len(samples)},
        )


def _in_two_splits(rows: Sequence[Sample]) -> str:
    other = next(row for row in rows if row.split != rows[0].split)
    return f"{rows[0].group}: {rows[0].path}, {other.path}"


def _unreadable_findings(facts: Facts) -> Iterator[Finding]:
    lost = facts.unreadable
    if not lost:
        return
    labels = {row.path: row.label for row in facts.samples.rows}
    fakes = sum(labels[path] for path, _ in lost)
    why = Counter(reason.split(" (")[0] for _, reason in lost)
    ranked = sorted(why.items(), key=lambda pair: (-pair[1], pair[0]))
    yield Finding(
        "unreadable",
        "warning",
        f"{_many(len(lost), 'picture')} that cannot be read: "
        + ", ".join(f"{n:,} {reason}" for reason, n in ranked[:EXAMPLES]),
        "they are left out of every figure; if they are mostly of one class or kind, the rest is "
        "not the set that was announced",
        {"real": len(lost) - fakes, "fake": fakes},
        tuple(f"{path}: {reason}" for path, reason in lost[:EXAMPLES]),
    )


def _copy_findings(facts: Facts, same: CopySearch) -> Iterator[Finding]:
    exact = [one for one in same.copies if one.kind == "exact"]
    crossing = [one for one in exact if len(one.splits) > 1]
    if crossing:
        yield Finding(
            "exact-copies-across-splits",
            "fatal",
            f"{_many(len(crossing), 'picture')} in more than one split, byte by byte the same",
            "the detector is asked about pictures that it was trained on: the figure is too high",
            {"pictures": len(crossing), "files": sum(len(one.paths) for one in crossing)},
            tuple(_some_paths(one) for one in crossing[:EXAMPLES]),
        )
    yield from _near_findings(facts, same)
    group = {row.path: row.group or row.path for row in facts.rows}
    for kind, found in (("exact", exact), ("near", same.copies[len(exact) :])):
        both = [one for one in found if len(one.labels) > 1]
        foreign = [
            one for one in both if kind == "exact" or len({group[path] for path in one.paths}) > 1
        ]
        if foreign:
            yield Finding(
                f"{kind}-copies-across-classes",
                "warning",
                f"{_many(len(foreign), 'picture')} in both classes, "
                + ("byte by byte the same" if kind == "exact" else "nearly the same"),
                "one of the labels is wrong and no detector can be right about both"
                if kind == "exact"
                else "a label may be wrong; where a fake was made from the real picture, both "
                "belong in one group, or a split may part them",
                {"pictures": len(foreign), "files": sum(len(one.paths) for one in foreign)},
                tuple(_some_paths(one) for one in foreign[:EXAMPLES]),
            )
        kin = len(both) - len(foreign)
        if kin:
            yield Finding(
                "near-copies-in-groups",
                "info",
                f"{_many(kin, 'group')} in which a fake looks nearly like a real picture",
                "none, as long as a group stays in one split: a forgery looks like its source",
                {"groups": kin},
                tuple(_some_paths(one) for one in both if one not in foreign)[:EXAMPLES],
            )
    within = [one for one in same.copies[len(exact) :] if len(one.splits) == 1]
    within = [one for one in within if len(one.labels) == 1]
    if within:
        yield Finding(
            "near-copies-within-splits",
            "info",
            f"{_many(len(within), 'picture')} several times within one split and class",
            "they count several times, so intervals are a little too narrow",
            {"pictures": len(within), "files": sum(len(one.paths) for one in within)},
            tuple(_some_paths(one) for one in within[:EXAMPLES]),
        )
    if same.blank:
        yield Finding(
            "blank-pictures",
            "info",
            f"{_many(same.blank, 'picture')} too smooth to be compared",
            "copies among them are not found; pictures without a face measure nothing",
            {"pictures": same.blank},
        )


def _near_findings(facts: Facts, same: CopySearch) -> Iterator[Finding]:
    """Near copies across splits, against the test split or what stands in for it."""
    if not same.leaking.any():
        return
    splits = np.array([row.split for row in facts.rows])
    judged = next(split for split in reversed(SPLITS) if (splits == split).any())
    inside = splits == judged
    leaks, n = int(same.leaking[inside].sum()), int(inside.sum())
    everywhere = int(same.leaking.sum())
    share = leaks / n
    yield Finding(
        "near-copies-across-splits",
        "fatal" if share > FATAL_COPIES else "warning",
        f"{_many(everywhere, 'picture')} nearly like one of another split; {leaks:,} of them in "
        f"the {judged} split, {100 * share:.2f} % of its {n:,}",
        "the detector is asked about pictures, or scenes, that it was trained on: the figure is "
        f"too high; above {100 * FATAL_COPIES:g} % of the split it is worthless",
        {
            "pictures": leaks,
            "of": n,
            "share": share,
            "limit": FATAL_COPIES,
            "in all splits": everywhere,
            "candidates compared": same.compared,
        },
        same.pairs[:EXAMPLES],
    )


def _many(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _some_paths(one: Copies) -> str:
    more = f" and {len(one.paths) - 2} more" if len(one.paths) > 2 else ""
    return (" = " if one.kind == "exact" else " ~ ").join(one.paths[:2]) + more


def _property_findings(properties: Sequence[Property]) -> Iterator[Finding]:
    apart = sorted(
        (-one.distance, one.name)
        for one in properties
        if one.distance is not None and one.distance >= _DIFFER
    )
    if apart:
        yield Finding(
            "files-differ",
            "warning",
            f"the files of reals and fakes differ in {', '.join(name for _, name in apart)}",
            "a detector may learn how the files were saved; whether that is enough to tell the "
            "classes apart, the file probe says",
            {name: -distance for distance, name in apart},
        )


def _probe_findings(probes: Sequence[Probe]) -> Iterator[Finding]:
    containers = {probe.scope: probe for probe in probes if probe.name == "container"}
    for probe in probes:
        if not probe.tells or probe.name == "container":
            continue
        where = "" if probe.scope == "all" else f" of the {probe.scope} split"
        told = ", ".join(feature for feature, _ in probe.strongest) or "no single feature"
        evidence: dict[str, float | int | str | None] = {
            "AUC": probe.auc.value,
            "low": probe.auc.low,
            "high": probe.auc.high,
            "n": probe.auc.n,
            "limit": FATAL_AUC,
            "limit of low": FATAL_LOW,
            **{f"drop without {feature}": drop for feature, drop in probe.strongest},
        }
        if probe.name == "file":
            container = containers.get(probe.scope)
            smooth = ""
            if container is not None:
                evidence["AUC without bytes per pixel"] = container.auc.value
                if not container.tells:
                    smooth = (
                        "; here only the size of the files tells, which may also come from one "
                        "class being smoother, even if both were saved alike"
                    )
            yield Finding(
                f"file-shortcut-{probe.scope}",
                "fatal",
                f"the files{where} alone tell fakes from reals: AUC {probe.auc} ({told})",
                "a detector can reach this figure without looking at a face: what it reaches here "
                f"says nothing about other files{smooth}; save both classes alike, from alike "
                "originals",
                evidence,
            )
        else:
            yield Finding(
                f"image-shortcut-{probe.scope}",
                "warning",
                f"crude statistics of the pictures{where} tell fakes from reals: AUC {probe.auc} "
                f"({told})",
                "this much can be had without looking at faces; it may be the forgery itself, or "
                "only how the pictures were made smaller: quote it beside the detector's AUC",
                evidence,
            )
