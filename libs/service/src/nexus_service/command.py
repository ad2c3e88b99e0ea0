"""The command line that every service has: ``serve``, ``check``, ``migrate``, and its own."""

import argparse
import asyncio
import logging
import textwrap
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import inf
from typing import Any, Final, Generic, TypeVar

from pydantic import BaseModel

from nexus_contracts.fields import EARLIEST, LATEST
from nexus_database.settings import DatabaseSettings
from nexus_service.checking import SETTINGS, Check, Checks, findings
from nexus_service.console import Tone, complain, show_findings, show_line
from nexus_service.exporting import chosen_exporters, exporting
from nexus_service.input_files import UnreadableFileError
from nexus_service.lifecycle import StartError, StoppedError
from nexus_service.logs import configure
from nexus_service.program import Parser, ended
from nexus_service.settings import ServiceSettings, SettingsError, load

__all__ = ["Check", "Checks", "Command", "Service", "duration", "positive", "run"]

FINE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130

MOST_DURATION: Final = timedelta(days=36_525)
"""In an argument: what is far beyond any record, and still has a date when counted back."""

EXIT_CODES: Final = """\
exit codes:
  0    fine
  1    it failed, or found something wrong; the text says what to do
  2    wrong usage or settings, or a file that can't be read
  130  interrupted (Ctrl-C)
  141  nobody read the output to its end
"""

_BUILT_IN: Final = (
    (
        "serve",
        "run until SIGTERM; then finish what is in hand and end",
        ("{}", "LOG_FORMAT=json LOG_LEVEL=DEBUG {}"),
    ),
    (
        "check",
        "name everything that is wrong with settings, broker and database, changing nothing",
        ("{}", "MANAGEMENT_URL=https://admin:…@broker:15671 {}"),
    ),
    (
        "migrate",
        "bring the database (DATABASE_URL, as its owner) to this release's revision",
        ("DATABASE_URL=postgresql://owner:…@host/database {}",),
    ),
)
"""Name, help and examples of what every service has."""

