"""Entitlements: answers are kept and shared, and no trouble of the API's reaches the host."""

import asyncio
import logging
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

from integration.publisher.processes import run_host
from nexus_publisher.entitlements import Decision, Entitlements, Source, Why, requests
from nexus_publisher.entitlements.prometheus import EntitlementsCollector
from support.hosts import OTHER_LOOPBACK, silent_server, unreachable_port
from support.usage_api_stand_in import KEY, UsageApi, entitlement, limit_of, usage_api
from support.waiting import eventually

USER = str(uuid4())
BUDGET = 0.1
AT_ONCE = 10.0
"""Seconds beyond budgets on a busy machine; a call that waited for its request takes twice that."""

PATIENT = 20.0
"""A budget for tests whose API answers: a busy machine must not make them time out."""

Start = Callable[..., Entitlements]


@pytest.fixture(autouse=True)
def patient_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let requests take as long as a busy machine needs, and longer than a budget by far."""
    monkeypatch.setattr(requests, "ANSWER_SECONDS", PATIENT)


@pytest.fixture
async def api() -> AsyncIterator[UsageApi]:
    """Return an API that allows everything."""
    async with usage_api() as made:
        yield made


@pytest.fixture
def start() -> Iterator[Start]:
    """Return a function that makes entitlements, closed at the end of the test."""
    with ExitStack() as made:

        def make(url: str, key: str = KEY, **settings: Any) -> Entitlements:
            return made.enter_context(Entitlements(url, key, **settings))

        yield make


async def ask(
    entitlements: Entitlements, user: object = USER, otherwise: Any = "closed"
) -> Decision:
    """Ask for a run of the weather's forecast."""
    return await entitlements.aallowed(
        user,  # type: ignore[arg-type] # some tests pass what is none
        "weather",
        "forecast",
        otherwise=otherwise,
    )


def sources(entitlements: Entitlements) -> dict[Source, int]:
    """Return the counts that are not zero."""
    return {source: count for source, count in entitlements.stats().sources.items() if count}


async def test_an_answer_is_asked_for_once(api: UsageApi, start: Start) -> None:
    """By both ways to call, with every spelling of the user's id."""
    entitlements = start(api.url, budget_seconds=PATIENT)

    first = await ask(entitlements)
    second = await asyncio.to_thread(
        entitlements.allowed, UUID(USER), "weather", "history", otherwise="closed"
    )
    third = await ask(entitlements, USER.upper())

    assert [first.why, second.why, third.why] == [Why.ALLOWED] * 3
    assert first
    assert api.users == [USER]
    assert sources(entitlements) == {Source.FETCHED: 1, Source.HIT: 2}


async def test_the_path_may_be_in_the_address(api: UsageApi, start: Start) -> None:
    """As the address of events may."""
    entitlements = start(f"{api.url}/v1/entitlements/", budget_seconds=PATIENT)

    assert await ask(entitlements)


async def test_a_limit_stops_a_run_and_is_named(api: UsageApi, start: Start) -> None:
    """The rate limit goes to the host's limiter."""
    api.changes = {
        "limits": [limit_of(0)],
        "rate_limits": [{"server_id": "weather", "per_minute": 6}],
    }
    entitlements = start(api.url, budget_seconds=PATIENT)

    decision = await ask(entitlements, otherwise="open")

    assert not decision
    assert (decision.why, decision.limit, decision.per_minute) == (Why.LIMIT_REACHED, "runs", 6)
    assert decision.as_of is not None
    assert entitlements.stats().decisions[Why.LIMIT_REACHED] == 1


async def test_an_old_answer_is_used_while_a_new_one_is_fetched(
    api: UsageApi, start: Start
) -> None:
    """A limit that is reached is seen by the call after the next answer."""
    api.max_age = 0
    api.changes = {"limits": [limit_of(1)]}
    entitlements = start(api.url, budget_seconds=PATIENT)
    await ask(entitlements)

    api.changes = {"limits": [limit_of(0)]}
    stale = await ask(entitlements)

    assert (stale.why, stale.stale) == (Why.ALLOWED, True)
    await eventually(lambda: ask(entitlements), lambda decision: not decision.allowed)
    assert Source.TIMEOUT not in sources(entitlements)


