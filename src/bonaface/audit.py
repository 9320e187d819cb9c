"""A data set to what would make a test figure on it worthless: copies, leaks, shortcuts.

Three steps that do not know each other: `read_facts` reads every picture once, `judge` draws the
findings from what was read, `report` writes them down.

**Copies.** A 64-bit perceptual hash (pHash) names candidates, and a comparison of the fine
structure of 32 x 32 thumbnails decides, because aligned crops of different faces have hashes that
are nearly alike. Of the 78 million pairs in five sets of faces (17,720 pictures) that share no
group, the hash alone took 988 for copies; 9 were left, all of them one person in one scene.
All 17,720 re-saved copies (half the size, JPEG 50) were found, and 99.5 % or more of a set at 0.4
of the size and JPEG 30. Mirrored and newly cropped copies are not looked for.

**Shortcuts.** Boosted trees are asked to tell real from fake without a face: from the file alone,
and from crude statistics of the pixels. Whatever they can do is there for a detector to learn.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from bonaface.errors import ConfigError, DataError, ImageError, MissingExtraError
from bonaface.images import Image, read_image
from bonaface.layouts import locate, scan
from bonaface.samples import LABELS, SPLITS, Sample, Samples, load_samples

if TYPE_CHECKING:
    from bonaface.metrics import Figure

__all__ = ["Audit", "Copies", "Facts", "Finding", "Probe", "audit", "judge", "read_facts"]

SCHEMA_VERSION: Final = 1
PROBED: Final = 12_000  # pictures that the probes look at, unless told otherwise
FATAL_AUC: Final = 0.6
FATAL_LOW: Final = 0.55  # of the interval
FATAL_COPIES: Final = 0.005  # of the test split
SIMILAR: Final = 0.98  # correlation of fine structure that makes a copy
EXAMPLES: Final = 5
_BITS: Final = 10  # of 64 that may differ between candidates; all pairs up to 7 are found
_BANDS: Final = 4
_SIDE: Final = 32
_BLANK: Final = 0.5  # standard deviation of the fine structure below which there is none
_CELLS: Final = 1 << 21  # pairs looked at in one go
_SPECTRUM: Final = 8
_LARGEST: Final = 512  # side of the middle part that statistics are taken of
_FOLDS: Final = 5
_LEAST: Final = 10  # groups of either class for a probe
_DIFFER: Final = 0.2  # distance of the classes that is worth a word
_RARE_CLASS: Final = 0.1
_WORTH_A_NAME: Final = 0.005  # fall of the AUC without a feature
_BLOCK: Final = 16
_SHOWN_VALUES: Final = 12

Severity = Literal["info", "warning", "fatal"]
_ORDER: Final = {"fatal": 0, "warning": 1, "info": 2}
_STATISTICS: Final = (
    *("mean red", "mean green", "mean blue", "spread red", "spread green", "spread blue"),
    *("mean saturation", "spread saturation", "sharpness", "noise"),
    *(f"spectrum {band + 1} of {_SPECTRUM}" for band in range(_SPECTRUM)),
)
_FILE: Final = (
    *("bytes per pixel", "width", "height", "JPEG quality", "EXIF", "ICC profile"),
    *("format", "extension", "chroma subsampling", "JPEG tables"),
)
_IJG_LUMA: Final = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA: Final = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}


# -- results --


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
class Copies:
    """Pictures that are one picture: the same bytes, or nearly the same to look at.

    Attributes:
        kind: "exact" or "near"; exact copies are among the near ones as well.
        paths: sorted.
        splits: that they lie in.
        labels: that they bear.
    """

    kind: Literal["exact", "near"]
    paths: tuple[str, ...]
    splits: tuple[str, ...]
    labels: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Probe:
    """How well fakes are told from reals without looking at faces.

    Attributes:
        name: "file" (nothing but the file), "container" (the same without bytes per pixel, which
            also follow from what the picture shows; only where "file" tells) or "image" (crude
            statistics of its pixels).
        scope: "all" or "test", the split.
        auc: cross-validated, with its interval over groups; None with the reason.
        folds: of the cross-validation, whole groups each; 0: it did not run.
        strongest: features and how far the AUC falls when one is shuffled, the worst first.
    """

    name: str
    scope: str
    auc: Figure
    folds: int
    strongest: tuple[tuple[str, float], ...] = ()

    @property
    def tells(self) -> bool:
        """Whether it finds the fakes, by the limits `FATAL_AUC` and `FATAL_LOW`."""
        value, low = self.auc.value, self.auc.low
        return value is not None and value > FATAL_AUC and low is not None and low > FATAL_LOW

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "name": self.name,
            "scope": self.scope,
            "auc": self.auc.to_dict(),
            "folds": self.folds,
            "strongest": [{"feature": name, "drop": drop} for name, drop in self.strongest],
            "tells": self.tells,
        }


@dataclass(frozen=True, slots=True)
class Property:
    """How one property of the files is spread in either class.

    Attributes:
        name: such as "JPEG quality".
        by_label: label -> counts of its values, or {"least", "5%", "half", "95%", "most", "n"}.
        distance: between the classes, in [0, 1]: the total variation distance of counts, the
            Kolmogorov-Smirnov distance of numbers. None: undefined.
        reason: why it is None.
    """

    name: str
    by_label: dict[str, dict[str, float | int]]
    distance: float | None
    reason: str | None = None

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
    _need_libraries()
    if limit < 1:
        raise ConfigError(f"expected a limit of at least 1 picture, got {limit}")
    root, _ = locate(data)
    try:
        samples = load_samples(data, ratios=ratios, seed=seed, check=False)
    except DataError as error:
        if not scan(root).images:
            raise
        return _refused(root.absolute().name, str(error), seed, limit)
    facts = read_facts(samples, limit=limit, seed=seed, workers=workers, progress=progress)
    return judge(facts, limit=limit, seed=seed)


def _need_libraries() -> None:
    try:
        import imagehash  # noqa: F401
        import scipy  # noqa: F401
        import sklearn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("audit", "train") from error


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


# -- reading --


class FileFacts(NamedTuple):
    """What a picture's file tells besides its pixels; None: its format has no such thing."""

    format: str
    extension: str
    width: int
    height: int
    bytes: int
    quality: int | None
    tables: str | None
    chroma: str | None
    exif: bool
    icc: bool


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """What was read of a data set; rows are those of `samples` that could be read.

    Attributes:
        samples: all.
        rows: the samples that could be read.
        files: what each file tells.
        digests: (n, 16) uint8, BLAKE2b of the bytes.
        hashes: (n,) uint64, perceptual.
        thumbnails: (n, 32, 32) uint8, grey.
        probed: (m,) the rows that the probes look at.
        statistics: (m, k) float32, crude statistics of their pixels.
        unreadable: path and reason of the others.
    """

    samples: Samples
    rows: tuple[Sample, ...]
    files: tuple[FileFacts, ...]
    digests: NDArray[np.uint8]
    hashes: NDArray[np.uint64]
    thumbnails: NDArray[np.uint8]
    probed: NDArray[np.intp]
    statistics: NDArray[np.float32]
    unreadable: tuple[tuple[str, str], ...]


