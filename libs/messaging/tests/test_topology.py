"""The described topology holds together: every name leads somewhere, every right is needed."""

import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_messaging.blueprint import Topology, User
from nexus_messaging.topology import (
    CUSTOMER_PROVISIONED_QUEUE,
    DEAD,
    EVENTS,
    INTERNAL,
    RETRY_RETURN,
    SHORTEST_WAIT,
    TIERS,
    TOOL_EXECUTED_QUEUE,
    UNROUTABLE,
    USAGE_OUTCOMES_QUEUE,
    USAGE_RECORDED_QUEUE,
    USER_CREATED_QUEUE,
    WORK_QUEUES,
    dead_letter_queue,
    home_queue,
    metering_topology,
)

TOPOLOGY = metering_topology()


def user(name: str) -> User:
    """Find a described user."""
    return next(found for found in TOPOLOGY.users if found.name == name)


def governing(topology: Topology, queue: str) -> list[str]:
    """Name the policies that govern a queue."""
    return [policy.name for policy in topology.policies if re.search(policy.pattern, queue)]


def wait_milliseconds(topology: Topology, tier: str) -> int:
    """Read a tier's wait from its policy."""
    policy = next(policy for policy in topology.policies if re.search(policy.pattern, tier))
    return int(policy.definition["message-ttl"])


def test_every_route_joins_an_exchange_and_a_queue_that_exist() -> None:
    """Bindings, alternates and dead-letter exchanges name only what is described."""
    exchanges = {exchange.name for exchange in TOPOLOGY.exchanges}
    queues = {queue.name for queue in TOPOLOGY.queues}

    assert {binding.source for binding in TOPOLOGY.bindings} <= exchanges
    assert {binding.queue for binding in TOPOLOGY.bindings} == queues
    assert {exchange.alternate for exchange in TOPOLOGY.exchanges} - {None} <= exchanges
    for policy in TOPOLOGY.policies:
        assert policy.definition.get("dead-letter-exchange", DEAD) in exchanges


def test_only_events_of_outsiders_are_bound_to_the_outside_exchange() -> None:
    """No key of ours has a route from the exchange that outsiders may write."""
    keys = {binding.routing_key for binding in TOPOLOGY.bindings if binding.source == EVENTS}

    assert keys == {"tool.executed.*", "user.created.*"}


def test_the_inside_exchange_returns_what_it_cannot_route() -> None:
    """An alternate exchange would defeat `mandatory`, so `internal`, `dead` and tiers have none."""
    with_alternate = {exchange.name for exchange in TOPOLOGY.exchanges if exchange.alternate}

    assert with_alternate == {EVENTS, RETRY_RETURN}


@pytest.mark.parametrize("queue", WORK_QUEUES)
def test_a_work_queue_has_its_way_out_and_its_way_back(queue: str) -> None:
    """Each work queue dead-letters by its own name and gets its retries back."""
    routes = {(b.source, b.routing_key, b.queue) for b in TOPOLOGY.bindings}

    assert (DEAD, queue, dead_letter_queue(queue)) in routes
    assert (RETRY_RETURN, queue, queue) in routes
    assert all((tier.name, queue, tier.name) in routes for tier in TIERS)
    (policy,) = [policy for policy in TOPOLOGY.policies if re.search(policy.pattern, queue)]
    assert policy.definition["dead-letter-exchange"] == DEAD
    assert policy.definition["dead-letter-routing-key"] == queue


@pytest.mark.parametrize("version", ["3.10.8", "3.13.7", "4.0.5", "4.3.6"])
def test_no_queue_is_governed_by_two_policies(version: str) -> None:
    """A queue obeys one policy only, so two that match would make one of them void."""
    topology = metering_topology(broker_version=version)
    governed = {queue.name: len(governing(topology, queue.name)) for queue in topology.queues}

    limited = {*WORK_QUEUES, *(tier.name for tier in TIERS)}
    assert all(count == 1 for name, count in governed.items() if name in limited)
    assert all(count <= 1 for count in governed.values())


def test_dead_lettering_is_at_least_once_and_really_so() -> None:
    """The strategy falls back to at-most-once in silence unless the overflow is reject-publish."""
    dead_lettering = [p for p in TOPOLOGY.policies if "dead-letter-exchange" in p.definition]

    assert len(dead_lettering) == len(WORK_QUEUES) + len(TIERS)
    for policy in dead_lettering:
        assert policy.definition["dead-letter-strategy"] == "at-least-once"
        assert policy.definition["overflow"] == "reject-publish"
    assert not any("max-length" in policy.definition for policy in TOPOLOGY.policies)


