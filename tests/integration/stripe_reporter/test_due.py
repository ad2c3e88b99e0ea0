"""Whose sums are due, on a real PostgreSQL: every answer is followed, and read when it shows."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from sqlalchemy import text

from nexus_database import Database
from stripe_reporter.counting import DAY, HEAD_START, HOUR, READ_AGAIN, READ_FOR, Pair, pages
from stripe_reporter.storage.summaries import COMMITTED_AFTER, LEASE, Summaries

NOW: Final = datetime.now(UTC).replace(microsecond=0)
SECOND: Final = timedelta(seconds=1)
DUE: Final = NOW + HOUR + COMMITTED_AFTER
"""When the sums of an answer of ``NOW`` are due, with a lag of an hour."""

CALL: Final = text("""
INSERT INTO meter_calls (identifier, report_id, stripe_customer_id, meter, value, occurred_at,
       request_digest, state, key_n, attempts, started_at, answered_at, answer, accepted_key_n)
VALUES (gen_random_uuid()::text, gen_random_uuid(), :customer, :meter, 1, :occurred_at, sha256('x'),
       'accepted', 1, 1, :at, :at, 'accepted', 1)
""")
SET_BACK: Final = text("UPDATE summaries_place SET answered_at = :at, identifier = ''")
LOCKED: Final = text("SELECT FROM summaries_due WHERE stripe_customer_id = 'cus_1' FOR UPDATE")


@pytest.fixture
async def database(clone: Callable[[str], Awaitable[str]]) -> AsyncIterator[Database]:
    """Return a migrated, empty journal, open as the reporter's own role."""
    async with Database(await clone("stripe_reporter"), name="test") as opened:
        yield opened


@pytest.fixture
def due(database: Database) -> Summaries:
    """Return what knows whose sums are due, an hour after an answer."""
    return Summaries(database, lag=HOUR)


async def answered(
    database: Database,
    customer: str,
    at: datetime = NOW,
    *,
    age: timedelta = HOUR,
    meter: str = "runs",
) -> None:
    """Put a report of usage of some age into the journal, which Stripe accepted."""
    values = {"customer": customer, "meter": meter, "at": at, "occurred_at": at - age}
    await database.run(lambda c: c.execute(CALL, values))


async def leased(due: Summaries, now: datetime, most: int = 100) -> list[str]:
    """Take who is due, and return the customers in alphabetical order."""
    return sorted(pair.stripe_customer_id for pair in await due.lease(now, most))


async def read(due: Summaries, now: datetime) -> Sequence[Pair]:
    """Read who is due, without Stripe, and return what was read."""
    await due.follow(now)
    pairs = await due.lease(now, 100)
    for pair in pairs:
        await due.finish(pair, now)
    return pairs


