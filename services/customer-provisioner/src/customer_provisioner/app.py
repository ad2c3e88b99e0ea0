"""The composition root of customer-provisioner: the one room that knows every part."""

import time
from functools import partial
from typing import Any, Final

from aiohttp import web

from customer_provisioner.announcing import (
    announced_assignments,
    announced_customers,
    announced_readings,
    announced_subscriptions,
)
from customer_provisioner.circuit import CircuitOpenError
from customer_provisioner.following import Follower
from customer_provisioner.handlers import router
from customer_provisioner.http import CustomerRoutes
from customer_provisioner.http_accounts import AccountRoutes
from customer_provisioner.http_requests import Admission
from customer_provisioner.metrics import Metrics
from customer_provisioner.opening import read_plans, require_plans_in_use
from customer_provisioner.profile import SOURCE
from customer_provisioner.provisioning import Provisioner
from customer_provisioner.refreshing import WEBHOOKS, Refresher
from customer_provisioner.relay import Announced, Relay
from customer_provisioner.settings import Settings
from customer_provisioner.storage.assignments import AssignmentStore
from customer_provisioner.storage.changes import ChangeStore
from customer_provisioner.storage.reader import ProfileReader
from customer_provisioner.storage.subscriptions import SubscriptionStore
from customer_provisioner.storage.sweeps import SweepStore
from customer_provisioner.storage.writer import ProfileWriter
from customer_provisioner.stripe.api import StripeApi
from customer_provisioner.stripe.calls import StripeCalls, stripe_calls
from customer_provisioner.stripe.subscriptions import SubscriptionApi
from customer_provisioner.subscription_sweep import SubscriptionSweep
from customer_provisioner.sweep import sweep, sweep_changes
from nexus_database import DatabaseUnavailableError
from nexus_messaging.clock import utc_now
from nexus_messaging.pipeline import Outage
from nexus_plans import Plans
from nexus_service.app import App, starting
from nexus_service.lifecycle import wait_until_available
from nexus_service.periodic import Periodic
from nexus_service.rate_limit import RateLimiter
from nexus_stripe.webhook_settings import is_live
from nexus_stripe.webhooks import WebhookMetrics, WebhookRoutes

NAME: Final = SOURCE

SWEEP: Final = "sweep"
ASSIGNMENTS: Final = "relay assignments"
SUBSCRIPTION_SWEEP: Final = "sweep subscriptions"

EVERY: Final = 5.0
"""Seconds between rounds of the relays and of the sweeps."""

MAX_ROUND_SECONDS: Final = 600.0
"""Seconds after which a round that has not ended is stuck: all that it waits for has timeouts."""


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT; see ``starting`` for what is raised.

    Raises:
        SettingsError: the plan file can't be read, or lacks a plan that subscriptions are for.
    """
    plans = read_plans(settings)
    async with starting(NAME, settings, routes=partial(routes_of, settings)) as app:
        await wait_until_available(
            "database",
            partial(require_plans_in_use, app.database, plans),
            (DatabaseUnavailableError,),
            app.stop,
        )
        metrics = Metrics(app.registry)
        async with stripe_calls(settings, metrics) as calls:
            assemble(app, calls, plans, metrics)
            if not settings.stripe_webhook_secret:
                app.disable([SUBSCRIPTION_SWEEP])
            await app.run()


def routes_of(settings: Settings, app: App) -> list[web.RouteDef]:
    """Return the routes of the HTTP API."""
    limit = RateLimiter(settings.api_rate_limit, settings.api_burst, time.monotonic)
    admission = Admission(settings.api_keys, limit)
    reader = ProfileReader(app.database)
    customers = CustomerRoutes(admission, reader, lambda: app.publisher, utc_now)
    accounts = AccountRoutes(
        admission,
        reader,
        ProfileWriter(app.database),
        AssignmentStore(app.database),
        wake_sweep=partial(app.wake, SWEEP),
        wake_relay=partial(app.wake, ASSIGNMENTS),
        now=utc_now,
    )
    webhooks = WebhookRoutes(
        NAME,
        settings.stripe_webhook_secret,
        livemode=is_live(settings.stripe_secret_key),
        wanted=WEBHOOKS,
        publisher=lambda: app.publisher,
        metrics=WebhookMetrics(app.registry, service=NAME),
        now=utc_now,
    )
    return [*customers.routes(), *accounts.routes(), *webhooks.routes()]


def assemble(app: App, calls: StripeCalls, plans: Plans | None, metrics: Metrics) -> None:
    """Register every part of the service; nothing runs yet."""
    every = partial(app.every, EVERY, errors_stall=False, limit=MAX_ROUND_SECONDS)

    def relay(name: str, facts: Announced[Any]) -> Periodic:
        return every(name, Relay(facts, app.publisher, metrics, utc_now).publish_unannounced)

    customers = relay("relay", announced_customers(app.database))
    relay(ASSIGNMENTS, announced_assignments(app.database))
    changed = relay("relay subscriptions", announced_subscriptions(app.database))
    relay("relay readings", announced_readings(app.database))

    stripe, reader, writer = (
        StripeApi(calls),
        ProfileReader(app.database),
        ProfileWriter(app.database),
    )
    provisioner = Provisioner(writer, stripe, metrics, wake_relay=customers.wake, now=utc_now)
    every(SWEEP, partial(sweep, reader, provisioner, metrics, utc_now))

    changes = ChangeStore(app.database)
    follower = Follower(changes, stripe, metrics, now=utc_now)
    every("changes", partial(sweep_changes, changes, follower, metrics, utc_now))

    subscriptions, seen = SubscriptionStore(app.database), SubscriptionApi(calls)
    refresher = Refresher(
        subscriptions,
        writer,
        stripe,
        seen,
        plans,
        metrics,
        wake_relay=changed.wake,
        now=utc_now,
    )
    nightly = SubscriptionSweep(
        SweepStore(app.database), subscriptions, seen, refresher, plans, metrics, now=utc_now
    )
    every(SUBSCRIPTION_SWEEP, nightly.sweep_page)

    async def probe() -> None:
        await app.database.probe()
        calls.require_closed()

    app.consume(
        router,
        Outage((DatabaseUnavailableError, CircuitOpenError), probe),
        profiles=writer,
        provisioner=provisioner,
        changes=changes,
        follower=follower,
        refresher=refresher,
        metrics=metrics,
    )
    app.remarks["stripe"] = calls.remark
