"""The use case: Stripe's own sums are read and published, at a pace of their own."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from math import ceil
from typing import Final, Protocol
from uuid import uuid4

from nexus_contracts import CountedHour, Event, UsageCounted
from nexus_messaging.errors import TransientError
from nexus_messaging.outgoing import send
from nexus_messaging.publisher import Publisher
from nexus_stripe.answers import StripeAnswer
from stripe_reporter.circuit import CircuitBreaker
from stripe_reporter.counting import Pair, next_try, pages
from stripe_reporter.limits import StripeRateLimit
from stripe_reporter.metrics import HOURLY_SUMS, LIST_METERS, ReporterMetrics
from stripe_reporter.outcomes import SOURCE
from stripe_reporter.storage.summaries import Summaries
from stripe_reporter.stripe.responses import NO_CUSTOMER, Response, response_to

ROUND_SECONDS: Final = 20.0
"""As many pairs as its pace lets it read in so many seconds are one round's."""

MAX_ROUND_SECONDS: Final = 60.0
"""Seconds after which a round begins no further pair: some take many calls."""

ANSWER_SECONDS: Final = 2.0
"""Answers that take as long still let it keep its pace: so many calls are under way at once."""

MAX_READERS: Final = 20
"""Pairs that are read at once at most, at whatever pace."""

MAX_PAGES: Final = 20
"""Of the journal, that are followed in one round: more than are answered in the longest round."""

KNOWN_FOR: Final = 600.0
LISTED_AGAIN: Final = 60.0
"""Seconds for which the list of meters is kept, and for which a meter that is not in it is not
looked for again."""


class Stripe(Protocol):
    """Where the sums are."""

    async def hourly_sums(
        self, meter_id: str, customer: str, start: datetime, end: datetime
    ) -> tuple[StripeAnswer, list[CountedHour] | None]:
        """Return what came back and the hours in which anything was counted."""

    async def meter_ids(self) -> tuple[StripeAnswer, Mapping[str, Sequence[str]] | None]:
        """Return what came back and the ids of the meters, by event name."""


class SumReader:
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
        self._meters: Mapping[str, Sequence[str]] = {}
        self._listed_at = -KNOWN_FOR
        self._answers = True

    async def read_some(self) -> bool:
        """Follow the journal, then read some of who is due; return whether there is more.

        Raises:
            PublishError: what was read was not confirmed, and will be read again.
            DatabaseUnavailableError: likewise.
        """
        more = True
        for _ in range(MAX_PAGES):
            more = more and await self._due.follow(self._now())
        self._answers = True
        if self._must_wait():
            return False
        most = ceil(self._pace.rate * ROUND_SECONDS)
        pairs = deque(await self._due.lease(self._now(), most))
        more |= len(pairs) == most
        if pairs and await self._know_meters(pairs):
            await self._read_all(pairs)
        for pair in pairs:
            await self._due.postpone(pair, self._now())
        return more and self._answers

    async def read_soon(self, meter_id: str, start: datetime) -> None:
        """Read the sums of all who used a meter from ``start`` on, and of what they sent since.

        Raises:
            TransientError: the meters can't be listed now.
            DatabaseUnavailableError: it was not noted.
        """
        if not await self._list_meters(unless_younger_than=LISTED_AGAIN):
            raise TransientError("Stripe's meters can't be listed")
        for event_name, ids in self._meters.items():
            if meter_id in ids:
                await self._due.read_soon(event_name, start, self._now())

    async def read_again(self, identifiers: Sequence[str]) -> None:
        """Read the sums again of reports that Stripe has rejected later.

        Raises:
            DatabaseUnavailableError: it was not noted.
        """
        await self._due.read_again(identifiers)

    def _must_wait(self) -> bool:
        return self._circuit.cause is not None or not self._answers

    async def _know_meters(self, pairs: Iterable[Pair]) -> bool:
        """Return whether the meters of ``pairs`` are known, as far as Stripe has them."""
        are_known = all(pair.meter in self._meters for pair in pairs)
        if await self._list_meters(unless_younger_than=KNOWN_FOR if are_known else LISTED_AGAIN):
            return True
        self._answers = False
        self._metrics.read_sums("not_read")
        return False

    async def _read_all(self, pairs: deque[Pair]) -> None:
        """Take ``pairs`` from the left and read them, several at once, until the round is over."""
        ends = time.monotonic() + MAX_ROUND_SECONDS

        async def read() -> None:
            while pairs and not self._must_wait() and time.monotonic() < ends:
                await self._read(pairs.popleft())

        try:
            async with asyncio.TaskGroup() as readers:
                for _ in range(min(MAX_READERS, ceil(self._pace.rate * ANSWER_SECONDS))):
                    readers.create_task(read())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None  # the broker or the database is away for all

    async def _read(self, pair: Pair) -> None:
        """Read the pages of a pair, publish each, and store when it is due again."""
        as_of = self._now()
        ids = self._meters.get(pair.meter)
        if not ids:
            await self._due.postpone(pair, next_try(pair, as_of))
            self._metrics.read_sums("no_meter")
            return
        for start, end in pages(pair, as_of):
            found = await self._sums(ids, pair.stripe_customer_id, start, end)
            if found is None:
                await self._due.postpone(pair, as_of)
                return
            gone = isinstance(found, Response) and found.to is NO_CUSTOMER
            if isinstance(found, Response) and not gone:
                self._answers = self._answers and found.opens is None
                await self._due.postpone(pair, next_try(pair, as_of))
                self._metrics.read_sums("not_read")
                return
            counted = UsageCounted(
                stripe_customer_id=pair.stripe_customer_id,
                meter=pair.meter,
                start=start,
                end=end,
                hours=[] if isinstance(found, Response) else found,
                as_of=as_of,
                customer_gone=gone,
            )
            await send(self._publisher, Event.of(counted, source=SOURCE, id=uuid4(), time=as_of))
        await self._due.finish(pair, as_of)
        self._metrics.read_sums("read")

    async def _sums(
        self, meter_ids: Sequence[str], customer: str, start: datetime, end: datetime
    ) -> list[CountedHour] | Response | None:
        """Add up the hours of all meters of a name: an archived one keeps what it has counted.

        Returns:
            The response to an answer that is no success, if there is one; None if Stripe stopped
            answering before this call's turn.
        """
        total: dict[datetime, float] = {}
        for meter_id in meter_ids:
            async with self._pace.turn():
                pass
            if self._must_wait():
                return None
            began = time.perf_counter()
            answer, hours = await self._stripe.hourly_sums(meter_id, customer, start, end)
            response = self._response(HOURLY_SUMS, answer, began)
            if hours is None:
                return response
            for each in hours:
                total[each.start] = total.get(each.start, 0.0) + each.value
        return [CountedHour(start=hour, value=value) for hour, value in total.items()]

    async def _list_meters(self, *, unless_younger_than: float) -> bool:
        """List the meters unless the list is younger; return whether it is."""
        if time.monotonic() - self._listed_at < unless_younger_than:
            return True
        async with self._pace.turn():
            began = time.perf_counter()
            answer, found = await self._stripe.meter_ids()
        self._response(LIST_METERS, answer, began)
        if found is not None:
            self._meters, self._listed_at = found, time.monotonic()
        return found is not None

    def _response(self, call: str, answer: StripeAnswer, began: float) -> Response:
        """Count a call that began at ``began``, and slow down if Stripe asks for it."""
        response = response_to(answer)
        self._metrics.called(call, response, time.perf_counter() - began)
        if response.slows_down:
            self._pace.slow_down()
        return response
