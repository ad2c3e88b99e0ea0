"""Stripe's sums are compared with the ledger's reports, whatever order readings come in."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import text

from integration.usage_ingest.sums import HOUR, METER, NOON, known, reading, report
from nexus_database import Database
from usage_ingest.reconciliation import DifferenceKind
from usage_ingest.storage.counted import CountedSums
from usage_ingest.storage.differences import DifferenceReader
from usage_ingest.stripes_word import DifferenceCount

MINUTE: Final = timedelta(minutes=1)


async def differences(database: Database) -> Sequence[tuple[Any, ...]]:
    """Return all differences, open ones and closed ones."""
    query = text("SELECT kind, expected, counted, closed_at IS NULL FROM differences ORDER BY hour")
    return [tuple(row) for row in await database.run(lambda c: c.execute(query))]


async def test_a_sum_that_lacks_a_report_is_a_difference_until_it_is_there(
    database: Database,
) -> None:
    """It is said once, stays open as long as readings confirm it, and is closed, not deleted."""
    sums, account = CountedSums(database, lag=HOUR), await known(database)
    await report(database, account, "cus_1", 5)
    await report(database, account, "cus_1", 3)

    first = await sums.apply(reading("cus_1", (NOON, 5.0), as_of=NOON + 2 * HOUR))
    repeated = await sums.apply(reading("cus_1", (NOON, 5.0), as_of=NOON + 2 * HOUR))
    again = await sums.apply(reading("cus_1", (NOON, 5.0), as_of=NOON + 3 * HOUR))
    assert repeated.opened == ()
    assert [each.kind for each in first.opened] == [DifferenceKind.LOWER]
    assert again.opened == ()
    assert await differences(database) == [("lower", 8, 5.0, True)]
    assert await sums.open_differences() == [
        DifferenceCount(DifferenceKind.LOWER, 1, NOON + 2 * HOUR)
    ]

    mended = await sums.apply(reading("cus_1", (NOON, 8.0), as_of=NOON + 5 * HOUR))
    assert (mended.opened, mended.closed) == ((), 1)
    assert await differences(database) == [("lower", 8, 5.0, False)]
    assert await sums.open_differences() == []

    await sums.apply(reading("cus_1", (NOON, 7.0), as_of=NOON + 6 * HOUR))
    assert await sums.open_differences() == [
        DifferenceCount(DifferenceKind.LOWER, 1, NOON + 6 * HOUR)
    ]
    assert await differences(database) == [("lower", 8, 7.0, True)]


async def test_an_older_reading_of_the_same_hours_changes_nothing(database: Database) -> None:
    """Messages overtake each other, and a dead letter may be moved days later."""
    sums, account = CountedSums(database, lag=HOUR), await known(database)
    await report(database, account, "cus_1", 5)
    await report(database, account, "cus_1", 3, at=NOON + HOUR)
    newer = reading("cus_1", (NOON, 5.0), (NOON + HOUR, 2.0), as_of=NOON + 4 * HOUR)
    await sums.apply(newer)

    for hours in ((), ((NOON, 5.0), (NOON + HOUR, 3.0)), ((NOON, 9.0),)):
        older = await sums.apply(reading("cus_1", *hours, as_of=NOON + 3 * HOUR))
        assert (older.opened, older.closed, older.lags) == ((), 0, ())

    assert await differences(database) == [("lower", 3, 2.0, True)]
    assert await sums.last_reading() == newer.as_of


async def test_an_older_reading_of_other_hours_is_compared(database: Database) -> None:
    """The next reading no longer goes back so far: nothing else would find what is lost there."""
    sums, account = CountedSums(database, lag=HOUR), await known(database)
    before = NOON - 20 * HOUR
    await report(database, account, "cus_1", 5, at=before)
    await sums.apply(reading("cus_1", as_of=NOON + 3 * HOUR))
    page = reading("cus_1", as_of=NOON + 2 * HOUR).model_copy(
        update={"start": NOON - 24 * HOUR, "end": NOON - 12 * HOUR}
    )

    overtaken = await sums.apply(page)

    assert [each.hour for each in overtaken.opened] == [before]


async def test_reports_of_one_hour_are_added_up_by_when_they_were_answered(
    database: Database,
) -> None:
    """What must be shown and what may be are two things; an answer of exactly the lag must be."""
    sums, account = CountedSums(database, lag=HOUR), await known(database)
    as_of = NOON + 5 * HOUR
    second = timedelta(seconds=1)
    for number, before in ((5, 2 * HOUR), (7, HOUR), (3, HOUR - second), (2, second)):
        await report(database, account, "cus_1", number, answered_at=as_of - before)
    await report(database, account, "cus_1", 100, state="forwarded")

    for value, by in ((11.0, [-1]), (12.0, []), (117.0, []), (118.0, [1])):
        compared = await sums.apply(reading("cus_1", (NOON, value), as_of=as_of))
        assert [each.by for each in compared.opened] == by


async def test_an_hour_that_was_not_read_since_its_report_came_says_nothing_of_it(
    database: Database,
) -> None:
    """Each hour has the time of its own reading, not that of the customer's last one."""
    sums, account = CountedSums(database, lag=HOUR), await known(database)
    await report(database, account, "cus_1", 5)
    read_at = NOON + 2 * HOUR
    await sums.apply(reading("cus_1", as_of=read_at))
    await report(database, account, "cus_1", 3, at=NOON + HOUR)
    others = reading("cus_1", as_of=NOON + 90 * HOUR).model_copy(
        update={"start": NOON + 12 * HOUR, "end": NOON + 24 * HOUR}
    )
    await sums.apply(others)

    reader = DifferenceReader(database)
    read = await reader.hour("cus_1", METER, NOON)
    assert read is not None
    assert (read.as_of, read.counted) == (read_at, 0.0)
    assert read.difference is not None
    assert await reader.hour("cus_1", METER, NOON + HOUR) is None


