"""Maps from a network's gradients, through Captum (Kokhlikyan et al. 2020); PyTorch is needed.

Both are densities: their sum over the view is a change of logit, so that values are told for each
hundredth of the view. They are of the PyTorch network that a bundle's weights give; `detect` runs
the ONNX file that was exported from it.
"""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np

from bonaface.bundle import Bundle
from bonaface.errors import ConfigError, MissingExtraError
from bonaface.explain.maps import Map, Pixels, Values, mean_colour
from bonaface.preprocess import Preprocess

try:
    import torch
    from captum.attr import IntegratedGradients, LayerGradCam
    from torch import nn
except ImportError as error:
    raise MissingExtraError("grad-cam and integrated-gradients", "explain") from error

from bonaface.models.modes import evaluating
from bonaface.models.registry import rebuild, stages

_LEAST_CELLS: Final = 4  # a side of the layer that Grad-CAM looks at
_STEPS: Final = (64, 256)  # more, where the first miss the sum
_MISSED: Final = 0.05  # of the difference of logits, or of a logit of 1
_TOGETHER: Final = 16
_SMOOTH: Final = 1 / 48  # standard deviation in sides of the view: single pixels say little
_UNIT: Final = "change of logit for each hundredth of the picture"


class Network:
    """A bundle's network, to be asked for gradients.

    Raises:
        BundleError: the bundle has no weights, or they are not those of its card.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.module = rebuild(bundle)
        self.preprocess = bundle.preprocess

    def grad_cam(self, view: Pixels) -> Map:
        """As `grad_cam`, of this network."""
        return grad_cam(self.module, self.preprocess, view)

    def integrated_gradients(self, view: Pixels) -> Map:
        """As `integrated_gradients`, of this network."""
        return integrated_gradients(self.module, self.preprocess, view)


def grad_cam(module: nn.Module, preprocess: Preprocess, view: Pixels) -> Map:
    """Gradient-weighted features of the last layer of at least 4 x 4 cells (Selvaraju et al. 2017).

    Values below 0, which speak for real, are kept. Of a network with several branches the maps are
    added. What follows the layer is taken to be linear, so the sum is a first-order change.

    Args:
        module: float32 (b, 3, size, size) -> logits (b,), one of ours; left as it was.
        preprocess: its recipe.
        view: uint8 size x size x 3.

    Raises:
        ConfigError: the network has no such layer.
    """
    with evaluating(module):
        images = _images(preprocess, view[None])
        total = np.zeros(view.shape[:2])
        cells = 0
        for layer in _layers(module, images):
            found = LayerGradCam(module, layer).attribute(images)
            small = found[0, 0].detach().double().numpy()
            cells = max(small.shape)
            size = view.shape[1], view.shape[0]
            large = np.asarray(cv2.resize(small, size, interpolation=cv2.INTER_LINEAR))
            total += large * (small.size / large.size)
    return Map(_each_hundredth(total), _UNIT, {"cells": cells, "sum": float(total.sum())})


def integrated_gradients(module: nn.Module, preprocess: Preprocess, view: Pixels) -> Map:
    """Gradients along the way from a plain picture to the view (Sundararajan et al. 2017).

    The plain picture has the view's mean colour. The values of a pixel's channels are added and
    smoothed a little, which keeps their sum. It should be how far the logit lies from the plain
    picture's; `facts` tells both, since a finite number of steps may miss it.

    Args:
        module: float32 (b, 3, size, size) -> logits (b,); left as it was.
        preprocess: its recipe.
        view: uint8 size x size x 3.
    """
    plain = np.broadcast_to(np.rint(mean_colour(view)).astype(np.uint8), view.shape)
    with evaluating(module):
        images, start = _images(preprocess, view[None]), _images(preprocess, plain[None])
        with torch.no_grad():
            after, before = (float(module(each)[0]) for each in (images, start))
        for steps in _STEPS:
            found = IntegratedGradients(module).attribute(
                images, start, n_steps=steps, internal_batch_size=_TOGETHER
            )
            values = found[0].sum(0).detach().double().numpy()
            total = float(values.sum())
            if abs(total - (after - before)) <= _MISSED * max(1.0, abs(after - before)):
                break
    sigma = _SMOOTH * len(view)
    smooth = np.asarray(cv2.GaussianBlur(values, (0, 0), sigma, borderType=cv2.BORDER_REFLECT))
    facts = {"steps": steps, "sum": total, "difference": after - before, "plain_logit": before}
    return Map(_each_hundredth(smooth), _UNIT, facts)


def _each_hundredth(density: Values) -> Values:
    return density * (density.size / 100)


def _images(preprocess: Preprocess, views: Pixels) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(preprocess.normalise(views)))


def _layers(module: nn.Module, images: torch.Tensor) -> list[nn.Module]:
    """Of each branch the last part before the head whose output has at least 4 x 4 cells."""
    sides: dict[nn.Module, int] = {}

    def note(part: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.ndim == 4:
            sides[part] = min(output.shape[2:])

    *parts, _ = stages(module)
    handles = [each.register_forward_hook(note) for _, part in parts for each in part]
    try:
        with torch.no_grad():
            module(images)
    finally:
        for handle in handles:
            handle.remove()
    last: dict[str, nn.Module] = {}
    for name, part in parts:
        for each in part:
            if sides.get(each, 0) >= _LEAST_CELLS:
                last[name.rpartition(".")[0]] = each
    if not last:
        raise ConfigError(
            "expected a network with a layer of features over the picture for grad-cam, got one "
            "without; take --method occlusion or integrated-gradients"
        )
    return list(last.values())
