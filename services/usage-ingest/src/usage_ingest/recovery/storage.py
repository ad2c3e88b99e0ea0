"""The ledger's side of recovery: a batch of reports, or of their events, in one transaction."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_contracts import CallRecord
from nexus_database import WAIT_FOR_LOCKS, Database
from usage_ingest.charging import Charges, UniqueMeters
from usage_ingest.columns import arrays
from usage_ingest.recovery.late import (
    LateReport,
    keep_beside,
    restore_first_uses,
    room_beside,
    take_back,
)
from usage_ingest.recovery.plan import (
    Account,
    Candidate,
    Changes,
    Claim,
    Group,
    ReportRow,
    ReportStatus,
    assign_events,
    plan_reports,
)
from usage_ingest.recovery.statements import (
    ACCOUNTS,
    ADVISORY_LOCK,
    CANDIDATES,
    CLAIM,
    CLAIMED,
    INSERT,
    LOCK,
    LOST_ROUTES,
    PLANS,
    REPORTS,
    SEARCHES,
    STORED,
    UPDATE,
    UPDATED,
)
from usage_ingest.storage.reports import stored_report


@dataclass(frozen=True, slots=True)
class RestoredReports:
    """What was done with a batch of reports, or would be done with ``execute``.

    The ledger had ``known`` of them, of which ``updated`` got another status. ``unknown_customers``
    counts the reports of customers that the ledger does not have; ``conflicts`` are the identifiers
    of reports that contradict it.
    """

    known: int
    updated: int
    inserted: int
    unknown_customers: Counter[str]
    conflicts: list[str]


@dataclass(frozen=True, slots=True)
class ClaimedEvents:
    """What was done with the events of a batch of reports, or would be done with ``execute``.

    ``missing`` counts events by customer; ``differences`` is how much more was reported than the
    events read, by customer and meter. ``overtaken`` events were claimed by another process at the
    same time.
    """

    claimed: int
    overtaken: int
    missing: Counter[str]
    differences: Counter[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Search:
    """A search for up to ``most`` events of a group, first for those from ``earliest`` on."""

    place: int
    group: Group
    earliest: datetime
    most: int


class Recovery:
    """Restores reports, then claims their events. Repeated, it changes only what is new.

    All reports are restored first: which events a claim may have is known only from all of its
    reports. ``window`` must be the length that the reports were made with, and ``charges`` are what
    plans charge routes as; with these, ``counting`` are the keys of which each run has one: the
    meter of all runs, and the routes that count runs in its place. Reports that are late, or on
    ``unique_meters``, sum up no readings of runs: they are restored, and no events are claimed for
    them. Without ``execute`` nothing is changed, and a batch does not see what another one would
    change.
    """

    def __init__(
        self,
        database: Database,
        *,
        window: timedelta,
        execute: bool,
        charges: Charges = MappingProxyType({}),
        counting: Collection[str] = frozenset(),
        unique_meters: UniqueMeters = MappingProxyType({}),
    ) -> None:
        self._database = database
        self._window = window
        self._execute = execute
        self._charges = charges
        self._counting = counting
        self._unique_meters = unique_meters
        self._apart = {meter for meter in unique_meters.values() if meter is not None}

    async def restore_reports(self, records: Sequence[CallRecord]) -> RestoredReports:
        """Insert the reports that the ledger lacks, and raise the state of the others.

        Raises:
            DatabaseUnavailableError: nothing was changed.
        """

        async def work(connection: AsyncConnection) -> RestoredReports:
            changes, known = await _plan(connection, records)
            if self._execute and changes.updates:
                await connection.execute(UPDATE, arrays(UPDATED, changes.updates.values()))
            if self._execute and changes.inserts:
                await connection.execute(INSERT, arrays(STORED, changes.inserts.values()))
            return RestoredReports(
                known=known,
                updated=len(changes.updates),
                inserted=len(changes.inserts),
                unknown_customers=Counter(
                    each.report.stripe_customer_id for each in changes.unknown_customers
                ),
                conflicts=[each.report.identifier for each in changes.conflicts],
            )

        return await self._database.run(work)

    async def lost_routes(self, routes: Collection[str]) -> list[str]:
        """Return the routes of unclaimed runs that are not among ``routes``.

        Raises:
            DatabaseUnavailableError: the database can't be used.
        """
        values = {"routes": list(routes)}
        return list((await self._database.run(lambda c: c.execute(LOST_ROUTES, values))).scalars())

    async def claim_events(
        self, records: Sequence[CallRecord], *, overruled: bool = False
    ) -> ClaimedEvents:
        """Claim as many events as the reports had, so that no other claim can take them.

        Events of the reports' accounts as they are known now; with ``overruled``, if these do not
        suffice, also events that another account has by a later assignment. All claims should first
        have had the former.

        Raises:
            DatabaseUnavailableError: nothing was claimed.
        """

        async def work(connection: AsyncConnection) -> ClaimedEvents:
            changes, _ = await _plan(connection, records)
            claims = await self._claims(connection, changes)
            taken, late = await self._assign(connection, claims, changes, overruled=overruled)
            claimed = len(taken)
            if self._execute:
                values = {"events": list(taken), "claims": list(taken.values())}
                claimed = (await connection.execute(CLAIM, values)).rowcount
                counted = {claim_id for claim_id, meter in changes.standing if meter in self._apart}
                await restore_first_uses(
                    connection, claims, set(taken.values()), counted, self._unique_meters
                )
            missing: Counter[str] = Counter()
            differences: Counter[tuple[str, str]] = Counter()
            for report in late:
                missing[report.stripe_customer_id] += report.lacking
            for claim in claims:
                missing[claim.first.report.stripe_customer_id] += claim.missing
                differences.update(claim.differences)
            return ClaimedEvents(claimed, len(taken) - claimed, +missing, differences)

        return await self._database.run(work)

    async def _assign(
        self,
        connection: AsyncConnection,
        claims: Sequence[Claim],
        changes: Changes,
        *,
        overruled: bool,
    ) -> tuple[dict[UUID, UUID], list[LateReport]]:
        """Return the claim of each event, and the late reports of the same groups."""
        groups: dict[Group, list[Claim]] = {}
        for claim in claims:
            if claim.missing:
                groups.setdefault(Group.of(claim, self._window), []).append(claim)
        beside: dict[Group, list[LateReport]] = {}
        if self._execute:
            of_late = (
                Group.of_row(row, self._window)
                for row in changes.standing.values()
                if row.report.late
            )
            beside = await take_back(connection, list({*groups, *of_late}), self._apart)
        taken: dict[UUID, UUID] = {}
        found = await _candidates(connection, groups, overruled=overruled)
        for group, lacking in groups.items():
            # A group with other dimensions may have been given the same event.
            free = [each for each in found[group] if each.event_id not in taken]
            room = room_beside(beside.get(group, []))
            taken |= assign_events(lacking, free, room)
            await keep_beside(connection, room, beside.get(group, []))
        of_batch = {row.claim_id for row in changes.standing.values()}
        late = [each for reports in beside.values() for each in reports]
        return taken, [each for each in late if each.claim_id in of_batch]

    async def _claims(self, connection: AsyncConnection, changes: Changes) -> list[Claim]:
        """Return the claims as the changes leave them, with the sums of their present events."""
        by_claim: dict[UUID, dict[str, ReportRow]] = {}
        for (claim_id, meter), row in changes.standing.items():
            if not row.report.late and meter not in self._apart:
                by_claim.setdefault(claim_id, {})[meter] = row
        claims = {
            claim_id: Claim(rows, self._charges, self._counting)
            for claim_id, rows in by_claim.items()
        }
        for found in await connection.execute(CLAIMED, {"claims": list(claims)}):
            claims[found.claim_id].events[found.key] = found.events
            claims[found.claim_id].sums[found.key] = found.value
        if self._charges:
            asked = {
                "claims": list(claims),
                "accounts": [each.first.account.account_id for each in claims.values()],
                "times": [each.occurred_at for each in claims.values()],
            }
            for found in await connection.execute(PLANS, asked):
                claims[found.claim_id].plan = found.plan_type
        return list(claims.values())


async def _plan(connection: AsyncConnection, records: Sequence[CallRecord]) -> tuple[Changes, int]:
    """Plan the changes; return also how many of the reports the ledger has."""
    await connection.execute(WAIT_FOR_LOCKS)
    await connection.execute(LOCK, {"key": ADVISORY_LOCK})
    latest = {record.report.report_id: record for record in records}
    values = {
        "ids": list(latest),
        "claims": [record.claim_id for record in latest.values()],
    }
    ledger = [_report_row(row) for row in await connection.execute(REPORTS, values)]
    lost = latest.keys() - {row.report.report_id for row in ledger}
    accounts = await _accounts(
        connection, {latest[each].report.stripe_customer_id for each in lost}
    )
    return plan_reports(list(latest.values()), ledger, accounts), len(latest) - len(lost)


def _report_row(row: Row[Any]) -> ReportRow:
    status = ReportStatus(
        row.state, row.forwarded_at, row.answered_at, row.reason, row.ever_unknown
    )
    account = Account(row.user_id, row.generation)
    return ReportRow(stored_report(row._asdict()), row.claim_id, account, status)


async def _accounts(connection: AsyncConnection, customers: Iterable[str]) -> dict[str, Account]:
    found = await connection.execute(ACCOUNTS, {"customers": sorted(customers)})
    return {row.stripe_customer_id: Account(row.user_id, row.generation) for row in found}


async def _candidates(
    connection: AsyncConnection, groups: Mapping[Group, Sequence[Claim]], *, overruled: bool
) -> dict[Group, list[Candidate]]:
    """Return, for each group, as many events as its claims may need."""
    searches = [
        Search(
            place,
            group,
            earliest=min(claim.occurred_at for claim in claims),
            most=sum(claim.missing for claim in claims),
        )
        for place, (group, claims) in enumerate(groups.items())
    ]
    found: dict[Group, list[Candidate]] = {group: [] for group in groups}
    values = {**arrays(SEARCHES, searches), "overruled": overruled}
    for row in await connection.execute(CANDIDATES, values):
        candidate = Candidate(row.event_id, row.occurred_at, row.readings, row.overruled)
        found[searches[row.place].group].append(candidate)
    return found
