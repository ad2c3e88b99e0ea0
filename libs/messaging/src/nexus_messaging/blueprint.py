"""The parts a broker's description is made of; what the metering broker has is in ``topology``."""

from collections.abc import Mapping
from dataclasses import dataclass, field

NOTHING = "^$"
"""The permission that no name satisfies."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A durable exchange. What it cannot route goes to ``alternate``, or back to the sender.

    The alternate exchange is an argument, not a policy: it never changes, and a policy could be
    shadowed by somebody else's, after which unroutable events would vanish with a confirm.
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

    ``settings`` are, by their names in policies, those that it has by itself: no policy can take
    them away. Of two numbers the smaller holds.
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
    """Settings of all queues whose name matches ``pattern``; a queue obeys one policy only."""

    name: str
    pattern: str
    definition: Mapping[str, str | int]
    # Above the default 0: somebody's policy for all queues must not shadow ours.
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
    """Everything a vhost must hold, and nothing else."""

    vhost: str
    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]
    bindings: tuple[Binding, ...]
    policies: tuple[Policy, ...]
    users: tuple[User, ...]
