"""Whether usage makes its way to Stripe, decided from what the ledger and the broker say."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from nexus_broker_admin.depths import Depth, Depths
from nexus_messaging.topology import (
    RETIRED_TIERS,
    TIERS,
    TOOL_EXECUTED_QUEUE,
    UNROUTABLE,
    USAGE_RECORDED_QUEUE,
    WORK_QUEUES,
    dead_letter_queue,
)
from nexus_service.console import Finding, Tone
from usage_ingest.periods import Placement
from usage_ingest.status import (
    QUEUES,
    STAGES,
    LedgerCounts,
    Stage,
    StateCount,
    findings,
    ledger_rows,
    queue_rows,
)
from usage_ingest.stripes_word import DifferenceCount, PlacementCount, StripesWord

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ALLOWED = timedelta(minutes=15)
QUIET = LedgerCounts(NOW, (), (), NOW - timedelta(hours=8), StripesWord())
CONSUMED = Depths(
    {queue: Depth(0, int(queue in {stage.queue for stage in STAGES})) for queue in QUEUES}
)


def with_depth(queue: str, depth: Depth, depths: Depths = CONSUMED) -> Depths:
    """Return the depths with another of one queue."""
    return replace(depths, queues={**depths.queues, queue: depth})


def found(counts: LedgerCounts | None, depths: Depths | None) -> dict[str, Finding]:
    """Return the findings by their names."""
    return {each.name: each for each in findings(counts, depths, NOW, ALLOWED)}


def wrong(counts: LedgerCounts | None, depths: Depths | None) -> dict[str, str]:
    """Return what is wrong, by its name."""
    each = found(counts, depths).items()
    return {name: finding.text for name, finding in each if finding.tone is Tone.BAD}


def test_every_queue_that_is_consumed_has_its_stage() -> None:
    """Otherwise `status` would not show that it has no consumer, or has dead letters."""
    assert {stage.queue for stage in STAGES} == set(WORK_QUEUES)


def test_no_usage_for_hours_is_no_fault() -> None:
    """Nothing was recorded, and nothing waits."""
    assert wrong(QUIET, CONSUMED) == {}


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
@pytest.mark.parametrize(
    ("connected", "cause"),
    [
        (None, "does not run, or "),
        (frozenset({"operator"}), "does not run, as it has no connection"),
        (frozenset({"usage-ingest", "stripe-reporter", "customer-provisioner"}), "runs, so "),
    ],
)
def test_stage_without_a_consumer_stands_still(
    stage: Stage, connected: frozenset[str] | None, cause: str
) -> None:
    """The cause is named if it is known."""
    depths = replace(with_depth(stage.queue, Depth(3, 0)), connected=connected)

    (finding,) = wrong(QUIET, depths).items()

    assert finding[0] == stage.name
    assert f"3 waiting in {stage.queue}, no consumer" in finding[1]
    assert f"{stage.service} {cause}" in finding[1]


def test_recording_that_stands_still_with_a_consumer_is_wrong() -> None:
    """A frozen process still has a consumer. A backlog that is worked off is no fault."""
    waiting = with_depth(TOOL_EXECUTED_QUEUE, Depth(0, 1, messages=2000))
    working = replace(QUIET, newest=NOW - timedelta(seconds=5))

    assert "nothing was recorded for 8 h" in wrong(QUIET, waiting)["recording"]
    assert wrong(working, waiting) == {}


@pytest.mark.parametrize("queue", [dead_letter_queue(USAGE_RECORDED_QUEUE), UNROUTABLE])
def test_dead_letters_are_wrong(queue: str) -> None:
    """They are not billed until a person moves them."""
    assert f"7 in {queue}" in wrong(QUIET, with_depth(queue, Depth(7, 0)))["dead letters"]


@pytest.mark.parametrize("tier", [TIERS[1].name, RETIRED_TIERS[0].name])
def test_retries_are_noted(tier: str) -> None:
    """They are tried again without anybody's doing, in a tier of an earlier release too."""
    assert tier in QUEUES
    finding = found(QUIET, with_depth(tier, Depth(9, 0)))["retries"]

    assert (finding.tone, finding.text) == (Tone.NOTE, f"waiting to be tried again: 9 in {tier}")


def test_usage_unanswered_for_too_long_is_wrong() -> None:
    """By the oldest event or report."""
    report = StateCount("forwarded", "m", 1, 1, NOW - timedelta(minutes=16), 1, more=False)

    assert (
        "960 s, more than 900 s: degraded"
        in (wrong(replace(QUIET, reports=(report,)), None)["oldest unanswered usage"])
    )


