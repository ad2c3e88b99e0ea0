"""`usage.counted`: what Stripe's own sums of a meter say."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, ClassVar, Final, Self

from pydantic import AfterValidator, BaseModel, Field, model_validator

from nexus_contracts.envelope import DATA_CONFIG, EventData
from nexus_contracts.fields import MeterName, Moment, StripeCustomerId

MAX_HOURS: Final = 1000
"""Of one reading. Stripe lists at most 100 in a page."""


def _whole(moment: datetime) -> datetime:
    hour = moment.astimezone(UTC)
    if hour.minute or hour.second or hour.microsecond:
        raise ValueError("must be a whole hour of UTC")
    return hour


Hour = Annotated[Moment, AfterValidator(_whole)]


class CountedHour(BaseModel):
    """The sum of one hour of UTC."""

    model_config = DATA_CONFIG

    start: Hour
    """When the hour begins."""
    value: Annotated[float, Field(allow_inf_nan=False)]
    """What Stripe has counted in it, also of other senders. Stripe's own sums are of this kind."""


class UsageCountedV1(EventData):
    """A reading of Stripe's sums of one customer and meter, in whole hours of UTC.

    Stripe counts some time after it accepts, and names no limit for that.
    """

    TYPE: ClassVar[str] = "usage.counted.v1"

    stripe_customer_id: StripeCustomerId
    """The customer at Stripe."""
    meter: MeterName
    """The event name of the meter."""
    start: Hour
    """The first hour that was read."""
    end: Hour
    """The end of what was read, which is outside of it."""
    hours: Annotated[list[CountedHour], Field(max_length=MAX_HOURS)]
    """The hours in which Stripe has counted anything. In all others from `start` to `end` it has
    counted nothing."""
    as_of: Moment
    """When the reading began."""
    customer_gone: bool = False
    """Whether Stripe knows no such customer, or only a deleted one; `hours` is empty then."""

    @model_validator(mode="after")
    def _within(self) -> Self:
        # The hours between are looked up one by one.
        if not timedelta(0) < self.end - self.start <= MAX_HOURS * timedelta(hours=1):
            raise ValueError(f"end: must come after start, by {MAX_HOURS} hours at most")
        starts = [each.start for each in self.hours]
        if len(set(starts)) != len(starts):
            raise ValueError("hours: an hour must be listed once")
        if not all(self.start <= start < self.end for start in starts):
            raise ValueError("hours: must lie from start to end")
        return self


UsageCounted = UsageCountedV1
