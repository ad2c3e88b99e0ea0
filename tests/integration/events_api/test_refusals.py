"""What is refused, how, and that nothing of a refused request is published."""

import asyncio
import json
from uuid import uuid4

import aiohttp
import pytest
from yarl import URL

from nexus_messaging.publisher import Publisher
from nexus_service.api_keys import make_api_key
from support.events import tool_run, user_created
from support.vhost import Vhost
from support.waiting import eventually

from .conftest import KEY, KEYS_ENTRY, NARROW_KEY, Api, as_json, published, running_api

MIB = 1024 * 1024


async def test_every_bad_event_is_named_and_none_is_published(api: Api, vhost: Vhost) -> None:
    """By index, field and rule, without a value; the rest can be sent again as it is."""
    good = [as_json(tool_run()) for _ in range(2)]
    wrong_user = as_json(user_created(uuid4()))
    wrong_user["data"]["email"] = "s3cret@no.address@at.all"
    no_time = as_json(tool_run())
    del no_time["time"]
    internal = as_json(tool_run()) | {"type": "usage.recorded.v1"}

    refused = await api.post([good[0], wrong_user, good[1], no_time, internal, "s3cret"])
    stored = await published(vhost)
    answer = await api.post(good)

    assert (refused.status, refused.body["code"]) == (400, "invalid")
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert refused.bad_indexes == {1, 3, 4, 5}
    faults = {(each["index"], each["field"], each["rule"]) for each in refused.body["errors"]}
    assert {(1, "data.email", "must be an e-mail address"), (3, "time", "is missing")} <= faults
    assert "s3cret" not in json.dumps(refused.body)
    assert stored == []
    assert answer.status == 202


async def test_a_key_publishes_no_other_source_or_type(api: Api, vhost: Vhost) -> None:
    """403 names every index."""
    allowed = as_json(tool_run(source="web"))
    foreign = as_json(tool_run(source="hub"))
    user = as_json(user_created(uuid4())) | {"source": "web"}

    refused = await api.post([allowed, foreign, user], key=NARROW_KEY)
    accepted = await api.post(allowed, key=NARROW_KEY)

    assert (refused.status, refused.body["code"]) == (403, "forbidden")
    assert refused.bad_indexes == {1, 2}
    assert accepted.status == 202
    assert len(await published(vhost)) == 1


@pytest.mark.parametrize(
    "key", [None, "wrong", pytest.param(KEYS_ENTRY.digest, id="the digest that is configured")]
)
async def test_without_a_key_nothing_is_read(api: Api, key: str | None) -> None:
    """401, even if the body is worse."""
    answer = await api.post(b"{", key=key)

    assert (answer.status, answer.body["code"]) == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_two_keys_of_one_name_work_until_one_is_removed(vhost: Vhost) -> None:
    """So a key can be replaced without a request refused."""
    new, entry = make_api_key("hub", ["*"], ["*"])
    for keys, statuses in (((KEYS_ENTRY, entry), (202, 202)), ((entry,), (401, 202))):
        publisher = await Publisher.connect(vhost.url("publisher"), name="events-api")
        async with running_api(publisher, keys=keys) as api:
            answers = [await api.post(as_json(tool_run()), key=key) for key in (KEY, new)]

        assert tuple(answer.status for answer in answers) == statuses


async def test_another_media_type_is_415(api: Api) -> None:
    """Also a compressed body, and none at all."""
    event = as_json(tool_run())

    answers = [
        await api.post(event, content_type="text/plain"),
        await api.post(event, content_type=None),
        await api.post(event, Content_Encoding="gzip"),
    ]

    assert [each.status for each in answers] == [415] * 3


async def test_too_large_requests_are_413(api: Api, vhost: Vhost) -> None:
    """By the size of the request, of an event, or by their number."""
    event = as_json(tool_run())
    large = event | {"unknown": "x" * 300_000}

    too_long = await api.post(b" " * (8 * MIB + 1))
    too_many = await api.post([event] * 1001)
    too_large = await api.post([event, large, event, large])

    assert [each.status for each in (too_long, too_many, too_large)] == [413] * 3
    assert too_large.bad_indexes == {1, 3}
    assert await published(vhost) == []


