"""The operators' command ``backfill``: from a list or from another service's database."""

import argparse
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

from customer_provisioner.backfill import backfill
from customer_provisioner.opening import connect_publisher, open_database
from customer_provisioner.settings import BackfillSettings
from customer_provisioner.source_database import source_database
from customer_provisioner.storage.reader import ProfileReader
from customer_provisioner.user_list import UnusableEntry, read_users
from nexus_contracts import UserCreatedV2
from nexus_messaging.clock import utc_now
from nexus_service.command import FAILED, SUCCESS
from nexus_service.console import show_line, steps
from nexus_service.input_files import lines_of
from nexus_service.settings import SettingsError


async def backfill_users(settings: BackfillSettings, parsed: argparse.Namespace) -> int:
    """Publish users that were there before this service; fail if any cannot be used."""
    async with AsyncExitStack() as stack:
        if parsed.from_database is None:
            lines = list(lines_of(parsed.file))
            # An unreadable list is refused before any work.
            number, entries = sum(1 for _ in read_users(lines)), _users_of(lines)
        else:
            source = await stack.enter_async_context(
                source_database(_source_url(settings), parsed.from_database)
            )
            number, entries = await source.count(), source.users()
        publisher = None
        if parsed.execute:
            publisher = await connect_publisher(settings)
            stack.push_async_callback(publisher.close)
        reader = ProfileReader(await stack.enter_async_context(open_database(settings)))
        tally = await backfill(
            entries,
            reader,
            publisher,
            per_second=parsed.throttle,
            progress=stack.enter_context(steps("users read", number)),
            now=utc_now,
        )
    show_line(str(tally) if parsed.execute else f"{tally}; nothing was published: add --execute")
    return FAILED if tally.unusable or tally.conflicting else SUCCESS


async def _users_of(lines: Sequence[str]) -> AsyncIterator[UserCreatedV2 | UnusableEntry]:
    for entry in read_users(lines):
        yield entry


def _source_url(settings: BackfillSettings) -> str:
    if settings.source_database_url is None:
        raise SettingsError("SOURCE_DATABASE_URL: not set (nor SOURCE_DATABASE_URL_FILE)")
    return settings.source_database_url.get_secret_value()
