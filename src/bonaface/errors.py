"""Every error that bonaface raises on purpose.

::

    BonafaceError            exit 2   wrong use or unusable input
    ├── ConfigError                   a setting that is unknown or out of range
    ├── DataError                     a data set that cannot be used as it stands
    ├── ImageError                    one image that cannot be used; carries a short reason
    ├── BundleError                   a folder that is not a bundle, or not one we can read
    ├── ScoresError                   score tables that are malformed or do not match
    ├── TrainingError                 a training run that cannot go on
    │   └── DivergedError             its loss is no longer finite: other settings may do
    └── MissingExtraError             a library that belongs to an optional extra

A message says what was expected, what came, and what to do, in one line.
"""

from __future__ import annotations

from typing import Self


class BonafaceError(Exception):
    """Base of all deliberate errors; `exit_code` is what the command line returns."""

    exit_code = 2


class ConfigError(BonafaceError):
    """A setting is unknown, of the wrong type, or out of range."""


class DataError(BonafaceError):
    """A data set cannot be used as it stands."""


class ImageError(BonafaceError):
    """One image cannot be used.

    Attributes:
        reason: a few words without the file's name, fit for a table ("truncated", "empty file").
    """

    def __init__(self, reason: str, name: str | None = None) -> None:
        super().__init__(f"{name}: {reason}" if name else reason)
        self.reason = reason


class BundleError(BonafaceError):
    """A folder is not a bundle, is damaged, or was written by a newer version."""


class ScoresError(BonafaceError):
    """A table of scores is malformed, or two tables do not hold the same samples."""


class TrainingError(BonafaceError):
    """A training run cannot go on."""


class DivergedError(TrainingError):
    """The loss of a training run is no longer finite, which is the fault of its settings."""


class MissingExtraError(BonafaceError):
    """A library that belongs to an optional extra is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs libraries that are not installed; "
            f"install them with: pip install 'bonaface[{extra}]'"
        )
        self._given = (what, extra)

    def __reduce__(self) -> tuple[type[Self], tuple[str, str]]:
        return type(self), self._given  # exceptions are rebuilt from their message otherwise
