"""Reads the meters in Stripe's answers."""

from typing import Any, Literal

import stripe

from nexus_stripe.bodies import Body, Item, Page, every_item
from nexus_stripe.meters import Meter


class _Aggregation(Body):
    formula: str


class _PayloadKey(Body):
    event_payload_key: str


class MeterBody(Item):
    """A meter in an answer."""

    object: Literal["billing.meter"]
    event_name: str
    default_aggregation: _Aggregation
    customer_mapping: _PayloadKey
    value_settings: _PayloadKey
    event_time_window: str | None = None

    def meter(self) -> Meter:
        """Return the fields that decide how it counts."""
        return Meter(
            event_name=self.event_name,
            formula=self.default_aggregation.formula,
            customer_key=self.customer_mapping.event_payload_key,
            value_key=self.value_settings.event_payload_key,
            time_window=self.event_time_window,
        )


async def list_active_meters(client: stripe.StripeClient) -> list[MeterBody]:
    """Return all active meters of the account; see ``list_meters``."""
    return await list_meters(client, "active")


async def list_meters(
    client: stripe.StripeClient, status: Literal["active", "inactive"]
) -> list[MeterBody]:
    """Return all meters of the account with ``status``; to be called within ``calls.ask``.

    Raises:
        Exception: whatever the SDK and ``every_item`` raise.
    """

    async def page(cursor: Any) -> stripe.StripeObject:
        params: Any = {"status": status, **cursor}
        return await client.v1.billing.meters.list_async(params)

    return await every_item(Page[MeterBody], page)