async def test_answers_of_one_moment_are_all_followed(
    database: Database, due: Summaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than are followed at once, and then one that is answered later."""
    monkeypatch.setattr("stripe_reporter.storage.summaries.MAX_FOLLOWED", 2)
    for number in range(5):
        await answered(database, f"cus_{number}")
    await answered(database, "cus_5", NOW + SECOND)

    rounds = [await due.follow(DUE) for _ in range(4)]

    assert rounds == [True, True, True, False]
    assert await leased(due, DUE + SECOND) == [f"cus_{number}" for number in range(6)]


async def test_an_answer_is_followed_once_it_is_surely_committed(
    database: Database, due: Summaries
) -> None:
    """One that is younger may be overtaken by another that is older and commits later."""
    await answered(database, "cus_1")

    await due.follow(NOW + COMMITTED_AFTER)
    assert await leased(due, DUE) == []
    await answered(database, "cus_2", NOW - SECOND)
    await due.follow(NOW + COMMITTED_AFTER + SECOND)
    assert await leased(due, DUE) == ["cus_1", "cus_2"]


async def test_sums_are_due_once_stripe_shows_the_first_of_the_answers(
    database: Database, due: Summaries
) -> None:
    """And no earlier; later answers do not put the reading off."""
    await answered(database, "cus_1")
    await due.follow(NOW + 2 * COMMITTED_AFTER)
    await answered(database, "cus_1", NOW + HOUR / 2)
    await answered(database, "cus_2", NOW + SECOND)
    await answered(database, "cus_2", NOW + HOUR / 2)
    await due.follow(NOW + HOUR)

    assert await leased(due, DUE - SECOND) == []
    [pair] = await due.lease(DUE, 10)
    assert (pair.stripe_customer_id, pair.wanted_at) == ("cus_1", DUE)
    assert await leased(due, DUE + SECOND) == ["cus_2"]


async def test_the_oldest_usage_and_the_newest_answer_of_a_customer_are_known(
    database: Database, due: Summaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether they are followed together, one after the other, or once more."""
    answers = ((NOW - HOUR, 3 * HOUR), (NOW - HOUR / 2, 9 * DAY), (NOW, 2 * HOUR))
    for at, age in answers:
        await answered(database, "cus_1", at, age=age)

    for most in (100, 1):
        monkeypatch.setattr("stripe_reporter.storage.summaries.MAX_FOLLOWED", most)
        await database.run(lambda c: c.execute(SET_BACK, {"at": NOW - DAY}))
        await due.follow(DUE)  # with one at a time, the oldest answer alone
        [pair] = await due.lease(DUE + DAY, 10)
        assert (pair.since, pair.active_at) == (NOW - HOUR / 2 - 9 * DAY, NOW)
        await due.postpone(pair, DUE)


async def test_new_answers_have_a_customer_read_again_after_six_hours(
    database: Database, due: Summaries
) -> None:
    """Who is always active would otherwise be read all the time."""
    await answered(database, "cus_1")
    assert len(await read(due, DUE)) == 1
    await answered(database, "cus_1", DUE)

    assert await read(due, DUE + READ_AGAIN - SECOND) == []
    [pair] = await read(due, DUE + READ_AGAIN)
    assert pair.wanted_at == DUE + READ_AGAIN


async def test_a_leased_customer_is_read_by_nobody_else_for_a_while(
    database: Database, due: Summaries
) -> None:
    """Whoever takes it may be killed: then another reads it, and it has been due ever since."""
    await answered(database, "cus_1")
    await due.follow(DUE)

    [pair] = await due.lease(DUE, 10)
    assert await due.lease(DUE + LEASE - SECOND, 10) == []
    assert (await due.backlog(DUE + LEASE)).overdue == LEASE.total_seconds()
    assert await due.lease(DUE + LEASE, 10) == [pair]

    await due.postpone(pair, DUE + 2 * LEASE)
    assert (await due.backlog(DUE + LEASE)).due == 1
    async with database.engine.begin() as connection:
        await connection.execute(LOCKED)
        assert await due.lease(DUE + 2 * LEASE, 10) == []
    assert await due.lease(DUE + 2 * LEASE, 10) == [pair]


async def test_recent_answers_come_first_and_older_ones_have_their_turn(
    database: Database, due: Summaries
) -> None:
    """Those of the last two days are read before those who are read once a day."""
    before = NOW - 3 * DAY
    await answered(database, "cus_quiet", before)
    for hours in range(1, 61, 24):
        await read(due, before + hours * HOUR + DAY / 24)
    [quiet] = await due.lease(NOW + 2 * DAY, 10)
    assert quiet.since is None
    await due.postpone(quiet, quiet.wanted_at)
    at = quiet.wanted_at + HEAD_START - HOUR - COMMITTED_AFTER
    await answered(database, "cus_recent", at - SECOND)
    await answered(database, "cus_later", at + SECOND)
    await due.follow(at + HOUR + 2 * COMMITTED_AFTER)

    later = at + 3 * HOUR
    turns = [(await due.lease(later, 1))[0].stripe_customer_id for _ in range(3)]
    assert turns == ["cus_recent", "cus_quiet", "cus_later"]


async def test_old_usage_is_read_for_a_day_or_two_after_its_answer(
    database: Database, due: Summaries
) -> None:
    """What Stripe does not show by then it has lost; later answers don't make it go on."""
    await answered(database, "cus_1", age=20 * DAY)
    old = NOW - 20 * DAY
    since = []
    for quarter in range(11):
        now = DUE + quarter * READ_AGAIN
        [pair] = await read(due, now)
        since.append(pair.since is not None and pair.since == old)
        await answered(database, "cus_1", now)

    assert since[:9] == [True] * 9
    assert not since[-1]


async def test_an_answer_during_a_reading_has_it_repeated_after_six_hours(
    database: Database, due: Summaries
) -> None:
    """The reading may have missed it; otherwise the next is a day later."""
    for customer in ("cus_1", "cus_2"):
        await answered(database, customer)
    await due.follow(DUE)
    pairs = await due.lease(DUE, 10)
    await answered(database, "cus_2", DUE - 2 * COMMITTED_AFTER)
    await due.follow(DUE)
    for pair in pairs:
        await due.finish(pair, DUE)

    assert await due.lease(DUE + READ_AGAIN - SECOND, 10) == []
    [again] = await due.lease(DUE + READ_AGAIN, 10)
    assert (again.stripe_customer_id, again.wanted_at) == ("cus_2", DUE + READ_AGAIN)
    await due.finish(again, DUE + READ_AGAIN)
    assert await leased(due, DUE + DAY - SECOND) == []
    assert await leased(due, DUE + DAY) == ["cus_1"]


async def test_old_usage_that_is_answered_during_a_reading_is_read(
    database: Database, due: Summaries
) -> None:
    """Another process follows the journal after a day of backlog, while this one reads."""
    lately = NOW - 3 * DAY
    await answered(database, "cus_1", lately)
    await due.follow(NOW)
    [pair] = await due.lease(NOW, 10)
    await answered(database, "cus_1", lately + SECOND, age=20 * DAY)
    await due.follow(NOW)
    await due.finish(pair, NOW)

    [again] = await due.lease(NOW + READ_AGAIN, 10)
    assert again.since == lately + SECOND - 20 * DAY


async def test_answers_during_every_reading_do_not_have_all_hours_read_for_ever(
    database: Database, due: Summaries
) -> None:
    """Another process follows the journal meanwhile, of a customer who is always active."""
    start = NOW - 20 * DAY
    await answered(database, "cus_1", start)
    calls = []
    for quarter in range(1, 40):
        now = start + quarter * READ_AGAIN
        await due.follow(now)
        [pair] = await due.lease(now, 10)
        calls.append(len(list(pages(pair, now))))
        await answered(database, "cus_1", now - COMMITTED_AFTER)
        await due.follow(now + SECOND)
        await due.finish(pair, now)

    assert set(calls) == {1}


async def test_a_customer_without_answers_is_forgotten_after_36_days(
    database: Database, due: Summaries
) -> None:
    """Unless one comes during the last reading."""
    for customer in ("cus_1", "cus_2"):
        await answered(database, customer)
    await due.follow(DUE)
    last = NOW + READ_FOR
    pairs = await due.lease(last, 10)
    await answered(database, "cus_2", last - 2 * COMMITTED_AFTER)
    await due.follow(last)

    for pair in pairs:
        await due.finish(pair, last)

    assert await leased(due, last + 2 * DAY) == ["cus_2"]


async def test_no_customer_is_forgotten_whose_old_usage_is_followed_meanwhile(
    database: Database, due: Summaries
) -> None:
    """An operator has set the place in the journal back, during the last reading."""
    await answered(database, "cus_1")
    await due.follow(DUE)
    last = NOW + READ_FOR
    [pair] = await due.lease(last, 10)
    await answered(database, "cus_1", NOW - SECOND, age=20 * DAY)
    await database.run(lambda c: c.execute(SET_BACK, {"at": NOW - DAY}))
    await due.follow(last)

    await due.finish(pair, last)

    assert await due.lease(last + READ_AGAIN - SECOND, 10) == []
    [again] = await due.lease(last + READ_AGAIN, 10)
    assert again.since == NOW - SECOND - 20 * DAY


async def test_an_error_report_has_only_those_read_whom_it_may_concern(
    database: Database, due: Summaries
) -> None:
    """Its meter, and answers from its interval on, or shortly before, when they show."""
    await answered(database, "cus_before", NOW - HOUR - 2 * SECOND)
    await answered(database, "cus_just_before", NOW - HOUR)
    await answered(database, "cus_other", meter="tokens")
    assert len(await read(due, DUE + HOUR)) == 3
    last = DUE + HOUR
    await answered(database, "cus_new", last)
    await due.follow(last + 2 * COMMITTED_AFTER)

    await due.read_soon("runs", NOW - SECOND, last + 2 * COMMITTED_AFTER)

    assert await leased(due, last + HOUR - SECOND) == []
    [pair] = await due.lease(last + HOUR, 10)
    await due.finish(pair, last + HOUR)
    assert pair.stripe_customer_id == "cus_new"
    assert await leased(due, last + READ_AGAIN - SECOND) == []
    [pair] = await due.lease(last + READ_AGAIN, 10)
    assert (pair.stripe_customer_id, pair.since) == ("cus_just_before", NOW - 2 * HOUR)


async def test_an_error_report_takes_no_older_hour_away(database: Database, due: Summaries) -> None:
    """A report of long ago was answered lately, and an error report is of now."""
    await answered(database, "cus_1", age=20 * DAY)
    await due.follow(DUE)

    await due.read_soon("runs", NOW - HOUR / 2, DUE)

    [pair] = await due.lease(DUE, 10)
    assert pair.since == NOW - 20 * DAY
