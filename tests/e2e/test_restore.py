"""A database lost and restored from an older backup, by the runbook's section on it, to its end."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import aiohttp
import pytest

from local_stack.servers import Database as PostgresServer
from nexus_contracts import Event, ToolExecuted, UsageReported
from nexus_messaging.topology import (
    INTERNAL,
    USAGE_OUTCOMES_QUEUE,
    USER_CREATED_QUEUE,
    dead_letter_queue,
)
from rig.backup import back_up, restore
from rig.events import tool_run, user_created
from rig.platform import Platform
from rig.waiting import eventually

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

OUTCOMES_DLQ = dead_letter_queue(USAGE_OUTCOMES_QUEUE)
INGEST, REPORTER, PROVISIONER = "usage-ingest", "stripe-reporter", "customer-provisioner"

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
PROFILE = """
SELECT stripe_customer_id, generation, announced_generation FROM user_profiles
 WHERE user_id = '{}'
"""
LOST_ANSWERS = """
UPDATE usage_reports
   SET state = 'forwarded', forwarded_at = coalesce(forwarded_at, created_at), answered_at = NULL
 WHERE state = 'reported'
RETURNING 1
"""
"""As if no answer had ever come: all the journal has forgotten is asked of Stripe again."""

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


@pytest.fixture
def story(platform: Platform, postgres: PostgresServer, tmp_path: Path) -> Story:
    """Return the platform, running."""
    platform.start()
    return Story(platform, postgres, tmp_path)


async def test_a_ledger_restored_from_an_older_backup_bills_everything_once(story: Story) -> None:
    """Events, customers, claims and answers of the last hour are lost, and Stripe counted on."""
    platform = story.platform
    known, deleted, unheard = [await story.user() for _ in range(3)]
    upcoming = uuid4()
    await story.run(known, 1, 2.1, 2.2)
    await story.settled()
    await story.run(upcoming, 1)
    await story.recorded()
    story.back_up("usage_ingest")
    before = len(story.runs)

    await story.run(known, 2.05, 3, 4)
    await story.run(upcoming, 1.5, 7)
    await platform.vhost.publish(user_created(upcoming, "upcoming@example.com"))
    fresh = await story.customer(upcoming)
    gone = await story.customer(deleted)
    await story.delete_at_stripe(gone)
    await story.run(deleted, 1)
    await story.settled(rejected=1)
    await story.no_answers_for(await story.customer(unheard))
    await story.run(unheard, 1, 2)
    await story.settled(unheard=2, rejected=1)
    story.lose(INGEST)
    await story.answers_come_late(fresh)

    first = await story.adopt()
    platform.settings["REPORTING_PAUSED"] = "1"
    platform.relaunch(INGEST)
    announced = await platform.command(
        *("customer_provisioner", "announce", "--execute"), "--since", story.began.isoformat()
    )
    await platform.vhost.publish(*story.runs[before:])
    await story.customer(upcoming)
    await story.recorded()
    second = await story.adopt()
    await remarks_on_the_pause(platform)
    letters = [each.headers["nexus-reason"] for each in await platform.vhost.peek(OUTCOMES_DLQ)]
    await platform.vhost.move(OUTCOMES_DLQ, USAGE_OUTCOMES_QUEUE)

    assert (first[0], announced[0], second[0]) == (1, 0, 0), (first, announced, second)
    assert "not known yet: 2" in first[1]
    assert letters == ["unknown_report"] * 2
    assert "events missing" in first[1]
    async with platform.stripe() as stripe:
        await stripe.remove_faults()
    del platform.settings["REPORTING_PAUSED"]
    platform.relaunch(INGEST)
    await platform.command("usage_ingest", "replay", "--older-than", "0", "--execute")
    await platform.command("customer_provisioner", "reprovision", str(deleted))
    await story.customer(deleted, but=gone)
    await story.run(known, 2.3, 50)
    await story.settled()
    await story.assert_counted_once()
    await eventually(lambda: platform.vhost.depth(USAGE_OUTCOMES_QUEUE), (0).__eq__)
    assert await platform.vhost.depth(OUTCOMES_DLQ) == 0


async def remarks_on_the_pause(platform: Platform) -> None:
    """Ask whether the service is ready, and what it remarks."""
    url = f"{platform.services[INGEST].url}/readyz"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        told = await answer.json()
    assert told["status"] == "ok"
    assert "REPORTING_PAUSED" in told["remarks"]["reporting"]


async def test_a_journal_restored_from_an_older_backup_charges_nothing_again(story: Story) -> None:
    """Within Stripe's 24 hours it refuses what it has seen, whatever the journal has forgotten."""
    platform = story.platform
    known, unheard = await story.user(), await story.user()
    await story.run(known, 1)
    await story.settled()
    story.back_up("stripe_reporter")

    await story.no_answers_for(await story.customer(unheard))
    await story.run(known, 2, 3)
    await story.run(unheard, 1, 2)
    await story.settled(unheard=2)
    story.lose(REPORTER)
    async with platform.stripe() as stripe:
        await stripe.remove_faults()
        await stripe.advance_clock(timedelta(hours=22).total_seconds())
    platform.relaunch(REPORTER)
    await platform.rows("usage_ingest", LOST_ANSWERS)
    await platform.command("usage_ingest", "replay", "--older-than", "0", "--execute")

    await story.run(known, 4)
    await story.settled()
    await story.assert_counted_once()
    async with platform.stripe() as stripe:
        repeated = [each for each in (await stripe.attempts()).values() if each["attempts"] > 1]
    assert len(repeated) >= 4


async def test_customers_lost_with_the_provisioners_database_are_found_and_adopted(
    story: Story,
) -> None:
    """Nobody gets a second customer, and usage goes on under the first."""
    platform = story.platform
    known = await story.user()
    story.back_up("customer_provisioner")
    lost = await story.user()
    customer = await story.customer(lost)
    await story.run(lost, 1)
    await story.settled()
    story.lose(PROVISIONER)
    platform.relaunch(PROVISIONER)

    listed = f'{{"user_id": "{lost}", "email": "{lost}@example.com", "name": "Ada"}}\n'
    code, said = await platform.command(
        "customer_provisioner", "backfill", "--execute", given=listed
    )
    found = await eventually(
        lambda: platform.rows(
            "customer_provisioner",
            PROFILE.format(lost),
        ),
        lambda rows: bool(rows) and rows[0][2] == 1,
        within=60,
    )

    assert code == 0, said
    assert found == [(customer, 1, 1)]
    await story.run(lost, 2)
    await story.run(known, 1)
    await story.settled()
    await story.assert_counted_once()
    assert await platform.vhost.depth(dead_letter_queue(USER_CREATED_QUEUE)) == 0
