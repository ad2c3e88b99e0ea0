"""The operators' commands: backfill, announce, find, explain and reprovision."""

import argparse
from contextlib import AsyncExitStack
from typing import Final
from uuid import UUID

from prometheus_client import CollectorRegistry

from customer_provisioner.backfill import backfill
from customer_provisioner.circuit import CircuitOpenError
from customer_provisioner.explanation import explain
from customer_provisioner.metrics import Metrics
from customer_provisioner.profile import SOURCE
from customer_provisioner.relay import publish_again
from customer_provisioner.settings import StripeSettings
from customer_provisioner.storage.reader import ProfileReader
from customer_provisioner.storage.writer import ProfileWriter
from customer_provisioner.stripe.api import CustomerStatus, stripe_api
from customer_provisioner.user_list import read_users
from nexus_database import Database, DatabaseUnavailableError
from nexus_database.settings import DatabaseSettings
from nexus_messaging.clock import utc_now
from nexus_messaging.errors import PermanentError, PublishError, TransientError
from nexus_messaging.publisher import Publisher
from nexus_messaging.settings import BrokerSettings
from nexus_service.command import FAILED, SUCCESS, Command, moment, positive, utf_8
from nexus_service.console import show_error, show_line, show_lines, steps
from nexus_service.input_files import lines_of

FAULTS: Final = (
    DatabaseUnavailableError,
    PublishError,
    CircuitOpenError,
    TransientError,
    PermanentError,
)
"""What the commands may raise; each text says what to do."""


class PublishSettings(DatabaseSettings, BrokerSettings):
    """What the commands that publish need."""


class ReprovisionSettings(DatabaseSettings, StripeSettings):
    """What replacing a customer needs."""


def _database(settings: DatabaseSettings) -> Database:
    return Database(settings.database_url.get_secret_value(), name=SOURCE)


async def _connect_publisher(settings: BrokerSettings) -> Publisher:
    return await Publisher.connect(settings.amqp_url.get_secret_value(), name=SOURCE)


async def _backfill(settings: PublishSettings, parsed: argparse.Namespace) -> int:
    lines = list(lines_of(parsed.file))
    number = sum(1 for _ in read_users(lines))  # an unreadable list is refused before any work
    async with AsyncExitStack() as stack:
        publisher = None
        if parsed.execute:
            publisher = await _connect_publisher(settings)
            stack.push_async_callback(publisher.close)
        reader = ProfileReader(await stack.enter_async_context(_database(settings)))
        tally = await backfill(
            read_users(lines),
            reader,
            publisher,
            per_second=parsed.throttle,
            progress=stack.enter_context(steps("users read", number)),
            now=utc_now,
        )
    show_line(str(tally) if parsed.execute else f"{tally}; nothing was published: add --execute")
    return FAILED if tally.unusable else SUCCESS


async def _announce(settings: PublishSettings, parsed: argparse.Namespace) -> int:
    async with AsyncExitStack() as stack:
        publisher = None
        if parsed.execute:
            publisher = await _connect_publisher(settings)
            stack.push_async_callback(publisher.close)
        reader = ProfileReader(await stack.enter_async_context(_database(settings)))
        progress = stack.enter_context(steps("customers"))
        rate = parsed.throttle
        number = await publish_again(
            parsed.since, reader, publisher, per_second=rate, progress=progress
        )
    if parsed.execute:
        show_line(f"{number} customers were announced again")
    else:
        show_line(f"{number} customers would be announced again; nothing was: add --execute")
    return SUCCESS


async def _find(settings: DatabaseSettings, parsed: argparse.Namespace) -> int:
    async with _database(settings) as database:
        found = await ProfileReader(database).with_email(parsed.email)
    for profile in found:
        show_line(f"{profile.user_id} {profile.state} {profile.stripe_customer_id or '-'}")
    if not found:
        _say("no user has exactly this address")
    return SUCCESS if found else FAILED


