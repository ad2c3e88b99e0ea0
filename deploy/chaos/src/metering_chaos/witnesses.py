"""Reading the evidence: the databases, the broker's queues and Stripe, each by its own door."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

import aio_pika
import aiohttp
import aiormq
import asyncpg

from local_stack.catalogue import VHOST
from metering_chaos.arena import Arena
from metering_chaos.evidence import Charge, Evidence, Fact, LedgerEvent, Letter, Report
from metering_chaos.plan import TIERS, WORK_QUEUES
from metering_chaos.publisher import LoadPublisher

KEPT: Final = (*(f"{queue}.dlq" for queue in WORK_QUEUES), "unroutable")
EMPTY_AT_REST: Final = (*WORK_QUEUES, *TIERS)

EVENTS: Final = """
SELECT event_id, user_id, server_id, tool_name, origin, status, token_count, billing_state, claim_id
  FROM usage_events
"""
REPORTS: Final = """
SELECT report_id, identifier, claim_id, stripe_customer_id, meter, value, event_count, state
  FROM usage_reports
"""
ACCOUNTS: Final = "SELECT user_id, stripe_customer_id FROM billing_accounts"
PROFILES: Final = "SELECT user_id FROM user_profiles"


UNREADABLE: Final = (
    OSError,
    aiohttp.ClientError,
    aiormq.exceptions.AMQPError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
)
"""What reading raises while a server is not there."""


async def gather_evidence(arena: Arena, publisher: LoadPublisher) -> Evidence:
    """Read everything; nothing is changed, and dead letters stay where they are.

    Raises one of ``UNREADABLE`` while a server is not there.
    """
    stack = arena.stack
    events, reports, accounts = await _rows(
        stack.database_url("usage-ingest", owner=True), EVENTS, REPORTS, ACCOUNTS
    )
    (profiles,) = await _rows(stack.database_url("customer-provisioner", owner=True), PROFILES)
    return Evidence(
        confirmed=tuple(publisher.confirmed),
        unconfirmed=tuple(publisher.unconfirmed),
        events=tuple(map(_event, events)),
        reports=tuple(map(_report, reports)),
        profiles=frozenset(row["user_id"] for row in profiles),
        accounts={row["user_id"]: row["stripe_customer_id"] for row in accounts},
        letters=await read_letters(stack.amqp_url("operator")),
        charges=await _charges(arena),
        sums=await _sums(arena),
        customers=await customers_by_user(stack.emulator.url, stack.stripe_key),
        queued=await read_depths(arena),
    )


async def read_letters(url: str, queues: tuple[str, ...] = KEPT) -> tuple[Letter, ...]:
    """Look at what is dead-lettered or unroutable, as a person does under *Get messages*."""
    letters = []
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        for queue in queues:
            declared = await channel.get_queue(queue)
            while (message := await declared.get(fail=False)) is not None:
                reason = str(message.headers.get("nexus-reason", "by the broker"))
                letters.append(Letter(queue, reason, message.body))
    return tuple(letters)


async def _rows(url: str, *queries: str) -> list[list[Mapping[str, Any]]]:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        return [await connection.fetch(query) for query in queries]
    finally:
        await connection.close()


def _event(row: Mapping[str, Any]) -> LedgerEvent:
    fact = Fact(
        row["user_id"],
        row["server_id"],
        row["tool_name"],
        row["origin"],
        row["status"],
        row["token_count"],
    )
    return LedgerEvent(row["event_id"], fact, row["billing_state"], row["claim_id"])


def _report(row: Mapping[str, Any]) -> Report:
    return Report(
        row["report_id"],
        row["identifier"],
        row["claim_id"],
        row["stripe_customer_id"],
        row["meter"],
        row["value"],
        row["event_count"],
        row["state"],
    )


async def _charges(arena: Arena) -> tuple[Charge, ...]:
    """Put together what Stripe accepted, each identifier with the contents of its last event."""
    attempts = await arena.stripe.attempts()
    contents = {event["identifier"]: event for event in await arena.stripe.events()}
    return tuple(
        Charge(
            identifier,
            contents[identifier]["payload"]["stripe_customer_id"],
            contents[identifier]["event_name"],
            int(contents[identifier]["payload"]["value"]),
            seen["accepted"],
        )
        for identifier, seen in attempts.items()
        if seen["accepted"]
    )


async def _sums(arena: Arena) -> dict[tuple[str, str], int]:
    rows = await arena.stripe.sums()
    return {(row["customer"], row["event_name"]): int(row["value"]) for row in rows}


async def customers_by_user(url: str, key: str) -> Counter[UUID]:
    """Count the customers Stripe has of each user; it gives them in pages of up to 100."""
    found: Counter[UUID] = Counter()
    parameters = {"limit": "100"}
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(headers=headers, raise_for_status=True) as session:
        while True:
            async with session.get(f"{url}/v1/customers", params=parameters) as answer:
                page = await answer.json()
            found.update(UUID(each["metadata"]["user_id"]) for each in page["data"])
            if not page["has_more"]:
                return found
            parameters["starting_after"] = page["data"][-1]["id"]


async def read_depths(arena: Arena) -> dict[str, int]:
    """Count what is ready in the queues that are empty when all is done."""
    broker = arena.stack.broker
    url = broker.amqp_url(broker.admin.user, broker.admin.password, VHOST)
    found = {}
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        for name in EMPTY_AT_REST:
            declared = await asyncio.wait_for(channel.declare_queue(name, passive=True), 10)
            found[name] = declared.declaration_result.message_count or 0
    return found
