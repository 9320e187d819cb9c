import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from bonaface import reproduce as package
from bonaface import training
from bonaface.config import TrainConfig
from bonaface.crops import RECIPE_FILE, CropRecipe
from bonaface.drawn import write_drawn_set
from bonaface.errors import BonafaceError, ConfigError, DataError, DivergedError
from bonaface.files import write_json
from bonaface.reproduce import StudyConfig, plan, reproduce
from bonaface.reproduce.analysis import _one_branch_less, analyse, over_seeds
from bonaface.samples import load_samples
from bonaface.training import Watch
from tiny import write_brightness_onnx

TRAIN = {"model": "cnn", "size": 32, "batch_size": 8, "precision": "float32"}
STUDY = {
    "seeds": [0, 1],
    "train": TRAIN,
    "arms": {"cnn": {"pictures": [20, "all"], "epochs": [1]}, "fast": {"lr": 0.01, "epochs": [2]}},
}
NAMES = [
    *("cnn-n20-e1-s0", "cnn-e1-s0", "cnn-n20-e1-s1", "cnn-e1-s1"),
    *("fast-e2-s0", "fast-e2-s1"),
]


def study(**changes):
    return StudyConfig.read(None, **STUDY | changes)


class Stop(BaseException):
    """Ends a study from inside, as a kill does."""


class After(Watch):
    """Stops at the n-th step of training, or of scoring."""

    def __init__(self, *, steps=0, scored=0):
        self.left = {"steps": steps, "scored": scored}

    def stepped(self, epoch, step, steps, loss, images):
        self._count("steps")

    def scored(self, done, total):
        self._count("scored")

    def _count(self, what):
        self.left[what] -= 1
        if self.left[what] == 0:
            raise Stop


class Heard(Watch):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)

    @property
    def ran(self):
        return [note.split(": ")[1] for note in self.notes if note.startswith("run ")]


@pytest.fixture(scope="module", autouse=True)
def quick_export():
    """In place of the network a small one that depends on its weights."""

    def export(module, size, path: Path):
        slope = sum(float(value.double().sum()) for value in module.state_dict().values())
        write_brightness_onnx(path, size=size, slope=slope)
        return 0.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "export_onnx", export)
        yield


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    for seed, name in enumerate(("home", "away"), 1):
        counts = {"train": 20, "validation": 10, "test": 16}
        write_drawn_set(folder / name, counts, seed=seed, size=40)
        write_json(folder / name / RECIPE_FILE, CropRecipe().to_dict())  # not to be measured
    return folder


@pytest.fixture(scope="module")
def whole(sets, tmp_path_factory):
    """A study that nobody disturbs."""
    out = tmp_path_factory.mktemp("whole")
    heard = Heard()
    found = reproduce(
        sets / "home", out, study(transfer=[str(sets / "away")]), watch=heard, workers=0
    )
    return out, found, heard


def numbers(found):
    """A study's results without what a clock gave."""
    value = found.to_dict()
    for cell in value["cells"]:
        del cell["seconds"]
    return value


# -- the plan ----------------------------------------------------------------------------------


def test_short_runs_come_first_and_then_the_seeds():
    assert [run.name for run in plan(study())] == NAMES
    first = plan(study())[0]
    assert (first.arm, first.config.pictures, first.config.size) == ("cnn", 20, 32)
    assert plan(study())[-1].config.lr == 0.01


def test_an_arm_wins_over_what_all_share():
    config = study(arms={"one": {"size": 64, "seeds": [7]}})
    assert [(r.name, r.config.size) for r in plan(config)] == [("one-e10-s7", 64)]


