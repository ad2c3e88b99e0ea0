"""Stripe's own sums are read after the answers, and published for the ledger."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from operator import le
from typing import Final

from integration.stripe_reporter.bench import METER, Bench, Running
from nexus_contracts import Event, UsageCounted, UsageRecorded, read_event
from nexus_messaging.topology import USAGE_COUNTED_QUEUE
from stripe_emulator.faults import Fault
from stripe_reporter.counting import whole_hour
from stripe_reporter.storage.summaries import Summaries
from support.waiting import eventually

HOUR: Final = timedelta(hours=1)


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
    assert reading.end == whole_hour(bench.now()) + HOUR
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
            bench.pass_time(2 * HOUR)
            running.app.wake("read sums")
            await eventually(lambda: failed(bench), partial(le, failures))
        assert running.circuit.cause is None
        async with bench.database() as database:
            backlog = await Summaries(database, lag=HOUR).backlog(bench.now())
        assert (backlog.due, backlog.overdue > 4 * 3600) == (1, True)
        bench.pass_time(2 * HOUR)
        [reading] = await readings(bench, running, 1)

    assert sum(each.value for each in reading.hours) == 5.0


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
            await summaries.finish(pair, bench.now(), bench.now() + 24 * HOUR)
            bench.pass_time(7 * HOUR)
            [again] = await summaries.lease(bench.now(), 10)
            await summaries.postpone(again, bench.now())

        [reading] = await readings(bench, running, 1)
    assert sum(each.value for each in reading.hours) == 12.0
