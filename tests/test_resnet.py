from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bonaface.bundle import sha256
from bonaface.errors import ConfigError
from bonaface.models import resnet
from bonaface.preprocess import IMAGENET_MEAN, IMAGENET_STD
from networks import (
    Reference,
    Tensors,
    make,
    on_meta,
    refused,
    relative,
    stir,
    torchvision_names,
)

# -- from a file --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def original(request: pytest.FixtureRequest) -> Any:
    """A ResNet of Transformers with 1000 classes, and its name."""
    from transformers import ResNetForImageClassification

    torch.manual_seed(3)
    config = resnet._config(request.param)
    config.num_labels = 1000
    model = ResNetForImageClassification(config).eval()
    stir(model, 0)
    return request.param, model


NAMINGS: dict[str, Callable[[Tensors, Tensors], Any]] = {
    # (torchvision's names, Transformers' names) -> what is saved
    "torchvision": lambda ours, _: ours,
    "timm, no classes": lambda ours, _: {n: t for n, t in ours.items() if not n.startswith("fc.")},
    "old torchvision": lambda ours, _: {n: t for n, t in ours.items() if "tracked" not in n},
    "float16": lambda ours, _: {n: t.half() if t.ndim > 1 else t for n, t in ours.items()},
    "DataParallel": lambda ours, _: {f"module.{n}": t for n, t in ours.items()},
    "checkpoint": lambda ours, _: {"epoch": 3, "state_dict": ours, "best": 0.5},
    "model of a checkpoint": lambda ours, _: {
        "model": {f"module.{n}": t for n, t in ours.items()},
        "args": {"lr": 0.1},
    },
    "transformers": lambda _, theirs: theirs,
    "transformers, no head": lambda _, theirs: {
        n.removeprefix("resnet."): t for n, t in theirs.items() if n.startswith("resnet.")
    },
}


CASES = [
    *(("resnet50", naming) for naming in ("torchvision", "timm, no classes", "transformers")),
    *(("resnet18", naming) for naming in NAMINGS),
]


@pytest.mark.parametrize(("original", "naming"), CASES, indirect=["original"])
def test_every_naming_loads_to_the_same_function(
    original: Any, naming: str, tmp_path: Path
) -> None:
    name, model = original
    ours = torchvision_names(model.resnet)
    head = model.classifier[1]
    ours |= {"fc.weight": head.weight.detach(), "fc.bias": head.bias.detach()}
    reference = Reference(name).eval()
    reference.load_state_dict(ours)
    content = NAMINGS[naming](ours, model.state_dict())
    # The name says nothing: it is the content that counts.
    path = tmp_path / "weights.any"
    if all(isinstance(value, torch.Tensor) for value in content.values()) and "no" in naming:
        save_file({n: t.contiguous() for n, t in content.items()}, path)
    else:
        torch.save(content, path)

    made = make(name, pretrained=str(path))
    made.module.eval()
    images = torch.randn(2, 3, 64, 64)
    tolerance = 1e-2 if naming == "float16" else 1e-5
    with torch.inference_mode():
        wanted = reference.features(images)
        assert wanted.std() > 0.01
        assert relative(model.resnet(images).pooler_output.flatten(1), wanted) < 1e-5
        got = resnet.Trunk.forward(made.module, images)  # type: ignore[arg-type]
        assert relative(got, wanted) < tolerance
        by_hand = got @ made.module.head.weight[0] + made.module.head.bias  # type: ignore
        torch.testing.assert_close(made.module(images), by_hand, rtol=1e-4, atol=1e-4)

    origin = made.origin
    kind = "transformers" if naming.startswith("transformers") else "torchvision"
    assert origin["format"] == kind
    assert origin["weights"] == "weights.any"
    assert origin["sha256"] == sha256(path)
    own = [n for n in made.module.state_dict() if not n.startswith("head.")]
    own = [n for n in own if naming != "old torchvision" or "tracked" not in n]
    assert origin["loaded"] == len(own)
    classes = {
        "torchvision": ["fc.bias", "fc.weight"],
        "transformers": ["classifier.1.bias", "classifier.1.weight"],
    }
    assert origin["passed_over"] == ([] if "no" in naming else classes[kind])
    assert origin["fresh"] == ["head"]
    assert made.preprocess.mean == tuple(origin["mean"]) == IMAGENET_MEAN
    assert made.preprocess.std == tuple(origin["std"]) == IMAGENET_STD


