#!/usr/bin/env bash
# The runs of RESULTS.md on photos and clips, after spine.sh (or its line for fs-v2-128). DATA holds
# the sets and `videos`. About ten minutes on two cores.
set -euo pipefail
DATA=${DATA:-../shared/data}
cd "$(dirname "$0")/.."

# Exit code 3: some pictures were not cut, and are listed.
for name in portraits_sd3 fairface; do
  bonaface data crop "$DATA/$name" --out "runs/$name-crops" || [ $? -eq 3 ]
done

for name in real_519 fake_519_515 real_two_people; do
  bonaface detect "$DATA/videos/$name.mp4" --model runs/fs-v2-128 --annotate runs/drawn
done

# 150 reals and 150 fakes of the test split.
python - "$DATA/faceswap" > runs/slice.txt <<'PYTHON'
import sys
from pathlib import Path
from bonaface import load_samples
chosen = load_samples(Path(sys.argv[1])).split("test").limit(300, seed=0)
print("\n".join(str(chosen.absolute(row)) for row in chosen.rows))
PYTHON
xargs -d '\n' bonaface detect --model runs/fs-v2-128 --stability --json \
  < runs/slice.txt > runs/stability.json
