"""Dead letters moved back after a day or a month: only what may still be sent is sent."""

from datetime import timedelta

import pytest

from integration.stripe_reporter.bench import Bench
from nexus_contracts import Event, UsageRecorded
from nexus_messaging.topology import DEAD, USAGE_RECORDED_QUEUE
from stripe_reporter.fence import Call
from stripe_reporter.reports import Report
from stripe_reporter.storage.journal import Journal
from stripe_reporter.stripe.api import stripe_api
from support.waiting import eventually

LATER = [timedelta(hours=25), timedelta(days=34)]
LONG = pytest.mark.parametrize("passed", LATER, ids=["25 hours", "34 days"])
"""Past Stripe's memory of identifiers, and close to the age at which it takes no event."""


@LONG
async def test_what_was_never_attempted_is_sent(bench: Bench, passed: timedelta) -> None:
    """The broker itself may have given up on it: no call was ever made."""
    event = bench.report(bench.customer(), value=4)
    await bench.vhost.publish_raw(event.body(), USAGE_RECORDED_QUEUE, exchange=DEAD)
    bench.pass_time(passed)

    async with bench.reporting():
        await bench.revive()
        (outcome,) = await bench.outcomes(1)

    assert outcome.data.TYPE == "usage.reported.v1"
    assert bench.counted(event.data.stripe_customer_id) == 4


@LONG
async def test_what_was_definitely_refused_is_sent(bench: Bench, passed: timedelta) -> None:
    """Stripe said that it had not counted it, so its age makes no difference."""
    event = bench.report(bench.customer(), value=4)
    bench.delete_customer(event.data.stripe_customer_id)
    async with bench.reporting():
        await bench.send(event)
        await bench.dead_letters(1)
        bench.restore_customer(event.data.stripe_customer_id)
        bench.pass_time(passed)
        await bench.revive()
        _, outcome = await bench.outcomes(2)

    assert outcome.data.TYPE == "usage.reported.v1"
    assert not outcome.data.ever_unknown
    assert bench.counted(event.data.stripe_customer_id) == 4


@LONG
@pytest.mark.parametrize("when", ["before", "after"])
async def test_what_may_have_been_counted_is_not_sent(
    bench: Bench, when: str, passed: timedelta
) -> None:
    """Stripe has forgotten the identifier and would count it again: a person decides."""
    event = bench.report(bench.customer(), value=4)
    counted = 4 if when == "after" else 0
    bench.fault("reset", when=when, times=None)
    async with bench.reporting():
        await bench.send(event)
        await eventually(lambda: bench.state(event), lambda state: state == "unknown")
        bench.pass_time(timedelta(hours=23))
        await bench.dead_letters(1)
        calls = await bench.calls()
        bench.account.faults.remove()
        bench.pass_time(passed)
        await bench.revive()
        await eventually(lambda: bench.handled("fenced"), lambda count: count == 2)

    assert await bench.calls() == calls
    assert bench.counted(event.data.stripe_customer_id) == counted
    assert not await bench.outcomes(0)


@pytest.mark.parametrize(("passed", "sent"), [(timedelta(hours=22), True), (LATER[0], False)])
@pytest.mark.parametrize(
    ("kind", "when", "counted"), [("reset", "before", False), ("server_error", "after", True)]
)
async def test_a_refusal_after_an_unknown_call_settles_nothing(
    bench: Bench, kind: str, when: str, passed: timedelta, *, counted: bool, sent: bool
) -> None:
    """No `usage.rejected`; moved within 23 hours the report counts once, later it is not sent."""
    event = bench.report(bench.customer(), value=4)
    bench.fault(kind, when=when, times=None)
    async with bench.reporting():
        await bench.send(event)
        await eventually(lambda: bench.state(event), lambda state: state == "unknown")
        bench.delete_customer(event.data.stripe_customer_id)
        bench.account.faults.remove()
        await bench.dead_letters(1)
        assert not await bench.outcomes(0)
        bench.restore_customer(event.data.stripe_customer_id)
        bench.pass_time(passed)
        await bench.revive()
        how = "reported" if sent else "fenced"
        await eventually(lambda: bench.handled(how), lambda count: count == 1)

    assert bench.counted(event.data.stripe_customer_id) == (4 if counted or sent else 0)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_replayed_500_is_received_once(bench: Bench, when: str) -> None:
    """A process died over it, so its key is used again and replays it; the next key decides."""
    event = bench.report(bench.customer(), value=4)
    bench.fault("server_error", when=when)
    await _call_and_die(bench, event)

    async with bench.reporting():
        await bench.send(event)
        await bench.outcomes(1)

    seen, name = bench.attempts(event), event.data.identifier
    assert seen["idempotency_keys"] == [f"{name}:1", f"{name}:2"]
    assert (seen["attempts"], seen["replayed"]) == (3, 1)
    assert bench.counted(event.data.stripe_customer_id) == 4


async def test_a_replayed_refusal_does_not_settle_it(bench: Bench) -> None:
    """Though mended, the old key still answers with the refusal; a move takes a new one."""
    event = bench.report(bench.customer(), value=4)
    bench.delete_customer(event.data.stripe_customer_id)
    await _call_and_die(bench, event)
    bench.restore_customer(event.data.stripe_customer_id)

    async with bench.reporting():
        await bench.send(event)
        await bench.dead_letters(1)
        assert bench.attempts(event)["replayed"] == 1
        await bench.revive()
        await bench.outcomes(1)

    name = event.data.identifier
    assert bench.attempts(event)["idempotency_keys"] == [f"{name}:1", f"{name}:2"]
    assert bench.counted(event.data.stripe_customer_id) == 4


async def test_endless_500s_neither_double_nor_end(bench: Bench) -> None:
    """Each takes a new key and a longer wait; the first that was counted stays the only one."""
    event = bench.report(bench.customer(), value=4)
    bench.fault("server_error", when="after", times=2)
    async with bench.reporting():
        await bench.send(event)
        (outcome,) = await bench.outcomes(1)

    name = event.data.identifier
    assert bench.attempts(event)["idempotency_keys"] == [f"{name}:{n}" for n in range(1, 4)]
    assert outcome.data.ever_unknown
    assert bench.counted(event.data.stripe_customer_id) == 4


async def _call_and_die(bench: Bench, event: Event[UsageRecorded]) -> None:
    """Leave the journal and Stripe as a process does that dies before it has the answer."""
    async with bench.database() as database:
        call = await Journal(database).claim(Report.of(event.data), bench.now())
    assert isinstance(call, Call)
    async with stripe_api(bench.settings()) as stripe:
        await stripe.send(call.report, call.entry.key_n)
    bench.pass_time(timedelta(seconds=30))
