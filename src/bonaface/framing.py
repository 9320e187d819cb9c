"""Labelled clips to a data set of faces, cut by the recipe that inference uses, or of whole frames.

One clip is read after the other, with few frames in memory. All frames of a clip, and of the clips
of its group, stay in one split. As in `cropping`, a journal lets a stopped run go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from bonaface.ahead import ahead
from bonaface.cropping import cut_face, write_recipe
from bonaface.cropping.journal import (
    Owners,
    as_png,
    carry_out,
    check_place,
    digest,
    keep,
    lasts,
    left_to_do,
    read_outcomes,
    resume,
)
from bonaface.cropping.tables import (
    FAILURES,
    count_reasons,
    crop_names,
    write_csv,
    write_metadata,
)
from bonaface.crops import CropRecipe
from bonaface.errors import ImageError
from bonaface.faces import Finder
from bonaface.files import write_json
from bonaface.layouts import Kind, some
from bonaface.samples import LABELS, SPLITS, Sample, Samples, load_samples
from bonaface.video import SUFFIXES, Frame, read_frames

JOURNAL: Final = "frames.jsonl"
REPORT: Final = "frames_report.json"
SCHEMA_VERSION: Final = 1
CLIPS: Final = Kind(SUFFIXES, "clips")


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one frame.

    Attributes:
        number: its place among the frames of the clip, from 0.
        seconds: when it is shown.
        file: its picture, relative to the new set; None: none was written.
        reason: why none was.
        faces: how many are at least half as large as the largest; None: nobody looked.
        whole: the frame was a crop already, or was to be kept whole.
        box: of the face, (left, top, right, bottom) in the frame's pixels.
        digest: of the picture's file, BLAKE2b.
    """

    number: int
    seconds: float
    file: str | None = None
    reason: str | None = None
    faces: int | None = None
    whole: bool = False
    box: tuple[float, ...] | None = None
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one clip.

    Attributes:
        path: as in the data set.
        frames: those that were read.
        missed: frames that were asked for and cannot be read.
        reason: why the clip, or its rest, cannot be read.
        notes: what a person should know about it.
    """

    path: str
    frames: tuple[Taken, ...] = ()
    missed: int = 0
    reason: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Framing:
    """What became of a set of clips.

    Attributes:
        source: its name.
        header: its fingerprint, the number of frames, the finder and the recipe.
        pairs: each clip and its outcome.
    """

    source: str
    header: dict[str, Any]
    pairs: tuple[tuple[Sample, Outcome], ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: counts by split, label and reason."""
        counts = _counts([one for _, one in self.pairs])
        alone = sum(row.group is None for row, _ in self.pairs)
        odd = [f"{row.path} ({note})" for row, one in self.pairs for note in one.notes]
        notes = [f"clips that were not read whole: {some(odd)}; see {JOURNAL}"] if odd else []
        if alone:
            notes.append(
                f"{alone} clips have no known group and count as one each: clips of one person, or "
                "a fake and its original, may lie in two splits; name groups in metadata.csv"
            )
        if counts["several_faces"]:
            notes.append(
                f"frames with faces of similar size: {counts['several_faces']}; the largest was "
                f"cut, the label may mean another; see faces in {JOURNAL}"
            )
        return {
            **self.header,
            "source": self.source,
            "counts": counts,
            "splits": {
                split: {
                    name: _counts(
                        [o for r, o in self.pairs if (r.split, r.label) == (split, label)]
                    )
                    for label, name in enumerate(LABELS)
                }
                for split in SPLITS
                if any(row.split == split for row, _ in self.pairs)
            },
            "notes": notes,
        }


