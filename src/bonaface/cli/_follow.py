"""``bonaface detect --follow``: a running verdict, as a live table, lines, or lines of JSON."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import TYPE_CHECKING

import typer

from bonaface.cli._shared import printable

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from bonaface.following import FollowedPerson, Following, Update
    from bonaface.verdict import Answer

STYLES = {"fake": "bold red", "real": "green", "unsure": "yellow", "not_applicable": "dim"}
_EVERY = 1.0  # seconds between two lines of JSON that say nothing new
_ROWS = 12  # people in the table


def watch(following: Following, as_json: bool) -> tuple[Update, bool]:
    """Show the updates until the stream ends; the last one, and whether it was stopped by hand."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    stopped = False
    try:
        if as_json:
            _as_json(following)
        elif console.is_terminal:
            with Live(console=console, refresh_per_second=8, transient=True) as live:
                _as_table(following, live)
        else:
            _as_lines(following)
    except KeyboardInterrupt:
        stopped = True
    last = following.end()
    if as_json:
        _print_json(last)
    elif console.is_terminal:
        console.print(_table(last))
    else:
        for person in last.people:
            _print_line(person, person.whole.answer, person.whole.score, person.whole.reason)
    return last, stopped


def summarise(last: Update) -> None:
    """On stderr: the people, and what became of the frames."""
    people: Counter[str] = Counter(last.gone)
    people.update(person.whole.answer for person in last.people)
    said = ", ".join(f"{people[word]} {word}" for word in STYLES if people[word])
    number = people.total()
    who = f"{number} {'person' if number == 1 else 'people'}" + (f": {said}" if said else "")
    typer.echo(f"{printable(last.source)}: {last.answer}; {printable(last.reason)}", err=True)
    typer.echo(f"{who}; {_frames(last)}; over: {printable(last.ended or '')}", err=True)


# -- the three ways --


def _as_json(following: Following) -> None:
    """A line at once where an answer changed or somebody left, else one a second."""
    said, printed = None, float("-inf")
    for update in following:
        now = [(person.number, person.answer) for person in update.people]
        if now != said or update.left or time.monotonic() - printed >= _EVERY:
            _print_json(update)
            said, printed = now, time.monotonic()


def _print_json(update: Update) -> None:
    print(json.dumps(update.to_dict()), flush=True)


def _as_table(following: Following, live: Live) -> None:
    from rich.text import Text

    for update in following:
        for person in update.left:
            if person.whole.answer != "not_applicable":
                whole = person.whole
                text = f"person {person.number} left: {whole.answer}; {printable(whole.reason)}"
                live.console.print(Text(text, STYLES[whole.answer]))
        live.update(_table(update))


def _as_lines(following: Following) -> None:
    """A line, with tabs, for each person whose answer changed."""
    said: dict[int, Answer] = {}
    for update in following:
        for person in update.people:
            if said.get(person.number, "not_applicable") != person.answer:
                _print_line(person, person.answer, person.score, person.reason)
            said[person.number] = person.answer
        for person in update.left:
            said.pop(person.number, None)
            if person.whole.answer != "not_applicable":
                whole = person.whole
                _print_line(person, whole.answer, whole.score, f"left; {whole.reason}")


def _print_line(person: FollowedPerson, answer: str, score: float | None, reason: str) -> None:
    row = f"{person.last_seen:.2f}", f"person {person.number}", answer, _number(score), reason
    print("\t".join(map(printable, row)), flush=True)


# -- the words --


def _table(update: Update) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    ended = update.event == "end"
    head = Text.assemble(
        (printable(update.source), "bold"), "  ",
        (update.answer, STYLES[update.answer]), f"  {_frames(update)}",
    )  # fmt: skip
    if update.event == "waiting":
        head.append("  waiting for frames", "yellow")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("person", "answer", "score", "frames", "whole"):
        table.add_column(column, no_wrap=True)
    table.add_column("reason", ratio=1)
    judged = [one for one in update.people if one.whole.answer != "not_applicable" or one.here]
    shown = sorted(judged, key=lambda one: (not one.here, -one.judged))[:_ROWS]
    for person in shown:
        told = person.whole if ended else person
        style = STYLES[told.answer] if person.here or ended else "dim"
        reason = told.reason
        if person.last_fake is not None and told.answer != "fake":
            reason += f"; looked fake until {person.last_fake:.1f} s"
        table.add_row(
            Text(f"{person.number}" + ("" if person.here or ended else " (away)")),
            Text(told.answer, style),
            _number(told.score),
            f"{person.judged}",
            Text(person.whole.answer, STYLES[person.whole.answer]),
            Text(printable(reason)),
        )
    rest = len(update.people) - len(shown)
    more = [Text(f"and {rest} more (--json lists all)", "dim")] if rest else []
    return Group(head, table, *more)


def _frames(update: Update) -> str:
    count = update.frames
    share = f" ({100 * count.dropped / count.seen:.0f} %)" if count.dropped else ""
    parts = [f"frames: {count.seen} seen, {count.judged} judged, {count.dropped} dropped{share}"]
    if update.lag is not None:
        mean = "on average " if update.event == "end" else ""
        parts.append(f"lag {update.lag:.2f} s {mean}({update.most_lag:.2f} at most)")
    if count.broken:
        parts.append(f"{count.broken} broken stretch{'es' if count.broken > 1 else ''}")
    if count.behind:
        for_ = "was behind for up to" if update.event == "end" else "behind for"
        parts.append(f"decoding {for_} {count.behind:.0f} s")
    if count.unread:
        parts.append(f"{count.unread / 2**20:.1f} MiB not read yet")
    return ", ".join(parts)


def _number(score: float | None) -> str:
    return "-" if score is None else f"{score:.3f}"
