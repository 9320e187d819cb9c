import csv
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score

import portraits
from bonaface import batches, checkpoints, streaming, training
from bonaface.bundle import load_bundle
from bonaface.config import TrainConfig
from bonaface.crops import RECIPE_FILE, CropRecipe
from bonaface.detector import Detector
from bonaface.devices import open_fabric
from bonaface.drawn import write_drawn_set
from bonaface.errors import ConfigError, DataError, TrainingError
from bonaface.faces import Face, open_finder
from bonaface.files import write_json
from bonaface.images import read_image
from bonaface.models import registry
from bonaface.samples import load_samples
from bonaface.sharding import shard_set
from bonaface.training import Watch, schedule, train

# Float32, with dropout and random augmentation, so that every source of chance is in play.
CONFIG = TrainConfig(
    model="cnn", size=32, epochs=3, batch_size=8, precision="float32", augment="robust", seed=5
)


class Stop(BaseException):
    """Ends a run before its export, which the tests of resuming do not need."""


class Until(Watch):
    """Does something at one step of one epoch."""

    def __init__(self, epoch, step, action):
        self.at, self.action = (epoch, step), action

    def stepped(self, epoch, step, steps, loss, images):
        if (epoch, step) == self.at:
            self.action()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "data"
    write_drawn_set(folder, {"train": 20, "validation": 8, "test": 4}, seed=1, size=40)
    return folder


@pytest.fixture
def no_export(monkeypatch):
    monkeypatch.setattr(training, "_finish", lambda run, state: state)


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_finish", lambda run, state: state)
        train(data, out, CONFIG)
    return out


def assert_same_run(one: Path, two: Path):
    for name in ("last", "best"):
        first = load_file(one / "training" / f"{name}.safetensors")
        second = load_file(two / "training" / f"{name}.safetensors")
        assert first.keys() == second.keys()
        for key, value in first.items():
            assert torch.equal(value, second[key]), (name, key)
    drop = ("seconds", "images_per_second")
    tables = []
    for out in (one, two):
        with (out / "training" / "history.csv").open(newline="") as file:
            tables.append(
                [{k: v for k, v in r.items() if k not in drop} for r in csv.DictReader(file)]
            )
    assert tables[0] == tables[1]
    assert len(tables[0]) == CONFIG.epochs


def test_same_seed_same_weights(data, uninterrupted, tmp_path, no_export):
    train(data, tmp_path / "run", CONFIG, workers=3)
    assert_same_run(uninterrupted, tmp_path / "run")


def test_other_seed_other_weights(data, uninterrupted, tmp_path, no_export):
    train(data, tmp_path / "run", CONFIG.model_copy(update={"seed": 6, "epochs": 1}))
    first = load_file(uninterrupted / "training" / "last.safetensors")
    second = load_file(tmp_path / "run" / "training" / "last.safetensors")
    assert not torch.equal(first["model.features.0.0.weight"], second["model.features.0.0.weight"])


@pytest.mark.parametrize("where", [(1, 1), (2, 3), (3, 5)])
def test_ctrl_c_then_resume_is_bit_equal(data, uninterrupted, tmp_path, no_export, where):
    press = Until(*where, lambda: os.kill(os.getpid(), signal.SIGINT))
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "run", CONFIG, watch=press)
    assert signal.getsignal(signal.SIGINT) is before
    train(data, tmp_path / "run", CONFIG, resume=True)
    assert_same_run(uninterrupted, tmp_path / "run")


