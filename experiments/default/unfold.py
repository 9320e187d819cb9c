"""A bundle to train on from, of a shipped one: `python unfold.py BUNDLE IMAGENET DATA OUT`.

ONNX export folds each batch norm into the convolution before it. Here they are taken apart again:
a filter gets the length that it has in the ImageNet weights (batch norm takes that back, but weight
decay and the optimiser's steps do not), and its batch norm the statistics of pictures of DATA.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from bonaface import load_samples
from bonaface.bundle import finish_bundle, load_bundle
from bonaface.checkpoints import save_weights
from bonaface.config import TrainConfig
from bonaface.files import atomic_folder
from bonaface.images import read_image
from bonaface.models import registry, resnet_v2
from bonaface.models.onnx import export_onnx

PICTURES = 768
_BIAS = ".weight_bias"  # what the export names the bias that a batch norm became


def main(shipped: Path, imagenet: Path, data: Path, out: Path) -> None:
    """Write the bundle, and say how far its scores are from those of the shipped one."""
    bundle = load_bundle(shipped)
    size = bundle.preprocess.size
    network = registry.create(TrainConfig(model="resnet50v2", size=size)).module.eval()
    state = network.state_dict()
    held = {
        one.name: torch.tensor(numpy_helper.to_array(one).astype(np.float32))
        for one in onnx.load(str(bundle.model)).graph.initializer
    }
    state |= {name: held[name] for name in state if name in held}
    start = resnet_v2.read(resnet_v2.CUT, str(imagenet))
    lengths = {start.rename(name): length(tensor) for name, tensor in start.tensors.items()}
    scales = {}
    for name in [name for name in held if name.endswith(_BIAS)]:
        conv = name.removesuffix(_BIAS)
        place, _, last = conv.rpartition(".")
        norm = f"{place}.norm{int(last[-1]) + 1}".lstrip(".")
        own = length(held[f"{conv}.weight"])
        scale = torch.where(own > 1e-6, lengths[f"{conv}.weight"] / own, 1.0)
        state[f"{conv}.weight"] = held[f"{conv}.weight"] * scale[:, None, None, None]
        # Until the statistics are known: what takes the scale back, and adds the bias.
        state[f"{norm}.running_mean"] = torch.zeros_like(scale)
        state[f"{norm}.running_var"] = torch.ones_like(scale) - network.get_submodule(norm).eps
        state[f"{norm}.weight"], state[f"{norm}.bias"] = 1 / scale, held[name]
        scales[norm] = scale
    network.load_state_dict(state)

    samples = load_samples(data)
    rows = samples.split("train").rows
    chosen = np.random.default_rng(0).permutation(len(rows))[:PICTURES]
    pixels = np.stack(
        [bundle.preprocess.resize(read_image(samples.absolute(rows[at])).pixels) for at in chosen]
    )
    inputs = torch.from_numpy(np.ascontiguousarray(bundle.preprocess.normalise(pixels)))
    before = give_statistics(network, scales, inputs)
    with torch.no_grad():
        after = torch.cat([network(part) for part in inputs.split(32)])
    print(f"logits within {float((after - before).abs().max()):.1g} of the folded network")
    with atomic_folder(out) as folder:
        export_onnx(network, size, folder / "model.onnx")
        save_weights(folder / "model.safetensors", network)
        finish_bundle(folder, bundle.card.model_copy(update={"name": out.name}))


def length(tensor: torch.Tensor) -> torch.Tensor:
    """Of each filter."""
    return tensor.flatten(1).norm(dim=1) if tensor.ndim == 4 else tensor


def give_statistics(
    network: torch.nn.Module, scales: dict[str, torch.Tensor], inputs: torch.Tensor
) -> torch.Tensor:
    """Each batch norm gets those of its inputs, and computes what it did; the logits so far."""
    sums = {norm: [torch.zeros((), dtype=torch.float64)] * 3 for norm in scales}

    def noting(norm: str):  # noqa: ANN202
        def note(_: torch.nn.Module, given: tuple[torch.Tensor]) -> None:
            x = given[0].double()
            found = (torch.tensor(x.numel() / x.shape[1]), x.sum((0, 2, 3)), (x * x).sum((0, 2, 3)))
            sums[norm] = [old + new for old, new in zip(sums[norm], found, strict=True)]

        return note

    hooks = [network.get_submodule(n).register_forward_pre_hook(noting(n)) for n in scales]
    with torch.no_grad():
        logits = torch.cat([network(part) for part in inputs.split(32)])
    for hook in hooks:
        hook.remove()
    state = network.state_dict()
    for norm, scale in scales.items():
        count, total, squares = sums[norm]
        mean = total / count
        variance = squares / count - mean**2
        deviation = (variance + network.get_submodule(norm).eps).sqrt()
        bias = state[f"{norm}.bias"].double()
        state[f"{norm}.running_mean"], state[f"{norm}.running_var"] = mean, variance
        state[f"{norm}.weight"] = deviation / scale.double()
        state[f"{norm}.bias"] = bias + mean / scale.double()
    network.load_state_dict(state)
    return logits


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
