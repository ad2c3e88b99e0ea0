"""The reports between the ledger and the reporter: leased, forwarded, answered.

A report's state only rises, pending < forwarded < rejected < reported: a late mark of a lower
state changes nothing.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_contracts import UsageRecorded, UsageRejected, UsageReported
from nexus_contracts.wording import describe
from nexus_database import Database

LEASE: Final = timedelta(seconds=60)
"""Longer than any batch of publishes takes; a lease that runs out repeats reports, harmlessly."""

SET_ASIDE_FOR: Final = timedelta(minutes=10)
"""How long a row that no event can carry is left alone: soon enough after somebody corrected it."""

TAKE: Final = text("""
UPDATE usage_reports r SET leased_until = :until
  FROM (SELECT report_id FROM usage_reports
         WHERE state = 'pending' AND (leased_until IS NULL OR leased_until < :now)
         ORDER BY created_at LIMIT :most FOR UPDATE SKIP LOCKED) p
 WHERE r.report_id = p.report_id
RETURNING r.report_id, r.identifier, r.meter, r.value, r.stripe_customer_id, r.dimensions,
          r.occurred_at, r.event_count, r.claim_id
""")

SET_ASIDE: Final = text("""
UPDATE usage_reports SET leased_until = :until WHERE report_id = ANY(CAST(:ids AS uuid[]))
""")

# What another transaction holds is being answered, or its lease runs out and it is repeated.
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

LOCK: Final = text("""
SELECT report_id FROM usage_reports WHERE report_id = ANY(CAST(:ids AS uuid[]))
 ORDER BY report_id FOR UPDATE
""")

# Of several answers to one report in a batch the highest counts, of equals the latest; a doubt that
# any of them tells of stays, for by it alone a report that may have been counted is not superseded.
ANSWERED: Final = text("""
UPDATE usage_reports r
   SET state = o.state, answered_at = o.at, reason = o.reason,
       ever_unknown = r.ever_unknown OR o.ever_unknown
  FROM (SELECT DISTINCT ON (report_id) report_id, state, at, reason,
               bool_or(ever_unknown) OVER (PARTITION BY report_id) AS ever_unknown
          FROM unnest(CAST(:ids AS uuid[]), CAST(:states AS text[]), CAST(:ats AS timestamptz[]),
                      CAST(:reasons AS text[]), CAST(:unknowns AS boolean[]))
               AS t(report_id, state, at, reason, ever_unknown)
         ORDER BY report_id, state = 'reported' DESC, at DESC) o
 WHERE r.report_id = o.report_id
   AND r.state IN ('pending', 'forwarded', 'rejected')
RETURNING r.state, r.meter, r.value
""")


class InexpressibleError(Exception):
    """A report's row breaks the contract of the event that would carry it.

    The text names fields and rules, and no value.
    """

    def __init__(self, report_id: UUID, broken: str) -> None:
        super().__init__(broken)
        self.report_id = report_id


@dataclass(frozen=True, slots=True)
class Leased:
    """Reports to forward, and those rows that were set aside because no event can carry them."""

    reports: list[UsageRecorded]
    set_aside: list[InexpressibleError]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the reporter said of one report."""

    report_id: UUID
    state: str
    at: datetime
    reason: str | None
    ever_unknown: bool

    @classmethod
    def of(cls, outcome: UsageReported | UsageRejected) -> "Answer":
        """Read an outcome event."""
        if isinstance(outcome, UsageRejected):
            state, reason = "rejected", outcome.reason
        else:
            state, reason = "reported", None
        return cls(outcome.report_id, state, outcome.at, reason, outcome.ever_unknown)


@dataclass(frozen=True, slots=True)
class Applied:
    """What a batch of answers changed.

    ``states`` counts the reports that were marked, by their state now; ``reported`` is the
    quantity newly counted by Stripe, by meter; ``strangers`` are reports that are not ours.
    """

    states: Mapping[str, int]
    reported: Mapping[str, int]
    strangers: set[UUID]


