"""A `Stress` as one page that stands alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bonaface.files import write_json, write_text
from bonaface.metrics import Figure
from bonaface.report import stress_plots
from bonaface.report.render import count, in_words, percent, rate, render, versions
from bonaface.report.study_plots import Look, looks
from bonaface.report.thumbnails import small, thumbnail

if TYPE_CHECKING:  # it loads PyTorch
    from bonaface.stress import Fragile, Outcome, Stress, Stressed

_KEPT = 0.03  # an AUC that falls by less is taken for kept


def write_stress(found: Stress, out_dir: Path, *, images: Path | None = None) -> tuple[Path, Path]:
    """Write stress.json and stress.html, each atomically; returns their paths.

    Args:
        found: what to write.
        out_dir: made if need be.
        images: the data set's root, to embed small copies of the most fragile pictures; None for
            none. Mind whether you may pass these pictures on.
    """
    card, page = out_dir / "stress.json", out_dir / "stress.html"
    html = stress_page(found, images=images)
    write_json(card, found.to_dict())
    write_text(page, html)
    return card, page


def stress_page(found: Stress, *, images: Path | None = None) -> str:
    """The report as HTML; `images` as for `write_stress`."""
    names = [one.name for one in found.detectors]
    look = looks(names)
    return render(
        "stress.html",
        s=found,
        title=f"What breaks {in_words(names)}" if len(names) < 3 else "What breaks these detectors",
        verdicts=[_verdict(one) for one in found.detectors],
        basis=_basis(found),
        deliveries=_deliveries(found),
        heat=[_heat(one) for one in found.detectors if one.of("corruption")],
        curves=_curves(found, look),
        stability=_stability(found),
        attacks=[_attacks(one) for one in found.detectors if one.of("attack")],
        attack_plots=_attack_plots(found, look),
        fragile=[
            (one.name, [_fragile(f, found, images) for f in one.fragile])
            for one in found.detectors
            if one.fragile
        ],
        thumbnails=images is not None,
        facts=_facts(found),
    )


def _verdict(one: Stressed) -> str:
    clean = one.clean.figures["auc"]
    opening = f"{one.name}: AUC {rate(clean.value)} on clean pictures" if clean.value else one.name
    parts = []
    changed = [o for o in (*one.of("delivery"), *one.of("corruption")) if _fall(o) is not None]
    if changed:
        worst = min(changed, key=lambda o: _fall(o) or 0)
        kept = sum((_fall(o) or 0) > -_KEPT for o in changed)
        parts.append(
            f"it keeps within 3 points of that under {kept} of {len(changed)} changes, and is "
            f"worst under {worst.condition}: {_told(worst.figures['auc'])}"
        )
    hidden = [o for o in one.of("attack") if o.direction == "hide" and not o.condition.source]
    if hidden:
        mildest = min(o.condition.level for o in hidden)
        best = max(
            (o for o in hidden if o.condition.level == mildest),
            key=lambda o: o.figures["apcer"].value or 0,
        )
        parts.append(
            f"an attacker who changes pixels by {mildest:g} of 255 ({best.condition.name}) passes "
            f"{_told(best.figures['apcer'], True)} of the fakes as real, "
            f"{_told(_before(one)['apcer'], True)} of the same without an attack"
        )
    return "; ".join([opening, *parts]) + "."


def _fall(one: Outcome) -> float | None:
    return one.drop.differences["auc"].value


def _told(figure: Figure, as_percent: bool = False) -> str:
    if figure.value is None:
        return f"undefined ({figure.reason})"
    return percent(figure.value) if as_percent else rate(figure.value)


def _basis(found: Stress) -> str:
    d = found.data
    lost = f"; {count(len(found.unreadable))} more could not be read" if found.unreadable else ""
    return (
        f"Measured on {count(d.real + d.fake)} pictures of {d.name}, {d.split} split: "
        f"{count(d.real)} real, {count(d.fake)} fake{lost}. Each detector decides at the threshold "
        "that its validation chose, the same under every condition."
    )


def _deliveries(found: Stress) -> list[tuple[str, list[dict[str, Any]]]]:
    return [
        (one.name, [_clean(one), *(_row(outcome) for outcome in one.of("delivery"))])
        for one in found.detectors
    ]


def _clean(one: Stressed) -> dict[str, Any]:
    return {"what": "clean", "figures": one.clean.figures, "drop": None}


def _row(outcome: Outcome) -> dict[str, Any]:
    return {"what": str(outcome.condition), "figures": outcome.figures, "drop": outcome.drop}


def _heat(one: Stressed) -> dict[str, Any]:
    """AUC by corruption and severity, and the sum of the errors at the most severe."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for outcome in one.of("corruption"):
        fall = _fall(outcome)
        by_name.setdefault(outcome.condition.name, []).append(
            {
                "auc": outcome.figures["auc"],
                "shade": 0 if fall is None else round(min(60.0, max(0.0, -160 * fall))),
                "shown": outcome.drop.worse_auc,
                "outcome": outcome,
            }
        )
    levels = sorted({int(o.condition.level) for o in one.of("corruption")})
    return {"name": one.name, "clean": one.clean.figures["auc"], "levels": levels, "rows": by_name}


