"""The use case: Stripe's own sums are read and published, at a pace of their own."""

import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final, Protocol
from uuid import uuid4

from nexus_contracts import CountedHour, Event, UsageCounted
from nexus_messaging.outgoing import send
from nexus_messaging.publisher import Publisher
from nexus_stripe.answers import Answer
from stripe_reporter.circuit import CircuitBreaker
from stripe_reporter.counting import Pair, next_reading, pages
from stripe_reporter.limits import StripeRateLimit
from stripe_reporter.metrics import HOURLY_SUMS, LIST_METERS, ReporterMetrics
from stripe_reporter.outcomes import SOURCE
from stripe_reporter.storage.summaries import Summaries
from stripe_reporter.stripe.responses import NO_CUSTOMER, Next, response_to

MOST_PAIRS: Final = 20
"""Of one round."""

RETRY_AFTER: Final = timedelta(minutes=10)
"""Until what can't be read now is tried again."""

KNOWN_FOR: Final = 600.0
LISTED_AGAIN: Final = 60.0
"""Seconds for which the list of meters is kept, and for which a meter that is not in it is not
looked for again."""


class Stripe(Protocol):
    """Where the sums are."""

    async def hourly_sums(
        self, meter_id: str, customer: str, start: datetime, end: datetime
    ) -> tuple[Answer, list[CountedHour] | None]:
        """Return what came back and the hours in which anything was counted."""

    async def meter_ids(self) -> tuple[Answer, dict[str, str] | None]:
        """Return what came back and the id of each meter, by its event name."""


class Counter:
    """Reads what Stripe has counted, of whoever is due, and publishes it.

    Reports come first: it has a pace of its own, and does nothing while the circuit is open.
    """

    def __init__(
        self,
        due: Summaries,
        stripe: Stripe,
        publisher: Publisher,
        circuit: CircuitBreaker,
        pace: StripeRateLimit,
        metrics: ReporterMetrics,
        *,
        now: Callable[[], datetime],
    ) -> None:
        self._due = due
        self._stripe = stripe
        self._publisher = publisher
        self._circuit = circuit
        self._pace = pace
        self._metrics = metrics
        self._now = now
        self._meters: Mapping[str, str] = {}
        self._listed_at = -KNOWN_FOR

    async def read_some(self) -> bool:
        """Follow the journal, then read some of who is due; return whether there is more.

        Raises:
            PublishError: what was read was not confirmed, and will be read again.
            DatabaseUnavailableError: likewise.
        """
        more = await self._due.follow(self._now())
        if self._circuit.cause is not None:
            return False
        pairs = await self._due.lease(self._now(), MOST_PAIRS)
        for pair in pairs:
            await self._read(pair)
        return more or len(pairs) == MOST_PAIRS

    async def read_soon(self, meter_id: str, start: datetime) -> None:
        """Read the sums of all who used a meter from ``start`` on, and of what they sent since.

        Raises:
            DatabaseUnavailableError: it was not noted.
        """
        await self._list_meters(unless_younger_than=LISTED_AGAIN)
        for event_name, known in self._meters.items():
            if known == meter_id:
                await self._due.read_soon(event_name, start, self._now())

    async def _read(self, pair: Pair) -> None:
        """Read the pages of a pair, publish each, and store when it is due again."""
        as_of = self._now()
        meter_id = await self._meter_id(pair.meter)
        if meter_id is None:
            await self._due.postpone(pair, as_of + RETRY_AFTER)
            self._metrics.read_sums("no_meter")
            return
        for start, end in pages(pair, as_of):
            began = time.perf_counter()
            async with self._pace.turn():
                answer, hours = await self._stripe.hourly_sums(
                    meter_id, pair.stripe_customer_id, start, end
                )
            response = response_to(answer)
            self._metrics.called(HOURLY_SUMS, response, time.perf_counter() - began)
            gone = response.to is NO_CUSTOMER
            if hours is None and not gone:
                if response.next is Next.RETRY_HERE:
                    self._pace.slow_down()
                await self._due.postpone(pair, as_of + RETRY_AFTER)
                self._metrics.read_sums("not_read")
                return
            counted = UsageCounted(
                stripe_customer_id=pair.stripe_customer_id,
                meter=pair.meter,
                start=start,
                end=end,
                hours=hours or [],
                as_of=as_of,
                customer_gone=gone,
            )
            await send(self._publisher, Event.of(counted, source=SOURCE, id=uuid4(), time=as_of))
        await self._due.finish(pair, as_of, next_reading(pair, as_of))
        self._metrics.read_sums("read")

    async def _meter_id(self, event_name: str) -> str | None:
        is_known = event_name in self._meters
        await self._list_meters(unless_younger_than=KNOWN_FOR if is_known else LISTED_AGAIN)
        return self._meters.get(event_name)

    async def _list_meters(self, *, unless_younger_than: float) -> None:
        if time.monotonic() - self._listed_at < unless_younger_than:
            return
        began = time.perf_counter()
        async with self._pace.turn():
            answer, found = await self._stripe.meter_ids()
        self._metrics.called(LIST_METERS, response_to(answer), time.perf_counter() - began)
        if found is not None:
            self._meters, self._listed_at = found, time.monotonic()
