"""Output of commands: formatted on a terminal, plain lines everywhere else.

Plain lines are for pipes, files and scripts: no colour, no frames, whole numbers without
separators, ages in seconds. Both forms use the same words, so no fact depends on colour. Both
escape control characters.
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

from nexus_contracts.wording import printable

PLAIN_PROGRESS_EVERY: Final = 100
"""Steps between two plain lines that show progress."""

Cell = str | int | timedelta | None


class Tone(Enum):
    """The meaning of a line; the value is its colour on a terminal."""

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
    """The result of a check; each line of ``text`` is a finding."""

    name: str
    text: str = "ok"
    tone: Tone = Tone.GOOD


class Steps(Protocol):
    """The progress of a long command."""

    def advance(self) -> None:
        """Count one more step as done."""

    def say(self, line: str) -> None:
        """Show a line without disturbing the progress."""


def is_interactive(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether ``stream`` is a terminal and its user accepts formatted text.

    ``NO_COLOR`` (https://no-color.org) and ``TERM=dumb`` ask for plain text.
    """
    dumb = environment.get("TERM", "").lower() in {"dumb", "unknown"}
    return stream.isatty() and not dumb and not environment.get("NO_COLOR")


def rfc_3339(moment: datetime) -> str:
    """Return a time in UTC in the format of RFC 3339, to the second."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def show_table(titles: Sequence[str], rows: Sequence[Row], stream: TextIO | None = None) -> None:
    """Show a table; a column without text is aligned right."""
    out = sys.stdout if stream is None else stream
    numeric = [not any(isinstance(row.cells[n], str) for row in rows) for n in range(len(titles))]
    if not is_interactive(out):
        lines = [list(titles), *([_format_plain(cell) for cell in row.cells] for row in rows)]
        out.writelines(f"{line}\n" for line in _align(lines, numeric))
        return
    from nexus_service.terminal import print_table

    shown = [([_format_for_people(cell) for cell in row.cells], row.tone.value) for row in rows]
    print_table(out, titles, shown, numeric)


def show_findings(findings: Iterable[Finding], stream: TextIO | None = None) -> None:
    """Show the results of checks; on a terminal aligned, each with a sign and a word."""
    out = sys.stdout if stream is None else stream
    lines = [
        (each.tone, printable(each.name), printable(line))
        for each in findings
        for line in each.text.split("\n")
    ]
    if not is_interactive(out):
        out.writelines(f"{name}: {text}\n" for _, name, text in lines)
        return
    from nexus_service.terminal import print_findings

    shown = []
    for tone, name, text in lines:
        word = {Tone.GOOD: "ok", Tone.BAD: "wrong", Tone.NOTE: "note"}.get(tone, "")
        detail = "" if text == word else text
        shown.append((_with_sign(word, tone), tone.value, name, detail))
    print_findings(out, shown)


def show_line(line: str, tone: Tone = Tone.PLAIN, stream: TextIO | None = None) -> None:
    """Show one line; on a terminal with the sign of its tone."""
    out = sys.stdout if stream is None else stream
    if not is_interactive(out):
        out.write(f"{printable(line)}\n")
        return
    from nexus_service.terminal import print_line

    print_line(out, _with_sign(printable(line), tone), tone.value)


def show_json(facts: Mapping[str, object]) -> None:
    """Show facts for programs, as one line of JSON in ASCII; times are in RFC 3339."""
    print(json.dumps(facts, default=_encode))


def show_error(program: str, line: str) -> None:
    """Write an error to standard error, as one line."""
    sys.stderr.write(f"{printable(f'{program}: {line}')}\n")


def show_lines(lines: Iterable[str], stream: TextIO | None = None) -> None:
    """Show ``lines`` in order; on a terminal the last one is bold."""
    shown = list(lines)
    for line in shown[:-1]:
        show_line(line, stream=stream)
    for line in shown[-1:]:
        show_line(line, Tone.LAST, stream)


@contextmanager
def steps(what: str, total: int | None = None, stream: TextIO | None = None) -> Iterator[Steps]:
    """Show how many of ``total`` are done, the rate, and the remaining time.

    Progress goes to standard error, because standard output is for the command's result.
    """
    out = sys.stderr if stream is None else stream
    if not is_interactive(out):
        yield _PlainSteps(what, total, out)
        return
    from nexus_service.terminal import progress_bar

    with progress_bar(out, what, total) as bar:
        yield bar


def format_age(age: timedelta) -> str:
    """Return an age in its two largest units: ``45 s``, ``3 min 20 s``, ``2 d 4 h``."""
    seconds = max(0, round(age.total_seconds()))
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    parts = []
    for name, size in units:
        number, seconds = divmod(seconds, size)
        parts.append((number, name))
    first = next((n for n, (number, _) in enumerate(parts) if number), len(parts) - 1)
    units_shown = [f"{number} {name}" for number, name in parts[first : first + 2] if number]
    return " ".join(units_shown) or "0 s"


def _with_sign(text: str, tone: Tone) -> str:
    return {Tone.GOOD: "✓ ", Tone.BAD: "✗ ", Tone.NOTE: "- "}.get(tone, "") + text


class _PlainSteps:
    def __init__(self, what: str, total: int | None, stream: TextIO) -> None:
        self._what = what
        self._of = "" if total is None else f" of {total}"
        self._stream = stream
        self._done = 0

    def advance(self) -> None:
        self._done += 1
        if self._done % PLAIN_PROGRESS_EVERY == 0:
            self.say(f"{self._done}{self._of} {self._what}")

    def say(self, line: str) -> None:
        self._stream.write(f"{printable(line)}\n")
        self._stream.flush()


def _align(lines: Sequence[Sequence[str]], numeric: Sequence[bool]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = zip(line, widths, numeric, strict=True)
        padded = (f"{cell:>{w}}" if right else f"{cell:<{w}}" for cell, w, right in cells)
        yield "  ".join(padded).rstrip()


def _encode(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} can't be shown as JSON")


def _format_plain(cell: Cell) -> str:
    if isinstance(cell, timedelta):
        return f"{cell.total_seconds():.0f} s"
    return "" if cell is None else printable(str(cell))


def _format_for_people(cell: Cell) -> str:
    match cell:
        case timedelta():
            return format_age(cell)
        case int():
            return f"{cell:,}"
        case _:
            return printable(cell or "")
