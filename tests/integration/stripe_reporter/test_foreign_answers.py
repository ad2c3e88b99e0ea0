"""Answers that Stripe did not make, and calls that were never sent: an outage."""

from datetime import timedelta

import pytest

from integration.stripe_reporter.bench import Bench, Running
from local_stack.ports import free_ports
from nexus_contracts import Event, UsageRecorded
from nexus_messaging.topology import USAGE_RECORDED_QUEUE
from stripe_reporter.circuit import Cause
from support.waiting import eventually

BODIES = (
    '{"error": "forbidden"}',
    '{"error": ["forbidden"]}',
    '{"error": null}',
    '{"error": {"message": 7, "type": {"a": 1}, "param": []}}',
    '{"error": {"type": "invalid_request_error", "message": "No such customer"}}',
    '{"message": "Unauthorized"}',
    "<html>407 Proxy Authentication Required</html>",
    "",
)


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 407, 429, 500])
async def test_a_gateways_answers_are_an_outage(bench: Bench, status: int) -> None:
    """Whatever it says and with whatever status: all wait, and count once when it is gone."""
    events = [bench.report(bench.customer()) for _ in BODIES]
    for body, event in zip(BODIES, events, strict=True):
        identifier = event.data.identifier
        bench.fault("foreign", status=status, body=body, times=None, identifier=identifier)
    async with bench.reporting() as running:
        await bench.send(*events)
        await eventually(lambda: _cause(running), lambda cause: cause == "outage")
        assert all([await bench.state(event) != "refused" for event in events])
        bench.account.faults.remove()
        await bench.outcomes(len(events))

    assert [bench.counted(event.data.stripe_customer_id) for event in events] == [1.0] * len(events)
    assert not await bench.vhost.dead_letters(USAGE_RECORDED_QUEUE)


async def test_a_probe_that_a_gateway_answers_closes_no_circuit(bench: Bench) -> None:
    """Its 403 is not Stripe's, which would say that only reading is forbidden."""
    events = [bench.report(bench.customer()) for _ in range(5)]
    gateway = {"status": 403, "body": BODIES[0], "times": None}
    bench.fault("foreign", **gateway)
    bench.fault("foreign", **gateway, method="GET", path_prefix="/v1/billing/meters")
    async with bench.reporting() as running:
        await bench.send(*events)
        await eventually(lambda: _probes(bench), lambda probes: probes >= 2)
        assert running.circuit.cause is Cause.OUTAGE
        bench.account.faults.remove()
        await bench.outcomes(len(events))


async def test_a_200_that_names_another_event_is_no_acceptance(bench: Bench) -> None:
    """Only Stripe's word on this very identifier counts it."""
    event = bench.report(bench.customer())
    other = '{"object": "billing.meter_event", "identifier": "r-another"}'
    bench.fault("foreign", status=200, body=other, request_id=True)
    async with bench.reporting():
        await bench.send(event)
        (outcome,) = await bench.outcomes(1)

    assert outcome.data.ever_unknown
    assert bench.counted(event.data.stripe_customer_id) == 1
    assert (await bench.row(event))["attempts"] == 2


async def test_calls_that_were_never_sent_fence_nothing(bench: Bench) -> None:
    """No call was made, so after two days of it every report is still sent."""
    events = [bench.report(bench.customer()) for _ in range(6)]
    (port,) = free_ports(None)
    async with bench.reporting(stripe_api_base=f"http://127.0.0.1:{port}") as running:
        await bench.send(*events)
        await eventually(lambda: _cause(running), lambda cause: cause == "outage")
        await eventually(lambda: _answer(bench, events[0]), lambda name: name == "never_sent")
    bench.pass_time(timedelta(days=2))
    async with bench.second().reporting():
        outcomes = await bench.outcomes(len(events))

    assert not any(outcome.data.ever_unknown for outcome in outcomes)
    assert [bench.counted(event.data.stripe_customer_id) for event in events] == [1.0] * 6


async def _cause(running: Running) -> Cause | None:
    return running.circuit.cause


async def _answer(bench: Bench, event: Event[UsageRecorded]) -> object:
    return (await bench.row(event))["answer"]


async def _probes(bench: Bench) -> int:
    journal = bench.account.request_log.requests(1000)
    return sum(each["path"] == "/v1/billing/meters" for each in journal)
