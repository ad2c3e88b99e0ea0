"""Stripe's sums of hours as they are read, and the differences that they make to the reference."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from model.reference import Bill, Hour, Reference, Stripe
from nexus_contracts import CountedHour, UsageCounted
from stripe_reporter.reports import Report
from usage_ingest.inference import infer
from usage_ingest.reconciliation import HourAtStripe

HOUR: Final = timedelta(hours=1)
LAG: Final = HOUR
"""Within it Stripe shows what it has accepted, and the services are set to it."""

CALLED_FOR: Final = timedelta(days=1)
"""From forwarding a report until its last call, if its message does not wait for long."""

Accepted = Mapping[str, datetime]
"""When Stripe accepted what it has, by identifier."""


@dataclass(frozen=True)
class Reading:
    """A message with Stripe's sums of some hours, and what it had then, shown or not."""

    content: UsageCounted
    accepted: Accepted


@dataclass(frozen=True)
class Found:
    """An open difference."""

    kind: str
    expected: int
    at_most: int
    counted: float
    first_seen: datetime


def read(
    stripe: Stripe, hours: Sequence[Hour], hidden: Collection[Report], now: datetime
) -> Reading:
    """Read the sums from the first of these hours to the last, without what is ``hidden``."""
    customer, meter, start = hours[0]
    end = hours[-1][2] + HOUR
    content = UsageCounted(
        stripe_customer_id=customer,
        meter=meter,
        start=start,
        end=end,
        hours=[
            CountedHour(start=hour, value=float(value))
            for (*of, hour), value in stripe.sums(hidden).items()
            if of == [customer, meter] and start <= hour < end
        ],
        as_of=now,
        customer_gone=customer in stripe.deleted,
    )
    accepted = {each.identifier: stripe.seen[each.identifier] for each in stripe.counted}
    return Reading(content, accepted)


@dataclass
class Sums:
    """The sums that were read last, and the open differences."""

    hours: dict[Hour, tuple[float, bool, datetime]] = field(default_factory=dict)
    differences: dict[Hour, Found] = field(default_factory=dict)
    _accepted: dict[Hour, Accepted] = field(default_factory=dict)

    def apply(self, reading: Reading, reference: Reference) -> None:
        """Compare each hour of a reading, but for those that were read since."""
        said = reading.content
        pair = (said.stripe_customer_id, said.meter)
        reports = reference.hours()
        counted = {(*pair, each.start): each.value for each in said.hours}
        for place in range((said.end - said.start) // HOUR):
            hour = (*pair, said.start + place * HOUR)
            if hour in self.hours and self.hours[hour][2] > said.as_of:
                continue
            self._accepted[hour] = reading.accepted
            self.hours.pop(hour, None)
            before = self.differences.pop(hour, None)
            bills, value = reports.get(hour, []), counted.get(hour, 0.0)
            if bills or value:
                self.hours[hour] = (value, is_lagging(bills, value, said.as_of), said.as_of)
            if kind := _kind(bills, value, said, ours=pair[0] in reference.customers):
                first_seen = before.first_seen if before else said.as_of
                least, most = bounds(bills, said.as_of)
                self.differences[hour] = Found(kind, least, most, value, first_seen)

    def check_inferred(self, hour: Hour, found: HourAtStripe | None, stripe: Stripe) -> None:
        """Check that what is inferred of an hour's reports was so when the hour was read."""
        if hour not in self.hours:
            assert found is None
            return
        value, lagging, as_of = self.hours[hour]
        assert found is not None
        assert (found.counted, found.lagging, found.as_of) == (value, lagging, as_of)
        reports = {each.report.report_id: each for each in found.reports}
        inferred = infer([each.report for each in found.reports], found.counted, found.as_of)
        if stripe.others[hour]:  # then nothing can be known
            return
        for report_id, had in inferred.items():
            accepted_at = self._accepted[hour].get(reports[report_id].identifier)
            if had:
                assert accepted_at is not None
            elif accepted_at is not None:
                forwarded_at = reports[report_id].report.forwarded_at
                assert forwarded_at is not None
                assert accepted_at > forwarded_at + CALLED_FOR


def bounds(bills: Sequence[Bill], as_of: datetime) -> tuple[int, int]:
    """Return what Stripe must show of an hour at a time, and what it may show at most."""
    least = sum(each.value for each in bills if _stands(each) and _since(each) <= as_of - LAG)
    return least, sum(each.value for each in bills if _stands(each) or _may_be_there(each, as_of))


def is_lagging(bills: Sequence[Bill], value: float, as_of: datetime) -> bool:
    """Whether Stripe may not show yet all that it has accepted."""
    least, _ = bounds(bills, as_of)
    return least <= value < sum(each.value for each in bills if _stands(each))


def _kind(bills: Sequence[Bill], value: float, said: UsageCounted, *, ours: bool) -> str | None:
    least, most = bounds(bills, said.as_of)
    if said.customer_gone:
        return "gone" if least else None
    if not ours:
        return "foreign" if value else None
    if value < least:
        return "lower"
    return "higher" if value > most else None


def _stands(bill: Bill) -> bool:
    """Whether Stripe has accepted it, or should have from another way."""
    return bill.state in {"reported", "shadow"}


def _since(bill: Bill) -> datetime:
    return bill.made_at if bill.state == "shadow" else bill.answered_at or bill.made_at


def _may_be_there(bill: Bill, as_of: datetime) -> bool:
    if bill.state == "rejected_later":
        return bill.answered_at is not None and bill.answered_at > as_of - LAG
    return bill.state in {"pending", "forwarded"} or (
        bill.state == "rejected" and bill.ever_unknown
    )
