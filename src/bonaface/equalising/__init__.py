"""A data set to a copy of it without what an audit found: copies, leaks, files that tell the class.

Three steps: `choose` fixes one way of saving for both classes, `plan` says what becomes of each
picture, `equalise` writes. Every picture, real or fake, first becomes the same square and is saved
at a quality of the worse class: a common past, which a better class is made to share. Then some
pixels are cut off and the rest is shrunk, by an amount of its own, so that the 8 x 8 grid of
earlier JPEGs lies nowhere in particular; then it is saved at another of these qualities. What each
picture gets is drawn by its path, whatever its label. As in `cropping`, a journal lets a stopped
run go on, and it ends in the same bytes.

How often a picture was made smaller before, by which filter, and how smooth one class is, stays.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from bonaface.ahead import ahead
from bonaface.audit import Audit
from bonaface.copies import Copies
from bonaface.cropping.journal import (
    Owners,
    Steps,
    carry_out,
    check_place,
    digest,
    keep,
    key,
    lasts,
    left_to_do,
    read_outcomes,
    resume,
)
from bonaface.cropping.tables import count_reasons, crop_names, write_csv, write_metadata
from bonaface.equalising.planning import Plan, plan
from bonaface.equalising.saving import LEAST_SIDE, Settings, choose, saved_alike
from bonaface.errors import DataError, ImageError
from bonaface.facts import Facts
from bonaface.files import write_json
from bonaface.images import read_image
from bonaface.samples import LABELS, Sample, Samples

__all__ = [
    "LEAST_SIDE",
    "Equalised",
    "Outcome",
    "Plan",
    "Settings",
    "check_out",
    "choose",
    "equalise",
    "plan",
    "write_report",
]

JOURNAL: Final = "equalised.jsonl"
CHANGES: Final = "changes.csv"
REPORT: Final = "fix_report.json"
SCHEMA_VERSION: Final = 1
_WHAT: Final = "an equalised set"
_CUT_AWAY: Final = (0.1, 0.25, 0.5)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one picture that was to be written.

    Attributes:
        path: as in the data set.
        new: its path in the new one; None: it is not there.
        reason: why it is not.
        how: it was saved, in words.
        cut_away: share of its pixels that lay outside what was kept.
        digest: of the new file, BLAKE2b.
    """

    path: str
    new: str | None = None
    reason: str | None = None
    how: str | None = None
    cut_away: float | None = None
    digest: str | None = None


_Made = tuple[Outcome, bytes | None, bool]  # its JPEG; whether another try ends the same


