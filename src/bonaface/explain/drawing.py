"""Explanations as pictures: a panel for each face of a photo, a contact sheet for a clip.

A map is laid over the grey crop in two colours, those of fake and of real. Beside it stands what
forensics looks at: high frequencies, the power spectrum, and its mean over all directions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from bonaface.explain.explaining import MEANING, Explanation, Look
from bonaface.explain.faithful import STEPS, Faith
from bonaface.explain.maps import Map, Pixels
from bonaface.paper import (
    BOLD,
    FINE,
    INK,
    PALETTE,
    PAPER,
    RULE,
    SOFT,
    Page,
    long,
    sentence,
    wrapped,
)
from bonaface.preprocess import centre_square
from bonaface.signals import FLOOR, LIMIT, power_spectrum, residual, ring_means
from bonaface.verdict import PersonVerdict

_WIDE, _MARGIN, _TEXT, _GAP = 1500, 36, 18, 24  # pixels of a panel
_TILE: Final = (_WIDE - 2 * _MARGIN - 4 * _GAP) // 5
_PLOT: Final = ((_WIDE - 2 * _MARGIN - 2 * _GAP) // 3, 250)
_DESK: Final = 234
_CAPTION: Final = 15
_LARGEST: Final = 512  # side of the spectrum
_DEPTH: Final = 60  # dB from black to white
_RANDOM, _CENTRE = "#8A9097", "#C9A227"
_SHEET_TILE: Final = 166


def panel(explanation: Explanation, look: Look) -> Pixels:
    """One face: the picture, what the network was shown, its map, the views of forensics, curves.

    Returns:
        Uint8 RGB, 1500 pixels wide.
    """
    page = Page(_WIDE, _TEXT, _MARGIN)
    _head(page, explanation, look, f"Face {look.number}")
    if look.map is None or look.faith is None or look.crop is None:
        page.write("There is no map of what was not judged.")
        _foot(page, explanation)
        return page.cut()
    crop, scale = centre_square(look.crop), _scale([look.map])
    tiles = [
        ("The picture", _boxed(look), "the face in its box" if look.box else "taken as a crop"),
        ("The crop", crop, f"{len(look.crop)} px, shown to the network at {len(look.map.values)}"),
        ("Where it looked", overlay(crop, look.map, scale), ""),
        (
            "High frequencies",
            residual_view(crop),
            f"second differences, ±{LIMIT:g} grey levels about grey",
        ),
        (
            "Power spectrum",
            spectrum_view(crop),
            f"lowest frequencies in the middle, {_DEPTH} dB from black to white",
        ),
    ]
    top = page.y
    end = top
    for at, (title, pixels, caption) in enumerate(tiles):
        x = _MARGIN + at * (_TILE + _GAP)
        page.text((x, top + 18), title, _TEXT, INK, BOLD)
        _paste(page, pixels, (x, top + 30), _TILE)
        end = max(end, _caption(page, (x, top + 30 + _TILE), caption, _TILE))
    x = _MARGIN + 2 * (_TILE + _GAP)
    end = max(end, _key(page, (x, top + 36 + _TILE), _TILE, look.map, scale))
    page.y = end + 16
    _curves(page, look.faith, crop)
    page.write(look.faith.words, INK)
    _foot(page, explanation)
    return page.cut()


def sheet(explanation: Explanation) -> Pixels:
    """A clip: for each person a row of frames with crop, map and high frequencies.

    Returns:
        Uint8 RGB, 1500 pixels wide.
    """
    verdict = explanation.verdict
    head = Page(_WIDE, _TEXT, _MARGIN)
    head.text((_MARGIN, head.y + 22), Path(verdict.path).name[:90], _TEXT + 4, INK, BOLD)
    head.y += 40
    _headline(head, verdict.answer, verdict.score, verdict.reason)
    strips = [head.cut()]
    for person in verdict.people:
        looks = [look for look in explanation.looks if look.number == person.number]
        if looks:
            strips.append(_person(person, looks))
    foot = _strip()
    if explanation.left_out:
        foot.write(f"{explanation.left_out} more people are not shown.", SOFT)
    _foot(foot, explanation)
    return np.vstack([*strips, foot.cut()])


# -- views --


def overlay(crop: Pixels, found: Map, scale: float) -> Pixels:
    """A map over its crop made grey: the colour of fake where the logit rises, else of real.

    Args:
        crop: uint8 side x side x 3.
        found: in the same square.
        scale: change of logit that gets the full colour.
    """
    side = max(len(crop), _TILE)
    large = np.asarray(_resized(crop, side), np.float32)
    grey = np.repeat(large.mean(2, keepdims=True), 3, 2)
    values = np.asarray(cv2.resize(found.values, (side, side), interpolation=cv2.INTER_LINEAR))
    strength = np.clip(np.abs(values) / scale, 0, 1)[..., None] * 0.8
    colour = np.where(values[..., None] > 0, _rgb("fake"), _rgb("real"))
    return np.asarray(np.rint(grey * (1 - strength) + colour * strength), np.uint8)


def residual_view(crop: Pixels) -> Pixels:
    """What a high-pass filter leaves, about grey: uint8, two pixels smaller each way."""
    return np.asarray(np.rint(127.5 + 127.5 * residual(crop)), np.uint8)


def spectrum_view(crop: Pixels) -> Pixels:
    """Log power spectrum of a square crop, the lowest frequencies in the middle; uint8 RGB."""
    half = power_spectrum(_bounded(crop))
    side = len(half)
    # The other half mirrors this one: (y, x) has the power of (-y, -x).
    columns = np.arange(half.shape[1], side)
    mirrored = half[-np.arange(side)[:, None] % side, (side - columns)[None]]
    whole = np.fft.fftshift(np.hstack([half, mirrored]))
    level = 10 * np.log10(whole + FLOOR)
    high = float(np.percentile(level, 99.9))
    shade = np.clip((level - high + _DEPTH) / _DEPTH, 0, 1)
    return np.repeat(np.rint(255 * shade).astype(np.uint8)[..., None], 3, 2)


def map_as_grey(found: Map) -> tuple[Pixels, float]:
    """A map as 8 bits, 128 for 0, and the change of logit that 127 steps are."""
    scale = _scale([found])
    return np.rint(128 + 127 * found.values / scale).astype(np.uint8), scale


def _scale(maps: Sequence[Map]) -> float:
    """The largest change of any; 1 where nothing changes."""
    return max(float(np.abs(found.values).max()) for found in maps) or 1.0


def _bounded(crop: Pixels) -> Pixels:
    """The middle of a crop that is larger than what a spectrum is taken of."""
    start = max(0, (len(crop) - _LARGEST) // 2)
    return crop[start : start + _LARGEST, start : start + _LARGEST]


def _boxed(look: Look) -> Pixels:
    """The picture with the face's box, in a square on grey."""
    image = Image.fromarray(look.scene)
    if look.box:
        corners = tuple(end * look.scale for end in look.box)
        line = max(2, round(max(image.size) / 90))
        pen = ImageDraw.Draw(image)
        pen.rectangle(corners, outline="#FFFFFF", width=line + 2)
        pen.rectangle(corners, outline=PALETTE[look.answer][0], width=line)
    side = max(image.size)
    ground = Image.new("RGB", (side, side), (_DESK,) * 3)
    ground.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return np.asarray(ground)


