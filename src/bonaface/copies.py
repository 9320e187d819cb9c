"""Pictures that are one picture: the same bytes, or nearly the same to look at.

A 64-bit perceptual hash (pHash) names candidates, and a comparison of the fine structure of 32 x 32
thumbnails decides, because aligned crops of different faces have hashes that are nearly alike. Of
the 78 million pairs in five sets of faces (17,720 pictures) that share no group, the hash alone
took 988 for copies; 9 were left, all of them one person in one scene. All 17,720 re-saved copies
(half the size, JPEG 50) were found, and 99.5 % or more of a set at 0.4 of the size and JPEG 30.
Mirrored and newly cropped copies are not looked for.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from bonaface.facts import SIDE, Facts
from bonaface.samples import LABELS, SPLITS, Sample

SIMILAR: Final = 0.98  # correlation of fine structure that makes a copy
_BITS: Final = 10  # of 64 that may differ between candidates; all pairs up to 7 are found
_BANDS: Final = 4
_BLANK: Final = 0.5  # standard deviation of the fine structure below which there is none
_CELLS: Final = 1 << 21  # pairs looked at in one go


@dataclass(frozen=True, slots=True)
class Copies:
    """Pictures that are one picture: the same bytes, or nearly the same to look at.

    Attributes:
        kind: "exact" or "near"; exact copies are among the near ones as well.
        paths: sorted.
        splits: that they lie in.
        labels: that they bear.
    """

    kind: Literal["exact", "near"]
    paths: tuple[str, ...]
    splits: tuple[str, ...]
    labels: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class CopySearch:
    """What was found among the rows that were read.

    Attributes:
        copies: every set of exact copies, then of near ones.
        leaking: (n,) bool, has a near copy in another split.
        components: (n,) number of the set of near copies or of the group, whichever is larger.
        pairs: examples of near copies across splits, with their likeness.
        compared: candidates whose thumbnails were compared.
        blank: pictures without any fine structure, which are not compared.
    """

    copies: tuple[Copies, ...]
    leaking: NDArray[np.bool_]
    components: NDArray[np.intp]
    pairs: tuple[str, ...]
    compared: int
    blank: int


def find_copies(facts: Facts) -> CopySearch:
    """Every copy among the rows that were read."""
    n = len(facts.rows)
    fine, spread = fine_structure(facts.thumbnails)
    seen = np.flatnonzero(spread >= _BLANK)
    # Thumbnails that are the same to the bit stand for each other: sets of one repeated picture
    # would have as many pairs as its square.
    keys = [hashlib.blake2b(facts.thumbnails[at].data, digest_size=16).digest() for at in seen]
    _, first, number = np.unique(np.array(keys, "V16"), return_index=True, return_inverse=True)
    chosen = seen[first]
    stand_in = chosen[number]
    splits = np.array([1 << SPLITS.index(row.split) for row in facts.rows], np.int64)
    around = np.zeros(n, np.int64)  # splits of the copies of each that stands for others
    np.bitwise_or.at(around, stand_in, splits[seen])
    own = around.copy()
    edges = [np.stack([seen, stand_in])]
    pairs: list[tuple[float, str]] = []
    compared = 0
    for left, right in candidates(facts.hashes[chosen]):
        compared += len(left)
        likeness = similarity(fine, chosen[left], chosen[right])
        yes = likeness >= SIMILAR
        a, b = chosen[left[yes]], chosen[right[yes]]
        np.bitwise_or.at(around, a, own[b])
        np.bitwise_or.at(around, b, own[a])
        edges.append(np.stack([a, b]))
        for i, j, value in zip(a, b, likeness[yes], strict=True):
            if splits[i] != splits[j] and len(pairs) < 1000:
                pairs.append((float(value), f"{facts.rows[i].path} ~ {facts.rows[j].path}"))
    leaking = np.zeros(n, np.bool_)
    leaking[seen] = (around[stand_in] & ~splits[seen]) != 0
    numbers = _components(n, np.concatenate(edges, axis=1))
    near = _sets(facts, numbers, "near")
    if not pairs:  # what has one thumbnail was not compared
        split = {row.path: row.split for row in facts.rows}
        for one in near:
            if len(one.splits) > 1:
                other = next(p for p in one.paths if split[p] != split[one.paths[0]])
                pairs.append((1.0, f"{one.paths[0]} ~ {other}"))
    exact = np.unique(facts.digests, axis=0, return_inverse=True)[1].reshape(-1) if n else numbers
    groups: dict[str, int] = {}
    members = [(i, row.group) for i, row in enumerate(facts.rows) if row.group is not None]
    linked = [(i, groups.setdefault(group, i)) for i, group in members]
    joined = np.concatenate([*edges, np.array(linked, np.intp).reshape(-1, 2).T], axis=1)
    return CopySearch(
        (*_sets(facts, exact, "exact"), *near),
        leaking,
        _components(n, joined),
        tuple(text for _, text in sorted(pairs, key=lambda pair: (-pair[0], pair[1]))),
        compared,
        n - len(seen),
    )


def _components(n: int, edges: NDArray[np.intp]) -> NDArray[np.intp]:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if n == 0:
        return np.zeros(0, np.intp)
    graph = coo_array((np.ones(edges.shape[1], np.int8), (edges[0], edges[1])), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], np.intp)


def _sets(facts: Facts, numbers: NDArray[np.intp], kind: Literal["exact", "near"]) -> list[Copies]:
    several = np.bincount(numbers)[numbers] > 1 if len(numbers) else np.zeros(0, np.bool_)
    members: dict[int, list[Sample]] = defaultdict(list)
    for at in np.flatnonzero(several):
        members[int(numbers[at])].append(facts.rows[at])
    return [
        Copies(
            kind,
            tuple(sorted(row.path for row in rows)),
            tuple(split for split in SPLITS if any(row.split == split for row in rows)),
            tuple(LABELS[label] for label in sorted({row.label for row in rows})),
        )
        for rows in members.values()
    ]


def candidates(
    hashes: NDArray[np.uint64],
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Pairs of rows whose hashes differ in few bits, each once, some at a time.

    Multi-index hashing (Norouzi et al. 2012): two hashes that differ in at most 7 bits differ in
    at most one bit of one of their four 16-bit bands, so each band is looked up as it is and with
    each of its bits turned. Of pairs that differ in 8 to 10 bits, most are found.
    """
    bands = [(hashes >> np.uint64(16 * band)).astype(np.uint16) for band in range(_BANDS)]
    for band, keys in enumerate(bands):
        order = np.argsort(keys, kind="stable")
        start = np.searchsorted(keys[order], np.arange((1 << 16) + 1))
        for turned in (0, *(1 << bit for bit in range(16))):
            partner = (keys ^ np.uint16(turned)).astype(np.intp)
            # From the side on which the bit is 0, so that a pair comes once.
            rows = np.flatnonzero((keys & turned) == 0) if turned else order
            for left, right in _joined(rows, start[partner[rows]], start[partner[rows] + 1], order):
                keep = _popcount(hashes[left] ^ hashes[right]) <= _BITS
                if turned == 0:
                    keep &= left < right
                found_left, found_right = left[keep], right[keep]
                new = np.ones(len(found_left), np.bool_)
                for earlier in bands[:band]:  # there the pair has been found already
                    new &= _popcount(earlier[found_left] ^ earlier[found_right]) > 1
                if new.any():
                    yield found_left[new], found_right[new]


