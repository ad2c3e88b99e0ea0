"""The model of billing in plain Python, without a database: the expected state.

Its numbers are those of the documents, written once more rather than imported. It has neither
locks nor batches nor SQL; a report is identified by what it is for.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from nexus_stripe.answer_classes import Effect
from stripe_reporter.reports import Report
from stripe_reporter.stripe.responses import Response

WINDOW: Final = timedelta(seconds=10)
STRAGGLERS: Final = timedelta(seconds=1)
LEASE: Final = timedelta(seconds=60)
CALL: Final = timedelta(seconds=20)
CALL_STARTS: Final = timedelta(seconds=5)
FENCE: Final = timedelta(hours=23)
REMEMBERED: Final = timedelta(hours=24)
MAX_AGE: Final = timedelta(days=35)
SLACK: Final = timedelta(minutes=10)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Key = tuple[frozenset[UUID], str, int]
"""A report: its events, its meter, the generation of its customer."""

Hour = tuple[str, str, datetime]
"""A customer, a meter and an hour."""


def hour_of(moment: datetime) -> datetime:
    """Return the hour in which Stripe counts usage of a moment."""
    return moment.replace(minute=0, second=0, microsecond=0)


@dataclass
class Usage:
    """An event; ``meaning`` distinguishes it from another event with its id.

    ``details`` are what version 2 says beyond version 1, ``None`` if only version 1 came.
    """

    meaning: tuple[object, ...]
    details: tuple[object, ...] | None
    user: UUID
    server: str
    at: datetime
    readings: dict[str, int]
    state: str = ""


@dataclass
class Bill:
    """A report to an account's customer."""

    account: UUID
    customer: str
    value: int
    at: datetime
    state: str = "pending"
    leased_until: datetime | None = None
    reason: str | None = None
    ever_unknown: bool = False
    answered_at: datetime | None = None
    made_at: datetime = EPOCH


@dataclass
class Calls:
    """A report's row in the journal."""

    started: datetime
    state: str = "calling"
    attempts: int = 1
    key_n: int = 1
    unknown_since: datetime | None = None
    by_hand: bool = False
    rejected_later: bool = False

    @property
    def found_missing(self) -> bool:
        """Whether a person found that Stripe has not counted it."""
        return self.by_hand and self.state == "refused"

    @property
    def open_since(self) -> datetime | None:
        """When an outcome became unknown, also that of a call still without an answer."""
        return self.unknown_since or (self.started if self.state == "calling" else None)


@dataclass
class Stripe:
    """Stripe: it counts an identifier once within the time for which it remembers it.

    ``seen`` is when it accepted an identifier. ``counted_by`` is the number of the key whose call
    made the meter event, by identifier. ``given_back`` are those of them that it does not count
    after all, ``lost`` those of which it says nothing. ``others`` is what others than this system
    report, by customer, meter and hour.
    """

    counted: list[Report] = field(default_factory=list)
    seen: dict[str, datetime] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    counted_by: dict[str, int] = field(default_factory=dict)
    given_back: dict[str, int] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    others: Counter[Hour] = field(default_factory=Counter)

    def lose(self, report: Report) -> None:
        """Count ``report`` no more, and never say so."""
        self.counted.remove(report)
        self.counted_by.pop(report.identifier)
        self.lost.add(report.identifier)

    def sums(self, hidden: Collection[Report] = ()) -> Counter[Hour]:
        """Return what it shows if it does not show yet what is ``hidden``."""
        found = self.others.copy()
        for each in self.counted:
            if each not in hidden:
                facts = each.facts
                hour = (facts.stripe_customer_id, facts.meter, hour_of(facts.occurred_at))
                found[hour] += facts.value
        return Counter({hour: n for hour, n in found.items() if hour[0] not in self.deleted})

    def give_back(self, report: Report) -> None:
        """Count ``report`` no more; its identifier stays known."""
        self.counted.remove(report)
        self.given_back[report.identifier] = self.counted_by.pop(report.identifier)

    def send_by_hand(self, report: Report, now: datetime) -> None:
        """Receive what a person sends for ``report``, with an identifier of its own."""
        self.seen.pop(report.identifier, None)
        self.lost.discard(report.identifier)
        self.receive(report, now, 0)
        self.counted_by.pop(report.identifier, None)

    def receive(self, report: Report, now: datetime, key_n: int) -> str:
        """Count ``report`` or not; return the name of the answer in the table of responses."""
        if report.facts.stripe_customer_id in self.deleted:
            return "no_such_customer"
        if now - report.facts.occurred_at > MAX_AGE:
            return "too_old"
        if now - self.seen.get(report.identifier, EPOCH) < REMEMBERED:
            return "duplicate"
        self.seen[report.identifier] = now
        self.counted.append(report)
        self.counted_by[report.identifier] = key_n
        return "accepted"


