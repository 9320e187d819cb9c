"""The same scan on a Ray cluster of two nodes, of which one is lost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bonaface.judging import Wishes
from bonaface.scan import ScanWatch, scan
from bonaface.scan.rows import TIMINGS, Job, Scanner
from bonaface.scan.sources import Item, find_items
from scanned import read, write_pictures

ray = pytest.importorskip("ray")

pytestmark = pytest.mark.ray


@pytest.fixture
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    wishes = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    try:
        found = Cluster(initialize_head=True, head_node_args=wishes)
    except Exception as error:  # its processes have 15 seconds to come up
        ray.shutdown()
        pytest.skip(f"Ray does not start here: {error}")
    try:
        ray.init(address=found.address, log_to_driver=False)
        yield found
    finally:
        ray.shutdown()
        found.shutdown()


def test_an_actor_gives_the_rows_of_a_chunk(
    make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    from bonaface.scan.onray import _Actor

    root = write_pictures(tmp_path / "in", 10)
    odd = Item("file", str(tmp_path / "\udc80.png"))  # a name that is no UTF-8
    items = [*find_items(str(root)), odd]
    job = Job(make_bundle(), Wishes("none"))
    batch = {
        "number": np.array([3]),
        "items": np.array([json.dumps([asdict(item) for item in items])]),
    }
    found = _Actor(job)(batch)
    assert found["number"] == [3]
    scanner = Scanner(job)
    for rows, item in zip(json.loads(found["rows"][0]), items, strict=True):
        expected = scanner.rows(item)
        assert [without(row) for row in rows] == [without(row) for row in expected]


def without(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in TIMINGS}


def test_a_lost_node_loses_no_row(
    cluster: Any, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    node = cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    cluster.wait_for_nodes()

    class LoseANode(ScanWatch):
        def judged(self, done: int, total: int, counts: Counter[str]) -> None:
            nonlocal node
            if node is not None and done >= 40:
                cluster.remove_node(node, allow_graceful=False)
                node = None

    root, bundle = write_pictures(tmp_path / "in", 160), make_bundle()
    wishes: dict[str, Any] = {"faces": "none", "chunk": 8}
    out = tmp_path / "out.parquet"
    found = scan([str(root)], bundle, out, engine="ray", workers=2, watch=LoseANode(), **wishes)
    assert node is None
    assert found.judged == 160
    scan([str(root)], bundle, tmp_path / "local.parquet", workers=1, **wishes)
    assert read(out) == read(tmp_path / "local.parquet")
