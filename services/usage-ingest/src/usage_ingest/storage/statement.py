"""Reads what a statement adds up, a day at a time: groups, never runs.

A user's claimed runs have no index of their own. They are found by the reports of the accounts that
may have paid for them: a claim's runs are of one UTC minute, and so of its reports' hour.
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_database import Database
from usage_ingest.payers import assigned_at, times_of
from usage_ingest.reconciliation import Difference, DifferenceKind, Number
from usage_ingest.statement.rows import (
    HOUR,
    DayRows,
    HourReports,
    HourSum,
    Period,
    RecordedReadings,
    Runs,
    Scope,
)
from usage_ingest.storage.differences import DifferenceReader, OpenDifference

MAX_EVENTS: Final = 5
"""Events of a report that are named."""

PAYERS: Final = text(f"""
SELECT DISTINCT account_id FROM {times_of("CAST(:user AS uuid)")} t
""")  # noqa: S608 - of this project's constants

ACCOUNTS: Final = text("""
SELECT account_id FROM account_customers WHERE stripe_customer_id = :customer ORDER BY 1
""")

USERS: Final = text("""
SELECT user_id, account_id FROM account_assignments
 WHERE account_id = ANY(CAST(:accounts AS uuid[])) OR user_id = ANY(CAST(:accounts AS uuid[]))
""")

CUSTOMERS: Final = text("""
SELECT stripe_customer_id, account_id FROM account_customers
 WHERE account_id = ANY(CAST(:accounts AS uuid[]))
""")

PERIODS: Final = text("""
SELECT s.account_id, s.subscription_id, p.period_start, p.period_end
  FROM account_subscriptions s
  JOIN subscription_periods p USING (subscription_id)
 WHERE s.account_id = ANY(CAST(:accounts AS uuid[]))
   AND p.period_start < :end AND p.period_end > :start AND p.period_start < p.period_end
 ORDER BY p.period_start, s.subscription_id
""")

READ_AT: Final = text("""
SELECT stripe_customer_id, meter, as_of FROM counted_pairs
 WHERE stripe_customer_id = ANY(CAST(:customers AS text[])) ORDER BY 1, 2
""")

# An account that pays for others has no runs of its own, but for its time as a user's.
KNOWN: Final = text("""
SELECT EXISTS (SELECT FROM account_assignments WHERE user_id = :user)
    OR EXISTS (SELECT FROM billing_accounts WHERE user_id = :user)
       AND NOT EXISTS (SELECT FROM account_assignments WHERE account_id = :user)
    OR EXISTS (SELECT FROM hourly_usage WHERE user_id = :user)
""")

TOTALS_COMPLETE: Final = text("SELECT bool_and(as_of IS NOT NULL) FROM totals_progress")

# What became of a reading is the state of the claim's report on its meter; of a route, that of all
# reports of the claim, if they have one. Most runs of a claim have the same readings: grouped
# first, these are taken apart once.
RECORDED: Final = text(f"""
WITH reports AS MATERIALIZED (
    SELECT claim_id, user_id AS account_id, meter, state, late FROM usage_reports
     WHERE date_bin('1 hour', occurred_at, timestamptz 'epoch')
           = ANY(CAST(:hours AS timestamptz[]))
       AND user_id = ANY(CAST(:accounts AS uuid[])) AND state <> 'superseded'
), claims AS MATERIALIZED (
    SELECT claim_id, account_id, jsonb_object_agg(meter, state) AS states,
           CASE WHEN min(state) = max(state) THEN min(state) ELSE 'claimed' END AS state,
           bool_or(late) AS late
      FROM reports GROUP BY claim_id, account_id
), runs AS (
    SELECT c.account_id, e.server_id, e.tool_name, c.states, c.state, e.readings, count(*) AS number
      FROM claims c
      JOIN usage_events e USING (claim_id)
     WHERE CAST(:user AS uuid) IS NULL OR e.user_id = CAST(:user AS uuid)
     GROUP BY 1, 2, 3, 4, 5, 6
     UNION ALL
    SELECT coalesce(assigned.account_id, e.user_id), e.server_id, e.tool_name, jsonb '{{}}',
           e.billing_state, e.readings, count(*)
      FROM usage_events e
      {assigned_at("e")}
     WHERE e.billing_state IN ('waiting', 'due', 'expired')
       AND date_trunc('minute', e.occurred_at AT TIME ZONE 'UTC')
           >= CAST(:start AS timestamptz) AT TIME ZONE 'UTC'
       AND date_trunc('minute', e.occurred_at AT TIME ZONE 'UTC')
           < CAST(:end AS timestamptz) AT TIME ZONE 'UTC'
       AND e.user_id = ANY(CAST(:users AS uuid[]))
       AND coalesce(assigned.account_id, e.user_id) = ANY(CAST(:accounts AS uuid[]))
     GROUP BY 1, 2, 3, 4, 5, 6
), late AS (
    SELECT c.account_id, e.server_id, e.tool_name, coalesce(c.states ->> l.key, c.state) AS state,
           l.key, l.value
      FROM claims c
      JOIN late_readings l USING (claim_id)
      JOIN usage_events e USING (event_id)
     WHERE c.late AND (CAST(:user AS uuid) IS NULL OR e.user_id = CAST(:user AS uuid))
     UNION ALL
    SELECT coalesce(assigned.account_id, e.user_id), e.server_id, e.tool_name, l.billing_state,
           l.key, l.value
      FROM late_readings l
      JOIN usage_events e USING (event_id)
      {assigned_at("e")}
     WHERE l.billing_state IN ('due', 'expired')
       AND l.occurred_at >= :start AND l.occurred_at < :end
       AND e.user_id = ANY(CAST(:users AS uuid[]))
       AND coalesce(assigned.account_id, e.user_id) = ANY(CAST(:accounts AS uuid[]))
     UNION ALL
    SELECT r.account_id, f.server_id, f.tool_name, r.state, r.meter, 1
      FROM reports r
      JOIN first_uses f ON f.account_id = r.account_id AND f.claim_id = r.claim_id
     WHERE r.late AND r.account_id <> ALL(CAST(:shared AS uuid[]))
)
SELECT account_id AS account, server_id AS server, tool_name AS tool, key, state,
       sum(number)::bigint AS number, sum(value)::bigint AS value
  FROM (SELECT account_id, server_id, tool_name, NULL AS key, state, number, 0 AS value FROM runs
         UNION ALL
        SELECT u.account_id, u.server_id, u.tool_name, r.key, coalesce(u.states ->> r.key, u.state),
               u.number, u.number * r.value::numeric
          FROM runs u CROSS JOIN LATERAL jsonb_each_text(u.readings) r(key, value)
         UNION ALL
        SELECT account_id, server_id, tool_name, key, state, 1, value FROM late) s
 GROUP BY account_id, server_id, tool_name, key, state
 ORDER BY server_id, tool_name, key, state, account_id
