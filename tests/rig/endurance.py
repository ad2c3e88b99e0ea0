"""Services that meet a huge backlog: what piled up, how much memory they took, how fast it went."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final
from uuid import UUID, uuid4

import asyncpg
from yarl import URL

from nexus_messaging.topology import (
    EVENTS,
    INTERNAL,
    MAX_MESSAGE_BYTES,
    TOOL_EXECUTED_QUEUE,
    USAGE_RECORDED_QUEUE,
    USER_CREATED_QUEUE,
    dead_letter_queue,
)
from rig.backlog import LARGE_BYTES, fill_ledger, newcomers, pile_up, reports, runs, unreadable
from rig.events import provisioned
from rig.platform import Platform

CUSTOMERS: Final = 100
LOOK_EVERY: Final = 1.0
MOST_LARGE: Final = 2000
"""Large messages: as many as usage-ingest prefetches, half a gigabyte and more."""

OPEN_ACCOUNTS: Final = """
INSERT INTO billing_accounts (user_id, stripe_customer_id, generation)
SELECT user_id, customer, 1 FROM unnest($1::uuid[], $2::text[]) AS t(user_id, customer)
"""
RECORDED: Final = "SELECT count(*)::int FROM usage_events"
REPORTED: Final = """
SELECT coalesce(sum(event_count), 0)::int, count(*)::int FROM usage_reports WHERE state = 'reported'
"""
UNCLAIMED: Final = """
SELECT count(*)::int FROM usage_events WHERE billing_state IN ('waiting', 'due')
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """What was piled up, each process's peak of resident memory in MiB, and how far it got."""

    what: str
    peaks: Mapping[str, float]
    seconds: float
    done: int
    finished: bool

    def __str__(self) -> str:
        memory = ", ".join(f"{name} {peak:.0f} MiB" for name, peak in self.peaks.items())
        end = "all" if self.finished else "not all"
        rate = self.done / self.seconds
        return f"{self.what}: peak {memory}; {end} done in {self.seconds:.0f} s ({rate:.0f}/s)"


async def recording(platform: Platform, count: int, patience: float) -> Measured:
    """Pile up tool runs, and see them recorded while a reporter sends what becomes of them."""
    users = await _users_with_accounts(platform)
    await pile_up(platform.vhost, runs(users), count, exchange=EVENTS, queue=TOOL_EXECUTED_QUEUE)
    began = time.monotonic()
    platform.start("usage-ingest", "stripe-reporter")
    recorded = await _until(lambda: _number(platform, RECORDED), count, patience)
    seconds = time.monotonic() - began
    reported, reports = await _row(platform, REPORTED)
    what = f"tool runs queued ({reported} of them in {reports} reports counted by then)"
    return Measured(what, _peaks(platform), seconds, recorded, recorded == count)


async def large_runs(platform: Platform, count: int, patience: float) -> Measured:
    """Pile up tool runs nearly as large as the contract allows."""
    count = min(count, MOST_LARGE)
    users = await _users_with_accounts(platform)
    examples = runs(users, LARGE_BYTES)
    await pile_up(platform.vhost, examples, count, exchange=EVENTS, queue=TOOL_EXECUTED_QUEUE)
    began = time.monotonic()
    platform.start("usage-ingest")
    recorded = await _until(lambda: _number(platform, RECORDED), count, patience)
    seconds = time.monotonic() - began
    what = f"{count} tool runs of {LARGE_BYTES} bytes queued"
    return Measured(what, _peaks(platform), seconds, recorded, recorded == count)


async def large_rubbish(platform: Platform, count: int, patience: float) -> Measured:
    """Pile up the largest messages that the broker takes, unreadable, before every service."""
    count = min(count, MOST_LARGE)
    platform.settings["DEAD_LETTER_SHARE_LIMIT"] = "1"
    queues = {
        TOOL_EXECUTED_QUEUE: (EVENTS, "tool.executed.v1"),
        USER_CREATED_QUEUE: (EVENTS, "user.created.v1"),
        USAGE_RECORDED_QUEUE: (INTERNAL, "usage.recorded.v1"),
    }
    for queue, (exchange, event_type) in queues.items():
        examples = unreadable(event_type, MAX_MESSAGE_BYTES)
        await pile_up(platform.vhost, examples, count, exchange=exchange, queue=queue)
    platform.start_stripe()
    began = time.monotonic()
    platform.start("usage-ingest", "customer-provisioner", "stripe-reporter")

    async def dead() -> int:
        return sum([await platform.vhost.depth(dead_letter_queue(queue)) for queue in queues])

    ended = await _until(dead, len(queues) * count, patience)
    what = f"{count} unreadable messages of {MAX_MESSAGE_BYTES} bytes queued for each service"
    return Measured(
        what, _peaks(platform), time.monotonic() - began, ended, ended == len(queues) * count
    )


