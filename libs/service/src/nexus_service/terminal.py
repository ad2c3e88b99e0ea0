"""The formatted half of ``console``; imported only for a terminal, because rich takes a while."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

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
from typing_extensions import override

from nexus_contracts.wording import printable


def print_table(
    stream: TextIO,
    titles: Sequence[str],
    rows: Iterable[tuple[Sequence[str], str]],
    right_aligned: Sequence[bool],
) -> None:
    """Print a table; each row is its cells and its style."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for title, right in zip(titles, right_aligned, strict=True):
        table.add_column(Text(title), justify="right" if right else "left")
    for cells, style in rows:
        table.add_row(*map(Text, cells), style=style)
    _console(stream).print(table)


def print_findings(stream: TextIO, findings: Iterable[tuple[str, str, str, str]]) -> None:
    """Print aligned findings; each is a word, its style, a name and a text."""
    table = Table.grid(padding=(0, 2))
    for word, style, name, text in findings:
        table.add_row(Text(word, style=style), Text(name), Text(text))
    _console(stream).print(table)


def print_line(stream: TextIO, line: str, style: str) -> None:
    """Print one line in a style."""
    _console(stream).print(Text(line, style=style))


@contextmanager
def progress_bar(stream: TextIO, what: str, total: int | None) -> Iterator["Bar"]:
    """Show a bar, the rate and the remaining time while the context lasts."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=_console(stream)) as shown:
        yield Bar(shown, what, total)


class Bar:
    """The progress of a long command on a terminal; see ``console.Steps``."""

    def __init__(self, shown: Progress, what: str, total: int | None) -> None:
        self._shown = shown
        self._task = shown.add_task(what, total=total)

    def advance(self) -> None:
        """Count one more step as done."""
        self._shown.advance(self._task)

    def say(self, line: str) -> None:
        """Show a line above the bar."""
        self._shown.console.print(Text(printable(line)))


class _Rate(ProgressColumn):
    @override
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.0f}/s")


def _console(stream: TextIO) -> Console:
    # Data is shown unchanged: rich must not interpret its brackets or numbers.
    return Console(file=stream, highlight=False, markup=False, emoji=False)
