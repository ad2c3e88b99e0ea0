"""A customer of live mode, requested by a key of test mode.

Not in the contract suite: it may not create anything in live mode. The message is Stripe's own.
"""

from typing import Any

import pytest
import stripe

from stripe_emulator import RunningEmulator


async def test_a_customer_of_the_other_mode_is_not_found(
    emulator: RunningEmulator, sdk: Any
) -> None:
    """It is a 404 like another, and its message alone says why."""
    live = emulator.account.customers.create_live()

    for call in (sdk.v1.customers.retrieve_async(live), sdk.v1.customers.update_async(live, {})):
        with pytest.raises(stripe.InvalidRequestError) as refusal:
            await call

        assert (refusal.value.http_status, refusal.value.code) == (404, "resource_missing")
        assert "a similar object exists in live mode" in str(refusal.value.user_message)
    assert (await sdk.v1.customers.list_async()).data == []
