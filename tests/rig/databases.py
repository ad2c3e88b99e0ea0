"""A service's database as an operator makes it: its own, with an owner and the service's role."""

from local_stack.servers import Database
from local_stack.sql import run_sql
from nexus_database import Database as Open
from nexus_database import migrate


def url_of(database: Open, username: str | None = None, password: str | None = None) -> str:
    """Return the URL of an open database as services are given it, or with another login."""
    url = database.engine.url.set(drivername="postgresql", username=username, password=password)
    return url.render_as_string(hide_password=False)


async def make_database(postgres: Database, service: str, password: str) -> str:
    """Make a migrated database and its two roles anew; return the service's URL of it."""
    owner = f"{service}_owner"
    run_sql(postgres.superuser_url, f"DROP DATABASE IF EXISTS {service} WITH (FORCE)")
    for role in (owner, service):
        run_sql(postgres.superuser_url, f"DROP ROLE IF EXISTS {role}")
        run_sql(postgres.superuser_url, f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")
    run_sql(postgres.superuser_url, f"CREATE DATABASE {service} OWNER {owner}")
    await migrate(postgres.url(service, owner, password), service)
    return postgres.url(service, service, password)