def _rgb(answer: str) -> NDArray[np.float32]:
    return np.array(tuple(bytes.fromhex(PALETTE[answer][0][1:])), np.float32)  # type: ignore[index]


def _resized(pixels: Pixels, side: int) -> Pixels:
    how = cv2.INTER_AREA if side < len(pixels) else cv2.INTER_CUBIC
    resized = cv2.resize(np.ascontiguousarray(pixels), (side, side), interpolation=how)
    return np.asarray(resized, np.uint8)


# -- parts of a page --


def _head(page: Page, explanation: Explanation, look: Look, title: str) -> None:
    name = Path(explanation.verdict.path).name
    page.text((_MARGIN, page.y + 22), f"{title} · {name}"[:90], _TEXT + 4, INK, BOLD)
    page.y += 40
    _headline(page, look.answer, look.score, look.reason)


def _headline(page: Page, answer: str, score: float | None, reason: str) -> None:
    word = "not judged" if answer == "not_applicable" else answer
    wide = page.chip((_MARGIN, page.y), word.capitalize(), _TEXT + 4, answer)  # type: ignore[arg-type]
    if score is not None:
        at = _MARGIN + wide + 14, page.y + 24
        page.text(at, f"score {score:.3f}", _TEXT + 4, INK)
    page.y += 40
    page.write(sentence(reason))
    page.y += 6


