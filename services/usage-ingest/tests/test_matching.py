"""Claims put back without their events take as many as they had, in whatever order they come."""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st

from nexus_contracts import UsageRecorded
from usage_ingest.adoption import Account, Mark, Row
from usage_ingest.matching import Candidate, Claim, match

RUNS, TOKENS = "tool_call_executed", "tokens_used"
START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ACCOUNT = Account(UUID(int=7), 1)


def event(second: int, tokens: int = 0, number: int = 0) -> Candidate:
    """Return a run, with tokens or without."""
    read = {RUNS: 1, TOKENS: tokens} if tokens else {RUNS: 1}
    return Candidate(UUID(int=1 + number), START + timedelta(seconds=second), read)


def claim_of(events: list[Candidate]) -> Claim:
    """Return the claim that summed these events up, as it is put back: without them."""
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
            rows[meter] = Row(report, claim_id, ACCOUNT, Mark("reported"))
    return Claim(rows)


@dataclass(frozen=True)
class Loss:
    """What a window's claims had, in which order it comes back, and what was never claimed."""

    parts: list[list[Candidate]]
    rounds: list[list[Candidate]]
    unclaimed: list[Candidate]


@st.composite
def losses(draw: st.DrawFn) -> Loss:
    """Return a window of up to 12 runs, claimed in up to 3 parts, back in up to 4 rounds."""
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
def test_every_claim_is_whole_again_once_all_its_events_are_back(loss: Loss) -> None:
    """No event is in two claims, and what is left over is as much as was never claimed."""
    claims = [claim_of(part) for part in loss.parts]
    there: list[Candidate] = []
    taken: dict[UUID, UUID] = {}
    for coming in loss.rounds:
        there += coming
        free = [each for each in there if each.event_id not in taken]
        new = match(claims, free)
        assert not new.keys() & taken.keys()
        taken |= new

    assert [claim.missing for claim in claims] == [0] * len(claims)
    assert len(there) - len(taken) == len(loss.unclaimed)
    left = Counter(m for each in there if each.event_id not in taken for m in each.readings)
    assert left == Counter(m for each in loss.unclaimed for m in each.readings)


@given(loss=losses())
def test_where_all_events_had_been_claimed_the_money_agrees_on_every_meter(loss: Loss) -> None:
    """Parts of a window may swap events of unequal worth; their sum is what it was."""
    claims = [claim_of(part) for part in loss.parts]
    match(claims, [each for part in loss.parts for each in part])

    total: Counter[tuple[str, str]] = Counter()
    for claim in claims:
        total.update(claim.differences)
    assert not any(total.values())


def test_the_earliest_event_of_a_claim_is_the_one_of_its_time() -> None:
    """A late event that no claim had is left alone, though it is the earliest of the window."""
    stranger, first, second = event(1, number=1), event(3, number=2), event(4, number=3)
    claim = claim_of([first, second])

    taken = match([claim], [stranger, first, second])

    assert taken.keys() == {first.event_id, second.event_id}


def test_a_place_of_a_run_with_tokens_is_kept_for_one() -> None:
    """The run with tokens comes back last; a run without that was never claimed stays out."""
    plain, stranger, dear = event(1, 0, 1), event(2, 0, 2), event(3, 50, 3)
    claim = claim_of([plain, dear])

    first = match([claim], [plain, stranger])
    second = match([claim], [stranger, dear])

    assert first.keys() == {plain.event_id}
    assert second.keys() == {dear.event_id}
    assert set(claim.differences.values()) == {0}


def test_a_run_with_tokens_is_not_taken_by_a_claim_that_had_none() -> None:
    """It was never claimed: its own report is yet to come, and would lack its run."""
    plain, stranger = event(1, 0, 1), event(2, 50, 2)
    claim = claim_of([plain])

    assert match([claim], [stranger]) == {}
    assert match([claim], [stranger, plain]).keys() == {plain.event_id}


def test_what_was_counted_for_other_runs_is_told() -> None:
    """A late run of another worth took the place of one that was counted."""
    counted, late = event(2, 50, 1), event(3, 7, 2)
    claim = claim_of([counted])

    match([claim], [late])

    assert claim.differences == {("cus_1", RUNS): 0, ("cus_1", TOKENS): 43}


def test_a_later_claim_gets_the_event_of_its_time_before_an_earlier_one_fills_up() -> None:
    """The earlier claim's others may be any of the window."""
    first, second, third = event(1, number=1), event(3, number=2), event(5, number=3)
    early, late = claim_of([first, third]), claim_of([second])

    taken = match([early, late], [first, second, third])

    assert taken[second.event_id] == late.first.claim_id
    assert (early.missing, late.missing) == (0, 0)
