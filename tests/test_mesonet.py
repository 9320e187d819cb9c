from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bonaface.errors import MissingExtraError
from bonaface.images import read_image
from bonaface.models import mesonet, registry
from networks import bundle_of, make, on_meta, refused

SHARED = Path(__file__).parents[2] / "shared"
NAMES = ("meso4", "mesoinception4")
Array = NDArray[np.float32]
Arrays = dict[str, Array]

# -- the authors' networks, written from their description in Keras's order of dimensions --------

# (side, channels in, channels out) of the convolutions, in the order that Keras counts them.
_PATHS = ((1, 4, 4, 2), (2, 4, 4, 2))


def inception_shapes(before: int, paths: tuple[int, ...]) -> list[tuple[int, int, int]]:
    first, *rest = paths
    return [(1, before, first), *(s for n in rest for s in ((1, before, n), (3, n, n)))]


SHAPES = {
    "meso4": [(3, 3, 8), (5, 8, 8), (5, 8, 16), (5, 16, 16)],
    "mesoinception4": [
        *inception_shapes(3, _PATHS[0]),
        *inception_shapes(11, _PATHS[1]),
        (5, 12, 16),
        (5, 16, 16),
    ],
}
WIDTHS = {"meso4": (8, 8, 16, 16), "mesoinception4": (11, 12, 16, 16)}


def keras_arrays(name: str, begin: int = 5) -> Arrays:
    """Random weights by their names in a file; the dense layers are counted from another number."""
    rng = np.random.default_rng(0)
    found: Arrays = {}

    def add(layer: str, **weights: Array) -> None:
        for key, values in weights.items():
            found[f"{layer}/{layer}/{key}:0"] = values.astype(np.float32)

    def drawn(*shape: int) -> Array:
        return rng.normal(0, np.prod(shape[:-1]) ** -0.5, shape).astype(np.float32)

    for at, (side, before, after) in enumerate(SHAPES[name], begin):
        add(f"conv2d_{at}", kernel=drawn(side, side, before, after), bias=0.1 * drawn(1, after)[0])
    for at, width in enumerate(WIDTHS[name], begin):
        add(
            f"batch_normalization_{at}",
            gamma=rng.uniform(0.5, 1.5, width),
            beta=rng.normal(0, 0.2, width),
            moving_mean=rng.normal(0, 0.2, width),
            # So small that the epsilon of 1e-3 can be told from others.
            moving_variance=rng.uniform(0.001, 0.02, width),
        )
    add(f"dense_{begin - 2}", kernel=drawn(1024, 16), bias=drawn(1, 16)[0])
    add(f"dense_{begin - 1}", kernel=drawn(16, 1), bias=drawn(1, 1)[0])
    return found


def write(path: Path, arrays: Arrays) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["backend"] = b"tensorflow"
        for name, values in arrays.items():
            file[name] = values
        for layer in ("input_1", "flatten_1"):  # layers without weights are groups too
            file.create_group(layer)
    return path


