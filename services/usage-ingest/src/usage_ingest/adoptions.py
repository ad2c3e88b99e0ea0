"""Taking back what a restored ledger lost: a batch of reports and their events, one transaction."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_contracts import CallRecord
from nexus_database import WAIT_FOR_LOCKS, Database
from usage_ingest import adoption_rows as rows
from usage_ingest.adoption import Plan, plan
from usage_ingest.matching import Claim, Group, match

ADVISORY_LOCK: Final = 7_203_512
"""Any fixed number: two who take back at once wait for each other, batch by batch."""

LOCK: Final = text("SELECT pg_advisory_xact_lock(:key)")


@dataclass(frozen=True, slots=True)
class Returned:
    """What became of a batch of reports, or without ``execute`` would have.

    ``known`` were there, of which ``marked`` have come further. ``strangers`` counts reports by
    customers that the ledger does not know; ``contradictory`` names those that it has otherwise.
    """

    known: int
    marked: int
    put_back: int
    strangers: Counter[str]
    contradictory: list[str]


@dataclass(frozen=True, slots=True)
class Matched:
    """What became of the events of a batch of reports, or without ``execute`` would have.

    ``missing`` counts events by customer; ``differing`` is how much more was reported than events
    read, by customer and meter. ``overtaken`` were claimed by somebody else in that very moment.
    """

    claimed: int
    overtaken: int
    missing: Counter[str]
    differing: Counter[tuple[str, str]]


class Adoptions:
    """Takes back batches of reports, then their events; repeating either takes only what is new.

    All reports go first: only from all reports of a claim is it known which events it can have.
    ``window`` must be the length that the reports were made with. Without ``execute`` nothing is
    changed, and one batch does not see what another would do.
    """

    def __init__(self, database: Database, *, window: timedelta, execute: bool) -> None:
        self._database = database
        self._window = window
        self._execute = execute

    async def put_back(self, records: Sequence[CallRecord]) -> Returned:
        """Put back the reports that the ledger lacks, and raise those it has.

        Raises:
            DatabaseUnavailableError: none was changed.
        """

        async def work(connection: AsyncConnection) -> Returned:
            made, known = await _planned(connection, records)
            if self._execute:
                await rows.write(connection, made)
            return Returned(
                known=known,
                marked=len(made.marks),
                put_back=len(made.rows),
                strangers=Counter(each.report.stripe_customer_id for each in made.strangers),
                contradictory=[each.report.identifier for each in made.contradictory],
            )

        return await self._database.run(work)

    async def match(self, records: Sequence[CallRecord]) -> Matched:
        """Claim for the reports as many events as they had, so that nothing else claims them.

        Raises:
            DatabaseUnavailableError: none was claimed.
        """

        async def work(connection: AsyncConnection) -> Matched:
            made, _ = await _planned(connection, records)
            claims = await rows.claims(connection, made)
            taken = await self._taken(connection, claims)
            claimed = await rows.claim(connection, taken) if self._execute else len(taken)
            return _matched(claims, claimed, len(taken) - claimed)

        return await self._database.run(work)

    async def _taken(
        self, connection: AsyncConnection, claims: Sequence[Claim]
    ) -> dict[UUID, UUID]:
        groups: dict[Group, list[Claim]] = {}
        for claim in claims:
            if claim.missing:
                groups.setdefault(Group.of(claim, self._window), []).append(claim)
        taken: dict[UUID, UUID] = {}
        found = await rows.candidates(connection, groups)
        for group, lacking in groups.items():
            # Groups of other dimensions may have been offered the same event.
            offered = [each for each in found[group] if each.event_id not in taken]
            taken |= match(lacking, offered)
        return taken


async def _planned(connection: AsyncConnection, records: Sequence[CallRecord]) -> tuple[Plan, int]:
    """Plan what the ledger takes back; tell also how many of the reports it has."""
    await connection.execute(WAIT_FOR_LOCKS)
    await connection.execute(LOCK, {"key": ADVISORY_LOCK})
    latest = {record.report.report_id: record for record in records}
    ledger = await rows.ledger(connection, list(latest.values()))
    lost = latest.keys() - {row.report.report_id for row in ledger}
    customers = {latest[each].report.stripe_customer_id for each in lost}
    accounts = await rows.accounts(connection, customers)
    return plan(list(latest.values()), ledger, accounts), len(latest) - len(lost)


def _matched(claims: Sequence[Claim], claimed: int, overtaken: int) -> Matched:
    missing: Counter[str] = Counter()
    differing: Counter[tuple[str, str]] = Counter()
    for claim in claims:
        missing[claim.first.report.stripe_customer_id] += claim.missing
        differing.update(claim.differences)
    return Matched(claimed, overtaken, +missing, differing)
