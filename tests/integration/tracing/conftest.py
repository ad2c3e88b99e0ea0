"""The three services in this very process, so that their spans can be looked at together."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import text

import customer_provisioner.app as provisioner
import stripe_reporter.app as reporter
import usage_ingest.app as ingest
from customer_provisioner.metrics import Metrics
from customer_provisioner.settings import Settings as ProvisionerSettings
from nexus_database import Database
from nexus_messaging.publisher import Publisher
from nexus_service.lifecycle import Loop, keep_going
from rig.vhost import Vhost
from stripe_emulator.account import Account
from stripe_emulator.running import running_emulator
from stripe_reporter.progress import Progress
from stripe_reporter.settings import Settings as ReporterSettings
from stripe_reporter.stripe_api import stripe_api
from usage_ingest.settings import Settings as IngestSettings

KEY = "sk_test_tracing"

Clone = Callable[[str], Awaitable[str]]


@dataclass
class Services:
    """Running services, their broker, ledger and Stripe account."""

    vhost: Vhost
    ledger: Database
    account: Account

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Run a query on the ledger's database."""
        found = await self.ledger.run(lambda c: c.execute(text(query)))
        return [tuple(row) for row in found]


@pytest.fixture
async def services(vhost: Vhost, clone: Clone) -> AsyncIterator[Services]:
    """Run all services while a test lasts; each run is reported by itself, and at once."""
    async with AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(running_emulator([KEY], ["tool_call_executed"]))
        told: dict[str, dict[str, Any]] = {}
        databases: dict[str, Database] = {}
        publishers: dict[str, Publisher] = {}
        for name in (provisioner.NAME, ingest.NAME, reporter.NAME):
            url = await clone(name.replace("-", "_"))
            told[name] = {
                "amqp_url": vhost.url(name),
                "database_url": url,
                "stripe_secret_key": KEY,
                "stripe_api_base": emulator.url,
                "stripe_max_calls_per_second": 200.0,
                "report_window_seconds": 0,
            }
            databases[name] = Database(url, name=name)
            stack.push_async_callback(databases[name].close)
            publishers[name] = await Publisher.connect(vhost.url(name), name=name)
            stack.push_async_callback(publishers[name].close)
        loops = {
            **await _provisioner(told, databases, publishers, stack),
            **_ingest(told, databases, publishers),
            **await _reporter(told, databases, publishers, stack),
        }
        tasks = [asyncio.create_task(keep_going(name, loop)) for name, loop in loops.items()]
        yield Services(vhost, databases[ingest.NAME], emulator.account)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


Told = Mapping[str, Mapping[str, Any]]
Databases = Mapping[str, Database]
Publishers = Mapping[str, Publisher]


async def _provisioner(
    told: Told, databases: Databases, publishers: Publishers, stack: AsyncExitStack
) -> Mapping[str, Loop]:
    settings = ProvisionerSettings.model_validate(told[provisioner.NAME])
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    stripe = await stack.enter_async_context(provisioner.stripe_of(settings, metrics))
    database, publisher = databases[provisioner.NAME], publishers[provisioner.NAME]
    parts = provisioner.wire(settings, database, publisher, stripe, metrics, registry)
    return {f"provisioner {name}": loop for name, loop in parts.loops.items()}


def _ingest(told: Told, databases: Databases, publishers: Publishers) -> Mapping[str, Loop]:
    settings = IngestSettings.model_validate(told[ingest.NAME])
    database, publisher = databases[ingest.NAME], publishers[ingest.NAME]
    parts = ingest.wire(settings, database, publisher, CollectorRegistry())
    return {f"ingest {name}": loop for name, loop in parts.loops.items()}


async def _reporter(
    told: Told, databases: Databases, publishers: Publishers, stack: AsyncExitStack
) -> Mapping[str, Loop]:
    settings = ReporterSettings.model_validate(told[reporter.NAME])
    stripe = await stack.enter_async_context(stripe_api(settings))
    database, publisher = databases[reporter.NAME], publishers[reporter.NAME]
    progress = Progress(time.monotonic)
    parts = reporter.wire(settings, database, publisher, stripe, CollectorRegistry(), progress)
    return {
        "reporter receive": parts.consumer.run,
        "reporter report": parts.consumption.run,
        "reporter measure": parts.measuring.run,
    }
