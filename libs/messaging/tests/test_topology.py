"""The described topology is consistent: each name exists, each permission is needed."""

import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_messaging.blueprint import Topology, User
from nexus_messaging.description import MIN_WAIT, metering_topology
from nexus_messaging.topology import (
    CUSTOMER_PROVISIONED_QUEUE,
    DEAD,
    EVENTS,
    INTERNAL,
    NOTICES,
    RETIRED_TIERS,
    RETRY_RETURN,
    SUBSCRIPTION_CHANGED_QUEUE,
    TIERS,
    TOOL_EXECUTED_QUEUE,
    UNROUTABLE,
    USAGE_OUTCOMES_QUEUE,
    USAGE_RECORDED_QUEUE,
    USER_ASSIGNED_QUEUE,
    USER_CREATED_QUEUE,
    WORK_QUEUES,
    Tier,
    dead_letter_queue,
    home_queue,
)

TOPOLOGY = metering_topology()


def user_named(name: str) -> User:
    """Find a described user."""
    return next(found for found in TOPOLOGY.users if found.name == name)


def policies_of(topology: Topology, queue: str) -> list[str]:
    """Name the policies that match a queue."""
    return [policy.name for policy in topology.policies if re.search(policy.pattern, queue)]


def wait_milliseconds(topology: Topology, tier: str) -> int:
    """Read a tier's wait from its policy."""
    policy = next(policy for policy in topology.policies if re.search(policy.pattern, tier))
    return int(policy.definition["message-ttl"])


def test_each_binding_joins_an_exchange_and_a_queue_that_exist() -> None:
    """Bindings, alternate exchanges and dead-letter exchanges name only described objects."""
    exchanges = {exchange.name for exchange in TOPOLOGY.exchanges}
    queues = {queue.name for queue in TOPOLOGY.queues}

    assert {binding.source for binding in TOPOLOGY.bindings} <= exchanges
    assert {binding.queue for binding in TOPOLOGY.bindings} == queues
    assert {exchange.alternate for exchange in TOPOLOGY.exchanges} - {None} <= exchanges
    for policy in TOPOLOGY.policies:
        assert policy.definition.get("dead-letter-exchange", DEAD) in exchanges


def test_only_outside_events_are_bound_to_the_outside_exchange() -> None:
    """No event type of ours has a route from the exchange that outside publishers may write."""
    keys = {binding.routing_key for binding in TOPOLOGY.bindings if binding.source == EVENTS}

    assert keys == {"tool.executed.*", "user.created.*", "user.updated.*"}


def test_internal_exchange_returns_unroutable_messages() -> None:
    """An alternate exchange would defeat `mandatory`, so `internal`, `dead` and tiers have none."""
    with_alternate = {exchange.name for exchange in TOPOLOGY.exchanges if exchange.alternate}

    assert with_alternate == {EVENTS, RETRY_RETURN}


@pytest.mark.parametrize("queue", WORK_QUEUES)
def test_work_queue_has_dead_letters_and_retries(queue: str) -> None:
    """Each work queue dead-letters by its own name and gets its retries back."""
    routes = {(b.source, b.routing_key, b.queue) for b in TOPOLOGY.bindings}

    assert (DEAD, queue, dead_letter_queue(queue)) in routes
    assert (RETRY_RETURN, queue, queue) in routes
    assert all((tier.name, queue, tier.name) in routes for tier in TIERS)
    (policy,) = [policy for policy in TOPOLOGY.policies if re.search(policy.pattern, queue)]
    assert policy.definition["dead-letter-exchange"] == DEAD
    assert policy.definition["dead-letter-routing-key"] == queue


@pytest.mark.parametrize("version", ["3.10.8", "3.13.7", "4.0.5", "4.3.6"])
def test_no_queue_matches_two_policies(version: str) -> None:
    """One policy is in force per queue, so of two that match one would have no effect."""
    topology = metering_topology(broker_version=version)
    matches = {queue.name: len(policies_of(topology, queue.name)) for queue in topology.queues}

    limited = {*WORK_QUEUES, *(tier.name for tier in TIERS)}
    assert all(count == 1 for name, count in matches.items() if name in limited)
    assert all(count <= 1 for count in matches.values())


