"""What the commands say of Stripe's sums and of the ledger's."""

import asyncio
import csv
import io
import json
from datetime import UTC, datetime
from functools import partial
from typing import Final

from sqlalchemy import text

from integration.usage_ingest.command import command
from integration.usage_ingest.sums import HOUR, METER, NOON, known, reading, report
from nexus_database import Database
from support.waiting import eventually
from usage_ingest.storage.counted import CountedSums
from usage_ingest.storage.differences import settle

AS_OF: Final = NOON + 48 * HOUR


async def lost_five(database: Database) -> None:
    """Let Stripe show 3 of 8, with a 5 that was accepted and an unknown 7 beside."""
    account = await known(database)
    await report(database, account, "cus_1", 5)
    await report(database, account, "cus_1", 3)
    await report(database, account, "cus_1", 7, state="forwarded")
    for as_of in (NOON + 2 * HOUR, AS_OF):
        await CountedSums(database, lag=HOUR).apply(reading("cus_1", (NOON, 3.0), as_of=as_of))


async def test_a_difference_is_shown_with_what_may_be_why(database: Database) -> None:
    """The only sum of reports that makes 3 is the 3: the 5 is suspected, the 7 seems to be out."""
    await lost_five(database)

    code, shown, _ = await command(database, "reconcile", "--json")

    assert code == 1  # it is known since 2026-03
    difference = json.loads(shown)
    assert (difference["kind"], difference["expected"], difference["by"]) == ("lower", 8, -5)
    reports = {
        each["value"]: (each["inferred_at_stripe"], each["could_explain"])
        for each in difference["reports"]
    }
    assert reports == {5: (None, True), 3: (None, False), 7: (False, False)}


async def test_the_forms_of_the_list_say_the_same(database: Database) -> None:
    """A table for people, CSV for finance; filters leave out what is not asked for."""
    await lost_five(database)

    _, table, _ = await command(database, "reconcile")
    _, written, _ = await command(database, "reconcile", "--csv")
    [row] = csv.DictReader(io.StringIO(written))
    assert int(row["age"]) > 0

    assert "lower: Stripe shows less than it had accepted" in table
    assert (row["customer"], row["meter"], row["by"]) == ("cus_1", METER, "-5")
    later = ("--since", (NOON + HOUR).isoformat())
    for other in (("--customer", "cus_2"), ("--meter", "other"), later):
        code, shown, _ = await command(database, "reconcile", *other)
        assert (code, shown.splitlines()[-1].split(";")[0]) == (0, "no difference is open")


async def test_only_an_old_difference_fails(database: Database) -> None:
    """What was found today may be gone tomorrow; what today's reading confirms is old."""
    await lost_five(database)
    today = reading("cus_1", (NOON, 3.0), as_of=datetime.now(UTC))
    await CountedSums(database, lag=HOUR).apply(today)

    for days, code in ((36_500, 0), (2, 1)):
        allowed = ("--older-than", str(days * 86_400))
        for form in ((), ("--json",), ("--csv",)):
            assert (await command(database, "reconcile", *form, *allowed))[0] == code


async def test_settling_waits_for_a_reading_that_is_being_stored(database: Database) -> None:
    """The reading has looked whether anything is settled: its change would stay hidden."""
    await lost_five(database)
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    count = partial(database.run, lambda c: c.execute(waiting))

    async with database.engine.begin() as storing:
        await storing.execute(text("UPDATE counted_pairs SET as_of = now()"))
        settling = asyncio.create_task(settle(database, "cus_1", METER, NOON, "CN-12"))
        await eventually(count, lambda found: bool(found.scalar_one()))
        await storing.execute(text("UPDATE differences SET counted = 2"))
    settled = await settling

    assert settled is not None
    assert settled.by == -6


