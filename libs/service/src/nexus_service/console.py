"""How commands show what they found: for people on a terminal, as plain lines everywhere else.

Plain lines are for pipes, files and scripts: no colour, no frames, whole numbers without
separators, ages in seconds. The words are the same, so colour is never the only sign. Either way
a character that a terminal would obey instead of showing it is written as an escape.
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final, Protocol, TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from nexus_contracts.wording import printable

TOLD_EVERY: Final = 100
"""Steps after which a plain line tells how far things are."""

Cell = str | int | timedelta | None


class Tone(Enum):
    """How a line is meant; the value is its colour on a terminal."""

    PLAIN = ""
    GOOD = "green"
    BAD = "bold red"
    NOTE = "yellow"
    LAST = "bold"


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table."""

    cells: Sequence[Cell]
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class Finding:
    """What looking at one thing found; ``text`` may be several lines, each a finding of its own."""

    name: str
    text: str = "ok"
    tone: Tone = Tone.GOOD


class Steps(Protocol):
    """How far a long command has come."""

    def advance(self) -> None:
        """Note that one more is done."""

    def say(self, line: str) -> None:
        """Tell something by the way."""


def for_people(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether ``stream`` is a terminal whose user has not asked for plain text.

    By https://no-color.org and the terminal that calls itself dumb.
    """
    dumb = environment.get("TERM", "").lower() in {"dumb", "unknown"}
    return stream.isatty() and not dumb and not environment.get("NO_COLOR")


def rfc_3339(moment: datetime) -> str:
    """Return a time in UTC as RFC 3339 writes it, to the second."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def show_table(titles: Sequence[str], rows: Sequence[Row], stream: TextIO | None = None) -> None:
    """Show a table; a column is flush right if no cell of it is text."""
    out = sys.stdout if stream is None else stream
    numeric = [not any(isinstance(row.cells[n], str) for row in rows) for n in range(len(titles))]
    if not for_people(out):
        lines = [list(titles), *([_plain(cell) for cell in row.cells] for row in rows)]
        out.writelines(f"{line}\n" for line in _aligned(lines, numeric))
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for title, right in zip(titles, numeric, strict=True):
        table.add_column(Text(title), justify="right" if right else "left")
    for row in rows:
        table.add_row(*(Text(_told(cell)) for cell in row.cells), style=row.tone.value)
    _console(out).print(table)


def show_findings(findings: Iterable[Finding], stream: TextIO | None = None) -> None:
    """Show what checks found: aligned, with a sign and a word, on a terminal."""
    out = sys.stdout if stream is None else stream
    lines = [
        (each.tone, printable(each.name), printable(line))
        for each in findings
        for line in each.text.split("\n")
    ]
    if not for_people(out):
        out.writelines(f"{name}: {text}\n" for _, name, text in lines)
        return
    table = Table.grid(padding=(0, 2))
    for tone, name, text in lines:
        word = {Tone.GOOD: "ok", Tone.BAD: "wrong", Tone.NOTE: "note"}.get(tone, "")
        said = "" if text == word else text
        table.add_row(_signed(word, tone), Text(name), Text(said))
    _console(out).print(table)


def show_line(line: str, tone: Tone = Tone.PLAIN, stream: TextIO | None = None) -> None:
    """Show one line, on a terminal with the sign of its tone."""
    out = sys.stdout if stream is None else stream
    if for_people(out):
        _console(out).print(_signed(printable(line), tone))
    else:
        out.write(f"{printable(line)}\n")


def show_json(facts: Mapping[str, object]) -> None:
    """Show facts to programs, as one line of JSON in ASCII; times are as RFC 3339 writes them."""
    print(json.dumps(facts, default=_as_json))


def complain(program: str, line: str) -> None:
    """Say on standard error what is wrong, as one line."""
    sys.stderr.write(f"{printable(f'{program}: {line}')}\n")


def show_lines(lines: Iterable[str], stream: TextIO | None = None) -> None:
    """Show what happened one after the other, the last of it standing out."""
    told = list(lines)
    for line in told[:-1]:
        show_line(line, stream=stream)
    for line in told[-1:]:
        show_line(line, Tone.LAST, stream)


@contextmanager
def steps(what: str, total: int | None = None, stream: TextIO | None = None) -> Iterator[Steps]:
    """Show how many of ``total`` are done, how fast, and how long the rest takes.

    On standard error, which leaves standard output to what the command has to say.
    """
    out = sys.stderr if stream is None else stream
    if not for_people(out):
        yield _PlainSteps(what, total, out)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=_console(out)) as shown:
        yield _Bar(shown, what, total)


def human(age: timedelta) -> str:
    """Return an age in its two largest units: ``45 s``, ``3 min 20 s``, ``2 d 4 h``."""
    seconds = max(0, round(age.total_seconds()))
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    parts = []
    for name, size in units:
        number, seconds = divmod(seconds, size)
        parts.append((number, name))
    first = next((n for n, (number, _) in enumerate(parts) if number), len(parts) - 1)
    told = [f"{number} {name}" for number, name in parts[first : first + 2] if number]
    return " ".join(told) or "0 s"


class _PlainSteps:
    def __init__(self, what: str, total: int | None, stream: TextIO) -> None:
        self._what = what
        self._of = "" if total is None else f" of {total}"
        self._stream = stream
        self._done = 0

    def advance(self) -> None:
        self._done += 1
        if self._done % TOLD_EVERY == 0:
            self.say(f"{self._done}{self._of} {self._what}")

    def say(self, line: str) -> None:
        self._stream.write(f"{printable(line)}\n")
        self._stream.flush()


class _Bar:
    def __init__(self, shown: Progress, what: str, total: int | None) -> None:
        self._shown = shown
        self._task = shown.add_task(what, total=total)

    def advance(self) -> None:
        self._shown.advance(self._task)

    def say(self, line: str) -> None:
        self._shown.console.print(Text(printable(line)))


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.0f}/s")


def _signed(text: str, tone: Tone) -> Text:
    sign = {Tone.GOOD: "✓ ", Tone.BAD: "✗ ", Tone.NOTE: "- "}.get(tone, "")
    return Text(sign + text, style=tone.value)


def _console(stream: TextIO) -> Console:
    # Data is shown as it is: neither its brackets nor its numbers mean anything to rich.
    return Console(file=stream, highlight=False, markup=False, emoji=False)


def _aligned(lines: Sequence[Sequence[str]], numeric: Sequence[bool]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = zip(line, widths, numeric, strict=True)
        padded = (f"{cell:>{w}}" if right else f"{cell:<{w}}" for cell, w, right in cells)
        yield "  ".join(padded).rstrip()


def _as_json(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not shown to programs")


def _plain(cell: Cell) -> str:
    if isinstance(cell, timedelta):
        return f"{cell.total_seconds():.0f} s"
    return "" if cell is None else printable(str(cell))


def _told(cell: Cell) -> str:
    match cell:
        case timedelta():
            return human(cell)
        case int():
            return f"{cell:,}"
        case _:
            return printable(cell or "")
