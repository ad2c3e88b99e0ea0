"""What pauses the reporter as a whole, and that it resumes by itself with nothing lost."""

from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from integration.stripe_reporter.bench import KEY, METER, Bench, Running, add_meters
from local_stack.ports import free_ports
from local_stack.servers import Database
from local_stack.sql import run_sql
from nexus_messaging.topology import TIERS, USAGE_RECORDED_QUEUE
from stripe_emulator.keys import KeyState
from stripe_emulator.running import running_emulator
from stripe_reporter.circuit import Cause
from support.waiting import eventually

EXPEL = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'stripe_reporter'"


async def test_a_revoked_key_pauses_and_resumes(bench: Bench) -> None:
    """On the first 401 nothing more is sent; with the key back, everything is."""
    events = [bench.report(bench.customer()) for _ in range(8)]
    bench.account.keys.put(KEY, KeyState.REVOKED)
    async with bench.reporting() as running:
        await bench.send(*events)
        await eventually(lambda: _cause(running), lambda cause: cause == "key")
        bench.account.keys.put(KEY, KeyState.VALID)
        await bench.outcomes(8)

    assert [bench.counted(event.data.stripe_customer_id) for event in events] == [1.0] * 8
    assert not await bench.vhost.dead_letters(USAGE_RECORDED_QUEUE)


async def test_an_outage_pauses_and_resumes_without_a_double_charge(bench: Bench) -> None:
    """Five reports without an answer open the circuit; each counts once in the end."""
    events = [bench.report(bench.customer()) for _ in range(30)]
    bench.fault("reset", when="after", times=None)
    async with bench.reporting() as running:
        await bench.send(*events)
        await eventually(lambda: _cause(running), lambda cause: cause == "outage")
        bench.account.faults.remove()
        await bench.outcomes(30)

    assert [bench.counted(event.data.stripe_customer_id) for event in events] == [1.0] * 30
    assert not await bench.vhost.dead_letters(USAGE_RECORDED_QUEUE)


async def test_after_an_outage_reports_are_tried_one_at_a_time(bench: Bench) -> None:
    """A probe that reads may succeed while calls that write do not: few reports are risked."""
    events = [bench.report(bench.customer()) for _ in range(40)]
    bench.fault("reset", times=None)
    async with bench.reporting() as running:
        await bench.send(*events[:5])
        await eventually(lambda: _cause(running), lambda cause: cause == "outage")
        await eventually(lambda: _in_hand(bench), lambda reports: reports == 0)
        before = await bench.calls()
        await bench.send(*events[5:])
        await eventually(lambda: _closed(bench, running, before), bool)
        await eventually(lambda: _cause(running), lambda cause: cause == "outage")
        assert await bench.calls() == before + 1
        bench.account.faults.remove()
        await bench.outcomes(40)


async def test_a_stripe_that_cannot_be_reached_fences_nothing(bench: Bench) -> None:
    """Nothing was ever sent, so after two days of it every report is still sent."""
    (port,) = free_ports(None)
    event = bench.report("cus_none")
    async with bench.reporting(stripe_api_base=f"http://127.0.0.1:{port}"):
        await bench.send(event, *[bench.report("cus_none") for _ in range(9)])
        await eventually(lambda: bench.state(event), lambda state: state == "refused")
        bench.pass_time(timedelta(days=2))
        async with running_emulator([KEY], [METER], port=port):
            outcomes = await bench.outcomes(10)

    assert {outcome.data.TYPE for outcome in outcomes} == {"usage.rejected.v1"}
    assert not any(outcome.data.ever_unknown for outcome in outcomes)


