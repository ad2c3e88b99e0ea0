"""The invariants after every step, and those at the end, when everything is settled."""

from collections import Counter
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row

from model.environment import Seen
from model.reference import MAX_AGE, SLACK, Bill, Calls, Hour, Reference, Stripe
from model.sums import Found, Sums
from model.transitions import TABLES, Cause, Move

UNSENDABLE: Final = {"no_such_customer", "timestamp_too_old"}
"""Reasons of refusals that an operator's move does not change."""


def as_predicted(seen: Seen, reference: Reference) -> None:
    """Check that the rows are exactly those of the reference."""
    assert {key: row.billing_state for key, row in seen.events.items()} == {
        key: usage.state for key, usage in reference.events.items()
    }
    assert {key: _details(row) for key, row in seen.details.items()} == {
        key: usage.details for key, usage in reference.events.items() if usage.details is not None
    }
    assert {key: _bill(row) for key, row in seen.reports.items()} == reference.reports
    assert {key: _calls(row) for key, row in seen.calls.items()} == reference.journal


def sums_as_predicted(seen: Seen, sums: Sums) -> None:
    """Check that the sums that were read and the open differences are those of the reference."""
    assert {hour: (row.value, row.lagging, row.as_of) for hour, row in seen.hours.items()} == (
        sums.hours
    )
    assert {
        hour: Found(row.kind, row.expected, row.at_most, row.counted, row.first_seen)
        for hour, row in seen.differences.items()
    } == sums.differences


def by_the_table(seen: Seen, causes: AbstractSet[Cause]) -> set[Move]:
    """Check that each move is in the table for one of ``causes``; return them."""
    made = set()
    for entity, before, after in seen.moves:
        rows = {
            move
            for move in TABLES[entity][2]
            if (move.before, move.after) == (before, after) and move.cause in causes
        }
        assert rows, f"{entity}: {before or '(new)'} -> {after} is no move by {sorted(causes)}"
        made |= rows
    return made


def nothing_forgotten(before: Seen, after: Seen) -> None:
    """Check that no row and no time of a first unknown outcome is lost."""
    assert before.events.keys() <= after.events.keys()
    assert before.reports.keys() <= after.reports.keys()
    for key, row in before.calls.items():
        assert after.calls[key].first_unknown_at == (
            row.first_unknown_at or after.calls[key].first_unknown_at
        )


def money(seen: Seen, stripe: Stripe) -> None:
    """Check that nothing is counted twice, and that ledger and journal agree with Stripe.

    Every report that is not superseded is the sum of its claim's events. Reports that Stripe
    counted are reported, accepted, or known to be unknown. Reported ones were counted. Shadow
    reports were never sent.
    """
    counted = Counter(report.identifier for report in stripe.counted)
    assert set(counted.values()) <= {1}
    for (events, meter, _), row in seen.reports.items():
        readings = [seen.events[each].readings.get(meter) for each in events]
        read = [value for value in readings if value is not None]
        assert (row.event_count, row.value) == (len(read), sum(read))
    standing = [row for row in seen.reports.values() if row.state != "superseded"]
    claimed = Counter((row.claim_id, row.meter) for row in standing)
    assert claimed == Counter(set(_claimed(seen)))
    for key, row in seen.reports.items():
        call = seen.calls.get(key)
        is_open = call is not None and (call.state == "calling" or call.first_unknown_at)
        accepted = call is not None and call.state == "accepted"
        given_back = row.identifier in stripe.given_back or row.identifier in stripe.lost
        if row.state == "shadow":
            assert row.identifier not in stripe.seen
            assert call is None
        if row.identifier in counted:
            assert row.state not in {"superseded", "rejected_later"}
            assert accepted or is_open
        else:
            assert row.state != "reported" or given_back
            assert not accepted or given_back


