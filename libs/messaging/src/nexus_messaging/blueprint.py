"""The types that describe a broker; ``description`` describes the metering broker with them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

NOTHING = "^$"
"""The permission that matches no name."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A durable exchange. What it cannot route goes to ``alternate``, or back to the publisher.

    The alternate exchange is an argument, not a policy. It never changes, and another policy could
    displace ours: then the broker would confirm unroutable events and drop them.
    """

    name: str
    kind: str
    alternate: str | None = None

    @property
    def arguments(self) -> dict[str, str]:
        """The exchange's declaration arguments."""
        return {} if self.alternate is None else {"alternate-exchange": self.alternate}


@dataclass(frozen=True, slots=True)
class Queue:
    """A quorum queue.

    ``settings`` are arguments of the queue, by their names in policies. A policy cannot remove
    them; where both set a number, the smaller one is in force.
    """

    name: str
    single_active_consumer: bool = False
    settings: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def arguments(self) -> dict[str, str | int]:
        """The queue's declaration arguments: only what can never change."""
        active = {"x-single-active-consumer": True} if self.single_active_consumer else {}
        own = {f"x-{name}": value for name, value in self.settings.items()}
        return {"x-queue-type": "quorum", **active, **own}


@dataclass(frozen=True, slots=True)
class Binding:
    """A route from an exchange to a queue."""

    source: str
    queue: str
    routing_key: str


@dataclass(frozen=True, slots=True)
class Policy:
    """Settings of all queues whose name matches ``pattern``; one policy is in force per queue."""

    name: str
    pattern: str
    definition: Mapping[str, str | int]
    # Above the default 0, so that a policy of others for all queues does not displace ours.
    priority: int = 10


@dataclass(frozen=True, slots=True)
class TopicPermission:
    """The routing keys a user may publish with to a topic exchange, as a regular expression."""

    exchange: str
    write: str


@dataclass(frozen=True, slots=True)
class User:
    """A broker user; ``write`` and ``read`` are regular expressions of names."""

    name: str
    write: str = NOTHING
    read: str = NOTHING
    tags: tuple[str, ...] = ()
    topics: tuple[TopicPermission, ...] = ()

    @property
    def password_setting(self) -> str:
        """The environment variable that holds this user's password."""
        return "BROKER_PASSWORD_" + self.name.upper().replace("-", "_")


@dataclass(frozen=True, slots=True)
class Topology:
    """Everything that a vhost must hold, and nothing else.

    ``retired`` names tiers of earlier releases. Those that the broker still has are among
    ``exchanges`` and ``queues``; what is left of the others may be removed.
    """

    vhost: str
    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]
    bindings: tuple[Binding, ...]
    policies: tuple[Policy, ...]
    users: tuple[User, ...]
    retired: frozenset[str] = frozenset()