def _foot(page: Page, explanation: Explanation) -> None:
    verdict = explanation.verdict
    page.rule()
    page.write(
        f"{MEANING} · Method {explanation.method}, seed {explanation.seed} · "
        f"Model {verdict.model}, bonaface {verdict.version}",
        SOFT,
    )
    page.y += 12


def _paste(page: Page, pixels: Pixels, at: tuple[int, int], side: int) -> None:
    page.image.paste(Image.fromarray(_resized(pixels, side)), at)


def _caption(page: Page, at: tuple[int, int], text: str, wide: int) -> int:
    """Under a tile; returns where it ends."""
    y = at[1] + 6
    for line in wrapped(text, _CAPTION, wide, 3):
        y += _CAPTION + 4
        page.text((at[0], y), line, _CAPTION)
    return y + 6


def _key(page: Page, at: tuple[int, int], wide: int, found: Map, scale: float) -> int:
    """The scale of colours with its ends and its unit; returns where it ends."""
    x, y = at
    along = np.linspace(-1, 1, wide)[None, :, None]
    strength = 0.8 * np.abs(along)
    colour = np.where(along > 0, _rgb("fake"), _rgb("real"))
    bar = np.repeat(170.0 * (1 - strength) + colour * strength, 14, 0)
    page.image.paste(Image.fromarray(np.rint(bar).astype(np.uint8)), (x, y))
    for share, text in ((0.0, f"-{scale:.2g}"), (0.5, "0"), (1.0, f"+{scale:.2g}")):
        left = x + share * (wide - long(text, _CAPTION))
        page.text((left, y + 32), text, _CAPTION, INK)
    words = f"to real and to fake: {found.unit}"
    return _caption(page, (x, y + 34), words, wide)


def _strip() -> Page:
    page = Page(_WIDE, _TEXT, _MARGIN)
    page.y = 0
    return page


