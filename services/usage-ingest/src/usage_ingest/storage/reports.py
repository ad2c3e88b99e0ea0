"""The rows of `usage_reports`: leased, marked as forwarded, marked with their answers.

A report's state only rises, pending < forwarded < rejected < reported < rejected_later: a late
update to a lower state changes nothing.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_contracts import UsageRecorded, UsageRejected, UsageRejectedLater, UsageReported
from nexus_contracts.wording import describe
from nexus_database import Database
from usage_ingest.columns import Column, arrays, rows

LEASE: Final = timedelta(seconds=60)
"""Longer than any batch of publishes takes. A lease that runs out repeats reports, harmlessly."""

SET_ASIDE_FOR: Final = timedelta(minutes=10)
"""Time until a row that no event can carry is tried again, in case it was corrected."""

# Locked rows are found again by their place, as in a claim.
TAKE: Final = text("""
UPDATE usage_reports SET leased_until = :until
 WHERE ctid = ANY(ARRAY(
       SELECT ctid FROM usage_reports
        WHERE state = 'pending' AND (leased_until IS NULL OR leased_until < :now)
        ORDER BY created_at LIMIT :most FOR UPDATE SKIP LOCKED))
RETURNING report_id, identifier, meter, value, stripe_customer_id, dimensions, occurred_at,
          event_count, claim_id, late
""")

SET_ASIDE: Final = text("""
UPDATE usage_reports SET leased_until = :until WHERE report_id = ANY(CAST(:ids AS uuid[]))
""")

# A row that another transaction holds is skipped: its answer is being applied, or its lease runs
# out and it is repeated.
FORWARDED: Final = text("""
UPDATE usage_reports SET state = 'forwarded', forwarded_at = :now
 WHERE report_id IN (SELECT report_id FROM usage_reports
                      WHERE report_id = ANY(CAST(:ids AS uuid[])) AND state = 'pending'
                        FOR UPDATE SKIP LOCKED)
""")

RELEASED: Final = text("""
UPDATE usage_reports SET leased_until = NULL
 WHERE report_id IN (SELECT report_id FROM usage_reports
                      WHERE report_id = ANY(CAST(:ids AS uuid[])) AND state = 'pending'
                        FOR UPDATE SKIP LOCKED)
""")

TRACED: Final = text("""
SELECT report_id, traceparent FROM usage_reports
 WHERE report_id = ANY(CAST(:ids AS uuid[])) AND traceparent IS NOT NULL
""")

ANSWER_COLUMNS: Final = tuple(
    Column(name, of, name)
    for name, of in (
        ("report_id", "uuid"),
        ("state", "text"),
        ("at", "timestamptz"),
        ("reason", "text"),
        ("ever_unknown", "boolean"),
    )
)

LOCK: Final = text("""
SELECT report_id FROM usage_reports WHERE report_id = ANY(CAST(:report_id AS uuid[]))
 ORDER BY report_id FOR UPDATE
""")

# Of several answers to one report in a batch the highest state counts, of equal states the latest
# answer. `ever_unknown` of any of them is kept: such a report may have been counted, and is never
# superseded.
ANSWERED: Final = text(f"""
UPDATE usage_reports r
   SET state = o.state, answered_at = o.at, reason = o.reason,
       ever_unknown = r.ever_unknown OR o.ever_unknown
  FROM (SELECT DISTINCT ON (report_id) report_id, state, at, reason,
               bool_or(ever_unknown) OVER (PARTITION BY report_id) AS ever_unknown
          FROM {rows(ANSWER_COLUMNS)}
         ORDER BY report_id, state = 'rejected_later' DESC, state = 'reported' DESC, at DESC) o
 WHERE r.report_id = o.report_id
   AND (r.state IN ('pending', 'forwarded', 'rejected')
        OR (r.state = 'reported' AND o.state = 'rejected_later'))
RETURNING r.state, r.meter, r.value
""")  # noqa: S608 - made of names in this program


class InvalidReportError(Exception):
    """A report's row breaks the contract of the event that would carry it.

    The text names fields and rules, and no value.
    """

    def __init__(self, report_id: UUID, broken: str) -> None:
        super().__init__(broken)
        self.report_id = report_id


@dataclass(frozen=True, slots=True)
class Leased:
    """Reports to forward, and rows that were set aside because no event can carry them."""

    reports: list[UsageRecorded]
    set_aside: list[InvalidReportError]


@dataclass(frozen=True, slots=True)
class ReportAnswer:
    """The reporter's answer to one report."""

    report_id: UUID
    state: str
    at: datetime
    reason: str | None
    ever_unknown: bool

    @classmethod
    def of(cls, outcome: UsageReported | UsageRejected | UsageRejectedLater) -> "ReportAnswer":
        """Read an outcome event."""
        match outcome:
            case UsageReported(ever_unknown=unknown):
                return cls(outcome.report_id, "reported", outcome.at, None, unknown)
            case UsageRejected(reason=reason, ever_unknown=unknown):
                return cls(outcome.report_id, "rejected", outcome.at, reason, unknown)
            case UsageRejectedLater(code=code):
                return cls(outcome.report_id, "rejected_later", outcome.at, code, False)


