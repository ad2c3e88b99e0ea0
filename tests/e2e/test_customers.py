"""Customers and meters through the real processes: all usage is billed, on each meter."""

from uuid import uuid4

from support.events import past_run, user_created
from support.platform import Platform
from support.waiting import eventually

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


async def test_usage_of_a_deleted_customer_is_billed_to_the_next(platform: Platform) -> None:
    """The report is refused; `reprovision` makes a new customer, and the usage goes to it."""
    platform.start()
    user = uuid4()
    await platform.vhost.publish(user_created(user))
    first = await customer(platform)
    await platform.delete_customer(first)
    await platform.vhost.publish(past_run(user))
    await reported(platform, [("tool_call_executed", "rejected", 1)])

    await platform.run_command("customer_provisioner", "reprovision", str(user))
    second = await customer(platform, generation=2)

    assert second != first
    await reported(
        platform, [("tool_call_executed", "reported", 1), ("tool_call_executed", "superseded", 1)]
    )
    async with platform.stripe() as stripe:
        sums = {row["customer"]: row["value"] for row in await stripe.sums()}
    assert sums == {second: 1}


async def test_missing_meter_delays_only_its_own_reports(platform: Platform) -> None:
    """Runs and tokens have a meter each; token reports wait until theirs exists, runs do not."""
    platform.settings["STRIPE_TOKENS_METER_EVENT_NAME"] = "tokens_used"
    platform.start()
    user = uuid4()
    await platform.vhost.publish(user_created(user))
    customer_id = await customer(platform)

    await platform.vhost.publish(
        past_run(user, token_count=7),
        past_run(user),
    )
    waiting = ("tokens_used", "forwarded", 7)
    await eventually(
        lambda: platform.rows("usage_ingest", REPORTS),
        lambda rows: waiting in rows and ("tool_call_executed", "reported", 2) in rows,
        within=60,
    )
    await platform.run_command("stripe_reporter", "meters", "ensure")

    await reported(
        platform, [("tokens_used", "reported", 7), ("tool_call_executed", "reported", 2)]
    )
    async with platform.stripe() as stripe:
        sums = {(row["customer"], row["event_name"]): row["value"] for row in await stripe.sums()}
    assert sums == {(customer_id, "tool_call_executed"): 2, (customer_id, "tokens_used"): 7}
