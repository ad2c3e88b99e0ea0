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
from nexus_database import Database
from usage_ingest import adoption_rows as rows
from usage_ingest.adoption import Plan, plan
from usage_ingest.matching import Claim, Group, match

ADVISORY_LOCK: Final = 7_203_512
"""Any fixed number: two who take back at once wait for each other, batch by batch."""

LOCK: Final = text("SELECT pg_advisory_xact_lock(:key)")


@dataclass(frozen=True, slots=True)
class Adopted:
    """What a batch came to: done, or without ``execute`` to be done.

    ``known`` reports were there, of which ``marked`` have come further. ``missing`` counts events
    by customer; ``differing`` is how much more was reported than events read, by customer and
    meter. ``strangers`` counts reports by customers that the ledger does not know;
    ``contradictory`` names reports that it has otherwise. ``overtaken`` events were claimed by
    somebody else in that very moment.
    """

    known: int
    marked: int
    put_back: int
    claimed: int
    missing: Counter[str]
    differing: Counter[tuple[str, str]]
    strangers: Counter[str]
    contradictory: list[str]
    overtaken: int


class Adoptions:
    """Takes back batches of reports; repeating one takes only what was not there before.

    ``window`` must be the length that the reports were made with. Without ``execute`` nothing is
    changed, and one batch does not see what another would take.
    """

    def __init__(self, database: Database, *, window: timedelta, execute: bool) -> None:
        self._database = database
        self._window = window
        self._execute = execute

    async def adopt(self, records: Sequence[CallRecord]) -> Adopted:
        """Take back what the ledger lacks of ``records``, and as many events as they had.

        Raises:
            DatabaseUnavailableError: nothing was taken back.
        """
        latest = {record.report.report_id: record for record in records}
        return await self._database.run(lambda c: self._adopt(c, list(latest.values())))

    async def _adopt(self, connection: AsyncConnection, records: Sequence[CallRecord]) -> Adopted:
        await connection.execute(LOCK, {"key": ADVISORY_LOCK})
        ledger = await rows.ledger(connection, records)
        ids = {row.report.report_id for row in ledger}
        lost = [record.report for record in records if record.report.report_id not in ids]
        customers = {report.stripe_customer_id for report in lost}
        made = plan(records, ledger, await rows.accounts(connection, customers))
        claims = await rows.claims(connection, made)
        taken = await self._matched(connection, claims)
        claimed = len(taken)
        if self._execute:
            await rows.write(connection, made)
            claimed = await rows.claim(connection, taken)
        return _adopted(made, claims, len(records) - len(lost), claimed, len(taken) - claimed)

    async def _matched(
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


def _adopted(
    made: Plan, claims: Sequence[Claim], known: int, claimed: int, overtaken: int
) -> Adopted:
    missing: Counter[str] = Counter()
    differing: Counter[tuple[str, str]] = Counter()
    for claim in claims:
        missing[claim.first.report.stripe_customer_id] += claim.missing
        differing.update(claim.differences)
    return Adopted(
        known=known,
        marked=len(made.marks),
        put_back=len(made.rows),
        claimed=claimed,
        missing=+missing,
        differing=differing,
        strangers=Counter(each.report.stripe_customer_id for each in made.strangers),
        contradictory=[each.report.identifier for each in made.contradictory],
        overtaken=overtaken,
    )
