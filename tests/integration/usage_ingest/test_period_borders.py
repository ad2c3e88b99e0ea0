"""No report straddles the border of a billing period that is known when it is made."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from integration.usage_ingest.priced import MINUTE, NOW, USER, PricedLedger
from nexus_database import Database
from support.events import tool_run

BORDER = MINUTE + timedelta(seconds=5)
MONTH = timedelta(days=30)
OTHER = UUID(int=2)


def at(second: float, user: UUID = USER) -> Any:
    """Return a run at a second around the border."""
    return tool_run(user, time=BORDER + timedelta(seconds=second))


async def reports(ledger: PricedLedger) -> list[tuple[Any, ...]]:
    """Return customer, second from the border and number of runs of each report."""
    found = await ledger.run_sql(
        "SELECT stripe_customer_id, occurred_at, value FROM usage_reports WHERE meter = 'runs'"
        " ORDER BY 1, 2, 3"
    )
    return [(name, (time - BORDER).total_seconds(), value) for name, time, value in found]


async def test_usage_of_one_window_and_two_periods_makes_two_reports(database: Database) -> None:
    """A period's start is in it. The window of an account without that border stays whole."""
    ledger = PricedLedger(database)
    await ledger.customer()
    await ledger.customer(OTHER, "cus_2")
    await ledger.subscribe("team", period=(BORDER - MONTH, BORDER))
    await ledger.subscribe("team", OTHER, period=(BORDER - MONTH / 2, BORDER + MONTH / 2))
    runs = [at(second, user) for second in (-2, -1, 0, 1) for user in (USER, OTHER)]
    await ledger.record(*runs)

    await ledger.claims().claim(NOW)

    assert await reports(ledger) == [("cus_1", -2, 2), ("cus_1", 0, 2), ("cus_2", -2, 4)]


async def test_every_border_in_a_window_splits_it(database: Database) -> None:
    """A subscription may end in it, and another one begin, seconds apart."""
    ledger = PricedLedger(database)
    await ledger.customer()
    second = timedelta(seconds=1)
    await ledger.subscribe("team", period=(BORDER - MONTH, BORDER - second))
    await ledger.run_sql(
        "INSERT INTO subscription_periods VALUES (:id, :begins, :ends, '{}')",
        id=f"sub_{USER}",
        begins=BORDER + second,
        ends=BORDER + MONTH,
    )
    await ledger.record(*(at(each) for each in (-2, -1.5, -0.5, 0.5, 1, 2)))

    await ledger.claims().claim(NOW)

    assert await reports(ledger) == [("cus_1", -2, 2), ("cus_1", -0.5, 2), ("cus_1", 1, 2)]


@pytest.mark.parametrize("period", [(BORDER - MONTH, BORDER), (BORDER, BORDER + MONTH)])
async def test_last_run_of_a_claim_may_be_the_first_of_its_period(
    database: Database, period: tuple[datetime, datetime]
) -> None:
    """Whether the border is the end of a period or the begin of one."""
    ledger = PricedLedger(database)
    await ledger.customer()
    await ledger.subscribe("team", period=period)
    await ledger.record(at(-1), at(0))

    await ledger.claims().claim(NOW)

    assert await reports(ledger) == [("cus_1", -1, 1), ("cus_1", 0, 1)]


async def test_border_that_becomes_known_later_changes_no_report(database: Database) -> None:
    """It decides about what comes after it alone."""
    ledger = PricedLedger(database)
    await ledger.customer()
    await ledger.record(at(-1), at(1))
    await ledger.claims().claim(NOW)

    await ledger.subscribe("team", period=(BORDER - MONTH, BORDER))
    await ledger.record(at(-2), at(2))
    await ledger.claims().claim(NOW)

    assert await reports(ledger) == [("cus_1", -2, 1), ("cus_1", -1, 2), ("cus_1", 2, 1)]
