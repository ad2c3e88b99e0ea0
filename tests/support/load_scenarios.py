"""Services on a large backlog: their memory and their rate."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self
from uuid import UUID, uuid4

import asyncpg
from typing_extensions import override
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
from support.backlog import (
    LARGE_BYTES,
    fill_ledger,
    pile_up,
    reports,
    runs,
    unreadable,
    user_examples,
)
from support.events import provisioned
from support.platform import Platform

CUSTOMERS: Final = 100
POLL_SECONDS: Final = 1.0
MAX_LARGE: Final = 2000
"""The number of large messages: usage-ingest's prefetch, half a gigabyte and more."""

MAX_RUBBISH: Final = 400
"""Messages of the largest size for each service: 600 MiB together, six times what may be in hand.

With 3 GiB a broker of 1 GB (``rabbitmq_settings``) went into alarm for good, and confirmed 1,185 of
6,000 copies. An alarm is another scenario: see ``test_publishing``."""

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
    """The backlog, each process's peak of resident memory in MiB, and how much was processed."""

    what: str
    peaks: Mapping[str, float]
    seconds: float
    done: int
    finished: bool

    @override
    def __str__(self) -> str:
        memory = ", ".join(f"{name} {peak:.0f} MiB" for name, peak in self.peaks.items())
        end = "all" if self.finished else "not all"
        rate = self.done / self.seconds
        return f"{self.what}: peak {memory}; {end} done in {self.seconds:.0f} s ({rate:.0f}/s)"

    @classmethod
    async def run(
        cls,
        what: str,
        platform: Platform,
        services: Sequence[str],
        processed: Callable[[], Awaitable[int]],
        count: int,
        patience: float,
    ) -> Self:
        """Start services on a backlog and wait until ``count`` of it is processed."""
        began = time.monotonic()
        platform.start(*services)
        done = await _until(processed, count, patience)
        seconds = time.monotonic() - began
        peaks = {name: _peak(service.pid) for name, service in platform.services.items()}
        return cls(what, peaks, seconds, done, done == count)


async def recording(platform: Platform, count: int, patience: float) -> Measured:
    """Record a backlog of tool runs while a reporter sends their reports."""
    examples = runs(await users_with_accounts(platform, CUSTOMERS))
    await pile_up(platform.vhost, examples, count, exchange=EVENTS, queue=TOOL_EXECUTED_QUEUE)
    services = ("usage-ingest", "stripe-reporter")
    recorded = _number(platform, RECORDED)
    measured = await Measured.run("tool runs queued", platform, services, recorded, count, patience)
    [(reported, reports_made)] = await platform.rows("usage_ingest", REPORTED)
    what = f"{measured.what} ({reported} of them in {reports_made} reports counted by then)"
    return replace(measured, what=what)


async def large_runs(platform: Platform, count: int, patience: float) -> Measured:
    """Record a backlog of tool runs nearly as large as the contract allows."""
    count = min(count, MAX_LARGE)
    examples = runs(await users_with_accounts(platform, CUSTOMERS), LARGE_BYTES)
    await pile_up(platform.vhost, examples, count, exchange=EVENTS, queue=TOOL_EXECUTED_QUEUE)
    what = f"{count} tool runs of {LARGE_BYTES} bytes queued"
    recorded = _number(platform, RECORDED)
    return await Measured.run(what, platform, ["usage-ingest"], recorded, count, patience)


async def large_rubbish(platform: Platform, count: int, patience: float) -> Measured:
    """Dead-letter unreadable messages of the broker's largest size, in each service."""
    count = min(count, MAX_RUBBISH)
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

    async def dead() -> int:
        return sum([await platform.vhost.depth(dead_letter_queue(queue)) for queue in queues])

    what = f"{count} unreadable messages of {MAX_MESSAGE_BYTES} bytes queued for each service"
    return await Measured.run(what, platform, (), dead, len(queues) * count, patience)


