"""The system under test beside its model: each piece of work is done by both."""

from collections.abc import Callable, Collection, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from model.delivery import Outcome, ReportDelivery
from model.environment import Environment, Seen
from model.reference import Hour, Key, Reference, Stripe, Usage
from model.sums import Reading, Sums, read
from nexus_contracts import (
    CustomerProvisioned,
    UsageRecorded,
    UsageRejected,
    UsageRejectedLater,
    UsageReported,
    UserAssigned,
)
from nexus_stripe.answers import StripeAnswer
from stripe_reporter.outcomes import rejected_later
from stripe_reporter.rejections import Rejection
from stripe_reporter.reports import Report
from support.events import provisioned
from usage_ingest.entry import Entry
from usage_ingest.metering import BillingRules, ToolRun
from usage_ingest.storage.ledger import (
    DetailsAdded,
    DetailsTaken,
    Duplicate,
    HeldByNewer,
    IdTaken,
    Recorded,
    Result,
)
from usage_ingest.storage.reports import ReportAnswer

Work = Coroutine[Any, Any, None]

RULES: Final = BillingRules("runs", "tokens", frozenset({"succeeded"}))
DETAILS: Final = ("model", "input_tokens", "output_tokens", "cached_tokens")
START: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Fate(StrEnum):
    """The result of publishing a report."""

    CONFIRMED = "confirmed"
    UNCONFIRMED = "arrived, but not confirmed"
    LOST = "lost"


def usage(event: ToolRun) -> Usage:
    """Return an event as the reference knows it."""
    run = event.data
    fields = run.model_dump(exclude={"metadata"})
    details = tuple(fields.pop(name) for name in DETAILS if name in fields)
    meaning = (event.source, event.time, *fields.values())
    read = {"runs": 1, "tokens": run.token_count or 0} if run.status == "succeeded" else {}
    billed = {meter: value for meter, value in read.items() if value}
    return Usage(meaning, details or None, run.user_id, run.server_id, event.time, billed)


def word(result: Result) -> str:
    """Return the reference's word for the result of recording an event."""
    match result:
        case Recorded(state):
            return state.value
        case DetailsAdded():
            return "details added"
        case Duplicate():
            return "duplicate"
        case IdTaken() | DetailsTaken():
            return "taken"
        case HeldByNewer():
            return "held by a later release"


def customer(user: UUID, generation: int) -> CustomerProvisioned:
    """Return the announcement of a user's customer; there is one for each generation."""
    return provisioned(user, f"cus_{user.int}x{generation}", generation).data


