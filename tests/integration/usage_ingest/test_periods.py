"""Where accepted reports ended up: in their period, in its grace, too late, or on no invoice."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

import pytest
from sqlalchemy import text

from integration.usage_ingest.subscribed import DAY, END, GRACE, START, subscribe
from integration.usage_ingest.sums import HOUR, METER, known, report
from nexus_contracts import SubscriptionItem, SubscriptionsRead
from nexus_database import Database
from nexus_plans.reading import read
from support.waiting import eventually
from usage_ingest.periods import Placement
from usage_ingest.storage.periods import Periods, placement_of
from usage_ingest.storage.reports import ReportAnswer, Reports
from usage_ingest.storage.status import StatusReader

SECOND: Final = timedelta(seconds=1)
MINUTE: Final = timedelta(minutes=1)

PLANS: Final = read(
    f"""
version: 1
unknown_users: free
without_subscription: free
default_meter: {METER}
plans:
  free: {{display_name: Free}}
  pro:
    display_name: Pro
    prices:
      - lookup_key: pro_runs
        product: pro
        currency: usd
        recurring: {{interval: month, usage_type: metered, meter: {METER}}}
        unit_amount: 5
products:
  pro: {{name: Pro}}
""".encode(),
    "plans.yaml",
)

FLAT: Final = read(
    b"""
version: 1
unknown_users: free
without_subscription: free
default_meter: other
plans:
  free:
    display_name: Free
    prices:
      - lookup_key: flat
        product: free
        currency: usd
        recurring: {interval: month}
        unit_amount: 0
  pro: {display_name: Pro}
products:
  free: {name: Free}
