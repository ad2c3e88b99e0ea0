"""The sums of a day meet, whatever Stripe shows of it."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from usage_ingest.reconciliation import Standing, standing_of
from usage_ingest.statement.lines import Line, Part, lines
from usage_ingest.statement.rows import DayRows, HourReports, HourSum, RecordedReadings, Scope
from usage_ingest.statement.sums import Sums

START: Final = datetime(2026, 3, 1, tzinfo=UTC)
ACCOUNT: Final = UUID(int=1)
STATES: Final = (
    *("pending", "forwarded", "rejected", "reported", "rejected_later", "superseded"),
    "shadow",
)


def scope(start: datetime = START, end: datetime = START + timedelta(days=1)) -> Scope:
    """Return the scope of one account's statement."""
    return Scope(
        user=None,
        start=start,
        end=end,
        accounts=(ACCOUNT,),
        users=(ACCOUNT,),
        customers={"cus_1": ACCOUNT},
        shared=frozenset(),
        finds_all=True,
        totals_complete=True,
        periods=(),
        read_at={},
        is_known=True,
    )


def reports(state: str, value: int, hour: int = 12, *, unknown: bool = False) -> HourReports:
    """Return reports of an hour."""
    at = START + timedelta(hours=hour)
    return HourReports(ACCOUNT, "cus_1", "runs", at, state, unknown, None, 1, value)


def recorded(key: str, value: int, state: str = "reported") -> RecordedReadings:
    """Return readings of a tool."""
    return RecordedReadings(ACCOUNT, "files", "read", key, state, 1, value)


def test_the_sums_of_counted_meet_in_any_history() -> None:
    """Stripe's sum is what was reported and each named part, and unexplained is never below 0."""
    for seed in range(2000):
        chosen = random.Random(seed)  # noqa: S311 - histories, not secrets
        its = [
            reports(
                chosen.choice(STATES),
                chosen.randint(1, 9),
                chosen.randint(0, 2),
                unknown=chosen.random() < 0.3,
            )
            for _ in range(chosen.randint(0, 6))
        ]
        read = [
            HourSum(
                "cus_1",
                "runs",
                START + timedelta(hours=hour),
                float(chosen.randint(0, 20)),
                chosen.choice([0, 0, -3, 2]),
            )
            for hour in range(chosen.randint(0, 3))
        ]

        found = list(lines(scope(), START, DayRows((), (), its, read)))

        parts = Counter[str]()
        for line in found:
            if line.part is Part.COUNTED:
                parts[line.state] += int(line.value)
        counted = parts.pop("counted", 0)
        accepted = sum(each.value for each in its if each.state == "reported")
        unanswered = sum(
            each.value
            for each in its
            if standing_of(each.state, ever_unknown=each.ever_unknown) is Standing.OPEN
        )
        assert counted == sum(each.counted for each in read)
        assert counted == accepted + sum(parts.values())
        assert 0 <= parts["unanswered"] <= unanswered
        assert parts["unexplained"] >= 0 >= parts["not_shown"]
        assert parts["shadow"] == sum(each.value for each in its if each.state == "shadow")


def test_shadow_usage_that_the_way_before_reported_is_explained() -> None:
    """Stripe counted it, and nothing else: the statement of a team that moves over is no fault."""
    noon = START + timedelta(hours=12)
    its = [reports("shadow", 5), reports("reported", 3)]
    found = lines(scope(), START, DayRows((), (), its, [HourSum("cus_1", "runs", noon, 8.0, 0)]))

    parts = {line.state: line.value for line in found if line.part is Part.COUNTED}

    assert parts == {"counted": 8, "shadow": 5}


def test_sums_that_somebody_else_made_huge_are_added_up() -> None:
    """Stripe's floats reach 1e308; a fraction beside them is no fault of the statement."""
    read = [
        HourSum("cus_1", "runs", START + timedelta(hours=hour), value, 0)
        for hour, value in enumerate((1e308, 1e308, 0.5, -5.0))
    ]
    sums = Sums()
    for line in lines(scope(), START, DayRows((), (), (), read)):
        sums.add(line)

    [sentence] = sums.sentences()
    assert sentence.startswith("runs: counted by Stripe inf")


def claimed(*rows: RecordedReadings, of: int) -> dict[str, float]:
    """Return what reports of a sum consist of."""
    day = DayRows(rows, (), [reports("reported", of)], ())
    return {
        line.state: line.value for line in lines(scope(), START, day) if line.part is Part.CLAIMED
    }


def test_reports_that_no_plan_explains_are_unexplained() -> None:
    """Only routes that were claimed make reports of other readings, and never fewer."""
    assert claimed(recorded("runs", 5), of=5) == {"readings": 5}
    assert claimed(recorded("runs", 5), of=7) == {"readings": 5, "unexplained": 2}
    assert claimed(recorded("runs", 5), of=4) == {"readings": 5, "unexplained": -1}
    route = recorded("@premium", 2)
    assert claimed(recorded("runs", 5), route, of=7) == {"readings": 5, "by_plan": 2}
    assert claimed(recorded("runs", 5), route, of=4) == {"readings": 5, "unexplained": -1}
    waits = recorded("@premium", 2, "waiting")
    assert claimed(recorded("runs", 5), waits, of=7) == {"readings": 5, "unexplained": 2}


def test_days_are_cut_at_midnight_of_utc() -> None:
    """The first and last may be parts of days."""
    begin = START + timedelta(hours=22)

    cut = list(scope(begin, begin + timedelta(days=1, hours=3)).days())

    midnight = START + timedelta(days=1)
    second = midnight + timedelta(days=1)
    assert cut == [
        (begin, midnight),
        (midnight, second),
        (second, second + timedelta(hours=1)),
    ]


def test_what_is_unexplained_is_late_a_day_after_its_day() -> None:
    """A claim and its report are made at once, but a day goes on."""
    sums, day = Sums(), timedelta(days=1)
    sums.add(Line(Part.CLAIMED, START, "runs", "unexplained", 2))

    assert not sums.late(START + 2 * day, day)
    assert sums.late(START + 2 * day + timedelta(seconds=1), day)


def test_amounts_keep_every_digit() -> None:
    """Micro-dollars of a month have more digits than a float shows by itself."""
    sums = Sums()
    sums.add(Line(Part.REPORTED, START, "micros", "reported", 12_345_678_901))
    sums.add(Line(Part.COUNTED, START, "micros", "counted", 12_345_678_901))

    assert list(sums.sentences()) == [
        "micros: in reports 12345678901 = reported 12345678901",
        "micros: counted by Stripe 12345678901 = reported 12345678901",
    ]


def test_a_report_that_another_took_over_is_counted_once() -> None:
    """It was refused for a deleted customer, and its amount was reported to the next one."""
    rows = DayRows(
        [recorded("runs", 5)], (), [reports("superseded", 5), reports("reported", 5)], ()
    )

    sums = Sums()
    for line in lines(scope(), START, rows):
        sums.add(line)

    assert list(sums.sentences())[:2] == [
        "runs: recorded 5 = reported 5",
        "runs: in reports 5 = readings 5 = reported 5; 5 were reported again",
    ]
