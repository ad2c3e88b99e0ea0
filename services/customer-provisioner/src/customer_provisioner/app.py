"""The composition root: the one room that knows every part of the service."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import structlog
from prometheus_client import CollectorRegistry

from customer_provisioner.door import Door
from customer_provisioner.handlers import user_created_handler
from customer_provisioner.inquiries import Inquiries
from customer_provisioner.metrics import Metrics
from customer_provisioner.profile import SOURCE
from customer_provisioner.profiles import Profiles
from customer_provisioner.provisioning import Provisioning
from customer_provisioner.relay import Relay
from customer_provisioner.rounds import Rounds
from customer_provisioner.settings import Settings, StripeSettings
from customer_provisioner.stripe_api import StripeApi, StripePausedError
from customer_provisioner.sweep import Sweep
from nexus_broker_admin.inspection import broker_checks
from nexus_database import Database, DatabaseUnavailableError, require_current, revision_fault
from nexus_database.settings import DatabaseSettings
from nexus_messaging.clock import utc_now
from nexus_messaging.consumer import Consumer
from nexus_messaging.consumption import Outage
from nexus_messaging.errors import PermanentError, PublishError, TransientError
from nexus_messaging.flood_guard import FloodGuards
from nexus_messaging.metrics import MessagingMetrics
from nexus_messaging.publisher import Publisher
from nexus_messaging.routes import Routes
from nexus_messaging.settings import BrokerSettings
from nexus_messaging.settlement import Settlement
from nexus_messaging.singles import SingleConsumption
from nexus_messaging.topology import USER_CREATED_QUEUE
from nexus_service.checking import Check, Checks
from nexus_service.connections import Connections
from nexus_service.http import serving
from nexus_service.lifecycle import (
    Loop,
    resume_on_signal,
    run_until,
    stop_on_signal,
    until_available,
)

NAME: Final = SOURCE
PACKAGE: Final = "customer_provisioner"

ROUND_SECONDS: Final = 5.0
LONGEST_ROUND: Final = 600.0
"""Seconds after which a round that has not ended is stuck: all that it waits for has timeouts."""

PREFETCH: Final = 20
"""Users in hand: creating a customer takes Stripe about a second."""

log = structlog.get_logger()


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        StartError: the HTTP port is taken.
        UnfitDatabaseError: the database is at another revision, or another service's.
        StoppedError: told to stop while waiting for the broker or the database.
    """
    stop = stop_on_signal()
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(database_of(settings))
        door = Door(settings.api_keys, Inquiries(database), utc_now)
        checked = Checked(database)
        await stack.enter_async_context(_http(settings, registry, checked, door))
        publisher = await _awaited(settings, database, stop)
        stack.push_async_callback(publisher.close)
        door.publish_with(publisher)
        stripe = await stack.enter_async_context(stripe_of(settings, metrics))
        parts = wire(settings, database, publisher, stripe, metrics, registry)
        checked.include(parts)
        resume_on_signal(parts.guards.resume)
        log.info("serving", port=settings.http_port)
        grace = settings.shutdown_grace_seconds
        await run_until(stop, parts.loops, [parts.consumption], grace=grace)


async def _awaited(settings: Settings, database: Database, stop: asyncio.Event) -> Publisher:
    """Wait for a database at the right revision and for the broker."""
    await until_available(
        "database", lambda: require_current(database, PACKAGE), (DatabaseUnavailableError,), stop
    )
    return await until_available(
        "broker", lambda: connect_publisher(settings), (PublishError,), stop
    )


def _http(
    settings: Settings, registry: CollectorRegistry, checked: "Checked", door: Door
) -> AbstractAsyncContextManager[None]:
    return serving(
        settings.http_host,
        settings.http_port,
        registry,
        health=checked.health,
        readiness=checked.readiness,
        remarks=checked.remarks,
        routes=door.routes(),
    )


@dataclass(frozen=True, slots=True)
class Parts:
    """What runs, and what is drained at the end."""

    connections: Connections
    guards: FloodGuards
    stripe: StripeApi
    consumption: SingleConsumption
    rounds: Mapping[str, Rounds]
    loops: Mapping[str, Loop]


