"""`subscription.changed`: what an account has subscribed to at Stripe."""

from typing import Annotated, ClassVar, Final
from uuid import UUID

from pydantic import BaseModel, Field

from nexus_contracts.envelope import DATA_CONFIG, EventData
from nexus_contracts.fields import (
    BILLED,
    MAX_VALUE,
    MeterName,
    Moment,
    PriceId,
    ProductId,
    Revision,
    StripeCustomerId,
    SubscriptionId,
    Text,
)

RUNNING: Final = frozenset({"active", "trialing", "past_due"})
"""The statuses in which a subscription gives its plan.

An invoice that could not be paid yet ends nothing: Stripe tries again for weeks, then cancels the
subscription or makes it `unpaid` (https://docs.stripe.com/billing/subscriptions/overview).
"""


class SubscriptionItem(BaseModel):
    """One price of a subscription."""

    model_config = DATA_CONFIG

    price_id: PriceId
    """The price at Stripe."""
    product_id: ProductId
    """The product at Stripe."""
    lookup_key: Text | None = None
    """The price's lookup key. Null or absent: it has none."""
    quantity: Annotated[int, Field(ge=0, le=MAX_VALUE)] | None = None
    """How many of it, such as seats. Null or absent: it is metered."""
    meter: MeterName | None = None
    """The event name of the meter that it is charged by. Null or absent: it is licensed."""


class SubscriptionChangedV1(EventData):
    """A subscription as it was fetched from Stripe. A higher ``revision`` replaces a lower one."""

    TYPE: ClassVar[str] = "subscription.changed.v1"

    subscription_id: Annotated[SubscriptionId, BILLED]
    """The subscription at Stripe."""
    account_id: Annotated[UUID, BILLED]
    """The account whose customer has it."""
    stripe_customer_id: Annotated[StripeCustomerId, BILLED]
    """The customer at Stripe who is invoiced."""
    revision: Annotated[Revision, BILLED]
    """Rises with every change of the subscription, past those that a lost database had made."""
    plan_type: Annotated[Text | None, BILLED] = None
    """The plan that it is for. Null or absent: it is for no plan that is known."""
    status: Annotated[Text, BILLED]
    """Stripe's word, such as `active`, `trialing`, `past_due`, `canceled`."""
    seats: Annotated[int, Field(ge=0, le=MAX_VALUE)] | None = None
    """How many users it is paid for. Null or absent: it is not paid by seat."""
    items: Annotated[list[SubscriptionItem], Field(max_length=1000)]
    """Its prices, in Stripe's order."""
    period_start: Moment | None = None
    """When the current billing period began."""
    period_end: Moment | None = None
    """When the current billing period ends, which is outside of it."""
    trial_end: Moment | None = None
    """When its trial ends or ended. Null or absent: it has none."""
    cancel_at: Moment | None = None
    """When it will end. Null or absent: it is renewed."""
    ended_at: Moment | None = None
    """When it ended. Null or absent: it has not."""
    plan_since: Annotated[Moment, BILLED]
    """From when on `plan_type` holds: runs that ended before it keep the plan before."""
    as_of: Moment
    """When it was fetched."""


SubscriptionChanged = SubscriptionChangedV1
