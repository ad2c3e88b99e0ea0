"""The ledger's side of recovery: a batch of reports, or of their events, in one transaction."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from uuid import UUID

from sqlalchemy import TextClause
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_contracts import CallRecord
from nexus_database import WAIT_FOR_LOCKS, Database
from usage_ingest.charging import Charges, UniqueMeters
from usage_ingest.columns import arrays
from usage_ingest.recovery import late
from usage_ingest.recovery.events import (
    Beside,
    Candidate,
    Claim,
    Differences,
    Group,
    assign_events,
)
from usage_ingest.recovery.first_uses import restore_first_uses
from usage_ingest.recovery.reports import Changes, CustomerAccount, ReportRow, plan_reports
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
    report_row,
)


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

    ``missing`` counts events by customer, ``unknown_tools`` the tools that were charged by first
    uses of which none is known now. ``overtaken`` events were claimed by another process at the
    same time.
    """

    claimed: int
    overtaken: int
    missing: Counter[str]
    unknown_tools: Counter[str]
    differences: Differences


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
    them. The journal has no shadow report: usage of before ``live_from`` is left to the service,
    which claims it again as what it was. Without ``execute`` nothing is changed, and a batch does
    not see what another one would change.
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
        live_from: datetime | None = None,
    ) -> None:
        self._database = database
        self._window = window
        self._execute = execute
        self._charges = charges
        self._counting = counting
        self._unique_meters = unique_meters
        self._live_from = live_from
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
            standing = changes.standing.values()
            tools = [row for row in standing if row.report.meter in self._apart]
            others = [row for row in standing if row.report.meter not in self._apart]
            late_rows = [row for row in others if row.report.late]
            own = [row for row in others if not row.report.late]
            claims = await self._claims(connection, own, CLAIMED)
            late_claims, taken = await self._assign(
                connection, claims, late_rows, overruled=overruled
            )
            claimed, unknown_tools = len(taken), Counter[str]()
            if self._execute:
                values = {"events": list(taken), "claims": list(taken.values())}
                claimed = (await connection.execute(CLAIM, values)).rowcount
                unknown_tools = await restore_first_uses(
                    connection, claims, set(taken.values()), tools, self._unique_meters
                )
            missing: Counter[str] = Counter()
            differences = Differences()
            for claim in (*claims, *late_claims):
                missing[claim.first.report.stripe_customer_id] += claim.missing
                differences.add(claim.differences)
            return ClaimedEvents(
                claimed, len(taken) - claimed, +missing, unknown_tools, differences
            )

        return await self._database.run(work)

    async def _assign(
        self,
        connection: AsyncConnection,
        claims: Sequence[Claim],
        late_rows: Sequence[ReportRow],
        *,
        overruled: bool,
    ) -> tuple[list[Claim], dict[UUID, UUID]]:
        """Return the late claims that ``late_rows`` are of, and the claim of each event."""
        groups: dict[Group, list[Claim]] = {}
        for claim in claims:
            if claim.missing:
                groups.setdefault(Group.of(claim, self._window, self._live_from), []).append(claim)
        beside: dict[Group, list[Claim]] = {}
        if self._execute:
            of_late = (Group.of_row(row, self._window, self._live_from) for row in late_rows)
            beside = await self._late_claims(connection, list({*groups, *of_late}))
            await late.take_back(connection, beside)
        taken: dict[UUID, UUID] = {}
        found = await _candidates(connection, groups, overruled=overruled)
        for group, lacking in groups.items():
            # A group with other dimensions may have been given the same event.
            free = [each for each in found[group] if each.event_id not in taken]
            room = Beside.of(beside.get(group, ()))
            taken |= assign_events(lacking, free, room)
            await late.keep_beside(connection, room, beside.get(group, ()))
        of_batch = {row.claim_id for row in late_rows}
        late_claims = [each for of in beside.values() for each in of]
        return [each for each in late_claims if each.first.claim_id in of_batch], taken

    async def _late_claims(
        self, connection: AsyncConnection, groups: Sequence[Group]
    ) -> dict[Group, list[Claim]]:
        """Return all late claims of some groups, whichever batch their reports are in."""
        reports = await late.late_reports(connection, groups, self._apart)
        group_of = {row.claim_id: group for group, row in reports}
        claims = await self._claims(connection, [row for _, row in reports], late.CLAIMED)
        found: dict[Group, list[Claim]] = {group: [] for group in groups}
        for claim in claims:
            claim.counting = {key for charges in self._charges.values() for key in charges}
            found[group_of[claim.first.claim_id]].append(claim)
        return found

    async def _claims(
        self, connection: AsyncConnection, reports: Iterable[ReportRow], claimed: TextClause
    ) -> list[Claim]:
        """Return the claims of standing reports, with the sums of their present readings."""
        by_claim: dict[UUID, dict[str, ReportRow]] = {}
        for row in reports:
            by_claim.setdefault(row.claim_id, {})[row.report.meter] = row
        claims = {
            claim_id: Claim(rows, self._charges, self._counting)
            for claim_id, rows in by_claim.items()
        }
        for found in await connection.execute(claimed, {"claims": list(claims)}):
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
    ledger = [report_row(row) for row in await connection.execute(REPORTS, values)]
    lost = latest.keys() - {row.report.report_id for row in ledger}
    accounts = await _accounts(
        connection, {latest[each].report.stripe_customer_id for each in lost}
    )
    return plan_reports(list(latest.values()), ledger, accounts), len(latest) - len(lost)


async def _accounts(
    connection: AsyncConnection, customers: Iterable[str]
) -> dict[str, CustomerAccount]:
    found = await connection.execute(ACCOUNTS, {"customers": sorted(customers)})
    return {row.stripe_customer_id: CustomerAccount(row.user_id, row.generation) for row in found}


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
