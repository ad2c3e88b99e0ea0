"""The check of the money: claims, reports and Stripe have what the plans make of the runs."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from uuid import UUID

from metering_chaos.charges import Charge, Payers, charges, cost, tools_in_use
from metering_chaos.evidence import Evidence, MeterEvent, Report
from metering_chaos.findings import Finding, Violation

ACCEPTED = frozenset({"reported", "rejected_later"})
ANSWERED = frozenset({"rejected", "superseded"})


def check_billing(evidence: Evidence) -> Iterator[Finding]:
    """Find what is not charged as the plans say, once, to who pays."""
    yield from _late_readings(evidence)
    yield from _first_uses(evidence)
    yield from _reports(evidence)
    yield from _payers(evidence)
    yield from _meter_events(evidence)
    yield from _sums(evidence)


def _late_readings(evidence: Evidence) -> Iterator[Finding]:
    """Each late reading is what the tokens of its billable run cost, and is claimed."""
    payers, events = Payers(evidence), {each.event_id: each for each in evidence.events}
    for late in evidence.late_readings:
        event, name = events.get(late.event_id), f"the late reading of event {late.event_id}"
        if event is None or event.usage is None or not event.run.billable:
            yield Finding(Violation.DOUBLE_BILLED, f"{name} is of nothing that is billed")
        elif late.value != cost(event.usage):
            yield Finding(Violation.UNACCOUNTED, f"{name} has another value: {late.value}")
        elif late.state != "claimed" and payers.account(event.run.user) in evidence.accounts:
            yield Finding(Violation.UNACCOUNTED, f"{name} is still {late.state}")


def _first_uses(evidence: Evidence) -> Iterator[Finding]:
    """Each tool in use has one first use: the load is of one billing period."""
    uses = Counter((each.account, each.server, each.tool) for each in evidence.first_uses)
    for account, server, tool in sorted({*uses, *tools_in_use(evidence)}):
        if (count := uses[account, server, tool]) != 1:
            violation = Violation.DOUBLE_BILLED if count else Violation.LOST
            yield Finding(violation, f"{account} has {count} first uses of {server} {tool}")


def _reports(evidence: Evidence) -> Iterator[Finding]:
    """Each claim has one valid report for each meter, which charges exactly what it has to."""
    due = charges(evidence)
    valid = [each for each in evidence.reports if each.state != "superseded"]
    reported = Counter((each.claim, each.meter) for each in valid)
    for (claim, meter), charge in due.items():
        if (count := reported[claim, meter]) != 1:
            violation = Violation.DOUBLE_BILLED if count else Violation.LOST
            what = f"claim {claim} has {count} reports for {meter}"
            yield Finding(violation, what, charge.value)
    for report in valid:
        charge = due.get((report.claim, report.meter), Charge())
        excess = report.value - charge.value
        if excess or report.events != charge.readings:
            violation = Violation.DOUBLE_BILLED if excess > 0 else Violation.LOST
            what = f"report {report.report_id} charges {report.value}, not {charge}"
            yield Finding(violation, what, abs(excess) or 1)


def _payers(evidence: Evidence) -> Iterator[Finding]:
    """Each claim is of runs that one account pays for, and its reports are for its customer."""
    payers, accounts = Payers(evidence), defaultdict[UUID, set[UUID]](set)
    users = {each.event_id: each.run.user for each in evidence.events}
    claimed = [
        *((each.event_id, each.claim) for each in evidence.events),
        *((each.event_id, each.claim) for each in evidence.late_readings),
    ]
    for event_id, claim in claimed:
        if claim is not None and event_id in users:
            accounts[claim].add(payers.account(users[event_id]))
    for report in evidence.reports:
        # A customer that is deleted is nobody's any more.
        owner = evidence.customers.get(report.customer)
        if owner is not None and accounts[report.claim] != {owner}:
            what = f"report {report.report_id} is for {owner}, its runs are paid by another"
            yield Finding(Violation.UNACCOUNTED, what, report.value)


def _meter_events(evidence: Evidence) -> Iterator[Finding]:
    """Stripe accepted each reported report once, and nothing else."""
    accepted = {each.identifier: each for each in evidence.meter_events}
    dead, unknown = _dead_reports(evidence), _dead_reports(evidence, "outcome_unknown")
    for report in evidence.reports:
        meter_event = accepted.pop(report.identifier, None)
        if meter_event is None:
            yield from _not_accepted(report, dead)
        else:
            yield from _accepted(report, meter_event, unknown)
    for meter_event in accepted.values():
        what = f"Stripe accepted {meter_event.identifier}, which belongs to no report"
        yield Finding(Violation.DOUBLE_BILLED, what, meter_event.value)


def _not_accepted(report: Report, dead: set[str]) -> Iterator[Finding]:
    if report.state in ACCEPTED:
        what = f"report {report.report_id} is {report.state}, and Stripe never accepted it"
        yield Finding(Violation.LOST, what, report.value)
    elif report.state not in ANSWERED and str(report.report_id) not in dead:
        what = f"report {report.report_id} is still {report.state}"
        yield Finding(Violation.UNACCOUNTED, what, report.value)


def _accepted(report: Report, meter_event: MeterEvent, unknown: set[str]) -> Iterator[Finding]:
    if meter_event.times > 1:
        what = f"Stripe accepted {report.identifier} {meter_event.times} times"
        yield Finding(Violation.DOUBLE_BILLED, what, report.value * (meter_event.times - 1))
    if report.state not in ACCEPTED and str(report.report_id) not in unknown:
        what = f"Stripe accepted {report.identifier}, and its report is {report.state}"
        yield Finding(Violation.UNACCOUNTED, what, report.value)
    if (meter_event.customer, meter_event.meter, meter_event.value) != (
        report.customer,
        report.meter,
        report.value,
    ):
        what = f"Stripe accepted another customer, meter or value for {report.identifier}"
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
    """Stripe's sum for each customer and meter is what the claims have to charge.

    What Stripe accepted and does not count after all is no fault of the ledger's.
    """
    due = charges(evidence)
    counts = {each.identifier: each.counted for each in evidence.meter_events}
    unknown = _dead_reports(evidence, "outcome_unknown")
    ours: dict[tuple[str, str], int] = defaultdict(int)
    for report in evidence.reports:
        is_counted = counts.get(report.identifier, report.state == "reported")
        if is_counted and (report.state == "reported" or str(report.report_id) in unknown):
            ours[report.customer, report.meter] += due.get(
                (report.claim, report.meter), Charge()
            ).value
    for customer, meter in sorted({*ours, *evidence.sums}):
        mine, theirs = ours.get((customer, meter), 0), evidence.sums.get((customer, meter), 0)
        if mine != theirs:
            what = f"{customer} {meter}: the ledger has {mine}, Stripe {theirs}"
            yield Finding(Violation.UNACCOUNTED, what, abs(mine - theirs))