def test_an_arm_may_have_further_runs_that_differ_in_part():
    also = [{"epochs": [30], "seeds": [0]}, {"pictures": [20]}]
    runs = plan(study(arms={"cnn": {"epochs": [10], "also": also}, "two": {"seeds": [1]}}))
    assert [run.name for run in runs] == [
        *("cnn-e10-s0", "cnn-n20-e10-s0", "cnn-e10-s1", "cnn-n20-e10-s1", "two-e10-s1"),
        "cnn-e30-s0",
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"arms": {"one": {"also": [{"seed": [1]}]}}}, "arm 'one': setting 'seed'"),
        ({"arms": {"one": {"also": [{"lr": 0.1}]}}}, "arm 'one': setting 'lr'"),
        ({"arms": {"one": {"also": {"epochs": [3]}}}}, "arm 'one': expected also = [{ epochs"),
        ({"arms": {"one": {"also": [{}]}}}, "every run once"),
        ({"arms": {"one": {"sise": 64}}}, "arm 'one': setting 'sise'"),
        ({"arms": {"one": {"lr": -1.0}}}, "arm 'one': setting 'lr'"),
        ({"arms": {"one": {"seeds": []}}}, "arm 'one': setting 'seeds'"),
        ({"arms": {"one": {"epochs": [-1]}}}, "arm 'one': setting 'epochs"),
        ({"compare": ["two"]}, "names of arms in compare"),
        ({"seeds": [0, 0]}, "every run once"),
        ({"arms": {"cnn": {"pictures": [20]}, "cnn-n20": {}}}, "got 'cnn-n20-e10-s0' 2 times"),
        ({"train": {"epochs": 3}}, "epochs of a study"),
        ({"arms": {"one": {"seed": 3}}}, "arm 'one': expected seed of a study as seeds"),
    ],
)
def test_a_wrong_plan_is_refused_in_a_line(changes, words):
    with pytest.raises(ConfigError) as caught:
        plan(study(**changes))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "a b"])
def test_a_name_that_is_no_folder_is_refused(name):
    with pytest.raises(ConfigError, match="arms"):
        study(arms={name: {}})


# -- running it --------------------------------------------------------------------------------


def test_every_run_is_a_bundle_measured_on_every_test_split(whole):
    out, found, heard = whole
    assert heard.ran == NAMES
    assert not found.unfinished
    assert [(c.arm, c.epochs, c.pictures, c.whole, len(c.runs)) for c in found.cells] == [
        ("cnn", 1, 20, False, 2),
        ("cnn", 1, 40, True, 2),
        ("fast", 2, 40, True, 2),
    ]
    assert found.budgets == (1, 2)
    assert [cell.arm for cell in found.table(2)] == ["fast"]
    for name in NAMES:
        folder = out / "runs" / name
        assert (folder / "card.json").is_file()
        for data in ("home",) if "-n20-" in name else ("home", "away"):
            with (folder / "evaluations" / f"{data}-test" / "scores.csv").open() as file:
                assert len(list(csv.DictReader(file))) == 32
    assert [cell.elsewhere["away"]["auc"].n for cell in found.cells if cell.whole] == [32, 32]


def test_only_compared_arms_on_the_whole_set_are_measured_elsewhere(whole, sets):
    out, _, _ = whole
    config = study(transfer=[str(sets / "away")], compare=["fast"])
    found = reproduce(sets / "home", out, config, workers=0)
    assert [(c.arm, c.whole, list(c.elsewhere)) for c in found.cells] == [
        ("cnn", False, []),
        ("cnn", True, []),
        ("fast", True, ["away"]),
    ]


def test_validation_chooses(whole):
    _, found, _ = whole
    best = max(
        found.cells,
        key=lambda cell: np.mean([r.card.validation["auc"]["value"] for r in cell.runs]),
    )
    assert found.chosen is best


def test_a_mean_over_seeds_is_the_mean_of_the_runs(whole):
    _, found, _ = whole
    for cell in found.cells:
        for name in ("accuracy", "auc", "bpcer"):
            values = [run.evaluation.figures[name].value for run in cell.runs]
            figure = cell.figures[name]
            assert figure.value == pytest.approx(np.mean(values))
            if figure.low is not None:
                assert figure.low <= figure.value <= figure.high


def test_arms_are_tested_on_the_seed_that_most_have(whole, sets):
    _, found, _ = whole
    first, second = next(cell for cell in found.cells if cell.arm == "cnn" and cell.whole).runs
    samples = load_samples(sets / "home")

    def contrasts(*runs):
        named = [replace(run, planned=replace(run.planned, arm=arm)) for arm, run in runs]
        return analyse(samples, named, {}, ("a", "b", "c")).contrasts

    (one,) = contrasts(("a", first), ("a", second), ("b", second))
    assert (one.first, one.second, one.seeds, one.seed) == ("a", "b", (2, 1), 1)
    assert contrasts(("a", first), ("b", second)) == ()
    assert len(contrasts(("a", first), ("b", second), ("c", first))) == 1


