"""The command line that every service has: ``serve``, ``check``, ``migrate``, and its own."""

import argparse
import asyncio
import gc
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
from nexus_service.checking import SETTINGS, Check, Checks, run_checks
from nexus_service.console import Tone, show_error, show_findings, show_line
from nexus_service.errors import StartError, StoppedError
from nexus_service.exporting import chosen_exporters, exporting
from nexus_service.input_files import UnreadableFileError
from nexus_service.parts import Part, load_part
from nexus_service.program import Parser, run_program
from nexus_service.settings import ProcessSettings, SettingsError, load

__all__ = ["Check", "Checks", "Command", "Server", "Service", "duration", "positive", "run"]

SUCCESS: Final = 0
FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130

MAX_DURATION: Final = timedelta(days=36_525)
"""The longest duration in an argument: subtracted from now it is still a valid date."""

EXIT_CODES: Final = """\
exit codes:
  0    success
  1    the command failed, or found a fault; the text says what to do
  2    wrong usage or settings, or a file that cannot be read
  130  interrupted (Ctrl-C)
  141  the output was closed before its end, as with `… | head`
"""

_BUILT_IN: Final = (
    (
        "serve",
        "run until SIGTERM, then finish or hand back the work in progress and exit",
        ("{}", "LOG_FORMAT=json LOG_LEVEL=DEBUG {}"),
    ),
    (
        "check",
        "report all faults of settings, broker and database; change nothing",
        ("{}", "MANAGEMENT_URL=https://admin:…@broker:15671 {}"),
    ),
    (
        "migrate",
        "migrate the database (DATABASE_URL with the owner role) to this release's revision",
        ("DATABASE_URL=postgresql://owner:…@host/database {}",),
    ),
)
"""Name, help and examples of the commands that every service has."""

SettingsT = TypeVar("SettingsT", bound=ProcessSettings)
OwnSettingsT = TypeVar("OwnSettingsT", bound=BaseModel)


Run = Callable[[OwnSettingsT, argparse.Namespace], Awaitable[int]]
"""Runs a command with its settings and arguments, and returns the exit code."""

Serve = Callable[[SettingsT], Awaitable[None]]
"""Runs a process until SIGTERM."""


class NoSettings(BaseModel):
    """What a command needs that only prints."""


@dataclass(frozen=True, slots=True)
class Command(Generic[OwnSettingsT]):
    """A further command of a service.

    ``help`` describes it in one line. In ``examples``, ``{}`` stands for the command as typed.
    """

    name: str
    help: str
    settings: type[OwnSettingsT]
    run: Part[Run[OwnSettingsT]]
    arguments: Callable[[argparse.ArgumentParser], object] = lambda _: None
    examples: tuple[str, ...] = ("{}",)


@dataclass(frozen=True, slots=True)
class Server(Generic[SettingsT]):
    """A process of its own from a service's package: its command runs it until SIGTERM.

    With ``--check`` the command runs ``checks`` instead, after the settings.
    """

    name: str
    help: str
    settings: type[SettingsT]
    serve: Part[Serve[SettingsT]]
    checks: Part[tuple[Checks[Any], ...]]


@dataclass(frozen=True, slots=True)
class Service(Generic[SettingsT]):
    """The parts of a command line that differ between services.

    ``serve`` returns after SIGTERM. ``checks`` run in the command ``check``, after the settings.
    ``migrate`` takes the owner's database URL and returns the revision. ``faults`` are errors that
    any of these or of ``commands`` may raise; their text tells the operator what to do. Each of
    these parts may be given by its name, and is then imported by the command that needs it.
    """

    name: str
    purpose: str
    settings: type[SettingsT]
    serve: Part[Serve[SettingsT]]
    checks: Part[tuple[Checks[Any], ...]]
    migrate: Part[Callable[[str], Awaitable[str]]]
    faults: Part[tuple[type[Exception], ...]] = ()
    commands: tuple[Command[Any], ...] = ()
    servers: tuple[Server[Any], ...] = ()


