from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from bonaface.bundle import Bundle, load_bundle, sha256
from bonaface.errors import BundleError, ConfigError
from bonaface.models import registry
from bonaface.models.weights import Start, fill, listed, of_bundle, read_tensors, unfilled
from networks import bundle_of, make, refused, stir

# -- reading ------------------------------------------------------------------------------------

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w"])
@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
def test_a_file_is_told_by_its_first_bytes(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    if kind == "safetensors":
        save_file(TENSORS, path)
    else:
        torch.save(TENSORS, path, _use_new_zipfile_serialization=kind == "zip")
    found = read_tensors(path)
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[key], TENSORS[key]) for key in found)


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_a_file_of_objects_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    path, made = tmp_path / "bomb.pth", tmp_path / "made"
    torch.save({"state_dict": TENSORS, "args": Bomb(made)}, path)
    with pytest.raises(ConfigError, match="other objects"):
        read_tensors(path)
    assert not made.exists()


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "damaged"),
        (b"some text that is no file of weights", "damaged"),
        (b"PK\x03\x04 no archive", "damaged"),
        (saved(TENSORS)[:-200], "damaged"),
        ((2**40).to_bytes(8, "little") + b'{"a": 1}', "expected a file of weights"),
        ((8).to_bytes(8, "little") + b'{"a": 1}', "expected a file of weights"),
        (saved([torch.zeros(1)]), "got list"),
        (saved({}), "got dict"),
        (saved({"state_dict": {}}), "got dict"),
        (saved({"state_dict": {"a": 1, "b": torch.zeros(1)}}), "something else as a;"),
        (saved({0: torch.zeros(1)}), "something else as 0;"),
        (saved({"a": torch.zeros(2).to_sparse()}), "something else as a;"),
        (saved({"a": torch.zeros(1, device="meta")}), "something else as a;"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_tensors(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value), "no advice to run the file"


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="expected a file of weights"):
        read_tensors(tmp_path / name)


# -- filling ------------------------------------------------------------------------------------


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.head = nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 1)


def start(tensors: dict[str, torch.Tensor], **options: Any) -> Start:
    values: dict[str, Any] = {
        "rename": lambda name: None if name.startswith("classes.") else name,
        "network": "two",
        "source": "x.pth",
        "origin": {},
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
    }
    return Start(tensors, **values | options)


def test_filling_says_what_became_of_everything() -> None:
    module, other = Two(), Two()
    stir(other, 1)
    tensors = {n: t for n, t in other.state_dict().items() if not n.startswith("head.")}
    tensors = {n: t.half() if t.ndim > 1 else t for n, t in tensors.items()}
    tensors["classes.weight"] = torch.zeros(1000, 2)
    before = module.head.weight.clone()
    filled = fill(module, start(tensors, optional=("head.",)))
    assert filled.passed_over == ("classes.weight",)
    assert filled.loaded == tensors.keys() - {"classes.weight"}
    assert unfilled(module, filled.loaded) == ["head"]
    assert module.a.weight.dtype == torch.float32
    assert torch.equal(module.a.weight, other.a.weight.half().float())
    assert torch.equal(module.head.weight, before)


def test_all_or_nothing_is_filled() -> None:
    module = Two()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    tensors = {n: t + 1 for n, t in Two().state_dict().items()} | {"b": torch.zeros(1)}
    with pytest.raises(ConfigError) as caught:
        fill(module, start(tensors))
    assert str(caught.value) == (
        "expected the weights of two in 'x.pth', got names that have no place (b); name the "
        "network that they are of, or other weights"
    )
    assert all(torch.equal(before[name], t) for name, t in module.state_dict().items())


def test_every_problem_is_listed_at_once() -> None:
    tensors = {
        "b": torch.zeros(1),
        "a.weight": torch.zeros(2, 2),
        "a.bias": torch.zeros(2, dtype=torch.int32),
        "norm.weight": torch.full((2,), torch.inf),
        "norm.bias": torch.zeros(2),
    }
    with pytest.raises(BundleError) as caught:
        fill(Two(), start(tensors, complete=("a.", "norm."), bundle=True))
    assert str(caught.value) == (
        "expected the weights of two in 'x.pth', got names that have no place (b), other shapes "
        "or types (a.bias torch.int32 for torch.float32, a.weight (2, 2) for (2, 3)), values "
        "that are not finite (norm.weight), nothing for some of its tensors (norm.running_mean, "
        "norm.running_var); copy the bundle again"
    )


