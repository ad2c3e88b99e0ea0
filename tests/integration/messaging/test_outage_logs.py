"""What an outage of the broker writes into the log: its begin and its end, no line a message."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from structlog.testing import capture_logs

from integration.messaging.bench import MIN_SCALE, PREFETCH, Bench
from nexus_messaging.errors import TransientError
from nexus_messaging.message import Delivery
from nexus_messaging.retry import Done, Outcome
from support.events import tool_run
from support.vhost import Vhost
from support.waiting import eventually


async def test_copies_that_an_outage_leaves_unconfirmed_are_logged_together(
    own_vhost: Vhost,
) -> None:
    """One line when it begins, one when it is over, each with how many there were."""
    bench = Bench(own_vhost, "single")
    away = asyncio.Event()

    async def fail_once_the_broker_is_away(_delivery: Delivery) -> Outcome:
        if len(bench.handled) == 1:
            return Done()  # the one that a new connection begins with
        await away.wait()
        raise TransientError("not now")

    bench.behave = fail_once_the_broker_is_away
    await own_vhost.publish(*(tool_run() for _ in range(PREFETCH + 1)))
    with capture_logs() as logs:
        async with bench.consuming():
            await eventually(bench.tried, lambda tried: tried == PREFETCH + 1)
            await own_vhost.delete()
            await eventually(lambda: logged(logs), lambda names: names["publisher_lost"] == 1)
            away.set()
            await eventually(lambda: logged(logs), lambda names: names["copies_not_confirmed"] > 0)
            await own_vhost.create(tier_scale=MIN_SCALE)
            await eventually(lambda: logged(logs), lambda names: names["copies_confirmed"] > 0)

    copies = [each for each in logs if each["event"].startswith("copies_")]
    assert [(each["event"], each["copies"]) for each in copies] == [
        ("copies_not_confirmed", PREFETCH),
        ("copies_confirmed", PREFETCH),
    ]


async def logged(logs: Sequence[Mapping[str, Any]]) -> Counter[str]:
    """Count what was logged by its names."""
    return Counter(each["event"] for each in logs)
