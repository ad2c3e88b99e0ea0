"""How Stripe is made to give each answer in the table of responses, and how that is mended."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import pytest
from typing_extensions import override

from integration.stripe_reporter.bench import KEY, METER, Bench
from metering_chaos.proxies import Proxy
from nexus_contracts import Event, UsageRecorded
from nexus_stripe import calls
from stripe_emulator.answers import HttpAnswer
from stripe_emulator.keys import KeyState
from stripe_reporter.reports import Report, idempotency_key


@dataclass(frozen=True, slots=True)
class Scene:
    """A bench, the reporter's proxy to Stripe, and the report that meets the answer."""

    bench: Bench
    proxy: Proxy
    event: Event[UsageRecorded]


Cause = Callable[[Scene], AbstractAsyncContextManager[None]]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A way to an answer: entering ``cause`` brings it about, leaving it mends it.

    ``counted``: whether Stripe has counted the report after the first call. ``opens``: whether
    one such answer opens the circuit. ``settings`` are the reporter's.
    """

    row: str
    how: str
    cause: Cause
    counted: bool = False
    opens: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    @override
    def __str__(self) -> str:
        return f"{self.row}: {self.how}"


def fault(kind: str, **conditions: Any) -> Cause:
    """Have every meter event fail so."""

    @asynccontextmanager
    async def cause(scene: Scene) -> AsyncIterator[None]:
        scene.bench.fault(kind, times=None, **conditions)
        yield
        scene.bench.account.faults.remove()

    return cause


def refusal(status: int, code: str) -> Cause:
    """Have every meter event refused by an error object of Stripe's with ``code``."""
    error = {"error": {"type": "invalid_request_error", "code": code, "message": "Refused."}}
    return fault("foreign", status=status, body=json.dumps(error), request_id=True)


@asynccontextmanager
async def nothing(_: Scene) -> AsyncIterator[None]:
    """Leave everything in order."""
    yield


@asynccontextmanager
async def counted_before(scene: Scene) -> AsyncIterator[None]:
    """Let Stripe have an event of the report's identifier."""
    scene.bench.account.record_event(Report.of(scene.event.data).request())
    yield


@asynccontextmanager
async def connections_refused(scene: Scene) -> AsyncIterator[None]:
    """Refuse connections to Stripe."""
    await scene.proxy.close()
    yield
    await scene.proxy.open()


@asynccontextmanager
async def no_answer_in_time(scene: Scene) -> AsyncIterator[None]:
    """Let Stripe count, and answer after the reporter's patience, shortened, has run out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calls, "CALL_TIMEOUT", 1.5)
        async with fault("latency", when="after", seconds=4.0)(scene):
            yield


def key(state: KeyState) -> Cause:
    """Bring the reporter's key into a state."""

    @asynccontextmanager
    async def cause(scene: Scene) -> AsyncIterator[None]:
        scene.bench.account.keys.put(KEY, state)
        yield
        scene.bench.account.keys.put(KEY, KeyState.VALID)

    return cause


@asynccontextmanager
async def keys_used_elsewhere(scene: Scene) -> AsyncIterator[None]:
    """Let the report's idempotency keys have been used for something else."""
    store, now = scene.bench.account.idempotency, scene.bench.account.clock.now()
    taken = [idempotency_key(scene.event.data.identifier, n) for n in range(1, 7)]
    for name in taken:
        store.begin(name, "/v1/customers", {}, "req_other", now)
        store.finish(name, HttpAnswer(200, {}))
    yield
    for name in taken:
        store.release(name)


@asynccontextmanager
async def no_customer(scene: Scene) -> AsyncIterator[None]:
    """Let the customer have been deleted."""
    scene.bench.delete_customer(scene.event.data.stripe_customer_id)
    yield


@asynccontextmanager
async def no_active_meter(scene: Scene) -> AsyncIterator[None]:
    """Deactivate the meter."""
    meters, now = scene.bench.account.meters, scene.bench.account.clock.now()
    (meter,) = meters.listed({})["data"]
    meters.deactivate(meter["id"], now)
    yield
    meters.reactivate(meter["id"], now)


