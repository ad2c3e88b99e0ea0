"""Gathering the evidence from the databases, the broker's queues and Stripe."""

import asyncio
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import aio_pika
import aiohttp
import aiormq

from local_stack.catalogue import OPERATOR, VHOST
from local_stack.dead_letters import read_dead_letters
from metering_chaos.environment import DATABASE_ERRORS, Environment
from metering_chaos.evidence import (
    Evidence,
    FirstUse,
    HourDifference,
    LateReading,
    LaterWord,
    LedgerEvent,
    MeterEvent,
    ModelUsage,
    Report,
    ToolRun,
)
from metering_chaos.later_word import rejected_identifiers
from metering_chaos.plan import INGEST, PROVISIONER
from metering_chaos.publisher import LoadPublisher

# The columns are in the order of the fields of the classes of the evidence.
EVENTS: Final = """
SELECT event_id, user_id, server_id, tool_name, origin, status, token_count, billing_state,
       claim_id, model, input_tokens, output_tokens
  FROM usage_events LEFT JOIN usage_details USING (event_id)
"""
LATE_READINGS: Final = "SELECT event_id, value, billing_state, claim_id FROM late_readings"
FIRST_USES: Final = "SELECT account_id, server_id, tool_name, claim_id FROM first_uses"
REPORTS: Final = """
SELECT report_id, identifier, claim_id, stripe_customer_id, meter, value, event_count, state
  FROM usage_reports
"""
ACCOUNTS: Final = "SELECT user_id, stripe_customer_id FROM billing_accounts"
DIFFERENCES: Final = """
SELECT stripe_customer_id, meter, hour, kind,
       (counted - CASE WHEN counted < expected THEN expected ELSE at_most END)::bigint
  FROM differences WHERE closed_at IS NULL
"""
PROFILES: Final = "SELECT user_id FROM user_profiles"


UNREADABLE: Final = (*DATABASE_ERRORS, aiohttp.ClientError, aiormq.exceptions.AMQPError)
"""What reading raises while a server is away."""


async def gather_evidence(
    environment: Environment, publisher: LoadPublisher, *, later: bool = False
) -> Evidence:
    """Read everything; nothing is changed, and dead letters stay in their queues.

    ``later``: also what Stripe has said later, and where its sums differ.

    Raises one of ``UNREADABLE`` while a server is away.
    """
    stack = environment.stack
    async with environment.database(INGEST) as ledger:
        events, late_readings, first_uses, reports, accounts, differences = [
            await ledger.fetch(query)
            for query in (EVENTS, LATE_READINGS, FIRST_USES, REPORTS, ACCOUNTS, DIFFERENCES)
        ]
    async with environment.database(PROVISIONER) as provisioning:
        profiles = await provisioning.fetch(PROFILES)
    return Evidence(
        confirmed=tuple(publisher.confirmed),
        unconfirmed=tuple(publisher.unconfirmed),
        organisations=environment.organisations,
        events=tuple(
            LedgerEvent(event_id, ToolRun(*run), state, claim, _usage(model, read, written))
            for event_id, *run, state, claim, model, read, written in events
        ),
        late_readings=tuple(LateReading(*row) for row in late_readings),
        first_uses=tuple(FirstUse(*row) for row in first_uses),
        reports=tuple(Report(*row) for row in reports),
        profiles=frozenset(row["user_id"] for row in profiles),
        accounts={row["user_id"]: row["stripe_customer_id"] for row in accounts},
        dead_letters=await read_dead_letters(stack.amqp_url(OPERATOR), environment.queues.kept),
        meter_events=await _meter_events(environment),
        sums=await _sums(environment),
        customers=await read_customers(stack.emulator.url, stack.stripe_key),
        queued=await read_depths(environment),
        later=LaterWord(
            await rejected_identifiers(environment),
            tuple(HourDifference(*row) for row in differences),
        )
        if later
        else None,
    )


def _usage(model: str | None, read: int, written: int) -> ModelUsage | None:
    return None if model is None else ModelUsage(model, read, written)


async def _meter_events(environment: Environment) -> tuple[MeterEvent, ...]:
    """Read what Stripe accepted, each identifier with the content of its last event."""
    attempts = await environment.stripe.attempts()
    counted, uncounted = await environment.stripe.events(), await environment.stripe.uncounted()
    content = {event["identifier"]: event for event in (*counted, *uncounted)}
    lost = {event["identifier"] for event in uncounted}
    return tuple(
        MeterEvent(
            identifier,
            content[identifier]["payload"]["stripe_customer_id"],
            content[identifier]["event_name"],
            int(content[identifier]["payload"]["value"]),
            counts["accepted"],
            _hour(content[identifier]["timestamp"]),
            counted=identifier not in lost,
        )
        for identifier, counts in attempts.items()
        if counts["accepted"]
    )


def _hour(timestamp: int) -> datetime:
    return datetime.fromtimestamp(timestamp // 3600 * 3600, UTC)


async def _sums(environment: Environment) -> dict[tuple[str, str], int]:
    rows = await environment.stripe.sums()
    return {(row["customer"], row["event_name"]): int(row["value"]) for row in rows}


async def read_customers(url: str, key: str) -> dict[str, UUID]:
    """Read whose Stripe's customers are; it lists them in pages of up to 100."""
    found: dict[str, UUID] = {}
    parameters = {"limit": "100"}
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(headers=headers, raise_for_status=True) as session:
        while True:
            async with session.get(f"{url}/v1/customers", params=parameters) as answer:
                page = await answer.json()
            found |= {each["id"]: UUID(each["metadata"]["user_id"]) for each in page["data"]}
            if not page["has_more"]:
                return found
            parameters["starting_after"] = page["data"][-1]["id"]


async def read_depths(environment: Environment) -> dict[str, int]:
    """Count the ready messages of the queues that are empty when everything is done."""
    broker = environment.stack.broker
    url = broker.amqp_url(broker.admin.user, broker.admin.password, VHOST)
    found = {}
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        for name in (*environment.queues.work, *environment.queues.tiers):
            declared = await asyncio.wait_for(channel.declare_queue(name, passive=True), 10)
            found[name] = declared.declaration_result.message_count or 0
    return found
