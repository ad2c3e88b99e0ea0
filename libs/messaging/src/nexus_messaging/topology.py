"""What the metering broker consists of: names, queues, routes, limits and who may do what.

This is the only description of the broker. ``nexus-topology`` brings a broker to it; services
import the names and never declare anything themselves. Queues carry only the arguments that can
never change; limits, waits and dead-lettering are policies, because changing an argument means
deleting the queue.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
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

VHOST = "metering"

EVENTS = "events"
INTERNAL = "internal"
DEAD = "dead"
RETRY_RETURN = "retry.return"
UNROUTABLE = "unroutable"

USER_CREATED_QUEUE = "customer-provisioner.user-created"
TOOL_EXECUTED_QUEUE = "usage-ingest.tool-executed"
CUSTOMER_PROVISIONED_QUEUE = "usage-ingest.customer-provisioned"
USAGE_OUTCOMES_QUEUE = "usage-ingest.usage-outcomes"
USAGE_RECORDED_QUEUE = "stripe-reporter.usage-recorded"
WORK_QUEUES = (
    USER_CREATED_QUEUE,
    TOOL_EXECUTED_QUEUE,
    CUSTOMER_PROVISIONED_QUEUE,
    USAGE_OUTCOMES_QUEUE,
    USAGE_RECORDED_QUEUE,
)

DELIVERY_LIMIT = 20
"""Deliveries before the broker dead-letters by itself: a lost connection counts as one for every
prefetched message, so a smaller number would take innocent messages along."""

SHORTEST_WAIT = timedelta(milliseconds=50)
"""No scaled tier waits less: below it a retry is a busy loop."""

MAX_MESSAGE_BYTES: Final = 512 * 1024
"""The broker's ``max_message_size``, which no definitions hold: a setting of its configuration.

Twice what the contract allows a body, so that a body a little too long still becomes a dead letter
with its reason; what is longer is refused to its publisher. A consumer stops reading at
``consumer.BYTES_IN_HAND`` and may hold one message more, which is 16 MiB (4.x) or 128 MiB by the
broker's own default.
"""

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
"""Policies named so are ours: the only ones ever replaced or removed."""

DEFAULT_BROKER_VERSION = "4.0.5"
_FIRST_LIMITING_MAJOR = 4


@dataclass(frozen=True, slots=True)
class Tier:
    """A retry wait: a topic exchange and a queue of the same name, ``wait`` long."""

    name: str
    wait: timedelta


TIERS = (
    Tier("retry.5s", timedelta(seconds=5)),
    Tier("retry.1m", timedelta(minutes=1)),
    Tier("retry.10m", timedelta(minutes=10)),
    Tier("retry.1h", timedelta(hours=1)),
)


@dataclass(frozen=True, slots=True)
class Rights:
    """A service's rights: the queues it consumes and the event types it publishes."""

    name: str
    queues: tuple[str, ...]
    publishes: tuple[str, ...]


_SERVICES = (
    Rights("customer-provisioner", (USER_CREATED_QUEUE,), ("customer.provisioned", "user.created")),
    Rights(
        "usage-ingest",
        (TOOL_EXECUTED_QUEUE, CUSTOMER_PROVISIONED_QUEUE, USAGE_OUTCOMES_QUEUE),
        ("usage.recorded",),
    ),
    Rights("stripe-reporter", (USAGE_RECORDED_QUEUE,), ("usage.reported", "usage.rejected")),
)

_OUTSIDE_ROUTES = {"tool.executed": TOOL_EXECUTED_QUEUE, "user.created": USER_CREATED_QUEUE}
OUTSIDE_QUEUES = frozenset(_OUTSIDE_ROUTES.values())
"""The queues that other services publish to."""
# Bound to `internal` only: a CC header gets past topic permissions, so an outsider could forge
# these types if they had any route from `events`.
_INSIDE_ROUTES = {
    "customer.provisioned": CUSTOMER_PROVISIONED_QUEUE,
    "usage.recorded": USAGE_RECORDED_QUEUE,
    "usage.reported": USAGE_OUTCOMES_QUEUE,
    "usage.rejected": USAGE_OUTCOMES_QUEUE,
}


def rights_of(service: str) -> Rights:
    """Return what ``service`` may do at the broker."""
    return next(rights for rights in _SERVICES if rights.name == service)


def dead_letter_queue(queue: str) -> str:
    """Name the queue that keeps what ``queue``'s consumer gave up on."""
    return f"{queue}.dlq"


def home_queue(event_type: str | None, arrived_in: str, *, from_outside: bool) -> str:
    """Name the queue whose consumer reads ``event_type``.

    A wrong move does not change it. Of a type that nobody consumes, or of none, it is the queue
    ``arrived_in``. So it is of one of our own types that came ``from_outside``: a move to our queue
    would give a publisher rights that it lacks.
    """
    routes = _OUTSIDE_ROUTES if from_outside else _OUTSIDE_ROUTES | _INSIDE_ROUTES
    name, _, _version = (event_type or "").rpartition(".")
    return routes.get(name, arrived_in)


