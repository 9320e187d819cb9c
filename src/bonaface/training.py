"""A folder of faces in, a bundle out: one visible loop, resumable at any step."""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score
from torch.nn.functional import binary_cross_entropy_with_logits

import bonaface
from bonaface.batches import Batches, PixelCache, open_cache
from bonaface.bundle import Bundle, Card, finish_bundle
from bonaface.config import TrainConfig
from bonaface.detector import Detector
from bonaface.errors import ConfigError, TrainingError
from bonaface.files import atomic_path, write_text
from bonaface.history import Epoch, TensorBoard, overfitting_from, write_history
from bonaface.metrics import figures
from bonaface.models import registry
from bonaface.models.onnx import export_onnx
from bonaface.samples import Samples, load_samples
from bonaface.scores import Scores
from bonaface.verdict import Calibration, fit_calibration, fit_operating_points

CHECKPOINT_VERSION = 1


class Watch:
    """Is told how a run goes; the command line overrides these to draw a progress bar."""

    def note(self, text: str) -> None:
        """Something a person should know."""

    def decoded(self, done: int, total: int) -> None:
        """So many pictures are in the cache."""

    def stepped(self, epoch: int, step: int, steps: int, loss: float, images: int) -> None:
        """A step of `images` pictures ended."""

    def epoch_ended(self, row: Epoch, best: bool) -> None:
        """An epoch was validated."""


