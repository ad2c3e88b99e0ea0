"""The check of Stripe's later word: what is not counted is marked or a difference, no more is."""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime

from metering_chaos.evidence import Evidence, LaterWord, MeterEvent
from metering_chaos.findings import Finding, Violation

Hour = tuple[str, str, datetime]
"""A customer, a meter and an hour."""


def check_later_word(evidence: Evidence) -> Iterator[Finding]:
    """Find what the ledger missed of Stripe's later word, and what it made up."""
    if evidence.later is not None:
        yield from _marks(evidence, evidence.later)
        yield from _differences(evidence, evidence.later)


def _marks(evidence: Evidence, later: LaterWord) -> Iterator[Finding]:
    """A report that was taken for counted is rejected later if Stripe has said so, and only then.

    One of unknown outcome is no more known by it: a person settles it.
    """
    for report in evidence.reports:
        named = report.identifier in later.rejected
        if named and report.state == "reported":
            what = f"report {report.report_id} is reported, and Stripe has rejected it later"
            yield Finding(Violation.UNACCOUNTED, what, report.value)
        if not named and report.state == "rejected_later":
            what = f"report {report.report_id} is rejected_later, and no error report names it"
            yield Finding(Violation.UNACCOUNTED, what, report.value)


def _differences(evidence: Evidence, later: LaterWord) -> Iterator[Finding]:
    """The open differences are those of the sums, by customer, meter and hour."""
    due = _expected(evidence)
    found = {(each.customer, each.meter, each.hour): each for each in later.differences}
    for hour in sorted({*due, *found}):
        expected = due.get(hour)
        difference = found.get(hour)
        actual = None if difference is None else (difference.kind, difference.by)
        if actual != expected:
            what = f"the difference of {hour[0]} {hour[1]} {hour[2]} is {actual}, not {expected}"
            yield Finding(Violation.UNACCOUNTED, what)


def _expected(evidence: Evidence) -> dict[Hour, tuple[str, int]]:
    """Work out each difference from what Stripe did with the single events.

    Stripe lacks what was reported and is not counted. An event that it counts whose report has no
    answer hides as much of it. Of a deleted customer it shows nothing at all.
    """
    states = {each.identifier: each.state for each in evidence.reports}
    lacking, beyond = Counter[Hour](), Counter[Hour]()
    gone = set()
    for each in evidence.meter_events:
        is_gone = each.customer not in evidence.customers
        if is_gone:
            gone.add(_hour(each))
        is_shown = each.counted and not is_gone
        is_reported = states.get(each.identifier) == "reported"
        if is_reported and not is_shown:
            lacking[_hour(each)] += each.value
        elif is_shown and not is_reported:
            beyond[_hour(each)] += each.value
    return {
        hour: ("gone" if hour in gone else "lower", beyond[hour] - value)
        for hour, value in lacking.items()
        if value > beyond[hour]
    }


def _hour(event: MeterEvent) -> Hour:
    return (event.customer, event.meter, event.hour)