def test_the_majority_class_is_a_row_of_its_own(whole):
    _, found, _ = whole
    assert found.majority["accuracy"].value == 0.5
    assert found.majority["auc"].value == 0.5
    assert found.majority["auc"].low is None


def test_interrupted_twice_it_ends_in_the_same_table(whole, sets, tmp_path):
    _, found, _ = whole
    config = study(transfer=[str(sets / "home"), str(sets / "away")])
    for stop in (After(steps=9), After(steps=3), After(scored=3)):
        with pytest.raises(Stop):
            reproduce(sets / "home", tmp_path, config, watch=stop, workers=0)
    heard = Heard()
    again = reproduce(sets / "home", tmp_path, config, watch=heard, workers=0)
    assert heard.ran == []
    assert numbers(again) == numbers(found)


@pytest.mark.parametrize("is_made", [False, True])
def test_a_run_that_another_process_is_at_is_left_to_it(
    whole, sets, tmp_path, monkeypatch, is_made
):
    out, found, _ = whole
    monkeypatch.setattr(package, "POLL", 0)
    (tmp_path / "locks").mkdir()
    other = FileLock(tmp_path / "locks" / "cnn-e1-s0.lock")

    class Waits(Heard):
        def note(self, text):
            super().note(text)
            if text.startswith("waiting"):
                if is_made:
                    name = "cnn-e1-s0"
                    shutil.copytree(out / "runs" / name, tmp_path / "runs" / name)
                other.release()

    heard = Waits()
    other.acquire()
    config = study(transfer=[str(sets / "away")])
    again = reproduce(sets / "home", tmp_path, config, watch=heard, workers=0)
    rest = [name for name in NAMES if name != "cnn-e1-s0"]
    assert heard.ran == [*rest, *([] if is_made else ["cnn-e1-s0"])]
    assert numbers(again) == numbers(found)


def test_a_study_may_grow_and_runs_only_what_is_new(whole, sets, monkeypatch):
    out, _, _ = whole
    config = study(arms=STUDY["arms"] | {"slow": {"lr": 1e-4, "epochs": [1], "seeds": [1]}})
    heard = Heard()
    measured = []
    real = package.evaluate
    monkeypatch.setattr(
        package, "evaluate", lambda d, *a, **k: measured.append(d.name) or real(d, *a, **k)
    )
    found = reproduce(sets / "home", out, config, watch=heard, workers=0)
    assert heard.ran == measured == ["slow-e1-s1"]
    assert [c.arm for c in found.cells if c.epochs == 1 and c.whole] == ["cnn", "slow"]
    contrast = next(c for c in found.contrasts if c.epochs == 1)
    assert (contrast.first, contrast.second, contrast.seeds) == ("cnn", "slow", (2, 1))


def test_what_is_finished_can_be_looked_at(whole, sets):
    out, _, _ = whole
    config = study(seeds=[0, 1, 2])
    heard = Heard()
    some = reproduce(sets / "home", out, config, finished_only=True, watch=heard, workers=0)
    assert heard.ran == []
    assert sorted(some.unfinished) == ["cnn-e1-s2", "cnn-n20-e1-s2", "fast-e2-s2"]
    assert [len(cell.runs) for cell in some.cells] == [2, 2, 2]
    with pytest.raises(DataError, match="found none of 2"):
        reproduce(sets / "home", out, study(arms={"new": {}}), finished_only=True)


def test_a_run_that_fails_is_told_and_the_others_go_on(sets, tmp_path, monkeypatch):
    real = package.train

    def train(data, out, config, **options):
        if config.seed == 0:
            raise DivergedError("expected a finite loss, got none; try less")
        return real(data, out, config, **options)

    monkeypatch.setattr(package, "train", train)
    config = study(arms={"cnn": {"epochs": [1]}})
    found = reproduce(sets / "home", tmp_path, config, workers=0)
    assert found.unfinished == {"cnn-e1-s0": "expected a finite loss, got none; try less"}
    assert [run.planned.config.seed for run in found.cells[0].runs] == [1]