class Reports:
    """The rows of `usage_reports`, moved in sets."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def lease(self, now: datetime, *, most: int = 500) -> Leased:
        """Take up to ``most`` pending reports, oldest first, for this process alone.

        A row that no event can carry holds up none of the others: it stays pending and is tried
        again after ``SET_ASIDE_FOR``.

        Raises:
            DatabaseUnavailableError: nothing was taken.
        """

        async def work(connection: AsyncConnection) -> Leased:
            rows = await connection.execute(TAKE, {"now": now, "until": now + LEASE, "most": most})
            leased = Leased([], [])
            for row in rows:
                try:
                    leased.reports.append(recorded_report(row._asdict()))
                except InexpressibleError as error:
                    leased.set_aside.append(error)
            if leased.set_aside:
                ids = [error.report_id for error in leased.set_aside]
                await connection.execute(SET_ASIDE, {"ids": ids, "until": now + SET_ASIDE_FOR})
            return leased

        return await self._database.run(work)

    async def contexts(self, reports: Sequence[UsageRecorded]) -> dict[UUID, str]:
        """Return the contexts of the claims that made ``reports``, as far as they were traced.

        Raises:
            DatabaseUnavailableError: they can't be asked for.
        """
        ids = {"ids": [report.report_id for report in reports]}
        rows = await self._database.run(lambda c: c.execute(TRACED, ids))
        return {row.report_id: row.traceparent for row in rows}

    async def settle_lease(
        self, now: datetime, *, forwarded: Sequence[UUID], failed: Sequence[UUID]
    ) -> None:
        """Mark what the broker confirmed and release what it did not.

        Raises:
            DatabaseUnavailableError: nothing was marked; the lease will run out.
        """

        async def work(connection: AsyncConnection) -> None:
            if forwarded:
                await connection.execute(FORWARDED, {"ids": list(forwarded), "now": now})
            if failed:
                await connection.execute(RELEASED, {"ids": list(failed)})

        await self._database.run(work)

    async def answer(self, answers: Sequence[Answer]) -> Applied:
        """Apply the reporter's answers and return what they changed.

        Rows are locked in the order of their ids first: two batches with reports in common would
        otherwise deadlock.

        Raises:
            RowsBusyError: another transaction holds one of the reports; nothing was applied.
            DatabaseUnavailableError: nothing was applied.
        """
        ids = [answer.report_id for answer in answers]

        async def work(connection: AsyncConnection) -> Applied:
            known = {row.report_id for row in await connection.execute(LOCK, {"ids": ids})}
            marked = await connection.execute(
                ANSWERED,
                {
                    "ids": ids,
                    "states": [answer.state for answer in answers],
                    "ats": [answer.at for answer in answers],
                    "reasons": [answer.reason for answer in answers],
                    "unknowns": [answer.ever_unknown for answer in answers],
                },
            )
            return _applied(marked.all(), set(ids) - known)

        return await self._database.run(work)


def _applied(marked: Sequence[Row[Any]], strangers: set[UUID]) -> Applied:
    reported: Counter[str] = Counter()
    for row in marked:
        if row.state == "reported":
            reported[row.meter] += row.value
    return Applied(Counter(row.state for row in marked), reported, strangers)


def recorded_report(row: Mapping[Any, Any]) -> UsageRecorded:
    """Return the event that a report's row is forwarded as.

    Raises:
        InexpressibleError: there is none, by a mistake of ours or a change by hand.
    """
    try:
        return UsageRecorded.model_validate(_fields(row))
    except ValidationError as error:
        raise InexpressibleError(row["report_id"], describe(error)) from None


def stored_report(row: Mapping[Any, Any]) -> UsageRecorded:
    """Return a report's row as it is stored, to be compared with others and never to be sent."""
    return UsageRecorded.model_construct(**_fields(row))


def _fields(row: Mapping[Any, Any]) -> dict[str, Any]:
    fields = {name: row[name] for name in UsageRecorded.model_fields}
    return {**fields, "dimensions": row["dimensions"] or None}
