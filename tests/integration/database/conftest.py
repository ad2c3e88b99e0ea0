"""An empty database with a short time limit for each address, and a server of the test's own."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_stack.postgres import PostgresServer
from local_stack.servers import Database as Server
from support.databases import empty_database

LIMIT = 1
"""Seconds for each address, in the URLs of these tests."""


@pytest.fixture
def url(postgres: Server, password: str) -> Iterator[str]:
    """Return the URL of an empty database."""
    with empty_database(postgres, options="OWNER usage_ingest_owner") as name:
        yield f"{postgres.url(name, 'usage_ingest_owner', password)}?connect_timeout={LIMIT}"


@pytest.fixture
def other(server_directory: Path) -> Iterator[PostgresServer]:
    """Return a server of the test's own."""
    with PostgresServer.start(server_directory / secrets.token_hex(4), durable=False) as server:
        yield server
