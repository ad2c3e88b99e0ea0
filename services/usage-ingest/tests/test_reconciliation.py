"""Stripe's sums against the ledger's: every net difference is said, none besides."""

import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Final
from uuid import UUID

import pytest

from usage_ingest.reconciliation import (
    Difference,
    HourReport,
    Kind,
    Named,
    compare,
    infer,
    suspects,
)

LAG: Final = timedelta(hours=1)
NOON: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
HISTORIES: Final = 10_000


def report(
    number: int, value: int, state: str = "reported", *, age: float = 2, unknown: bool = False
) -> HourReport:
    """Return a report that was answered ``age`` hours ago, if its state has an answer."""
    answered = None if state in {"pending", "forwarded"} else NOON - timedelta(hours=age)
    return HourReport(UUID(int=number), value, state, answered, unknown)


@pytest.mark.parametrize(
    ("reports", "counted", "kind", "by"),
    [
        ([], 0, Kind.EQUAL, 0),
        ([], 3, Kind.HIGHER, 3),
        ([report(1, 5)], 5, Kind.EQUAL, 0),
        ([report(1, 5)], 4, Kind.LOWER, 1),
        ([report(1, 5), report(2, 3, age=0.5)], 5, Kind.LAGGING, 0),
        ([report(1, 5), report(2, 3, age=0.5)], 8, Kind.EQUAL, 0),
        ([report(1, 5), report(2, 3, age=0.5)], 4, Kind.LOWER, 1),
        # A report without an answer may be there.
        ([report(1, 5), report(2, 3, "forwarded")], 5, Kind.EQUAL, 0),
        ([report(1, 5), report(2, 3, "forwarded")], 8, Kind.EQUAL, 0),
        ([report(1, 5), report(2, 3, "forwarded")], 9, Kind.HIGHER, 1),
        ([report(1, 5), report(2, 3, "rejected", unknown=True)], 8, Kind.EQUAL, 0),
        # What was refused, or rejected later, is not.
        ([report(1, 5), report(2, 3, "rejected")], 8, Kind.HIGHER, 3),
        ([report(1, 5), report(2, 3, "rejected_later")], 8, Kind.HIGHER, 3),
        ([report(1, 5), report(2, 3, "superseded")], 8, Kind.HIGHER, 3),
        # What another way reported must be there, once it had time for it.
        ([report(1, 5), report(2, 3, "shadow")], 8, Kind.EQUAL, 0),
        ([report(1, 5), report(2, 3, "shadow")], 6, Kind.LOWER, 2),
        ([report(1, 5), report(2, 3, "shadow")], 9, Kind.HIGHER, 1),
        ([report(1, 5), report(2, 3, "shadow", age=0.5)], 5, Kind.LAGGING, 0),
        ([report(1, 5)], 4.5, Kind.LOWER, 0.5),
        # Beyond 2^53 Stripe's float can't say more.
        ([report(1, 2**53), report(2, 1)], float(2**53), Kind.EQUAL, 0),
    ],
)
def test_a_sum_is_compared_with_what_may_be_there(
    reports: list[HourReport], counted: float, kind: Kind, by: float
) -> None:
    """A difference is what no answer that is still to come can explain."""
    verdict = compare(reports, float(counted), NOON, LAG)

    assert (verdict.kind, verdict.by) == (kind, by)


def test_nothing_is_inferred_beside_shadow_reports() -> None:
    """Another way reported in portions of its own, and may have lost any part of one."""
    unanswered = report(1, 5, "forwarded")

    assert infer([unanswered], 5.0) == {unanswered.report_id: True}
    assert infer([unanswered, report(2, 7, "shadow")], 5.0) == {}


def test_shadow_report_can_explain_what_is_lacking() -> None:
    """The way before this one has not reported it; of too much it explains nothing."""
    reports = [report(1, 5, "shadow"), report(2, 3)]

    assert suspects(reports, Difference(NOON, Named.LOWER, 8, 8, 3.0)) == [UUID(int=1)]
    assert suspects(reports, Difference(NOON, Named.HIGHER, 8, 8, 13.0)) == []


def test_a_lost_five_and_a_counted_five_name_nobody() -> None:
    """The sum is that of either of them."""
    reports = [report(1, 5), report(2, 5, "forwarded")]

    assert infer(reports, 5.0) == {}
    assert infer(reports, 10.0) == {UUID(int=2): True}
    assert infer(reports, 0.0) == {UUID(int=2): False}


