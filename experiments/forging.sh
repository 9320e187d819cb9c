#!/usr/bin/env bash
# The runs of RESULTS.md with forged faces, after spine.sh and photos.sh (sg-v2-flip, fs-v2-128 and
# the crops of portraits_sd3 and fairface). DATA holds the sets, WEIGHTS the ImageNet weights. About an
# hour and a half on two cores.
set -euo pipefail
DATA=${DATA:-../shared/data}
WEIGHTS=${WEIGHTS:-../shared/weights/resnet50v2_imagenet_stages1-3.safetensors}
cd "$(dirname "$0")/.."

train() { # name, data, options ...
  local out=runs/$1 data=$2
  shift 2
  if [ ! -f "$out/card.json" ]; then
    local resume=""
    [ -d "$out/training" ] && resume=--resume
    bonaface train "$data" --out "$out" --model resnet50v2 --pretrained "$WEIGHTS" "$@" $resume
  fi
}

# Reals and their self-blends; then a table that leaves the fakes out of train, where they are
# forged on the fly. Exit code 3: some reals have no face that is found, and are listed.
for name in fs:faceswap sg:stylegan; do
  out=runs/${name%%:*}-forged
  bonaface data forge "$DATA/${name##*:}" --out "$out" --kinds self_blend || [ $? -eq 3 ]
  grep -v '^train/fake/' "$out/metadata.csv" > "$out/reals.csv"
done

train fs-forge "$DATA/faceswap" --size 128 --epochs 6 --forge 0.3
train sg-forge "$DATA/stylegan" --epochs 4 --forge 0.3
train sg-sbi runs/sg-forged/reals.csv --epochs 6 --forge 0.5 --forge-kinds self_blend --augment standard
train fs-sbi runs/fs-forged/reals.csv --size 160 --epochs 2 --forge 0.5 --forge-kinds self_blend \
  --augment standard

for name in fs-v2-128 fs-forge fs-sbi sg-v2-flip sg-forge sg-sbi; do
  for data in "$DATA/faceswap" "$DATA/stylegan" "$DATA/generated" runs/portraits_sd3-crops \
    runs/fairface-crops; do
    bonaface evaluate "runs/$name" "$data"
  done
done
bonaface compare runs/fs-{v2-128,forge,sbi}/evaluations/faceswap-test --out runs/compare-fs-forge
bonaface compare runs/sg-{v2-flip,forge,sbi}/evaluations/stylegan-test --out runs/compare-sg-forge

# Sets of fakes only against the reals of fairface.
python - <<'PYTHON'
from pathlib import Path

import numpy as np

from bonaface.metrics import figures
from bonaface.scores import Scores, read_scores

for name in ("fs-v2-128", "fs-forge", "fs-sbi", "sg-v2-flip", "sg-forge", "sg-sbi"):
    folder = Path("runs", name, "evaluations")
    reals = read_scores(folder / "fairface-crops-test" / "scores.csv")
    for data in ("generated", "portraits_sd3-crops"):
        fakes = read_scores(folder / f"{data}-test" / "scores.csv")
        both = Scores(
            (*(f"real/{path}" for path in reals.path), *(f"fake/{path}" for path in fakes.path)),
            *(
                np.concatenate([getattr(reals, key), getattr(fakes, key)])
                for key in ("label", "score", "logit")
            ),
            {},
        )
        print(name, data, figures(both, 0.5, seed=0)["auc"])
PYTHON
