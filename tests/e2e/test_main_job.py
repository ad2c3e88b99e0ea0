"""From a published tool run to money counted at Stripe, through the real processes."""

import asyncio
import signal
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from nexus_messaging.topology import TOOL_EXECUTED_QUEUE
from rig.events import tool_run, user_created
from rig.platform import Platform
from rig.waiting import eventually

MOST_LINES = 50
"""Of log for thousands of messages: none is written for one that went well."""

SETTLED = "SELECT state, sum(event_count)::int FROM usage_reports GROUP BY 1 ORDER BY 1"


async def counted(platform: Platform) -> float:
    """Return all usage that Stripe counted."""
    async with platform.stripe() as stripe:
        return sum(row["value"] for row in await stripe.sums())


async def test_a_tool_run_is_counted_at_stripe_once_even_if_told_three_times(
    platform: Platform,
) -> None:
    """The main job: user, run, duplicates; one customer, one count, and the ledger says so."""
    platform.start()
    user = uuid4()
    run = tool_run(user, time=datetime.now(UTC) - timedelta(seconds=30))

    await platform.vhost.publish(run, run)
    await platform.vhost.publish(user_created(user))
    await platform.vhost.publish(run)

    async def reported() -> list[tuple[object, ...]]:
        return await platform.rows("usage_ingest", SETTLED)

    assert await eventually(reported, lambda rows: rows == [("reported", 1)])
    assert await counted(platform) == 1
    [(identifier,)] = await platform.rows(
        "usage_ingest", "SELECT stripe_event_id FROM billing_usage_events"
    )
    async with platform.stripe() as stripe:
        assert list(await stripe.attempts()) == [identifier]


async def test_an_answer_lost_at_stripe_is_billed_once(platform: Platform) -> None:
    """The call took effect, its answer never came: the retry finds it counted."""
    platform.start()
    user = uuid4()
    await platform.vhost.publish(user_created(user))
    async with platform.stripe() as stripe:
        await stripe.add_fault("reset", when="after", path_prefix="/v1/billing/meter_events")
    await platform.vhost.publish(tool_run(user, time=datetime.now(UTC) - timedelta(seconds=30)))

    async def reported() -> list[tuple[object, ...]]:
        return await platform.rows("usage_ingest", SETTLED)

    assert await eventually(reported, lambda rows: rows == [("reported", 1)])
    assert await counted(platform) == 1
    [(unknown,)] = await platform.rows("usage_ingest", "SELECT ever_unknown FROM usage_reports")
    assert unknown is True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
async def test_stopping_ingest_in_mid_batch_loses_and_doubles_nothing(
    platform: Platform, number: signal.Signals
) -> None:
    """Runs under way are recorded by the next process, whichever way the first one ended."""
    platform.start("usage-ingest")
    user = uuid4()
    runs = [tool_run(user) for _ in range(3000)]
    publishing = asyncio.create_task(platform.vhost.publish(*runs))
    ingest = platform.services["usage-ingest"]

    async def recorded() -> int:
        rows = await platform.rows("usage_ingest", "SELECT count(*)::int FROM usage_events")
        return int(str(rows[0][0]))

    await eventually(recorded, lambda count: count > 100)
    if number == signal.SIGTERM:
        ingest.terminate()
    else:
        ingest.kill()
    assert ingest.wait_for_exit(15)
    await publishing
    ingest.launch()

    assert await eventually(recorded, lambda count: count == len(runs), within=60)
    assert len(platform.log("usage-ingest").splitlines()) < MOST_LINES
    assert await platform.vhost.dead_letters(TOOL_EXECUTED_QUEUE) == []
