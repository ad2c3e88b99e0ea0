"""What stripe-reporter consumes."""

from typing import Annotated, Final

from faststream import Context

from nexus_contracts import Event, UsageRecorded
from nexus_messaging.retry import Outcome
from nexus_messaging.router import Router
from nexus_messaging.topology import USAGE_RECORDED_QUEUE
from stripe_reporter.reporting import Reporter

PREFETCH: Final = 200
"""Reports in hand. At 800 calls a second and 0.2 s each, 160 calls are under way."""

router = Router()


@router.subscriber(USAGE_RECORDED_QUEUE, prefetch=PREFETCH)
async def report_usage(
    event: Event[UsageRecorded], reporter: Annotated[Reporter, Context()]
) -> Outcome:
    """Send a report to Stripe, unless it was sent, and say what Stripe answered."""
    return await reporter.report_usage(event.data)
