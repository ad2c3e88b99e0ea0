"""What a broker and a database offer here, wherever they run."""

from contextlib import AbstractContextManager
from typing import Protocol

from local_stack.urls import Login


class Broker(AbstractContextManager["Broker"], Protocol):
    """A RabbitMQ broker, wherever it runs."""

    @property
    def admin(self) -> Login:
        """The administrator, for the management API and AMQP."""

    @property
    def management_url(self) -> str:
        """The management API's base URL, without credentials."""

    @property
    def version(self) -> str:
        """The broker's version."""

    def amqp_url(self, user: str, password: str, vhost: str = "/") -> str:
        """Build the AMQP connection URL of ``user`` to ``vhost``."""

    def kill(self) -> None:
        """End the broker as a crash would."""

    def restart(self) -> None:
        """Stop the broker if it runs, and start it on the same data and ports."""

    def stop(self) -> None:
        """Stop the broker for good."""


class Database(AbstractContextManager["Database"], Protocol):
    """A PostgreSQL server, wherever it runs."""

    @property
    def superuser_url(self) -> str:
        """The connection URL of a role that may create roles and databases."""

    @property
    def version(self) -> str:
        """The server's version."""

    def url(self, database: str, role: str, password: str) -> str:
        """Build the connection URL of ``role`` to ``database``."""

    def kill(self) -> None:
        """End the server as a crash would."""

    def restart(self) -> None:
        """Stop the server if it runs, and start it on the same data and port."""

    def stop(self) -> None:
        """Stop the server for good."""
