"""What Stripe rejected later on a real PostgreSQL: each attempt is kept, judged and announced."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final
from uuid import uuid4

import pytest
from sqlalchemy import text

from nexus_database import Database
from nexus_messaging.errors import PermanentError
from stripe_reporter.counting import READ_FOR
from stripe_reporter.fence import Call, calling
from stripe_reporter.rejections import Rejection, Verdict
from stripe_reporter.reports import Facts, Report
from stripe_reporter.storage.journal import Journal, insert_calls
from stripe_reporter.storage.rejections import Rejections, Unannounced
from stripe_reporter.stripe.responses import TABLE
from support.pages import runbook_statement

NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE: Final = timedelta(minutes=1)
LOCKED: Final = text("SELECT FROM meter_calls WHERE identifier = :identifier FOR UPDATE")


@pytest.fixture
async def database(clone: Callable[[str], Awaitable[str]]) -> AsyncIterator[Database]:
    """Return a migrated, empty journal, open as the reporter's own role."""
    async with Database(await clone("stripe_reporter"), name="test") as opened:
        yield opened


async def reported(database: Database, identifier: str, *answers: str) -> Report:
    """Put a report into the journal whose calls Stripe answered so, and return it."""
    report = Report(identifier, Facts(uuid4(), "cus_1", "runs", 1, NOW - MINUTE))
    call = Call(report, calling(report, None, NOW))
    await database.run(partial(insert_calls, calls=[call]))
    journal = Journal(database)
    for place, name in enumerate(answers):
        if place:
            claimed = await journal.claim(report, NOW)
            assert isinstance(claimed, Call)
            call = claimed
        await journal.record(call, next(row for row in TABLE if row.name == name), NOW)
    return report


async def marks(database: Database) -> dict[str, tuple[str, datetime]]:
    """Return the marks in the journal."""
    query = text("SELECT identifier, rejected_later, rejected_later_at FROM meter_calls")
    rows = await database.run(lambda c: c.execute(query))
    return {row[0]: (row[1], row[2]) for row in rows if row[1] is not None}


async def test_the_first_code_of_an_attempt_stays_and_is_announced_once(
    database: Database,
) -> None:
    """Stripe may name a request again, with another code, before and after it is announced."""
    rejections = Rejections(database)
    report = await reported(database, "r-1", "accepted")
    first, second = Rejection("r-1", 1, "no_meter"), Rejection("r-1", 1, "archived_meter")

    assert await rejections.keep([first], NOW) == 1
    assert await rejections.keep([second], NOW + MINUTE) == 0
    assert await rejections.judge(NOW) == [Verdict.REJECTED]
    [found] = await rejections.unannounced()
    await rejections.mark_announced([found], NOW)
    assert await rejections.keep([second], NOW + MINUTE) == 0

    assert found == Unannounced("r-1", 1, report.facts.report_id, "no_meter", NOW)
    assert await rejections.judge(NOW) == []
    assert await rejections.unannounced() == []
    assert await marks(database) == {"r-1": ("no_meter", NOW)}


@pytest.mark.parametrize("together", [True, False])
async def test_a_report_of_two_rejected_attempts_has_one_mark(
    database: Database, *, together: bool
) -> None:
    """The first that was heard of: what was announced to the ledger never changes its meaning."""
    rejections = Rejections(database)
    report = await reported(database, "r-1", "server_error", "duplicate")
    heard = ((Rejection("r-1", 2, "no_meter"), NOW), (Rejection("r-1", 1, "other"), NOW + MINUTE))

    for rejection, at in heard:
        await rejections.keep([rejection], at)
        if not together:
            assert await rejections.judge(NOW) == [Verdict.REJECTED]
    await rejections.judge(NOW)

    found = await rejections.unannounced()
    assert [each.key_n for each in found] == [2, 1]
    assert {(each.report_id, each.code, each.at) for each in found} == {
        (report.facts.report_id, "no_meter", NOW)
    }
    await rejections.mark_announced(found[:1], NOW)
    assert await rejections.unannounced() == found[1:]


async def test_only_the_attempt_that_counts_marks_its_report(database: Database) -> None:
    """The verdict on one attempt says nothing of the other, and is given once."""
    rejections = Rejections(database)
    await reported(database, "r-1", "refused", "accepted")
    await rejections.keep([Rejection("r-1", 1, "no_meter")], NOW)

    assert await rejections.judge(NOW) == [Verdict.OTHER_ATTEMPT]
    assert await rejections.judge(NOW) == []
    assert (await rejections.unannounced(), await marks(database)) == ([], {})
    assert await rejections.oldest_waiting(NOW) is None

    await rejections.keep([Rejection("r-1", 2, "archived_meter")], NOW)
    assert await rejections.judge(NOW) == [Verdict.REJECTED]
    [found] = await rejections.unannounced()
    assert (found.key_n, found.code) == (2, "archived_meter")


