"""What several commands do in the same way."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bonaface.errors import ConfigError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

# Exit codes beside 0; 2, of wrong use and unusable input, is that of `BonafaceError`.
CHECK_FAILED = 1
INCOMPLETE = 3
INTERRUPTED = 130


def _check_faces(faces: str) -> str:
    if faces not in ("auto", "none"):
        raise ConfigError(f"expected --faces auto or none, got {faces!r}; choose one of them")
    return faces


# Options of the commands that judge; where no model is named the one that is shipped answers.
SHIPPED = Path("default")
ModelOption = Annotated[
    Path, typer.Option(help="Bundle: the --out folder of `bonaface train` [the one shipped].")
]
FacesOption = Annotated[
    str,
    typer.Option(
        metavar="auto|none",
        callback=_check_faces,
        help="Find faces, or take each picture for a crop.",
    ),
]
StabilityOption = Annotated[
    bool,
    typer.Option("--stability", help="Score each face also as it would be after re-delivery."),
]
PrevalenceOption = Annotated[
    float, typer.Option(help="Share of fakes among what reaches you, such as 0.01.")
]
FinderOption = Annotated[Path | None, typer.Option(help="A YuNet .onnx file, to find faces with.")]

# Options of the commands that train.
NetworkOption = Annotated[str | None, typer.Option(help="A name from `bonaface models` [cnn].")]
PretrainedOption = Annotated[
    str | None, typer.Option(help="Bundle, file, folder or Hub id of weights to begin with.")
]
PicturesOption = Annotated[
    int | None, typer.Option(help="Of the training split, chosen by the seed [all].")
]
SizeOption = Annotated[int | None, typer.Option(help="Input side in pixels [the model's].")]
MonitorOption = Annotated[
    str | None, typer.Option(help="auc, accuracy or loss, on validation [auc].")
]
PatienceOption = Annotated[
    int | None, typer.Option(help="Stop after so many epochs without a better one [never].")
]
PrecisionOption = Annotated[str | None, typer.Option(help="auto, float32 or bf16 [auto].")]
SharesOption = Annotated[
    str | None, typer.Option("--split", "--ratios", help="For data without splits: 80/10/10.")
]
LoadersOption = Annotated[
    int | None, typer.Option(min=0, help="Threads that prepare batches [half the cores].")
]


def parse_ratios(text: str | None) -> tuple[float, float, float] | None:
    """``80/10/10`` -> (0.8, 0.1, 0.1); None stays None.

    Raises:
        ConfigError: not three shares above 0 for train and validation.
    """
    if text is None:
        return None
    try:
        train, validation, test = (float(part) for part in text.split("/"))
        total = train + validation + test
        if min(train, validation) <= 0 or test < 0:
            raise ValueError
    except ValueError:
        raise ConfigError(
            f"expected shares of train/validation/test such as 80/10/10, got {text!r}; "
            "give three numbers with slashes between them"
        ) from None
    return train / total, validation / total, test / total


def parse_channels(text: str) -> tuple[float, float, float]:
    """``0.5,0.5,0.5`` -> (0.5, 0.5, 0.5).

    Raises:
        ConfigError: not three numbers.
    """
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"expected three numbers such as 0.5,0.5,0.5 (red, green, blue), got {text!r}; "
            "give them with commas between them"
        ) from None
    return red, green, blue


def printable(text: str) -> str:
    """`text` with control characters and the like escaped, so that it cannot steer a terminal."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def new_bars(*, drawn: bool = True) -> Progress:
    """Bars on stderr where that is a terminal; each task has a field `rate`, a text beside it."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not (console.is_terminal and drawn),
    )


@contextmanager
def progress_bar(what: str, unit: str = "pictures") -> Iterator[Callable[[int, int], None] | None]:
    """What to call with the number done and their total: a bar on a terminal; otherwise None."""
    with progress_steps(unit) as steps:
        yield None if steps is None else partial(steps, what)


@contextmanager
def progress_steps(
    unit: str | None = "pictures",
) -> Iterator[Callable[[str, int, int], None] | None]:
    """As `progress_bar`, of several steps: what is done now comes first; each has its own bar.

    The speed is told in `unit` a second; None: no speed is shown.
    """
    if not sys.stderr.isatty():
        yield None
        return
    with new_bars() as bar:
        tasks: dict[str, TaskID] = {}

        def update(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total, rate="")
            speed = bar.tasks[bar.task_ids.index(tasks[what])].speed
            rate = f"{speed:.0f} {unit}/s" if speed and unit else ""
            bar.update(tasks[what], completed=done, total=total, rate=rate)

        yield update
