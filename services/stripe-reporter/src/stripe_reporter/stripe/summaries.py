"""Reads the sums in Stripe's answers."""

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
