"""Which of Stripe's sums are read next, `summaries_due`, found by following the journal."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_database import Database
from stripe_reporter.counting import READ_AGAIN, SETTLED_AFTER, Pair

MOST_FOLLOWED: Final = 5000
"""Rows of the journal that are followed at once."""

COMMITTED_AFTER: Final = timedelta(minutes=1)
"""An answer is older than its commit; what is older than this is committed, or never will be."""

LEASE: Final = timedelta(minutes=15)
"""Longer than any reading takes. One that was cut off is begun again after it."""

# Of several processes one follows at a time.
_PLACE: Final = text("SELECT answered_at, identifier FROM summaries_place FOR UPDATE")

_FOLLOW: Final = text("""
WITH page AS (
    SELECT identifier, stripe_customer_id, meter, occurred_at, answered_at FROM meter_calls
     WHERE (answered_at, identifier) > (:answered_at, :identifier) AND answered_at < :until
     ORDER BY answered_at, identifier LIMIT :most
), answered AS (
    SELECT stripe_customer_id, meter, min(occurred_at) AS since, max(answered_at) AS active_at,
           min(answered_at) + :read_after AS wanted_at
      FROM page GROUP BY stripe_customer_id, meter ORDER BY 1, 2
), touched AS (
    INSERT INTO summaries_due AS d (
           stripe_customer_id, meter, since, active_at, wanted_at, next_try)
    SELECT stripe_customer_id, meter, since, active_at, wanted_at, wanted_at FROM answered
    ON CONFLICT (stripe_customer_id, meter) DO UPDATE
       SET since = least(d.since, excluded.since),
           active_at = greatest(d.active_at, excluded.active_at),
           wanted_at = least(d.wanted_at,
                             greatest(excluded.wanted_at, d.read_at + :read_again)),
           next_try = least(d.next_try,
                            greatest(excluded.next_try, d.read_at + :read_again))
)
SELECT (SELECT count(*) FROM page) AS number, answered_at, identifier
  FROM page ORDER BY answered_at DESC, identifier DESC LIMIT 1
""")

_MOVE: Final = text("""
UPDATE summaries_place SET answered_at = :answered_at, identifier = :identifier
""")

# What has answers that were not read yet comes first.
_LEASE: Final = text("""
UPDATE summaries_due SET next_try = :until
 WHERE ctid = ANY(ARRAY(
       SELECT ctid FROM summaries_due WHERE next_try <= :now
        ORDER BY since IS NULL, wanted_at LIMIT :most FOR UPDATE SKIP LOCKED))
RETURNING stripe_customer_id, meter, since, active_at
""")

# What was answered during the reading, or less than a day before it, is read once more.
_READ: Final = text("""
UPDATE summaries_due
   SET read_at = :now,
       since = CASE WHEN active_at < :settled_before THEN NULL ELSE since END,
       wanted_at = CASE WHEN active_at = :active_at THEN CAST(:due_at AS timestamptz)
                        ELSE :soon END,
       next_try = CASE WHEN active_at = :active_at THEN CAST(:due_at AS timestamptz)
                       ELSE :soon END
 WHERE stripe_customer_id = :stripe_customer_id AND meter = :meter
""")

_DROP: Final = text("""
DELETE FROM summaries_due
 WHERE stripe_customer_id = :stripe_customer_id AND meter = :meter AND active_at = :active_at
""")

_POSTPONE: Final = text("""
UPDATE summaries_due SET next_try = :until
 WHERE stripe_customer_id = :stripe_customer_id AND meter = :meter
""")

_READ_SOON: Final = text("""
UPDATE summaries_due
   SET since = least(since, :start), wanted_at = least(wanted_at, :now),
       next_try = least(next_try, :now)
 WHERE meter = :meter AND active_at >= :start
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
                "most": MOST_FOLLOWED,
                "read_after": self._lag + COMMITTED_AFTER,
                "read_again": READ_AGAIN,
            }
            last = (await connection.execute(_FOLLOW, values)).one_or_none()
            if last is None:
                return False
            reached = {"answered_at": last.answered_at, "identifier": last.identifier}
            await connection.execute(_MOVE, reached)
            return bool(last.number == MOST_FOLLOWED)

        return await self._database.run(work)

    async def lease(self, now: datetime, most: int) -> Sequence[Pair]:
        """Take up to ``most`` pairs that are due, for ``LEASE``.

        Raises:
            DatabaseUnavailableError: nothing was taken.
        """
        values = {"now": now, "until": now + LEASE, "most": most}
        rows = await self._database.run(lambda c: c.execute(_LEASE, values))
        return [Pair(**row._mapping) for row in rows]  # noqa: SLF001 - public

    async def finish(self, pair: Pair, now: datetime, due_at: datetime | None) -> None:
        """Store that ``pair`` was read at ``now`` and is due again, or never if ``None``.

        Raises:
            DatabaseUnavailableError: it will be read again.
        """
        its = {
            "stripe_customer_id": pair.stripe_customer_id,
            "meter": pair.meter,
            "active_at": pair.active_at,
        }
        if due_at is None:
            await self._database.run(lambda c: c.execute(_DROP, its))
        else:
            values = its | {"now": now, "due_at": due_at, "soon": now + READ_AGAIN}
            values["settled_before"] = now - SETTLED_AFTER
            await self._database.run(lambda c: c.execute(_READ, values))

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
        """Have everybody read now who was active on ``meter`` from ``start`` on.

        Raises:
            DatabaseUnavailableError: nothing was changed.
        """
        values = {"meter": meter, "start": start, "now": now}
        await self._database.run(lambda c: c.execute(_READ_SOON, values))

    async def backlog(self, now: datetime) -> Backlog:
        """Return what is due.

        Raises:
            DatabaseUnavailableError: it can't be read.
        """
        row = (await self._database.run(lambda c: c.execute(_BACKLOG, {"now": now}))).one()
        overdue = 0.0 if row.oldest is None else (now - row.oldest).total_seconds()
        return Backlog(row.due, max(0.0, overdue))
