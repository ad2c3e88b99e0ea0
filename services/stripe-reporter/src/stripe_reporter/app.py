"""The composition root of stripe-reporter: the one module that knows every part."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from aiohttp import web

from nexus_contracts import MeterErrorsFound
from nexus_database import DatabaseUnavailableError
from nexus_messaging.clock import utc_now
from nexus_messaging.pipeline import Outage
from nexus_service.app import App, starting
from nexus_stripe.answers import StripeAnswer
from nexus_stripe.webhooks import WebhookMetrics, WebhookRoutes
from stripe_reporter.circuit import CircuitBreaker, CircuitOpenError
from stripe_reporter.handlers import Reporter, router
from stripe_reporter.limits import CustomerLimit, StripeRateLimit
from stripe_reporter.measuring import measure_once
from stripe_reporter.metrics import LIST_METERS, ReporterMetrics
from stripe_reporter.rejecting import WEBHOOKS, Rejecter
from stripe_reporter.settings import NAME, Settings
from stripe_reporter.storage.journal import Journal
from stripe_reporter.storage.rejections import Rejections
from stripe_reporter.storage.summaries import Summaries
from stripe_reporter.stripe.api import StripeApi, stripe_api
from stripe_reporter.stripe.responses import response_to
from stripe_reporter.summaries import SumReader

MEASURE_SECONDS: Final = 10.0

SETTLE: Final = "settle rejections"
SETTLE_SECONDS: Final = 5.0
"""What Stripe said of a call before its answer came waits for the answer."""

READ_SECONDS: Final = 10.0
"""Between rounds of readings, while nothing is due."""

MAX_READING_SECONDS: Final = 600.0
"""Seconds after which a round of readings that has not ended is stuck, at whatever pace."""

DATABASE_CONNECTIONS: Final = 20


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT; see ``starting`` for what is raised."""
    routes = partial(routes_of, settings)
    async with (
        starting(NAME, settings, pool_size=DATABASE_CONNECTIONS, routes=routes) as app,
        stripe_api(settings) as stripe,
    ):
        assemble(app, settings, stripe)
        await app.run()


def routes_of(settings: Settings, app: App) -> list[web.RouteDef]:
    """Return the route that takes Stripe's webhooks, if there is a secret to know them by."""
    webhooks = WebhookRoutes(
        NAME,
        settings.stripe_webhook_secret,
        livemode=settings.live,
        wanted=WEBHOOKS,
        publisher=lambda: app.publisher,
        metrics=WebhookMetrics(app.registry, service=NAME),
        now=utc_now,
        kind=MeterErrorsFound,
    )
    return webhooks.routes()


def assemble(
    app: App, settings: Settings, stripe: StripeApi, *, now: Callable[[], datetime] = utc_now
) -> CircuitBreaker:
    """Register every part of the service; return the circuit breaker, for tests."""
    metrics = ReporterMetrics(app.registry)
    journal = Journal(app.database)
    rate_limit = StripeRateLimit(settings.calls_per_second, time.monotonic)

    async def active_meters() -> tuple[StripeAnswer, frozenset[str]]:
        began = time.perf_counter()
        answer, found = await stripe.active_meters()
        metrics.called(LIST_METERS, response_to(answer), time.perf_counter() - began)
        return answer, frozenset(each.event_name for each in found)

    circuit = CircuitBreaker(
        frozenset(settings.meters),
        active_meters,
        clock=time.monotonic,
        changed=metrics.circuit,
    )
    # A report moves however it ends.
    work = app.work("report", errors_stall=False)
    metrics.watch_rate(lambda: rate_limit.rate)
    metrics.watch_work(lambda: work.in_hand)
    reporter = Reporter(
        journal,
        stripe,
        app.publisher,
        circuit,
        rate_limit,
        CustomerLimit(time.monotonic),
        metrics,
        work,
        now=now,
    )

    lag = timedelta(seconds=settings.stripe_summary_lag_seconds)
    summaries = Summaries(app.database, lag=lag)
    sums = SumReader(
        summaries,
        stripe,
        app.publisher,
        circuit,
        StripeRateLimit(settings.reads_per_second, time.monotonic),
        metrics,
        now=now,
    )
    app.every(
        READ_SECONDS, "read sums", sums.read_some, errors_stall=False, limit=MAX_READING_SECONDS
    )

    rejections = Rejections(app.database)
    rejecter = Rejecter(
        rejections,
        stripe,
        sums,
        app.publisher,
        metrics,
        wake=partial(app.wake, SETTLE),
        now=now,
    )
    app.every(SETTLE_SECONDS, SETTLE, rejecter.settle, errors_stall=False)

    async def probe() -> None:
        await app.database.probe()
        await circuit.probe()

    outage = Outage((CircuitOpenError, DatabaseUnavailableError), probe)
    app.consume(router, outage, reporter=reporter, rejecter=rejecter)
    app.every(
        MEASURE_SECONDS,
        "measure",
        lambda: measure_once(journal, rejections, summaries, metrics, now()),
    )
    app.remarks["stripe"] = circuit.remark
    return circuit