class _Read(NamedTuple):
    file: FileFacts
    digest: bytes
    hash: np.uint64
    thumbnail: NDArray[np.uint8]
    statistics: NDArray[np.float32] | None


def read_facts(
    samples: Samples,
    *,
    limit: int = PROBED,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Facts:
    """Read every picture once; about 1.5 KB of each are kept. Arguments as in `audit`."""
    _need_libraries()
    PIL.Image.init()  # names the openers of all formats; not to be done by several threads
    # `limit` works on splits, and these shall count as one.
    pool = replace(samples, rows=tuple(replace(row, split="test") for row in samples.rows))
    wanted = {row.path for row in pool.limit(limit, seed).rows}
    n = len(samples)
    digests = np.empty((n, 16), np.uint8)
    hashes = np.empty(n, np.uint64)
    thumbnails = np.empty((n, _SIDE, _SIDE), np.uint8)
    statistics = np.empty((len(wanted), len(_STATISTICS)), np.float32)
    rows: list[Sample] = []
    files: list[FileFacts] = []
    probed: list[int] = []
    unreadable: list[tuple[str, str]] = []

    def read(row: Sample) -> _Read | str:
        try:
            return _read(samples.absolute(row), row.path in wanted)
        except ImageError as error:
            return error.reason

    for done, (row, found) in enumerate(_in_order(samples.rows, read, workers), start=1):
        if progress:
            progress(done, n)
        if isinstance(found, str):
            unreadable.append((row.path, found))
            continue
        at = len(rows)
        digests[at] = np.frombuffer(found.digest, np.uint8)
        hashes[at] = found.hash
        thumbnails[at] = found.thumbnail
        if found.statistics is not None:
            statistics[len(probed)] = found.statistics
            probed.append(at)
        rows.append(row)
        files.append(found.file)
    kept = len(rows)
    return Facts(
        samples,
        tuple(rows),
        tuple(files),
        digests[:kept],
        hashes[:kept],
        thumbnails[:kept],
        np.array(probed, np.intp),
        statistics[: len(probed)],
        tuple(unreadable),
    )


def _in_order(
    rows: Sequence[Sample], read: Callable[[Sample], _Read | str], workers: int | None
) -> Iterator[tuple[Sample, _Read | str]]:
    """Each row with what `read` made of it, some blocks ahead in threads."""
    count = workers or min(8, os.cpu_count() or 1)
    waiting: deque[tuple[Sequence[Sample], Future[list[_Read | str]]]] = deque()
    with ThreadPoolExecutor(count) as pool:
        try:
            for start in range(0, len(rows), _BLOCK):
                block = rows[start : start + _BLOCK]
                waiting.append(
                    (block, pool.submit(lambda some: [read(row) for row in some], block))
                )
                if len(waiting) > 2 * count:
                    block, future = waiting.popleft()
                    yield from zip(block, future.result(), strict=True)
            while waiting:
                block, future = waiting.popleft()
                yield from zip(block, future.result(), strict=True)
        finally:
            for _, future in waiting:
                future.cancel()


def _read(path: Path, in_probe: bool) -> _Read:
    import imagehash

    image = read_image(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot be read ({error.strerror})") from error
    grey = cv2.cvtColor(image.pixels, cv2.COLOR_RGB2GRAY)
    bits = imagehash.phash(PIL.Image.fromarray(grey)).hash
    return _Read(
        _file_facts(image, path.suffix.lower(), data),
        hashlib.blake2b(data, digest_size=16).digest(),
        np.packbits(bits.ravel()).view(np.uint64)[0],
        np.asarray(cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), np.uint8),
        _pixel_statistics(image.pixels) if in_probe else None,
    )


def _file_facts(image: Image, extension: str, data: bytes) -> FileFacts:
    height, width = image.pixels.shape[:2]
    quality = tables = chroma = None
    exif = icc = False
    opener = PIL.Image.OPEN.get(image.format.upper())
    if opener is not None:  # Pillow has none for HEIC
        # Whatever Pillow finds wrong with tags is no matter: the pixels have been read.
        try:
            with opener[0](io.BytesIO(data), "") as header:
                width, height = header.size
                exif, icc = "exif" in header.info, bool(header.info.get("icc_profile"))
                if image.format == "JPEG":
                    quality, tables, chroma = _jpeg_facts(header)
        except Exception:  # noqa: S110
            pass
    return FileFacts(
        image.format, extension, width, height, len(data), quality, tables, chroma, exif, icc
    )


def _jpeg_facts(header: Any) -> tuple[int, str, str]:
    from PIL import JpegImagePlugin

    tables = [tuple(table) for _, table in sorted(header.quantization.items())]
    digest = hashlib.blake2b(repr(tables).encode(), digest_size=6).hexdigest()
    if header.layers == 1:
        chroma = "grey"
    else:
        chroma = _CHROMA.get(JpegImagePlugin.get_sampling(header), "other")
    return jpeg_quality(tables[0]), digest, chroma


@lru_cache(maxsize=256)
def jpeg_quality(luma: tuple[int, ...]) -> int:
    """The quality, 1 to 100, whose tables in the IJG library are nearest to this one."""
    wanted = np.sort(np.asarray(luma))  # in whatever order Pillow gives it
    return int(np.abs(_ijg_tables() - wanted).sum(axis=1).argmin()) + 1


@lru_cache(maxsize=1)
def _ijg_tables() -> NDArray[np.int64]:
    quality = np.arange(1, 101)
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    tables = (np.asarray(_IJG_LUMA)[None] * scale[:, None] + 50) // 100
    return np.sort(np.clip(tables, 1, 255), axis=1)


def _pixel_statistics(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    height, width = (min(side, _LARGEST) for side in pixels.shape[:2])
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    part = np.ascontiguousarray(pixels[top : top + height, left : left + width])
    mean, spread = cv2.meanStdDev(part)
    saturation = cv2.cvtColor(part, cv2.COLOR_RGB2HSV)[..., 1]
    grey = cv2.cvtColor(part, cv2.COLOR_RGB2GRAY).astype(np.float32)
    sharp = float(cv2.Laplacian(grey, cv2.CV_32F).var())
    # Immerkaer (1996), "Fast noise variance estimation".
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    noise = float(np.abs(cv2.filter2D(grey, cv2.CV_32F, mask)).mean()) * math.sqrt(math.pi / 2) / 6
    return np.concatenate(
        [
            mean.ravel(),
            spread.ravel(),
            [saturation.mean(), saturation.std(), math.log1p(sharp), noise],
            _spectrum(grey),
        ]
    ).astype(np.float32)


def _spectrum(grey: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log share of the power in rings of equal width up to the Nyquist frequency."""
    window, ring = _rings(*grey.shape)
    parts = cv2.dft((grey - grey.mean()) * window, flags=cv2.DFT_COMPLEX_OUTPUT)
    power = np.bincount(ring, (parts**2).sum(axis=2).ravel(), minlength=_SPECTRUM + 1)[:_SPECTRUM]
    return np.asarray(np.log((power + 1e-3) / (power.sum() + 1e-3 * _SPECTRUM)))


@lru_cache(maxsize=32)
def _rings(height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    window = np.outer(np.hanning(height), np.hanning(width)).astype(np.float32)
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]) * 2
    ring = np.minimum((radius * _SPECTRUM).astype(np.intp), _SPECTRUM)
    return window, ring.ravel()


# -- judging --


def judge(facts: Facts, *, limit: int = PROBED, seed: int = 0) -> Audit:
    """Draw the findings from what was read. Arguments as in `audit`."""
    _need_libraries()
    samples = facts.samples
    same = _find_copies(facts)
    properties = _properties(facts)
    probes = _probes(facts, same.components, seed)
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


# -- copies --


@dataclass(frozen=True, slots=True, eq=False)
class _Same:
    """Copies among the rows that were read.

    Attributes:
        copies: every set of exact copies, then of near ones.
        leaking: (n,) bool, has a near copy in another split.
        components: (n,) number of the set of near copies or of the group, whichever is larger.
        pairs: examples of near copies across splits, with their likeness.
        compared: candidates whose thumbnails were compared.
        blank: pictures without any fine structure, which are not compared.
    """

    copies: tuple[Copies, ...]
    leaking: NDArray[np.bool_]
    components: NDArray[np.intp]
    pairs: tuple[str, ...]
    compared: int
    blank: int


def _find_copies(facts: Facts) -> _Same:
    n = len(facts.rows)
    fine, spread = fine_structure(facts.thumbnails)
    seen = np.flatnonzero(spread >= _BLANK)
    # Thumbnails that are the same to the bit stand for each other: sets of one repeated picture
    # would have as many pairs as its square.
    keys = [hashlib.blake2b(facts.thumbnails[at].data, digest_size=16).digest() for at in seen]
    _, first, number = np.unique(np.array(keys, "V16"), return_index=True, return_inverse=True)
    chosen = seen[first]
    stand_in = chosen[number]
    splits = np.array([1 << SPLITS.index(row.split) for row in facts.rows], np.int64)
    around = np.zeros(n, np.int64)  # splits of the copies of each that stands for others
    np.bitwise_or.at(around, stand_in, splits[seen])
    own = around.copy()
    edges = [np.stack([seen, stand_in])]
    pairs: list[tuple[float, str]] = []
    compared = 0
    for left, right in candidates(facts.hashes[chosen]):
        compared += len(left)
        likeness = similarity(fine, chosen[left], chosen[right])
        yes = likeness >= SIMILAR
        a, b = chosen[left[yes]], chosen[right[yes]]
        np.bitwise_or.at(around, a, own[b])
        np.bitwise_or.at(around, b, own[a])
        edges.append(np.stack([a, b]))
        for i, j, value in zip(a, b, likeness[yes], strict=True):
            if splits[i] != splits[j] and len(pairs) < 1000:
                pairs.append((float(value), f"{facts.rows[i].path} ~ {facts.rows[j].path}"))
    leaking = np.zeros(n, np.bool_)
    leaking[seen] = (around[stand_in] & ~splits[seen]) != 0
    numbers = _components(n, np.concatenate(edges, axis=1))
    near = _sets(facts, numbers, "near")
    if not pairs:  # what has one thumbnail was not compared
        split = {row.path: row.split for row in facts.rows}
        for one in near:
            if len(one.splits) > 1:
                other = next(p for p in one.paths if split[p] != split[one.paths[0]])
                pairs.append((1.0, f"{one.paths[0]} ~ {other}"))
    exact = np.unique(facts.digests, axis=0, return_inverse=True)[1].reshape(-1) if n else numbers
    groups: dict[str, int] = {}
    members = [(i, row.group) for i, row in enumerate(facts.rows) if row.group is not None]
    linked = [(i, groups.setdefault(group, i)) for i, group in members]
    joined = np.concatenate([*edges, np.array(linked, np.intp).reshape(-1, 2).T], axis=1)
    return _Same(
        (*_sets(facts, exact, "exact"), *near),
        leaking,
        _components(n, joined),
        tuple(text for _, text in sorted(pairs, key=lambda pair: (-pair[0], pair[1]))),
        compared,
        n - len(seen),
    )


def _components(n: int, edges: NDArray[np.intp]) -> NDArray[np.intp]:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if n == 0:
        return np.zeros(0, np.intp)
    graph = coo_array((np.ones(edges.shape[1], np.int8), (edges[0], edges[1])), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], np.intp)


def _sets(facts: Facts, numbers: NDArray[np.intp], kind: Literal["exact", "near"]) -> list[Copies]:
    several = np.bincount(numbers)[numbers] > 1 if len(numbers) else np.zeros(0, np.bool_)
    members: dict[int, list[Sample]] = defaultdict(list)
    for at in np.flatnonzero(several):
        members[int(numbers[at])].append(facts.rows[at])
    return [
        Copies(
            kind,
            tuple(sorted(row.path for row in rows)),
            tuple(split for split in SPLITS if any(row.split == split for row in rows)),
            tuple(LABELS[label] for label in sorted({row.label for row in rows})),
        )
        for rows in members.values()
    ]


def candidates(
    hashes: NDArray[np.uint64],
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Pairs of rows whose hashes differ in few bits, each once, some at a time.

    Multi-index hashing (Norouzi et al. 2012): two hashes that differ in at most 7 bits differ in
    at most one bit of one of their four 16-bit bands, so each band is looked up as it is and with
    each of its bits turned. Of pairs that differ in 8 to 10 bits, most are found.
    """
    bands = [(hashes >> np.uint64(16 * band)).astype(np.uint16) for band in range(_BANDS)]
    for band, keys in enumerate(bands):
        order = np.argsort(keys, kind="stable")
        start = np.searchsorted(keys[order], np.arange((1 << 16) + 1))
        for turned in (0, *(1 << bit for bit in range(16))):
            partner = (keys ^ np.uint16(turned)).astype(np.intp)
            # From the side on which the bit is 0, so that a pair comes once.
            rows = np.flatnonzero((keys & turned) == 0) if turned else order
            for left, right in _joined(rows, start[partner[rows]], start[partner[rows] + 1], order):
                keep = _popcount(hashes[left] ^ hashes[right]) <= _BITS
                if turned == 0:
                    keep &= left < right
                found_left, found_right = left[keep], right[keep]
                new = np.ones(len(found_left), np.bool_)
                for earlier in bands[:band]:  # there the pair has been found already
                    new &= _popcount(earlier[found_left] ^ earlier[found_right]) > 1
                if new.any():
                    yield found_left[new], found_right[new]


def _joined(
    rows: NDArray[np.intp],
    begin: NDArray[np.intp],
    end: NDArray[np.intp],
    order: NDArray[np.intp],
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Each of `rows` with each of `order[begin:end]`, at most about `_CELLS` pairs at a time."""
    size = end - begin
    some = size > 0
    rows, begin, size = rows[some], begin[some], size[some]
    total = np.cumsum(size)
    at = 0
    while at < len(rows):
        before = total[at - 1] if at else 0
        stop = max(at + 1, int(np.searchsorted(total, before + _CELLS, side="right")))
        part = size[at:stop]
        offset = np.arange(part.sum()) - np.repeat(np.cumsum(part) - part, part)
        yield np.repeat(rows[at:stop], part), order[np.repeat(begin[at:stop], part) + offset]
        at = stop


def _table_popcount(values: NDArray[Any]) -> NDArray[np.uint8]:
    parts = np.ascontiguousarray(values).view(np.uint8).reshape(*values.shape, -1)
    return np.asarray(_ONES[parts].sum(axis=-1, dtype=np.uint8))


_ONES: Final = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(
    axis=1, dtype=np.uint8
)
_popcount: Callable[[NDArray[Any]], NDArray[Any]] = getattr(np, "bitwise_count", _table_popcount)


def similarity(
    fine: NDArray[np.int8], left: NDArray[np.intp], right: NDArray[np.intp]
) -> NDArray[np.float32]:
    """Correlation, in [-1, 1], of the fine structure of each pair of rows."""
    out = np.empty(len(left), np.float32)
    for at in range(0, len(left), 4096):
        here = slice(at, at + 4096)
        one, other = fine[left[here]].astype(np.float32), fine[right[here]].astype(np.float32)
        norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        out[here] = np.einsum("ij,ij->i", one, other) / np.maximum(norms, 1)
    return out


def fine_structure(
    thumbnails: NDArray[np.uint8],
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """What a narrow blur leaves and a wide one takes away, scaled, and its standard deviation.

    Without the narrow one, copies at 32 px would differ in the noise of their compression.
    """
    fine = np.empty((len(thumbnails), _SIDE * _SIDE), np.int8)
    spread = np.empty(len(thumbnails), np.float32)
    for at, thumbnail in enumerate(thumbnails):
        plane = thumbnail.astype(np.float32)
        narrow, wide = (
            cv2.GaussianBlur(plane, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
            for sigma in (1.0, 2.5)
        )
        band = np.asarray(narrow - wide).ravel()
        band -= band.mean()
        spread[at] = band.std()
        fine[at] = np.rint(band * (127 / max(float(np.abs(band).max()), 1e-6)))
    return fine, spread


def _copy_findings(facts: Facts, same: _Same) -> Iterator[Finding]:
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


def _near_findings(facts: Facts, same: _Same) -> Iterator[Finding]:
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


# -- properties of files --


def _properties(facts: Facts) -> tuple[Property, ...]:
    labels = np.array([row.label for row in facts.rows], np.int8)
    files = facts.files
    area = [file.bytes / (file.width * file.height) for file in files]
    quality = [math.nan if file.quality is None else file.quality for file in files]
    return (
        _counted("format", [file.format for file in files], labels),
        _counted("extension", [file.extension for file in files], labels),
        _measured("width", [file.width for file in files], labels),
        _measured("height", [file.height for file in files], labels),
        _measured("bytes per pixel", area, labels),
        _measured("JPEG quality", quality, labels),
        _counted("chroma subsampling", [file.chroma or "none" for file in files], labels),
        _counted("EXIF", ["yes" if file.exif else "no" for file in files], labels),
        _counted("ICC profile", ["yes" if file.icc else "no" for file in files], labels),
    )


def _counted(name: str, values: Sequence[str], labels: NDArray[np.int8]) -> Property:
    counts = [
        Counter(value for value, label in zip(values, labels, strict=True) if label == which)
        for which in (0, 1)
    ]
    totals = [found.total() for found in counts]
    by_label = {}
    for which, found in enumerate(counts):
        shown: dict[str, float | int] = dict(
            sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))[:_SHOWN_VALUES]
        )
        if len(found) > _SHOWN_VALUES:
            shown["others"] = totals[which] - int(sum(shown.values()))
        by_label[LABELS[which]] = shown
    if not all(totals):
        return Property(name, by_label, None, "one class only")
    every = set(counts[0]) | set(counts[1])
    apart = sum(abs(counts[0][v] / totals[0] - counts[1][v] / totals[1]) for v in every) / 2
    return Property(name, by_label, float(apart))


def _measured(name: str, values: Sequence[float], labels: NDArray[np.int8]) -> Property:
    from scipy import stats

    array = np.asarray(values, np.float64)
    parts = [array[(labels == which) & ~np.isnan(array)] for which in (0, 1)]
    by_label: dict[str, dict[str, float | int]] = {}
    for which, part in enumerate(parts):
        found: dict[str, float | int] = {}
        if len(part):
            points = np.quantile(part, (0, 0.05, 0.5, 0.95, 1))
            found = dict(zip(("least", "5%", "half", "95%", "most"), points.tolist(), strict=True))
        by_label[LABELS[which]] = found | {"n": len(part)}
    if not all(map(len, parts)):
        present = "one class only" if len(set(labels.tolist())) < 2 else "no such files in a class"
        return Property(name, by_label, None, present)
    return Property(name, by_label, float(stats.ks_2samp(*parts).statistic))


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


# -- shortcuts --


def _probes(facts: Facts, components: NDArray[np.intp], seed: int) -> tuple[Probe, ...]:
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    at = facts.probed
    table = _file_table([facts.files[i] for i in at])
    splits = np.array([facts.rows[i].split for i in at])
    scopes = {"all": np.ones(len(at), np.bool_)}
    if 0 < (splits == "test").sum() < len(at):
        scopes["test"] = splits == "test"
    found: list[Probe] = []
    # With more threads the trees take seven times as long where others use the machine as well.
    with threadpool_limits(1, user_api="openmp"):
        for scope, mask in scopes.items():
            rows = [facts.rows[i] for i in at[mask]]
            cut = _folds(rows, components[at[mask]], seed)
            found.append(_probe(cut, seed, ("file", scope), _FILE, table[mask]))
            if found[-1].tells:  # is it more than that one class is smoother?
                without = table[mask][:, 1:]
                found.append(_probe(cut, seed, ("container", scope), _FILE[1:], without))
            found.append(_probe(cut, seed, ("image", scope), _STATISTICS, facts.statistics[mask]))
    order = ("file", "container", "image")
    return tuple(sorted(found, key=lambda probe: order.index(probe.name)))


@dataclass(frozen=True, slots=True, eq=False)
class _Cut:
    """Rows, what belongs together, and the folds; without folds, the reason."""

    rows: Sequence[Sample]
    groups: NDArray[np.intp]
    labels: NDArray[np.int8]
    folds: list[tuple[NDArray[np.intp], NDArray[np.intp]]]
    reason: str | None = None


def _folds(rows: Sequence[Sample], groups: NDArray[np.intp], seed: int) -> _Cut:
    from sklearn.model_selection import StratifiedGroupKFold

    labels = np.array([row.label for row in rows], np.int8)
    kinds = [len(np.unique(groups[labels == label])) for label in (0, 1)]
    if min(kinds) < _LEAST:
        reason = f"a probe needs at least {_LEAST} groups of either class, has {min(kinds)}"
        if max(kinds) and not min(kinds):
            reason = f"one class only: no {LABELS[int(kinds[0] > 0)]} pictures"
        return _Cut(rows, groups, labels, [], reason)
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
    return _Cut(rows, groups, labels, list(folds.split(labels[:, None], labels, groups)))


def _file_table(files: Sequence[FileFacts]) -> NDArray[np.float32]:
    numbers = [
        (
            file.bytes / (file.width * file.height),
            file.width,
            file.height,
            math.nan if file.quality is None else file.quality,
            file.exif,
            file.icc,
        )
        for file in files
    ]
    named = [[file.format, file.extension, file.chroma or "", file.tables or ""] for file in files]
    columns = [_codes([row[at] for row in named]) for at in range(4)]
    left = np.asarray(numbers, np.float32).reshape(len(files), 6)
    return np.concatenate([left, np.stack(columns, axis=1)], axis=1)


def _codes(values: Sequence[str]) -> NDArray[np.float32]:
    """Names to numbers, the most frequent first."""
    ranked = sorted(Counter(values).items(), key=lambda pair: (-pair[1], pair[0]))
    code = {name: at for at, (name, _) in enumerate(ranked)}
    return np.array([code[value] for value in values], np.float32)


def _probe(
    cut: _Cut,
    seed: int,
    name: tuple[str, str],
    features: Sequence[str],
    values: NDArray[np.float32],
) -> Probe:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.inspection import permutation_importance

    from bonaface.metrics import Figure, figures
    from bonaface.scores import Scores

    n, labels = len(cut.rows), cut.labels
    if not cut.folds:
        return Probe(*name, Figure(None, None, None, n, cut.reason), 0)
    said = np.zeros(n)
    drops = np.zeros(len(features))
    for at, (train, test) in enumerate(cut.folds):
        model = HistGradientBoostingClassifier(
            max_iter=60,
            max_leaf_nodes=15,
            min_samples_leaf=int(np.clip(len(train) // 20, 3, 20)),
            early_stopping=False,
            random_state=seed,
        ).fit(values[train], labels[train])
        said[test] = model.predict_proba(values[test])[:, 1]
        if at == 0 and len(np.unique(labels[test])) == 2:
            drops = permutation_importance(
                model, values[test], labels[test], scoring="roc_auc", n_repeats=2, random_state=seed
            ).importances_mean
    clipped = np.clip(said, 1e-9, 1 - 1e-9)
    scores = Scores(
        tuple(row.path for row in cut.rows),
        labels,
        clipped,
        np.log(clipped / (1 - clipped)),
        {"group": tuple(map(str, cut.groups))},
    )
    worst = np.argsort(-drops, kind="stable")[:3]
    strongest = tuple((features[i], float(drops[i])) for i in worst if drops[i] > _WORTH_A_NAME)
    return Probe(*name, figures(scores, 0.5, seed=seed)["auc"], len(cut.folds), strongest)


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
