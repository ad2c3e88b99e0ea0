"""Meter events that are answered with 200 and not counted, and the error reports of them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import stripe

from stripe_emulator import EmulatorClient, RunningEmulator
from stripe_emulator.client import InspectionError
from stripe_emulator.error_reports import ERROR_REPORT, NO_METER_FOUND

SECRET = "whsec_of_the_tests"
KEY = "sk_test_51EmulatedAccountKey"
METER = "tool_call_executed"
HOUR = 3600
Eventually = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]
Report = Callable[..., Awaitable[Any]]
Receiver = Any


@pytest.fixture
async def report(sdk: Any, inspection: EmulatorClient, customer_id: str) -> Report:
    """Send an event of value 1 by the idempotency key ``{identifier}:1``; windows are hours."""
    await inspection.set_options(error_report_seconds=HOUR)

    async def report(identifier: str, number: int = 1) -> Any:
        payload = {"stripe_customer_id": customer_id, "value": "1"}
        described = {"event_name": METER, "identifier": identifier, "payload": payload}
        options = {"idempotency_key": f"{identifier}:{number}"}
        return await sdk.v1.billing.meter_events.create_async(described, options)

    return report


@pytest.fixture
def reports_of(sdk: Any, inspection: EmulatorClient) -> Callable[[], Awaitable[list[Any]]]:
    """Return the error reports once their windows are over, the oldest first."""

    async def reports_of() -> list[Any]:
        await inspection.advance_clock(2 * HOUR)
        types = [ERROR_REPORT, NO_METER_FOUND]
        listed = await sdk.v2.core.events.list_async({"types": types, "limit": 100})
        return [event.to_dict() for event in reversed(listed.data)]

    return reports_of


def samples_of(event: Any) -> list[str]:
    """Return the idempotency keys that an error report names."""
    types = event["data"]["reason"]["error_types"]
    return [one["request"]["identifier"] for each in types for one in each["sample_errors"]]


async def test_a_dropped_event_is_answered_and_not_counted(
    report: Report, inspection: EmulatorClient, reports_of: Any
) -> None:
    """No report says so, and its identifier stays in use."""
    await inspection.add_event_fault("dropped")

    dropped, _ = await report("i"), await report("j")
    with pytest.raises(stripe.InvalidRequestError, match="An event already exists"):
        await report("i", 2)

    [total] = await inspection.sums()
    [lost] = await inspection.uncounted()
    assert (dropped.identifier, total["value"]) == ("i", 1)
    assert (lost["identifier"], lost["kind"], lost["code"]) == ("i", "dropped", None)
    assert await reports_of() == []


async def test_a_rejected_event_is_named_by_its_idempotency_key(
    report: Report, inspection: EmulatorClient, reports_of: Any
) -> None:
    """A replay of its answer and a duplicate change nothing of that."""
    await inspection.add_event_fault("rejected", code="meter_event_invalid_value", identifier="i")

    await report("i")
    await report("i")
    with pytest.raises(stripe.InvalidRequestError, match="An event already exists"):
        await report("i", 2)

    [event] = await reports_of()
    [kind] = event["data"]["reason"]["error_types"]
    assert (kind["code"], kind["error_count"]) == ("meter_event_invalid_value", 1)
    assert samples_of(event) == ["i:1"]
    assert await inspection.sums() == []


async def test_a_rejected_event_need_not_be_named(
    report: Report, inspection: EmulatorClient, reports_of: Any
) -> None:
    """The report counts it all the same."""
    await inspection.add_event_fault("rejected", sampled=0)

    await report("i")

    [event] = await reports_of()
    assert (event["data"]["reason"]["error_count"], samples_of(event)) == (1, [])


async def test_an_event_without_a_meter_has_a_report_of_its_own_type(
    report: Report, inspection: EmulatorClient, reports_of: Any
) -> None:
    """Which names no meter but the event's name."""
    await inspection.add_event_fault("rejected", code="no_meter")

    await report("i")

    [event] = await reports_of()
    [kind] = event["data"]["reason"]["error_types"]
    assert (event["type"], event["related_object"]) == (NO_METER_FOUND, None)
    assert METER in kind["sample_errors"][0]["error_message"]


async def test_a_seed_decides_by_identifier_alone(
    report: Report, inspection: EmulatorClient
) -> None:
    """The same events meet the same end in any order, and either fault chooses for itself."""

    async def run(order: list[int]) -> set[tuple[str, str, bool]]:
        await inspection.remove_event_faults()
        for kind in ("dropped", "rejected"):
            await inspection.add_event_fault(kind, times=None, probability=0.3, sampled=0.5, seed=7)
        await inspection.advance_clock(25 * HOUR)
        before = len(await inspection.uncounted())
        for number in order:
            await report(f"i-{number}")
        after = await inspection.uncounted()
        return {(one["identifier"], one["kind"], one["sampled"]) for one in after[before:]}

    first, second = await run([*range(60)]), await run([*reversed(range(60))])

    assert first == second
    assert {(kind, sampled) for _, kind, sampled in first} == {
        ("dropped", False),
        ("rejected", True),
        ("rejected", False),
    }
    assert len(first) < 60


async def test_unknown_customers_can_be_found_out_later(
    sdk: Any, report: Report, inspection: EmulatorClient, customer_id: str, reports_of: Any
) -> None:
    """Reports of Stripe's users differ on whether they are refused at once."""
    await sdk.v1.customers.delete_async(customer_id)
    with pytest.raises(stripe.InvalidRequestError, match="No such customer"):
        await report("i")
    await inspection.set_options(unknown_customers_later=True)

    await report("j")

    [event] = await reports_of()
    [kind] = event["data"]["reason"]["error_types"]
    assert kind["code"] == "meter_event_customer_not_found"
    assert samples_of(event) == ["j:1"]


