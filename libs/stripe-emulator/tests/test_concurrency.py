"""Overlapping calls, keys in flight and rate limits."""

import asyncio
import time
from typing import Any

import pytest
import stripe

from stripe_emulator import EmulatorClient

METER = "tool_call_executed"


async def send(
    sdk: stripe.StripeClient, customer_id: str, identifier: str, key: str | None = None
) -> Any:
    """Send an event and return the answer or the error."""
    payload = {"stripe_customer_id": customer_id, "value": "1"}
    options: stripe.RequestOptions = {} if key is None else {"idempotency_key": key}
    try:
        return await sdk.v1.billing.meter_events.create_async(
            {"event_name": METER, "identifier": identifier, "payload": payload}, options
        )
    except stripe.StripeError as error:
        return error


async def test_overlapping_events_of_one_customer_are_refused(
    sdk: stripe.StripeClient, inspection: EmulatorClient, customer_id: str
) -> None:
    """While one is in flight a second gets 409 and is not counted; afterwards it is accepted."""
    await inspection.set_options(call_seconds=0.2)

    answers = await asyncio.gather(
        send(sdk, customer_id, "a", "k-a"), send(sdk, customer_id, "b", "k-b")
    )
    refusals = [answer for answer in answers if isinstance(answer, stripe.APIError)]
    again = await send(sdk, customer_id, "b" if answers[1] in refusals else "a", "k-b")

    assert [refusal.http_status for refusal in refusals] == [409]
    assert not isinstance(again, Exception)
    assert (await inspection.sums())[0]["value"] == 2


async def test_events_of_different_customers_overlap_freely(
    sdk: stripe.StripeClient, inspection: EmulatorClient, customer_id: str
) -> None:
    """The limit is one call per customer and meter, not one for the account."""
    other = (await sdk.v1.customers.create_async({"name": "Bob"})).id
    await inspection.set_options(call_seconds=0.2)

    answers = await asyncio.gather(send(sdk, customer_id, "a"), send(sdk, other, "b"))

    assert not any(isinstance(answer, Exception) for answer in answers)


async def test_overlaps_can_be_allowed(
    sdk: stripe.StripeClient, inspection: EmulatorClient, customer_id: str
) -> None:
    """The rule can be switched off: Stripe does not always enforce it as documented."""
    await inspection.set_options(call_seconds=0.2, refuse_overlaps=False)

    answers = await asyncio.gather(send(sdk, customer_id, "a"), send(sdk, customer_id, "b"))

    assert not any(isinstance(answer, Exception) for answer in answers)


async def test_a_key_in_flight_is_a_conflict(
    sdk: stripe.StripeClient, inspection: EmulatorClient
) -> None:
    """The same key twice at once: one is executed, the other gets 409 with its code."""
    await inspection.set_options(call_seconds=0.2)
    options: stripe.RequestOptions = {"idempotency_key": "k"}

    answers = await asyncio.gather(
        *(sdk.v1.customers.create_async({"name": "Ada"}, options) for _ in range(2)),
        return_exceptions=True,
    )

    refusals = [answer for answer in answers if isinstance(answer, stripe.StripeError)]
    assert [refusal.http_status for refusal in refusals] == [409]
    assert refusals[0].error is not None
    assert refusals[0].error.code == "idempotency_key_in_use"


async def test_a_call_whose_client_timed_out_takes_effect(
    sdk: stripe.StripeClient, inspection: EmulatorClient, customer_id: str
) -> None:
    """A timeout at the client does not cancel the call."""
    await inspection.add_fault("latency", when="before", seconds=0.3)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(send(sdk, customer_id, "slow"), timeout=0.1)
    deadline = time.monotonic() + 5
    while not await inspection.sums():
        assert time.monotonic() < deadline, "the call had no effect"

    assert (await inspection.attempts())["slow"]["accepted"] == 1


async def test_a_late_answer_keeps_its_key_in_flight_until_it_is_given(
    sdk: stripe.StripeClient, inspection: EmulatorClient, customer_id: str
) -> None:
    """The call takes effect before its answer: the same key gets 409, and then the answer."""
    await inspection.add_fault("latency", when="after", seconds=0.3)

    slow = asyncio.create_task(send(sdk, customer_id, "slow", "k"))
    while not await inspection.sums():
        assert not slow.done()
    meanwhile = await send(sdk, customer_id, "slow", "k")
    answer = await slow
    again = await send(sdk, customer_id, "slow", "k")

    assert meanwhile.http_status == 409
    assert again.last_response.data == answer.last_response.data
    assert again.last_response.headers["Idempotent-Replayed"] == "true"


async def test_calls_beyond_the_basic_limit_are_refused_with_a_reason(
    sdk: stripe.StripeClient, inspection: EmulatorClient, customer_id: str
) -> None:
    """The bucket empties, names its reason, and fills again with time."""
    await inspection.set_options(rate_limits=True, basic_per_second=3)

    answers = [await send(sdk, customer_id, f"i{n}") for n in range(5)]
    await inspection.advance_clock(2)
    later = await send(sdk, customer_id, "later")

    refusals = [answer for answer in answers if isinstance(answer, stripe.RateLimitError)]
    assert len(refusals) == 2
    assert (refusals[0].headers or {})["stripe-rate-limited-reason"] == "global-rate"
    assert refusals[0].error is not None
    assert refusals[0].error.code == "rate_limit"
    assert not isinstance(later, Exception)


async def test_searches_have_a_limit_of_their_own(
    sdk: stripe.StripeClient, inspection: EmulatorClient
) -> None:
    """The reason names the endpoint's limit, not the account's."""
    await inspection.set_options(rate_limits=True, basic_per_second=100, search_per_second=1)
    await sdk.v1.customers.search_async({"query": "email:'a@b'"})

    with pytest.raises(stripe.RateLimitError) as refusal:
        await sdk.v1.customers.search_async({"query": "email:'a@b'"})

    assert (refusal.value.headers or {})["stripe-rate-limited-reason"] == "endpoint-rate"
