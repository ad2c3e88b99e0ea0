"""Routes become meters by the plan that the account had when the run ended."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from nexus_contracts import SubscriptionChanged, SubscriptionItem, UserAssigned
from nexus_database import Database
from nexus_plans import Charge
from support.events import provisioned, tool_run
from usage_ingest.charging import Charges
from usage_ingest.entry import Entry
from usage_ingest.metering import BillingRules, ToolRun
from usage_ingest.storage.accounts import Accounts
from usage_ingest.storage.claims import Claimed, Claims
from usage_ingest.storage.ledger import Ledger
from usage_ingest.storage.subscriptions import Subscriptions

NOW = datetime.now(UTC)
MINUTE = NOW.replace(second=0, microsecond=0) - timedelta(minutes=10)
RULES = BillingRules("runs", None, frozenset({"succeeded"}))
USER = UUID(int=1)

CHARGES: Charges = {
    None: {"@premium": Charge("runs"), "@tokens": Charge("tokens", 30)},
    "pro": {"@premium": Charge("premium"), "@tokens": Charge("tokens", 10)},
    "flat": {},
}


def subscription(
    plan: str | None, second: float, revision: int = 1, **fields: Any
) -> SubscriptionChanged:
    """Return a subscription of the user with a plan from a second on."""
    since = MINUTE + timedelta(seconds=second)
    given = {
        "subscription_id": "sub_1",
        "account_id": USER,
        "stripe_customer_id": "cus_1",
        "revision": revision,
        "plan_type": plan,
        "status": "active",
        "items": [SubscriptionItem(price_id="price_1", product_id="prod_1", quantity=2)],
        "plan_since": since,
        "as_of": since,
        **fields,
    }
    return SubscriptionChanged(**given)


async def rows(database: Database, query: str) -> list[tuple[Any, ...]]:
    """Run a query."""
    return [tuple(row) for row in await database.run(lambda c: c.execute(text(query)))]


async def record(database: Database, second: float, **readings: int) -> None:
    """Record a run of the user with these readings; an underscore begins a route."""
    run: ToolRun = tool_run(USER, time=MINUTE + timedelta(seconds=second))
    keyed = {key.replace("_", "@", 1) if key[0] == "_" else key: n for key, n in readings.items()}
    await Ledger(database).record([Entry.of(run, RULES, NOW)._replace(readings=keyed)])


async def claim(database: Database, charges: Charges | None = None, window: int = 60) -> Claimed:
    """Claim everything."""
    charged = CHARGES if charges is None else charges
    claims = Claims(
        database,
        window=timedelta(seconds=window),
        dimensions=(),
        charges=charged,
        routes={key for routes in charged.values() for key in routes},
    )
    return await claims.claim(NOW)


async def reports(database: Database) -> list[tuple[Any, ...]]:
    """Return what is reported, by meter."""
    return await rows(
        database,
        "SELECT meter, value, event_count FROM usage_reports ORDER BY meter, value",
    )


@pytest.fixture(autouse=True)
async def _customer(database: Database) -> None:
    await Accounts(database).apply(provisioned(USER, "cus_1").data)


async def test_route_is_charged_on_the_meter_of_the_plan(database: Database) -> None:
    """A meter's name stays as it is."""
    await Subscriptions(database, best=max).apply(subscription("pro", 0))
    await record(database, 1, _premium=1)
    await record(database, 2, runs=1)

    await claim(database)

    assert await reports(database) == [("premium", 1, 1), ("runs", 1, 1)]


async def test_runs_of_one_meter_by_name_and_by_route_make_one_report(database: Database) -> None:
    """Without a plan, premium runs count on the meter of all runs: a claim has one report of it."""
    await record(database, 1, _premium=1)
    await record(database, 2, runs=1)
    await record(database, 3, runs=1, _tokens=10)

    await claim(database)

    assert await reports(database) == [("runs", 3, 3), ("tokens", 13, 1)]


async def test_change_of_plan_in_mid_window_splits_it(database: Database) -> None:
    """Each run is charged by the plan of its own time, the very time of the change by the new."""
    subscriptions = Subscriptions(database, best=max)
    await subscriptions.apply(subscription("pro", 10))
    ended = MINUTE + timedelta(seconds=20)
    await subscriptions.apply(subscription("pro", 20, 2, status="canceled", ended_at=ended))
    for second in (9.999, 10, 19, 20):
        await record(database, second, _premium=1)

    await claim(database)

    assert await reports(database) == [("premium", 2, 2), ("runs", 2, 2)]


