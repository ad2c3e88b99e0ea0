"""The local Stripe with a service's webhook endpoint: events on their way, and their states."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from stripe_emulator.client import DeliveryView, EmulatorClient
from support.waiting import eventually

WEBHOOK_SECRET: Final = "whsec_of_the_tests"
"""What a service under test gets as ``STRIPE_WEBHOOK_SECRET``."""

PATH: Final = "/webhooks/stripe"


@asynccontextmanager
async def webhooks_to(
    service_url: str, emulator_url: str, secret: str = WEBHOOK_SECRET
) -> AsyncIterator[EmulatorClient]:
    """Have the local Stripe send its events to a service from now on; yield its inspection.

    Held, late and lost webhooks are faults of it: ``await inspection.add_webhook_fault("held")``.
    """
    async with EmulatorClient(emulator_url) as inspection:
        await inspection.add_webhook(f"{service_url}{PATH}", secret)
        yield inspection


async def all_delivered(inspection: EmulatorClient, events: int) -> list[DeliveryView]:
    """Wait until ``events`` deliveries have been taken; return all of them."""

    async def deliveries() -> list[DeliveryView]:
        return await inspection.webhooks()

    def taken(found: list[DeliveryView]) -> bool:
        return sum(each["state"] == "delivered" for each in found) >= events

    return await eventually(deliveries, taken, within=60)