async def _explain(settings: DatabaseSettings, parsed: argparse.Namespace) -> int:
    async with _database(settings) as database:
        profile = await ProfileReader(database).find(parsed.user_id)
        history = await ProfileReader(database).history(parsed.user_id)
    if profile is None:
        _say("no such user: its user.created has not arrived, or waits in a queue")
        return FAILED
    show_lines(explain(profile, history, utc_now()))
    return SUCCESS


async def _reprovision(settings: ReprovisionSettings, parsed: argparse.Namespace) -> int:
    async with _database(settings) as database:
        profile = await ProfileReader(database).find(parsed.user_id)
        if profile is None or profile.stripe_customer_id is None:
            _say("nothing to replace: this user has no customer")
            return FAILED
        async with stripe_api(settings, Metrics(CollectorRegistry())) as stripe:
            status = await stripe.status_of(profile.stripe_customer_id)
        obstacle = _obstacle(profile.stripe_customer_id, status, replace_unknown=parsed.missing)
        if obstacle is not None:
            _say(obstacle)
            return FAILED
        if not await ProfileWriter(database).begin_generation(profile, utc_now()):
            _say("the profile changed meanwhile: see explain")
            return FAILED
    show_line(f"generation {profile.generation + 1} has begun; the running service does the rest")
    return SUCCESS


def _obstacle(customer_id: str, status: CustomerStatus, *, replace_unknown: bool) -> str | None:
    """Return why there can be no new customer: two customers of one user would both be billed."""
    if status is CustomerStatus.EXISTS:
        return f"{customer_id} exists at Stripe, and so stays this user's customer"
    if status is CustomerStatus.UNKNOWN and not replace_unknown:
        return (
            f"Stripe has never known {customer_id}: is this the key of the account it was made in? "
            "If that account is gone for good, add --missing"
        )
    return None


def _backfill_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        nargs="?",
        help="in UTF-8: CSV with a header, JSON lines or a JSON array (standard input by default)",
    )
    parser.add_argument("--execute", action="store_true", help="publish; without it, only count")
    parser.add_argument(
        "--throttle", type=positive, default=10.0, metavar="N", help="users per second (10)"
    )


def _announce_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--since",
        type=moment,
        required=True,
        metavar="TIME",
        help="with its offset from UTC: 2026-03-01T12:00:00Z; earlier than needed is harmless",
    )
    parser.add_argument("--execute", action="store_true", help="publish; without it, only count")
    parser.add_argument(
        "--throttle", type=positive, default=100.0, metavar="N", help="customers per second (100)"
    )


def _user_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("user_id", type=UUID, help="the user's id, as the platform knows it")


def _reprovision_arguments(parser: argparse.ArgumentParser) -> None:
    _user_argument(parser)
    parser.add_argument(
        "--missing", action="store_true", help="also if Stripe has never known the customer"
    )


_ID: Final = "6f1c2a9e-0d3b-4c57-9a41-000000000000"

COMMANDS: Final = (
    Command(
        "backfill",
        "have customers created for users that were there before this service",
        PublishSettings,
        _backfill,
        _backfill_arguments,
        ("{} users.csv", "{} users.csv --execute --throttle 5", "psql -c … --csv | {} --execute"),
    ),
    Command(
        "announce",
        "publish customers since a time again, after a restore of usage-ingest",
        PublishSettings,
        _announce,
        _announce_arguments,
        ("{} --since 2026-03-01T12:00:00Z", "{} --since 2026-03-01T12:00:00Z --execute"),
    ),
    Command(
        "find",
        "print the users with an exact address, and their customers",
        DatabaseSettings,
        _find,
        lambda parser: parser.add_argument("email", type=utf_8, help="exactly as it was published"),
        ("{} ada@example.com",),
    ),
    Command(
        "explain",
        "print every step taken for a user and the next one",
        DatabaseSettings,
        _explain,
        _user_argument,
        (f"{{}} {_ID}",),
    ),
    Command(
        "reprovision",
        "have a new customer created for a user whose customer was deleted",
        ReprovisionSettings,
        _reprovision,
        _reprovision_arguments,
        (f"{{}} {_ID}",),
    ),
)


def _say(line: str) -> None:
    show_error(SOURCE, line)
