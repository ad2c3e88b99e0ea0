"""Keys and addresses, as the emulator and Stripe both answer them."""

from collections.abc import Callable
from typing import Any

import pytest
import stripe

Conforms = Callable[[str, object], None]


async def test_an_unknown_key_is_a_401_that_hides_the_key(client: Any, conforms: Conforms) -> None:
    """The refusal repeats only the ends of the key."""
    key = "sk_test_51ThisKeyWasNeverGivenToAnyone9876"

    with pytest.raises(stripe.AuthenticationError) as refusal:
        await client.v1.customers.list_async({"limit": 1}, {"api_key": key})

    conforms("error", refusal.value.json_body)
    assert refusal.value.http_status == 401
    assert "Invalid API Key provided: sk_test_" in str(refusal.value.user_message)
    assert key not in str(refusal.value.user_message)
    headers = refusal.value.headers or {}
    assert headers["WWW-Authenticate"] == 'Bearer realm="Stripe"'
    assert "Request-Id" not in headers


async def test_every_answer_names_its_request(client: Any, customer: Any) -> None:
    """Successes and refusals carry a Request-Id each, but for a refusal of the key."""
    found = await client.v1.customers.retrieve_async(customer.id)
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        await client.v1.customers.retrieve_async("cus_doesnotexist")

    assert found.last_response.request_id.startswith("req_")
    assert str(refusal.value.request_id).startswith("req_")
    assert found.last_response.request_id != refusal.value.request_id


async def test_an_address_without_endpoint_is_a_404(client: Any, conforms: Conforms) -> None:
    """An unknown address answers with the API's own error."""
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        await client.raw_request_async("get", "/v1/nothing_here")

    conforms("error", refusal.value.json_body)
    assert refusal.value.http_status == 404
    assert "Unrecognized request URL" in str(refusal.value.user_message)
