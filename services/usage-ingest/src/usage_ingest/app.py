"""The composition root of usage-ingest: the one room that knows every part."""

import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta

import structlog
from prometheus_client import CollectorRegistry

from nexus_broker_admin.inspection import broker_checks
from nexus_database import (
    Database,
    DatabaseUnavailableError,
    MigrationError,
    RowsBusyError,
    UnfitDatabaseError,
    migrate,
    require_current,
    revision_fault,
)
from nexus_database.settings import DatabaseSettings
from nexus_messaging.batches import BatchConsumption
from nexus_messaging.clock import utc_now
from nexus_messaging.consumer import Consumer
from nexus_messaging.consumption import Consumption, Outage
from nexus_messaging.errors import PublishError
from nexus_messaging.flood_guard import FloodGuards
from nexus_messaging.metrics import MessagingMetrics
from nexus_messaging.publisher import Publisher
from nexus_messaging.routes import Routes
from nexus_messaging.settlement import Settlement
from nexus_messaging.singles import SingleConsumption
from nexus_messaging.topology import (
    CUSTOMER_PROVISIONED_QUEUE,
    TOOL_EXECUTED_QUEUE,
    USAGE_OUTCOMES_QUEUE,
)
from nexus_service.checking import Check, Checks
from nexus_service.command import Service
from nexus_service.connections import Connections
from nexus_service.http import serving
from nexus_service.lifecycle import (
    Loop,
    resume_on_signal,
    run_until,
    stop_on_signal,
    until_available,
)
from nexus_service.progress import Activity, Stalls
from usage_ingest.accounts import Accounts
from usage_ingest.claims import Claims
from usage_ingest.commands import COMMANDS
from usage_ingest.figures import Figures
from usage_ingest.handlers import OutcomeApplier, UsageRecorder, account_keeper
from usage_ingest.ledger import Ledger
from usage_ingest.loops import Bell, ClaimLoop, MeasureLoop, RelayLoop, SweepLoop
from usage_ingest.metrics import IngestMetrics
from usage_ingest.reports import Reports
from usage_ingest.settings import Settings

NAME = "usage-ingest"
PACKAGE = "usage_ingest"
QUEUES = (TOOL_EXECUTED_QUEUE, CUSTOMER_PROVISIONED_QUEUE, USAGE_OUTCOMES_QUEUE)

REPORTING = ("claim", "relay", "sweep")
"""What rests while reporting is paused. The sweep, too: it replaces reports, and expires events
that belong to one which has yet to be put back."""

PREFETCH = 2000
"""Four batches: one being committed, the rest at hand."""

PREFETCH_CUSTOMERS = 20

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
    url = settings.amqp_url.get_secret_value()
    database = Database(settings.database_url.get_secret_value(), name=NAME)
    readiness: dict[str, Check] = {
        "broker": _starting,
        "database": lambda: revision_fault(database, PACKAGE),
    }
    remarks: dict[str, Check] = {}
    if settings.reporting_paused:
        remarks["reporting"] = _paused
        log.warning("reporting_paused", setting="REPORTING_PAUSED")
    async with AsyncExitStack() as stack:
        stack.push_async_callback(database.close)
        host, port = settings.http_host, settings.http_port
        health: dict[str, Check] = {}
        await stack.enter_async_context(
            serving(host, port, registry, health=health, readiness=readiness, remarks=remarks)
        )
        await until_available(
            "database",
            lambda: require_current(database, PACKAGE),
            (DatabaseUnavailableError,),
            stop,
        )
        publisher = await until_available(
            "broker", lambda: Publisher.connect(url, name=NAME), (PublishError,), stop
        )
        stack.push_async_callback(publisher.close)
        parts = wire(settings, database, publisher, registry)
        readiness["broker"] = parts.connections.fault
        health["broker"] = parts.connections.stalled
        remarks["consumption"] = parts.guards.remark
        resume_on_signal(parts.guards.resume)
        stalls = Stalls(parts.activities, readiness["database"], time.monotonic)
        health["progress"] = stalls.fault
        log.info("serving", port=port)
        await run_until(stop, parts.loops, parts.drained, grace=settings.shutdown_grace_seconds)


