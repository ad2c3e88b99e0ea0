"""The database shows the reader nothing but the rows of whoever is set in the transaction."""

from functools import partial
from typing import Final
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_database import Database, DatabaseUnavailableError
from support.usage_ledger import UsageLedger

VIEWS: Final = (
    "accounts",
    "plans",
    "subscriptions",
    "hourly_usage",
    "hourly_amounts",
    "shadow_reports",
    "unfinished_reports",
    "waiting_runs",
)


ALL_VIEWS: Final = text("""
SELECT table_name::text FROM information_schema.views WHERE table_schema = 'viewer'
""")

FORBIDDEN: Final = (
    "SELECT * FROM public.usage_events",
    "SELECT * FROM public.usage_reports",
    "SELECT * FROM public.hourly_usage",
    "SELECT * FROM public.hourly_amounts",
    "SELECT * FROM public.account_assignments",
    "SELECT public.amount_between(gen_random_uuid(), 'm', now(), now())",
    "SELECT public.account_period(gen_random_uuid(), now())",
    "INSERT INTO public.totals_progress (part) VALUES ('usage')",
    "CREATE TABLE viewer.t (a int)",
)


async def rows(reader: Database, view: str, user: UUID | None, account: UUID | None) -> list[str]:
    """Return what a view shows to a user, as text."""

    async def work(connection: AsyncConnection) -> list[str]:
        for name, value in (("user_id", user), ("account_id", account)):
            if value is not None:
                await connection.execute(
                    text(f"SELECT set_config('nexus.{name}', :value, true)"), {"value": str(value)}
                )
        found = await connection.execute(text(f"SELECT v::text FROM viewer.{view} v"))  # noqa: S608 - a constant
        return list(found.scalars())

    return await reader.run(work)


@pytest.fixture
async def users(ledger: UsageLedger) -> tuple[UUID, UUID]:
    """Return two users; each has something in every view."""
    both = uuid4(), uuid4()
    for user in both:
        await ledger.subscribe(user, "pro")
        await ledger.assign(user, user)
        await ledger.runs(user, 2, tool=("files", str(user)))
        await ledger.runs(user, 1, state="waiting", readings={f"meter_{user.hex}": 1})
        await ledger.report(user, 5, state="pending")
        await ledger.report(user, 5, state="shadow")
    return both


async def test_views_show_only_whoever_is_set(reader: Database, users: tuple[UUID, UUID]) -> None:
    """A query without any condition has one user's rows; nobody's without a setting."""
    one, other = users

    for view in VIEWS:
        shown = await rows(reader, view, one, one)
        of_nobody = await rows(reader, view, None, None)

        assert shown, view
        assert not any(str(other) in row or other.hex in row for row in shown), view
        assert of_nobody == [], view
    assert set(await reader.run(lambda c: c.scalars(ALL_VIEWS))) == {*VIEWS, "progress"}


async def test_setting_ends_with_its_transaction(
    urls: tuple[str, str], users: tuple[UUID, UUID]
) -> None:
    """The next transaction of the same session shows nobody's rows."""
    async with Database(urls[1], name="test", pool_size=1, only_reads=True) as one_session:
        assert await rows(one_session, "hourly_usage", users[0], None)

        assert await rows(one_session, "hourly_usage", None, users[0]) == []


ASK: Final = text("SELECT * FROM viewer.ask(:user, :account, CAST(:readable AS uuid[]))")
SHOWN: Final = text("SELECT count(*) FROM viewer.hourly_amounts")


async def test_account_is_set_only_if_it_may_be_read(
    reader: Database, users: tuple[UUID, UUID]
) -> None:
    """A caller who may not read it has its id and no totals; without a limit any may be read."""
    one, other = users

    async def ask(readable: list[UUID] | None, account: UUID | None) -> tuple[UUID, bool, int]:
        async def work(connection: AsyncConnection) -> tuple[UUID, bool, int]:
            values = {"user": one, "account": account, "readable": readable}
            row = (await connection.execute(ASK, values)).one()
            return row.account_id, row.may_read, await connection.scalar(SHOWN) or 0

        return await reader.run(work)

    assert await ask([one], None) == (one, True, 1)
    assert await ask([one], other) == (other, False, 0)
    assert await ask([], None) == (one, False, 0)
    assert await ask(None, other) == (other, True, 1)


async def test_statements_of_their_own_leave_nothing_in_their_session(
    urls: tuple[str, str], users: tuple[UUID, UUID]
) -> None:
    """A setting ends with its statement, and later transactions see one state of the database."""
    values = {"user": users[0], "account": None, "readable": None}
    isolation = text("SHOW transaction_isolation")

    async def ask(connection: AsyncConnection) -> tuple[bool, int | None]:
        row = (await connection.execute(ASK, values)).one()
        return row.may_read, await connection.scalar(SHOWN)

    async with Database(urls[1], name="test", pool_size=1, only_reads=True) as one_session:
        apart = await one_session.run(ask, in_transaction=False)
        together = await one_session.run(ask)
        after = await one_session.run(lambda connection: connection.scalar(isolation))

    assert (apart, together) == ((True, 0), (True, 1))
    assert after == "repeatable read"


async def test_amounts_are_of_the_account_that_is_set(
    reader: Database, users: tuple[UUID, UUID]
) -> None:
    """The function of totals takes no account from its caller."""
    asked = text("""
        SELECT set_config('nexus.account_id', :account, true),
               viewer.amount_between('tool_call_executed', now() - interval '1 day', now())
    """)

    async def amount(account: str) -> int | None:
        found = await reader.run(lambda c: c.execute(asked, {"account": account}))
        value: int | None = found.one()[1]
        return value

    assert [await amount(each) for each in (str(users[0]), str(uuid4()), "")] == [10, 0, 0]


async def test_period_is_of_the_account_that_is_set(
    reader: Database, users: tuple[UUID, UUID]
) -> None:
    """Its function takes no account from its caller, either."""
    asked = text("""
        SELECT basis FROM set_config('nexus.user_id', :user, true),
                          viewer.account_period(now())
    """)

    async def basis(user: str) -> str | None:
        return await reader.run(lambda c: c.scalar(asked, {"user": user}))

    assert [await basis(each) for each in (str(users[0]), str(uuid4()), "")] == [
        "stripe",
        "utc_month",
        "utc_month",
    ]


async def test_reader_has_no_other_rights(urls: tuple[str, str]) -> None:
    """No table, no view of all users, no writing: not even if the session were to allow it."""
    for only_reads in (True, False):
        async with Database(urls[1], name="test", only_reads=only_reads) as reader:
            for statement in map(text, FORBIDDEN):
                with pytest.raises(DatabaseUnavailableError, match=r"SQLSTATE (42501|25006)"):
                    await reader.run(partial(AsyncConnection.execute, statement=statement))
