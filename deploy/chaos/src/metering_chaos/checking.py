"""The judgement: each confirmed message is somewhere, and each run is paid for once at most.

Pure, and told nothing by the services: whatever does not add up is a finding.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from metering_chaos.evidence import Charge, Evidence, Fact, LedgerEvent, Report, Sort, Wire

ANSWERED = frozenset({"reported", "rejected", "superseded"})


class Fault(StrEnum):
    """What kind of a finding it is."""

    LOST = "lost"
    DOUBLE_BILLED = "double_billed"
    UNACCOUNTED = "unaccounted"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not add up, in how many messages or runs, and where to look."""

    fault: Fault
    what: str
    runs: int = 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """All findings; there should be none."""

    findings: tuple[Finding, ...]

    def count(self, fault: Fault) -> int:
        """Return how many messages or runs have it."""
        return sum(each.runs for each in self.findings if each.fault is fault)

    @property
    def open(self) -> int:
        """How many messages and runs do not add up, or not yet."""
        return sum(each.runs for each in self.findings)

    @property
    def clean(self) -> bool:
        """Whether everything adds up."""
        return not self.findings

    def __str__(self) -> str:
        return " ".join(f"{fault.value}={self.count(fault)}" for fault in Fault)


def check(evidence: Evidence) -> Verdict:
    """Judge the evidence; what is still under way counts as unaccounted."""
    return Verdict(
        (
            *_messages(evidence),
            *_strangers(evidence),
            *_billing(evidence),
            *_reports(evidence),
            *_charges(evidence),
            *_sums(evidence),
            *_users(evidence),
            *(
                Finding(Fault.UNACCOUNTED, f"{depth} messages are left in {queue}", depth)
                for queue, depth in evidence.queued.items()
                if depth
            ),
        )
    )


def _messages(evidence: Evidence) -> Iterator[Finding]:
    """Look for each confirmed message: in the ledger, at provisioning, or dead by its bytes."""
    stored = {(each.event_id, each.fact) for each in evidence.events}
    dead = {letter.body for letter in evidence.letters}
    for wire in set(evidence.confirmed):
        if not (_arrived(wire, stored, evidence.profiles) or wire.body in dead):
            yield Finding(Fault.LOST, f"{wire.sort} {wire.event_id} is nowhere")


def _arrived(wire: Wire, stored: set[tuple[UUID, Fact]], profiles: frozenset[UUID]) -> bool:
    match wire.sort:
        case Sort.RUN:
            return wire.fact is not None and (wire.event_id, wire.fact) in stored
        case Sort.USER:
            return wire.user in profiles
        case Sort.BROKEN:
            return False


def _strangers(evidence: Evidence) -> Iterator[Finding]:
    """Look for rows of the ledger that nobody published, or that are there twice."""
    sent = {(each.event_id, each.fact) for each in (*evidence.confirmed, *evidence.unconfirmed)}
    times = Counter(each.event_id for each in evidence.events)
    for event in evidence.events:
        if (event.event_id, event.fact) not in sent:
            yield Finding(Fault.UNACCOUNTED, f"event {event.event_id} was never published so")
    for event_id, count in times.items():
        if count > 1:
            yield Finding(
                Fault.DOUBLE_BILLED, f"event {event_id} is there {count} times", count - 1
            )


def _billing(evidence: Evidence) -> Iterator[Finding]:
    """Look whether each row of the ledger is on its way to money, as far as it should be."""
    claims = {each.claim for each in evidence.reports}
    for event in evidence.events:
        wrong = _billed_wrongly(event, evidence.accounts, claims)
        if wrong is not None:
            yield Finding(Fault.UNACCOUNTED, f"event {event.event_id} {wrong}")


def _billed_wrongly(
    event: LedgerEvent, accounts: Mapping[UUID, str], claims: set[UUID]
) -> str | None:
    if not event.fact.billable:
        return None if event.state == "not_billable" else f"is not billable but {event.state}"
    match event.state:
        case "claimed":
            return None if event.claim in claims else "is claimed by no report"
        case "waiting":
            return "waits although its user has a customer" if event.fact.user in accounts else None
        case state:
            return f"is still {state}"


