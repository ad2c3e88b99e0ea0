"""Usage waits for its customer, is released, and expires; newer customers replace older ones."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import text

from local_stack.servers import Database as PostgresServer
from nexus_database import Database
from support.events import provisioned, tool_run
from usage_ingest.entry import Entry
from usage_ingest.metering import BillingRules
from usage_ingest.storage.accounts import Accounts
from usage_ingest.storage.claims import Claims
from usage_ingest.storage.ledger import Ledger

RULES = BillingRules("tool_call_executed", None, frozenset({"succeeded"}))
NOW = datetime.now(UTC)


async def test_older_generation_never_replaces_a_newer_one(database: Database) -> None:
    """Announcements of customers may come twice and in any order."""
    user, accounts = uuid4(), Accounts(database)

    applied = [
        await accounts.apply(provisioned(user, f"cus_{generation}", generation).data)
        for generation in (2, 1, 2, 3)
    ]

    query = text("SELECT stripe_customer_id FROM billing_accounts")
    customer = (await database.run(lambda c: c.execute(query))).scalar_one()
    assert applied == [True, False, False, True]
    assert customer == "cus_3"


async def test_usage_before_its_customer_waits_and_is_due_then(
    database: Database,
) -> None:
    """Early usage is not lost, and is not claimed without a customer."""
    user = uuid4()
    await Ledger(database).record([Entry.of(tool_run(user), RULES, NOW)])
    claims = Claims(database, window=timedelta(0), dimensions=())

    before = await claims.claim(NOW)
    await Accounts(database).apply(provisioned(user, "cus_late").data)
    after = await claims.claim(NOW)

    assert (before.events, after.events) == (0, 1)


async def test_first_usage_and_customer_at_once_leave_none_waiting(
    database: Database,
) -> None:
    """In 200 rounds the two commit together; the sweep leaves nothing waiting."""
    ledger, accounts = Ledger(database), Accounts(database)
    for _ in range(200):
        user = uuid4()
        await asyncio.gather(
            ledger.record([Entry.of(tool_run(user), RULES, NOW)]),
            accounts.apply(provisioned(user, "cus_race").data),
        )

    await accounts.sweep(NOW)

    claimed = await Claims(database, window=timedelta(0), dimensions=()).claim(NOW)
    assert claimed.events == 200


async def test_waiting_usage_of_35_days_expires_and_is_never_sent(database: Database) -> None:
    """Stripe would refuse it."""
    user = uuid4()
    await Ledger(database).record([Entry.of(tool_run(user, time=NOW), RULES, NOW)])

    swept = await Accounts(database).sweep(NOW + timedelta(days=35))
    await Accounts(database).apply(provisioned(user, "cus_late").data)

    assert swept.expired == 1
    assert (await Claims(database, window=timedelta(0), dimensions=()).claim(NOW)).events == 0


async def test_waiting_usage_is_released_in_portions(database: Database) -> None:
    """Each transaction ends in time; the sweep says whether more is left."""
    user, accounts = uuid4(), Accounts(database)
    await Ledger(database).record([Entry.of(tool_run(user), RULES, NOW) for _ in range(35)])

    await accounts.apply(provisioned(user, "cus_late").data, most=10)
    swept = [await accounts.sweep(NOW, most=10) for _ in range(4)]

    assert [each.released for each in swept] == [10, 10, 5, 0]
    assert [each.more for each in swept] == [True, True, False, False]


async def test_due_usage_of_35_days_is_not_claimed(database: Database) -> None:
    """As after a long pause of reporting: Stripe would refuse it."""
    user = uuid4()
    await Accounts(database).apply(provisioned(user, "cus_known").data)
    await Ledger(database).record([Entry.of(tool_run(user, time=NOW), RULES, NOW)])

    swept = await Accounts(database).sweep(NOW + timedelta(days=35))

    claims = Claims(database, window=timedelta(0), dimensions=())
    assert swept.expired == 1
    assert (await claims.claim(NOW + timedelta(days=35))).events == 0


async def test_customer_releases_the_usage_of_its_user_only(database: Database) -> None:
    """The usage of other users stays waiting."""
    user = uuid4()
    runs = [tool_run(user), tool_run()]
    await Ledger(database).record([Entry.of(each, RULES, NOW) for each in runs])

    await Accounts(database).apply(provisioned(user, "cus_late").data)

    query = text("SELECT user_id, billing_state FROM usage_events")
    rows = (await database.run(lambda c: c.execute(query))).all()
    assert {row.user_id: row.billing_state for row in rows} == {
        user: "due",
        runs[1].data.user_id: "waiting",
    }


async def test_usage_without_a_customer_waits_through_sweeps(database: Database) -> None:
    """There is an alert on waiting usage; a lot of it expires in portions, too."""
    accounts, late = Accounts(database), NOW + timedelta(days=36)
    await Ledger(database).record([Entry.of(tool_run(), RULES, NOW) for _ in range(15)])

    young = await accounts.sweep(NOW)
    swept = [await accounts.sweep(late, most=10) for _ in range(2)]

    assert young.released == 0
    assert [(each.expired, each.more) for each in swept] == [(10, True), (5, False)]


async def test_due_usage_of_35_days_expires_and_is_never_sent(database: Database) -> None:
    """Its customer was known, and reporting was paused."""
    user = uuid4()
    await Accounts(database).apply(provisioned(user, "cus_1").data)
    await Ledger(database).record([Entry.of(tool_run(user, time=NOW), RULES, NOW)])

    swept = await Accounts(database).sweep(NOW + timedelta(days=35))

    assert swept.expired == 1
    assert (await Claims(database, window=timedelta(0), dimensions=()).claim(NOW)).events == 0


WAITING = text("""
INSERT INTO usage_events (event_id, source, schema_version, digest, user_id, server_id, tool_name,
                          origin, status, readings, occurred_at, billing_state)
