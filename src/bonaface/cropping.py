"""A labelled data set of photographs to one of face crops, cut by the recipe that inference uses.

What became of each picture is a line in a journal beside the crops, written as soon as its crop is,
so a run that was stopped goes on and ends in the same bytes. Tables and report come last.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from bonaface.crops import RECIPE_FILE, CropRecipe
from bonaface.errors import BundleError, ConfigError, DataError, ImageError
from bonaface.faces import Finder
from bonaface.files import atomic_path, write_json, write_text
from bonaface.images import read_image
from bonaface.samples import LABELS, SPLITS, Sample, Samples

JOURNAL: Final = "crops.jsonl"
FAILURES: Final = "failures.csv"
REPORT: Final = "crop_report.json"
SCHEMA_VERSION: Final = 1
_GROUPED: Final = ("race", "gender", "age", "generator", "source")
COLUMNS: Final = ("group", "generator", "age", "gender", "race", "source")
PASSING: Final = (FileNotFoundError, PermissionError, MemoryError, ImportError)  # may pass
_WORKERS: Final = 2
_AHEAD: Final = 4  # pictures that are worked on or wait to be written
_LONGEST_NAME: Final = 150  # bytes; file systems take 255
_Z: Final = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one picture.

    Attributes:
        path: as in the data set.
        crop: its crop, relative to the folder of crops; None: not cut.
        reason: why it was not cut.
        faces: how many are at least half as large as the largest; None: it could not be read.
        whole: it was a crop already.
        box: of the face, (left, top, right, bottom) in the picture's pixels.
        digest: of the crop's file, BLAKE2b.
    """

    path: str
    crop: str | None = None
    reason: str | None = None
    faces: int | None = None
    whole: bool = False
    box: tuple[float, ...] | None = None
    digest: str | None = None


_Pair = tuple[Sample, Outcome]
_T = TypeVar("_T")
_Made = tuple[Outcome, bytes | None, bool]  # its crop as PNG; whether another try ends the same