def _reports(evidence: Evidence) -> Iterator[Finding]:
    """Look whether each standing report sums exactly the runs that its claim took."""
    took = Counter(each.claim for each in evidence.events if each.claim is not None)
    standing = [each for each in evidence.reports if each.state != "superseded"]
    for (claim, meter), count in Counter((each.claim, each.meter) for each in standing).items():
        if count > 1:
            what = f"claim {claim} has {count} reports for {meter}"
            yield Finding(Fault.DOUBLE_BILLED, what, took[claim])
    for report in standing:
        beyond = report.value - took[report.claim]
        if beyond or report.events != took[report.claim]:
            fault = Fault.DOUBLE_BILLED if beyond > 0 else Fault.LOST
            what = f"report {report.report_id} sums {report.value} of {took[report.claim]} runs"
            yield Finding(fault, what, abs(beyond) or 1)


def _charges(evidence: Evidence) -> Iterator[Finding]:
    """Look whether Stripe counted each reported report once, and no other."""
    charges = {each.identifier: each for each in evidence.charges}
    parked, fenced = _parked(evidence), _parked(evidence, "outcome_unknown")
    for report in evidence.reports:
        charge = charges.pop(report.identifier, None)
        if charge is None:
            yield from _uncharged(report, parked)
        else:
            yield from _charged(report, charge, fenced)
    for charge in charges.values():
        what = f"Stripe counted {charge.identifier}, which is no report's"
        yield Finding(Fault.DOUBLE_BILLED, what, charge.value)


def _uncharged(report: Report, parked: set[str]) -> Iterator[Finding]:
    if report.state == "reported":
        what = f"report {report.report_id} is reported, and Stripe never counted it"
        yield Finding(Fault.LOST, what, report.value)
    elif report.state not in ANSWERED and str(report.report_id) not in parked:
        what = f"report {report.report_id} is still {report.state}"
        yield Finding(Fault.UNACCOUNTED, what, report.value)


def _charged(report: Report, charge: Charge, fenced: set[str]) -> Iterator[Finding]:
    if charge.times > 1:
        what = f"Stripe counted {report.identifier} {charge.times} times"
        yield Finding(Fault.DOUBLE_BILLED, what, report.value * (charge.times - 1))
    if report.state != "reported" and str(report.report_id) not in fenced:
        what = f"Stripe counted {report.identifier}, and its report is {report.state}"
        yield Finding(Fault.UNACCOUNTED, what, report.value)
    if (charge.customer, charge.meter, charge.value) != (
        report.customer,
        report.meter,
        report.value,
    ):
        what = f"Stripe counted something else for {report.identifier}"
        yield Finding(Fault.UNACCOUNTED, what, report.value)


def _parked(evidence: Evidence, reason: str | None = None) -> set[str]:
    """Return the reports that wait in a dead-letter queue for a person, of any or one reason."""
    parked = set()
    for letter in evidence.letters:
        try:
            report_id = str(json.loads(letter.body)["data"]["report_id"])
        except (ValueError, KeyError, TypeError):
            continue
        if reason in (None, letter.reason):
            parked.add(report_id)
    return parked


def _sums(evidence: Evidence) -> Iterator[Finding]:
    """Compare what Stripe says each customer owes with the runs the ledger has for that."""
    took = Counter(each.claim for each in evidence.events if each.claim is not None)
    charged = {each.identifier for each in evidence.charges}
    fenced = _parked(evidence, "outcome_unknown")
    ours: dict[tuple[str, str], int] = defaultdict(int)
    for report in evidence.reports:
        counted_unheard = report.identifier in charged and str(report.report_id) in fenced
        if report.state == "reported" or counted_unheard:
            ours[report.customer, report.meter] += took[report.claim]
    for customer, meter in sorted({*ours, *evidence.sums}):
        mine, theirs = ours.get((customer, meter), 0), evidence.sums.get((customer, meter), 0)
        if mine != theirs:
            what = f"{customer} {meter}: the ledger has {mine} runs, Stripe {theirs}"
            yield Finding(Fault.UNACCOUNTED, what, abs(mine - theirs))


def _users(evidence: Evidence) -> Iterator[Finding]:
    """Look whether each user got one customer, known to those who bill."""
    for user in evidence.profiles:
        if user not in evidence.accounts:
            yield Finding(Fault.UNACCOUNTED, f"user {user} cannot be billed yet")
    for user, count in evidence.customers.items():
        if count > 1:
            yield Finding(Fault.UNACCOUNTED, f"user {user} is {count} customers at Stripe")


def innocent(evidence: Evidence) -> Sequence[str]:
    """Name the dead letters that nothing was wrong with, by queue and reason.

    They are accounted for, but somebody has to move them back by hand.
    """
    spent = {"attempts_spent", "crashed_consumer", "by the broker"}
    found = Counter((each.queue, each.reason) for each in evidence.letters if each.reason in spent)
    return [f"{queue}: {reason} {count}" for (queue, reason), count in sorted(found.items())]
