"""Idempotency keys, as the emulator and Stripe both keep them."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
import stripe

Conforms = Callable[[str, object], None]


async def test_a_repeated_key_gets_the_first_answer(client: Any) -> None:
    """The second request creates nothing and its answer says that it is a replay."""
    options: stripe.RequestOptions = {"idempotency_key": str(uuid4())}
    params: Any = {"email": f"{uuid4().hex}@example.org"}

    first = await client.v1.customers.create_async(params, options)
    again = await client.v1.customers.create_async(params, options)
    listed = await client.v1.customers.list_async({"email": params["email"]})
    await client.v1.customers.delete_async(first.id)

    assert again.last_response.data == first.last_response.data
    assert "Idempotent-Replayed" not in first.last_response.headers
    assert again.last_response.headers["Idempotent-Replayed"] == "true"
    assert [found.id for found in listed.data] == [first.id]


async def test_a_key_with_other_parameters_is_refused(
    client: Any, customer: Any, conforms: Conforms
) -> None:
    """A key belongs to the parameters it was first used with."""
    options: stripe.RequestOptions = {"idempotency_key": str(uuid4())}
    await client.v1.customers.update_async(customer.id, {"name": "Ada"}, options)

    with pytest.raises(stripe.IdempotencyError) as refusal:
        await client.v1.customers.update_async(customer.id, {"name": "Bob"}, options)

    conforms("error", refusal.value.json_body)
    assert refusal.value.http_status == 400
    assert refusal.value.error is not None
    assert refusal.value.error.type == "idempotency_error"


async def test_a_key_at_another_endpoint_is_refused(client: Any, customer: Any) -> None:
    """A key belongs to the endpoint it was first used at."""
    options: stripe.RequestOptions = {"idempotency_key": str(uuid4())}
    await client.v1.customers.update_async(customer.id, {"name": "Ada"}, options)

    with pytest.raises(stripe.IdempotencyError) as refusal:
        await client.v1.customers.create_async({"name": "Ada"}, options)

    assert refusal.value.http_status == 400


async def test_a_refusal_of_the_endpoint_is_replayed(
    client: Any, meter: Any, customer: Any
) -> None:
    """A 400 that comes from a rule of the endpoint is kept like a success."""
    options: stripe.RequestOptions = {"idempotency_key": str(uuid4())}
    identifier = str(uuid4())
    payload = {"stripe_customer_id": customer.id, "value": "1"}
    event: Any = {"event_name": meter.event_name, "identifier": identifier, "payload": payload}
    await client.v1.billing.meter_events.create_async(event)

    refusals = []
    for _ in range(2):
        with pytest.raises(stripe.InvalidRequestError) as refusal:
            await client.v1.billing.meter_events.create_async(event, options)
        refusals.append(refusal.value)

    assert refusals[0].json_body == refusals[1].json_body
    assert (refusals[1].headers or {})["idempotent-replayed"] == "true"


async def test_a_request_that_failed_validation_leaves_its_key_free(
    client: Any, customer: Any
) -> None:
    """A key is only kept once the endpoint began to execute."""
    options: stripe.RequestOptions = {"idempotency_key": str(uuid4())}
    wrong: Any = {"nonsense": "x"}

    with pytest.raises(stripe.InvalidRequestError):
        await client.v1.customers.update_async(customer.id, wrong, options)
    updated = await client.v1.customers.update_async(customer.id, {"name": "Ada"}, options)

    assert updated.name == "Ada"


async def test_a_key_longer_than_255_characters_is_refused(
    client: Any,
) -> None:
    """Keys are limited to 255 characters."""
    with pytest.raises(stripe.StripeError) as refusal:
        await client.v1.customers.create_async({}, {"idempotency_key": "k" * 256})

    assert refusal.value.http_status == 400
