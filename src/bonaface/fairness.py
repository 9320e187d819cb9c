"""Whether a detector errs more on some groups of people, or chance alone makes it look so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np

from bonaface.metrics import COMBINED, column
from bonaface.scores import Scores

SHUFFLES: Final = 10_000
_LEAST: Final = 30  # samples of a group, as for a slice


@dataclass(frozen=True, slots=True)
class Gap:
    """The largest difference in one error rate between groups of people.

    Attributes:
        key: the column that tells the groups, such as "race", or "race, gender".
        error: "bpcer", of reals, or "apcer", of fakes.
        value: highest minus lowest rate, in [0, 1].
        highest: the group with the highest rate, the first of several.
        lowest: the group with the lowest.
        groups: how many were compared.
        n: samples in them.
        p: how often as large a gap comes about when the same errors fall on people by chance.
    """

    key: str
    error: Literal["bpcer", "apcer"]
    value: float
    highest: str
    lowest: str
    groups: int
    n: int
    p: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def gaps(
    scores: Scores,
    threshold: float,
    keys: Sequence[str] = ("age", "gender", "race", COMBINED),
    *,
    seed: int = 0,
) -> list[Gap]:
    """The largest gap of each error rate for each way to divide people.

    The test permutes errors over samples (so counts of errors in groups are multivariate
    hypergeometric): of 10,000 permutations, how many have a gap as large, with one added to both
    (Phipson and Smyth 2010). It takes samples for independent, and each key on its own.

    Args:
        scores: of one evaluation.
        threshold: a score of at least this counts as fake.
        keys: columns of people; groups of fewer than 30 and those unknown are left out, and keys
            that leave fewer than two groups.
        seed: of the permutations.
    """
    found: list[Gap] = []
    called_fake = scores.score >= threshold
    kinds: tuple[tuple[Literal["bpcer", "apcer"], Any], ...] = (
        ("bpcer", (scores.label == 0, called_fake)),
        ("apcer", (scores.label == 1, ~called_fake)),
    )
    for key in keys:
        values = column(scores, key)
        for error, (among, wrong) in kinds:
            known = np.array([value is not None for value in values], bool) & among
            names, members = np.unique(values[known].astype(str), return_inverse=True)
            sizes = np.bincount(members, minlength=len(names))
            large = np.flatnonzero(sizes >= _LEAST)
            if len(large) < 2:
                continue
            errors = np.bincount(members, weights=wrong[known], minlength=len(names))
            rates = errors[large] / sizes[large]
            rng = np.random.default_rng([seed, len(found)])
            drawn = rng.multivariate_hypergeometric(
                sizes[large], int(errors[large].sum()), SHUFFLES, method="marginals"
            )
            others = np.ptp(drawn / sizes[large], axis=1)
            gap = float(np.ptp(rates))
            found.append(
                Gap(
                    key,
                    error,
                    gap,
                    str(names[large][rates.argmax()]),
                    str(names[large][rates.argmin()]),
                    len(large),
                    int(sizes[large].sum()),
                    float((1 + (others >= gap - 1e-12).sum()) / (1 + SHUFFLES)),
                )
            )
    return found
