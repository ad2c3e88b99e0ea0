"""The SQL of the nightly sweep's progress: one row, which a process leases for a page at a time."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

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

_FINISH: Final = text(f"""
UPDATE subscription_sweep
   SET after_id = NULL, previous_at = started_at, started_at = NULL, due_at = :due_at {_OF_PAGE}
""")  # noqa: S608 - names of ours, no values

_ABANDON: Final = text(f"""
UPDATE subscription_sweep SET after_id = NULL, started_at = NULL, due_at = :due_at {_OF_PAGE}
""")  # noqa: S608 - names of ours, no values

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

    async def finish(self, page: SweepPage, due_at: datetime) -> None:
        """Record that all subscriptions have been read; the next sweep is due at a time."""
        await self._change(_FINISH, page, due_at=due_at)

    async def abandon(self, page: SweepPage, due_at: datetime) -> None:
        """Give a sweep up; the next one, from the first page on, is due at a time."""
        await self._change(_ABANDON, page, due_at=due_at)

    async def swept_at(self) -> datetime | None:
        """Return when the last complete sweep began; before there is one, when the first began."""

        async def work(connection: AsyncConnection) -> datetime | None:
            swept: datetime | None = await connection.scalar(_SWEPT)
            return swept

        return await self._database.run(work)

    async def _change(self, statement: TextClause, page: SweepPage, **values: Any) -> None:
        of_page = {"started_at": page.started_at, "page_after_id": page.after_id}
        await self._database.run(lambda c: c.execute(statement, {**of_page, **values}))
