"""Signatures of webhooks, as the emulator and Stripe both make them."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import stripe

Eventually = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]


async def test_a_webhook_is_signed_by_the_secret_of_its_endpoint(
    client: Any, public_endpoint: Any, receiver: Any, eventually: Eventually
) -> None:
    """The SDK takes it by that secret alone, and makes the same signature of the same moment."""
    created = await client.v1.customers.create_async({"name": "Ada"})

    async def has_come() -> bool:
        return created.id in [event["data"]["object"]["id"] for event in receiver.events]

    await eventually(has_come)
    [(body, signature)] = [each for each in receiver.got if created.id in each[0]]
    await client.v1.customers.delete_async(created.id)
    time, *digests = signature.split(",")

    assert (
        client.construct_event(body, signature, public_endpoint.secret).id == json.loads(body)["id"]
    )
    made = stripe.WebhookSignature.generate_signature_header(
        body, public_endpoint.secret, timestamp=int(time.removeprefix("t="))
    )
    assert made == ",".join([time, digests[0]])
    with pytest.raises(stripe.SignatureVerificationError):
        client.construct_event(body, signature, "whsec_other")
    with pytest.raises(stripe.SignatureVerificationError):
        client.construct_event(body + " ", signature, public_endpoint.secret)
