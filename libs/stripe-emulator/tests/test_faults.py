"""Faults on demand: which requests they apply to, what the client sees and what took effect."""

from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
import stripe

from stripe_emulator import EmulatorClient
from stripe_emulator.faults import Fault, FaultKind, Faults, InvalidFaultError, Target

METER = "tool_call_executed"
WIRE_ERRORS = (stripe.StripeError, aiohttp.ClientError, TimeoutError)
SEEN: dict[str, tuple[type[Exception], int | None, str | None]] = {
    "reset": (stripe.APIConnectionError, None, None),
    "truncated": (aiohttp.ClientPayloadError, None, None),
    "server_error": (stripe.APIError, 500, None),
    "html_503": (stripe.APIError, 503, None),
    "foreign": (stripe.APIError, 502, None),
    "rate_limited": (stripe.RateLimitError, 429, "global-rate"),
    "lock_timeout": (stripe.RateLimitError, 429, None),
    "conflict": (stripe.APIError, 409, None),
    "status": (stripe.APIError, 502, None),
}
Send = Callable[..., Awaitable[Any]]


@pytest.fixture
def send(sdk: stripe.StripeClient, customer_id: str) -> Send:
    """Send a meter event with a given identifier and idempotency key."""

    async def sent(identifier: str = "i", key: str = "k") -> Any:
        payload = {"stripe_customer_id": customer_id, "value": "3"}
        return await sdk.v1.billing.meter_events.create_async(
            {"event_name": METER, "identifier": identifier, "payload": payload},
            {"idempotency_key": key},
        )

    return sent


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", list(SEEN))
async def test_a_fault_shows_what_it_should_and_counts_only_after_the_effect(
    send: Send, inspection: EmulatorClient, kind: str, when: str
) -> None:
    """The client sees the same whether or not the event was counted."""
    await inspection.add_fault(kind, when=when, path_prefix="/v1/billing/meter_events")

    with pytest.raises(WIRE_ERRORS) as failure:
        await send()

    error_type, status, reason = SEEN[kind]
    assert type(failure.value) is error_type
    assert getattr(failure.value, "http_status", None) == status
    headers = getattr(failure.value, "headers", None) or {}
    assert headers.get("stripe-rate-limited-reason") == reason
    assert (await inspection.attempts())["i"]["accepted"] == (when == "after")
    assert (await inspection.requests())[-1]["fault"] == f"{kind}:{when}"


@pytest.mark.parametrize("kind", sorted(SEEN.keys() - {"server_error"}))
async def test_a_lost_answer_is_there_for_the_same_key(
    send: Send, inspection: EmulatorClient, kind: str
) -> None:
    """After any such fault, the same key returns the answer."""
    await inspection.add_fault(kind, when="after")
    with pytest.raises(WIRE_ERRORS):
        await send()

    again = await send()

    assert again.last_response.headers["Idempotent-Replayed"] == "true"
    assert (await inspection.sums())[0]["value"] == 3


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_500_is_replayed_for_its_key_and_settled_by_a_new_one(
    send: Send, inspection: EmulatorClient, when: str
) -> None:
    """The key remembers the 500; only a new key shows whether the event was counted."""
    await inspection.add_fault("server_error", when=when)
    with pytest.raises(stripe.APIError):
        await send(key="k:0")

    with pytest.raises(stripe.APIError) as replay:
        await send(key="k:0")
    if when == "after":
        with pytest.raises(stripe.InvalidRequestError, match="An event already exists"):
            await send(key="k:1")
    else:
        await send(key="k:1")

    assert (replay.value.headers or {})["idempotent-replayed"] == "true"
    assert (await inspection.sums())[0]["value"] == 3


@pytest.mark.parametrize("status", [300, 404, 503])
async def test_any_status_can_be_set(send: Send, inspection: EmulatorClient, status: int) -> None:
    """A status that no other kind of fault has is set by its number."""
    await inspection.add_fault("status", status=status, path_prefix="/v1/billing/meter_events")

    with pytest.raises(stripe.StripeError) as failure:
        await send()

    assert failure.value.http_status == status
    assert (await inspection.attempts())["i"]["accepted"] == 0


async def test_a_429_is_not_kept_under_its_key(send: Send, inspection: EmulatorClient) -> None:
    """After a 429 that had no effect the same key is executed afresh."""
    await inspection.add_fault("rate_limited", when="before")
    with pytest.raises(stripe.RateLimitError):
        await send()

    accepted = await send()

    assert "Idempotent-Replayed" not in accepted.last_response.headers


async def test_a_fault_applies_to_the_next_n_matching_requests(
    send: Send, inspection: EmulatorClient
) -> None:
    """Other requests do not count."""
    await inspection.add_fault("conflict", times=2, identifier="unlucky")

    await send("lucky", "a")
    for _ in range(2):
        with pytest.raises(stripe.APIError):
            await send("unlucky", "b")
    await send("unlucky", "b")

    assert [(fault["fired"], fault["spent"]) for fault in await inspection.faults()] == [(2, True)]


async def test_faults_are_removed_one_by_one_or_all(send: Send, inspection: EmulatorClient) -> None:
    """A removed fault fires no more."""
    first = await inspection.add_fault("conflict", times=None)
    await inspection.add_fault("reset", times=None)

    assert await inspection.remove_faults(first) == 1
    with pytest.raises(stripe.APIConnectionError):
        await send()
    assert await inspection.remove_faults() == 1
    await send()


def test_a_seeded_probability_fires_the_same_way_every_time() -> None:
    """Two runs with one seed agree, and fire about as often as they should."""

    def fired() -> list[bool]:
        faults = Faults()
        faults.add(Fault(FaultKind.RESET, times=None, probability=0.3, seed=7))
        target = Target("POST", "/v1/billing/meter_events")
        return [faults.choose(target) is not None for _ in range(200)]

    assert fired() == fired()
    assert 40 <= sum(fired()) <= 80


@pytest.mark.parametrize(
    "conditions",
    [
        {"method": "GET"},
        {"path_prefix": "/v1/customers"},
        {"identifier": "other"},
        {"customer": "other"},
    ],
)
def test_a_fault_requires_all_its_conditions(conditions: dict[str, str]) -> None:
    """Method, path, identifier and customer narrow a fault down together."""
    target = Target("POST", "/v1/billing/meter_events", "i", "cus_1")
    wanted = {
        "method": "POST",
        "path_prefix": "/v1/billing",
        "identifier": "i",
        "customer": "cus_1",
    }

    assert Fault.read({"kind": "reset", **wanted}).matches(target)
    assert not Fault.read({"kind": "reset", **wanted, **conditions}).matches(target)


@pytest.mark.parametrize(
    "described",
    [
        {},
        {"kind": "earthquake"},
        {"kind": "reset", "when": "during"},
        {"kind": "reset", "times": 0},
        {"kind": "reset", "probability": 0},
        {"kind": "status", "status": 200},
        {"kind": "reset", "seconds": -1},
        {"kind": "reset", "colour": "red"},
    ],
)
def test_a_fault_that_cannot_be_read_is_refused(described: dict[str, Any]) -> None:
    """A typing error must not become a fault that never fires."""
    with pytest.raises(InvalidFaultError):
        Fault.read(described)