def all_settled(seen: Seen, reference: Reference, stripe: Stripe, now: datetime) -> None:
    """Check the final state, after everything was delivered without further faults."""
    for event in seen.events.values():
        assert event.billing_state != "due"
        assert event.billing_state != "waiting" or not reference.has_customer(
            reference.events[event.event_id]
        )
    for key, row in seen.reports.items():
        refused = row.state == "rejected" and row.reason in UNSENDABLE
        final = {"reported", "rejected_later", "superseded", "shadow"}
        settled = row.state in final or refused
        assert settled or _beyond_help(row, reference.verdict(key, now), now)
    counted = {report.identifier for report in stripe.counted}
    reported = {row.identifier for row in seen.reports.values() if row.state == "reported"}
    assert counted <= reported <= counted | stripe.lost
    billed = {key: row for key, row in seen.reports.items() if row.identifier in counted}
    sums = _sums((row.stripe_customer_id, row.meter, row.value) for row in billed.values())
    calls = [each.facts for each in stripe.counted]
    assert sums == _sums((each.stripe_customer_id, each.meter, each.value) for each in calls)
    assert sums == _sums(
        (row.stripe_customer_id, row.meter, seen.events[each].readings.get(row.meter, 0))
        for (claim, _, _), row in billed.items()
        for each in claim
    )


def differences_are_exact(seen: Seen, reference: Reference, stripe: Stripe) -> None:
    """Check that each net difference by customer, meter and hour is open, and none besides.

    Everything was settled and shown before it was read. An unknown outcome, though Stripe refused
    the report in the end, hides as much of what others reported.
    """
    reports, sums = reference.hours(), stripe.sums()
    expected: dict[Hour, tuple[str, float]] = {}
    for hour in {*reports, *sums}:
        bills = reports.get(hour, [])
        due = sum(each.value for each in bills if each.state in {"reported", "shadow"})
        net = sums[hour] - due
        hidden = sum(each.value for each in bills if _is_open(each))
        if hour[0] in stripe.deleted:
            kind = "gone"
        elif hour[0] not in reference.customers:
            kind = "foreign"
        else:
            kind, net = ("lower", net) if net < 0 else ("higher", max(0, net - hidden))
        if net:
            expected[hour] = (kind, net)
    assert {hour: (row.kind, _by(row)) for hour, row in seen.differences.items()} == expected


def lacking(seen: Seen) -> dict[Hour, int]:
    """Return what Stripe has too little of by the open differences, of customers that it has."""
    return {hour: -int(_by(row)) for hour, row in seen.differences.items() if row.kind == "lower"}


def _is_open(bill: Bill) -> bool:
    return bill.state == "forwarded" or (bill.state == "rejected" and bill.ever_unknown)


def _by(row: Row[Any]) -> float:
    by: float = row.counted - (row.expected if row.counted < row.expected else row.at_most)
    return by


def _beyond_help(row: Row[Any], verdict: str, now: datetime) -> bool:
    """Whether a report can never be settled: Stripe lacks it, and it is too old to be sent."""
    return verdict == "fenced" and now - row.occurred_at >= MAX_AGE - SLACK


def _sums(values: Iterable[tuple[str, str, int]]) -> Counter[tuple[str, str]]:
    sums: Counter[tuple[str, str]] = Counter()
    for customer, meter, value in values:
        sums[customer, meter] += value
    return sums


def _claimed(seen: Seen) -> Iterable[tuple[Any, str]]:
    for event in seen.events.values():
        if event.claim_id is not None:
            yield from ((event.claim_id, meter) for meter in event.readings)


def _details(row: Row[Any]) -> tuple[object, ...]:
    return (row.model, row.input_tokens, row.output_tokens, row.cached_tokens)


def _bill(row: Row[Any]) -> Bill:
    return Bill(
        row.user_id,
        row.stripe_customer_id,
        row.value,
        row.occurred_at,
        row.state,
        row.leased_until,
        row.reason,
        row.ever_unknown,
        row.answered_at,
        row.created_at,
    )


def _calls(row: Row[Any]) -> Calls:
    by_hand = row.answer == "by_hand"
    return Calls(
        row.started_at,
        row.state,
        row.attempts,
        row.key_n,
        row.first_unknown_at,
        by_hand,
        row.rejected_later is not None,
    )
