"""Delivery to a real broker: confirmed, by itself again after every failure, or kept."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import pytest
from yarl import URL

from integration.publisher.conftest import Host
from local_stack.ports import LOOPBACK, free_ports
from nexus_contracts import CONTENT_TYPE
from nexus_messaging.topology import TOOL_EXECUTED_QUEUE, USER_CREATED_QUEUE
from nexus_publisher import Stored
from nexus_publisher import amqp as publishing
from nexus_publisher import lanes as pausing
from nexus_publisher.amqp import AmqpTransport
from support.line import Line
from support.vhost import Vhost
from support.waiting import eventually

Start = Callable[..., Host]

RIGHTS = {"configure": "^$", "write": "^events$", "read": "^$"}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pause half a second at most after a failure."""
    monkeypatch.setattr(pausing, "MAX_PAUSE", 0.5)


async def test_events_reach_their_queues_with_all_properties(start: Start, vhost: Vhost) -> None:
    """Persistent, with the contract's content type, id and type."""
    host = start(transport=AmqpTransport([vhost.url("publisher")]))

    run = host.run()
    user = host.publisher.user_created(user_id=run.event_id, email="ada@example.com")

    assert await host.publisher.aflush(20)
    assert host.publisher.stats().confirmed == 2
    for queue, result in ((TOOL_EXECUTED_QUEUE, run), (USER_CREATED_QUEUE, user)):
        [message] = await vhost.peek(queue)
        assert message.message_id == str(result.event_id)
        assert message.content_type == CONTENT_TYPE
        assert message.delivery_mode == 2


async def test_lost_connections_are_opened_again(start: Start, vhost: Vhost) -> None:
    """All connections of the broker are closed while events are recorded."""
    host = start(transport=AmqpTransport([vhost.url("publisher")]))
    results = [host.run()]
    assert await host.publisher.aflush(20)

    for connection in await _connections(vhost):
        await vhost.ask("DELETE", f"connections/{quote(connection['name'])}")
        results.append(host.run())
    results.append(host.run())

    assert await host.publisher.aflush(20)
    arrived = {message.message_id for message in await vhost.peek(TOOL_EXECUTED_QUEUE)}
    assert arrived == {str(result.event_id) for result in results}


async def test_a_wrong_password_keeps_events_until_it_is_right(
    start: Start, vhost: Vhost, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged once, without the password, and no other logger says a word."""
    caplog.set_level(logging.INFO)
    host = start(transport=AmqpTransport([vhost.broker.amqp_url("late", "secret", vhost.name)]))
    assert isinstance(host.run(), Stored)
    await eventually(lambda: _attempts(host), lambda attempts: attempts >= 2)

    async with _user(vhost, "late", "secret"):
        assert await host.publisher.aflush(20)

    assert await vhost.depth(TOOL_EXECUTED_QUEUE) == 1
    assert [each.getMessage() for each in caplog.records if each.levelno > logging.DEBUG] == [
        "tool.executed.v1 is not delivered: the broker refuses the user or its password",
        "tool.executed.v1 is delivered again",
    ]
    assert "secret" not in caplog.text


async def test_a_forbidden_type_is_kept_and_holds_up_no_other(start: Start, vhost: Vhost) -> None:
    """The broker closes the channel for it; runs go on."""
    async with _user(vhost, "runs-only", "secret", topics="^tool[.]executed[.]v1$"):
        url = vhost.broker.amqp_url("runs-only", "secret", vhost.name)
        host = start(transport=AmqpTransport([url]))
        host.publisher.user_created(user_id=str(host.run().event_id), email="ada@example.com")
        await eventually(lambda: _attempts(host), bool)
        host.run()

        await eventually(lambda: vhost.depth(TOOL_EXECUTED_QUEUE), lambda depth: depth == 2)
        assert host.publisher.stats().spooled == 1
        assert host.dropped == []


async def test_a_silent_broker_delays_events(
    start: Start, vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As during an alarm: it confirms nothing, the time limit passes, and the events are kept."""
    monkeypatch.setattr(publishing, "CONFIRM_SECONDS", 0.3)
    async with Line.to(URL(vhost.url("publisher"))) as line:
        host = start(transport=AmqpTransport([str(line.url)]))
        host.run()
        assert await host.publisher.aflush(20)

        line.open.clear()
        result = host.run()
        await eventually(lambda: _attempts(host), bool)
        assert host.publisher.stats().spooled == 1
        line.open.set()

        assert await host.publisher.aflush(30)
        await host.publisher.aclose()
    arrived = {message.message_id for message in await vhost.peek(TOOL_EXECUTED_QUEUE)}
    assert str(result.event_id) in arrived


async def test_one_id_recorded_twice_is_confirmed_twice(start: Start, vhost: Vhost) -> None:
    """A run that is recorded again keeps its id; the ledger counts it once."""
    host = start(transport=AmqpTransport([vhost.url("publisher")]))
    first = host.run()

    host.run(event_id=first.event_id)

    assert await host.publisher.aflush(20)
    arrived = [message.message_id for message in await vhost.peek(TOOL_EXECUTED_QUEUE)]
    assert arrived == [str(first.event_id)] * 2


async def test_the_next_node_is_tried_if_one_is_away(start: Start, vhost: Vhost) -> None:
    """One URL for each node of a cluster."""
    [port] = free_ports(None)
    urls = [f"amqp://publisher:x@{LOOPBACK}:{port}/x", vhost.url("publisher")]
    host = start(transport=AmqpTransport(urls))

    host.run()

    assert await host.publisher.aflush(20)


async def _connections(vhost: Vhost) -> list[dict[str, Any]]:
    async def ours() -> list[dict[str, Any]]:
        found = await vhost.ask("GET", "vhosts/{vhost}/connections")
        return [each for each in found if each["user"] == "publisher"]

    return await eventually(ours, bool)


async def _attempts(host: Host) -> int:
    lanes = host.publisher._parts.delivery._lanes
    return max((lane.failures for lane in lanes.values()), default=0)


@asynccontextmanager
async def _user(vhost: Vhost, name: str, password: str, topics: str = ".*") -> AsyncIterator[None]:
    """Make a user that may publish to ``events``, some types or all."""
    await vhost.ask("PUT", f"users/{name}", {"password": password, "tags": ""})
    topic = {"exchange": "events", "write": topics, "read": "^$"}
    await vhost.ask("PUT", "topic-permissions/{vhost}/" + name, topic)
    await vhost.ask("PUT", "permissions/{vhost}/" + name, RIGHTS)
    try:
        yield
    finally:
        await vhost.ask("DELETE", f"users/{name}")
