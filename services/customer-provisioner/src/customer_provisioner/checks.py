"""What ``check`` looks at, after the settings."""

from typing import Final

from prometheus_client import CollectorRegistry

from customer_provisioner.circuit import CircuitOpenError
from customer_provisioner.metrics import Metrics
from customer_provisioner.opening import open_database, read_plans, require_plans_in_use
from customer_provisioner.profile import SOURCE
from customer_provisioner.settings import (
    PlanSettings,
    StoredPlanSettings,
    StripeSettings,
    SubscriptionSettings,
)
from customer_provisioner.stripe.api import StripeApi
from customer_provisioner.stripe.calls import stripe_calls
from customer_provisioner.stripe.subscriptions import SubscriptionApi
from nexus_broker_admin.inspection import broker_checks
from nexus_database import DatabaseUnavailableError, revision_fault
from nexus_messaging.errors import PermanentError, TransientError
from nexus_service.checking import Checks
from nexus_service.checks import database_checks
from nexus_service.settings import SettingsError

NOT_FOLLOWED: Final = "not followed: STRIPE_WEBHOOK_SECRET is not set"
NO_PLANS: Final = "none: PLANS_FILE is not set"


async def _stripe_fault(settings: StripeSettings) -> str | None:
    async with stripe_calls(settings, Metrics(CollectorRegistry())) as calls:
        try:
            await StripeApi(calls).retrieve("cus_check")
        except (CircuitOpenError, TransientError, PermanentError) as error:
            return str(error)
    return None


async def _rights_fault(settings: StripeSettings) -> str | None:
    """Return which of the rights that subscriptions need the key lacks."""
    async with stripe_calls(settings, Metrics(CollectorRegistry())) as calls:
        try:
            missing = await SubscriptionApi(calls).missing_rights()
        except (CircuitOpenError, TransientError, PermanentError) as error:
            return str(error)
    return f"the key lacks: {', '.join(missing)}" if missing else None


async def _plans_fault(settings: PlanSettings) -> str | None:
    try:
        read_plans(settings)
    except SettingsError as error:
        return str(error)
    return None


async def _plans_in_use_fault(settings: StoredPlanSettings) -> str | None:
    """Return which plans of stored subscriptions the plan file lacks."""
    try:
        plans = read_plans(settings)
    except SettingsError:
        return None  # which is said of the plan file itself
    async with open_database(settings) as database:
        if await revision_fault(database, "customer_provisioner"):
            return None  # which is said of the database
        try:
            await require_plans_in_use(database, plans)
        except (SettingsError, DatabaseUnavailableError) as error:
            return str(error)
    return None


CHECKS: Final = (
    *broker_checks(SOURCE),
    database_checks(SOURCE),
    Checks("stripe", StripeSettings, lambda given: {"stripe": lambda: _stripe_fault(given)}),
    Checks(
        "subscriptions",
        SubscriptionSettings,
        lambda given: {"subscriptions": lambda: _rights_fault(given)},
        lambda given: None if given.stripe_webhook_secret else NOT_FOLLOWED,
    ),
    Checks(
        "plans",
        PlanSettings,
        lambda given: {"plans": lambda: _plans_fault(given)},
        lambda given: None if given.plans_file else NO_PLANS,
    ),
    Checks(
        "plans in use",
        StoredPlanSettings,
        lambda given: {"plans in use": lambda: _plans_in_use_fault(given)},
    ),
)
"""What ``check`` looks at: broker, database, the plan file, and what Stripe thinks of the key.

Of the plan file also whether it has the plans of the stored subscriptions."""
