"""The differences between a broker and its description, and which of them may be repaired: pure."""

import base64
import binascii
import hmac
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from typing_extensions import override

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
    TOPIC_PERMISSIONS,
    USERS,
    VHOSTS,
    Definitions,
    Entry,
    Kind,
    definitions,
    hash_password,
)
from nexus_broker_admin.policies import (
    DECISIVE,
    described_settings,
    queues_with,
    settings_by_policy,
    settings_hold,
)
from nexus_messaging.blueprint import Topology
from nexus_messaging.description import POLICY_PREFIX
from nexus_messaging.topology import NOTICES, SUBSCRIPTION_PREFIX


class Standing(Enum):
    """How an object on the broker relates to the description."""

    MISSING = "missing"
    DIFFERENT = "different"
    STALE = "extra"
    """Not described, and made by an earlier description: ours by its name or by both its ends."""
    RETIRED = "retired"
    """A tier of an earlier release: kept for its processes and its messages, and no fault."""
    FOREIGN = "foreign"
    """Made by others: shown, never changed."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One object in which broker and description differ.

    Attributes:
        kind: The section that lists the object.
        standing: How the object relates to the description.
        wanted: The described entry, if there is one.
        found: The broker's entry, if there is one.
        still_needed_by: Of a policy that is not described: the queues, not described either, for
            which it is in force. Without it the broker would drop what expires there.
        settings_hold: Of a queue with other arguments than described: whether its settings are as
            described nevertheless, because its policy is in force.
    """

    kind: Kind
    standing: Standing
    wanted: Entry | None
    found: Entry | None
    still_needed_by: tuple[str, ...] = ()
    settings_hold: bool = False

    @property
    def repairable(self) -> bool:
        """Whether ``apply`` can bring the object to its description without losing a message."""
        if self.standing is Standing.DIFFERENT:
            return not self.kind.by_hand
        if self.standing is Standing.STALE:
            return not self.still_needed_by
        return self.standing is Standing.MISSING

    @property
    def acceptable(self) -> bool:
        """Whether the broker works as described in spite of the difference."""
        return self.standing is Standing.RETIRED or self.settings_hold

    @property
    def subject(self) -> str:
        """The object's kind and name."""
        return f"{self.kind.noun} {self.kind.name(self.wanted or self.found or {})}"

    @override
    def __str__(self) -> str:
        text = f"{self.standing.value} {self.subject}"
        if self.standing is Standing.FOREIGN:
            return f"{text}: not described, left alone"
        if self.standing is Standing.RETIRED:
            return (
                f"{text}: kept for processes of the previous release; once none is left, drain it,"
                " delete it, apply again"
            )
        if self.still_needed_by:
            queues = ", ".join(self.still_needed_by)
            return f"{text}: still in force for {queues}: empty it, delete it, apply again"
        if self.wanted is None or self.found is None:
            return text
        parts = [
            disagreement
            for setting in self.kind.settings
            for disagreement in _disagreements(
                setting, self.found.get(setting), self.wanted[setting]
            )
        ]
        if self.settings_hold:
            parts.append("as described while its policy is in force")
        if self.kind.by_hand:
            parts.append(self.kind.by_hand.format_map(self.found))
        return f"{text}: {'; '.join(parts)}"


def _disagreements(setting: str, found: object, wanted: object) -> Iterator[str]:
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        for part in sorted(found.keys() | wanted.keys()):
            yield from _disagreements(part, found.get(part, "absent"), wanted.get(part, "absent"))
    elif found != wanted:
        yield f"{setting} is {found}, should be {wanted}"


def compare(
    topology: Topology, found: Definitions, passwords: Mapping[str, str]
) -> tuple[Difference, ...]:
    """List the differences between a broker and its description, in the order of repair.

    Args:
        topology: The description.
        found: The definitions of the whole broker; other vhosts and users are ignored.
        passwords: Described users' passwords, by user name; the others' are not compared.
    """
    return tuple(
        _judged(difference, topology, found)
        for kind in KINDS
        for difference in _compare_kind(
            kind, topology, _wanted(kind, topology), _found(kind, topology, found, passwords)
        )
    )


def _judged(difference: Difference, topology: Topology, found: Definitions) -> Difference:
    """Add what only the settings in force say about a policy or a queue."""
    kind, standing, there = difference.kind, difference.standing, difference.found
    if kind is POLICIES and standing is Standing.STALE and there:
        return replace(difference, still_needed_by=queues_with(there["name"], topology, found))
    if kind is QUEUES and standing is Standing.DIFFERENT and there and difference.wanted:
        hold = _but_for_settings(there) == _but_for_settings(difference.wanted) and settings_hold(
            there["name"], topology, found
        )
        return replace(difference, settings_hold=hold)
    return difference


