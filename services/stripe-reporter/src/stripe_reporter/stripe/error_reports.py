"""Reads what Stripe says of a meter's errors, in an event of API v2.

Its shape: https://docs.stripe.com/api/v2/core/events/event-types#v1.billing.meter
"""

from typing import Final, Literal

from pydantic import AliasChoices, Field

from nexus_contracts.fields import Moment, Text
from nexus_stripe.bodies import Body
from stripe_reporter.rejections import ErrorReport, Sample

ERRORS_FOUND: Final = "v1.billing.meter.error_report_triggered"
NO_METER: Final = "v1.billing.meter.no_meter_found"


class _Request(Body):
    identifier: str | None = Field(
        None, validation_alias=AliasChoices("identifier", "idempotency_key")
    )
    """The idempotency key of the request, as documented; an older example names it so. Whether
    Stripe makes one up for another sender's request that has none is not documented."""


class _SampleError(Body):
    request: _Request | None = None

    @property
    def key(self) -> str:
        """Return the idempotency key, empty if it names none: then it is no request of ours."""
        return (self.request and self.request.identifier) or ""


class _ErrorType(Body):
    code: Text
    sample_errors: list[_SampleError] = Field(default_factory=list)


class _Reason(Body):
    error_count: int = Field(ge=0)
    error_types: list[_ErrorType]


class _Data(Body):
    validation_start: Moment
    validation_end: Moment
    reason: _Reason


class _Related(Body):
    """The meter; of an event without one it is null or, in an example, empty."""

    id: str | None = None


class ErrorReportBody(Body):
    """The event as Stripe has it."""

    object: Literal["v2.core.event"]
    id: str
    type: Literal["v1.billing.meter.error_report_triggered", "v1.billing.meter.no_meter_found"]
    related_object: _Related | None = None
    data: _Data

    def report(self) -> ErrorReport:
        """Return what it says."""
        return ErrorReport(
            event_id=self.id,
            meter_id=None if self.related_object is None else self.related_object.id,
            start=self.data.validation_start,
            end=self.data.validation_end,
            errors=self.data.reason.error_count,
            samples=tuple(
                Sample(sample.key, kind.code)
                for kind in self.data.reason.error_types
                for sample in kind.sample_errors
            ),
        )
