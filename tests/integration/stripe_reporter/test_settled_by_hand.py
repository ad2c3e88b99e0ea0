"""A refusal after a call of unknown outcome settles nothing; a person does."""

from pathlib import Path

import pytest
from sqlalchemy import text

from integration.stripe_reporter.bench import Bench
from nexus_contracts import Event, UsageRecorded, UsageRejected
from nexus_messaging.topology import USAGE_OUTCOMES_QUEUE
from support.waiting import eventually

COUNTED = (
    "UPDATE meter_calls SET state = 'accepted', answered_at = now(), answer = 'by_hand',"
    " reason = NULL"
)
NOT_COUNTED = (
    "UPDATE meter_calls SET state = 'refused', answered_at = now(), answer = 'by_hand',"
    " reason = 'no_such_customer'"
)
"""What docs/runbook.md says for either case."""

RUNBOOK = Path(__file__).parents[3] / "docs" / "runbook.md"


@pytest.mark.parametrize("statement", [COUNTED, NOT_COUNTED])
def test_the_runbook_says_what_is_tried_here(statement: str) -> None:
    """For one report; an operator copies it."""
    assert f"`{statement} WHERE identifier = '…';`" in RUNBOOK.read_text(encoding="utf-8")


async def unknown_then_refused(bench: Bench, when: str) -> Event[UsageRecorded]:
    """Send a report whose first answer is a 500, and whose customer is deleted meanwhile."""
    event = bench.report(bench.customer(), value=3)
    bench.fault("server_error", when=when, seconds=1.0)
    await bench.send(event)
    await eventually(bench.calls, bool)
    customer = event.data.stripe_customer_id
    if when == "after":
        await eventually(lambda: _counted(bench, customer), bool)
    bench.delete_customer(customer)
    return event


async def _counted(bench: Bench, customer: str) -> float:
    return bench.counted(customer)


async def settle(bench: Bench, statement: str) -> None:
    """Update the row by what was found at Stripe, as the reporter's role."""
    async with bench.database() as database:
        await database.run(lambda connection: connection.execute(text(statement)))


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_refusal_says_nothing_of_an_earlier_unknown_call(bench: Bench, when: str) -> None:
    """No `usage.rejected`: the journal stays `unknown`, and a person is asked to look."""
    async with bench.reporting():
        event = await unknown_then_refused(bench, when)
        (letter,) = await bench.dead_letters(1)

    assert letter.headers["nexus-reason"] == "outcome_unknown"
    assert "no such customer" in str(letter.headers["nexus-error"])
    assert (await bench.row(event))["state"] == "unknown"
    assert await bench.vhost.depth(USAGE_OUTCOMES_QUEUE) == 0
    assert bench.counted(event.data.stripe_customer_id) == (3 if when == "after" else 0)


async def test_what_a_person_found_to_be_counted_is_reported(bench: Bench) -> None:
    """The dead letter is moved back and makes no call."""
    async with bench.reporting():
        event = await unknown_then_refused(bench, "after")
        await bench.dead_letters(1)
        await settle(bench, COUNTED)
        calls = await bench.calls()
        await bench.revive()
        (outcome,) = await bench.outcomes(1)

    assert outcome.data.TYPE == "usage.reported.v1"
    assert await bench.calls() == calls
    assert bench.counted(event.data.stripe_customer_id) == 3


async def test_what_a_person_found_not_to_be_counted_is_rejected(
    bench: Bench,
) -> None:
    """The ledger may then report it for the user's next customer; no call is made."""
    async with bench.reporting():
        event = await unknown_then_refused(bench, "before")
        await bench.dead_letters(1)
        await settle(bench, NOT_COUNTED)
        calls = await bench.calls()
        await bench.revive()
        (outcome,) = await bench.outcomes(1)

    assert isinstance(outcome.data, UsageRejected)
    assert outcome.data.reason == "no_such_customer"
    assert not outcome.data.ever_unknown
    assert await bench.calls() == calls
    assert bench.counted(event.data.stripe_customer_id) == 0
