"""Databases of the services as an operator makes them, and empty ones."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from local_stack.servers import Database as Server
from local_stack.sql import run_sql
from nexus_database import Database, migrate

MODULES: Final = ("customer_provisioner", "usage_ingest", "stripe_reporter")
"""The services' packages, which are also the names of their roles."""

Clone = Callable[[str], Awaitable[str]]
"""Makes a migrated database of a service; returns the service's URL of it."""


def url_of(database: Database, username: str | None = None, password: str | None = None) -> str:
    """Return the URL of an open database as services are given it, or with another login."""
    url = database.engine.url.set(drivername="postgresql", username=username, password=password)
    return url.render_as_string(hide_password=False)


@asynccontextmanager
async def opened(url: str, size: int = 1) -> AsyncIterator[Database]:
    """Open a database with up to ``size`` sessions while the context lasts."""
    database = Database(url, name="test", pool_size=size)
    try:
        yield database
    finally:
        await database.close()


@contextmanager
def empty_database(server: Server, prefix: str = "bare", *, options: str = "") -> Iterator[str]:
    """Make a database with the ``options`` of CREATE DATABASE; yield its name, drop it."""
    name = f"{prefix}_{secrets.token_hex(4)}"
    run_sql(server.superuser_url, f"CREATE DATABASE {name} {options}")
    try:
        yield name
    finally:
        run_sql(server.superuser_url, f"DROP DATABASE {name} WITH (FORCE)")


def make_role(server: Server, role: str, password: str) -> None:
    """Make a role anew, without any database of its own left."""
    run_sql(server.superuser_url, f"DROP ROLE IF EXISTS {role}")
    run_sql(server.superuser_url, f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")


async def make_database(server: Server, service: str, password: str) -> str:
    """Make a migrated database and its two roles anew; return the service's URL of it."""
    owner = f"{service}_owner"
    run_sql(server.superuser_url, f"DROP DATABASE IF EXISTS {service} WITH (FORCE)")
    for role in (owner, service):
        make_role(server, role, password)
    run_sql(server.superuser_url, f"CREATE DATABASE {service} OWNER {owner}")
    await migrate(server.url(service, owner, password), service)
    return server.url(service, service, password)
