"""The operators' commands: print, status, publish-again and retry."""

import argparse
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from nexus_database import Database
from nexus_database.settings import DatabaseSettings
from nexus_outbox.installation import FILES, require_installed, sql_file
from nexus_outbox.storage import Outbox
from nexus_service.command import SUCCESS, Command, NoSettings, moment
from nexus_service.console import Tone, show_line

T = TypeVar("T")


async def _with_outbox(settings: DatabaseSettings, work: Callable[[Outbox], Awaitable[T]]) -> T:
    async with Database(settings.database_url.get_secret_value(), name="nexus-outbox") as database:
        await require_installed(database)
        return await work(Outbox(database))


async def _print(_settings: NoSettings, parsed: argparse.Namespace) -> int:
    print(sql_file(parsed.file), end="")
    return SUCCESS


async def _status(settings: DatabaseSettings, _parsed: argparse.Namespace) -> int:
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


async def _publish_again(settings: DatabaseSettings, parsed: argparse.Namespace) -> int:
    if parsed.execute:
        number = await _with_outbox(settings, lambda outbox: outbox.publish_again(parsed.since))
        show_line(f"{number} events are due again; the running loop publishes them")
    else:
        number = await _with_outbox(settings, lambda outbox: outbox.count_sent(parsed.since))
        show_line(f"{number} events would be published again; nothing was changed: add --execute")
    return SUCCESS


async def _retry(settings: DatabaseSettings, _parsed: argparse.Namespace) -> int:
    number = await _with_outbox(settings, Outbox.retry_invalid)
    show_line(f"{number} invalid events are due again; those still invalid are set aside again")
    return SUCCESS


def _print_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", choices=FILES, help="which file")


def _publish_again_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--since",
        type=moment,
        required=True,
        metavar="TIME",
        help="published since then, with its offset from UTC: 2026-03-01T12:00:00Z; earlier than"
        " needed is harmless",
    )
    parser.add_argument("--execute", action="store_true", help="do it; without it, only count")


COMMANDS: Final = (
    Command(
        "print",
        "print the SQL that installs or removes the outbox, or the trigger for pg_net",
        NoSettings,
        _print,
        _print_arguments,
        ('{} install | psql -v ON_ERROR_STOP=1 "$DATABASE_URL"', "{} uninstall"),
    ),
    Command("status", "count the events that are not published", DatabaseSettings, _status),
    Command(
        "publish-again",
        "publish kept events again, with the same ids, after a restore of metering",
        DatabaseSettings,
        _publish_again,
        _publish_again_arguments,
        ("{} --since 2026-03-01T12:00:00Z", "{} --since 2026-03-01T12:00:00Z --execute"),
    ),
    Command("retry", "try the events again that were set aside", DatabaseSettings, _retry),
)