""",
    "plans.yaml",
)
"""The first plan has no price for the meter; the second may have one at Stripe."""


async def placements(database: Database) -> Mapping[int, str]:
    """Return where each report is that did not come in its period, by its value."""
    query = text("SELECT value, placement FROM report_placements ORDER BY value")
    return {row.value: row.placement for row in await database.run(lambda c: c.execute(query))}


async def answer_to(database: Database, value: int, state: str, at: datetime) -> ReportAnswer:
    """Return an answer to the report with ``value``."""
    query = text("SELECT report_id FROM usage_reports WHERE value = :value")
    found = await database.run(lambda c: c.execute(query, {"value": value}))
    reason = "no_meter" if state == "rejected_later" else None
    return ReportAnswer(found.scalar_one(), state, at, reason, False)


async def revision(database: Database) -> int:
    """Return the revision of the only subscription."""
    query = text("SELECT revision FROM account_subscriptions")
    return int((await database.run(lambda c: c.execute(query))).scalar_one())


async def place(database: Database, until: datetime = END + 10 * DAY) -> Mapping[Placement, int]:
    """Place what was accepted, and return how many are where."""
    placed, more = await Periods(database, grace=GRACE, plans=None).place(until)
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
            (END, END + 2 * HOUR),
            (START, END - HOUR),
            (START - SECOND, END - HOUR),
        ],
        start=1,
    ):
        await report(database, account, "cus_1", value, at=occurred, answered_at=answered)

    assert await place(database) == {
        Placement.IN_PERIOD: 3,
        Placement.IN_GRACE: 2,
        Placement.AFTER_FINALISATION: 1,
        Placement.NOT_SUBSCRIBED: 1,
    }
    assert await placements(database) == {
        2: "in_grace",
        3: "in_grace",
        4: "after_finalisation",
        7: "not_subscribed",
    }
    assert await place(database) == {}


async def test_a_subscription_that_ends_that_day_leaves_the_rest_on_no_invoice(
    database: Database,
) -> None:
    """What is used after its end was never subscribed to."""
    account = await known(database)
    await subscribe(database, account)
    ended = END - DAY
    canceled = {"status": "canceled", "ended_at": ended, "cancel_at": ended}
    await subscribe(database, account, revision=2, **canceled)
    await report(database, account, "cus_1", 1, at=ended - HOUR, answered_at=ended - MINUTE)
    await report(database, account, "cus_1", 2, at=ended + HOUR, answered_at=ended + 2 * HOUR)
    await report(database, account, "cus_1", 3, at=ended, answered_at=ended + 2 * HOUR)

    await place(database)

    assert await placements(database) == {2: "not_subscribed", 3: "not_subscribed"}


async def test_usage_of_two_subscriptions_is_placed_by_the_later_end(database: Database) -> None:
    """Either invoice has it: the one that is still open decides."""
    account = await known(database)
    await subscribe(database, account)
    await subscribe(database, account, subscription_id="sub_2", period_end=END + DAY)
    await report(database, account, "cus_1", 1, at=END - HOUR, answered_at=END + 5 * HOUR)

    assert await place(database) == {Placement.IN_PERIOD: 1}


async def test_a_report_is_placed_a_minute_after_its_answer_and_once(database: Database) -> None:
    """The news of its period may come after it."""
    account = await known(database)
    await report(database, account, "cus_1", 1, at=END, answered_at=END)
    periods, now = Periods(database, grace=GRACE, plans=None), datetime.now(UTC)

    assert await periods.place(now) == ({}, False)
    assert await periods.place(now + 2 * MINUTE) == ({Placement.UNKNOWN: 1}, False)
    assert await periods.place(now + 4 * MINUTE) == ({}, False)


async def test_a_subscription_of_an_earlier_customer_bills_nothing_of_the_next_one(
    database: Database,
) -> None:
    """An account was given another customer, which has no subscription yet."""
    account = await known(database)
    await subscribe(database, account)
    await known(database, 2, account)
    await report(database, account, "cus_1", 1, at=END - HOUR, answered_at=END - MINUTE)
    await report(database, account, "cus_2", 2, at=END - HOUR, answered_at=END - MINUTE)

    await place(database)
    assert await placements(database) == {2: "unknown"}

    began = datetime.now(UTC) + MINUTE
    read = SubscriptionsRead(began_at=began, ended_at=began)
    periods = Periods(database, grace=GRACE, plans=None)
    await periods.keep_read(read)
    await periods.place_unknown()

    await place(database)
    assert await placements(database) == {2: "not_subscribed"}

    await subscribe(database, account, subscription_id="sub_2", stripe_customer_id="cus_2")
    await place(database)
    assert await placements(database) == {}


async def test_usage_of_a_period_that_is_cut_off_is_in_doubt(database: Database) -> None:
    """Stripe bills it only if the one who canceled asked for it, which it shows nobody."""
    account = await known(database)
    now = datetime.now(UTC)
    period = {"period_start": now - 10 * DAY, "period_end": now + 10 * DAY}
    await subscribe(database, account, **period)
    for value, before in ((1, 9 * DAY), (2, 3 * HOUR), (4, HOUR)):
        await report(database, account, "cus_1", value, at=now - before, answered_at=now - before)
    assert await place(database) == {Placement.IN_PERIOD: 3}

    ended = {"status": "canceled", "ended_at": now - 2 * HOUR}
    for number in (2, 3):
        await subscribe(database, account, revision=number, **period, **ended)
        await place(database)

    assert await placements(database) == {1: "ended_early", 2: "ended_early", 4: "not_subscribed"}


async def test_usage_that_another_subscription_bills_is_in_no_doubt(database: Database) -> None:
    """One of two was canceled at once: the other has the meter, too."""
    account, now = await known(database), datetime.now(UTC)
    period = {"period_start": now - 10 * DAY, "period_end": now + 10 * DAY}
    for subscription in ("sub_1", "sub_2"):
        await subscribe(database, account, subscription_id=subscription, **period)
    await report(database, account, "cus_1", 1, at=now - 3 * HOUR, answered_at=now - 3 * HOUR)

    ended = {"status": "canceled", "ended_at": now - 2 * HOUR}
    await subscribe(database, account, revision=2, **period, **ended)

    assert await place(database) == {Placement.IN_PERIOD: 1}


async def test_usage_is_charged_by_the_plan_of_its_time(database: Database) -> None:
    """The account has had another one before, and since."""
    account = await known(database)
    items = [SubscriptionItem(price_id="price_1", product_id="prod_1", quantity=3)]
    plans = (("free", START), ("pro", START + DAY), ("free", START + 2 * DAY))
    for number, (plan, since) in enumerate(plans, start=1):
        changed = {"plan_type": plan, "plan_since": since, "as_of": since}
        await subscribe(database, account, revision=number, items=items, **changed)
        for value, at in ((number, since), (10 * number, since + HOUR)):
            await report(database, account, "cus_1", value, at=at, answered_at=END - HOUR)

    await Periods(database, grace=GRACE, plans=FLAT).place(END)

    free, pro = "not_charged", "not_subscribed"
    assert await placements(database) == {1: free, 2: pro, 3: free, 10: free, 20: pro, 30: free}


async def test_a_subscription_that_is_heard_of_after_its_end_had_its_last_period(
    database: Database,
) -> None:
    """Its webhooks were lost."""
    account = await known(database)
    await report(database, account, "cus_1", 1, at=END - HOUR, answered_at=END + MINUTE)
    await report(database, account, "cus_1", 2, at=END + HOUR, answered_at=END + 2 * HOUR)

    await subscribe(database, account, status="canceled", cancel_at=END, ended_at=END)

    await place(database)
    assert await placements(database) == {1: "in_grace", 2: "not_subscribed"}


async def test_nobody_is_said_to_lack_a_subscription_before_all_were_read(
    database: Database,
) -> None:
    """Unknown until then; a reading that began before the customer was made says nothing."""
    account = await known(database)
    await report(database, account, "cus_1", 1, at=END, answered_at=END)
    periods = Periods(database, grace=GRACE, plans=None)

    assert await place(database) == {Placement.UNKNOWN: 1}
    now = datetime.now(UTC)
    for began, placement in ((now - DAY, "unknown"), (now + MINUTE, "not_subscribed")):
        await periods.keep_read(SubscriptionsRead(began_at=began, ended_at=began + HOUR))
        await periods.place_unknown()
        await place(database)
        assert await placements(database) == {1: placement}

    await subscribe(database, account, period_start=END - DAY, period_end=END + DAY)
    assert await place(database) == {Placement.IN_PERIOD: 1}
    assert await placements(database) == {}


async def test_news_of_a_subscription_place_what_was_unknown_and_count_only_what_is_new(
    database: Database,
) -> None:
    """A complete reading is not waited for; placed again, the rest is where it was."""
    account = await known(database)
    await report(database, account, "cus_1", 1, at=END - HOUR, answered_at=END - HOUR)
    await report(database, account, "cus_1", 2, at=START - HOUR, answered_at=END - HOUR)
    assert await place(database) == {Placement.UNKNOWN: 2}

    await subscribe(database, account)
    assert await place(database) == {Placement.IN_PERIOD: 1, Placement.NOT_SUBSCRIBED: 1}
    await subscribe(database, account, revision=2)
    assert await place(database) == {}
    assert await placements(database) == {2: "not_subscribed"}


async def test_an_older_reading_of_all_subscriptions_undoes_no_newer_one(
    database: Database,
) -> None:
    """They come in any order, and one may be moved from a dead letter queue."""
    account = await known(database)
    periods, now = Periods(database, grace=GRACE, plans=None), datetime.now(UTC)
    for began in (now + MINUTE, now - DAY):
        await periods.keep_read(SubscriptionsRead(began_at=began, ended_at=began))
    await report(database, account, "cus_1", 1, at=END, answered_at=END)

    assert await place(database) == {Placement.NOT_SUBSCRIBED: 1}


async def test_a_subscription_to_another_meter_bills_nothing(database: Database) -> None:
    """The loudest case: usage that Stripe takes and no invoice has."""
    account = await known(database)
    items = [SubscriptionItem(price_id="price_1", product_id="prod_1", quantity=3)]
    await subscribe(database, account, items=items)
    await report(database, account, "cus_1", 7, at=END - HOUR, answered_at=END - MINUTE)

    assert await place(database) == {Placement.NOT_SUBSCRIBED: 1}
    assert await placements(database) == {7: "not_subscribed"}
    shown = [(await StatusReader(database).counts(since)).stripe for since in (START, END)]
    assert [[each.number for each in word.placements] for word in shown] == [[1], []]


async def test_usage_that_the_plan_does_not_charge_raises_no_alarm(database: Database) -> None:
    """Until a subscription becomes known that was running when it was used."""
    account = await known(database)
    await report(database, account, "cus_1", 7, at=END - HOUR, answered_at=END - MINUTE)
    periods = Periods(database, grace=GRACE, plans=PLANS)
    await periods.keep_read(SubscriptionsRead(began_at=END, ended_at=END))
    assert await periods.place(END + DAY) == ({Placement.NOT_CHARGED: 1}, False)

    items = [SubscriptionItem(price_id="price_1", product_id="prod_1", quantity=3)]
    await subscribe(database, account, plan_type="pro", items=items)

    assert await periods.place(END + DAY) == ({Placement.NOT_SUBSCRIBED: 1}, False)
    assert await placements(database) == {7: "not_subscribed"}


async def test_a_report_is_placed_before_its_answer_as_if_it_came_now(database: Database) -> None:
    """`explain` says what would become of it."""
    account = await known(database)
    await subscribe(database, account)
    await report(database, account, "cus_1", 7, at=END - HOUR, state="pending")
    query = text("SELECT report_id FROM usage_reports")
    report_id = (await database.run(lambda c: c.execute(query))).scalar_one()

    for now, placement in ((END - MINUTE, "in_period"), (END + DAY, "after_finalisation")):
        found = await database.run(
            partial(placement_of, report_id=report_id, now=now, grace=GRACE, plans=None)
        )
        assert found == placement

    await Reports(database).answer([await answer_to(database, 7, "reported", END - MINUTE)])
    of = partial(placement_of, report_id=report_id, now=END + DAY, grace=GRACE, plans=None)
    assert await database.run(of) == "in_period"


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


async def test_a_report_is_placed_however_late_its_answer_is_applied(database: Database) -> None:
    """The ledger was down, or a dead letter was moved: others were placed meanwhile."""
    account = await known(database)
    await report(database, account, "cus_1", 1, at=END, state="pending")
    await report(database, account, "cus_1", 2, at=END, answered_at=END)
    await place(database)

    answer = await answer_to(database, 1, "reported", END - DAY)
    await Reports(database).answer([answer])
    await place(database)

    assert await placements(database) == {1: "unknown", 2: "unknown"}


async def test_a_report_that_is_rejected_later_is_no_longer_placed(database: Database) -> None:
    """It is on no invoice, and has an alert of its own."""
    account = await known(database)
    await report(database, account, "cus_1", 1, at=END, answered_at=END)
    await place(database)

    await Reports(database).answer([await answer_to(database, 1, "rejected_later", END)])

    assert await place(database) == {}
    assert await placements(database) == {}


async def test_a_rejection_while_its_report_is_placed_is_not_missed(database: Database) -> None:
    """It is queued already, and the round can't see what is not committed."""
    account = await known(database)
    await report(database, account, "cus_1", 1, at=END, state="pending")
    await Reports(database).answer([await answer_to(database, 1, "reported", END)])
    reject = text("UPDATE usage_reports SET state = 'rejected_later', reason = 'no_meter'")

    async with database.engine.begin() as rejecting:
        await rejecting.execute(reject)
        await place(database)
    await place(database)

    assert await placements(database) == {}