async def reporting(platform: Platform, count: int, patience: float) -> Measured:
    """Start a reporter that is limited to 20 calls a second on a backlog of reports."""
    platform.settings["STRIPE_MAX_CALLS_PER_SECOND"] = "20"
    return await _reporting(platform, count, patience, "reports queued, 20 calls a second")


async def shut_out(platform: Platform, count: int, patience: float) -> Measured:
    """Start a reporter whose key is refused on a backlog of reports."""
    platform.start_stripe()
    async with platform.stripe() as stripe:
        await stripe.set_key(platform.stripe_key, "revoked")
    return await _reporting(platform, count, patience, "reports queued, the key refused")


async def claiming(platform: Platform, count: int, patience: float) -> Measured:
    """Claim a backlog of due events."""
    users = await users_with_accounts(platform, CUSTOMERS)
    await fill_ledger(_owner(platform), users, count, "due")
    return await _claimed(platform, count, patience, "due events in the ledger")


async def releasing(platform: Platform, count: int, patience: float) -> Measured:
    """Release and claim a backlog of one user's events, whose customer comes only then."""
    platform.start_stripe()
    [customer] = await platform.customers(1)
    user = uuid4()
    await fill_ledger(_owner(platform), [user], count, "waiting")
    await platform.vhost.publish(provisioned(user, customer), exchange=INTERNAL)
    return await _claimed(platform, count, patience, "events of one user, whose customer comes")


async def provisioning(platform: Platform, count: int, patience: float) -> Measured:
    """Provision a backlog of users, most of them repeated."""
    examples = user_examples(min(count, 10_000))
    await pile_up(platform.vhost, examples, count, exchange=EVENTS, queue=USER_CREATED_QUEUE)
    consumed = _consumed(platform, USER_CREATED_QUEUE, count)
    services = ["customer-provisioner"]
    return await Measured.run("users queued", platform, services, consumed, count, patience)


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


async def users_with_accounts(platform: Platform, count: int) -> list[UUID]:
    """Start the local Stripe and make ``count`` users that usage-ingest knows as its customers."""
    platform.start_stripe()
    users = [uuid4() for _ in range(count)]
    customers = await platform.customers(count)
    connection = await asyncpg.connect(_owner(platform))
    try:
        await connection.execute(OPEN_ACCOUNTS, users, customers)
    finally:
        await connection.close()
    return users


async def _reporting(platform: Platform, count: int, patience: float, what: str) -> Measured:
    examples = reports([f"cus_{number}" for number in range(CUSTOMERS)])
    await pile_up(platform.vhost, examples, count, exchange=INTERNAL, queue=USAGE_RECORDED_QUEUE)
    consumed = _consumed(platform, USAGE_RECORDED_QUEUE, count)
    if not platform.emulator_url:
        platform.start_stripe()
    return await Measured.run(what, platform, ["stripe-reporter"], consumed, count, patience)


async def _claimed(platform: Platform, count: int, patience: float, what: str) -> Measured:
    unclaimed = _number(platform, UNCLAIMED)

    async def claimed() -> int:
        return count - await unclaimed()

    return await Measured.run(what, platform, ["usage-ingest"], claimed, count, patience)


def _number(platform: Platform, query: str) -> Callable[[], Awaitable[int]]:
    return lambda: platform.number("usage_ingest", query)


def _consumed(platform: Platform, queue: str, count: int) -> Callable[[], Awaitable[int]]:
    async def consumed() -> int:
        return count - await platform.vhost.depth(queue)

    return consumed


async def _until(ask: Callable[[], Awaitable[int]], wanted: int, patience: float) -> int:
    """Ask until the answer is ``wanted``, for ``patience`` seconds; return the last answer."""
    deadline = time.monotonic() + patience
    while (answer := await ask()) != wanted and time.monotonic() < deadline:  # noqa: ASYNC110 - no server notifies of it
        await asyncio.sleep(POLL_SECONDS)
    return answer


def _owner(platform: Platform) -> str:
    return str(URL(platform.databases["usage_ingest"]).with_user("usage_ingest_owner"))


def _peak(pid: int | None) -> float:
    """Return a process's largest resident set so far, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    [line] = [each for each in status.splitlines() if each.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024