def _person(person: PersonVerdict, looks: Sequence[Look]) -> Pixels:
    page = _strip()
    page.rule()
    page.text((_MARGIN, page.y + 20), f"Person {person.number}", _TEXT + 4, INK, BOLD)
    page.y += 34
    _headline(page, person.answer, person.score, person.reason)
    maps = [look.map for look in looks if look.map is not None]
    if not maps:
        page.write("There is no map of who was not judged.")
        return page.cut()
    scale, head = _scale(maps), page.cut()
    columns = (_WIDE - 2 * _MARGIN + _GAP // 2) // (_SHEET_TILE + _GAP // 2)
    rows = [_row(looks[at : at + columns], scale) for at in range(0, len(looks), columns)]
    page = _strip()
    page.y = _key(page, (_MARGIN, 4), 2 * _SHEET_TILE, maps[0], scale) + 10
    believed = sum(look.faith.believed for look in looks if look.faith)
    others = "" if believed == len(maps) else "; do not read anything into the others"
    page.write(
        f"{believed} of {len(maps)} maps were shown to beat random ones as smooth as they "
        f"are{others}."
    )
    return np.vstack([head, *rows, page.cut()])


def _row(looks: Sequence[Look], scale: float) -> Pixels:
    page, top = _strip(), 4
    for at, look in enumerate(looks):
        x = _MARGIN + at * (_SHEET_TILE + _GAP // 2)
        score = "not judged" if look.score is None else f"{look.score:.3f}"
        page.text((x, top + 16), f"{look.seconds or 0:.1f} s · {score}", _CAPTION, INK)
        if look.map is None or look.crop is None or look.faith is None:
            _caption(page, (x, top + 22), look.reason, _SHEET_TILE)
            continue
        crop = centre_square(look.crop)
        views = _boxed(look), crop, overlay(crop, look.map, scale), residual_view(crop)
        for place, pixels in enumerate(views):
            _paste(page, pixels, (x, top + 24 + place * (_SHEET_TILE + 6)), _SHEET_TILE)
        word = "beats random maps" if look.faith.believed else "not shown to beat random"
        page.text((x, top + 24 + 4 * (_SHEET_TILE + 6) + 14), word, _CAPTION)
    page.y = top + 24 + 4 * (_SHEET_TILE + 6) + 30
    return page.cut()


# -- plots --


@dataclass(frozen=True, slots=True)
class _Line:
    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    wide: float = 2.0


def _curves(page: Page, faith: Faith, crop: Pixels) -> None:
    shares = [100 * at / STEPS for at in range(STEPS + 1)]
    score = f"score of {faith.side}"
    top = page.y
    for at, (name, own, centre, title) in enumerate(
        (
            ("deletion", faith.own.deletion, faith.centre.deletion, "Taken away: lower is better"),
            (
                "insertion",
                faith.own.insertion,
                faith.centre.insertion,
                "Given back: higher is better",
            ),
        )
    ):
        lines = [
            *(_Line("", shares, getattr(one, name), RULE, 1.0) for one in faith.random),
            _Line("random, mean", shares, faith.mean(name), _RANDOM),  # type: ignore[arg-type]
            _Line("middle first", shares, centre, _CENTRE),
            _Line("this map", shares, own, PALETTE[faith.side][0], 3.0),
        ]
        _plot(
            page,
            (_MARGIN + at * (_PLOT[0] + _GAP), top),
            title,
            lines,
            across="% of pixels",
            up=score,
            span=(0, 1),
        )
    rings = 10 * np.log10(ring_means(power_spectrum(_bounded(crop))) + FLOOR)
    side = min(len(crop), _LARGEST)
    across = (np.arange(1, len(rings) + 1) / side).tolist()
    spectrum = [_Line("", across, rings.tolist(), INK)]
    span = float(10 * math.floor(rings.min() / 10)), float(10 * math.ceil(rings.max() / 10))
    title = "Power spectrum over all directions"
    at_x = _MARGIN + 2 * (_PLOT[0] + _GAP)
    _plot(
        page, (at_x, top), title, spectrum, across="cycles a pixel of the crop", up="dB", span=span
    )
    page.y = top + _PLOT[1] + 24


def _plot(
    page: Page,
    at: tuple[int, int],
    title: str,
    lines: Sequence[_Line],
    *,
    across: str,
    up: str,
    span: tuple[float, float],
) -> None:
    """Lines with axes in a place of size `_PLOT`."""
    left, top = at[0] + 52, at[1] + 54
    wide, high = _PLOT[0] - 60, _PLOT[1] - 104
    low_x, high_x = min(lines[-1].x), max(lines[-1].x)
    if high_x < 1:  # frequencies begin at 0
        low_x = 0.0

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            FINE * (x - low_x) / (high_x - low_x) * wide,
            FINE * (1 - (y - span[0]) / (span[1] - span[0] or 1)) * high,
        )

    plot = Image.new("RGB", (FINE * wide, FINE * high), PAPER)
    pen = ImageDraw.Draw(plot)
    for line in lines:
        points = [place(x, y) for x, y in zip(line.x, line.y, strict=True)]
        pen.line(points, line.colour, round(FINE * line.wide), joint="curve")
    page.text((at[0], at[1] + 18), title, _TEXT, INK, BOLD)
    page.image.paste(plot.reduce(FINE), (left, top))
    page.draw.line((left, top, left, top + high, left + wide, top + high), SOFT)
    for share in (0, 0.5, 1):
        y_text = f"{span[0] + share * (span[1] - span[0]):g}"
        y = top + (1 - share) * high
        page.text((left - 8 - long(y_text, 14), y + 5), y_text, 14)
        x_text = f"{round(low_x + share * (high_x - low_x), 2):g}"
        x = left + share * wide
        page.draw.line((x, top + high, x, top + high + 4), SOFT)
        page.text((x - long(x_text, 14) / 2, top + high + 19), x_text, 14)
    page.text((left + wide - long(across, 14), top + high + 38), across, 14)
    page.text((at[0], top - 8), up, 14)
    x = left + long(up, 14)
    for line in (line for line in lines if line.name):
        page.draw.line((x, top - 13, x + 18, top - 13), line.colour, 3)
        page.text((x + 23, top - 8), line.name, 14)
        x += 23 + round(long(line.name, 14)) + 14