def _joined(
    rows: NDArray[np.intp],
    begin: NDArray[np.intp],
    end: NDArray[np.intp],
    order: NDArray[np.intp],
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Each of `rows` with each of `order[begin:end]`, at most about `_CELLS` pairs at a time."""
    size = end - begin
    some = size > 0
    rows, begin, size = rows[some], begin[some], size[some]
    total = np.cumsum(size)
    at = 0
    while at < len(rows):
        before = total[at - 1] if at else 0
        stop = max(at + 1, int(np.searchsorted(total, before + _CELLS, side="right")))
        part = size[at:stop]
        offset = np.arange(part.sum()) - np.repeat(np.cumsum(part) - part, part)
        yield np.repeat(rows[at:stop], part), order[np.repeat(begin[at:stop], part) + offset]
        at = stop


def _table_popcount(values: NDArray[Any]) -> NDArray[np.uint8]:
    parts = np.ascontiguousarray(values).view(np.uint8).reshape(*values.shape, -1)
    return np.asarray(_ONES[parts].sum(axis=-1, dtype=np.uint8))


_ONES: Final = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(
    axis=1, dtype=np.uint8
)
_popcount: Callable[[NDArray[Any]], NDArray[Any]] = getattr(np, "bitwise_count", _table_popcount)


def similarity(
    fine: NDArray[np.int8], left: NDArray[np.intp], right: NDArray[np.intp]
) -> NDArray[np.float32]:
    """Correlation, in [-1, 1], of the fine structure of each pair of rows."""
    out = np.empty(len(left), np.float32)
    for at in range(0, len(left), 4096):
        here = slice(at, at + 4096)
        one, other = fine[left[here]].astype(np.float32), fine[right[here]].astype(np.float32)
        norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        out[here] = np.einsum("ij,ij->i", one, other) / np.maximum(norms, 1)
    return out


def fine_structure(
    thumbnails: NDArray[np.uint8],
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """What a narrow blur leaves and a wide one takes away, scaled, and its standard deviation.

    Without the narrow one, copies at 32 px would differ in the noise of their compression.
    """
    fine = np.empty((len(thumbnails), SIDE * SIDE), np.int8)
    spread = np.empty(len(thumbnails), np.float32)
    for at, thumbnail in enumerate(thumbnails):
        plane = thumbnail.astype(np.float32)
        narrow, wide = (
            cv2.GaussianBlur(plane, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
            for sigma in (1.0, 2.5)
        )
        band = np.asarray(narrow - wide).ravel()
        band -= band.mean()
        spread[at] = band.std()
        fine[at] = np.rint(band * (127 / max(float(np.abs(band).max()), 1e-6)))
    return fine, spread
