"""The composition root of stripe-reporter: the one room that knows every part."""

import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog
from prometheus_client import CollectorRegistry

from nexus_broker_admin.inspection import broker_checks
from nexus_database import (
    Database,
    DatabaseUnavailableError,
    MigrationError,
    UnfitDatabaseError,
    migrate,
    require_current,
    revision_fault,
)
from nexus_database.settings import DatabaseSettings
from nexus_messaging.clock import utc_now
from nexus_messaging.consumer import Consumer
from nexus_messaging.consumption import Outage
from nexus_messaging.errors import PublishError
from nexus_messaging.flood_guard import FloodGuards
from nexus_messaging.metrics import MessagingMetrics
from nexus_messaging.publisher import Publisher
from nexus_messaging.settlement import Settlement
from nexus_messaging.singles import SingleConsumption
from nexus_messaging.topology import USAGE_RECORDED_QUEUE
from nexus_service.checking import Check, Checks
from nexus_service.command import Service
from nexus_service.connections import Connections
from nexus_service.http import serving
from nexus_service.lifecycle import (
    resume_on_signal,
    run_until,
    stop_on_signal,
    until_available,
)
from nexus_stripe.answers import Answer
from stripe_reporter.checks import StripeChecks
from stripe_reporter.commands import COMMANDS
from stripe_reporter.gate import Gate, GateShutError
from stripe_reporter.journal import Journal
from stripe_reporter.lanes import Lanes
from stripe_reporter.meanings import meaning_of
from stripe_reporter.measuring import Measuring
from stripe_reporter.metrics import LIST_METERS, ReporterMetrics
from stripe_reporter.outcomes import Outcomes
from stripe_reporter.pace import Pacing
from stripe_reporter.progress import Progress
from stripe_reporter.reporting import Reporter
from stripe_reporter.settings import Settings, StripeSettings
from stripe_reporter.stripe_api import StripeApi, stripe_api

NAME: Final = "stripe-reporter"
PACKAGE: Final = "stripe_reporter"

PREFETCH: Final = 200
"""Reports in hand. At 800 calls a second and 0.2 s each, 160 calls are under way."""

DATABASE_CONNECTIONS: Final = 20

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
    progress = Progress(time.monotonic)
    database = Database(
        settings.database_url.get_secret_value(), name=NAME, pool_size=DATABASE_CONNECTIONS
    )
    readiness: dict[str, Check] = {
        "broker": _starting,
        "database": lambda: revision_fault(database, PACKAGE),
    }
    async with AsyncExitStack() as stack:
        stack.push_async_callback(database.close)
        host, port = settings.http_host, settings.http_port
        health: dict[str, Check] = {"progress": progress.fault}
        remarks: dict[str, Check] = {}
        await stack.enter_async_context(
            serving(host, port, registry, health=health, readiness=readiness, remarks=remarks)
        )
        await until_available(
            "database",
            lambda: require_current(database, PACKAGE),
            (DatabaseUnavailableError,),
            stop,
        )
        url = settings.amqp_url.get_secret_value()
        publisher = await until_available(
            "broker", lambda: Publisher.connect(url, name=NAME), (PublishError,), stop
        )
        stack.push_async_callback(publisher.close)
        stripe = await stack.enter_async_context(stripe_api(settings))
        parts = wire(settings, database, publisher, stripe, registry, progress)
        readiness["broker"] = parts.connections.fault
        health["broker"] = parts.connections.stalled
        remarks["gate"] = parts.gate_remark
        remarks["consumption"] = parts.guards.remark
        resume_on_signal(parts.guards.resume)
        loops = {
            "receive": parts.consumer.run,
            "report": parts.consumption.run,
            "measure": parts.measuring.run,
        }
        log.info("serving", port=port)
        grace = settings.shutdown_grace_seconds
        await run_until(stop, loops, [parts.consumption], grace=grace)


@dataclass(frozen=True, slots=True)
class Parts:
    """What runs."""

    connections: Connections
    guards: FloodGuards
    consumer: Consumer
    consumption: SingleConsumption
    gate: Gate
    measuring: Measuring

    async def gate_remark(self) -> str | None:
        """Say why no report is sent, if it is Stripe's side that keeps us from it."""
        cause = self.gate.cause
        return None if cause is None else f"shut for {cause.value}: nothing is sent until it ends"


def wire(
    settings: Settings,
    database: Database,
    publisher: Publisher,
    stripe: StripeApi,
    registry: CollectorRegistry,
    progress: Progress,
    *,
    now: Callable[[], datetime] = utc_now,
) -> Parts:
    """Make every part of a running service and join them; nothing runs yet."""
    metrics = ReporterMetrics(registry)
    messaging = MessagingMetrics(registry, service=NAME, queues=[USAGE_RECORDED_QUEUE])
    publisher.watch_failures(messaging.not_published)
    pacing = Pacing(settings.calls_per_second, time.monotonic)
    metrics.watch_rate(lambda: pacing.rate)
    metrics.watch_work(lambda: progress.in_hand)
    journal = Journal(database)

    async def active_meters() -> tuple[Answer, frozenset[str]]:
        began = time.perf_counter()
        answer, found = await stripe.active_meters()
        metrics.called(LIST_METERS, meaning_of(answer), time.perf_counter() - began)
        return answer, frozenset(each.event_name for each in found)

    gate = Gate(
        frozenset(settings.meters),
        active_meters,
        clock=time.monotonic,
        changed=metrics.gate_changed,
    )

    async def probe() -> None:
        await database.probe()
        await gate.probe()

    reporter = Reporter(
        journal,
        stripe,
        Outcomes(publisher),
        gate,
        pacing,
        Lanes(time.monotonic),
        metrics,
        progress,
        now=now,
    )
    settlement = Settlement(publisher, messaging, service=NAME, limit=settings.flood_limit())
    url = settings.amqp_url.get_secret_value()
    consumer = Consumer(url, USAGE_RECORDED_QUEUE, prefetch=PREFETCH, name=NAME)
    consumption = SingleConsumption(
        consumer,
        reporter.report_usage,
        settlement,
        Outage((GateShutError, DatabaseUnavailableError), probe),
    )
    messaging.watch_pauses(USAGE_RECORDED_QUEUE, consumption.is_paused)
    measuring = Measuring(journal, metrics, now=now)
    connections = Connections(publisher, [consumer])
    return Parts(connections, settlement.guards, consumer, consumption, gate, measuring)


async def _starting() -> str | None:
    return "starting"


async def _database_fault(settings: DatabaseSettings) -> str | None:
    database = Database(settings.database_url.get_secret_value(), name=f"{NAME} check")
    try:
        return await revision_fault(database, PACKAGE)
    finally:
        await database.close()


CHECKS: Final = (
    *broker_checks(NAME),
    Checks("database", DatabaseSettings, lambda told: {"database": lambda: _database_fault(told)}),
    Checks("stripe", StripeSettings, lambda told: StripeChecks(told).all()),
)

SERVICE = Service(
    name=NAME,
    purpose="Sends each usage report to Stripe as one meter event, once.",
    settings=Settings,
    serve=serve,
    checks=CHECKS,
    migrate=lambda url: migrate(url, PACKAGE),
    faults=(MigrationError, UnfitDatabaseError, DatabaseUnavailableError),
    commands=COMMANDS,
)