@dataclass(frozen=True)
class Equalised:
    """What became of a data set.

    Attributes:
        source: its samples.
        header: its fingerprint and the settings.
        plan: what was to become of each picture.
        outcomes: path -> what became of it, for those that were to be written.
    """

    source: Samples
    header: dict[str, Any]
    plan: Plan
    outcomes: dict[str, Outcome]

    @property
    def left_out(self) -> dict[str, str]:
        """Path -> why it is not in the new set."""
        lost = {one.path: one.reason for one in self.outcomes.values() if one.reason is not None}
        return self.plan.left_out | lost

    @property
    def kept(self) -> tuple[Sample, ...]:
        """The new set's samples, paths as they were."""
        return tuple(row for row in self.plan.kept.rows if self.outcomes[row.path].new is not None)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: counts by kind of change."""
        labels = {row.path: LABELS[row.label] for row in self.source.rows}
        return {
            **self.header,
            "source": self.source.root.name,
            "counts": {
                "before": self.source.counts(),
                "after": replace(self.source, rows=self.kept).counts(),
                "left_out": _by_reason(self.left_out, labels),
                "moved": count_reasons(self.plan.moved.values()),
                "joined": {
                    "pictures": len(self.plan.joined),
                    "groups": len({row.group for row in self.kept if row.path in self.plan.joined}),
                },
                "cut_away": _cut_away(self.outcomes.values(), labels),
            },
        }


def _by_reason(left_out: Mapping[str, str], labels: Mapping[str, str]) -> dict[str, dict[str, int]]:
    why = Counter((reason.split(" (")[0], labels[path]) for path, reason in left_out.items())
    return {kind: {label: why[kind, label] for label in LABELS} for kind, _ in sorted(why)}


def _cut_away(
    outcomes: Iterable[Outcome], labels: Mapping[str, str]
) -> dict[str, dict[str, float | int]]:
    """By label: the median share that was cut away, and how many pictures lost more than that."""
    shares: dict[str, list[float]] = defaultdict(list)
    for one in outcomes:
        if one.cut_away is not None:
            shares[labels[one.path]].append(one.cut_away)
    return {
        label: {"median": round(float(np.median(found)), 4)}
        | {f"more than {100 * most:g} %": sum(x > most for x in found) for most in _CUT_AWAY}
        for label in LABELS
        if (found := shares[label])
    }


def check_out(root: Path, out: Path) -> None:
    """Raise ConfigError or DataError when `out` cannot take an equalised copy of `root`."""
    check_place(root, out)
    resume(out, JOURNAL, {}, _WHAT, {})


def equalise(
    facts: Facts,
    copies: Sequence[Copies],
    out: Path,
    *,
    seed: int = 0,
    side: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Equalised:
    """Write an equalised copy of a data set; goes on where an earlier call was stopped.

    Args:
        facts: of the data set, which is only read.
        copies: that were found in it.
        out: folder of the new set, new or empty or begun by the same call.
        seed: of everything random.
        side: as for `choose`.
        progress: called with the number of pictures done and of all.

    Raises:
        ConfigError: `out` lies in the data set or around it, or was begun with other settings;
            or the side is too small.
        DataError: `out` holds something else, or there is no picture to write.
    """
    samples = facts.samples
    check_place(samples.root, out)
    settings = choose(facts, seed=seed, side=side)
    planned = plan(facts, copies, settings.base)
    if not planned.kept.rows:
        raise DataError(
            f"expected pictures to write, but all {len(samples)} of {str(samples.root)!r} would be "
            "left out; see `bonaface audit` for copies, and name a smaller --side"
        )
    header: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": samples.fingerprint(),
        **settings.to_dict(),
    }
    header, lines = resume(out, JOURNAL, header, _WHAT, {})
    kept = planned.kept
    names = crop_names(kept, ".jpg")
    done = {
        path: one
        for path, one in read_outcomes(lines, Outcome).items()
        if path in names
        and (one.new is None or (one.new == names[path] and (out / names[path]).is_file()))
    }
    owners = Owners(kept, ((one.digest, path) for path, one in done.items() if one.new))

    def make(row: Sample) -> _Made:
        return _make(samples, row, names[row.path], settings)

    def steps() -> Steps[Outcome]:
        with closing(ahead(left_to_do(kept, done), make)) as coming:
            for made, data, final in coming:
                if data is None:
                    yield made, final
                elif rival := owners.rival(made.path, made.digest):
                    reason = f"saved alike, the same as one of another split ({rival})"
                    yield Outcome(made.path, reason=reason), final
                else:
                    keep(out / names[made.path], data)
                    yield made, final

    order = [row.path for row in kept.rows]
    outcomes = carry_out(out / JOURNAL, header, done, steps(), order=order, progress=progress)
    found = Equalised(samples, header, planned, outcomes)
    _write_tables(out, found)
    return found


def _make(samples: Samples, row: Sample, name: str, settings: Settings) -> _Made:
    try:
        pixels = read_image(samples.absolute(row)).pixels
    except ImageError as error:
        return Outcome(row.path, reason=f"unreadable ({error.reason})"), None, lasts(error)
    height, width = pixels.shape[:2]
    rng = np.random.default_rng(list(key(settings.seed, row.path)))
    data, how, kept = saved_alike(pixels, settings, rng)
    cut_away = round(1 - kept / (height * width), 4)
    how = f"{width} x {height} px, {100 * cut_away:.0f} % cut away, {how}"
    return Outcome(row.path, name, None, how, cut_away, digest(data)), data, True


def _write_tables(out: Path, found: Equalised) -> None:
    names = {path: one.new for path, one in found.outcomes.items() if one.new is not None}
    write_metadata(out / "metadata.csv", (replace(row, path=names[row.path]) for row in found.kept))
    left_out = found.left_out
    write_csv(
        out / CHANGES,
        ("path", "split", "label", "change", "detail", "new_path"),
        (
            [row.path, row.split, LABELS[row.label], change, detail, new]
            for row in found.source.rows
            for change, detail, new in _changes(row.path, found, left_out)
        ),
    )


def _changes(
    path: str, found: Equalised, left_out: Mapping[str, str]
) -> list[tuple[str, str | None, str | None]]:
    """(change, detail, new path) of one picture, at least one of them."""
    if path in left_out:
        return [("left out", left_out[path], None)]
    one = found.outcomes[path]
    told = [("group joined", found.plan.joined), ("moved", found.plan.moved)]
    rows = [(change, details[path], one.new) for change, details in told if path in details]
    return [*rows, ("re-encoded", one.how, one.new)]


def write_report(out: Path, found: Equalised, before: Audit, after: Audit) -> None:
    """Write the report of a fix, with what audits of the old and the new set say."""
    audits = {"before": before, "after": after}
    write_json(
        out / REPORT,
        found.to_dict()
        | {
            "passed": {when: one.passed for when, one in audits.items()},
            "probes": {
                when: [probe.to_dict() for probe in one.probes] for when, one in audits.items()
            },
            "findings": {
                when: [finding.name for finding in one.findings if finding.severity != "info"]
                for when, one in audits.items()
            },
        },
    )