async def test_usage_after_an_end_that_is_heard_of_late_is_on_no_invoice(
    database: Database,
) -> None:
    """It was taken for usage of the period that the subscription would have had."""
    now = datetime.now(UTC)
    account = await known(database)
    await subscribe(database, account, period_start=now - 10 * DAY)
    for value, before in ((1, 3 * HOUR), (2, HOUR), (3, 2 * HOUR)):
        await report(
            database, account, "cus_1", value, at=now - before, answered_at=now - before + MINUTE
        )
    assert await place(database) == {Placement.IN_PERIOD: 3}

    ended = now - 2 * HOUR
    canceled = {"status": "canceled", "ended_at": ended, "cancel_at": ended}
    await subscribe(database, account, revision=2, period_start=now - 10 * DAY, **canceled)

    assert await place(database) == {Placement.NOT_SUBSCRIBED: 2}
    assert await placements(database) == {2: "not_subscribed", 3: "not_subscribed"}


async def test_an_end_that_another_subscription_covers_moves_no_report(
    database: Database,
) -> None:
    """Placed again where it was, a report is not counted again."""
    now = datetime.now(UTC)
    account, begin = await known(database), now - 10 * DAY
    await subscribe(database, account, period_start=begin)
    await subscribe(database, account, subscription_id="sub_2", period_start=begin)
    await report(database, account, "cus_1", 1, at=now - HOUR, answered_at=now - HOUR)
    assert await place(database) == {Placement.IN_PERIOD: 1}

    ended = now - 2 * HOUR
    canceled = {"status": "canceled", "ended_at": ended, "cancel_at": ended}
    await subscribe(database, account, revision=2, period_start=begin, **canceled)

    assert await place(database) == {}
    assert await placements(database) == {}


