"""The operators' commands: print, status, publish-again and retry."""

import argparse
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from nexus_database import Database, DatabaseUnavailableError, MigrationError
from nexus_database.settings import DatabaseSettings
from nexus_outbox.installation import NotInstalledError, require_installed, sql_file
from nexus_outbox.storage import Outbox
from nexus_service.command import SUCCESS, NoSettings
from nexus_service.console import Tone, show_line

T = TypeVar("T")

FAULTS: Final = (NotInstalledError, DatabaseUnavailableError, MigrationError)
"""What any command may raise; each text says what to do."""


async def _with_outbox(settings: DatabaseSettings, work: Callable[[Outbox], Awaitable[T]]) -> T:
    async with Database(settings.database_url.get_secret_value(), name="nexus-outbox") as database:
        await require_installed(database)
        return await work(Outbox(database))


async def print_sql(_settings: NoSettings, parsed: argparse.Namespace) -> int:
    """Print one of the SQL files."""
    print(sql_file(parsed.file), end="")
    return SUCCESS


async def show_status(settings: DatabaseSettings, _parsed: argparse.Namespace) -> int:
    """Count the events that are not published."""
    status = await _with_outbox(settings, Outbox.status)
    oldest = f", the oldest for {status.oldest.total_seconds():.0f} s"
    show_line(f"waiting: {status.waiting}{oldest if status.waiting else ''}")
    for name, number, hint in (
        ("refused", status.refused, "tried again: see metering.problems"),
        ("invalid", status.invalid, "set aside: correct them, then retry"),
        ("held", status.held, "not in the outbox yet: see metering.problems"),
    ):
        line = f"{name}: {number}"
        show_line(f"{line} ({hint})" if number else line, Tone.NOTE if number else Tone.PLAIN)
    return SUCCESS


async def publish_again(settings: DatabaseSettings, parsed: argparse.Namespace) -> int:
    """Make kept events due again, or count them."""
    if parsed.execute:
        number = await _with_outbox(settings, lambda outbox: outbox.publish_again(parsed.since))
        show_line(f"{number} events are due again; the running loop publishes them")
    else:
        number = await _with_outbox(settings, lambda outbox: outbox.count_sent(parsed.since))
        show_line(f"{number} events would be published again; nothing was changed: add --execute")
    return SUCCESS


async def retry_invalid(settings: DatabaseSettings, _parsed: argparse.Namespace) -> int:
    """Make the events due again that were set aside."""
    number = await _with_outbox(settings, Outbox.retry_invalid)
    show_line(f"{number} invalid events are due again; those still invalid are set aside again")
    return SUCCESS