async def test_an_old_refusal_waits_for_a_new_answer(api: UsageApi, start: Start) -> None:
    """Whoever has just upgraded is let through; without an answer the refusal holds."""
    api.max_age = 0
    api.changes = {"limits": [limit_of(0)]}
    entitlements = start(api.url, budget_seconds=PATIENT)
    await ask(entitlements)

    api.answer = _status(500)
    held = await ask(entitlements)
    api.answer = None
    api.changes = {"limits": [limit_of(1)]}
    upgraded = await ask(entitlements)

    assert (held.why, held.stale) == (Why.LIMIT_REACHED, True)
    assert (upgraded.why, upgraded.stale) == (Why.ALLOWED, False)


async def test_an_answer_that_did_not_change_is_not_sent_again(api: UsageApi, start: Start) -> None:
    """The ETag's 304 makes what is known fresh."""
    api.max_age = 0
    entitlements = start(api.url, budget_seconds=PATIENT)
    await ask(entitlements)
    api.max_age = 30

    await ask(entitlements)

    await eventually(lambda: ask(entitlements), lambda decision: not decision.stale)
    assert len(api.requests) == 2
    assert "If-None-Match" in api.requests[1].headers


async def test_an_old_answer_is_used_while_the_api_fails_and_then_no_longer(
    api: UsageApi, start: Start
) -> None:
    """Up to the limit; then the feature's choice holds."""
    api.max_age = 0
    entitlements = start(api.url, budget_seconds=PATIENT, stale_seconds=0.5)
    fetched = await ask(entitlements)
    api.answer = _status(500)

    stale = await ask(entitlements)

    assert (fetched.stale, stale.allowed, stale.stale) == (False, True, True)
    await eventually(lambda: ask(entitlements), lambda decision: decision.why is Why.NO_ANSWER)


async def test_a_thousand_callers_of_one_user_make_one_request(api: UsageApi, start: Start) -> None:
    """Tasks and threads alike share its answer."""
    release = asyncio.Event()

    async def when_all_wait(request: web.Request) -> web.Response:
        await release.wait()
        return web.json_response(entitlement(request.match_info["user_id"]))

    api.answer = when_all_wait
    entitlements = start(api.url, budget_seconds=PATIENT)
    answers: list[Decision] = []

    def call() -> None:
        answers.append(entitlements.allowed(USER, "weather", "forecast", otherwise="closed"))

    threads = [threading.Thread(target=call) for _ in range(100)]
    tasks = [asyncio.create_task(ask(entitlements)) for _ in range(900)]
    for thread in threads:
        thread.start()
    await asyncio.sleep(0)
    release.set()
    answers += await asyncio.gather(*tasks)
    for thread in threads:
        await asyncio.to_thread(thread.join)

    assert [answer.allowed for answer in answers] == [True] * 1000
    assert len(api.requests) == 1


async def test_five_hundred_users_at_once_are_answered(api: UsageApi, start: Start) -> None:
    """Over a few connections."""
    entitlements = start(api.url, budget_seconds=PATIENT)

    answers = await asyncio.gather(*(ask(entitlements, uuid4()) for _ in range(500)))

    assert {answer.why for answer in answers} == {Why.ALLOWED}
    peers = {request.transport for request in api.requests}
    assert len(peers) <= 17  # closed ones are None


async def test_the_cache_is_bounded(api: UsageApi, start: Start) -> None:
    """In users."""
    entitlements = start(api.url, budget_seconds=PATIENT, max_users=10)

    await asyncio.gather(*(ask(entitlements, uuid4()) for _ in range(30)))

    assert entitlements.stats().cached_users == 10


def _status(status: int, **headers: str) -> Any:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, headers=headers)

    return answer


def _body(body: bytes, content_type: str = "application/json") -> Any:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type=content_type)

    return answer


async def _hang(_: web.Request) -> web.Response:
    await asyncio.sleep(60)
    return web.Response()


async def _drip(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    with suppress(ConnectionError):
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.01)
    return response


