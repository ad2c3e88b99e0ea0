"""Delivery to the events API, whatever it answers."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web

from integration.publisher.conftest import Host
from local_stack.ports import LOOPBACK, free_ports
from nexus_contracts import read_event
from nexus_messaging.topology import OUTSIDE_EVENTS
from nexus_publisher import DropReason, InMemory, Stored
from nexus_publisher import lanes as pausing
from nexus_publisher.http import HttpTransport
from support.events_api_stand_in import KEY, EventsApi, accept, refuse
from support.http_servers import serve_routes
from support.waiting import eventually

Start = Callable[..., Host]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pause a tenth of a second at most after a failure."""
    monkeypatch.setattr(pausing, "MAX_PAUSE", 0.1)


async def test_events_arrive_as_the_contract_has_them(start: Start, api: EventsApi) -> None:
    """With the id that the call returned, and the bytes of the contract."""
    host = start()

    run = host.run(token_count=3, metadata={"model": "small"}, traceparent=None)
    user = host.publisher.user_created(user_id=UUID(int=7), email="ada@example.com", name="Ada")
    detailed = host.run(model="small", input_tokens=10, cached_tokens=4)
    linked = host.publisher.user_created(user_id=UUID(int=8), stripe_customer_id="cus_1")
    changed = host.publisher.user_updated(user_id=UUID(int=7), name="")

    results = (run, user, detailed, linked, changed)
    assert {type(result) for result in results} == {Stored}
    await api.has(*(str(result.event_id) for result in results))
    assert {sent["type"] for sent in api.accepted} == {each.TYPE for each in OUTSIDE_EVENTS}
    for sent in api.accepted:
        body = web.json_response(sent).body
        assert isinstance(body, bytes)
        event = read_event(body, OUTSIDE_EVENTS)
        assert event.source == "test/hub"
        assert event.id.version == 7


async def test_without_a_spool_events_are_sent_from_memory(start: Start, api: EventsApi) -> None:
    """They are in memory until they are confirmed."""
    host = start(spool=None)

    results = [host.run() for _ in range(3)]

    assert {type(result) for result in results} == {InMemory}
    await api.has(*(str(result.event_id) for result in results))
    assert await host.publisher.aflush(5)
    assert host.publisher.stats().in_memory == 0


async def test_bad_events_are_set_aside_and_the_rest_is_sent(start: Start, api: EventsApi) -> None:
    """The API names them by index; each is reported with its rule, and none is sent again."""
    host = start()

    def name_bad(batch: list[dict[str, Any]]) -> web.Response:
        bad = [at for at, each in enumerate(batch) if each["data"]["tool_name"] == "bad"]
        return refuse(*bad) if bad else accept(batch)

    api.answer = name_bad
    good, bad = host.run(), host.run(tool_name="bad")

    assert await host.publisher.aflush(10)
    assert api.ids == [str(good.event_id)]
    [dropped] = host.dropped
    assert (dropped.event_id, dropped.reason) == (bad.event_id, DropReason.REFUSED)
    assert dropped.detail == "data.user_id: is unknown"
    assert host.publisher.stats().dropped[DropReason.REFUSED] == 1


@pytest.mark.parametrize("status", [401, 403, 404, 415, 429, 500, 503, 307, 200])
async def test_what_can_be_mended_is_sent_again_with_the_same_id(
    status: int, start: Start, api: EventsApi
) -> None:
    """A wrong key, an overload or a gateway's answer drops nothing."""
    host = start()
    api.answer = lambda _: web.Response(status=status)
    result = host.run()
    await eventually(lambda: _count(api), lambda requests: requests >= 2)

    api.answer = accept

    assert await host.publisher.aflush(10)
    assert {event["id"] for batch in api.requests for event in batch} == {str(result.event_id)}
    assert api.ids == [str(result.event_id)]
    assert host.dropped == []


async def test_the_api_is_left_alone_as_long_as_it_asks_for(start: Start, api: EventsApi) -> None:
    """Retry-After is in seconds; the next request comes after it."""
    host = start()
    loop = asyncio.get_running_loop()
    times: list[float] = []

    def ask_to_wait(batch: list[dict[str, Any]]) -> web.Response:
        times.append(loop.time())
        if len(times) > 1:
            return accept(batch)
        return web.Response(status=429, headers={"Retry-After": "1"})

    api.answer = ask_to_wait
    result = host.run()

    await api.has(str(result.event_id))
    assert times[1] - times[0] >= 1


