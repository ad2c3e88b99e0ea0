"""Random histories at Stripe and in the ledger: readings say what is true, and miss nothing."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Final
from uuid import UUID

from nexus_contracts import CountedHour, UsageCounted
from usage_ingest.inference import infer
from usage_ingest.reconciliation import Difference, DifferenceKind, HourReport, compare_reading

HISTORIES: Final = 10_000
HOUR: Final = timedelta(hours=1)
LAG: Final = HOUR
NOON: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOURS: Final = tuple(NOON + place * HOUR for place in range(3))
SETTLED: Final = NOON + timedelta(days=9)
"""When all is answered, heard and shown."""


@dataclass(frozen=True)
class Life:
    """What becomes of a report; ``None`` is never.

    Attributes:
        hour: The hour that it belongs to.
        forwarded_at: When it was sent to the reporter.
        accepted_at: When Stripe accepted it, if it did.
        shown_at: When Stripe's sum has it, if Stripe did not drop it, or reject it before.
        taken_out_at: When Stripe rejected what it had shown.
        refused_at: When the ledger heard that Stripe had refused it, and an operator moved it then.
        answer: The state that the ledger heard of.
        answered_at: When it heard of it, or a shadow report was made.
        rejected_at: When it heard that Stripe had rejected it later.
        ever_unknown: Whether the outcome of a call was unknown.
    """

    report_id: UUID
    hour: datetime
    value: int
    forwarded_at: datetime
    accepted_at: datetime | None = None
    shown_at: datetime | None = None
    taken_out_at: datetime | None = None
    refused_at: datetime | None = None
    answer: str | None = None
    answered_at: datetime | None = None
    rejected_at: datetime | None = None
    ever_unknown: bool = False

    def in_ledger(self, at: datetime) -> HourReport:
        """Return the ledger's row at a moment."""
        state, answered_at = "forwarded", None
        if self.refused_at is not None and self.refused_at <= at:
            state, answered_at = "rejected", self.refused_at
        if at < self.forwarded_at:
            state = "pending"
        elif self.answer is not None and self.answered_at is not None and self.answered_at <= at:
            state, answered_at = self.answer, self.answered_at
        if self.rejected_at is not None and self.rejected_at <= at:
            state, answered_at = "rejected_later", self.rejected_at
        forwarded_at = None if state in {"pending", "shadow"} else self.forwarded_at
        unknown = self.ever_unknown and answered_at is not None
        return HourReport(self.report_id, self.value, state, answered_at, unknown, forwarded_at)

    def is_shown(self, at: datetime) -> bool:
        """Whether Stripe's sum has it."""
        is_out = self.taken_out_at is not None and self.taken_out_at <= at
        return self.shown_at is not None and self.shown_at <= at and not is_out

    def is_at_stripe(self, at: datetime) -> bool:
        """Whether Stripe has it, shown or not."""
        is_accepted = self.accepted_at is not None and self.accepted_at <= at
        is_out = self.taken_out_at is not None and self.taken_out_at <= at
        return is_accepted and self.shown_at is not None and not is_out

    def must_count(self) -> bool:
        """Whether the ledger takes it for counted, for ever."""
        return self.answer in {"reported", "shadow"} and self.rejected_at is None

    def is_lost(self) -> bool:
        """Whether the ledger takes it for counted for ever, and Stripe does not count it."""
        return self.must_count() and self.shown_at is None


def life(rng: random.Random, number: int, lag: timedelta) -> Life:
    """Return one report's history, of two days at most."""
    forwarded = NOON + rng.uniform(-2, 30) * HOUR
    begun = Life(UUID(int=number), rng.choice(HOURS), rng.choice((1, 2, 3, 5, 5, 8)), forwarded)
    # Calls whose outcome is unknown are repeated for up to 23 hours.
    called = forwarded + rng.choice((0.0, 0.0, rng.uniform(0, 23))) * HOUR
    shown = called + rng.uniform(0, 1) * lag
    answered = called + rng.uniform(0, 2) * HOUR
    reported = replace(
        begun,
        accepted_at=called,
        answer="reported",
        answered_at=answered,
        ever_unknown=rng.random() < 0.2,
    )
    fates: dict[str, Callable[[], Life]] = {
        "counted": lambda: replace(reported, shown_at=shown),
        "dropped": lambda: reported,
        "rejected": lambda: _rejected(rng, replace(reported, shown_at=shown)),
        "moved": lambda: replace(
            reported,
            shown_at=shown,
            refused_at=forwarded + rng.random() * (called - forwarded),
            ever_unknown=False,
        ),
        "lost answer": lambda: _lost(rng, replace(reported, shown_at=shown)),
        "never": lambda: begun,
        "refused": lambda: replace(
            begun, answer=rng.choice(("rejected", "superseded")), answered_at=answered
        ),
        # The way before this one reports it once it has been made here, or never.
        "shadow": lambda: replace(
            begun,
            answer="shadow",
            answered_at=forwarded,
            shown_at=None if rng.random() < 0.2 else forwarded + rng.random() * lag,
        ),
    }
    return fates[rng.choice(("counted",) * 7 + tuple(fates))]()


