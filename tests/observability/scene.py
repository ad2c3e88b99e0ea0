"""A scenario on the running stack in which everything that can be counted happens."""

import time
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

import aio_pika
import aiohttp
from aio_pika.abc import AbstractChannel

from local_stack.catalogue import VHOST
from local_stack.sql import run_sql
from local_stack.stack import Stack
from nexus_contracts import (
    CustomerProvisioned,
    Event,
    EventData,
    UsageRecorded,
    UsageReported,
    UserCreated,
)
from nexus_messaging.topology import EVENTS, INTERNAL, TOOL_EXECUTED_QUEUE, dead_letter_queue
from observability.later_word import later_word
from stripe_emulator.client import EmulatorClient
from support.events import tool_run
from support.vhost import message
from support.waiting import eventually

EMAIL: Final = "ada@example.com"
METER_EVENTS: Final = "/v1/billing/meter_events"
PAST: Final = timedelta(seconds=30)
ARE_REPORTED: Final = """
SELECT count(*) = {number} FROM usage_events JOIN usage_reports USING (claim_id)
 WHERE event_id IN ({ids}) AND state = 'reported'
"""
REPORT: Final = """
SELECT row_to_json(r)
  FROM (SELECT report_id, identifier, meter, value, stripe_customer_id, occurred_at, event_count
          FROM usage_reports WHERE state = '{state}' LIMIT 1) r
"""
FAULTS: Final = (
    "rate_limited",
    "conflict",
    "lock_timeout",
    "server_error",
    "html_503",
)