""")  # noqa: S608 - of this project's constants

# A run without readings is in no claim: it belongs to the account of its hour's begin.
RUNS: Final = text(f"""
SELECT coalesce(assigned.account_id, u.user_id) AS account, u.server_id AS server,
       u.tool_name AS tool, sum(u.billable_runs)::bigint AS billable,
       sum(u.runs - u.billable_runs)::bigint AS not_billable
  FROM (SELECT *, hour AS occurred_at FROM hourly_usage
         WHERE user_id = ANY(CAST(:users AS uuid[]))
           AND hour = ANY(CAST(:hours AS timestamptz[]))) u
  {assigned_at("u")}
 WHERE coalesce(assigned.account_id, u.user_id) = ANY(CAST(:accounts AS uuid[]))
 GROUP BY 1, 2, 3 ORDER BY 2, 3, 1
""")  # noqa: S608 - of this project's constants

REPORTS: Final = text("""
SELECT r.user_id AS account, r.stripe_customer_id AS customer, r.meter,
       date_bin('1 hour', r.occurred_at, timestamptz 'epoch') AS hour, r.state, r.ever_unknown,
       p.placement, count(*) AS number, sum(r.value)::bigint AS value
  FROM usage_reports r
  LEFT JOIN report_placements p ON p.report_id = r.report_id AND r.state = 'reported'
 WHERE date_bin('1 hour', r.occurred_at, timestamptz 'epoch') = ANY(CAST(:hours AS timestamptz[]))
   AND r.user_id = ANY(CAST(:accounts AS uuid[]))
 GROUP BY 1, 2, 3, 4, 5, 6, 7
""")

SUMS: Final = text("""
SELECT stripe_customer_id, meter, hour, coalesce(h.value, 0) AS counted,
       d.kind, d.expected, d.at_most, d.counted AS differed
  FROM (SELECT * FROM counted_hours
         WHERE stripe_customer_id = ANY(CAST(:customers AS text[]))
           AND hour >= :start AND hour < :end) h
  FULL JOIN (SELECT * FROM differences
              WHERE stripe_customer_id = ANY(CAST(:customers AS text[]))
                AND hour >= :start AND hour < :end AND closed_at IS NULL) d
 USING (stripe_customer_id, meter, hour)
""")

EVENTS: Final = text("""
SELECT r.identifier, e.event_id
  FROM usage_reports r
 CROSS JOIN LATERAL (
       (SELECT event_id FROM usage_events WHERE claim_id = r.claim_id LIMIT :most)
        UNION ALL
       (SELECT event_id FROM late_readings WHERE claim_id = r.claim_id LIMIT :most)) e
 WHERE r.report_id = ANY(CAST(:reports AS uuid[]))
