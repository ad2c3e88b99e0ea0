"""Counting the outcomes in the ledger, in the broker and at Stripe.

Of what was published only the number of confirmed messages is known here.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import aiohttp
import asyncpg

from local_stack.catalogue import VHOST
from local_stack.dead_letters import dead_letter_queues, read_dead_letters
from local_stack.management import queue_names
from metering_demo.endpoints import Endpoints
from stripe_emulator.client import EmulatorClient

RUNS_QUEUE: Final = "usage-ingest.tool-executed"
REPORTS_QUEUE: Final = "stripe-reporter.usage-recorded"
UNREADABLE: Final = frozenset({"unreadable", "unsupported_version", "invalid"})

EVENTS: Final = """
SELECT count(*) AS recorded,
       count(*) FILTER (WHERE billing_state IN ('waiting', 'due')) AS unclaimed
  FROM usage_events
"""

REPORTS: Final = """
SELECT coalesce(sum(event_count) FILTER (WHERE state = 'reported'), 0)::bigint AS reported,
       coalesce(sum(event_count) FILTER (WHERE state = 'rejected'), 0)::bigint AS rejected,
       coalesce(sum(event_count) FILTER (WHERE state IN ('pending', 'forwarded')), 0)::bigint
           AS unanswered
  FROM usage_reports
"""

CUSTOMERS: Final = """
SELECT a.stripe_customer_id AS customer,
       (SELECT count(*) FROM usage_events e WHERE e.user_id = a.user_id) AS runs,
       coalesce((SELECT sum(r.value) FROM usage_reports r
                  WHERE r.user_id = a.user_id AND r.state = 'reported'), 0)::bigint AS ledger,
       coalesce((SELECT sum(r.value) FROM usage_reports r
                  WHERE r.user_id = a.user_id AND r.state = 'rejected'), 0)::bigint AS rejected
  FROM billing_accounts a
 ORDER BY a.stripe_customer_id
"""


@dataclass(frozen=True, slots=True)
class Customer:
    """One customer: its tool runs in the ledger, and its sums by the ledger and by Stripe."""

    customer: str
    runs: int
    ledger: int
    rejected: int
    stripe: int

    @property
    def agrees(self) -> bool:
        """Whether Stripe counted what the ledger says was reported."""
        return self.ledger == self.stripe


@dataclass(frozen=True, slots=True)
class Count:
    """Everything found, in tool runs."""

    recorded: int
    duplicates: int
    reported: int
    rejected: int
    unanswered: int
    customers: tuple[Customer, ...]
    dead: Mapping[tuple[str, str], int]

    @property
    def unreadable(self) -> int:
        """Runs that are dead-lettered because their message cannot be read."""
        return sum(
            runs
            for (queue, reason), runs in self.dead.items()
            if queue == RUNS_QUEUE and reason in UNREADABLE
        )

    @property
    def in_doubt(self) -> int:
        """Runs of reports whose outcome is unknown: a person has to settle each."""
        return self.dead.get((REPORTS_QUEUE, "outcome_unknown"), 0)

    @property
    def waiting(self) -> int:
        """Runs that will get an outcome without a person's help."""
        return self.unanswered - self.in_doubt

    @property
    def dead_lettered(self) -> int:
        """Runs in any dead-letter queue."""
        return sum(self.dead.values())

    @property
    def double_billed(self) -> int:
        """Runs that Stripe counted beyond the ledger's sum."""
        return sum(max(0, each.stripe - each.ledger) for each in self.customers)

    def lost(self, published: int) -> int:
        """Runs that were found nowhere, or that are reported and were not counted by Stripe."""
        unread = published - self.recorded - self.duplicates - self.unreadable
        unbilled = self.recorded - self.reported - self.rejected - self.unanswered
        uncounted = sum(max(0, each.ledger - each.stripe) for each in self.customers)
        return abs(unread) + abs(unbilled) + uncounted


async def count(endpoints: Endpoints) -> Count:
    """Count everything as it is now; dead letters are read and left where they are."""
    connection = await asyncpg.connect(endpoints.ledger)
    try:
        events = await connection.fetchrow(EVENTS)
        reports = await connection.fetchrow(REPORTS)
        rows = await connection.fetch(CUSTOMERS)
    finally:
        await connection.close()
    sums = await _stripe_sums(endpoints.emulator)
    customers = [Customer(**row, stripe=sums.pop(row["customer"], 0)) for row in rows]
    # A customer that Stripe counts usage for and the ledger does not know was billed by mistake.
    customers += [Customer(unknown, 0, 0, 0, value) for unknown, value in sums.items()]
    return Count(
        recorded=events["recorded"],
        duplicates=await _duplicates(endpoints.ingest),
        reported=reports["reported"],
        rejected=reports["rejected"],
        unanswered=events["unclaimed"] + reports["unanswered"],
        customers=tuple(customers),
        dead=await _dead_letters(endpoints),
    )


async def _stripe_sums(emulator_url: str) -> dict[str, int]:
    sums: Counter[str] = Counter()
    async with EmulatorClient(emulator_url) as emulator:
        for row in await emulator.sums():
            sums[row["customer"]] += int(row["value"])
    return dict(sums)


async def _duplicates(ingest_url: str) -> int:
    """Read how many duplicates usage-ingest has seen: the only outcome that leaves no row."""
    wanted = 'usage_ingest_events_total{outcome="duplicate"} '
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{ingest_url}/metrics") as answer,
    ):
        for line in (await answer.text()).splitlines():
            if line.startswith(wanted):
                return int(float(line.removeprefix(wanted)))
    raise LookupError(f"usage-ingest's metrics have no {wanted.strip()}")


async def _dead_letters(endpoints: Endpoints) -> dict[tuple[str, str], int]:
    """Count the runs in the dead-letter queues that the broker has, by queue and reason."""
    names = await asyncio.to_thread(queue_names, endpoints.management, endpoints.operator, VHOST)
    queues = {letters: queue for queue, letters in dead_letter_queues(names).items()}
    dead: Counter[tuple[str, str]] = Counter()
    for letter in await read_dead_letters(endpoints.operator_amqp, queues):
        queue = queues[letter.queue]
        dead[queue, letter.reason] += _runs_in(queue, letter.body)
    return dict(dead)


def _runs_in(queue: str, body: bytes) -> int:
    return int(json.loads(body)["data"]["event_count"]) if queue == REPORTS_QUEUE else 1
