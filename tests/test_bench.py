"""What is measured is paired, counted and said; how fast anything is, no test looks at."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bonaface import load_detector
from bonaface.bench import arms, machine, measuring
from bonaface.bench.machine import Energy, Machine
from bonaface.bench.measuring import Bench, BenchConfig, bench
from bonaface.bench.rounds import Spread, interleave, ratios
from bonaface.bench.timing import BATCHES, Turn
from bonaface.bundle import load_bundle
from bonaface.drawn import write_drawn_set
from bonaface.errors import BonafaceError, BundleError, ConfigError, MissingExtraError
from bonaface.export import export
from bonaface.report import bench_page, write_bench
from bonaface.samples import load_samples
from networks import bundle_of, make

Make = Callable[..., Path]
FEW = BenchConfig(rounds=2, calls=3, starts=1, threads=1)


class Ticking:
    """Every look at the clock is a second after the one before."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture(autouse=True)
def _small_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "CROP", 24)


def started(patch: pytest.MonkeyPatch) -> list[str]:
    """No processes; the names of the arms that would have been started."""
    begun: list[str] = []

    def start(one: Any, threads: int) -> tuple[float, float | None]:
        begun.append(one.name)
        return float(len(begun)), 100.0

    patch.setattr(measuring, "_start", start)
    return begun


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return started(monkeypatch)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A network as trained, and its export to OpenVINO."""
    root = tmp_path_factory.mktemp("bundles")
    source = bundle_of(make("cnn", size=32), root / "net", exported=True).folder
    assert export(source, "openvino", root / "ov", max_difference=1.0).passed
    return source, root / "ov"


def refused(error: type[BonafaceError], *folders: Path) -> str:
    with pytest.raises(error) as caught:
        bench(folders, FEW)
    message = str(caught.value)
    assert "\n" not in message
    return message


# -- rounds -----------------------------------------------------------------------------------


def test_arms_take_turns_and_the_first_round_is_thrown_away() -> None:
    calls: list[str] = []

    def arm(name: str) -> Callable[[], int]:
        def measure() -> int:
            calls.append(name)
            return len(calls)

        return measure

    found = interleave({"a": arm("a"), "b": arm("b")}, 2)
    assert calls == ["a", "b"] * 3
    assert found == {"a": [3, 5], "b": [4, 6]}


@given(
    st.lists(st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)), min_size=1),
    st.floats(0.1, 10),
)
def test_what_slows_a_whole_round_cancels(pairs: list[tuple[float, float]], slow: float) -> None:
    own, base = zip(*pairs, strict=True)
    before = ratios(own, base)
    after = ratios([slow * own[0], *own[1:]], [slow * base[0], *base[1:]])
    assert after == pytest.approx(before)
    spread = Spread(before)
    assert spread.low <= spread.median <= spread.high


# -- the whole --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(folders: tuple[Path, Path]) -> Bench:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "CROP", 24)
        started(patch)
        return bench(folders, FEW, clock=Ticking())


def test_every_runtime_of_every_bundle_is_held_against_eager(
    whole: Bench, folders: tuple[Path, Path]
) -> None:
    names = [
        "net, PyTorch eager",
        "net, ONNX Runtime",
        "net, OpenVINO",
        "net-openvino, OpenVINO",
    ]
    assert [one.name for one in whole.measured] == names
    # The processes of the first round, one to four, do not count.
    assert [one.start.values for one in whole.measured] == [(5.0,), (6.0,), (7.0,), (8.0,)]
    assert {one.against for one in whole.measured} == {names[0]}
    assert [len(arms) for arms in whole.groups] == [4]
    assert [one.form for one in whole.measured] == ["trained"] * 3 + ["openvino"]
    assert whole.measured[0].moved == 0
    assert 0 < whole.measured[1].moved < 1e-4
    assert whole.measured[0].bytes == (folders[0] / "model.safetensors").stat().st_size
    parts = [folders[1] / name for name in ("model.xml", "model.bin")]
    assert whole.measured[3].bytes == sum(part.stat().st_size for part in parts)


def test_times_are_from_crop_to_logit(whole: Bench) -> None:
    """On this clock a call takes three seconds, of which its network one."""
    for one in whole.measured:
        assert (one.calls, one.p50, one.p95, one.network) == (6, 3000, 3000, 1000)
        assert one.single.values == (3000, 3000)
        assert one.single_ratio.values == (1, 1)
        assert list(one.rates) == list(BATCHES)
        for batch in BATCHES[1:]:
            assert one.rates[batch].values == pytest.approx([64 / (1 + 2 * 64 / batch)] * 2)
        assert one.rates[1].values == pytest.approx([1 / 3] * 2)
        assert one.p99 is None
    assert any("p99 is left out: it needs 200 calls, these are 6" in note for note in whole.notes)


def test_p99_is_there_from_200_calls(make_bundle: Make, starts: list[str]) -> None:
    plan = BenchConfig(rounds=1, calls=200, starts=1, threads=1)
    found = bench([make_bundle()], plan, clock=Ticking())
    assert found.measured[0].p99 == 3000
    assert not any("p99" in note for note in found.notes)


def test_ratios_are_of_the_same_round(make_bundle: Make, starts: list[str]) -> None:
    found = bench([make_bundle()], FEW)
    opened, _ = measuring._open({"a": make_bundle("other")}, 1, Ticking())

    def turns(*seconds: float) -> list[Turn]:
        return [Turn((s,), (s / 2,), dict.fromkeys(BATCHES, 1 / s), None) for s in seconds]

    one = measuring._measured(
        opened[0],
        "b",
        turns(1.0, 10.0, 9.0),
        turns(2.0, 5.0, 9.0),
        [(1.0, None), (3.0, None), (8.0, None)],
        moved=0.0,
        auc=found.measured[0].auc,
    )
    assert one.single_ratio.values == (2.0, 0.5, 1.0)
    assert one.rate_ratios[64].values == pytest.approx((2.0, 0.5, 1.0))
    assert (one.start.median, one.memory, one.joules) == (3.0, None, None)


def test_json_holds_everything_and_no_nan(whole: Bench, tmp_path: Path) -> None:
    card, page = write_bench(whole, tmp_path / "out")
    told = json.loads(card.read_text(), parse_constant=pytest.fail)
    assert told == whole.to_dict() == json.loads(json.dumps(whole.to_dict(), allow_nan=False))
    assert told["schema_version"] == 1
    assert told["settings"] == {"rounds": 2, "calls": 3, "starts": 1, "threads": 1}
    assert [one["name"] for one in told["measured"]] == [one.name for one in whole.measured]
    first = told["measured"][0]
    assert set(first["rates"]) == {"1", "4", "16", "64"}
    assert first["auc"]["value"] == 0.9
    assert first["start"]["values"] == [5.0]
    text = page.read_text()
    assert "<script" not in text
    assert text.count('<svg class="plot"') == 2
    for one in whole.measured:
        assert one.bundle in text
    for note in whole.notes:
        assert note.split("(")[0] in text


def test_the_choices_are_never_slower_without_being_better(whole: Bench) -> None:
    first = whole.measured[0]

    def arm(p50: float, auc: float | None) -> Any:
        return replace(first, p50=p50, auc=replace(first.auc, value=auc))

    found = replace(
        whole, measured=(arm(3, 0.9), arm(1, 0.8), arm(2, 0.7), arm(4, 0.9001), arm(0.5, None))
    )
    assert [one.p50 for one in found.choices] == [1, 3]
    assert "Its AUC is not known" in bench_page(found)
    assert "with AUC 0.800. Most accurate is" in bench_page(
        replace(found, measured=found.measured[:4])
    )


def test_without_the_original_onnx_runtime_is_the_measure(
    folders: tuple[Path, Path], make_bundle: Make, starts: list[str]
) -> None:
    found = bench([folders[1], make_bundle()], FEW)
    against = {one.name: one.against for one in found.measured}
    assert against == {
        "net-openvino, OpenVINO": "net-openvino, OpenVINO",  # the only one of its source
        "brightness, ONNX Runtime": "brightness, ONNX Runtime",
        "brightness, OpenVINO": "brightness, ONNX Runtime",
    }
    assert sum("not to PyTorch eager" in note for note in found.notes) == 2


def test_what_a_runtime_cannot_open_is_left_out(make_bundle: Make, starts: list[str]) -> None:
    folder = make_bundle()
    (folder / "model.safetensors").write_bytes(b"no weights")
    found = bench([folder], FEW)
    assert "pytorch" not in {one.runtime for one in found.measured}
    assert any("brightness, PyTorch eager is left out: " in note for note in found.notes)


def test_same_names_are_told_apart_by_their_folders(make_bundle: Make, starts: list[str]) -> None:
    found = bench([make_bundle("a"), make_bundle("b")], FEW)
    assert len({one.bundle for one in found.measured}) == 2


def test_threads_of_pytorch_are_put_back(folders: tuple[Path, Path], starts: list[str]) -> None:
    before = torch.get_num_threads()
    bench(folders[:1], FEW.model_copy(update={"threads": before + 1}))
    assert torch.get_num_threads() == before


def test_data_are_scored_by_every_runtime(
    make_bundle: Make, starts: list[str], tmp_path: Path
) -> None:
    write_drawn_set(tmp_path / "faces", {"train": 1, "validation": 1, "test": 6}, seed=1, size=24)
    broken = next((tmp_path / "faces" / "test" / "real").iterdir())
    broken.write_bytes(b"none")
    samples = load_samples(tmp_path / "faces")
    found = bench([make_bundle()], FEW, samples=samples)
    assert found.data is not None
    assert (found.data["name"], found.data["split"]) == ("faces", "test")
    assert found.unreadable == 1
    assert "measured here" in found.accuracy
    assert len(found.measured) == 2
    for one in found.measured:
        assert one.auc.n == len(samples.split("test")) - 1
    assert not any("flatters" in note for note in found.notes)


# -- processes --------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", ["onnxruntime", "pytorch"])
def test_a_process_of_its_own_tells_its_start_and_memory(
    folders: tuple[Path, Path], runtime: str
) -> None:
    opened, _ = measuring._open({"net": folders[0]}, 1, Ticking())
    (one,) = [one for one in opened if one.arm.runtime == runtime]
    seconds, peak = measuring._start(one, 1)
    assert seconds > 0
    assert peak is None or (math.isfinite(peak) and peak > 1)


def test_a_process_that_fails_says_why(make_bundle: Make) -> None:
    folder = make_bundle()
    opened, _ = measuring._open({"net": folder}, 1, Ticking())
    (folder / "model.onnx").unlink()
    with pytest.raises(BundleError, match=r"first score of 'net, ONNX Runtime'.*model\.onnx"):
        measuring._start(opened[0], 1)


# -- refusals ---------------------------------------------------------------------------------


def test_wrong_bundles_are_refused(make_bundle: Make, tmp_path: Path) -> None:
    folder = make_bundle()
    assert "at least one bundle" in refused(ConfigError)
    assert "twice" in refused(ConfigError, folder, folder / ".." / folder.name)
    assert "expected a bundle" in refused(BundleError, tmp_path / "nothing")


def test_an_openvino_bundle_needs_openvino(
    folders: tuple[Path, Path], starts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert "bonaface[openvino]" in refused(MissingExtraError, folders[1])


def test_runtimes_that_are_not_installed_are_no_arms(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arms, "find_spec", lambda name: None)
    found = arms.arms_of([load_bundle(folders[0])])
    assert [arm.runtime for arm in found] == ["onnxruntime"]


# -- one door ---------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", list(arms.TITLES))
def test_all_runtimes_give_the_scores_of_detect(folders: tuple[Path, Path], runtime: Any) -> None:
    crops = [np.random.default_rng(i).integers(0, 256, (40, 36, 3), np.uint8) for i in range(5)]
    detector, watch = arms.open_arm(arms.Arm(load_bundle(folders[0]), runtime), 1)
    wanted = load_detector(folders[0]).score(crops)
    np.testing.assert_allclose(detector.score(crops), wanted, atol=0.02)  # OpenVINO may use bf16
    np.testing.assert_array_equal(detector.logits(crops, batch=5), detector.logits(crops, batch=16))
    assert watch.seconds > 0


# -- the machine ------------------------------------------------------------------------------


def test_a_machine_is_busy_with_a_quarter_of_its_cores() -> None:
    loads = {None: False, 0.0: False, 0.9: False, 1.1: True}
    for load, busy in loads.items():
        assert Machine(None, 4, load, "", {}).busy is busy


def test_a_busy_machine_is_told(
    make_bundle: Make, starts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = Machine("one", 2, 7.0, "", {})
    monkeypatch.setattr(measuring, "this_machine", lambda _: busy)
    found = bench([make_bundle()], FEW)
    assert "busy when this began: load 7.0 on 2 cores" in found.notes[0]


def zone(root: Path, name: str, value: int, wrap: int = 1_000_000) -> None:
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "energy_uj").write_text(f"{value}\n")
    (folder / "max_energy_range_uj").write_text(f"{wrap}\n")


def test_energy_is_that_of_all_packages_and_counters_wrap(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", 900_000)
    zone(tmp_path, "intel-rapl:1", 100_000)
    zone(tmp_path, "intel-rapl:0:0", 5)  # a part of the first
    energy = Energy(tmp_path)
    assert energy.reason is None
    before = energy.read()
    zone(tmp_path, "intel-rapl:0", 100_000)
    zone(tmp_path, "intel-rapl:1", 400_000)
    assert energy.used(before, energy.read()) == pytest.approx(0.5)


def test_energy_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    energy = Energy(tmp_path)
    assert "there is no" in str(energy.reason)
    assert energy.used(energy.read(), energy.read()) is None
    zone(tmp_path, "intel-rapl:0", 1)
    (tmp_path / "intel-rapl:0" / "max_energy_range_uj").unlink()
    assert "only the administrator" in str(Energy(tmp_path).reason)


def test_memory_is_known_here() -> None:
    peak = machine.peak_memory()
    assert peak is None or peak > 1
