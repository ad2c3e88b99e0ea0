"""`usage.recorded`: a report is ready to be sent to Stripe."""

from typing import ClassVar
from uuid import UUID

from nexus_contracts.envelope import EventData
from nexus_contracts.fields import (
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

    report_id: UUID
    identifier: Identifier
    meter: MeterName
    value: PositiveQuantity
    stripe_customer_id: StripeCustomerId
    dimensions: dict[Text, Text] | None = None
    occurred_at: Moment
    event_count: PositiveQuantity
    claim_id: UUID | None = None


UsageRecorded = UsageRecordedV1
