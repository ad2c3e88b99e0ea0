"""The SQL of the nightly sweep's progress: one row, which a process leases for a page at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from customer_provisioner.readings import Reading
from nexus_database import Database

LEASE: Final = timedelta(minutes=10)
"""How long a page keeps other processes away."""

_LEASE: Final = text("""
UPDATE subscription_sweep
   SET due_at = :lease_end, started_at = coalesce(started_at, :now),
       first_at = coalesce(first_at, :now)
 WHERE due_at <= :now
RETURNING started_at, after_id, previous_at
""")

# Another process may have taken the page since its lease has ended: then its word counts.
_OF_PAGE: Final = """
 WHERE started_at = :started_at AND after_id IS NOT DISTINCT FROM CAST(:page_after_id AS text)
"""

_ADVANCE: Final = text(f"""
UPDATE subscription_sweep SET after_id = :after_id, due_at = :due_at {_OF_PAGE}
""")  # noqa: S608 - names of ours, no values

_NOTE_UNREAD: Final = text(f"""
UPDATE subscription_sweep SET unread = true {_OF_PAGE}
""")  # noqa: S608 - names of ours, no values

_FINISH: Final = text(f"""
UPDATE subscription_sweep
   SET after_id = NULL, previous_at = started_at, started_at = NULL, due_at = :due_at,
       read_until = CASE WHEN NOT unread THEN CAST(:now AS timestamptz) END,
       announced_at = NULL, unread = false {_OF_PAGE}
""")  # noqa: S608 - names of ours, no values

_ABANDON: Final = text(f"""
UPDATE subscription_sweep
   SET after_id = NULL, started_at = NULL, due_at = :due_at, unread = false {_OF_PAGE}
""")  # noqa: S608 - names of ours, no values

# A consumer that hears of the reading takes a subscription that it does not know for none. So each
# that the reading saw comes first: also one that has changed since, if it was not announced since
# the reading began.
_UNANNOUNCED: Final = text("""
SELECT previous_at, read_until FROM subscription_sweep
 WHERE read_until IS NOT NULL AND announced_at IS NULL
   AND NOT EXISTS (
       SELECT FROM subscriptions s
        WHERE s.announced_revision < s.revision AND s.account_id IS NOT NULL
          AND (s.as_of <= read_until OR s.announced_at IS NULL OR s.announced_at < previous_at))
""")

_MARK: Final = text("""
UPDATE subscription_sweep SET announced_at = :now
 WHERE previous_at = :began_at AND announced_at IS NULL
""")

_ANNOUNCED_SINCE: Final = text("""
SELECT previous_at, read_until FROM subscription_sweep
 WHERE announced_at >= :since AND read_until IS NOT NULL
""")

_SWEPT: Final = text("SELECT coalesce(previous_at, first_at) FROM subscription_sweep")


@dataclass(frozen=True, slots=True)
class SweepPage:
    """A page to sweep.

    Attributes:
        started_at: When this sweep began.
        after_id: The last subscription of the page before; None for the first page.
        previous_at: When the last complete sweep began; None if there was none.
    """

    started_at: datetime
    after_id: str | None
    previous_at: datetime | None


class SweepStore:
    """Keeps how far the sweep is, so that it goes on after a restart and runs in one process.

    Every method raises DatabaseUnavailableError while the database can't be used.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def lease(self, now: datetime) -> SweepPage | None:
        """Return the page to sweep now; None if none is due, or another process has it."""
        values = {"now": now, "lease_end": now + LEASE}

        async def work(connection: AsyncConnection) -> SweepPage | None:
            row = (await connection.execute(_LEASE, values)).one_or_none()
            return None if row is None else SweepPage(*row)

        return await self._database.run(work)

    async def advance(self, page: SweepPage, after_id: str | None, due_at: datetime) -> None:
        """Record that the pages up to a subscription are done; the next is due at a time."""
        await self._change(_ADVANCE, page, after_id=after_id, due_at=due_at)

    async def note_unread(self, page: SweepPage) -> None:
        """Record that a subscription was seen and can't be stored: the reading is not complete."""
        await self._change(_NOTE_UNREAD, page)

    async def finish(self, page: SweepPage, due_at: datetime, now: datetime) -> None:
        """Record that the last page was read by ``now``; the next sweep is due at a time."""
        await self._change(_FINISH, page, due_at=due_at, now=now)

    async def abandon(self, page: SweepPage, due_at: datetime) -> None:
        """Give a sweep up; the next one, from the first page on, is due at a time."""
        await self._change(_ABANDON, page, due_at=due_at)

    async def swept_at(self) -> datetime | None:
        """Return when the last complete sweep began; before there is one, when the first began."""

        async def work(connection: AsyncConnection) -> datetime | None:
            swept: datetime | None = await connection.scalar(_SWEPT)
            return swept

        return await self._database.run(work)

    async def unannounced(
        self, _limit: int = 1, aside: Sequence[Reading] = ()
    ) -> Sequence[Reading]:
        """Return the last complete reading, until it is announced.

        And not before every subscription that it saw is announced.
        """
        return [each for each in await self._readings(_UNANNOUNCED) if each not in aside]

    async def mark_announced(self, announced: Sequence[Reading], now: datetime) -> int:
        """Mark a reading as announced; return how many were marked."""
        values = [{"began_at": each.began_at, "now": now} for each in announced]

        async def work(connection: AsyncConnection) -> int:
            return sum([(await connection.execute(_MARK, each)).rowcount for each in values])

        return await self._database.run(work)

    async def announced_since(
        self, since: datetime, after: Reading | None, _limit: int
    ) -> Sequence[Reading]:
        """Return the last complete reading, if it was announced since a time; once."""
        return [] if after else await self._readings(_ANNOUNCED_SINCE, since=since)

    async def _readings(self, query: TextClause, **values: Any) -> Sequence[Reading]:
        async def work(connection: AsyncConnection) -> Sequence[Reading]:
            return [Reading(*row) for row in await connection.execute(query, values)]

        return await self._database.run(work)

    async def _change(self, statement: TextClause, page: SweepPage, **values: Any) -> None:
        of_page = {"started_at": page.started_at, "page_after_id": page.after_id}
        await self._database.run(lambda c: c.execute(statement, {**of_page, **values}))
