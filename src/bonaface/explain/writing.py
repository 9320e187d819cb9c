"""Explanations on disk: a picture and a small map for each face, and explain.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from PIL import Image

from bonaface.explain.drawing import map_as_grey, panel, sheet
from bonaface.explain.explaining import MEANING, Explainer, Explanation
from bonaface.explain.maps import Pixels
from bonaface.files import atomic_path, write_json

SCHEMA_VERSION: Final = 1
REPORT: Final = "explain.json"


class Writer:
    """Writes explanations into a folder, one after the other.

    Args:
        explainer: that makes them.
        out: the folder, made if need be.
    """

    def __init__(self, explainer: Explainer, out: Path) -> None:
        self._explainer, self._out = explainer, out
        self._stems: set[str] = set()
        self._pictures: list[dict[str, Any]] = []

    def add(self, found: Explanation) -> list[Path]:
        """Write the pictures of an explanation; returns their paths.

        Of a photo there is ``NAME-faceN.png`` for each face, of a clip one ``NAME.png``; each map
        lies in ``maps/`` as 8-bit PNG, where 128 is 0 and ``step`` of explain.json is one level.
        """
        stem = self._stem(Path(found.verdict.path).stem)
        told = found.to_dict()
        written = []
        told["file"] = None
        if found.verdict.kind == "video":
            written.append(self._save(f"{stem}.png", sheet(found)))
            told["file"] = written[0].name
        for look, entry in zip(found.looks, told["looks"], strict=True):
            name, entry["file"] = f"{stem}-face{look.number}", None
            if found.verdict.kind == "photo":
                written.append(self._save(f"{name}.png", panel(found, look)))
                entry["file"] = written[-1].name
            else:
                name = f"{stem}-person{look.number}-frame{look.frame}"
            if look.map is not None:
                grey, scale = map_as_grey(look.map)
                self._save(f"maps/{name}.png", grey)
                entry["map"] |= {"file": f"maps/{name}.png", "step": scale / 127}
        self._pictures.append(told)
        return written

    def document(self) -> dict[str, Any]:
        """What was added, JSON-ready."""
        bundle = self._explainer.detector.bundle
        return {
            "schema_version": SCHEMA_VERSION,
            "meaning": MEANING,
            "method": self._explainer.method,
            "seed": self._explainer.seed,
            "detector": {
                "name": bundle.card.name,
                "architecture": bundle.card.architecture["name"],
                "input_size": bundle.preprocess.size,
                "model_sha256": bundle.model_sha256,
                "version": bundle.card.versions.get("bonaface", "unknown"),
            },
            "pictures": self._pictures,
        }

    def finish(self) -> Path:
        """Write explain.json, which comes last; returns its path."""
        write_json(self._out / REPORT, self.document())
        return self._out / REPORT

    def _stem(self, stem: str) -> str:
        """A file name that no other picture took."""
        plain = "".join(c if c.isalnum() or c in "-_." else "_" for c in stem)[:80] or "picture"
        name, number = plain, 1
        while name in self._stems:
            number += 1
            name = f"{plain}-{number}"
        self._stems.add(name)
        return name

    def _save(self, name: str, pixels: Pixels) -> Path:
        path = self._out / name
        with atomic_path(path) as temporary:
            Image.fromarray(pixels).save(temporary, format="PNG")
        return path
