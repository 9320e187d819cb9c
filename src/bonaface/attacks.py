"""Attacks on a detector: crops changed within a budget so that it decides wrongly.

What is attacked is the uint8 crop as somebody would upload it, at its own size, before the recipe's
square, resize and normalisation; the result is uint8 again, so no attack lives on fractions of a
grey level. A fake is pushed to real (hidden), a real to fake (smeared). The attacks are those of
the Adversarial Robustness Toolbox (Nicolae et al. 2018); here is what stands between them and a
detector: the decision at an operating point, gradients through the preprocessing, budgets that
hold after rounding, and the choice between original and attacked.

Budgets are in grey levels, 1/255 of the pixel range, over the values (pixels times channels) of the
centre square, which is all that a detector sees:

- ``linf``: the largest change of any value. Of a fraction only the whole part can be used.
- ``l2``: the root mean square change of all values. As L2 norm of pixels in [0, 1] this is
  ``budget / 255 * sqrt(3) * side``, so it compares over sizes: the usual 0.5 at 32 pixels is 2.3,
  the usual 3.0 at 224 pixels is 2.0. What is within a linf budget is within the same l2 budget.

White-box attacks climb the logit. Every loss of two classes is a function of it and has its
direction; but where a detector is sure, float32 rounds cross-entropy to 0, and its gradient with
it, which would look like robustness.
"""

from __future__ import annotations

import io
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import blake2b
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from bonaface.errors import ConfigError, MissingExtraError
from bonaface.evaluate import Scorer
from bonaface.preprocess import Preprocess, centre_square

try:
    import torch
    from art.attacks.evasion import (
        AutoProjectedGradientDescent,
        FastGradientMethod,
        HopSkipJump,
        ProjectedGradientDescent,
        SquareAttack,
    )
    from art.estimators.classification import BlackBoxClassifierNeuralNetwork, PyTorchClassifier
    from torch import nn
    from torch.nn import functional
except ImportError as error:
    raise MissingExtraError("attacking detectors", "stress") from error

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Progress = Callable[[int, int], None]

_LEAST_SIDE: Final = 8  # in less, Square finds no place for its squares
_VALUES: Final = 1 << 24  # of one batch, or of HopSkipJump's probes; held a few times at once
_TOGETHER: Final = 32
_STEPS: Final = 20
_QUERIES: Final = 500
_PROBES: Final = 50
_STARTS: Final = 16
_STUCK: Final = 64


@dataclass(frozen=True, slots=True)
class Attack:
    """One row of the table of attacks.

    Attributes:
        norm: of its budget.
        white_box: whether it needs the weights; others only ask the detector.
        steps: iterations (of autoattack: of Auto-PGD), or queries of Square, unless told otherwise.
        about: what it does, and its source.
        stages: what is run, each on the crops that the one before left decided rightly.
    """

    norm: Literal["linf", "l2"]
    white_box: bool
    steps: int
    about: str
    stages: tuple[Callable[[_Task], Floats], ...]


@dataclass(frozen=True, eq=False, slots=True)
class Attacked:
    """What an attack came to.

    Attributes:
        crops: uint8, in the order and of the shapes of those given, none of them the same array.
        logits: the detector's, of `crops`, float64 (n,).
        wrong: whether `crops` are decided wrongly, bool (n,).
        tried: how many crops were attacked. The others were decided wrongly as they were, or have a
            side under 8 pixels.
        gradients: forward and backward passes of the network, over all crops.
        queries: crops that the network or the detector was shown besides, over all crops.
    """

    crops: tuple[Pixels, ...]
    logits: NDArray[np.float64]
    wrong: NDArray[np.bool_]
    tried: int
    gradients: int
    queries: int


