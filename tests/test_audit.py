"""The audit finds each trap that is laid, and finds none in a clean set."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageFilter

from bonaface import audit as module
from bonaface.audit import Audit, audit, glance, judge, read_facts
from bonaface.drawn import write_drawn_set
from bonaface.errors import ConfigError, DataError, MissingExtraError
from bonaface.metrics import Figure
from bonaface.samples import load_samples
from traps import edit, png_fakes, resaved, saved, two_qualities

SIZE = 96


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("audit") / "clean"
    write_drawn_set(root, {"train": 35, "validation": 5, "test": 30}, seed=3, size=SIZE)
    return root


@pytest.fixture
def trap(clean: Path, tmp_path: Path) -> Path:
    """A copy to lay a trap in."""
    return Path(shutil.copytree(clean, tmp_path / "trap"))


def found(result: Audit, severity: str | None = None) -> set[str]:
    return {one.name for one in result.findings if severity in (None, one.severity)}


def finding(result: Audit, name: str) -> module.Finding:
    (one,) = [one for one in result.findings if one.name == name]
    return one


# -- traps --


def test_a_clean_set_passes(clean: Path) -> None:
    result = audit(clean)
    assert result.passed
    assert found(result, "fatal") == set()
    assert {"near-copies-across-splits", "exact-copies-across-splits"}.isdisjoint(found(result))
    assert {(one.name, one.scope) for one in result.probes} == {
        (name, scope) for name in ("file", "image") for scope in ("all", "test")
    }
    for probe in result.probes:
        assert probe.auc.value is not None
        assert probe.auc.low is not None
    assert result.fingerprint == load_samples(clean).fingerprint()
    assert result.counts["test"] == {"real": 30, "fake": 30}
    assert result.groups == 70


def test_png_fakes_and_jpeg_reals_are_fatal(trap: Path) -> None:
    png_fakes(trap)
    result = audit(trap)
    assert {"file-shortcut-all", "file-shortcut-test"} <= found(result, "fatal")
    assert finding(result, "file-shortcut-all").evidence["AUC"] == pytest.approx(1.0)
    assert finding(result, "file-shortcut-all").evidence["AUC without bytes per pixel"] == 1
    assert "only the size" not in finding(result, "file-shortcut-all").effect
    assert "files-differ" in found(result, "warning")
    distances = {one.name: one.distance for one in result.properties}
    assert distances["format"] == distances["extension"] == 1
    assert distances["JPEG quality"] is None


def test_a_shortcut_in_the_test_split_only_is_fatal(trap: Path) -> None:
    for path in sorted(trap.glob("test/fake/*.jpg")):
        path.write_bytes(path.read_bytes())
        with Image.open(path) as picture:
            path.write_bytes(saved(picture, format="PNG"))  # under the name of a JPEG
    assert "file-shortcut-test" in found(audit(trap), "fatal")


def test_reals_and_fakes_of_different_quality_are_fatal(trap: Path) -> None:
    two_qualities(trap)
    result = audit(trap)
    assert "file-shortcut-all" in found(result, "fatal")
    (quality,) = [one for one in result.properties if one.name == "JPEG quality"]
    assert quality.by_label["real"]["half"] == 75
    assert quality.by_label["fake"]["half"] == 95
    assert quality.distance == 1


def test_files_that_are_only_smaller_are_fatal_and_it_says_so(trap: Path) -> None:
    for path in sorted(trap.glob("*/*/*.jpg")):
        with Image.open(path) as picture:
            fake = path.parent.name == "fake"
            changed = picture.filter(ImageFilter.GaussianBlur(2)) if fake else picture.copy()
        path.write_bytes(saved(changed, format="JPEG", quality=85))
    result = audit(trap)
    one = finding(result, "file-shortcut-all")
    assert one.severity == "fatal"
    assert "only the size of the files tells" in one.effect
    without = one.evidence["AUC without bytes per pixel"]
    assert isinstance(without, float)
    assert without < 0.6


def test_re_saved_train_pictures_in_the_test_split_are_fatal(trap: Path) -> None:
    chosen = [f"{at:05d}.jpg" for at in range(0, 30, 5)]
    for name in chosen:
        (trap / "test/real" / name).write_bytes(resaved(trap / "train/real" / name))
    result = audit(trap, limit=20)
    assert found(result, "fatal") == {"near-copies-across-splits"}
    one = finding(result, "near-copies-across-splits")
    # A forged test picture may look like the copy as well, never fewer than were laid.
    assert one.evidence["pictures"] == len(chosen)
    assert one.evidence["share"] == pytest.approx(len(chosen) / 60)
    paths = {path for copies in result.copies if len(copies.splits) > 1 for path in copies.paths}
    assert paths >= {f"{split}/real/{name}" for split in ("train", "test") for name in chosen}
    assert len(one.examples) == module.EXAMPLES
    assert all(" ~ " in example for example in one.examples)


def test_a_few_near_copies_are_a_warning(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = read_facts(load_samples(clean), limit=1)
    train = next(i for i, row in enumerate(facts.rows) if row.split == "train")
    test = next(i for i, row in enumerate(facts.rows) if row.split == "test")
    facts.thumbnails[test] = facts.thumbnails[train]
    facts.hashes[test] = facts.hashes[train]
    assert finding(judge(facts), "near-copies-across-splits").severity == "fatal"  # 1 of 60
    monkeypatch.setattr(module, "FATAL_COPIES", 0.02)
    assert finding(judge(facts), "near-copies-across-splits").severity == "warning"


def test_a_group_in_two_splits_is_fatal(trap: Path) -> None:
    edit(trap, {"test/real/00004.jpg": {"group": "train-00007"}})
    with pytest.raises(DataError, match="more than one split"):
        load_samples(trap)
    result = audit(trap, limit=20)
    assert found(result, "fatal") == {"groups-across-splits"}
    (example,) = finding(result, "groups-across-splits").examples
    assert example.startswith("train-00007: ")
    assert "test/real/00004.jpg" in example


def test_the_same_file_in_two_splits_is_fatal(trap: Path) -> None:
    shutil.copy(trap / "train/fake/00001.jpg", trap / "test/fake/00001.jpg")
    with pytest.raises(DataError, match="more than one split"):
        load_samples(trap)
    result = audit(trap, limit=20)
    assert found(result, "fatal") == {"exact-copies-across-splits", "near-copies-across-splits"}
    for name, sign in (("exact", "="), ("near", "~")):
        assert finding(result, f"{name}-copies-across-splits").examples == (
            f"test/fake/00001.jpg {sign} train/fake/00001.jpg",
        )


def test_the_same_file_in_both_classes_is_a_warning(trap: Path) -> None:
    shutil.copy(trap / "train/fake/00001.jpg", trap / "train/real/00002.jpg")
    result = audit(trap, limit=20)
    assert "exact-copies-across-classes" in found(result, "warning")
    assert result.passed


@pytest.mark.parametrize(
    ("names", "expected"),
    [(("0", "1"), "labels-are-numbers"), (("dogs", "cats"), "labels-missing")],
)
def test_labels_that_nobody_can_read_are_fatal(
    trap: Path, names: tuple[str, str], expected: str
) -> None:
    (trap / "metadata.csv").unlink()
    for split in ("train", "validation", "test"):
        for old, new in zip(("real", "fake"), names, strict=True):
            (trap / split / old).rename(trap / split / new)
    result = audit(trap)
    assert not result.passed
    assert found(result) == {expected}
    assert result.fingerprint is None
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["passed"] is False


# -- the rest of what it says --


def test_unreadable_pictures_are_named_with_their_reasons(trap: Path) -> None:
    (trap / "train/real/00000.jpg").write_bytes(b"")
    (trap / "train/fake/00000.jpg").write_bytes(b"no picture")
    result = audit(trap, limit=20)
    assert dict(result.unreadable) == {
        "train/real/00000.jpg": "empty file",
        "train/fake/00000.jpg": "not an image",
    }
    assert finding(result, "unreadable").evidence == {"real": 1, "fake": 1}


def test_a_set_of_which_nothing_can_be_read_is_still_told_of(tmp_path: Path) -> None:
    for name in ("train/real/a.jpg", "train/fake/b.jpg", "test/real/c.jpg", "test/fake/d.jpg"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(name)
    result = audit(tmp_path)
    assert len(result.unreadable) == 4
    assert all(probe.auc.value is None and probe.auc.reason for probe in result.probes)
    json.dumps(result.to_dict(), allow_nan=False)


def test_one_class_has_no_probe_and_says_so(trap: Path) -> None:
    for split in ("train", "validation", "test"):
        shutil.rmtree(trap / split / "fake")
    (trap / "metadata.csv").unlink()
    result = audit(trap)
    assert result.passed
    assert {"one-class-train", "one-class-test"} <= found(result, "warning")
    for probe in result.probes:
        assert probe.auc.value is None
        assert probe.auc.reason == "one class only: no fake pictures"
        assert not probe.tells
    for one in result.properties:
        assert one.distance is None
        assert one.reason
    json.dumps(result.to_dict(), allow_nan=False)


def test_missing_splits_and_rare_classes_are_told(clean: Path) -> None:
    samples = load_samples(clean)
    rows = tuple(
        row
        for row in samples.rows
        if row.split != "test" and (row.label == 0 or row.path.endswith(("00001.jpg", "00002.jpg")))
    )
    facts = read_facts(type(samples)(samples.root, rows), limit=1)
    result = judge(facts)
    assert finding(result, "splits-missing").severity == "warning"
    assert "class-balance-train" in found(result, "warning")


def test_splits_that_are_made_here_are_noted(clean: Path, tmp_path: Path) -> None:
    for label in ("real", "fake"):
        shutil.copytree(clean / "test" / label, tmp_path / "flat" / label)
    result = audit(tmp_path / "flat", ratios=(0.5, 0.2, 0.3), limit=10)
    assert finding(result, "splits-made-here").evidence == {
        "train": 0.5,
        "validation": 0.2,
        "test": 0.3,
    }


def test_wrong_use(clean: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found nothing"):
        audit(tmp_path / "nowhere")
    with pytest.raises(DataError, match="found none"):
        audit(tmp_path)
    with pytest.raises(ConfigError, match="limit of at least 1"):
        audit(clean, limit=0)


def test_a_missing_library_names_the_extra(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagehash", None)
    with pytest.raises(MissingExtraError, match=r"bonaface\[train\]"):
        audit(clean)


def test_the_same_set_gives_the_same_result_with_any_number_of_threads(clean: Path) -> None:
    one, three = (audit(clean, limit=60, workers=n, seed=4).to_dict() for n in (1, 3))
    assert json.dumps(one, allow_nan=False) == json.dumps(three)
    assert one["schema_version"] == module.SCHEMA_VERSION
    assert str(clean) not in json.dumps(one)


def test_pictures_without_structure_are_no_copies_of_each_other(trap: Path) -> None:
    for split in ("train", "test"):
        for at in range(3):
            grey = Image.new("RGB", (SIZE, SIZE), (40 * at + 9,) * 3)
            path = trap / split / "real" / f"{at:05d}.jpg"
            path.write_bytes(saved(grey, format="JPEG", quality=80 + (split == "test")))
    result = audit(trap, limit=10)
    assert finding(result, "blank-pictures").evidence == {"pictures": 6}
    assert "near-copies-across-splits" not in found(result)


# -- a shortcut needs an AUC and an interval --


@pytest.mark.parametrize(
    ("value", "low", "expected"),
    [(0.61, 0.56, True), (0.61, 0.54, False), (0.59, 0.58, False), (0.9, None, False)],
)
def test_what_a_probe_needs_to_be_fatal(value: float, low: float | None, expected: bool) -> None:
    figure = Figure(value, low, None if low is None else 1.0, 100)
    probe = module.Probe("file", "all", figure, 5)
    assert probe.tells is expected
    assert [one.severity for one in module._probe_findings([probe])] == ["fatal"] * expected
    image = module.Probe("image", "all", figure, 5)
    assert [one.severity for one in module._probe_findings([image])] == ["warning"] * expected


# -- at a glance --


def test_a_glance_at_a_clean_set_passes(clean: Path) -> None:
    samples = load_samples(clean)
    seen = glance(samples)
    assert seen.passed
    assert seen.n == 140
    assert seen.counts == samples.counts()
    assert seen.fingerprint == samples.fingerprint()
    assert seen.line.startswith("audit (cheap part, 140 pictures): the files alone give AUC 0.")
    assert "no shortcut in them; `bonaface audit DATA`" in seen.line
    assert "\n" not in seen.line
    value = seen.to_dict()
    digest = value.pop("digest")
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    assert digest == hashlib.sha256(text.encode()).hexdigest()
    assert value["schema_version"] == module.SCHEMA_VERSION
    assert glance(samples).to_dict()["digest"] == digest
    assert glance(samples, seed=1).to_dict()["digest"] != digest


def test_a_glance_finds_the_same_shortcut_as_the_audit(trap: Path) -> None:
    two_qualities(trap)
    seen = glance(load_samples(trap))
    assert not seen.passed
    assert seen.probe.auc.value == pytest.approx(1, abs=0.01)
    assert seen.line.startswith("WARNING audit (cheap part, 140 pictures): the files alone tell")
    assert "a test figure here would be worthless" in seen.line
    assert "JPEG quality" in seen.line


def test_a_glance_decodes_nothing_and_keeps_to_its_limit(
    trap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (trap / "train/real/00000.jpg").write_bytes(b"no picture")
    monkeypatch.setattr("bonaface.facts.read_image", None)
    seen = glance(load_samples(trap))
    assert (seen.n, seen.unreadable) == (139, 1)
    assert "139 pictures, 1 unreadable" in seen.line
    assert glance(load_samples(trap), limit=40).n == 40
    with pytest.raises(ConfigError, match="limit of at least 1"):
        glance(load_samples(trap), limit=0)


def test_a_glance_at_one_class_says_why_there_is_no_figure(clean: Path) -> None:
    samples = load_samples(clean)
    fakes = type(samples)(samples.root, tuple(row for row in samples.rows if row.label))
    seen = glance(fakes)
    assert seen.passed
    assert seen.probe.auc.value is None
    assert "cannot be said (one class only: no real pictures)" in seen.line
    json.dumps(seen.to_dict(), allow_nan=False)
