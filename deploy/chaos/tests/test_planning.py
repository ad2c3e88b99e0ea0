"""The plan and the load are determined by the seed and contain what a run needs."""

from collections import Counter
from datetime import UTC, datetime

from metering_chaos.evidence import MessageKind
from metering_chaos.load import make_load
from metering_chaos.plan import Kind, Queues, kind_specs, make_plan

START = datetime(2026, 1, 1, tzinfo=UTC)
QUEUES = Queues(
    work=("stripe-reporter.usage-recorded", "usage-ingest.tool-executed"),
    tiers=("retry.1", "retry.4"),
    kept=("stripe-reporter.usage-recorded.dlq", "unroutable", "usage-ingest.tool-executed.dlq"),
    policies=("nexus.retry.1 message-ttl", "nexus.usage-ingest.tool-executed delivery-limit"),
)
SPECS = kind_specs(QUEUES)


def test_a_seed_repeats_the_plan() -> None:
    """The same seed gives the same faults, times and targets; another seed, another plan."""
    assert make_plan(7, 60, 170, QUEUES) == make_plan(7, 60, 170, QUEUES)
    assert make_plan(7, 60, 170, QUEUES) != make_plan(8, 60, 170, QUEUES)


def test_a_plan_has_every_kind_if_it_is_long_enough() -> None:
    """Sixty faults are of all kinds, in order, within the time, each with its target."""
    plan = make_plan(3, 60, 170, QUEUES)

    assert {fault.kind for fault in plan} == set(Kind)
    assert [fault.at for fault in plan] == sorted(fault.at for fault in plan)
    assert all(0 < fault.at < 170 for fault in plan)
    assert all(fault.target in SPECS[fault.kind].targets for fault in plan)


def test_fault_that_outlasts_a_limit_ends_before_the_load() -> None:
    """A frozen transaction and a silent host last longer than what should end their effect."""
    plan = [fault for seed in range(20) for fault in make_plan(seed, 60, 170, QUEUES)]

    limits = {kind: spec.at_least for kind, spec in SPECS.items() if spec.at_least}
    assert len(limits) == 4
    for kind, limit in limits.items():
        lasting = [fault for fault in plan if fault.kind is kind]
        assert len(lasting) >= 20
        assert all(fault.seconds > limit for fault in lasting)
        assert all(fault.at + fault.seconds <= 171 for fault in lasting)


def test_a_seed_repeats_the_load() -> None:
    """The same messages, to the byte, at the same moments."""
    assert make_load(7, 500, 30, START) == make_load(7, 500, 30, START)


def test_a_load_has_duplicates_invalid_messages_and_reused_ids() -> None:
    """A load contains everything a publisher may do wrong, and each run has its own id."""
    load = make_load(1, 5000, 30, START)
    messages = [scheduled.message for scheduled in load]
    runs = [message for message in messages if message.kind is MessageKind.RUN]
    contents = Counter(event_id for event_id, _ in {(each.event_id, each.run) for each in runs})
    usages = {(each.event_id, each.usage) for each in runs}
    of_runs = Counter(event_id for event_id, _ in usages)

    assert len(contents) == 5000
    assert any(usage for event_id, usage in usages if of_runs[event_id] == 1), "no run with tokens"
    assert max(of_runs.values()) == 2, "no tokens that come later than their run"
    assert len(runs) > len(set(runs)), "no duplicates"
    assert max(contents.values()) == 2, "no id with two contents"
    assert any(message.kind is MessageKind.INVALID for message in messages)
    assert any(each.message.kind is MessageKind.USER and each.at > 0 for each in load), (
        "no late user"
    )
