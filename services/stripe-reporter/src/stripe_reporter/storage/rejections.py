"""The attempts that Stripe does not count, `late_rejections`, and their marks in the journal.

What was heard is kept apart from the journal: it may come before the answer to the call.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_database import Database, RowRefusedError
from nexus_messaging.errors import PermanentError
from nexus_messaging.reasons import Reason
from stripe_reporter.counting import READ_FOR
from stripe_reporter.rejections import Rejection, Verdict, judge
from stripe_reporter.storage.journal import entry_of

_KEEP: Final = text("""
INSERT INTO late_rejections (identifier, key_n, code, heard_at)
SELECT n.identifier, n.key_n, n.code, :heard_at
  FROM unnest(CAST(:identifiers AS text[]), CAST(:key_ns AS int[]), CAST(:codes AS text[]))
    AS n(identifier, key_n, code)
 ORDER BY 1, 2
    ON CONFLICT DO NOTHING
RETURNING identifier
""")

# A report whose call is being answered is left for the next round. Keys of other senders may look
# like ours: they are looked for no longer than Stripe takes usage.
_JUDGED: Final = text("""
SELECT m.*, r.key_n AS rejected_key_n, r.code, r.heard_at
  FROM late_rejections r JOIN meter_calls m USING (identifier)
 WHERE r.verdict IS NULL AND r.heard_at > :oldest AND m.state = 'accepted'
 ORDER BY r.heard_at, r.identifier LIMIT :most
   FOR UPDATE SKIP LOCKED
""")

_SETTLE: Final = text("""
UPDATE late_rejections r SET verdict = n.verdict
  FROM unnest(CAST(:identifiers AS text[]), CAST(:key_ns AS int[]), CAST(:verdicts AS text[]))
    AS n(identifier, key_n, verdict)
 WHERE r.identifier = n.identifier AND r.key_n = n.key_n
""")

_MARK: Final = text("""
UPDATE meter_calls m SET rejected_later = n.code, rejected_later_at = n.heard_at
  FROM unnest(CAST(:identifiers AS text[]), CAST(:codes AS text[]),
              CAST(:heard AS timestamptz[])) AS n(identifier, code, heard_at)
 WHERE m.identifier = n.identifier AND m.rejected_later IS NULL
""")

_UNANNOUNCED: Final = text("""
SELECT r.identifier, r.key_n, m.report_id, m.rejected_later AS code, m.rejected_later_at AS at
  FROM late_rejections r JOIN meter_calls m USING (identifier)
 WHERE r.verdict = 'rejected' AND r.announced_at IS NULL
 ORDER BY r.heard_at, r.identifier LIMIT :most
""")

_ANNOUNCED: Final = text("""
UPDATE late_rejections r SET announced_at = :now
  FROM unnest(CAST(:identifiers AS text[]), CAST(:key_ns AS int[])) AS n(identifier, key_n)
 WHERE r.identifier = n.identifier AND r.key_n = n.key_n
""")

# Since when it could be judged and announced. What is judged is announced however old it is. Uses
# the index of those that are open.
_OLDEST_WAITING: Final = text("""
SELECT min(greatest(r.heard_at, m.answered_at))
  FROM late_rejections r JOIN meter_calls m USING (identifier)
 WHERE (r.verdict IS NULL OR (r.verdict = 'rejected' AND r.announced_at IS NULL))
   AND (r.verdict IS NOT NULL OR r.heard_at > :oldest) AND m.state = 'accepted'
""")

MAX_REJECTIONS: Final = 500
"""Rejections of one round."""


@dataclass(frozen=True, slots=True)
class Unannounced:
    """A marked report that has not been announced to the ledger."""

    identifier: str
    key_n: int
    report_id: UUID
    code: str
    at: datetime


class Rejections:
    """Keeps what Stripe said later, and marks the reports that it concerns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, rejections: Sequence[Rejection], heard_at: datetime) -> int:
        """Store attempts that Stripe does not count; return how many were not known.

        Raises:
            PermanentError: one can never be stored; none was.
            DatabaseUnavailableError: none was stored.
        """
        if not rejections:
            return 0
        values = {
            "identifiers": [each.identifier for each in rejections],
            "key_ns": [each.key_n for each in rejections],
            "codes": [each.code for each in rejections],
            "heard_at": heard_at,
        }
        try:
            new = await self._database.run(lambda c: c.execute(_KEEP, values))
        except RowRefusedError as error:
            raise PermanentError(Reason.UNSTORABLE, str(error)) from None
        return len(new.all())

    async def judge(self, now: datetime) -> Sequence[Verdict]:
        """Mark the reports whose acceptance rests on a rejected attempt, up to ``MAX_REJECTIONS``.

        Returns:
            What each rejection of an accepted report meant. Those of other reports stay open.

        Raises:
            DatabaseUnavailableError: nothing was marked.
        """

        async def work(connection: AsyncConnection) -> Sequence[Verdict]:
            values = {"oldest": now - READ_FOR, "most": MAX_REJECTIONS}
            rows = (await connection.execute(_JUDGED, values)).all()
            judged = [
                (row, verdict)
                for row in rows
                if (verdict := judge(entry_of(row), row.rejected_key_n)) is not None
            ]
            if not judged:
                return []
            verdicts = {
                "identifiers": [row.identifier for row, _ in judged],
                "key_ns": [row.rejected_key_n for row, _ in judged],
                "verdicts": [verdict.value for _, verdict in judged],
            }
            await connection.execute(_SETTLE, verdicts)
            marked: dict[str, Row[Any]] = {}
            for row, verdict in judged:
                if verdict is Verdict.REJECTED:
                    marked.setdefault(row.identifier, row)  # of several attempts, the first heard
            marks = {
                "identifiers": list(marked),
                "codes": [row.code for row in marked.values()],
                "heard": [row.heard_at for row in marked.values()],
            }
            await connection.execute(_MARK, marks)
            return [verdict for _, verdict in judged]

        return await self._database.run(work)

    async def unannounced(self) -> Sequence[Unannounced]:
        """Return marked reports that have not been announced, up to ``MAX_REJECTIONS``.

        Raises:
            DatabaseUnavailableError: they can't be read.
        """
        rows = await self._database.run(lambda c: c.execute(_UNANNOUNCED, {"most": MAX_REJECTIONS}))
        return [Unannounced(**row._mapping) for row in rows]  # noqa: SLF001 - public

    async def mark_announced(self, done: Sequence[Unannounced], now: datetime) -> None:
        """Store that the broker has confirmed the announcements of ``done``.

        Raises:
            DatabaseUnavailableError: they will be announced again.
        """
        values = {
            "identifiers": [each.identifier for each in done],
            "key_ns": [each.key_n for each in done],
            "now": now,
        }
        await self._database.run(lambda c: c.execute(_ANNOUNCED, values))

    async def oldest_waiting(self, now: datetime) -> datetime | None:
        """Return since when the oldest rejection waits that could be announced, if there is one.

        Raises:
            DatabaseUnavailableError: it can't be read.
        """
        values = {"oldest": now - READ_FOR}
        found = await self._database.run(lambda c: c.execute(_OLDEST_WAITING, values))
        since: datetime | None = found.scalar_one()
        return since
