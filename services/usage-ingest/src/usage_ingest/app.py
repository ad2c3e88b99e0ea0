"""The composition root of usage-ingest: the one room that knows every part."""

from datetime import timedelta
from functools import partial
from typing import Final

import structlog

from nexus_database import DatabaseUnavailableError
from nexus_messaging.clock import utc_now
from nexus_messaging.pipeline import Outage
from nexus_service.app import App, starting
from nexus_service.console import rfc_3339
from usage_ingest.charging import best_of
from usage_ingest.handlers import router
from usage_ingest.jobs import (
    Announcer,
    Relay,
    claim_usage,
    measure,
    place_reports,
    report_late_readings,
    sweep,
)
from usage_ingest.metrics import IngestMetrics
from usage_ingest.settings import NAME, Settings
from usage_ingest.storage.accounts import Accounts
from usage_ingest.storage.claims import Claims
from usage_ingest.storage.counted import CountedSums
from usage_ingest.storage.figures import Figures
from usage_ingest.storage.late import LateReadings
from usage_ingest.storage.ledger import Ledger
from usage_ingest.storage.periods import Periods
from usage_ingest.storage.reports import Reports
from usage_ingest.storage.subscriptions import Subscriptions
from usage_ingest.storage.thresholds import Thresholds
from usage_ingest.storage.totals import Totals
from usage_ingest.thresholds import announced_meters

IDLE: Final = 1.0
"""Seconds between rounds if nothing wakes the job: windows close by the clock alone."""

GATHER: Final = 0.5
"""Seconds of rest between claims, if there are windows. What is recorded batch by batch is then not
claimed batch by batch: each window would be reported many times, and Stripe limits the number of
reports. After a quiet time a run is claimed at once. Without windows each run is a report of its
own, and waiting would save none."""

BACKLOG_INTERVALS: Final = 4
"""How many times ``IDLE`` seconds pass between claims while a backlog is recorded, of which each
second brings several windows. Claimed each second, they would make twice as many reports."""

SWEEP_EVERY: Final = 3.0
FOLD_EVERY: Final = 5.0
"""Seconds. Readers see what is not folded yet, and read a row more for each batch of this time; the
longer it is, the more runs of the same user and tool become one update."""

PLACE_EVERY: Final = 10.0
"""Seconds. A report is placed a minute after its answer at the earliest."""

MEASURE_EVERY: Final = 10.0
"""Seconds. A scrape shows the figures as they are and queries nothing."""

LATE_EVERY: Final = 10.0
"""Seconds. A price that is missing comes with a new file, and a restart."""

REPORTING: Final = ("claim", "relay", "sweep")
"""The jobs that do not run while reporting is paused. The sweep would replace reports, and expire
events of a report that recovery has yet to restore."""

BY_PLAN: Final = ("late", "announce")
"""Those that need plans, likewise. A restored ledger may not know yet what an account has
subscribed to, and would announce shares of another plan's limits."""

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
    metrics.waiting_is_allowed_for(settings.waiting_allowed_seconds)
    accounts, reports = Accounts(app.database), Reports(app.database)
    claims = Claims(
        app.database,
        window=timedelta(seconds=settings.report_window_seconds),
        dimensions=settings.stripe_meter_dimensions,
        charges={} if rules.plans is None else rules.plans.charges(),
        routes=rules.routes,
        unique_meters={} if rules.plans is None else rules.plans.unique_tools_meters(),
        live_from=settings.reporting_live_from,
    )

    relay = app.every(IDLE, "relay", Relay(reports, app.publisher, metrics, now=utc_now).forward)
    claiming = partial(claim_usage, claims, metrics, now=utc_now, wake_relay=relay.wake)
    gather = GATHER if settings.report_window_seconds else 0.0
    claim = app.every(IDLE, "claim", claiming, gather=gather, intervals=BACKLOG_INTERVALS)
    sweeping = partial(sweep, accounts, metrics, now=utc_now, wake=(claim.wake, relay.wake))
    app.every(SWEEP_EVERY, "sweep", sweeping)
    plans = rules.plans
    if plans is not None:
        late = LateReadings(app.database, plans)
        reporting_late = partial(
            report_late_readings, late, claims, metrics, now=utc_now, wake_relay=relay.wake
        )
        app.every(LATE_EVERY, "late", reporting_late)
    totals = Totals(app.database, announced_meters=announced_meters(plans) if plans else ())
    app.every(FOLD_EVERY, "fold", totals.fold)
    if plans is not None:
        thresholds = Thresholds(app.database)
        announcer = Announcer(thresholds, app.publisher, plans, metrics, now=utc_now)
        app.every(FOLD_EVERY, "announce", announcer.announce)
    counted = CountedSums(app.database, lag=timedelta(seconds=settings.stripe_summary_lag_seconds))
    periods = Periods(app.database, grace=settings.invoice_grace, plans=plans)
    app.every(PLACE_EVERY, "place", partial(place_reports, periods, metrics, now=utc_now))
    measuring = partial(measure, Figures(app.database), totals, counted, metrics, now=utc_now)
    app.every(MEASURE_EVERY, "measure", measuring)

    app.consume(
        router,
        Outage((DatabaseUnavailableError,), app.database.probe),
        ledger=Ledger(app.database),
        rules=rules,
        reports=reports,
        accounts=accounts,
        counted=counted,
        periods=periods,
        subscriptions=Subscriptions(app.database, best=best_of(rules.plans)),
        metrics=metrics,
        recording=app.work("record"),
        applying=app.work("apply"),
        claim=claim,
        now=utc_now,
    )
    if settings.reporting_live_from is not None:
        log.info("shadow_mode", live_from=rfc_3339(settings.reporting_live_from))
    if settings.reporting_paused:
        log.warning("reporting_paused", setting="REPORTING_PAUSED")
        metrics.reporting_is_paused()
        app.remarks["reporting"] = _paused
        app.disable(REPORTING if rules.plans is None else (*REPORTING, *BY_PLAN))


async def _paused() -> str | None:
    return "paused by REPORTING_PAUSED: usage is recorded, and none is reported"
