"""What separates a broker from its description, and what may be done about it: pure."""

import base64
import binascii
import hmac
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from nexus_broker_admin.definitions import (
    BINDINGS,
    EXCHANGES,
    HASHING,
    IN_FORCE,
    KINDS,
    PERMISSIONS,
    POLICIES,
    QUEUES,
    SALT_BYTES,
    USERS,
    VHOSTS,
    Definitions,
    Entry,
    Kind,
    definitions,
    hash_password,
)
from nexus_broker_admin.displacement import (
    DECISIVE,
    obeying,
    settings_described,
    settings_in_force,
)
from nexus_messaging.blueprint import Topology
from nexus_messaging.topology import POLICY_PREFIX


class Standing(Enum):
    """How an object on the broker stands to the description."""

    MISSING = "missing"
    DIFFERENT = "different"
    STALE = "extra"
    """Ours by its name or by both its ends, but described no longer."""
    FOREIGN = "foreign"
    """Somebody else's: shown, never touched."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One object in which broker and description disagree.

    ``wanted`` is the described entry, ``found`` the broker's; ``None`` where there is none.
    ``obeyed_by`` names the queues, not described any more, that a policy still governs: without it
    the broker would drop what waits there as soon as its wait is over.
    """

    kind: Kind
    standing: Standing
    wanted: Entry | None
    found: Entry | None
    obeyed_by: tuple[str, ...] = ()

    @property
    def repairable(self) -> bool:
        """Whether the broker can be brought to the description without losing a message."""
        if self.standing is Standing.DIFFERENT:
            return not self.kind.by_hand
        return self.standing is not Standing.FOREIGN and not self.obeyed_by

    @property
    def by_policy_alone(self) -> bool:
        """Whether it is a queue of an earlier release: its policy gives what a new one has itself.

        It works as described until somebody else's policy displaces that one.
        """
        if self.kind is not QUEUES or self.wanted is None or self.found is None:
            return False
        own = {f"x-{setting}" for setting in DECISIVE}
        bare = {name: value for name, value in self.wanted["arguments"].items() if name not in own}
        wanted = {**self.wanted, "arguments": bare}
        return all(self.found.get(setting) == wanted[setting] for setting in self.kind.settings)

    @property
    def subject(self) -> str:
        """The object's kind and name."""
        return f"{self.kind.noun} {self.kind.name(self.wanted or self.found or {})}"

    def __str__(self) -> str:
        if self.standing is Standing.FOREIGN:
            return f"{self.standing.value} {self.subject}: not described, left alone"
        if self.obeyed_by:
            queues = ", ".join(self.obeyed_by)
            return (
                f"{self.standing.value} {self.subject}: still obeyed by {queues}:"
                " empty it, delete it, apply again"
            )
        if self.wanted is None or self.found is None:
            return f"{self.standing.value} {self.subject}"
        disagreements = "; ".join(
            text
            for setting in self.kind.settings
            for text in _disagreements(setting, self.found.get(setting), self.wanted[setting])
        )
        advice = self.kind.by_hand.format_map(self.found)
        parts = "; ".join(part for part in (disagreements, advice) if part)
        return f"{self.standing.value} {self.subject}: {parts}"


def _disagreements(setting: str, found: object, wanted: object) -> Iterator[str]:
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        for part in sorted(found.keys() | wanted.keys()):
            yield from _disagreements(part, found.get(part, "absent"), wanted.get(part, "absent"))
    elif found != wanted:
        yield f"{setting} is {found}, should be {wanted}"


def compare(
    topology: Topology, found: Definitions, passwords: Mapping[str, str]
) -> tuple[Difference, ...]:
    """List what separates a broker from its description, in the order of repair.

    Args:
        topology: What should be.
        found: The definitions of the whole broker; other vhosts and users are passed over.
        passwords: Described users' passwords, by user name; the others' are not compared.
    """
    return tuple(
        _held(difference, topology, found)
        for kind in KINDS
        for difference in _compare_kind(
            kind, topology, _wanted(kind, topology), _found(kind, topology, found, passwords)
        )
    )


