"""Progress of a search on a terminal: one line a trial, a bar for the one that runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.progress import Progress

from bonaface.cli._shared import new_bars, printable
from bonaface.cli._watch import TerminalWatch
from bonaface.devices import is_first
from bonaface.history import Epoch
from bonaface.report.tuning import save_tuning
from bonaface.tuning import Trial, Tuning, TuningWatch
from bonaface.tuning.study import GRACE


class TerminalTuning(TerminalWatch, TuningWatch):
    """Draws what it is told, and writes the results after each trial.

    Attributes:
        last: the study after the last trial that ended here.
    """

    def __init__(self, progress: Progress, out: Path) -> None:
        super().__init__(progress)
        self.last: Tuning | None = None
        self._out = out
        self._number = 0

    def trial_begun(self, number: int, settings: Mapping[str, Any]) -> None:
        """The bar is of this trial."""
        self._number = number

    def stepped(self, epoch: int, step: int, steps: int, loss: float, images: int) -> None:
        """The bar of an epoch."""
        what = f"trial {self._number}, epoch {epoch}"
        self._advance(what, step, steps, images, f"loss {loss:.3f}")

    def epoch_ended(self, row: Epoch, best: bool) -> None:
        """Nothing: the line is the trial's."""

    def trial_ended(self, tuning: Tuning, trial: Trial) -> None:
        """One line a trial."""
        self.last = tuning
        save_tuning(tuning, self._out)
        self._line(trial_line(tuning, trial))

    def waiting(self, count: int) -> None:
        """One line."""
        trials = "1 trial" if count == 1 else f"{count} trials"
        self._line(
            f"waiting for {trials} of other workers; what one that died was at is run again here, "
            f"{GRACE} s after its last sign of life"
        )

    def _line(self, text: str) -> None:
        self._console.print(printable(text), highlight=False, markup=False, soft_wrap=True)


@contextmanager
def terminal_tuning(out: Path) -> Iterator[TerminalTuning]:
    """A watch of a search in `out`."""
    with new_bars(drawn=is_first()) as progress:
        yield TerminalTuning(progress, out)


def trial_line(tuning: Tuning, trial: Trial) -> str:
    """What came of a trial, with its settings and the best so far."""
    title = {"auc": "AUC"}.get(tuning.monitor, tuning.monitor)
    settings = " ".join(f"{name} {value}" for name, value in trial.settings.items())
    if trial.state == "failed":
        return f"trial {trial.number:3d}  failed: {trial.reason}  ({settings})"
    best = tuning.best
    mark = "*" if best is not None and best.number == trial.number else " "
    so_far = "no best" if best is None else f"best {best.value:.4f} (trial {best.number})"
    early = "  ended early" if trial.state == "pruned" else ""
    which = "  (defaults)" if trial.number == 0 else ""
    return (
        f"trial {trial.number:3d}  {title} {trial.value:.4f}{mark} {so_far}  "
        f"{trial.seconds:.0f} s  {settings}{which}{early}"
    )
