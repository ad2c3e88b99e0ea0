"""Where accepted reports ended up: in their period, in its grace, too late, or on no invoice."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text

from integration.usage_ingest.test_counted import METER, known, report
from nexus_contracts import SubscriptionChanged, SubscriptionItem, SubscriptionsRead
from nexus_database import Database
from usage_ingest.periods import Placement
from usage_ingest.storage.periods import Periods, placement_of
from usage_ingest.storage.subscriptions import Subscriptions

SECOND: Final = timedelta(seconds=1)
MINUTE: Final = timedelta(minutes=1)
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)

# Accepted after the migration, which places nothing that is older.
END: Final = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + 10 * DAY
START: Final = END - 31 * DAY
GRACE: Final = HOUR


async def subscribe(database: Database, account: UUID, **fields: Any) -> None:
    """Let an account's subscription of the month become known."""
    described = {
        "subscription_id": "sub_1",
        "account_id": account,
        "stripe_customer_id": "cus_1",
        "revision": 1,
        "status": "active",
        "items": [SubscriptionItem(price_id="price_1", product_id="prod_1", meter=METER)],
        "period_start": START,
        "period_end": END,
        "plan_since": START,
        "as_of": START,
    }
    change = SubscriptionChanged(**{**described, **fields})
    await Subscriptions(database, best=min).apply(change)
    await Periods(database, grace=GRACE).place_again(account)


async def placements(database: Database) -> Mapping[int, str]:
    """Return where each report is that did not come in its period, by its value."""
    query = text("SELECT value, placement FROM report_placements ORDER BY value")
    return {row.value: row.placement for row in await database.run(lambda c: c.execute(query))}


async def place(database: Database, until: datetime = END + 10 * DAY) -> Mapping[Placement, int]:
    """Place what was accepted, and return how many are where."""
    placed, more = await Periods(database, grace=GRACE).place(until)
    assert not more
    return placed


async def test_usage_around_a_periods_end_is_placed_by_when_it_came(database: Database) -> None:
    """Within the period, within the grace, after the invoice is final, in the next period."""
    account = await known(database)
    await subscribe(database, account)
    await subscribe(
        database, account, revision=2, period_start=END, period_end=END + 30 * DAY, as_of=END
    )
    last = END - SECOND
    for value, (occurred, answered) in enumerate(
        [
            (last, last + SECOND / 2),
            (last, END + SECOND),
            (last, END + 59 * MINUTE),
            (last, END + 2 * HOUR),
            (END + SECOND, END + 2 * HOUR),
        ],
        start=1,
    ):
        await report(database, account, "cus_1", value, at=occurred, answered_at=answered)

    assert await place(database) == {
        Placement.IN_PERIOD: 2,
        Placement.IN_GRACE: 2,
        Placement.AFTER_FINALISATION: 1,
    }
    assert await placements(database) == {2: "in_grace", 3: "in_grace", 4: "after_finalisation"}
    assert await place(database) == {}


async def test_a_subscription_that_ends_that_day_leaves_the_rest_on_no_invoice(
    database: Database,
) -> None:
    """What is used after its end was never subscribed to."""
    account = await known(database)
    await subscribe(database, account)
    ended = END - DAY
    await subscribe(database, account, revision=2, status="canceled", ended_at=ended)
    await report(database, account, "cus_1", 1, at=ended - HOUR, answered_at=ended - MINUTE)
    await report(database, account, "cus_1", 2, at=ended + HOUR, answered_at=ended + 2 * HOUR)

    await place(database)

    assert await placements(database) == {2: "not_subscribed"}


async def test_nobody_is_said_to_lack_a_subscription_before_all_were_read(
    database: Database,
) -> None:
    """Unknown until then; a reading that began before the customer was made says nothing."""
    account = await known(database)
    await report(database, account, "cus_1", 1, at=END, answered_at=END)
    periods = Periods(database, grace=GRACE)

    assert await place(database) == {Placement.UNKNOWN: 1}
    now = datetime.now(UTC)
    for began, placement in ((now - DAY, "unknown"), (now + MINUTE, "not_subscribed")):
        await periods.keep_read(SubscriptionsRead(began_at=began, ended_at=began + HOUR))
        await periods.place_again()
        assert await placements(database) == {1: placement}

    await subscribe(database, account, period_start=END - DAY, period_end=END + DAY)
    assert await placements(database) == {}


async def test_a_subscription_to_another_meter_bills_nothing(database: Database) -> None:
    """The loudest case: usage that Stripe takes and no invoice has."""
    account = await known(database)
    items = [SubscriptionItem(price_id="price_1", product_id="prod_1", quantity=3)]
    await subscribe(database, account, items=items)
    await report(database, account, "cus_1", 7, at=END - HOUR, answered_at=END - MINUTE)

    assert await place(database) == {Placement.NOT_SUBSCRIBED: 1}
    [total] = await Periods(database, grace=GRACE).sums(START)
    assert (total.placement, total.number, total.value) == (Placement.NOT_SUBSCRIBED, 1, 7)


async def test_a_report_is_placed_before_its_answer_as_if_it_came_now(database: Database) -> None:
    """`explain` says what would become of it."""
    account = await known(database)
    await subscribe(database, account)
    await report(database, account, "cus_1", 7, at=END - HOUR, state="pending")
    query = text("SELECT report_id FROM usage_reports")
    report_id = (await database.run(lambda c: c.execute(query))).scalar_one()

    for now, placement in ((END - MINUTE, "in_period"), (END + DAY, "after_finalisation")):
        found = await database.run(partial(placement_of, report_id=report_id, now=now, grace=GRACE))
        assert found == placement


async def test_an_older_subscription_had_periods_before_the_first_that_is_known(
    database: Database,
) -> None:
    """They have ended by the time it is heard of."""
    account = await known(database)
    await subscribe(database, account, plan_since=START - 90 * DAY)
    await report(database, account, "cus_1", 1, at=START - DAY, answered_at=START + MINUTE)
    await report(database, account, "cus_1", 2, at=START - DAY, answered_at=END - DAY)
    await report(database, account, "cus_1", 3, at=START - 99 * DAY, answered_at=END - DAY)

    await place(database)

    assert await placements(database) == {
        1: "in_grace",
        2: "after_finalisation",
        3: "not_subscribed",
    }
