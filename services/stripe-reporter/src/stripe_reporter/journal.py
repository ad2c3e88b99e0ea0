"""The memory of what may have been charged: a row is committed before each call and after it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_database import Database, RowRefusedError, RowsBusyError
from stripe_reporter import rows
from stripe_reporter.entries import CALL_LIFETIME, Entry
from stripe_reporter.fence import BeingCalled, Call, Decision, Taken, decide
from stripe_reporter.groups import Groups
from stripe_reporter.meanings import Meaning
from stripe_reporter.reports import Report


@dataclass(frozen=True, slots=True)
class _Claim:
    report: Report
    at: datetime

    def decided(self, entry: Entry | None) -> Decision:
        return decide(self.report, entry, self.at)

    def met(self, found: Mapping[str, Entry]) -> Decision:
        """Decide after the report was met in the journal, where it may stand otherwise named."""
        entry = found.get(self.report.identifier)
        decision = self.decided(entry)
        # The insert met the report under another identifier: Stripe would count both.
        return Taken() if entry is None and isinstance(decision, Call) else decision


@dataclass(frozen=True, slots=True)
class _Answer:
    call: Call
    meaning: Meaning
    at: datetime

    @property
    def identifier(self) -> str:
        return self.call.report.identifier

    def applied(self, entry: Entry) -> Entry:
        return entry.answered(self.call.entry.attempts, self.meaning, self.at)


class Journal:
    """Claims reports for a call and records the answers; both are compare-and-set."""

    def __init__(self, database: Database) -> None:
        self._database = database
        of_one = (RowRefusedError, RowsBusyError)
        self._claims = Groups(self._claim, somebodys_fault=of_one)
        self._answers = Groups(self._record, somebodys_fault=of_one)

    async def claim(self, report: Report, now: datetime) -> Decision:
        """Decide on ``report`` and, if it is to be called, commit that it is being called.

        Whoever holds its row in a transaction is deciding on it, or has answered, at this moment.

        Raises:
            DatabaseUnavailableError: nothing was claimed, or nobody knows; do not call.
            RowRefusedError: the report can never be stored.
        """
        try:
            return await self._claims.one(_Claim(report, now))
        except RowsBusyError:
            return BeingCalled()

    async def record(self, call: Call, meaning: Meaning, at: datetime) -> Entry:
        """Commit what became of ``call`` and return the row.

        Raises:
            RowsBusyError: another transaction holds the row, which says ``calling``.
            DatabaseUnavailableError: the row still says ``calling``, which becomes ``unknown``.
        """
        return await self._answers.one(_Answer(call, meaning, at))

    async def oldest_unknown(self, now: datetime) -> datetime | None:
        """Return since when the oldest unknown outcome has been unknown, if there is any.

        Raises:
            DatabaseUnavailableError: it can't be asked.
        """
        lost_before = now - CALL_LIFETIME
        return await self._database.run(lambda c: rows.oldest_unknown(c, lost_before))

    async def _claim(self, group: Sequence[_Claim]) -> Sequence[Decision]:
        return await self._database.run(lambda connection: _claimed(connection, group))

    async def _record(self, group: Sequence[_Answer]) -> Sequence[Entry]:
        return await self._database.run(lambda connection: _recorded(connection, group))


async def _claimed(connection: AsyncConnection, group: Sequence[_Claim]) -> list[Decision]:
    """Claim what is new by inserting it, and decide on the locked rows of all others.

    Of copies in one group the first may be inserted; the others then find its row.
    """
    decisions = [claim.decided(None) for claim in group]
    fresh: dict[str, tuple[int, Call]] = {}
    for place, decision in enumerate(decisions):
        if isinstance(decision, Call):
            fresh.setdefault(decision.report.identifier, (place, decision))
    inserted = await rows.insert(connection, [call for _, call in fresh.values()])
    won = {fresh[identifier][0] for identifier in inserted}
    met = [place for place in range(len(group)) if place not in won]
    found, held = await rows.locked(connection, [group[place].report.identifier for place in met])
    claimed: dict[str, Entry] = {}
    for place in met:
        if group[place].report.identifier in held:
            decisions[place] = BeingCalled()
            continue
        decisions[place] = decision = group[place].met(found)
        if isinstance(decision, Call):
            claimed[decision.report.identifier] = decision.entry
            found[decision.report.identifier] = decision.entry
    await rows.write(connection, claimed)
    return decisions


async def _recorded(connection: AsyncConnection, group: Sequence[_Answer]) -> list[Entry]:
    """Write the answers of calls that nobody took over; look at the rows of the others."""
    entries = [answer.applied(answer.call.entry) for answer in group]
    written = await rows.answer(
        connection,
        {answer.identifier: entry for answer, entry in zip(group, entries, strict=True)},
    )
    late = [place for place, answer in enumerate(group) if answer.identifier not in written]
    found, held = await rows.locked(connection, [group[place].identifier for place in late])
    if held:
        raise RowsBusyError
    for place in late:
        name = group[place].identifier
        entries[place] = found[name] = group[place].applied(found[name])
    await rows.write(connection, {group[place].identifier: entries[place] for place in late})
    return entries