@pytest.mark.parametrize(
    ("micros", "charged"),
    [((1,), 1), ((2, 2), 5), ((15,), 20), ((10**10, 10**10), 26 * 10**9)],
    ids=str,
)
async def test_markup_is_added_to_the_sum_and_half_a_unit_rounded_up(
    database: Database, micros: tuple[int, ...], charged: int
) -> None:
    """Rounded once, and not for each run, whose cost may be few units; in whole numbers."""
    for each in micros:
        await record(database, 1, _tokens=each)

    await claim(database)

    assert await reports(database) == [("tokens", charged, len(micros))]


async def test_route_of_a_plan_that_is_not_in_the_file_waits_for_it(database: Database) -> None:
    """A new plan may be sold before this process has its file. Other usage is not held up."""
    await Subscriptions(database, best=max).apply(subscription("new", 0))
    await record(database, 1, _premium=1)
    await record(database, 2, runs=1)

    await claim(database)
    assert await reports(database) == [("runs", 1, 1)]

    await claim(database, {**CHARGES, "new": {"@premium": Charge("premium")}})
    assert await reports(database) == [("premium", 1, 1), ("runs", 1, 1)]


async def test_route_without_a_meter_is_claimed_and_counted(database: Database) -> None:
    """It is charged on no meter, and holds up neither its run nor others."""
    await Subscriptions(database, best=max).apply(subscription("flat", 0))
    await record(database, 1, runs=1, _premium=1)
    await record(database, 2, _premium=1)

    claimed = await claim(database)

    assert claimed == Claimed(events=2, reports=1, without_meter=2)
    assert await reports(database) == [("runs", 1, 1)]


@pytest.mark.parametrize(
    "charges", [{}, {None: {"@tokens": Charge("tokens")}}], ids=["no file", "renamed route"]
)
async def test_usage_of_a_route_that_the_file_lost_waits_for_it(
    database: Database, charges: Charges
) -> None:
    """Charged on no meter, it would be lost. Other usage is not held up."""
    await record(database, 1, _premium=1)
    await record(database, 2, runs=1)

    assert await claim(database, charges) == Claimed(events=1, reports=1)
    assert await claim(database) == Claimed(events=1, reports=1)
    assert await reports(database) == [("runs", 1, 1), ("runs", 1, 1)]


async def test_meter_with_a_route_in_its_name_is_no_route(database: Database) -> None:
    """Stripe takes any name: only what begins with the sign waits for a route."""
    await record(database, 1, **{'odd"@name': 1})

    assert await claim(database) == Claimed(events=1, reports=1)
    assert await reports(database) == [('odd"@name', 1, 1)]


async def test_lower_revision_of_a_subscription_is_ignored(database: Database) -> None:
    """They come in any order, and again."""
    subscriptions = Subscriptions(database, best=max)
    changes = [subscription("pro", 5, 2), subscription("flat", 0, 1), subscription("pro", 5, 2)]

    assert [await subscriptions.apply(each) for each in changes] == [True, False, True]
    assert await rows(database, "SELECT plan_type FROM account_plans") == [("pro",)]


async def test_changes_of_subscriptions_at_once_leave_the_best_plan(database: Database) -> None:
    """Each makes the account's plans anew: none may miss another's."""
    for _ in range(20):
        account = uuid4()
        await asyncio.gather(
            *(
                Subscriptions(database, best=max).apply(
                    subscription(
                        plan, 0, account_id=account, subscription_id=f"sub_{account.hex}{plan}"
                    )
                )
                for plan in ("a", "b", "c")
            )
        )

    plans = await rows(database, "SELECT plan_type, count(*) FROM account_plans GROUP BY 1")
    assert plans == [("c", 20)]


async def test_view_shows_subscriptions_by_user(database: Database) -> None:
    """As the platform asks for them: a user's own, or those of the account that pays for them."""
    team, member = uuid4(), uuid4()
    accounts, subscriptions = Accounts(database), Subscriptions(database, best=max)
    await subscriptions.apply(subscription("pro", 0))
    await subscriptions.apply(
        subscription("team", 0, account_id=team, subscription_id="sub_2", seats=5)
    )
    for user, since in ((member, MINUTE), (member, NOW + timedelta(days=1))):
        await accounts.assign(assigned(user, team, since))

    found = await rows(
        database, "SELECT user_id, plan_type, status, seats FROM user_subscriptions ORDER BY 2"
    )

    assert found[0] == (USER, "pro", "active", None)
    assert set(found[1:]) == {(team, "team", "active", 5), (member, "team", "active", 5)}


def assigned(user: UUID, account: UUID, since: datetime) -> UserAssigned:
    """Return an assignment."""
    return UserAssigned(user_id=user, account_id=account, since=since, revision=1)
