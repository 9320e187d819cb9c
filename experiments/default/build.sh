#!/usr/bin/env bash
# From data to the detector that comes with the install. Stop it with Ctrl-C; the same command goes on.
# DATA holds the sets, and WEIGHTS beside it the file that first.toml names. Some
# hours on two cores. The test splits are read once, at the end, by what is then shipped.
# Who has the bundle of version 2 can begin at the fourth training: unfold.py makes $OUT/mean of it.
set -euo pipefail
DATA=${DATA:-../shared/data}
cd "$(dirname "$0")/../.."
OUT=runs/default
SETS=(faceswap stylegan fairface generated)

crop() { # set, options ... ; exit code 3: some pictures have no face, and are listed
  local data=$1
  shift
  bonaface data crop "$DATA/$data" "$@" || [ $? -eq 3 ]
}

train() { # name
  if [ ! -f "$OUT/$1/card.json" ]; then
    local resume=""
    [ -d "$OUT/$1/training" ] && resume=--resume
    bonaface train "$OUT/data" --config "experiments/default/$1.toml" --out "$OUT/$1" $resume
  fi
}

crop stylegan --margin 1.15 --out "$OUT/crops/stylegan-tight"
crop diffusion --margin 1.15 --out "$OUT/crops/diffusion-tight"
crop diffusion --margin 1.4 --out "$OUT/crops/diffusion"
python experiments/default/join.py "$DATA" "$OUT/crops" "$OUT/data"
train first
train second
train third
[ -f "$OUT/mean/card.json" ] ||
  python experiments/default/average.py "$OUT/second" "$OUT/third" "$OUT/mean"
train fourth
[ -f "$OUT/between/card.json" ] ||
  python experiments/default/average.py "$OUT/mean" "$OUT/fourth" "$OUT/between" 0.75
train average
[ -f "$OUT/float16/card.json" ] || bonaface export "$OUT/average" --to onnx --float16 \
  --gate "$OUT/data" --split validation --out "$OUT/float16"

crop portraits_sd3 --like "$OUT/float16" --out "$OUT/crops/portraits_sd3"
for name in "${SETS[@]}" portraits_sd3; do
  data=$DATA/$name point=fake_above
  [ "$name" = portraits_sd3 ] && data=$OUT/crops/$name
  [[ $name = faceswap || $name = stylegan ]] && point=balanced
  [ -f "$OUT/tests/$name/evaluation.json" ] || bonaface evaluate "$OUT/float16" "$data" \
    --operating-point "$point" --out "$OUT/tests/$name"
done
for name in faceswap stylegan; do
  bonaface stress "$OUT/float16" "$DATA/$name" --corruptions none --attacks none \
    --out "$OUT/stress/$name"
done
python experiments/default/finish.py "$OUT" src/bonaface/weights/default
