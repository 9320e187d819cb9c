"""Do forged copies of real validation faces score higher? `python forgeries.py BUNDLE DATA`.

Of the reals of each set: the share whose forged copy scores higher than the face itself, and the
AUC of copies against faces. A swap takes the face of the next picture.
"""

import sys
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from bonaface import load_detector, load_samples
from bonaface.forge import KINDS
from bonaface.images import read_image

FEWER = {"faceswap": 4, "fairface": 1, "stylegan": 1}  # every so many pictures of a set


def main(bundle: str, data: Path) -> None:
    """Print a line for each set and kind."""
    detector = load_detector(bundle)
    finder = detector.finder()
    samples = load_samples(data).split("validation")
    for name, step in FEWER.items():
        rows = [row for row in samples.rows if row.label == 0 and row.path.startswith(f"{name}/")]
        pictures = [read_image(samples.absolute(row)).pixels for row in rows[::step]]
        found = [(picture, faces[0]) for picture in pictures if (faces := finder.find(picture))]
        plain = detector.logits([picture for picture, _ in found])
        for kind, forge in KINDS.items():
            rng = np.random.default_rng(0)
            donors = [*found[1:], found[0]]
            forged = [
                forge(picture, face, rng, donor).image
                for (picture, face), donor in zip(found, donors, strict=True)
            ]
            scored = detector.logits(forged)
            labels = np.repeat([0, 1], len(found))
            auc = roc_auc_score(labels, np.concatenate([plain, scored]))
            higher = float(np.mean(scored > plain))
            print(f"{name} {kind} n = {len(found)} higher {higher:.3f} AUC {auc:.3f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
