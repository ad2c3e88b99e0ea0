"""What a client that retries with care can rely on: the handling of a request, without HTTP."""

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from stripe_emulator.account import StripeAccount
from stripe_emulator.faults import Fault, FaultKind, When
from stripe_emulator.keys import KeyState
from stripe_emulator.pipeline import Call, Outcome, Pipeline
from stripe_emulator.running import DEFAULT_KEY

FAULTS = st.builds(Fault, st.sampled_from(FaultKind), st.sampled_from(When))
PATH = "/v1/billing/meter_events"


def account_with_a_customer() -> tuple[StripeAccount, str]:
    """Make an account with a meter and a customer."""
    account = StripeAccount()
    account.keys.put(DEFAULT_KEY, KeyState.VALID)
    aggregation = {"formula": "sum"}
    meter: Any = {"display_name": "r", "event_name": "runs", "default_aggregation": aggregation}
    account.meters.create(meter, account.clock.now())
    return account, account.customers.create({}, account.clock.now())["id"]


def is_definite(outcome: Outcome) -> bool:
    """Return whether an outcome says that the event is counted."""
    message = outcome.answer.body.get("error", {}).get("message", "")
    duplicate = message.startswith("An event already exists")
    return outcome.wire is None and (outcome.status == 200 or duplicate)


@given(st.lists(st.lists(FAULTS, max_size=5), min_size=1, max_size=4))
def test_a_client_that_repeats_an_identifier_is_counted_once(
    fault_lists: list[list[Fault]],
) -> None:
    """Through any faults, one identifier and a new key after each 500 count each event once."""
    account, customer = account_with_a_customer()
    pipeline = Pipeline(account)

    async def deliver(identifier: str, faults: list[Fault]) -> None:
        for fault in faults:
            account.faults.add(fault)
        key_number = 0
        while True:
            payload: Any = {"stripe_customer_id": customer, "value": "3"}
            form = {"event_name": "runs", "identifier": identifier, "payload": payload}
            key = f"{identifier}:{key_number}"
            call = Call("req_1", "POST", PATH, form, f"Bearer {DEFAULT_KEY}", key)
            outcome = await pipeline.handle(call)
            if is_definite(outcome):
                return
            key_number += outcome.status == 500

    async def deliver_all() -> None:
        for number, faults in enumerate(fault_lists):
            await deliver(f"event-{number}", faults)

    asyncio.run(deliver_all())

    (counted,) = account.sums()
    assert (counted["value"], counted["events"]) == (3 * len(fault_lists), len(fault_lists))


@given(st.lists(FAULTS, min_size=1, max_size=6))
def test_a_new_identifier_per_try_is_counted_more_than_once(faults: list[Fault]) -> None:
    """Every effect whose answer was lost is counted again."""
    account, customer = account_with_a_customer()
    pipeline = Pipeline(account)
    for fault in faults:
        account.faults.add(fault)

    async def deliver() -> int:
        for number in range(len(faults) + 1):
            payload: Any = {"stripe_customer_id": customer, "value": "3"}
            form = {"event_name": "runs", "identifier": f"try-{number}", "payload": payload}
            call = Call("req_1", "POST", PATH, form, f"Bearer {DEFAULT_KEY}", None)
            if is_definite(await pipeline.handle(call)):
                return number
        raise AssertionError("every fault applies to one request only")

    tries = asyncio.run(deliver())

    lost = sum(fault.when is When.AFTER for fault in faults[:tries])
    assert account.sums()[0]["events"] == 1 + lost
