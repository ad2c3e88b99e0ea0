"""A reporter at work between a real broker, a real database and the emulator of Stripe."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from aio_pika.abc import AbstractIncomingMessage
from prometheus_client import CollectorRegistry
from sqlalchemy import text

from nexus_contracts import Event, UsageRecorded, UsageRejected, UsageReported, read_event
from nexus_database import Database
from nexus_messaging.publisher import Publisher
from nexus_messaging.topology import (
    INTERNAL,
    USAGE_OUTCOMES_QUEUE,
    USAGE_RECORDED_QUEUE,
    dead_letter_queue,
)
from nexus_service.app import App
from stripe_emulator.account import StripeAccount
from stripe_emulator.faults import Fault
from stripe_emulator.running import RunningEmulator
from stripe_reporter.app import assemble
from stripe_reporter.circuit import CircuitBreaker
from stripe_reporter.settings import NAME, Settings
from stripe_reporter.stripe.api import stripe_api
from support.vhost import Vhost
from support.waiting import eventually

KEY = "sk_test_reporter"
METER = "tool_call_executed"


def add_meters(bench: "Bench", number: int) -> None:
    """Give the account so many more active meters, newer than those it has."""
    for n in range(number):
        described = {
            "display_name": "Other",
            "event_name": f"other_{n}",
            "default_aggregation": {"formula": "sum"},
        }
        bench.account.meters.create(described, bench.account.clock.now())


@dataclass(frozen=True)
class Running:
    """A reporter that runs, and its circuit breaker."""

    app: App
    circuit: CircuitBreaker


@dataclass
class Bench:
    """Everything a test of the reporter touches; ``offset`` moves the reporter's clock."""

    vhost: Vhost
    database_url: str
    emulator: RunningEmulator
    offset: timedelta = timedelta()
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    @property
    def account(self) -> StripeAccount:
        """The account at the emulated Stripe."""
        return self.emulator.account

    def now(self) -> datetime:
        """Return the reporter's time."""
        return datetime.now(UTC) + self.offset

    def pass_time(self, passed: timedelta) -> None:
        """Let time pass for the reporter and for Stripe."""
        self.offset += passed
        self.account.clock.advance(passed.total_seconds())

    def settings(self, **changes: Any) -> Settings:
        """Return the settings of a reporter on this bench."""
        values = {
            "amqp_url": self.vhost.url("stripe-reporter"),
            "database_url": self.database_url,
            "stripe_secret_key": KEY,
            "stripe_api_base": self.emulator.url,
            "stripe_max_calls_per_second": 200.0,
        }
        return Settings.model_validate({**values, **changes})

    @asynccontextmanager
    async def reporting(self, **changes: Any) -> AsyncIterator[Running]:
        """Run a reporter while the context lasts, and drain it at the end."""
        settings = self.settings(**changes)
        async with AsyncExitStack() as stack:
            database = Database(self.database_url, name=NAME)
            stack.push_async_callback(database.close)
            publisher = await Publisher.connect(settings.amqp_url.get_secret_value(), name=NAME)
            stack.push_async_callback(publisher.close)
            stripe = await stack.enter_async_context(stripe_api(settings))
            app = App(NAME, settings, database, publisher, self.registry)
            circuit = assemble(app, settings, stripe, now=self.now)
            running = asyncio.create_task(app.run())
            try:
                yield Running(app, circuit)
            finally:
                app.stop.set()
                await running

    def customer(self) -> str:
        """Create a customer at Stripe and return its id."""
        made = self.account.customers.create({"name": "test"}, self.account.clock.now())
        return str(made["id"])

    def delete_customer(self, customer: str) -> None:
        """Delete a customer at Stripe."""
        self.account.customers.delete(customer, self.account.clock.now())

    def restore_customer(self, customer: str) -> None:
        """Undo a deletion, which at Stripe only its support can."""
        self.account.customers._deleted.discard(customer)

    def second(self) -> "Bench":
        """Return the place of another reporter beside this one's, on everything the same."""
        return replace(self, registry=CollectorRegistry())

    async def send(self, *events: Event[UsageRecorded]) -> None:
        """Publish reports as usage-ingest does."""
        await self.vhost.publish(*events, exchange=INTERNAL)

    def report(self, customer: str, value: int = 1, **changes: Any) -> Event[UsageRecorded]:
        """Return a report of some usage a minute ago."""
        report_id = uuid4()
        fields: dict[str, Any] = {
            "report_id": report_id,
            "identifier": f"r-{report_id}",
            "meter": METER,
            "value": value,
            "stripe_customer_id": customer,
            "occurred_at": self.now() - timedelta(minutes=1),
            "event_count": value,
        }
        data = UsageRecorded(**{**fields, **changes})
        return Event.of(data, source="usage-ingest", id=uuid4(), time=self.now())

    async def outcomes(self, count: int) -> list[Event[UsageReported | UsageRejected]]:
        """Wait until ``count`` outcomes were published and return them, oldest first."""
        kinds: list[type[UsageReported | UsageRejected]] = [UsageReported, UsageRejected]
        found = await self._waiting_in(USAGE_OUTCOMES_QUEUE, count)
        return [read_event(each.body, kinds) for each in found]

    async def dead_letters(self, count: int) -> list[AbstractIncomingMessage]:
        """Wait until there are ``count`` dead letters and return them."""
        return await self._waiting_in(dead_letter_queue(USAGE_RECORDED_QUEUE), count)

    async def _waiting_in(self, queue: str, count: int) -> list[AbstractIncomingMessage]:
        """Look once only: each look counts as a delivery, and those have a limit."""
        await eventually(lambda: self.vhost.depth(queue), lambda depth: depth >= count)
        return await self.vhost.peek(queue)

    async def revive(self) -> None:
        """Move the dead letters back as an operator does, once no test reads them any more."""
        letters = dead_letter_queue(USAGE_RECORDED_QUEUE)
        await eventually(lambda: self.vhost.depth(letters), bool)
        await self.vhost.move(letters, USAGE_RECORDED_QUEUE)

    def fault(self, kind: str, **conditions: Any) -> None:
        """Have the next meter event fail so, or as ``conditions`` say."""
        described = {"path_prefix": "/v1/billing/meter_events", "method": "POST", **conditions}
        self.account.faults.add(Fault.read({"kind": kind, **described}))

    def counted(self, customer: str) -> float:
        """Return what Stripe has counted for a customer."""
        return sum(
            float(one["value"]) for one in self.account.sums() if one["customer"] == customer
        )

    def attempts(self, event: Event[UsageRecorded]) -> dict[str, Any]:
        """Return what Stripe saw of a report."""
        return self.account.request_log.attempts()[event.data.identifier]

    async def state(self, event: Event[UsageRecorded]) -> str | None:
        """Return the state of a report in the journal, if it is there."""
        row = await self.find(event)
        return None if row is None else str(row["state"])

    async def row(self, event: Event[UsageRecorded]) -> dict[str, Any]:
        """Return a report's row in the journal."""
        row = await self.find(event)
        assert row is not None
        return row

    async def find(self, event: Event[UsageRecorded]) -> dict[str, Any] | None:
        """Return a report's row in the journal, if there is one."""
        query = text("SELECT * FROM meter_calls WHERE identifier = :identifier")
        async with self.database() as database:
            found = await database.run(
                lambda c: c.execute(query, {"identifier": event.data.identifier})
            )
        row = found.mappings().one_or_none()
        return None if row is None else dict(row)

    @asynccontextmanager
    async def database(self) -> AsyncIterator[Database]:
        """Open the journal's database as the reporter's role."""
        database = Database(self.database_url, name="test")
        try:
            yield database
        finally:
            await database.close()

    async def calls(self) -> int:
        """Count the meter events that Stripe was asked to create."""
        return sum(each["attempts"] for each in self.account.request_log.attempts().values())

    async def handled(self, outcome: str) -> float:
        """Count the deliveries that ended so."""
        sample = self.registry.get_sample_value(
            "stripe_reporter_reports_total", {"outcome": outcome}
        )
        return sample or 0.0