SettingsT = TypeVar("SettingsT", bound=ServiceSettings)
OwnSettingsT = TypeVar("OwnSettingsT", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Command(Generic[OwnSettingsT]):
    """A further command of a service: ``run`` returns the exit code.

    ``help`` says in a line what it does; in ``examples`` ``{}`` stands for the command as typed.
    """

    name: str
    help: str
    settings: type[OwnSettingsT]
    run: Callable[[OwnSettingsT, argparse.Namespace], Awaitable[int]]
    arguments: Callable[[argparse.ArgumentParser], object] = lambda _: None
    examples: tuple[str, ...] = ("{}",)


@dataclass(frozen=True, slots=True)
class Service(Generic[SettingsT]):
    """What a service brings to its command line.

    ``serve`` returns after SIGTERM. ``checks`` are what ``check`` looks at besides the settings.
    ``migrate`` takes the owner's database URL and returns the revision. ``faults`` are the
    errors that any of them or of ``commands`` may raise and whose text says what to do.
    """

    name: str
    purpose: str
    settings: type[SettingsT]
    serve: Callable[[SettingsT], Awaitable[None]]
    checks: tuple[Checks[Any], ...]
    migrate: Callable[[str], Awaitable[str]]
    faults: tuple[type[Exception], ...] = ()
    commands: tuple[Command[Any], ...] = ()


def run(service: Service[SettingsT], arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code, as ``EXIT_CODES`` tells it."""
    return ended(lambda: _run(service, arguments))


def _run(service: Service[SettingsT], arguments: Sequence[str] | None) -> int:
    faults: tuple[type[Exception], ...] = (StartError, *service.faults)
    try:
        parsed = _parser(service).parse_args(arguments)
        return asyncio.run(_chosen(service, parsed))
    except StoppedError:
        return FINE
    except SettingsError as error:
        complain(service.name, f"settings: {error}")
        return USAGE
    except UnreadableFileError as error:
        complain(service.name, str(error))
        return USAGE
    except faults as error:
        complain(service.name, str(error))
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


def moment(written: str) -> datetime:
    """Read the time in an argument.

    Raises:
        ArgumentTypeError: it is none, does not say how far it is from UTC, or is out of range.
    """
    try:
        read = datetime.fromisoformat(written)
    except ValueError:
        read = None
    if read is None or read.tzinfo is None:
        raise argparse.ArgumentTypeError("a time with its offset is wanted: 2026-03-01T12:00:00Z")
    if not EARLIEST <= read < LATEST:
        raise argparse.ArgumentTypeError(f"a time from {EARLIEST:%Y} on is wanted")
    return read


async def _chosen(service: Service[SettingsT], parsed: argparse.Namespace) -> int:
    for own in service.commands:
        if own.name == parsed.command:
            _quiet_libraries()
            return await own.run(load(own.settings), parsed)
    if parsed.command == "migrate":
        url = load(DatabaseSettings).database_url.get_secret_value()
        show_line(f"{service.name}: database at revision {await service.migrate(url)}")
        return FINE
    chosen_exporters()  # what is wrong with them is told before anything is begun
    if parsed.command == "check":
        _quiet_libraries()
        return await _check(service)
    settings = load(service.settings)
    configure(service=service.name, level=settings.log_level, form=settings.log_format)
    with exporting(service.name):
        await service.serve(settings)
    return FINE


def _quiet_libraries() -> None:
    """Keep them from telling, between our lines, what these lines are about to tell."""
    logging.getLogger().addHandler(logging.NullHandler())


async def _check(service: Service[SettingsT]) -> int:
    found = await findings(service.settings, service.checks)
    show_findings(found)
    wrong = [each.name for each in found if each.tone is Tone.BAD]
    if SETTINGS in wrong:
        return USAGE
    return FAILED if wrong else FINE


def positive(written: str) -> float:
    """Read an argument that must be a number above 0, such as a rate.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        number = float(written)
    except ValueError:
        number = 0.0
    if not 0 < number < inf:
        raise argparse.ArgumentTypeError(f"{written!r} is no number above 0")
    return number


def duration(unit: timedelta) -> Callable[[str], timedelta]:
    """Return what reads an argument that is a number of ``unit``s, up to a hundred years of them.

    It raises argparse.ArgumentTypeError for anything else.
    """
    most = MOST_DURATION / unit

    def read(written: str) -> timedelta:
        try:
            number = float(written)
        except ValueError:
            number = -1.0
        if not 0 <= number <= most:
            raise argparse.ArgumentTypeError(f"{written!r} is no number from 0 to {most:.0f}")
        return number * unit

    return read


def utf_8(written: str) -> str:
    """Read an argument that is text; Python keeps bytes that are none as surrogates.

    Raises:
        argparse.ArgumentTypeError: it is not in UTF-8.
    """
    try:
        written.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{written!r} is not in UTF-8") from None
    return written


def _parser(service: Service[SettingsT]) -> argparse.ArgumentParser:
    parser = Parser(
        prog=service.name,
        description=service.purpose,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_epilog(service),
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, told: str, examples: Iterable[str]) -> argparse.ArgumentParser:
        lines = "\n".join(f"  {each.format(f'{service.name} {name}')}" for each in examples)
        return commands.add_parser(
            name,
            help=told,
            description=told,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog=f"examples:\n{lines}\n\n{EXIT_CODES}",
        )

    for name, told, examples in _BUILT_IN:
        add(name, told, examples)
    for own in service.commands:
        own.arguments(add(own.name, own.help, own.examples))
    return parser


def _epilog(service: Service[SettingsT]) -> str:
    names = ", ".join(field.upper() for field in service.settings.model_fields)
    settings = (
        "Settings are environment variables, each also as NAME_FILE, which names a file that "
        f"holds the value: {names}."
    )
    more = f"{service.name} COMMAND --help says more about a command, with examples."
    return "\n\n".join((textwrap.fill(settings, width=80), EXIT_CODES.rstrip(), more))
