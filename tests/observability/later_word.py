"""What Stripe says of usage after it has accepted it: errors, and sums that differ."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol
from uuid import UUID

import aiohttp

from local_stack.catalogue import METER
from local_stack.stack import Stack
from nexus_contracts import (
    CountedHour,
    Event,
    EventData,
    UsageCounted,
    UsageRecorded,
)
from stripe_emulator.client import EmulatorClient
from support.events import tool_run

CODE: Final = "meter_event_invalid_value"
HOUR: Final = timedelta(hours=1)

REJECTED: Final = "SELECT count(*) = 1 FROM usage_reports WHERE state = 'rejected_later'"
REPORTED: Final = """
SELECT count(*) = {number} FROM usage_reports
 WHERE state = 'reported' AND occurred_at < timestamptz '{before}'
"""
CUSTOMER: Final = "SELECT stripe_customer_id FROM billing_accounts WHERE user_id = '{user}'"
LAGGING: Final = "SELECT bool_or(lagging) FROM counted_hours"
DIFFERENT: Final = "SELECT count(DISTINCT kind) = 4 FROM differences"


class Scene(Protocol):
    """Where it happens."""

    stack: Stack
    stripe: EmulatorClient

    async def publish(self, *events: Event[EventData]) -> None:
        """Publish as an outside service."""

    async def tell(self, *facts: EventData) -> None:
        """Publish on the internal exchange."""

    async def until(self, query: str) -> None:
        """Wait until a query of the ledger is true."""

    def ask(self, service: str, query: str) -> str:
        """Return what a query of a service's database prints."""

    def report_in(self, state: str) -> UsageRecorded:
        """Return a report in ``state``."""


async def later_word(scene: Scene, user: UUID) -> None:
    """Have Stripe reject a report of ``user`` later, and its sums differ in every way."""
    customer = scene.ask("usage-ingest", CUSTOMER.format(user=user))
    await _rejected(scene, user, customer)
    await _different(scene, user, customer)


async def _rejected(scene: Scene, user: UUID, customer: str) -> None:
    """Have Stripe find fault with a report of ``user``, and with one that somebody else sent."""
    await scene.stripe.set_options(error_report_seconds=0.5)
    await scene.stripe.add_event_fault("rejected", code=CODE, times=2)
    described = {
        "event_name": METER,
        "payload[stripe_customer_id]": customer,
        "payload[value]": "1",
    }
    headers = {
        "Authorization": f"Bearer {scene.stack.stripe_key}",
        "Idempotency-Key": "a-key-of-somebody",
    }
    async with (
        aiohttp.ClientSession(scene.stack.emulator_url, raise_for_status=True) as stripe,
        stripe.post("/v1/billing/meter_events", data=described, headers=headers),
    ):
        pass
    await scene.publish(tool_run(user, time=datetime.now(UTC) - timedelta(minutes=3)))
    await scene.until(REJECTED)
    # As after a move by an operator: it is not sent again.
    await scene.tell(scene.report_in("rejected_later"))


async def _different(scene: Scene, user: UUID, customer: str) -> None:
    """Tell of readings of quiet hours: the reporter's own come an hour after the answers."""
    now = datetime.now(UTC)
    hour = now.replace(minute=0, second=0, microsecond=0)
    deleted, lost, others = hour - 5 * HOUR, hour - 7 * HOUR, hour - 9 * HOUR
    await scene.publish(*(tool_run(user, time=each + HOUR / 2) for each in (deleted, lost)))
    await scene.until(REPORTED.format(number=2, before=(hour - 4 * HOUR).isoformat()))

    def reading(
        *hours: CountedHour, first: datetime, last: datetime, **fields: Any
    ) -> UsageCounted:
        return UsageCounted.model_validate(
            {
                "stripe_customer_id": customer,
                "meter": METER,
                "start": first,
                "end": last + HOUR,
                "hours": list(hours),
                **fields,
            }
        )

    await scene.tell(reading(first=deleted, last=deleted, as_of=now))
    await scene.until(LAGGING)
    shown = CountedHour(start=deleted, value=1.0)
    await scene.tell(reading(shown, first=deleted, last=deleted, as_of=datetime.now(UTC)))
    await scene.until(f"SELECT NOT ({LAGGING})")

    # When Stripe's lag is over.
    later = now + 2 * HOUR
    foreign, more = (CountedHour(start=each, value=3.0) for each in (lost, others))
    await scene.tell(
        reading(first=deleted, last=deleted, as_of=later, customer_gone=True),
        reading(more, first=others, last=lost, as_of=later),
        reading(foreign, first=lost, last=lost, as_of=later, stripe_customer_id="cus_foreign"),
    )
    await scene.until(DIFFERENT)