@dataclass
class Scene:
    """What happens, in order: ``play`` it all."""

    stack: Stack
    stripe: EmulatorClient
    outside: AbstractChannel
    inside: AbstractChannel
    faults: dict[str, float] = field(default_factory=dict)
    """When what an alert is about was brought about, by the alert's name."""

    @classmethod
    async def open(cls, stack: Stack, until: AsyncExitStack) -> "Scene":
        """Connect to the stack as an outside publisher and as the broker's administrator."""
        admin = stack.broker.admin
        urls = (
            stack.amqp_url("publisher"),
            stack.broker.amqp_url(admin.user, admin.password, VHOST),
        )
        channels = []
        for url in urls:
            connection = await until.enter_async_context(await aio_pika.connect(url))
            channels.append(await connection.channel(on_return_raises=True))
        stripe = await until.enter_async_context(EmulatorClient(stack.emulator_url))
        return cls(stack, stripe, outside=channels[0], inside=channels[1])

    async def play(self) -> None:
        """Let everything happen and wait until it has."""
        good, deleted = uuid4(), uuid4()
        await self.publish(user(good))
        await self._publish_by_http(user(deleted))
        await self.until("SELECT count(*) = 2 FROM billing_accounts")
        await self._runs(good)
        await self._stray_messages(good)
        await self.until("SELECT bool_or(state = 'reported') FROM usage_reports")
        await self._deleted_customer(deleted)
        await self._trouble_at_stripe(good)
        await self._told_again()
        await self._look_at_usage(good)
        await later_word(self, good)

    async def publish(self, *events: Event[EventData], inside: bool = False) -> None:
        """Publish as an outside service, or on the internal exchange as the administrator."""
        channel, name = (self.inside, INTERNAL) if inside else (self.outside, EVENTS)
        exchange = await channel.get_exchange(name, ensure=False)
        for event in events:
            await exchange.publish(message(event), event.type)

    async def tell(self, *facts: EventData) -> None:
        """Publish on the internal exchange as the administrator."""
        now = datetime.now(UTC)
        events = [Event.of(each, source="test/inside", id=uuid4(), time=now) for each in facts]
        await self.publish(*events, inside=True)

    def report_in(self, state: str) -> UsageRecorded:
        """Return a report in ``state`` as usage-ingest publishes it."""
        found = self.ask("usage-ingest", REPORT.format(state=state))
        return UsageRecorded.model_validate_json(found)

    async def _publish_by_http(self, event: Event[EventData]) -> None:
        headers = {
            "Authorization": f"Bearer {self.stack.api_key}",
            "Content-Type": "application/json",
        }
        async with (
            aiohttp.ClientSession(headers=headers, raise_for_status=True) as session,
            session.post(f"{self.stack.events_api_url}/v1/events", data=event.body()),
        ):
            pass

    async def _look_at_usage(self, user_id: UUID) -> None:
        assert self.stack.usage_api is not None
        day = datetime.now(UTC).date()
        asked = {"user": str(user_id), "from": f"{day - timedelta(days=7)}T00:00:00Z"}
        asked["to"] = f"{day + timedelta(days=1)}T00:00:00Z"
        headers = {"Authorization": f"Bearer {self.stack.api_key}"}
        async with (
            aiohttp.ClientSession(headers=headers, raise_for_status=True) as session,
            session.get(f"{self.stack.usage_api.url}/v1/usage", params=asked),
        ):
            pass

    async def revoke_key(self) -> None:
        """Have Stripe refuse the services' key from the next call on, and bring about a call."""
        await self.stripe.set_key(self.stack.stripe_key, "revoked")
        found = self.ask("usage-ingest", "SELECT min(user_id::text) FROM billing_accounts")
        await self.publish(tool_run(UUID(found), time=datetime.now(UTC) - PAST))
        self.faults["StripeAuthFailing"] = time.monotonic()

    async def restore_key(self) -> None:
        """Make the key valid again."""
        await self.stripe.set_key(self.stack.stripe_key, "valid")

    async def _runs(self, good: UUID) -> None:
        past = datetime.now(UTC) - PAST
        first = tool_run(good, time=past, token_count=7)
        await self.publish(
            first,
            first,
            tool_run(good, event_id=first.id),
            tool_run(good, time=past, status="failed"),
            tool_run(good, time=past - timedelta(days=36)),
            tool_run(good, time=past + timedelta(minutes=9)),
            tool_run(uuid4(), time=past),
            *(tool_run(good, time=past + timedelta(seconds=n)) for n in range(10)),
        )
        self.faults["DeadLettersPresent"] = time.monotonic()
        # Recorded, though without its metadata.
        await self.publish(tool_run(good, time=past, metadata={"name\u0000": "x"}))

    async def _stray_messages(self, good: UUID) -> None:
        exchange = await self.inside.get_exchange(EVENTS, ensure=False)
        newer = tool_run(good).body().replace(b"executed.v1", b"executed.v9")
        await exchange.publish(aio_pika.Message(b"{"), "tool.executed.v1")
        await exchange.publish(aio_pika.Message(newer), "tool.executed.v9")
        await exchange.publish(aio_pika.Message(b"{}"), "nobody.cares.v1")
        now = datetime.now(UTC)
        await self.tell(
            UsageReported(report_id=uuid4(), identifier="nexus:nobody", at=now, ever_unknown=False),
            CustomerProvisioned(user_id=good, stripe_customer_id="cus_old", generation=1),
        )
        mistyped = dead_letter_queue(TOOL_EXECUTED_QUEUE).replace("executed", "executd")
        await self.inside.declare_queue(mistyped, durable=True)
        self.faults["UnknownQueue"] = time.monotonic()

    async def _deleted_customer(self, deleted: UUID) -> None:
        query = "SELECT user_id || ' ' || stripe_customer_id FROM billing_accounts"
        found = self.ask("usage-ingest", query).splitlines()
        customer = dict(line.split() for line in found)[str(deleted)]
        login = {"Authorization": f"Bearer {self.stack.stripe_key}"}
        async with (
            aiohttp.ClientSession(headers=login, raise_for_status=True) as session,
            session.delete(f"{self.stack.emulator_url}/v1/customers/{customer}"),
        ):
            pass
        await self.publish(tool_run(deleted, time=datetime.now(UTC) - PAST))
        await self.until("SELECT bool_or(state = 'rejected') FROM usage_reports")
        other = next(each for each in found if str(deleted) not in each)
        again = CustomerProvisioned(
            user_id=deleted, stripe_customer_id=other.split()[1], generation=2
        )
        await self.tell(again)
        await self.until("SELECT bool_or(state = 'superseded') FROM usage_reports")

    async def _trouble_at_stripe(self, good: UUID) -> None:
        for kind in FAULTS:
            await self.stripe.add_fault(kind, path_prefix=METER_EVENTS)
        await self.stripe.add_fault("reset", when="after", path_prefix=METER_EVENTS)
        await self.stripe.add_fault("rate_limited", path_prefix="/v1/customers")
        past = datetime.now(UTC) - timedelta(minutes=2)
        runs = [tool_run(good, time=past + timedelta(seconds=10 * n)) for n in range(10)]
        await self.publish(*runs, user(uuid4()))
        ids = ", ".join(f"'{run.id}'" for run in runs)
        await self.until(ARE_REPORTED.format(ids=ids, number=len(runs)))
        await self.until("SELECT count(*) = 3 FROM billing_accounts")

    async def _told_again(self) -> None:
        report = self.report_in("reported")
        await self.tell(report, report.model_copy(update={"value": report.value + 1}))

    async def until(self, query: str) -> None:
        """Wait until a query of the ledger is true."""

        async def answer() -> str:
            return self.ask("usage-ingest", query)

        await eventually(answer, lambda found: found == "t", within=60, every=0.3)

    def ask(self, service: str, query: str) -> str:
        """Return what a query of a service's database prints."""
        return run_sql(self.stack.database_url(service), query).strip()


def user(user_id: UUID) -> Event[UserCreated]:
    """Return the news of a user."""
    data = UserCreated(user_id=user_id, email=EMAIL)
    return Event.of(data, source="test/accounts", id=uuid4(), time=datetime.now(UTC))


def wait_for(
    names: Iterable[str], seen: Callable[[], set[str]], *, within: float
) -> dict[str, float]:
    """Wait until every one of ``names`` was seen; return when each was first."""
    deadline, missing = time.monotonic() + within, set(names)
    when: dict[str, float] = {}
    while missing:
        when |= dict.fromkeys(missing & seen(), time.monotonic())
        missing -= when.keys()
        assert time.monotonic() < deadline, f"still waiting for {missing} after {within} s"
        time.sleep(0.5)
    return when