def keras_forward(name: str, arrays: Arrays, picture: Array) -> float:
    """(256, 256, 3) of pixels / 255 -> the number before Keras's sigmoid, which speaks for real."""

    def weights(kind: str, at: int, *keys: str) -> list[NDArray[np.float64]]:
        numbers = [int(key.split("/")[0].split("_")[-1]) for key in arrays if key.startswith(kind)]
        layer = f"{kind}_{min(numbers) + at}"
        return [arrays[f"{layer}/{layer}/{key}:0"].astype(np.float64) for key in keys]

    def conv(x: NDArray[np.float64], at: int, dilation: int = 1) -> NDArray[np.float64]:
        kernel, bias = weights("conv2d", at, "kernel", "bias")
        side, (height, width) = len(kernel), x.shape[:2]
        reach = dilation * (side // 2)
        padded = np.pad(x, ((reach, reach), (reach, reach), (0, 0)))
        total = np.zeros((height, width, kernel.shape[-1])) + bias
        for i in range(side):
            for j in range(side):
                top, left = i * dilation, j * dilation
                total += padded[top : top + height, left : left + width] @ kernel[i, j]
        return np.maximum(total, 0)

    def inception(x: NDArray[np.float64], at: int) -> NDArray[np.float64]:
        paths = [conv(x, at)]
        for dilation in (1, 2, 3):
            inner = conv(x, at + 2 * dilation - 1)
            paths.append(conv(inner, at + 2 * dilation, dilation))
        return np.concatenate(paths, 2)

    def norm_and_pool(x: NDArray[np.float64], at: int, pool: int) -> NDArray[np.float64]:
        gamma, beta, mean, variance = weights(
            "batch_normalization", at, "gamma", "beta", "moving_mean", "moving_variance"
        )
        x = gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta
        height, width, channels = x.shape
        return x.reshape(height // pool, pool, width // pool, pool, channels).max((1, 3))

    x = picture.astype(np.float64)
    last = len(SHAPES[name]) - 2
    for block, pool in enumerate((2, 2, 2, 4)):
        if block >= 2:
            x = conv(x, last + block - 2)
        else:
            x = conv(x, block) if name == "meso4" else inception(x, 7 * block)
        x = norm_and_pool(x, block, pool)
    for at in (0, 1):
        kernel, bias = weights("dense", at, "kernel", "bias")
        x = x.reshape(-1) @ kernel + bias
        if at == 0:
            x = np.where(x > 0, x, 0.1 * x)
    return float(x[0])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("keras")
    return {name: write(folder / f"{name}.h5", keras_arrays(name)) for name in NAMES}


@pytest.mark.parametrize("begin", [3, 9])
@pytest.mark.parametrize("name", NAMES)
def test_a_file_gives_what_it_gives_in_keras(name: str, begin: int, tmp_path: Path) -> None:
    arrays = keras_arrays(name, begin)
    path = write(tmp_path / "weights.h5", arrays)
    made = make(name, pretrained=str(path))
    pixels = np.random.default_rng(1).integers(0, 256, (1, 256, 256, 3), np.uint8)
    images = torch.from_numpy(made.preprocess.normalise(pixels))
    with torch.inference_mode():
        got = float(made.module.eval()(images))
    wanted = -keras_forward(name, arrays, pixels[0].astype(np.float32) / 255)
    assert abs(wanted) > 0.05
    assert got == pytest.approx(wanted, abs=1e-4 * max(1, abs(wanted)))
    assert made.origin == {
        "weights": "weights.h5",
        "format": "keras",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "mean": [0, 0, 0],
        "std": [1, 1, 1],
        "loaded": len(arrays),
        "passed_over": [],
        "fresh": [],
    }


@pytest.mark.parametrize(("name", "published"), [("meso4", 27_977), ("mesoinception4", 28_615)])
def test_parameters_against_the_paper(name: str, published: int) -> None:
    assert registry.parameters(on_meta(name)) == published


@pytest.mark.parametrize("name", NAMES)
def test_training_as_the_authors_set_it(name: str) -> None:
    module = make(name, size=32, dropout=0.4).module
    norms = [m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    # Keras keeps 0.99 of the statistics, which PyTorch calls 0.01.
    assert [(n.eps, n.momentum) for n in norms] == [(1e-3, 0.01)] * 4
    dropouts = [m.p for m in module.modules() if isinstance(m, torch.nn.Dropout)]
    assert dropouts == [0.4, 0.4]
    for part in module.modules():
        if isinstance(part, torch.nn.Conv2d | torch.nn.Linear):
            assert part.bias is not None
            assert not part.bias.any()
    module(torch.rand(4, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in module.parameters())


def test_a_bundle_of_another_size_is_refused(tmp_path: Path) -> None:
    bundle = bundle_of(make("meso4", size=32), tmp_path / "bundle")
    assert make("meso4", pretrained=str(bundle.folder)).architecture["size"] == 32
    assert "size 64" in refused("meso4", pretrained=str(bundle.folder), size=64)
    assert registry.rebuild(bundle)(torch.rand(2, 3, 32, 32)).shape == (2,)


# -- what is refused ----------------------------------------------------------------------------


def test_published_weights_have_one_size(files: dict[str, Path]) -> None:
    message = refused("meso4", pretrained=str(files["meso4"]), size=128)
    assert "expected size 256" in message
    assert "got 128" in message
    assert "multiple of 32" in refused("meso4", size=100)


@pytest.mark.parametrize(("name", "other"), [NAMES, NAMES[::-1]])
def test_the_other_networks_file(files: dict[str, Path], name: str, other: str) -> None:
    message = refused(name, pretrained=str(files[other]))
    assert f"weights of {name} " in message
    assert "other shapes" in message


def change(folder: Path, edit: Callable[[Any], object]) -> str:
    path = write(folder / "changed.h5", keras_arrays("meso4"))
    with h5py.File(path, "r+") as file:
        edit(file)
    return str(path)


KERNEL = "conv2d_6/conv2d_6/kernel:0"


def replace(values: Any, **options: Any) -> Callable[[Any], None]:
    def edit(file: Any) -> None:
        del file[KERNEL]
        file.create_dataset(KERNEL, data=values, **options)

    return edit


def outside(file: Any) -> None:
    del file[KERNEL]
    file.create_dataset(KERNEL, (5, 5, 8, 8), "f4", external=[("elsewhere", 0, 6400)])


def virtual(file: Any) -> None:
    del file[KERNEL]
    layout = h5py.VirtualLayout((5, 5, 8, 8), "f4")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "data", (5, 5, 8, 8))
    file.create_virtual_dataset(KERNEL, layout)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda f: f.pop(KERNEL), "nothing for some of its tensors (blocks.1.0.weight)"),
        (lambda f: f.pop("dense_4"), "classifier.4.bias, classifier.4.weight"),
        (
            lambda f: f.update({"odd/odd/kernel:0": np.zeros(3, "f4")}),
            "no place (odd/odd/kernel:0)",
        ),
        (replace(np.zeros((3, 3, 8, 8), "f4")), f"{KERNEL} (8, 8, 3, 3) for (8, 8, 5, 5)"),
        (replace(np.full((5, 5, 8, 8), np.nan, "f4")), f"not finite ({KERNEL})"),
        (replace(np.zeros((5, 5, 8, 8), "i4")), "the type int32"),
        (replace(["text"]), "the type object"),
        (replace(np.zeros(1, [("a", "f4")])), "the type [('a'"),
        (replace(np.zeros((5, 5, 8, 8), "f4"), chunks=(5, 5, 8, 8)), "a chunked or packed array"),
        (replace(np.zeros((5, 5, 8, 8), "f4"), compression="gzip"), "a chunked or packed array"),
        (replace(h5py.Empty("f4")), "the type float32"),
        (outside, "one of another file"),
        (virtual, "one of another file"),
        (
            lambda f: f.update(away=h5py.ExternalLink("elsewhere.h5", "/")),
            "somewhere else as 'away'",
        ),
        (lambda f: f.update(soft=h5py.SoftLink("/conv2d_5")), "somewhere else as 'soft'"),
        (lambda f: f.update(loop=f["/"]), "more than 1000 names"),
        (lambda f: f.update({"a\nb": np.zeros(1, "f4")}), r"the name 'a\nb'"),
        (lambda f: f.update(kind=np.dtype("f4")), "a datatype as 'kind'"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, edit: Callable[[Any], object], words: str) -> None:
    path = change(tmp_path, edit)
    message = refused("meso4", pretrained=path)
    assert words in message
    assert path in message


def test_a_tensor_is_not_read_before_its_size_is_known(tmp_path: Path) -> None:
    # Nothing is stored of it; its shape alone would take 4 TB.
    shape = (1 << 20, 1 << 20)
    path = change(tmp_path, lambda f: f.create_dataset("large", shape, "f4"))
    assert f"the shape {shape} as 'large'" in refused("meso4", pretrained=path)


def test_paths_that_are_refused(
    tmp_path: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = files["meso4"].read_bytes()
    for name, content in {
        "text": b"no weights",
        "empty": b"",
        "half": whole[: len(whole) // 2],
    }.items():
        path = tmp_path / name
        path.write_bytes(content)
        assert "damaged or something else" in refused("meso4", pretrained=str(path))
    assert "nowhere" in refused("meso4", pretrained=str(tmp_path / "nowhere"))
    assert str(tmp_path) in refused("meso4", pretrained=str(tmp_path))
    monkeypatch.setattr(mesonet, "_LARGEST_FILE", len(whole) - 1)
    assert "which is larger" in refused("meso4", pretrained=str(files["meso4"]))


def test_without_h5py_the_extra_is_named(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    message = refused("meso4", MissingExtraError, pretrained=str(files["meso4"]))
    assert "bonaface[train]" in message
    make("meso4", size=32)


# -- the files that the authors publish ---------------------------------------------------------


real_files = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared is not here")


@pytest.mark.realdata
@real_files
@pytest.mark.parametrize("trained_on", ["DF", "F2F"])
@pytest.mark.parametrize(
    ("name", "stem"), [("meso4", "Meso4"), ("mesoinception4", "MesoInception")]
)
def test_the_published_files(name: str, stem: str, trained_on: str) -> None:
    path = SHARED / f"weights/{stem}_{trained_on}.h5"
    made = make(name, pretrained=str(path))
    assert made.origin["fresh"] == made.origin["passed_over"] == []
    with h5py.File(path) as file:
        arrays: Arrays = {}
        file.visititems(
            lambda key, entry: (
                arrays.update({key: entry[()]}) if isinstance(entry, h5py.Dataset) else None
            )
        )
    assert made.origin["loaded"] == len(arrays)
    picture = np.random.default_rng(0).random((256, 256, 3), np.float32)
    with torch.inference_mode():
        got = float(made.module.eval()(torch.from_numpy(picture.transpose(2, 0, 1)[None])))
    wanted = -keras_forward(name, arrays, picture)
    assert got == pytest.approx(wanted, abs=1e-4 * max(1, abs(wanted)))


@pytest.mark.realdata
@real_files
def test_published_weights_score_fakes_above_reals() -> None:
    made = make("meso4", pretrained=str(SHARED / "weights/Meso4_DF.h5"))
    logits: list[NDArray[np.float32]] = []
    for label in ("real", "fake"):
        paths = sorted((SHARED / "data/faceswap/test" / label).glob("*.jpg"))[:150]
        pixels = np.stack([made.preprocess.resize(read_image(path).pixels) for path in paths])
        with torch.inference_mode():
            images = torch.from_numpy(made.preprocess.normalise(pixels))
            logits.append(made.module.eval()(images).numpy())
    reals, fakes = logits
    assert 0.5 < (fakes[:, None] > reals).mean() < 0.75  # AUC
