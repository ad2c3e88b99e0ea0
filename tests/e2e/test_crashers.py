"""A message that kills its consumer: it alone is dead-lettered, not its neighbours."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from local_stack.server_process import ServerProcess
from nexus_contracts import Event, EventData
from nexus_messaging.retry import CRASHED_FROM
from nexus_messaging.topology import (
    EVENTS,
    INTERNAL,
    TOOL_EXECUTED_QUEUE,
    USAGE_RECORDED_QUEUE,
    USER_CREATED_QUEUE,
)
from support.events import report, tool_run, user_created
from support.platform import Platform
from support.waiting import eventually, repeated

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]

NEIGHBOURS = 40
CRASHER = UUID("0dead000-0000-4000-8000-000000000000")

# As a bug in a library written in C would do: the process dies on reading one event.
FATAL_READER = f"""
import os
import nexus_contracts

_read = nexus_contracts.read_event


def read_event(body, accepted):
    if b"{CRASHER}" in body:
        os._exit(139)
    return _read(body, accepted)


nexus_contracts.read_event = read_event
"""


@asynccontextmanager
async def supervised(service: ServerProcess) -> AsyncIterator[list[int]]:
    """Restart a service whenever it dies, as an orchestrator does; yield its process ids."""
    started: list[int] = []

    async def restart() -> None:
        if not service.alive:
            service.launch()
            started.append(service.pid or 0)

    async with repeated(restart, every=0.1):
        yield started


Messages = tuple[Event[EventData], Sequence[Event[EventData]]]


async def tool_runs(_platform: Platform) -> Messages:
    """Return a tool run that crashes its reader, and good ones."""
    return tool_run(event_id=CRASHER), [tool_run() for _ in range(NEIGHBOURS)]


async def users(_platform: Platform) -> Messages:
    """Return a user that crashes its reader, and good ones."""
    return user_created(CRASHER), [user_created(uuid4()) for _ in range(NEIGHBOURS)]


async def reports(platform: Platform) -> Messages:
    """Return a report that crashes its reader, and good ones, each of a customer at Stripe."""
    ids = [CRASHER, *(uuid4() for _ in range(NEIGHBOURS))]
    customers = await platform.customers(len(ids))
    crasher, *good = map(report, customers, ids)
    return crasher, good


@dataclass(frozen=True)
class Case:
    """A service, its queue, the messages for it, and the count of those processed."""

    service: str
    queue: str
    exchange: str
    make: Callable[[Platform], Awaitable[Messages]]
    processed: str


CASES = (
    Case(
        "usage-ingest",
        TOOL_EXECUTED_QUEUE,
        EVENTS,
        tool_runs,
        "SELECT count(*)::int FROM usage_events",
    ),
    Case(
        "stripe-reporter",
        USAGE_RECORDED_QUEUE,
        INTERNAL,
        reports,
        "SELECT count(*)::int FROM meter_calls WHERE state = 'accepted'",
    ),
    Case(
        "customer-provisioner",
        USER_CREATED_QUEUE,
        EVENTS,
        users,
        "SELECT count(*)::int FROM user_profiles WHERE state = 'provisioned'",
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.service)
async def test_message_that_kills_its_consumer_is_dead_lettered_alone(
    platform: Platform, tmp_path: Path, case: Case
) -> None:
    """It arrives in the middle of others, which are unacknowledged whenever the process dies.

    It is dead-lettered unread with a reason, after a bounded number of deaths; each of its
    neighbours is processed and none is dead-lettered.
    """
    (tmp_path / "sitecustomize.py").write_text(FATAL_READER, encoding="utf-8")
    platform.settings["PYTHONPATH"] = str(tmp_path)
    platform.start(case.service)
    service = platform.services[case.service]
    crasher, good = await case.make(platform)
    service.stop()
    middle = NEIGHBOURS // 2
    await platform.vhost.publish(*good[:middle], crasher, *good[middle:], exchange=case.exchange)

    async def processed() -> int:
        return await platform.number(case.service.replace("-", "_"), case.processed)

    async with supervised(service) as started:
        await eventually(processed, lambda count: count == NEIGHBOURS, within=300, every=0.5)
        [letter] = await eventually(
            lambda: platform.vhost.dead_letters(case.queue), bool, within=60, every=0.5
        )

    assert letter.headers["nexus-reason"] == "crashed_consumer"
    assert letter.body == crasher.body()
    assert len(started) <= CRASHED_FROM + 1
