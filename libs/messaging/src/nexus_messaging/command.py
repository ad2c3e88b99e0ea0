"""The command line that every service has: ``serve``, ``check`` and ``migrate``."""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from pydantic import BaseModel, SecretStr

from nexus_messaging.lifecycle import StoppedError
from nexus_messaging.logs import configure
from nexus_messaging.settings import ServiceSettings, SettingsError, load

FINE: Final = 0
FAILED: Final = 1
USAGE: Final = 2

SettingsT = TypeVar("SettingsT", bound=ServiceSettings)

Check = Callable[[], Awaitable[str | None]]


class StartError(Exception):
    """The service can't start; the text says what to do about it."""


class MigrateSettings(BaseModel):
    """What ``migrate`` needs: the database, by the role that owns it."""

    database_url: SecretStr


@dataclass(frozen=True, slots=True)
class Service(Generic[SettingsT]):
    """What a service brings to its command line.

    ``serve`` returns after SIGTERM or raises StartError. ``checks`` maps what is checked to a
    check that returns what is wrong. ``migrate`` takes the owner's database URL, returns the
    revision and raises StartError.
    """

    name: str
    purpose: str
    settings: type[SettingsT]
    serve: Callable[[SettingsT], Awaitable[None]]
    checks: Callable[[SettingsT], Mapping[str, Check]]
    migrate: Callable[[str], Awaitable[str]]


def run(service: Service[SettingsT], arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0 fine, 1 failed, 2 wrong usage or settings."""
    command = _parser(service).parse_args(arguments).command
    try:
        if command == "migrate":
            return _migrate(service)
        settings = load(service.settings)
        if command == "check":
            return asyncio.run(_check(service, settings))
        configure(service=service.name, level=settings.log_level, form=settings.log_format)
        asyncio.run(_awaited(service.serve(settings)))
    except SettingsError as error:
        print(f"{service.name}: settings: {error}", file=sys.stderr)
        return USAGE
    except StoppedError:
        return FINE
    except StartError as error:
        print(f"{service.name}: {error}", file=sys.stderr)
        return FAILED
    return FINE


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
    return parser


def _migrate(service: Service[SettingsT]) -> int:
    url = load(MigrateSettings).database_url.get_secret_value()
    print(f"{service.name}: database at revision {asyncio.run(_awaited(service.migrate(url)))}")
    return FINE


async def _check(service: Service[SettingsT], settings: SettingsT) -> int:
    wrong = False
    for name, check in service.checks(settings).items():
        fault = await check()
        wrong = wrong or fault is not None
        print(f"{name}: {fault or 'ok'}")
    return FAILED if wrong else FINE


T = TypeVar("T")


async def _awaited(work: Awaitable[T]) -> T:
    return await work
