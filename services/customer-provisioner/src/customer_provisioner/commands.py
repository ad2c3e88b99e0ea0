"""The operators' commands: announce, find, explain, link and reprovision."""

import argparse
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry

from customer_provisioner.announcing import (
    announced_assignments,
    announced_customers,
    announced_readings,
    announced_subscriptions,
)
from customer_provisioner.assignments import account_at
from customer_provisioner.circuit import CircuitOpenError
from customer_provisioner.ensuring import NotMadeError
from customer_provisioner.explanation import explain, explain_payer
from customer_provisioner.linking import CustomerStatus
from customer_provisioner.links import NotLinkedError, link
from customer_provisioner.metrics import Metrics
from customer_provisioner.opening import connect_publisher, open_database
from customer_provisioner.profile import SOURCE, Profile
from customer_provisioner.provisioning import Provisioner
from customer_provisioner.relay import publish_again
from customer_provisioner.settings import CustomerSettings, PublishSettings
from customer_provisioner.storage.assignments import AssignmentStore, NotAssignableError
from customer_provisioner.storage.changes import ChangeStore
from customer_provisioner.storage.reader import ProfileReader
from customer_provisioner.storage.subscriptions import SubscriptionStore
from customer_provisioner.storage.writer import ProfileWriter
from customer_provisioner.stripe.api import StripeApi
from customer_provisioner.stripe.calls import stripe_calls
from nexus_database import (
    Database,
    DatabaseUnavailableError,
    MigrationError,
    UnfitDatabaseError,
)
from nexus_database.settings import DatabaseSettings
from nexus_messaging.clock import utc_now
from nexus_messaging.errors import PermanentError, PublishError, TransientError
from nexus_service.command import FAILED, SUCCESS
from nexus_service.console import show_error, show_line, show_lines, steps

FAULTS: Final = (
    MigrationError,
    UnfitDatabaseError,
    DatabaseUnavailableError,
    PublishError,
    CircuitOpenError,
    TransientError,
    PermanentError,
    NotLinkedError,
    NotAssignableError,
    NotMadeError,
)
"""What any command may raise; each text says what to do."""


async def announce_again(settings: PublishSettings, parsed: argparse.Namespace) -> int:
    """Publish customers, assignments, subscriptions and readings since a time again."""
    async with AsyncExitStack() as stack:
        publisher = None
        if parsed.execute:
            publisher = await connect_publisher(settings)
            stack.push_async_callback(publisher.close)
        database = await stack.enter_async_context(open_database(settings))
        progress = stack.enter_context(steps("announcements"))
        again = partial(
            publish_again,
            since=parsed.since,
            publisher=publisher,
            per_second=parsed.throttle,
            progress=progress,
        )
        published = {
            "customers": await again(announced_customers(database)),
            "assignments": await again(announced_assignments(database)),
            "subscriptions": await again(announced_subscriptions(database)),
            "readings of all subscriptions": await again(announced_readings(database)),
        }
    listed = "{}, {}, {} and {}".format(*(f"{done.number} {of}" for of, done in published.items()))
    if parsed.execute:
        show_line(f"{listed} were announced again")
    else:
        show_line(f"{listed} would be announced again; nothing was: add --execute")
    for of, done in published.items():
        if done.broken:
            _say(f"{len(done.broken)} {of} break a rule of their event: {done.broken[0]}")
    return FAILED if any(done.broken for done in published.values()) else SUCCESS


async def find_users(settings: DatabaseSettings, parsed: argparse.Namespace) -> int:
    """Print the users with an exact address; fail if there are none."""
    async with open_database(settings) as database:
        found = await ProfileReader(database).with_email(parsed.email)
    for profile in found:
        show_line(f"{profile.user_id} {profile.state} {profile.stripe_customer_id or '-'}")
    if not found:
        _say("no user has exactly this address")
    return SUCCESS if found else FAILED


async def explain_user(settings: DatabaseSettings, parsed: argparse.Namespace) -> int:
    """Print what is known of a user or an organisation; fail if there is no such profile."""
    async with open_database(settings) as database:
        profile = await ProfileReader(database).find(parsed.user_id)
        history = await ProfileReader(database).history(parsed.user_id)
        change = await ChangeStore(database).find(parsed.user_id)
        assignments = await AssignmentStore(database).of_user(parsed.user_id)
        account_id = account_at(assignments, parsed.user_id, utc_now())
        subscriptions = await SubscriptionStore(database).of_account(account_id)
    if profile is None:
        kept = "" if change is None else "; its user.updated is kept until then"
        _say(f"no such user: its user.created has not arrived, or waits in a queue{kept}")
    else:
        show_lines(explain(profile, history, change, utc_now()))
    show_lines(explain_payer(parsed.user_id, assignments, subscriptions, utc_now()))
    return FAILED if profile is None else SUCCESS


async def link_user(settings: CustomerSettings, parsed: argparse.Namespace) -> int:
    """Link a user to a customer that exists at Stripe."""
    async with (
        open_database(settings) as database,
        stripe_calls(settings, Metrics(CollectorRegistry())) as calls,
    ):
        profiles, stripe = ProfileWriter(database), StripeApi(calls)
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


async def replace_customer(settings: CustomerSettings, parsed: argparse.Namespace) -> int:
    """Have a new customer created, unless the user's customer exists."""
    async with open_database(settings) as database:
        profile = await ProfileReader(database).find(parsed.user_id)
        if profile is not None and profile.link_to and profile.refused_as:
            return await _give_up_link(database, profile)
        if profile is None or profile.stripe_customer_id is None:
            _say("nothing to replace: this user has no customer")
            return FAILED
        async with stripe_calls(settings, Metrics(CollectorRegistry())) as calls:
            status = (await StripeApi(calls).retrieve(profile.stripe_customer_id)).status
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


def _say(line: str) -> None:
    show_error(SOURCE, line)
