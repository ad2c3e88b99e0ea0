"""Each service's database: the role that owns its tables, and the role that may only use them."""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from string import Template

from local_stack.sql import run_sql
from local_stack.urls import Login

# A failed statement, with the password in it, must not be logged. CONNECT is granted one by one, so
# that a service's role cannot connect to another service's database.
_CREATE = Template("""
SET log_min_error_statement = panic;
SELECT 'CREATE ROLE $owner' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '$owner')
\\gexec
SELECT 'CREATE ROLE $role' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '$role')
\\gexec
ALTER ROLE $owner LOGIN PASSWORD '$owner_password';
ALTER ROLE $role LOGIN PASSWORD '$role_password';
SELECT 'CREATE DATABASE $database OWNER $owner'
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '$database')
\\gexec
REVOKE CONNECT ON DATABASE $database FROM PUBLIC;
GRANT CONNECT ON DATABASE $database TO $owner, $role;
""")

_CREATE_MONITOR = Template("""
SET log_min_error_statement = panic;
CREATE ROLE $role LOGIN PASSWORD '$password';
GRANT pg_monitor TO $role;
""")


_CREATE_USAGE_READER = Template("""
SET log_min_error_statement = panic;
CREATE ROLE $role LOGIN PASSWORD '$password';
ALTER ROLE $role SET default_transaction_read_only = on;
GRANT CONNECT ON DATABASE usage_ingest TO $role;
""")


@dataclass(frozen=True, slots=True)
class ServiceDatabase:
    """A service's database and its two roles.

    Attributes:
        name: The database.
        owner: Owns the tables; for migrations only.
        service: Has the rights the migrations grant it; for the service.
    """

    name: str
    owner: Login
    service: Login


def create_databases(superuser_url: str, names: Iterable[str]) -> dict[str, ServiceDatabase]:
    """Create a database and two roles for each name, with new passwords; existing ones are kept.

    Args:
        superuser_url: Where, as a role that may create roles and databases.
        names: Databases; the service's role is named alike, the owner's with ``_owner`` added.

    Raises:
        SqlFailedError: If PostgreSQL refuses.
    """
    made = {name: _with_new_passwords(name) for name in names}
    for database in made.values():
        statements = _CREATE.substitute(
            database=database.name,
            owner=database.owner.user,
            owner_password=database.owner.password,
            role=database.service.user,
            role_password=database.service.password,
        )
        run_sql(superuser_url, statements)
    return made


def create_monitor(superuser_url: str) -> Login:
    """Create the role of PostgreSQL's exporter: it can read statistics and no table.

    Args:
        superuser_url: Where, as a role that may create roles.

    Raises:
        SqlFailedError: If PostgreSQL refuses.
    """
    monitor = Login("postgres_exporter", secrets.token_urlsafe(24))
    statements = _CREATE_MONITOR.substitute(role=monitor.user, password=monitor.password)
    run_sql(superuser_url, statements)
    return monitor


def create_usage_reader(superuser_url: str) -> Login:
    """Create the usage API's role; the migration gives it its rights, so it is made before.

    Args:
        superuser_url: Where, as a role that may create roles; the database is there already.

    Raises:
        SqlFailedError: If PostgreSQL refuses.
    """
    reader = Login("usage_reader", secrets.token_urlsafe(24))
    statements = _CREATE_USAGE_READER.substitute(role=reader.user, password=reader.password)
    run_sql(superuser_url, statements)
    return reader


def _with_new_passwords(name: str) -> ServiceDatabase:
    owner = Login(f"{name}_owner", secrets.token_urlsafe(24))
    return ServiceDatabase(name, owner, Login(name, secrets.token_urlsafe(24)))
