"""MesoNet: Afchar et al. (2018), "MesoNet: a Compact Facial Video Forgery Detection Network".

Both networks are those that the authors published for Keras, so that their weights give here what
they give there.
"""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bonaface.errors import ConfigError, MissingExtraError
from bonaface.models.weights import Parts, Start

SIDE = 256  # pixels, of the published weights
# They were trained on pixels / 255.
MEAN = (0.0, 0.0, 0.0)
STD = (1.0, 1.0, 1.0)
POOLS = (2, 2, 2, 4)
WIDTH = 16  # channels of the last block, and features of the first dense layer

Arrays = dict[str, NDArray[np.floating[Any]]]

_LARGEST_FILE = 16 << 20
_LARGEST_TENSOR = 1 << 20
_MOST_LINKS = 1000


def _convolution(before: int, after: int, side: int, dilation: int = 1) -> list[nn.Module]:
    """Convolution that keeps height and width, ReLU."""
    padding = dilation * (side - 1) // 2
    return [
        nn.Conv2d(before, after, side, padding=padding, dilation=dilation),
        nn.ReLU(inplace=True),
    ]


class Inception(nn.Module):
    """Four paths side by side: 1x1, and three times 1x1 then 3x3, dilated by 1, 2 and 3.

    Args:
        before: channels that come in.
        widths: channels of the paths.
    """

    def __init__(self, before: int, *widths: int) -> None:
        super().__init__()
        self.paths = nn.ModuleList()
        for dilation, width in enumerate(widths):
            last = _convolution(width, width, 3, dilation) if dilation else []
            self.paths.append(nn.Sequential(*_convolution(before, width, 1), *last))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, before, h, w) -> (b, sum of widths, h, w)."""
        return torch.cat([path(x) for path in self.paths], 1)


class MesoNet(nn.Module):
    """Four blocks of convolution, ReLU, batch norm and max-pooling, then two dense layers.

    Args:
        name: meso4, or mesoinception4, whose first two blocks are inception modules.
        size: side of the square input, a multiple of 32.
        dropout: before each dense layer; the authors took 0.5.
    """

    def __init__(self, name: str, size: int, dropout: float) -> None:
        super().__init__()
        first: list[nn.Module]
        second: list[nn.Module]
        if name == "mesoinception4":
            first, second = [Inception(3, 1, 4, 4, 2)], [Inception(11, 2, 4, 4, 2)]
            widths = (11, 12, WIDTH, WIDTH)
        else:
            first, second = _convolution(3, 8, 3), _convolution(8, 8, 5)
            widths = (8, 8, WIDTH, WIDTH)
        third, fourth = _convolution(widths[1], WIDTH, 5), _convolution(WIDTH, WIDTH, 5)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(*layers, nn.BatchNorm2d(width, 1e-3, 0.01), nn.MaxPool2d(pool))
                for layers, width, pool in zip(
                    (first, second, third, fourth), widths, POOLS, strict=True
                )
            )
        )
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(WIDTH * (size // 32) ** 2, WIDTH),
            nn.LeakyReLU(0.1),
            nn.Dropout(dropout),
            nn.Linear(WIDTH, 1),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """float32 (b, 3, size, size) -> logits (b,)."""
        return self.classifier(self.blocks(images).flatten(1)).squeeze(1)  # type: ignore[no-any-return]

    def parts(self) -> Parts:
        """block1 to block4, head."""
        blocks: Parts = [(f"block{n}", [block]) for n, block in enumerate(self.blocks, 1)]
        return [*blocks, ("head", [self.classifier])]


def read(name: str, size: int, pretrained: str) -> Start:
    """A file of weights as the authors publish them, which say how likely a picture is *real*.

    Args:
        name: meso4 or mesoinception4.
        size: side of the input.
        pretrained: path of the file.

    Raises:
        ConfigError: the file cannot be read or is no such file, or the size is not theirs.
        MissingExtraError: h5py is not installed.
    """
    arrays, digest = read_keras(Path(pretrained))
    if size != SIDE:
        raise ConfigError(
            f"expected size {SIDE} with published weights of {name}, whose first dense layer sees "
            f"every place of the last map, got {size}; leave --size or --pretrained out"
        )
    targets = _targets(name, arrays)
    return Start(
        {key: _as_ours(targets.get(key, key), values) for key, values in arrays.items()},
        rename=lambda key: targets.get(key, key),
        network=name,
        source=pretrained,
        origin={"weights": Path(pretrained).name, "format": "keras", "sha256": digest},
        mean=MEAN,
        std=STD,
        size=SIDE,
    )


_KINDS = {"conv2d": nn.Conv2d, "batch_normalization": nn.BatchNorm2d, "dense": nn.Linear}
_PARTS = {
    "kernel": "weight",
    "gamma": "weight",
    "bias": "bias",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_NAME = re.compile(rf"(({'|'.join(_KINDS)})(?:_([0-9]{{1,6}}))?)/\1/({'|'.join(_PARTS)}):0")


def _targets(name: str, arrays: Arrays) -> dict[str, str]:
    """Our names of what is in a file.

    Keras counts the layers of a kind as they are made, from a number that depends on what else the
    authors had made before.
    """
    with torch.device("meta"):
        network = MesoNet(name, SIDE, 0.0)
    found = [match for key in arrays if (match := _NAME.fullmatch(key))]
    targets = {}
    for kind, layer in _KINDS.items():
        ours = [key for key, module in network.named_modules() if isinstance(module, layer)]
        theirs = [(int(match[3] or 0), match) for match in found if match[2] == kind]
        begin = min((number for number, _ in theirs), default=0)
        for number, match in theirs:
            if number - begin < len(ours):
                targets[match[0]] = f"{ours[number - begin]}.{_PARTS[match[4]]}"
    return targets


def _as_ours(target: str, values: NDArray[np.floating[Any]]) -> torch.Tensor:
    """In the order of PyTorch's dimensions; the last layer speaks for fake instead of real."""
    side = SIDE // 32
    if target == "classifier.1.weight" and values.shape == (side * side * WIDTH, WIDTH):
        # Keras flattens height, width, channels.
        places = values.reshape(side, side, WIDTH, WIDTH)
        values = places.transpose(2, 0, 1, 3).reshape(values.shape)
    elif target.startswith("classifier.4."):
        values = -values
    if values.ndim == 4:
        values = values.transpose(3, 2, 0, 1)
    elif values.ndim == 2:
        values = values.T
    return torch.from_numpy(values.astype(np.float32, order="C"))


