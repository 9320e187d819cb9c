"""A `Study` as study.json and as one page that stands alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bonaface.config import TrainConfig
from bonaface.files import write_json, write_text
from bonaface.metrics import Figure
from bonaface.report import study_plots
from bonaface.report import study_tables as tables
from bonaface.report.render import FIGURES, count, in_words, percent, rate, render, span, versions
from bonaface.report.study_tables import after, budget, several

if TYPE_CHECKING:  # its package trains, and so loads PyTorch, which the other reports do without
    from bonaface.reproduce.analysis import Study

LISTED = 20
_UNFOLDED = 10
# Settings that the page gives in other places than the list of what differs from the defaults.
_GIVEN = {
    *("model", "size", "stages", "branches", "depth", "pretrained"),
    *("seed", "epochs", "pictures"),
}


def write_study(study: Study, out_dir: Path) -> tuple[Path, Path]:
    """Write study.json and study.html, each atomically; returns their paths.

    Args:
        study: what to write.
        out_dir: made if need be.
    """
    card, page = out_dir / "study.json", out_dir / "study.html"
    html = study_page(study)
    write_json(card, study.to_dict())
    write_text(page, html)
    return card, page


def study_page(study: Study) -> str:
    """The study as HTML."""
    arms = _arms(study)
    look = study_plots.looks(arms)
    budgets = study.budgets or (0,)
    # What follows the tables is told once, for the number of epochs that most arms were run with.
    main = max(budgets, key=lambda epochs: (len(study.table(epochs)), epochs))
    cells = study.table(main)
    chosen = study.chosen.figures
    return render(
        "study.html",
        s=study,
        arms=len(arms),
        verdict=_verdict(study),
        sureness=_sureness(study),
        basis=_basis(study),
        missing=_missing(study),
        notes=[*_unreadable(study), *study.notes],
        tiles=[
            ("Test AUC", chosen["auc"], False),
            ("Test accuracy", chosen["accuracy"], True),
            ("Fakes passed as real (APCER)", chosen["apcer"], True),
            ("Reals called fake (BPCER)", chosen["bpcer"], True),
        ],
        columns=[(name, FIGURES[name][0]) for name in tables.COLUMNS],
        results=[tables.results(study, epochs, look) for epochs in budgets if study.table(epochs)],
        curves=tables.curves(study, look),
        sizes=tables.sizes(study, look),
        contrasts=[
            found for epochs in budgets if (found := tables.contrasts(study, epochs))["pairs"]
        ],
        unfolded=_UNFOLDED,
        ablations=[tables.ablation(study, one) for one in study.ablations],
        main=budget(main, budgets),
        confusion=tables.confusion(cells),
        elsewhere=tables.elsewhere(study, cells),
        costs=tables.costs(cells),
        cost_plots=tables.cost_plots(cells, look),
        settings=_settings(study),
        facts=_facts(study),
    )


def _arms(study: Study) -> list[str]:
    return list(dict.fromkeys(cell.arm for cell in study.cells))


def _verdict(study: Study) -> str:
    cell = study.chosen
    pictures = f"{'all ' if cell.whole else ''}{count(cell.pictures)} pictures"
    auc = cell.figures["auc"]
    how = f"{after(cell.epochs).lower()} on {pictures}" if cell.epochs else "not trained here"
    return (
        f"Validation chooses {cell.arm}, {how} ({several(len(cell.runs), 'seed')}): on the test "
        f"split its AUC is {_told(auc, False)} and its accuracy "
        f"{_told(cell.figures['accuracy'], True)}."
        + (
            " It could not be shown to do better than guessing."
            if auc.low is not None and auc.low <= 0.5
            else ""
        )
    )


def _told(figure: Figure, as_percent: bool) -> str:
    if figure.value is None:
        return f"undefined ({figure.reason})"
    value = percent(figure.value) if as_percent else rate(figure.value)
    inside = (
        f"95% interval {span(figure, as_percent)}"
        if figure.low is not None
        else f"no interval: {figure.reason}"
    )
    return f"{value} ({inside})"


def _sureness(study: Study) -> str:
    """Whether the chosen arm was shown to be better than the others."""
    arm, epochs = study.chosen.arm, study.chosen.epochs
    better = {
        one.second if one.first == arm else one.first: one.better_auc
        for one in study.contrasts
        if study.chosen.whole and one.epochs == epochs and arm in (one.first, one.second)
    }
    if not better:
        return "No other arm was compared with it after as many epochs on all pictures."
    said = []
    if beaten := [other for other, name in better.items() if name == arm]:
        said.append(f"its AUC was shown to be higher than that of {in_words(beaten)}")
    if level := [other for other, name in better.items() if name is None]:
        said.append(f"from {in_words(level)} no difference in AUC could be shown")
    if ahead := [other for other, name in better.items() if name == other]:
        said.append(f"the AUC of {in_words(ahead)} was shown to be higher")
    return f"How sure is that? {after(epochs)} on all pictures, {'; '.join(said)}."


def _basis(study: Study) -> str:
    cells = study.cells
    runs = [run for cell in cells for run in cell.runs]
    seeds = sorted({run.planned.config.seed for run in runs})
    lengths = sorted({cell.epochs for cell in cells})
    sizes = sorted({cell.pictures for cell in cells})
    splits = "; ".join(
        f"{split} {count(n['real'])} real and {count(n['fake'])} fake"
        for split, n in study.counts.items()
    )
    return (
        f"{several(len(runs), 'run')} of {several(len(_arms(study)), 'arm')} (an arm: a network, "
        f"what it begins with and how it is trained); seed{'' if len(seeds) == 1 else 's'} "
        f"{in_words(list(map(str, seeds)))}; {in_words(list(map(str, lengths)))} "
        f"epoch{'' if lengths == [1] else 's'}; {in_words(list(map(count, sizes)))} training "
        f"pictures. The data set: {splits}."
    )


def _missing(study: Study) -> list[str]:
    """What the reader of an unfinished study must know."""
    if not study.unfinished:
        return []
    by_reason: dict[str, list[str]] = {}
    for name, reason in study.unfinished.items():
        by_reason.setdefault(reason, []).append(name)
    total = len(study.unfinished) + sum(len(cell.runs) for cell in study.cells)
    return [
        f"{count(len(study.unfinished))} of {several(total, 'run')} are missing. Arms may be "
        "absent, or be means of fewer seeds than others.",
        *(
            f"{reason[:1].upper()}{reason[1:]}: {', '.join(names[:LISTED])}"
            + (f" and {count(len(names) - LISTED)} more" if len(names) > LISTED else "")
            for reason, names in by_reason.items()
        ),
    ]


def _unreadable(study: Study) -> list[str]:
    """Test pictures that are in no figure, by data set."""
    lost: dict[str, set[str]] = {}
    for run in (run for cell in study.cells for run in cell.runs):
        for evaluation in (run.evaluation, *run.elsewhere.values()):
            paths = {one.path for one in evaluation.unreadable}
            lost.setdefault(evaluation.data.name, set()).update(paths)
    return [
        f"{several(len(paths), 'test picture')} of {name} could not be read and "
        f"count{'s' if len(paths) == 1 else ''} in no figure."
        for name, paths in lost.items()
        if paths
    ]


def _settings(study: Study) -> dict[str, Any]:
    """Each arm's network, what it began with, and its settings that are not the defaults."""
    cards = {cell.arm: cell.runs[0].card for cell in study.cells}
    changed = {arm: _changed(card.training["config"]) for arm, card in cards.items()}
    first = next(iter(changed.values()))
    shared = [one for one in first if all(one in some for some in changed.values())]
    return {
        "shared": shared,
        "arms": [
            {
                "arm": arm,
                "network": _network(card.architecture),
                "size": card.preprocess["size"],
                "origin": _origin(card.training["origin"]),
                "own": [one for one in changed[arm] if one not in shared],
            }
            for arm, card in cards.items()
        ],
    }


