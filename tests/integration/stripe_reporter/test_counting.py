"""Stripe's own sums are read after the answers, and published for the ledger."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from operator import eq, le
from typing import Final

import pytest
from sqlalchemy import text

from integration.stripe_reporter.bench import METER, Bench, Running
from nexus_contracts import Event, UsageCounted, UsageRecorded, read_event
from nexus_database import Database
from nexus_messaging.topology import USAGE_COUNTED_QUEUE, USAGE_OUTCOMES_QUEUE
from stripe_emulator.event_faults import EventFault
from stripe_emulator.faults import Fault
from stripe_reporter.counting import READ_AGAIN, pages, whole_hour
from stripe_reporter.rejections import Rejection
from stripe_reporter.storage.rejections import Rejections
from stripe_reporter.storage.summaries import Summaries
from support.pages import runbook_statement
from support.waiting import eventually

HOUR: Final = timedelta(hours=1)
SUM: Final = {"formula": "sum"}
DAY: Final = 24 * HOUR

CALL: Final = text("""
INSERT INTO meter_calls (identifier, report_id, stripe_customer_id, meter, value, occurred_at,
       request_digest, state, key_n, attempts, started_at, answered_at, answer, accepted_key_n)
VALUES (gen_random_uuid()::text, gen_random_uuid(), :customer, :meter, 1, :occurred_at, sha256('x'),
       'accepted', 1, 1, :at, :at, 'accepted', 1)
