"""A ResNet as a folder that `transformers.pipeline("image-classification")` loads without bonaface.

The calibration is folded into the last layer, which gives two logits, [0, slope * logit + offset]:
their softmax is [1 - score, score].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bonaface.bundle import Bundle
from bonaface.errors import ConfigError, MissingExtraError
from bonaface.evaluate import Pixels, Scorer
from bonaface.export.forms import facts
from bonaface.files import write_json, write_text


def write_folder(source: Bundle, folder: Path) -> None:
    """Write config.json, model.safetensors, preprocessor_config.json and README.md.

    Args:
        source: a bundle of the ResNet family with model.safetensors.
        folder: to write into; it exists.

    Raises:
        ConfigError: it is another network.
        BundleError: its weights are absent or damaged.
    """
    try:
        import torch
        from transformers import ResNetForImageClassification

        from bonaface.models import registry, resnet
    except ImportError as error:
        raise MissingExtraError("exporting to Transformers", "train") from error

    name = source.card.architecture.get("name")
    if name not in resnet.LAYERS:
        raise ConfigError(
            f"expected one of {', '.join(resnet.LAYERS)} for Transformers, which has no other of "
            f"our networks, got {name!r}; export it to onnx or openvino"
        )
    trained = registry.rebuild(source)
    assert isinstance(trained, resnet.ResNet)  # as its name says
    config = trained.backbone.config.to_dict() | {"architectures": None}
    settings = type(trained.backbone.config).from_dict(
        config | {"id2label": {0: "real", 1: "fake"}, "label2id": {"real": 0, "fake": 1}}
    )
    settings.bonaface = facts(source, "transformers")
    made = ResNetForImageClassification(settings).eval()
    made.resnet.load_state_dict(trained.backbone.state_dict())
    fit, head = source.calibration, made.classifier[1]
    with torch.no_grad():
        head.weight[0], head.bias[0] = 0.0, 0.0
        head.weight[1] = (trained.head.weight[0].double() * fit.slope).float()
        head.bias[1] = (trained.head.bias[0].double() * fit.slope + fit.offset).float()
    made.save_pretrained(folder)
    write_json(folder / "preprocessor_config.json", _processor(source))
    write_text(folder / "README.md", _readme(source))


class Pipeline:
    """A written folder as a `Scorer`: what Transformers alone makes of it.

    Args:
        folder: as `write_folder` made it.
        source: what it was made from.
        resize: to the input's size first, as the recipe of the source does; else the pipeline
            resizes.
    """

    def __init__(self, folder: Path, source: Bundle, *, resize: bool = True) -> None:
        from transformers import pipeline

        self._pipe = pipeline("image-classification", model=str(folder), device="cpu")
        self.bundle = source
        self.name = f"{source.card.name}-transformers"
        self._resize = resize

    @property
    def calibration(self) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
        """That of the source."""
        return self.bundle.calibration

    def logits(self, crops: Sequence[Pixels]) -> NDArray[np.float64]:
        """Face crops (uint8 HxWx3, RGB) -> logits, float64 (n,), before calibration."""
        from PIL import Image

        if self._resize:
            crops = [self.bundle.preprocess.resize(crop) for crop in crops]
        images = [Image.fromarray(crop) for crop in crops]
        fit = self.bundle.calibration
        found = []
        for answer in self._pipe(images, top_k=None, function_to_apply="none"):
            by_label = {row["label"]: float(row["score"]) for row in answer}
            found.append((by_label["fake"] - by_label["real"] - fit.offset) / fit.slope)
        return np.array(found, np.float64)


def resize_difference(original: Scorer, folder: Path, crops: Sequence[Pixels]) -> float:
    """Largest difference of a score where the pipeline resizes crops by itself."""
    alone = Pipeline(folder, original.bundle, resize=False)
    before, after = (original.calibration(one.logits(crops)) for one in (original, alone))
    return float(np.abs(after - before).max())


def _processor(source: Bundle) -> dict[str, Any]:
    recipe = source.preprocess
    side = {"height": recipe.size, "width": recipe.size}
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": recipe.size},
        "resample": 2,  # bilinear; Pillow's is antialiased
        "do_center_crop": True,
        "crop_size": side,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(recipe.mean),
        "image_std": list(recipe.std),
    }


def _readme(source: Bundle) -> str:
    card, size = source.card, source.preprocess.size
    points = "\n".join(
        f"| {point.name} | {point.threshold:.6f} | {point.rule} |"
        for point in card.operating_points.values()
    )
    return f"""---
library_name: transformers
pipeline_tag: image-classification
tags: [deepfake-detection, face, forensics]
---
# {card.name}

A detector of forged **face crops** (`{card.architecture["name"]}`, input {size} px), exported by
bonaface from a bundle whose `model.onnx` has the SHA-256
`{source.model_sha256}`.

```python
from transformers import pipeline

judge = pipeline("image-classification", model="path/to/this/folder")
judge("crop.png")  # [{{"label": "fake", "score": ...}}, {{"label": "real", "score": ...}}]
```

The score of `fake` is the calibrated probability that the crop is fake, given as many fakes as
reals: the calibration lies in the last layer. It is evidence, not proof.

## Preprocessing
`preprocessor_config.json` does it: shorter side to {size} px (bilinear, antialiased), centre
square, pixels divided by 255, less {list(source.preprocess.mean)}, divided by
{list(source.preprocess.std)}.

- A crop of {size} x {size} px gives the score of the original, to rounding.
- Of square crops of other sizes so does a pipeline that resizes with Pillow. One that resizes with
  torchvision rounds pixels in another way, and the score moves a little.
- Of crops that are not square the original cuts out the centre square before it resizes and this
  pipeline after, which differs along the border. Cut the square yourself where that matters.
- Greyscale and transparent pictures are converted to RGB.

Faces are to be cut out with a margin of {card.crop["margin"]:.3f}; `config.json` has the whole
recipe under `bonaface`. `gate.json` says how far the pipeline is from what it was made from.

## Operating points
| name | score | chosen for |
|---|---|---|
{points}

## Limits
It knows the forgeries it was trained on. On others it may be no better than chance: measure it on
your own pictures before you rely on it. Never decide about a person on this score alone.
"""
