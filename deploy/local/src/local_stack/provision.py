"""The broker and the database of tests: given ones, containers, or local servers."""

import importlib.util
import os
import sys
from pathlib import Path

from typing_extensions import override

from local_stack.broker_programs import BrokerUnavailableError
from local_stack.errors import LocalStackError
from local_stack.newer_broker import MAJOR, newer_programs
from local_stack.postgres import PostgresServer
from local_stack.rabbitmq import RabbitNode
from local_stack.servers import Broker, Database, Server
from local_stack.urls import Address, login_of

AMQP_URL = "NEXUS_TEST_AMQP_URL"
MANAGEMENT_URL = "NEXUS_TEST_MANAGEMENT_URL"
DATABASE_URL = "NEXUS_TEST_DATABASE_URL"
RABBITMQ = "NEXUS_TEST_RABBITMQ"

# Where a fetched RabbitMQ 4 is kept, below the folder the command was called in (the checkout).
_UNPACKED = Path(".local/rabbitmq4-programs")
# Whether the extra ``containers`` is installed.
_CONTAINERS = importlib.util.find_spec("testcontainers") is not None


class NotOursToStopError(LocalStackError):
    """A server given by its URL was asked to crash or to restart."""


class _Given(Server):
    """A server that was given by its URL: used, never stopped."""

    @override
    def kill(self) -> None:
        """Refuse.

        Raises:
            NotOursToStopError: Always.
        """
        raise NotOursToStopError("a server given by its URL is not ours to stop")

    @override
    def restart(self) -> None:
        """Refuse.

        Raises:
            NotOursToStopError: Always.
        """
        self.kill()

    @override
    def stop(self) -> None:
        """Leave the server running."""


class GivenBroker(_Given, Broker):
    """A broker given by the URLs of its AMQP listener and of its management API."""

    def __init__(self, amqp_url: str, management_url: str) -> None:
        self.amqp = Address.of(amqp_url)
        self.admin = login_of(management_url)
        self.management = Address.of(management_url)


class GivenDatabase(_Given, Database):
    """A PostgreSQL server given by its superuser's URL."""

    def __init__(self, superuser_url: str) -> None:
        self.address = Address.of(superuser_url)
        self.superuser_url = superuser_url


def provide_broker(directory: Path) -> Broker:
    """Provide a running broker, from the first source there is, and say which.

    In this order: ``NEXUS_TEST_AMQP_URL`` with ``NEXUS_TEST_MANAGEMENT_URL`` (with an
    administrator's login); a Docker engine of this machine; RabbitMQ's programs
    (:mod:`local_stack.broker_programs`). ``NEXUS_TEST_RABBITMQ=4`` asks for RabbitMQ 4: its
    programs are then fetched beside an older one (:mod:`local_stack.newer_broker`).

    Args:
        directory: Where a local server keeps its data.

    Raises:
        BrokerUnavailableError: If there is none of them, or not the version asked for.
    """
    wanted = os.environ.get(RABBITMQ)
    if wanted not in {None, str(MAJOR)}:
        raise BrokerUnavailableError(f"{RABBITMQ} can be {MAJOR}; unset, any version will do")
    if AMQP_URL in os.environ and MANAGEMENT_URL in os.environ:
        source = f"{AMQP_URL} and {MANAGEMENT_URL}"
        broker: Broker = GivenBroker(os.environ[AMQP_URL], os.environ[MANAGEMENT_URL])
    elif _CONTAINERS and (contained := _broker_container()) is not None:
        source, broker = "a container", contained
    else:
        programs = None if wanted is None else newer_programs(_UNPACKED)
        source, broker = "a local server", RabbitNode.start(directory, programs=programs)
    version = broker.version
    _say(f"broker: RabbitMQ {version} from {source}")
    if wanted is not None and not version.startswith(f"{wanted}."):
        broker.stop()
        raise BrokerUnavailableError(f"{RABBITMQ}={wanted}, but {source} is RabbitMQ {version}")
    return broker


def provide_postgres(directory: Path) -> Database:
    """Provide a running PostgreSQL server, from the first source there is, and say which.

    In this order: ``NEXUS_TEST_DATABASE_URL`` (a superuser's); a Docker engine of this machine;
    the wheel's programs, without waiting for the disk: what a test stores need not outlive it.

    Args:
        directory: Where a local server keeps its data.

    Raises:
        PostgresUnavailableError: If there is none of them; the text says what to install.
    """
    if DATABASE_URL in os.environ:
        source = DATABASE_URL
        database: Database = GivenDatabase(os.environ[DATABASE_URL])
    elif _CONTAINERS and (contained := _database_container()) is not None:
        source, database = "a container", contained
    else:
        source, database = "a local server", PostgresServer.start(directory, durable=False)
    _say(f"database: PostgreSQL {database.version} from {source}")
    return database


def _broker_container() -> Broker | None:
    from local_stack import containers  # noqa: PLC0415 - an optional dependency

    offered = containers.engine_offers(containers.RABBITMQ_IMAGE)
    return containers.RabbitContainer().start() if offered else None


def _database_container() -> Database | None:
    from local_stack import containers  # noqa: PLC0415 - an optional dependency

    offered = containers.engine_offers(containers.POSTGRES_IMAGE)
    return containers.PostgresContainer().start() if offered else None


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