def _changed(config: dict[str, Any]) -> list[str]:
    """Settings that differ from the defaults, as TOML has them."""
    defaults = TrainConfig().model_dump(mode="json")
    # A card that was read from disk has lists where that of a new bundle has tuples.
    values = {key: list(v) if isinstance(v, tuple) else v for key, v in config.items()}
    return [
        f"{key} = {values[key]}"
        for key, default in defaults.items()
        if key not in _GIVEN and key in values and values[key] != default
    ]


def _network(architecture: dict[str, Any]) -> str:
    options = (
        f"{key} {' + '.join(value) if isinstance(value, list | tuple) else value}"
        for key, value in architecture.items()
        if key not in {"name", "size", "dropout"}
    )
    return ", ".join([architecture["name"], *options])


def _origin(origin: dict[str, Any]) -> str:
    text = str(origin["weights"])
    if origin.get("fresh"):
        text += f"; fresh: {', '.join(origin['fresh'])}"
    return text


def _facts(study: Study) -> list[tuple[str, str]]:
    from bonaface.reproduce.analysis import RESAMPLES  # there is a study, so it is loaded

    runs = [run for cell in study.cells for run in cell.runs]
    trained = dict.fromkeys(versions(run.card.versions) for run in runs)
    measured = dict.fromkeys(versions(run.evaluation.versions) for run in runs)
    order = (
        "Some runs are missing while test figures are known: settings must not be changed from "
        "here on"
        if study.unfinished
        else "The test split was read once for each run, after all training, unless the study grew "
        "or was looked at before"
    )
    return [
        ("Data", f"{study.data} ({study.fingerprint})"),
        (
            "Choice",
            "Each run's epoch, calibration and threshold were chosen on validation, and so was the "
            f"arm above; nothing was chosen on test. {order}.",
        ),
        (
            "Intervals",
            f"95%, percentile, from {count(RESAMPLES)} draws: a draw takes groups of test samples "
            "(identities or source videos), the same for all runs, and then seeds, both with "
            "replacement, and its figure is the mean over the seeds drawn. Deviations from the "
            "mean of all S seeds are stretched by √(S / (S − 1)), because S draws from S seeds "
            "spread too little (Rao & Wu 1988); with one seed the interval is that over samples "
            "alone.",
        ),
        (
            "Tests",
            "DeLong's on the AUC and McNemar's on the decisions, between the runs of the "
            "seed that most have; two-sided, corrected over all pairs after as many epochs (Holm "
            "1979). Both take pictures as independent, which those of one person or video are not, "
            "and know nothing of other seeds.",
        ),
        ("Decision", "fake when the score reaches each run's own balanced threshold"),
        ("Trained with", "; ".join(trained)),
        ("Measured with", "; ".join(measured)),
    ]