""")


async def readings(bench: Bench, running: Running, count: int) -> Sequence[UsageCounted]:
    """Let the reporter read what is due, and return ``count`` readings."""
    running.app.wake("read sums")
    await eventually(lambda: bench.vhost.depth(USAGE_COUNTED_QUEUE), lambda depth: depth >= count)
    messages = [await bench.vhost.take(USAGE_COUNTED_QUEUE) for _ in range(count)]
    return [read_event(each.body, [UsageCounted]).data for each in messages]


async def failed(bench: Bench) -> float:
    """Count the readings that Stripe did not answer."""
    name, labels = "stripe_reporter_sums_read_total", {"outcome": "not_read"}
    return bench.registry.get_sample_value(name, labels) or 0.0


async def answered(database: Database, customer: str, at: datetime, age: timedelta = HOUR) -> None:
    """Put a report of usage of some age into the journal, which Stripe accepted."""
    values = {"customer": customer, "meter": METER, "at": at, "occurred_at": at - age}
    await database.run(lambda c: c.execute(CALL, values))


async def read_all(summaries: Summaries, now: datetime) -> dict[str, int]:
    """Read who is due, without Stripe; return the number of pages of each customer."""
    await summaries.follow(now)
    read = {}
    for pair in await summaries.lease(now, 1000):
        read[pair.stripe_customer_id] = len(list(pages(pair, now)))
        await summaries.finish(pair, now)
    return read


def hour_of(event: Event[UsageRecorded]) -> datetime:
    """Return the hour that a report belongs to."""
    return whole_hour(event.data.occurred_at)


async def test_what_was_reported_is_read_after_stripes_lag(bench: Bench) -> None:
    """One reading says the sum of each hour, and which hours it covers."""
    customer = bench.customer()
    now, before = bench.report(customer, 5), bench.report(customer, 3)
    old = bench.report(customer, 7, occurred_at=bench.now() - 30 * HOUR)

    async with bench.reporting() as running:
        await bench.send(now, before, old)
        await bench.outcomes(3)
        bench.pass_time(2 * HOUR)
        [reading] = await readings(bench, running, 1)

    assert (reading.stripe_customer_id, reading.meter) == (customer, METER)
    found = {each.start: each.value for each in reading.hours}
    expected = {hour_of(old): 7.0}
    for event in (now, before):
        expected[hour_of(event)] = expected.get(hour_of(event), 0.0) + event.data.value
    assert found == expected
    assert reading.start <= hour_of(old)
    assert reading.end == whole_hour(reading.as_of) + HOUR
    assert not reading.customer_gone


async def test_hours_are_read_again_however_old_once_they_are_answered(bench: Bench) -> None:
    """A report of a month ago is looked for at its hour, over several pages."""
    event = bench.report(bench.customer(), 5, occurred_at=bench.now() - 30 * 24 * HOUR)

    async with bench.reporting() as running:
        await bench.send(event)
        await bench.outcomes(1)
        bench.pass_time(2 * HOUR)
        pages = await readings(bench, running, 8)

    assert pages[0].start <= hour_of(event)
    assert [each.value for page in pages for each in page.hours] == [5.0]
    assert len({page.as_of for page in pages}) == 1


async def test_a_deleted_customer_is_said_to_be_gone(bench: Bench) -> None:
    """Nothing of it can be read, and nothing will be invoiced."""
    customer = bench.customer()

    async with bench.reporting() as running:
        await bench.send(bench.report(customer))
        await bench.outcomes(1)
        bench.delete_customer(customer)
        bench.pass_time(2 * HOUR)
        [reading] = await readings(bench, running, 1)

    assert reading.customer_gone
    assert reading.hours == []


async def test_what_cannot_be_read_is_read_later_and_reports_go_on(bench: Bench) -> None:
    """Stripe refuses or loses the reading; that opens no circuit, and is tried again."""
    customer = bench.customer()
    for kind in ({"kind": "status", "status": 403}, {"kind": "rate_limited"}, {"kind": "html_503"}):
        where = {"path_prefix": "/v1/billing/meters/", "method": "GET", "times": 1}
        bench.account.faults.add(Fault.read({**kind, **where}))

    async with bench.reporting() as running:
        await bench.send(bench.report(customer, 5))
        await bench.outcomes(1)
        for failures in (1, 2, 3):
            bench.pass_time(6 * HOUR)
            running.app.wake("read sums")
            await eventually(lambda: failed(bench), partial(le, failures))
        assert running.circuit.cause is None
        async with bench.database() as database:
            backlog = await Summaries(database, lag=HOUR).backlog(bench.now())
        assert (backlog.due, backlog.overdue > 12 * 3600) == (1, True)
        bench.pass_time(6 * HOUR)
        [reading] = await readings(bench, running, 1)

    assert sum(each.value for each in reading.hours) == 5.0


async def test_slow_reading_delays_no_other_customer(bench: Bench) -> None:
    """Otherwise a day has too few hours for many customers, at whatever pace."""
    customers = [bench.customer() for _ in range(4)]
    slow = {"kind": "latency", "seconds": 30, "method": "GET", "customer": customers[1]}
    bench.account.faults.add(Fault.read(slow))
    async with bench.database() as database:
        for second, customer in enumerate(customers):
            at = bench.now() + timedelta(seconds=second)
            await answered(database, customer, at)
    bench.pass_time(2 * HOUR)

    async with bench.reporting() as running:
        read = await readings(bench, running, 3)

    assert {each.stripe_customer_id for each in read} == {*customers} - {customers[1]}


async def test_an_answer_during_a_reading_is_read_next_time(bench: Bench) -> None:
    """The reading may have missed it; it is looked at again within hours."""
    customer = bench.customer()
    async with bench.reporting() as running:
        await bench.send(bench.report(customer, 5))
        await bench.outcomes(1)
        bench.pass_time(2 * HOUR)
        async with bench.database() as database:
            summaries = Summaries(database, lag=HOUR)
            await summaries.follow(bench.now())
            [pair] = await summaries.lease(bench.now(), 10)
            assert await summaries.lease(bench.now(), 10) == []
            await bench.send(bench.report(customer, 7))
            await bench.outcomes(2)
            bench.pass_time(2 * HOUR)
            await summaries.follow(bench.now())
            await summaries.finish(pair, bench.now())
            bench.pass_time(7 * HOUR)
            [again] = await summaries.lease(bench.now(), 10)
            await summaries.postpone(again, bench.now())

        [reading] = await readings(bench, running, 1)
    assert sum(each.value for each in reading.hours) == 12.0


async def test_hours_are_read_again_once_the_place_in_the_journal_is_set_back(
    bench: Bench,
) -> None:
    """A ledger from a backup has lost what was read since, also of hours that are long past."""
    event = bench.report(bench.customer(), 5, occurred_at=bench.now() - 10 * 24 * HOUR)

    async with bench.reporting() as running:
        began = bench.now()
        await bench.send(event)
        await bench.outcomes(1)
        bench.pass_time(25 * HOUR)
        await readings(bench, running, 3)
        bench.pass_time(25 * HOUR)
        daily = await readings(bench, running, 1)
        async with bench.database() as database:
            set_back = runbook_statement("UPDATE summaries_place").replace("SINCE", f"{began}")
            await database.run(lambda c: c.execute(text(set_back)))
        bench.pass_time(7 * HOUR)
        again = await readings(bench, running, 4)

    values = [[each.value for page in pages for each in page.hours] for pages in (daily, again)]
    assert values == [[], [5.0]]


async def test_sums_are_read_at_once_by_the_runbooks_statement(bench: Bench) -> None:
    """An operator who has settled something need not wait for the next day's reading."""
    now = bench.now()
    async with bench.database() as database:
        summaries = Summaries(database, lag=HOUR)
        for customer in ("cus_1", "cus_2"):
            await answered(database, customer, now - 3 * HOUR)
        first = await read_all(summaries, now)
        later = await read_all(summaries, now + HOUR)
        wanted = runbook_statement("UPDATE summaries_due").replace("…", "cus_1")
        await database.run(lambda c: c.execute(text(wanted)))
        at_once = await read_all(summaries, now + HOUR)

    assert (first, later, at_once) == ({"cus_1": 1, "cus_2": 1}, {}, {"cus_1": 1})