@dataclass(frozen=True, slots=True)
class Applied:
    """What a batch of answers changed.

    ``states`` counts the reports that were updated, by their new state; ``reported`` is the
    quantity that Stripe newly counted, by meter; ``unknown`` are ids of no report in the ledger.
    """

    states: Mapping[str, int]
    reported: Mapping[str, int]
    unknown: set[UUID]


class Reports:
    """Moves reports on, many in one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def lease(self, now: datetime, *, most: int = 500) -> Leased:
        """Lease up to ``most`` pending reports, the oldest first, to this process.

        A row that no event can carry does not delay the others: it stays pending and is tried
        again after ``SET_ASIDE_FOR``.

        Raises:
            DatabaseUnavailableError: nothing was leased.
        """

        async def work(connection: AsyncConnection) -> Leased:
            values = {"now": now, "until": now + LEASE, "most": most}
            leased = Leased([], [])
            for row in await connection.execute(TAKE, values):
                try:
                    leased.reports.append(recorded_report(row._asdict()))
                except InvalidReportError as error:
                    leased.set_aside.append(error)
            if leased.set_aside:
                ids = [error.report_id for error in leased.set_aside]
                await connection.execute(SET_ASIDE, {"ids": ids, "until": now + SET_ASIDE_FOR})
            return leased

        return await self._database.run(work)

    async def contexts(self, reports: Sequence[UsageRecorded]) -> dict[UUID, str]:
        """Return the trace contexts of the claims that made ``reports``, if they were traced.

        Raises:
            DatabaseUnavailableError: the database can't be used.
        """
        ids = {"ids": [report.report_id for report in reports]}
        traced = await self._database.run(lambda c: c.execute(TRACED, ids))
        return {row.report_id: row.traceparent for row in traced}

    async def settle_lease(
        self, now: datetime, *, forwarded: Sequence[UUID], failed: Sequence[UUID]
    ) -> None:
        """Mark the reports that the broker confirmed, and release those it did not.

        Raises:
            DatabaseUnavailableError: nothing was marked; the lease will run out.
        """

        async def work(connection: AsyncConnection) -> None:
            if forwarded:
                await connection.execute(FORWARDED, {"ids": list(forwarded), "now": now})
            if failed:
                await connection.execute(RELEASED, {"ids": list(failed)})

        await self._database.run(work)

    async def answer(self, answers: Sequence[ReportAnswer]) -> Applied:
        """Apply the reporter's answers and return what they changed.

        The rows are locked in the order of their ids first: otherwise two batches with reports in
        common would deadlock.

        Raises:
            RowsBusyError: another transaction holds one of the reports; nothing was applied.
            DatabaseUnavailableError: nothing was applied.
        """
        values = arrays(ANSWER_COLUMNS, answers)
        ids = values["report_id"]

        async def work(connection: AsyncConnection) -> Applied:
            locked = await connection.execute(LOCK, {"report_id": ids})
            known = {row.report_id for row in locked}
            updated = (await connection.execute(ANSWERED, values)).all()
            reported: Counter[str] = Counter()
            for row in updated:
                if row.state == "reported":
                    reported[row.meter] += row.value
            return Applied(Counter(row.state for row in updated), reported, set(ids) - known)

        return await self._database.run(work)


def recorded_report(row: Mapping[Any, Any]) -> UsageRecorded:
    """Return the data of the event that a report's row is forwarded as.

    Raises:
        InvalidReportError: no event can carry it: a bug, or a row that was changed by hand.
    """
    try:
        return UsageRecorded.model_validate(_fields(row))
    except ValidationError as error:
        raise InvalidReportError(row["report_id"], describe(error)) from None


def stored_report(row: Mapping[Any, Any]) -> UsageRecorded:
    """Return a report's row as it is stored, for comparison only: it may be invalid."""
    return UsageRecorded.model_construct(**_fields(row))


def _fields(row: Mapping[Any, Any]) -> dict[str, Any]:
    fields = {name: row[name] for name in UsageRecorded.model_fields}
    return {**fields, "dimensions": row["dimensions"] or None}
