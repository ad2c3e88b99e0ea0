"""Copies that can't be published: until each of them is confirmed, its original is not acked."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from integration.messaging.bench import MIN_SCALE, PREFETCH, Bench, close_connections
from nexus_messaging.errors import TransientError
from nexus_messaging.message import Delivery
from nexus_messaging.retry import Done, Outcome
from nexus_messaging.topology import TIERS
from support.events import tool_run
from support.vhost import Vhost
from support.waiting import eventually

Logs = Sequence[Mapping[str, Any]]

MESSAGES = PREFETCH // 2


@pytest.fixture
def logs() -> Iterator[Logs]:
    """Return what is logged."""
    with capture_logs() as lines:
        yield lines


@pytest.fixture(params=["batch", "single"])
async def bench(request: pytest.FixtureRequest, own_vhost: Vhost) -> Bench:
    """Return a bench whose handler asks for retries, on a broker that lacks the tier for them."""
    bench = Bench(own_vhost, request.param)

    async def ask_for_a_retry(delivery: Delivery) -> Outcome:
        if delivery.came_back or len(bench.handled) == 1:
            return Done()  # also for the one that a new connection begins with
        raise TransientError("not now")

    bench.behave = ask_for_a_retry
    await own_vhost.ask("DELETE", "queues/{vhost}/" + TIERS[0].name)
    await own_vhost.publish(*(tool_run() for _ in range(MESSAGES + 1)))
    return bench


async def test_copies_not_confirmed_are_published_until_they_are(bench: Bench, logs: Logs) -> None:
    """Each of them: one that was left out would be a message lost."""
    async with bench.consuming():
        await eventually(lambda: unconfirmed(logs), bool)
        await bench.vhost.create(tier_scale=MIN_SCALE)

        await eventually(lambda: returned(bench), lambda ids: len(ids) == MESSAGES)


async def test_originals_come_again_when_their_copies_were_not_confirmed(
    bench: Bench, logs: Logs
) -> None:
    """They were not acked: had the process ended instead, nothing but them would be left."""
    async with bench.consuming():
        await eventually(lambda: unconfirmed(logs), bool)
        before = set(bench.ids()[1:])
        await close_connections(bench.vhost)
        await eventually(bench.consumes, lambda consumes: not consumes)
        await bench.vhost.create(tier_scale=MIN_SCALE)

        await eventually(lambda: handled_anew(bench), lambda again: before <= again)


async def unconfirmed(logs: Logs) -> bool:
    """Return whether the broker has refused a copy more than once."""
    return any(line["event"] == "copies_not_confirmed" for line in logs)


async def returned(bench: Bench) -> set[str | None]:
    """Return the ids of what was handled after a retry."""
    return {each.message.message_id for each in bench.handled if each.came_back}


async def handled_anew(bench: Bench) -> set[str | None]:
    """Return the ids of what was handled more than once without a retry in between."""
    ids = Counter(each.message.message_id for each in bench.handled if not each.came_back)
    return {name for name, times in ids.items() if times > 1}
