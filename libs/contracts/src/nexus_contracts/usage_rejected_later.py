"""`usage.rejected_later`: Stripe gave back what it had taken."""

from typing import Annotated, ClassVar
from uuid import UUID

from nexus_contracts.envelope import EventData
from nexus_contracts.fields import BILLED, Identifier, Moment, Text


class UsageRejectedLaterV1(EventData):
    """A report that Stripe had accepted and does not count, as it said afterwards.

    It is the last word on the report: neither an earlier nor a later `usage.reported` undoes it.
    """

    TYPE: ClassVar[str] = "usage.rejected_later.v1"

    report_id: Annotated[UUID, BILLED]
    """The report, as the ledger names it."""
    identifier: Identifier
    """The report's identifier at Stripe."""
    at: Moment
    """When it was heard of."""
    code: Annotated[Text, BILLED]
    """Why, as Stripe's error report names it, such as `meter_event_customer_not_found`."""


UsageRejectedLater = UsageRejectedLaterV1
