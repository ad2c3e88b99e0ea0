"""Which of Stripe's sums are read next, `summaries_due`, found by following the journal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_database import Database
from stripe_reporter.counting import (
    HEAD_START,
    READ_AGAIN,
    READ_FOR,
    SETTLED_AFTER,
    Pair,
    next_reading,
)

MAX_FOLLOWED: Final = 5000
"""Rows of the journal that are followed at once."""

COMMITTED_AFTER: Final = timedelta(minutes=1)
"""An answer is older than its commit; what is older than this is committed, or never will be."""

LEASE: Final = timedelta(minutes=15)
"""Longer than any reading takes. One that was cut off is begun again after it."""

# Of several processes one follows at a time. Whoever changes many pairs locks it, too: they would
# deadlock, as they come in other orders.
_PLACE: Final = text("SELECT answered_at, identifier FROM summaries_place FOR UPDATE")

# The pairs of `answered`, with their oldest usage and newest answer.
_NOTE: Final = """
    INSERT INTO summaries_due AS d (
           stripe_customer_id, meter, since, renewed_at, active_at, wanted_at, next_try)
    SELECT stripe_customer_id, meter, since, active_at, active_at, wanted_at, wanted_at
      FROM answered
    ON CONFLICT (stripe_customer_id, meter) DO UPDATE
       SET since = least(d.since, excluded.since),
           active_at = greatest(d.active_at, excluded.active_at),
           wanted_at = least(d.wanted_at,
                             greatest(excluded.wanted_at, d.read_at + :read_again)),
           next_try = least(d.next_try,
                            greatest(excluded.next_try, d.read_at + :read_again))
"""

_FOLLOW: Final = text(f"""
WITH page AS (
    SELECT identifier, stripe_customer_id, meter, occurred_at, answered_at FROM meter_calls
     WHERE (answered_at, identifier) > (:answered_at, :identifier) AND answered_at < :until
     ORDER BY answered_at, identifier LIMIT :most
), answered AS (
    SELECT stripe_customer_id, meter, min(occurred_at) AS since, max(answered_at) AS active_at,
           min(answered_at) + :read_after AS wanted_at
      FROM page GROUP BY stripe_customer_id, meter ORDER BY 1, 2
), noted AS ({_NOTE})
SELECT (SELECT count(*) FROM page) AS number, answered_at, identifier
  FROM page ORDER BY answered_at DESC, identifier DESC LIMIT 1
""")  # noqa: S608 - of this module's constants

_REJECTED: Final = text(f"""
WITH answered AS (
    SELECT stripe_customer_id, meter, min(occurred_at) AS since,
           max(rejected_later_at) AS active_at, max(rejected_later_at) AS wanted_at
      FROM meter_calls WHERE identifier = ANY(:identifiers)
     GROUP BY stripe_customer_id, meter ORDER BY 1, 2
){_NOTE}
""")  # noqa: S608 - likewise

_MOVE: Final = text("""
UPDATE summaries_place SET answered_at = :answered_at, identifier = :identifier
""")

_LEASE: Final = text("""
UPDATE summaries_due SET next_try = :until
 WHERE ctid = ANY(ARRAY(
       SELECT ctid FROM summaries_due WHERE next_try <= :now
        ORDER BY CASE WHEN coalesce(since, since_before) IS NULL THEN wanted_at + :head_start
                      ELSE wanted_at END LIMIT :most FOR UPDATE SKIP LOCKED))
RETURNING stripe_customer_id, meter, least(since, since_before) AS since, active_at, wanted_at
""")

# What was answered less than a day before the reading is read once more; what was answered during
# it, after six hours. An older hour that was noted meanwhile stays: this reading lacks it.
_READ: Final = text("""
UPDATE summaries_due
   SET read_at = :now,
       since_before = CASE WHEN active_at < :settled_before THEN NULL
                           WHEN renewed_at < :settled_before THEN since
                           ELSE since_before END,
       since = CASE WHEN renewed_at < :settled_before THEN NULL ELSE since END,
       renewed_at = CASE WHEN renewed_at < :settled_before THEN :now ELSE renewed_at END,
       wanted_at = CASE WHEN active_at = :active_at THEN CAST(:due_at AS timestamptz)
                        ELSE :soon END,
       next_try = CASE WHEN active_at = :active_at THEN CAST(:due_at AS timestamptz)
                       ELSE :soon END
 WHERE stripe_customer_id = :stripe_customer_id AND meter = :meter
   AND least(since, since_before) IS NOT DISTINCT FROM :since
RETURNING meter
""")
_READ_AGAIN: Final = text("""
UPDATE summaries_due SET read_at = :now, wanted_at = :soon, next_try = :soon
 WHERE stripe_customer_id = :stripe_customer_id AND meter = :meter
""")

_DROP: Final = text("""
DELETE FROM summaries_due
 WHERE stripe_customer_id = :stripe_customer_id AND meter = :meter
   AND active_at = :active_at AND least(since, since_before) IS NOT DISTINCT FROM :since
RETURNING meter
""")

_POSTPONE: Final = text("""
UPDATE summaries_due SET next_try = :until
 WHERE stripe_customer_id = :stripe_customer_id AND meter = :meter