def _held(difference: Difference, topology: Topology, found: Definitions) -> Difference:
    """Keep a stale policy that governs a queue of an older description: it may hold messages."""
    policy = difference.found
    if difference.kind is not POLICIES or difference.standing is not Standing.STALE or not policy:
        return difference
    return replace(difference, obeyed_by=obeying(policy["name"], topology, found))


def _compare_kind(
    kind: Kind, topology: Topology, wanted: Mapping[str, Entry], found: Mapping[str, Entry]
) -> Iterator[Difference]:
    for name, entry in wanted.items():
        actual = found.get(name)
        if actual is None:
            yield Difference(kind, Standing.MISSING, entry, None)
        elif any(actual.get(setting) != entry.get(setting) for setting in kind.settings):
            yield Difference(kind, Standing.DIFFERENT, entry, actual)
    # The broker lists in no order; a person comparing two runs needs one.
    for name, entry in sorted(found.items()):
        if name not in wanted:
            standing = Standing.STALE if _is_ours(kind, topology, entry) else Standing.FOREIGN
            yield Difference(kind, standing, None, entry)


def _wanted(kind: Kind, topology: Topology) -> Mapping[str, Entry]:
    if kind is USERS:
        users = topology.users
        return {u.name: {"name": u.name, "tags": sorted(u.tags), "password": "set"} for u in users}
    if kind is IN_FORCE:
        return settings_described(topology)
    return {kind.name(entry): entry for entry in definitions(topology).get(kind.section, ())}


def _found(
    kind: Kind, topology: Topology, found: Definitions, passwords: Mapping[str, str]
) -> Mapping[str, Entry]:
    if kind is IN_FORCE:
        return settings_in_force(topology, found)
    entries = [entry for entry in found.get(kind.section, ()) if _concerns(kind, topology, entry)]
    if kind is EXCHANGES:
        # RabbitMQ 4.3 leaves out what is false.
        entries = [{"internal": False, **entry} for entry in entries]
    if kind is USERS:
        entries = [_user_found(entry, passwords.get(entry["name"])) for entry in entries]
    if kind is PERMISSIONS:
        others = _administrators(found) - {user.name for user in topology.users}
        entries = [entry for entry in entries if entry["user"] not in others]
    return {kind.name(entry): entry for entry in entries}


def _concerns(kind: Kind, topology: Topology, entry: Entry) -> bool:
    """Whether a broker's entry lies within what a topology describes."""
    if kind is VHOSTS:
        return bool(entry["name"] == topology.vhost)
    if kind is USERS:
        return entry["name"] in {user.name for user in topology.users}
    return bool(entry["vhost"] == topology.vhost)


def _user_found(entry: Entry, password: str | None) -> Entry:
    """Replace a user's password hash with a verdict, which may be shown."""
    known = password is None or (
        entry.get("hashing_algorithm") == HASHING and _matches(entry["password_hash"], password)
    )
    return {
        "name": entry["name"],
        "tags": sorted(_tags(entry)),
        "password": "set" if known else "another",
    }


def _tags(entry: Entry) -> list[str]:
    tags = entry["tags"]
    return [tag for tag in tags.split(",") if tag] if isinstance(tags, str) else tags


def _matches(password_hash: str, password: str) -> bool:
    try:
        salt = base64.b64decode(password_hash)[:SALT_BYTES]
    except binascii.Error:
        return False
    return hmac.compare_digest(password_hash, hash_password(password, salt))


def _administrators(found: Definitions) -> set[str]:
    """Name those who can give themselves any permission: that they have some says nothing."""
    return {entry["name"] for entry in found.get("users", ()) if "administrator" in _tags(entry)}


def _is_ours(kind: Kind, topology: Topology, entry: Entry) -> bool:
    """Whether an entry that is not described can only have been made by an older description."""
    if kind is POLICIES:
        return bool(entry["name"].startswith(POLICY_PREFIX))
    if kind is not BINDINGS:
        return False
    exchanges = {exchange.name for exchange in topology.exchanges}
    queues = {queue.name for queue in topology.queues}
    ends = queues if entry["destination_type"] == "queue" else exchanges
    return entry["source"] in exchanges and entry["destination"] in ends
