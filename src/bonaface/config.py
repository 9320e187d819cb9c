"""Settings of a command: frozen, checked, from and to TOML; unknown keys are errors."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bonaface.errors import ConfigError


class Config(BaseModel):
    """Base of all settings; a value of another type is refused, not converted."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())

    @classmethod
    def read(cls, path: Path | None = None, **overrides: Any) -> Self:
        """Settings from a TOML file, if one is named, under overrides that are not None.

        Raises:
            ConfigError: the file cannot be read, or a setting is unknown or out of range.
        """
        values: dict[str, Any] = {}
        if path is not None:
            try:
                values = tomllib.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise ConfigError(
                    f"expected a TOML file, got {str(path)!r} ({error}); correct it"
                ) from error
        values |= {key: value for key, value in overrides.items() if value is not None}
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            setting = ".".join(str(part) for part in first["loc"]) or "settings"
            known = ", ".join(sorted(cls.model_fields))
            hint = f"; known settings: {known}" if first["type"] == "extra_forbidden" else ""
            raise ConfigError(
                f"setting {setting!r}: {first['msg']}, got {first['input']!r}{hint}"
            ) from error

    def changes(self, later: Self) -> list[str]:
        """What differs in other settings, each as "key = value, now value"."""
        return [
            f"{key} = {before!r}, now {now!r}"
            for key in type(self).model_fields
            if (before := getattr(self, key)) != (now := getattr(later, key))
        ]

    def to_toml(self) -> str:
        """TOML that `read` takes; settings that are None are left out."""
        import tomli_w

        return tomli_w.dumps(self.model_dump(exclude_none=True))


class TrainConfig(Config):
    """How a detector is trained. A setting that is None takes the model's own default.

    Attributes:
        model: a name from `bonaface models`.
        pretrained: bundle, file, folder or Hub id of weights to begin with; None: from scratch.
        size: side of the input in pixels.
        mean: of each channel (R, G, B) of pixels in [0, 1], subtracted from them; None: that of the
            weights to begin with, or else the model's.
        std: likewise, by which they are divided.
        stages: for resnet50v2, how many of its four stages to use.
        branches: for hybrid, out of rgb and residual; None: both.
        depth: for hybrid, the network of its branch rgb; None: resnet50v2.
        freeze: none trains all, backbone the head alone, staged one stage after the other from the
            head on (`bonaface.freezing`).
        dropout: share of features dropped before the last layer; spectrum drops none.
        pictures: of the training split that are used, half real and half fake where there are
            enough, chosen by the seed, smaller choices within larger ones; None: all.
        epochs: passes over the training split, at most; 0 makes a bundle of the weights as they
            are.
        batch_size: images per step.
        optimizer: sgd (momentum 0.9, Nesterov) or adamw.
        lr: peak learning rate, reached after the warm-up, then down a half cosine to 0.
        weight_decay: on weights of convolutions and linear layers only.
        warmup: share of all steps over which the learning rate rises.
        label_smoothing: targets become smoothing/2 and 1 - smoothing/2.
        clip: largest norm of the gradient.
        balance: class imbalance answered by weights in the loss, by batches, or not; sources also
            draws each source of reals and generator of fakes by the root of its size.
        augment: a recipe from `bonaface.augment.RECIPES`.
        forge: share of the pictures of an epoch that are real training faces, forged anew.
        forge_kinds: of forgery, out of `bonaface.forge.KINDS`; None: all.
        adversarial: train on the worst pictures within so many grey levels of each
            (`bonaface.hardening`); 0: on the pictures as they are.
        precision: auto takes bf16 where it is faster (AMX, recent GPUs), else float32.
        monitor: validation figure that picks the epoch and stops the run.
        patience: epochs without a better monitor before the run stops; 0: never.
        seed: of weights, batches, augmentation and dropout.
    """

    model: str = "cnn"
    pretrained: str | None = None
    size: int | None = Field(default=None, ge=16, le=1024)
    mean: Annotated[tuple[float, float, float], Field(strict=False)] | None = None
    std: Annotated[tuple[float, float, float], Field(strict=False)] | None = None
    stages: int | None = Field(default=None, ge=1, le=4)
    branches: (
        Annotated[tuple[Literal["rgb", "residual"], ...], Field(strict=False, min_length=1)] | None
    ) = None
    depth: Literal["resnet18", "resnet34", "resnet50", "resnet50v2"] | None = None
    freeze: Literal["none", "backbone", "staged"] = "none"
    dropout: float = Field(default=0.3, ge=0, lt=1)
    pictures: int | None = Field(default=None, ge=2)
    epochs: int = Field(default=10, ge=0, le=10_000)
    batch_size: int = Field(default=32, ge=2, le=4096)
    optimizer: Literal["sgd", "adamw"] = "adamw"
    lr: float | None = Field(default=None, gt=0, le=1000)
    weight_decay: float = Field(default=0.01, ge=0, allow_inf_nan=False)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    clip: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    balance: Literal["weights", "batches", "sources", "none"] = "weights"
    augment: str = "flip"
    forge: float = Field(default=0.0, ge=0, le=0.9)
    forge_kinds: Annotated[tuple[str, ...], Field(strict=False)] | None = None
    adversarial: float = Field(default=0.0, ge=0, le=64)
    precision: Literal["auto", "float32", "bf16"] = "auto"
    monitor: Literal["auc", "accuracy", "loss"] = "auc"
    patience: int = Field(default=0, ge=0)
    seed: int = Field(default=0, ge=0, lt=2**32)
