"""What ``check`` looks at, after the settings."""

from typing import Final

from nexus_broker_admin.inspection import broker_checks
from nexus_service.checking import Checks
from nexus_service.checks import database_checks
from nexus_service.console import Tone
from nexus_stripe.webhook_settings import WebhookSettings
from stripe_reporter.settings import NAME, StripeSettings
from stripe_reporter.stripe.checks import StripeChecks, rights

NOT_HEARD: Final = (
    "STRIPE_WEBHOOK_SECRET is not set: what Stripe rejects later is seen in its sums alone"
)


async def _nothing_wrong() -> None:
    """Find nothing: the settings say it all."""


CHECKS: Final = (
    *broker_checks(NAME),
    database_checks(NAME),
    Checks("stripe", StripeSettings, lambda given: StripeChecks(given).all()),
    Checks("rights", StripeSettings, rights, tone=Tone.NOTE),
    Checks(
        "webhooks",
        WebhookSettings,
        lambda _: {"webhooks": _nothing_wrong},
        lambda given: None if given.stripe_webhook_secret else NOT_HEARD,
    ),
)