def _rejected(rng: random.Random, counted: Life) -> Life:
    """Let Stripe reject it, before it is shown or after; a sample may come before the answer."""
    assert counted.accepted_at is not None
    later = rng.uniform(0, 5) * HOUR
    return replace(
        counted,
        taken_out_at=counted.accepted_at + rng.random() * later,
        rejected_at=counted.accepted_at + later,
    )


def _lost(rng: random.Random, counted: Life) -> Life:
    """Let the answer be lost: then nothing is heard, or the refusal of a later call."""
    lost = replace(counted, answer=None, answered_at=None, ever_unknown=True)
    lost = replace(lost, shown_at=None if rng.random() < 0.2 else counted.shown_at)
    is_refused = rng.random() < 0.4
    return replace(lost, answer="rejected", answered_at=counted.answered_at) if is_refused else lost


def lives(rng: random.Random, lag: timedelta = LAG) -> list[Life]:
    """Return the reports of one customer and meter."""
    return [life(rng, number, lag) for number in range(rng.randint(0, 9))]


def known(reports: Sequence[Life], at: datetime) -> list[Life]:
    """Return what the ledger has at a moment: a shadow report is made with its state."""
    return [each for each in reports if each.answer != "shadow" or each.forwarded_at <= at]


def readings(
    rng: random.Random,
    reports: Sequence[Life],
    others: Mapping[datetime, int],
    as_of: datetime,
) -> Iterator[UsageCounted]:
    """Read all hours in one page or in two; an hour in which nothing is counted is not listed."""
    border = rng.choice(HOURS)
    for start, end in ((NOON - HOUR, border), (border, HOURS[-1] + HOUR)):
        sums = {
            hour: others.get(hour, 0)
            + sum(each.value for each in reports if each.hour == hour and each.is_shown(as_of))
            for hour in HOURS
            if start <= hour < end
        }
        yield UsageCounted.model_construct(  # valid, and unchecked it takes a tenth of the time
            stripe_customer_id="cus_1",
            meter="tool_calls",
            start=start,
            end=end,
            hours=[
                CountedHour.model_construct(start=hour, value=float(value))
                for hour, value in sums.items()
                if value
            ],
            as_of=as_of,
            customer_gone=False,
        )


def differences(
    reading: UsageCounted, reports: Sequence[Life], at: datetime, *, ours: bool = True
) -> dict[datetime, Difference]:
    """Compare a reading with what the ledger knows at a moment, by hour."""
    in_ledger: dict[datetime, list[HourReport]] = {}
    for each in known(reports, at):
        if reading.start <= each.hour < reading.end:
            in_ledger.setdefault(each.hour, []).append(each.in_ledger(at))
    found = compare_reading(reading, in_ledger, lagged=(), ours=ours, lag=LAG)
    return {each.hour: each for each in found.differences}


def test_each_net_difference_is_said_and_none_besides() -> None:
    """Once all is answered and shown, by hour, and exactly, in however many pages it is read."""
    rng = random.Random(20260301)  # noqa: S311 - the same histories in each run
    seen = set()
    for _ in range(HISTORIES):
        # What has no answer for ever is of the next test.
        reports = [
            each
            for each in lives(rng)
            if each.answer and not (each.answer == "rejected" and each.ever_unknown)
        ]
        others = {rng.choice(HOURS): 2} if rng.random() < 0.3 else {}

        found: dict[datetime, Difference] = {}
        for reading in readings(rng, reports, others, SETTLED):
            found |= differences(reading, reports, SETTLED)

        net = {
            hour: others.get(hour, 0)
            - sum(each.value for each in reports if each.hour == hour and each.is_lost())
            for hour in HOURS
        }
        assert {hour: each.by for hour, each in found.items()} == {
            hour: by for hour, by in net.items() if by
        }
        for each in found.values():
            assert each.kind is (DifferenceKind.LOWER if each.by < 0 else DifferenceKind.HIGHER)
        seen |= {each.kind for each in found.values()}

    assert seen == {DifferenceKind.LOWER, DifferenceKind.HIGHER}


def test_until_all_is_known_a_difference_is_what_nothing_else_can_explain() -> None:
    """Whenever a reading began, and however much later it is compared: the least that is certain.

    What is open, or too young to be shown, may be in the sum or not. All of these cases are tried.
    """
    rng = random.Random(7)  # noqa: S311 - likewise
    seen = {"lower": 0, "higher": 0, "nothing": 0}
    for _ in range(HISTORIES):
        # Stripe may count what was moved before it is answered: that is of the other tests.
        reports = [each for each in lives(rng) if each.refused_at is None]
        others = {rng.choice(HOURS): 4} if rng.random() < 0.3 else {}
        as_of = NOON + rng.uniform(0, 60) * HOUR
        compared_at = as_of + rng.choice((0.0, rng.uniform(0, 6))) * HOUR

        found: dict[datetime, Difference] = {}
        for reading in readings(rng, reports, others, as_of):
            found |= differences(reading, reports, compared_at)

        for hour in HOURS:
            its = [each for each in reports if each.hour == hour]
            counted = others.get(hour, 0) + sum(e.value for e in its if e.is_shown(as_of))
            sure = sum(e.value for e in its if _must_show(e, as_of, compared_at))
            maybe = [e.value for e in its if _may_show(e, as_of, compared_at)]
            nets = [counted - sure - some for some in _sums_of(maybe)]
            certain = 0 if min(nets) <= 0 <= max(nets) else min(nets, key=abs)
            by = found[hour].by if hour in found else 0
            assert by == certain
            seen["lower" if by < 0 else "higher" if by > 0 else "nothing"] += 1

            # And against the truth: no more than Stripe lost, no more than others sent.
            lost = sum(e.value for e in its if e.is_lost() or e.rejected_at is not None)
            assert -lost <= by <= others.get(hour, 0)

    assert min(seen.values()) > HISTORIES / 100


