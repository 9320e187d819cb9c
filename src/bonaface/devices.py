"""One process or many: how they start, share a run, and end when one of them is lost.

Each process has one device. They hold the same network, take their part of each batch and add up
their gradients (PyTorch's DistributedDataParallel, through Lightning Fabric), so that the number of
processes changes the time of a run and not, but for rounding and dropout, what it learns.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final
from uuid import uuid4

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lsf import LSFEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.plugins.precision import MixedPrecision
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.utilities.rank_zero import rank_zero_only
from torch import distributed, nn

from bonaface.errors import ConfigError, TrainingError

# What one process may do alone while the others wait: decode a large set, write the bundle.
_PATIENCE: Final = timedelta(hours=6)
_INTERRUPTED: Final = 130
_STARTERS: Final = (TorchElasticEnvironment, SLURMEnvironment, LSFEnvironment)


def open_fabric(
    precision: str, *, devices: int = 1, nodes: int = 1, partly_frozen: bool = False
) -> Fabric:
    """The Fabric of this process, which has joined the others when this returns.

    Args:
        precision: "float32", "bf16", or "auto" for bf16 where it is faster.
        devices: processes on each node; the one that calls is one of them.
        nodes: machines.
        partly_frozen: some parts of the network do not train in some epochs.

    Raises:
        ConfigError: fewer devices are there, or several nodes without what starts processes there.
        TrainingError: the others did not come.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    kinds = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    device = next((kind for kind, there in kinds.items() if there), "cpu")
    several = devices * nodes > 1
    _check(device, devices, nodes)
    mixed = precision == "bf16" or (precision == "auto" and _fast_bf16())
    fabric = Fabric(
        accelerator=device,
        devices=devices,
        num_nodes=nodes,
        strategy=DDPStrategy(timeout=_PATIENCE, find_unused_parameters=partly_frozen)
        if several
        else "auto",
        precision=None if mixed else "32-true",
        plugins=[_MixedInside("bf16-mixed", device)] if mixed else None,
    )
    if TorchElasticEnvironment.detect():
        end_with_parent()
    if several:
        try:
            with all_or_none(fabric):
                fabric.launch()
        except ValueError as error:  # what started the processes has another number in mind
            raise ConfigError(
                f"expected {devices} processes on each of {nodes} nodes, got: {error}; give "
                "--devices and --nodes what torchrun or srun was given"
            ) from error
    return fabric


def _check(device: str, devices: int, nodes: int) -> None:
    there = {"cuda": torch.cuda.device_count(), "mps": 1}.get(device, devices)
    if devices > there:
        raise ConfigError(
            f"expected --devices of at most {there}, as many as this machine has, got {devices}"
        )
    if TorchElasticEnvironment.detect():
        size = TorchElasticEnvironment().world_size()
        if size != devices * nodes:
            raise ConfigError(
                f"expected --devices times --nodes to be {size}, the processes that torchrun "
                f"started, got {devices * nodes}; give both commands the same numbers"
            )
    if nodes > 1 and not was_started():
        raise ConfigError(
            f"expected torchrun or srun to start the processes of {nodes} nodes, got a process "
            "that none started; see docs/scale.md"
        )


def _fast_bf16() -> bool:
    """Whether it is worth its rounding: a GPU that knows it, or AMX."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    # Not public, and not in every version; without an answer, float32 is never wrong. AVX-512 alone
    # is no reason: without AMX, bf16 is no faster for the CNN, and slower for resnet50v2.
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)())


class _MixedInside(MixedPrecision):
    """Leaves the pixels that go in as they are, where Fabric would round them to bf16.

    The residual branch and the power spectrum live on differences that it would round away.
    """

    def convert_input(self, data: Any) -> Any:
        return data


# -- processes ------------------------------------------------------------------------------------


def was_started() -> bool:
    """Whether torchrun, SLURM or the like started this process as one of several."""
    return "LOCAL_RANK" in os.environ or any(kind.detect() for kind in _STARTERS)


def end_with_parent() -> None:
    """Have this process stopped, as by SIGTERM, when the one that started it is gone.

    Who is killed by SIGKILL, as for memory, can tell nobody.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def is_first() -> bool:
    """Whether this process is the one that speaks and writes."""
    return getattr(rank_zero_only, "rank", 0) == 0


