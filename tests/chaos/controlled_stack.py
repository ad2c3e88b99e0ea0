"""The running stack under a test's control: hold a step from outside, kill, restart, count."""

import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import aio_pika
import asyncpg

from local_stack.dead_letters import read_dead_letters
from local_stack.urls import login_of
from metering_chaos.environment import Environment, in_thread, open_environment
from metering_chaos.gathering import read_customers, read_depths
from metering_chaos.proxies import Proxy
from nexus_contracts import Event, EventData, ToolExecuted, UserCreated
from support.events import NAME, user_created
from support.freezing import freeze
from support.leak_check import admin_url, leaks, outputs_of, secrets_of, tap
from support.metrics import sample
from support.vhost import message
from support.waiting import eventually

INGEST, REPORTER, PROVISIONER = "usage-ingest", "stripe-reporter", "customer-provisioner"

CUSTOMER = "SELECT stripe_customer_id FROM billing_accounts WHERE user_id = $1"
RUNS = "SELECT event_id FROM usage_events WHERE user_id = $1"
REPORTED = """
SELECT coalesce(sum(event_count) FILTER (WHERE state = 'reported'), 0)::int,
       count(*) FILTER (WHERE state <> 'reported')::int
  FROM usage_reports
 WHERE user_id = $1
"""
HOLD_COMMITS = """
CREATE OR REPLACE FUNCTION hold_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER hold_commit AFTER {event} ON {table}
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hold_commit();
"""
BLOCKED = """
SELECT 1 FROM pg_stat_activity
 WHERE datname = current_database() AND wait_event_type = 'Lock'
   AND starts_with(ltrim(query, E' \\n'), $1)
"""


