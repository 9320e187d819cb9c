"""A `Tuning` as files: the best settings, a table of the trials, JSON, and one page."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from bonaface.config import TrainConfig
from bonaface.files import write_json, write_text
from bonaface.metrics import Figure
from bonaface.report import tuning_plots as plots
from bonaface.report.render import count, rate, render, span
from bonaface.tuning import ENOUGH_TRIALS, RANDOM_TRIALS, Parameter, Trial, Tuning

_LISTED = 10
_TITLES = {"auc": "AUC", "accuracy": "accuracy", "loss": "loss"}


def save_tuning(tuning: Tuning, out: Path) -> tuple[Path, ...]:
    """Write best.toml (where there is a best), trials.csv and tuning.json; returns their paths."""
    settings, table, card = out / "best.toml", out / "trials.csv", out / "tuning.json"
    if tuning.best is not None:
        write_text(settings, f"# {verdict(tuning)}\n" + tuning.settings(tuning.best).to_toml())
    write_text(table, _table(tuning))
    write_json(card, tuning.to_dict())
    return (settings, table, card) if tuning.best is not None else (table, card)


def write_tuning_page(tuning: Tuning, out: Path) -> Path:
    """Write tuning.html; returns its path."""
    page = out / "tuning.html"
    write_text(page, tuning_page(tuning))
    return page


def verdict(tuning: Tuning) -> str:
    """The best against the defaults, in one sentence."""
    best, defaults, title = tuning.best, tuning.defaults, _TITLES[tuning.monitor]
    n = len(tuning.over)
    trials = "1 trial" if n == 1 else f"{n} trials"
    if best is None or best.value is None:
        return f"None of {trials} ended with a figure."
    found = f"validation {title} {rate(best.value)}"
    if best.number == 0:
        return f"No trial did better on validation than the defaults: {found}, {trials} in all."
    begin = f"Trial {best.number} is the best of {trials}: {found}"
    if defaults is None:
        return f"{begin}; the defaults are not finished."
    if defaults.value is None:
        return f"{begin}; the defaults failed."
    return f"{begin}, against {rate(defaults.value)} with the defaults."


def doubt(tuning: Tuning) -> str | None:
    """Whether the difference to the defaults may be chance; None: nothing can be said."""
    best, defaults = tuning.best, tuning.defaults
    if best is None or defaults is None or best.number == 0:
        return None
    figure = tuning.figure(defaults)
    if figure.low is None or figure.high is None or best.value is None:
        return None
    pictures = f"{count(figure.n)} validation pictures"
    interval = f"{rate(figure.low)} to {rate(figure.high)}"  # for terminals too
    if best.value <= figure.high:
        return (
            f"That may be chance: on {pictures} the defaults' own 95% interval is about {interval}."
        )
    return (
        f"That is above the defaults' 95% interval on {pictures}, about {interval}; but the best "
        f"of {len(tuning.over)} is also the luckiest."
    )


def tuning_page(tuning: Tuning) -> str:
    """The study as HTML."""
    title = _TITLES[tuning.monitor]
    shown = list(tuning.ranking[:_LISTED])
    if tuning.defaults is not None and tuning.defaults not in shown:
        shown.append(tuning.defaults)
    drawn = [
        {
            "title": f"{title[0].upper()}{title[1:]} by trial",
            "svg": plots.history_plot(tuning, title),
            "caption": "Line: the best so far. Dashed: the defaults. Crosses: ended early, as they "
            "fell behind.",
        }
    ]
    if tuning.importance.shares is not None:
        few = tuning.importance.n < ENOUGH_TRIALS
        drawn.append(
            {
                "title": "Importance of the settings",
                "svg": plots.importance_plot(tuning),
                "caption": "Share of the spread of the figures that a setting explains by itself "
                f"(fANOVA), from {tuning.importance.n} completed trials"
                + (", which are too few for it to mean much." if few else "."),
            }
        )
    return render(
        "tuning.html",
        t=tuning,
        title=title,
        verdict=verdict(tuning),
        doubt=doubt(tuning),
        notes=_notes(tuning),
        tiles=_tiles(tuning, title),
        plots=drawn,
        slices=[
            {
                "title": one.label[0].upper() + one.label[1:],
                "svg": plots.slice_plot(tuning, one, title),
                "caption": _about(one, tuning),
            }
            for one in tuning.space
            if tuning.ranking
        ],
        names=[one.name for one in tuning.space],
        ranking=[(trial, tuning.figure(trial), _cells(trial, tuning)) for trial in shown],
        listed=_LISTED,
        failed=[trial for trial in tuning.over if trial.state == "failed"],
        facts=_facts(tuning),
    )


def _notes(tuning: Tuning) -> list[str]:
    n = len(tuning.over)
    notes = []
    if tuning.best is not None and n > 1:
        notes.append(
            f"The best of {n} trials on one validation set flatters itself: it was chosen for its "
            "luck on these pictures as well as for its settings. The test split was not read."
        )
    pictures = sum(tuning.counts["validation"].values())
    if tuning.monitor == "loss":
        notes.append(f"{count(pictures)} validation pictures cannot tell small differences apart.")
    else:
        notes.append(
            f"{count(pictures)} validation pictures cannot tell small differences apart. The "
            "intervals here are approximate: they follow from the number of pictures, each taken "
            "as independent of the others, and they do not know that the best was chosen."
        )
    if n <= RANDOM_TRIALS:
        notes.append(
            f"The first {RANDOM_TRIALS} trials, but for the defaults, are drawn at random; a "
            "search that learns from them begins after that."
        )
    if tuning.importance.shares is None:
        notes.append(f"No importance of the settings: {tuning.importance.reason}.")
    return notes


def _tiles(tuning: Tuning, title: str) -> list[tuple[str, str, str]]:
    tiles = []
    for name, trial in (("best trial", tuning.best), ("defaults", tuning.defaults)):
        if trial is None:
            tiles.append((f"{title}, {name}", "—", "not finished"))
        elif trial.value is None:
            tiles.append((f"{title}, {name}", "—", "failed"))
        else:
            tiles.append((f"{title}, {name}", rate(trial.value), _interval(tuning.figure(trial))))
    states = [trial.state for trial in tuning.over]
    early = f"{states.count('pruned')} ended early, {states.count('failed')} failed"
    tiles.append(("Finished trials", count(len(states)), early))
    n = tuning.counts["validation"]
    kinds = f"{count(n['real'])} real, {count(n['fake'])} fake"
    tiles.append(("Validation pictures", count(sum(n.values())), kinds))
    return tiles


def _interval(figure: Figure) -> str:
    return f"no interval: {figure.reason}" if figure.low is None else f"about {span(figure)}"


def _cells(trial: Trial, tuning: Tuning) -> list[str]:
    return [_written(trial.settings[one.name]) for one in tuning.space]


def _written(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _about(one: Parameter, tuning: Tuning) -> str:
    """Where it was searched."""
    searched = f"S{str(one)[1:]}"
    if one.name != "lr":
        return f"{searched}."
    rates = ", ".join(f"{value:g} with {name}" for name, value in tuning.rates.items())
    return f"{searched}; the default is {rates}."


def _facts(tuning: Tuning) -> list[tuple[str, str]]:
    config, searched = tuning.config, [one.name for one in tuning.space]
    given = {
        name: value
        for name, value in config.model_dump(exclude_none=True).items()
        if name not in searched
    }
    n = tuning.counts["train"]
    return [
        ("Data", tuning.name),
        ("Data fingerprint", tuning.fingerprint),
        ("Training pictures", f"{count(n['real'])} real, {count(n['fake'])} fake"),
        ("Given", ", ".join(f"{name} {_written(value)}" for name, value in given.items())),
        *((one.label[0].upper() + one.label[1:], _about(one, tuning)) for one in tuning.space),
        ("Search", f"tree-structured Parzen estimator, seed {config.seed}; the same for all runs"),
        ("Ended early", "behind the median of the trials before, once five are complete"),
        ("Asked for", f"{count(tuning.asked)} finished trials"),
    ]


def _table(tuning: Tuning) -> str:
    """Every trial with every setting, as CSV."""
    about = ("number", "state", "value", "best_epoch", "seconds")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*about, *TrainConfig.model_fields, "reason"])
    for trial in tuning.trials:
        settings = tuning.settings(trial).model_dump(mode="json") if trial.settings else {}
        writer.writerow(
            [trial.number, trial.state, trial.value, trial.epoch, trial.seconds]
            + [_joined(settings.get(name)) for name in TrainConfig.model_fields]
            + [trial.reason]
        )
    return text.getvalue()


def _joined(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, list) else value