class System:
    """The real parts, the reference, Stripe, and the messages between them.

    ``sent`` holds all events, ``messages`` all published reports, ``outcomes`` all published
    outcomes, ``readings`` all published readings of Stripe's sums, ``heard`` the identifiers of
    what Stripe has said that it does not count.
    """

    def __init__(self, environment: Environment) -> None:
        environment.clear()
        self.environment = environment
        self.now = START
        self.reference = Reference()
        self.stripe = Stripe()
        self.sums = Sums()
        self.seen = Seen({}, {}, {}, {}, {}, {}, set())
        self.sent: list[ToolRun] = []
        self.leases: list[list[UsageRecorded]] = []
        self.messages: dict[Key, UsageRecorded] = {}
        self.deliveries: list[ReportDelivery] = []
        self.outcomes: list[tuple[Key, Outcome]] = []
        self.readings: list[Reading] = []
        self.heard: set[str] = set()

    async def record(self, batch: Sequence[ToolRun]) -> None:
        """Record a batch of events."""
        entries = [Entry.of(event, RULES, self.now) for event in batch]
        results = await self.environment.parts.ledger.record(entries)
        expected = [self.reference.record(each.id, usage(each), self.now) for each in batch]
        assert [word(result) for result in results] == expected

    async def record_while_provisioning(self, user: UUID, batch: Sequence[ToolRun]) -> None:
        """Record the events of a user in a transaction that doesn't see the user's account yet."""
        announcement = customer(user, 1)
        entries = [Entry.of(event, RULES, self.now) for event in batch]
        recording = self.environment.slow.ledger.record(entries)
        applying = self.environment.parts.accounts.apply(announcement)
        await self.environment.held.during(recording, applying)
        new = [each for each in batch if each.id not in self.reference.events]
        for event in batch:
            self.reference.record(event.id, usage(event), self.now)
        self._unseen(
            new, lambda: self.reference.provision(user, 1, announcement.stripe_customer_id)
        )

    async def record_while_assigning(
        self, user: UUID, since: datetime, account: UUID, batch: Sequence[ToolRun]
    ) -> None:
        """Record events of a user in a transaction that doesn't see the assignment yet."""
        entries = [Entry.of(event, RULES, self.now) for event in batch]
        recording = self.environment.slow.ledger.record(entries)
        await self.environment.held.during(recording, self._assigned(user, since, account))
        for event in batch:
            self.reference.record(event.id, usage(event), self.now)
        self._unseen(batch, lambda: self.reference.assign(user, since, account))

    async def assign(self, user: UUID, since: datetime, account: UUID) -> None:
        """Let an account pay for a user."""
        await self._assigned(user, since, account)
        self.reference.assign(user, since, account)

    async def claim_while_assigning(self, user: UUID, since: datetime, account: UUID) -> None:
        """Claim in a transaction that doesn't see the assignment yet."""
        claiming = self.environment.slow.claims(self.reference.live_from).claim(self.now)
        await self.environment.held.during(claiming, self._assigned(user, since, account))
        due = [key for key, each in self.reference.events.items() if each.state == "due"]
        await self._claimed()
        put_back = [key for key in due if self.reference.events[key].state == "waiting"]
        self.reference.assign(user, since, account)
        for key in put_back:
            self.reference.events[key].state = "waiting"

    async def _assigned(self, user: UUID, since: datetime, account: UUID) -> None:
        revision = len(self.reference.assignments.get(user, ())) + 1
        assigned = UserAssigned(user_id=user, account_id=account, since=since, revision=revision)
        assert await self.environment.parts.accounts.assign(assigned)

    def _unseen(self, batch: Sequence[ToolRun], work: Callable[[], None]) -> None:
        """Do ``work`` in the reference, which does not see the events of ``batch``."""
        states = {each.id: self.reference.events[each.id].state for each in batch}
        work()
        for event_id, state in states.items():
            self.reference.events[event_id].state = state

    async def provision(self, user: UUID, generation: int) -> None:
        """Announce a customer."""
        announcement = customer(user, generation)
        is_newer = generation > self.reference.accounts.get(user, (0, ""))[0]
        assert await self.environment.parts.accounts.apply(announcement) == is_newer
        self.reference.provision(user, generation, announcement.stripe_customer_id)

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
        await self.environment.parts.accounts.sweep(self.now)
        self.reference.sweep(self.now)
        await self._date()

    async def claim(self, *, at_once: bool) -> None:
        """Claim; with ``at_once``, a concurrent claimer finds nothing left."""
        claims = self.environment.parts.claims(self.reference.live_from)
        if at_once:
            first = self.environment.slow.claims(self.reference.live_from).claim(self.now)
            _, second = await self.environment.held.during(first, claims.claim(self.now))
            assert second.events == 0
        else:
            await claims.claim(self.now)
        await self._claimed()

    async def _claimed(self) -> None:
        self.reference.claim(self.now)
        await self._date()

    async def _date(self) -> None:
        known = [row.report_id for row in self.seen.reports.values()]
        await self.environment.date(known, self.now)

    async def move_moment(self, live_from: datetime | None) -> None:
        """Restart with another moment before which usage is reported in another way."""
        self.reference.live_from = live_from

    async def lease(self, *, at_once: bool) -> None:
        """Lease pending reports; with ``at_once``, a concurrent process finds nothing left."""
        reports = self.environment.parts.reports
        if at_once:
            first = self.environment.slow.reports.lease(self.now)
            leased, none = await self.environment.held.during(first, reports.lease(self.now))
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
        """Publish a lease and mark each report's result, unless the process dies first."""
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
        await self.environment.parts.reports.settle_lease(
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
        answers = [ReportAnswer.of(outcome) for _, outcome in batch]
        applied = await self.environment.parts.reports.answer(answers)
        assert not applied.unknown
        by_time = sorted(batch, key=lambda each: each[1].at)
        for key in {key for key, _ in batch}:
            said = [outcome for each, outcome in by_time if each == key]
            later = [each for each in said if isinstance(each, UsageRejectedLater)]
            its = [each for each in said if not isinstance(each, UsageRejectedLater)]
            unknown = any(each.ever_unknown for each in its)
            if later:
                last = later[-1]
                self.reference.answer_later(key, last.code, last.at, ever_unknown=unknown)
                continue
            refused = [each for each in its if isinstance(each, UsageRejected)]
            counted = [each for each in its if isinstance(each, UsageReported)]
            reason = None if counted else refused[-1].reason
            self.reference.answer(key, reason, (counted or refused)[-1].at, ever_unknown=unknown)

    async def deliver(self, key: Key, *, reaches: bool, calls: bool) -> None:
        """Deliver a report to a reporter, until the delivery halts before its call or in it."""
        delivery = ReportDelivery(self.environment, self.reference, self.stripe, key, self._tick)
        delivery.reaches = reaches
        self.deliveries.append(delivery)
        await delivery.start(self.messages[key])
        if delivery.place == "claimed" and calls:
            await delivery.go_on()
        self._finish(delivery)

    async def go_on(self, delivery: ReportDelivery, answer: StripeAnswer | None) -> None:
        """Let a delivery go on from where it halts."""
        await delivery.go_on(answer)
        self._finish(delivery)

    async def crash(self, delivery: ReportDelivery) -> None:
        """Let a delivery's process die."""
        await delivery.crash()
        self._finish(delivery)

    def in_doubt(self) -> list[Key]:
        """Return the reports that an operator has to look for at Stripe."""
        return [key for key in self.messages if self._in_doubt(key)]

    async def settle_by_hand(self, key: Key) -> None:
        """Find a report at Stripe, or send it, and record that in the journal."""
        report = Report.of(self.messages[key])
        if report not in self.stripe.counted:
            self.stripe.send_by_hand(report, self.now)
        calls = self.reference.journal[key]
        if report in self.stripe.counted:
            await self.environment.settle_by_hand(report.identifier, self.now, counted=True)
            calls.state, calls.by_hand = "accepted", True
        elif report.facts.stripe_customer_id in self.stripe.deleted:
            await self.environment.settle_by_hand(report.identifier, self.now, counted=False)
            calls.state, calls.by_hand = "refused", True

    def may_be_given_back(self) -> list[Report]:
        """Return the reports that Stripe has of our own calls, whose fault it may still find."""
        return [each for each in self.stripe.counted if each.identifier in self.stripe.counted_by]

    async def give_back(self, report: Report) -> None:
        """Let Stripe find that it does not count a report."""
        self.stripe.give_back(report)

    async def lose(self, report: Report) -> None:
        """Let Stripe lose a report, and say nothing of it."""
        self.stripe.lose(report)

    async def report_otherwise(self, hour: Hour, value: int) -> None:
        """Let somebody else report usage."""
        self.stripe.others[hour] += value

    async def read_sums(self, of: Sequence[Hour], hidden: Collection[Report]) -> None:
        """Read the sums of some hours of a customer and meter, in which ``hidden`` is not shown."""
        now = self._tick()
        self.readings.append(read(self.stripe, of, hidden, now))

    async def compare_sums(self, reading: Reading) -> None:
        """Apply a reading, late or again or not, and check what is inferred from it."""
        parts, known = self.environment.parts, set(self.sums.differences)
        compared = await parts.sums.apply(reading.content)
        self.sums.apply(reading, self.reference)
        found = set(self.sums.differences)
        assert {each.hour for each in compared.opened} == {hour for *_, hour in found - known}
        assert compared.closed == len(known - found)
        pair = (reading.content.stripe_customer_id, reading.content.meter)
        for hour in self.reference.hours():
            if hour[:2] == pair:
                self.sums.check_inferred(hour, await parts.reader.hour(*hour), self.stripe)

    def samples(self) -> list[Rejection]:
        """Return the attempts that Stripe may name: what it gave back, and by which key it came."""
        return [
            Rejection(identifier, key_n, "no_meter")
            for identifier, key_n in self.stripe.given_back.items()
        ]

    async def hear(self, samples: Sequence[Rejection]) -> None:
        """Hear of attempts that Stripe does not count."""
        await self.environment.rejections.keep(samples, self._tick())
        self.heard |= {each.identifier for each in samples if each in self.samples()}

    async def settle_rejections(self) -> None:
        """Mark the reports that are accepted by now, and publish that."""
        stored = self.environment.rejections
        await stored.judge(self.now)
        for key, calls in self.reference.journal.items():
            if self.seen.reports[key].identifier in self.heard:
                calls.rejected_later |= calls.state == "accepted" and not calls.by_hand
        unannounced = await stored.unannounced()
        for each in unannounced:
            event = rejected_later(each.report_id, each.identifier, each.code, each.at)
            self.outcomes.append((self.seen.key_of(each.report_id), event.data))
        if unannounced:
            await stored.mark_announced(unannounced, self.now)

    def _in_doubt(self, key: Key) -> bool:
        calls, bill = self.reference.journal.get(key), self.reference.reports[key]
        refused = bill.customer in self.stripe.deleted and calls and calls.state == "unknown"
        return bool(refused) or self.reference.verdict(key, self.now) == "fenced"

    def _order(self, report: UsageRecorded) -> tuple[object, ...]:
        """Return a sort key that is the same in every run, as random ids are not."""
        events, meter, generation = self.seen.key_of(report.report_id)
        return (sorted(events), meter, generation)

    def _tick(self) -> datetime:
        """Return the time; no two readings of a clock are the same."""
        self.now += timedelta(microseconds=1)
        return self.now

    def _finish(self, delivery: ReportDelivery) -> None:
        if delivery.place not in {"claimed", "called"}:
            self.deliveries.remove(delivery)
            self.outcomes += [(delivery.key, each) for each in delivery.published.outcomes]
