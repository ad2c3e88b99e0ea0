"""Lost answers, dead callers, copies and moves: each report is charged at most once."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import text

from integration.stripe_reporter.bench import Bench
from nexus_contracts import UsageReported
from stripe_reporter.fence import CALL_STARTS_WITHIN, Decision
from stripe_reporter.reports import Report
from stripe_reporter.storage.journal import Journal
from support.waiting import eventually

SETTLE = (
    "UPDATE meter_calls SET state = 'accepted', answered_at = now(), answer = 'by_hand',"
    " reason = NULL"
)


@pytest.mark.parametrize(
    ("kind", "conditions"),
    [
        ("reset", {"when": "after"}),
        ("truncated", {"when": "after"}),
        ("server_error", {"when": "after"}),
        ("html_503", {"when": "after"}),
        ("reset", {"when": "before"}),
        ("server_error", {"when": "before"}),
    ],
)
async def test_a_lost_answer_is_charged_once(
    bench: Bench, kind: str, conditions: dict[str, str]
) -> None:
    """Whether or not the call took effect before its answer was lost, the report counts once."""
    event = bench.report(bench.customer(), value=5)
    bench.fault(kind, **conditions)

    async with bench.reporting():
        await bench.send(event)
        (outcome,) = await bench.outcomes(1)

    assert bench.counted(event.data.stripe_customer_id) == 5
    assert isinstance(outcome.data, UsageReported)
    assert outcome.data.ever_unknown
    row = await bench.row(event)
    assert row["state"] == "accepted"
    assert row["first_unknown_at"] is not None


async def test_a_500_is_repeated_under_a_new_key_and_a_lost_answer_under_the_same(
    bench: Bench,
) -> None:
    """Stripe keeps a 500 under its key, and repeats a lost answer only under the same key."""
    lost, failed = bench.report(bench.customer()), bench.report(bench.customer())
    bench.fault("reset", when="after", identifier=lost.data.identifier)
    bench.fault("server_error", identifier=failed.data.identifier)

    async with bench.reporting():
        await bench.send(lost, failed)
        await bench.outcomes(2)

    name = lost.data.identifier
    assert bench.attempts(lost)["idempotency_keys"] == [f"{name}:1"]
    assert bench.attempts(lost)["replayed"] == 1
    name = failed.data.identifier
    assert bench.attempts(failed)["idempotency_keys"] == [f"{name}:1", f"{name}:2"]


async def test_copies_at_once_make_one_call(bench: Bench) -> None:
    """Of many copies in hand together one is sent; each publishes the same outcome."""
    event = bench.report(bench.customer())
    bench.account.options = bench.account.options.changed({"call_seconds": 0.3})

    async with bench.reporting():
        await bench.send(*[event] * 5)
        outcomes = await bench.outcomes(5)

    assert bench.attempts(event)["attempts"] == 1
    assert len({outcome.id for outcome in outcomes}) == 1
    assert len({outcome.body() for outcome in outcomes}) == 1


async def test_a_copy_that_another_process_is_sending_waits(bench: Bench) -> None:
    """Two reporters never have the same report under way together."""
    event = bench.report(bench.customer())
    bench.account.options = bench.account.options.changed({"call_seconds": 1.0})

    async with bench.reporting() as first:
        await bench.send(event)
        await eventually(bench.calls, bool)
        await first.app.consumptions[0]._consumer.cancel_consuming()
        async with bench.second().reporting():
            await bench.send(event)
            await bench.outcomes(2)

    assert bench.attempts(event)["attempts"] == 1


async def test_a_caller_that_died_is_followed_by_one_more_call(bench: Bench) -> None:
    """A row left at ``calling`` defers copies, and becomes unknown after the longest call."""
    event = bench.report(bench.customer())
    async with bench.database() as database:
        await Journal(database).claim(Report.of(event.data), bench.now())

    async with bench.reporting():
        await bench.send(event)
        await eventually(lambda: bench.handled("deferred"), lambda count: count >= 1)
        bench.pass_time(timedelta(seconds=30))
        (outcome,) = await bench.outcomes(1)

    assert isinstance(outcome.data, UsageReported)
    assert outcome.data.ever_unknown
    assert bench.attempts(event)["attempts"] == 1
    assert (await bench.row(event))["attempts"] == 2


async def test_after_23_unknown_hours_a_report_is_fenced(bench: Bench) -> None:
    """Stripe may have forgotten the identifier by then: the report goes to a person instead."""
    event = bench.report(bench.customer())
    bench.fault("reset", when="after", times=None)
    async with bench.reporting():
        await bench.send(event)
        await eventually(lambda: bench.state(event), lambda state: state == "unknown")
        before = bench.attempts(event)["attempts"]
        # Not 24 at once: what is being called in this very moment would be counted again.
        bench.pass_time(timedelta(hours=23))
        (letter,) = await bench.dead_letters(1)
        bench.pass_time(timedelta(hours=1))
        after = bench.attempts(event)["attempts"]

        assert letter.headers["nexus-reason"] == "outcome_unknown"
        assert after <= before + 1
        bench.account.faults.remove()
        await bench.revive()
        await eventually(lambda: bench.handled("fenced"), lambda count: count == 2)

    assert bench.attempts(event)["attempts"] == after
    assert bench.counted(event.data.stripe_customer_id) == 1


async def test_a_fenced_report_is_settled_by_hand(bench: Bench) -> None:
    """What the runbook says works: the row is updated, the dead letter moved, no call made."""
    event = bench.report(bench.customer())
    bench.fault("reset", when="after", times=None)
    async with bench.reporting():
        await bench.send(event)
        await eventually(lambda: bench.state(event), lambda state: state == "unknown")
        bench.pass_time(timedelta(hours=23))
        await bench.dead_letters(1)
        calls = await bench.calls()
        async with bench.database() as database:
            await database.run(lambda connection: connection.execute(text(SETTLE)))
        await bench.revive()
        (outcome,) = await bench.outcomes(1)

    assert isinstance(outcome.data, UsageReported)
    assert await bench.calls() == calls


async def test_a_refused_report_is_called_again_after_a_move(bench: Bench) -> None:
    """Once the cause is mended at Stripe, an operator's move of the dead letter charges it."""
    customer = bench.customer()
    bench.delete_customer(customer)
    event = bench.report(customer, value=4)
    async with bench.reporting():
        await bench.send(event)
        await bench.dead_letters(1)
        bench.restore_customer(customer)
        await bench.revive()
        refused, counted = await bench.outcomes(2)

    assert bench.counted(customer) == 4
    assert refused.data.TYPE == "usage.rejected.v1"
    assert counted.data.TYPE == "usage.reported.v1"
    assert not counted.data.ever_unknown
    name = event.data.identifier
    assert bench.attempts(event)["idempotency_keys"] == [f"{name}:1", f"{name}:2"]


