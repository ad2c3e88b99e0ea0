"""The check: no confirmed message is missing, and no run is billed more than once.

It is a pure function of the evidence; whatever does not add up is a finding.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from typing_extensions import override

from metering_chaos.evidence import (
    Evidence,
    LedgerEvent,
    Message,
    MessageKind,
    MeterEvent,
    Report,
    ToolRun,
)

ANSWERED = frozenset({"reported", "rejected", "superseded"})


class Violation(StrEnum):
    """The kind of a finding."""

    LOST = "lost"
    DOUBLE_BILLED = "double_billed"
    UNACCOUNTED = "unaccounted"


@dataclass(frozen=True, slots=True)
class Finding:
    """What does not add up, and for how many messages or runs."""

    violation: Violation
    what: str
    runs: int = 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """All findings; there should be none."""

    findings: tuple[Finding, ...]

    def count(self, violation: Violation) -> int:
        """Return how many messages or runs have this violation."""
        return sum(each.runs for each in self.findings if each.violation is violation)

    @property
    def open(self) -> int:
        """How many messages and runs do not add up, or not yet."""
        return sum(each.runs for each in self.findings)

    @property
    def clean(self) -> bool:
        """Whether everything adds up."""
        return not self.findings

    @override
    def __str__(self) -> str:
        return " ".join(f"{violation.value}={self.count(violation)}" for violation in Violation)


def check(evidence: Evidence) -> Verdict:
    """Check the evidence; what is still under way counts as unaccounted."""
    return Verdict(
        (
            *_messages(evidence),
            *_ledger_rows(evidence),
            *_billing(evidence),
            *_reports(evidence),
            *_meter_events(evidence),
            *_sums(evidence),
            *_users(evidence),
            *(
                Finding(Violation.UNACCOUNTED, f"{depth} messages are left in {queue}", depth)
                for queue, depth in evidence.queued.items()
                if depth
            ),
        )
    )


def _messages(evidence: Evidence) -> Iterator[Finding]:
    """Each confirmed message is stored, or its bytes are in a dead-letter queue."""
    stored = {(each.event_id, each.run) for each in evidence.events}
    dead = {each.body for each in evidence.dead_letters}
    for message in set(evidence.confirmed):
        if not (_is_stored(message, stored, evidence.profiles) or message.body in dead):
            yield Finding(Violation.LOST, f"{message.kind} {message.event_id} was not found")


def _is_stored(
    message: Message, stored: set[tuple[UUID, ToolRun]], profiles: frozenset[UUID]
) -> bool:
    match message.kind:
        case MessageKind.RUN:
            return message.run is not None and (message.event_id, message.run) in stored
        case MessageKind.USER:
            return message.user in profiles
        case MessageKind.INVALID:
            return False


def _ledger_rows(evidence: Evidence) -> Iterator[Finding]:
    """Each row of the ledger was published with its content, and is there once."""
    sent = {(each.event_id, each.run) for each in (*evidence.confirmed, *evidence.unconfirmed)}
    rows = Counter(each.event_id for each in evidence.events)
    for event in evidence.events:
        if (event.event_id, event.run) not in sent:
            what = f"event {event.event_id} was never published with this content"
            yield Finding(Violation.UNACCOUNTED, what)
    for event_id, count in rows.items():
        if count > 1:
            what = f"event {event_id} has {count} rows"
            yield Finding(Violation.DOUBLE_BILLED, what, count - 1)


def _billing(evidence: Evidence) -> Iterator[Finding]:
    """Each row of the ledger is in the state that its run and its user's customer require."""
    claims = {each.claim for each in evidence.reports}
    for event in evidence.events:
        wrong = _wrong_state(event, evidence.accounts, claims)
        if wrong is not None:
            yield Finding(Violation.UNACCOUNTED, f"event {event.event_id} {wrong}")


def _wrong_state(event: LedgerEvent, accounts: Mapping[UUID, str], claims: set[UUID]) -> str | None:
    if not event.run.billable:
        return None if event.state == "not_billable" else f"is not billable but {event.state}"
    match event.state:
        case "claimed":
            return None if event.claim in claims else "is claimed by no report"
        case "waiting":
            return "waits although its user has a customer" if event.run.user in accounts else None
        case state:
            return f"is still {state}"


def _reports(evidence: Evidence) -> Iterator[Finding]:
    """Each claim has one valid report for a meter, which sums exactly its runs."""
    claimed = _runs_by_claim(evidence)
    valid = [each for each in evidence.reports if each.state != "superseded"]
    for (claim, meter), count in Counter((each.claim, each.meter) for each in valid).items():
        if count > 1:
            what = f"claim {claim} has {count} reports for {meter}"
            yield Finding(Violation.DOUBLE_BILLED, what, claimed[claim])
    for report in valid:
        excess = report.value - claimed[report.claim]
        if excess or report.events != claimed[report.claim]:
            violation = Violation.DOUBLE_BILLED if excess > 0 else Violation.LOST
            what = f"report {report.report_id} sums {report.value} of {claimed[report.claim]} runs"
            yield Finding(violation, what, abs(excess) or 1)


