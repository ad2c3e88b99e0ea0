"""A running platform that loses a database: its usage, the loss, and the final comparison."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

from local_stack.servers import Database as PostgresServer
from nexus_contracts import Event, ToolExecuted, UsageReported, UserAssigned
from nexus_contracts.fields import EARLIEST
from nexus_messaging.topology import INTERNAL
from support.backup import back_up, restore
from support.billing import assert_counted_once
from support.events import tool_run, user_created
from support.platform import Platform
from support.waiting import eventually

EVENTS = "SELECT count(*)::int FROM usage_events"
ACCOUNTS = "SELECT stripe_customer_id FROM billing_accounts WHERE user_id = '{}'"
UNFINISHED = """
SELECT (SELECT count(*)::int FROM usage_events WHERE billing_state IN ('waiting', 'due')),
       (SELECT count(*)::int FROM usage_reports WHERE state IN ('pending', 'forwarded')),
       (SELECT count(*)::int FROM usage_reports WHERE state = 'rejected')
"""
CALLS_FOR = "SELECT report_id, identifier FROM meter_calls WHERE stripe_customer_id = '{}'"
UNANSWERED = "SELECT count(*)::int FROM meter_calls WHERE state = 'unknown'"


@dataclass
class RestoreScenario:
    """A running platform, and the runs that were published to it."""

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
        """Wait for a user's customer other than ``but``, and return it."""
        rows = await eventually(
            lambda: self.platform.rows("usage_ingest", ACCOUNTS.format(user)),
            lambda rows: bool(rows) and rows[0][0] != but,
            within=90,
        )
        return str(rows[0][0])

    async def run(self, user: UUID, *seconds: float) -> list[Event[ToolExecuted]]:
        """Publish runs at so many seconds after a moment five minutes ago."""
        past = self.began.replace(microsecond=0) - timedelta(minutes=5)
        runs = [tool_run(user, time=past + timedelta(seconds=each)) for each in seconds]
        await self.platform.vhost.publish(*runs)
        self.runs += runs
        return runs

    async def until_recorded(self) -> None:
        """Wait until everything published is in the ledger."""
        await eventually(
            lambda: self.platform.rows("usage_ingest", EVENTS),
            lambda rows: rows == [(len(self.runs),)],
            within=90,
        )

    async def until_settled(self, *, unanswered: int = 0, rejected: int = 0) -> None:
        """Wait until no usage waits, and all reports are counted but those given."""
        await self.until_recorded()
        await eventually(
            lambda: self.platform.rows("usage_ingest", UNFINISHED),
            lambda rows: rows == [(0, unanswered, rejected)],
            within=90,
        )
        await eventually(
            lambda: self.platform.rows("stripe_reporter", UNANSWERED),
            lambda rows: rows == [(unanswered,)],
            within=90,
        )

    def back_up(self, module: str) -> None:
        """Take a backup of a service's database."""
        back_up(self.postgres, self.platform.databases[module], self.directory / module)

    def lose(self, name: str) -> None:
        """Kill a service, drop its database, and restore the backup."""
        module = name.replace("-", "_")
        self.platform.services[name].kill()
        assert self.platform.services[name].wait_for_exit(15)
        restore(self.postgres, self.platform.databases[module], self.directory / module)

    async def adopt(self, *options: str) -> tuple[int, str]:
        """Adopt the journal's reports into the ledger, as the runbook says."""
        since = self.began.isoformat()
        code, calls = await self.platform.command("stripe_reporter", "journal", "--since", since)
        assert code == 0
        adopting = ("usage_ingest", "adopt", "-", "--execute", *options)
        return await self.platform.command(*adopting, given=calls)

    async def assign(self, account: UUID, *users: UUID) -> None:
        """Announce that an account has always paid for users."""
        for user in users:
            assigned = UserAssigned(user_id=user, account_id=account, since=EARLIEST, revision=1)
            event = Event.of(assigned, source="customer-provisioner", id=uuid4(), time=self.began)
            await self.platform.vhost.publish(event, exchange=INTERNAL)
        query = "SELECT count(*)::int FROM account_assignments"
        wanted = [(len(users),)]
        await eventually(lambda: self.platform.rows("usage_ingest", query), wanted.__eq__)

    async def assert_counted_once(self) -> None:
        """Compare ledger, totals, reports and Stripe; all published runs are counted."""
        await assert_counted_once(self.platform, len(self.runs))
        await self.platform.run_command("usage_ingest", "totals", "--verify")

    async def publish_late_outcomes(self, customer: str) -> None:
        """Publish outcomes of a customer's reports that are no longer in the ledger."""
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

    async def lose_answers_for(self, customer: str) -> None:
        """Have Stripe count the customer's usage, with every answer lost."""
        async with self.platform.stripe() as stripe:
            await stripe.add_fault(
                "reset",
                when="after",
                path_prefix="/v1/billing/meter_events",
                customer=customer,
                times=None,
            )
