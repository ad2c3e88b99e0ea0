"""The operators' commands: backfill, announce, find, explain, link and reprovision."""

import argparse
from contextlib import AsyncExitStack
from typing import Final
from uuid import UUID

from prometheus_client import CollectorRegistry
from pydantic import TypeAdapter, ValidationError

from customer_provisioner.backfill_command import BACKFILL
from customer_provisioner.circuit import CircuitOpenError
from customer_provisioner.explanation import explain
from customer_provisioner.linking import CustomerStatus
from customer_provisioner.links import NotLinkedError, link
from customer_provisioner.metrics import Metrics
from customer_provisioner.opening import (
    CustomerSettings,
    PublishSettings,
    connect_publisher,
    open_database,
)
from customer_provisioner.profile import SOURCE, Profile
from customer_provisioner.provisioning import Provisioner
from customer_provisioner.relay import publish_again
from customer_provisioner.storage.changes import ChangeStore
from customer_provisioner.storage.reader import ProfileReader
from customer_provisioner.storage.writer import ProfileWriter
from customer_provisioner.stripe.api import stripe_api
from nexus_contracts.fields import StripeCustomerId
from nexus_database import Database, DatabaseUnavailableError
from nexus_database.settings import DatabaseSettings
from nexus_messaging.clock import utc_now
from nexus_messaging.errors import PermanentError, PublishError, TransientError
from nexus_service.command import FAILED, SUCCESS, Command, moment, positive, utf_8
from nexus_service.console import show_error, show_line, show_lines, steps

FAULTS: Final = (
    DatabaseUnavailableError,
    PublishError,
    CircuitOpenError,
    TransientError,
    PermanentError,
    NotLinkedError,
)
"""What the commands may raise; each text says what to do."""


async def _announce(settings: PublishSettings, parsed: argparse.Namespace) -> int:
    async with AsyncExitStack() as stack:
        publisher = None
        if parsed.execute:
            publisher = await connect_publisher(settings)
            stack.push_async_callback(publisher.close)
        reader = ProfileReader(await stack.enter_async_context(open_database(settings)))
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
    async with open_database(settings) as database:
        found = await ProfileReader(database).with_email(parsed.email)
    for profile in found:
        show_line(f"{profile.user_id} {profile.state} {profile.stripe_customer_id or '-'}")
    if not found:
        _say("no user has exactly this address")
    return SUCCESS if found else FAILED


async def _explain(settings: DatabaseSettings, parsed: argparse.Namespace) -> int:
    async with open_database(settings) as database:
        profile = await ProfileReader(database).find(parsed.user_id)
        history = await ProfileReader(database).history(parsed.user_id)
        change = await ChangeStore(database).find(parsed.user_id)
    if profile is None:
        kept = "" if change is None else "; its user.updated is kept until then"
        _say(f"no such user: its user.created has not arrived, or waits in a queue{kept}")
        return FAILED
    show_lines(explain(profile, history, change, utc_now()))
    return SUCCESS


async def _link(settings: CustomerSettings, parsed: argparse.Namespace) -> int:
    async with (
        open_database(settings) as database,
        stripe_api(settings, Metrics(CollectorRegistry())) as stripe,
    ):
        profiles = ProfileWriter(database)
        done = await link(
            parsed.user_id,
            parsed.customer_id,
            replace=parsed.replace,
            reader=ProfileReader(database),
            profiles=profiles,
            stripe=stripe,
            provisioner=Provisioner(
                profiles,
                stripe,
                Metrics(CollectorRegistry()),
                wake_relay=lambda: None,  # the running service's relay looks by itself
                now=utc_now,
            ),
            now=utc_now,
        )
    show_line(done)
    return SUCCESS


async def _reprovision(settings: CustomerSettings, parsed: argparse.Namespace) -> int:
    async with open_database(settings) as database:
        profile = await ProfileReader(database).find(parsed.user_id)
        if profile is not None and profile.link_to and profile.refused_as:
            return await _give_up_link(database, profile)
        if profile is None or profile.stripe_customer_id is None:
            _say("nothing to replace: this user has no customer")
            return FAILED
        async with stripe_api(settings, Metrics(CollectorRegistry())) as stripe:
            status = (await stripe.retrieve(profile.stripe_customer_id)).status
        obstacle = _obstacle(profile.stripe_customer_id, status, replace_unknown=parsed.missing)
        if obstacle is not None:
            _say(obstacle)
            return FAILED
        if not await ProfileWriter(database).begin_generation(profile, utc_now()):
            _say("the profile changed meanwhile: see explain")
            return FAILED
    show_line(f"generation {profile.generation + 1} has begun; the running service does the rest")
    return SUCCESS


async def _give_up_link(database: Database, profile: Profile) -> int:
    if not await ProfileWriter(database).give_up_link(profile, utc_now()):
        _say("the profile changed meanwhile: see explain")
        return FAILED
    show_line(f"{profile.link_to} is not linked any more; the running service creates a customer")
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


_CUSTOMER_ID: Final[TypeAdapter[str]] = TypeAdapter(StripeCustomerId)


def _customer_id(written: str) -> str:
    try:
        return _CUSTOMER_ID.validate_python(written)
    except ValidationError:
        raise argparse.ArgumentTypeError(f"{written!r} is no customer's id, cus_…") from None


def _link_arguments(parser: argparse.ArgumentParser) -> None:
    _user_argument(parser)
    parser.add_argument("customer_id", type=_customer_id, help="the customer at Stripe, cus_…")
    parser.add_argument(
        "--replace", action="store_true", help="also if the user has another customer"
    )


def _reprovision_arguments(parser: argparse.ArgumentParser) -> None:
    _user_argument(parser)
    parser.add_argument(
        "--missing", action="store_true", help="also if Stripe has never known the customer"
    )


_ID: Final = "6f1c2a9e-0d3b-4c57-9a41-000000000000"

COMMANDS: Final = (
    BACKFILL,
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
        "link",
        "link a user to a customer that exists at Stripe, instead of having one created",
        CustomerSettings,
        _link,
        _link_arguments,
        (f"{{}} {_ID} cus_NffrFeUfNV2Hib", f"{{}} {_ID} cus_NffrFeUfNV2Hib --replace"),
    ),
    Command(
        "reprovision",
        "have a new customer created in place of one that was deleted, or refused to be linked",
        CustomerSettings,
        _reprovision,
        _reprovision_arguments,
        (f"{{}} {_ID}",),
    ),
)


def _say(line: str) -> None:
    show_error(SOURCE, line)