async def test_a_key_beyond_its_rate_is_429(vhost: Vhost) -> None:
    """All events of a request count, also in one that is refused later; another key goes on."""
    publisher = await Publisher.connect(vhost.url("publisher"), name="events-api")
    async with running_api(publisher, rate=10.0) as api:
        full = await api.post([{}] * 1000)
        limited = await api.post([{}] * 100)
        other = await api.post([], key=NARROW_KEY)

    assert (full.status, limited.status, other.status) == (400, 429, 202)
    assert 5 <= int(limited.headers["Retry-After"]) <= 10
    assert limited.body["code"] == "rate_limited"


async def test_a_full_batch_is_accepted(api: Api, vhost: Vhost) -> None:
    """A thousand events, each confirmed."""
    runs = [as_json(tool_run()) for _ in range(1000)]

    answer = await api.post(runs, content_type="application/cloudevents-batch+json")

    assert (answer.status, answer.body) == (202, {"accepted": 1000})
    await eventually(lambda: vhost.depth("usage-ingest.tool-executed"), lambda d: d == 1000)
    assert (
        api.registry.get_sample_value("events_api_events_total", {"type": "tool.executed.v1"})
        == 1000
    )


async def test_another_path_or_method_is_a_problem(api: Api) -> None:
    """404 and 405 with the same content type as every refusal."""
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{api.url}/v1/events") as method:
            assert (method.status, method.headers["Allow"]) == (405, "POST")
            assert (await method.json(content_type="application/problem+json"))["status"] == 405
        async with session.post(f"{api.url}/v1/event") as path:
            assert path.status == 404


async def test_a_request_to_upgrade_is_refused_for_that(api: Api) -> None:
    """As Java's HttpClient sends it by default; its event is not called unreadable."""
    answer = await api.post(as_json(tool_run()), Connection="Upgrade", Upgrade="h2c")

    assert (answer.status, answer.body["code"]) == (400, "invalid")
    assert "without Upgrade" in answer.body["detail"]
    assert "errors" not in answer.body


async def test_a_slash_at_the_end_is_another_path(api: Api) -> None:
    """No redirect: it would name http:// behind a proxy, and clients send the key again."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{api.url}/v1/events/", allow_redirects=False) as answer,
    ):
        assert (answer.status, answer.headers.get("Location")) == (404, None)


async def test_a_slow_body_is_408(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is no longer in memory."""
    monkeypatch.setattr("usage_ingest.events_api.bodies.BODY_SECONDS", 0.2)
    reader, writer = await begin_request(api, b"[", announced=100)

    answer = await reader.readuntil(b"}")
    writer.close()

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert in_hand(api) == 0


async def test_bodies_beyond_the_memory_s_limit_are_503(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those in hand go on; the next is worth repeating a second later."""
    monkeypatch.setattr("usage_ingest.events_api.bodies.MAX_BYTES_IN_HAND", 1000)
    _, writer = await begin_request(api, b" " * 900, announced=2000)
    await eventually(lambda: hand(api), lambda held: held == 900)

    answer = await api.post(b" " * 200)
    writer.close()

    assert (answer.status, answer.body["code"]) == (503, "overloaded")
    assert answer.headers["Retry-After"] == "1"


async def test_a_client_that_goes_within_its_body_leaves_nothing(api: Api, vhost: Vhost) -> None:
    """Nothing is published, and nothing stays in memory."""
    body = json.dumps([as_json(tool_run())]).encode()
    _, writer = await begin_request(api, body, announced=len(body) + 1)
    await eventually(lambda: hand(api), lambda held: held == len(body))

    writer.transport.abort()

    await eventually(lambda: hand(api), lambda held: held == 0)
    assert api.counted("disconnected") == 1
    assert await published(vhost) == []


async def test_endless_headers_are_refused(api: Api) -> None:
    """Before they fill the memory, and without a key."""
    address = URL(api.url)
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(b"POST /v1/events HTTP/1.1\r\nHost: x\r\nx: ")
    for _ in range(40):
        writer.write(b"y" * 10_000)

    answer = await reader.readline()
    writer.close()

    assert b" 400 " in answer


async def begin_request(
    api: Api, body: bytes, *, announced: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a request's headers and ``body``, of ``announced`` bytes."""
    address = URL(api.url)
    reader, writer = await asyncio.open_connection(address.host, address.port)
    lines = (
        "POST /v1/events HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {KEY}",
        "Content-Type: application/json",
        f"Content-Length: {announced}",
    )
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    return reader, writer


def in_hand(api: Api) -> float:
    """Return the bytes of bodies in memory."""
    return api.registry.get_sample_value("events_api_body_bytes") or 0.0


async def hand(api: Api) -> float:
    """Return the bytes of bodies in memory."""
    return in_hand(api)
