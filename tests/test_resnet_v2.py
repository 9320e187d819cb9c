from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from networks import Tensors, gluon_forward, gluon_tensors, make, refused, relative

REAL_FILE = Path(__file__).parents[2] / "shared/weights/resnet50v2_imagenet_stages1-3.safetensors"


def features(module: nn.Module, images: torch.Tensor, stages: int) -> torch.Tensor:
    """The same of our network: what its last stage gives, or its last batch norm if it is whole."""
    kept: list[torch.Tensor] = []
    part = module.norm if stages == 4 else module.stages[-1]  # type: ignore[index]
    with part.register_forward_hook(lambda _m, _i, out: kept.append(out)):  # type: ignore[union-attr]
        module.eval()(images)
    return kept[0]


@pytest.fixture(scope="module")
def gluon() -> Tensors:
    return gluon_tensors(0)


@pytest.fixture(scope="module")
def gluon_file(gluon: Tensors, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stem and stages 1 to 3, as the file that can be had."""
    path = tmp_path_factory.mktemp("gluon") / "part.safetensors"
    rest = ("stage4_", "batchnorm2_", "dense0_")
    save_file({n: t for n, t in gluon.items() if not n.startswith(rest)}, path)
    return path


@pytest.mark.parametrize("stages", [1, 2, 3, 4])
def test_gluon_weights_compute_what_the_description_says(
    gluon: Tensors, tmp_path: Path, stages: int
) -> None:
    path = tmp_path / "whole.safetensors"
    save_file(gluon, path)
    made = make("resnet50v2", pretrained=str(path), stages=stages)
    # The last batch norm of a cut network is not that of the file.
    assert made.origin["fresh"] == (["head"] if stages == 4 else ["head", "norm"])
    assert {"dense0_bias", "dense0_weight"} <= set(made.origin["passed_over"])
    assert made.origin["loaded"] + len(made.origin["passed_over"]) == len(gluon)
    assert made.architecture["stages"] == stages
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        wanted = gluon_forward(gluon, images, stages)
        got = features(made.module, images, stages)
        logits = made.module(images)
    assert 0.1 < wanted.std() < 100
    assert relative(got, wanted) < 1e-4
    if stages == 4:
        head: Any = made.module.head
        by_hand = wanted.relu().mean((2, 3)) @ head.weight[0] + head.bias
        torch.testing.assert_close(logits, by_hand, rtol=1e-4, atol=1e-4)


def test_a_file_of_three_stages_leaves_the_fourth_fresh(gluon_file: Path) -> None:
    made = make("resnet50v2", pretrained=str(gluon_file), stages=4)
    assert made.origin["fresh"] == ["head", "norm", "stages.3"]
    assert made.origin["loaded"] == len(load_file(gluon_file))
    assert made.origin["weights"] == "part.safetensors"
    assert made.origin["format"] == "gluon"


@pytest.mark.realdata
@pytest.mark.skipif(not REAL_FILE.is_file(), reason="../shared/weights is not here")
def test_the_real_file() -> None:
    made = make("resnet50v2", pretrained=str(REAL_FILE))
    file = load_file(REAL_FILE)
    assert made.origin["loaded"] == len(file)
    images = torch.randn(1, 3, 96, 96)
    with torch.inference_mode():
        assert relative(features(made.module, images, 3), gluon_forward(file, images, 3)) < 1e-4


def rewritten(gluon_file: Path, folder: Path, change: Callable[[Tensors], object]) -> str:
    tensors = load_file(gluon_file)
    change(tensors)
    path = folder / "changed.safetensors"
    save_file(tensors, path)
    return str(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.update(conv0_weight=torch.zeros(64, 3, 3, 3)), "(64, 3, 7, 7)"),
        (lambda t: t.update(stage1_conv4_weight=torch.zeros(64, 64, 1, 1)), "stage1_conv4_weight"),
        (lambda t: t.update({"layer1.0.conv1.weight": torch.zeros(1)}), "layer1.0.conv1.weight"),
        (lambda t: t.update(stage3_conv19_weight=torch.zeros(1)), "stage3_conv19_weight"),
        (lambda t: t.update(stage5_conv0_weight=torch.zeros(1)), "stage5_conv0_weight"),
        (lambda t: t.update(batchnorm3_gamma=torch.zeros(1)), "batchnorm3_gamma"),
        (lambda t: t.pop("conv0_weight"), "nothing for some of its tensors (conv0.weight)"),
        (lambda t: t.pop("stage3_conv3_weight"), "stages.2.0.shortcut.weight"),
        (lambda t: t.pop("batchnorm1_beta"), "norm1.bias"),
        (lambda t: [t.pop(n) for n in list(t) if n.startswith("stage1_")], "Gluon's names"),
        (lambda t: t.clear(), "named tensors"),
    ],
)
def test_gluon_files_that_are_refused(
    gluon_file: Path, tmp_path: Path, change: Callable[[Tensors], object], words: str
) -> None:
    path = rewritten(gluon_file, tmp_path, change)
    message = refused("resnet50v2", pretrained=path)
    assert words in message
    assert path in message


def test_a_whole_file_needs_its_last_batch_norm(gluon: Tensors, tmp_path: Path) -> None:
    path = tmp_path / "whole.safetensors"
    save_file({n: t for n, t in gluon.items() if n != "batchnorm2_gamma"}, path)
    assert "norm.weight" in refused("resnet50v2", pretrained=str(path), stages=4)
    assert make("resnet50v2", pretrained=str(path), stages=3).origin["loaded"]


def test_gluon_paths_that_are_refused(tmp_path: Path) -> None:
    assert "nowhere" in refused("resnet50v2", pretrained=str(tmp_path / "nowhere"))
    assert str(tmp_path) in refused("resnet50v2", pretrained=str(tmp_path))
    text = tmp_path / "notes.txt"
    text.write_text("not tensors")
    assert "notes.txt" in refused("resnet50v2", pretrained=str(text))
    assert "microsoft/resnet-50" in refused("resnet50v2", pretrained="microsoft/resnet-50")
