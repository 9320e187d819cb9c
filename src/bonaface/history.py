"""What a training run writes down: history.csv, TensorBoard events, learning curves."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from bonaface.errors import TrainingError
from bonaface.files import atomic_path, write_text


@dataclass(frozen=True, slots=True)
class Epoch:
    """One row of history.csv.

    Attributes:
        epoch: counted from 1.
        lr: learning rate of the last step.
        train_loss: mean loss over the epoch's batches, as trained (augmented, with dropout).
        train_accuracy: of the same, at a probability of one half.
        validation_loss: mean loss on the validation split.
        validation_accuracy: at a probability of one half, before calibration.
        validation_auc: area under the ROC curve.
        seconds: of training and validation.
        images_per_second: of training alone.
    """

    epoch: int
    lr: float
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    validation_auc: float
    seconds: float
    images_per_second: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def overfitting_from(history: Sequence[Epoch]) -> int | None:
    """First epoch after the lowest validation loss that is 5 % above it while training improves.

    Returns:
        The epoch, or None where the gap has not opened.
    """
    if not history:
        return None
    lowest = min(history, key=lambda row: row.validation_loss)
    for row in history:
        if (
            row.epoch > lowest.epoch
            and row.validation_loss > 1.05 * lowest.validation_loss
            and row.train_loss < lowest.train_loss
        ):
            return row.epoch
    return None


def write_history(folder: Path, history: Sequence[Epoch]) -> None:
    """Write history.csv anew."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(Epoch)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.to_dict() for row in history)
    write_text(folder / "history.csv", text.getvalue())


def read_history(folder: Path) -> tuple[Epoch, ...]:
    """Inverse of `write_history`; empty where no epoch was run.

    Raises:
        TrainingError: history.csv is damaged.
    """
    path = folder / "history.csv"
    if not path.is_file():
        return ()
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return tuple(_row(line) for line in csv.DictReader(file))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"expected a table of epochs in {str(path)!r}, got: {error!r}; train the run again"
        ) from error


class TensorBoard:
    """Scalars of a run as TensorBoard events; a resumed run goes on in the same folder."""

    def __init__(self, folder: Path, epochs_done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=epochs_done + 1)

    def add(self, row: Epoch) -> None:
        """Write one epoch."""
        for name, value in row.to_dict().items():
            if name != "epoch":
                self._writer.add_scalar(name.replace("_", "/", 1), value, row.epoch)
        self._writer.flush()

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()


def _row(line: dict[str, str]) -> Epoch:
    numbers: dict[str, Any] = {f.name: float(line[f.name]) for f in fields(Epoch)}
    return Epoch(**numbers | {"epoch": int(line["epoch"])})


def draw_curves(folder: Path, history: Sequence[Epoch]) -> None:
    """Draw learning_curves.svg anew."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    epochs = [row.epoch for row in history]
    with rc_context({"svg.hashsalt": "bonaface", "font.size": 9}):
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        loss, rate = figure.subplots(1, 2)
        loss.plot(epochs, [r.train_loss for r in history], "o-", ms=3, label="train")
        loss.plot(epochs, [r.validation_loss for r in history], "o-", ms=3, label="validation")
        loss.set(title="Loss", xlabel="epoch", ylim=(0, None))
        rate.plot(epochs, [r.train_accuracy for r in history], "o-", ms=3, label="train accuracy")
        rate.plot(
            epochs, [r.validation_accuracy for r in history], "o-", ms=3, label="val. accuracy"
        )
        rate.plot(epochs, [r.validation_auc for r in history], "o--", ms=3, label="val. AUC")
        rate.set(title="Accuracy at one half, and AUC", xlabel="epoch", ylim=(None, 1.005))
        opened = overfitting_from(history)
        for axes in (loss, rate):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
            if opened is not None:
                axes.axvspan(opened - 0.5, epochs[-1] + 0.5, color="tab:red", alpha=0.1)
        if opened is not None:
            loss.plot([], [], color="tab:red", alpha=0.3, lw=6, label="over-fitting")
        loss.legend(frameon=False)
        rate.legend(frameon=False, loc="lower right")
        with atomic_path(folder / "learning_curves.svg") as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})