def metering_topology(
    vhost: str = VHOST,
    tier_scale: float = 1.0,
    broker_version: str = DEFAULT_BROKER_VERSION,
) -> Topology:
    """Describe the metering broker.

    Args:
        vhost: Where everything lives.
        tier_scale: Multiplies each tier's wait, down to ``SHORTEST_WAIT``: for demos and tests.
        broker_version: As the broker reports it, for example ``3.10.8``: policies differ.
    """
    return Topology(
        vhost=vhost,
        exchanges=_exchanges(),
        queues=_queues(tier_scale),
        bindings=tuple(_bindings()),
        policies=(
            *(_work_policy(queue) for queue in WORK_QUEUES),
            *(_tier_policy(tier, tier_scale) for tier in TIERS),
            *_keeping_policies(broker_version),
        ),
        users=(_publisher(), *map(_service_user, _SERVICES), _operator()),
    )


def _exchanges() -> tuple[Exchange, ...]:
    return (
        Exchange(UNROUTABLE, "fanout"),
        Exchange(EVENTS, "topic", alternate=UNROUTABLE),
        Exchange(INTERNAL, "topic"),
        Exchange(DEAD, "topic"),
        # Without an alternate, one missing queue here would hold back every queue's returns.
        Exchange(RETRY_RETURN, "direct", alternate=UNROUTABLE),
        # Topic, not fanout: a mistyped queue name comes back to the sender, and topic permissions
        # keep a service from injecting into another's queue.
        *(Exchange(tier.name, "topic") for tier in TIERS),
    )


def _queues(tier_scale: float) -> tuple[Queue, ...]:
    work = (Queue(name, name == USAGE_RECORDED_QUEUE) for name in WORK_QUEUES)
    dead = (Queue(dead_letter_queue(name)) for name in WORK_QUEUES)
    tiers = (Queue(tier.name, settings=_tier_settings(tier, tier_scale)) for tier in TIERS)
    return (*work, *dead, *tiers, Queue(UNROUTABLE))


def _bindings() -> Iterable[Binding]:
    yield Binding(UNROUTABLE, UNROUTABLE, "")
    # The version is left open, so an unknown major reaches a consumer that can say so.
    for event, queue in _OUTSIDE_ROUTES.items():
        yield Binding(EVENTS, queue, f"{event}.*")
    for event, queue in (_OUTSIDE_ROUTES | _INSIDE_ROUTES).items():
        yield Binding(INTERNAL, queue, f"{event}.*")
    for queue in WORK_QUEUES:
        yield Binding(DEAD, dead_letter_queue(queue), queue)
        yield Binding(RETRY_RETURN, queue, queue)
        for tier in TIERS:
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
    """Give a tier that an earlier release made what a new one has by itself."""
    return Policy(POLICY_PREFIX + tier.name, _exactly(tier.name), _tier_settings(tier, scale))


def _tier_settings(tier: Tier, scale: float) -> dict[str, str | int]:
    wait = max(tier.wait * scale, SHORTEST_WAIT)
    return {
        "message-ttl": round(wait.total_seconds() * 1000),
        "dead-letter-exchange": RETRY_RETURN,
        **SAFE_DEAD_LETTERING,
    }


def _keeping_policies(broker_version: str) -> tuple[Policy, ...]:
    """Lift the delivery limit from the queues that people look into.

    RabbitMQ 4 limits deliveries to 20 by default and counts each *Get messages* as one: a dead
    letter looked at 21 times would be gone. Earlier versions have no default and refuse -1.
    """
    if int(broker_version.split(".", maxsplit=1)[0]) < _FIRST_LIMITING_MAJOR:
        return ()
    return (Policy(POLICY_PREFIX + "keep", _exactly(*_kept_queues()), {"delivery-limit": -1}),)


def _kept_queues() -> tuple[str, ...]:
    return (*(dead_letter_queue(queue) for queue in WORK_QUEUES), UNROUTABLE)


def _publisher() -> User:
    own_types = TopicPermission(EVENTS, _event_types(_OUTSIDE_ROUTES))
    return User("publisher", write=_exactly(EVENTS), topics=(own_types,))


def _service_user(service: Rights) -> User:
    own_queues = _exactly(*service.queues)
    by_queue_name = (*(tier.name for tier in TIERS), DEAD)
    return User(
        service.name,
        write=_exactly(INTERNAL, *by_queue_name),
        read=own_queues,
        topics=(
            TopicPermission(INTERNAL, _event_types(service.publishes)),
            *(TopicPermission(exchange, own_queues) for exchange in by_queue_name),
        ),
    )


def _operator() -> User:
    """Describe the person who looks at dead letters and moves them back.

    *Get messages* needs read. *Move messages* is a dynamic shovel: it needs the tag
    ``policymaker``, and the broker runs it past all permissions, so the tag is power over the
    whole vhost whatever stands here.
    """
    return User("operator", read=_exactly(*_kept_queues()), tags=("policymaker",))


def _event_types(names: Iterable[str]) -> str:
    return rf"^({'|'.join(map(re.escape, names))})\.v[0-9]+$"


def _exactly(*names: str) -> str:
    # re.escape would escape the hyphen too, which reads badly in the management UI.
    escaped = [name.replace(".", r"\.") for name in names]
    return f"^{escaped[0]}$" if len(escaped) == 1 else f"^({'|'.join(escaped)})$"