async def test_a_second_refusal_is_another_outcome(bench: Bench) -> None:
    """A move without a fix is refused again, and published as another event."""
    event = bench.report("cus_never")
    async with bench.reporting():
        await bench.send(event)
        await bench.dead_letters(1)
        await bench.revive()
        first, second = await bench.outcomes(2)

    assert first.id != second.id


async def test_a_report_counted_before_is_only_published_again(bench: Bench) -> None:
    """A copy after the acceptance, however late, makes no call."""
    event = bench.report(bench.customer())
    async with bench.reporting():
        await bench.send(event)
        await bench.outcomes(1)
        bench.pass_time(timedelta(days=40))
        await bench.send(event)
        first, again = await bench.outcomes(2)

    assert first == again
    assert bench.attempts(event)["attempts"] == 1


async def test_a_report_of_35_days_is_not_sent(bench: Bench) -> None:
    """It is dead-lettered without a call, and published as rejected."""
    old = bench.now() - timedelta(days=35)
    event = bench.report(bench.customer(), occurred_at=old)
    async with bench.reporting():
        await bench.send(event)
        (letter,) = await bench.dead_letters(1)
        (outcome,) = await bench.outcomes(1)

    assert letter.headers["nexus-reason"] == "timestamp_too_old"
    assert outcome.data.TYPE == "usage.rejected.v1"
    assert event.data.identifier not in bench.account.request_log.attempts()


async def test_another_report_under_a_known_identifier_is_dead_lettered(bench: Bench) -> None:
    """Stripe would take it for the first one and answer that it has it."""
    first = bench.report(bench.customer())
    other = bench.report(bench.customer(), identifier=first.data.identifier)
    async with bench.reporting():
        await bench.send(first)
        await bench.outcomes(1)
        await bench.send(other)
        (letter,) = await bench.dead_letters(1)

    assert letter.headers["nexus-reason"] == "event_id_taken"
    assert bench.counted(other.data.stripe_customer_id) == 0


async def test_a_process_that_slept_after_its_claim_makes_no_call(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another may have sent the report since; the next attempt sends it."""
    event = bench.report(bench.customer(), value=4)
    real, slept = Journal.claim, 0

    async def sleep_once(self: Journal, report: Report, now: datetime) -> Decision:
        nonlocal slept
        decision = await real(self, report, now)
        slept += 1
        if slept == 1:
            bench.pass_time(CALL_STARTS_WITHIN + timedelta(seconds=1))
        return decision

    monkeypatch.setattr(Journal, "claim", sleep_once)
    async with bench.reporting():
        await bench.send(event)
        (outcome,) = await bench.outcomes(1)

    assert isinstance(outcome.data, UsageReported)
    assert (await bench.row(event))["attempts"] == 2
    assert bench.attempts(event)["attempts"] == 1
    assert bench.counted(event.data.stripe_customer_id) == 4


async def test_a_refusal_of_what_was_settled_meanwhile_is_not_published(bench: Bench) -> None:
    """A person found the report at Stripe while it was called again: its acceptance counts."""
    event = bench.report("cus_never")
    bench.account.options = bench.account.options.changed({"call_seconds": 2.0})
    async with bench.reporting():
        await bench.send(event)
        await eventually(lambda: bench.state(event), lambda state: state == "calling")
        async with bench.database() as database:
            await database.run(lambda connection: connection.execute(text(SETTLE)))
        (outcome,) = await bench.outcomes(1)

    assert isinstance(outcome.data, UsageReported)
