"""Queries of the usage API, each on views that show one user's rows, or one account's totals.

Who asks is set in the transaction, by a function of the database. No query names a user or an
account otherwise: what a query forgets, the database filters all the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import RowMapping, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_database import Database, DatabaseUnavailableError
from nexus_plans import Charge, Plans
from usage_ingest.charging import charge_of, charged_value
from usage_ingest.usage_api.encoding import as_json
from usage_ingest.usage_api.entitlements import (
    KnownAccount,
    Period,
    Subscription,
    Used,
    entitlements,
    limited_meters,
)
from usage_ingest.usage_api.reading import Scope, UsageQuery
from usage_ingest.usage_api.usage import (
    Amount,
    Shadow,
    Unfinished,
    Waiting,
    amounts,
    meters,
)

MAX_ROWS: Final = 20_000
"""Rows of recorded usage in one answer: a month by hour, of a user with 25 tools in each hour."""

MAX_WAITING_RUNS: Final = 20_000
"""Waiting runs that are added up, so that an answer takes little time. An account without a
customer may have any number of them: with more, each of its hard limits counts as reached."""

EVERYBODY: Final = Scope(UUID(int=0), None, None)
"""For a look whether queries are possible: there is no such user."""

ASK: Final = text("""
SELECT * FROM viewer.ask(:user_id, :account_id, CAST(:readable AS uuid[]))
""")

USED: Final = text("""
SELECT name, waits, value FROM viewer.used(:account_id, :meters, :start, :end, :most)
""")

# Written as JSON by the database: thousands of rows would keep the process from answering others.
RECORDED: Final = text("""
SELECT count(*) AS number, coalesce(json_agg(r), '[]')::text AS written
  FROM (SELECT to_char(start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS start,
               server_id, tool_name, runs, tokens
          FROM (SELECT date_trunc(:by, hour, 'UTC') AS start, server_id, tool_name,
                       sum(runs)::bigint AS runs, sum(tokens)::bigint AS tokens
                  FROM viewer.hourly_usage
                 WHERE hour >= :start AND hour < :end
                 GROUP BY 1, 2, 3 ORDER BY 1, 2, 3 LIMIT :most) u) r
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

SHADOW: Final = text("""
SELECT date_trunc(:by, occurred_at, 'UTC') AS start, meter, sum(value)::bigint AS value
  FROM viewer.shadow_reports
 WHERE occurred_at >= :start AND occurred_at < :end
 GROUP BY 1, 2
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


class StandbyBehindError(DatabaseUnavailableError):
    """A standby has not yet replayed a transaction that says as of when its figures are."""

    def __init__(self) -> None:
        super().__init__("the standby has replayed nothing yet")


class TooManyRowsError(Exception):
    """An answer would have more than ``MAX_ROWS`` rows."""


@dataclass(frozen=True, slots=True)
class ApiAnswer:
    """What is answered, an object in JSON, and up to when the ledger is in it."""

    content: str
    as_of: datetime


class UsageReader:
    """Reads what one user, or a service that asks for them, may see."""

    def __init__(self, database: Database, plans: Plans | None) -> None:
        self._database = database
        self._plans = plans

    async def entitlements(self, scope: Scope, plans: Plans) -> ApiAnswer:
        """Return what the user may do.

        Raises:
            DatabaseUnavailableError: the database can't be used, or the totals are not complete.
        """

        async def work(connection: AsyncConnection) -> ApiAnswer:
            account = await _ask(connection, scope)
            used = Used({}, complete=True)
            if limited := limited_meters(plans, account):
                period = account.period
                rows = await _rows(
                    connection,
                    USED,
                    account_id=account.account_id,
                    meters=limited,
                    start=period.start,
                    end=period.end,
                    most=MAX_WAITING_RUNS,
                )
                used = self._used(account, rows)
            return ApiAnswer(as_json(entitlements(plans, account, used)), account.moment)

        return await self._database.run(work, in_transaction=False)

    async def usage(self, query: UsageQuery) -> ApiAnswer:
        """Return what the user has used, and what became of their account's amounts.

        Raises:
            TooManyRowsError: the span has more rows than an answer holds.
            DatabaseUnavailableError: the database can't be used, or the totals are not complete.
        """

        async def work(connection: AsyncConnection) -> ApiAnswer:
            account = await _ask(connection, query.scope)
            span = {"start": query.start, "end": query.end, "by": str(query.by)}
            [recorded] = await _rows(connection, RECORDED, **span, most=MAX_ROWS + 1)
            if recorded["number"] > MAX_ROWS:
                raise TooManyRowsError
            content: dict[str, Any] = {
                "user_id": account.user_id,
                "account_id": account.account_id,
                "scope": "user" if account.account_id == account.user_id else "account",
                "from": query.start,
                "to": query.end,
                "by": query.by,
                "meters": meters(self._plans),
            }
            if account.readable:
                waiting = await _rows(connection, WAITING, **span, most=MAX_WAITING_RUNS)
                content["amounts"] = amounts(
                    [Amount(**row) for row in await _rows(connection, REPORTED, **span)],
                    [Unfinished(**row) for row in await _rows(connection, UNFINISHED, **span)],
                    [Shadow(**row) for row in await _rows(connection, SHADOW, **span)],
                    self._waiting(account, waiting),
                )
            rest = as_json(content)[:-1]
            return ApiAnswer(f'{rest},"recorded":{recorded["written"]}}}', account.moment)

        return await self._database.run(work)

    async def fault(self) -> str | None:
        """Return why nothing can be read, or ``None``; for readiness."""
        try:
            await self._database.run(lambda connection: _ask(connection, EVERYBODY))
        except DatabaseUnavailableError as error:
            return str(error)
        return None

    def _used(self, account: KnownAccount, rows: Sequence[RowMapping]) -> Used:
        """Return what is reported, and what runs that wait for a customer would come to."""
        amounts = {row["name"]: row["value"] for row in rows if not row["waits"]}
        waiting = {row["name"]: row["value"] for row in rows if row["waits"]}
        complete = waiting.pop(None) < MAX_WAITING_RUNS
        for key, value in waiting.items():
            if (charge := charge_of(key, self._charges(account))) is not None:
                amounts[charge.meter] = amounts.get(charge.meter, 0) + charged_value(value, charge)
        return Used(amounts, complete)

    def _waiting(self, account: KnownAccount, rows: Sequence[RowMapping]) -> list[Waiting]:
        """Return what runs that wait for a customer would come to by the plan as it is now."""
        return [
            Waiting(row["start"], charge.meter, charged_value(row["value"], charge))
            for row in rows
            if (charge := charge_of(row["key"], self._charges(account))) is not None
        ]

    def _charges(self, account: KnownAccount) -> Mapping[str, Charge]:
        return self._plans.charge(account.plan_type) if self._plans else {}


async def _ask(connection: AsyncConnection, scope: Scope) -> KnownAccount:
    """Set who asks, and return the account that is asked about.

    Raises:
        DatabaseUnavailableError: what the totals say is not all, or as of when is not known.
    """
    values = {
        "user_id": scope.user_id,
        "account_id": scope.account_id,
        "readable": None if scope.readable is None else sorted(scope.readable),
    }
    [row] = await _rows(connection, ASK, **values)
    if not row["complete"]:
        raise TotalsIncompleteError
    if row["as_of"] is None:
        raise StandbyBehindError
    return KnownAccount(
        user_id=scope.user_id,
        account_id=row["account_id"],
        known=row["known"],
        plan_type=row["plan_type"],
        subscriptions=[Subscription.of(each) for each in row["subscriptions"] or ()],
        readable=row["may_read"],
        period=Period(row["period_start"], row["period_end"], row["basis"]),
        moment=row["as_of"],
    )


async def _rows(
    connection: AsyncConnection, query: TextClause, **values: object
) -> Sequence[RowMapping]:
    return (await connection.execute(query, values)).mappings().all()
