"""The servers the tests of this package start, each stopped at its end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from local_stack.postgres import PostgresServer
from local_stack.rabbitmq import RabbitNode


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitNode]:
    """One RabbitMQ node for a module: starting one takes six seconds."""
    with RabbitNode.start(tmp_path_factory.mktemp("rabbitmq") / "a node") as started:
        yield started


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[PostgresServer]:
    """A fresh PostgreSQL server."""
    with PostgresServer.start(tmp_path / "postgres", durable=False) as started:
        yield started
