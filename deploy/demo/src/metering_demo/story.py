"""The demo's course of events on a running stack."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from uuid import UUID

import aiohttp
import asyncpg

from metering_demo.counting import REPORTS_QUEUE, RUNS_QUEUE, Count, count
from metering_demo.publishing import publish
from metering_demo.scenario import Scenario
from stripe_emulator.client import EmulatorClient

T = TypeVar("T")
Say = Callable[[str], None]

QUEUES: Final = (
    RUNS_QUEUE,
    REPORTS_QUEUE,
    "usage-ingest.customer-provisioned",
    "usage-ingest.usage-outcomes",
    "customer-provisioner.user-created",
)

TROUBLE: Final[tuple[dict[str, Any], ...]] = (
    {"kind": "rate_limited", "probability": 0.01, "seed": 1},
    {"kind": "server_error", "when": "before", "probability": 0.02, "seed": 2},
    {"kind": "server_error", "when": "after", "probability": 0.02, "seed": 3},
    {"kind": "reset", "when": "after", "probability": 0.03, "seed": 4},
    {"kind": "html_503", "when": "before", "probability": 0.02, "seed": 5},
)


class UnsettledError(Exception):
    """The stack did not come to rest in time; the text says what was still under way."""


@dataclass(frozen=True, slots=True)
class Doors:
    """Where the demo reaches each part.

    ``publisher`` and ``reader`` are AMQP URLs of an outside service and of an operator, ``ledger``
    is the URL of usage-ingest's database, the others are HTTP.
    """

    publisher: str
    reader: str
    ledger: str
    ingest: str
    emulator: str
    stripe_key: str


async def play(scenario: Scenario, doors: Doors, say: Say, *, patience: float) -> tuple[int, Count]:
    """Publish the scenario, wait until nothing is left to do, and count.

    Returns how many usage messages the broker confirmed, and the count.

    Raises:
        UnsettledError: something was still under way after ``patience`` seconds.
    """
    early = len(scenario.early)
    await publish(doors.publisher, scenario.early)
    await _until(lambda: _accounts(doors), lambda found: len(found) >= early, patience)
    say(f"{early} users have become customers at Stripe")
    await _delete(doors, (await _accounts(doors))[scenario.deleted])
    say("one of those customers was deleted at Stripe")
    async with EmulatorClient(doors.emulator) as emulator:
        for fault in TROUBLE:
            await emulator.add_fault(
                **fault, times=None, method="POST", path_prefix="/v1/billing/meter_events"
            )
    say("Stripe now answers 429, 500 and 503, and loses answers, now and then")
    published = await publish(doors.publisher, scenario.usage)
    say(f"{published} messages about tool runs are published and confirmed")
    await publish(doors.publisher, scenario.late)
    say("the last user was created only now, after its usage")
    return published, await _at_rest(doors, published, say, patience)


async def _at_rest(doors: Doors, published: int, say: Say, patience: float) -> Count:
    async def counted() -> Count:
        found = await count(doors.ledger, doors.reader, doors.emulator, doors.ingest, QUEUES)
        say(
            f"recorded {found.recorded}, waiting {found.waiting}, reported {found.reported},"
            f" rejected {found.rejected}, in doubt {found.in_doubt}"
        )
        return found

    def rests(found: Count) -> bool:
        seen = found.recorded + found.duplicates + found.unreadable
        return seen >= published and found.waiting == 0

    return await _until(counted, rests, patience, every=1.0)


async def _until(
    ask: Callable[[], Awaitable[T]],
    holds: Callable[[T], bool],
    patience: float,
    every: float = 0.1,
) -> T:
    deadline = asyncio.get_running_loop().time() + patience
    while not holds(found := await ask()):
        if asyncio.get_running_loop().time() > deadline:
            raise UnsettledError(f"after {patience:.0f} s there was still: {found}")
        await asyncio.sleep(every)
    return found


async def _accounts(doors: Doors) -> dict[UUID, str]:
    connection = await asyncpg.connect(doors.ledger)
    try:
        rows = await connection.fetch("SELECT user_id, stripe_customer_id FROM billing_accounts")
    finally:
        await connection.close()
    return {row["user_id"]: row["stripe_customer_id"] for row in rows}


async def _delete(doors: Doors, customer: str) -> None:
    url = f"{doors.emulator}/v1/customers/{customer}"
    headers = {"Authorization": f"Bearer {doors.stripe_key}"}
    async with aiohttp.ClientSession() as session, session.delete(url, headers=headers) as answer:
        answer.raise_for_status()