""")


class StatementReader:
    """Reads the parts of a statement; each day is of one state of the database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._differences = DifferenceReader(database)

    async def scope(self, of: UUID | str, start: datetime, end: datetime) -> Scope:
        """Return whose statement that of a user, or of a customer at Stripe, is.

        Raises:
            DatabaseUnavailableError: the database can't be used.
        """
        user = of if isinstance(of, UUID) else None

        async def work(connection: AsyncConnection) -> Scope:
            found = (
                await connection.execute(PAYERS, {"user": user})
                if user
                else await connection.execute(ACCOUNTS, {"customer": of})
            )
            accounts = tuple(found.scalars())
            values = {"accounts": list(accounts), "start": start, "end": end}
            assigned = (await connection.execute(USERS, values)).all()
            members = {row.user_id for row in assigned if row.account_id in accounts}
            customers: dict[str, UUID | None] = {} if isinstance(of, UUID) else {of: None}
            for row in await connection.execute(CUSTOMERS, values):
                customers[row.stripe_customer_id] = row.account_id
            read = await connection.execute(READ_AT, {"customers": list(customers)})
            read_at = {(row.stripe_customer_id, row.meter): row.as_of for row in read}
            is_complete = (await connection.execute(TOTALS_COMPLETE)).scalar_one()
            is_known = bool(accounts or read_at)
            if user and is_complete:
                is_known = (await connection.execute(KNOWN, {"user": user})).scalar_one()
            return Scope(
                user,
                start,
                end,
                accounts,
                (user,) if user else tuple(sorted({*accounts, *members})),
                customers,
                _shared(user, accounts, assigned),
                finds_all=bool(user) or not assigned,
                totals_complete=is_complete,
                periods=tuple(
                    Period(row.account_id, row.subscription_id, row.period_start, row.period_end)
                    for row in await connection.execute(PERIODS, values)
                ),
                read_at=read_at,
                is_known=is_known,
            )

        return await self._database.run(work)

    async def day(self, scope: Scope, start: datetime, end: datetime) -> DayRows:
        """Return what is known of the hours from ``start`` to ``end``.

        Raises:
            DatabaseUnavailableError: the database can't be used, or has more of one day than it
                adds up within its time limit.
        """
        values: dict[str, Any] = {
            "user": scope.user,
            "accounts": list(scope.accounts),
            "shared": list(scope.shared),
            "users": list(scope.users),
            "hours": [start + n * HOUR for n in range(int((end - start) / HOUR))],
            "start": start,
            "end": end,
        }

        async def work(connection: AsyncConnection) -> DayRows:
            async def rows(query: TextClause, **others: object) -> Sequence[Row[Any]]:
                return (await connection.execute(query, values | others)).all()

            recorded = [RecordedReadings(**row._asdict()) for row in await rows(RECORDED)]
            runs = [Runs(**row._asdict()) for row in await rows(RUNS)]
            paying: Collection[UUID] = scope.accounts
            if scope.user:
                paying = {each.account for each in recorded}
            customers = scope.customers_of(paying)
            return DayRows(
                recorded,
                runs,
                [
                    HourReports(**row._asdict())
                    for row in await rows(REPORTS, accounts=list(paying))
                ],
                [_sum(row) for row in await rows(SUMS, customers=customers)],
            )

        return await self._database.run(work)

    async def differences(
        self, scope: Scope, customers: Collection[str]
    ) -> AsyncIterator[tuple[OpenDifference, Mapping[str, Sequence[UUID]]]]:
        """Yield each open or settled difference, with some events of each report.

        The events are by the report's identifier.

        Raises:
            DatabaseUnavailableError: the database can't be used.
        """
        for customer in sorted(customers):
            async for each in self._differences.open_ones(
                customer=customer, since=scope.start, until=scope.end, settled=True
            ):
                yield each, await self._events(each)

    async def _events(self, of: OpenDifference) -> Mapping[str, Sequence[UUID]]:
        reports = [named.report.report_id for named in of.reports]
        values = {"reports": reports, "most": MAX_EVENTS}
        found = await self._database.run(lambda c: c.execute(EVENTS, values))
        events: dict[str, list[UUID]] = {}
        for row in found:
            events.setdefault(row.identifier, []).append(row.event_id)
        return events


def _shared(
    user: UUID | None, accounts: Collection[UUID], assigned: Sequence[Row[Any]]
) -> frozenset[UUID]:
    """Return the accounts that may pay for others than ``user``."""
    if user is None:
        return frozenset()
    others = {row.account_id for row in assigned if row.user_id != user}
    return frozenset(each for each in accounts if each != user or each in others)


def _sum(row: Row[Any]) -> HourSum:
    differs_by: Number = 0
    if row.kind is not None:
        found = Difference(
            row.hour, DifferenceKind(row.kind), row.expected, row.at_most, row.differed
        )
        differs_by = found.by
    return HourSum(row.stripe_customer_id, row.meter, row.hour, row.counted, differs_by)
