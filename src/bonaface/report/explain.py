"""Explanations, and figures of how good they are, as pages that stand alone."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes

from bonaface.explain import MEANING
from bonaface.explain.evaluating import ORDERS, Assessment, above_zero
from bonaface.explain.faithful import STEPS
from bonaface.files import write_json, write_text
from bonaface.metrics import Figure
from bonaface.report.plots import _SIDE, SERIES, SOFT, _canvas, _styled, _svg
from bonaface.report.render import count, in_words, rate, render, span

_NAMES = {"own": "this method", "random": "random maps", "centre": "middle first"}


def write_explanations(document: Mapping[str, Any], out: Path) -> Path:
    """Write explain.html for what `bonaface.explain.writing.Writer` wrote beside it.

    Args:
        document: the content of explain.json.
        out: folder of explain.json and the pictures, which go into the page.
    """
    page = out / "explain.html"
    write_text(page, explanations_page(document, out))
    return page


def explanations_page(document: Mapping[str, Any], folder: Path) -> str:
    """Explanations as HTML, with their pictures inside."""
    looks = [look for one in document["pictures"] for look in one["looks"]]
    files = {
        name: _embedded(folder / name)
        for one in document["pictures"]
        for name in (one.get("file"), *(look.get("file") for look in one["looks"]))
        if name
    }
    return render(
        "explanations.html",
        d=document,
        verdict=_believed(looks),
        files=files,
        facts=[
            (
                "Detector",
                f"{document['detector']['name']} ({document['detector']['architecture']})",
            ),
            ("Method", f"{document['method']}, seed {document['seed']}"),
            ("Network", f"model.onnx {document['detector']['model_sha256']}"),
            (
                "Curves",
                "Pixels are given the mean colour (deletion), or given back to a blurred picture "
                "(insertion), in the map's order; 0.05 of them at a time. Areas are of the score "
                "of the side that the detector took (Petsiuk et al. 2018).",
            ),
            (
                "Random maps",
                "Each is the map with its phases drawn anew, so as smooth as the map itself "
                "(Theiler et al. 1992).",
            ),
        ],
    )


def _believed(looks: list[dict[str, Any]]) -> str:
    judged = [look for look in looks if look["faith"]]
    if not judged:
        return "No face was judged, so there is no map."
    good = sum(look["faith"]["believed"] for look in judged)
    many = "1 map" if len(judged) == 1 else f"{len(judged)} maps"
    if good == len(judged):
        return f"{many}, shown to point at what mattered to the network more than random maps do."
    if not good:
        them = "it" if len(judged) == 1 else "them"
        return f"{many}, not shown to beat random maps: do not read anything into {them}."
    return f"{good} of {many} were shown to beat random maps; do not read anything into the others."


def _embedded(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def write_assessment(found: Assessment, out: Path) -> tuple[Path, Path]:
    """Write faithfulness.json and faithfulness.html; returns their paths."""
    card, page = out / "faithfulness.json", out / "faithfulness.html"
    write_json(card, found.to_dict())
    write_text(page, assessment_page(found))
    return card, page


def assessment_page(found: Assessment) -> str:
    """How good a method is, as HTML."""
    return render(
        "faithfulness.html",
        a=found,
        meaning=MEANING,
        title=f"{found.method.capitalize()} maps of {found.detector}",
        verdicts=_verdicts(found),
        plots=[
            (title, _curves(found, at, title), caption)
            for at, (title, caption) in enumerate(
                (
                    ("Deletion", "Pixels are taken away in order; a good map falls early."),
                    ("Insertion", "Pixels are given back in order; a good map rises early."),
                )
            )
        ],
        facts=[
            ("Data", f"{found.data}, {found.split} split ({found.fingerprint})"),
            ("Network", f"model.onnx {found.model_sha256}"),
            (
                "Random maps",
                f"{found.rivals} for each picture, as smooth as its map; seed {found.seed}",
            ),
            (
                "Intervals",
                "95%, from draws of groups (identities or source videos); differences are paired.",
            ),
            (
                "Fairness",
                "Occlusion and RISE cover parts of the picture themselves, so that deletion is "
                "easier for them than for methods that use gradients.",
            ),
            (
                "Pointing",
                "A forgery is what differs from its real by a grey level. A point within 3% of the "
                "side counts, for chance and the middle too; pictures that were changed everywhere "
                f"are left out ({found.whole}).",
            ),
        ],
    )


def _verdicts(found: Assessment) -> list[str]:
    good = [one.way for one in found.faithfulness if one.beats_random]
    bad = [one.way for one in found.faithfulness if not one.beats_random]
    verdicts = []
    if good:
        verdicts.append(f"The maps beat random ones in {in_words(good)}.")
    if bad:
        verdicts.append(
            f"The maps were not shown to beat random ones in {in_words(bad)}: do not read "
            "anything into them there."
        )
    if found.pointing:
        game = found.pointing[0]
        verdicts.append(
            f"They point into the forged part in {_share(game.hits)} of {count(game.hits.n)} "
            f"forgeries: {_against(game.over_chance, 'chance')} and "
            f"{_against(game.over_centre, 'the middle of the crop')}."
        )
    return verdicts


def _share(figure: Figure) -> str:
    return "none" if figure.value is None else f"{100 * figure.value:.0f}%"


def _against(figure: Figure, what: str) -> str:
    if figure.value is None or figure.low is None or figure.high is None:
        return f"too few to compare with {what}"
    inside = f"by {rate(figure.value)}, 95% interval {span(figure)}"
    if above_zero(figure):
        return f"more often than {what} ({inside})"
    if figure.high < 0:
        return f"less often than {what} ({inside})"
    return f"not shown to differ from {what} ({inside})"


def _curves(found: Assessment, at: int, title: str) -> Markup:
    one = found.faithfulness[at]
    with _styled():
        canvas = _canvas(0.75 * _SIDE)
        axes: Axes = canvas.add_subplot()
        shares = [step / STEPS for step in range(STEPS + 1)]
        for order, colour, dash in zip(
            ORDERS, (SERIES[1], SOFT, SERIES[4]), ("-", "--", "-."), strict=True
        ):
            axes.plot(shares, one.curves[order], color=colour, ls=dash, label=_NAMES[order])
        axes.set(xlabel="Share of pixels", ylabel="Mean score of its side", ylim=(0, 1))
        axes.legend(loc="best")
        return _svg(canvas, f"curve-{one.way}", f"{title}: mean score over the share of pixels")
