"""The SQL of the loop. A row that is being published has a lease: its ``due_at`` is in the future.

No transaction is open while the broker is asked. A lease that runs out repeats events with the same
ids, harmlessly. All times are those of the database.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_contracts import MAX_BODY_BYTES
from nexus_database import WAIT_FOR_LOCKS, Database
from nexus_outbox.outcomes import Invalid, Refused, Row, RowOutcome, Sent, Unanswered

LEASE: Final = timedelta(seconds=60)
"""Longer than a round takes."""

BATCH: Final = 100
"""Events of one round: at most 25 MiB."""

PORTION: Final = 1000
"""Rows that one transaction prunes, recovers or makes due again."""

_CLAIM: Final = text("""
WITH picked AS (
    SELECT id FROM metering.outbox WHERE sent_at IS NULL AND due_at <= now()
     ORDER BY due_at LIMIT :most FOR UPDATE SKIP LOCKED)
UPDATE metering.outbox o SET due_at = now() + :lease
  FROM picked WHERE o.id = picked.id
RETURNING o.id, o.attempts,
          CASE WHEN octet_length(o.event::text) <= :max_bytes THEN o.event::text END AS body
""")

# Another loop may have published the event after the lease ran out: then it stays published.
_SENT: Final = text("""
UPDATE metering.outbox SET sent_at = now(), due_at = NULL, fault = NULL
 WHERE id = ANY(CAST(:ids AS uuid[])) AND sent_at IS NULL
""")

_INVALID: Final = text("""
UPDATE metering.outbox SET due_at = NULL, fault = :fault WHERE id = :id AND sent_at IS NULL
""")

_REFUSED: Final = text("""
UPDATE metering.outbox SET due_at = now() + :pause, attempts = attempts + 1, fault = :fault
 WHERE id = :id AND sent_at IS NULL
""")

_UNANSWERED: Final = text("""
UPDATE metering.outbox SET due_at = now()
 WHERE id = ANY(CAST(:ids AS uuid[])) AND sent_at IS NULL
""")

_STATUS: Final = text("""
SELECT waiting, refused, invalid, held, waiting_since, now() AS now
  FROM metering.status
""")

_PRUNE: Final = text("SELECT metering.prune(:keep, :most)")
_RECOVER: Final = text("SELECT metering.recover(:most)")

_INVALID_AGAIN: Final = text("""
WITH picked AS (
    SELECT id FROM metering.outbox WHERE sent_at IS NULL AND due_at IS NULL
     LIMIT :most FOR UPDATE SKIP LOCKED)
UPDATE metering.outbox o SET due_at = now(), fault = NULL FROM picked WHERE o.id = picked.id
""")

_NOW: Final = text("SELECT now()")
_COUNT_SENT: Final = text("SELECT count(*) FROM metering.outbox WHERE sent_at >= :since")

# Up to the start of the command: meanwhile loops publish the first rows, which are sent anew.
_SENT_AGAIN: Final = text("""
WITH picked AS (
    SELECT id FROM metering.outbox WHERE sent_at >= :since AND sent_at < :until
     LIMIT :most FOR UPDATE)
UPDATE metering.outbox o
   SET sent_at = NULL, due_at = now(), waiting_since = now(), attempts = 0
  FROM picked WHERE o.id = picked.id
""")


@dataclass(frozen=True, slots=True)
class Status:
    """Numbers of what is not published; ``oldest`` is the age of the oldest waiting event."""

    waiting: int
    refused: int
    invalid: int
    held: int
    oldest: timedelta


class Outbox:
    """The outbox in a database. Its methods raise what ``Database.run`` raises."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self) -> list[Row]:
        """Lease up to ``BATCH`` due rows that no other loop has."""

        async def work(connection: AsyncConnection) -> list[Row]:
            values = {"most": BATCH, "lease": LEASE, "max_bytes": MAX_BODY_BYTES}
            found = await connection.execute(_CLAIM, values)
            return [
                Row(row.id, row.attempts, None if row.body is None else row.body.encode())
                for row in found
            ]

        return await self._database.run(work)

    async def settle(self, outcomes: Sequence[RowOutcome]) -> None:
        """Store what became of claimed rows."""

        async def work(connection: AsyncConnection) -> None:
            for statement, kind in ((_SENT, Sent), (_UNANSWERED, Unanswered)):
                if ids := [each.id for each in outcomes if isinstance(each, kind)]:
                    await connection.execute(statement, {"ids": ids})
            for each in outcomes:
                if isinstance(each, Invalid):
                    await connection.execute(_INVALID, {"id": each.id, "fault": each.fault})
                elif isinstance(each, Refused):
                    values = {"id": each.id, "fault": each.fault, "pause": each.pause}
                    await connection.execute(_REFUSED, values)

        await self._database.run(work)

    async def status(self) -> Status:
        """Count what is not published."""

        async def work(connection: AsyncConnection) -> Status:
            row = (await connection.execute(_STATUS)).one()
            oldest = row.now - row.waiting_since if row.waiting_since else timedelta()
            return Status(
                row.waiting,
                row.refused,
                row.invalid,
                row.held,
                max(oldest, timedelta()),
            )

        return await self._database.run(work)

    async def prune(self, keep: timedelta) -> int:
        """Delete up to ``PORTION`` events published more than ``keep`` ago, and count them."""

        async def work(connection: AsyncConnection) -> int:
            return int(await connection.scalar(_PRUNE, {"keep": keep, "most": PORTION}) or 0)

        return await self._database.run(work)

    async def recover(self) -> int:
        """Move up to ``PORTION`` held events into the outbox, and count them."""

        async def work(connection: AsyncConnection) -> int:
            return int(await connection.scalar(_RECOVER, {"most": PORTION}) or 0)

        return await self._database.run(work)

    async def retry_invalid(self) -> int:
        """Make all events that were set aside due again, and count them."""

        async def work(connection: AsyncConnection) -> int:
            await connection.execute(WAIT_FOR_LOCKS)
            return (await connection.execute(_INVALID_AGAIN, {"most": 2**31 - 1})).rowcount

        return await self._database.run(work)

    async def count_sent(self, since: datetime) -> int:
        """Count the kept events that were published since a time."""

        async def work(connection: AsyncConnection) -> int:
            return int(await connection.scalar(_COUNT_SENT, {"since": since}) or 0)

        return await self._database.run(work)

    async def publish_again(self, since: datetime) -> int:
        """Make all kept events due again that were published since a time, and count them."""

        async def now(connection: AsyncConnection) -> datetime:
            found: datetime = (await connection.execute(_NOW)).scalar_one()
            return found

        values = {"since": since, "until": await self._database.run(now), "most": PORTION}

        async def portion(connection: AsyncConnection) -> int:
            await connection.execute(WAIT_FOR_LOCKS)
            return (await connection.execute(_SENT_AGAIN, values)).rowcount

        number = 0
        while moved := await self._database.run(portion):
            number += moved
        return number
