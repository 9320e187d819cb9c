"""The benchmarks run and say what they should; how fast anything is, no test looks at."""

from __future__ import annotations

import importlib
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bonaface.bench.rounds import ratios
from bonaface.bundle import load_bundle

FOLDER = Path(__file__).parents[1] / "benchmarks"

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="not in a checkout")


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module


def check(rows: list[Any]) -> dict[str, Any]:
    """Numbers are finite and positive, a ratio has a baseline that is a row; by its words."""
    said = {row.what for row in rows}
    for row in rows:
        assert row.values
        assert all(math.isfinite(value) and value >= 0 for value in row.values)
        assert bool(row.against) == bool(row.ratios)
        if row.against and "samples" not in row.against:
            assert row.against in said
            assert len(row.ratios) == len(row.values)
        written = row.to_dict()
        assert written["n"] == len(row.values)
        assert written["value_min"] <= written["value"] <= written["value_max"]
    return {row.what: row for row in rows}


def test_a_ratio_is_the_median_of_rounds_not_of_medians(load: Callable[[str], Any]) -> None:
    table = load("table")
    values, baseline = (1.0, 10.0, 9.0), (2.0, 5.0, 9.0)
    row = table.Row("p", "w", "s", values, "b", ratios(values, baseline), "1 or more")
    written = row.to_dict()
    assert (written["value"], written["ratio"]) == (9.0, 1.0)
    assert (written["ratio_min"], written["ratio_max"]) == (0.5, 2.0)
    assert table.as_markdown([row]).count("\n") == 3
    assert "| p | w | 9.00 s | 1.00-10.00 | 3 | 1.00 | 0.50-2.00 | b | 1 or more |" in (
        table.as_markdown([row])
    )


def test_photos(load: Callable[[str], Any], tmp_path: Path) -> None:
    rows = load("photos").measure(tmp_path, megapixels=(1,), rounds=2)
    found = check(rows)
    assert list(found) == ["Detector.detect", "decode", "find", "cut", "score"]
    assert all(len(row.values) == 2 for row in rows)


def test_following(load: Callable[[str], Any], tmp_path: Path) -> None:
    rows = load("following").measure(tmp_path, seconds=1, rounds=1)
    found = check(rows)
    assert 0 <= found["frames dropped, of 25 a second"].values[0] < 100
    assert found["lag, p95"].values[0] >= found["lag, p50"].values[0]


def test_training_rate(load: Callable[[str], Any], tmp_path: Path) -> None:
    part = load("training_rate")
    rows = part.measure(tmp_path, size=32, batch_size=4, steps=3, rounds=2, source=48)
    assert [len(row.values) for row in rows] == [2] * len(rows)
    check(rows)
    goals = [row for row in rows if row.goal]
    assert [(row.what, row.against) for row in goals] == [
        ("our batches", "model alone, data in memory"),
        ("our batches, 0.3 forged", "model alone, data in memory"),
    ]
    compared = {row.against for row in rows if row.what == "our batches"}
    assert compared == {"model alone, data in memory", "PIL Dataset + DataLoader"}


