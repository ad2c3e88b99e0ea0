"""`usage.rejected`: Stripe refused a report for good."""

from typing import ClassVar
from uuid import UUID

from nexus_contracts.envelope import EventData
from nexus_contracts.fields import Identifier, Moment, Text


class UsageRejectedV1(EventData):
    """The refusal of a report, ``reason`` being one of the reporter's dead-letter reasons."""

    TYPE: ClassVar[str] = "usage.rejected.v1"

    report_id: UUID
    identifier: Identifier
    at: Moment
    reason: Text
    ever_unknown: bool


UsageRejected = UsageRejectedV1
