"""The composition root of usage-ingest: the one room that knows every part."""

from datetime import timedelta
from typing import Final

import structlog

from nexus_broker_admin.inspection import broker_checks
from nexus_database import (
    DatabaseUnavailableError,
    MigrationError,
    RowsBusyError,
    UnfitDatabaseError,
    migrate,
)
from nexus_messaging.clock import utc_now
from nexus_messaging.errors import PublishError
from nexus_messaging.pipeline import Outage
from nexus_service.app import App, starting
from nexus_service.checking import database_checks
from nexus_service.command import Service
from usage_ingest.accounts import Accounts
from usage_ingest.claims import Claims
from usage_ingest.commands import COMMANDS
from usage_ingest.figures import Figures
from usage_ingest.handlers import OutcomeApplier, UsageRecorder, router
from usage_ingest.ledger import Ledger
from usage_ingest.loops import Claiming, Measuring, Relaying, Sweeping
from usage_ingest.metrics import IngestMetrics
from usage_ingest.reports import Reports
from usage_ingest.settings import Settings

NAME: Final = "usage-ingest"
PACKAGE: Final = "usage_ingest"

IDLE: Final = 1.0
"""Seconds between rounds that nothing wakes: windows close by the clock alone."""

GATHER: Final = 0.5
"""Seconds between being woken and claiming. A backlog is recorded batch by batch: claimed after the
first of them, each window of it would be reported many times over, and Stripe's limit is on
reports."""

SWEEP_EVERY: Final = 3.0
MEASURE_EVERY: Final = 10.0
"""Seconds. A scrape takes the figures as they are and asks nothing."""

REPORTING: Final = ("claim", "relay", "sweep")
"""What rests while reporting is paused. The sweep, too: it replaces reports, and expires events
that belong to one which has yet to be put back."""

log = structlog.get_logger()


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT; see ``starting`` for what is raised."""
    async with starting(NAME, settings) as app:
        assemble(app, settings)
        await app.run()


def assemble(app: App, settings: Settings) -> None:
    """Register every part of the service; nothing runs yet."""
    rules = settings.rules()
    metrics = IngestMetrics(app.registry, meters=rules.meters)
    accounts, reports = Accounts(app.database), Reports(app.database)
    claims = Claims(
        app.database,
        window=timedelta(seconds=settings.report_window_seconds),
        dimensions=settings.stripe_meter_dimensions,
    )

    relaying = Relaying(reports, app.publisher, metrics, now=utc_now)
    relay = app.every(IDLE, "relay", relaying.forward)
    claiming = Claiming(claims, metrics, now=utc_now, wake=relay.wake)
    claim = app.every(IDLE, "claim", claiming.claim, gather=GATHER)
    sweeping = Sweeping(accounts, metrics, now=utc_now, wake=(claim.wake, relay.wake))
    app.every(SWEEP_EVERY, "sweep", sweeping.sweep)
    app.every(MEASURE_EVERY, "measure", Measuring(Figures(app.database), metrics, utc_now).measure)

    app.consume(
        router,
        Outage((DatabaseUnavailableError,), app.database.probe),
        recorder=UsageRecorder(
            Ledger(app.database),
            rules,
            metrics,
            app.work("record"),
            now=utc_now,
            wake=claim.wake,
        ),
        applier=OutcomeApplier(reports, metrics, app.work("apply")),
        accounts=accounts,
        claim=claim,
    )
    if settings.reporting_paused:
        log.warning("reporting_paused", setting="REPORTING_PAUSED")
        metrics.reporting_is_paused()
        app.remarks["reporting"] = _paused
        app.rest(REPORTING)


async def _paused() -> str | None:
    return "paused by REPORTING_PAUSED: usage is recorded, and none is reported"


CHECKS: Final = (*broker_checks(NAME), database_checks(NAME))

SERVICE: Final = Service(
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