def test_a_run_of_other_settings_or_data_is_not_taken_for_ours(whole, sets):
    out, _, _ = whole
    with pytest.raises(ConfigError, match=r"'fast-e2-s0'.*lr = 0.01, now 0.02"):
        reproduce(sets / "home", out, study(arms={"fast": {"lr": 0.02, "epochs": [2]}}))
    with pytest.raises(DataError, match="of other data"):
        reproduce(sets / "away", out, study())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"arms": {"cnn": {}, "net": {"pretrained": "nowhere"}}}, "arm 'net'"),
        ({"arms": {"cnn": {"size": 40}}}, "arm 'cnn': expected a multiple of 32"),
        ({"arms": {"cnn": {"pictures": [20, 41]}}}, "arm 'cnn': expected pictures of at most 40"),
        ({"arms": {"cnn": {"augment": "much"}}}, "arm 'cnn'"),
        ({"transfer": ["nowhere"]}, "nowhere"),
    ],
)
def test_what_cannot_work_fails_before_the_first_run(sets, tmp_path, changes, words):
    heard = Heard()
    with pytest.raises(BonafaceError, match=words):
        reproduce(sets / "home", tmp_path / "out", study(**changes), watch=heard)
    assert heard.ran == []
    assert not (tmp_path / "out").exists()


def test_an_evaluation_of_another_network_is_made_anew(whole, sets, tmp_path):
    out, found, _ = whole
    folder = out / "runs" / NAMES[0] / "evaluations" / "home-test"
    other = out / "runs" / NAMES[-1] / "evaluations" / "home-test"
    for name in ("evaluation.json", "scores.csv"):
        (folder / name).write_bytes((other / name).read_bytes())
    config = study(transfer=[str(sets / "away")])
    assert numbers(reproduce(sets / "home", out, config, workers=0)) == numbers(found)


# -- over seeds --------------------------------------------------------------------------------


def test_one_seed_keeps_its_draws():
    draws = np.random.default_rng(0).random((1, 50))
    assert np.array_equal(over_seeds(draws), draws[0])


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_the_interval_over_seeds_is_as_wide_as_it_must_be(count):
    """Variances of the mean over seeds and of the draw of samples add up."""
    rng = np.random.default_rng(3)
    between, within, widths = 0.03, 0.02, []
    for at in range(300):
        seeds = rng.normal(0.8, between, count)
        shared = np.concatenate([[0.0], rng.normal(0, within, 400)])
        widths.append(over_seeds(seeds[:, None] + shared, seed=at)[1:].var())
    wanted = between**2 / count + within**2
    assert np.mean(widths) == pytest.approx(wanted, rel=0.12)


def test_seeds_that_agree_leave_the_interval_of_the_samples():
    shared = np.random.default_rng(1).normal(0.8, 0.02, 500)
    assert np.allclose(over_seeds(np.stack([shared] * 3)), shared)


# -- what a branch adds ------------------------------------------------------------------------

WHOLE = {"model": "hybrid", "pretrained": "weights"}


@pytest.mark.parametrize(
    ("one", "two", "wanted"),
    [
        (WHOLE, {"model": "hybrid", "branches": ["residual"]}, True),
        (WHOLE, WHOLE | {"branches": ["rgb"]}, True),
        (WHOLE, {"model": "resnet50v2", "pretrained": "weights"}, True),
        (WHOLE, {"model": "resnet50v2"}, False),  # begun otherwise
        (WHOLE, {"model": "resnet50v2", "pretrained": "weights", "stages": 2}, False),
        (WHOLE, {"model": "resnet50v2", "pretrained": "weights", "freeze": "staged"}, False),
        (WHOLE, {"model": "resnet18", "pretrained": "weights"}, False),
        (WHOLE | {"depth": "resnet18"}, {"model": "resnet18", "pretrained": "weights"}, True),
        (WHOLE, {"model": "cnn"}, False),
        (WHOLE, WHOLE, False),
        ({"model": "resnet50v2"}, {"model": "resnet50v2", "stages": 2}, False),
    ],
)
def test_a_hybrid_without_a_branch_is_known(one, two, wanted):
    first, second = (TrainConfig.read(None, **settings) for settings in (one, two))
    assert _one_branch_less(first, second) is wanted
    assert _one_branch_less(second, first) is wanted
