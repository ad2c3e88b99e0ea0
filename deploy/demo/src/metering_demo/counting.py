"""Counting what became of everything, in the ledger, in the broker and at Stripe.

Nothing here knows what was published beyond how many messages the broker confirmed.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import aio_pika
import aiohttp
import asyncpg

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
    """One customer: tool runs in the ledger, and sums by the ledger and by Stripe."""

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
        """Runs that lie dead-lettered because nobody can read them."""
        return sum(
            runs
            for (queue, reason), runs in self.dead.items()
            if queue == RUNS_QUEUE and reason in UNREADABLE
        )

    @property
    def in_doubt(self) -> int:
        """Runs that Stripe may have counted before it refused them: a person looks at each."""
        return self.dead.get((REPORTS_QUEUE, "outcome_unknown"), 0)

    @property
    def waiting(self) -> int:
        """Runs that time alone brings to an end."""
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
        """Runs that are nowhere, or that the ledger holds for reported and Stripe never counted."""
        unseen = published - self.recorded - self.duplicates - self.unreadable
        nowhere = self.recorded - self.reported - self.rejected - self.unanswered
        uncounted = sum(max(0, each.ledger - each.stripe) for each in self.customers)
        return abs(unseen) + abs(nowhere) + uncounted


async def count(
    ledger_url: str, amqp_url: str, emulator_url: str, ingest_url: str, queues: tuple[str, ...]
) -> Count:
    """Count everything there is now; dead letters are looked at and left where they are."""
    connection = await asyncpg.connect(ledger_url)
    try:
        events = await connection.fetchrow(EVENTS)
        reports = await connection.fetchrow(REPORTS)
        rows = await connection.fetch(CUSTOMERS)
    finally:
        await connection.close()
    counted = await _stripe_sums(emulator_url)
    customers = [Customer(**row, stripe=counted.pop(row["customer"], 0)) for row in rows]
    # Whom Stripe counts usage for and the ledger does not know was billed for nothing.
    customers += [Customer(stranger, 0, 0, 0, value) for stranger, value in counted.items()]
    return Count(
        recorded=events["recorded"],
        duplicates=await _duplicates(ingest_url),
        reported=reports["reported"],
        rejected=reports["rejected"],
        unanswered=events["unclaimed"] + reports["unanswered"],
        customers=tuple(customers),
        dead=await _dead_letters(amqp_url, queues),
    )


async def _stripe_sums(emulator_url: str) -> dict[str, int]:
    sums: Counter[str] = Counter()
    for row in await _json(f"{emulator_url}/_emulator/sums"):
        sums[row["customer"]] += int(row["value"])
    return dict(sums)


async def _json(url: str) -> Any:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        answer.raise_for_status()
        return await answer.json()


async def _duplicates(ingest_url: str) -> int:
    """Read how many messages usage-ingest knew already: the one thing that leaves no row."""
    wanted = 'usage_ingest_events_total{outcome="duplicate"} '
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{ingest_url}/metrics") as answer,
    ):
        for line in (await answer.text()).splitlines():
            if line.startswith(wanted):
                return int(float(line.removeprefix(wanted)))
    raise LookupError(f"usage-ingest's metrics have no {wanted.strip()}")


async def _dead_letters(amqp_url: str, queues: tuple[str, ...]) -> dict[tuple[str, str], int]:
    dead: Counter[tuple[str, str]] = Counter()
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        for queue in queues:
            declared = await channel.get_queue(f"{queue}.dlq")
            while (message := await declared.get(fail=False)) is not None:
                reason = str(message.headers.get("nexus-reason", "by the broker"))
                dead[queue, reason] += _runs_in(queue, message.body)
    return dict(dead)


def _runs_in(queue: str, body: bytes) -> int:
    return int(json.loads(body)["data"]["event_count"]) if queue == REPORTS_QUEUE else 1
