"""`usage.recorded`: a report is ready to be sent to Stripe."""

from typing import Annotated, ClassVar
from uuid import UUID

from nexus_contracts.envelope import EventData
from nexus_contracts.fields import (
    BILLED,
    Identifier,
    MeterName,
    Moment,
    PositiveQuantity,
    StripeCustomerId,
    Text,
)


class UsageRecordedV1(EventData):
    """One report: a customer's usage of one meter in one window.

    ``identifier`` is what Stripe tells reports apart by; ``occurred_at`` is the earliest of the
    ``event_count`` tool runs that ``value`` sums up. The reports of one claim, one for each meter,
    share its ``claim_id``.
    """

    TYPE: ClassVar[str] = "usage.recorded.v1"

    report_id: Annotated[UUID, BILLED]
    """The report, as the ledger names it."""
    identifier: Annotated[Identifier, BILLED]
    """The meter event's `identifier` at Stripe, which counts one identifier once."""
    meter: Annotated[MeterName, BILLED]
    """The event name of the meter at Stripe."""
    value: Annotated[PositiveQuantity, BILLED]
    """What the meter counts: a number of runs or of tokens, as the meter has it."""
    stripe_customer_id: Annotated[StripeCustomerId, BILLED]
    """The customer at Stripe who is charged."""
    dimensions: Annotated[dict[Text, Text] | None, BILLED] = None
    """Further payload of the meter event, by name. Null or absent: none."""
    occurred_at: Annotated[Moment, BILLED]
    """When the earliest of the runs ended: the meter event's timestamp."""
    event_count: PositiveQuantity
    """How many tool runs the report sums up."""
    claim_id: UUID | None = None
    """The claim that made the report. Reports of 0.1.0 have none."""
    late: Annotated[bool, BILLED] = False
    """Whether it sums up what is kept beside its runs, such as a price that came later or a tool's
    first use: other reports have the runs, and none is claimed for it."""


UsageRecorded = UsageRecordedV1