async def test_a_customer_who_is_always_active_costs_one_call_a_reading(bench: Bench) -> None:
    """And a few more for as long as usage of long ago was answered lately."""
    calls: list[int] = []
    start = bench.now()
    async with bench.database() as database:
        summaries = Summaries(database, lag=HOUR)
        await answered(database, "cus_1", start, age=20 * DAY)
        for quarter in range(1, 40):
            now = start + quarter * READ_AGAIN
            calls += (await read_all(summaries, now)).values()
            await answered(database, "cus_1", now - HOUR / 2)

    assert calls[0] > 5
    assert set(calls[12:]) == {1}


async def test_what_an_error_report_asks_for_is_read_once_stripe_shows_it(bench: Bench) -> None:
    """At once it would say nothing, and take the place of the reading after Stripe's lag."""
    start = bench.now()
    async with bench.database() as database:
        summaries = Summaries(database, lag=HOUR)
        await answered(database, "cus_1", start)
        await summaries.follow(start + HOUR / 4)

        await summaries.read_soon(METER, start + timedelta(seconds=20), start + HOUR / 4)
        assert await summaries.lease(start + HOUR / 2, 10) == []
        assert await read_all(summaries, start + 1.1 * HOUR) == {"cus_1": 1}

        later = start + 12 * HOUR
        assert await read_all(summaries, later) == {}
        await summaries.read_soon(METER, start, later)
        assert await read_all(summaries, later) == {"cus_1": 1}


async def test_an_error_report_of_long_ago_asks_for_no_hours_beyond_what_is_billed(
    bench: Bench,
) -> None:
    """Stripe takes no usage that is older than 35 days, whatever an event says."""
    now = bench.now()
    async with bench.database() as database:
        summaries = Summaries(database, lag=HOUR)
        await answered(database, "cus_1", now)
        await summaries.follow(now + HOUR)

        await summaries.read_soon(METER, now - 20_000 * DAY, now + HOUR)

        assert await read_all(summaries, now + 2 * HOUR) == {"cus_1": 10}


