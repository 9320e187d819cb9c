import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, nn

from bonaface import training
from bonaface.batches import Batches, open_cache
from bonaface.bundle import load_bundle
from bonaface.config import TrainConfig
from bonaface.detector import Detector
from bonaface.devices import SharedBatchNorm, open_fabric, start
from bonaface.drawn import write_drawn_set
from bonaface.errors import ConfigError, TrainingError
from bonaface.images import read_image
from bonaface.preprocess import Preprocess
from bonaface.samples import load_samples
from bonaface.training import train

# No dropout, whose masks differ between processes; plain SGD, which does not magnify rounding.
CONFIG = TrainConfig(
    model="cnn", size=32, epochs=3, batch_size=9, precision="float32", augment="robust",
    dropout=0, optimizer="sgd", lr=0.01, seed=5,
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "data"
    write_drawn_set(folder, {"train": 20, "validation": 50, "test": 2}, seed=1, size=40)
    return folder


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    """A run of one process."""
    out = tmp_path_factory.mktemp("alone") / "run"
    train(data, out, CONFIG)
    return out


def command(data, out, *more):
    settings = [
        part
        for key, value in CONFIG.model_dump(exclude_none=True, exclude_defaults=True).items()
        for part in (f"--{key.replace('_', '-')}", str(value))
    ]
    return [sys.executable, "-m", "bonaface", "train", str(data), "--out", str(out), *settings,
            "--devices", "2", *more]  # fmt: skip


def history(out):
    with (out / "training" / "history.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name.startswith(("train_", "validation_"))]
    return np.array([[float(row[name]) for name in names] for row in rows])


def scores(out, data):
    """Validation logits by path."""
    samples = load_samples(data).split("validation")
    crops = [read_image(samples.absolute(row)).pixels for row in samples.rows]
    logits = Detector(load_bundle(out)).logits(crops)
    return dict(zip((row.path for row in samples.rows), logits.tolist(), strict=True))


def assert_alike(one, two, data):
    np.testing.assert_allclose(history(two), history(one), rtol=1e-5, atol=1e-5)
    expected = scores(one, data)
    assert scores(two, data) == pytest.approx(expected, abs=1e-5)
    assert np.std(list(expected.values())) > 0.005  # far more than the tolerance


def test_two_processes_learn_what_one_does(data, alone, tmp_path):
    """Also where a batch is odd, and where the parts of validation differ in number."""
    done = subprocess.run(
        command(data, tmp_path / "two"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Kept epoch") == 1  # one of them speaks
    assert done.stderr.count("epoch   3") == 1
    assert_alike(alone, tmp_path / "two", data)
    card = load_bundle(tmp_path / "two").card
    assert card.training["processes"] == 2


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="only Linux tells the children")
def test_a_run_goes_on_with_other_processes(data, alone, tmp_path, monkeypatch):
    """Stopped within an epoch with one; one of two killed later; ended with one."""

    class Stop(training.Watch):
        def stepped(self, epoch, step, steps, loss, images):
            if (epoch, step) == (1, 3):
                raise KeyboardInterrupt

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(training, "_SAVE_SECONDS", 0.0)  # after each step
        with pytest.raises(KeyboardInterrupt):
            train(data, out, CONFIG, watch=Stop())
    with subprocess.Popen(
        command(data, out, "--resume"), stderr=subprocess.PIPE, text=True
    ) as running:
        while not (out / "training" / "history.csv").is_file():  # after the first epoch
            assert running.poll() is None
            time.sleep(0.02)
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
        os.kill(int(children.read_text(encoding="ascii").split()[1]), signal.SIGKILL)
        said = running.communicate()[1]
    assert running.returncode == 2
    last = said.splitlines()[-1]
    assert last.startswith("bonaface: expected 2 processes to go on, got process ")
    assert last.endswith("go on with --resume")
    assert not (out / "card.json").exists()
    train(data, out, CONFIG, resume=True)
    assert_alike(alone, out, data)


def test_a_checkpoint_is_written_within_a_long_epoch(data, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_SAVE_SECONDS", 0.0)

    class Lost(training.Watch):
        def stepped(self, epoch, step, steps, loss, images):
            if step == 3:
                raise SystemExit

    with pytest.raises(SystemExit):
        train(data, tmp_path / "run", CONFIG, watch=Lost())
    assert (tmp_path / "run" / "training" / "last.safetensors").is_file()


@pytest.mark.parametrize("balance", [None, "batches"])
@pytest.mark.parametrize("size", [2, 3])
def test_processes_share_each_batch(data, tmp_path, size, balance):
    cache = open_cache(load_samples(data), Preprocess(size=32), root=tmp_path)
    chosen = np.array([i for i, row in enumerate(cache.rows) if row.split == "train"])[:-3]

    def batches(share):
        return Batches(
            cache, chosen, Preprocess(size=32), 7, augment="robust", balance=balance, seed=3,
            share=share,
        )  # fmt: skip

    whole = list(batches((0, 1)).shuffled(epoch=1, start=1))
    parts = [list(batches((rank, size)).shuffled(epoch=1, start=1)) for rank in range(size)]
    for step, batch in enumerate(whole):
        assert {part[step].whole for part in parts} == {len(batch.rows)}
        for rank, part in enumerate(parts):
            assert torch.equal(part[step].images, batch.images[rank::size])
            assert torch.equal(part[step].labels, batch.labels[rank::size])
    in_order = [row for batch in batches((0, 1)).in_order() for row in batch.rows]
    shared = [
        row for rank in range(size) for batch in batches((rank, size)).in_order()
        for row in batch.rows
    ]  # fmt: skip
    assert sorted(shared) == in_order


def test_more_processes_than_pictures_in_a_batch(data, tmp_path):
    cache = open_cache(load_samples(data), Preprocess(size=32), root=tmp_path)
    with pytest.raises(ConfigError, match="at least 4 pictures, one for each process, got 3"):
        Batches(cache, np.arange(9), Preprocess(size=32), 3, share=(0, 4))


@pytest.fixture
def group(tmp_path):
    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shared_batch_norm_is_batch_norm(group, dtype):
    generator = torch.Generator().manual_seed(0)
    inputs = (3 + 2 * torch.randn(6, 4, 5, 5, generator=generator)).to(dtype)
    upstream = torch.randn(6, 4, 5, 5, generator=generator).to(dtype)
    norms = [kind(4, momentum=0.3) for kind in (nn.BatchNorm2d, SharedBatchNorm)]
    found = []
    for norm in norms:
        with torch.no_grad():
            norm.weight.copy_(torch.linspace(0.5, 2, 4))
            norm.bias.copy_(torch.linspace(-1, 1, 4))
        x = inputs.clone().requires_grad_()
        y = norm(x)
        y.backward(upstream)
        assert y.dtype == dtype
        found.append([y, x.grad, norm.weight.grad, norm.bias.grad, *norm.buffers()])
        assert torch.equal(norm.eval()(inputs), norms[0].eval()(inputs)) or norm is norms[1]
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(two.float(), one.float(), rtol=tolerance, atol=tolerance)


def test_more_devices_than_a_machine_has(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="--devices of at most 1"):
        open_fabric("float32", devices=2)


def test_several_nodes_need_what_starts_processes():
    with pytest.raises(ConfigError, match="expected torchrun or srun"):
        open_fabric("float32", devices=1, nodes=2)


def test_other_numbers_than_torchrun_has(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match="to be 4, the processes that torchrun started, got 1"):
        open_fabric("float32")


def test_the_exit_code_of_one_that_failed():
    fails = "import os, sys, time; sys.exit(3) if os.environ['RANK'] == '1' else time.sleep(60)"
    assert start([sys.executable, "-c", fails], 2) == 3


def test_one_that_was_killed_is_named():
    dies = (
        "import os, time; os.kill(os.getpid(), 9) if os.environ['RANK'] == '1' else time.sleep(60)"
    )
    with pytest.raises(TrainingError, match="got process 2 ended by SIGKILL"):
        start([sys.executable, "-c", dies], 2)


def test_processes_end_with_the_one_that_started_them():
    child = (
        "from bonaface import devices; devices.end_with_parent(); print('on', flush=True); "
        "devices.time.sleep(30); print('still on')"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout.readline() == "on\n"
        running.kill()
        assert not running.stdout.read()  # to the end of the child
