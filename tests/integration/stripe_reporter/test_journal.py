"""The journal on a real PostgreSQL: what the code promises, the database holds it to."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import text

from nexus_database import Database, DatabaseUnavailableError, RowRefusedError, RowsBusyError
from stripe_reporter.fence import (
    CALL_LIFETIME,
    AlreadyCounted,
    Call,
    CallInProgress,
    IdentifierReused,
    State,
)
from stripe_reporter.reports import Facts, Report
from stripe_reporter.storage.journal import Journal
from stripe_reporter.stripe.responses import TABLE, Response

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def report() -> Report:
    """Return a report of its own."""
    return Report("r-1", Facts(uuid4(), "cus_1", "tool_call_executed", 1, NOW))


def response(name: str) -> Response:
    """Return a row of the table of responses."""
    return next(row for row in TABLE if row.name == name)


@pytest.fixture
async def database(clone: Callable[[str], Awaitable[str]]) -> AsyncIterator[Database]:
    """Return a migrated, empty journal, open as the reporter's own role."""
    fresh = Database(await clone("stripe_reporter"), name="test")
    yield fresh
    await fresh.close()


async def execute(database: Database, statement: str) -> None:
    """Run a statement as the reporter's role."""
    await database.run(lambda connection: connection.execute(text(statement)))


async def test_of_many_claims_at_once_one_is_won(database: Database) -> None:
    """The others find that it is being called."""
    journal, one = Journal(database), report()

    decisions = await asyncio.gather(*(journal.claim(one, NOW) for _ in range(8)))

    assert sum(isinstance(decision, Call) for decision in decisions) == 1
    assert decisions.count(CallInProgress()) == 7


async def test_of_many_claims_of_a_lost_caller_one_is_won(database: Database) -> None:
    """Taking over is a compare-and-set, too."""
    journal, one = Journal(database), report()
    await journal.claim(one, NOW)
    later = NOW + timedelta(minutes=1)

    decisions = await asyncio.gather(*(journal.claim(one, later) for _ in range(8)))

    (call,) = (decision for decision in decisions if isinstance(decision, Call))
    assert call.entry.first_unknown_at == NOW
    assert decisions.count(CallInProgress()) == 7


async def test_of_two_processes_on_a_lost_row_one_calls(
    clone: Callable[[str], Awaitable[str]],
) -> None:
    """Each reads the row only once the other is through with it: the row's lock is for that."""
    url = await clone("stripe_reporter")
    databases = [Database(url, name=f"process {n}") for n in range(2)]
    journals = [Journal(database) for database in databases]
    for number in range(40):
        one = replace(report(), identifier=f"r-{number}")
        await journals[0].claim(one, NOW)
        both = (journal.claim(one, NOW + timedelta(minutes=1)) for journal in journals)

        decisions = await asyncio.gather(*both)

        assert sum(isinstance(decision, Call) for decision in decisions) == 1
    for database in databases:
        await database.close()


async def test_a_lost_caller_counts_as_the_oldest_unknown(database: Database) -> None:
    """Its call may have been counted; not one that may still be under way."""
    journal = Journal(database)
    await journal.claim(report(), NOW)

    assert await journal.oldest_unknown(NOW + CALL_LIFETIME) is None
    assert await journal.oldest_unknown(NOW + timedelta(minutes=1)) == NOW


async def test_the_row_is_what_was_decided(database: Database) -> None:
    """What the pure functions say is what is stored and read again."""
    journal, one = Journal(database), report()
    call = await journal.claim(one, NOW)
    assert isinstance(call, Call)

    entry = await journal.record(call, response("accepted"), NOW + timedelta(seconds=1))

    assert entry == call.entry.after(call.entry, response("accepted"), NOW + timedelta(seconds=1))
    assert await journal.claim(one, NOW) == AlreadyCounted(
        NOW + timedelta(seconds=1), ever_unknown=False
    )


async def test_a_late_refusal_changes_nothing_and_a_late_acceptance_counts(
    database: Database,
) -> None:
    """After a takeover only an acceptance is still written."""
    journal, one = Journal(database), report()
    first = await journal.claim(one, NOW)
    second = await journal.claim(one, NOW + timedelta(minutes=1))
    assert isinstance(first, Call)
    assert isinstance(second, Call)

    refused = await journal.record(first, response("refused"), NOW + timedelta(minutes=1))
    accepted = await journal.record(first, response("accepted"), NOW + timedelta(minutes=1))
    after = await journal.record(second, response("lost"), NOW + timedelta(minutes=1))

    assert refused == second.entry
    assert accepted.state is State.ACCEPTED
    assert after.state is State.ACCEPTED


async def test_one_report_has_one_identifier(database: Database) -> None:
    """Under two identifiers Stripe would count the same report twice."""
    journal, one = Journal(database), report()
    await journal.claim(one, NOW)
    again = Report("r-2", one.facts)

    assert await journal.claim(again, NOW) == IdentifierReused()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE meter_calls SET state = 'refused'",
        "UPDATE meter_calls SET first_unknown_at = NULL",
        "UPDATE meter_calls SET first_unknown_at = now()",
        "UPDATE meter_calls SET key_n = key_n - 1",
        "UPDATE meter_calls SET attempts = attempts - 1",
    ],
)
async def test_what_the_fence_depends_on_cannot_be_undone(
    database: Database, statement: str
) -> None:
    """Neither an acceptance nor the time of the first unknown call is ever forgotten."""
    journal, one = Journal(database), report()
    call = await journal.claim(one, NOW)
    assert isinstance(call, Call)
    await journal.record(call, response("lost"), NOW)
    call = await journal.claim(one, NOW)
    assert isinstance(call, Call)
    await journal.record(call, response("accepted"), NOW)

    with pytest.raises(RowRefusedError):
        await execute(database, statement)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM meter_calls",
        "TRUNCATE meter_calls",
        "UPDATE meter_calls SET value = 2",
        "UPDATE meter_calls SET stripe_customer_id = 'cus_2'",
        "UPDATE meter_calls SET claim_id = gen_random_uuid()",
        "UPDATE meter_calls SET event_count = 2",
        "UPDATE meter_calls SET dimensions = '{}'",
        "UPDATE alembic_version SET version_num = '0000'",
    ],
)
async def test_the_role_can_neither_forget_nor_rewrite(database: Database, statement: str) -> None:
    """A report's facts are immutable by grant, and no row ever goes."""
    with pytest.raises(DatabaseUnavailableError, match="42501"):
        await execute(database, statement)


async def test_late_answer_to_a_row_that_is_held_is_put_off(database: Database) -> None:
    """Another process took the call over and is deciding on it: the answer can be written later."""
    journal, one, later = Journal(database), report(), NOW + timedelta(minutes=1)
    first = await journal.claim(one, NOW)
    assert isinstance(first, Call)
    await journal.claim(one, later)

    async with database.engine.begin() as rival:
        await rival.execute(text("SELECT FROM meter_calls FOR UPDATE"))
        with pytest.raises(RowsBusyError):
            await journal.record(first, response("accepted"), later)

    assert (await journal.record(first, response("accepted"), later)).state is State.ACCEPTED
