"""The loop publishes through the events API: what it refuses, and while it is away."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from integration.events_api.conftest import running_api
from integration.outbox.conftest import Host, outbox_process
from metering_chaos.environment import in_thread
from nexus_messaging.errors import PublishError
from nexus_messaging.publisher import Publisher
from nexus_messaging.topology import TOOL_EXECUTED_QUEUE
from nexus_outbox.events_api import HttpPublisher
from nexus_outbox.metrics import Metrics
from nexus_outbox.relay import Relay
from nexus_outbox.storage import Outbox
from nexus_service.api_keys import make_api_key
from support.http_servers import serve_routes
from support.vhost import Vhost
from support.waiting import eventually

KEY = "a-key"


def open_event() -> asyncio.Event:
    """Return an event that is set."""
    event = asyncio.Event()
    event.set()
    return event


@dataclass
class Api:
    """What answers as the events API does, and the ids that it accepted."""

    status: int = 202
    refused: frozenset[str] = frozenset()
    accepts: asyncio.Event = field(default_factory=open_event)
    ids: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    url: str = ""

    async def accept(self, request: web.Request) -> web.Response:
        """Accept all events of a request, or none."""
        if request.headers["Authorization"] != f"Bearer {KEY}":
            return web.json_response({"code": "unauthorized"}, status=401)
        if self.status != 202:
            return web.json_response({"code": "unavailable"}, status=self.status)
        assert request.content_type == "application/cloudevents-batch+json"
        events = json.loads(await request.read())
        self.sizes.append(len(events))
        rule = {"field": "source", "rule": "this key may not publish as this source"}
        errors = [
            {"index": index, **rule}
            for index, event in enumerate(events)
            if event["id"] in self.refused
        ]
        if errors:
            return web.json_response({"code": "forbidden", "errors": errors}, status=403)
        await self.accepts.wait()
        self.ids += [event["id"] for event in events]
        return web.json_response({"accepted": len(events)}, status=202)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    """Return an API that is there."""
    made = Api()
    route = web.post("/v1/events", made.accept)
    async with serve_routes(route) as made.url:
        yield made


@pytest.fixture
async def relay(api: Api, outbox: Outbox) -> AsyncIterator[Relay]:
    """Return a relay that publishes through the API."""
    publisher = await HttpPublisher.connect(api.url, KEY)
    yield Relay(outbox, publisher, Metrics(CollectorRegistry()))
    await publisher.close()


async def test_waiting_events_go_in_one_request(host: Host, api: Api, relay: Relay) -> None:
    """Each is marked as published once it is accepted."""
    host.run_tools(20)

    await relay.publish_due()

    assert sorted(api.ids) == host.sql("SELECT id FROM metering.outbox ORDER BY id").splitlines()
    assert api.sizes[1:] == [20]
    assert host.waiting() == 0


async def test_the_api_publishes_what_the_loop_sends(
    host: Host, outbox: Outbox, vhost: Vhost
) -> None:
    """The bytes of the row arrive; an event that the API refuses does not stop the others."""
    run = host.run_tool()
    host.run_tool(more=", metadata => '{\"note\": 1}'")
    narrow = host.run_tool(more=", source => 'another'")
    broker = await Publisher.connect(vhost.url("publisher"), name="events-api")
    key, entry = make_api_key("platform", ["platform"], ["*"])
    async with running_api(broker, keys=(entry,)) as running:
        publisher = await HttpPublisher.connect(running.url, key)
        relay = Relay(outbox, publisher, Metrics(CollectorRegistry()))
        await relay.publish_due()
        await publisher.close()

    messages = {got.message_id: got.body.decode() for got in await vhost.peek(TOOL_EXECUTED_QUEUE)}
    assert len(messages) == 2
    assert messages[str(run)] == host.sql(
        f"SELECT event FROM metering.outbox WHERE id = '{run}'"  # noqa: S608 - a test's own
    )
    problem = host.sql("SELECT event_id, reason FROM metering.problems")
    assert problem == f"{narrow}|source: this key may not publish as this source"


async def test_refused_event_waits_alone_with_its_reason(
    host: Host, api: Api, relay: Relay
) -> None:
    """As with a key that is not for its source; the events beside it are published."""
    good = [str(host.run_tool()) for _ in range(3)]
    bad = str(host.run_tool())
    api.refused = frozenset({bad})

    while await relay.publish_due():
        pass
    await relay.publish_due()

    assert sorted(api.ids) == sorted(good)
    problem = host.sql("SELECT problem, event_id, reason FROM metering.problems")
    assert problem == f"refused|{bad}|source: this key may not publish as this source"


async def test_no_answer_after_a_refusal_leaves_the_others_waiting(
    host: Host, api: Api, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request without the refused event gets no answer: its events are not published."""
    monkeypatch.setattr("nexus_outbox.events_api.PUBLISH_SECONDS", 0.5)
    host.run_tools(2)
    api.refused = frozenset({str(host.run_tool())})
    api.accepts.clear()

    await relay.publish_due()

    assert host.waiting() == 3


@pytest.mark.parametrize("status", [401, 404, 429, 500, 503])
async def test_an_api_that_does_not_accept_leaves_events_waiting(
    host: Host, api: Api, relay: Relay, status: int
) -> None:
    """No event is refused by it: all are due again at once."""
    host.run_tools(3)
    api.status = status

    assert not await relay.publish_due()

    assert host.sql("SELECT count(*) FROM metering.outbox WHERE attempts = 0") == "3"
    assert host.sql("SELECT count(*) FROM metering.outbox WHERE due_at <= now()") == "3"
    assert host.sql("SELECT refused FROM metering.status") == "0"


async def test_a_large_backlog_is_split(host: Host, api: Api, relay: Relay) -> None:
    """A request stays below the 1 MiB that gateways and this server take by default."""
    large = ", metadata => jsonb_build_object('log', repeat('x', 20000))"
    call = f"metering.tool_executed(gen_random_uuid(), 'weather', 'forecast', 'hub'{large})"
    host.sql(f"SELECT {call} FROM generate_series(1, 80)", "hub")  # noqa: S608 - a test's own

    await relay.publish_due()

    assert len(api.ids) == 80
    assert api.sizes == [0, 26, 26, 26, 2]  # the first asked whether the API is there


async def test_an_unknown_key_is_refused_at_the_start(api: Api) -> None:
    """Its text does not repeat the key."""
    with pytest.raises(PublishError, match="answers 401") as raised:
        await HttpPublisher.connect(api.url, "another-key")

    assert "another-key" not in str(raised.value)


async def test_the_loop_publishes_without_a_broker(
    host: Host, api: Api, vhost: Vhost, tmp_path: Path
) -> None:
    """As a process: `EVENTS_API_URL` and `EVENTS_API_KEY` in place of `AMQP_URL`."""
    settings = {"AMQP_URL": "", "EVENTS_API_URL": api.url, "EVENTS_API_KEY": KEY}
    process = outbox_process(host, vhost, tmp_path, 1, **settings)
    try:
        await in_thread(process.launch_and_wait)
        run = await in_thread(host.run_tool)

        await eventually(lambda: asyncio.to_thread(host.waiting), lambda number: number == 0)
        assert api.ids == [str(run)]
        assert KEY not in process.log.read_text(encoding="utf-8")
    finally:
        await in_thread(process.stop)