async def _flood(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    with suppress(ConnectionError):
        while True:
            await response.write(b" " * 65536)
    return response


async def _reset(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


FAULTS = {
    "hangs": _hang,
    "drips": _drip,
    "floods": _flood,
    "resets": _reset,
    "fails": _status(500),
    "refuses": _status(401),
    "is busy": _status(429, **{"Retry-After": "1"}),
    "leads elsewhere": _status(302, Location="/"),
    "has not changed what was never sent": _status(304),
    "answers nothing": _body(b""),
    "answers a page": _body(b"<html>", "text/html"),
    "answers about another": _body(b'{"user_id": "x"}'),
    "answers brackets": _body(b"[" * 60_000),
    "answers no text": _body(b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
async def test_a_call_ends_within_its_budget_with_the_stated_choice(
    fault: Any, api: UsageApi, start: Start
) -> None:
    """Whatever the API does, by both ways to call."""
    api.answer = fault
    entitlements = start(api.url, budget_seconds=BUDGET)

    began = time.monotonic()
    is_open = await ask(entitlements, otherwise="open")
    is_closed = await ask(entitlements, uuid4(), otherwise="closed")
    in_thread = await asyncio.to_thread(
        entitlements.allowed, uuid4(), "weather", "forecast", otherwise=True
    )
    elapsed = time.monotonic() - began

    assert (is_open.allowed, is_closed.allowed, in_thread.allowed) == (True, False, True)
    assert {each.why for each in (is_open, is_closed, in_thread)} == {Why.NO_ANSWER}
    assert elapsed < 3 * BUDGET + AT_ONCE


async def test_a_host_that_says_nothing_costs_the_budget_alone(start: Start) -> None:
    """It accepts connections; or it is a firewall, which does not even refuse them."""
    with unreachable_port() as unreachable:
        async with silent_server() as silent:
            for port in (silent.port, unreachable):
                entitlements = start(f"http://{OTHER_LOOPBACK}:{port}", budget_seconds=BUDGET)
                began = time.monotonic()

                decision = await ask(entitlements)

                assert decision.why is Why.NO_ANSWER
                assert time.monotonic() - began < BUDGET + AT_ONCE


async def test_a_thousand_callers_of_an_api_that_hangs_wait_side_by_side(
    api: UsageApi, start: Start
) -> None:
    """Each of another user, in tasks and in threads; nobody waits for somebody else's budget."""
    api.answer = _hang
    entitlements = start(api.url, budget_seconds=BUDGET)
    answers: list[Decision] = []

    def call() -> None:
        answers.append(entitlements.allowed(uuid4(), "weather", "forecast", otherwise="open"))

    threads = [threading.Thread(target=call) for _ in range(100)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    answers += await asyncio.gather(
        *(ask(entitlements, uuid4(), otherwise="open") for _ in range(1000))
    )
    for thread in threads:
        await asyncio.to_thread(thread.join)
    elapsed = time.monotonic() - began

    assert len(answers) == 1100
    assert {answer.why for answer in answers} == {Why.NO_ANSWER}
    assert all(answers)
    assert len(api.requests) <= 16
    assert elapsed < BUDGET + AT_ONCE


async def test_a_look_up_of_the_name_that_hangs_costs_the_budget_alone(
    api: UsageApi, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it ends, the next call has its answer."""
    resolver, release = socket.getaddrinfo, threading.Event()

    def hang(_host: Any, *arguments: Any, **options: Any) -> Any:
        release.wait(30)
        return resolver("127.0.0.1", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    entitlements = start(api.url.replace("127.0.0.1", "usage.test"), budget_seconds=BUDGET)

    began = time.monotonic()
    during = [await ask(entitlements), await ask(entitlements, uuid4())]
    elapsed = time.monotonic() - began
    release.set()

    assert {each.why for each in during} == {Why.NO_ANSWER}
    assert elapsed < 2 * BUDGET + AT_ONCE
    await eventually(lambda: ask(entitlements), lambda decision: decision.why is Why.ALLOWED)


async def test_an_outage_is_not_waited_for_again_and_again(
    api: UsageApi, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """After a few failures calls end at once; after the outage answers come by themselves."""
    caplog.set_level(logging.INFO)
    entitlements = start(api.url, "another-key", budget_seconds=PATIENT)

    for _ in range(100):
        await ask(entitlements)
    asked = len(api.requests)
    api.answer = _answer
    await eventually(lambda: ask(entitlements), lambda decision: decision.why is Why.ALLOWED)

    assert asked < 10
    lines = [each.getMessage() for each in caplog.records if each.name == "nexus_publisher"]
    assert lines == [
        "entitlements are not answered: the API answers 401",
        "entitlements are answered again",
    ]


async def _answer(request: web.Request) -> web.Response:
    return web.json_response(entitlement(request.match_info["user_id"]))


async def test_arguments_that_cannot_be_used_do_not_raise(api: UsageApi, start: Start) -> None:
    """A mistyped choice is none to run, and they are counted."""
    entitlements: Any = start(api.url, budget_seconds=PATIENT)

    decisions = [
        entitlements.allowed("nobody", "weather", "forecast", otherwise="open"),
        entitlements.allowed(None, "weather", "forecast", otherwise="closed"),
        entitlements.allowed(USER, "weather", "forecast"),
        entitlements.allowed(),
        await entitlements.aallowed(USER, "weather", otherwise="open"),
        await entitlements.aallowed("nobody", "weather", "forecast", otherwise="opne"),
    ]

    assert [each.allowed for each in decisions] == [True, False, False, False, True, False]
    assert {each.why for each in decisions} == {Why.NO_ANSWER}
    assert entitlements.stats().sources[Source.INVALID] == 6
    assert api.requests == []


async def test_names_of_another_type_have_no_answer(api: UsageApi, start: Start) -> None:
    """Also when the user is known."""
    api.changes = {"denied": [{"server_id": "sql-*", "tool_name": "*"}]}
    entitlements: Any = start(api.url, budget_seconds=PATIENT)

    decision = await entitlements.aallowed(USER, None, 5, otherwise="closed")

    assert decision.why is Why.NO_ANSWER


@pytest.mark.parametrize(
    ("url", "key"),
    [("usage.example", "key"), ("https://u:p@usage.example", "key"), ("https://usage.example", "")],
)
def test_an_address_or_key_that_cannot_work_is_refused_at_the_start(url: str, key: str) -> None:
    """The text repeats neither."""
    with pytest.raises(ValueError, match="usage API must be") as raised:
        Entitlements(url, key)

    assert url not in str(raised.value)


async def test_closed_entitlements_answer_from_the_cache_alone(api: UsageApi, start: Start) -> None:
    """A host that goes on calling gets its stated choice for everybody else."""
    entitlements = start(api.url, budget_seconds=PATIENT)
    await ask(entitlements)

    entitlements.close()
    entitlements.close()

    assert (await ask(entitlements)).why is Why.ALLOWED
    assert (await ask(entitlements, uuid4())).why is Why.NO_ANSWER


async def test_figures_for_prometheus(api: UsageApi, start: Start) -> None:
    """Every source and every reason, also those that did not occur."""
    entitlements = start(api.url, budget_seconds=PATIENT)
    registry = CollectorRegistry()
    registry.register(EntitlementsCollector(entitlements))

    await ask(entitlements)
    await ask(entitlements)

    text = generate_latest(registry).decode()
    assert 'nexus_entitlements_calls_total{source="hit"} 1.0' in text
    assert 'nexus_entitlements_calls_total{source="timeout"} 0.0' in text
    assert 'nexus_entitlements_decisions_total{why="allowed"} 2.0' in text
    assert "nexus_entitlements_cached_users 1.0" in text


async def test_a_child_of_a_fork_asks_for_itself(api: UsageApi) -> None:
    """While its parent goes on."""
    host = await run_host("fork_entitlements", http=api.url)

    assert host.said == ["parent allowed", "child allowed", "child allowed", "parent allowed"]
    assert len(api.requests) == 3


async def test_a_request_that_hangs_holds_up_no_end_of_a_process(api: UsageApi) -> None:
    """Its thread is no reason to live on."""
    api.answer = _hang
    began = time.monotonic()

    host = await run_host("leave_entitlements", http=api.url)

    assert host.said == ["no_answer"]
    assert time.monotonic() - began < 30


async def test_a_look_up_that_hangs_holds_up_no_end_of_a_process() -> None:
    """A pool's threads would be waited for."""
    host = await run_host("leave_looking_up_entitlements", http="http://usage.test")

    assert host.said == ["no_answer"]
