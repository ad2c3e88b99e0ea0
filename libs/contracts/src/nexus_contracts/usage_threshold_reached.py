"""`usage.threshold_reached`: an account has used a share of a limit of its plan."""

from typing import Annotated, ClassVar
from uuid import UUID

from pydantic import Field

from nexus_contracts.envelope import EventData
from nexus_contracts.fields import MAX_VALUE, MeterName, Moment, Text


class UsageThresholdReachedV1(EventData):
    """A share of a limit was reached in a billing period, which is announced once.

    An announcement that is repeated has the same id. So has the same share of the same limit in a
    period that begins at the same time, whatever was lost in between.
    """

    TYPE: ClassVar[str] = "usage.threshold_reached.v1"

    account_id: UUID
    """The account: an organisation's, or a user's own id."""
    meter: MeterName
    """The event name of the meter that is limited."""
    period_start: Moment
    """When the billing period began."""
    period_end: Moment
    """When the billing period ends, which is outside of it."""
    limit_name: Text
    """The limit's name in the plan."""
    limit: Annotated[int, Field(ge=0, le=MAX_VALUE)]
    """How much the plan allows in the period, in the meter's unit."""
    share_percent: Annotated[int, Field(ge=1, le=100)]
    """The share that is reached, in per cent of the limit."""
    used: Annotated[int, Field(ge=0, le=MAX_VALUE)]
    """How much was reported in the period, in the meter's unit."""
    as_of: Moment
    """When the usage was summed up."""


UsageThresholdReached = UsageThresholdReachedV1
