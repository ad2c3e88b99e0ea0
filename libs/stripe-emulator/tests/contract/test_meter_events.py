"""Meter events, as the emulator and Stripe both accept and refuse them."""

import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
import stripe

Conforms = Callable[[str, object], None]
DAY = 86400


def event(meter: Any, customer: Any, **changes: Any) -> Any:
    """Describe a valid event, with some of its parameters changed."""
    payload = {"stripe_customer_id": customer.id, "value": "3"}
    described = {"event_name": meter.event_name, "identifier": str(uuid4()), "payload": payload}
    return {**described, "timestamp": int(time.time()), **changes}


async def refusal_of(client: Any, described: Any) -> stripe.InvalidRequestError:
    """Send an event that is expected to be refused and return the refusal."""
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        await client.v1.billing.meter_events.create_async(described)
    return refusal.value


async def test_an_accepted_event_is_repeated_back(
    client: Any, meter: Any, customer: Any, conforms: Conforms
) -> None:
    """The answer repeats the event and gives it no id."""
    described = event(meter, customer)

    accepted = await client.v1.billing.meter_events.create_async(described)

    conforms("POST /v1/billing/meter_events", accepted.last_response.data)
    answer = accepted.last_response.data
    assert {name: answer[name] for name in described} == described
    assert "id" not in answer


async def test_an_event_without_identifier_and_time_gets_both(
    client: Any, meter: Any, customer: Any
) -> None:
    """Stripe makes up an identifier and takes the present as the event's time."""
    described = event(meter, customer)
    del described["identifier"], described["timestamp"]

    accepted = await client.v1.billing.meter_events.create_async(described)

    assert accepted.identifier
    assert abs(accepted.timestamp - time.time()) < 60


async def test_a_used_identifier_is_refused_without_a_code(
    client: Any, meter: Any, customer: Any, conforms: Conforms
) -> None:
    """Only the message identifies a duplicate, and a header says not to retry."""
    described = event(meter, customer)
    await client.v1.billing.meter_events.create_async(described)

    refusal = await refusal_of(client, described)

    conforms("error", refusal.json_body)
    message = f"An event already exists with identifier {described['identifier']}."
    assert (refusal.http_status, refusal.code, refusal.user_message) == (400, None, message)
    assert (refusal.headers or {})["stripe-should-retry"] == "false"


async def test_an_event_for_an_unknown_customer_is_refused(
    client: Any, meter: Any, conforms: Conforms
) -> None:
    """A customer in the payload that names nothing is a 400 about that payload key."""
    payload = {"stripe_customer_id": "cus_doesnotexist", "value": "1"}

    refusal = await refusal_of(client, {"event_name": meter.event_name, "payload": payload})

    conforms("error", refusal.json_body)
    assert refusal.http_status == 400
    assert "No such customer: 'cus_doesnotexist'" in str(refusal.user_message)


async def test_an_event_for_a_deleted_customer_is_refused(
    client: Any, meter: Any, customer: Any
) -> None:
    """A deleted customer counts as unknown."""
    await client.v1.customers.delete_async(customer.id)

    refusal = await refusal_of(client, event(meter, customer))

    assert f"No such customer: '{customer.id}'" in str(refusal.user_message)


async def test_an_event_name_without_a_meter_is_refused(
    client: Any, meter: Any, customer: Any
) -> None:
    """An event finds its meter by the name alone."""
    refusal = await refusal_of(client, event(meter, customer, event_name="nobody_counts_this"))

    expected = 'No active meter found for event name "nobody_counts_this"'
    assert expected in str(refusal.user_message)


async def test_an_event_older_than_35_days_is_refused(
    client: Any, meter: Any, customer: Any
) -> None:
    """An event may be at most 35 days old."""
    late = event(meter, customer, timestamp=int(time.time()) - 35 * DAY - 120)
    recent = event(meter, customer, timestamp=int(time.time()) - 35 * DAY + 3600)

    refusal = await refusal_of(client, late)
    await client.v1.billing.meter_events.create_async(recent)

    expected = "The event timestamp cannot be more than 35 days in past."
    assert expected in str(refusal.user_message)


async def test_an_event_more_than_5_minutes_ahead_is_refused(
    client: Any, meter: Any, customer: Any
) -> None:
    """An event may be at most five minutes ahead."""
    ahead = event(meter, customer, timestamp=int(time.time()) + 420)
    nearly = event(meter, customer, timestamp=int(time.time()) + 240)

    refusal = await refusal_of(client, ahead)
    await client.v1.billing.meter_events.create_async(nearly)

    assert refusal.http_status == 400


@pytest.mark.parametrize(("name", "longest"), [("event_name", 100), ("identifier", 100)])
async def test_a_name_longer_than_100_characters_is_refused(
    client: Any, meter: Any, customer: Any, name: str, longest: int
) -> None:
    """Lengths are limited, and the refusal names the parameter."""
    refusal = await refusal_of(client, event(meter, customer, **{name: "x" * (longest + 1)}))

    assert (refusal.http_status, refusal.param) == (400, name)


async def test_an_unknown_parameter_is_refused(
    client: Any, meter: Any, customer: Any, conforms: Conforms
) -> None:
    """A parameter that an endpoint does not have is never ignored."""
    refusal = await refusal_of(client, event(meter, customer, dimensions={"tool": "x"}))

    conforms("error", refusal.json_body)
    assert refusal.code == "parameter_unknown"


@pytest.mark.parametrize("value", ["many", "", "1234567890123456"])
async def test_a_value_that_is_no_number_of_15_digits_is_refused(
    client: Any, meter: Any, customer: Any, value: str
) -> None:
    """A value has to be a number with at most 15 significant digits."""
    payload = {"stripe_customer_id": customer.id, "value": value}

    refusal = await refusal_of(client, event(meter, customer, payload=payload))

    assert refusal.http_status == 400