def start(command: Sequence[str], count: int) -> int:
    """Run a command in so many processes of this machine, and wait until all have ended.

    When one fails the others are ended; Ctrl-C and SIGTERM are passed on.

    Args:
        command: what each runs; finds the others through its environment, as Fabric does.
        count: how many.

    Returns:
        The exit code: 0 when all ended well, 130 after a signal, else that of one that failed.

    Raises:
        TrainingError: one was killed.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in ("torch.distributed.elastic", "torch.distributed.elastic.agent.server.api"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        run_id=uuid4().hex,
        nproc_per_node=count,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, command[0])(*command[1:])
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        for rank, code in sorted(codes.items()):
            if code < 0 and code not in (-signal.SIGTERM, -signal.SIGINT):
                raise TrainingError(
                    f"expected {count} processes to go on, got process {rank + 1} ended by "
                    f"{signal.Signals(-code).name}; go on with --resume"
                ) from error
        return next((code for code in codes.values() if code > 0), _INTERRUPTED)
    except SignalException:
        return _INTERRUPTED
    return 0


@contextmanager
def all_or_none(fabric: Fabric) -> Iterator[None]:
    """Say plainly that another process is lost, where waiting for it fails.

    Raises:
        TrainingError: so it is.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        far = isinstance(error, distributed.DistError) or "gloo" in text or "NCCL" in text
        if fabric.world_size == 1 or not far:
            raise
        raise TrainingError(
            f"expected all {fabric.world_size} processes to go on, got no answer from one "
            f"({text.splitlines()[0][:200]}); go on with --resume"
        ) from error


# -- what they agree on ---------------------------------------------------------------------------


def summed(fabric: Fabric, *values: float) -> tuple[float, ...]:
    """Each value, summed over all processes."""
    if fabric.world_size == 1:
        return values
    here = torch.tensor(values, dtype=torch.float64, device=fabric.device)
    distributed.all_reduce(here)
    return tuple(here.tolist())


def gathered(fabric: Fabric, value: Any) -> list[Any]:
    """The value of each process, in the order of their ranks."""
    if fabric.world_size == 1:
        return [value]
    found = [None] * fabric.world_size
    distributed.all_gather_object(found, value)
    return found


def share_statistics(network: nn.Module, fabric: Fabric) -> None:
    """Have batch norm normalise by the whole batch, not by the part of one process."""
    if fabric.world_size == 1:
        return
    kind = SharedBatchNorm if fabric.device.type == "cpu" else nn.SyncBatchNorm
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                made = kind(child.num_features, child.eps, child.momentum)
                # The same tensors, so that whoever knows them goes on.
                made._parameters, made._buffers = child._parameters, child._buffers
                setattr(module, name, made)


class SharedBatchNorm(nn.BatchNorm2d):
    """PyTorch's SyncBatchNorm for processors, for which it has none."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Of each process its part of the batch, (b, c, h, w) -> the same."""
        if not self.training or self.running_mean is None or self.running_var is None:
            return super().forward(input)
        found = _Normalise.apply(input, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        output: torch.Tensor = found[0]
        mean, variance, count = found[1:]
        with torch.no_grad():
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            rate = self.momentum or 0.0
            self.running_mean.lerp_(mean, rate)
            self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), rate)
        return output


class _Normalise(torch.autograd.Function):
    """(x - mean) / deviation * weight + bias, with the statistics of all processes.

    Ioffe and Szegedy (2015), "Batch normalization", with sums over the whole batch; the parts'
    means and variances are joined as in Chan et al. (1979).
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        x = inputs.float()
        variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
        size = torch.full_like(mean[:1], x.numel() / x.shape[1])
        here = torch.cat([size, mean, variance])
        parts = [torch.empty_like(here) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, here)
        every = torch.stack(parts)
        sizes, means, variances = torch.split(every, [1, len(mean), len(mean)], 1)
        count = sizes.sum()
        mean = (sizes * means).sum(0) / count
        variance = (sizes * (variances + (means - mean) ** 2)).sum(0) / count
        scale = (variance + eps).rsqrt()
        normal = (x - _wide(mean)) * _wide(scale)
        ctx.save_for_backward(normal, weight, scale, count)
        ctx.mark_non_differentiable(mean, variance, count)
        return (normal * _wide(weight) + _wide(bias)).to(inputs.dtype), mean, variance, count

    @staticmethod
    def backward(
        ctx: Any, gradient: torch.Tensor, *_: Any
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None]:
        normal, weight, scale, count = ctx.saved_tensors
        g = gradient.float()
        bias_gradient, weight_gradient = g.sum((0, 2, 3)), (g * normal).sum((0, 2, 3))
        both = torch.stack([bias_gradient, weight_gradient])
        distributed.all_reduce(both)
        plain, along = both / count
        inner = g - _wide(plain) - normal * _wide(along)
        back = inner * _wide(weight * scale)
        return back.to(gradient.dtype), weight_gradient, bias_gradient, None


def _wide(values: torch.Tensor) -> torch.Tensor:
    return values[:, None, None]


def command_line() -> list[str]:
    """The command that this process was started with, to be started again."""
    return [sys.executable, "-m", "bonaface", *sys.argv[1:]]
