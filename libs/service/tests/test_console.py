"""Output of commands: formatted on a terminal, plain lines elsewhere."""

import contextlib
import io
import os
import pty
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import TextIO

import pytest

from nexus_contracts.wording import printable
from nexus_service.console import (
    Finding,
    Row,
    Tone,
    format_age,
    is_interactive,
    rfc_3339,
    show_findings,
    show_line,
    show_lines,
    show_table,
    steps,
)

TITLES = ("state", "number", "oldest")
ROWS = [
    Row(("waiting", 12345, timedelta(seconds=7500))),
    Row(("due [x]", 7, timedelta(0)), Tone.BAD),
    Row(("reported", 1, None)),
]
FINDINGS = [
    Finding("settings"),
    Finding("broker", "queue a is missing\nqueue b is missing", Tone.BAD),
    Finding("topology", "not compared", Tone.NOTE),
]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every test a wide terminal with all features."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)


def on_a_terminal(show: Callable[[TextIO], object]) -> str:
    """Return what ``show`` writes to a terminal."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as stream:
        show(stream)
    parts = []
    with contextlib.suppress(OSError):  # Linux reports a closed other end so
        while part := os.read(ours, 65536):
            parts.append(part)
    os.close(ours)
    return b"".join(parts).decode()


def in_a_pipe(show: Callable[[TextIO], object]) -> str:
    """Return what ``show`` writes to a pipe."""
    stream = io.StringIO()
    show(stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (0.6, "1 s"),
        (59, "59 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (86400, "1 d"),
        (86400 + 61, "1 d"),
        (190_000, "2 d 4 h"),
    ],
)
def test_age_is_shown_in_two_largest_units(seconds: float, shown: str) -> None:
    """Smaller units are omitted."""
    assert format_age(timedelta(seconds=seconds)) == shown


def test_table_in_pipe_is_plain_lines_with_raw_numbers() -> None:
    """A script can read its columns; it does not depend on the terminal."""
    assert in_a_pipe(lambda out: show_table(TITLES, ROWS, out)) == (
        "state     number  oldest\n"
        "waiting    12345  7500 s\n"
        "due [x]        7     0 s\n"
        "reported       1\n"
    )


def test_table_on_terminal_has_readable_ages_and_colour() -> None:
    """Data is shown unchanged, with its brackets."""
    shown = on_a_terminal(lambda out: show_table(TITLES, ROWS, out))

    assert "12,345   2 h 5 min" in shown
    assert "due [x]" in shown
    assert "\x1b[1;31m" in shown
    assert "7500 s" not in shown


def test_findings_in_pipe_are_one_fault_per_line() -> None:
    """Each line starts with the name of its check, for a search."""
    assert in_a_pipe(lambda out: show_findings(FINDINGS, out)) == (
        "settings: ok\n"
        "broker: queue a is missing\n"
        "broker: queue b is missing\n"
        "topology: not compared\n"
    )


def test_findings_on_terminal_have_sign_and_word() -> None:
    """The result does not depend on colour."""
    shown = on_a_terminal(lambda out: show_findings(FINDINGS, out))

    assert "✓ ok" in shown
    assert shown.count("✗ wrong") == 2
    assert "- note" in shown
    assert "queue b is missing" in shown


@pytest.mark.parametrize(
    "variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": "unknown"}], ids=str
)
def test_terminal_with_no_color_gets_plain_text(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the standard variables."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    def show(out: TextIO) -> None:
        assert not is_interactive(out)
        show_table(TITLES, ROWS, out)
        show_findings(FINDINGS, out)
        show_lines(["first", "last"], out)

    shown = on_a_terminal(show)

    assert "\x1b" not in shown
    assert "7500 s" in shown
    assert "broker: queue a is missing" in shown


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("Zoë 東京 ✓ 🙂", "Zoë 東京 ✓ 🙂"),
        ("\x1b[2J\x9b2J", "\\x1b[2J\\x9b2J"),
        ("a\u202eb\u2066c\u200bd", "a\\u202eb\\u2066c\\u200bd"),
        ("one\ntwo\r\t\u2028", "one\\ntwo\\r\\t\\u2028"),
        ("\udcff\U000e0041", "\\udcff\\U000e0041"),
    ],
)
def test_control_characters_are_shown_as_escapes(written: str, shown: str) -> None:
    """In all output, on a terminal and in a pipe: data may come from a publisher."""

    def show(out: TextIO) -> None:
        show_table(("name",), [Row((written,))], out)
        show_line(written, Tone.NOTE, out)
        with steps("users read", None, out) as progress:
            progress.say(written)
        show_lines([written, written], out)

    def find(out: TextIO) -> None:
        show_findings([Finding(printable(written), "ok\n" + printable(written))], out)

    assert in_a_pipe(show).count(shown) == 5
    assert on_a_terminal(show).count(shown) == 5
    assert in_a_pipe(find).count(shown) == 3
    assert printable(shown) == shown


def test_time_is_shown_in_utc_as_rfc_3339() -> None:
    """From any time zone."""
    moment = datetime(2026, 3, 1, 13, 0, 5, 7, tzinfo=timezone(timedelta(hours=1)))

    assert rfc_3339(moment) == "2026-03-01T12:00:05Z"


def test_line_has_its_sign_only_on_terminal() -> None:
    """A log has the text only."""
    assert "✗ bad" in on_a_terminal(lambda out: show_line("bad", Tone.BAD, out))
    assert in_a_pipe(lambda out: show_line("bad", Tone.BAD, out)) == "bad\n"


def test_progress_in_pipe_is_one_line_per_100_steps() -> None:
    """With the total, if it is known."""

    def show(out: TextIO) -> None:
        for total in (250, None):
            with steps("users read", total, out) as progress:
                for _ in range(200):
                    progress.advance()
                progress.say("entry 3: unusable")

    assert in_a_pipe(show).splitlines() == [
        "100 of 250 users read",
        "200 of 250 users read",
        "entry 3: unusable",
        "100 users read",
        "200 users read",
        "entry 3: unusable",
    ]


def test_progress_on_terminal_is_a_bar_with_rate() -> None:
    """Other lines appear above the bar."""

    def show(out: TextIO) -> None:
        with steps("users read", 4, out) as progress:
            for _ in range(3):
                progress.advance()
            progress.say("entry [3]: unusable")

    shown = on_a_terminal(show)

    assert "3/4" in shown
    assert "/s" in shown
    assert "entry [3]: unusable" in shown
