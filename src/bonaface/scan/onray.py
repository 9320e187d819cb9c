"""The engine for a cluster: Ray Data deals the chunks to an actor pool of detectors.

Ray judges the chunks of a node that is lost on another one. What the driver was told and has
committed is done, so it makes no difference to the result which actor judged what, nor how often.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from typing import Any, Final

from bonaface.errors import MissingExtraError
from bonaface.scan.plan import Chunk
from bonaface.scan.rows import Job, Scanner
from bonaface.scan.sources import Item
from bonaface.scan.workers import Judged, Told

try:
    import ray
except ImportError as error:
    raise MissingExtraError("--engine ray", "scale") from error

_TOGETHER: Final = 2048  # chunks that Ray is given at a time: what the driver holds of the plan


class Cluster:
    """Judges chunks on the Ray cluster that `RAY_ADDRESS` names, or on one begun here.

    Bundle and sources must be reachable under the same names from every node.

    Args:
        job: what is judged with.
        workers: actors, each with one core; None: one for each core of the cluster.
    """

    def __init__(self, job: Job, workers: int | None) -> None:
        self._job = job
        self._workers = workers
        self.replaced = 0  # Ray does not tell

    def judged(self, chunks: Iterator[Chunk], told: Told) -> Iterator[Judged]:
        """As `Pool.judged`."""
        while some := {chunk.number: chunk for chunk in islice(chunks, _TOGETHER)}:
            for number, found in self._results(dict(some)):
                chunk = some.pop(number, None)
                if chunk is None:  # judged again after a node was lost; the first counts
                    continue
                for rows in found:
                    told(rows)
                yield chunk, found

    def _results(self, chunks: dict[int, Chunk]) -> Iterator[tuple[int, Any]]:
        """The rows of each chunk at least once; the only place that knows of Ray."""
        if not ray.is_initialized():
            ray.init(log_to_driver=False, include_dashboard=False)
        size = self._workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        size = min(size, len(chunks))
        rows = [
            {"number": number, "items": json.dumps([asdict(item) for _, item in chunk.items])}
            for number, chunk in chunks.items()
        ]
        # One chunk a block, so that one is lost with a node and no more.
        dealt = ray.data.from_items(rows, override_num_blocks=len(rows))
        judged = dealt.map_batches(
            _Actor,
            fn_constructor_args=(self._job,),
            batch_size=1,
            num_cpus=1,
            compute=ray.data.ActorPoolStrategy(size=size),
        )
        for row in judged.iter_rows():
            yield int(row["number"]), json.loads(row["rows"])


class _Actor:
    """A detector on some node."""

    def __init__(self, job: Job) -> None:
        self._scanner = Scanner(job)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        (number,), (items,) = batch["number"], batch["items"]
        found = [self._scanner.rows(Item(**item)) for item in json.loads(items)]
        return {"number": [number], "rows": [json.dumps(found)]}