async def test_all_that_was_unknown_is_placed_once_all_subscriptions_were_read(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much it is: in pages."""
    monkeypatch.setattr("usage_ingest.storage.periods.MAX_PLACED", 3)
    account = await known(database)
    for value in range(1, 11):
        await report(database, account, "cus_1", value, at=END, answered_at=END)
    periods = Periods(database, grace=GRACE, plans=None)
    while (await periods.place(END + 10 * DAY))[1]:
        pass

    began = datetime.now(UTC) + MINUTE
    await periods.keep_read(SubscriptionsRead(began_at=began, ended_at=began))
    await periods.place_unknown()
    while (await periods.place(END + 10 * DAY))[1]:
        pass

    assert set((await placements(database)).values()) == {"not_subscribed"}


async def test_a_change_while_reports_are_placed_is_not_missed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The round has read what was known before, and has not committed."""
    account = await known(database)
    await subscribe(database, account, status="canceled", ended_at=START)
    await report(database, account, "cus_1", 1, at=END - HOUR, answered_at=END - MINUTE)
    periods = Periods(database, grace=GRACE, plans=None)
    stored, may_commit = asyncio.Event(), asyncio.Event()
    store = periods._store

    async def slow(*found: Any) -> Mapping[Placement, int]:
        counts = await store(*found)
        stored.set()
        await may_commit.wait()
        return counts

    monkeypatch.setattr(periods, "_store", slow)
    placing = asyncio.create_task(periods.place(END + 10 * DAY))
    await stored.wait()
    subscribing = asyncio.create_task(subscribe(database, account, revision=2))
    await eventually(partial(revision, database), lambda found: found == 2)
    may_commit.set()
    await placing
    await subscribing

    assert await place(database) == {Placement.IN_PERIOD: 1}
    assert await placements(database) == {}
