"""What is sent by HTTP is in the queues once the answer is 202, and never otherwise."""

import json
from uuid import uuid4

import pytest
from aio_pika.abc import DeliveryMode

from nexus_messaging.topology import TOOL_EXECUTED_QUEUE, USER_CREATED_QUEUE
from support.events import tool_run, user_created
from support.vhost import Vhost

from .conftest import Api, as_json, published

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
PLAIN = "application/json"


@pytest.mark.parametrize("content_type", [STRUCTURED, f"{PLAIN}; charset=UTF-8"])
async def test_one_event_is_published_as_it_was_sent(
    api: Api, vhost: Vhost, content_type: str
) -> None:
    """With the properties that every publisher sets, and with fields unknown here."""
    event = tool_run()
    body = json.dumps(as_json(event) | {"later": 1.50}).encode()

    answer = await api.post(body, content_type=content_type)

    [message] = await published(vhost)
    assert (answer.status, answer.body) == (202, {"accepted": 1})
    assert message.body == body
    assert (message.message_id, message.type) == (str(event.id), "tool.executed.v1")
    assert message.delivery_mode == DeliveryMode.PERSISTENT
    assert message.content_type == STRUCTURED
    assert message.exchange == "events"


@pytest.mark.parametrize("content_type", [BATCH, PLAIN])
async def test_a_batch_of_mixed_events_is_published(
    api: Api, vhost: Vhost, content_type: str
) -> None:
    """Each goes to its own queue."""
    runs, user = [tool_run(), tool_run()], user_created(uuid4())

    answer = await api.post([as_json(e) for e in (*runs, user)], content_type=content_type)

    assert (answer.status, answer.body) == (202, {"accepted": 3})
    assert {m.message_id for m in await vhost.peek(TOOL_EXECUTED_QUEUE)} == {
        str(run.id) for run in runs
    }
    assert [m.message_id for m in await vhost.peek(USER_CREATED_QUEUE)] == [str(user.id)]


async def test_an_event_in_binary_mode_is_published(api: Api, vhost: Vhost) -> None:
    """Attributes come as headers, percent-encoded, and the data as the body."""
    sent = as_json(tool_run(source="höb"))
    data = sent.pop("data")
    attributes = {f"ce_{name}": value for name, value in sent.items() if name != "source"}

    answer = await api.post(data, ce_source="h%C3%B6b", **attributes)

    [message] = await published(vhost)
    assert answer.status == 202
    assert json.loads(message.body) == {
        **sent,
        "source": "höb",
        "datacontenttype": "application/json",
        "data": data,
    }


async def test_copies_of_an_event_in_one_request_are_published_once(api: Api, vhost: Vhost) -> None:
    """A full batch of copies is no slower than other batches, and all of them are accepted."""
    event = as_json(tool_run())

    answer = await api.post([event] * 1000)

    assert (answer.status, answer.body) == (202, {"accepted": 1000})
    assert len(await published(vhost)) == 1
