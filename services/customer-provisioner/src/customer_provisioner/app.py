"""The composition root: the one room that knows every part of the service."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import structlog
from faststream.rabbit import RabbitBroker
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
from customer_provisioner.settings import Settings
from customer_provisioner.starting import StoppedError, unless, until_there
from customer_provisioner.stripe_api import StripeApi, StripeKeyRefusedError
from customer_provisioner.sweep import Sweep
from nexus_database import (
    Database,
    DatabaseUnavailableError,
    MigrationError,
    RevisionMismatchError,
    migrate,
    require_current,
)
from nexus_messaging.command import Check, StartError
from nexus_messaging.consumption import Outage
from nexus_messaging.errors import PermanentError, PublishError, TransientError
from nexus_messaging.http import serving
from nexus_messaging.lifecycle import run_until, stop_on_signal
from nexus_messaging.metrics import MessagingMetrics
from nexus_messaging.publisher import Publisher
from nexus_messaging.settlement import Settlement, utc_now
from nexus_messaging.subscriber import make_broker, subscribe
from nexus_messaging.topology import USER_CREATED_QUEUE

NAME: Final = SOURCE
PACKAGE: Final = "customer_provisioner"
ROUND_SECONDS: Final = 5.0
LONGEST_ROUND: Final = 600.0
"""Seconds after which a round that has not ended is stuck: all that it waits for has timeouts."""

PING_SECONDS: Final = 1.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Subscription:
    """The subscription to the queue, as something that can be drained."""

    broker: RabbitBroker

    async def drain(self, seconds: float) -> None:
        """Let the handlers finish for ``seconds``; the broker delivers the rest again."""
        async with asyncio.timeout(seconds):
            await self.broker.stop()


async def serve(settings: Settings) -> None:
    """Run until SIGTERM.

    Raises:
        StartError: the database is at another revision, or the HTTP port is taken.
    """
    stop = stop_on_signal()
    try:
        async with AsyncExitStack() as stack:
            await _serve(settings, stop, stack)
    except StoppedError:
        log.info("stopped")


async def _serve(settings: Settings, stop: asyncio.Event, stack: AsyncExitStack) -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    database = await stack.enter_async_context(database_of(settings))
    await unless(stop, until_there("database", lambda: _require_revision(database)))
    publisher = await unless(stop, until_there("broker", lambda: connect_publisher(settings)))
    stack.push_async_callback(publisher.close)
    stripe = await stack.enter_async_context(stripe_of(settings, metrics))

    profiles, inquiries = Profiles(database), Inquiries(database)
    relay = Rounds(
        Relay(inquiries, profiles, publisher, metrics, utc_now).announce, every=ROUND_SECONDS
    )
    provisioning = Provisioning(profiles, stripe, metrics, on_provisioned=relay.wake, now=utc_now)
    sweep = Rounds(Sweep(inquiries, provisioning, metrics, utc_now).sweep, every=ROUND_SECONDS)
    door = Door(settings.api_keys, inquiries, publisher, utc_now)
    broker = make_broker(settings.amqp_url.get_secret_value(), registry, service=NAME)
    subscribe(
        broker,
        USER_CREATED_QUEUE,
        user_created_handler(profiles, provisioning, metrics, utc_now),
        Settlement(publisher, _messaging_metrics(registry), service=NAME),
        Outage(errors=(DatabaseUnavailableError, StripeKeyRefusedError), probe=database.probe),
    )
    rounds = {"relay": relay, "sweep": sweep}
    http = _http(settings, registry, rounds, _readiness(database, publisher, broker), door)
    await stack.enter_async_context(http)
    stack.push_async_callback(broker.stop)
    await unless(stop, until_there("queue", broker.start))
    log.info("serving", port=settings.http_port)
    loops = {name: each.run for name, each in rounds.items()}
    await run_until(stop, loops, [Subscription(broker)], grace=settings.shutdown_grace_seconds)


def checks(settings: Settings) -> Mapping[str, Check]:
    """Return what ``check`` checks: broker, database and Stripe's opinion of the key."""
    return {
        "broker": lambda: _check_broker(settings),
        "database": lambda: _check_database(settings),
        "stripe": lambda: _check_stripe(settings),
    }


async def migrate_database(url: str) -> str:
    """Bring the database at ``url``, opened as its owner, to this release's revision.

    Raises:
        StartError: it could not be brought there, and is as it was.
    """
    try:
        return await migrate(url, PACKAGE)
    except MigrationError as error:
        raise StartError(str(error)) from None


@asynccontextmanager
async def database_of(settings: Settings) -> AsyncIterator[Database]:
    """Offer the service's database, which connects when first used."""
    database = Database(settings.database_url.get_secret_value(), name=NAME)
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def stripe_of(settings: Settings, metrics: Metrics) -> AsyncIterator[StripeApi]:
    """Offer the way to Stripe, which connects when first used."""
    key = settings.stripe_secret_key.get_secret_value()
    stripe = StripeApi(key, settings.stripe_api_base, metrics)
    try:
        yield stripe
    finally:
        await stripe.close()


async def connect_publisher(settings: Settings) -> Publisher:
    """Return a connected publisher.

    Raises:
        PublishError: the broker can't be reached or refuses the credentials.
    """
    return await Publisher.connect(settings.amqp_url.get_secret_value(), name=NAME)


def _messaging_metrics(registry: CollectorRegistry) -> MessagingMetrics:
    return MessagingMetrics(registry, service=NAME, queues=[USER_CREATED_QUEUE])


def _http(
    settings: Settings,
    registry: CollectorRegistry,
    rounds: Mapping[str, Rounds],
    readiness: Mapping[str, Check],
    door: Door,
) -> AbstractAsyncContextManager[None]:
    return serving(
        settings.http_host,
        settings.http_port,
        registry,
        health={name: _progress(each) for name, each in rounds.items()},
        readiness=readiness,
        routes=door.routes(),
    )


def _progress(rounds: Rounds) -> Check:
    async def progress() -> str | None:
        seconds = rounds.since_last()
        return None if seconds < LONGEST_ROUND else f"no round ended for {seconds:.0f} s"

    return progress


def _readiness(
    database: Database, publisher: Publisher, broker: RabbitBroker
) -> Mapping[str, Check]:
    async def broker_fault() -> str | None:
        there = publisher.connected and await broker.ping(PING_SECONDS)
        return None if there else "not connected"

    return {"broker": broker_fault, "database": lambda: _database_fault(database)}


async def _require_revision(database: Database) -> None:
    try:
        await require_current(database, PACKAGE)
    except RevisionMismatchError as error:
        raise StartError(str(error)) from None


async def _database_fault(database: Database) -> str | None:
    try:
        await require_current(database, PACKAGE)
    except (DatabaseUnavailableError, RevisionMismatchError) as error:
        return str(error)
    return None


async def _check_broker(settings: Settings) -> str | None:
    try:
        publisher = await connect_publisher(settings)
    except PublishError as error:
        return str(error)
    await publisher.close()
    return None


async def _check_database(settings: Settings) -> str | None:
    async with database_of(settings) as database:
        return await _database_fault(database)


async def _check_stripe(settings: Settings) -> str | None:
    async with stripe_of(settings, Metrics(CollectorRegistry())) as stripe:
        try:
            await stripe.fate("cus_check")
        except (StripeKeyRefusedError, TransientError, PermanentError) as error:
            return str(error)
    return None