def _but_for_settings(queue: Entry) -> Entry:
    """Return the compared parts of a queue without the arguments that a policy can set as well."""
    settings = {f"x-{setting}" for setting in DECISIVE}
    bare = {name: value for name, value in queue["arguments"].items() if name not in settings}
    return {part: queue[part] for part in QUEUES.settings} | {"arguments": bare}


def _compare_kind(
    kind: Kind, topology: Topology, wanted: Mapping[str, Entry], found: Mapping[str, Entry]
) -> Iterator[Difference]:
    for name, entry in wanted.items():
        actual = found.get(name)
        if actual is None:
            yield Difference(kind, Standing.MISSING, entry, None)
        elif kind is QUEUES and name in topology.retired:
            yield Difference(kind, Standing.RETIRED, entry, actual)
        elif any(actual.get(setting) != entry.get(setting) for setting in kind.settings):
            yield Difference(kind, Standing.DIFFERENT, entry, actual)
    # The broker lists in no order, and an operator compares the output of two runs.
    for name, entry in sorted(found.items()):
        if name not in wanted:
            standing = Standing.STALE if _is_ours(kind, topology, entry) else Standing.FOREIGN
            yield Difference(kind, standing, None, entry)


def _wanted(kind: Kind, topology: Topology) -> Mapping[str, Entry]:
    if kind is USERS:
        users = topology.users
        return {u.name: {"name": u.name, "tags": sorted(u.tags), "password": "set"} for u in users}
    if kind is IN_FORCE:
        return described_settings(topology)
    return {kind.name(entry): entry for entry in definitions(topology).get(kind.section, ())}


def _found(
    kind: Kind, topology: Topology, found: Definitions, passwords: Mapping[str, str]
) -> Mapping[str, Entry]:
    if kind is IN_FORCE:
        return settings_by_policy(topology, found)
    entries = [entry for entry in found.get(kind.section, ()) if _concerns(kind, topology, entry)]
    entries = [entry for entry in entries if not _is_subscription(kind, entry)]
    if kind is EXCHANGES:
        # RabbitMQ 4.3 leaves out what is false.
        entries = [{"internal": False, **entry} for entry in entries]
    if kind is USERS:
        entries = [_user_found(entry, passwords.get(entry["name"])) for entry in entries]
    if kind is TOPIC_PERMISSIONS:
        # The API deletes only all topic permissions of a user at once. Without its exchange, one is
        # of no effect, so that of a retired tier may stay.
        exchanges = {exchange.name for exchange in topology.exchanges}
        gone = topology.retired - exchanges
        entries = [entry for entry in entries if entry["exchange"] not in gone]
    if kind is PERMISSIONS:
        others = _administrators(found) - {user.name for user in topology.users}
        entries = [entry for entry in entries if entry["user"] not in others]
    return {kind.name(entry): entry for entry in entries}


def _concerns(kind: Kind, topology: Topology, entry: Entry) -> bool:
    """Whether an entry of the broker belongs to what a topology describes."""
    if kind is VHOSTS:
        return bool(entry["name"] == topology.vhost)
    if kind is USERS:
        return entry["name"] in {user.name for user in topology.users}
    return bool(entry["vhost"] == topology.vhost)


def _is_subscription(kind: Kind, entry: Entry) -> bool:
    """Whether it is a subscriber's queue, or its binding to the exchange for notices."""
    if kind is QUEUES:
        return bool(entry["name"].startswith(SUBSCRIPTION_PREFIX))
    return (
        kind is BINDINGS
        and entry["source"] == NOTICES
        and entry["destination"].startswith(SUBSCRIPTION_PREFIX)
    )


def _user_found(entry: Entry, password: str | None) -> Entry:
    """Replace a user's password hash with whether it fits, which may be shown."""
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
    """Name the administrators, whose permissions are no drift: they can grant themselves any."""
    return {entry["name"] for entry in found.get("users", ()) if "administrator" in _tags(entry)}


def _is_ours(kind: Kind, topology: Topology, entry: Entry) -> bool:
    """Whether an entry that is not described can only have been made by an earlier description."""
    if kind is POLICIES:
        return bool(entry["name"].startswith(POLICY_PREFIX))
    if kind is EXCHANGES:
        return entry["name"] in topology.retired
    if kind is not BINDINGS:
        return False
    exchanges = {exchange.name for exchange in topology.exchanges}
    queues = {queue.name for queue in topology.queues}
    ends = queues if entry["destination_type"] == "queue" else exchanges
    return entry["source"] in exchanges and entry["destination"] in ends