@dataclass(frozen=True)
class Cropping:
    """What became of a data set.

    Attributes:
        source: the data set's name.
        header: its fingerprint, the finder and the recipe.
        pairs: each sample and its outcome.
    """

    source: str
    header: dict[str, Any]
    pairs: tuple[_Pair, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: counts, and in which share of whose pictures a face was found."""
        by_split = {
            split: [pair for pair in self.pairs if pair[0].split == split] for split in SPLITS
        }
        by_split = {split: pairs for split, pairs in by_split.items() if pairs}
        counts = _counts(self.pairs)
        notes = []
        if counts["several_faces"]:
            notes.append(
                f"pictures with faces of similar size: {counts['several_faces']}; the largest was "
                f"cut, the label may mean another; see faces in {JOURNAL}"
            )
        if counts["whole"] > counts["cut"]:
            notes.append(
                f"most crops ({counts['whole']}) were crops already and lie as their maker cut "
                f"them, so there is no {RECIPE_FILE}: `bonaface train` measures how they lie"
            )
        return {
            **self.header,
            "source": self.source,
            "counts": counts,
            "splits": {
                split: {
                    name: _counts([pair for pair in pairs if pair[0].label == label])
                    for label, name in enumerate(LABELS)
                }
                for split, pairs in by_split.items()
            },
            "found": {
                split: _shares(pairs) for split, pairs in ({"all": self.pairs} | by_split).items()
            },
            "notes": notes,
        }


def _counts(pairs: Sequence[_Pair]) -> dict[str, Any]:
    why = Counter(one.reason.split(" (")[0] for _, one in pairs if one.reason is not None)
    made = [one for _, one in pairs if one.crop is not None]
    return {
        "asked": len(pairs),
        "cut": sum(not one.whole for one in made),
        "whole": sum(one.whole for one in made),
        "failed": why.total(),
        "reasons": dict(sorted(why.items(), key=lambda pair: (-pair[1], pair[0]))),
        "several_faces": sum((one.faces or 0) > 1 for one in made),
    }


def _shares(pairs: Sequence[_Pair]) -> dict[str, dict[str, Any]]:
    """Column -> value -> how often a face was found, of any size, in pictures that can be read."""
    seen: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for row, outcome in pairs:
        if outcome.faces is None:
            continue
        values = {name: getattr(row, name) for name in _GROUPED}
        if row.race and row.gender:
            values["race and gender"] = f"{row.race}, {row.gender}"
        for column, value in {"all": "pictures", "label": LABELS[row.label], **values}.items():
            if value is not None:
                seen[column][value].append(outcome.faces > 0)
    return {
        column: {value: _share(sum(found), len(found)) for value, found in sorted(values.items())}
        for column, values in seen.items()
    }


def _share(found: int, n: int) -> dict[str, float]:
    low, high = wilson(found, n)
    return {"share": found / n, "low": low, "high": high, "found": found, "n": n}


def wilson(found: int, n: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927), as if no two pictures were of one person."""
    centre = found + _Z**2 / 2
    half = _Z * math.sqrt(found * (n - found) / n + _Z**2 / 4)
    return max(0.0, (centre - half) / (n + _Z**2)), min(1.0, (centre + half) / (n + _Z**2))


def crop_faces(
    samples: Samples,
    out: Path,
    recipe: CropRecipe,
    finder: Finder,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Cropping:
    """Cut the largest face out of each picture; goes on where an earlier call was stopped.

    Args:
        samples: the photographs.
        out: folder of the crops, new or empty or begun by the same call; a data set afterwards.
        recipe: how to cut.
        finder: of faces.
        progress: called with the number of pictures done and of all.

    Raises:
        ConfigError: `out` lies in the data set or around it, or was begun with other settings.
        DataError: `out` holds something else.
    """
    check_place(samples.root, out)
    names = crop_names(samples)
    header: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": samples.fingerprint(),
        "finder": finder.name,
        "recipe": recipe.to_dict(),
    }
    header, lines = resume(out, JOURNAL, header, "crops", {"recipe": CropRecipe.from_dict})
    known = _outcomes(lines)
    done = {
        row.path: one
        for row in samples.rows
        if (one := known.get(row.path))
        and (one.crop is None or (one.crop == names[row.path] and (out / one.crop).is_file()))
    }
    write_journal(out / JOURNAL, header, done.values())
    splits = {row.path: row.split for row in samples.rows}
    taken = {one.digest: one.path for one in done.values()}
    passing: dict[str, Outcome] = {}
    # Test pictures first: of two that give the same crop in two splits, it keeps its own.
    todo = [row for s in reversed(SPLITS) for row in samples.split(s).rows if row.path not in done]
    with (
        (out / JOURNAL).open("a", encoding="utf-8", newline="\n") as journal,
        closing(ahead(todo, lambda row: _make(samples, row, recipe, finder))) as coming,
    ):
        for made, png, lasts in coming:
            outcome = made
            if png is not None:
                first = taken.setdefault(made.digest, made.path)
                if splits[first] == splits[made.path]:
                    keep(out / names[made.path], png)
                    outcome = replace(made, crop=names[made.path])
                else:
                    reason = f"same crop as a picture of another split ({first})"
                    outcome = replace(made, reason=reason, digest=None)
            if lasts:
                done[made.path] = outcome
                journal.write(journal_line(asdict(outcome)))
                journal.flush()
            else:
                passing[made.path] = outcome
            if progress:
                progress(len(done) + len(passing), len(samples))
    write_journal(
        out / JOURNAL, header, (done[row.path] for row in samples.rows if row.path in done)
    )
    pairs = tuple((row, (done | passing)[row.path]) for row in samples.rows)
    found = Cropping(samples.root.name, header, pairs)
    _write_tables(out, found)
    return found


def crop_names(samples: Samples) -> dict[str, str]:
    """Sample's path -> its crop's: SPLIT/LABEL/[generator or source/]NAME.png, each once.

    Names keep letters, digits, `_`, `-` and `.`; where two would meet, also on a disk that takes
    `A` for `a`, both get a hash of their path.
    """
    names = {}
    for row in samples.rows:
        below = _safe((row.generator if row.label else row.source) or "").replace(".", "_")
        stem = _safe(Path(row.path).stem) or "picture"
        names[row.path] = "/".join(filter(None, (row.split, LABELS[row.label], below, stem)))
    while True:
        met = Counter(name.casefold() for name in names.values())
        if max(met.values(), default=1) == 1:
            return {path: f"{name}.png" for path, name in names.items()}
        names = {
            path: f"{name}-{digest(path.encode(), 6)}" if met[name.casefold()] > 1 else name
            for path, name in names.items()
        }


def _safe(text: str) -> str:
    # Nothing hidden and no __MACOSX: readers of data sets pass over these.
    plain = re.sub(r"[^\w.-]+", "_", text).lstrip("._-")
    return plain.encode()[:_LONGEST_NAME].decode(errors="ignore").rstrip(".")


def digest(data: bytes, size: int = 16) -> str:
    """BLAKE2b in hex."""
    return hashlib.blake2b(data, digest_size=size).hexdigest()


# -- one picture --


def ahead(rows: Sequence[Sample], make: Callable[[Sample], _T]) -> Generator[_T, None, None]:
    """What `make` makes of each row, in their order, a few of them at work at a time."""
    waiting: deque[Future[_T]] = deque()
    with ThreadPoolExecutor(_WORKERS) as pool:
        try:
            for row in rows:
                waiting.append(pool.submit(make, row))
                if len(waiting) == _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _make(samples: Samples, row: Sample, recipe: CropRecipe, finder: Finder) -> _Made:
    try:
        pixels = read_image(samples.absolute(row)).pixels
    except ImageError as error:
        lasts = not isinstance(error.__cause__, PASSING)
        return Outcome(row.path, reason=error.reason), None, lasts
    found = finder.find(pixels)
    if not found:
        return Outcome(row.path, reason="no face found", faces=0), None, True
    face = found[0]
    rivals = sum(2 * one.size >= face.size for one in found)
    outcome = Outcome(row.path, faces=rivals, box=tuple(round(x, 1) for x in face.box))
    if face.size < recipe.min_face:
        reason = f"face smaller than {recipe.min_face} px ({face.size:.1f} px)"
        return replace(outcome, reason=reason), None, True
    height, width = pixels.shape[:2]
    whole = recipe.takes_whole(face, width, height)
    crop = recipe.shrink(_centre(pixels)) if whole else recipe.cut(pixels, face)
    png = as_png(crop)
    return replace(outcome, whole=whole, digest=digest(png)), png, True


def as_png(pixels: NDArray[np.uint8]) -> bytes:
    """Uint8 HxWx3 RGB -> a PNG file."""
    buffer = io.BytesIO()
    PILImage.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _centre(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def keep(path: Path, png: bytes) -> None:
    """Write a picture; one that a stopped run wrote and did not note down is the same."""
    if not path.exists():
        with atomic_path(path) as temporary:
            temporary.write_bytes(png)
    elif path.read_bytes() != png:
        raise DataError(
            f"expected no file at {str(path)!r}, got one that is not this picture; move it away"
        )


# -- the folder --


def check_place(root: Path, out: Path) -> None:
    """Raise ConfigError when `out` lies in a data set or around it."""
    inner, outer = out.resolve(), root.resolve()
    if inner == outer or outer in inner.parents or inner in outer.parents:
        raise ConfigError(
            f"expected the new folder outside the data set {str(root)!r} and not around it, got "
            f"{str(out)!r}; name another folder"
        )


def resume(
    out: Path,
    name: str,
    asked: dict[str, Any],
    what: str,
    read: Mapping[str, Callable[[Any], Any]],
) -> tuple[dict[str, Any], list[Any]]:
    """What the journal of an earlier call says.

    Args:
        out: the folder it was begun in.
        name: of the journal.
        asked: the header that this call would write.
        what: is made there, in words.
        read: how to read a value of the header before it is compared; others are compared as
            they are.

    Returns:
        The header as it stands there, or `asked` in a new folder, and the lines that are whole.

    Raises:
        ConfigError: it was begun with other settings.
        DataError: the folder holds something else.
    """
    foreign = DataError(
        f"expected a new or empty folder, or {what} that were begun here, got {str(out)!r}, which "
        "holds something else; name another folder"
    )
    journal = out / name
    if not journal.is_file():
        if out.exists() and (
            not out.is_dir() or any(not found.name.startswith(".") for found in out.iterdir())
        ):
            raise foreign
        return asked, []
    first, *rest = journal.read_text(encoding="utf-8", errors="replace").split("\n")
    try:
        begun = json.loads(first)
        pairs = {
            key: tuple(read.get(key, _as_it_is)(header[key]) for header in (begun, asked))
            for key in asked
        }
    except (ValueError, LookupError, TypeError, BundleError):
        raise foreign from None
    for key, (theirs, ours) in pairs.items():
        if theirs != ours:
            named = "data set, with all its sizes and splits," if key == "fingerprint" else key
            raise ConfigError(
                f"expected the {named} that {str(out)!r} was begun with ({theirs}), got {ours}; "
                "name another folder"
            )
    lines = []
    for line in rest:
        with suppress(ValueError):  # cut short when the run was stopped
            lines.append(json.loads(line))
    return {key: begun[key] for key in asked}, lines


def _as_it_is(value: Any) -> Any:
    return value


def _outcomes(lines: Iterable[Any]) -> dict[str, Outcome]:
    outcomes = {}
    for value in lines:
        with suppress(LookupError, TypeError):
            one = Outcome(**(value | {"box": value["box"] and tuple(value["box"])}))
            outcomes[one.path] = one
    return outcomes


def write_journal(path: Path, header: dict[str, Any], outcomes: Iterable[Any]) -> None:
    """Write a journal anew: its header, and a line for each outcome (a dataclass)."""
    lines = [journal_line(header), *(journal_line(asdict(outcome)) for outcome in outcomes)]
    write_text(path, "".join(lines))


def journal_line(value: dict[str, Any]) -> str:
    """One line of a journal."""
    return json.dumps(value, ensure_ascii=False) + "\n"


def _write_tables(out: Path, found: Cropping) -> None:
    failed = [(row, one.reason) for row, one in found.pairs if one.crop is None]
    write_csv(
        out / FAILURES,
        ("path", "label", "split", "reason"),
        ([row.path, LABELS[row.label], row.split, reason] for row, reason in failed),
    )
    write_csv(
        out / "metadata.csv",
        ("file_name", "label", "split", *COLUMNS),
        (
            [one.crop, LABELS[row.label], row.split, *(getattr(row, name) for name in COLUMNS)]
            for row, one in found.pairs
            if one.crop is not None
        ),
    )
    report = found.to_dict()
    write_json(out / REPORT, report)
    if report["counts"]["whole"] > report["counts"]["cut"]:
        (out / RECIPE_FILE).unlink(missing_ok=True)
    else:
        write_json(out / RECIPE_FILE, found.header["recipe"])


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str | None]]) -> None:
    """Write a table, atomically; None is an empty cell."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