def test_dead_lettering_is_at_least_once() -> None:
    """Without reject-publish the broker would use at-most-once, and say nothing."""
    dead_lettering = [p for p in TOPOLOGY.policies if "dead-letter-exchange" in p.definition]

    assert len(dead_lettering) == len(WORK_QUEUES) + len(TIERS)
    for policy in dead_lettering:
        assert policy.definition["dead-letter-strategy"] == "at-least-once"
        assert policy.definition["overflow"] == "reject-publish"
    assert not any("max-length" in policy.definition for policy in TOPOLOGY.policies)


@pytest.mark.parametrize(("version", "lifted"), [("3.10.8", False), ("4.0.5", True)])
def test_reading_dead_letters_does_not_drop_them(version: str, *, lifted: bool) -> None:
    """RabbitMQ 4 limits deliveries by default; earlier versions refuse the setting."""
    topology = metering_topology(broker_version=version)
    kept = [*(dead_letter_queue(queue) for queue in WORK_QUEUES), UNROUTABLE]

    unlimited = [p for p in topology.policies if p.definition == {"delivery-limit": -1}]

    assert bool(unlimited) is lifted
    assert all(bool(policies_of(topology, queue)) is lifted for queue in kept)


def test_only_the_reporter_has_a_single_active_consumer() -> None:
    """One process reports to Stripe, another stands by; other queues are consumed in parallel."""
    single = [queue.name for queue in TOPOLOGY.queues if queue.single_active_consumer]

    assert single == [USAGE_RECORDED_QUEUE]


@given(scale=st.floats(min_value=1e-9, max_value=1e3))
def test_scaled_tiers_keep_their_order_and_lower_limit(scale: float) -> None:
    """At any scale a later tier waits no less than an earlier one, and none less than the limit."""
    topology = metering_topology(tier_scale=scale)
    waits = [wait_milliseconds(topology, tier.name) for tier in TIERS]

    assert waits == sorted(waits)
    assert waits[0] >= MIN_WAIT / timedelta(milliseconds=1)