def read_keras(path: Path) -> tuple[Arrays, str]:
    """Every tensor of an HDF5 file by its path in it, such as ``dense_3/dense_3/kernel:0``.

    Only plain arrays of floats that lie in the file itself are read. Nothing is run, no other file
    is opened, and nothing is unpacked that could grow.

    Returns:
        The tensors, and the file's SHA-256.

    Raises:
        ConfigError: it cannot be read, is too large, or holds something else.
        MissingExtraError: h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError("reading weights of Keras", "train") from error
    advice = "name a .h5 file as published, or a bundle's folder"
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise ConfigError(
            f"expected a file of weights, got {str(path)!r} ({error}); {advice}"
        ) from error
    if len(data) > _LARGEST_FILE:
        raise ConfigError(
            f"expected a file of at most {_LARGEST_FILE >> 20} MiB, got {str(path)!r}, which is "
            f"larger; {advice}"
        )
    try:
        with h5py.File(io.BytesIO(data), "r") as opened:
            arrays = _arrays(opened)
    except _OddError as odd:
        raise ConfigError(
            f"expected arrays of floats alone in {str(path)!r}, got {odd}; {advice}"
        ) from odd
    # HDF5 is a file system of its own, and a damaged one fails in as many ways.
    except Exception as error:
        raise ConfigError(
            f"expected an HDF5 file of Keras, got {str(path)!r}, which is damaged or something "
            f"else; {advice}"
        ) from error
    return arrays, hashlib.sha256(data).hexdigest()


class _OddError(Exception):
    """What a file holds that a file of weights does not."""


def _arrays(file: Any) -> Arrays:
    import h5py

    found: Arrays = {}
    groups, links = [("", file)], 0
    while groups:
        prefix, group = groups.pop()
        for key in group:
            path = f"{prefix}{key}"
            links += 1
            if links > _MOST_LINKS:  # also where a group leads back to itself
                raise _OddError(f"more than {_MOST_LINKS} names")
            if not path.isprintable():
                raise _OddError(f"the name {path!r}")
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise _OddError(f"a link to somewhere else as {path!r}")
            entry = group[key]
            if isinstance(entry, h5py.Group):
                groups.append((f"{path}/", entry))
            elif isinstance(entry, h5py.Dataset):
                found[path] = _array(path, entry)
            else:
                raise _OddError(f"a {type(entry).__name__.lower()} as {path!r}")
    return found


def _array(path: str, entry: Any) -> NDArray[np.floating[Any]]:
    if entry.dtype.kind != "f" or entry.dtype.itemsize > 8 or entry.shape is None:
        raise _OddError(f"the type {entry.dtype} as {path!r}")
    if entry.size > _LARGEST_TENSOR:
        raise _OddError(f"the shape {entry.shape} as {path!r}")
    if entry.is_virtual or entry.external or entry.chunks:
        raise _OddError(f"a chunked or packed array, or one of another file, as {path!r}")
    return np.asarray(entry[()])
