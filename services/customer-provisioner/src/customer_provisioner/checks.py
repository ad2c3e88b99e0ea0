"""What ``check`` looks at, after the settings."""

from typing import Final

from prometheus_client import CollectorRegistry

from customer_provisioner.circuit import CircuitOpenError
from customer_provisioner.metrics import Metrics
from customer_provisioner.profile import SOURCE
from customer_provisioner.settings import StripeSettings
from customer_provisioner.stripe.api import stripe_api
from nexus_broker_admin.inspection import broker_checks
from nexus_messaging.errors import PermanentError, TransientError
from nexus_service.checking import Checks
from nexus_service.checks import database_checks


async def _stripe_fault(settings: StripeSettings) -> str | None:
    async with stripe_api(settings, Metrics(CollectorRegistry())) as stripe:
        try:
            await stripe.retrieve("cus_check")
        except (CircuitOpenError, TransientError, PermanentError) as error:
            return str(error)
    return None


CHECKS: Final = (
    *broker_checks(SOURCE),
    database_checks(SOURCE),
    Checks("stripe", StripeSettings, lambda given: {"stripe": lambda: _stripe_fault(given)}),
)
"""What ``check`` looks at: broker, database, and what Stripe thinks of the key."""