@dataclass
class Reference:
    """All expected rows, and the effect of each piece of work on them.

    ``assignments``: by user, from when on which account pays, with a number that rises.
    ``customers``: all that an account ever had. ``live_from``: usage of before is reported in
    another way.
    """

    live_from: datetime | None = None
    customers: set[str] = field(default_factory=set)
    accounts: dict[UUID, tuple[int, str]] = field(default_factory=dict)
    events: dict[UUID, Usage] = field(default_factory=dict)
    reports: dict[Key, Bill] = field(default_factory=dict)
    journal: dict[Key, Calls] = field(default_factory=dict)
    assignments: dict[UUID, list[tuple[datetime, int, UUID]]] = field(default_factory=dict)

    def payer(self, user: UUID, at: datetime) -> UUID:
        """Return the account that a run of ``user`` is paid by."""
        begun = [each for each in self.assignments.get(user, ()) if each[0] <= at]
        return max(begun)[2] if begun else user

    def record(self, event_id: UUID, usage: Usage, now: datetime) -> str:
        """Return the state an event is recorded in, or what its id has already."""
        held = self.events.setdefault(event_id, usage)
        if held is not usage:
            if held.meaning != usage.meaning:
                return "taken"
            if usage.details in {None, held.details}:
                return "duplicate"
            if held.details is not None:
                return "taken"
            held.details = usage.details
            return "details added"
        awaited = "due" if self.has_customer(usage) else "waiting"
        current = "expired" if now - usage.at >= MAX_AGE else awaited
        usage.state = current if usage.readings else "not_billable"
        return usage.state

    def has_customer(self, usage: Usage) -> bool:
        """Whether the account that pays an event has a customer."""
        return self.payer(usage.user, usage.at) in self.accounts

    def provision(self, account: UUID, generation: int, customer: str) -> None:
        """Keep the customer of the highest generation, and release events that waited for one."""
        self.accounts[account] = max(self.accounts.get(account, (0, "")), (generation, customer))
        self.customers.add(self.accounts[account][1])
        ever = {u for u, known in self.assignments.items() if account in (a for *_, a in known)}
        self._release({account, *ever})

    def assign(self, user: UUID, since: datetime, account: UUID) -> None:
        """Let an account pay for a user, and release events that waited for another one."""
        known = self.assignments.setdefault(user, [])
        known.append((since, len(known) + 1, account))
        self._release({user})

    def sweep(self, now: datetime) -> None:
        """Release, expire, replace."""
        self._release({usage.user for usage in self.events.values()})
        for usage in self.events.values():
            if usage.state in {"waiting", "due"} and now - usage.at >= MAX_AGE:
                usage.state = "expired"
        for (events, meter, generation), bill in list(self.reports.items()):
            newest, customer = self.accounts[bill.account]
            refused = bill.state == "rejected" and bill.reason == "no_such_customer"
            old = now - bill.at >= MAX_AGE
            if refused and newest > generation and not bill.ever_unknown and not old:
                bill.state = "superseded"
                fresh = Bill(bill.account, customer, bill.value, bill.at, made_at=now)
                self.reports[events, meter, newest] = fresh

    def claim(self, now: datetime) -> None:
        """Sum up the due events of each account, window and server, if the window has closed.

        Those of an account without a customer wait again. A window is split at ``live_from``: what
        comes before it is a shadow report, which stays as it is.
        """
        claims: dict[tuple[UUID, str, int, str], set[UUID]] = {}
        open_window = (now - STRAGGLERS - EPOCH) // WINDOW
        claimed = {each for each, usage in self.events.items() if usage.state == "claimed"}
        for event_id, usage in self.events.items():
            window = (usage.at - EPOCH) // WINDOW
            if usage.state == "due" and window < open_window:
                usage.state = "claimed" if self.has_customer(usage) else "waiting"
            if usage.state == "claimed" and event_id not in claimed:
                account = self.payer(usage.user, usage.at)
                state = "shadow" if usage.at < (self.live_from or EPOCH) else "pending"
                claims.setdefault((account, usage.server, window, state), set()).add(event_id)
        for (account, _, _, state), claim in claims.items():
            generation, customer = self.accounts[account]
            taken = [self.events[each] for each in claim]
            for meter in {meter for usage in taken for meter in usage.readings}:
                value = sum(usage.readings.get(meter, 0) for usage in taken)
                first = min(usage.at for usage in taken)
                bill = Bill(account, customer, value, first, state, made_at=now)
                self.reports[frozenset(claim), meter, generation] = bill

    def hours(self) -> dict[Hour, list[Bill]]:
        """Return the reports of each customer, meter and hour."""
        found: dict[Hour, list[Bill]] = {}
        for (_, meter, _), bill in self.reports.items():
            found.setdefault((bill.customer, meter, hour_of(bill.at)), []).append(bill)
        return found

    def lease(self, now: datetime) -> set[Key]:
        """Lease the pending reports without a current lease, and return them."""
        free = {
            key
            for key, bill in self.reports.items()
            if bill.state == "pending" and (bill.leased_until or EPOCH) < now
        }
        for key in free:
            self.reports[key].leased_until = now + LEASE
        return free

    def settle_lease(self, key: Key, *, confirmed: bool) -> None:
        """Mark a report as forwarded, or end its lease."""
        bill = self.reports[key]
        if bill.state == "pending" and confirmed:
            bill.state = "forwarded"
        elif bill.state == "pending":
            bill.leased_until = None

    def answer(self, key: Key, reason: str | None, at: datetime, *, ever_unknown: bool) -> None:
        """Apply an answer; it has a reason if the report was refused."""
        bill = self.reports[key]
        if bill.state not in {"reported", "rejected_later", "superseded"}:
            bill.state, bill.reason = ("rejected" if reason else "reported"), reason
            bill.ever_unknown |= ever_unknown
            bill.answered_at = at

    def answer_later(self, key: Key, code: str, at: datetime, *, ever_unknown: bool) -> None:
        """Apply that Stripe does not count a report after all."""
        bill = self.reports[key]
        if bill.state not in {"rejected_later", "superseded"}:
            bill.state, bill.reason = "rejected_later", code
            bill.ever_unknown |= ever_unknown
            bill.answered_at = at

    def verdict(self, key: Key, now: datetime) -> str:
        """Return ``called`` if a report may be sent, else why not."""
        before, young = self.journal.get(key), now - self.reports[key].at < MAX_AGE - SLACK
        if before and before.state == "accepted":
            return "rejected later" if before.rejected_later else "counted"
        if before and before.found_missing:
            return "not counted"
        if before and before.state == "calling" and now - before.started <= CALL:
            return "being called"
        unknown_since = before and before.open_since
        if unknown_since and (now - unknown_since >= FENCE or not young):
            return "fenced"
        return "called" if young else "too old"

    def begin_call(self, key: Key, now: datetime) -> str:
        """Start a call for a report if it may be sent; return the verdict."""
        verdict, before = self.verdict(key, now), self.journal.get(key)
        if verdict == "called" and before:
            since = before.open_since
            self.journal[key] = Calls(now, "calling", before.attempts + 1, before.key_n, since)
        elif verdict == "called":
            self.journal[key] = Calls(now)
        return verdict

    def end_call(self, key: Key, attempt: int, response: Response) -> bool:
        """Apply the answer to a call; return whether it was still the report's current call."""
        calls = self.journal[key]
        ours = calls.state == "calling" and calls.attempts == attempt
        if ours or (response.effect is Effect.APPLIED and calls.state != "accepted"):
            if response.effect is Effect.UNKNOWN:
                calls.unknown_since = calls.unknown_since or calls.started
            refused = "unknown" if calls.unknown_since else "refused"
            calls.state = "accepted" if response.effect is Effect.APPLIED else refused
            calls.key_n += not response.same_key
            calls.by_hand = False
        return ours

    def _release(self, users: Collection[UUID]) -> None:
        for usage in self.events.values():
            if usage.state == "waiting" and usage.user in users and self.has_customer(usage):
                usage.state = "due"
