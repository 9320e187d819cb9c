"""``bonaface explain``: where a detector looked, and how far to believe that."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bonaface.cli._shared import INCOMPLETE, INTERRUPTED, printable, progress_bar
from bonaface.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from bonaface.cli._inputs import Input
    from bonaface.explain import Explainer, Explanation, Faith
    from bonaface.explain.evaluating import Assessment


def explain(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The detector.")],
    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="[IMAGE...]", help="Photos, clips, folders, or -.")
    ] = None,
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write into.")],
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="occlusion, rise, grad-cam or integrated-gradients [occlusion].",
        ),
    ] = None,
    faces: Annotated[
        str,
        typer.Option(metavar="auto|none", help="Find faces, or take each picture for a crop."),
    ] = "auto",
    frames: Annotated[int, typer.Option(help="Of a clip, how many to look at.")] = 64,
    evaluate: Annotated[
        Path | None,
        typer.Option(metavar="DATA", help="Measure the method on labelled face crops instead."),
    ] = None,
    split: Annotated[str, typer.Option(help="Of DATA: train, validation or test.")] = "test",
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="At most N pictures of DATA.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of all chance.")] = 0,
) -> None:
    """Show where a detector looked in each face, and how far that can be believed.

    Writes a picture for each photo's face or each clip, explain.json and explain.html. A heat map
    shows where the network looked, not what was forged. Exit code 3: some could not be read.
    """
    if faces not in ("auto", "none"):
        raise ConfigError(f"expected --faces auto or none, got {faces!r}; choose one of them")
    if bool(inputs) == (evaluate is not None):
        raise ConfigError(
            "expected photos or clips, or --evaluate DATA, got "
            f"{'both' if inputs else 'neither'}; name one of the two"
        )

    from bonaface.cli._inputs import collect
    from bonaface.detector import load_detector
    from bonaface.explain import DEFAULT, Explainer

    given = collect(inputs) if inputs else []
    explainer = Explainer(load_detector(bundle), method or DEFAULT, seed)
    if evaluate is not None:
        _assess(explainer, evaluate, out, split, limit)
    else:
        _explain(explainer, given, out, {"faces": faces, "frames": frames})


def _explain(
    explainer: Explainer, given: Sequence[Input], out: Path, wishes: dict[str, Any]
) -> None:
    from bonaface.explain import MEANING
    from bonaface.explain import explain as look_at
    from bonaface.explain.writing import Writer

    writer = Writer(explainer, out)
    unread, stopped = 0, False
    try:
        for one in given:
            with progress_bar(printable(Path(one.name).name), "views") as progress:
                found = look_at(explainer, one.source, name=one.name, progress=progress, **wishes)
            unread += not found.verdict.readable
            _show(found)
            for path in writer.add(found):
                typer.echo(f"  wrote {printable(str(path))}")
    except KeyboardInterrupt:  # what was explained is not lost
        stopped = True
    typer.echo(f"wrote {printable(str(writer.finish()))}")
    try:
        from bonaface.report.explain import write_explanations
    except MissingExtraError:
        typer.echo("note: no explain.html, which needs: pip install 'bonaface[train]'", err=True)
    else:
        page = write_explanations(writer.document(), out)
        typer.echo(f"wrote {printable(str(page))}")
    typer.echo(MEANING, err=True)
    if stopped:
        typer.echo("bonaface: interrupted", err=True)
        raise typer.Exit(INTERRUPTED)
    if unread:
        typer.echo(f"{unread} of {len(given)} could not be read", err=True)
        raise typer.Exit(INCOMPLETE)


def _show(found: Explanation) -> None:
    verdict = found.verdict
    typer.echo(printable(f"{verdict.path}: {verdict.answer}, {verdict.reason}"))
    who = "person" if verdict.kind == "video" else "face"
    for look in found.looks:
        when = "" if look.seconds is None else f" at {look.seconds:.1f} s"
        score = "" if look.score is None else f" {look.score:.3f}"
        says = _says(look.faith) if look.faith else f"{look.reason}; no map"
        typer.echo(printable(f"  {who} {look.number}{when}: {look.answer}{score}; {says}"))


def _says(faith: Faith) -> str:
    many = len(faith.random)
    doubt = "" if faith.believed else ": do not read anything into it"
    return f"its map beats {many - faith.as_good} of {many} random ones (p = {faith.p:.2f}){doubt}"


def _assess(explainer: Explainer, data: Path, out: Path, split: str, limit: int | None) -> None:
    from bonaface.explain.evaluating import assess
    from bonaface.report.explain import write_assessment
    from bonaface.samples import load_samples

    samples = load_samples(data, ratios=explainer.detector.bundle.ratios)
    try:
        with progress_bar("explaining") as progress:
            found = assess(explainer, samples, out, split=split, limit=limit, progress=progress)
    except KeyboardInterrupt:
        typer.echo(f"bonaface: stopped; the same command goes on with {out}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    _show_assessment(found)
    for path in write_assessment(found, out):
        typer.echo(f"wrote {printable(str(path))}")
    if found.unreadable:
        typer.echo(f"{len(found.unreadable)} could not be read; faithfulness.json", err=True)
        raise typer.Exit(INCOMPLETE)


def _show_assessment(found: Assessment) -> None:
    typer.echo(
        printable(
            f"{found.detector}, {found.method}, {found.real} real and {found.fake} fake of "
            f"{found.data}"
        )
    )
    for one in found.faithfulness:
        word = "beats random" if one.beats_random else "not shown to beat random"
        typer.echo(f"{one.way} AUC: map {one.own}, random {one.random}, middle {one.centre}")
        typer.echo(f"  better than random by {one.over_random}: {word}")
        typer.echo(f"  better than the middle by {one.over_centre}")
    for game in found.pointing:
        typer.echo(
            printable(
                f"pointing, {game.what} (n = {game.hits.n}): map {game.hits}, "
                f"chance {game.chance}, middle {game.centre}"
            )
        )
        typer.echo(f"  over chance {game.over_chance}; over the middle {game.over_centre}")
