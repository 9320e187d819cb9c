"""Adversarial training: each batch is replaced by what an attack on the network makes of it.

Madry et al. (2018), "Towards deep learning models resistant to adversarial attacks": train on the
pictures of a ball around each picture that are worst for the network as it is, found by projected
gradient descent (PGD). As there, all of a batch is attacked, so that what is minimised is one
thing, the loss at the worst. Attacking half of it is for single-step attacks, which a network can
learn to blind.

The network is attacked in evaluation, as in TRADES and in the robustness library of Madry's group:
it is then the network that will be used, and its batch norm learns nothing from the search. Pang et
al. (2021), "Bag of tricks for adversarial training", find more accuracy on clean pictures that way,
at a like robustness.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import nn

from bonaface.models.modes import evaluating
from bonaface.preprocess import Preprocess

# Each is a pass forward and back in every step of training, on what may be two cores. Madry et al.
# take 7 on CIFAR-10; 3 find four fifths of the rise in loss that 20 find, on the CNN.
STEPS: Final = 3
# Madry et al.: from anywhere in the ball the steps reach its other end, with a quarter to spare.
_REACH: Final = 2.5


def perturbed(
    network: nn.Module,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    preprocess: Preprocess,
    *,
    budget: float,
    generator: torch.Generator,
) -> torch.Tensor:
    """The same pictures, each moved within an L-infinity ball to where the network errs most.

    PGD from a random place in the ball. It climbs the logit away from its label instead of the
    loss: with one logit the sign of the gradient is the same, whatever the weight of the class; it
    does not vanish where the network is sure, nor turn round where labels are smoothed.

    Modes, gradients and buffers of the network stay as they were; run it under the autocast of the
    training.

    Args:
        network: normalised float32 (b, 3, h, w) -> logits (b,).
        inputs: normalised float32 (b, 3, h, w).
        labels: float32 (b,), 1 fake and 0 real.
        preprocess: how the inputs were normalised.
        budget: radius of the ball in grey levels: 1/255 of the pixel range before normalisation.
        generator: of the random start; on the CPU, so that every device starts alike.

    Returns:
        Normalised float32 (b, 3, h, w) without a gradient, within the ball and between black and
        white.
    """
    clean = inputs.detach()
    ends = preprocess.normalise(np.array([0, 255], np.uint8).repeat(3).reshape(2, 1, 1, 3))
    black, white = (torch.from_numpy(end).to(clean.device) for end in ends)
    radius = (white - black) * (budget / 255)
    low, high = torch.maximum(clean - radius, black), torch.minimum(clean + radius, white)
    start = torch.rand(clean.shape, generator=generator).to(clean.device)
    moved = (clean + radius * (2 * start - 1)).clamp(low, high)
    away, step = 1 - 2 * labels, radius * (_REACH / STEPS)
    with evaluating(network):
        for _ in range(STEPS):
            moved.requires_grad_()
            (uphill,) = torch.autograd.grad((away * network(moved).float()).sum(), moved)
            moved = (moved.detach() + step * uphill.sign()).clamp(low, high)
    return moved
