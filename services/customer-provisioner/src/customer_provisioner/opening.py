"""What the service and the operators' commands open."""

from customer_provisioner.profile import SOURCE
from customer_provisioner.settings import PlanSettings
from customer_provisioner.storage.subscriptions import SubscriptionStore
from customer_provisioner.subscriptions import plans_fault
from nexus_database import Database
from nexus_database.settings import DatabaseSettings
from nexus_messaging.publisher import Publisher
from nexus_messaging.settings import BrokerSettings
from nexus_plans import Plans, PlansError, load
from nexus_service.settings import SettingsError


def open_database(settings: DatabaseSettings) -> Database:
    """Return the service's database; it connects on first use."""
    return Database(settings.database_url.get_secret_value(), name=SOURCE)


async def connect_publisher(settings: BrokerSettings) -> Publisher:
    """Connect to the broker.

    Raises:
        PublishError: no connection is possible.
    """
    return await Publisher.connect(settings.amqp_url.get_secret_value(), name=SOURCE)


def read_plans(settings: PlanSettings) -> Plans | None:
    """Return the plans of the settings' file; None if there is none.

    Raises:
        SettingsError: the file can't be read, breaks a rule, or has another meter of all runs than
            the services.
    """
    if not settings.plans_file:
        return None
    try:
        plans = load(settings.plans_file)
    except PlansError as error:
        raise SettingsError(f"PLANS_FILE: {error}") from None
    if settings.stripe_meter_event_name not in (None, plans.default_meter):
        raise SettingsError(
            "PLANS_FILE: its default_meter must be the meter of STRIPE_METER_EVENT_NAME"
        )
    return plans


async def require_plans_in_use(database: Database, plans: Plans | None) -> None:
    """Return if the plan file has the plans that subscriptions are for.

    Raises:
        SettingsError: it lacks one.
        DatabaseUnavailableError: the database can't be used.
    """
    if fault := plans_fault(await SubscriptionStore(database).plans_in_use(), plans):
        raise SettingsError(fault)
