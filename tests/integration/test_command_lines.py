"""The command lines of the programs: all parts that they name exist, and none is imported early."""

from typing import Any, get_type_hints

import pytest

from customer_provisioner.command_line import SERVICE as PROVISIONER
from nexus_outbox.command_line import SERVICE as OUTBOX
from nexus_service.checking import Checks
from nexus_service.command import Command, Server, Service
from nexus_service.parts import Part, load_part
from stripe_reporter.command_line import SERVICE as REPORTER
from support.commands import in_a_pipe
from support.databases import Clone
from support.vhost import Vhost
from usage_ingest.command_line import SERVICE as INGEST

SERVICES = (INGEST, REPORTER, PROVISIONER, OUTBOX)
SERVERS = [each for service in SERVICES for each in (service, *service.servers)]
COMMANDS = [each for service in SERVICES for each in service.commands]


async def imported(module: str, *arguments: str, **settings: str) -> set[str]:
    """Run a command, and return the modules that it imported."""
    shown = await in_a_pipe(module, *arguments, PYTHONPROFILEIMPORTTIME="1", **settings)
    assert shown.raw
    assert "Traceback" not in shown.errors
    lines = shown.errors.splitlines()
    return {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}


def takes(part: Part[Any], settings: type) -> bool:
    """Return whether the first argument of a function may be of the type ``settings``."""
    [first, *_] = get_type_hints(load_part(part)).values()
    return issubclass(settings, first)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda each: each.run)
def test_every_command_names_a_function_that_takes_its_settings(command: Command[Any]) -> None:
    """A name is no import that mypy would check."""
    assert takes(command.run, command.settings)


@pytest.mark.parametrize("server", SERVERS, ids=lambda each: each.name)
def test_every_server_names_its_function_and_its_checks(server: Service[Any] | Server[Any]) -> None:
    """The same for what runs until SIGTERM."""
    assert takes(server.serve, server.settings)
    assert all(isinstance(each, Checks) for each in load_part(server.checks))


@pytest.mark.parametrize("service", SERVICES, ids=lambda each: each.name)
def test_every_service_names_its_migration_and_its_faults(service: Service[Any]) -> None:
    """A misspelt list of faults would show a traceback instead of what to do."""
    assert callable(load_part(service.migrate))
    assert all(issubclass(each, Exception) for each in load_part(service.faults))


@pytest.mark.parametrize("service", SERVICES, ids=lambda each: each.name)
async def test_help_imports_nothing_that_talks_to_a_server(service: Service[Any]) -> None:
    """It shows names and settings, and an operator waits for it."""
    found = await imported(service.name.replace("-", "_"), "--help")

    assert found.isdisjoint(
        {"aiohttp", "aiormq", "alembic", "asyncpg", "faststream", "rich", "sqlalchemy", "structlog"}
    )


async def test_status_imports_neither_server_nor_migrations(vhost: Vhost, clone: Clone) -> None:
    """It reads the ledger and the queues; the management API only if there is an address."""
    settings = {"DATABASE_URL": await clone("usage_ingest"), "AMQP_URL": vhost.url("usage-ingest")}

    found = await imported("usage_ingest", "status", **settings)

    assert found >= {"aiormq", "asyncpg"}
    assert found.isdisjoint({"aiohttp", "alembic", "faststream", "prometheus_client", "structlog"})


async def test_check_does_not_import_the_service(vhost: Vhost, clone: Clone) -> None:
    """It looks at broker and database; the revision is Alembic's to know."""
    database = await clone("usage_ingest")
    settings = {"DATABASE_URL": database, "AMQP_URL": vhost.url("usage-ingest")}

    found = await imported("usage_ingest", "check", **settings)

    assert found >= {"aiormq", "alembic"}
    assert found.isdisjoint({"aiohttp", "faststream", "prometheus_client"})
