"""The composition root of stripe-reporter: the one room that knows every part."""

import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

from nexus_broker_admin.inspection import broker_checks
from nexus_database import DatabaseUnavailableError, MigrationError, UnfitDatabaseError, migrate
from nexus_messaging.clock import utc_now
from nexus_messaging.pipeline import Outage
from nexus_service.app import App, starting
from nexus_service.checking import Checks, database_checks
from nexus_service.command import Service
from nexus_stripe.answers import Answer
from stripe_reporter.checks import StripeChecks
from stripe_reporter.commands import COMMANDS
from stripe_reporter.gate import Gate, GateShutError
from stripe_reporter.handlers import router
from stripe_reporter.journal import Journal
from stripe_reporter.lanes import Lanes
from stripe_reporter.meanings import meaning_of
from stripe_reporter.measuring import Measuring
from stripe_reporter.metrics import LIST_METERS, ReporterMetrics
from stripe_reporter.outcomes import Outcomes
from stripe_reporter.pace import Pacing
from stripe_reporter.reporting import Reporter
from stripe_reporter.settings import Settings, StripeSettings
from stripe_reporter.stripe_api import StripeApi, stripe_api

NAME: Final = "stripe-reporter"
PACKAGE: Final = "stripe_reporter"

MEASURE_SECONDS: Final = 10.0

DATABASE_CONNECTIONS: Final = 20


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT; see ``starting`` for what is raised."""
    async with (
        starting(NAME, settings, pool_size=DATABASE_CONNECTIONS) as app,
        stripe_api(settings) as stripe,
    ):
        assemble(app, settings, stripe)
        await app.run()


def assemble(
    app: App, settings: Settings, stripe: StripeApi, *, now: Callable[[], datetime] = utc_now
) -> Gate:
    """Register every part of the service; nothing runs yet. Return the gate, for tests."""
    metrics = ReporterMetrics(app.registry)
    journal = Journal(app.database)
    pacing = Pacing(settings.calls_per_second, time.monotonic)

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
    # However a report ends, the work moved on.
    work = app.work("report", fails=False)
    metrics.watch_rate(lambda: pacing.rate)
    metrics.watch_work(lambda: work.in_hand)
    reporter = Reporter(
        journal,
        stripe,
        Outcomes(app.publisher),
        gate,
        pacing,
        Lanes(time.monotonic),
        metrics,
        work,
        now=now,
    )

    async def probe() -> None:
        await app.database.probe()
        await gate.probe()

    app.consume(router, Outage((GateShutError, DatabaseUnavailableError), probe), reporter=reporter)
    app.every(MEASURE_SECONDS, "measure", Measuring(journal, metrics, now=now).measure)
    app.remarks["gate"] = gate.remark
    return gate


CHECKS: Final = (
    *broker_checks(NAME),
    database_checks(NAME),
    Checks("stripe", StripeSettings, lambda given: StripeChecks(given).all()),
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
