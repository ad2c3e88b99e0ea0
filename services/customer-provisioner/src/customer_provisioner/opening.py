"""What the operators' commands open."""

from customer_provisioner.profile import SOURCE
from nexus_database import Database
from nexus_database.settings import DatabaseSettings
from nexus_messaging.publisher import Publisher
from nexus_messaging.settings import BrokerSettings


def open_database(settings: DatabaseSettings) -> Database:
    """Return the service's database; it connects on first use."""
    return Database(settings.database_url.get_secret_value(), name=SOURCE)


async def connect_publisher(settings: BrokerSettings) -> Publisher:
    """Connect to the broker.

    Raises:
        PublishError: no connection is possible.
    """
    return await Publisher.connect(settings.amqp_url.get_secret_value(), name=SOURCE)
