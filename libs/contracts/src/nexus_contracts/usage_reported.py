"""`usage.reported`: Stripe has counted a report."""

from typing import Annotated, ClassVar
from uuid import UUID

from nexus_contracts.envelope import EventData
from nexus_contracts.fields import BILLED, Identifier, Moment


class UsageReportedV1(EventData):
    """The answer to a report. ``ever_unknown``: an attempt's outcome was unknown for a while."""

    TYPE: ClassVar[str] = "usage.reported.v1"

    report_id: Annotated[UUID, BILLED]
    """The report, as the ledger names it."""
    identifier: Identifier
    """The report's identifier at Stripe."""
    at: Moment
    """When Stripe took it."""
    ever_unknown: bool
    """Whether the outcome of an attempt was unknown for a while."""


UsageReported = UsageReportedV1
