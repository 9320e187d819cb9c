"""Text and answers on pictures, with no font but the one that Pillow brings.

Each answer has a colour, and its word stands wherever the colour does. Vermilion, blue, amber and
grey are told apart by colour-blind eyes too, by hue or by lightness, as in the palette of Okabe and
Ito; the first two are darkened so that white text on them is legible.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from bonaface.verdict import Answer

Pixels = NDArray[np.uint8]
Point = tuple[float, float]

PALETTE: Final[Mapping[Answer, tuple[str, str]]] = {  # ground, and text on it
    "fake": ("#C24A00", "#FFFFFF"),
    "real": ("#0068A8", "#FFFFFF"),
    "unsure": ("#F5B700", "#1A1A1A"),
    "not_applicable": ("#63686E", "#FFFFFF"),
}
INK, SOFT, RULE, PAPER = "#1A1A1A", "#565B61", "#D3D6DA", "#FFFFFF"
BOLD: Final = 1 / 45  # thickening of letters, in their size
FINE: Final = 4  # supersampling of text and curves
_NEARLY: Final = str.maketrans({"–": "-", "—": "-", "‑": "-", "×": "x", "\u00a0": " "})
_MOST_TEXT, _MOST_WORD = 3000, 500  # characters of a paragraph, of a word


@lru_cache(maxsize=64)
def font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own, at a size in pixels."""
    font = ImageFont.load_default(size * FINE)  # Aileron, embedded in Pillow: little beyond ASCII
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def long(text: str, size: int) -> float:
    """How long a line of text is, in pixels."""
    return float(font(size).getlength(text)) / FINE


def plain(text: str) -> str:
    """What the font can show: accents dropped, control characters and the like escaped."""
    whole = unicodedata.normalize("NFD", text[:_MOST_TEXT].translate(_NEARLY))
    bare = "".join(c for c in whole if unicodedata.category(c) != "Mn")
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii")
        for c in unicodedata.normalize("NFC", bare)
    )


def sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def wrapped(text: str, size: int, width: float, most: int) -> list[str]:
    """Lines of a paragraph; where they are more than `most`, the last ends in an ellipsis."""
    lines = [""]
    for word in plain(text).split():
        if len(lines) > most:
            break
        joined = f"{lines[-1]} {word}".lstrip()
        if long(joined, size) <= width:
            lines[-1] = joined
            continue
        lines += [""] * bool(lines[-1])
        for letter in word[:_MOST_WORD]:  # a word may be longer than a line
            if lines[-1] and long(lines[-1] + letter, size) > width:
                lines.append("")
            lines[-1] += letter
    if len(lines) > most:
        while lines[most - 1] and long(f"{lines[most - 1]} …", size) > width:
            lines[most - 1] = lines[most - 1][:-1]
        lines[most - 1 :] = [f"{lines[most - 1].rstrip()} …"]
    return lines


def chip_size(text: str, size: int) -> tuple[int, int]:
    """Width and height of a chip with this text."""
    return math.ceil(long(text, size)) + size, round(1.45 * size)


class Page:
    """A picture to draw on, or paper written on from the top and cut where that ends."""

    def __init__(self, image: Image.Image | int, unit: int, margin: int = 0) -> None:
        paper = Image.new("RGB", (image, 1600), PAPER) if isinstance(image, int) else image
        self.image, self.draw, self.wide = paper, ImageDraw.Draw(paper), paper.width - 2 * margin
        self.unit, self.margin, self.y = unit, margin, margin

    def text(self, at: Point, text: str, size: int, colour: str = SOFT, bold: float = 0) -> None:
        """One line, from its left end and baseline; finely drawn, as hinting would eat spaces."""
        x, top = math.floor(at[0]) - 1, math.floor(at[1]) - size
        mask = Image.new("L", ((math.ceil(long(text, size)) + 4) * FINE, 2 * size * FINE))
        start, stroke = ((at[0] - x) * FINE, (at[1] - top) * FINE), bold * size * FINE
        ImageDraw.Draw(mask).text(start, text, 255, font(size), "ls", stroke_width=stroke)
        self.image.paste(colour, (x, top), mask.reduce(FINE))

    def chip(self, at: tuple[int, int], text: str, size: int, answer: Answer) -> int:
        """Text on the colour of an answer; returns how wide it is."""
        (x, y), (wide, high), (ground, ink) = at, chip_size(text, size), PALETTE[answer]
        self.draw.rectangle((x, y, x + wide - 1, y + high - 1), fill=ground)
        self.text((x + size / 2, y + 1.07 * size), text, size, ink, BOLD)
        return wide

    def write(self, text: str, colour: str = INK, most: int = 8, wide: int = 0) -> None:
        """A paragraph from the left margin."""
        for line in wrapped(text, self.unit, wide or self.wide, most):
            self.text((self.margin, self.y + 1.05 * self.unit), line, self.unit, colour)
            self.y += round(1.4 * self.unit)
        self.y += round(0.3 * self.unit)

    def rule(self) -> None:
        """A thin line across."""
        self.y += round(0.3 * self.unit)
        self.draw.line((self.margin, self.y, self.margin + self.wide - 1, self.y), RULE)
        self.y += round(0.6 * self.unit)

    def cut(self) -> Pixels:
        """What was written."""
        return np.array(self.image.crop((0, 0, self.image.width, self.y)))
