"""From logits to scores, and the thresholds on them: calibration and operating points.

Everything here is fitted on validation data and only applied elsewhere.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bonaface.errors import MissingExtraError

BPCER_TARGET = 0.01
APCER_TARGET = 0.05
_LEAST_SLOPE = 1e-6  # in units of the largest logit


@dataclass(frozen=True, slots=True)
class Calibration:
    """score = sigmoid(slope * logit + offset).

    Attributes:
        kind: "temperature" (offset 0; Guo et al. 2017), "platt" (Platt 1999), or "none".
        slope: 1 / temperature, above 0.
        offset: in logits.
    """

    kind: Literal["none", "temperature", "platt"] = "none"
    slope: float = 1.0
    offset: float = 0.0

    def __call__(self, logits: ArrayLike) -> NDArray[np.float64]:
        """Logits of any shape -> calibrated P(fake) in [0, 1], float64."""
        return _sigmoid(self.slope * np.asarray(logits, np.float64) + self.offset)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A threshold on the score with the validation error rates it was chosen for.

    Attributes:
        name: "balanced", "fake_above" or "real_below".
        threshold: a score of at least this is on the fake side.
        rule: how it was chosen, in words.
        apcer: share of validation fakes below the threshold.
        bpcer: share of validation reals at or above it.
        n_real: validation reals it was chosen on.
        n_fake: validation fakes it was chosen on.
    """

    name: str
    threshold: float
    rule: str
    apcer: float
    bpcer: float
    n_real: int
    n_fake: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def fit_calibration(logits: ArrayLike, labels: ArrayLike, *, seed: int = 0) -> Calibration:
    """Choose temperature or Platt scaling by five-fold log loss, then fit it on everything.

    Targets are smoothed as in Platt (1999), so that perfectly separated classes give a finite
    slope. Both classes weigh the same whatever their numbers: a score is the probability of fake
    given as many fakes as reals. A detector that ranks no better than chance gets a slope near 0:
    its scores then say one half, which is the truth. One that ranks worse than chance gets the
    least slope that keeps its order; turning it round would be a guess made on validation noise.

    Args:
        logits: shape (n,).
        labels: shape (n,), 1 fake and 0 real, both present.
        seed: of the folds.
    """
    x = np.asarray(logits, np.float64)
    y = np.asarray(labels, np.float64)
    fold = np.empty(len(x), np.int64)
    rng = np.random.default_rng(seed)
    for label in (0, 1):
        members = rng.permutation(np.flatnonzero(y == label))
        fold[members] = np.arange(len(members)) % 5
    losses = {}
    for kind in ("temperature", "platt"):
        loss = 0.0
        for held_out in range(5):
            test = fold == held_out
            if test.all() or len(np.unique(y[~test])) < 2:
                continue
            slope, offset = _fit(x[~test], y[~test], offset=kind == "platt")
            held = _log_loss(slope * x[test] + offset, y[test])
            loss += float(held @ _equal_weights(y)[test])
        losses[kind] = loss
    # Platt has one more parameter: it must earn it.
    kind = "platt" if losses["platt"] < losses["temperature"] * 0.999 else "temperature"
    slope, offset = _fit(x, y, offset=kind == "platt")
    return Calibration("platt" if kind == "platt" else "temperature", slope, offset)


def fit_operating_points(scores: ArrayLike, labels: ArrayLike) -> dict[str, OperatingPoint]:
    """The three thresholds that a bundle carries, chosen on validation.

    ``balanced``: highest balanced accuracy, for tables of decisions. ``fake_above``: at most 1 %
    of validation reals reach it. ``real_below``: at most 5 % of validation fakes lie under it,
    and never above ``fake_above``.

    Args:
        scores: calibrated, shape (n,).
        labels: shape (n,), 1 fake and 0 real, both present.
    """
    s = np.asarray(scores, np.float64)
    y = np.asarray(labels).astype(bool)
    fakes, reals = np.sort(s[y]), np.sort(s[~y])
    values = np.unique(s)
    # Between neighbours without a float between them, the middle would round down to the lower.
    middles = np.maximum((values[1:] + values[:-1]) / 2, np.nextafter(values[:-1], np.inf))
    edges = np.concatenate([[values[0]], middles, [np.nextafter(values[-1], np.inf)]])
    apcer = np.searchsorted(fakes, edges, side="left") / len(fakes)
    bpcer = (len(reals) - np.searchsorted(reals, edges, side="left")) / len(reals)
    # Ties go to the threshold nearest one half, the one a reader would have guessed.
    order = np.lexsort((np.abs(edges - 0.5), np.round(apcer + bpcer, 12)))
    fake_above = int(np.flatnonzero(bpcer <= BPCER_TARGET)[0])
    real_below = min(int(np.flatnonzero(apcer <= APCER_TARGET)[-1]), fake_above)
    chosen = {
        "balanced": (int(order[0]), "highest balanced accuracy on validation"),
        "fake_above": (fake_above, _rule("BPCER", BPCER_TARGET, len(reals))),
        "real_below": (
            real_below,
            f"{_rule('APCER', APCER_TARGET, len(fakes))}, and not above fake_above",
        ),
    }
    return {
        name: OperatingPoint(
            name,
            float(edges[at]),
            rule,
            float(apcer[at]),
            float(bpcer[at]),
            len(reals),
            len(fakes),
        )
        for name, (at, rule) in chosen.items()
    }


def _rule(rate: str, target: float, n: int) -> str:
    if n * target < 1:
        return f"{rate} 0 on validation; too few ({n}) to tell {target:.0%}"
    return f"{rate} at most {target:.0%} on validation"


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x < 0, small, 1.0) / (1 + small))


def _equal_weights(labels: NDArray[np.float64]) -> NDArray[np.float64]:
    """One weight a sample, so that each class weighs half of the samples."""
    fakes = labels.sum()
    reals = len(labels) - fakes
    return len(labels) / 2 * np.asarray(np.where(labels == 1, 1 / fakes, 1 / reals), np.float64)


def _log_loss(logits: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.logaddexp(0, logits) - targets * logits)


def _fit(
    x: NDArray[np.float64], labels: NDArray[np.float64], *, offset: bool
) -> tuple[float, float]:
    try:
        from scipy.optimize import minimize
    except ImportError as error:
        raise MissingExtraError("calibration", "train") from error
    n_fake = labels.sum()
    n_real = len(labels) - n_fake
    targets = np.where(labels == 1, (n_fake + 1) / (n_fake + 2), 1 / (n_real + 2))
    weights = _equal_weights(labels)
    scale = max(float(np.abs(x).max()), 1e-12)
    unit = x / scale

    def objective(p: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z = p[0] * unit + (p[1] if offset else 0.0)
        residual = weights * (_sigmoid(z) - targets)
        gradient = [residual @ unit, residual.sum()] if offset else [residual @ unit]
        return float(weights @ _log_loss(z, targets)), np.asarray(gradient)

    found = minimize(objective, np.zeros(2 if offset else 1), jac=True, method="BFGS").x
    if found[0] < _LEAST_SLOPE:
        return _LEAST_SLOPE / scale, 0.0
    return float(found[0]) / scale, float(found[1]) if offset else 0.0