@dataclass
class ControlledStack:
    """A running stack; each test uses users of its own."""

    environment: Environment

    def proxy(self, service: str, part: str) -> Proxy:
        """Return the proxy between a service and its ``broker``, ``database`` or ``stripe``."""
        return self.environment.proxies["stripe" if part == "stripe" else f"{service}>{part}"]

    async def publish(self, *events: Event[EventData]) -> None:
        """Publish as an outside service does; return once all events are confirmed."""
        await self._publish("publisher", "events", *events)

    async def announce(self, data: EventData) -> None:
        """Publish as customer-provisioner does; return once the event is confirmed."""
        now = datetime.now(UTC)
        event = Event.of(data, source="test/provisioner", id=uuid4(), time=now)
        await self._publish(PROVISIONER, "internal", event)

    async def _publish(self, user: str, exchange: str, *events: Event[EventData]) -> None:
        url = self.environment.stack.amqp_url(user)
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
            to = await channel.get_exchange(exchange, ensure=False)
            for event in events:
                await to.publish(message(event), event.type, timeout=10)

    async def customer(self) -> UUID:
        """Create a user and return it once it can be billed."""
        user = uuid4()
        await self.publish(created(user))
        await self.until(INGEST, CUSTOMER, user)
        return user

    async def rows(self, service: str, query: str, *arguments: object) -> list[tuple[Any, ...]]:
        """Run a query or a change on a service's database, as its owner."""
        url = self.environment.stack.database_url(service, owner=True)
        return await _rows(url, query, *arguments)

    async def until(self, service: str, query: str, *arguments: object, within: float = 30) -> None:
        """Wait until a query has a row."""
        await eventually(
            lambda: self.rows(service, query, *arguments), bool, within=within, every=0.1
        )

    @asynccontextmanager
    async def locked(self, service: str, table: str) -> AsyncIterator[None]:
        """Hold a lock on a table, so that every commit that writes to it waits."""
        url = self.environment.stack.database_url(service, owner=True)
        connection = await asyncpg.connect(url, timeout=10)
        try:
            async with connection.transaction():
                await connection.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE")
                yield
        finally:
            await connection.close()

    async def until_blocked(self, service: str, statement: str) -> None:
        """Wait until a statement of the service that starts with ``statement`` waits for a lock."""
        postgres = self.environment.stack.postgres
        admin = login_of(postgres.superuser_url)
        # The owner may not see the statements of other roles.
        url = postgres.url(service.replace("-", "_"), admin.user, admin.password)
        await eventually(lambda: _rows(url, BLOCKED, statement), bool, within=30, every=0.1)

    async def until_counted(self, user: UUID, runs: int = 1) -> None:
        """Wait until Stripe has counted so many runs of a user."""
        await eventually(lambda: self.counted(user), lambda n: n == runs, within=30, every=0.1)

    async def until_taken(self, queue: str) -> None:
        """Wait until all messages of a queue are delivered to its consumer."""
        await eventually(
            lambda: read_depths(self.environment),
            lambda depths: not depths[queue],
            within=30,
            every=0.1,
        )

    async def until_metric(self, service: str, name: str, *, above: float) -> None:
        """Wait until a service's metric is greater than ``above``."""
        await eventually(
            lambda: self.metric(service, name), lambda n: n > above, within=30, every=0.1
        )

    async def kill(self, service: str) -> None:
        """Kill a service; the bytes that its proxies still hold are never delivered."""
        await in_thread(self.environment.stack.services[service].kill)
        for name, proxy in self.environment.proxies.items():
            if name.startswith(f"{service}>"):
                proxy.reset()
        self.proxy(service, "stripe").reset()

    @asynccontextmanager
    async def suspended(self, process: str) -> AsyncIterator[None]:
        """Suspend a process without its knowledge, and continue it at the end."""
        pid = self.environment.stack.services[process].pid
        assert pid is not None
        with freeze(pid):
            yield

    @asynccontextmanager
    async def commits_held(self, service: str, table: str, event: str) -> AsyncIterator[None]:
        """Hold each commit that has inserted or updated rows of a table, until the end."""
        url = self.environment.stack.database_url(service, owner=True)
        connection = await asyncpg.connect(url, timeout=10)
        try:
            await connection.execute(HOLD_COMMITS.format(table=table, event=event))
            await connection.execute("SELECT pg_advisory_lock(1)")
            yield
            await connection.execute("SELECT pg_advisory_unlock(1)")
            await connection.execute(f"DROP TRIGGER hold_commit ON {table}")
        finally:
            await connection.close()

    async def restart(self, service: str) -> None:
        """Release every proxy, start a killed service and wait until it is ready."""
        await self.environment.stripe.remove_faults()
        for proxy in self.environment.proxies.values():
            proxy.release()
        await self.start(service)

    async def start(self, process: str) -> None:
        """Start a process and wait until it is ready."""
        service = self.environment.stack.services[process]
        await in_thread(service.launch)
        await in_thread(service.await_ready)

    async def stop(self, process: str) -> None:
        """Stop a process."""
        await in_thread(self.environment.stack.services[process].stop)

    async def letters(self) -> list[bytes]:
        """Return the bodies of all dead letters and unroutable messages."""
        url = self.environment.stack.amqp_url("operator")
        letters = await read_dead_letters(url, self.environment.queues.kept)
        return [letter.body for letter in letters]

    async def metric(self, service: str, name: str) -> float:
        """Return a service's metric by its name with labels."""
        return await sample(self.environment.stack.http_url(service), name)

    async def counted(self, user: UUID) -> int:
        """Return how many runs of a user Stripe has counted."""
        [(customer,)] = await self.rows(INGEST, CUSTOMER, user)
        sums = await self.environment.stripe.sums()
        return sum(int(each["value"]) for each in sums if each["customer"] == customer)

    async def customers(self, user: UUID) -> int:
        """Return how many customers Stripe has for a user."""
        stack = self.environment.stack
        customers = await read_customers(stack.emulator.url, stack.stripe_key)
        return list(customers.values()).count(user)

    async def calls(self, identifier: str) -> int:
        """Return how many calls for a report Stripe has received."""
        seen = (await self.environment.stripe.attempts()).get(identifier)
        return 0 if seen is None else seen["attempts"]

    async def assert_billed_once(
        self, user: UUID, *runs: Event[ToolExecuted], within: float = 45
    ) -> None:
        """Wait until all of a user's runs are reported; each is counted once, none is dead."""
        await eventually(
            lambda: self.rows(INGEST, REPORTED, user),
            lambda rows: rows == [(len(runs), 0)],
            within=within,
            every=0.2,
        )
        recorded = await self.rows(INGEST, RUNS, user)
        assert sorted(row[0] for row in recorded) == sorted(run.id for run in runs)
        assert await self.counted(user) == len(runs)
        assert not {run.body() for run in runs} & set(await self.letters())


async def _rows(url: str, query: str, *arguments: object) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        return [tuple(row) for row in await connection.fetch(query, *arguments)]
    finally:
        await connection.close()


def created(user: UUID) -> Event[UserCreated]:
    """Return the event that there is a user, whose address is its own."""
    return user_created(user, f"{user}@example.com")


@asynccontextmanager
async def controlled_stack(processes: int = 1) -> AsyncIterator[ControlledStack]:
    """Start a stack with so many processes of each service, and stop it at the end.

    None of its output may hold a secret.
    """
    directory = Path(__file__).parent.parent.parent / ".local" / "tests" / secrets.token_hex(4)
    try:
        async with open_environment(
            directory, lambda _line: None, processes=processes
        ) as environment:
            await tap(admin_url(environment.stack))
            yield ControlledStack(environment)
            outputs = await outputs_of(
                list(environment.stack.services.values()), admin_url(environment.stack)
            )
            assert leaks(outputs, {*secrets_of(environment.stack), NAME}) == []
    finally:
        shutil.rmtree(directory, ignore_errors=True)
