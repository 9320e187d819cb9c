#!/usr/bin/env bash
# The runs of RESULTS.md, in order. DATA holds the sets `stylegan` and `faceswap`, WEIGHTS the file
# of ImageNet weights of the pre-activation ResNet-50. About two hours on two cores.
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
    bonaface train "$DATA/$data" --out "$out" "$@" $resume
  fi
}

train sg-cnn-flip stylegan --model cnn
train sg-resnet50 stylegan --model resnet50 --size 128
train sg-v2-flip stylegan --model resnet50v2 --pretrained "$WEIGHTS" --epochs 6
train sg-v2 stylegan --model resnet50v2 --pretrained "$WEIGHTS" --augment standard
train fs-cnn faceswap --model cnn
train fs-v2 faceswap --model resnet50v2 --pretrained "$WEIGHTS" --size 160 --epochs 5
train fs-v2-128 faceswap --model resnet50v2 --pretrained "$WEIGHTS" --size 128 --epochs 8

for name in sg-cnn-flip sg-resnet50 sg-v2-flip sg-v2; do
  bonaface evaluate "runs/$name" "$DATA/stylegan"
done
for name in fs-cnn fs-v2 fs-v2-128; do
  bonaface evaluate "runs/$name" "$DATA/faceswap"
done
bonaface compare runs/sg-*/evaluations/stylegan-test --out runs/compare-stylegan
bonaface compare runs/fs-*/evaluations/faceswap-test --out runs/compare-faceswap
for data in faceswap fairface generated; do bonaface evaluate runs/sg-v2 "$DATA/$data"; done
for data in stylegan fairface generated; do bonaface evaluate runs/fs-v2-128 "$DATA/$data"; done
