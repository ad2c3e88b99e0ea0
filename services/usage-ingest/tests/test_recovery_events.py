"""Which events recovery claims for restored reports, in whatever order events are back."""

from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st

from nexus_contracts import UsageRecorded
from nexus_plans import Charge
from usage_ingest.recovery.events import Candidate, Claim, Differences, assign_events
from usage_ingest.recovery.reports import CustomerAccount, ReportRow, ReportStatus

RUNS, TOKENS = "tool_call_executed", "tokens_used"
START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ACCOUNT = CustomerAccount(UUID(int=7), 1)


def event(second: int, tokens: int = 0, number: int = 0) -> Candidate:
    """Return a run, with tokens or without."""
    read = {RUNS: 1, TOKENS: tokens} if tokens else {RUNS: 1}
    return Candidate(UUID(int=1 + number), START + timedelta(seconds=second), read)


def claim_of(events: list[Candidate]) -> Claim:
    """Return the claim that summed these events up, restored without them."""
    claim_id = uuid4()
    rows = {}
    for meter in (RUNS, TOKENS):
        read = [each.readings[meter] for each in events if meter in each.readings]
        if read:
            report = UsageRecorded(
                report_id=uuid4(),
                identifier="nexus:x",
                meter=meter,
                value=sum(read),
                stripe_customer_id="cus_1",
                occurred_at=min(each.occurred_at for each in events),
                event_count=len(read),
                claim_id=claim_id,
            )
            rows[meter] = ReportRow(report, claim_id, ACCOUNT, ReportStatus("reported"))
    return Claim(rows)


@dataclass(frozen=True)
class Loss:
    """The events of a window: by claim, by the round in which they are back, and never claimed."""

    parts: list[list[Candidate]]
    rounds: list[list[Candidate]]
    unclaimed: list[Candidate]


@st.composite
def losses(draw: st.DrawFn) -> Loss:
    """Return a window of up to 12 runs, claimed in up to 3 parts, and back in up to 4 rounds."""
    drawn = draw(
        st.lists(
            st.tuples(st.integers(0, 9), st.integers(0, 3), st.integers(-1, 2), st.integers(0, 3)),
            min_size=1,
            max_size=12,
        )
    )
    parts: list[list[Candidate]] = [[], [], []]
    rounds: list[list[Candidate]] = [[], [], [], []]
    unclaimed: list[Candidate] = []
    for number, (second, tokens, part, coming) in enumerate(drawn):
        one = event(second, tokens, number)
        rounds[coming].append(one)
        (unclaimed if part < 0 else parts[part]).append(one)
    return Loss([part for part in parts if part], rounds, unclaimed)


@given(loss=losses())
def test_every_claim_is_complete_once_all_events_are_back(loss: Loss) -> None:
    """No event is in two claims, and as many are left as were never claimed."""
    claims = [claim_of(part) for part in loss.parts]
    there: list[Candidate] = []
    taken: dict[UUID, UUID] = {}
    for coming in loss.rounds:
        there += coming
        free = [each for each in there if each.event_id not in taken]
        new = assign_events(claims, free)
        assert not new.keys() & taken.keys()
        taken |= new

    assert [claim.missing for claim in claims] == [0] * len(claims)
    assert len(there) - len(taken) == len(loss.unclaimed)
    left = Counter(m for each in there if each.event_id not in taken for m in each.readings)
    assert left == Counter(m for each in loss.unclaimed for m in each.readings)


@given(loss=losses())
def test_sums_agree_on_every_meter_if_all_events_were_claimed(loss: Loss) -> None:
    """Claims of a window may exchange events with other readings; their sum stays."""
    claims = [claim_of(part) for part in loss.parts]
    assign_events(claims, [each for part in loss.parts for each in part])

    total = Differences()
    for claim in claims:
        total.add(claim.differences)
    assert not any(total.values.values())


def test_earliest_event_of_a_claim_is_the_one_of_its_time() -> None:
    """A late event that was never claimed is left, though it is the earliest of the window."""
    unclaimed, first, second = event(1, number=1), event(3, number=2), event(4, number=3)
    claim = claim_of([first, second])

    taken = assign_events([claim], [unclaimed, first, second])

    assert taken.keys() == {first.event_id, second.event_id}


def test_place_of_a_run_with_tokens_stays_free_for_one() -> None:
    """The run with tokens is back last; a run without tokens that was never claimed is left."""
    plain, unclaimed, with_tokens = event(1, 0, 1), event(2, 0, 2), event(3, 50, 3)
    claim = claim_of([plain, with_tokens])

    first = assign_events([claim], [plain, unclaimed])
    second = assign_events([claim], [unclaimed, with_tokens])

    assert first.keys() == {plain.event_id}
    assert second.keys() == {with_tokens.event_id}
    assert claim.differences.named() == []


def test_claim_without_tokens_takes_no_run_with_tokens() -> None:
    """That run was never claimed: its own report would lack it."""
    plain, unclaimed = event(1, 0, 1), event(2, 50, 2)
    claim = claim_of([plain])

    assert assign_events([claim], [unclaimed]) == {}
    assert assign_events([claim], [unclaimed, plain]).keys() == {plain.event_id}


def test_run_with_other_tokens_makes_a_difference() -> None:
    """A late run took the place of one that was counted."""
    counted, late = event(2, 50, 1), event(3, 7, 2)
    claim = claim_of([counted])

    assign_events([claim], [late])

    assert claim.differences.named() == [(("cus_1", TOKENS), 43)]


def test_later_claim_gets_the_event_of_its_time_first() -> None:
    """The other events of the earlier claim may be any of the window."""
    first, second, third = event(1, number=1), event(3, number=2), event(5, number=3)
    early, late = claim_of([first, third]), claim_of([second])

    taken = assign_events([early, late], [first, second, third])

    assert taken[second.event_id] == late.first.claim_id
    assert (early.missing, late.missing) == (0, 0)


def priced(second: int, cost: int, number: int) -> Candidate:
    """Return a run that cost something."""
    return Candidate(
        UUID(int=1 + number), START + timedelta(seconds=second), {RUNS: 1, "@cost": cost}
    )


def priced_claim(events: list[Candidate], value: int) -> Claim:
    """Return a claim that reported the cost of runs, with half of it added, as ``value``."""
    plain = [Candidate(each.event_id, each.occurred_at, {RUNS: 1}) for each in events]
    [(_, row)] = claim_of(plain).rows.items()
    report = row.report.model_copy(update={"meter": "micros", "value": value})
    rows = {**claim_of(plain).rows, "micros": replace(row, report=report)}
    charges = {None: {}, "pro": {"@cost": Charge("micros", 50)}}
    return Claim(rows, charges, {RUNS}, "pro")


def test_costs_that_claims_exchanged_differ_by_rounding_alone() -> None:
    """Half a unit was rounded up in each report, and another way in each sum of its events."""
    one, two, three = priced(2, 1, 1), priced(1, 2, 2), priced(1, 3, 3)
    early, late = priced_claim([two, three], 8), priced_claim([one], 2)
    total = Differences()

    assign_events([late], [two])
    assign_events([early], [one, three])
    for claim in (early, late):
        total.add(claim.differences)

    assert dict(total.values) == {("cus_1", "micros"): 1}
    assert total.named() == []


def test_report_that_the_known_plan_cannot_make_is_another_plans() -> None:
    """Its plan is not known again. Else its run would be reported once more."""
    run = priced(1, 10, 1)
    claim = priced_claim([run], 15)
    claim.plan = None

    assert assign_events([claim], [run]).keys() == {run.event_id}
    assert (claim.missing, claim.differences.named()) == (0, [])
