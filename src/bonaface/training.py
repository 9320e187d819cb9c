"""A folder of faces in, a bundle out: one visible loop, resumable at any step."""

from __future__ import annotations

import math
import platform
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any, Self

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch.nn.functional import binary_cross_entropy_with_logits

import bonaface
from bonaface.ahead import ahead
from bonaface.audit import Glance, glance
from bonaface.augment import recipe
from bonaface.batches import Batch, Batches, CropSource, open_source
from bonaface.bundle import Bundle, Card, finish_bundle, load_bundle
from bonaface.calibration import Calibration, fit_calibration, fit_operating_points
from bonaface.checkpoints import State, load, load_weights, save, save_weights
from bonaface.config import TrainConfig
from bonaface.crops import CropRecipe, measure_recipe, read_recipe
from bonaface.detector import Detector
from bonaface.devices import all_or_none, gathered, open_fabric, share_statistics, summed
from bonaface.errors import ConfigError, DivergedError, TrainingError
from bonaface.faces import CenterFace, open_finder
from bonaface.files import write_text
from bonaface.forge import KINDS, check_kinds
from bonaface.freezing import Freezing
from bonaface.hardening import STEPS, perturbed
from bonaface.history import Epoch, TensorBoard, draw_curves, overfitting_from, write_history
from bonaface.metrics import figures
from bonaface.mixing import FACES, Mix, find_faces
from bonaface.models import registry
from bonaface.models.onnx import export_onnx
from bonaface.runtimes import processor_count
from bonaface.samples import Samples, load_samples
from bonaface.scores import Scores

_MEASURED = 200  # training crops, to see how faces lie in them
_PART = 64  # validation crops in memory at a time, where they are scored
_SAVE_SECONDS = 600.0  # between checkpoints within an epoch
_DRAW_SECONDS = 10.0  # between two drawings of the learning curves, while epochs are shorter


