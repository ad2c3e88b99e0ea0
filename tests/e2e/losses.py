"""What happens to a running platform that loses a database, and what it is counted by then."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import aiohttp

from local_stack.servers import Database as PostgresServer
from nexus_contracts import Event, ToolExecuted, UsageReported
from nexus_messaging.topology import INTERNAL
from rig.backup import back_up, restore
from rig.events import tool_run, user_created
from rig.platform import Platform
from rig.waiting import eventually

EVENTS = "SELECT count(*)::int FROM usage_events"
ACCOUNTS = "SELECT stripe_customer_id FROM billing_accounts WHERE user_id = '{}'"
UNFINISHED = """
SELECT (SELECT count(*)::int FROM usage_events WHERE billing_state IN ('waiting', 'due')),
       (SELECT count(*)::int FROM usage_reports WHERE state IN ('pending', 'forwarded')),
       (SELECT count(*)::int FROM usage_reports WHERE state = 'rejected')
"""
CALLS_FOR = "SELECT report_id, identifier FROM meter_calls WHERE stripe_customer_id = '{}'"
UNHEARD = "SELECT count(*)::int FROM meter_calls WHERE state = 'unknown'"
REPORTED = """
SELECT stripe_customer_id, sum(value)::int FROM usage_reports WHERE state = 'reported' GROUP BY 1
"""
EVENTS_REPORTED = """
SELECT r.stripe_customer_id, count(*)::int
  FROM usage_events e JOIN usage_reports r USING (claim_id) WHERE r.state = 'reported' GROUP BY 1
"""


@dataclass
class Story:
    """What happens to a running platform, and what has been published to it."""

    platform: Platform
    postgres: PostgresServer
    directory: Path
    runs: list[Event[ToolExecuted]] = field(default_factory=list)
    began: datetime = field(default_factory=lambda: datetime.now(UTC))

    async def user(self) -> UUID:
        """Create a user, and return it once it has its customer."""
        user = uuid4()
        await self.platform.vhost.publish(user_created(user, f"{user}@example.com"))
        await self.customer(user)
        return user

    async def customer(self, user: UUID, but: str = "") -> str:
        """Wait for a user's customer, other than one it had."""
        rows = await eventually(
            lambda: self.platform.rows("usage_ingest", ACCOUNTS.format(user)),
            lambda rows: bool(rows) and rows[0][0] != but,
            within=90,
        )
        return str(rows[0][0])

    async def run(self, user: UUID, *seconds: float) -> list[Event[ToolExecuted]]:
        """Publish runs so many seconds after a moment long past."""
        past = self.began.replace(microsecond=0) - timedelta(minutes=5)
        runs = [tool_run(user, time=past + timedelta(seconds=each)) for each in seconds]
        await self.platform.vhost.publish(*runs)
        self.runs += runs
        return runs

    async def recorded(self) -> None:
        """Wait until everything published is in the ledger."""
        await eventually(
            lambda: self.platform.rows("usage_ingest", EVENTS),
            lambda rows: rows == [(len(self.runs),)],
            within=90,
        )

    async def settled(self, *, unheard: int = 0, rejected: int = 0) -> None:
        """Wait until all but some reports are counted, and no usage waits."""
        await self.recorded()
        await eventually(
            lambda: self.platform.rows("usage_ingest", UNFINISHED),
            lambda rows: rows == [(0, unheard, rejected)],
            within=90,
        )
        await eventually(
            lambda: self.platform.rows("stripe_reporter", UNHEARD),
            lambda rows: rows == [(unheard,)],
            within=90,
        )

    def back_up(self, module: str) -> None:
        """Take a backup of a service's database."""
        back_up(self.postgres, self.platform.databases[module], self.directory / module)

    def lose(self, name: str) -> None:
        """Kill a service, lose its database, and restore the backup."""
        module = name.replace("-", "_")
        self.platform.services[name].kill()
        assert self.platform.services[name].wait_for_exit(15)
        restore(self.postgres, self.platform.databases[module], self.directory / module)

    async def operate(self, module: str, *arguments: str) -> None:
        """Run a command that must go well."""
        code, said = await self.platform.command(module, *arguments)
        assert code == 0, said

    async def adopt(self) -> tuple[int, str]:
        """Take back what the journal knows, as the runbook says."""
        since = self.began.isoformat()
        code, told = await self.platform.command("stripe_reporter", "journal", "--since", since)
        assert code == 0
        return await self.platform.command("usage_ingest", "adopt", "-", "--execute", given=told)

    async def assert_counted_once(self) -> None:
        """Stripe's sums, the reports' and the events' agree, and all runs are in them."""
        reported = await self._sums(REPORTED)
        events = await self._sums(EVENTS_REPORTED)
        async with self.platform.stripe() as stripe:
            sums = {row["customer"]: int(row["value"]) for row in await stripe.sums()}
            attempts = await stripe.attempts()
        assert sums == reported == events
        assert sum(sums.values()) == len(self.runs)
        assert max(each["accepted"] for each in attempts.values()) == 1

    async def _sums(self, query: str) -> dict[str, int]:
        rows = await self.platform.rows("usage_ingest", query)
        return {str(customer): int(str(value)) for customer, value in rows}

    async def answers_come_late(self, customer: str) -> None:
        """Let answers to reports of a customer still be on their way."""
        calls = await self.platform.rows("stripe_reporter", CALLS_FOR.format(customer))
        for report_id, identifier in calls:
            answer = UsageReported(
                report_id=UUID(str(report_id)),
                identifier=str(identifier),
                at=datetime.now(UTC),
                ever_unknown=False,
            )
            event = Event.of(answer, source="stripe-reporter", id=uuid4(), time=answer.at)
            await self.platform.vhost.publish(event, exchange=INTERNAL)

    async def delete_at_stripe(self, customer: str) -> None:
        """Delete a customer as somebody in Stripe's dashboard may."""
        url = f"{self.platform.emulator_url}/v1/customers/{customer}"
        headers = {"Authorization": f"Bearer {self.platform.stripe_key}"}
        async with aiohttp.ClientSession() as session, session.delete(url, headers=headers) as got:
            got.raise_for_status()

    async def no_answers_for(self, customer: str) -> None:
        """Let Stripe count the customer's usage, and every answer get lost."""
        async with self.platform.stripe() as stripe:
            await stripe.add_fault(
                "reset",
                when="after",
                path_prefix="/v1/billing/meter_events",
                customer=customer,
                times=None,
            )
