"""What ``nexus-topology`` does on a broker: compare, apply, drain."""

from collections.abc import Callable, Mapping

from nexus_broker_admin.definitions import Definitions
from nexus_broker_admin.drift import Difference, compare
from nexus_broker_admin.management import Management, ManagementError
from nexus_broker_admin.policies import blocked_tiers, returns_messages
from nexus_messaging.blueprint import Topology
from nexus_messaging.description import metering_topology
from nexus_messaging.topology import VHOST


async def read_drift(
    management: Management,
    passwords: Mapping[str, str],
    *,
    vhost: str = VHOST,
    tier_scale: float = 1.0,
) -> tuple[Difference, ...]:
    """List the differences between a broker and its description.

    Args:
        management: The broker.
        passwords: Described users' passwords, by user name; the others' are not compared.
        vhost: The vhost of the topology.
        tier_scale: Multiplies the tiers' waits.

    Raises:
        ManagementError: The broker is away or refused.
    """
    found = await management.definitions()
    return compare(_described(found, vhost, tier_scale), found, passwords)


async def apply_topology(
    management: Management,
    passwords: Mapping[str, str],
    *,
    vhost: str = VHOST,
    tier_scale: float = 1.0,
    on_change: Callable[[Difference], None] = lambda _: None,
    on_drain: Callable[[str, int], None] = lambda _tier, _messages: None,
) -> tuple[Difference, ...]:
    """Bring a broker to its description; return the differences that remain.

    No queue is ever deleted, and no policy that is in force for a queue is removed. A retry tier
    that may hold messages of a longer wait is drained, for the reason that ``drain`` gives. Safe
    to repeat and to interrupt.

    Args:
        management: The broker.
        passwords: Each described user's password, by user name.
        vhost: The vhost of the topology; created if missing.
        tier_scale: Multiplies the tiers' waits.
        on_change: Called after each change.
        on_drain: Called with each drained tier and how many messages it held.

    Raises:
        ManagementError: The broker is away or refused.
    """
    before = await management.definitions()
    topology = _described(before, vhost, tier_scale)
    differences = compare(topology, before, passwords)
    for difference in differences:
        if difference.repairable:
            await management.repair(difference, passwords)
            on_change(difference)

    if blocked := blocked_tiers(topology, before):
        after = await management.definitions()
        for tier in blocked:
            if returns_messages(tier, vhost, after) and (
                messages := await management.reject(vhost, tier)
            ):
                on_drain(tier, messages)
    return tuple(difference for difference in differences if not difference.repairable)


async def drain(management: Management, tier: str, *, vhost: str = VHOST) -> int:
    """Return what waits in a retry tier to its queues now; return the number of messages.

    A message that came into the tier while no wait was in force never leaves by itself, and all
    behind it wait with it. Repairing the policy affects only messages that come in later.

    Raises:
        ManagementError: The broker is away or refused, or would drop the messages.
    """
    found = await management.definitions()
    if tier not in _queues(found, vhost):
        raise ManagementError(f"the broker has no queue {tier}")
    if not returns_messages(tier, vhost, found):
        raise ManagementError(
            f"{tier} does not return what is taken from it: run nexus-topology apply first"
        )
    return await management.reject(vhost, tier)


def _described(found: Definitions, vhost: str, tier_scale: float) -> Topology:
    """Return the description of a broker of this version with these queues."""
    return metering_topology(
        vhost, tier_scale, found["rabbitmq_version"], present=_queues(found, vhost)
    )


def _queues(found: Definitions, vhost: str) -> frozenset[str]:
    return frozenset(queue["name"] for queue in found["queues"] if queue["vhost"] == vhost)