async def test_a_late_rejection_is_in_the_window_of_its_own_time(
    report: Report, inspection: EmulatorClient, reports_of: Any
) -> None:
    """A customer is billed without it, though nothing has been said for two days."""
    await inspection.add_event_fault("rejected", seconds=48 * HOUR)
    await report("i")

    assert await reports_of() == []
    await inspection.advance_clock(46 * HOUR)
    [event] = await reports_of()

    assert samples_of(event) == ["i:1"]


async def test_the_sdk_takes_an_error_report_and_fetches_it(
    emulator: RunningEmulator,
    sdk: Any,
    report: Report,
    inspection: EmulatorClient,
    receiver: Receiver,
    endpoint: str,
    eventually: Eventually,
) -> None:
    """It is sent thin, and signed; its meter can be fetched, too.

    ``fetch_event_async`` of version 16.1 sends a parameter ``usage`` that was meant for the SDK
    itself; ``retrieve_async`` is what it should do.
    """
    await inspection.add_event_fault("rejected")
    await report("i")
    await inspection.advance_clock(2 * HOUR)
    await eventually(lambda: _has(receiver, 1))

    body, signature = receiver.got[0]
    notification = sdk.parse_event_notification(body, signature, SECRET)
    retrieved = await sdk.v2.core.events.retrieve_async(notification.id)
    blocking = stripe.StripeClient(KEY, base_addresses={"api": emulator.url})
    notice: Any = blocking.parse_event_notification(body, signature, SECRET)
    fetched = await asyncio.to_thread(notice.fetch_event)
    meter = await asyncio.to_thread(notice.fetch_related_object)

    assert type(notification).__name__ == "V1BillingMeterErrorReportTriggeredEventNotification"
    assert "data" not in receiver.events[0]
    assert fetched.to_dict() == retrieved.to_dict()
    assert samples_of(fetched.to_dict()) == ["i:1"]
    assert (meter.id, meter.event_name) == (notification.related_object.id, METER)
    with pytest.raises(stripe.InvalidRequestError, match="unknown parameter: usage"):
        await notification.fetch_event_async()
    assert endpoint


async def test_an_error_report_is_sent_twice_like_any_webhook(
    report: Report,
    inspection: EmulatorClient,
    receiver: Receiver,
    endpoint: str,
    eventually: Eventually,
) -> None:
    """The faults of webhooks apply to it; ``late``, ``shuffled`` and ``lost`` do likewise."""
    await inspection.add_webhook_fault("twice", type_prefix="v1.billing.meter.")
    await inspection.add_event_fault("rejected")
    await report("i")
    await inspection.advance_clock(2 * HOUR)

    await eventually(lambda: _has(receiver, 2))

    assert len({event["id"] for event in receiver.events}) == 1
    assert endpoint


async def test_a_lost_error_report_can_still_be_listed(
    sdk: Any, report: Report, inspection: EmulatorClient, endpoint: str, reports_of: Any
) -> None:
    """By type, by meter, by time, and page by page."""
    await inspection.add_webhook_fault("lost", times=None)
    await inspection.add_event_fault("rejected", times=None)
    for number in range(3):
        await report(f"i-{number}")
        assert len(await reports_of()) == number + 1
    meter = (await sdk.v1.billing.meters.list_async()).data[0].id

    listing = sdk.v2.core.events.list_async
    first = await listing({"object_id": meter, "limit": 2})
    ids = [event.id async for event in first.auto_paging_iter()]
    newest = first.data[0].created
    older = await listing({"created": {"lt": newest}, "types": [ERROR_REPORT]})

    assert await inspection.webhooks() == []
    assert len(set(ids)) == 3
    assert [event.id for event in older.data] == ids[1:]
    assert (await listing({"object_id": "mtr_other"})).data == []
    assert endpoint


async def test_thin_events_and_snapshots_have_different_addresses(
    sdk: Any, report: Report, inspection: EmulatorClient, reports_of: Any
) -> None:
    """An event is found by the version of the API that made it."""
    await inspection.add_event_fault("rejected")
    await report("i")
    [event] = await reports_of()
    [snapshot] = (await sdk.v1.events.list_async()).data

    with pytest.raises(stripe.InvalidRequestError, match="No such event"):
        await sdk.v1.events.retrieve_async(event["id"])
    with pytest.raises(stripe.InvalidRequestError, match="No such event"):
        await sdk.v2.core.events.retrieve_async(snapshot.id)


@pytest.mark.parametrize(
    "described",
    [
        {"kind": "forgotten"},
        {"kind": "rejected", "code": "no_reason"},
        {"kind": "rejected", "sampled": 1.5},
        {"kind": "rejected", "probability": 0},
        {"kind": "rejected", "seconds": -1},
        {"kind": "rejected", "times": 0},
        {"kind": "rejected", "samples": 1},
    ],
)
async def test_a_fault_that_makes_no_sense_is_refused(
    inspection: EmulatorClient, described: dict[str, Any]
) -> None:
    """A test that set it would prove nothing."""
    with pytest.raises(InspectionError):
        await inspection.add_event_fault(**described)

    assert await inspection.event_faults() == []


async def _has(receiver: Receiver, events: int) -> bool:
    return len(receiver.got) >= events
