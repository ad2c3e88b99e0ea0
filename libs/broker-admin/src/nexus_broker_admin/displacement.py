"""Which settings each queue really has, whatever policies of others say about it: pure.

A queue obeys one policy: of those that match its name, the one of the highest priority. An operator
policy is laid over it (https://www.rabbitmq.com/docs/policies). So somebody else's policy can take
away a tier's wait or a queue's dead-lettering while ours stands there unchanged.

The broker reports the policy of a quorum queue up to five seconds late, so the settings in force
are worked out from the policies, which are never late.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from math import inf
from types import MappingProxyType
from typing import Any, Final

from nexus_broker_admin.definitions import Definitions, Entry, definitions
from nexus_messaging.blueprint import Topology
from nexus_messaging.topology import POLICY_PREFIX, RETRY_RETURN, SAFE_DEAD_LETTERING

WAIT: Final = "message-ttl"
"""The setting that holds a tier's wait, in milliseconds."""

DECISIVE: Final = frozenset(
    {
        *(WAIT, "expires", "max-length", "max-length-bytes", "overflow"),
        *("dead-letter-exchange", "dead-letter-routing-key", "dead-letter-strategy"),
        "delivery-limit",
    }
)
"""The settings that keep, move or drop messages. Others, such as where a managed broker's policy
places a queue, are passed over."""

_FOR_QUORUM_QUEUES: Final = {"all", "queues", "quorum_queues"}


@dataclass(frozen=True, slots=True)
class InForce:
    """The decisive settings of one queue, and the policies that they come from."""

    definition: Mapping[str, Any]
    policy: Entry
    operator_policy: Entry

    @property
    def source(self) -> str:
        """The policies in force, with their priorities, for a person."""
        both = (("policy", self.policy), ("operator policy", self.operator_policy))
        named = [f"{kind} {p['name']} (priority {p['priority']})" for kind, p in both if p]
        return " and ".join(named) or "no policy"


def settings_described(topology: Topology) -> dict[str, Entry]:
    """Return the settings that each queue is described to have, by its name."""
    described = definitions(topology)
    return _settings(topology, described["policies"], described)


def settings_in_force(topology: Topology, found: Definitions) -> dict[str, Entry]:
    """Return the settings of each described queue, by its name, our own policies taken as mended.

    What is wrong with those themselves is a difference of its own.
    """
    others = [
        policy
        for policy in _policies(topology.vhost, found)
        if not policy["name"].startswith(POLICY_PREFIX) or obeying(policy["name"], topology, found)
    ]
    mended = [*others, *definitions(topology)["policies"]]
    return _settings(topology, mended, found)


def tiers_held(topology: Topology, found: Definitions) -> tuple[str, ...]:
    """Name the tiers whose wait in force is none, or longer than described.

    What came in under it holds back all that comes in later.
    """
    there = _arguments(topology.vhost, found)
    now = _settings(topology, _policies(topology.vhost, found), found)
    return tuple(
        name
        for name, described in settings_described(topology).items()
        if name in there
        and (wait := described["definition"].get(WAIT)) is not None
        and now[name]["definition"].get(WAIT, inf) > wait
    )


def returns_home(queue: str, vhost: str, found: Definitions) -> bool:
    """Whether what the broker takes from a tier's ``queue`` now goes home and is never dropped."""
    there = in_force(
        queue,
        _policies(vhost, found),
        _operator_policies(vhost, found),
        _arguments(vhost, found).get(queue, {}),
    ).definition
    wanted = {"dead-letter-exchange": RETRY_RETURN, **SAFE_DEAD_LETTERING}
    return all(there.get(setting) == value for setting, value in wanted.items())


def obeying(policy: str, topology: Topology, found: Definitions) -> tuple[str, ...]:
    """Name the queues beyond the description that ``policy`` governs now."""
    described = {queue.name for queue in topology.queues}
    there = _policies(topology.vhost, found)
    names = {q["name"] for q in found.get("queues", ()) if q["vhost"] == topology.vhost}
    return tuple(
        queue
        for queue in sorted(names - described)
        if in_force(queue, there, ()).policy.get("name") == policy
    )


def in_force(
    queue: str,
    policies: Iterable[Entry],
    operator_policies: Iterable[Entry],
    arguments: Mapping[str, Any] = MappingProxyType({}),
) -> InForce:
    """Work out the settings of ``queue`` from the policies of its vhost and its own arguments.

    Of several policies of one priority the broker takes any: here the one that is not ours.
    """
    policy = _first(queue, policies)
    laid_over = _first(queue, operator_policies)
    definition = _decisive(policy)
    own = {name.removeprefix("x-"): value for name, value in arguments.items()}
    for settings in (_decisive(laid_over), _decisive({"definition": own})):
        for setting, value in settings.items():
            definition[setting] = _merged(definition.get(setting), value)
    return InForce(definition, policy, laid_over)


def _settings(
    topology: Topology, policies: Collection[Entry], found: Definitions
) -> dict[str, Entry]:
    operators, own = _operator_policies(topology.vhost, found), _arguments(topology.vhost, found)
    there = {
        queue.name: in_force(queue.name, policies, operators, own.get(queue.name, {}))
        for queue in topology.queues
    }
    return {
        name: {"name": name, "definition": each.definition, "source": each.source}
        for name, each in there.items()
    }


def _policies(vhost: str, found: Definitions) -> list[Entry]:
    return [each for each in found.get("policies", ()) if each["vhost"] == vhost]


def _operator_policies(vhost: str, found: Definitions) -> list[Entry]:
    """Return the operator policies of ``vhost``, which definitions list as parameters."""
    return [
        {**each["value"], "name": each["name"]}
        for each in found.get("parameters", ())
        if each["component"] == "operator_policy" and each["vhost"] == vhost
    ]


def _arguments(vhost: str, found: Definitions) -> dict[str, Mapping[str, Any]]:
    """Return the arguments of each queue of ``vhost``, by its name."""
    queues = [queue for queue in found.get("queues", ()) if queue["vhost"] == vhost]
    return {queue["name"]: queue.get("arguments", {}) for queue in queues}


def _first(queue: str, policies: Iterable[Entry]) -> Entry:
    matching = [each for each in policies if _matches(each, queue)]
    return max(matching, key=_precedence, default={})


def _matches(policy: Entry, queue: str) -> bool:
    if policy["apply-to"] not in _FOR_QUORUM_QUEUES:
        return False
    try:
        return re.search(policy["pattern"], queue) is not None
    except re.error:
        # The broker's expressions are Perl's: one that Python can't read is taken to match.
        return True


def _precedence(policy: Entry) -> tuple[int, bool]:
    return policy["priority"], not policy["name"].startswith(POLICY_PREFIX)


def _decisive(policy: Entry) -> dict[str, Any]:
    settings = policy.get("definition", {})
    return {name: value for name, value in settings.items() if name in DECISIVE}


def _merged(below: object, above: object) -> object:
    """Return what holds where two set the same, of policy, operator policy and the queue itself.

    Of numbers it is the smaller.
    """
    if isinstance(below, int) and isinstance(above, int):
        return min(below, above)
    return above