def test_policies_hold_the_waits_of_the_tiers() -> None:
    """Unscaled, each policy has its tier's wait in milliseconds."""
    waits = [wait_milliseconds(TOPOLOGY, tier.name) for tier in TIERS]

    assert waits == [tier.wait // timedelta(milliseconds=1) for tier in TIERS]


def test_name_of_a_tier_says_its_order_and_no_duration() -> None:
    """A wait can change without its tier's name."""
    assert [tier.name for tier in TIERS] == [f"retry.{n}" for n in range(1, len(TIERS) + 1)]


@pytest.mark.parametrize("tier", RETIRED_TIERS, ids=lambda tier: str(tier.name))
def test_retired_tier_works_on_a_broker_that_has_its_queue(tier: Tier) -> None:
    """Messages return from it, and services of the previous release may publish to it."""
    topology = metering_topology(present=[tier.name])
    added = {(b.source, b.queue, b.routing_key) for b in topology.bindings}
    added -= {(b.source, b.queue, b.routing_key) for b in TOPOLOGY.bindings}

    assert {e.name for e in topology.exchanges} - {e.name for e in TOPOLOGY.exchanges} == {
        tier.name
    }
    assert {q.name for q in topology.queues} - {q.name for q in TOPOLOGY.queues} == {tier.name}
    assert added == {(tier.name, tier.name, queue) for queue in WORK_QUEUES}
    assert wait_milliseconds(topology, tier.name) == tier.wait // timedelta(milliseconds=1)
    for user in topology.users:
        if len(user.topics) > 1:
            assert re.search(user.write, tier.name)
            assert tier.name in {topic.exchange for topic in user.topics}


def test_retired_tier_is_no_part_of_a_new_broker() -> None:
    """No name of a retired tier is in use again."""
    assert not {tier.name for tier in RETIRED_TIERS} & {queue.name for queue in TOPOLOGY.queues}


@pytest.mark.parametrize("service", ["customer-provisioner", "usage-ingest", "stripe-reporter"])
def test_service_reads_its_own_queues_only(service: str) -> None:
    """A service's queues begin with its name, and it reads no others, dead letters included."""
    readable = {q.name for q in TOPOLOGY.queues if re.search(user_named(service).read, q.name)}

    assert readable == {name for name in WORK_QUEUES if name.startswith(f"{service}.")}


@pytest.mark.parametrize("service", ["customer-provisioner", "usage-ingest", "stripe-reporter"])
def test_service_is_limited_to_its_keys_on_each_topic_exchange(service: str) -> None:
    """A topic exchange without a topic permission would accept any key from it."""
    writable = {e.name for e in TOPOLOGY.exchanges if re.search(user_named(service).write, e.name)}
    limited = {topic.exchange for topic in user_named(service).topics}

    notices = {NOTICES} if service == "usage-ingest" else set()
    assert writable == limited == {INTERNAL, DEAD, *notices, *(tier.name for tier in TIERS)}


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        ("tool.executed.v1", True),
        ("user.created.v12", True),
        ("tool.executed.v", False),
        ("tool.executed.v1.more", False),
        ("tool-executed.v1", False),
        ("usage.recorded.v1", False),
    ],
)
def test_publisher_writes_its_own_event_types_only(key: str, *, allowed: bool) -> None:
    """The pattern is anchored at both ends and its dots are dots."""
    (topic,) = user_named("publisher").topics

    assert topic.exchange == EVENTS
    assert bool(re.search(topic.write, key)) is allowed


@pytest.mark.parametrize(
    ("event_type", "home"),
    [
        ("tool.executed.v1", TOOL_EXECUTED_QUEUE),
        ("tool.executed.v9", TOOL_EXECUTED_QUEUE),
        ("user.created.v1", USER_CREATED_QUEUE),
        ("customer.provisioned.v1", CUSTOMER_PROVISIONED_QUEUE),
        ("user.assigned.v1", USER_ASSIGNED_QUEUE),
        ("subscription.changed.v1", SUBSCRIPTION_CHANGED_QUEUE),
        ("usage.recorded.v1", USAGE_RECORDED_QUEUE),
        ("usage.reported.v1", USAGE_OUTCOMES_QUEUE),
        ("usage.rejected.v2", USAGE_OUTCOMES_QUEUE),
        ("nobody.cares.v1", UNROUTABLE),
        ("tool.executed", UNROUTABLE),
        ("", UNROUTABLE),
        (None, UNROUTABLE),
    ],
)
def test_home_of_an_event_is_the_queue_of_its_consumer(event_type: str | None, home: str) -> None:
    """In any version; the home of any other message is the queue it arrived in."""
    assert home_queue(event_type, UNROUTABLE, from_outside=False) == home


@pytest.mark.parametrize("event", ["usage.recorded.v1", "usage.reported.v1", "user.assigned.v1"])
def test_outside_message_has_no_home_among_internal_queues(event: str) -> None:
    """An operator must not be advised to move a forged event to such a queue."""
    home = home_queue(event, TOOL_EXECUTED_QUEUE, from_outside=True)

    assert home == TOOL_EXECUTED_QUEUE
    assert home_queue("user.created.v1", home, from_outside=True) == USER_CREATED_QUEUE


def test_operator_reads_dead_letters_and_unroutable_messages() -> None:
    """And no queue that a service consumes."""
    readable = {q.name for q in TOPOLOGY.queues if re.search(user_named("operator").read, q.name)}

    assert readable == {*(dead_letter_queue(queue) for queue in WORK_QUEUES), UNROUTABLE}