class Watch:
    """Is told how a run goes; the command line overrides these to draw a progress bar."""

    def note(self, text: str) -> None:
        """Something a person should know."""

    def decoded(self, done: int, total: int) -> None:
        """So many pictures are in the cache."""

    def searched(self, done: int, total: int) -> None:
        """In so many training pictures a face to forge was looked for."""

    def stepped(self, epoch: int, step: int, steps: int, loss: float, images: int) -> None:
        """A step of `images` pictures ended."""

    def epoch_ended(self, row: Epoch, best: bool) -> None:
        """An epoch was validated."""

    def scored(self, done: int, total: int) -> None:
        """So many test pictures are scored, where a run is measured afterwards."""


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that one training run works with.

    Attributes:
        out: its folder.
        config: its settings.
        made: network, preprocessing and default learning rate.
        cache: crops of train and validation.
        samples: the whole data set.
        workers: threads that prepare batches.
        fingerprint: of the data.
        fabric: the devices, and the other processes that share the run.
        mix: forges training pictures; None: it is not asked for.
        watch: is told how it goes.
    """

    out: Path
    config: TrainConfig
    made: registry.Made
    cache: CropSource
    samples: Samples
    fingerprint: str
    workers: int
    watch: Watch
    looked: Glance
    fabric: Fabric
    mix: Mix | None = None

    @property
    def folder(self) -> Path:
        """Of checkpoints and curves."""
        return self.out / "training"

    @property
    def last(self) -> Path:
        """The checkpoint to resume from."""
        return self.folder / "last.safetensors"

    def note(self) -> dict[str, Any]:
        """What a checkpoint must agree with: the data, and which of it could be read."""
        return {"fingerprint": self.fingerprint, "unreadable": sorted(self.cache.unreadable)}

    @property
    def best(self) -> Path:
        """The weights of the best epoch so far."""
        return self.folder / "best.safetensors"


def train(
    data: Path,
    out: Path,
    config: TrainConfig,
    *,
    resume: bool = False,
    ratios: tuple[float, float, float] | None = None,
    workers: int | None = None,
    devices: int = 1,
    nodes: int = 1,
    watch: Watch | None = None,
) -> Bundle:
    """Train a detector and write it as a bundle.

    Args:
        data: see `bonaface.samples.load_samples`; needs train and validation, with both classes,
            but fakes in train only where none are forged.
        out: folder of the run, new or empty; becomes the bundle, with checkpoints and curves in
            ``training/``.
        config: every choice that changes the result.
        resume: go on with the run in `out`, which was started with the same settings and data.
        ratios: shares of train, validation and test, for data that has no splits.
        workers: threads that prepare batches; None takes one for every two cores.
        devices: processes on each node, which share each batch (docs/scale.md); `out` has to be one
            folder for all of them.
        nodes: machines.
        watch: is told how it goes; only in the first process.

    Raises:
        ConfigError: `out` holds another run, or the settings do not fit.
        DataError: the data cannot be used.
        DivergedError: the loss is no longer finite.
        TrainingError: a checkpoint cannot be written, or another process is lost.
        KeyboardInterrupt: stopped; a checkpoint was written, and `resume` goes on.
    """
    try:
        run = prepare(
            data,
            out,
            config,
            resume=resume,
            ratios=ratios,
            workers=workers,
            devices=devices,
            nodes=nodes,
            watch=watch,
        )
        with all_or_none(run.fabric):
            state = fit(run, resume=resume)
            bundle = _finish(run, state) if run.fabric.is_global_zero else None
            run.fabric.barrier()
        return bundle or load_bundle(out)
    except OSError as error:
        raise TrainingError(
            f"expected to write in {str(out)!r}, got: {error}; free some room and go on with "
            "--resume"
        ) from error


def prepare(
    data: Path,
    out: Path,
    config: TrainConfig,
    *,
    resume: bool = False,
    ratios: tuple[float, float, float] | None = None,
    workers: int | None = None,
    devices: int = 1,
    nodes: int = 1,
    watch: Watch | None = None,
) -> Run:
    """What `fit` needs: the network, and the pictures decoded. Arguments and errors of `train`."""
    watch = watch or Watch()
    samples = check_run(data, out, config, resume=resume, ratios=ratios)
    fabric = open_fabric(
        config.precision, devices=devices, nodes=nodes, partly_frozen=config.freeze != "none"
    )
    if not fabric.is_global_zero:
        watch = Watch()
    for note in samples.notes:
        watch.note(note)
    # The first on each node fetches and decodes, the others find what it has left.
    with all_or_none(fabric), fabric.rank_zero_first(local=True):
        torch.manual_seed(config.seed)
        made = registry.create(config)
        if made.origin.get("fresh"):
            watch.note(
                f"{made.origin['loaded']} tensors come from {made.origin['weights']}, these begin "
                f"fresh: {', '.join(made.origin['fresh'])}"
            )
        used = _used(samples, config)
        cache = open_source(used, made.preprocess, progress=watch.decoded)
        if cache.unreadable:
            path, reason = next(iter(cache.unreadable.items()))
            watch.note(f"{len(cache.unreadable)} pictures cannot be read ({path}: {reason}, ...)")
        if workers is None:
            workers = max(1, processor_count() // 2 // devices)
        looked = glance(used)
        watch.note(looked.line)
        data_is = samples.fingerprint()
        run = Run(out, config, made, cache, samples, data_is, workers, watch, looked, fabric)
        if config.forge:
            run = replace(run, mix=_mix(run))
    if config.adversarial:
        watch.note(
            f"adversarial training within {config.adversarial:g} grey levels: {STEPS + 1} passes "
            "a step; loss and accuracy in training are of the attacked pictures"
        )
    if fabric.is_global_zero:
        write_text(run.folder / "config.toml", config.to_toml())
    return run


def check_run(
    data: Path,
    out: Path,
    config: TrainConfig,
    *,
    resume: bool = False,
    ratios: tuple[float, float, float] | None = None,
) -> Samples:
    """The samples of a run, and what is wrong with it that shows at once. Arguments of `train`.

    Raises:
        ConfigError: `out` holds another run, or the settings do not fit.
        DataError: the data cannot be used.
    """
    # The split's seed is not the run's: runs with other seeds are judged on the same pictures.
    need = ("validation",) if config.forge else ("train", "validation")
    samples = load_samples(data, ratios=ratios, need=need)
    _check_claim(out, config, resume)
    check_settings(config, samples)
    return samples


def check_settings(config: TrainConfig, samples: Samples) -> None:
    """Find fault with settings before anything is built or decoded.

    Raises:
        ConfigError: a recipe or a kind of forgery is unknown, or there are fewer training pictures.
    """
    recipe(config.augment)
    _kinds(config)
    _used(samples, config)


def fit(run: Run, *, resume: bool) -> State:
    """Run the epochs; the best weights end in ``best.safetensors`` and in the first's module."""
    config, watch, fabric = run.config, run.watch, run.fabric
    share_statistics(run.made.module, fabric)
    batches, validation = _batches(run)
    learner = _Learner(run)
    state = learner.load() if resume and run.last.is_file() else State()
    _check_alike(run, state)

    with _stop_requested() as stop, _Diary(run, state) as diary:
        while state.epoch < config.epochs and not _patience_is_over(state, config):
            begun = saved = time.perf_counter()
            images = 0
            learner.freezing.apply(learner.network, state.epoch)
            for batch in batches.shuffled(state.epoch, state.step):
                # Keyed by the step, so that dropout is the same after a resume.
                chance = torch.manual_seed(_step_seed(config.seed, state, fabric.global_rank))
                rate = _rate(run, len(batches), state.epoch, state.step)
                loss_sum, correct = learner.step(batch, rate, chance)
                if not math.isfinite(loss_sum):
                    raise _diverged(run, len(batches), state)
                images += batch.whole
                state = replace(
                    state,
                    step=state.step + 1,
                    loss_sum=state.loss_sum + loss_sum,
                    correct=state.correct + correct,
                    seen=state.seen + batch.whole,
                )
                watch.stepped(
                    state.epoch + 1, state.step, len(batches), loss_sum / batch.whole, batch.whole
                )
                (stopping,) = summed(fabric, stop.is_set())
                if stopping or time.perf_counter() - saved > _SAVE_SECONDS:
                    learner.save(state)
                    saved = time.perf_counter()
                if stopping:
                    fabric.barrier()
                    raise KeyboardInterrupt
            speed = images / (time.perf_counter() - begun)
            measured = learner.validate(validation)
            if not math.isfinite(measured["validation_loss"]):
                raise _diverged(run, len(batches), state)
            row = Epoch(
                epoch=state.epoch + 1,
                lr=_rate(run, len(batches), state.epoch, len(batches) - 1),
                train_loss=state.loss_sum / state.seen,
                train_accuracy=state.correct / state.seen,
                seconds=time.perf_counter() - begun,
                images_per_second=speed,
                **measured,
            )
            state, better = _next(state, row, config)
            learner.save(state, best=better)
            diary.add(state, better)
    if config.epochs and fabric.is_global_zero:
        load_weights(run.best, learner.network.requires_grad_())
    return state