def _curves(found: Stress, look: Mapping[str, Look]) -> list[dict[str, Any]]:
    if not any(one.of("corruption") for one in found.detectors):
        return []
    drawn = []
    for name, title, guessing in (
        ("auc", "AUC", 0.5),
        ("apcer", "Fakes passed as real (APCER)", None),
        ("bpcer", "Reals called fake (BPCER)", None),
        ("ece", "Gap between score and share of fakes (ECE)", None),
    ):
        panels: dict[str, dict[str, list[tuple[float, Figure]]]] = {}
        for one in found.detectors:
            for outcome in one.of("corruption"):
                line = panels.setdefault(outcome.condition.name, {}).setdefault(
                    one.name, [(0.0, one.clean.figures[name])]
                )
                line.append((outcome.condition.level, outcome.figures[name]))
        svg = stress_plots.panels_plot(
            f"curves-{name}",
            title,
            "Severity; 0 is clean",
            {_words(what): lines for what, lines in panels.items()},
            look,
            guessing=guessing,
            percent=name in ("apcer", "bpcer"),
        )
        drawn.append({"title": title, "svg": svg, "caption": "Bands: 95% intervals."})
    return drawn


def _words(name: str) -> str:
    return name.replace("_", " ")


def _stability(found: Stress) -> list[dict[str, Any]]:
    """Whether the stability range says what happens to a picture."""
    rows = []
    for one in found.detectors:
        inside: dict[int, list[float]] = {}
        for outcome in one.of("corruption"):
            if outcome.inside is not None and outcome.inside.value is not None:
                inside.setdefault(int(outcome.condition.level), []).append(outcome.inside.value)
        rows += [
            {
                "name": one.name,
                "stable": one.stable,
                "severity": severity,
                "inside": sum(inside[severity]) / len(inside[severity]),
                "held": held,
                "others": others,
            }
            for severity, (held, others) in one.held.items()
            if severity in inside
        ]
    return rows


def _attacks(one: Stressed) -> dict[str, Any]:
    """Both directions of an attack side by side."""
    cost = {(c.attack, c.budget): c for c in one.costs}
    rows: dict[tuple[str, float, str | None], dict[str, Any]] = {}
    for outcome in one.of("attack"):
        condition = outcome.condition
        row = rows.setdefault(
            (condition.name, condition.level, condition.source),
            {
                "name": condition.name,
                "budget": condition.level,
                "source": condition.source,
                "cost": None if condition.source else cost.get((condition.name, condition.level)),
            },
        )
        row[str(outcome.direction)] = outcome
    own = [row for row in rows.values() if row["source"] is None]
    foreign = [row for row in rows.values() if row["source"] is not None]
    return {
        "name": one.name,
        "clean": one.attacked,
        "own": own,
        "foreign": foreign,
        "checks": one.checks,
    }


def _before(one: Stressed) -> Mapping[str, Figure]:
    """Figures of the pictures that were attacked, before that."""
    return one.attacked or one.clean.figures


def _attack_plots(found: Stress, look: Mapping[str, Look]) -> list[dict[str, Any]]:
    drawn = []
    for direction, figure, title in (
        ("hide", "apcer", "Fakes passed as real (APCER)"),
        ("smear", "bpcer", "Reals called fake (BPCER)"),
    ):
        panels: dict[str, dict[str, list[tuple[float, Figure]]]] = {}
        for one in found.detectors:
            for outcome in one.of("attack"):
                condition = outcome.condition
                if outcome.direction == direction and condition.source is None:
                    line = panels.setdefault(condition.name, {}).setdefault(
                        one.name, [(0.0, _before(one)[figure])]
                    )
                    line.append((condition.level, outcome.figures[figure]))
        if panels:
            ordered = {
                name: {who: sorted(line, key=lambda at: at[0]) for who, line in lines.items()}
                for name, lines in panels.items()
            }
            svg = stress_plots.panels_plot(
                f"attacks-{direction}",
                title,
                "Budget, in 1/255; 0 is clean",
                ordered,
                look,
                percent=True,
            )
            caption = "Only the fakes are attacked." if direction == "hide" else "Only the reals."
            drawn.append({"title": title, "svg": svg, "caption": caption})
    return drawn


def _fragile(one: Fragile, found: Stress, images: Path | None) -> dict[str, Any]:
    from bonaface.stress import changed_crop  # there is a report, so it is loaded

    pictures: Sequence[str | None] = (None, None)
    if images is not None:
        changed = changed_crop(images / one.path, one.path, one.condition, found.settings["seed"])
        pictures = thumbnail(images / one.path), None if changed is None else small(changed)
    return {
        "path": one.path,
        "kind": "fake" if one.label else "real",
        "condition": _words(str(one.condition)),
        "clean": one.clean,
        "changed": one.changed,
        "turned": one.turned,
        "pictures": pictures,
    }


def _facts(found: Stress) -> list[tuple[str, str]]:
    from bonaface.stress.analysis import RESAMPLES  # there is a report, so it is loaded

    settings = found.settings
    clean = found.detectors[0].clean
    jpeg = settings["jpeg"]
    return [
        ("Data", f"{found.data.name} ({found.data.fingerprint})"),
        (
            "Intervals",
            f"95%, from {count(RESAMPLES)} draws of groups (identities or source videos) with "
            "replacement; of differences from clean they are paired.",
        ),
        (
            "Tests",
            "A fall in AUC counts as shown where its interval leaves out 0 and DeLong's test "
            "(1988), Holm-corrected over all conditions of the detector, has p below 0.05.",
        ),
        (
            "Corruptions",
            "Of each crop at its own size, before the detector shrinks it; their chance is fixed "
            f"by seed {settings['seed']} and the picture's path. Severities: "
            "bonaface.corruptions.",
        ),
        (
            "Attacks",
            "On the 8-bit crop as it would be uploaded, before the detector's preprocessing; the "
            "result is clipped and rounded to 8 bits"
            + (f" and saved as JPEG {jpeg}" if jpeg else "")
            + ". A picture that is already decided wrongly counts as turned. Of an attack that "
            "knows the network, gradients come from its PyTorch form, and every result is scored "
            "by the exported network that `detect` runs.",
        ),
        ("Software", versions(clean.versions)),
    ]
