"""`usage.rejected`: Stripe refused a report for good."""

from typing import Annotated, ClassVar
from uuid import UUID

from nexus_contracts.envelope import EventData
from nexus_contracts.fields import BILLED, Identifier, Moment, Text


class UsageRejectedV1(EventData):
    """The refusal of a report, ``reason`` being one of the reporter's dead-letter reasons."""

    TYPE: ClassVar[str] = "usage.rejected.v1"

    report_id: Annotated[UUID, BILLED]
    """The report, as the ledger names it."""
    identifier: Identifier
    """The report's identifier at Stripe."""
    at: Moment
    """When Stripe refused it."""
    reason: Annotated[Text, BILLED]
    """Why, as a dead letter's `nexus-reason`. What a deleted customer was refused is sent anew."""
    ever_unknown: Annotated[bool, BILLED]
    """Whether an attempt's outcome was unknown for a while, so that Stripe may have counted it."""


UsageRejected = UsageRejectedV1
