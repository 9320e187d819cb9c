"""Put the bundle where the package ships it, with its test figures and terms on its card.

`python finish.py RUN OUT`: RUN as build.sh leaves it; OUT becomes the bundle.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from bonaface.bundle import SCHEMA_VERSION, finish_bundle, load_bundle
from bonaface.files import atomic_folder

NAME = "bonaface-default-3"
TERMS = (
    "for research and evaluation. Some of the pictures it learnt from (DFDC, FFHQ, and faces made "
    "by StyleGAN from FFHQ) were given for research or non-commercial use only; whether weights "
    "that learnt from them may be used for more is for you to clear."
)
SHOWN = ("auc", "accuracy", "recall", "apcer", "bpcer", "ece", "brier")


def main(run: Path, out: Path) -> None:
    """Write the bundle in place of the one that is there."""
    source = load_bundle(run / "float16")
    tests = {}
    for folder in sorted((run / "tests").iterdir()):
        tests[folder.name] = figures(json.loads((folder / "evaluation.json").read_text()))
        stress = run / "stress" / folder.name / "stress.json"
        if stress.is_file():
            tests[folder.name] |= deliveries(json.loads(stress.read_text()))
    card = source.card.model_copy(
        update={"schema_version": SCHEMA_VERSION, "name": NAME, "terms": TERMS, "tests": tests}
    )
    shutil.rmtree(out, ignore_errors=True)
    with atomic_folder(out) as folder:
        shutil.copy(source.model, folder)
        finish_bundle(folder, card)


def figures(evaluation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What a card says of one evaluation: figures, errors at each threshold, groups, gaps."""
    point = evaluation["operating_point"]["name"]
    both = evaluation["figures"]["auc"]["value"] is not None
    found = {
        f"{name} at {point}" if name in ("accuracy", "recall", "apcer", "bpcer") else name: figure
        for name, figure in evaluation["figures"].items()
        if name in SHOWN and figure["value"] is not None and (both or name != "accuracy")
    }
    for measured in evaluation["measured"]:
        for error in ("apcer", "bpcer"):
            if measured[error]["value"] is not None:
                found[f"{error} at {measured['point']['name']}"] = measured[error]
    for part in evaluation["slices"]:
        for error in ("apcer", "bpcer"):
            figure = (part["figures"] or {}).get(error)
            if part["key"] != "source" and figure and figure["value"] is not None:
                found[f"{error} at {point}, {part['key']}: {part['value']}"] = figure
    for gap in evaluation["gaps"]:
        said = (
            f"largest gap in {gap['error']} by {gap['key']}, {gap['lowest']} to {gap['highest']}, "
            f"p = {gap['p']:.4f}"
        )
        found[said] = {"value": gap["value"], "low": None, "high": None, "n": gap["n"]}
    return found


def deliveries(stress: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """AUC of the same pictures, re-saved, shrunk or sent."""
    (detector,) = stress["detectors"]
    return {
        f"auc, {one['condition']['name']}": one["figures"]["auc"]
        for one in detector["outcomes"]
        if one["condition"]["kind"] == "delivery"
    }


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
