"""What shuts the reporter as a whole, and that it comes back by itself with nothing lost."""

from integration.stripe_reporter.bench import KEY, Bench
from nexus_messaging.topology import USAGE_RECORDED_QUEUE
from rig.waiting import eventually
from stripe_emulator.keys import KeyState
from stripe_reporter.app import Parts
from stripe_reporter.meanings import Cause


async def test_a_revoked_key_pauses_and_resumes(bench: Bench) -> None:
    """On the first 401 nothing more is sent; with the key back, everything is."""
    events = [bench.report(bench.customer()) for _ in range(8)]
    bench.account.keys.put(KEY, KeyState.REVOKED)
    async with bench.reporting() as parts:
        await bench.send(*events)
        await eventually(lambda: _cause(parts), lambda cause: cause == "auth")
        bench.account.keys.put(KEY, KeyState.VALID)
        await bench.outcomes(8)

    assert [bench.counted(event.data.stripe_customer_id) for event in events] == [1.0] * 8
    assert not await bench.vhost.dead_letters(USAGE_RECORDED_QUEUE)


async def test_an_outage_pauses_and_resumes_without_a_double_charge(bench: Bench) -> None:
    """Five reports without an answer shut the gate; each counts once in the end."""
    events = [bench.report(bench.customer()) for _ in range(30)]
    bench.fault("reset", when="after", times=None)
    async with bench.reporting() as parts:
        await bench.send(*events)
        await eventually(lambda: _cause(parts), lambda cause: cause == "outage")
        bench.account.faults.remove()
        await bench.outcomes(30)

    assert [bench.counted(event.data.stripe_customer_id) for event in events] == [1.0] * 30
    assert not await bench.vhost.dead_letters(USAGE_RECORDED_QUEUE)


async def test_after_an_outage_reports_are_tried_one_at_a_time(bench: Bench) -> None:
    """A probe that reads may succeed while calls that write do not: few reports are risked."""
    events = [bench.report(bench.customer()) for _ in range(40)]
    bench.fault("reset", times=None)
    async with bench.reporting() as parts:
        await bench.send(*events[:5])
        await eventually(lambda: _cause(parts), lambda cause: cause == "outage")
        before = _calls(bench)
        await bench.send(*events[5:])
        await eventually(lambda: _opened(bench, parts, before), bool)
        await eventually(lambda: _cause(parts), lambda cause: cause == "outage")
        assert _calls(bench) == before + 1
        bench.account.faults.remove()
        await bench.outcomes(40)


async def test_a_missing_meter_pauses_and_resumes(bench: Bench) -> None:
    """Without its only meter the reporter waits; the reports count once it is back."""
    event = bench.report(bench.customer())
    meter = bench.account.meters.listed({})["data"][0]["id"]
    bench.account.meters.deactivate(meter, bench.account.clock.now())
    async with bench.reporting() as parts:
        await bench.send(event)
        await eventually(lambda: _cause(parts), lambda cause: cause == "meter")
        bench.account.meters.reactivate(meter, bench.account.clock.now())
        await bench.outcomes(1)

    assert bench.counted(event.data.stripe_customer_id) == 1


async def test_one_missing_meter_of_two_holds_up_only_its_own_reports(bench: Bench) -> None:
    """Its reports wait in the last tier, the others are sent."""
    tokens = bench.report(bench.customer(), meter="tokens_used")
    runs = bench.report(bench.customer())
    async with bench.reporting(stripe_tokens_meter_event_name="tokens_used") as parts:
        await bench.send(tokens)
        await eventually(lambda: bench.state(tokens), lambda state: state == "refused")
        await bench.send(runs)
        await bench.outcomes(1)

        assert parts.gate.cause is None
        assert bench.counted(runs.data.stripe_customer_id) == 1


async def test_429_and_409_are_waited_out_in_place(bench: Bench) -> None:
    """They spend nothing and leave the report where it is, under the same key."""
    limited, clashing, locked = (bench.report(bench.customer()) for _ in range(3))
    bench.fault("rate_limited", identifier=limited.data.identifier, times=2)
    bench.fault("conflict", identifier=clashing.data.identifier, times=2)
    bench.fault("lock_timeout", identifier=locked.data.identifier, times=2)
    async with bench.reporting():
        await bench.send(limited, clashing, locked)
        outcomes = await bench.outcomes(3)

    for event in (limited, clashing, locked):
        assert bench.counted(event.data.stripe_customer_id) == 1
        assert bench.attempts(event)["idempotency_keys"] == [f"{event.data.identifier}:1"]
    assert not any(outcome.data.ever_unknown for outcome in outcomes)


async def test_one_customers_calls_never_overlap(bench: Bench) -> None:
    """A busy customer is served one call at a time and does not hold up another."""
    busy, quiet = bench.customer(), bench.customer()
    bench.account.options = bench.account.options.changed({"call_seconds": 0.02})
    async with bench.reporting():
        await bench.send(*[bench.report(busy) for _ in range(60)], bench.report(quiet))
        await bench.outcomes(61)

    assert bench.counted(busy) == 60
    assert bench.counted(quiet) == 1
    assert not [each for each in bench.account.journal.requests(1000) if each["status"] == 409]


async def _cause(parts: Parts) -> Cause | None:
    return parts.gate.cause


async def _opened(bench: Bench, parts: Parts, before: int) -> bool:
    return parts.gate.cause is None or _calls(bench) > before


def _calls(bench: Bench) -> int:
    return sum(each["attempts"] for each in bench.account.journal.attempts().values())