@dataclass(frozen=True, slots=True)
class Parts:
    """What runs, and what is drained at the end."""

    connections: Connections
    guards: FloodGuards
    drained: Sequence[Consumption]
    loops: Mapping[str, Loop]
    activities: dict[str, Activity]


def wire(
    settings: Settings, database: Database, publisher: Publisher, registry: CollectorRegistry
) -> Parts:
    """Make every part of a running service and join them; nothing runs yet."""
    url = settings.amqp_url.get_secret_value()
    rules = settings.rules()
    metrics = IngestMetrics(registry, meters=rules.meters)
    messaging = MessagingMetrics(registry, service=NAME, queues=QUEUES)
    publisher.watch_failures(messaging.not_published)
    settlement = Settlement(publisher, messaging, service=NAME, limit=settings.flood_limit())
    outage = Outage((DatabaseUnavailableError,), database.probe)
    claim_bell, relay_bell = Bell(), Bell()
    accounts, reports = Accounts(database), Reports(database)
    recorder = UsageRecorder(Ledger(database), rules, metrics, now=utc_now, wake=claim_bell.ring)
    keep_account = account_keeper(Routes(), accounts, claim_bell.ring)
    applier = OutcomeApplier(reports, metrics)

    runs = Consumer(url, TOOL_EXECUTED_QUEUE, prefetch=PREFETCH, name=NAME)
    answers = Consumer(url, USAGE_OUTCOMES_QUEUE, prefetch=PREFETCH, name=NAME)
    customers = Consumer(url, CUSTOMER_PROVISIONED_QUEUE, prefetch=PREFETCH_CUSTOMERS, name=NAME)
    consumptions = [
        BatchConsumption(runs, recorder.record_usage, settlement, outage),
        BatchConsumption(answers, applier.apply_outcomes, settlement, outage),
        SingleConsumption(customers, keep_account, settlement, outage),
    ]
    for each in consumptions:
        messaging.watch_pauses(each.queue, each.is_paused)
    claims = Claims(
        database,
        window=timedelta(seconds=settings.report_window_seconds),
        dimensions=settings.stripe_meter_dimensions,
    )
    loops: dict[str, Loop] = {
        "receive runs": runs.run,
        "receive answers": answers.run,
        "receive customers": customers.run,
        **{f"consume {each.queue}": each.run for each in consumptions},
        "claim": ClaimLoop(claims, metrics, claim_bell, now=utc_now, wake=relay_bell).run,
        "relay": RelayLoop(reports, publisher, metrics, relay_bell, now=utc_now).run,
        "sweep": SweepLoop(accounts, metrics, now=utc_now, wake=(claim_bell, relay_bell)).run,
        "measure": MeasureLoop(Figures(database), metrics, now=utc_now).run,
    }
    if settings.reporting_paused:
        metrics.reporting_is_paused()
        loops = {name: loop for name, loop in loops.items() if name not in REPORTING}
    connections = Connections(publisher, [runs, answers, customers])
    return Parts(connections, settlement.guards, consumptions, loops, metrics.activities)


async def _starting() -> str | None:
    return "starting"


async def _paused() -> str | None:
    return "paused by REPORTING_PAUSED: usage is recorded, and none is reported"


async def _database_fault(settings: DatabaseSettings) -> str | None:
    database = Database(settings.database_url.get_secret_value(), name=f"{NAME} check")
    try:
        return await revision_fault(database, PACKAGE)
    finally:
        await database.close()


CHECKS = (
    *broker_checks(NAME),
    Checks("database", DatabaseSettings, lambda told: {"database": lambda: _database_fault(told)}),
)

SERVICE = Service(
    name=NAME,
    purpose="Records tool runs in a permanent ledger and turns them into usage reports.",
    settings=Settings,
    serve=serve,
    checks=CHECKS,
    migrate=lambda url: migrate(url, PACKAGE),
    faults=(
        MigrationError,
        UnfitDatabaseError,
        DatabaseUnavailableError,
        RowsBusyError,
        PublishError,
    ),
    commands=COMMANDS,
)
