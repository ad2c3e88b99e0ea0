"""Queries of the usage API, each on a view that shows one user's rows, or one account's totals.

Who asks is set in the transaction. No query names a user or an account: what a query forgets, the
database filters all the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import RowMapping, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_database import Database, DatabaseUnavailableError
from nexus_plans import Plans
from usage_ingest.charging import charge_of, charged_value
from usage_ingest.usage_api.entitlements import (
    Account,
    Subscription,
    entitlements,
    limited_meters,
)
from usage_ingest.usage_api.reading import Scope, UsageQuery
from usage_ingest.usage_api.usage import Amount, Recorded, Unfinished, Waiting, amounts

MOST_ROWS: Final = 20_000
"""Rows of recorded usage in one answer: a month by hour, of a user with 25 tools in each hour."""

MOST_WAITING: Final = 20_000
"""Waiting runs that are added up. An account without a customer may have any number of them, and a
limit that it has reached by these stays reached by more."""

EVERYBODY: Final = Scope(UUID(int=0), None, None)
"""For a look whether queries are possible: there is no such user."""

SET: Final = text("""
SELECT set_config('nexus.user_id', :user_id, true),
       set_config('nexus.account_id', :account_id, true)
""")

ACCOUNT: Final = text("""
SELECT a.user_id, a.account_id, a.known, p.as_of, p.complete,
       (SELECT plan_type FROM viewer.plans ORDER BY since DESC LIMIT 1) AS plan_type,
       ARRAY(SELECT to_jsonb(s) FROM viewer.subscriptions s
              WHERE s.ended_at IS NULL ORDER BY s.period_start DESC NULLS LAST) AS subscriptions
  FROM viewer.accounts a CROSS JOIN viewer.progress p
""")

AMOUNTS: Final = text("""
SELECT meter, viewer.amount_between(meter, :start, :end) AS value
  FROM unnest(CAST(:meters AS text[])) AS m(meter)
""")

RECORDED: Final = text("""
SELECT date_trunc(:by, hour, 'UTC') AS start, server_id, tool_name,
       sum(runs)::bigint AS runs, sum(tokens)::bigint AS tokens
  FROM viewer.hourly_usage
 WHERE hour >= :start AND hour < :end
 GROUP BY 1, 2, 3 ORDER BY 1, 2, 3 LIMIT :most
""")

REPORTED: Final = text("""
SELECT date_trunc(:by, hour, 'UTC') AS start, meter, sum(value)::bigint AS value
  FROM viewer.hourly_amounts
 WHERE hour >= :start AND hour < :end
 GROUP BY 1, 2
""")

UNFINISHED: Final = text("""
SELECT date_trunc(:by, occurred_at, 'UTC') AS start, meter, state, reason,
       sum(value)::bigint AS value
  FROM viewer.unfinished_reports
 WHERE occurred_at >= :start AND occurred_at < :end
 GROUP BY 1, 2, 3, 4
""")

WAITING: Final = text("""
SELECT w.start, r.key, sum(r.value::bigint)::bigint AS value
  FROM (SELECT date_trunc(:by, occurred_at, 'UTC') AS start, readings
          FROM viewer.waiting_runs
         WHERE occurred_at >= :start AND occurred_at < :end LIMIT :most) w
 CROSS JOIN LATERAL jsonb_each_text(w.readings) r(key, value)
 GROUP BY 1, 2
""")


class TotalsIncompleteError(DatabaseUnavailableError):
    """The totals do not have everything that the ledger has."""

    def __init__(self) -> None:
        super().__init__("the totals are not complete: run usage-ingest totals --rebuild")


class TooManyRowsError(Exception):
    """An answer would have more than ``MOST_ROWS`` rows."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered, and up to when the ledger is in it."""

    content: Mapping[str, Any]
    as_of: datetime


