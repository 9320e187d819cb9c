from __future__ import annotations

import json
import re
import sys
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from bonaface.cli import app
from bonaface.models.registry import MODELS


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    result = CliRunner().invoke(app, ["models", "--json"])
    assert result.exit_code == 0
    return json.loads(result.stdout)  # type: ignore[no-any-return]


def test_json_lists_every_model_in_order(rows: list[dict[str, Any]]) -> None:
    assert [row["name"] for row in rows] == list(MODELS)
    by_name = {row["name"]: row for row in rows}
    assert by_name["resnet18"]["parameters"] == 11_176_512 + 513
    assert by_name["resnet50"]["multiply_adds"] == pytest.approx(4.1e9, rel=0.03)
    for row in rows:
        assert row["file_bytes"] == 4 * row["parameters"]
        assert row["size"] == MODELS[row["name"]].size
        assert row["licence"]
        assert row["pretrained"]


def test_the_table_agrees_with_json_and_opens_no_weights(
    rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_args: Any, **_options: Any) -> None:
        raise AssertionError("weights were opened")

    monkeypatch.setattr(torch, "load", opened)
    for module in ("resnet", "resnet_v2", "efficientnet_lite"):
        monkeypatch.setattr(f"bonaface.models.{module}.read_tensors", opened)
    monkeypatch.setattr("bonaface.models.resnet.normalisation", opened)
    result = CliRunner().invoke(app, ["models"], env={"COLUMNS": "240"})
    assert result.exit_code == 0, result.output
    for row in rows:
        (line,) = (x for x in result.stdout.splitlines() if re.search(rf"\b{row['name']}\b", x))
        cells = [cell.strip() for cell in line.strip("│").split("│")]
        small = row["parameters"] < 100_000
        assert cells == [
            row["name"],
            f"{row['size']} px",
            f"{row['parameters']:,}" if small else f"{row['parameters'] / 1e6:.1f} M",
            f"{row['multiply_adds'] / 1e9:.2f} G",
            f"{row['file_bytes'] / 1e3:.0f} kB" if small else f"{row['file_bytes'] / 1e6:.0f} MB",
            row["pretrained"],
            row["licence"],
        ]


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    result = CliRunner().invoke(app, ["models"])
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert "bonaface[train]" in result.stderr
