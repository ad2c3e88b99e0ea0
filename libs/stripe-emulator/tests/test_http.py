"""What only plain HTTP shows: malformed bodies, the inspection API's answers, and the command."""

import asyncio
import re
import sys

import aiohttp
import pytest
import stripe

from stripe_emulator import EmulatorClient, running_emulator
from stripe_emulator.running import LiveKeyError


async def test_a_json_body_is_refused_on_v1(raw: aiohttp.ClientSession) -> None:
    """v1 takes forms only, and says which content type it wants."""
    async with raw.post("/v1/customers", json={"name": "Ada"}) as response:
        answer = await response.json()

    assert response.status == 400
    assert "application/x-www-form-urlencoded" in answer["error"]["message"]


@pytest.mark.parametrize("body", [b"name=%FF", b"\xff=x", b"a[=x"])
async def test_a_body_that_cannot_be_read_is_a_400(raw: aiohttp.ClientSession, body: bytes) -> None:
    """Broken encodings and names are refused in the API's own shape."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    async with raw.post("/v1/customers", data=body, headers=headers) as response:
        answer = await response.json()

    assert response.status == 400
    assert answer["error"]["type"] == "invalid_request_error"


async def test_an_invalid_email_is_refused_by_its_code(sdk: stripe.StripeClient) -> None:
    """An address without its two sides is no address."""
    for email in ("ada", "@example.org", "ada@", "a b@example.org", "a@b@c"):
        with pytest.raises(stripe.InvalidRequestError) as refusal:
            await sdk.v1.customers.create_async({"email": email})
        assert (refusal.value.code, refusal.value.param) == ("email_invalid", "email")


async def test_a_cancelled_event_leaves_the_sum(
    sdk: stripe.StripeClient, inspection: EmulatorClient, customer_id: str
) -> None:
    """An adjustment takes an event of the last 24 hours back."""
    payload = {"stripe_customer_id": customer_id, "value": "3"}
    await sdk.v1.billing.meter_events.create_async(
        {"event_name": "tool_call_executed", "identifier": "i", "payload": payload}
    )

    adjustment = await sdk.v1.billing.meter_event_adjustments.create_async(
        {"event_name": "tool_call_executed", "type": "cancel", "cancel": {"identifier": "i"}}
    )

    assert adjustment.cancel is not None
    assert adjustment.cancel.identifier == "i"
    assert [(one["value"], one["events"]) for one in await inspection.sums()] == [(0, 0)]


async def test_the_inspection_shows_what_was_sent_and_counted(
    sdk: stripe.StripeClient, inspection: EmulatorClient, customer_id: str
) -> None:
    """Requests, attempts, events and sums agree."""
    payload = {"stripe_customer_id": customer_id, "value": "3"}
    for key in ("i:0", "i:0", "i:1"):
        try:
            await sdk.v1.billing.meter_events.create_async(
                {"event_name": "tool_call_executed", "identifier": "i", "payload": payload},
                {"idempotency_key": key},
            )
        except stripe.InvalidRequestError:
            assert key == "i:1"

    assert await inspection.healthy()
    assert await inspection.attempts() == {
        "i": {
            "attempts": 3,
            "accepted": 1,
            "duplicates": 1,
            "replayed": 1,
            "last_status": 400,
            "idempotency_keys": ["i:0", "i:1"],
        }
    }
    requests = await inspection.requests(limit=3)
    assert [(one["status"], one["replayed"]) for one in requests] == [
        (200, False),
        (200, True),
        (400, False),
    ]
    assert [one["identifier"] for one in await inspection.events()] == ["i"]
    (counted,) = await inspection.sums()
    assert (counted["customer"], counted["event_name"]) == (customer_id, "tool_call_executed")
    assert (counted["value"], counted["events"]) == (3, 1)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("faults", {"kind": "earthquake"}),
        ("clock", {"then": 5}),
        ("keys", {"key": "sk_test_x", "state": "lost"}),
        ("options", {"call_seconds": -1}),
        ("options", {"rate_limits": 1}),
        ("options", {"nonsense": 1}),
        ("options", []),
    ],
)
async def test_the_inspection_refuses_what_it_cannot_read(
    raw: aiohttp.ClientSession, path: str, body: object
) -> None:
    """A mistake in a test's own set-up is reported."""
    async with raw.post(f"/_emulator/{path}", json=body) as response:
        assert response.status == 400
        assert (await response.json())["error"]


async def test_a_live_key_is_refused() -> None:
    """A live key must not be in an emulator's command line."""
    with pytest.raises(LiveKeyError):
        async with running_emulator(keys=["sk_live_x"]):
            pass


async def test_the_command_serves_until_sigterm() -> None:
    """``serve`` prints where it listens, answers there, and ends cleanly on SIGTERM."""
    arguments = ["serve", "--port", "0", "--key", "sk_test_x", "--meter", "runs"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "stripe_emulator", *arguments, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), 20)).decode()
        address = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert address is not None
        async with EmulatorClient(address[0]) as inspection:
            assert await inspection.healthy()
    finally:
        process.terminate()

    assert await asyncio.wait_for(process.wait(), 20) == 0
