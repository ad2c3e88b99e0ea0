"""Plan and load follow from the seed, and hold what a run needs."""

from collections import Counter
from datetime import UTC, datetime

from metering_chaos.evidence import Sort
from metering_chaos.load import make_load
from metering_chaos.plan import OUTLASTS, TARGETS, Kind, make_plan

START = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_seed_repeats_the_plan() -> None:
    """The same faults at the same moments against the same parts; another seed, another plan."""
    assert make_plan(7, 60, 170) == make_plan(7, 60, 170)
    assert make_plan(7, 60, 170) != make_plan(8, 60, 170)


def test_a_plan_has_every_kind_if_it_is_long_enough() -> None:
    """Sixty faults are of all kinds, in order, within the time, each with its target."""
    plan = make_plan(3, 60, 170)

    assert {fault.kind for fault in plan} == set(Kind)
    assert [fault.at for fault in plan] == sorted(fault.at for fault in plan)
    assert all(0 < fault.at < 170 for fault in plan)
    assert all(fault.target in TARGETS.get(fault.kind, ("",)) for fault in plan)


def test_what_is_to_outlast_a_limit_is_over_before_the_load_is() -> None:
    """A frozen transaction and a silent host last longer than what should end their effect."""
    plan = [fault for seed in range(20) for fault in make_plan(seed, 60, 170)]

    for kind, limit in OUTLASTS.items():
        lasting = [fault for fault in plan if fault.kind is kind]
        assert len(lasting) >= 20
        assert all(fault.seconds > limit for fault in lasting)
        assert all(fault.at + fault.seconds <= 171 for fault in lasting)


def test_a_seed_repeats_the_load() -> None:
    """The same messages, to the byte, at the same moments."""
    assert make_load(7, 500, 30, START) == make_load(7, 500, 30, START)


def test_a_load_has_duplicates_broken_messages_and_reused_ids() -> None:
    """All that a producer may do wrong is in it, and each run is a message of its own."""
    load = make_load(1, 5000, 30, START)
    wires = [due.wire for due in load]
    runs = [wire for wire in wires if wire.sort is Sort.RUN]
    facts = Counter(wire.event_id for wire in set(runs))

    assert len(facts) == 5000
    assert len(runs) > len(set(runs)), "no duplicates"
    assert max(facts.values()) == 2, "no id of two facts"
    assert any(wire.sort is Sort.BROKEN for wire in wires)
    assert any(due.wire.sort is Sort.USER and due.at > 0 for due in load), "no late user"