def wire(
    settings: Settings,
    database: Database,
    publisher: Publisher,
    stripe: StripeApi,
    metrics: Metrics,
    registry: CollectorRegistry,
) -> Parts:
    """Make every part of a running service and join them; nothing runs yet."""
    profiles, inquiries = Profiles(database), Inquiries(database)
    announcing = Relay(inquiries, profiles, publisher, metrics, utc_now)
    relay = Rounds(announcing.announce, every=ROUND_SECONDS)
    provisioning = Provisioning(profiles, stripe, metrics, on_provisioned=relay.wake, now=utc_now)
    sweeping = Sweep(inquiries, provisioning, metrics, utc_now)
    messaging = MessagingMetrics(registry, service=NAME, queues=[USER_CREATED_QUEUE])

    async def probe() -> None:
        await database.probe()
        stripe.require_closed()

    publisher.watch_failures(messaging.not_published)
    settlement = Settlement(publisher, messaging, service=NAME, limit=settings.flood_limit())
    url = settings.amqp_url.get_secret_value()
    consumer = Consumer(url, USER_CREATED_QUEUE, prefetch=PREFETCH, name=NAME)
    consumption = SingleConsumption(
        consumer,
        user_created_handler(Routes(), profiles, provisioning, metrics, utc_now),
        settlement,
        Outage((DatabaseUnavailableError, StripePausedError), probe),
    )
    messaging.watch_pauses(USER_CREATED_QUEUE, consumption.is_paused)
    rounds = {"relay": relay, "sweep": Rounds(sweeping.sweep, every=ROUND_SECONDS)}
    connections = Connections(publisher, [consumer])
    loops: dict[str, Loop] = {"receive": consumer.run, "consume": consumption.run}
    loops |= {name: each.run for name, each in rounds.items()}
    return Parts(connections, settlement.guards, stripe, consumption, rounds, loops)


class Checked:
    """What `/healthz` and `/readyz` check: more once the parts run."""

    def __init__(self, database: Database) -> None:
        self.health: dict[str, Check] = {}
        self.remarks: dict[str, Check] = {}
        self.readiness: dict[str, Check] = {
            "broker": _starting,
            "database": lambda: revision_fault(database, PACKAGE),
        }

    def include(self, parts: Parts) -> None:
        """Check the running parts too."""
        self.readiness["broker"] = parts.connections.fault
        self.health["broker"] = parts.connections.stalled
        self.remarks["consumption"] = parts.guards.remark
        self.remarks["stripe"] = parts.stripe.remark
        for name, rounds in parts.rounds.items():
            self.health[name] = _progress(rounds)


@asynccontextmanager
async def database_of(settings: DatabaseSettings) -> AsyncIterator[Database]:
    """Offer the service's database, which connects when first used."""
    database = Database(settings.database_url.get_secret_value(), name=NAME)
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def stripe_of(settings: StripeSettings, metrics: Metrics) -> AsyncIterator[StripeApi]:
    """Offer the way to Stripe, which connects when first used."""
    key = settings.stripe_secret_key.get_secret_value()
    stripe = StripeApi(key, settings.stripe_api_base, metrics)
    try:
        yield stripe
    finally:
        await stripe.close()


async def connect_publisher(settings: BrokerSettings) -> Publisher:
    """Return a connected publisher.

    Raises:
        PublishError: the broker can't be reached or refuses the credentials.
    """
    return await Publisher.connect(settings.amqp_url.get_secret_value(), name=NAME)


async def _starting() -> str | None:
    return "starting"


def _progress(rounds: Rounds) -> Check:
    async def progress() -> str | None:
        seconds = rounds.since_last()
        return None if seconds < LONGEST_ROUND else f"no round ended for {seconds:.0f} s"

    return progress


async def _database_fault(settings: DatabaseSettings) -> str | None:
    async with database_of(settings) as database:
        return await revision_fault(database, PACKAGE)


async def _stripe_fault(settings: StripeSettings) -> str | None:
    async with stripe_of(settings, Metrics(CollectorRegistry())) as stripe:
        try:
            await stripe.fate("cus_check")
        except (StripePausedError, TransientError, PermanentError) as error:
            return str(error)
    return None


CHECKS: Final = (
    *broker_checks(NAME),
    Checks("database", DatabaseSettings, lambda told: {"database": lambda: _database_fault(told)}),
    Checks("stripe", StripeSettings, lambda told: {"stripe": lambda: _stripe_fault(told)}),
)
"""What ``check`` looks at: broker, database, and what Stripe thinks of the key."""
