"""`meter.errors_found`: Stripe says that it does not count what it had accepted."""

from typing import ClassVar

from nexus_contracts.stripe_changed import StripeChangedV1, StripeEventType, StripeObjectId


class MeterErrorsFoundV1(StripeChangedV1):
    """What is kept of a webhook about a meter's errors, which are fetched by the event's id.

    Stripe sends an event more than once and in any order.
    """

    TYPE: ClassVar[str] = "meter.errors_found.v1"

    event_type: StripeEventType
    """Its type, such as `v1.billing.meter.error_report_triggered`."""
    object_id: StripeObjectId
    """The meter, or the event itself where there is none."""


MeterErrorsFound = MeterErrorsFoundV1
