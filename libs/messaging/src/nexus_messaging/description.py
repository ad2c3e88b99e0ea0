"""How the metering broker is set up: limits, waits, ways back and permissions, from ``topology``.

A work queue's limits and dead-lettering are a policy, because an argument can only be changed by
deleting the queue. A retry tier's wait and way back are arguments and a policy: no other policy can
take them away.
"""

import re
from collections.abc import Collection, Iterable
from datetime import timedelta
from typing import Final

from nexus_messaging.blueprint import (
    Binding,
    Exchange,
    Policy,
    Queue,
    TopicPermission,
    Topology,
    User,
)
from nexus_messaging.topology import (
    DEAD,
    EVENTS,
    INTERNAL,
    NOTICES,
    OUTSIDE_ROUTES,
    QUEUES,
    RETIRED_TIERS,
    RETRY_RETURN,
    ROUTES,
    SERVICE_RIGHTS,
    TIERS,
    UNROUTABLE,
    VHOST,
    WORK_QUEUES,
    Rights,
    Tier,
    dead_letter_queue,
)

DELIVERY_LIMIT = 20
"""Deliveries after which the broker itself dead-letters a message.

A lost connection counts as one delivery of every prefetched message, so a smaller limit would
dead-letter messages that are not at fault.
"""

MIN_WAIT = timedelta(milliseconds=50)
"""The lower limit of a scaled tier's wait: a shorter one would make retries a busy loop."""

SAFE_DEAD_LETTERING: Final = {
    "dead-letter-strategy": "at-least-once",
    "overflow": "reject-publish",
}
"""Settings under which the broker drops nothing that it dead-letters.

At-least-once silently becomes at-most-once under any other overflow
(https://www.rabbitmq.com/docs/quorum-queues#dead-lettering). No queue has a maximum length, so
nothing is ever refused for it.
"""

POLICY_PREFIX = "nexus."
"""The prefix of our policies' names. No other policy is ever replaced or removed."""

DEFAULT_BROKER_VERSION = "4.0.5"
_FIRST_LIMITING_MAJOR = 4


def metering_topology(
    vhost: str = VHOST,
    tier_scale: float = 1.0,
    broker_version: str = DEFAULT_BROKER_VERSION,
    present: Collection[str] = (),
) -> Topology:
    """Describe the metering broker.

    Args:
        vhost: The vhost of all queues and exchanges.
        tier_scale: Multiplies each tier's wait, down to ``MIN_WAIT``: for demos and tests.
        broker_version: As the broker reports it, for example ``3.10.8``: policies differ.
        present: The names of the broker's queues. A retired tier among them is described, too.
    """
    retired = tuple(tier for tier in RETIRED_TIERS if tier.name in present)
    tiers = (*TIERS, *retired)
    return Topology(
        vhost=vhost,
        exchanges=_exchanges(tiers),
        queues=_queues(tier_scale, retired),
        bindings=tuple(_bindings(tiers)),
        policies=(
            *(_work_policy(queue) for queue in WORK_QUEUES),
            *(_tier_policy(tier, tier_scale) for tier in tiers),
            *_unlimited_delivery_policies(broker_version),
        ),
        users=(_publisher(), *(_service_user(each, tiers) for each in SERVICE_RIGHTS), _operator()),
        retired=frozenset(tier.name for tier in RETIRED_TIERS),
    )


def _exchanges(tiers: Iterable[Tier]) -> tuple[Exchange, ...]:
    return (
        Exchange(UNROUTABLE, "fanout"),
        Exchange(EVENTS, "topic", alternate=UNROUTABLE),
        Exchange(INTERNAL, "topic"),
        Exchange(NOTICES, "topic"),
        Exchange(DEAD, "topic"),
        # Without an alternate exchange, one missing queue would stop the returns of all queues.
        Exchange(RETRY_RETURN, "direct", alternate=UNROUTABLE),
        # Topic, not fanout: a mistyped queue name is returned to the publisher, and topic
        # permissions keep a service from publishing to the queue of another.
        *(Exchange(tier.name, "topic") for tier in tiers),
    )


def _queues(tier_scale: float, retired: Iterable[Tier]) -> tuple[Queue, ...]:
    work = (Queue(queue.name, queue.single_active_consumer) for queue in QUEUES)
    dead = (Queue(dead_letter_queue(name)) for name in WORK_QUEUES)
    tiers = (Queue(tier.name, settings=_tier_settings(tier, tier_scale)) for tier in TIERS)
    return (*work, *dead, *tiers, *(Queue(tier.name) for tier in retired), Queue(UNROUTABLE))


