"""The three services in this process, so that their spans are kept together."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import text

import customer_provisioner.app as provisioner
import stripe_reporter.app as reporter
import usage_ingest.app as ingest
from customer_provisioner.metrics import Metrics
from customer_provisioner.settings import Settings as ProvisionerSettings
from customer_provisioner.stripe.calls import stripe_calls
from nexus_database import Database
from nexus_messaging.publisher import Publisher
from nexus_service.app import App
from nexus_service.settings import ServiceSettings
from stripe_emulator.account import StripeAccount
from stripe_emulator.running import running_emulator
from stripe_reporter.settings import Settings as ReporterSettings
from stripe_reporter.stripe.api import stripe_api
from support.apps import running
from support.databases import Clone
from support.vhost import Vhost
from usage_ingest.settings import Settings as IngestSettings

KEY = "sk_test_tracing"
SETTINGS: Mapping[ModuleType, type[ServiceSettings]] = {
    provisioner: ProvisionerSettings,
    ingest: IngestSettings,
    reporter: ReporterSettings,
}


@dataclass
class Services:
    """Running services, their broker, ledger and Stripe account."""

    vhost: Vhost
    ledger: Database
    account: StripeAccount

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Run a query on the ledger's database."""
        found = await self.ledger.run(lambda c: c.execute(text(query)))
        return [tuple(row) for row in found]


@pytest.fixture
async def services(vhost: Vhost, clone: Clone) -> AsyncIterator[Services]:
    """Run all services; each tool run is reported in a report of its own, and at once."""
    async with AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(running_emulator([KEY], ["tool_call_executed"]))
        apps = [
            await _assembled(service, vhost.url(service.NAME), url, emulator.url, stack)
            for service in (provisioner, ingest, reporter)
            for url in [await clone(service.NAME.replace("-", "_"))]
        ]
        async with running(*apps):
            yield Services(vhost, apps[1].database, emulator.account)


async def _assembled(
    service: ModuleType, amqp_url: str, database_url: str, stripe_url: str, stack: AsyncExitStack
) -> App:
    settings: Any = SETTINGS[service].model_validate(
        {
            "amqp_url": amqp_url,
            "database_url": database_url,
            "stripe_secret_key": KEY,
            "stripe_api_base": stripe_url,
            "stripe_max_calls_per_second": 200.0,
            "report_window_seconds": 0,
        }
    )
    database = Database(database_url, name=service.NAME)
    stack.push_async_callback(database.close)
    publisher = await Publisher.connect(amqp_url, name=service.NAME)
    stack.push_async_callback(publisher.close)
    app = App(service.NAME, settings, database, publisher)
    if service is ingest:
        ingest.assemble(app, settings)
    elif service is reporter:
        reporter.assemble(app, settings, await stack.enter_async_context(stripe_api(settings)))
    else:
        metrics = Metrics(app.registry)
        stripe = await stack.enter_async_context(stripe_calls(settings, metrics))
        provisioner.assemble(app, stripe, None, metrics)
        app.disable([provisioner.SUBSCRIPTION_SWEEP])
    return app
