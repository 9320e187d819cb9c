"""``bonaface detect``: fake, real or unsure, for each face of photos and clips."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bonaface.cli._follow import STYLES, summarise, watch
from bonaface.cli._inputs import Input, collect
from bonaface.cli._shared import (
    INCOMPLETE,
    INTERRUPTED,
    SHIPPED,
    FacesOption,
    FinderOption,
    ModelOption,
    PrevalenceOption,
    StabilityOption,
    new_bars,
    printable,
)
from bonaface.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from bonaface.bundle import Card
    from bonaface.detector import Detector
    from bonaface.verdict import FaceVerdict, PersonVerdict, Verdict

_MEANING = (
    "The score is the calibrated probability that a face is fake, given as many fakes as reals. "
    "It is evidence, not proof: on forgeries unlike those it was trained on, a detector may be "
    "no better than chance. Ask for the original file before you act on it."
)
_WITHOUT = "most files carry none, so that says nothing."
_ROWS = 12  # faces or people of one picture in the table
_CELLS = 24  # of a timeline
_BARS = "▁▂▃▄▅▆▇█"


def detect(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...", help="Photos, clips, folders, patterns such as 'in/*.jpg', or -."
        ),
    ],
    model: ModelOption = SHIPPED,
    faces: FacesOption = "auto",
    stability: StabilityOption = False,
    prevalence: PrevalenceOption = 0.5,
    frames: Annotated[
        int,
        typer.Option(help="Of a clip, how many to look at; with --follow, how many count."),
    ] = 64,
    finder: FinderOption = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print a JSON list instead; with --follow, a line an update."),
    ] = False,
    annotate: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Draw boxes and timelines into DIR.")
    ] = None,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow", help="INPUT is one video that does not end: a growing file, a pipe, or -."
        ),
    ] = False,
    idle: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="With --follow, end after so long without a byte (file: 10)."
        ),
    ] = None,
) -> None:
    """Judge the faces of photos and clips: fake, real or unsure, with the score and the reason.

    Exit code 3 says that some inputs could not be read; the others are judged.
    """
    if follow:
        wishes = {"faces": faces, "stability": stability, "prevalence": prevalence}
        _follow(inputs, model, finder, annotate, as_json, wishes | {"frames": frames, "idle": idle})
        return
    if idle is not None:
        raise ConfigError("expected --idle with --follow, got it alone; leave it out")
    given = collect(inputs)

    from bonaface.detector import load_detector

    detector = load_detector(model, finder=finder)
    wishes = {
        "faces": faces, "stability": stability, "prevalence": prevalence, "frames": frames,
    }  # fmt: skip
    verdicts: list[Verdict] = []
    stopped, drawn = False, set[Path]()
    try:
        for one, verdict in zip(given, _judged(detector, given, wishes), strict=True):
            verdicts.append(verdict)
            if annotate is not None:
                _annotate(one, verdict, annotate, frames, drawn)
    except KeyboardInterrupt:  # what was judged is not lost
        stopped = True
    if as_json:
        typer.echo(json.dumps([verdict.to_dict() for verdict in verdicts], indent=2))
    else:
        _show(verdicts)
    _summarise(verdicts, len(given), detector.bundle.card)
    if stopped:
        raise typer.Exit(INTERRUPTED)
    if not all(verdict.readable for verdict in verdicts):
        raise typer.Exit(INCOMPLETE)


def _follow(
    inputs: Sequence[str],
    model: Path,
    finder: Path | None,
    annotate: Path | None,
    as_json: bool,
    wishes: dict[str, Any],
) -> None:
    if len(inputs) != 1 or annotate is not None:
        got = "--annotate" if annotate is not None else f"{len(inputs)} inputs"
        raise ConfigError(f"expected one input with --follow, got {got}; name one file, pipe or -")

    from bonaface.detector import load_detector

    with load_detector(model, finder=finder).follow(inputs[0], **wishes) as following:
        last, stopped = watch(following, as_json)
    typer.echo(_MEANING, err=True)
    summarise(last)
    if stopped:
        raise typer.Exit(INTERRUPTED)
    if not last.frames.seen:
        raise typer.Exit(INCOMPLETE)


def _judged(
    detector: Detector, given: Sequence[Input], wishes: dict[str, Any]
) -> Iterator[Verdict]:
    with new_bars() as bar:
        every = bar.add_task("judging", total=len(given), rate="")
        for one in given:
            name = printable(Path(one.name).name)
            clip = bar.add_task(name, total=None, visible=False, rate="")

            def seen(done: int, total: int, clip: Any = clip) -> None:
                bar.update(clip, completed=done, total=total, visible=True)

            yield detector.detect(one.source, name=one.name, progress=seen, **wishes)
            bar.remove_task(clip)
            bar.advance(every)


def _annotate(one: Input, verdict: Verdict, folder: Path, frames: int, drawn: set[Path]) -> None:
    from bonaface.annotate import annotate_photo, annotate_video, write_annotated
    from bonaface.images import read_image
    from bonaface.video import read_frames

    if not verdict.readable:
        return
    path = _own(folder, Path(one.name).name, drawn)
    if verdict.kind == "video":
        with read_frames(one.source, frames) as clip:
            write_annotated(path, annotate_video(clip, verdict))
    else:
        write_annotated(path, annotate_photo(read_image(one.source).pixels, verdict))


def _own(folder: Path, name: str, drawn: set[Path]) -> Path:
    """Where to draw: by an ending of our own, so that only earlier drawings are written over."""
    path, again = folder / f"{name}.annotated.png", 2
    while path in drawn:
        path, again = folder / f"{name}-{again}.annotated.png", again + 1
    drawn.add(path)
    return path


# -- what is printed --


def _show(verdicts: Sequence[Verdict]) -> None:
    """A table on a terminal; elsewhere one line a picture, separated by tabs."""
    from rich.console import Console

    console = Console()
    if console.is_terminal:
        console.print(_table(verdicts))
        return
    for verdict in verdicts:
        row = verdict.path, verdict.answer, _number(verdict.score), _parts(verdict), _why(verdict)
        told = _credentials(verdict)
        typer.echo("\t".join(map(printable, (*row, told) if told else row)))


def _table(verdicts: Sequence[Verdict]) -> Table:
    from rich.table import Table
    from rich.text import Text

    ranges = any(part.stability for verdict in verdicts for part in _of(verdict))
    moved = any(verdict.bands.prevalence != 0.5 for verdict in verdicts)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("picture", overflow="fold")
    table.add_column("answer", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    if moved:
        table.add_column("posterior", justify="right", no_wrap=True)
    if ranges:
        table.add_column("range", no_wrap=True)
    table.add_column("reason", ratio=1)

    def add(name: Text, one: Verdict | FaceVerdict | PersonVerdict, reason: Text) -> None:
        cells: list[Any] = [name, Text(one.answer, STYLES[one.answer]), _number(one.score)]
        if moved:
            cells.append("-" if one.posterior is None else f"{one.posterior:.2g}")
        if ranges:
            cells.append(_range(getattr(one, "stability", None)))
        table.add_row(*cells, reason)

    for verdict in verdicts:
        parts, told = _of(verdict), _credentials(verdict)
        alone = len(parts) == 1 and verdict.kind == "photo"
        add(Text(printable(verdict.path), "bold"), parts[0] if alone else verdict,
            Text(printable(_why(verdict))))  # fmt: skip
        if told:
            table.add_row(
                Text("  beside it", "dim"), *[""] * (len(table.columns) - 2), Text(printable(told))
            )
        if alone:
            continue
        for part in parts[:_ROWS]:
            add(Text(f"  {_name(part)}"), part, _reason_of(part, verdict))
        if len(parts) > _ROWS:
            table.add_row(Text(f"  and {len(parts) - _ROWS} more (--json lists all)", "dim"))
    return table


def _of(verdict: Verdict) -> Sequence[FaceVerdict | PersonVerdict]:
    return verdict.people if verdict.kind == "video" else verdict.faces


def _name(part: FaceVerdict | PersonVerdict) -> str:
    from bonaface.verdict import PersonVerdict

    if isinstance(part, PersonVerdict):
        return f"person {part.number}, {part.judged} frames"
    left, top, right, bottom = part.box or (0, 0, 0, 0)
    return f"face {part.number}, {max(right - left, bottom - top):.0f} px at {left:.0f},{top:.0f}"


def _reason_of(part: FaceVerdict | PersonVerdict, verdict: Verdict) -> Any:
    from rich.text import Text

    from bonaface.verdict import FaceVerdict

    if isinstance(part, FaceVerdict):
        return Text(part.reason)
    line = _timeline(part, verdict.frames.seconds if verdict.frames else None)
    return Text.assemble((line, "cyan"), f"  {part.reason}")


def _timeline(person: PersonVerdict, seconds: float | None) -> str:
    """The scores over the clip, a bar for each part of it; a dot where the face is not judged."""
    end = max(seconds or 0.0, person.moments[-1].seconds, 1e-3)
    cells: list[list[float]] = [[] for _ in range(_CELLS)]
    for moment in person.moments:
        if moment.score is not None:
            at = min(int(moment.seconds / end * _CELLS), _CELLS - 1)
            cells[at].append(moment.score)
    return "".join(
        _BARS[min(int(sum(cell) / len(cell) * len(_BARS)), len(_BARS) - 1)] if cell else "·"
        for cell in cells
    )


def _number(score: float | None) -> str:
    return "-" if score is None else f"{score:.3f}"


def _range(stability: Any) -> str:
    return f"{stability.low:.3f}-{stability.high:.3f}" if stability else "-"


def _parts(verdict: Verdict) -> str:
    parts = _of(verdict)
    counts: Counter[str] = Counter(part.answer for part in parts)
    said = ", ".join(f"{counts[word]} {word}" for word in STYLES if counts[word])
    one, many = ("person", "people") if verdict.kind == "video" else ("face", "faces")
    return f"{len(parts)} {one if len(parts) == 1 else many}" + (f": {said}" if said else "")


def _credentials(verdict: Verdict) -> str:
    """What the content credentials say; "" where there are none: most files carry none."""
    found = verdict.provenance
    if found is None or found.state == "absent":
        return ""
    done = f"; they list: {', '.join(found.actions)}" if found.state == "valid" else ""
    return found.summary + (done if found.actions else "")


def _why(verdict: Verdict) -> str:
    found = [verdict.reason, *verdict.notes]
    if verdict.frames:
        count = verdict.frames
        left = [
            f"{number} {what}"
            for number, what in (
                (count.without_face, "without a face"),
                (count.not_judged, "with faces that are too small"),
                (count.unreadable, "unreadable"),
            )
            if number
        ]
        found.append(f"{count.judged} frames judged" + (f", {', '.join(left)}" if left else ""))
    return "; ".join(found)


def _summarise(verdicts: Sequence[Verdict], asked: int, card: Card) -> None:
    """On stderr: what the numbers mean, the counts, and what could not be read."""
    typer.echo(_MEANING, err=True)
    if card.terms:
        typer.echo(
            f"The detector {printable(card.name)}: {printable(card.terms)} --model names another.",
            err=True,
        )
    if asked > 1:
        counts: Counter[str] = Counter(verdict.answer for verdict in verdicts)
        said = ", ".join(f"{counts[word]} {word}" for word in STYLES if counts[word])
        done = f"{len(verdicts)} of {asked}" if len(verdicts) < asked else str(asked)
        typer.echo(f"{done} judged: {said}" if said else f"{done} judged", err=True)
    without = sum(bool(one.provenance and one.provenance.state == "absent") for one in verdicts)
    if without:
        typer.echo(
            f"{without} of {len(verdicts)} without content credentials: {_WITHOUT}", err=True
        )
    unread = [verdict for verdict in verdicts if not verdict.readable]
    if unread:
        typer.echo(f"{len(unread)} could not be read:", err=True)
        for verdict in unread:
            typer.echo(f"  {printable(verdict.path)}: {printable(verdict.reason)}", err=True)
    if len(verdicts) < asked:
        typer.echo("bonaface: interrupted", err=True)
        sys.stdout.flush()
