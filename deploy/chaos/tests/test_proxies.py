"""The proxies: what they pass, hold, drop and refuse."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from local_stack.ports import LOOPBACK
from local_stack.urls import Address
from metering_chaos.proxies import Direction, Proxy, open_proxies

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
LINE = b"hello\n"


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()
    writer.close()


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    """Return a proxy to a server that sends back each line."""
    server = await asyncio.start_server(_echo, LOOPBACK, 0)
    async with server, open_proxies(["echo"]) as proxies:
        proxies["echo"].upstream = Address(LOOPBACK, server.sockets[0].getsockname()[1])
        yield proxies["echo"]


@pytest.fixture
async def connection(proxy: Proxy) -> AsyncIterator[Connection]:
    """Return a connection through the proxy that has already been used."""
    connected = await _connect(proxy)
    assert await _send(connected) == LINE
    yield connected
    connected[1].transport.abort()


async def _connect(proxy: Proxy) -> Connection:
    return await asyncio.open_connection(proxy.address.host, proxy.address.port)


async def _send(connection: Connection, within: float = 5) -> bytes:
    """Send a line and return the answer."""
    reader, writer = connection
    writer.write(LINE)
    return await asyncio.wait_for(reader.readline(), within)


async def _no_answer(connection: Connection) -> bool:
    try:
        await _send(connection, within=0.2)
    except TimeoutError:
        return True
    return False


async def _is_closed(connection: Connection) -> bool:
    try:
        return await _send(connection) == b""
    except OSError:
        return True


async def _new_connection_works(proxy: Proxy) -> bool:
    connected = await _connect(proxy)
    answer = await _send(connected)
    connected[1].transport.abort()
    return answer == LINE


async def test_reset_closes_every_connection(proxy: Proxy, connection: Connection) -> None:
    """The client sees it at once, and may connect again."""
    proxy.reset()

    assert await _is_closed(connection)
    assert await _new_connection_works(proxy)


async def test_connection_is_cut_before_the_bytes_named(
    proxy: Proxy, connection: Connection
) -> None:
    """Once: what a client never gets, and the next one does."""
    proxy.cut_at = LINE

    assert await _is_closed(connection)
    assert await _new_connection_works(proxy)


async def test_connection_is_silent_from_the_bytes_named(
    proxy: Proxy, connection: Connection
) -> None:
    """It stays open, and the next one works."""
    proxy.silent_at = LINE

    assert await _no_answer(connection)
    assert await _no_answer(connection)
    assert await _new_connection_works(proxy)


@pytest.mark.parametrize("direction", Direction)
async def test_held_data_arrives_once_released(
    proxy: Proxy, connection: Connection, direction: Direction
) -> None:
    """Nothing passes in the direction that is held; released, what waited arrives."""
    proxy.hold(direction)
    assert await _no_answer(connection)

    proxy.release(direction)

    assert await asyncio.wait_for(connection[0].readline(), 5) == LINE


async def test_slow_proxy_passes_everything_late(proxy: Proxy, connection: Connection) -> None:
    """Nothing is lost, and the slowed bytes are counted."""
    proxy.bytes_per_second = 20.0
    assert await _no_answer(connection)

    assert await asyncio.wait_for(connection[0].readline(), 5) == LINE
    assert proxy.slowed_bytes == 2 * len(LINE)


async def test_held_data_of_a_reset_connection_never_arrives(
    proxy: Proxy, connection: Connection
) -> None:
    """What a killed process has sent and was held is dropped."""
    proxy.hold(Direction.TO_SERVER)
    assert await _no_answer(connection)

    proxy.reset()
    proxy.release()

    assert await _is_closed(connection)


async def test_blackholed_connection_stays_open_and_passes_nothing(
    proxy: Proxy, connection: Connection
) -> None:
    """Neither a byte nor an end passes on it any more; a new connection works."""
    proxy.blackhole()

    assert await _no_answer(connection)
    assert await _new_connection_works(proxy)


async def test_closed_proxy_refuses_connections_until_opened(proxy: Proxy) -> None:
    """As if no server listened there."""
    await proxy.close()
    with pytest.raises(ConnectionRefusedError):
        await _connect(proxy)

    await proxy.open()

    assert await _new_connection_works(proxy)


async def test_ignored_handshake_is_answered_once_opened(
    proxy: Proxy, connection: Connection
) -> None:
    """Present connections are reset; an attempt to connect waits and succeeds in the end."""
    await proxy.ignore_handshakes()

    assert await _is_closed(connection)
    attempt = asyncio.create_task(_connect(proxy))
    _, waiting = await asyncio.wait({attempt}, timeout=0.2)
    assert waiting

    await proxy.open()

    connected = await asyncio.wait_for(attempt, 5)
    assert await _send(connected) == LINE
    connected[1].transport.abort()


async def test_connection_without_answer_gets_none_afterwards_either(
    proxy: Proxy, connection: Connection
) -> None:
    """Present connections are reset; one accepted meanwhile stays without an answer."""
    proxy.accept_without_answer()

    assert await _is_closed(connection)
    unanswered = await _connect(proxy)
    assert await _no_answer(unanswered)
    assert proxy.unanswered == 1

    await proxy.open()

    assert await _new_connection_works(proxy)
    assert await _no_answer(unanswered)
    unanswered[1].transport.abort()


async def test_bytes_that_pass_are_counted(proxy: Proxy) -> None:
    """Faults of a proxy that nothing passes have no effect."""
    assert proxy.passed_bytes == 0
    assert await _new_connection_works(proxy)
    assert proxy.passed_bytes == 2 * len(LINE)