class UsageReader:
    """Reads what one user, or a service that asks for them, may see."""

    def __init__(self, database: Database, plans: Plans | None) -> None:
        self._database = database
        self._plans = plans

    async def entitlements(self, scope: Scope, plans: Plans) -> Answer:
        """Return what the user may do.

        Raises:
            DatabaseUnavailableError: the database can't be used, or the totals are not complete.
        """

        async def work(connection: AsyncConnection) -> Answer:
            account, as_of = await _account(connection, scope)
            used: dict[str, int] = {}
            if meters := limited_meters(plans, account):
                await _set(connection, scope.user_id, account.account_id)
                period = account.period()
                span = {"start": period.start, "end": period.end}
                for row in await _rows(connection, AMOUNTS, meters=meters, **span):
                    used[row["meter"]] = row["value"]
                for runs in await self._waiting(connection, account, **span, by="month"):
                    used[runs.meter] = used.get(runs.meter, 0) + runs.value
            return Answer(entitlements(plans, account, used), as_of)

        return await self._database.run(work)

    async def usage(self, query: UsageQuery) -> Answer:
        """Return what the user has used, and what became of their account's amounts.

        Raises:
            TooManyRowsError: the span has more rows than an answer holds.
            DatabaseUnavailableError: the database can't be used, or the totals are not complete.
        """

        async def work(connection: AsyncConnection) -> Answer:
            account, as_of = await _account(connection, query.scope)
            span = {"start": query.start, "end": query.end, "by": str(query.by)}
            rows = (await connection.execute(RECORDED, {**span, "most": MOST_ROWS + 1})).all()
            if len(rows) > MOST_ROWS:
                raise TooManyRowsError
            content: dict[str, Any] = {
                "user_id": account.user_id,
                "account_id": account.account_id,
                "scope": "user" if account.account_id == account.user_id else "account",
                "from": query.start,
                "to": query.end,
                "by": query.by,
                "recorded": [Recorded._make(row)._asdict() for row in rows],
            }
            if account.readable:
                await _set(connection, account.user_id, account.account_id)
                content["amounts"] = amounts(
                    [Amount(**row) for row in await _rows(connection, REPORTED, **span)],
                    [Unfinished(**row) for row in await _rows(connection, UNFINISHED, **span)],
                    await self._waiting(connection, account, **span),
                )
            return Answer(content, as_of)

        return await self._database.run(work)

    async def fault(self) -> str | None:
        """Return why nothing can be read, or ``None``; for readiness."""
        try:
            await self._database.run(lambda connection: _account(connection, EVERYBODY))
        except DatabaseUnavailableError as error:
            return str(error)
        return None

    async def _waiting(
        self, connection: AsyncConnection, account: Account, **span: object
    ) -> list[Waiting]:
        """Return what runs that wait for a customer would come to by the plan as it is now."""
        charges = self._plans.charge(account.plan_type) if self._plans else {}
        return [
            Waiting(row["start"], charge.meter, charged_value(row["value"], charge))
            for row in await _rows(connection, WAITING, **span, most=MOST_WAITING)
            if (charge := charge_of(row["key"], charges)) is not None
        ]


async def _account(connection: AsyncConnection, scope: Scope) -> tuple[Account, datetime]:
    """Set who asks, and return the account that is asked about.

    Raises:
        TotalsIncompleteError: what the totals say is not all.
    """
    await _set(connection, scope.user_id, None)
    [row] = await _rows(connection, ACCOUNT)
    if not row["complete"]:
        raise TotalsIncompleteError
    account_id = scope.account_id or row["account_id"]
    account = Account(
        user_id=row["user_id"],
        account_id=account_id,
        known=row["known"],
        plan_type=row["plan_type"],
        subscriptions=[Subscription.of(each) for each in row["subscriptions"]],
        readable=scope.may_read(account_id),
        moment=row["as_of"],
    )
    return account, row["as_of"]


async def _set(connection: AsyncConnection, user_id: UUID, account_id: UUID | None) -> None:
    values = {"user_id": str(user_id), "account_id": str(account_id or "")}
    await connection.execute(SET, values)


async def _rows(
    connection: AsyncConnection, query: TextClause, **values: object
) -> Sequence[RowMapping]:
    return (await connection.execute(query, values)).mappings().all()
