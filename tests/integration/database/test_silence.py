"""A database that falls silent behind sessions that stand: nothing waits for it without a limit."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from local_stack.ports import free_ports
from local_stack.servers import Database as Server
from local_stack.urls import Address
from metering_chaos.roads import Road
from nexus_database import Database


@pytest.fixture
async def road(postgres: Server) -> AsyncIterator[Road]:
    """Return a proxy before the server."""
    [port] = free_ports(None)
    opened = Road("database", port, Address.of(postgres.superuser_url))
    await opened.open()
    yield opened
    await opened.close()


async def test_sessions_with_a_silent_server_are_closed_in_time(
    postgres: Server, road: Road
) -> None:
    """All of them together; a service that is to stop stops."""
    login = postgres.superuser_url.rpartition("@")[0]
    database = Database(f"{login}@{road.address.host}:{road.port}/postgres", name="test")
    sleep = text("SELECT pg_sleep(0.5)")
    await asyncio.gather(*(database.run(lambda c: c.execute(sleep)) for _ in range(5)))
    assert road.journeys > 1
    road.hold()

    began = time.monotonic()
    await database.close()

    assert time.monotonic() - began < 10
