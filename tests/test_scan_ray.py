"""The same scan on a Ray cluster of two nodes, of which one is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bonaface.scan import ScanWatch, scan
from scanning import read, write_pictures

ray = pytest.importorskip("ray")

pytestmark = pytest.mark.ray


@pytest.fixture
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    wishes = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    found = Cluster(initialize_head=True, head_node_args=wishes)
    try:
        ray.init(address=found.address, log_to_driver=False)
        yield found
    finally:
        ray.shutdown()
        found.shutdown()


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
