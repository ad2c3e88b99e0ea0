"""`usage.reported`: Stripe has counted a report."""

from typing import ClassVar
from uuid import UUID

from nexus_contracts.envelope import EventData
from nexus_contracts.fields import Identifier, Moment


class UsageReportedV1(EventData):
    """The answer to a report. ``ever_unknown``: an attempt's outcome was unknown for a while."""

    TYPE: ClassVar[str] = "usage.reported.v1"

    report_id: UUID
    identifier: Identifier
    at: Moment
    ever_unknown: bool


UsageReported = UsageReportedV1
