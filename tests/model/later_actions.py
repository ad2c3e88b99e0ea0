"""The actions of Stripe's later word, and of the sums that it shows."""

from datetime import datetime
from typing import Final

from hypothesis import strategies as st

from model.reference import Hour, hour_of
from model.sums import HOUR, LAG
from model.system import START, System, Work
from nexus_contracts.usage_counted import MAX_HOURS
from stripe_reporter.rejections import Rejection
from stripe_reporter.reports import Report

NEVER: Final = 999
"""The number of a call that no report comes to."""

FOREIGN: Final[Hour] = ("cus_foreign", "runs", hour_of(START))
"""An hour of a customer that no account has."""


def may_be_read(system: System) -> list[Hour]:
    """Return the hours in which Stripe may have counted anything."""
    return sorted({FOREIGN, *system.reference.hours()})


def give_back(system: System, data: st.DataObject) -> Work:
    """Let Stripe find that it does not count what it had accepted."""
    return system.give_back(data.draw(st.sampled_from(_by_time(system.may_be_given_back()))))


def hear(system: System, data: st.DataObject) -> Work:
    """Hear of attempts that Stripe does not count, repeated or not, and of one that never was."""
    samples = data.draw(st.lists(st.sampled_from(system.samples()), max_size=3))
    never = [Rejection(each.identifier, NEVER, each.code) for each in samples[:1]]
    return system.hear([*samples, *never])


def settle_rejections(system: System, _: st.DataObject) -> Work:
    """Mark the reports that Stripe does not count."""
    return system.settle_rejections()


def lose(system: System, data: st.DataObject) -> Work:
    """Let Stripe lose what it had accepted, without a word."""
    return system.lose(data.draw(st.sampled_from(_by_time(system.may_be_given_back()))))


def report_otherwise(system: System, data: st.DataObject) -> Work:
    """Let another way report usage: what a shadow report sums up, if there is one, or anything."""
    shadow = [
        (hour, bill.value)
        for hour, bills in sorted(system.reference.hours().items())
        for bill in bills
        if bill.state == "shadow"
    ]
    anything = [(hour, 2) for hour in may_be_read(system)]
    return system.report_otherwise(*data.draw(st.sampled_from([*shadow, *shadow, *anything])))


def read_sums(system: System, data: st.DataObject) -> Work:
    """Read some hours; what Stripe has accepted lately is shown or not."""
    hours = may_be_read(system)
    first = data.draw(st.sampled_from(hours))
    its = [hour for hour in hours if hour[:2] == first[:2] and hour >= first]
    near = [hour for hour in its if hour[2] - first[2] < MAX_HOURS * HOUR]
    last = data.draw(st.sampled_from(near))
    new = [each for each in system.stripe.counted if _accepted_lately(system, each)]
    hidden = data.draw(st.lists(st.sampled_from(_by_time(new)), unique=True)) if new else []
    return system.read_sums([first, last], hidden)


def compare_sums(system: System, data: st.DataObject) -> Work:
    """Apply a reading: the last one, or any, once more or late."""
    return system.compare_sums(
        data.draw(st.sampled_from([*system.readings, *system.readings[-1:] * 3]))
    )


def _accepted_lately(system: System, report: Report) -> bool:
    return system.stripe.seen[report.identifier] > system.now - LAG


def _by_time(reports: list[Report]) -> list[Report]:
    """Return reports in an order that is the same in every run, as random ids are not."""

    def key(report: Report) -> tuple[str, str, datetime, int]:
        facts = report.facts
        return (facts.stripe_customer_id, facts.meter, facts.occurred_at, facts.value)

    return sorted(reports, key=key)
