"""The command line that every service has: ``serve``, ``check``, ``migrate``, and its own."""

import argparse
import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

from pydantic import BaseModel, SecretStr

from nexus_messaging.exporting import chosen_exporters, exporting
from nexus_messaging.lifecycle import StartError, StoppedError
from nexus_messaging.logs import configure
from nexus_messaging.settings import ServiceSettings, SettingsError, load

FINE: Final = 0
FAILED: Final = 1
USAGE: Final = 2

SettingsT = TypeVar("SettingsT", bound=ServiceSettings)
OwnSettingsT = TypeVar("OwnSettingsT", bound=BaseModel)


Check = Callable[[], Awaitable[str | None]]


class MigrateSettings(BaseModel):
    """What ``migrate`` needs: the database, by the role that owns it."""

    database_url: SecretStr


@dataclass(frozen=True, slots=True)
class Command(Generic[OwnSettingsT]):
    """A further command of a service: ``run`` returns the exit code."""

    name: str
    help: str
    settings: type[OwnSettingsT]
    run: Callable[[OwnSettingsT, argparse.Namespace], Awaitable[int]]
    arguments: Callable[[argparse.ArgumentParser], object] = lambda _: None


@dataclass(frozen=True, slots=True)
class Service(Generic[SettingsT]):
    """What a service brings to its command line.

    ``serve`` returns after SIGTERM. ``checks`` maps what is checked to a check that returns what is
    wrong. ``migrate`` takes the owner's database URL and returns the revision. ``faults`` are the
    errors that any of them or of ``commands`` may raise and whose text says what to do.
    """

    name: str
    purpose: str
    settings: type[SettingsT]
    serve: Callable[[SettingsT], Awaitable[None]]
    checks: Callable[[SettingsT], Mapping[str, Check]]
    migrate: Callable[[str], Awaitable[str]]
    faults: tuple[type[Exception], ...] = ()
    commands: tuple[Command[Any], ...] = ()


def run(service: Service[SettingsT], arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0 fine, 1 failed, 2 wrong usage or settings."""
    parsed = _parser(service).parse_args(arguments)
    faults: tuple[type[Exception], ...] = (StartError, *service.faults)
    try:
        return asyncio.run(_chosen(service, parsed))
    except StoppedError:
        return FINE
    except SettingsError as error:
        print(f"{service.name}: settings: {error}", file=sys.stderr)
        return USAGE
    except faults as error:
        print(f"{service.name}: {error}", file=sys.stderr)
        return FAILED


def moment(written: str) -> datetime:
    """Read the time in an argument.

    Raises:
        ArgumentTypeError: it is none, or does not say how far it is from UTC.
    """
    try:
        read = datetime.fromisoformat(written)
    except ValueError:
        read = None
    if read is None or read.tzinfo is None:
        raise argparse.ArgumentTypeError("a time with its offset is wanted: 2026-03-01T12:00:00Z")
    return read


async def _chosen(service: Service[SettingsT], parsed: argparse.Namespace) -> int:
    for own in service.commands:
        if own.name == parsed.command:
            return await own.run(load(own.settings), parsed)
    if parsed.command == "migrate":
        url = load(MigrateSettings).database_url.get_secret_value()
        print(f"{service.name}: database at revision {await service.migrate(url)}")
        return FINE
    settings = load(service.settings)
    chosen_exporters()  # what is wrong with them is told before anything is begun
    if parsed.command == "check":
        # The libraries would tell in the middle of our lines what these lines are about to tell.
        logging.getLogger().addHandler(logging.NullHandler())
        return await _check(service.checks(settings))
    configure(service=service.name, level=settings.log_level, form=settings.log_format)
    with exporting(service.name):
        await service.serve(settings)
    return FINE


async def _check(checks: Mapping[str, Check]) -> int:
    faults = {name: await check() for name, check in checks.items()}
    for name, fault in faults.items():
        print(f"{name}: {fault or 'ok'}")
    return FAILED if any(faults.values()) else FINE


def _parser(service: Service[SettingsT]) -> argparse.ArgumentParser:
    names = ", ".join(field.upper() for field in service.settings.model_fields)
    parser = argparse.ArgumentParser(
        prog=service.name,
        description=service.purpose,
        epilog=f"Settings are environment variables, each also as NAME_FILE: {names}.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("serve", help="run until SIGTERM; then finish what is in hand and end")
    commands.add_parser("check", help="say what is wrong with settings, broker and database")
    commands.add_parser(
        "migrate", help="bring the database (DATABASE_URL, as its owner) to this release's revision"
    )
    for own in service.commands:
        own.arguments(commands.add_parser(own.name, help=own.help, description=own.help))
    return parser