async def test_a_report_in_another_transaction_is_judged_in_the_next_round(
    database: Database,
) -> None:
    """Its row is being answered or moved; nothing waits for it, and the others are judged."""
    rejections = Rejections(database)
    for identifier in ("r-1", "r-2"):
        await reported(database, identifier, "accepted")
        await rejections.keep([Rejection(identifier, 1, "no_meter")], NOW)

    async with database.engine.begin() as connection:
        await connection.execute(LOCKED, {"identifier": "r-1"})
        assert await rejections.judge(NOW) == [Verdict.REJECTED]
        assert set(await marks(database)) == {"r-2"}

    assert await rejections.judge(NOW) == [Verdict.REJECTED]
    assert set(await marks(database)) == {"r-1", "r-2"}


async def test_what_no_accepted_report_answers_to_is_given_up_after_its_time(
    database: Database,
) -> None:
    """Keys of another sender may look like ours; a call's answer may come days later."""
    rejections = Rejections(database)
    await reported(database, "r-open", "lost")
    named = [Rejection("r-open", 1, "no_meter"), Rejection("order-7", 1, "no_meter")]
    assert await rejections.keep(named, NOW) == 2
    assert await rejections.judge(NOW) == []
    assert await rejections.oldest_waiting(NOW) is None

    accepted = text("UPDATE meter_calls SET state = 'accepted', answered_at = :at, key_n = 1")
    at = NOW + timedelta(days=1)
    await database.run(lambda c: c.execute(accepted, {"at": at}))

    assert await rejections.judge(NOW + READ_FOR) == []
    assert await rejections.oldest_waiting(NOW + READ_FOR) is None
    assert await rejections.oldest_waiting(at + MINUTE) == at
    assert await rejections.judge(NOW + READ_FOR - MINUTE) == [Verdict.REJECTED]
    assert await rejections.oldest_waiting(NOW + 2 * READ_FOR) == at  # until it is announced


async def test_what_was_heard_first_is_judged_and_announced_first(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More comes than a round takes; nothing is overtaken for ever, or waits for an open call."""
    monkeypatch.setattr("stripe_reporter.storage.rejections.MAX_REJECTIONS", 1)
    rejections = Rejections(database)
    await reported(database, "r-open", "lost")
    await rejections.keep([Rejection("r-open", 1, "no_meter")], NOW - 9 * MINUTE)
    for age in (3, 1, 2):
        await reported(database, f"r-{age}", "accepted")
        await rejections.keep([Rejection(f"r-{age}", 1, "no_meter")], NOW - age * MINUTE)

    judged, announced = [], []
    for _ in range(3):
        await rejections.judge(NOW)
        judged.append(set(await marks(database)))
    while found := await rejections.unannounced():
        announced += [each.identifier for each in found]
        await rejections.mark_announced(found, NOW)

    assert judged == [{"r-3"}, {"r-3", "r-2"}, {"r-3", "r-2", "r-1"}]
    assert announced == ["r-3", "r-2", "r-1"]


async def test_ten_thousand_samples_are_kept_at_once_and_once(database: Database) -> None:
    """Stripe says that it names some, not how many."""
    rejections = Rejections(database)
    named = [Rejection(f"r-{number}", 1, "no_meter") for number in range(10_000)]

    assert await rejections.keep(named, NOW) == 10_000
    assert await rejections.keep(named, NOW) == 0
    assert await rejections.keep([], NOW) == 0


async def test_an_attempt_that_no_row_can_hold_is_dead_lettered(database: Database) -> None:
    """It is tried no more, and keeps none of its event's neighbours from the next event."""
    rejections = Rejections(database)

    with pytest.raises(PermanentError, match="SQLSTATE"):
        await rejections.keep([Rejection("r-1", 0, "no_meter")], NOW)


async def test_the_runbook_finds_rejections_whose_answer_a_restored_journal_lacks(
    database: Database,
) -> None:
    """The ledger has them as reported, so they are never called again, and never judged."""
    await reported(database, "r-answer-lost", "lost")
    await reported(database, "r-accepted", "accepted")
    named = [Rejection(f"r-{name}", 1, "no_meter") for name in ("answer-lost", "accepted", "gone")]
    await Rejections(database).keep(named, NOW)

    statement = text(runbook_statement("SELECT identifier, key_n, code, heard_at FROM late_rej"))
    found = await database.run(lambda c: c.execute(statement))

    assert {row.identifier for row in found} == {"r-answer-lost", "r-gone"}
