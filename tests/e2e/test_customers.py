"""Customers and meters through the real processes: everyone is billed in the end, on each meter."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import aiohttp

from rig.events import tool_run, user_created
from rig.platform import Platform
from rig.waiting import eventually

PAST = timedelta(seconds=30)
REPORTS = "SELECT meter, state, sum(value)::int FROM usage_reports GROUP BY 1, 2 ORDER BY 1, 2"


async def customer(platform: Platform, generation: int = 1) -> str:
    """Wait until ingest knows the customer of that generation."""
    query = "SELECT generation, stripe_customer_id FROM billing_accounts"
    rows = await eventually(
        lambda: platform.rows("usage_ingest", query),
        lambda rows: bool(rows) and rows[0][0] == generation,
        within=60,
    )
    return str(rows[0][1])


async def reported(platform: Platform, expected: list[tuple[object, ...]]) -> None:
    """Wait until the reports stand as ``expected``."""
    await eventually(
        lambda: platform.rows("usage_ingest", REPORTS), lambda rows: rows == expected, within=60
    )


async def delete_at_stripe(platform: Platform, customer_id: str) -> None:
    """Delete a customer as somebody in Stripe's dashboard may."""
    url = f"{platform.emulator_url}/v1/customers/{customer_id}"
    headers = {"Authorization": f"Bearer {platform.stripe_key}"}
    async with aiohttp.ClientSession() as session, session.delete(url, headers=headers) as answer:
        answer.raise_for_status()


async def test_a_user_whose_customer_was_deleted_is_fully_billed_in_the_end(
    platform: Platform,
) -> None:
    """Refused for the deleted customer; a new one is made by command; the usage goes to it."""
    platform.start()
    user = uuid4()
    await platform.vhost.publish(user_created(user))
    first = await customer(platform)
    await delete_at_stripe(platform, first)
    await platform.vhost.publish(tool_run(user, time=datetime.now(UTC) - PAST))
    await reported(platform, [("tool_call_executed", "rejected", 1)])

    code, said = await platform.command("customer_provisioner", "reprovision", str(user))
    second = await customer(platform, generation=2)

    assert code == 0, said
    assert second != first
    await reported(
        platform, [("tool_call_executed", "reported", 1), ("tool_call_executed", "superseded", 1)]
    )
    async with platform.stripe() as stripe:
        sums = {row["customer"]: row["value"] for row in await stripe.sums()}
    assert sums == {second: 1}


async def test_runs_and_tokens_are_counted_apart_and_a_missing_meter_holds_up_only_itself(
    platform: Platform,
) -> None:
    """The second meter comes by configuration; before it exists its reports wait, runs do not."""
    platform.settings["STRIPE_TOKENS_METER_EVENT_NAME"] = "tokens_used"
    platform.start()
    user = uuid4()
    await platform.vhost.publish(user_created(user))
    customer_id = await customer(platform)

    await platform.vhost.publish(
        tool_run(user, time=datetime.now(UTC) - PAST, token_count=7),
        tool_run(user, time=datetime.now(UTC) - PAST),
    )
    waiting = ("tokens_used", "forwarded", 7)
    await eventually(
        lambda: platform.rows("usage_ingest", REPORTS),
        lambda rows: waiting in rows and ("tool_call_executed", "reported", 2) in rows,
        within=60,
    )
    code, said = await platform.command("stripe_reporter", "meters", "ensure")

    assert code == 0, said
    await reported(
        platform, [("tokens_used", "reported", 7), ("tool_call_executed", "reported", 2)]
    )
    async with platform.stripe() as stripe:
        sums = {(row["customer"], row["event_name"]): row["value"] for row in await stripe.sums()}
    assert sums == {(customer_id, "tool_call_executed"): 2, (customer_id, "tokens_used"): 7}
