"""The broker is away, silent or incomplete: 503 with `Retry-After`, and the API stays up."""

import asyncio
from uuid import uuid4

import pytest
from yarl import URL

from integration.messaging.bench import close_connections
from local_stack.ports import LOOPBACK, free_ports
from local_stack.servers import Broker
from nexus_messaging.publisher import Publisher
from nexus_messaging.topology import TOOL_EXECUTED_QUEUE, UNROUTABLE
from support.events import tool_run, user_created
from support.line import Line
from support.vhost import Vhost, open_vhost
from support.waiting import eventually

from .conftest import Api, as_json, running_api

pytestmark = pytest.mark.usefixtures("vhost")


async def accepted(api: Api) -> int:
    """Return the status of a valid request."""
    return (await api.post(as_json(tool_run()))).status


async def test_the_api_starts_without_the_broker_and_finds_it(vhost: Vhost) -> None:
    """503 until it is there, and nothing is restarted."""
    broker = URL(vhost.url("publisher"))
    [port] = free_ports(None)
    publisher = Publisher.connect_later(str(broker.with_port(port)), name="events-api")
    async with running_api(publisher) as api:
        away = await api.post(as_json(tool_run()))
        async with Line.to(broker, port=port):
            await eventually(lambda: accepted(api), lambda status: status == 202)

    assert (away.status, away.body["code"]) == (503, "broker_unavailable")
    assert away.headers["Retry-After"] == "5"


async def test_a_silent_broker_is_503_in_time(
    vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in an alarm; a request that was cut off is repeated whole, and each event comes once."""
    monkeypatch.setattr("usage_ingest.events_api.http.PUBLISH_SECONDS", 0.5)
    batch = [as_json(tool_run()) for _ in range(300)]
    async with Line.to(URL(vhost.url("publisher"))) as line:
        publisher = await Publisher.connect(str(line.url), name="events-api")
        async with running_api(publisher) as api:
            line.open.clear()
            silent = await api.post(batch)
            line.open.set()
            await eventually(lambda: accepted(api), lambda status: status == 202)
            again = await api.post(batch)

    ids = {m.message_id for m in await vhost.peek(TOOL_EXECUTED_QUEUE)}
    assert (silent.status, silent.headers["Retry-After"]) == (503, "5")
    assert (again.status, again.body) == (202, {"accepted": 300})
    assert {event["id"] for event in batch} <= ids


async def test_a_connection_lost_within_a_batch_is_503(api: Api, vhost: Vhost) -> None:
    """The publisher reconnects by itself, and the batch is sent again whole."""
    batch = [as_json(tool_run()) for _ in range(1000)]
    sending = asyncio.create_task(api.post(batch))
    await eventually(lambda: vhost.depth(TOOL_EXECUTED_QUEUE), bool, every=0.0)
    await close_connections(vhost)

    first = await sending
    await eventually(lambda: accepted(api), lambda status: status == 202)

    assert first.status in {202, 503}  # the connection may have been closed a moment too late
    assert (await api.post(batch)).status == 202


async def test_an_event_that_no_queue_takes_is_not_accepted(broker: Broker, password: str) -> None:
    """Without its queue and the alternate exchange, the broker returns it; others go on."""
    async with open_vhost(broker, password) as vhost:
        publisher = await Publisher.connect(vhost.url("publisher"), name="events-api")
        for queue in (TOOL_EXECUTED_QUEUE, UNROUTABLE):
            await vhost.ask("DELETE", "queues/{vhost}/" + queue)
        await vhost.ask("DELETE", "exchanges/{vhost}/" + UNROUTABLE)
        async with running_api(publisher) as api:
            returned = await api.post([as_json(tool_run()), as_json(user_created(uuid4()))])
            routed = await api.post(as_json(user_created(uuid4())))

    assert (returned.status, routed.status) == (503, 202)


async def test_requests_in_progress_are_answered_at_the_end(
    vhost: Vhost,
) -> None:
    """SIGTERM drains: what is being published is answered, and a new connection is refused."""
    async with Line.to(URL(vhost.url("publisher"))) as line:
        publisher = await Publisher.connect(str(line.url), name="events-api")
        async with running_api(publisher) as api:
            line.open.clear()
            sending = asyncio.create_task(api.post(as_json(tool_run())))
            await eventually(lambda: in_hand(api), bool)
            draining = asyncio.create_task(api.server.drain(5))
            with pytest.raises(OSError, match="Connect call failed"):
                await eventually(lambda: connect(api), lambda _: False)
            line.open.set()

            assert (await sending).status == 202
            await draining


async def test_a_client_that_goes_before_its_answer_loses_nothing(vhost: Vhost) -> None:
    """Its event is published, and so is its repetition; the ledger takes one."""
    event = as_json(tool_run())
    async with Line.to(URL(vhost.url("publisher"))) as line:
        publisher = await Publisher.connect(str(line.url), name="events-api")
        async with running_api(publisher) as api:
            line.open.clear()
            sending = asyncio.create_task(api.post(event))
            await eventually(lambda: in_hand(api), bool)
            sending.cancel()
            await asyncio.wait({sending})
            line.open.set()
            await eventually(lambda: vhost.depth(TOOL_EXECUTED_QUEUE), bool)
            again = await api.post(event)

    ids = [message.message_id for message in await vhost.peek(TOOL_EXECUTED_QUEUE)]
    assert again.status == 202
    assert ids == [event["id"]] * 2


async def test_a_fault_of_the_api_is_500_and_counted(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As a problem without the error's text, and the alert counts it."""

    def fail(*_arguments: object) -> None:
        raise KeyError("s3cret")

    monkeypatch.setattr("usage_ingest.events_api.http.bodies_of", fail)

    answer = await api.post(as_json(tool_run()))

    assert (answer.status, answer.body["code"]) == (500, "internal_error")
    assert "s3cret" not in str(answer.body)
    assert api.counted("internal_error") == 1
    assert "Exception in ASGI application" in caplog.text


async def in_hand(api: Api) -> float | None:
    """Return the bytes of bodies in memory."""
    return api.registry.get_sample_value("events_api_body_bytes")


async def connect(api: Api) -> None:
    """Connect to the API, and close the connection."""
    _, writer = await asyncio.open_connection(LOOPBACK, api.server.port)
    writer.close()
