"""With the real events API in a process of its own, on a real broker."""

from collections.abc import Callable

import pytest

from integration.publisher.conftest import Host
from nexus_messaging.topology import TOOL_EXECUTED_QUEUE, USER_CREATED_QUEUE
from nexus_publisher import DropReason, Stored
from nexus_publisher import lanes as pausing
from nexus_publisher.entries import Entry
from nexus_publisher.http import HttpTransport
from nexus_publisher.ids import new_id
from support.events_api import running_events_api
from support.vhost import Vhost
from support.waiting import eventually

Start = Callable[..., Host]


async def test_every_stored_event_reaches_the_queue(
    start: Start, vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API is killed, the key is wrong, one event is bad, and one type is not the key's."""
    monkeypatch.setattr(pausing, "MAX_PAUSE", 0.2)
    options = ("--source", "test/hub", "--type", "tool.executed")
    async with running_events_api(vhost, *options) as api:
        wrong = start(transport=HttpTransport(api.url, f"{api.key}x"))
        results = [wrong.run()]
        await eventually(lambda: _cause(wrong), lambda cause: cause == "the API answers 401")
        await wrong.publisher.aclose()

        host = start(transport=HttpTransport(api.url, api.key))
        host.publisher.user_created(user_id=results[0].event_id, email="ada@example.com")
        bad = Entry(new_id(), "tool.executed.v1", _bad_event(), recorded_at=0.0)
        host.publisher._parts.keep(bad, left_out=False)
        results += [host.run() for _ in range(20)]
        await eventually(api.depth, lambda depth: depth == len(results))

        await api.kill()
        results += [host.run() for _ in range(20)]
        await eventually(lambda: _cause(host), lambda cause: "not reachable" in cause)
        await api.start()
        results += [host.run() for _ in range(20)]
        await eventually(api.depth, lambda depth: depth >= len(results))

    assert {type(result) for result in results} == {Stored}
    queued = {message.message_id for message in await vhost.peek(TOOL_EXECUTED_QUEUE)}
    assert queued == {str(result.event_id) for result in results}
    assert [(each.event_id, each.reason) for each in host.dropped] == [
        (bad.event_id, DropReason.REFUSED)
    ]
    assert host.publisher.stats().spooled == 1
    assert await vhost.depth(USER_CREATED_QUEUE) == 0


def _bad_event() -> bytes:
    """Return an event of a publisher whose contract is not the API's."""
    return b'{"id": "1", "source": "test/hub", "type": "tool.executed.v1"}'


async def _cause(host: Host) -> str:
    lane = host.publisher._parts.delivery._lanes.get("tool.executed.v1")
    return "" if lane is None or lane.failure is None else lane.failure.cause