def test_two_names_of_one_place_are_refused() -> None:
    tensors = {f"{p}{n}": t for p in ("", "net.") for n, t in Two().state_dict().items()}
    with pytest.raises(ConfigError, match=r"no place \(net.a.bias, net.a.weight, .* 9 in all\)"):
        fill(Two(), start(tensors, rename=lambda name: name.removeprefix("net.")))


@pytest.mark.parametrize(
    ("loaded", "wanted"),
    [
        ((), ["a", "head", "norm"]),
        (("a.weight",), ["a.bias", "head", "norm"]),
        (("a.weight", "a.bias", "norm.weight"), ["head", "norm.bias", "norm.running_mean", "n_v"]),
        (Two().state_dict(), []),
    ],
)
def test_a_fresh_module_stands_for_what_is_in_it(loaded: Any, wanted: list[str]) -> None:
    assert unfilled(Two(), loaded) == [w.replace("n_v", "norm.running_var") for w in wanted]


def test_lists_are_short_and_count() -> None:
    assert listed(["b", "a"]) == "a, b"
    assert listed("fedcba") == "a, b, c, d, ... 6 in all"


# -- bundles ------------------------------------------------------------------------------------

OPTIONS: dict[str, dict[str, Any]] = {
    "cnn": {"size": 32},
    "resnet18": {"size": 64},
    "resnet50v2": {"size": 64, "stages": 1},
    "efficientnet_lite0": {"size": 64, "pretrained": "imagenet"},
    "hybrid": {"size": 64, "stages": 1},
}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[registry.Made, Bundle]]:
    root = tmp_path_factory.mktemp("bundles")
    found = {}
    for name, options in OPTIONS.items():
        made = make(name, **options)
        stir(made.module, 2)
        found[name] = made, bundle_of(made, root / name)
    return found


@pytest.fixture
def cnn(bundles: Any, tmp_path: Path) -> Path:
    """A bundle that may be changed."""
    shutil.copytree(bundles["cnn"][1].folder, tmp_path / "cnn")
    return tmp_path / "cnn"


def change_card(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "card.json"
    card = json.loads(path.read_text())
    change(card)
    path.write_text(json.dumps(card))


@pytest.mark.parametrize("name", OPTIONS)
def test_a_bundle_is_rebuilt(bundles: Any, name: str) -> None:
    made, bundle = bundles[name]
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    module = registry.rebuild(load_bundle(bundle.folder))
    assert torch.equal(torch.random.get_rng_state(), before), "no chance is used up"
    assert not any(part.training for part in module.modules())
    images = torch.randn(2, 3, made.preprocess.size, made.preprocess.size)
    made.module.eval()
    with torch.inference_mode():
        wanted = made.module(images)
        assert wanted.std() > 0
        assert torch.equal(module(images), wanted)


def test_a_bundle_is_rebuilt_to_what_its_onnx_computes(tmp_path: Path) -> None:
    import onnxruntime

    made = make("cnn", size=32)
    stir(made.module, 3)
    bundle = bundle_of(made, tmp_path / "run", exported=True)
    images = torch.randn(5, 3, 32, 32)
    session = onnxruntime.InferenceSession(bundle.model)
    (wanted,) = session.run(None, {"images": images.numpy()})
    with torch.inference_mode():
        got = registry.rebuild(bundle)(images)
    torch.testing.assert_close(got, torch.from_numpy(wanted), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", OPTIONS)
def test_training_begins_with_a_bundle(bundles: Any, name: str) -> None:
    made, bundle = bundles[name]
    again = make(name, pretrained=str(bundle.folder))
    one, two = made.module.state_dict(), again.module.state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one), "the last layer too"
    # Left open, so taken over.
    assert again.architecture == made.architecture
    assert again.preprocess == made.preprocess
    origin = again.origin
    assert origin["weights"] == name
    assert origin["format"] == "bundle"
    assert origin["sha256"] == bundle.card.files["model.safetensors"]
    assert origin["data"] == "f" * 64
    assert origin["architecture"] == made.architecture
    assert (origin["loaded"], origin["passed_over"], origin["fresh"]) == (len(one), [], [])
    json.dumps(origin, allow_nan=False)


def test_the_normalisation_of_a_bundle_goes_with_it(bundles: Any, tmp_path: Path) -> None:
    folder = tmp_path / "resnet18"
    shutil.copytree(bundles["resnet18"][1].folder, folder)
    mean, std = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    change_card(folder, lambda card: card["preprocess"].update(mean=mean, std=std))
    made = make("resnet18", pretrained=str(folder), size=96, dropout=0.1)
    assert made.preprocess.mean == tuple(mean)
    assert made.preprocess.std == tuple(std)
    assert (made.origin["mean"], made.origin["std"]) == (mean, std)
    # These may differ: the weights go with any.
    assert made.preprocess.size == made.architecture["size"] == 96
    assert made.architecture["dropout"] == 0.1


def test_bundles_that_do_not_fit(bundles: Any) -> None:
    folders = {name: str(bundle.folder) for name, (_, bundle) in bundles.items()}
    assert "one of cnn; train --model cnn" in refused("resnet18", pretrained=folders["cnn"])
    assert "one of hybrid" in refused("resnet50v2", pretrained=folders["hybrid"])
    assert "size 64" in refused("cnn", pretrained=folders["cnn"], size=64)
    assert "stages 2" in refused("resnet50v2", pretrained=folders["resnet50v2"], stages=2)


def vouch(folder: Path, change: Callable[[dict[str, torch.Tensor]], object] | None) -> None:
    """Change the weights, or make them something else, and let the card vouch for them."""
    path = folder / "model.safetensors"
    if change is None:
        path.write_bytes(b"no tensors")
    else:
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)
    change_card(folder, lambda card: card["files"].update({path.name: sha256(path)}))