async def test_a_batch_that_is_too_large_is_halved(start: Start, api: EventsApi) -> None:
    """Until it fits; one event alone that is too large is refused, and holds up no other."""
    host = start()

    def limit(batch: list[dict[str, Any]]) -> web.Response:
        large = len(batch) > 2 or any(each["data"]["tool_name"] == "large" for each in batch)
        return web.Response(status=413) if large else accept(batch)

    api.answer = limit
    results = [host.run(tool_name="large" if at == 3 else "small") for at in range(9)]

    assert await host.publisher.aflush(10)
    assert len(api.accepted) == 8
    assert [(each.event_id, each.reason) for each in host.dropped] == [
        (results[3].event_id, DropReason.REFUSED)
    ]


async def test_a_forbidden_type_holds_up_no_other(
    start: Start, api: EventsApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key may not publish users; runs are billed all the same, and the users are kept."""
    monkeypatch.setattr(pausing, "MAX_PAUSE", 600.0)
    host = start()

    def forbid_users(batch: list[dict[str, Any]]) -> web.Response:
        forbidden = batch[0]["type"] == "user.created.v1"
        return web.Response(status=403) if forbidden else accept(batch)

    api.answer = forbid_users
    host.publisher.user_created(user_id=UUID(int=7), email="ada@example.com")
    await eventually(lambda: _failing(host), bool)
    run = host.run()

    await api.has(str(run.event_id))
    # The API has it a moment before its answer is read.
    await eventually(lambda: _spooled(host), lambda number: number == 1)
    assert host.dropped == []


async def test_an_outage_is_logged_once_and_its_end_once(
    start: Start, api: EventsApi, caplog: pytest.LogCaptureFixture
) -> None:
    """However many attempts there are; no line has a value of an event."""
    caplog.set_level(logging.INFO)
    host = start()
    api.answer = lambda _: web.Response(status=503)
    host.run(tool_name="a-value")
    await eventually(lambda: _count(api), lambda requests: requests >= 5)

    api.answer = accept
    assert await host.publisher.aflush(10)

    lines = [each.getMessage() for each in caplog.records if each.name == "nexus_publisher"]
    assert lines == [
        "tool.executed.v1 is not delivered: the API answers 503",
        "tool.executed.v1 is delivered again",
    ]
    assert "a-value" not in caplog.text


async def test_a_host_that_starts_before_the_api_loses_nothing(start: Start) -> None:
    """Nobody listens at first; nothing is raised, and the events go out once somebody does."""
    [port] = free_ports(None)
    host = start(transport=HttpTransport(f"http://{LOOPBACK}:{port}", "a-key"))
    result = host.run()
    assert isinstance(result, Stored)
    await eventually(lambda: _failing(host), bool)

    late = EventsApi()
    async with serve_routes(web.post("/v1/events", late.receive), port=port):
        await late.has(str(result.event_id))


@pytest.mark.parametrize("path", ["/", "/v1/events", "/v1/events/"])
async def test_an_address_may_have_the_path_already(
    start: Start, api: EventsApi, path: str
) -> None:
    """As the pages write the whole address, too."""
    host = start(transport=HttpTransport(api.url + path, KEY))

    result = host.run()

    await api.has(str(result.event_id))


async def test_events_of_one_moment_travel_together(start: Start, api: EventsApi) -> None:
    """A burst costs a few requests, and no request has more than the API takes."""
    host = start()

    for _ in range(1200):
        host.run()

    assert await host.publisher.aflush(20)
    assert len(api.accepted) == 1200
    assert len(api.requests) < 60
    assert max(map(len, api.requests)) <= 1000


async def test_events_that_follow_each_other_share_requests(start: Start, api: EventsApi) -> None:
    """One request for each would cost its host more than all else."""
    host = start()

    for _ in range(60):
        host.run()
        await asyncio.sleep(0.005)

    assert await host.publisher.aflush(10)
    assert len(api.accepted) == 60
    assert len(api.requests) < 30


async def test_threads_of_a_host_may_call_at_once(start: Start, api: EventsApi) -> None:
    """Each event is sent once, and none is dropped."""
    host = start()

    def record() -> list[str]:
        return [str(host.run().event_id) for _ in range(100)]

    ids = await asyncio.gather(*(asyncio.to_thread(record) for _ in range(8)))

    assert await host.publisher.aflush(20)
    assert sorted(api.ids) == sorted(each for some in ids for each in some)
    assert host.dropped == []


async def _count(api: EventsApi) -> int:
    return len(api.requests)


async def _spooled(host: Host) -> int | None:
    return host.publisher.stats().spooled


async def _failing(host: Host) -> bool:
    lanes = host.publisher._parts.delivery._lanes
    return any(lane.failure for lane in lanes.values())
