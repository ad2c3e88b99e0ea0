"""A run of the demo on a running stack: publish the scenario, cause faults, wait, count."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any, Final, TypeVar
from uuid import UUID

import aiohttp
import asyncpg

from local_stack.publishing import Event, NotPublishedError, publish_all
from metering_demo.counting import Count, count
from metering_demo.endpoints import Endpoints
from metering_demo.scenario import Scenario
from stripe_emulator.client import EmulatorClient

T = TypeVar("T")
Say = Callable[[str], None]

FAULTS: Final[tuple[dict[str, Any], ...]] = (
    {"kind": "rate_limited", "probability": 0.01, "seed": 1},
    {"kind": "server_error", "when": "before", "probability": 0.02, "seed": 2},
    {"kind": "server_error", "when": "after", "probability": 0.02, "seed": 3},
    {"kind": "reset", "when": "after", "probability": 0.03, "seed": 4},
    {"kind": "html_503", "when": "before", "probability": 0.02, "seed": 5},
)


class UnsettledError(Exception):
    """The stack did not settle in time; the text says what was still under way."""


async def run_scenario(
    scenario: Scenario, endpoints: Endpoints, say: Say, *, patience: float
) -> tuple[int, Count]:
    """Publish the scenario, wait until nothing is left to do, and count.

    Args:
        scenario: What is published.
        endpoints: The stack.
        say: Called with a line of text after each step.
        patience: How many seconds each wait may take.

    Returns:
        How many usage messages the broker confirmed, and the count.

    Raises:
        NotPublishedError: a message or a request was not confirmed.
        UnsettledError: something was still under way after ``patience`` seconds.
    """
    early = len(scenario.early)
    await _publish_by_http(endpoints, scenario.early)
    accounts = await _until(
        lambda: _accounts(endpoints), lambda found: len(found) >= early, patience
    )
    say(f"{early} users, published by HTTP, have become customers at Stripe")
    await _delete_customer(endpoints, accounts[scenario.deleted])
    say("one of those customers was deleted at Stripe")
    async with EmulatorClient(endpoints.emulator) as emulator:
        for fault in FAULTS:
            await emulator.add_fault(
                **fault, times=None, method="POST", path_prefix="/v1/billing/meter_events"
            )
    say("Stripe now sometimes answers 429, 500 or 503, or resets the connection")
    await publish_all(endpoints.publisher_amqp, scenario.usage)
    published = len(scenario.usage)
    say(f"{published} messages about tool runs are published and confirmed")
    await _publish_by_http(endpoints, scenario.late)
    say("the last user was created after their usage")
    return published, await _settle(endpoints, published, say, patience)


async def _publish_by_http(endpoints: Endpoints, events: Sequence[Event]) -> None:
    """Publish ``events`` in one request to the events API.

    Raises:
        NotPublishedError: the answer is not 202.
    """
    headers = {
        "Authorization": f"Bearer {endpoints.api_key}",
        "Content-Type": "application/cloudevents-batch+json",
    }
    body = b"[%b]" % b",".join(event.body for event in events)
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{endpoints.events_api}/v1/events", data=body) as answer,
    ):
        if answer.status != HTTPStatus.ACCEPTED:
            raise NotPublishedError(f"not published: the events API answered {answer.status}")


async def _settle(endpoints: Endpoints, published: int, say: Say, patience: float) -> Count:
    """Count again and again until every message has been read and every run has an outcome."""

    async def counted() -> Count:
        found = await count(endpoints)
        say(
            f"recorded {found.recorded}, waiting {found.waiting}, reported {found.reported},"
            f" rejected {found.rejected}, in doubt {found.in_doubt}"
        )
        return found

    def settled(found: Count) -> bool:
        read = found.recorded + found.duplicates + found.unreadable
        return read >= published and found.waiting == 0

    return await _until(counted, settled, patience, every=1.0)


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


async def _accounts(endpoints: Endpoints) -> dict[UUID, str]:
    """Return the customers of the users that usage-ingest can bill."""
    connection = await asyncpg.connect(endpoints.ledger)
    try:
        rows = await connection.fetch("SELECT user_id, stripe_customer_id FROM billing_accounts")
    finally:
        await connection.close()
    return {row["user_id"]: row["stripe_customer_id"] for row in rows}


async def _delete_customer(endpoints: Endpoints, customer: str) -> None:
    url = f"{endpoints.emulator}/v1/customers/{customer}"
    headers = {"Authorization": f"Bearer {endpoints.stripe_key}"}
    async with (
        aiohttp.ClientSession(headers=headers, raise_for_status=True) as session,
        session.delete(url),
    ):
        return