@pytest.mark.parametrize("name", resnet.LAYERS)
def test_torchvision_names_of_every_depth(name: str) -> None:
    module: Any = on_meta(name)
    names = torchvision_names(module.backbone)
    renamed = {resnet._torchvision(key) for key in names}
    assert renamed == {key for key in module.state_dict() if not key.startswith("head.")}
    assert len(names) == len(renamed)


@pytest.fixture(scope="module")
def eighteen() -> Tensors:
    torch.manual_seed(4)
    return Reference("resnet18").state_dict()


def test_a_file_beside_a_preprocessor_config_has_its_normalisation(folder: Path) -> None:
    made = make("resnet18", pretrained=str(folder / "model.safetensors"))
    assert made.preprocess.mean == tuple(MEAN)
    assert made.origin["std"] == STD


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.update({"layer1.0.se.weight": torch.zeros(1)}), "no place (layer1.0.se"),
        (
            lambda t: t.update({f"layer5.{n}.bn1.bias": torch.zeros(1) for n in range(9)}),
            "layer5.3.bn1.bias, ... 9 in all",
        ),
        (
            lambda t: t.update({"conv1.weight": torch.zeros(64, 3, 3, 3)}),
            "other shapes or types (conv1.weight (64, 3, 3, 3) for (64, 3, 7, 7))",
        ),
        (
            lambda t: t.update({"bn1.bias": torch.zeros(64, dtype=torch.int64)}),
            "bn1.bias torch.int64 for torch.float32",
        ),
        (lambda t: t["bn1.bias"].fill_(torch.nan), "values that are not finite (bn1.bias)"),
        (lambda t: t.pop("layer4.1.bn2.weight"), "nothing for some of its tensors (backbone."),
        (lambda t: [t.pop(n) for n in list(t) if n.startswith("layer")], "got bn1.bias, bn1."),
    ],
)
def test_torchvision_files_that_are_refused(
    eighteen: Tensors, tmp_path: Path, change: Callable[[Tensors], object], words: str
) -> None:
    tensors = {name: tensor.clone() for name, tensor in eighteen.items()}
    change(tensors)
    path = tmp_path / "changed.pth"
    torch.save(tensors, path)
    message = refused("resnet18", pretrained=str(path))
    assert words in message
    assert str(path) in message


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet34", "nothing for some of its tensors (backbone.encoder.stages.0.layers.2."),
        ("resnet50", "layer1.0.conv1.weight (64, 64, 3, 3) for (64, 64, 1, 1)"),
        ("resnet50v2", "Gluon's names"),
    ],
)
def test_files_of_another_network_are_refused(
    eighteen: Tensors, tmp_path: Path, name: str, words: str
) -> None:
    path = tmp_path / "resnet18.pth"
    torch.save(eighteen, path)
    assert words in refused(name, pretrained=str(path))


@pytest.mark.parametrize("name", ["nowhere.pth", "sub/folder/resnet-50", "model.safetensors"])
def test_paths_that_are_not_there_do_not_reach_the_hub(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(resnet, "_of_hub", lambda *_: pytest.fail("asked the Hub"))
    for path in (name, str(tmp_path / name)):
        assert "check the path" in refused("resnet18", pretrained=path)


# -- from a Transformers folder -----------------------------------------------------------------

MEAN, STD = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import ResNetConfig, ResNetForImageClassification

    path = tmp_path_factory.mktemp("hub") / "resnet18"
    config = ResNetConfig(
        layer_type="basic", depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], num_labels=5
    )
    torch.manual_seed(3)
    ResNetForImageClassification(config).save_pretrained(path)
    (path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": MEAN, "image_std": STD, "size": {"shortest_edge": 224}})
    )
    return path


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """A folder that may be changed, file by file; the weights are a link."""
    path = tmp_path / "copy"
    path.mkdir()
    for file in folder.iterdir():
        if file.suffix == ".safetensors":
            (path / file.name).symlink_to(file)
        else:
            (path / file.name).write_bytes(file.read_bytes())
    return path