def _must_show(each: Life, as_of: datetime, compared_at: datetime) -> bool:
    return (
        _is_known_to_count(each, compared_at)
        and each.answered_at is not None
        and each.answered_at <= as_of - LAG
    )


def _may_show(each: Life, as_of: datetime, compared_at: datetime) -> bool:
    if _is_known_to_count(each, compared_at):
        return not _must_show(each, as_of, compared_at)
    if each.rejected_at is not None and as_of - LAG < each.rejected_at <= compared_at:
        return True
    is_answered = each.answered_at is not None and each.answered_at <= compared_at
    is_rejected = each.rejected_at is not None and each.rejected_at <= compared_at
    is_open = not is_answered or (each.answer == "rejected" and each.ever_unknown)
    return is_open and not is_rejected and each.answer != "shadow"


def _is_known_to_count(each: Life, at: datetime) -> bool:
    is_rejected = each.rejected_at is not None and each.rejected_at <= at
    is_answered = each.answered_at is not None and each.answered_at <= at
    return each.answer in {"reported", "shadow"} and is_answered and not is_rejected


def _sums_of(values: Sequence[int]) -> set[int]:
    return {
        sum(chosen) for number in range(len(values) + 1) for chosen in combinations(values, number)
    }


def test_a_deleted_or_foreign_customer_is_named_as_one() -> None:
    """Of a deleted one nothing can be read, and of a foreign one there are no reports."""
    rng = random.Random(11)  # noqa: S311 - likewise
    for _ in range(HISTORIES // 10):
        reports = lives(rng)
        [*pages] = readings(rng, reports, {HOURS[0]: 3}, SETTLED)
        for page in pages:
            gone = page.model_copy(update={"hours": [], "customer_gone": True})
            taken = {
                hour: sum(e.value for e in reports if e.hour == hour and e.must_count())
                for hour in HOURS
                if page.start <= hour < page.end
            }
            found = differences(gone, reports, SETTLED)
            assert {hour: -each.by for hour, each in found.items()} == {
                hour: value for hour, value in taken.items() if value
            }
            assert {each.kind for each in found.values()} <= {DifferenceKind.GONE}

            foreign = differences(page, [], SETTLED, ours=False)
            assert foreign.keys() == {each.start for each in page.hours}
            assert {each.kind for each in foreign.values()} <= {DifferenceKind.FOREIGN}


def test_no_report_is_named_wrongly() -> None:
    """Whatever the sums say of a report without an answer is what Stripe did with it.

    Stripe may take a day to show what it accepted. What every explanation says is said, too, of
    reports that Stripe would show by then.
    """
    rng = random.Random(42)  # noqa: S311 - likewise
    named = {True: 0, False: 0}
    for _ in range(HISTORIES):
        reports = lives(rng, lag=timedelta(days=1))
        as_of = NOON + rng.uniform(0, 110) * HOUR
        asked_at = as_of + rng.choice((0.0, rng.uniform(0, 40))) * HOUR
        for hour in HOURS:
            its = [each for each in reports if each.hour == hour]
            in_ledger = [each.in_ledger(asked_at) for each in known(its, asked_at)]
            counted = float(sum(each.value for each in its if each.is_shown(as_of)))

            inferred = infer(in_ledger, counted, as_of)

            assert (
                inferred.items()
                <= {each.report_id: each.is_at_stripe(as_of) for each in its}.items()
            )
            if any(each.state == "shadow" for each in in_ledger):
                assert inferred == {}
                continue
            certain = _by_all_explanations(in_ledger, counted, as_of)
            assert inferred.items() <= certain.items()
            for report in in_ledger:
                if report.report_id in certain and as_of > NOON + timedelta(hours=80):
                    assert report.report_id in inferred
            for said in inferred.values():
                named[said] += 1

    assert min(named.values()) > HISTORIES / 100


def _by_all_explanations(
    reports: Sequence[HourReport], counted: float, as_of: datetime
) -> dict[UUID, bool]:
    possible = [
        each
        for each in reports
        if each.standing in {"counted", "open"}
        or each.state == "rejected"
        or (each.state == "rejected_later" and _is_late(each, as_of))
    ]
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


def _is_late(report: HourReport, as_of: datetime) -> bool:
    return report.answered_at is not None and report.answered_at > as_of - timedelta(days=1)