def _bindings(tiers: Collection[Tier]) -> Iterable[Binding]:
    yield Binding(UNROUTABLE, UNROUTABLE, "")
    # Of any version: an unknown major reaches its consumer, which dead-letters it with the reason.
    for event, queue in OUTSIDE_ROUTES.items():
        yield Binding(EVENTS, queue, f"{event}.*")
    for event, queue in ROUTES.items():
        yield Binding(INTERNAL, queue, f"{event}.*")
    for queue in WORK_QUEUES:
        yield Binding(DEAD, dead_letter_queue(queue), queue)
        yield Binding(RETRY_RETURN, queue, queue)
        for tier in tiers:
            yield Binding(tier.name, tier.name, queue)


def _work_policy(queue: str) -> Policy:
    return Policy(
        POLICY_PREFIX + queue,
        _exactly(queue),
        {
            "delivery-limit": DELIVERY_LIMIT,
            "dead-letter-exchange": DEAD,
            # A message keeps its event type as routing key; `dead` routes by queue name.
            "dead-letter-routing-key": queue,
            **SAFE_DEAD_LETTERING,
        },
    )


def _tier_policy(tier: Tier, scale: float) -> Policy:
    """Set the wait and the return of a tier by policy, as a retired tier has no arguments."""
    return Policy(POLICY_PREFIX + tier.name, _exactly(tier.name), _tier_settings(tier, scale))


def _tier_settings(tier: Tier, scale: float) -> dict[str, str | int]:
    wait = max(tier.wait * scale, MIN_WAIT)
    return {
        "message-ttl": round(wait.total_seconds() * 1000),
        "dead-letter-exchange": RETRY_RETURN,
        **SAFE_DEAD_LETTERING,
    }


def _unlimited_delivery_policies(broker_version: str) -> tuple[Policy, ...]:
    """Remove the delivery limit from the queues that operators read.

    RabbitMQ 4 limits deliveries to 20 by default and counts each *Get messages* as one: it would
    drop a dead letter that was read 21 times. Earlier versions have no default and refuse -1.
    """
    if int(broker_version.split(".", maxsplit=1)[0]) < _FIRST_LIMITING_MAJOR:
        return ()
    return (Policy(POLICY_PREFIX + "keep", _exactly(*_operator_queues()), {"delivery-limit": -1}),)


def _operator_queues() -> tuple[str, ...]:
    return (*(dead_letter_queue(queue) for queue in WORK_QUEUES), UNROUTABLE)


def _publisher() -> User:
    own_types = TopicPermission(EVENTS, _event_types(OUTSIDE_ROUTES))
    return User("publisher", write=_exactly(EVENTS), topics=(own_types,))


def _service_user(service: Rights, tiers: Iterable[Tier]) -> User:
    own_queues = _exactly(*service.queues)
    by_queue_name = (*(tier.name for tier in tiers), DEAD)
    by_type = {INTERNAL: service.publishes, NOTICES: service.notifies}
    by_type = {exchange: types for exchange, types in by_type.items() if types}
    return User(
        service.name,
        write=_exactly(*by_type, *by_queue_name),
        read=own_queues,
        topics=(
            *(TopicPermission(exchange, _event_types(of)) for exchange, of in by_type.items()),
            *(TopicPermission(exchange, own_queues) for exchange in by_queue_name),
        ),
    )


def _operator() -> User:
    """Describe the person who reads dead letters and moves them back.

    *Get messages* needs the permission to read. *Move messages* is a dynamic shovel: it needs the
    tag ``policymaker``, and the broker runs it without checking permissions. So the tag gives
    power over the whole vhost, whatever the permissions say.
    """
    return User("operator", read=_exactly(*_operator_queues()), tags=("policymaker",))


def _event_types(names: Iterable[str]) -> str:
    return rf"^({'|'.join(map(re.escape, names))})\.v[0-9]+$"


def _exactly(*names: str) -> str:
    # re.escape would also escape hyphens, which makes permissions hard to read in the UI.
    escaped = [name.replace(".", r"\.") for name in names]
    return f"^{escaped[0]}$" if len(escaped) == 1 else f"^({'|'.join(escaped)})$"
