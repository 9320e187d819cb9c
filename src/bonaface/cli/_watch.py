"""Progress of a training run on a terminal: a bar on stderr, one line an epoch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import Progress, TaskID

from bonaface.cli._shared import new_bars, printable
from bonaface.devices import is_first
from bonaface.history import Epoch
from bonaface.training import Watch


class TerminalWatch(Watch):
    """Draws what it is told."""

    def __init__(self, progress: Progress) -> None:
        self._console = progress.console
        self._progress = progress
        self._task: TaskID | None = None
        self._what = ""
        self._begun = 0.0
        self._images = 0
        self._headed = self._console.is_terminal

    def note(self, text: str) -> None:
        """One line."""
        self._console.print(
            f"note: {printable(text)}", highlight=False, markup=False, soft_wrap=True
        )

    def decoded(self, done: int, total: int) -> None:
        """The bar of decoding."""
        self._advance("decoding", done, total)

    def searched(self, done: int, total: int) -> None:
        """The bar of faces to forge."""
        self._advance("finding faces", done, total)

    def stepped(self, epoch: int, step: int, steps: int, loss: float, images: int) -> None:
        """The bar of an epoch."""
        self._advance(f"epoch {epoch}", step, steps, images, f"loss {loss:.3f}")

    def epoch_ended(self, row: Epoch, best: bool) -> None:
        """One line an epoch, below a header in a file."""
        if not self._headed:
            self._headed = True
            self._console.print(
                "          loss: train / validation  accuracy: train / validation", highlight=False
            )
        self._console.print(
            f"epoch {row.epoch:3d}  loss {row.train_loss:.3f} / {row.validation_loss:.3f}  "
            f"accuracy {row.train_accuracy:.3f} / {row.validation_accuracy:.3f}  "
            f"AUC {row.validation_auc:.4f}{' *' if best else '  '}  "
            f"{row.images_per_second:.0f} images/s  {row.seconds:.0f} s",
            highlight=False,
            soft_wrap=True,
        )

    def scored(self, done: int, total: int) -> None:
        """The bar of scoring."""
        self._advance("scoring", done, total)

    def _advance(
        self, what: str, done: int, total: int, images: int | None = None, extra: str = ""
    ) -> None:
        if what != self._what or self._task is None:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._what, self._begun, self._images = what, time.perf_counter(), 0
            self._task = self._progress.add_task(what, total=total, rate="")
        self._images = done if images is None else self._images + images
        rate = self._images / max(time.perf_counter() - self._begun, 1e-9)
        self._progress.update(
            self._task, completed=done, total=total, rate=f"{rate:.0f} images/s {extra}"
        )


@contextmanager
def terminal_watch() -> Iterator[TerminalWatch]:
    """A watch whose bar is drawn only where stderr is a terminal; the lines always."""
    with new_bars(drawn=is_first()) as progress:
        yield TerminalWatch(progress)