async def test_a_settled_difference_hides_no_other_until_it_changes(database: Database) -> None:
    """It is in no figure, list or exit code, unless it is asked for."""
    await lost_five(database)
    sums, place = CountedSums(database, lag=HOUR), ("cus_1", METER, NOON.isoformat())
    code, said, _ = await command(database, "settle", *place, "--note", "-5, by CN-12")
    assert (code, said.strip()) == (
        0,
        "settled: lower by -5; it counts as open again if it changes",
    )

    same = await sums.apply(reading("cus_1", (NOON, 3.0), as_of=AS_OF + HOUR))
    assert same.opened == ()
    assert await sums.open_differences() == []
    for form in ((), ("--json",)):
        code, shown, _ = await command(database, "reconcile", *form)
        assert (code, "lower" in shown) == (0, False)
    code, shown, _ = await command(database, "reconcile", "--settled", "--csv")
    [row] = csv.DictReader(io.StringIO(shown))
    assert (code, row["kind"], row["settlement"]) == (0, "lower", "'-5, by CN-12")  # no formula
    assert "lower, settled" in (await command(database, "reconcile", "--settled"))[1]

    other = await sums.apply(reading("cus_1", (NOON, 2.0), as_of=AS_OF + 2 * HOUR))
    repeated = await sums.apply(reading("cus_1", (NOON, 2.0), as_of=AS_OF + 3 * HOUR))
    assert ([each.by for each in other.opened], repeated.opened) == ([-6], ())
    [found] = await sums.open_differences()
    assert (found.number, found.oldest) == (1, AS_OF + 2 * HOUR)
    assert (await command(database, "reconcile"))[0] == 1

    await sums.apply(reading("cus_1", (NOON, 8.0), as_of=AS_OF + 4 * HOUR))
    code, _, error = await command(database, "settle", *place, "--note", "too late")
    assert (code, "no difference is open there" in error) == (1, True)
    await sums.apply(reading("cus_1", (NOON, 3.0), as_of=AS_OF + 5 * HOUR))
    assert [each.number for each in await sums.open_differences()] == [1]


async def test_before_the_first_reading_it_says_so(database: Database) -> None:
    """Nothing was compared, which is not the same as no difference."""
    code, shown, _ = await command(database, "reconcile")

    assert (code, shown.strip()) == (0, "no difference is open; Stripe's sums were not read yet")


async def test_a_filter_says_when_its_own_sums_were_read(database: Database) -> None:
    """A customer whose sums were never read has no difference, and no answer either."""
    await lost_five(database)

    for arguments, of in (
        (("--customer", "cus_2"), "of cus_2"),
        (("--customer", "cus_1", "--meter", "other"), "of cus_1 on other"),
    ):
        _, shown, _ = await command(database, "reconcile", *arguments)
        last = f"no difference is open; Stripe's sums {of} were not read yet"
        assert shown.splitlines()[-1] == last
    _, shown, _ = await command(database, "reconcile", "--customer", "cus_1")
    assert f"Stripe's sums of cus_1 were read last at {AS_OF:%Y-%m-%dT%H:%M:%SZ}" in shown


async def test_more_differences_than_a_page_are_all_listed(database: Database) -> None:
    """In the order of their age, each once."""
    insert = text("""
    INSERT INTO differences (stripe_customer_id, meter, hour, kind, expected, at_most, counted,
        first_seen, last_seen)
    SELECT 'cus_' || n, 'runs', :noon, 'lower', 2, 2, 1, CAST(:noon AS timestamptz)
           + (n / 10) * interval '1 second', :noon
      FROM generate_series(1, 1203) n
    """)
    await database.run(lambda c: c.execute(insert, {"noon": NOON}))

    _, shown, _ = await command(database, "reconcile", "--json")
    listed = [json.loads(line) for line in shown.splitlines()]

    assert len({each["customer"] for each in listed}) == len(listed) == 1203
    assert listed == sorted(listed, key=lambda each: each["first_seen"])

    _, table, _ = await command(database, "reconcile")
    assert table.count("cus_") == 1000
    assert "only 1000 are shown" in table


async def test_sums_of_any_size_and_sign_are_shown(database: Database) -> None:
    """Somebody else may send them for our customer."""
    account = await known(database)
    values = (1e308, -1e308, -5.0, 0.25, -0.0)
    hours = [(NOON + place * HOUR, value) for place, value in enumerate(values)]
    for hour, _ in hours:
        await report(database, account, "cus_1", 5, at=hour, answered_at=NOON - 9 * HOUR)
    await CountedSums(database, lag=HOUR).apply(reading("cus_1", *hours, as_of=NOON + 9 * HOUR))

    _, shown, _ = await command(database, "reconcile", "--json")
    _, table, _ = await command(database, "reconcile")
    _, written, _ = await command(database, "reconcile", "--csv")

    found = [json.loads(line) for line in shown.splitlines()]
    assert [(each["kind"], each["counted"]) for each in found] == [
        ("higher", 1e308),
        ("lower", -1e308),
        ("lower", -5.0),
        ("lower", 0.25),
        ("lower", 0.0),
    ]
    assert [each["by"] for each in found[2:]] == [-10, -4.75, -5]
    assert "5 differences" in table
    assert len(written.splitlines()) == 6
