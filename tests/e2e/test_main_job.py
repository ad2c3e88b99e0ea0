"""From a published tool run to money counted at Stripe, through the real processes."""

import asyncio
import signal
from uuid import uuid4

import pytest

from nexus_messaging.topology import TOOL_EXECUTED_QUEUE
from support.events import past_run, tool_run, user_created
from support.platform import Platform
from support.waiting import eventually

MAX_LINES = 50
"""Log lines for thousands of messages: a message that ends well has none."""

SETTLED = "SELECT state, sum(event_count)::int FROM usage_reports GROUP BY 1 ORDER BY 1"


async def counted(platform: Platform) -> float:
    """Return all usage that Stripe counted."""
    async with platform.stripe() as stripe:
        return sum(row["value"] for row in await stripe.sums())


async def test_run_published_three_times_is_counted_once(platform: Platform) -> None:
    """The main job: a user, a run and its duplicates give one customer and one count."""
    platform.start()
    user = uuid4()
    run = past_run(user)

    await platform.vhost.publish(run, run)
    await platform.vhost.publish(user_created(user))
    await platform.vhost.publish(run)

    await eventually(
        lambda: platform.rows("usage_ingest", SETTLED), lambda rows: rows == [("reported", 1)]
    )
    assert await counted(platform) == 1
    [(identifier,)] = await platform.rows(
        "usage_ingest", "SELECT stripe_event_id FROM billing_usage_events"
    )
    async with platform.stripe() as stripe:
        assert list(await stripe.attempts()) == [identifier]


async def test_run_with_a_lost_answer_is_counted_once(platform: Platform) -> None:
    """The call took effect without an answer: the retry is a duplicate for Stripe."""
    platform.start()
    user = uuid4()
    await platform.vhost.publish(user_created(user))
    async with platform.stripe() as stripe:
        await stripe.add_fault("reset", when="after", path_prefix="/v1/billing/meter_events")
    await platform.vhost.publish(past_run(user))

    await eventually(
        lambda: platform.rows("usage_ingest", SETTLED), lambda rows: rows == [("reported", 1)]
    )
    assert await counted(platform) == 1
    [(unknown,)] = await platform.rows("usage_ingest", "SELECT ever_unknown FROM usage_reports")
    assert unknown is True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
async def test_runs_of_a_stopped_ingest_are_recorded_once(
    platform: Platform, number: signal.Signals
) -> None:
    """The next process records the unacknowledged runs, whether the first was stopped or killed."""
    platform.start("usage-ingest")
    user = uuid4()
    runs = [tool_run(user) for _ in range(3000)]
    publishing = asyncio.create_task(platform.vhost.publish(*runs))
    ingest = platform.services["usage-ingest"]

    async def recorded() -> int:
        return await platform.number("usage_ingest", "SELECT count(*) FROM usage_events")

    await eventually(recorded, lambda count: count > 100)
    if number == signal.SIGTERM:
        ingest.terminate()
    else:
        ingest.kill()
    assert ingest.wait_for_exit(15)
    await publishing
    ingest.launch()

    assert await eventually(recorded, lambda count: count == len(runs), within=60)
    assert len(platform.log("usage-ingest").splitlines()) < MAX_LINES
    assert await platform.vhost.dead_letters(TOOL_EXECUTED_QUEUE) == []