class _Learner:
    """The network of a run, its optimiser, and what is done with them.

    Fabric's wrappers compute; what is saved, loaded and set belongs to the plain objects, after
    they have moved to the device.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self.network: torch.nn.Module = run.made.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.freezing = Freezing(run.made.stages(), run.config.freeze, run.config.epochs)
        self._memory = _optimizer(run.made, run.config, self.freezing)
        self._module, self._optimizer = run.fabric.setup(self.network, self._memory)
        self._class_weight = _class_weights(run)

    def load(self) -> State:
        """Go on from the last checkpoint."""
        return load(self._run.last, self.network, self._memory, self._run.note())

    def save(self, state: State, *, best: bool = False) -> None:
        """Write a checkpoint, and the weights if they are the best; only the first process does."""
        if self._run.fabric.is_global_zero:
            if best:
                save_weights(self._run.best, self.network)
            save(self._run.last, self.network, self._memory, state, self._run.note())

    def step(self, batch: Batch, rate: float, chance: torch.Generator) -> tuple[float, int]:
        """Learn from a batch: its losses and right answers, summed over all processes.

        The sum is not finite where the run has diverged.
        """
        run, config, fabric = self._run, self._run.config, self._run.fabric
        _set_rate(self._memory, rate)
        inputs, labels = fabric.to_device((batch.images, batch.labels))
        if config.adversarial:
            inputs = _attacked(run, inputs, labels, chance)
        logits = self._module(inputs).float()
        loss = _loss(logits, labels, self._class_weight, config.label_smoothing)
        # Gradients are averaged over processes, whose parts may differ by a picture.
        fabric.backward(loss * (len(labels) * fabric.world_size / batch.whole))
        norm = fabric.clip_gradients(
            self._module, self._optimizer, max_norm=config.clip, error_if_nonfinite=False
        )
        if norm is None or not math.isfinite(float(norm)):
            return math.nan, 0
        self._optimizer.step()
        self._optimizer.zero_grad()
        right = int(((logits > 0) == (labels > 0.5)).sum())
        loss_sum, correct = summed(fabric, float(loss.detach()) * len(labels), right)
        return loss_sum, int(correct)

    def validate(self, validation: Batches) -> dict[str, float]:
        """Figures over all of validation, of which each process scores a part."""
        run = self._run
        self.network.eval()
        part: dict[int, float] = {}
        # Not through the wrapper, which waits for the other processes: they may have fewer batches.
        with torch.inference_mode(), run.fabric.autocast():
            for batch in validation.in_order():
                found = self.network(run.fabric.to_device(batch.images)).float().cpu()
                part |= zip(batch.rows.tolist(), found.tolist(), strict=True)
        whole = {row: logit for one in gathered(run.fabric, part) for row, logit in one.items()}
        rows = sorted(whole)
        logits = torch.tensor([whole[row] for row in rows])
        labels = torch.tensor([float(run.cache.rows[row].label) for row in rows])
        loss = float(_loss(logits, labels, self._class_weight, 0.0))
        auc = roc_auc_score(labels.numpy(), logits.numpy()) if math.isfinite(loss) else 0.0
        # Of the first, so that processors that round in their own ways choose the same epoch.
        return run.fabric.broadcast(
            {
                "validation_loss": loss,
                "validation_accuracy": float(((logits > 0) == (labels > 0.5)).float().mean()),
                "validation_auc": float(auc),
            }
        )


class _Diary:
    """History, curves and TensorBoard of a run, written by the first process alone."""

    def __init__(self, run: Run, state: State) -> None:
        self._run, self._history = run, state.history
        self._drawn, self._at = 0, time.monotonic()
        first, folder = run.fabric.is_global_zero, run.folder / "tensorboard"
        self._board = TensorBoard(folder, len(state.history)) if first else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._board is not None:
            self._draw()
            self._board.close()

    def add(self, state: State, better: bool) -> None:
        """An epoch ended."""
        if self._board is not None:
            write_history(self._run.folder, state.history)
            self._board.add(state.history[-1])
            self._history = state.history
            if time.monotonic() - self._at > _DRAW_SECONDS:
                self._draw()
            self._run.watch.epoch_ended(state.history[-1], better)

    def _draw(self) -> None:
        """The curves, which take longer than a short epoch, so not at the end of each."""
        if len(self._history) > self._drawn:
            draw_curves(self._run.folder, self._history)
            self._drawn, self._at = len(self._history), time.monotonic()


def _check_alike(run: Run, state: State) -> None:
    """Refuse processes that would go on from different places."""
    places = {(one.epoch, one.step) for one in gathered(run.fabric, state)}
    if len(places) > 1:
        raise ConfigError(
            f"expected every process to find the same checkpoint in {str(run.folder)!r}, got "
            f"epochs and steps {sorted(places)}; name a folder as --out that all nodes share"
        )


def schedule(step: int, total: int, warmup: float) -> float:
    """Share of the peak learning rate at a step: linear rise, then half a cosine down to 0."""
    rise = warmup * total
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(total - rise, 1)))


def _attacked(
    run: Run, inputs: torch.Tensor, labels: torch.Tensor, chance: torch.Generator
) -> torch.Tensor:
    """A batch as an attack on the network makes it, found in the precision of the training."""
    # The plain network: Fabric's wrapper lets nobody but Fabric go backward.
    network, budget = run.made.module, run.config.adversarial
    with run.fabric.autocast():
        return perturbed(
            network, inputs, labels, run.made.preprocess, budget=budget, generator=chance
        )


def _loss(
    logits: torch.Tensor, labels: torch.Tensor, class_weight: tuple[float, float], smoothing: float
) -> torch.Tensor:
    targets = labels * (1 - smoothing) + smoothing / 2
    weight = torch.where(labels > 0.5, class_weight[1], class_weight[0])
    return binary_cross_entropy_with_logits(logits, targets, weight)


def _next(state: State, row: Epoch, config: TrainConfig) -> tuple[State, bool]:
    """The state after an epoch, and whether that epoch is the best so far."""
    figure = getattr(row, f"validation_{config.monitor}")
    figure = -figure if config.monitor == "loss" else figure
    better = state.best is None or figure > state.best
    return State(
        epoch=row.epoch,
        best=figure if better else state.best,
        best_epoch=row.epoch if better else state.best_epoch,
        history=(*state.history, row),
    ), better


def _finish(run: Run, state: State) -> Bundle:
    """Export the best weights, calibrate them on validation through ONNX, write the bundle."""
    out, config, made, cache, samples = run.out, run.config, run.made, run.cache, run.samples
    crop = _crop_recipe(run)
    difference = export_onnx(made.module, made.preprocess.size, out / "model.onnx")
    save_weights(out / "model.safetensors", made.module)
    card = Card(
        name=out.resolve().name,
        architecture=made.architecture,
        parameters=registry.parameters(made.module),
        preprocess=made.preprocess.to_dict(),
        crop=crop.to_dict(),
        labels={"real": 0, "fake": 1},
        calibration=Calibration(),
        operating_points={},
        validation={},
        data={
            "fingerprint": run.fingerprint,
            "files": samples.fingerprint(with_split=False),
            "ratios": None if samples.ratios is None else list(samples.ratios),
            "counts": _used(samples, config).counts() | samples.split("test").counts(),
            "origins": _used(samples, config).origins(),
            "unreadable": cache.unreadable,
            "audit": run.looked.to_dict(),
        },
        training={
            "config": config.model_dump(exclude_none=True),
            "origin": made.origin,
            "epoch": state.best_epoch,
            "epochs_run": len(state.history),
            "processes": run.fabric.world_size,
            "overfitting_from": overfitting_from(state.history),
            "seconds": round(sum(row.seconds for row in state.history), 1),
        },
        parity={"largest_logit_difference": difference},
        versions=_versions(),
    )
    chosen = _rows_of(cache, "validation")
    detector = Detector(Bundle(out, card))
    parts = np.split(chosen, range(_PART, len(chosen), _PART))
    with closing(ahead(parts, lambda part: cache.pixels[part])) as crops:
        logits = np.concatenate([detector.logits(list(some)) for some in crops])
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


def _crop_recipe(run: Run) -> CropRecipe:
    """How the training crops were cut: as their folder says, else as they look."""
    told = read_recipe(run.samples.root)
    if told is not None:
        return told
    rows = _rows_of(run.cache, "train")
    chosen = np.random.default_rng(run.config.seed).permutation(rows)[:_MEASURED]
    finder = open_finder()
    crops = [run.cache.pixels[i] for i in chosen]
    sizes = [(crop.shape[1], crop.shape[0]) for crop in crops]
    return measure_recipe([finder.find(crop) for crop in crops], sizes, "training crops")


def _check_claim(out: Path, config: TrainConfig, resume: bool) -> None:
    """Refuse a folder that holds something else than the run to resume."""
    settings = out / "training" / "config.toml"
    if not settings.is_file():
        if resume:
            raise ConfigError(
                f"expected a run to resume in {str(out)!r}, found none; leave out --resume"
            )
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ConfigError(
                f"expected a new or empty folder as --out, got {str(out)!r}, which holds "
                "something else; name another folder"
            )
        return
    if not resume:
        raise ConfigError(
            f"expected a new folder as --out, got {str(out)!r}, which holds a run; "
            "add --resume to go on with it, or name another folder"
        )
    changed = TrainConfig.read(settings).changes(config)
    if changed:
        raise ConfigError(
            f"expected the settings that the run in {str(out)!r} began with "
            f"({'; '.join(changed)}); repeat those, or name another folder"
        )


def _used(samples: Samples, config: TrainConfig) -> Samples:
    """What a run looks at: validation, and train or the part of it that was asked for."""
    train = samples.split("train")
    if config.pictures is not None:
        if config.pictures > len(train):
            raise ConfigError(
                f"expected pictures of at most {len(train)}, as many as train holds, got "
                f"{config.pictures}; leave it out to use all"
            )
        train = train.limit(config.pictures, config.seed)
    rows = (*train.rows, *samples.split("validation").rows)
    return replace(samples, rows=tuple(sorted(rows, key=lambda row: row.path)))


def _rows_of(cache: CropSource, split: str) -> NDArray[np.int64]:
    return np.array([i for i, row in enumerate(cache.rows) if row.split == split], np.int64)


def _batches(run: Run) -> tuple[Batches, Batches]:
    size, balance = run.config.batch_size, run.config.balance
    share = (run.fabric.global_rank, run.fabric.world_size)
    return (
        Batches(
            run.cache,
            _rows_of(run.cache, "train"),
            run.made.preprocess,
            size,
            augment=run.config.augment,
            balance=balance if balance in ("batches", "sources") else None,
            mix=run.mix,
            seed=run.config.seed,
            workers=run.workers,
            share=share,
        ),
        Batches(
            run.cache,
            _rows_of(run.cache, "validation"),
            run.made.preprocess,
            size,
            workers=run.workers,
            share=share,
        ),
    )


def _mix(run: Run) -> Mix:
    """Look for the faces of the real training crops, and make what forges them."""
    cache, config = run.cache, run.config
    reals = [int(i) for i in _rows_of(cache, "train") if cache.rows[i].label == 0]
    faces = find_faces(
        cache.pixels,
        cache.rows,
        reals,
        CenterFace(threads=1),
        cache.folder / FACES,
        workers=processor_count(),
        progress=run.watch.searched,
    )
    mix = Mix(cache.pixels, cache.rows, faces, config.forge, _kinds(config))
    own = len(_rows_of(cache, "train"))
    run.watch.note(
        f"{len(faces)} of {len(reals)} real training pictures have a face to forge; "
        f"{mix.count(own)} forged ones ({', '.join(mix.kinds)}) join the {own} of each epoch"
    )
    return mix


def _kinds(config: TrainConfig) -> tuple[str, ...]:
    return check_kinds(KINDS if config.forge_kinds is None else config.forge_kinds)


def _class_weights(run: Run) -> tuple[float, float]:
    """Weights of the real and of the fake class in the loss; 1 on average."""
    cache, config = run.cache, run.config
    for split in ("train", "validation"):
        labels = [row.label for row in cache.rows if row.split == split]
        labels += [1] * (split == "train" and run.mix is not None)
        for label, name in enumerate(("real", "fake")):
            if label not in labels:
                raise TrainingError(
                    f"expected {name} pictures in {split}, got none that can be read; check the "
                    "files"
                )
    if config.balance != "weights":
        return 1.0, 1.0
    train = [row.label for row in cache.rows if row.split == "train"]
    forged = run.mix.count(len(train)) if run.mix else 0
    reals, fakes = train.count(0), train.count(1) + forged
    return (reals + fakes) / (2 * reals), (reals + fakes) / (2 * fakes)


def _rate(run: Run, steps: int, epoch: int, step: int) -> float:
    peak = run.config.lr or run.made.lr
    return peak * schedule(epoch * steps + step, run.config.epochs * steps, run.config.warmup)


def _optimizer(
    made: registry.Made, config: TrainConfig, freezing: Freezing
) -> torch.optim.Optimizer:
    # Norms and biases are not decayed: they do not grow with the number of weights.
    parts: dict[tuple[float, bool], list[torch.nn.Parameter]] = {}
    for module, share in freezing.rates():
        for parameter in module.parameters():
            parts.setdefault((share, parameter.ndim > 1), []).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": some, "share": share, "weight_decay": config.weight_decay if decayed else 0.0}
        for (share, decayed), some in parts.items()
    ]
    lr = config.lr or made.lr
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=lr)


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group["share"]


def _step_seed(seed: int, state: State, rank: int) -> int:
    keys = [seed, state.epoch, state.step, *([rank] if rank else [])]
    return int(np.random.SeedSequence(keys).generate_state(1)[0])


def _patience_is_over(state: State, config: TrainConfig) -> bool:
    return 0 < config.patience <= state.epoch - state.best_epoch


def _diverged(run: Run, steps: int, state: State) -> DivergedError:
    step = min(state.step, steps - 1)
    rate = _rate(run, steps, state.epoch, step)
    return DivergedError(
        f"expected a finite loss, got none at epoch {state.epoch + 1}, step {step + 1}, "
        f"learning rate {rate:.3g}; try a tenth of the learning rate, a longer warm-up, or "
        "--precision float32"
    )


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