async def test_a_database_outage_pauses_and_resumes(bench: Bench, postgres: Database) -> None:
    """Without the journal nothing is called; what waits is counted once it is back."""
    name = bench.database_url.rpartition("/")[2]
    before, after = bench.report(bench.customer()), bench.report(bench.customer())
    async with bench.reporting() as running:
        await bench.send(before)
        await bench.outcomes(1)
        run_sql(postgres.superuser_url, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        run_sql(postgres.superuser_url, EXPEL)
        await bench.send(after)
        await eventually(
            lambda: _paused_by(running), lambda cause: cause == "DatabaseUnavailableError"
        )
        calls = await bench.calls()
        run_sql(postgres.superuser_url, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await bench.outcomes(2)

    assert calls == 1
    assert bench.counted(after.data.stripe_customer_id) == 1
    assert not await bench.vhost.dead_letters(USAGE_RECORDED_QUEUE)


async def test_a_missing_meter_pauses_and_resumes(bench: Bench) -> None:
    """Without its only meter the reporter waits; the reports count once it is back."""
    event = bench.report(bench.customer())
    meter = bench.account.meters.listed({})["data"][0]["id"]
    bench.account.meters.deactivate(meter, bench.account.clock.now())
    async with bench.reporting() as running:
        await bench.send(event)
        await eventually(lambda: _cause(running), lambda cause: cause == "meter")
        bench.account.meters.reactivate(meter, bench.account.clock.now())
        await bench.outcomes(1)

    assert bench.counted(event.data.stripe_customer_id) == 1


async def test_a_meter_beyond_the_first_page_closes_the_circuit(bench: Bench) -> None:
    """With 101 newer meters in the account, the probe still finds the one there is."""
    event = bench.report(bench.customer())
    meters, now = bench.account.meters, bench.account.clock.now()
    meter = meters.listed({})["data"][0]["id"]
    add_meters(bench, 101)
    meters.deactivate(meter, now)
    async with bench.reporting() as running:
        await bench.send(event)
        await eventually(lambda: _cause(running), lambda cause: cause == "meter")
        meters.reactivate(meter, now)
        await bench.outcomes(1)

    assert bench.counted(event.data.stripe_customer_id) == 1


async def test_reports_that_wait_make_no_call_once_the_circuit_is_open(bench: Bench) -> None:
    """Of many reports in hand few have called when Stripe refuses the key; the others do not."""
    events = [bench.report(bench.customer()) for _ in range(60)]
    async with bench.reporting(stripe_max_calls_per_second=10.0) as running:
        await bench.send(*events)
        await eventually(lambda: _in_hand(bench), lambda reports: reports >= 30)
        bench.account.keys.put(KEY, KeyState.REVOKED)
        await eventually(lambda: _paused_by(running), lambda cause: cause == "CircuitOpenError")
        refused = [
            each for each in bench.account.request_log.requests(1000) if each["status"] == 401
        ]
        bench.account.keys.put(KEY, KeyState.VALID)
        await bench.outcomes(60)

    assert len(refused) <= 3
    assert [bench.counted(event.data.stripe_customer_id) for event in events] == [1.0] * 60


async def test_one_missing_meter_of_two_holds_up_only_its_own_reports(bench: Bench) -> None:
    """Its reports wait in the last tier, the others are sent."""
    tokens = bench.report(bench.customer(), meter="tokens_used")
    runs = bench.report(bench.customer())
    async with bench.reporting(stripe_tokens_meter_event_name="tokens_used") as running:
        await bench.send(tokens)
        await eventually(lambda: bench.state(tokens), lambda state: state == "refused")
        await bench.send(runs)
        await bench.outcomes(1)

        assert running.circuit.cause is None
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


async def test_a_busy_customer_delays_no_other(bench: Bench) -> None:
    """Its calls go one at a time; behind far more than is prefetched another's comes at once."""
    busy, quiet = bench.customer(), bench.customer()
    bench.account.options = bench.account.options.changed({"call_seconds": 0.05})
    events = [bench.report(busy) for _ in range(300)]
    async with bench.reporting():
        await bench.send(*events, bench.report(quiet))
        await eventually(lambda: _counted(bench, quiet), bool)
        assert bench.counted(busy) < 150
        assert await bench.handled("customer_busy") > 0

    requests = bench.account.request_log.requests(1000)
    assert not [each for each in requests if each["status"] == 409]
    assert not await bench.vhost.dead_letters(USAGE_RECORDED_QUEUE)


@pytest.mark.timeout(300)
async def test_a_backlog_of_one_customer_is_counted_to_the_last(bench: Bench) -> None:
    """What is put off comes again, some of it later, and is not logged: each counts once."""
    busy = bench.customer()
    events = [bench.report(busy) for _ in range(300)]
    later = {"queue": USAGE_RECORDED_QUEUE, "tier": TIERS[1].name}
    with capture_logs() as logs:
        async with bench.reporting():
            await bench.send(*events)
            await eventually(lambda: _counted(bench, busy), lambda count: count == 300, within=180)

    assert not [each for each in logs if each["event"] == "message_retried"]
    retried = bench.registry.get_sample_value("stripe_reporter_messages_retried_total", later)
    assert retried
    assert await bench.calls() == 300


async def _cause(running: Running) -> Cause | None:
    return running.circuit.cause


async def _in_hand(bench: Bench) -> float:
    return bench.registry.get_sample_value("stripe_reporter_in_hand") or 0.0


async def _closed(bench: Bench, running: Running, before: int) -> bool:
    return running.circuit.cause is None or await bench.calls() > before


async def _paused_by(running: Running) -> str | None:
    return running.app.consumptions[0].paused_by


async def _counted(bench: Bench, customer: str) -> float:
    return bench.counted(customer)