def test_young_usage_is_noted_while_a_stage_stands_still() -> None:
    """Usage that is not recorded has no age in the ledger."""
    fine = found(QUIET, CONSUMED)["oldest unanswered usage"]
    halted = found(QUIET, with_depth(TOOL_EXECUTED_QUEUE, Depth(812, 0)))["oldest unanswered usage"]

    assert (fine.tone, fine.text) == (Tone.GOOD, "0 s")
    assert (halted.tone, halted.text) == (Tone.NOTE, "0 s, of what is recorded")


def test_states_that_were_not_read_whole_say_how_many_there_are() -> None:
    """Sums of a part are not taken for all; a note says how to have all."""
    due = StateCount("due", "m", 5_000, 5_000, NOW, 20_000, more=True)
    waiting = replace(due, state="waiting", total=100_000)
    reported = StateCount("reported", "m", 20_000, 20_000, NOW, None, more=True)
    counts = replace(QUIET, events=(waiting, due), reports=(reported,))

    states = [row.cells[1] for row in ledger_rows(counts, NOW, ALLOWED)]

    assert states == [
        "waiting, 5,000 of 100,000+",
        "due, 5,000 of 20,000",
        "reported, newest 20,000",
    ]
    assert "with --days all are" in found(counts, None)["reported"].text
    assert "reported" not in found(replace(QUIET, events=(due,)), None)


def test_queue_rows_have_their_dead_letters() -> None:
    """Retry tiers have no consumer."""
    dead = with_depth(dead_letter_queue(TOOL_EXECUTED_QUEUE), Depth(2, 0))

    rows = {row.cells[0]: row for row in queue_rows(dead)}

    assert rows[TOOL_EXECUTED_QUEUE].cells == (TOOL_EXECUTED_QUEUE, 0, 1, 2)
    assert rows[TOOL_EXECUTED_QUEUE].tone is Tone.BAD
    assert rows[USAGE_RECORDED_QUEUE].tone is Tone.PLAIN
    assert rows["retry.1"].cells == ("retry.1", 0, None, None)


def test_differences_are_noted_with_their_age() -> None:
    """They keep no usage from Stripe; `reconcile` says which hours they are."""
    read = StripesWord(sums_read_at=NOW - timedelta(seconds=90))
    differing = replace(
        read,
        differences=(
            DifferenceCount("lower", 3, NOW - timedelta(hours=2)),
            DifferenceCount("foreign", 1, NOW - timedelta(minutes=5)),
        ),
    )
    shown = {
        name: found(replace(QUIET, stripe=word), None)["Stripe's sums"]
        for name, word in {"never": StripesWord(), "equal": read, "differing": differing}.items()
    }

    assert (shown["never"].tone, shown["never"].text) == (Tone.NOTE, "never read")
    equal = "read 1 min 30 s ago, no difference"
    assert (shown["equal"].tone, shown["equal"].text) == (Tone.GOOD, equal)
    assert shown["differing"].tone is Tone.NOTE
    assert shown["differing"].text == (
        "read 1 min 30 s ago, differ in hours: 3 lower (the oldest for 2 h), 1 foreign (the oldest"
        " for 5 min): see reconcile"
    )


def test_reports_on_no_invoice_are_noted() -> None:
    """What came in the grace period is on one; of what is unknown nothing is said but that."""
    placements = {
        Placement.AFTER_FINALISATION: PlacementCount(Placement.AFTER_FINALISATION, 2),
        Placement.IN_GRACE: PlacementCount(Placement.IN_GRACE, 9),
        Placement.NOT_SUBSCRIBED: PlacementCount(Placement.NOT_SUBSCRIBED, 10),
        Placement.ENDED_EARLY: PlacementCount(Placement.ENDED_EARLY, 3),
        Placement.UNKNOWN: PlacementCount(Placement.UNKNOWN, 4),
    }

    def noted(*placed: Placement) -> dict[str, Finding]:
        word = StripesWord(placements=tuple(placements[each] for each in placed))
        return found(replace(QUIET, stripe=word), None)

    every = noted(*placements)
    assert every["invoices"].tone is Tone.NOTE
    assert every["invoices"].text.startswith(
        "on none, or in doubt: reports 10 not_subscribed, 2 after_finalisation, 3 ended_early: "
    )
    assert every["subscriptions"].text.startswith("not known of 4 reports")
    assert noted(Placement.IN_GRACE).keys().isdisjoint({"invoices", "subscriptions"})
