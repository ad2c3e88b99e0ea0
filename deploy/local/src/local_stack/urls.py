"""Connection URLs of the broker and the database, and the users in them."""

from dataclasses import dataclass, field
from typing import Self
from urllib.parse import quote, unquote, urlsplit


@dataclass(frozen=True, slots=True)
class Login:
    """A user of the broker or a role of the database; its text leaves the password out."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens."""

    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Self:
        """Read the address in ``url``.

        Raises:
            ValueError: If the URL lacks a host or a port.
        """
        parts = urlsplit(url)
        if parts.hostname is None or parts.port is None:
            raise ValueError("a server's URL must name its host and port")
        return cls(parts.hostname, parts.port)

    @property
    def http_url(self) -> str:
        """The base URL over plain HTTP, without credentials."""
        return f"http://{self.host}:{self.port}"

    def http_url_with(self, login: Login) -> str:
        """Build the base URL over plain HTTP with ``login`` in it."""
        return f"http://{_credentials(login)}@{self.host}:{self.port}"

    def amqp_url(self, login: Login, vhost: str) -> str:
        """Build the AMQP URL of ``login`` to ``vhost``."""
        return f"amqp://{_credentials(login)}@{self.host}:{self.port}/{quote(vhost, safe='')}"

    def postgres_url(self, login: Login, database: str) -> str:
        """Build the PostgreSQL URL of ``login`` to ``database``."""
        path = quote(database, safe="")
        return f"postgresql://{_credentials(login)}@{self.host}:{self.port}/{path}"


def login_of(url: str) -> Login:
    """Read the user and password in ``url``.

    Raises:
        ValueError: If the URL lacks either.
    """
    parts = urlsplit(url)
    if parts.username is None or parts.password is None:
        raise ValueError("a server's URL must carry a user and a password")
    return Login(unquote(parts.username), unquote(parts.password))


def _credentials(login: Login) -> str:
    return f"{quote(login.user, safe='')}:{quote(login.password, safe='')}"
