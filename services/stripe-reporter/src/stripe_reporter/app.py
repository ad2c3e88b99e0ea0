"""The composition root of stripe-reporter: the one room that knows every part."""

import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from prometheus_client import CollectorRegistry

from nexus_database import (
    Database,
    DatabaseUnavailableError,
    MigrationError,
    RevisionMismatchError,
    migrate,
    require_current,
    revision_fault,
)
from nexus_messaging.breaker import Breakers
from nexus_messaging.command import Check, Service
from nexus_messaging.consumer import Consumer
from nexus_messaging.consumption import Outage, SingleConsumption
from nexus_messaging.errors import PublishError
from nexus_messaging.http import serving
from nexus_messaging.inspection import broker_fault
from nexus_messaging.lifecycle import (
    resume_on_signal,
    run_until,
    stop_on_signal,
    until_available,
)
from nexus_messaging.metrics import MessagingMetrics
from nexus_messaging.publisher import Publisher
from nexus_messaging.settlement import Settlement, utc_now
from nexus_messaging.topology import USAGE_RECORDED_QUEUE
from stripe_reporter.answers import Answer
from stripe_reporter.checks import StripeChecks
from stripe_reporter.commands import COMMANDS
from stripe_reporter.gate import Gate, GateShutError
from stripe_reporter.journal import Journal
from stripe_reporter.lanes import Lanes
from stripe_reporter.measuring import Measuring
from stripe_reporter.metrics import ReporterMetrics
from stripe_reporter.outcomes import Outcomes
from stripe_reporter.pace import Pacing
from stripe_reporter.progress import Progress
from stripe_reporter.reporting import Reporter
from stripe_reporter.settings import Settings
from stripe_reporter.stripe_api import StripeApi, stripe_api

NAME: Final = "stripe-reporter"
PACKAGE: Final = "stripe_reporter"

PREFETCH: Final = 200
"""Reports in hand. At 800 calls a second and 0.2 s each, 160 calls are under way."""

DATABASE_CONNECTIONS: Final = 20


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        StartError: the HTTP port is taken.
        RevisionMismatchError: the database is at another revision.
        StoppedError: told to stop while waiting for the broker or the database.
    """
    stop = stop_on_signal()
    registry = CollectorRegistry()
    progress = Progress(time.monotonic)
    database = _database(settings)
    readiness: dict[str, Check] = {
        "broker": _starting,
        "database": lambda: revision_fault(database, PACKAGE),
    }
    async with AsyncExitStack() as stack:
        stack.push_async_callback(database.close)
        host, port = settings.http_host, settings.http_port
        health = {"progress": progress.fault}
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
        readiness["broker"] = parts.broker_fault
        remarks["gate"] = parts.gate_remark
        remarks["consumption"] = parts.breakers.remark
        resume_on_signal(parts.breakers.resume)
        loops = {
            "receive": parts.consumer.run,
            "report": parts.consumption.run,
            "measure": parts.measuring.run,
        }
        grace = settings.shutdown_grace_seconds
        await run_until(stop, loops, [parts.consumption], grace=grace)


@dataclass(frozen=True, slots=True)
class Parts:
    """What runs."""

    publisher: Publisher
    breakers: Breakers
    consumer: Consumer
    consumption: SingleConsumption
    gate: Gate
    measuring: Measuring

    async def broker_fault(self) -> str | None:
        """Say what is wrong with the broker's connections."""
        if not self.publisher.connected:
            return "not connected for publishing"
        return None if self.consumer.connected else "not connected for consuming"

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
    pacing = Pacing(settings.calls_per_second, time.monotonic)
    metrics.watch_rate(lambda: pacing.rate)
    metrics.watch_work(lambda: progress.in_hand)
    journal = Journal(database)

    async def active_meters() -> tuple[Answer, frozenset[str]]:
        answer, found = await stripe.active_meters()
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
    messaging.watch_pauses(USAGE_RECORDED_QUEUE, lambda: consumption.paused_by is not None)
    measuring = Measuring(journal, metrics, now=now)
    return Parts(publisher, settlement.breakers, consumer, consumption, gate, measuring)


def _database(settings: Settings) -> Database:
    url = settings.database_url.get_secret_value()
    return Database(url, name=NAME, pool_size=DATABASE_CONNECTIONS)


async def _starting() -> str | None:
    return "starting"


def checks(settings: Settings) -> dict[str, Check]:
    """Return what ``stripe-reporter check`` looks at, each telling what is wrong."""
    database = _database(settings)
    url = settings.amqp_url.get_secret_value()
    return {
        "broker": lambda: broker_fault(url, [USAGE_RECORDED_QUEUE]),
        "database": lambda: revision_fault(database, PACKAGE),
        **StripeChecks(settings).all(),
    }


SERVICE = Service(
    name=NAME,
    purpose="Sends each usage report to Stripe as one meter event, once.",
    settings=Settings,
    serve=serve,
    checks=checks,
    migrate=lambda url: migrate(url, PACKAGE),
    faults=(MigrationError, RevisionMismatchError),
    commands=COMMANDS,
)
