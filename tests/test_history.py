from __future__ import annotations

import csv
from dataclasses import fields
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bonaface.errors import TrainingError
from bonaface.history import (
    Epoch,
    TensorBoard,
    draw_curves,
    overfitting_from,
    read_history,
    write_history,
)


def curve(train: list[float], validation: list[float]) -> list[Epoch]:
    return [
        Epoch(at, 1e-3 / at, loss, 0.5 + at / 100, other, 0.6, 0.7, 1 / 3, 100.0)
        for at, (loss, other) in enumerate(zip(train, validation, strict=True), 1)
    ]


OPENS = curve([0.7, 0.6, 0.5, 0.4, 0.3], [0.7, 0.6, 0.62, 0.64, 0.7])
CLOSED = curve([0.7, 0.6, 0.5, 0.4], [0.7, 0.6, 0.61, 0.62])


@pytest.mark.parametrize(
    ("history", "wanted"),
    [
        ([], None),
        (curve([0.7], [0.7]), None),
        (OPENS, 4),  # 0.62 is 3 % above 0.6; 0.64 is 7 % above
        (CLOSED, None),
        (curve([0.7, 0.6, 0.5], [0.7, 0.6, 0.5]), None),  # still improves
        (curve([0.5, 0.6, 0.7], [0.5, 0.6, 0.7]), None),  # both get worse: diverges
        (curve([0.7, 0.5, 0.6, 0.4], [0.9, 0.6, 0.8, 0.8]), 4),  # train improves only at 4
        (curve([0.9, 0.8, 0.7, 0.6, 0.5], [0.6, 0.9, 0.5, 0.5, 0.6]), 5),  # a bump is not it
        (curve([0.3, 0.2], [0.4, 0.5]), 2),
    ],
)
def test_overfitting_from(history: list[Epoch], wanted: int | None) -> None:
    assert overfitting_from(history) == wanted


def test_csv_round_trip(tmp_path: Path) -> None:
    write_history(tmp_path, OPENS)
    with (tmp_path / "history.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [field.name for field in fields(Epoch)]
    read = [Epoch(int(r.pop("epoch")), **{k: float(v) for k, v in r.items()}) for r in rows]
    assert read == OPENS


def test_write_anew_drops_old_rows(tmp_path: Path) -> None:
    write_history(tmp_path, OPENS)
    write_history(tmp_path, OPENS[:2])
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["history.csv"]


def svg(folder: Path, history: list[Epoch]) -> str:
    folder.mkdir(exist_ok=True)
    draw_curves(folder, history)
    text = (folder / "learning_curves.svg").read_text(encoding="utf-8")
    assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    return text


def test_svg_is_the_same_each_time(tmp_path: Path) -> None:
    first = svg(tmp_path / "a", OPENS)
    assert first == svg(tmp_path / "b", OPENS)
    assert first != svg(tmp_path / "c", OPENS[:3])


def test_svg_marks_overfitting_only_where_it_is(tmp_path: Path) -> None:
    assert "over-fitting" in svg(tmp_path, OPENS)
    assert "over-fitting" not in svg(tmp_path, CLOSED)
    for history in ([], OPENS[:1]):
        assert "validation" in svg(tmp_path, history)


def test_tensorboard_goes_on_in_the_same_folder(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for rows, done in ((OPENS[:3], 0), (OPENS[2:], 2)):
        board = TensorBoard(tmp_path, done)
        for row in rows:
            board.add(row)
        board.close()
    found = events.EventAccumulator(str(tmp_path)).Reload()
    losses = [(event.step, event.value) for event in found.Scalars("validation/loss")]
    assert losses == [(row.epoch, pytest.approx(row.validation_loss)) for row in OPENS]
    assert len(found.Tags()["scalars"]) == len(fields(Epoch)) - 1


def test_a_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_history(tmp_path) == ()
    write_history(tmp_path, OPENS)
    assert read_history(tmp_path) == tuple(OPENS)
    table = tmp_path / "history.csv"
    table.write_text(table.read_text().replace("0.6", "many", 1))
    with pytest.raises(TrainingError, match="history.csv"):
        read_history(tmp_path)
