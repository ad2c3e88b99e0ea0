"""Where an entry of a definitions document lives in the management API, and how users are written.

No request is made here.
"""

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from nexus_broker_admin.definitions import (
    EXCHANGES,
    HASHING,
    PERMISSIONS,
    POLICIES,
    QUEUES,
    SALT_BYTES,
    TOPIC_PERMISSIONS,
    USERS,
    VHOSTS,
    Entry,
    Kind,
    hash_password,
)

# Where an entry of each kind lives; a binding is posted to a list instead.
_PATHS: Final[Mapping[Kind, tuple[str, ...]]] = MappingProxyType(
    {
        VHOSTS: ("vhosts", "{name}"),
        EXCHANGES: ("exchanges", "{vhost}", "{name}"),
        QUEUES: ("queues", "{vhost}", "{name}"),
        POLICIES: ("policies", "{vhost}", "{name}"),
        USERS: ("users", "{name}"),
        PERMISSIONS: ("permissions", "{vhost}", "{user}"),
        TOPIC_PERMISSIONS: ("topic-permissions", "{vhost}", "{user}"),
    }
)


def path_of(kind: Kind, entry: Entry) -> tuple[str, ...]:
    """Return the parts of the path of an entry, of any kind but a binding."""
    return tuple(part.format_map(entry) for part in _PATHS[kind])


def binding_path(binding: Entry) -> tuple[str, ...]:
    """Return the parts of the path of the list that a binding is in."""
    end = "q" if binding["destination_type"] == "queue" else "e"
    return (
        "bindings",
        binding["vhost"],
        "e",
        binding["source"],
        end,
        binding["destination"],
    )


def user_body(user: Entry, passwords: Mapping[str, str]) -> Entry:
    """Write a user as the API takes it: the password goes over the wire as a hash only."""
    return {
        "password_hash": hash_password(passwords[user["name"]], os.urandom(SALT_BYTES)),
        "hashing_algorithm": HASHING,
        "tags": ",".join(user["tags"]),
    }
