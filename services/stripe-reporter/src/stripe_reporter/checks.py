"""What ``check`` looks at, after the settings."""

from typing import Final

from nexus_broker_admin.inspection import broker_checks
from nexus_service.checking import Checks
from nexus_service.checks import database_checks
from stripe_reporter.settings import NAME, StripeSettings
from stripe_reporter.stripe.checks import StripeChecks

CHECKS: Final = (
    *broker_checks(NAME),
    database_checks(NAME),
    Checks("stripe", StripeSettings, lambda given: StripeChecks(given).all()),
)
