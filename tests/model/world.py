"""Each piece of work done twice: by the real parts on the databases, and by the reference."""

from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from model.flight import Flight, Outcome
from model.reference import Key, Reference, Stripe, Usage
from model.stage import Seen, Stage
from nexus_contracts import CustomerProvisioned, UsageRecorded, UsageRejected
from nexus_stripe.answers import Answer as StripeAnswer
from rig.events import provisioned
from stripe_reporter.reports import Report
from usage_ingest.entry import Entry
from usage_ingest.metering import BillingRules, ToolRun
from usage_ingest.storage.ledger import Duplicate, HeldByNewer, IdTaken, Recorded, Result
from usage_ingest.storage.reports import Answer

Work = Coroutine[Any, Any, None]

RULES: Final = BillingRules("runs", "tokens", frozenset({"succeeded"}))
START: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Fate(StrEnum):
    """What becomes of a published report."""

    CONFIRMED = "confirmed"
    UNCONFIRMED = "arrived, but not confirmed"
    LOST = "lost"


def usage(event: ToolRun) -> Usage:
    """Return what the reference knows of an event."""
    run = event.data
    meaning = (event.source, event.time, *run.model_dump(exclude={"metadata"}).values())
    read = {"runs": 1, "tokens": run.token_count or 0} if run.status == "succeeded" else {}
    billed = {meter: value for meter, value in read.items() if value}
    return Usage(meaning, run.user_id, run.server_id, event.time, billed)


def word(result: Result) -> str:
    """Return the reference's word for what became of an event."""
    match result:
        case Recorded(state):
            return state.value
        case Duplicate():
            return "duplicate"
        case IdTaken():
            return "taken"
        case HeldByNewer():
            return "held by a later release"


def customer(user: UUID, generation: int) -> CustomerProvisioned:
    """Return the news of a user's customer; there is one for each generation."""
    return provisioned(user, f"cus_{user.int}x{generation}", generation).data


