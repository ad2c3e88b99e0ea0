"""The checks that several programs have: of their database, and of their login at the broker."""

from nexus_database import Database, revision_fault
from nexus_database.settings import DatabaseSettings
from nexus_messaging.errors import PublishError
from nexus_messaging.publisher import Publisher
from nexus_messaging.settings import BrokerSettings
from nexus_service.checking import Checks


def database_checks(service: str) -> Checks[DatabaseSettings]:
    """Return the check of the database: reachable, of this service, at a supported revision."""

    async def fault(settings: DatabaseSettings) -> str | None:
        url = settings.database_url.get_secret_value()
        async with Database(url, name=f"{service} check") as database:
            return await revision_fault(database, service.replace("-", "_"))

    return Checks("database", DatabaseSettings, lambda given: {"database": lambda: fault(given)})


def publishing_checks(program: str) -> Checks[BrokerSettings]:
    """Return the check of a program that only publishes: can it log in at the broker?"""

    async def fault(settings: BrokerSettings) -> str | None:
        url = settings.amqp_url.get_secret_value()
        try:
            publisher = await Publisher.connect(url, name=f"{program} check")
        except PublishError as error:
            return str(error)
        await publisher.close()
        return None

    return Checks("broker", BrokerSettings, lambda given: {"broker": lambda: fault(given)})
