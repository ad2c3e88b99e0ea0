"""The operators' command ``backfill``: from a list or from another service's database."""

import argparse
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Annotated, Final

from pydantic import AfterValidator, SecretStr

from customer_provisioner.backfill import backfill
from customer_provisioner.opening import PublishSettings, connect_publisher, open_database
from customer_provisioner.source_database import source_database
from customer_provisioner.storage.reader import ProfileReader
from customer_provisioner.user_list import UnusableEntry, read_users
from nexus_contracts import UserCreatedV2
from nexus_messaging.addresses import require_scheme
from nexus_messaging.clock import utc_now
from nexus_service.command import FAILED, SUCCESS, Command, positive
from nexus_service.console import show_line, steps
from nexus_service.input_files import lines_of
from nexus_service.settings import SettingsError


def _postgresql_url(url: SecretStr | None) -> SecretStr | None:
    if url is not None:
        require_scheme(url.get_secret_value(), "postgresql://", "postgres://")
    return url


class BackfillSettings(PublishSettings):
    """What a backfill needs."""

    source_database_url: Annotated[SecretStr | None, AfterValidator(_postgresql_url)] = None
    """The database of another service that `--from-database` reads."""


async def _backfill(settings: BackfillSettings, parsed: argparse.Namespace) -> int:
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


def _backfill_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "file",
        nargs="?",
        help="in UTF-8: CSV with a header, JSON lines or a JSON array (standard input by default)",
    )
    source.add_argument(
        "--from-database",
        metavar="QUERY",
        help="read the rows of a query in the database of SOURCE_DATABASE_URL: user_id (uuid), "
        "email, and optionally name and stripe_customer_id",
    )
    parser.add_argument("--execute", action="store_true", help="publish; without it, only count")
    parser.add_argument(
        "--throttle", type=positive, default=10.0, metavar="N", help="users per second (10)"
    )


BACKFILL: Final = Command(
    "backfill",
    "have customers created for users that were there before this service",
    BackfillSettings,
    _backfill,
    _backfill_arguments,
    (
        "{} users.csv",
        "{} users.csv --execute --throttle 5",
        "{} --execute --from-database 'SELECT user_id, email FROM user_profiles'",
    ),
)
