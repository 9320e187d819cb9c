from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bonaface.config import TrainConfig
from bonaface.errors import ConfigError


def toml(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(*args: Any, **overrides: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        TrainConfig.read(*args, **overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_defaults_round_trip(tmp_path: Path) -> None:
    assert TrainConfig.read(toml(tmp_path, TrainConfig().to_toml())) == TrainConfig()


settings = st.builds(
    TrainConfig,
    model=st.text(max_size=20),
    pretrained=st.none() | st.text(max_size=20),
    size=st.none() | st.integers(16, 1024),
    stages=st.none() | st.integers(1, 4),
    dropout=st.floats(0, 1, exclude_max=True),
    epochs=st.integers(0, 10_000),
    batch_size=st.integers(2, 4096),
    optimizer=st.sampled_from(["sgd", "adamw"]),
    lr=st.none() | st.floats(1e-300, 1000),
    warmup=st.floats(0, 1, exclude_max=True),
    balance=st.sampled_from(["weights", "batches", "sources", "none"]),
    monitor=st.sampled_from(["auc", "accuracy", "loss"]),
    patience=st.integers(0, 2**40),
    seed=st.integers(0, 2**32 - 1),
)


@given(settings)
def test_toml_round_trip(config: TrainConfig) -> None:
    values = tomllib.loads(config.to_toml())
    assert TrainConfig.read(None, **values) == config
    assert None not in values.values()


def test_values_come_from_the_file(tmp_path: Path) -> None:
    config = TrainConfig.read(toml(tmp_path, 'model = "resnet18"\nlr = 1\nepochs = 3\n'))
    assert (config.model, config.lr, config.epochs) == ("resnet18", 1.0, 3)
    assert config.batch_size == TrainConfig().batch_size


def test_overrides_beat_the_file_unless_none(tmp_path: Path) -> None:
    path = toml(tmp_path, "epochs = 3\nseed = 5\ndropout = 0.1\n")
    config = TrainConfig.read(path, epochs=7, seed=None, dropout=0.0)
    assert (config.epochs, config.seed, config.dropout) == (7, 5, 0.0)


def test_unknown_key_lists_the_known_ones(tmp_path: Path) -> None:
    message = refused(toml(tmp_path, "epoch = 3\n"))
    assert "'epoch'" in message
    assert ", ".join(sorted(TrainConfig.model_fields)) in message
    assert "'learning_rate'" in refused(learning_rate=0.1)
    assert "'train'" in refused(toml(tmp_path, "[train]\nepochs = 3\n"))


@pytest.mark.parametrize(
    "line",
    [
        'epochs = "10"',
        "epochs = 2.5",
        "epochs = true",
        "seed = [1]",
        'lr = "fast"',
        "dropout = false",
        "model = 3",
        'optimizer = "adam"',
        'balance = "Weights"',
        "pretrained = 1",
        "size = 1979-05-27",
    ],
)
def test_wrong_types_are_refused(tmp_path: Path, line: str) -> None:
    assert f"'{line.split(' ', maxsplit=1)[0]}'" in refused(toml(tmp_path, line + "\n"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", 15),
        ("size", 1025),
        ("stages", 0),
        ("stages", 5),
        ("dropout", -0.1),
        ("dropout", 1.0),
        ("epochs", -1),
        ("batch_size", 1),
        ("lr", 0.0),
        ("lr", 1000.1),
        ("weight_decay", -1e-9),
        ("warmup", 1.0),
        ("label_smoothing", 1.0),
        ("clip", 0.0),
        ("patience", -1),
        ("seed", -1),
        ("seed", 2**32),
    ],
)
def test_out_of_range_is_refused(name: str, value: float) -> None:
    message = refused(**{name: value})
    assert f"'{name}'" in message
    assert repr(value) in message


FLOATS = (
    *("dropout", "lr", "weight_decay", "warmup", "label_smoothing", "clip", "forge"),
    "adversarial",
)


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_what_is_no_number_is_refused(tmp_path: Path, name: str, value: str) -> None:
    assert f"'{name}'" in refused(toml(tmp_path, f"{name} = {value}\n"))


def test_the_list_of_floats_is_complete() -> None:
    made = TrainConfig(lr=0.1)
    assert {n for n in TrainConfig.model_fields if isinstance(getattr(made, n), float)} == {*FLOATS}
    assert all(math.isfinite(getattr(made, name)) for name in FLOATS)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "nowhere.toml" in refused(tmp_path / "nowhere.toml")
    assert str(tmp_path) in refused(tmp_path)
    assert "settings.toml" in refused(toml(tmp_path, "epochs: 3\n"))
    assert "settings.toml" in refused(toml(tmp_path, "epochs = 1\nepochs = 2\n"))
    (tmp_path / "latin.toml").write_bytes('model = "café"\n'.encode("latin-1"))
    assert "latin.toml" in refused(tmp_path / "latin.toml")


def test_frozen() -> None:
    config = TrainConfig()
    with pytest.raises(ValidationError):
        config.epochs = 3
    assert config.epochs == 10
