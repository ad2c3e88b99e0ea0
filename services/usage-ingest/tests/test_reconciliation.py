"""Stripe's sums against the ledger's: what a difference is, and what may be said of a report."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import pytest

from usage_ingest.inference import infer, suspects
from usage_ingest.reconciliation import (
    Difference,
    DifferenceKind,
    HourReport,
    Kind,
    compare,
    opened,
)

LAG: Final = timedelta(hours=1)
LATER: Final = timedelta(days=3)
NOON: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)


def report(
    number: int, value: int, state: str = "reported", *, age: float = 2, unknown: bool = False
) -> HourReport:
    """Return a report that was answered ``age`` hours ago, if its state has an answer."""
    answered = None if state in {"pending", "forwarded"} else NOON - timedelta(hours=age)
    return HourReport(UUID(int=number), value, state, answered, unknown, forwarded_at=NOON)


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
        # What was rejected lately may be shown still, or was when the sum was read.
        ([report(1, 5), report(2, 3, "rejected_later", age=0.5)], 8, Kind.EQUAL, 0),
        ([report(1, 5), report(2, 3, "rejected_later", age=0.5)], 5, Kind.EQUAL, 0),
        ([report(1, 5), report(2, 3, "rejected_later", age=0.5)], 9, Kind.HIGHER, 1),
        # What another way reported must be there, once it had time for it.
        ([report(1, 5), report(2, 3, "shadow")], 8, Kind.EQUAL, 0),
        ([report(1, 5), report(2, 3, "shadow")], 6, Kind.LOWER, 2),
        ([report(1, 5), report(2, 3, "shadow")], 9, Kind.HIGHER, 1),
        ([report(1, 5), report(2, 3, "shadow", age=0.5)], 5, Kind.LAGGING, 0),
        ([report(1, 5)], 4.5, Kind.LOWER, 0.5),
        # Beyond 2^53 Stripe's float can't say more.
        ([report(1, 2**53), report(2, 1)], float(2**53), Kind.EQUAL, 0),
        ([report(1, 2**53), report(2, 3)], float(2**53 + 4), Kind.EQUAL, 0),
        # Somebody else's.
        ([report(1, 5)], -1.0, Kind.LOWER, 6),
    ],
)
def test_a_sum_is_compared_with_what_may_be_there(
    reports: list[HourReport], counted: float, kind: Kind, by: float
) -> None:
    """A difference is what no answer that is still to come can explain."""
    verdict = compare(reports, float(counted), NOON, LAG)

    counted_is_off_by = {
        Kind.LOWER: verdict.expected - verdict.counted,
        Kind.HIGHER: verdict.counted - verdict.at_most,
    }
    assert verdict.kind is kind
    assert counted_is_off_by.get(kind, 0) == by


def test_nothing_is_inferred_beside_shadow_reports() -> None:
    """Another way reported in portions of its own, and may have lost any part of one."""
    unanswered = report(1, 5, "forwarded")

    assert infer([unanswered], 5.0, NOON + LATER) == {unanswered.report_id: True}
    assert infer([unanswered, report(2, 7, "shadow")], 5.0, NOON + LATER) == {}


def test_shadow_report_can_explain_what_is_lacking() -> None:
    """The way before this one has not reported it; of too much it explains nothing."""
    reports = [report(1, 5, "shadow"), report(2, 3)]

    assert suspects(reports, Difference(NOON, DifferenceKind.LOWER, 8, 8, 3.0)) == [UUID(int=1)]
    assert suspects(reports, Difference(NOON, DifferenceKind.HIGHER, 8, 8, 13.0)) == []


def test_a_lost_five_and_a_counted_five_name_nobody() -> None:
    """The sum is that of either of them."""
    reports = [report(1, 5), report(2, 5, "forwarded")]

    assert infer(reports, 5.0, NOON + LATER) == {}
    assert infer(reports, 10.0, NOON + LATER) == {UUID(int=2): True}
    assert infer(reports, 0.0, NOON + LATER) == {UUID(int=2): False}


@pytest.mark.parametrize(
    ("other", "said"),
    [
        # An operator may have moved it: it is counted, and its answer on its way.
        (report(1, 5, "rejected"), {}),
        # It may have been shown until it was rejected.
        (report(1, 5, "rejected_later", age=-71), {}),
        (report(1, 5, "rejected_later", age=-48), {UUID(int=2): True}),
        (report(1, 5, "superseded"), {UUID(int=2): True}),
    ],
)
def test_what_stripe_refused_before_or_since_may_be_the_sum(
    other: HourReport, said: dict[UUID, bool]
) -> None:
    """Then the sum does not say whether it is this one or the one without an answer."""
    assert infer([other, report(2, 5, "forwarded")], 5.0, NOON + LATER) == said


def test_a_sum_of_too_many_explanations_names_nobody() -> None:
    """Trying them all would take for ever."""
    reports = [report(number, 3**number) for number in range(20)]
    reports.append(report(99, 7, "forwarded"))

    assert infer(reports, 7.0, NOON + LATER) == {}


def test_a_report_is_named_where_the_sum_admits_one_explanation() -> None:
    """Of two reports without an answer one may be certain, and the other not."""
    reports = [report(1, 100), report(2, 7, "forwarded"), report(3, 30, "forwarded")]

    assert infer(reports, 107.0, NOON + LATER) == {UUID(int=2): True, UUID(int=3): False}


def test_thousands_of_small_reports_are_explained_at_once() -> None:
    """Each run may be a report of its own; equal ones have few sums, however many they are."""
    accepted = [report(number, 1 + number % 3, age=2) for number in range(3_600)]
    unknown = [report(10_000 + number, 5, "forwarded") for number in range(20)]
    counted = float(sum(each.value for each in accepted) + 5 * 20)

    inferred = infer([*accepted, *unknown], counted, NOON + LATER)

    assert set(inferred.values()) == {True}
    assert len(inferred) == 20
    more = [*accepted, *unknown, report(20_000, 5, "forwarded")]
    assert infer(more, counted + 5, NOON + LATER) == {}


@pytest.mark.parametrize(
    ("unknown", "hours", "said"),
    [
        (report(2, 7, "forwarded"), 47, {}),
        (report(2, 7, "forwarded"), 48, {UUID(int=2): False}),
        (report(2, 7, "rejected", age=0, unknown=True), 23, {}),
        (report(2, 7, "rejected", age=0, unknown=True), 24, {UUID(int=2): False}),
        (HourReport(UUID(int=2), 7, "pending"), 999, {}),
    ],
)
def test_a_report_that_stripe_may_not_show_yet_is_not_missing(
    unknown: HourReport, hours: int, said: dict[UUID, bool]
) -> None:
    """It may have been accepted just before the reading; that it is there is said at once."""
    reports, as_of = [report(1, 100), unknown], NOON + timedelta(hours=hours)

    assert infer(reports, 100.0, as_of) == said
    assert infer(reports, 107.0, as_of) == {UUID(int=2): True}


LOWER: Final = Difference(NOON, DifferenceKind.LOWER, 8, 8, 3.0)


@pytest.mark.parametrize(
    ("known", "is_settled", "is_opened"),
    [
        pytest.param(None, False, True, id="new, or closed before"),
        pytest.param(LOWER, False, False, id="open and the same"),
        pytest.param(replace(LOWER, counted=2.0), False, False, id="open and another sum"),
        pytest.param(LOWER, True, False, id="settled and the same"),
        pytest.param(replace(LOWER, at_most=10), True, False, id="settled, a report on its way"),
        pytest.param(replace(LOWER, expected=10, counted=5.0), True, False, id="it is shown"),
        pytest.param(replace(LOWER, counted=2.0), True, True, id="settled and another sum"),
        pytest.param(replace(LOWER, expected=9, at_most=9), True, True, id="other reports"),
        pytest.param(replace(LOWER, kind=DifferenceKind.GONE), True, True, id="another kind"),
    ],
)
def test_a_difference_is_opened_if_nobody_knows_it_or_settled_another(
    known: Difference | None, *, is_settled: bool, is_opened: bool
) -> None:
    """An open one keeps its age, however it changes; a settled one is loud once its amount does."""
    others = {} if known is None else {NOON: known}
    settled = {NOON} if is_settled else set()

    found = opened([LOWER], known=others, settled=settled)

    assert found == ((LOWER,) if is_opened else ())
