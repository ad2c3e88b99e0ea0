"""Several sums are read at once: what ends one reading, or all, loses none of the others."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import text

from nexus_contracts import CountedHour
from nexus_database import Database
from nexus_messaging.errors import PublishError
from nexus_messaging.publisher import Publisher
from nexus_stripe.answers import Receipt, StripeAnswer
from stripe_reporter.circuit import Cause, CircuitBreaker
from stripe_reporter.limits import StripeRateLimit
from stripe_reporter.metrics import ReporterMetrics
from stripe_reporter.storage.summaries import LEASE, Summaries
from stripe_reporter.summaries import SumReader
from support.waiting import eventually

NOW: Final = datetime.now(UTC)
SECOND: Final = timedelta(seconds=1)
CUSTOMERS: Final = ["cus_1", "cus_2", "cus_3", "cus_4"]
FINE: Final = StripeAnswer(Receipt.ANSWERED, status=200)
KEY_REFUSED: Final = StripeAnswer(Receipt.ANSWERED, status=401)
NOT_FOUND: Final = StripeAnswer(Receipt.ANSWERED, status=404)

DUE: Final = text("""
INSERT INTO summaries_due (stripe_customer_id, meter, since, renewed_at, active_at, wanted_at,
       next_try)
VALUES (:customer, 'runs', :at, :at, :at, :at, :at)
""")


class Stripe:
    """Answers to the sums of a customer by ``answer``, and notes whose were asked for."""

    def __init__(self, answer: Callable[[str], Awaitable[StripeAnswer]]) -> None:
        self.asked: list[str] = []
        self._answer = answer

    async def hourly_sums(
        self, meter_id: str, customer: str, start: datetime, end: datetime
    ) -> tuple[StripeAnswer, list[CountedHour] | None]:
        """Answer, without sums."""
        del meter_id, start, end
        self.asked.append(customer)
        answer = await self._answer(customer)
        return answer, [] if answer is FINE else None

    async def meter_ids(self) -> tuple[StripeAnswer, Mapping[str, Sequence[str]] | None]:
        """List the only meter."""
        return FINE, {"runs": ["mtr_1"]}


async def never(_customer: str) -> StripeAnswer:
    """Wait for ever."""
    await asyncio.Event().wait()
    raise AssertionError


async def no_probe() -> tuple[StripeAnswer, frozenset[str]]:
    """Find no meter."""
    return FINE, frozenset()


class Bench:
    """A reader of what is due, in a database of its own; no broker can be reached."""

    def __init__(self, database: Database) -> None:
        self.due = Summaries(database, lag=timedelta(hours=1))
        self.publisher = Publisher.connect_later("amqp://127.0.0.1:9", name="test")
        self.circuit = CircuitBreaker(
            frozenset({"runs"}), no_probe, clock=time.monotonic, changed=lambda _cause: None
        )

    def reader(self, stripe: Stripe, rate: float) -> SumReader:
        """Return a reader that makes ``rate`` calls a second."""
        pace = StripeRateLimit(rate, time.monotonic)
        metrics = ReporterMetrics(CollectorRegistry())
        return SumReader(
            self.due, stripe, self.publisher, self.circuit, pace, metrics, now=lambda: NOW
        )

    async def due_at(self, moment: datetime) -> list[str]:
        """Take whoever is due."""
        return sorted(pair.stripe_customer_id for pair in await self.due.lease(moment, 100))


async def want(database: Database, customer: str, at: datetime) -> None:
    """Let the sums of a customer be due since ``at``."""
    values = {"customer": customer, "at": at}
    await database.run(lambda c: c.execute(DUE, values))


@pytest.fixture
async def bench(clone: Callable[[str], Awaitable[str]]) -> AsyncIterator[Bench]:
    """Return a bench with four customers whose sums are due."""
    async with Database(await clone("stripe_reporter"), name="test") as database:
        for number, customer in enumerate(CUSTOMERS):
            await want(database, customer, NOW - timedelta(hours=2) + number * SECOND)
        made = Bench(database)
        yield made
        await made.publisher.close()


async def test_a_reading_that_is_not_published_ends_the_round(bench: Bench) -> None:
    """Others wait for Stripe then. Nothing is lost: all are read again once their lease is over."""
    both = asyncio.Event()

    async def answer(customer: str) -> StripeAnswer:
        if customer == "cus_2":
            both.set()
            return await never(customer)
        await both.wait()
        return FINE

    async with asyncio.timeout(30):
        with pytest.raises(PublishError):
            await bench.reader(Stripe(answer), rate=100).read_some()

    assert await bench.due_at(NOW + LEASE - SECOND) == []
    assert await bench.due_at(NOW + LEASE) == CUSTOMERS


@pytest.mark.parametrize("by_reports", [True, False])
async def test_readings_that_wait_for_their_turn_are_put_back_once_stripe_is_away(
    bench: Bench, *, by_reports: bool
) -> None:
    """Whether a report found that, or the first reading: the others spend no try."""

    async def answer(_customer: str) -> StripeAnswer:
        await asyncio.sleep(0)  # the others have begun, and wait for their turn
        if by_reports:
            bench.circuit.note(Cause.KEY, "r-1", "runs")
        return NOT_FOUND if by_reports else KEY_REFUSED

    stripe = Stripe(answer)
    await bench.reader(stripe, rate=20).read_some()

    assert stripe.asked == ["cus_1"]
    assert await bench.due_at(NOW) == CUSTOMERS[1:]


async def test_an_answer_to_another_reading_begins_no_further_one(bench: Bench) -> None:
    """Stripe has refused the key meanwhile; what it said of one customer takes nothing back."""
    both, refused = asyncio.Event(), asyncio.Event()

    async def answer(customer: str) -> StripeAnswer:
        if customer == "cus_1":
            await both.wait()
            refused.set()
            return KEY_REFUSED
        both.set()
        await refused.wait()
        return NOT_FOUND

    stripe = Stripe(answer)
    await bench.reader(stripe, rate=20).read_some()

    assert stripe.asked == ["cus_1", "cus_2"]
    assert await bench.due_at(NOW) == CUSTOMERS[2:]


async def test_a_reader_that_is_stopped_waits_for_no_answer(bench: Bench) -> None:
    """A shutdown takes no longer than Stripe does; whoever comes next reads them all."""
    stripe = Stripe(never)
    reading = asyncio.create_task(bench.reader(stripe, rate=100).read_some())

    async def asked() -> int:
        return len(stripe.asked)

    await eventually(asked, lambda number: number == len(CUSTOMERS))
    reading.cancel()
    async with asyncio.timeout(30):
        await asyncio.wait({reading})

    assert reading.cancelled()
    assert await bench.due_at(NOW + LEASE) == CUSTOMERS