BIAS = "features.0.1.bias"
WEIGHTS: list[tuple[str, Callable[[dict[str, torch.Tensor]], object] | None]] = [
    ("expected weights in", None),
    ("(64,) for (32,)", lambda t: t.update({BIAS: torch.zeros(64)})),
    (f"not finite ({BIAS})", lambda t: t[BIAS].fill_(torch.nan)),
    (f"nothing for some of its tensors ({BIAS})", lambda t: t.pop(BIAS)),
    ("no place (more)", lambda t: t.update({"more": torch.zeros(1)})),
]
CARDS: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("and its SHA-256 in the card, found none", lambda c: c["files"].pop("model.safetensors")),
    ("got 'transformer'", lambda c: c["architecture"].update(name="transformer")),
    ("model: Input should be", lambda c: c["architecture"].update(name=["cnn"])),
    ("depth: Input should be", lambda c: c["architecture"].update(depth=3)),
    ("stages=2 for cnn", lambda c: c["architecture"].update(stages=2)),
    ("would be built as", lambda c: c["architecture"].update(epochs=3)),
    ("would be built as", lambda c: c["architecture"].pop("size")),
    ("model: Input should be", lambda c: c.update(architecture={})),
    ("would be built as", lambda c: c["architecture"].update(model="cnn")),
    ("size: Input should be", lambda c: c["architecture"].update(size=10**9)),
    ("64 of the network and 32", lambda c: c["architecture"].update(size=64)),
    (
        "multiple of 32",
        lambda c: [c[part].update(size=40) for part in ("architecture", "preprocess")],
    ),
]


def refused_bundle(folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        registry.rebuild(load_bundle(folder))
    message = str(caught.value)
    assert str(folder) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(("words", "change"), WEIGHTS)
def test_weights_that_are_not_the_cards(cnn: Path, words: str, change: Any) -> None:
    vouch(cnn, change)
    assert words in refused_bundle(cnn)
    assert words in refused("cnn", BundleError, pretrained=str(cnn))


@pytest.mark.parametrize(("words", "change"), CARDS)
def test_cards_that_describe_another_network(cnn: Path, words: str, change: Any) -> None:
    change_card(cnn, change)
    assert words in refused_bundle(cnn)


def test_a_bundle_without_its_weights(cnn: Path) -> None:
    (cnn / "model.safetensors").write_bytes(b"other")
    assert "got other bytes" in refused_bundle(cnn)
    (cnn / "model.safetensors").unlink()
    assert "found none" in refused_bundle(cnn)
    assert "found none" in refused("cnn", BundleError, pretrained=str(cnn))


def test_what_is_checked_is_what_is_loaded(cnn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = load_bundle(cnn)
    reads: list[str] = []
    plain = Path.read_bytes

    def count(path: Path) -> bytes:
        reads.append(path.name)
        return plain(path)

    monkeypatch.setattr(Path, "read_bytes", count)
    of_bundle(bundle)
    assert reads == ["model.safetensors"]