async def reporting(platform: Platform, count: int, patience: float) -> Measured:
    """Pile up reports in front of a reporter that is told to send 20 a second."""
    platform.settings["STRIPE_MAX_CALLS_PER_SECOND"] = "20"
    return await _reporting(platform, count, patience, "reports queued, 20 calls a second")


async def shut_out(platform: Platform, count: int, patience: float) -> Measured:
    """Pile up reports in front of a reporter whose key is refused."""
    platform.start_stripe()
    async with platform.stripe() as stripe:
        await stripe.set_key(platform.stripe_key, "revoked")
    return await _reporting(platform, count, patience, "reports queued, the key refused")


async def claiming(platform: Platform, count: int, patience: float) -> Measured:
    """Fill the ledger with due events that have not been claimed."""
    users = await _users_with_accounts(platform)
    await fill_ledger(_owner(platform), users, count, "due")
    return await _claimed(platform, count, patience, "due events in the ledger")


async def releasing(platform: Platform, count: int, patience: float) -> Measured:
    """Fill the ledger with one user's events; the customer comes only then."""
    platform.start_stripe()
    [customer] = await platform.customers(1)
    user = uuid4()
    await fill_ledger(_owner(platform), [user], count, "waiting")
    await platform.vhost.publish(provisioned(user, customer), exchange=INTERNAL)
    return await _claimed(platform, count, patience, "events of one user, whose customer comes")


async def provisioning(platform: Platform, count: int, patience: float) -> Measured:
    """Pile up the news of users, many of them told again and again."""
    examples = newcomers(min(count, 10_000))
    await pile_up(platform.vhost, examples, count, exchange=EVENTS, queue=USER_CREATED_QUEUE)
    began = time.monotonic()
    platform.start("customer-provisioner")
    left = await _until(lambda: platform.vhost.depth(USER_CREATED_QUEUE), 0, patience)
    seconds = time.monotonic() - began
    return Measured("users queued", _peaks(platform), seconds, count - left, left == 0)


SCENARIOS: Final[Mapping[str, Callable[[Platform, int, float], Awaitable[Measured]]]] = (
    MappingProxyType(
        {
            "recording": recording,
            "large-runs": large_runs,
            "large-rubbish": large_rubbish,
            "reporting": reporting,
            "shut-out": shut_out,
            "claiming": claiming,
            "releasing": releasing,
            "provisioning": provisioning,
        }
    )
)


async def _reporting(platform: Platform, count: int, patience: float, what: str) -> Measured:
    if not platform.emulator_url:
        platform.start_stripe()
    customers = [f"cus_{number}" for number in range(CUSTOMERS)]
    await pile_up(
        platform.vhost, reports(customers), count, exchange=INTERNAL, queue=USAGE_RECORDED_QUEUE
    )
    began = time.monotonic()
    platform.start("stripe-reporter")
    left = await _until(lambda: platform.vhost.depth(USAGE_RECORDED_QUEUE), 0, patience)
    return Measured(what, _peaks(platform), time.monotonic() - began, count - left, left == 0)


async def _claimed(platform: Platform, count: int, patience: float, what: str) -> Measured:
    began = time.monotonic()
    platform.start("usage-ingest")
    left = await _until(lambda: _number(platform, UNCLAIMED), 0, patience)
    return Measured(what, _peaks(platform), time.monotonic() - began, count - left, left == 0)


async def _users_with_accounts(platform: Platform) -> list[UUID]:
    platform.start_stripe()
    users = [uuid4() for _ in range(CUSTOMERS)]
    customers = await platform.customers(CUSTOMERS)
    connection = await asyncpg.connect(_owner(platform))
    try:
        await connection.execute(OPEN_ACCOUNTS, users, customers)
    finally:
        await connection.close()
    return users


async def _until(ask: Callable[[], Awaitable[int]], wanted: int, patience: float) -> int:
    """Ask until the answer is the wanted one, or patience ends; return the last answer."""
    deadline = time.monotonic() + patience
    while (answer := await ask()) != wanted and time.monotonic() < deadline:  # noqa: ASYNC110 - no server sends word of it
        await asyncio.sleep(LOOK_EVERY)
    return answer


async def _number(platform: Platform, query: str) -> int:
    [number] = await _row(platform, query)
    return number


async def _row(platform: Platform, query: str) -> list[int]:
    [row] = await platform.rows("usage_ingest", query)
    return [int(str(number)) for number in row]


def _owner(platform: Platform) -> str:
    return str(URL(platform.databases["usage_ingest"]).with_user("usage_ingest_owner"))


def _peaks(platform: Platform) -> dict[str, float]:
    return {name: _peak(service.pid) for name, service in platform.services.items()}


def _peak(pid: int | None) -> float:
    """Return a process's largest resident set so far, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    [line] = [each for each in status.splitlines() if each.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024
