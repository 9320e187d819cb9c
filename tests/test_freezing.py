from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from bonaface import training
from bonaface.config import TrainConfig
from bonaface.drawn import write_drawn_set
from bonaface.freezing import STEP, Freezing
from bonaface.models import registry
from bonaface.training import train


def stages() -> list[tuple[str, list[nn.Module]]]:
    made = {name: nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)) for name in "abc"}
    return [(name, [module]) for name, module in made.items()]


def opened(how: str, epochs: int) -> list[str]:
    one = Freezing(stages(), how, epochs)
    return ["".join(one.open(epoch)) for epoch in range(epochs)]


@pytest.mark.parametrize(
    ("how", "epochs", "wanted"),
    [
        ("none", 3, ["abc"] * 3),
        ("backbone", 3, ["c"] * 3),
        ("staged", 8, ["c", "c", "bc", "bc", "abc", "abc", "abc", "abc"]),
        ("staged", 4, ["c", "bc", "abc", "abc"]),
        ("staged", 2, ["c", "abc"]),
        ("staged", 1, ["c"]),
    ],
)
def test_a_schedule_opens_the_stages_that_it_names(
    how: str, epochs: int, wanted: list[str]
) -> None:
    assert opened(how, epochs) == wanted


def test_frozen_parts_stay_in_evaluation_and_need_no_gradient() -> None:
    parts = stages()
    one = Freezing(parts, "staged", 4)
    network = nn.ModuleList([module for _, (module,) in parts]).eval()
    one.apply(network, 1)
    for name, (module,) in parts:
        assert module.training == (name in "bc")
        assert all(each.training == module.training for each in module.modules())
        assert all(p.requires_grad == (name in "bc") for p in module.parameters())
    one.apply(network, 2)
    assert all(module.training for _, (module,) in parts)


def test_a_stage_learns_more_slowly_the_nearer_it_is_to_the_input() -> None:
    assert [share for _, share in Freezing(stages(), "staged", 4).rates()] == pytest.approx(
        [STEP**-2, STEP**-1, 1]
    )
    assert {share for _, share in Freezing(stages(), "none", 4).rates()} == {1}


# -- a run --------------------------------------------------------------------------------------

SMALL = TrainConfig(
    model="resnet18", size=32, epochs=2, batch_size=8, precision="float32", dropout=0.0
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "data"
    write_drawn_set(folder, {"train": 8, "validation": 4}, seed=1, size=40)
    return folder


@pytest.fixture
def no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_finish", lambda run, state: state)


def weights(out: Path) -> dict[str, torch.Tensor]:
    found = load_file(out / "training" / "last.safetensors")
    return {k.removeprefix("model."): v for k, v in found.items() if k.startswith("model.")}


def before(config: TrainConfig) -> dict[str, torch.Tensor]:
    torch.manual_seed(config.seed)
    return registry.create(config).module.state_dict()


def stage_of(config: TrainConfig) -> dict[str, str]:
    """Name of a tensor -> name of the stage that it lies in."""
    module = registry.create(config).module
    names = {id(value): name for name, value in module.state_dict(keep_vars=True).items()}
    return {
        names[id(value)]: stage
        for stage, modules in registry.stages(module)
        for part in modules
        for value in part.state_dict(keep_vars=True).values()
    }


@pytest.mark.usefixtures("no_export")
def test_a_frozen_backbone_is_bit_equal_after_the_run(data: Path, tmp_path: Path) -> None:
    config = SMALL.model_copy(update={"freeze": "backbone"})
    train(data, tmp_path / "run", config)
    start, end, stage = before(config), weights(tmp_path / "run"), stage_of(config)
    assert start.keys() == end.keys() == stage.keys()
    for name, value in start.items():
        if stage[name] == "head":
            assert not torch.equal(value, end[name]), name
        else:
            assert torch.equal(value, end[name]), name  # running statistics as well


@pytest.mark.usefixtures("no_export")
def test_a_staged_run_moves_exactly_the_stages_that_are_open(data: Path, tmp_path: Path) -> None:
    config = SMALL.model_copy(update={"freeze": "staged", "epochs": 8})
    seen: dict[int, dict[str, torch.Tensor]] = {}
    watch = training.Watch()

    def keep(row: training.Epoch, best: bool) -> None:
        seen[row.epoch] = weights(tmp_path / "run")

    watch.epoch_ended = keep  # type: ignore[method-assign]
    train(data, tmp_path / "run", config, watch=watch)
    stage = stage_of(config)
    freezing = Freezing(registry.stages(registry.create(config).module), "staged", 8)
    last = before(config)
    for epoch in range(8):
        moved = {
            stage[name]
            for name, value in seen[epoch + 1].items()
            if name.endswith("weight") and not torch.equal(value, last[name])
        }
        assert moved == set(freezing.open(epoch)), epoch
        last = seen[epoch + 1]
