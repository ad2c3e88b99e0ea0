"""What Stripe says after it has accepted reports: rejections, and sums that differ."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import aiohttp
import pytest

from local_stack.catalogue import METER
from nexus_contracts import Event, ToolExecuted
from support.events import tool_run, user_created
from support.platform import Platform
from support.stripe_webhooks import PATH, WEBHOOK_SECRET
from support.waiting import eventually

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

CODE: Final = "meter_event_invalid_value"
CUSTOMERS: Final = "SELECT user_id, stripe_customer_id FROM billing_accounts"
REPORTS: Final = "SELECT stripe_customer_id, state, reason FROM usage_reports"
DIFFERENCES: Final = """
SELECT stripe_customer_id, kind, expected, counted FROM differences WHERE closed_at IS NULL
"""
A_MINUTE_LATER: Final = """
UPDATE meter_calls SET answered_at = answered_at - interval '1 minute' RETURNING 1
"""
"""An answer's sum is read a minute after Stripe's lag, when the answer is surely committed."""


async def by_user(platform: Platform, users: list[UUID]) -> list[str]:
    """Wait for the customers of ``users`` and return them."""
    rows = await eventually(
        lambda: platform.rows("usage_ingest", CUSTOMERS), lambda found: len(found) == len(users)
    )
    customers = {user: str(customer) for user, customer in rows}
    return [customers[user] for user in users]


async def send_elsewhere(platform: Platform, customer: str, value: int, at: datetime) -> None:
    """Report usage of a customer past us, as a script with a key of Stripe's does."""
    form = {
        "event_name": METER,
        "payload[stripe_customer_id]": customer,
        "payload[value]": str(value),
        "timestamp": str(int(at.timestamp())),
    }
    headers = {"Authorization": f"Bearer {platform.stripe_key}"}
    async with (
        aiohttp.ClientSession(platform.emulator_url, headers=headers) as session,
        session.post("/v1/billing/meter_events", data=form) as answer,
    ):
        assert answer.status == 200, await answer.text()


async def test_what_stripe_rejects_loses_or_has_from_others_is_named(platform: Platform) -> None:
    """By a webhook while the broker restarts, and by Stripe's sums; nothing is sent again."""
    platform.settings |= {
        "STRIPE_WEBHOOK_SECRET": WEBHOOK_SECRET,
        "STRIPE_SUMMARY_LAG_SECONDS": "0",
    }
    platform.start()
    users = [uuid4() for _ in range(4)]
    await platform.vhost.publish(*map(user_created, users))
    rejected, dropped, doubled, counted = await by_user(platform, users)
    at = datetime.now(UTC) - timedelta(seconds=90)
    values = {rejected: 5, dropped: 3, doubled: 4, counted: 7}
    runs: list[list[Event[ToolExecuted]]] = [
        [tool_run(user, time=at) for _ in range(value)]
        for user, value in zip(users, values.values(), strict=True)
    ]

    async with platform.stripe() as stripe:
        await stripe.set_options(webhook_retry_scale=0.001)
        url = f"{platform.services['stripe-reporter'].url}{PATH}"
        await stripe.add_webhook(url, WEBHOOK_SECRET, ("v1.billing.meter.error_report_triggered",))
        await stripe.add_event_fault("rejected", code=CODE, customer=rejected)
        await stripe.add_event_fault("dropped", customer=dropped)
        await platform.vhost.publish(*(run for of_user in runs for run in of_user))
        await states(platform, dict.fromkeys(values, ("reported", None)))
        await send_elsewhere(platform, doubled, 4, at)

        await asyncio.gather(
            asyncio.to_thread(platform.vhost.broker.restart), stripe.advance_clock(60)
        )
        others = dict.fromkeys((dropped, doubled, counted), ("reported", None))
        await states(platform, {rejected: ("rejected_later", CODE), **others})

        await platform.rows("stripe_reporter", A_MINUTE_LATER)
        found = await eventually(
            lambda: platform.rows("usage_ingest", DIFFERENCES),
            lambda rows: len(rows) == 2,
            within=120,
        )
        attempts = await stripe.attempts()

    assert set(found) == {(dropped, "lower", 3, 0.0), (doubled, "higher", 4, 8.0)}
    assert max(each["attempts"] for each in attempts.values()) == 1
    named = await reconciled(platform)
    assert {each["customer"]: each["kind"] for each in named} == {
        dropped: "lower",
        doubled: "higher",
    }
    assert [each["by"] for each in named if each["customer"] == dropped] == [-3]
    assert [len(each["reports"]) for each in named] == [1, 1]
    _, explained = await platform.command("usage_ingest", "explain", str(runs[0][0].id))
    assert "rejected_later: " in explained
    assert CODE in explained
    _, shown = await platform.command("usage_ingest", "status")
    assert "1 lower (the oldest for " in shown
    assert "1 higher (the oldest for " in shown


async def states(platform: Platform, expected: dict[str, tuple[str, str | None]]) -> None:
    """Wait until each customer's one report is in a state, for a reason."""
    rows = {(customer, *state) for customer, state in expected.items()}
    await eventually(
        lambda: platform.rows("usage_ingest", REPORTS),
        lambda found: len(found) == len(rows) and set(found) == rows,
        within=90,
    )


async def reconciled(platform: Platform) -> list[dict[str, Any]]:
    """Return the differences that `reconcile --json` shows."""
    code, output = await platform.command("usage_ingest", "reconcile", "--json")
    assert code == 0, output
    return [json.loads(line) for line in output.splitlines()]
