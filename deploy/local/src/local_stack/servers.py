"""What a broker and a database offer to the stack and to tests, wherever they run."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from local_stack.management import broker_version
from local_stack.sql import run_sql
from local_stack.urls import Address, Login


class Server(ABC):
    """A server that can be killed, restarted and stopped; leaving its ``with`` block stops it."""

    @abstractmethod
    def kill(self) -> None:
        """End the server as a crash would; :meth:`restart` recovers it."""

    @abstractmethod
    def restart(self) -> None:
        """Stop the server if it runs, and start it on the same data and ports."""

    @abstractmethod
    def stop(self) -> None:
        """Stop the server for good."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


class Broker(Server):
    """A RabbitMQ broker.

    Attributes:
        admin: The administrator, for the management API and AMQP.
        amqp: Where AMQP clients connect to.
        management: Where the management API listens.
    """

    admin: Login
    amqp: Address
    management: Address

    @property
    def management_url(self) -> str:
        """The management API's base URL, without credentials."""
        return self.management.http_url

    @property
    def version(self) -> str:
        """The broker's version, such as ``3.10.8``."""
        return broker_version(self.management_url, self.admin)

    def amqp_url(self, user: str, password: str, vhost: str = "/") -> str:
        """Build the AMQP connection URL of ``user`` to ``vhost``."""
        return self.amqp.amqp_url(Login(user, password), vhost)


class Database(Server):
    """A PostgreSQL server.

    Attributes:
        address: Where it listens.
        superuser_url: The connection URL, with its password, of a role that may create roles and
            databases.
    """

    address: Address
    superuser_url: str

    @property
    def version(self) -> str:
        """The server's version, such as ``18.4``."""
        return run_sql(self.superuser_url, "SHOW server_version").strip()

    def url(self, database: str, role: str, password: str) -> str:
        """Build the connection URL of ``role`` to ``database``."""
        return self.address.postgres_url(Login(role, password), database)
