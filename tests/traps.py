"""What the tests of an audit lay in a data set, and find again."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from PIL import Image


def saved(picture: Image.Image, **how: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, **how)
    return buffer.getvalue()


def resaved(path: Path, quality: int = 50) -> bytes:
    """At half the size, as JPEG."""
    with Image.open(path) as picture:
        half = picture.convert("RGB").resize((picture.width // 2, picture.height // 2))
    return saved(half, format="JPEG", quality=quality)


def edit(root: Path, change: dict[str, dict[str, str]]) -> None:
    """Change cells of metadata.csv, by file name."""
    table = root / "metadata.csv"
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | change.get(row["file_name"], {}) for row in rows)


def png_fakes(root: Path) -> None:
    """Fakes become PNG files; without metadata, whose names would be wrong."""
    (root / "metadata.csv").unlink()
    for path in sorted(root.glob("*/fake/*.jpg")):
        with Image.open(path) as picture:
            path.with_suffix(".png").write_bytes(saved(picture, format="PNG"))
        path.unlink()


def two_qualities(root: Path) -> None:
    """Reals are saved anew as JPEG 75, fakes as JPEG 95."""
    for path in sorted(root.glob("*/*/*.jpg")):
        quality = 75 if path.parent.name == "real" else 95
        with Image.open(path) as picture:
            path.write_bytes(saved(picture.copy(), format="JPEG", quality=quality))
