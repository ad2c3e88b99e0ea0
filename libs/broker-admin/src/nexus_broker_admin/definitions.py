"""A topology as RabbitMQ's definitions document, and where its entries are in the management API.

RabbitMQ exports and imports everything it holds as one JSON document, its *definitions*
(https://www.rabbitmq.com/docs/definitions): for each kind of object a list of entries.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nexus_messaging.blueprint import NOTHING, Policy, Topology, User

Entry = Mapping[str, Any]
"""One object of a definitions document, for example a queue."""

Definitions = Mapping[str, Any]
"""A definitions document: a list of entries under each kind's section, and the broker's version."""

HASHING = "rabbit_password_hashing_sha256"
SALT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Kind:
    """One section of a definitions document.

    Attributes:
        section: The section's name.
        noun: What an operator calls one entry.
        key: The parts of an entry that name it uniquely within its section.
        path: Where the management API has an entry; parts of the entry in braces. Empty for
            bindings, which are posted to a list, and for what is only compared.
        settings: The parts that must be as described.
        by_hand: What a person must do about an entry that ``nexus-topology`` cannot change; it may
            name parts of the entry in braces.
    """

    section: str
    noun: str
    key: tuple[str, ...]
    path: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    by_hand: str = ""

    def name(self, entry: Entry) -> str:
        """Name ``entry`` uniquely within its section."""
        parts = (entry.get(part) for part in self.key)
        return " ".join(part if isinstance(part, str) else json.dumps(part) for part in parts)

    def path_of(self, entry: Entry) -> tuple[str, ...]:
        """Return the parts of the path of ``entry`` in the management API."""
        return tuple(part.format_map(entry) for part in self.path)


_CANNOT_CHANGE = "cannot be changed: empty it, delete it, apply again"

VHOSTS = Kind("vhosts", "vhost", ("name",), ("vhosts", "{name}"))
EXCHANGES = Kind(
    "exchanges",
    "exchange",
    ("name",),
    ("exchanges", "{vhost}", "{name}"),
    ("type", "durable", "auto_delete", "internal", "arguments"),
    by_hand=_CANNOT_CHANGE,
)
POLICIES = Kind(
    "policies",
    "policy",
    ("name",),
    ("policies", "{vhost}", "{name}"),
    ("pattern", "apply-to", "definition", "priority"),
)
QUEUES = Kind(
    "queues",
    "queue",
    ("name",),
    ("queues", "{vhost}", "{name}"),
    ("durable", "auto_delete", "arguments"),
    by_hand=_CANNOT_CHANGE,
)
IN_FORCE = Kind(
    "in_force",
    "settings of queue",
    ("name",),
    settings=("definition",),
    by_hand="in force: {source}; remove what is not described there, narrow its pattern,"
    " or lower its priority",
)
"""The settings in force for each queue. The broker has no such section: see ``policies``."""
BINDINGS = Kind(
    "bindings",
    "binding",
    ("source", "destination_type", "destination", "routing_key", "arguments"),
)
USERS = Kind("users", "user", ("name",), ("users", "{name}"), ("tags", "password"))
TOPIC_PERMISSIONS = Kind(
    "topic_permissions",
    "topic permission",
    ("user", "exchange"),
    ("topic-permissions", "{vhost}", "{user}"),
    ("write", "read"),
)
PERMISSIONS = Kind(
    "permissions",
    "permission",
    ("user",),
    ("permissions", "{vhost}", "{user}"),
    ("configure", "write", "read"),
)
PARAMETERS = Kind("parameters", "parameter", ("component", "name"))

KINDS = (
    VHOSTS,
    EXCHANGES,
    # Before the queues: a queue without its policy may drop what it dead-letters.
    POLICIES,
    IN_FORCE,
    QUEUES,
    BINDINGS,
    USERS,
    # Before the permissions: without topic permissions a topic exchange takes any routing key.
    TOPIC_PERMISSIONS,
    PERMISSIONS,
    PARAMETERS,
)
"""In the order of creation.

No parameter is described. Each is a shovel, a federation or a limit that somebody set up, and may
explain why messages are not where they should be.
"""


def definitions(topology: Topology) -> dict[str, list[dict[str, Any]]]:
    """Return a topology as a definitions document that a broker can import.

    The users have an empty password hash, so that none can log in until a password is set.
    """
    lasting = {"vhost": topology.vhost, "durable": True, "auto_delete": False}
    return {
        "vhosts": [{"name": topology.vhost}],
        "users": [_user(user) for user in topology.users],
        "permissions": [_permission(topology.vhost, user) for user in topology.users],
        "topic_permissions": [
            {
                "vhost": topology.vhost,
                "user": user.name,
                "exchange": topic.exchange,
                "write": topic.write,
                "read": NOTHING,
            }
            for user in topology.users
            for topic in user.topics
        ],
        "policies": [_policy(topology.vhost, policy) for policy in topology.policies],
        "queues": [
            {**lasting, "name": queue.name, "arguments": queue.arguments}
            for queue in topology.queues
        ],
        "exchanges": [
            {
                **lasting,
                "name": exchange.name,
                "type": exchange.kind,
                "internal": False,
                "arguments": exchange.arguments,
            }
            for exchange in topology.exchanges
        ],
        "bindings": [
            {
                "vhost": topology.vhost,
                "source": binding.source,
                "destination": binding.queue,
                "destination_type": "queue",
                "routing_key": binding.routing_key,
                "arguments": {},
            }
            for binding in topology.bindings
        ],
    }


def _user(user: User) -> dict[str, Any]:
    return {
        "name": user.name,
        "password_hash": "",
        "hashing_algorithm": HASHING,
        # RabbitMQ 3.10 accepts only a string here, although it reports a list.
        "tags": ",".join(user.tags),
    }


def _permission(vhost: str, user: User) -> dict[str, Any]:
    return {
        "vhost": vhost,
        "user": user.name,
        # A user that may declare could undo this description.
        "configure": NOTHING,
        "write": user.write,
        "read": user.read,
    }


def _policy(vhost: str, policy: Policy) -> dict[str, Any]:
    return {
        "vhost": vhost,
        "name": policy.name,
        "pattern": policy.pattern,
        "apply-to": "queues",
        "definition": dict(policy.definition),
        "priority": policy.priority,
    }


def hash_password(password: str, salt: bytes) -> str:
    """Hash a password as the broker does (https://www.rabbitmq.com/docs/passwords).

    Args:
        password: The password.
        salt: ``SALT_BYTES`` random bytes.
    """
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
