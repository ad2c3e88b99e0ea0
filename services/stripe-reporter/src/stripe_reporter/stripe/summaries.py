"""Reads the sums in Stripe's answers."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Literal

from pydantic import Field

from nexus_contracts import CountedHour
from nexus_stripe.bodies import Item


class SummaryBody(Item):
    """What Stripe has counted of a customer and meter in a span of time."""

    object: Literal["billing.meter_event_summary"]
    aggregated_value: float = Field(strict=False, allow_inf_nan=False)
    start_time: int

    def hour(self) -> CountedHour:
        """Return it as the sum of an hour."""
        start = datetime.fromtimestamp(self.start_time, UTC)
        return CountedHour(start=start, value=self.aggregated_value)


def hours_of(summaries: Iterable[SummaryBody], start: datetime, end: datetime) -> list[CountedHour]:
    """Return the hours of a list of sums.

    Raises:
        ValueError: they are not those of ``start`` to ``end``, each once.
    """
    hours = [each.hour() for each in summaries]
    if len({each.start for each in hours}) != len(hours):
        raise ValueError("an hour is listed twice")
    if not all(start <= each.start < end for each in hours):
        raise ValueError("an hour was not asked for")
    return hours