def test_a_sum_of_too_many_explanations_names_nobody() -> None:
    """Trying them all would take for ever."""
    reports = [report(number, 3**number) for number in range(20)]
    reports.append(report(99, 7, "forwarded"))

    assert infer(reports, 7.0) == {}


def test_a_report_is_named_where_the_sum_admits_one_explanation() -> None:
    """Of two reports without an answer one may be certain, and the other not."""
    reports = [report(1, 100), report(2, 7, "forwarded"), report(3, 30, "forwarded")]

    assert infer(reports, 107.0) == {UUID(int=2): True, UUID(int=3): False}


@dataclass(frozen=True)
class Sent:
    """A report, and the truth that only Stripe knows: whether it counts it, and since when."""

    report: HourReport
    counts: bool
    shown_from: datetime


def history(rng: random.Random) -> list[Sent]:
    """Return an hour's reports, some lost, rejected, unknown or shown late."""
    sent = []
    for number in range(rng.randint(0, 6)):
        value = rng.choice((1, 2, 3, 5, 5, 8))
        state = rng.choice(("reported",) * 6 + ("forwarded", "rejected", "rejected_later"))
        unknown = state == "rejected" and rng.random() < 0.5
        made = report(number, value, state, age=rng.uniform(0, 3), unknown=unknown)
        counts = {"reported": rng.random() < 0.8, "forwarded": rng.random() < 0.5}.get(
            state, unknown and rng.random() < 0.5
        )
        shown = (made.answered_at or NOON) + LAG * rng.random()
        sent.append(Sent(made, counts, shown))
    return sent


def shown(sent: list[Sent], at: datetime) -> float:
    """Return what Stripe's sum says at a moment."""
    return float(sum(each.report.value for each in sent if each.counts and each.shown_from <= at))


def test_no_difference_is_missed_or_invented_in_random_histories() -> None:
    """While answers are open it is never wrong; once all are there it is exact."""
    rng = random.Random(20260301)  # noqa: S311 - the same histories in each run
    kinds = set()
    for _ in range(HISTORIES):
        sent, other = history(rng), rng.choice((0, 0, 0, 2))
        reports = [each.report for each in sent]

        early = compare(reports, shown(sent, NOON) + other, NOON, LAG)
        lacking = sum(
            each.report.value
            for each in sent
            if each.report.state == "reported"
            and not each.counts
            and (each.report.answered_at or NOON) <= NOON - LAG
        )
        assert early.kind is not Kind.LOWER or early.by <= lacking
        assert early.kind is not Kind.HIGHER or early.by <= other

        later = NOON + 2 * LAG
        settled = [
            replace(
                each.report,
                state="reported" if each.counts else "rejected_later",
                ever_unknown=False,
                answered_at=NOON,
            )
            if each.report.state != "reported"
            else each.report
            for each in sent
        ]
        verdict = compare(settled, shown(sent, later) + other, later, LAG)
        net = other - sum(
            each.report.value
            for each in sent
            if each.report.state == "reported" and not each.counts
        )
        expected = Kind.LOWER if net < 0 else Kind.HIGHER if net > 0 else Kind.EQUAL
        assert (verdict.kind, verdict.by) == (expected, abs(net))
        kinds |= {early.kind, verdict.kind}

    assert kinds == set(Kind)


def test_no_report_is_named_wrongly_in_random_histories() -> None:
    """Whatever is inferred is the truth, and what every explanation says is inferred."""
    rng = random.Random(42)  # noqa: S311 - likewise
    named = 0
    for _ in range(HISTORIES):
        sent = history(rng)
        counted = shown(sent, NOON)
        truth = {each.report.report_id: each.counts and each.shown_from <= NOON for each in sent}

        inferred = infer([each.report for each in sent], counted)

        assert inferred.items() <= truth.items()
        assert inferred == _by_all_explanations([each.report for each in sent], counted)
        named += len(inferred)

    assert named > HISTORIES / 10


def _by_all_explanations(reports: list[HourReport], counted: float) -> dict[UUID, bool]:
    possible = [each for each in reports if each.standing != "never"]
    explanations = [
        set(chosen)
        for number in range(len(possible) + 1)
        for chosen in combinations(possible, number)
        if sum(each.value for each in chosen) == counted
    ]
    opinions = {
        each.report_id: {each in explanation for explanation in explanations}
        for each in possible
        if each.standing == "open"
    }
    return {key: said.pop() for key, said in opinions.items() if len(said) == 1}
