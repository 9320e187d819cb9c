"""Join the training sets of the default detector into one, as links: train and validation only.

`python join.py DATA CROPS OUT`: DATA holds the sets, CROPS what `bonaface data crop` cut of some.
The joint set has no test split, so nothing here can look at one.
"""

import csv
import os
import sys
from collections import defaultdict
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from bonaface import load_samples
from bonaface.crops import RECIPE_FILE, CropRecipe
from bonaface.files import write_json
from bonaface.samples import Sample, Samples

COLUMNS = ("split", "group", "generator", "age", "gender", "race", "source")
HELD = 14  # validation faces of each race and gender of fairface, which has no such split


def main(data: Path, crops: Path, out: Path) -> None:
    """Links in `out`, its metadata.csv, and the recipe that pictures are to be cut by."""
    sets = {
        "faceswap": load_samples(data / "faceswap"),
        "stylegan": load_samples(data / "stylegan"),
        # The same pictures about as close as faceswap's, or distance would tell the sets apart.
        "stylegan-tight": load_samples(crops / "stylegan-tight"),
        "fairface": held_out(load_samples(data / "fairface")),
        "diffusion": load_samples(crops / "diffusion"),
        "diffusion-tight": load_samples(crops / "diffusion-tight"),
    }
    rows = []
    for name, samples in sets.items():
        source = name.removesuffix("-tight")
        for row in samples.rows:
            if row.split == "test":
                continue
            path = out / name / row.path
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_symlink():
                path.symlink_to(os.path.relpath(samples.absolute(row), path.parent.resolve()))
            # Two crops of one picture are one group.
            one = replace(row, group=f"{source}/{row.group or Path(row.path).stem}")
            values = (getattr(one, column) or "" for column in COLUMNS)
            rows.append((f"{name}/{row.path}", ("real", "fake")[row.label], *values))
    recipe = CropRecipe(margin=1.2, origin="between the sets it was trained on")
    write_json(out / RECIPE_FILE, recipe.to_dict())
    with (out / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file_name", "label", *COLUMNS), *rows])


def held_out(samples: Samples) -> Samples:
    """Some of each group of people moved from train to validation, chosen by their names."""
    people: dict[tuple[str | None, str | None], list[Sample]] = defaultdict(list)
    for row in samples.split("train").rows:
        people[row.race, row.gender].append(row)
    chosen = {
        row.path
        for rows in people.values()
        for row in sorted(rows, key=lambda row: sha256(row.path.encode()).digest())[:HELD]
    }
    return replace(
        samples,
        rows=tuple(
            replace(row, split="validation") if row.path in chosen else row for row in samples.rows
        ),
    )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