async def test_those_without_news_have_their_turn_though_others_never_end(bench: Bench) -> None:
    """More is due than can be read: what is overdue for longest is read first."""
    start = bench.now()
    async with bench.database() as database:
        summaries = Summaries(database, lag=HOUR)
        await answered(database, "cus_quiet", start - 9 * DAY)
        for day in range(5):
            await read_all(summaries, start - (8 - day) * DAY)
        for number in range(50):
            await answered(database, f"cus_{number}", start)
        await summaries.follow(start + HOUR)

        now = start + 18 * HOUR
        assert "cus_quiet" in {each.stripe_customer_id for each in await summaries.lease(now, 1)}


async def test_a_rejected_report_has_its_hour_read_again_however_old(bench: Bench) -> None:
    """Nothing else would close the difference that the ledger has seen there."""
    event = bench.report(bench.customer(), 5, occurred_at=bench.now() - 20 * DAY)
    fault = {"kind": "rejected", "code": "no_meter", "times": None}
    bench.account.later_validation.faults.add(EventFault.read(fault))
    async with bench.reporting(), bench.database() as database:
        summaries, rejections = Summaries(database, lag=HOUR), Rejections(database)
        await bench.send(event)
        await bench.outcomes(1)
        start = bench.now()
        await summaries.follow(start + HOUR)
        for day in range(1, 5):
            await read_all(summaries, start + day * DAY)
        assert await read_all(summaries, start + 5.5 * DAY) == {event.data.stripe_customer_id: 1}

        heard = start + 6 * DAY
        await rejections.keep([Rejection(event.data.identifier, 1, "no_meter")], heard)
        await eventually(lambda: bench.vhost.depth(USAGE_OUTCOMES_QUEUE), lambda depth: depth == 2)

        [pages_read] = (await read_all(summaries, heard)).values()
        assert pages_read > 5


async def test_sums_of_an_archived_meter_are_counted_with_its_successors(bench: Bench) -> None:
    """The ledger knows a meter by its event name, which two meters may have had."""
    customer = bench.customer()
    meters, now = bench.account.meters, bench.account.clock.now
    async with bench.reporting() as running:
        await bench.send(bench.report(customer, 5))
        await bench.outcomes(1)
        old = meters.active_for(METER)
        assert old is not None
        meters.deactivate(old.id, now())
        again = {"display_name": "again", "event_name": METER, "default_aggregation": SUM}
        meters.create(again, now())
        await bench.send(bench.report(customer, 7))
        await bench.outcomes(2)
        bench.pass_time(2 * HOUR)
        [reading] = await readings(bench, running, 1)

    assert sum(each.value for each in reading.hours) == 12.0


async def test_a_key_without_rights_costs_a_call_in_each_round(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stripe refuses every reading; the journal is followed all the same, faster than it grows."""
    monkeypatch.setattr("stripe_reporter.storage.summaries.MAX_FOLLOWED", 1)
    forbidden = {"kind": "status", "status": 403, "times": None}
    where = {"path_prefix": "/v1/billing/meters/", "method": "GET"}
    bench.account.faults.add(Fault.read({**forbidden, **where}))
    async with bench.database() as database:
        for number in range(10):
            await answered(database, f"cus_{number}", bench.now())
    bench.pass_time(2 * HOUR)

    async with bench.reporting(stripe_reads_per_second=1.0), bench.database() as database:
        await eventually(lambda: failed(bench), bool)
        put_back = text("SELECT count(*) FROM summaries_due WHERE next_try <= :now")

        async def free() -> int:
            values = {"now": bench.now()}
            return int((await database.run(lambda c: c.execute(put_back, values))).scalar_one())

        await eventually(free, partial(eq, 9))
        assert await failed(bench) == 1
        backlog = await Summaries(database, lag=HOUR).backlog(bench.now())
    assert backlog.due == 10