@dataclass(frozen=True, slots=True)
class State:
    """Where a run stands; with the weights and the optimiser's memory, all that resuming needs."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    best: float = -math.inf
    best_epoch: int = 0
    history: tuple[Epoch, ...] = ()


def train(
    data: Path,
    out: Path,
    config: TrainConfig,
    *,
    resume: bool = False,
    ratios: tuple[float, float, float] | None = None,
    workers: int | None = None,
    watch: Watch | None = None,
) -> Bundle:
    """Train a detector and write it as a bundle.

    Args:
        data: see `bonaface.samples.load_samples`; needs train and validation.
        out: folder of the run; becomes the bundle, with checkpoints and curves in ``training/``.
        config: every choice that changes the result.
        resume: go on with the run in `out`, which was started with the same settings and data.
        ratios: shares of train, validation and test, for data that has no splits.
        workers: threads that prepare batches; None takes one for every two cores.
        watch: is told how it goes.

    Raises:
        ConfigError: `out` holds another run, or the settings do not fit.
        DataError: the data cannot be used.
        TrainingError: the loss is no longer finite, or a checkpoint cannot be written.
        KeyboardInterrupt: stopped; a checkpoint was written, and `resume` goes on.
    """
    watch = watch or Watch()
    samples = load_samples(data, ratios=ratios, seed=config.seed, need=("train", "validation"))
    for note in samples.notes:
        watch.note(note)
    folder = out / "training"
    _claim(folder, config, resume)
    torch.manual_seed(config.seed)
    made = registry.create(config)
    used = replace(samples, rows=tuple(r for r in samples.rows if r.split != "test"))
    cache = open_cache(used, made.preprocess, progress=watch.decoded)
    if cache.unreadable:
        path, reason = next(iter(cache.unreadable.items()))
        watch.note(f"{len(cache.unreadable)} pictures cannot be read and are left out "
                   f"({path}: {reason} ...)")
    state = fit(made, cache, config, folder, samples.fingerprint(), resume, workers, watch)
    return _finish(out, made, cache, samples, config, state)


def fit(
    made: registry.Made,
    cache: PixelCache,
    config: TrainConfig,
    folder: Path,
    fingerprint: str,
    resume: bool,
    workers: int | None,
    watch: Watch,
) -> State:
    """Run the epochs; the best weights end in ``folder/best.safetensors``."""
    workers = max(1, _cores() // 2) if workers is None else workers
    rows = {split: _rows_of(cache, split) for split in ("train", "validation")}
    batches = Batches(
        cache,
        rows["train"],
        made.preprocess,
        config.batch_size,
        augment=config.augment,
        balance=config.balance == "batches",
        seed=config.seed,
        workers=workers,
    )
    validation = Batches(
        cache, rows["validation"], made.preprocess, config.batch_size, workers=workers
    )
    class_weight = _class_weights(cache, rows["train"], config)

    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    fabric = Fabric(accelerator="auto", devices=1, precision=_precision(config))
    module = made.module.to(memory_format=torch.channels_last)
    optimizer = _optimizer(made, config)
    state = State()
    if resume and (folder / "last.safetensors").is_file():
        state = _load(folder / "last.safetensors", module, optimizer, fingerprint)
    module, optimizer = fabric.setup(module, optimizer)
    board = TensorBoard(folder / "tensorboard", len(state.history))
    total_steps = config.epochs * len(batches)
    peak = config.lr or made.lr

    with _stop_requested() as stop:
        while state.epoch < config.epochs and not _patience_is_over(state, config):
            epoch, begun, images = state.epoch, time.perf_counter(), 0
            module.train()
            for batch in batches.shuffled(epoch, state.step):
                rate = peak * schedule(epoch * len(batches) + state.step, total_steps, config.warmup)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                # Keyed by the step, so that dropout is the same after a resume.
                torch.manual_seed(_step_seed(config.seed, epoch, state.step))
                inputs, labels = fabric.to_device((batch.images, batch.labels))
                logits = module(inputs).float()
                loss = _loss(logits, labels, class_weight, config.label_smoothing)
                loss_value = float(loss.detach())
                if not math.isfinite(loss_value):
                    raise _diverged(epoch, state.step, rate)
                fabric.backward(loss)
                fabric.clip_gradients(module, optimizer, max_norm=config.clip)
                optimizer.step()
                optimizer.zero_grad()
                images += len(labels)
                state = replace(
                    state,
                    step=state.step + 1,
                    loss_sum=state.loss_sum + loss_value * len(labels),
                    correct=state.correct + int(((logits > 0) == (labels > 0.5)).sum()),
                    seen=state.seen + len(labels),
                )
                watch.stepped(epoch + 1, state.step, len(batches), loss_value, len(labels))
                if stop.is_set():
                    _save(folder / "last.safetensors", module, optimizer, state, fingerprint)
                    raise KeyboardInterrupt
            trained = time.perf_counter() - begun
            row = _validated(fabric, module, validation, class_weight, config, state, rate)
            row = replace(
                row, seconds=time.perf_counter() - begun, images_per_second=images / trained
            )
            figure = -row.validation_loss if config.monitor == "loss" else getattr(
                row, f"validation_{config.monitor}"
            )
            better = figure > state.best
            state = State(
                epoch=epoch + 1,
                best=figure if better else state.best,
                best_epoch=epoch + 1 if better else state.best_epoch,
                history=(*state.history, row),
            )
            if better:
                _save_weights(folder / "best.safetensors", module)
            _save(folder / "last.safetensors", module, optimizer, state, fingerprint)
            write_history(folder, state.history)
            board.add(row)
            watch.epoch_ended(row, better)
    board.close()
    _load_weights(folder / "best.safetensors", made.module)
    return state


def schedule(step: int, total: int, warmup: float) -> float:
    """Share of the peak learning rate at a step: linear rise, then half a cosine down to 0."""
    rise = warmup * total
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(total - rise, 1)))


def _loss(
    logits: torch.Tensor, labels: torch.Tensor, class_weight: tuple[float, float], smoothing: float
) -> torch.Tensor:
    targets = labels * (1 - smoothing) + smoothing / 2
    weight = torch.where(labels > 0.5, class_weight[1], class_weight[0])
    return binary_cross_entropy_with_logits(logits, targets, weight)


def _validated(
    fabric: Fabric,
    module: torch.nn.Module,
    validation: Batches,
    class_weight: tuple[float, float],
    config: TrainConfig,
    state: State,
    rate: float,
) -> Epoch:
    module.eval()
    found, wanted = [], []
    with torch.inference_mode():
        for batch in validation.in_order():
            found.append(module(fabric.to_device(batch.images)).float().cpu())
            wanted.append(batch.labels)
    logits, labels = torch.cat(found), torch.cat(wanted)
    if not bool(torch.isfinite(logits).all()):
        raise _diverged(state.epoch, state.step, rate)
    return Epoch(
        epoch=state.epoch + 1,
        lr=rate,
        train_loss=state.loss_sum / state.seen,
        train_accuracy=state.correct / state.seen,
        validation_loss=float(_loss(logits, labels, class_weight, 0.0)),
        validation_accuracy=float(((logits > 0) == (labels > 0.5)).float().mean()),
        validation_auc=float(roc_auc_score(labels.numpy(), logits.numpy())),
        seconds=0.0,
        images_per_second=0.0,
    )


def _finish(
    out: Path,
    made: registry.Made,
    cache: PixelCache,
    samples: Samples,
    config: TrainConfig,
    state: State,
) -> Bundle:
    """Export the best weights, calibrate them on validation through ONNX, write the bundle."""
    difference = export_onnx(made.module, made.preprocess.size, out / "model.onnx")
    _save_weights(out / "model.safetensors", made.module)
    card = Card(
        name=out.resolve().name,
        architecture=made.architecture,
        parameters=registry.parameters(made.module),
        preprocess=made.preprocess.to_dict(),
        labels={"real": 0, "fake": 1},
        calibration=Calibration().to_dict(),
        operating_points={},
        validation={},
        data={
            "fingerprint": samples.fingerprint(),
            "counts": samples.counts(),
            "unreadable": cache.unreadable,
        },
        training={
            "config": config.model_dump(exclude_none=True),
            "origin": made.origin,
            "epoch": state.best_epoch,
            "epochs_run": len(state.history),
            "overfitting_from": overfitting_from(state.history),
            "seconds": round(sum(row.seconds for row in state.history), 1),
        },
        parity={"largest_logit_difference": difference},
        versions=_versions(),
    )
    chosen = _rows_of(cache, "validation")
    detector = Detector(Bundle(out, card))
    logits = detector.logits([cache.pixels[i] for i in chosen])
    labels = np.array([cache.rows[i].label for i in chosen])
    calibration = fit_calibration(logits, labels, seed=config.seed)
    scores = Scores.of_samples([cache.rows[i] for i in chosen], logits, calibration(logits))
    points = fit_operating_points(scores.score, scores.label)
    found = figures(scores, points["balanced"].threshold, seed=config.seed)
    card = Card.model_validate(
        card.model_dump()
        | {
            "calibration": calibration.to_dict(),
            "operating_points": {name: point.to_dict() for name, point in points.items()},
            "validation": {name: figure.to_dict() for name, figure in found.items()},
        }
    )
    return finish_bundle(out, card)


def _claim(folder: Path, config: TrainConfig, resume: bool) -> None:
    settings = folder / "config.toml"
    if not settings.is_file():
        if resume:
            raise ConfigError(
                f"expected a run to resume in {str(folder.parent)!r}, found none; "
                "leave out --resume"
            )
        write_text(settings, config.to_toml())
        return
    if not resume:
        raise ConfigError(
            f"expected a new folder as --out, got {str(folder.parent)!r}, which holds a run; "
            "add --resume to go on with it, or name another folder"
        )
    before = TrainConfig.read(settings)
    changed = [
        f"{key} = {getattr(before, key)!r}, now {getattr(config, key)!r}"
        for key in TrainConfig.model_fields
        if getattr(before, key) != getattr(config, key)
    ]
    if changed:
        raise ConfigError(
            f"expected the settings that the run in {str(folder.parent)!r} began with "
            f"({'; '.join(changed)}); repeat those, or name another folder"
        )


def _rows_of(cache: PixelCache, split: str) -> NDArray[np.int64]:
    return np.array([i for i, row in enumerate(cache.rows) if row.split == split], np.int64)


def _class_weights(
    cache: PixelCache, rows: NDArray[np.int64], config: TrainConfig
) -> tuple[float, float]:
    fakes = sum(cache.rows[i].label for i in rows)
    reals = len(rows) - fakes
    for name, count in (("fake", fakes), ("real", reals)):
        if count == 0:
            raise TrainingError(
                f"expected {name} pictures to train on, got none that can be read; check the files"
            )
    if config.balance != "weights":
        return 1.0, 1.0
    return len(rows) / (2 * reals), len(rows) / (2 * fakes)


def _optimizer(made: registry.Made, config: TrainConfig) -> torch.optim.Optimizer:
    # Norms and biases are not decayed: they do not grow with the number of weights.
    decayed = [p for p in made.module.parameters() if p.ndim > 1]
    plain = [p for p in made.module.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    lr = config.lr or made.lr
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=lr)


def _precision(config: TrainConfig) -> Any:
    if config.precision == "float32":
        return "32-true"
    if config.precision == "bf16":
        return "bf16-mixed"
    if torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported()
    else:
        native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return "bf16-mixed" if native else "32-true"


def _step_seed(seed: int, epoch: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, epoch, step]).generate_state(1)[0])


def _patience_is_over(state: State, config: TrainConfig) -> bool:
    return 0 < config.patience <= state.epoch - state.best_epoch


def _diverged(epoch: int, step: int, rate: float) -> TrainingError:
    return TrainingError(
        f"expected a finite loss, got none at epoch {epoch + 1}, step {step + 1}, learning rate "
        f"{rate:.3g}; try a tenth of the learning rate, a longer warm-up, or --precision float32"
    )


def _save(
    path: Path,
    module: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    state: State,
    fingerprint: str,
) -> None:
    tensors = {f"model.{name}": value for name, value in _plain(module).items()}
    for index, memory in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in memory.items()}
    about = {
        "version": CHECKPOINT_VERSION,
        "fingerprint": fingerprint,
        "state": {
            key: [row.to_dict() for row in value] if key == "history" else value
            for key, value in ((f, getattr(state, f)) for f in State.__slots__)
        },
    }
    _write(path, tensors, {"bonaface": json.dumps(about)})


def _load(
    path: Path, module: torch.nn.Module, optimizer: torch.optim.Optimizer, fingerprint: str
) -> State:
    tensors, about = _read(path)
    if about.get("version") != CHECKPOINT_VERSION or about.get("fingerprint") != fingerprint:
        raise ConfigError(
            f"expected the checkpoint {str(path)!r} to be of this version and this data, got "
            "another; name another --out, or the data it began with"
        )
    module.load_state_dict(_part(tensors, "model."))
    memory: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in _part(tensors, "optimizer.").items():
        index, key = name.split(".", 1)
        memory.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": memory})
    value = about["state"]
    return State(**value | {"history": tuple(Epoch(**row) for row in value["history"])})


def _save_weights(path: Path, module: torch.nn.Module) -> None:
    _write(path, _plain(module), {"format": "pt"})


def _load_weights(path: Path, module: torch.nn.Module) -> None:
    module.load_state_dict(_read(path)[0])


def _plain(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.contiguous().cpu() for name, value in module.state_dict().items()}


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _write(path: Path, tensors: dict[str, torch.Tensor], about: dict[str, str]) -> None:
    try:
        with atomic_path(path) as temporary:
            save_file({k: v.contiguous() for k, v in tensors.items()}, temporary, about)
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"expected to write {str(path)!r}, got: {error}; the last checkpoint is whole: free "
            "some room and go on with --resume"
        ) from error


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get("bonaface", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise TrainingError(
            f"expected a checkpoint in {str(path)!r}, got: {error}; start again in another folder"
        ) from error


@contextmanager
def _stop_requested() -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM ask for a checkpoint after this step; a second one stops at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in signals}

    def ask(number: int, frame: FrameType | None) -> None:
        stop.set()
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in signals:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _versions() -> dict[str, str]:
    libraries = ("torch", "lightning-fabric", "transformers", "numpy", "pillow", "onnxruntime")
    return {
        "bonaface": bonaface.__version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in libraries},
    }


def _cores() -> int:
    return len(os.sched_getaffinity(0))