async def test_a_later_reading_replaces_what_an_earlier_one_found(database: Database) -> None:
    """Its sum, its time, the kind of the difference; what is closed is not closed again."""
    sums, account = CountedSums(database, lag=HOUR), await known(database)
    reader, others = DifferenceReader(database), NOON + HOUR
    await report(database, account, "cus_1", 5)

    await sums.apply(reading("cus_1", (NOON, 3.0), (others, 2.0), as_of=NOON + 2 * HOUR))
    later = NOON + 3 * HOUR
    changed = await sums.apply(reading("cus_1", (NOON, 9.0), as_of=later))
    [open_one] = [each async for each in reader.open_ones(customer="cus_1", settled=True)]
    shown = await reader.hour("cus_1", METER, NOON)
    assert (changed.opened, changed.closed) == ((), 1)
    assert (open_one.difference.kind, open_one.difference.by) == (DifferenceKind.HIGHER, 4)
    assert (open_one.first_seen, open_one.last_seen) == (NOON + 2 * HOUR, later)
    assert shown is not None
    assert (shown.counted, shown.as_of) == (9.0, later)
    assert await reader.hour("cus_1", METER, others) is None

    for hours, closed in ((4, 1), (5, 0)):
        equal = await sums.apply(reading("cus_1", (NOON, 5.0), as_of=NOON + hours * HOUR))
        assert equal.closed == closed


async def test_sums_of_two_meters_are_apart(database: Database) -> None:
    """A reading of one changes nothing of the other, in the same hour of the same customer."""
    sums, account = CountedSums(database, lag=HOUR), await known(database)
    reader = DifferenceReader(database)
    await report(database, account, "cus_1", 5)
    await report(database, account, "cus_1", 7, meter="tokens")
    first = reading("cus_1", (NOON, 4.0), (NOON + HOUR, 2.0), as_of=NOON + 2 * HOUR)

    await sums.apply(first)
    others = reading("cus_1", (NOON, 7.0), as_of=NOON + 3 * HOUR)
    tokens = await sums.apply(others.model_copy(update={"meter": "tokens"}))

    assert (tokens.opened, tokens.closed) == ((), 0)
    found = [each async for each in reader.open_ones(customer="cus_1", settled=True)]
    assert [(each.meter, each.difference.by) for each in found] == [(METER, -1), (METER, 2)]
    assert [[named.report.value for named in each.reports] for each in found] == [[5], []]
    foreign = await reader.hour("cus_1", METER, NOON + HOUR)
    assert foreign is not None
    assert foreign.counted == 2.0


async def test_what_stripe_shows_late_is_no_difference(database: Database) -> None:
    """Within the lag nothing is said; how long Stripe took is measured once it shows it."""
    sums, account = CountedSums(database, lag=HOUR), await known(database)
    await report(database, account, "cus_1", 5)

    await report(database, account, "cus_1", 3, answered_at=NOON - 2 * HOUR)

    read = [
        await sums.apply(reading("cus_1", (NOON, value), as_of=NOON + minutes * MINUTE))
        for minutes, value in ((10, 3.0), (20, 7.0), (30, 8.0), (40, 8.0))
    ]

    assert [each.opened for each in read] == [(), (), (), ()]
    assert [each.lags for each in read] == [(), (), (1800.0,), ()]
    assert await differences(database) == []


async def test_reports_to_an_earlier_customer_of_the_account_are_compared_with_it(
    database: Database,
) -> None:
    """An account that was given another customer has reports to both."""
    sums, account = CountedSums(database, lag=HOUR), await known(database)
    await report(database, account, "cus_1", 5)
    await known(database, 2, account)
    await report(database, account, "cus_2", 7)

    for customer, value in (("cus_1", 5.0), ("cus_2", 7.0)):
        await sums.apply(reading(customer, (NOON, value), as_of=NOON + 2 * HOUR))

    assert await differences(database) == []


async def test_usage_of_an_unknown_and_of_a_deleted_customer_is_named(database: Database) -> None:
    """The ledger has no such customer; or Stripe has none any more."""
    sums, account = CountedSums(database, lag=HOUR), await known(database)
    await report(database, account, "cus_1", 5)

    await sums.apply(reading("cus_foreign", (NOON, 2.0), as_of=NOON + 2 * HOUR))
    await sums.apply(reading("cus_1", as_of=NOON + 2 * HOUR, gone=True))

    found = await differences(database)
    assert sorted(found) == [("foreign", 0, 2.0, True), ("gone", 5, 0.0, True)]


async def test_another_page_of_the_same_reading_leaves_this_one_alone(database: Database) -> None:
    """Pages of a reading have one time and different hours."""
    sums, account = CountedSums(database, lag=HOUR), await known(database)
    await report(database, account, "cus_1", 5)
    await report(database, account, "cus_1", 3, at=NOON + 20 * HOUR)
    as_of = NOON + 30 * HOUR
    next_page = reading("cus_1", as_of=as_of).model_copy(
        update={"start": NOON + 12 * HOUR, "end": NOON + 24 * HOUR}
    )

    await sums.apply(next_page)
    await sums.apply(reading("cus_1", (NOON, 4.0), as_of=as_of))

    assert await differences(database) == [("lower", 5, 4.0, True), ("lower", 3, 0.0, True)]