class Victim:
    """A detector with the threshold that it decides by: what is attacked.

    Args:
        detector: scores crops. White-box attacks also take the weights of its bundle.
        point: the operating point whose threshold counts; a score of at least it is fake.

    Raises:
        BundleError: the bundle has no such operating point.
    """

    def __init__(self, detector: Scorer, point: str = "balanced") -> None:
        self.detector = detector
        self.threshold = detector.bundle.operating_point(point).threshold

    @property
    def white_box(self) -> bool:
        """Whether the bundle has the weights that white-box attacks need."""
        return (self.detector.bundle.folder / "model.safetensors").is_file()

    @staticmethod
    def allows(detector: Scorer, name: str) -> bool:
        """Whether an attack of `ATTACKS` can be made on a detector."""
        return not ATTACKS[name].white_box or Victim(detector).white_box

    def is_fake(self, logits: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Logits (n,) -> decisions, bool (n,)."""
        return np.asarray(self.detector.calibration(logits) >= self.threshold)

    @cached_property
    def cut(self) -> float:
        """The threshold as a logit. Of one that no score or every score reaches: far out."""
        calibration = self.detector.bundle.calibration
        share = min(max(self.threshold, 1e-16), 1 - 1e-16)
        return (math.log(share / (1 - share)) - calibration.offset) / calibration.slope

    @cached_property
    def network(self) -> nn.Module:
        """The trained network in eval mode, its parameters without gradients.

        Raises:
            BundleError: its weights are absent, or are not those that its card describes.
        """
        from bonaface.models.registry import rebuild

        network = rebuild(self.detector.bundle).requires_grad_(False)
        # A third faster on a processor.
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network


def attack(
    victim: Victim,
    crops: Sequence[Pixels],
    labels: Sequence[int],
    name: str,
    budget: float,
    *,
    seed: int,
    jpeg: int | None = None,
    steps: int | None = None,
    progress: Progress | None = None,
) -> Attacked:
    """Change crops within a budget so that the victim decides them wrongly.

    A crop that is decided wrongly as it is stays as it is. Of the others the detector's own logit
    chooses between original and attacked, so an attack never helps the detector. The crops of a
    call share their chance: the same call gives the same result, a part of it need not.

    Args:
        victim: what is attacked.
        crops: uint8 HxWx3 of any sizes, RGB. HopSkipJump begins with those among them that are
            decided as it wants, so give it both classes in one call.
        labels: 1 fake, 0 real.
        name: of `ATTACKS`.
        budget: in grey levels, above 0 and at most 255, which is no bound; linf takes 1 or more.
        seed: of all chance. The generators of NumPy and PyTorch are left as they were.
        jpeg: save the results as JPEG of this quality (1 to 100) and open them again, attacked or
            not. What is said of right, wrong and better is then said of the saved ones, and the
            budget holds before saving. Black-box attacks also ask about saved pictures.
        steps: iterations, or queries of Square; None: as `ATTACKS` says. FGSM has one.
        progress: called with the number of crops done and their total.

    Raises:
        ConfigError: an argument is out of range, or the attack needs weights that are not there.
        BundleError: the weights are not those that the card describes, or logits are not finite.
    """
    chosen = _chosen(victim, name, budget)
    _check(len(crops), labels, jpeg, steps)
    asked = _Asked(victim, jpeg)
    fakes = np.asarray(labels) == 1
    best = [asked.saved(crop) for crop in crops]
    logits = asked.about(best)
    decided = victim.is_fake(logits)
    pool = {
        wanted: [crops[at] for at in np.flatnonzero(decided == wanted)[:_STARTS]]
        for wanted in (False, True)
    }
    right = np.flatnonzero(decided == fakes).tolist()
    held = [at for at in right if min(crops[at].shape[:2]) >= _LEAST_SIDE]
    done = len(crops) - len(held)
    with _seeded(seed):
        for batch in _batches(held, crops):
            left = np.array(batch)
            for stage in chosen.stages:
                squares = np.stack([centre_square(crops[at]) for at in left])
                task = _Task(
                    asked, squares, fakes[left], chosen.norm, budget, steps or chosen.steps, pool
                )
                made = []
                for at, square, found in zip(left, squares, stage(task), strict=True):
                    crop = crops[at].copy()
                    centre_square(crop)[:] = fit(square, found, chosen.norm, budget)
                    made.append(asked.saved(crop))
                for at, crop, logit in zip(left, made, asked.about(made), strict=True):
                    better = logit < logits[at] if fakes[at] else logit > logits[at]
                    if better:
                        best[at], logits[at] = crop, logit
                left = left[victim.is_fake(logits[left]) == fakes[left]]
                if not len(left):
                    break
            done += len(batch)
            if progress:
                progress(done, len(crops))
    wrong = victim.is_fake(logits) != fakes
    return Attacked(tuple(best), logits, wrong, len(held), asked.gradients, asked.queries)


def prepare(squares: torch.Tensor, preprocess: Preprocess) -> torch.Tensor:
    """`Preprocess.resize` and `normalise` with gradients, without their rounding to 8 bits.

    Args:
        squares: pixels in [0, 1], float32 (b, 3, side, side).
        preprocess: the recipe.

    Returns:
        Normalised, float32 (b, 3, size, size); within about a grey level of the recipe's.
    """
    size = preprocess.size
    if squares.shape[-1] != size:
        squares = functional.interpolate(squares, (size, size), mode="bilinear", antialias=True)
    mean, std = (squares.new_tensor(v)[:, None, None] for v in (preprocess.mean, preprocess.std))
    return (squares - mean) / std


def fit(square: Pixels, attacked: Floats, norm: str, budget: float) -> Pixels:
    """Round an attacked square to 8 bits so that the budget holds exactly.

    In l2 the change is scaled so that rounding makes it no smaller, if the budget allows: an even
    change of less than half a level would vanish, where a few whole levels need not. A change in
    whole levels that fits stays as it is.

    Args:
        square: the original, uint8 (side, side, 3).
        attacked: pixels in [0, 1], float32 (3, side, side).
        norm: linf or l2.
        budget: in grey levels.
    """
    before = square.astype(np.float64)
    change = attacked.transpose(1, 2, 0) * 255.0 - before
    if norm == "linf":
        whole = np.clip(np.rint(change), -math.floor(budget), math.floor(budget))
    else:
        whole = _scaled(change, budget * math.sqrt(change.size))
    return np.asarray(np.clip(before + whole, 0, 255), np.uint8)


def _scaled(change: NDArray[np.float64], most: float) -> NDArray[np.float64]:
    """The change in whole numbers, its L2 norm about as it was and at most `most`."""
    had, rounded = (float(np.linalg.norm(each)) for each in (change, np.rint(change)))
    if 0.999 * had <= rounded <= most:
        return np.rint(change)
    target = min(most, max(had, rounded))
    low, high = 0.0, 32.0  # the norm grows with the factor
    for _ in range(20):
        middle = (low + high) / 2
        fits = np.linalg.norm(np.rint(middle * change)) <= target
        low, high = (middle, high) if fits else (low, middle)
    return np.rint(low * change)


# -- between a detector and the toolbox ------------------------------------------------------------


class _Asked:
    """The detector as somebody who uploads pictures sees it, and what all passes cost."""

    def __init__(self, victim: Victim, jpeg: int | None) -> None:
        self.victim = victim
        self.gradients = self.queries = 0
        self._jpeg = jpeg

    def saved(self, crop: Pixels) -> Pixels:
        """What arrives of a crop: a copy."""
        if self._jpeg is None:
            return crop.copy()
        file = io.BytesIO()
        PILImage.fromarray(crop).save(file, "JPEG", quality=self._jpeg)
        return np.array(PILImage.open(file))

    def about(self, crops: Sequence[Pixels]) -> NDArray[np.float64]:
        """Logits of crops as they arrive."""
        self.queries += len(crops)
        return np.array(self.victim.detector.logits(crops))


@dataclass(frozen=True, eq=False, slots=True)
class _Task:
    """What a stage is to do.

    Attributes:
        asked: the detector.
        squares: uint8 (n, side, side, 3), all decided rightly.
        fakes: whether they are fakes, bool (n,).
        norm: linf or l2.
        budget: in grey levels.
        steps: iterations or queries.
        pool: other crops, by whether they are decided to be fake.
    """

    asked: _Asked
    squares: Pixels
    fakes: NDArray[np.bool_]
    norm: str
    budget: float
    steps: int
    pool: Mapping[bool, Sequence[Pixels]]

    @property
    def pixels(self) -> Floats:
        return _as_floats(self.squares)

    @property
    def labels(self) -> Floats:
        """One column a class. Fake is the first, which argmax takes where both are equal."""
        return np.stack([self.fakes, ~self.fakes], 1).astype(np.float32)

    @property
    def level(self) -> float:
        """The budget as a change of every value, of pixels in [0, 1]."""
        return (math.floor(self.budget) if self.norm == "linf" else self.budget) / 255

    @property
    def ball(self) -> dict[str, Any]:
        """The budget in the toolbox's words."""
        if self.norm == "linf":
            return {"norm": np.inf, "eps": self.level}
        return {"norm": 2, "eps": self.level * math.sqrt(self.squares[0].size)}

    def white_box(self) -> Any:
        return PyTorchClassifier(
            _TwoClasses(self.asked), _Margin(), (3, *self.squares.shape[1:3]), 2,
            clip_values=(0.0, 1.0), device_type="cpu",
        )  # fmt: skip

    def black_box(self) -> Any:
        known: dict[bytes, float] = {}

        def about(pixels: Floats) -> NDArray[np.float64]:
            crops = _as_pixels(pixels)
            keys = [blake2b(crop, digest_size=16).digest() for crop in crops]
            # The toolbox asks about the same crop several times; an attacker would remember.
            new = {key: crop for key, crop in zip(keys, crops, strict=True) if key not in known}
            if new:
                logits = self.asked.about([self.asked.saved(crop) for crop in new.values()])
                known.update(zip(new, logits.tolist(), strict=True))
            margins = np.array([known[key] for key in keys]) - self.asked.victim.cut
            return np.stack([margins, -margins], 1) / 2

        return BlackBoxClassifierNeuralNetwork(
            about, (3, *self.squares.shape[1:3]), 2, clip_values=(0.0, 1.0)
        )


class _TwoClasses(nn.Module):
    """Pixels in [0, 1], (b, 3, side, side) -> (b, 2): half the margin over the threshold, negated.

    Not (margin, 0): the toolbox refuses what sums to 1 as probabilities.
    """

    def __init__(self, asked: _Asked) -> None:
        super().__init__()
        self.network = asked.victim.network
        self._asked = asked

    def forward(self, squares: torch.Tensor) -> torch.Tensor:
        if squares.requires_grad:
            self._asked.gradients += len(squares)
        else:
            self._asked.queries += len(squares)
        victim = self._asked.victim
        images = prepare(squares, victim.detector.bundle.preprocess)
        margins = self.network(images).reshape(-1) - victim.cut
        return torch.stack((margins, -margins), 1) / 2


class _Margin(nn.Module):
    """By how much the wrong class is ahead; the toolbox sets `reduction`."""

    reduction = "sum"

    def forward(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        ahead = (outputs * (1 - 2 * labels)).sum(1)
        return ahead if self.reduction == "none" else ahead.sum()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The toolbox draws from NumPy's global generator, and its data loader from PyTorch's."""
    kept = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        np.random.set_state(kept)  # noqa: NPY002


def _chosen(victim: Victim, name: str, budget: float) -> Attack:
    if name not in ATTACKS:
        raise ConfigError(f"expected an attack out of {', '.join(ATTACKS)}, got {name!r}; name one")
    chosen = ATTACKS[name]
    if chosen.white_box and not victim.white_box:
        others = ", ".join(other for other, row in ATTACKS.items() if not row.white_box)
        raise ConfigError(
            f"expected a bundle with weights for {name}, which needs gradients, got "
            f"{victim.detector.name!r} without model.safetensors; attack it with {others}"
        )
    if not (budget >= 1 if chosen.norm == "linf" else budget > 0) or budget > 255:
        low = "1" if chosen.norm == "linf" else "more than 0"
        raise ConfigError(
            f"expected a budget of {low} to 255 grey levels for {name}, got {budget}; change it"
        )
    return chosen


def _check(n: int, labels: Sequence[int], jpeg: int | None, steps: int | None) -> None:
    if len(labels) != n or not set(labels) <= {0, 1}:
        raise ConfigError(
            f"expected a label of 0 or 1 for each of {n} crops, got {len(labels)} with the values "
            f"{sorted(set(labels))}; give 1 for fake and 0 for real"
        )
    if jpeg is not None and not 1 <= jpeg <= 100:
        raise ConfigError(f"expected a JPEG quality of 1 to 100, got {jpeg}; change it")
    if steps is not None and steps < 1:
        raise ConfigError(f"expected at least one step, got {steps}; leave it out for the default")


def _batches(held: Sequence[int], crops: Sequence[Pixels]) -> Iterator[list[int]]:
    """Places of crops whose squares have one size, as many as memory should hold."""
    sides = defaultdict(list)
    for at in held:
        sides[min(crops[at].shape[:2])].append(at)
    for side, places in sides.items():
        together = max(1, min(_TOGETHER, _VALUES // (3 * side * side)))
        for begin in range(0, len(places), together):
            yield places[begin : begin + together]


def _as_floats(squares: Pixels) -> Floats:
    """Uint8 (n, side, side, 3) -> [0, 1], (n, 3, side, side)."""
    return np.ascontiguousarray(squares.transpose(0, 3, 1, 2), np.float32) / np.float32(255)


def _as_pixels(squares: Floats) -> Pixels:
    """The inverse of `_as_floats`, rounded."""
    levels = np.clip(np.rint(squares.transpose(0, 2, 3, 1) * 255), 0, 255)
    return np.ascontiguousarray(levels, np.uint8)


# -- the attacks -----------------------------------------------------------------------------------


def _fast_gradient(task: _Task) -> Floats:
    tool = FastGradientMethod(task.white_box(), **task.ball, batch_size=len(task.squares))
    return np.asarray(tool.generate(task.pixels, task.labels))


def _projected_gradient(task: _Task, steps: int | None = None) -> Floats:
    steps = steps or task.steps
    tool = ProjectedGradientDescent(
        task.white_box(),
        **task.ball,
        eps_step=2.5 * task.ball["eps"] / steps,
        max_iter=steps,
        num_random_init=1,
        batch_size=len(task.squares),
        verbose=False,
    )
    return np.asarray(tool.generate(task.pixels, task.labels))


def _auto_projected_gradient(task: _Task) -> Floats:
    classifier = task.white_box()
    tool = AutoProjectedGradientDescent(
        classifier,
        **task.ball,
        eps_step=2 * task.ball["eps"],
        max_iter=task.steps,
        nb_random_init=1,
        batch_size=len(task.squares),
        verbose=False,
    )
    pixels, labels = task.pixels, task.labels
    # It leaves out crops that PyTorch finds wrong as they are, though ONNX Runtime did not.
    right = classifier.predict(pixels).argmax(1) == labels.argmax(1)
    if right.any():
        tool.generate(pixels[right], labels[right])
        pixels[right] = tool.x_max  # what it returns is its last point, not its best
    return pixels


def _square_attack(task: _Task, queries: int | None = None) -> Floats:
    """In l2 too with changes of even size: they use the whole budget, and the toolbox's own do not.

    Its Square in l2 (1.20) divides by the budget that is left where the paper multiplies.
    """
    tool = SquareAttack(
        task.black_box(),
        norm=np.inf,
        eps=task.level,
        max_iter=queries or task.steps,
        batch_size=len(task.squares),
        verbose=False,
    )
    return np.asarray(tool.generate(task.pixels, task.labels))


class _HopSkipJump(HopSkipJump):  # type: ignore[misc]
    """HopSkipJump for pictures of 8 bits."""

    _failures = 0

    def _compute_delta(self, **_: Any) -> float:
        """Probes change values by a grey level; of the toolbox's, rounding hides the most."""
        return math.sqrt(math.prod(self.estimator.input_shape)) / 255

    @staticmethod
    def _interpolate(**point: Any) -> Floats:
        """The border that is found must be the point that was asked about, to the last bit."""
        return np.asarray(HopSkipJump._interpolate(**point | {"alpha": float(point["alpha"])}))

    def _adversarial_satisfactory(self, samples: Floats, **rest: Any) -> NDArray[np.bool_]:
        """Ends the search for a step, which would not end from a point that is decided rightly."""
        found = np.asarray(super()._adversarial_satisfactory(samples, **rest))
        self._failures = 0 if found.any() else self._failures + 1
        return found if self._failures < _STUCK else np.ones_like(found)


def _hop_skip_jump(task: _Task) -> Floats:
    classifier = task.black_box()
    most = max(1, _VALUES // task.squares[0].size)
    tool = _HopSkipJump(
        classifier,
        targeted=True,
        norm=task.ball["norm"],
        max_iter=1,
        max_eval=most,
        init_eval=min(_PROBES, most),
        verbose=False,
    )
    tool.theta = 1e-3  # how finely the border is searched for; 8 bits hold no more
    pixels, aims = task.pixels, 1 - task.labels
    starts = _starts(task)
    classes = classifier.predict(starts).argmax(1)
    for at, aim in enumerate(aims):
        fitting = starts[classes == aim.argmax()]
        if not len(fitting):
            continue
        nearest = np.square(fitting - pixels[at]).sum((1, 2, 3)).argmin()
        original, point = pixels[[at]], fitting[[nearest]]
        for step in range(task.steps + 1):
            if step:
                point = tool.generate(original, aim[None], x_adv_init=point, resume=step > 1)
            inside = fit(task.squares[at], _as_floats(_as_pixels(point))[0], task.norm, task.budget)
            pixels[[at]] = _as_floats(inside[None])
            if classifier.predict(pixels[[at]]).argmax() == aim.argmax():
                break
    return pixels


def _starts(task: _Task) -> Floats:
    """What HopSkipJump may begin with: crops that are decided otherwise, even ones, noise."""
    height, width, _ = shape = task.squares.shape[1:]
    crops = [
        np.asarray(PILImage.fromarray(centre_square(crop)).resize((width, height)))
        for fake in np.unique(~task.fakes).tolist()
        for crop in task.pool[fake]
    ]
    even = [np.full(shape, level, np.uint8) for level in (0, 128, 255)]
    noise = np.random.randint(0, 256, (3, *shape), np.uint8)  # noqa: NPY002
    return _as_floats(np.stack([*crops, *even, *noise]))


# AutoAttack without what means nothing here: its second loss (DLR) needs a third class, its search
# for the smallest change (FAB; in the toolbox, DeepFool) ends where rounding undoes it. It begins
# with what is cheap, and a stage is judged after rounding, as in the toolbox's own it is not.
_AUTO: Final = (
    partial(_projected_gradient, steps=_STEPS),
    _auto_projected_gradient,
    partial(_square_attack, queries=_QUERIES),
)
_ABOUT: Final = {
    "fgsm": "One step along the sign of the gradient (Goodfellow et al. 2015).",
    "fgsm-l2": "One step along the gradient (Goodfellow et al. 2015).",
    "pgd": "Projected steps along the gradient from a random start (Madry et al. 2018).",
    "auto": "PGD, then Auto-PGD on the logit, then Square, each on what the others left: the parts "
    "of AutoAttack that two classes have (Croce and Hein 2020).",
    "square": "Random search with squares that asks for scores (Andriushchenko et al. 2020).",
    "hop": "Search along the border of decisions that asks for decisions (Chen et al. 2020).",
}
ATTACKS: Final = {
    "fgsm": Attack("linf", True, 1, _ABOUT["fgsm"], (_fast_gradient,)),
    "fgsm-l2": Attack("l2", True, 1, _ABOUT["fgsm-l2"], (_fast_gradient,)),
    "pgd": Attack("linf", True, _STEPS, _ABOUT["pgd"], (_projected_gradient,)),
    "pgd-l2": Attack("l2", True, _STEPS, _ABOUT["pgd"], (_projected_gradient,)),
    "autoattack": Attack("linf", True, 100, _ABOUT["auto"], _AUTO),
    "autoattack-l2": Attack("l2", True, 100, _ABOUT["auto"], _AUTO),
    "square": Attack("linf", False, _QUERIES, _ABOUT["square"], (_square_attack,)),
    "hopskipjump": Attack("linf", False, 10, _ABOUT["hop"], (_hop_skip_jump,)),
    "hopskipjump-l2": Attack("l2", False, 10, _ABOUT["hop"], (_hop_skip_jump,)),
}
"""The attacks by name; those without ``-l2`` have a linf budget."""