VALUES (gen_random_uuid(), 'test', 1, sha256(''), :user_id, 'server', 'tool', 'hub', 'succeeded',
        '{"tool_call_executed": 1}', :at, 'waiting')
""")


async def released(database: Database) -> bool:
    """Return whether the sweep is done with the only account."""
    query = text("SELECT released FROM billing_accounts")
    return bool((await database.run(lambda c: c.execute(query))).scalar_one())


@pytest.mark.parametrize("role", ["the service", "another"])
async def test_account_is_swept_until_open_batches_have_ended(
    database: Database, postgres: PostgresServer, role: str
) -> None:
    """A batch that saw no account may commit long after; another role's times are hidden."""
    user, accounts = uuid4(), Accounts(database)
    recorder = database
    if role == "another":
        server = postgres.superuser_url.rpartition("/")[0]
        recorder = Database(f"{server}/{database.engine.url.database}", name="recorder")

    async with recorder, recorder.engine.begin() as batch:
        await batch.execute(WAITING, {"user_id": user, "at": NOW})
        await accounts.apply(provisioned(user, "cus_late").data)
        swept = [(await accounts.sweep(NOW)).released for _ in range(3)]
        while_open = await released(database)
    swept += [(await accounts.sweep(NOW)).released for _ in range(2)]

    assert swept == [0, 0, 0, 1, 0]
    assert (while_open, await released(database)) == (False, True)


async def test_many_accounts_are_swept_in_portions(database: Database) -> None:
    """As after an upgrade: each of them twice."""
    accounts = Accounts(database)
    for number in range(25):
        await accounts.apply(provisioned(uuid4(), f"cus_{number}").data)

    rounds = 1
    while (await accounts.sweep(NOW, most_accounts=10)).more:
        rounds += 1
    count = text("SELECT count(*) FROM billing_accounts WHERE NOT released")

    assert rounds == 6
    assert (await database.run(lambda c: c.execute(count))).scalar_one() == 0