def test_resnet_from_a_folder(folder: Path) -> None:
    made = make("resnet18", pretrained=str(folder))
    file = load_file(folder / "model.safetensors")
    own = made.module.state_dict()
    names = [n for n in file if n.startswith("resnet.")]
    assert len(names) == len([n for n in own if n.startswith("backbone.")]) == 120
    for name in names:
        assert torch.equal(own[name.replace("resnet", "backbone", 1)], file[name]), name
    assert made.preprocess.mean == tuple(MEAN)
    assert made.preprocess.std == tuple(STD)
    assert made.origin["weights"] == str(folder)
    assert made.origin["format"] == "transformers"
    assert made.origin["sha256"] == sha256(folder / "model.safetensors")
    assert made.origin["loaded"] == 120
    assert made.origin["passed_over"] == ["classifier.1.bias", "classifier.1.weight"]
    assert made.origin["fresh"] == ["head"]
    assert (made.origin["mean"], made.origin["std"]) == (MEAN, STD)
    assert not torch.equal(
        make("resnet18").module.state_dict()["backbone.embedder.embedder.convolution.weight"],
        file["resnet.embedder.embedder.convolution.weight"],
    )


@pytest.mark.parametrize(
    ("value", "mean", "std"),
    [
        (None, IMAGENET_MEAN, IMAGENET_STD),
        ({"size": 224}, IMAGENET_MEAN, IMAGENET_STD),
        ({"do_normalize": False, "image_mean": MEAN, "image_std": STD}, (0, 0, 0), (1, 1, 1)),
    ],
)
def test_folders_that_say_less_of_their_normalisation(
    copied: Path, value: Any, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    file = copied / "preprocessor_config.json"
    file.unlink()
    if value is not None:
        file.write_text(json.dumps(value))
    got = resnet.normalisation(str(copied)) or (IMAGENET_MEAN, IMAGENET_STD)
    assert got == (mean, std)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"image_mean": [1, 2], "image_std": [1, 1, 1]}',
        '{"image_mean": 0.5, "image_std": 0.5}',
    ],
)
def test_damaged_preprocessor_configs(copied: Path, text: str) -> None:
    (copied / "preprocessor_config.json").write_text(text)
    with pytest.raises(ConfigError, match="copy"):
        resnet.normalisation(str(copied))


def test_folders_of_another_network_are_refused(copied: Path) -> None:
    assert "[2, 2, 2, 2]" in refused("resnet34", pretrained=str(copied))
    assert "basic" in refused("resnet50", pretrained=str(copied))
    file = copied / "config.json"
    config = json.loads(file.read_text())
    for key, value in (("downsample_in_bottleneck", True), ("hidden_act", "gelu")):
        file.write_text(json.dumps(config | {key: value}))
        assert key in refused("resnet18", pretrained=str(copied))
    file.write_text(json.dumps(config | {"model_type": "vit"}))
    assert "got vit" in refused("resnet18", pretrained=str(copied))
    file.write_text("{}")
    assert str(copied) in refused("resnet18", pretrained=str(copied))


def test_an_older_folder_with_a_pytorch_file(folder: Path, copied: Path) -> None:
    tensors = load_file(copied / "model.safetensors")
    (copied / "model.safetensors").unlink()
    torch.save(tensors, copied / "pytorch_model.bin")
    one, two = (make("resnet18", pretrained=str(f)).module.state_dict() for f in (folder, copied))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("damage", ["missing tensor", "wrong shape", "not safetensors", "no file"])
def test_damaged_weights_are_refused(folder: Path, copied: Path, damage: str) -> None:
    name = "resnet.encoder.stages.1.layers.0.layer.0.convolution.weight"
    file = copied / "model.safetensors"
    tensors = (
        load_file(folder / "model.safetensors")
        if damage in {"missing tensor", "wrong shape"}
        else {}
    )
    file.unlink()
    if damage == "missing tensor":
        del tensors[name]
    if damage == "wrong shape":
        tensors[name] = torch.zeros(3, 3)
    if tensors:
        save_file(tensors, file, metadata={"format": "pt"})
    if damage == "not safetensors":
        file.write_bytes(b"these are no tensors")
    message = refused("resnet18", pretrained=str(copied))
    assert str(copied) in message
    if damage == "missing tensor":
        assert name.removeprefix("resnet.") in message


def test_a_hub_id_without_network_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    message = refused("resnet18", pretrained="bonaface-tests/not-there")
    assert "'bonaface-tests/not-there'" in message
    assert "local folder" in message