def run(service: Service[SettingsT], arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code; see ``EXIT_CODES``."""
    return run_program(lambda: _run(service, arguments))


def _run(service: Service[SettingsT], arguments: Sequence[str] | None) -> int:
    try:
        parsed = _parser(service).parse_args(arguments)
        return asyncio.run(_run_command(service, parsed))
    except StoppedError:
        return SUCCESS
    except SettingsError as error:
        show_error(service.name, f"settings: {error}")
        return USAGE
    except UnreadableFileError as error:
        show_error(service.name, str(error))
        return USAGE
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if not isinstance(error, (StartError, *load_part(service.faults))):
            raise
        show_error(service.name, str(error))
        return FAILED


def moment(written: str) -> datetime:
    """Read the time in an argument.

    Raises:
        ArgumentTypeError: it is not a time, has no UTC offset, or is out of range.
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


async def _run_command(service: Service[SettingsT], parsed: argparse.Namespace) -> int:
    for own in service.commands:
        if own.name == parsed.command:
            _silence_libraries()
            return await load_part(own.run)(load(own.settings), parsed)
    if parsed.command == "migrate":
        url = load(DatabaseSettings).database_url.get_secret_value()
        show_line(f"{service.name}: database at revision {await load_part(service.migrate)(url)}")
        return SUCCESS
    if parsed.command == "check":
        return await _check(service.settings, service.checks)
    for server in service.servers:
        if server.name == parsed.command:
            if parsed.check:
                return await _check(server.settings, server.checks)
            return await _serve(server.name, server.settings, server.serve)
    return await _serve(service.name, service.settings, service.serve)


async def _serve(name: str, kind: type[SettingsT], serve: Part[Serve[SettingsT]]) -> int:
    from nexus_service.logs import configure

    chosen_exporters()  # report invalid exporters before any work starts
    settings = load(kind)
    configure(service=name, level=settings.log_level, form=settings.log_format)
    run_process = load_part(serve)
    # The modules live as long as the process. Without this, collections that messages bring about
    # would visit their objects again and again: a tenth of stripe-reporter's processor time.
    gc.collect()
    gc.freeze()
    with exporting(name):
        await run_process(settings)
    return SUCCESS


def _silence_libraries() -> None:
    """Keep the libraries' log lines out of the output, which reports the same faults."""
    logging.getLogger().addHandler(logging.NullHandler())


async def _check(settings: type[BaseModel], checks: Part[tuple[Checks[Any], ...]]) -> int:
    chosen_exporters()  # report invalid exporters, too
    _silence_libraries()
    findings = await run_checks(settings, load_part(checks))
    show_findings(findings)
    wrong = [each.name for each in findings if each.tone is Tone.BAD]
    if SETTINGS in wrong:
        return USAGE
    return FAILED if wrong else SUCCESS


def positive(written: str) -> float:
    """Read an argument that must be a number above 0, such as a rate.

    Raises:
        argparse.ArgumentTypeError: it is not such a number.
    """
    try:
        number = float(written)
    except ValueError:
        number = 0.0
    if not 0 < number < inf:
        raise argparse.ArgumentTypeError(f"{written!r} is no number above 0")
    return number


def duration(unit: timedelta) -> Callable[[str], timedelta]:
    """Return a parser for an argument that is a number of ``unit``s, at most 100 years.

    The parser raises argparse.ArgumentTypeError for anything else.
    """
    longest = MAX_DURATION / unit

    def read(written: str) -> timedelta:
        try:
            number = float(written)
        except ValueError:
            number = -1.0
        if not 0 <= number <= longest:
            raise argparse.ArgumentTypeError(f"{written!r} is no number from 0 to {longest:.0f}")
        return number * unit

    return read


def utf_8(written: str) -> str:
    """Read an argument that must be UTF-8; Python decodes other bytes to surrogates.

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

    def add(name: str, summary: str, examples: Iterable[str]) -> argparse.ArgumentParser:
        lines = "\n".join(f"  {each.format(f'{service.name} {name}')}" for each in examples)
        return commands.add_parser(
            name,
            help=summary,
            description=summary,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog=f"examples:\n{lines}\n\n{EXIT_CODES}",
        )

    for name, summary, examples in _BUILT_IN:
        add(name, summary, examples)
    for own in service.commands:
        own.arguments(add(own.name, own.help, own.examples))
    for server in service.servers:
        add(server.name, server.help, ("{}", "{} --check")).add_argument(
            "--check", action="store_true", help="report all faults of settings and broker instead"
        )
    return parser


def _epilog(service: Service[SettingsT]) -> str:
    kinds = (service.settings, *(server.settings for server in service.servers))
    fields = dict.fromkeys(field for kind in kinds for field in kind.model_fields)
    names = ", ".join(field.upper() for field in fields)
    settings = (
        "Settings are environment variables, each also as NAME_FILE, which names a file that "
        f"holds the value: {names}."
    )
    more = f"{service.name} COMMAND --help says more about a command, with examples."
    return "\n\n".join((textwrap.fill(settings, width=80), EXIT_CODES.rstrip(), more))
