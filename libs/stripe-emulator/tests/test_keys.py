"""API keys: how a request carries one, and how its state changes."""

import base64

import aiohttp
import pytest
import stripe

from stripe_emulator import EmulatorClient, RunningEmulator

KEY = "sk_test_51EmulatedAccountKey"


async def status_of(emulator: RunningEmulator, headers: dict[str, str]) -> tuple[int, str]:
    """Ask for the customers and return status and message."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{emulator.url}/v1/customers", headers=headers) as response,
    ):
        assert ("Request-Id" in response.headers) == (response.status != 401)
        return response.status, (await response.json()).get("error", {}).get("message", "")


async def test_bearer_and_basic_are_both_accepted(emulator: RunningEmulator) -> None:
    """The key is the bearer token, or the user name of basic authentication."""
    encoded = base64.b64encode(f"{KEY}:".encode()).decode()

    bearer = await status_of(emulator, {"Authorization": f"Bearer {KEY}"})
    basic = await status_of(emulator, {"Authorization": f"Basic {encoded}"})

    assert (bearer[0], basic[0]) == (200, 200)


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Basic %%%"}, {"Authorization": "x"}])
async def test_a_request_without_a_key_is_refused(
    emulator: RunningEmulator, headers: dict[str, str]
) -> None:
    """No key, or one that can't be read, is a 401 that explains how to give one."""
    status, message = await status_of(emulator, headers)

    assert status == 401
    assert message.startswith("You did not provide an API key.")


async def test_a_key_can_be_revoked_and_restored(
    sdk: stripe.StripeClient, inspection: EmulatorClient
) -> None:
    """Revoking takes effect at the next request, and so does restoring."""
    await sdk.v1.customers.list_async()

    await inspection.set_key(KEY, "revoked")
    with pytest.raises(stripe.AuthenticationError) as refusal:
        await sdk.v1.customers.list_async()
    await inspection.set_key(KEY, "valid")
    await sdk.v1.customers.list_async()

    assert refusal.value.http_status == 401
    assert refusal.value.error is not None
    assert refusal.value.error.code == "api_key_expired"
    assert KEY not in str(refusal.value)


async def test_a_restricted_key_has_only_its_permissions(
    sdk: stripe.StripeClient, inspection: EmulatorClient
) -> None:
    """Without the permission it gets 403, and the message names what is missing."""
    await inspection.set_key(KEY, "restricted", ("rak_customer_read",))

    await sdk.v1.customers.list_async()
    with pytest.raises(stripe.PermissionError) as refusal:
        await sdk.v1.customers.create_async({"name": "Ada"})

    assert refusal.value.http_status == 403
    assert "Having the 'rak_customer_write' permission" in str(refusal.value)


async def test_a_401_is_not_kept_under_the_idempotency_key(
    sdk: stripe.StripeClient, inspection: EmulatorClient
) -> None:
    """A request that was refused for its API key is executed once the key is valid."""
    options: stripe.RequestOptions = {"idempotency_key": "k"}
    await inspection.set_key(KEY, "revoked")
    with pytest.raises(stripe.AuthenticationError):
        await sdk.v1.customers.create_async({"name": "Ada"}, options)

    await inspection.set_key(KEY, "valid")
    created = await sdk.v1.customers.create_async({"name": "Ada"}, options)

    assert created.name == "Ada"