@asynccontextmanager
async def another_value_key(scene: Scene) -> AsyncIterator[None]:
    """Let the meter look for its value elsewhere in the payload."""
    async with no_active_meter(scene):
        described = {
            "display_name": "Other",
            "event_name": METER,
            "default_aggregation": {"formula": "sum"},
            "value_settings": {"event_payload_key": "amount"},
        }
        account = scene.bench.account
        made = account.meters.create(described, account.clock.now())
        yield
        account.meters.deactivate(made.id, account.clock.now())


def clock(ahead: timedelta) -> Cause:
    """Let Stripe's clock differ from the reporter's."""

    @asynccontextmanager
    async def cause(scene: Scene) -> AsyncIterator[None]:
        scene.bench.account.clock.advance(ahead.total_seconds())
        yield
        scene.bench.account.clock.advance(-ahead.total_seconds())

    return cause


GATEWAY: Final = {"status": 403, "body": '{"error": "forbidden"}'}
ANOTHER_EVENT: Final = {
    "status": 200,
    "body": '{"object": "billing.meter_event", "identifier": "another"}',
    "request_id": True,
}

TWO_METERS: Final = {"stripe_tokens_meter_event_name": "tokens_used"}

RECIPES: Final = (
    Recipe("accepted", "all is well", nothing, counted=True),
    Recipe("duplicate", "counted before", counted_before, counted=True),
    Recipe("never_sent", "connection refused", connections_refused),
    Recipe("lost", "reset before the effect", fault("reset")),
    Recipe("lost", "reset after the effect", fault("reset", when="after"), counted=True),
    Recipe("lost", "half an answer", fault("truncated", when="after"), counted=True),
    Recipe("lost", "no answer in time", no_answer_in_time, counted=True),
    Recipe("unreadable", "a proxy's page before the effect", fault("html_503")),
    Recipe("unreadable", "a proxy's page after it", fault("html_503", when="after"), counted=True),
    Recipe("unreadable", "a gateway's JSON before it", fault("foreign", **GATEWAY)),
    Recipe(
        "unreadable",
        "a gateway's JSON after it",
        fault("foreign", when="after", **GATEWAY),
        counted=True,
    ),
    Recipe("unreadable", "a 200 for another event", fault("foreign", **ANOTHER_EVENT)),
    Recipe("server_error", "before the effect", fault("server_error")),
    Recipe("server_error", "after the effect", fault("server_error", when="after"), counted=True),
    Recipe("unavailable", "503 before the effect", fault("status", status=503)),
    Recipe(
        "unavailable",
        "502 after the effect",
        fault("status", status=502, when="after"),
        counted=True,
    ),
    Recipe("unauthorized", "revoked key", key(KeyState.REVOKED), opens=True),
    Recipe("forbidden", "restricted key", key(KeyState.RESTRICTED), opens=True),
    Recipe("conflict", "another call under way", fault("conflict")),
    Recipe("rate_limited", "too many calls", fault("rate_limited")),
    Recipe("locked", "an object in use", fault("lock_timeout")),
    Recipe("key_misused", "keys used elsewhere", keys_used_elsewhere),
    Recipe("no_such_customer", "deleted", no_customer),
    Recipe("no_such_customer", "by its code", refusal(400, "meter_event_customer_not_found")),
    Recipe("no_meter", "the only one", no_active_meter, opens=True),
    Recipe("no_meter", "one of two", no_active_meter, settings=TWO_METERS),
    Recipe("too_old", "by Stripe's clock alone", clock(timedelta(days=35))),
    Recipe("in_future", "by Stripe's clock alone", clock(-timedelta(hours=1))),
    Recipe("no_endpoint", "not Stripe's address", fault("status", status=404)),
    Recipe("refused", "no value where the meter looks for it", another_value_key),
    Recipe("unforeseen", "300 before the effect", fault("status", status=300)),
    Recipe("unforeseen", "300 after", fault("status", status=300, when="after"), counted=True),
)
"""Every row of the table has one or more; of an answer that leaves it unknown whether the report
was counted, there is one for either."""