def _meter_events(evidence: Evidence) -> Iterator[Finding]:
    """Stripe counted each reported report once, and nothing else."""
    accepted = {each.identifier: each for each in evidence.meter_events}
    dead, unknown = _dead_reports(evidence), _dead_reports(evidence, "outcome_unknown")
    for report in evidence.reports:
        meter_event = accepted.pop(report.identifier, None)
        if meter_event is None:
            yield from _not_counted(report, dead)
        else:
            yield from _counted(report, meter_event, unknown)
    for meter_event in accepted.values():
        what = f"Stripe counted {meter_event.identifier}, which belongs to no report"
        yield Finding(Violation.DOUBLE_BILLED, what, meter_event.value)


def _not_counted(report: Report, dead: set[str]) -> Iterator[Finding]:
    if report.state == "reported":
        what = f"report {report.report_id} is reported, and Stripe never counted it"
        yield Finding(Violation.LOST, what, report.value)
    elif report.state not in ANSWERED and str(report.report_id) not in dead:
        what = f"report {report.report_id} is still {report.state}"
        yield Finding(Violation.UNACCOUNTED, what, report.value)


def _counted(report: Report, meter_event: MeterEvent, unknown: set[str]) -> Iterator[Finding]:
    if meter_event.times > 1:
        what = f"Stripe counted {report.identifier} {meter_event.times} times"
        yield Finding(Violation.DOUBLE_BILLED, what, report.value * (meter_event.times - 1))
    if report.state != "reported" and str(report.report_id) not in unknown:
        what = f"Stripe counted {report.identifier}, and its report is {report.state}"
        yield Finding(Violation.UNACCOUNTED, what, report.value)
    if (meter_event.customer, meter_event.meter, meter_event.value) != (
        report.customer,
        report.meter,
        report.value,
    ):
        what = f"Stripe counted another customer, meter or value for {report.identifier}"
        yield Finding(Violation.UNACCOUNTED, what, report.value)


def _dead_reports(evidence: Evidence, reason: str | None = None) -> set[str]:
    """Return the ids of the dead-lettered reports, with any reason or with ``reason``."""
    reports = set()
    for letter in evidence.dead_letters:
        try:
            report_id = str(json.loads(letter.body)["data"]["report_id"])
        except (ValueError, KeyError, TypeError):
            continue
        if reason in (None, letter.reason):
            reports.add(report_id)
    return reports


def _sums(evidence: Evidence) -> Iterator[Finding]:
    """Stripe's sum for each customer and meter is the ledger's number of runs."""
    claimed = _runs_by_claim(evidence)
    accepted = {each.identifier for each in evidence.meter_events}
    unknown = _dead_reports(evidence, "outcome_unknown")
    ours: dict[tuple[str, str], int] = defaultdict(int)
    for report in evidence.reports:
        counted_unknown = report.identifier in accepted and str(report.report_id) in unknown
        if report.state == "reported" or counted_unknown:
            ours[report.customer, report.meter] += claimed[report.claim]
    for customer, meter in sorted({*ours, *evidence.sums}):
        mine, theirs = ours.get((customer, meter), 0), evidence.sums.get((customer, meter), 0)
        if mine != theirs:
            what = f"{customer} {meter}: the ledger has {mine} runs, Stripe {theirs}"
            yield Finding(Violation.UNACCOUNTED, what, abs(mine - theirs))


def _users(evidence: Evidence) -> Iterator[Finding]:
    """Each user has one customer, and the ledger knows it."""
    for user in evidence.profiles:
        if user not in evidence.accounts:
            yield Finding(Violation.UNACCOUNTED, f"user {user} cannot be billed yet")
    for user, count in evidence.customers.items():
        if count > 1:
            yield Finding(Violation.UNACCOUNTED, f"user {user} has {count} customers at Stripe")


def _runs_by_claim(evidence: Evidence) -> Counter[UUID]:
    return Counter(each.claim for each in evidence.events if each.claim is not None)


def dead_letters_to_move(evidence: Evidence) -> Sequence[str]:
    """Count the dead letters that have no fault in their message, by queue and reason.

    They are accounted for, but a person has to move them back.
    """
    reasons = {"attempts_spent", "crashed_consumer", "by the broker"}
    found = Counter(
        (each.queue, each.reason) for each in evidence.dead_letters if each.reason in reasons
    )
    return [f"{queue}: {reason} {count}" for (queue, reason), count in sorted(found.items())]
