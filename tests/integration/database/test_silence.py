"""A database that stops answering on open sessions: closing them has a time limit."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from local_stack.ports import free_ports
from local_stack.servers import Database as Server
from local_stack.urls import Address, login_of
from metering_chaos.proxies import Proxy
from nexus_database import Database


@pytest.fixture
async def proxy(postgres: Server) -> AsyncIterator[Proxy]:
    """Return a proxy before the server."""
    [port] = free_ports(None)
    opened = Proxy("database", port, Address.of(postgres.superuser_url))
    await opened.open()
    yield opened
    await opened.close()


async def test_sessions_with_a_silent_server_close_within_10_s(
    postgres: Server, proxy: Proxy
) -> None:
    """All of them together, so that a service that is to stop does."""
    url = proxy.address.postgres_url(login_of(postgres.superuser_url), "postgres")
    database = Database(url, name="test")
    sleep = text("SELECT pg_sleep(0.5)")
    await asyncio.gather(*(database.run(lambda c: c.execute(sleep)) for _ in range(5)))
    assert proxy.connections > 1
    proxy.hold()

    began = time.monotonic()
    await database.close()

    assert time.monotonic() - began < 10
