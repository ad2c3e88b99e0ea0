"""The roads: what passes, what is held, and what ends."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from local_stack.ports import LOOPBACK
from local_stack.urls import Address
from metering_chaos.roads import Road, Way, open_roads

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()
    writer.close()


@pytest.fixture
async def road() -> AsyncIterator[Road]:
    """Return a road to a server that sends back each line."""
    server = await asyncio.start_server(_echo, LOOPBACK, 0)
    async with server, open_roads(["echo"]) as roads:
        roads["echo"].leads_to = Address(LOOPBACK, server.sockets[0].getsockname()[1])
        yield roads["echo"]


@pytest.fixture
async def connection(road: Road) -> AsyncIterator[Connection]:
    """Return a connection by the road that has already been used."""
    reader, writer = await asyncio.open_connection(road.address.host, road.address.port)
    assert await _asked((reader, writer)) == b"hello\n"
    yield reader, writer
    writer.transport.abort()


async def _asked(connection: Connection, within: float = 5) -> bytes:
    reader, writer = connection
    writer.write(b"hello\n")
    return await asyncio.wait_for(reader.readline(), within)


async def _nothing_comes(connection: Connection) -> bool:
    try:
        await _asked(connection, within=0.2)
    except TimeoutError:
        return True
    return False


async def _ended(connection: Connection) -> bool:
    try:
        return await _asked(connection) == b""
    except OSError:
        return True


async def test_a_cut_resets_every_connection(road: Road, connection: Connection) -> None:
    """The client learns of it at once, and may connect again."""
    road.cut()

    assert await _ended(connection)
    again = await asyncio.open_connection(road.address.host, road.address.port)
    assert await _asked(again) == b"hello\n"
    again[1].transport.abort()


@pytest.mark.parametrize("way", Way)
async def test_what_is_held_comes_later(road: Road, connection: Connection, way: Way) -> None:
    """Nothing passes the way that is held; released, what waited arrives."""
    road.hold(way)
    assert await _nothing_comes(connection)

    road.release(way)

    assert await asyncio.wait_for(connection[0].readline(), 5) == b"hello\n"


async def test_a_slow_road_lets_everything_pass_in_its_own_time(
    road: Road, connection: Connection
) -> None:
    """Nothing is lost on it, and it counts what crawled."""
    road.bytes_per_second = 20.0
    assert await _nothing_comes(connection)

    assert await asyncio.wait_for(connection[0].readline(), 5) == b"hello\n"
    assert road.crawled == 2 * len(b"hello\n")


async def test_what_is_held_of_a_cut_connection_never_arrives(
    road: Road, connection: Connection
) -> None:
    """A killed process's last words are thrown away, though they had left it."""
    road.hold(Way.THERE)
    assert await _nothing_comes(connection)

    road.cut()
    road.release()

    assert await _ended(connection)


async def test_a_silenced_connection_stands_and_says_nothing(
    road: Road, connection: Connection
) -> None:
    """No byte and no end passes any more; a new connection is as good as ever."""
    road.silence()

    assert await _nothing_comes(connection)
    again = await asyncio.open_connection(road.address.host, road.address.port)
    assert await _asked(again) == b"hello\n"
    again[1].transport.abort()


async def test_a_closed_road_refuses_connections_until_it_is_opened(road: Road) -> None:
    """As if nobody listened there."""
    await road.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(road.address.host, road.address.port)

    await road.open()

    again = await asyncio.open_connection(road.address.host, road.address.port)
    assert await _asked(again) == b"hello\n"
    again[1].transport.abort()


async def test_a_road_that_ignores_answers_no_attempt_until_it_is_opened(
    road: Road, connection: Connection
) -> None:
    """What there was is reset; whoever connects waits, and gets through when it is over."""
    await road.ignore()

    assert await _ended(connection)
    attempt = asyncio.create_task(asyncio.open_connection(road.address.host, road.address.port))
    _, waiting = await asyncio.wait({attempt}, timeout=0.2)
    assert waiting

    await road.open()

    again = await asyncio.wait_for(attempt, 5)
    assert await _asked(again) == b"hello\n"
    again[1].transport.abort()


async def test_a_mute_road_takes_connections_and_never_says_a_word(
    road: Road, connection: Connection
) -> None:
    """What there was is reset; whoever connected meanwhile hears nothing afterwards either."""
    road.mute()

    assert await _ended(connection)
    deaf = await asyncio.open_connection(road.address.host, road.address.port)
    assert await _nothing_comes(deaf)
    assert road.unanswered == 1

    await road.open()

    again = await asyncio.open_connection(road.address.host, road.address.port)
    assert await _asked(again) == b"hello\n"
    assert await _nothing_comes(deaf)
    for each in (deaf, again):
        each[1].transport.abort()