class World:
    """All there is: the real parts, the reference, Stripe, and what is on its way between them.

    ``sent`` are all events, ``messages`` the reports that were ever published, and ``outcomes``
    what was ever told.
    """

    def __init__(self, stage: Stage) -> None:
        stage.clear()
        self.stage = stage
        self.now = START
        self.reference = Reference()
        self.stripe = Stripe()
        self.seen = Seen({}, {}, {}, set())
        self.sent: list[ToolRun] = []
        self.leases: list[list[UsageRecorded]] = []
        self.messages: dict[Key, UsageRecorded] = {}
        self.flights: list[Flight] = []
        self.outcomes: list[tuple[Key, Outcome]] = []

    async def record(self, batch: Sequence[ToolRun]) -> None:
        """Record a batch of events."""
        entries = [Entry.of(event, RULES, self.now) for event in batch]
        results = await self.stage.parts.ledger.record(entries)
        expected = [self.reference.record(each.id, usage(each), self.now) for each in batch]
        assert [word(result) for result in results] == expected

    async def record_while_provisioning(self, user: UUID, batch: Sequence[ToolRun]) -> None:
        """Record the events of a user in a transaction that doesn't see the user's account yet."""
        news, entries = customer(user, 1), [Entry.of(event, RULES, self.now) for event in batch]
        recording = self.stage.slow.ledger.record(entries)
        await self.stage.held.during(recording, self.stage.parts.accounts.apply(news))
        self.reference.provision(user, 1, news.stripe_customer_id)
        for event in batch:
            if self.reference.record(event.id, usage(event), self.now) == "due":
                self.reference.events[event.id].state = "waiting"

    async def provision(self, user: UUID, generation: int) -> None:
        """Announce a customer."""
        news = customer(user, generation)
        is_news = generation > self.reference.accounts.get(user, (0, ""))[0]
        assert await self.stage.parts.accounts.apply(news) == is_news
        self.reference.provision(user, generation, news.stripe_customer_id)

    async def reprovision(self, user: UUID) -> None:
        """Delete a user's customer at Stripe, and announce the next one."""
        generation, known = self.reference.accounts[user]
        self.stripe.deleted.add(known)
        await self.provision(user, generation + 1)

    async def wait(self, time: timedelta) -> None:
        """Let time pass."""
        self.now += time

    async def delete_customer(self, name: str) -> None:
        """Delete a customer at Stripe."""
        self.stripe.deleted.add(name)

    async def sweep(self) -> None:
        """Sweep."""
        await self.stage.parts.accounts.sweep(self.now)
        self.reference.sweep(self.now)

    async def claim(self, *, at_once: bool) -> None:
        """Claim; ``at_once``, another claimer finds all of it taken while the first is at it."""
        claims = self.stage.parts.claims
        if at_once:
            first = self.stage.slow.claims.claim(self.now)
            _, second = await self.stage.held.during(first, claims.claim(self.now))
            assert second.events == 0
        else:
            await claims.claim(self.now)
        self.reference.claim(self.now)

    async def lease(self, *, at_once: bool) -> None:
        """Lease what is pending; ``at_once``, another finds all of it leased meanwhile."""
        reports = self.stage.parts.reports
        if at_once:
            first = self.stage.slow.reports.lease(self.now)
            leased, none = await self.stage.held.during(first, reports.lease(self.now))
            assert none.reports == []
        else:
            leased = await reports.lease(self.now)
        expected = self.reference.lease(self.now)
        assert {self.seen.key_of(each.report_id) for each in leased.reports} == expected
        if leased.reports:
            self.leases.append(sorted(leased.reports, key=self._order))

    async def publish(
        self, lease: Sequence[UsageRecorded], fates: Sequence[Fate], *, marked: bool
    ) -> None:
        """Publish a lease and mark what became of each report, unless the process dies first."""
        keys = [self.seen.key_of(each.report_id) for each in lease]
        arrived = {
            key: report
            for key, report, fate in zip(keys, lease, fates, strict=True)
            if fate is not Fate.LOST
        }
        self.messages |= arrived
        if not marked:
            return
        confirmed = [fate is Fate.CONFIRMED for fate in fates]
        await self.stage.parts.reports.settle_lease(
            self.now,
            forwarded=[each.report_id for each, sure in zip(lease, confirmed, strict=True) if sure],
            failed=[
                each.report_id for each, sure in zip(lease, confirmed, strict=True) if not sure
            ],
        )
        for key, sure in zip(keys, confirmed, strict=True):
            self.reference.settle_lease(key, confirmed=sure)

    async def answer(self, batch: Sequence[tuple[Key, Outcome]]) -> None:
        """Apply a batch of outcomes."""
        applied = await self.stage.parts.reports.answer([Answer.of(each) for _, each in batch])
        assert not applied.unknown
        by_time = sorted(batch, key=lambda each: each[1].at)
        for key in {key for key, _ in batch}:
            told = [outcome for each, outcome in by_time if each == key]
            refused = [each for each in told if isinstance(each, UsageRejected)]
            reason = refused[-1].reason if refused == told else None
            self.reference.answer(key, reason, ever_unknown=any(each.ever_unknown for each in told))

    async def deliver(self, key: Key, *, reaches: bool, calls: bool) -> None:
        """Deliver a report to a reporter, until it halts before its call or in it."""
        flight = Flight(self.stage, self.reference, self.stripe, key, self._tick)
        flight.reaches = reaches
        self.flights.append(flight)
        await flight.take_off(self.messages[key])
        if flight.place == "claimed" and calls:
            await flight.go_on()
        self._land(flight)

    async def go_on(self, flight: Flight, answer: StripeAnswer | None) -> None:
        """Let a delivery go on from where it halts."""
        await flight.go_on(answer)
        self._land(flight)

    async def crash(self, flight: Flight) -> None:
        """Let a delivery's process die."""
        await flight.crash()
        self._land(flight)

    def in_doubt(self) -> list[Key]:
        """Return the reports that wait for a person to look for them at Stripe."""
        return [key for key in self.messages if self._in_doubt(key)]

    async def settle_by_hand(self, key: Key) -> None:
        """Look for a report at Stripe, make it there if that is possible, tell the journal."""
        report = Report.of(self.messages[key])
        if report not in self.stripe.counted:
            self.stripe.receive(report, self.now)
        calls = self.reference.journal[key]
        if report in self.stripe.counted:
            await self.stage.settle_by_hand(report.identifier, self.now, counted=True)
            calls.state = "accepted"
        elif report.facts.stripe_customer_id in self.stripe.deleted:
            await self.stage.settle_by_hand(report.identifier, self.now, counted=False)
            calls.state, calls.by_hand = "refused", True

    def _in_doubt(self, key: Key) -> bool:
        calls, bill = self.reference.journal.get(key), self.reference.reports[key]
        refused = bill.customer in self.stripe.deleted and calls and calls.state == "unknown"
        return bool(refused) or self.reference.verdict(key, self.now) == "fenced"

    def _order(self, report: UsageRecorded) -> tuple[object, ...]:
        """Return what orders reports alike in every run, which their random ids don't."""
        events, meter, generation = self.seen.key_of(report.report_id)
        return (sorted(events), meter, generation)

    def _tick(self) -> datetime:
        """Return the time; no two readings of a clock are the same."""
        self.now += timedelta(microseconds=1)
        return self.now

    def _land(self, flight: Flight) -> None:
        if flight.place not in {"claimed", "called"}:
            self.flights.remove(flight)
            self.outcomes += [(flight.key, each) for each in flight.published.outcomes]