def _counts(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    taken = [frame for one in outcomes for frame in one.frames]
    made = [frame for frame in taken if frame.file is not None]
    why = [reason for one in outcomes for _, reason in _reasons(one)]
    return {
        "clips": len(outcomes),
        "clips_failed": sum(one.reason is not None for one in outcomes),
        "frames": len(taken),
        "cut": sum(not frame.whole for frame in made),
        "whole": sum(frame.whole for frame in made),
        "missed": sum(one.missed for one in outcomes),
        "failed": len(taken) - len(made),
        "reasons": count_reasons(why),
        "several_faces": sum((frame.faces or 0) > 1 for frame in made),
    }


def load_clips(
    data: Path, *, ratios: tuple[float, float, float] | None = None, seed: int = 0
) -> Samples:
    """Labelled clips, in the layouts that images have; see `load_samples`."""
    return load_samples(data, ratios=ratios, seed=seed, kind=CLIPS)


def frame_set(
    clips: Samples,
    out: Path,
    recipe: CropRecipe | None,
    finder: Finder | None,
    *,
    count: int = 10,
    progress: Callable[[int, int], None] | None = None,
) -> Framing:
    """Cut the largest face out of frames of each clip; goes on where an earlier call was stopped.

    Args:
        clips: see `load_clips`.
        out: folder of the pictures, new or empty or begun by the same call; a data set afterwards.
        recipe: how to cut; None: frames are kept whole, and no finder is needed.
        finder: of faces.
        count: frames of a clip, spread evenly over it; of a shorter clip all.
        progress: called with the number of frames done and of all, as if each clip had `count`.

    Raises:
        ConfigError: `out` lies in the data set or around it, or was begun with other settings.
        DataError: `out` holds something else.
    """
    check_place(clips.root, out)
    cutting = None if recipe is None or finder is None else (recipe, finder)
    header: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": clips.fingerprint(),
        "count": count,
        "finder": cutting and cutting[1].name,
        "recipe": cutting and cutting[0].to_dict(),
    }
    header, lines = resume(out, JOURNAL, header, "frames", {"recipe": _recipe})
    names = crop_names(clips, "")
    done = {
        path: one
        for path, one in read_outcomes(lines, _outcome).items()
        if path in names and all(f.file is None or (out / f.file).is_file() for f in one.frames)
    }
    seen = ((f.digest, one.path) for one in done.values() for f in one.frames if f.digest)
    framer = _Framer(out, cutting, count, Owners(clips, seen))
    steps = (
        framer.clip(clips.absolute(row), row.path, names[row.path])
        for row in left_to_do(clips, done)
    )
    outcomes = carry_out(
        out / JOURNAL,
        header,
        done,
        steps,
        order=[row.path for row in clips.rows],
        progress=None if progress is None else lambda n, all_: progress(n * count, all_ * count),
    )
    found = Framing(clips.root.name, header, tuple((row, outcomes[row.path]) for row in clips.rows))
    _write_tables(out, found)
    return found


def _recipe(value: dict[str, Any] | None) -> CropRecipe | None:
    return None if value is None else CropRecipe.from_dict(value)


def _outcome(frames: Iterable[dict[str, Any]], **rest: Any) -> Outcome:
    taken = (Taken(**frame | {"box": frame["box"] and tuple(frame["box"])}) for frame in frames)
    return Outcome(frames=tuple(taken), **rest)


class _Framer:
    """Takes the pictures out of one clip after the other."""

    def __init__(
        self, out: Path, cutting: tuple[CropRecipe, Finder] | None, count: int, owners: Owners
    ) -> None:
        self._out, self._cutting, self._count, self._owners = out, cutting, count, owners

    def clip(self, source: Path, path: str, stem: str) -> tuple[Outcome, bool]:
        """What became of a clip, and whether another try would end the same."""
        taken: list[Taken] = []
        try:
            with (
                read_frames(source, self._count) as frames,
                closing(ahead(frames, self._cut)) as coming,
            ):
                for frame, png in coming:
                    file = f"{stem}-{frame.number:05d}.png"
                    taken.append(frame if png is None else self._kept(frame, png, path, file))
        except ImageError as error:
            return Outcome(path, tuple(taken), reason=error.reason), lasts(error)
        return Outcome(path, tuple(taken), frames.missed, notes=frames.notes), True

    def _cut(self, frame: Frame) -> tuple[Taken, bytes | None]:
        """A frame's picture as PNG, or why there is none."""
        taken = Taken(frame.number, round(frame.seconds, 3))
        if self._cutting is None:
            return replace(taken, whole=True), as_png(frame.pixels)
        cut = cut_face(frame.pixels, *self._cutting)
        taken = replace(taken, reason=cut.reason, faces=cut.faces, whole=cut.whole, box=cut.box)
        return taken, None if cut.pixels is None else as_png(cut.pixels)

    def _kept(self, frame: Taken, png: bytes, path: str, file: str) -> Taken:
        mark = digest(png)
        rival = self._owners.rival(path, mark)
        if rival is not None:
            return replace(frame, reason=f"same picture as in a clip of another split ({rival})")
        keep(self._out / file, png)
        return replace(frame, file=file, digest=mark)


def _write_tables(out: Path, found: Framing) -> None:
    lost = [
        [row.path, None if number is None else str(number), LABELS[row.label], row.split, reason]
        for row, one in found.pairs
        for number, reason in _reasons(one)
    ]
    write_csv(out / FAILURES, ("path", "frame", "label", "split", "reason"), lost)
    # All frames of a clip stay together, also where nobody knows who it is.
    pictures = (
        replace(row, path=frame.file, group=row.group or row.path)
        for row, one in found.pairs
        for frame in one.frames
        if frame.file is not None
    )
    write_metadata(out / "metadata.csv", pictures)
    report = found.to_dict()
    write_json(out / REPORT, report)
    if report["recipe"] is not None:
        write_recipe(out, report["recipe"], report["counts"])


def _reasons(one: Outcome) -> Iterator[tuple[int | None, str]]:
    """(frame, why it was not used); without a frame, the clip or frames that cannot be read."""
    if one.reason is not None:
        yield None, one.reason
    if one.missed:
        yield None, f"frames cannot be read ({one.missed})"
    for frame in one.frames:
        if frame.reason is not None:
            yield frame.number, frame.reason
