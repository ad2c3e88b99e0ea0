"""The composition root of customer-provisioner: the one room that knows every part."""

import time
from functools import partial
from typing import Final

from customer_provisioner.circuit import CircuitOpenError
from customer_provisioner.following import Follower
from customer_provisioner.handlers import router
from customer_provisioner.http import CustomerRoutes
from customer_provisioner.metrics import Metrics
from customer_provisioner.profile import SOURCE
from customer_provisioner.provisioning import Provisioner
from customer_provisioner.relay import Relay
from customer_provisioner.settings import Settings
from customer_provisioner.storage.changes import ChangeStore
from customer_provisioner.storage.reader import ProfileReader
from customer_provisioner.storage.writer import ProfileWriter
from customer_provisioner.stripe.api import StripeApi, stripe_api
from customer_provisioner.sweep import sweep, sweep_changes
from nexus_database import DatabaseUnavailableError
from nexus_messaging.clock import utc_now
from nexus_messaging.pipeline import Outage
from nexus_service.app import App, starting
from nexus_service.rate_limit import RateLimit

NAME: Final = SOURCE

EVERY: Final = 5.0
"""Seconds between rounds of the relay and of the sweep."""

LONGEST_ROUND: Final = 600.0
"""Seconds after which a round that has not ended is stuck: all that it waits for has timeouts."""


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT; see ``starting`` for what is raised."""

    def customers(app: App) -> CustomerRoutes:
        reader = ProfileReader(app.database)
        limit = RateLimit(settings.api_rate_limit, settings.api_burst, time.monotonic)
        return CustomerRoutes(settings.api_keys, limit, reader, lambda: app.publisher, utc_now)

    async with starting(NAME, settings, routes=lambda app: customers(app).routes()) as app:
        metrics = Metrics(app.registry)
        async with stripe_api(settings, metrics) as stripe:
            assemble(app, stripe, metrics)
            await app.run()


def assemble(app: App, stripe: StripeApi, metrics: Metrics) -> None:
    """Register every part of the service; nothing runs yet."""
    reader, writer = ProfileReader(app.database), ProfileWriter(app.database)
    publish = Relay(reader, writer, app.publisher, metrics, utc_now).publish_unannounced
    relay = app.every(EVERY, "relay", publish, errors_stall=False, limit=LONGEST_ROUND)
    provisioner = Provisioner(writer, stripe, metrics, wake_relay=relay.wake, now=utc_now)
    provision_due = partial(sweep, reader, provisioner, metrics, utc_now)
    app.every(EVERY, "sweep", provision_due, errors_stall=False, limit=LONGEST_ROUND)
    changes = ChangeStore(app.database)
    follower = Follower(changes, stripe, metrics, now=utc_now)
    send_due = partial(sweep_changes, changes, follower, metrics, utc_now)
    app.every(EVERY, "changes", send_due, errors_stall=False, limit=LONGEST_ROUND)

    async def probe() -> None:
        await app.database.probe()
        stripe.require_closed()

    app.consume(
        router,
        Outage((DatabaseUnavailableError, CircuitOpenError), probe),
        profiles=writer,
        provisioner=provisioner,
        changes=changes,
        follower=follower,
        metrics=metrics,
    )
    app.remarks["stripe"] = stripe.remark
