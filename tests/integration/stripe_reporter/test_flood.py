"""Floods of refused reports: those of one customer are none, those of all are."""

from integration.stripe_reporter.bench import Bench
from nexus_messaging.topology import USAGE_RECORDED_QUEUE, dead_letter_queue
from support.waiting import eventually

WINDOW = 20
MAX_DEAD_LETTERS = 11
"""Dead letters of one stop: more than half of the window."""


async def test_a_busy_deleted_customer_stops_no_other(bench: Bench) -> None:
    """All its reports are refused, far more than a flood has, and another's are still counted."""
    deleted, other = bench.customer(), bench.customer()
    bench.delete_customer(deleted)
    refused = [bench.report(deleted) for _ in range(3 * WINDOW)]
    async with bench.reporting(dead_letter_window=WINDOW) as running:
        await bench.send(*refused, bench.report(other))
        await bench.dead_letters(3 * WINDOW)
        await bench.send(bench.report(other))
        await eventually(lambda: _counted(bench, other), lambda count: count == 2)

        assert await running.app.remarks["consumption"]() is None


async def test_an_account_without_any_of_our_customers_stops_the_reporter(bench: Bench) -> None:
    """As with the key of another account; what was not refused yet is sent once it is mended."""
    customers = [bench.customer() for _ in range(3 * WINDOW)]
    for customer in customers:
        bench.delete_customer(customer)
    letters = dead_letter_queue(USAGE_RECORDED_QUEUE)
    async with bench.reporting(dead_letter_window=WINDOW) as running:
        await bench.send(*map(bench.report, customers))
        await eventually(running.app.remarks["consumption"], bool)
        await eventually(
            lambda: bench.vhost.depth(USAGE_RECORDED_QUEUE),
            lambda depth: depth == 3 * WINDOW - MAX_DEAD_LETTERS,
        )
        assert await bench.vhost.depth(letters) == MAX_DEAD_LETTERS

        for customer in customers:
            bench.restore_customer(customer)
        running.app.resume()
        await eventually(
            lambda: _total(bench, customers), lambda count: count == 3 * WINDOW - MAX_DEAD_LETTERS
        )
        await bench.revive()
        await eventually(lambda: _total(bench, customers), lambda count: count == 3 * WINDOW)


async def _counted(bench: Bench, customer: str) -> float:
    return bench.counted(customer)


async def _total(bench: Bench, customers: list[str]) -> float:
    return sum(map(bench.counted, customers))
