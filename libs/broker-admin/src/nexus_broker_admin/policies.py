"""The settings in force for each queue, worked out from all policies of its vhost: pure.

One policy is in force for a queue: of those whose pattern matches its name, the one of the highest
priority. An operator policy is merged over it, and the queue's own arguments over both
(https://www.rabbitmq.com/docs/policies). So a policy of others can displace ours, and with it a
tier's wait or a queue's dead-lettering, while ours remains on the broker unchanged.

The broker reports the policy of a quorum queue up to five seconds late. The policies themselves
are never late, so the settings in force are computed from them.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from math import inf
from types import MappingProxyType
from typing import Any, Final

from nexus_broker_admin.definitions import Definitions, Entry, definitions
from nexus_messaging.blueprint import Topology
from nexus_messaging.description import POLICY_PREFIX, SAFE_DEAD_LETTERING
from nexus_messaging.topology import RETRY_RETURN

WAIT: Final = "message-ttl"
"""The setting that holds a tier's wait, in milliseconds."""

DECISIVE: Final = frozenset(
    {
        *(WAIT, "expires", "max-length", "max-length-bytes", "overflow"),
        *("dead-letter-exchange", "dead-letter-routing-key", "dead-letter-strategy"),
        "delivery-limit",
    }
)
"""The settings that keep, move or drop messages. Others are ignored, for example where a managed
broker's policy places a queue."""

_FOR_QUORUM_QUEUES: Final = {"all", "queues", "quorum_queues"}

Arguments = Mapping[str, Any]
"""The arguments of a queue, by their names: ``x-message-ttl``."""


@dataclass(frozen=True, slots=True)
class InForce:
    """The decisive settings of one queue, and the policies that they come from."""

    definition: Mapping[str, Any]
    policy: Entry
    operator_policy: Entry

    @property
    def source(self) -> str:
        """The policies in force with their priorities, for an operator."""
        both = (("policy", self.policy), ("operator policy", self.operator_policy))
        named = [f"{kind} {p['name']} (priority {p['priority']})" for kind, p in both if p]
        return " and ".join(named) or "no policy"


def described_settings(topology: Topology) -> dict[str, Entry]:
    """Return the settings that each queue is described to have, by its name."""
    described = definitions(topology)
    arguments = _arguments(topology.vhost, described)
    return _settings(topology, described["policies"], described, arguments)


def settings_by_policy(topology: Topology, found: Definitions) -> dict[str, Entry]:
    """Return the settings of each described queue as policies of others leave them, by its name.

    Our own policies, and the values of the queue's own arguments, are taken as described: what is
    wrong with them is reported as a difference of the policy or of the queue.
    """
    described = _arguments(topology.vhost, definitions(topology))
    there = {
        name: {each: described.get(name, {}).get(each, value) for each, value in own.items()}
        for name, own in _arguments(topology.vhost, found).items()
    }
    return _settings(topology, _with_ours_as_described(topology, found), found, there)


def settings_hold(queue: str, topology: Topology, found: Definitions) -> bool:
    """Whether the settings in force for ``queue`` are as described, once our policies are."""
    policies = _with_ours_as_described(topology, found)
    there = _settings(topology, policies, found, _arguments(topology.vhost, found))[queue]
    return bool(there["definition"] == described_settings(topology)[queue]["definition"])


def blocked_tiers(topology: Topology, found: Definitions) -> tuple[str, ...]:
    """Name the tiers whose wait in force is none, or longer than described.

    A message that came in under such a wait holds back all that come in later.
    """
    there = _arguments(topology.vhost, found)
    now = _settings(topology, _policies(topology.vhost, found), found, there)
    return tuple(
        name
        for name, described in described_settings(topology).items()
        if name in there
        and (wait := described["definition"].get(WAIT)) is not None
        and now[name]["definition"].get(WAIT, inf) > wait
    )


def returns_messages(tier: str, vhost: str, found: Definitions) -> bool:
    """Whether a message that the broker dead-letters from ``tier`` returns, and is not dropped."""
    there = in_force(
        tier,
        _policies(vhost, found),
        _operator_policies(vhost, found),
        _arguments(vhost, found).get(tier, {}),
    ).definition
    wanted = {"dead-letter-exchange": RETRY_RETURN, **SAFE_DEAD_LETTERING}
    return all(there.get(setting) == value for setting, value in wanted.items())


def queues_with(policy: str, topology: Topology, found: Definitions) -> tuple[str, ...]:
    """Name the queues outside the description for which ``policy`` is in force."""
    described = {queue.name for queue in topology.queues}
    there = _policies(topology.vhost, found)
    return tuple(
        queue
        for queue in sorted(_arguments(topology.vhost, found).keys() - described)
        if in_force(queue, there, ()).policy.get("name") == policy
    )


def in_force(
    queue: str,
    policies: Iterable[Entry],
    operator_policies: Iterable[Entry],
    arguments: Arguments = MappingProxyType({}),
) -> InForce:
    """Compute the settings of ``queue`` from the policies of its vhost and its own arguments.

    Of several policies of the same priority the broker takes any; here it is the one that is not
    ours.
    """
    policy = _first(queue, policies)
    operator_policy = _first(queue, operator_policies)
    definition = _decisive(policy)
    own = {name.removeprefix("x-"): value for name, value in arguments.items()}
    for settings in (_decisive(operator_policy), _decisive({"definition": own})):
        for setting, value in settings.items():
            definition[setting] = _merged(definition.get(setting), value)
    return InForce(definition, policy, operator_policy)


def _settings(
    topology: Topology,
    policies: Collection[Entry],
    found: Definitions,
    arguments: Mapping[str, Arguments],
) -> dict[str, Entry]:
    operators = _operator_policies(topology.vhost, found)
    there = {
        queue.name: in_force(queue.name, policies, operators, arguments.get(queue.name, {}))
        for queue in topology.queues
    }
    return {
        name: {"name": name, "definition": each.definition, "source": each.source}
        for name, each in there.items()
    }


def _with_ours_as_described(topology: Topology, found: Definitions) -> list[Entry]:
    """Return all policies of the vhost as they are once ours are as described."""
    kept = [
        policy
        for policy in _policies(topology.vhost, found)
        if not policy["name"].startswith(POLICY_PREFIX)
        or queues_with(policy["name"], topology, found)
    ]
    return [*kept, *definitions(topology)["policies"]]


def _policies(vhost: str, found: Definitions) -> list[Entry]:
    return [each for each in found.get("policies", ()) if each["vhost"] == vhost]


def _operator_policies(vhost: str, found: Definitions) -> list[Entry]:
    """Return the operator policies of ``vhost``, which definitions list as parameters."""
    return [
        {**each["value"], "name": each["name"]}
        for each in found.get("parameters", ())
        if each["component"] == "operator_policy" and each["vhost"] == vhost
    ]


def _arguments(vhost: str, found: Definitions) -> dict[str, Arguments]:
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
        # The broker uses Perl's expressions: one that Python cannot compile is taken to match.
        return True


def _precedence(policy: Entry) -> tuple[int, bool]:
    return policy["priority"], not policy["name"].startswith(POLICY_PREFIX)


def _decisive(policy: Entry) -> dict[str, Any]:
    settings = policy.get("definition", {})
    return {name: value for name, value in settings.items() if name in DECISIVE}


def _merged(below: object, above: object) -> object:
    """Return what is in force where two sources set the same: of numbers the smaller."""
    if isinstance(below, int) and isinstance(above, int):
        return min(below, above)
    return above