""")

# Not before Stripe shows what it accepted last: that reading would say nothing.
_READ_SOON: Final = text("""
UPDATE summaries_due
   SET since = least(since, :start),
       wanted_at = least(wanted_at, greatest(:now, active_at + :lag, read_at + :read_again)),
       next_try = least(next_try, greatest(:now, active_at + :lag, read_at + :read_again))
 WHERE meter = :meter AND active_at >= CAST(:start AS timestamptz) - CAST(:lag AS interval)
""")

_BACKLOG: Final = text("""
SELECT (SELECT min(wanted_at) FROM summaries_due) AS oldest,
       (SELECT count(*) FROM (SELECT FROM summaries_due WHERE wanted_at <= :now
                               LIMIT 100000) d) AS due
""")


@dataclass(frozen=True, slots=True)
class Backlog:
    """How many pairs are due, and for how many seconds the oldest of them has been."""

    due: int
    overdue: float


class Summaries:
    """Knows which customers' sums are due: ``lag`` after an answer, then once a day."""

    def __init__(self, database: Database, *, lag: timedelta) -> None:
        self._database = database
        self._lag = lag

    async def follow(self, now: datetime) -> bool:
        """Note whose reports were answered; return whether there is more to follow.

        Raises:
            RowsBusyError: another process follows.
            DatabaseUnavailableError: nothing was noted.
        """

        async def work(connection: AsyncConnection) -> bool:
            place = (await connection.execute(_PLACE)).one()._asdict()
            values = {
                **place,
                "until": now - COMMITTED_AFTER,
                "most": MAX_FOLLOWED,
                "read_after": self._lag + COMMITTED_AFTER,
                "read_again": READ_AGAIN,
            }
            last = (await connection.execute(_FOLLOW, values)).one_or_none()
            if last is None:
                return False
            reached = {"answered_at": last.answered_at, "identifier": last.identifier}
            await connection.execute(_MOVE, reached)
            return bool(last.number == MAX_FOLLOWED)

        return await self._database.run(work)

    async def lease(self, now: datetime, most: int) -> Sequence[Pair]:
        """Take up to ``most`` pairs that are due, for ``LEASE``.

        Raises:
            DatabaseUnavailableError: nothing was taken.
        """
        values = {"now": now, "until": now + LEASE, "most": most, "head_start": HEAD_START}
        rows = await self._database.run(lambda c: c.execute(_LEASE, values))
        return [Pair(**row._mapping) for row in rows]  # noqa: SLF001 - public

    async def finish(self, pair: Pair, now: datetime) -> None:
        """Store that ``pair`` was read at ``now``, and when it is due again.

        Raises:
            DatabaseUnavailableError: it will be read again.
        """
        its = {
            "stripe_customer_id": pair.stripe_customer_id,
            "meter": pair.meter,
            "active_at": pair.active_at,
            "since": pair.since,
            "now": now,
            "due_at": next_reading(pair, now, self._lag),
            "soon": now + READ_AGAIN,
            "settled_before": now - SETTLED_AFTER,
        }

        async def work(connection: AsyncConnection) -> None:
            as_read = _DROP if its["due_at"] is None else _READ
            if (await connection.execute(as_read, its)).first() is None:
                await connection.execute(_READ_AGAIN, its)

        await self._database.run(work)

    async def postpone(self, pair: Pair, until: datetime) -> None:
        """Leave ``pair`` for later.

        Raises:
            DatabaseUnavailableError: its lease runs out instead.
        """
        values = {
            "stripe_customer_id": pair.stripe_customer_id,
            "meter": pair.meter,
            "until": until,
        }
        await self._database.run(lambda c: c.execute(_POSTPONE, values))

    async def read_soon(self, meter: str, start: datetime, now: datetime) -> None:
        """Have everybody read soon who was active on ``meter`` from ``start`` on, or just before.

        Raises:
            RowsBusyError: another process follows the journal.
            DatabaseUnavailableError: nothing was changed.
        """
        values = {
            "meter": meter,
            "start": max(start, now - READ_FOR),
            "now": now,
            "lag": self._lag,
            "read_again": READ_AGAIN,
        }
        await self._change(_READ_SOON, values)

    async def read_again(self, identifiers: Sequence[str]) -> None:
        """Have the hours read again of reports that were rejected later, however old.

        Raises:
            RowsBusyError: another process follows the journal.
            DatabaseUnavailableError: nothing was changed.
        """
        values = {"identifiers": list(identifiers), "read_again": READ_AGAIN}
        await self._change(_REJECTED, values)

    async def _change(self, statement: TextClause, values: Mapping[str, Any]) -> None:
        async def work(connection: AsyncConnection) -> None:
            await connection.execute(_PLACE)
            await connection.execute(statement, values)

        await self._database.run(work)

    async def backlog(self, now: datetime) -> Backlog:
        """Return what is due.

        Raises:
            DatabaseUnavailableError: it can't be read.
        """
        row = (await self._database.run(lambda c: c.execute(_BACKLOG, {"now": now}))).one()
        overdue = 0.0 if row.oldest is None else (now - row.oldest).total_seconds()
        return Backlog(row.due, max(0.0, overdue))