@pytest.mark.parametrize(("version", "lifted"), [("3.10.8", False), ("4.0.5", True)])
def test_looking_at_dead_letters_does_not_wear_them_out(version: str, *, lifted: bool) -> None:
    """RabbitMQ 4 limits deliveries unless told not to; earlier versions refuse to be told."""
    topology = metering_topology(broker_version=version)
    kept = [*(dead_letter_queue(queue) for queue in WORK_QUEUES), UNROUTABLE]

    unlimited = [p for p in topology.policies if p.definition == {"delivery-limit": -1}]

    assert bool(unlimited) is lifted
    assert all(bool(governing(topology, queue)) is lifted for queue in kept)


def test_only_the_reporter_has_a_single_active_consumer() -> None:
    """One process reports to Stripe, another stands by; everybody else consumes in parallel."""
    single = [queue.name for queue in TOPOLOGY.queues if queue.single_active_consumer]

    assert single == [USAGE_RECORDED_QUEUE]


@given(scale=st.floats(min_value=1e-9, max_value=1e3))
def test_scaled_tiers_keep_their_order_and_never_spin(scale: float) -> None:
    """Whatever the scale, a later tier waits no less than an earlier and none under the limit."""
    topology = metering_topology(tier_scale=scale)
    waits = [wait_milliseconds(topology, tier.name) for tier in TIERS]

    assert waits == sorted(waits)
    assert waits[0] >= SHORTEST_WAIT / timedelta(milliseconds=1)


def test_tiers_wait_as_their_names_say() -> None:
    """Unscaled, the policies hold the tiers' own waits in milliseconds."""
    waits = [wait_milliseconds(TOPOLOGY, tier.name) for tier in TIERS]

    assert waits == [5_000, 60_000, 600_000, 3_600_000]


@pytest.mark.parametrize("service", ["customer-provisioner", "usage-ingest", "stripe-reporter"])
def test_a_service_reads_its_own_queues_only(service: str) -> None:
    """A service's queues begin with its name, and it reads no others, dead letters included."""
    readable = {q.name for q in TOPOLOGY.queues if re.search(user(service).read, q.name)}

    assert readable == {name for name in WORK_QUEUES if name.startswith(f"{service}.")}


@pytest.mark.parametrize("service", ["customer-provisioner", "usage-ingest", "stripe-reporter"])
def test_every_topic_exchange_a_service_may_write_is_limited_to_its_keys(service: str) -> None:
    """A topic exchange without a topic permission would accept any key from it."""
    writable = {e.name for e in TOPOLOGY.exchanges if re.search(user(service).write, e.name)}
    limited = {topic.exchange for topic in user(service).topics}

    assert writable == limited == {INTERNAL, DEAD, *(tier.name for tier in TIERS)}


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
def test_the_publisher_writes_its_own_event_types_only(key: str, *, allowed: bool) -> None:
    """The pattern is anchored at both ends and its dots are dots."""
    (topic,) = user("publisher").topics

    assert topic.exchange == EVENTS
    assert bool(re.search(topic.write, key)) is allowed


@pytest.mark.parametrize(
    ("event_type", "home"),
    [
        ("tool.executed.v1", TOOL_EXECUTED_QUEUE),
        ("tool.executed.v9", TOOL_EXECUTED_QUEUE),
        ("user.created.v1", USER_CREATED_QUEUE),
        ("customer.provisioned.v1", CUSTOMER_PROVISIONED_QUEUE),
        ("usage.recorded.v1", USAGE_RECORDED_QUEUE),
        ("usage.reported.v1", USAGE_OUTCOMES_QUEUE),
        ("usage.rejected.v2", USAGE_OUTCOMES_QUEUE),
        ("nobody.cares.v1", UNROUTABLE),
        ("tool.executed", UNROUTABLE),
        ("", UNROUTABLE),
        (None, UNROUTABLE),
    ],
)
def test_the_home_of_an_event_is_the_queue_of_its_consumer(
    event_type: str | None, home: str
) -> None:
    """Whatever its version; what is no event of ours stays where it arrived."""
    assert home_queue(event_type, UNROUTABLE, from_outside=False) == home


@pytest.mark.parametrize("event", ["usage.recorded.v1", "usage.reported.v1"])
def test_an_outsider_s_message_has_no_home_among_our_own_queues(event: str) -> None:
    """A forged event of ours must not be named to an operator as one to be moved there."""
    home = home_queue(event, TOOL_EXECUTED_QUEUE, from_outside=True)

    assert home == TOOL_EXECUTED_QUEUE
    assert home_queue("user.created.v1", home, from_outside=True) == USER_CREATED_QUEUE


def test_the_operator_reads_what_waits_for_a_person() -> None:
    """Dead letters and the unroutable, and nothing that a consumer is about to take."""
    readable = {q.name for q in TOPOLOGY.queues if re.search(user("operator").read, q.name)}

    assert readable == {*(dead_letter_queue(queue) for queue in WORK_QUEUES), UNROUTABLE}