def test_killed_then_resumed_is_bit_equal(data, uninterrupted, tmp_path, no_export):
    script = f"""
import os, signal, sys
from pathlib import Path
from bonaface.config import TrainConfig
from bonaface.training import Watch, train
class Kill(Watch):
    def stepped(self, epoch, step, steps, loss, images):
        if (epoch, step) == (2, 2):
            os.kill(os.getpid(), signal.SIGKILL)
train(Path({str(data)!r}), Path({str(tmp_path / "run")!r}),
      TrainConfig(**{CONFIG.model_dump()!r}), watch=Kill())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, timeout=120
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-500:]
    train(data, tmp_path / "run", CONFIG, resume=True)
    assert_same_run(uninterrupted, tmp_path / "run")


def test_full_disk_leaves_a_checkpoint_to_resume(
    data, uninterrupted, tmp_path, no_export, monkeypatch
):
    write, calls = checkpoints.save_file, []

    def full(tensors, path, about):
        calls.append(path)
        write(tensors, path, about)
        if len(calls) == 3:
            Path(path).write_bytes(Path(path).read_bytes()[:1000])
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_file", full)
        with pytest.raises(TrainingError, match="No space left.*--resume"):
            train(data, tmp_path / "run", CONFIG)
    assert not list((tmp_path / "run" / "training").glob(".*"))
    train(data, tmp_path / "run", CONFIG, resume=True)
    assert_same_run(uninterrupted, tmp_path / "run")


def test_full_disk_outside_checkpoints_is_one_line_too(data, tmp_path, no_export, monkeypatch):
    def full(folder, history):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(training, "write_history", full)
    with pytest.raises(TrainingError, match="No space left.*--resume"):
        train(data, tmp_path / "run", CONFIG)


def test_momentum_and_balanced_batches_resume_bit_equal_too(data, tmp_path, no_export):
    config = CONFIG.model_copy(update={"optimizer": "sgd", "balance": "batches"})
    train(data, tmp_path / "whole", config)
    press = Until(2, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "run", config, watch=press)
    train(data, tmp_path / "run", config, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_wrong_setting_does_not_take_the_folder(data, tmp_path, no_export):
    for wrong in ({"size": 33}, {"augment": "nonsense"}, {"model": "nonsense"}):
        with pytest.raises(ConfigError):
            train(data, tmp_path / "run", CONFIG.model_copy(update=wrong))
    train(data, tmp_path / "run", CONFIG.model_copy(update={"epochs": 1}))


def test_test_pictures_are_not_opened(data, tmp_path, no_export, monkeypatch):
    opened = []

    def reading(path, *rest):
        opened.append(path)
        return read_image(path, *rest)

    monkeypatch.setenv("BONAFACE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(batches, "read_image", reading)
    train(data, tmp_path / "run", CONFIG.model_copy(update={"epochs": 1}))
    assert len(opened) == 2 * (20 + 8)
    assert not any("test" in path.relative_to(data).parts for path in opened)


def test_damaged_checkpoint_is_refused(data, tmp_path, no_export):
    train(data, tmp_path / "run", CONFIG.model_copy(update={"epochs": 1}))
    last = tmp_path / "run" / "training" / "last.safetensors"
    last.write_bytes(last.read_bytes()[:-10])
    with pytest.raises(TrainingError, match="another folder"):
        train(data, tmp_path / "run", CONFIG.model_copy(update={"epochs": 1}), resume=True)


def test_resume_wants_the_same_settings_and_the_same_data(data, tmp_path, no_export):
    train(data, tmp_path / "run", CONFIG.model_copy(update={"epochs": 1}))
    with pytest.raises(ConfigError, match="holds a run.*--resume"):
        train(data, tmp_path / "run", CONFIG)
    with pytest.raises(ConfigError, match="epochs = 1, now 3"):
        train(data, tmp_path / "run", CONFIG, resume=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("mine")
    with pytest.raises(ConfigError, match="new or empty folder"):
        train(data, tmp_path / "mine", CONFIG)
    assert (tmp_path / "mine" / "README.md").read_text() == "mine"
    with pytest.raises(ConfigError, match="found none"):
        train(data, tmp_path / "none", CONFIG, resume=True)
    other = tmp_path / "other"
    write_drawn_set(other, {"train": 8, "validation": 4}, seed=2, size=40)
    with pytest.raises(ConfigError, match="this data"):
        train(other, tmp_path / "run", CONFIG.model_copy(update={"epochs": 1}), resume=True)


def test_a_loss_that_is_not_finite_stops_and_says_what_to_try(data, tmp_path, no_export):
    # The loss overflows in the first case, the gradient alone in the second.
    for number, wild in enumerate(
        (
            {"optimizer": "sgd", "lr": 1000.0, "clip": 1e30, "warmup": 0.0, "epochs": 20},
            {"optimizer": "adamw", "lr": 1000.0, "clip": 1.0, "warmup": 0.0, "epochs": 20},
        )
    ):
        with pytest.raises(TrainingError, match=r"epoch \d+, step \d+.*learning rate \d.*try"):
            train(data, tmp_path / str(number), CONFIG.model_copy(update=wild))


def test_patience_ends_the_run(data, tmp_path, no_export):
    still = CONFIG.model_copy(update={"epochs": 9, "patience": 2, "lr": 1e-12})
    state = train(data, tmp_path / "run", still)
    assert len(state.history) == state.best_epoch + 2 < 9


def test_best_epoch_is_the_one_the_monitor_names(data, tmp_path, no_export):
    state = train(data, tmp_path / "run", CONFIG.model_copy(update={"monitor": "loss"}))
    lowest = min(state.history, key=lambda row: row.validation_loss)
    assert state.best_epoch == lowest.epoch
    assert state.best == -lowest.validation_loss


def test_the_whole_path_gives_a_bundle_that_scores(data, tmp_path):
    notes = []

    class Listen(Watch):
        def note(self, text):
            notes.append(text)

    config = CONFIG.model_copy(update={"epochs": 2})
    broken = tmp_path / "data"
    write_drawn_set(broken, {"train": 20, "validation": 8, "test": 4}, seed=1, size=40)
    (broken / "train" / "real" / "00003.jpg").write_bytes(b"")
    torch.manual_seed(0)
    out = tmp_path / "run"
    bundle = train(broken, out, config, watch=Listen())
    assert any("00003.jpg: empty" in note for note in notes)
    assert bundle.card.data["unreadable"].keys() == {"train/real/00003.jpg"}
    looked = bundle.card.data["audit"]
    assert looked["counts"].keys() == {"train", "validation"}, "the test split is not looked at"
    assert looked["digest"] in (out / "README.md").read_text()
    assert any(note.startswith("audit (cheap part, 55 pictures, 1 unread") for note in notes)
    assert load_bundle(out).card == bundle.card
    for name in ("history.csv", "learning_curves.svg", "config.toml"):
        assert (out / "training" / name).stat().st_size
    assert list((out / "training" / "tensorboard").glob("events.*"))
    assert TrainConfig.read(out / "training" / "config.toml") == config

    samples = load_samples(broken).split("test")
    crops = [read_image(samples.absolute(row)).pixels for row in samples.rows]
    detector = Detector(bundle)
    made = registry.create(config)
    made.module.load_state_dict(load_file(out / "model.safetensors"))
    made.module.eval()
    batch = made.preprocess.normalise(np.stack([made.preprocess.resize(crop) for crop in crops]))
    with torch.inference_mode():
        wanted = made.module(torch.from_numpy(np.ascontiguousarray(batch))).numpy()
    np.testing.assert_allclose(detector.logits(crops), wanted, atol=1e-4)
    points = bundle.card.operating_points
    assert points["fake_above"].bpcer <= 0.01
    assert points["real_below"].threshold <= points["fake_above"].threshold
    assert bundle.card.validation["auc"]["n"] == 16
    json.dumps(bundle.card.model_dump(), allow_nan=False)


def test_one_class_is_refused(tmp_path, no_export):
    folder = tmp_path / "data"
    write_drawn_set(folder, {"train": 4, "validation": 2}, seed=1, size=40)
    for path in (folder / "train" / "fake").iterdir():
        path.write_bytes(b"")
    with pytest.raises(TrainingError, match="expected fake pictures in train"):
        train(folder, tmp_path / "run", CONFIG)


def test_missing_validation_is_refused_before_anything_is_written(tmp_path):
    folder = tmp_path / "data"
    write_drawn_set(folder, {"train": 4}, seed=1, size=40)
    with pytest.raises(DataError, match="validation"):
        train(folder, tmp_path / "run", CONFIG)
    assert not (tmp_path / "run").exists()


def test_schedule_rises_then_falls():
    rates = [schedule(step, 100, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 11)
    assert all(a < b for a, b in zip(rates[:10], rates[1:11], strict=True))
    assert rates[10] == 1
    assert all(a > b for a, b in zip(rates[10:], rates[11:], strict=False))
    assert rates[55] == pytest.approx(0.5)
    assert rates[-1] < 0.001
    assert schedule(0, 10, 0) == 1


def test_loss_by_hand():
    logits, labels = torch.tensor([2.0, -1.0]), torch.tensor([1.0, 0.0])
    probabilities = 1 / (1 + np.exp([-2.0, 1.0]))
    targets = np.array([0.95, 0.05])
    by_hand = -(targets * np.log(probabilities) + (1 - targets) * np.log(1 - probabilities))
    found = training._loss(logits, labels, (0.5, 2.0), 0.1)
    assert float(found) == pytest.approx((by_hand * [2.0, 0.5]).mean(), rel=1e-6)


# -- how faces lie in the training crops ----------------------------------------------------------


FORGE = CONFIG.model_copy(update={"forge": 0.4, "forge_kinds": ("self_blend", "resample")})


class EveryFace:
    """Finds a face in the middle of every picture, without a network."""

    name = "every"

    def __init__(self, *, threads):
        pass

    def find(self, pixels):
        side = len(pixels)
        marks = ((0.35, 0.4), (0.65, 0.4), (0.5, 0.55), (0.38, 0.7), (0.62, 0.7))
        box = (0.2 * side, 0.15 * side, 0.8 * side, 0.9 * side)
        return (Face(box, tuple((x * side, y * side) for x, y in marks), 1.0),)


@pytest.fixture
def every_face(monkeypatch):
    monkeypatch.setattr(training, "CenterFace", EveryFace)


@pytest.mark.parametrize("source", ["data", "shards"])
def test_forged_faces_join_and_a_stopped_run_resumes_bit_equal(
    source, request, tmp_path, no_export, every_face
):
    data = request.getfixturevalue(source)
    steps = []
    seen = Watch()
    seen.stepped = lambda epoch, step, total, loss, images: steps.append((epoch, images))
    notes = []
    seen.note = notes.append
    train(data, tmp_path / "whole", FORGE, watch=seen)
    assert sum(images for epoch, images in steps if epoch == 1) == 40 + 27
    assert any("20 of 20 real training pictures have a face to forge; 27" in one for one in notes)
    press = Until(2, 3, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "run", FORGE, watch=press)
    train(data, tmp_path / "run", FORGE, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_shortcut_in_the_files_is_said_before_anything_is_trained(tmp_path, no_export):
    folder = tmp_path / "data"
    write_drawn_set(folder, {"train": 20, "validation": 8}, seed=1, size=40)
    for path in folder.glob("*/fake/*"):
        Image.open(path).save(path, "JPEG", quality=50)
    notes = []
    watch = Watch()
    watch.note = notes.append
    watch.stepped = lambda *_: (_ for _ in ()).throw(Stop)
    with pytest.raises(Stop):
        train(folder, tmp_path / "run", CONFIG, watch=watch)
    (line,) = [note for note in notes if "audit" in note]
    assert line.startswith("WARNING")
    assert "JPEG quality" in line or "JPEG tables" in line or "bytes per pixel" in line


def test_without_fakes_in_train_the_forged_are_all_there_is(tmp_path, no_export, every_face):
    folder = tmp_path / "data"
    write_drawn_set(folder, {"train": 8, "validation": 4}, seed=1, size=40)
    shutil.rmtree(folder / "train" / "fake")
    table = (folder / "metadata.csv").read_text().splitlines(keepends=True)
    kept = [line for line in table if not line.startswith("train/fake")]
    (folder / "metadata.csv").write_text("".join(kept))
    with pytest.raises(DataError, match="no fake"):
        train(folder, tmp_path / "run", CONFIG)
    state = train(folder, tmp_path / "run", FORGE)
    assert len(state.history) == CONFIG.epochs


def test_the_loss_weighs_the_forged_as_fakes(data, tmp_path, no_export, every_face, monkeypatch):
    given = []
    plain = training._loss

    def loss(logits, labels, class_weight, smoothing):
        given.append(class_weight)
        return plain(logits, labels, class_weight, smoothing)

    monkeypatch.setattr(training, "_loss", loss)
    train(data, tmp_path / "run", FORGE.model_copy(update={"epochs": 1}))
    assert given[0] == (67 / 40, 67 / 94)


def test_unknown_kinds_of_forgery_are_refused_before_anything_is_written(data, tmp_path):
    config = CONFIG.model_copy(update={"forge": 0.4, "forge_kinds": ("morph",)})
    with pytest.raises(ConfigError, match="'morph'"):
        train(data, tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def crops_of_a_portrait(tmp_path: Path) -> Path:
    """Crops of one face in many colours, cut so that they are 1.9 times as large as it is."""
    face = open_finder().find(portraits.portrait())[0]
    crop = CropRecipe(margin=1.9).cut(portraits.portrait(), face)
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("validation", 8)):
        for number in range(count):
            label = ("real", "fake")[number % 2]
            path = tmp_path / "data" / split / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            tint = rng.uniform(0.7, 1.0, 3)
            Image.fromarray((crop * tint).astype(np.uint8)).save(path)
    return tmp_path / "data"


def test_the_bundle_says_how_faces_lie_in_the_crops_and_detect_cuts_so(
    crops_of_a_portrait: Path, tmp_path: Path
) -> None:
    config = TrainConfig(model="cnn", size=96, epochs=1, batch_size=8)
    bundle = train(crops_of_a_portrait, tmp_path / "run", config)
    crop = read_image(crops_of_a_portrait / "train" / "real" / "0.png").pixels
    seen = open_finder().find(bundle.preprocess.resize(crop))[0]
    assert bundle.recipe.margin == pytest.approx(96 / seen.size, rel=0.05)
    assert bundle.recipe.margin == pytest.approx(1.9, rel=0.2)  # not the 1.3 that is assumed
    assert bundle.recipe.origin.startswith("measured on 24 of 24 training crops")
    verdict = Detector(bundle).detect(portraits.portrait())
    (face,) = verdict.faces
    cut = bundle.recipe.cut(portraits.portrait(), open_finder().find(portraits.portrait())[0])
    assert face.score == pytest.approx(float(Detector(bundle).score([cut])[0]))


def test_the_recipe_that_a_data_set_was_cut_with_wins(
    crops_of_a_portrait: Path, tmp_path: Path
) -> None:
    recipe = CropRecipe(margin=1.7, min_face=90, origin="as a test says")
    write_json(crops_of_a_portrait / RECIPE_FILE, recipe.to_dict())
    config = TrainConfig(model="cnn", size=32, epochs=1, batch_size=8)
    bundle = train(crops_of_a_portrait, tmp_path / "run", config)
    assert bundle.recipe == recipe
    assert bundle.recipe.origin == "as a test says"


def test_where_no_faces_are_found_the_recipe_is_assumed_and_says_so(
    data: Path, tmp_path: Path
) -> None:
    config = TrainConfig(model="cnn", size=32, epochs=1, batch_size=8)
    bundle = train(data, tmp_path / "run", config)
    assert bundle.recipe.margin == CropRecipe().margin
    assert bundle.recipe.origin.startswith("assumed: a face was found in")


def test_fewer_pictures_are_halves_nested_and_told(data, tmp_path):
    some, fewer = (
        train(
            data,
            tmp_path / f"{n}",
            CONFIG.model_copy(update={"pictures": n, "epochs": 1, "augment": "none"}),
        )
        for n in (12, 4)
    )
    assert some.card.data["counts"]["train"] == {"real": 6, "fake": 6}
    assert fewer.card.data["counts"]["train"] == {"real": 2, "fake": 2}
    whole = load_samples(data)
    assert some.card.data["counts"]["validation"] == whole.counts()["validation"]
    assert some.card.data["fingerprint"] == whole.fingerprint()

    def used(n):
        config = CONFIG.model_copy(update={"pictures": n})
        rows = training._used(whole, config).rows
        return {row.path for row in rows if row.split == "train"}

    assert used(4) < used(12) < used(None)
    with pytest.raises(ConfigError, match="pictures of at most 40"):
        train(data, tmp_path / "more", CONFIG.model_copy(update={"pictures": 41}))


def test_no_epochs_make_a_bundle_of_the_weights_as_they_are(data, tmp_path):
    first = train(data, tmp_path / "first", CONFIG.model_copy(update={"epochs": 1}))
    settings = {"epochs": 0, "pretrained": str(first.folder), "seed": 9}
    again = train(data, tmp_path / "again", CONFIG.model_copy(update=settings))
    one, two = (load_file(bundle.folder / "model.safetensors") for bundle in (first, again))
    assert one.keys() == two.keys()
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert again.card.training["epoch"] == again.card.training["epochs_run"] == 0


def test_normalisation_that_is_named_wins_over_that_of_the_weights(data, tmp_path):
    first = train(data, tmp_path / "first", CONFIG.model_copy(update={"epochs": 1}))
    named = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "pretrained": str(first.folder)}
    config = CONFIG.model_copy(update={"epochs": 1} | named)
    assert TrainConfig.read(None, **{**config.model_dump(), "mean": [0.5, 0.5, 0.5]}) == config
    bundle = train(data, tmp_path / "other", config)
    assert bundle.preprocess.mean == (0.5, 0.5, 0.5)
    assert bundle.preprocess.std == (0.25, 0.25, 0.25)
    assert bundle.card.training["origin"]["std"] == list(first.preprocess.std)
    with pytest.raises(ConfigError, match="positive deviations"):
        train(data, tmp_path / "bad", config.model_copy(update={"std": (0.0, 0.2, 0.2)}))


def test_bf16_leaves_the_pixels_as_they_are():
    """The hybrid's residual branch works on differences that rounding would take away."""
    fabric = open_fabric("bf16")
    seen = []
    network = torch.nn.Conv2d(3, 1, 1)
    network.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    images = torch.rand(1, 3, 4, 4)
    found = fabric.setup(network)(images)
    assert torch.equal(seen[0], images)
    assert not torch.equal(found, network(images))  # inside it is bf16 all the same