def test_the_plain_way_sees_the_same_pictures(load: Callable[[str], Any], tmp_path: Path) -> None:
    import numpy as np

    from bonaface.batches import Batches, open_cache
    from bonaface.preprocess import Preprocess
    from bonaface.samples import load_samples

    load("pictures").write_tree(
        tmp_path / "data", load("pictures").jpegs(3, 48), {"train": 6, "validation": 2}
    )
    samples = load_samples(tmp_path / "data").split("train")
    preprocess = Preprocess(32)
    plain = load("training_rate").PlainDataset(samples, preprocess, "none")
    cache = open_cache(samples, preprocess, root=tmp_path / "cache")
    ours = next(Batches(cache, np.arange(6), preprocess, 6).in_order())
    for at in range(6):
        image, label = plain[at]
        np.testing.assert_allclose(image.numpy(), ours.images[at].numpy(), atol=1e-5)
        assert label == ours.labels[at]


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="only Linux tells")
def test_memory_use(load: Callable[[str], Any], tmp_path: Path) -> None:
    rows = check(load("memory_use").measure(tmp_path, few=40, many=80, size=16))
    for count in ("40", "80"):
        total = rows[f"peak resident, {count} samples"].values[0]
        # Anonymous and file-backed peaks need not come at the same time.
        assert rows[f"peak anonymous, {count} samples"].values[0] <= total
        assert total > 10
    for phase in ("read", "decode", "epoch"):
        assert f"anonymous, per further sample, {phase}" in rows


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="only Linux tells")
def test_the_memory_sampler_sees_memory_that_came_and_went() -> None:
    # In a process of its own: what other tests leave behind comes and goes too.
    script = """
import time
import numpy as np
from memory_use import Sampler
sampler = Sampler()
with sampler.phase("small"):
    pass
with sampler.phase("large"):
    taken = np.ones(64 << 20, np.uint8)
    time.sleep(0.2)
    del taken
print(sampler.phases["large"]["anonymous"] - sampler.phases["small"]["anonymous"])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=FOLDER, check=True, capture_output=True, text=True
    )
    assert 60 < float(done.stdout) < 80


def test_startup(
    load: Callable[[str], Any],
    make_bundle: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundle = load_bundle(make_bundle())
    startup = load("startup")
    monkeypatch.setattr(startup, "untrained", lambda *_: (bundle, None))
    rows = check(startup.measure(tmp_path, rounds=1))
    assert rows["bonaface detect, one crop"].against == "import onnxruntime"
    assert rows["bonaface --help"].goal == "under 0.4 s"
    assert len(rows) == 12
    assert rows["bonaface --help, processor time"].against == "python -c pass, processor time"


def test_detector_speed(load: Callable[[str], Any], tmp_path: Path) -> None:
    speed = load("detector_speed")
    rows = check(speed.measure(tmp_path / "d", size=32, rounds=1, calls=2, source=48))
    assert {row.unit for row in rows.values()} == {"ms", "crops/s"}


def test_a_process_that_fails_is_no_measurement(load: Callable[[str], Any]) -> None:
    with pytest.raises(RuntimeError, match="exit code 3"):
        load("startup")._run([sys.executable, "-c", "raise SystemExit(3)"], [])


def test_every_mode_names_parameters_that_exist(load: Callable[[str], Any]) -> None:
    import inspect

    run = load("run")
    for parts in (run.QUICK, run.DEFAULT, run.FULL):
        for measure, settings in parts.values():
            inspect.signature(measure).bind(Path(), **settings)
    assert set(run.QUICK) == set(run.DEFAULT) < set(run.FULL)


def test_decoding(load: Callable[[str], Any], tmp_path: Path) -> None:
    rows = check(load("decoding").measure(tmp_path, count=20, size=32, rounds=2))
    one, every, stream, streams = rows.values()
    assert every.against == stream.against == one.what
    assert streams.against == every.what
    assert len(every.ratios) == len(streams.ratios) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "shards"]


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="only Linux tells")
def test_auditing(load: Callable[[str], Any], tmp_path: Path) -> None:
    rows = check(load("auditing").measure(tmp_path, few=40, many=80, size=32))
    for count in ("40", "80"):
        assert {f"read, {count} samples", f"judge, {count} samples"} <= set(rows)
        assert rows[f"peak anonymous, {count} samples"].values[0] > 10
    assert rows["judge, 80 samples"].against == "40 samples"
    assert len(list(tmp_path.glob("80/*/*/*.jpg"))) == 80


def test_stressing(load: Callable[[str], Any], tmp_path: Path) -> None:
    rows = check(load("stressing").measure(tmp_path, count=4, size=32, corruptions=("jpeg",)))
    assert [row.unit for row in rows.values()] == ["s", "s"]
    assert "scored 13 times as they are" in rows


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").is_file(), reason="only Linux tells")
def test_scanning(load: Callable[[str], Any], tmp_path: Path) -> None:
    rows = check(load("scanning").measure(tmp_path, few=8, many=12, kills=1, rounds=1, size=32))
    assert rows["scan, 1 workers"].goal == "0.85 or more"
    assert rows["peak of all processes, 8 pictures"].values[0] > 50
    assert rows["rows that differ after 1 kills, 12 pictures"].values == (0.0,)


def test_serving_reads_what_the_load_tool_wrote(load: Callable[[str], Any]) -> None:
    serving = load("serving")
    lines = [f"{at * 100_000}\t200\t{1000 * at}" for at in range(1, 101)]
    found = serving.read_log("\n".join([*lines, "200000\t503\t2000"]), 120)
    assert (found.sent, found.rate(503)) == (120, pytest.approx(1 / found.seconds))
    assert found.seconds == pytest.approx(10.0 - 0.001, abs=0.1)
    assert [found.percentile(share) for share in (0.5, 0.99, 1.0)] == [50, 99, 100]
    assert math.isinf(found.percentile(0.5, 429))
    assert serving.read_log("").sent == 0


@pytest.mark.parametrize("rate", [0.3, 7.0, 33.0, 199.0, 450.0, 2000.0])
def test_serving_keeps_a_rate(load: Callable[[str], Any], rate: float) -> None:
    together, period = load("serving").pace(rate)
    assert 1000 * together / period == pytest.approx(rate, rel=0.1)
    assert together == 1 or rate > 200


def test_serving_counts_what_came_at_random(load: Callable[[str], Any]) -> None:
    serving = load("serving")
    calm = serving.Load(10.0, 21, {200: [100.0] * 19 + [200.0], 503: [50.0]})
    over = serving.Load(10.0, 4, {200: [300.0], 503: [60.0] * 2})
    assert (calm.unanswered, over.unanswered) == (0, 1)
    rows = check(serving._by_chance("photo", calm, over))
    assert rows["3x overload, at random, p99 of the accepted"].ratios == (1.5,)
    assert rows["70% load, at random, answered 503"].values == (1 / 21,)
    assert rows["3x overload, at random, not answered"].values == (1,)


def test_serving_compares_halves_and_counts_losses(load: Callable[[str], Any]) -> None:
    serving = load("serving")
    rows = check(serving.halves([500.0, *[100.0] * 9, *[150.0] * 10], "memory"))
    assert rows["anonymous, second half, median"].ratios == (1.5,)
    answers = [(0.0, 1.0, 200), (1.0, 3.0, 0), (1.5, 3.0, 200), (2.5, 3.0, 200), (2.5, 2.6, 503)]
    rows = check(serving.told_of_kill(answers, 2.0, 0.5))
    assert rows["under way at the kill, of both workers"].values == (2,)
    assert rows["lost, sent before the kill"].values == (1,)
    assert rows["lost, sent after it"].values == (0,)
    assert rows["told to come again (503)"].values == (1,)


def test_arrivals_agree_with_erlang(
    load: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody waits at all, Erlang's loss formula says how many are refused."""
    arrivals = load("arrivals")
    monkeypatch.setattr(arrivals, "WAIT", 0.0)
    refused, middle, high = arrivals.simulate(0.7, 0.1, 2, 0, 40_000)
    offered = 0.7 * 2
    blocked = offered**2 / 2 / (1 + offered + offered**2 / 2)
    assert refused == pytest.approx(blocked, abs=0.01)
    assert 0.085 <= middle <= high <= 0.115
    monkeypatch.setattr(arrivals, "WAIT", 0.05)
    assert arrivals.simulate(0.7, 0.1, 2, 2, 10_000)[0] < 0.1
