"""`stripe.changed`: Stripe says that something changed there."""

from typing import Annotated, ClassVar

from pydantic import Field

from nexus_contracts.envelope import EventData
from nexus_contracts.fields import Moment, StripeCustomerId
from nexus_contracts.wording import worded_pattern

StripeEventId = Annotated[
    str,
    Field(
        pattern=worded_pattern(
            r"^evt_[A-Za-z0-9_]{1,200}$", "must be the id of an event at Stripe, evt_ and more"
        )
    ),
]
StripeEventType = Annotated[
    str,
    Field(
        max_length=200,
        pattern=worded_pattern(
            r"^[a-z0-9_]+(\.[a-z0-9_]+)+$", "must be a type of Stripe's events, words with dots"
        ),
    ),
]
StripeObjectId = Annotated[
    str,
    Field(
        pattern=worded_pattern(
            r"^[a-z]+_[A-Za-z0-9_]{1,200}$", "must be the id of an object at Stripe"
        )
    ),
]


class StripeChangedV1(EventData):
    """What is kept of a webhook. The object itself is not in it: whoever needs it fetches it.

    Stripe sends an event more than once and in any order, so it says only what to look at.
    """

    TYPE: ClassVar[str] = "stripe.changed.v1"

    event_id: StripeEventId
    """The event at Stripe."""
    event_type: StripeEventType
    """Its type, such as `customer.subscription.updated`."""
    object_id: StripeObjectId
    """What to fetch: the object that changed, the customer whose entitlements did, or the event
    itself if it names neither."""
    customer_id: StripeCustomerId | None = None
    """The customer at Stripe whom the object belongs to, if the event says so."""
    livemode: bool
    """Whether it happened in live mode."""
    created: Moment
    """When the event was made at Stripe, to the second."""


StripeChanged = StripeChangedV1