# -- out of shards --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shards(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded") / "shards"
    shard_set(load_samples(data), folder, size=12_000)
    assert len(list(folder.glob("train-*.tar"))) > 2
    return folder


def test_a_run_out_of_shards_resumes_to_the_bit(shards, tmp_path, no_export, monkeypatch):
    monkeypatch.setenv("BONAFACE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(streaming, "BUFFER", 12)
    train(shards, tmp_path / "whole", CONFIG, workers=2)
    for where in ((1, 2), (3, 4)):
        press = Until(*where, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            train(shards, tmp_path / "run", CONFIG, watch=press, resume=where != (1, 2))
    train(shards, tmp_path / "run", CONFIG, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "run")
    assert not (tmp_path / "cache").exists(), "no pixels are kept on the disk"


def test_out_of_shards_it_learns_and_becomes_a_bundle(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "BUFFER", 16)
    monkeypatch.setattr(training, "_PART", 5)
    files = tmp_path / "files"
    write_drawn_set(files, {"train": 32, "validation": 12}, seed=3, size=32)
    for path in files.glob("*/fake/*.jpg"):  # fakes that are darker are soon told
        Image.fromarray(np.asarray(Image.open(path)) // 2).save(path, quality=95)
    write_json(files / RECIPE_FILE, CropRecipe(1.4, origin="a test").to_dict())
    samples = load_samples(files)
    shard_set(samples, tmp_path / "shards", size=16_000)
    config = CONFIG.model_copy(update={"epochs": 4, "augment": "flip", "lr": 2e-3})
    bundle = train(tmp_path / "shards", tmp_path / "run", config)
    auc = bundle.card.validation["auc"]
    assert auc["value"] > 0.95
    assert auc["n"] == 24
    assert bundle.recipe == CropRecipe(1.4)
    # Measured on its own pictures, which lie as files too.
    validation = samples.split("validation")
    crops = [read_image(validation.absolute(row)).pixels for row in validation.rows]
    labels = [row.label for row in validation.rows]
    assert roc_auc_score(labels, Detector(bundle).logits(crops)) == pytest.approx(auc["value"])


def test_a_picture_lost_from_a_shard_ends_a_run_by_name(shards, tmp_path, no_export):
    copy = tmp_path / "shards"
    shutil.copytree(shards, copy)

    def lose():
        for path in copy.glob("train-*.tar"):
            path.write_bytes(path.read_bytes()[:2000])

    with pytest.raises(DataError, match=r"train-\d+\.tar/\d+\.jpg .*damaged tar.*--resume"):
        train(copy, tmp_path / "run", CONFIG, watch=Until(1, 2, lose), workers=0)
