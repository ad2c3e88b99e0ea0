"""Comparing a broker's definitions with the topology: what is drift, and what may be repaired."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_broker_admin.definitions import KINDS, USERS, definitions, hash_password
from nexus_broker_admin.drift import Standing, compare
from nexus_messaging.blueprint import Topology
from nexus_messaging.description import metering_topology
from nexus_messaging.topology import INTERNAL, NOTICES, RETIRED_TIERS

TOPOLOGY = metering_topology()
PASSWORDS = {user.name: f"secret of {user.name}" for user in TOPOLOGY.users}
DESCRIBED = [
    (kind, index)
    for kind in KINDS
    for index in range(len(definitions(TOPOLOGY).get(kind.section, [])))
]


def applied(topology: Topology = TOPOLOGY) -> dict[str, Any]:
    """Return what a broker reports once the topology is applied, beside objects of others."""
    broker: dict[str, Any] = copy.deepcopy(definitions(topology))
    for user in broker["users"]:
        user["password_hash"] = hash_password(PASSWORDS[user["name"]], b"salt")
        user["tags"] = [tag for tag in user["tags"].split(",") if tag]
    admin = {
        "name": "root",
        "password_hash": "",
        "hashing_algorithm": "x",
        "tags": ["administrator"],
    }
    broker["users"].append(admin)
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    broker["permissions"].append({"user": "root", "vhost": topology.vhost, **everything})
    broker["permissions"].append({"user": "guest", "vhost": "/", **everything})
    broker["queues"].append({"name": "of others", "vhost": "/"})
    broker["vhosts"].append({"name": "/"})
    return broker


@given(scale=st.floats(min_value=1e-3, max_value=10), version=st.sampled_from(["3.10.8", "4.3.6"]))
def test_applied_topology_has_no_drift(scale: float, version: str) -> None:
    """Administrators, other vhosts and users without permissions here are no drift."""
    topology = metering_topology(tier_scale=scale, broker_version=version)

    assert compare(topology, applied(topology), PASSWORDS) == ()


def test_queue_of_a_subscriber_is_no_drift() -> None:
    """Whoever wants notices binds a queue of their own, to that exchange alone."""
    broker = applied()
    queue = {"name": "notices.billing-mails", "vhost": TOPOLOGY.vhost, "durable": True}
    broker["queues"].append({**queue, "auto_delete": False, "arguments": {}})
    to_it = {"destination": queue["name"], "destination_type": "queue", "vhost": TOPOLOGY.vhost}
    broker["bindings"].append({"source": NOTICES, "routing_key": "#", "arguments": {}, **to_it})

    assert compare(TOPOLOGY, broker, PASSWORDS) == ()

    broker["bindings"].append({"source": INTERNAL, "routing_key": "#", "arguments": {}, **to_it})
    [forbidden] = compare(TOPOLOGY, broker, PASSWORDS)
    assert forbidden.found is not None
    assert forbidden.found["source"] == INTERNAL


def test_broker_that_omits_false_values_has_no_drift() -> None:
    """RabbitMQ 4.3 exports `internal` only for internal exchanges."""
    broker = applied()
    for exchange in broker["exchanges"]:
        del exchange["internal"]

    assert compare(TOPOLOGY, broker, PASSWORDS) == ()


def test_empty_broker_lacks_everything_in_the_order_of_creation() -> None:
    """Vhost, exchanges, policies and queues come before the bindings and permissions on them."""
    differences = compare(TOPOLOGY, {}, PASSWORDS)

    sections = list(dict.fromkeys(difference.kind.section for difference in differences))
    assert {difference.standing for difference in differences} == {Standing.MISSING}
    assert sections == [
        *("vhosts", "exchanges", "policies", "queues", "bindings"),
        *("users", "topic_permissions", "permissions"),
    ]


@given(st.sampled_from(DESCRIBED))
def test_each_removed_object_is_missing(removed: tuple[Any, int]) -> None:
    """Each described object is compared."""
    kind, index = removed
    broker = applied()
    gone = broker[kind.section].pop(index)

    (difference,) = compare(TOPOLOGY, broker, PASSWORDS)

    assert difference.standing is Standing.MISSING
    assert difference.repairable
    assert difference.subject == f"{kind.noun} {kind.name(gone)}"


@given(
    st.sampled_from([each for each in DESCRIBED if each[0].settings and each[0] is not USERS]),
    st.data(),
)
def test_each_changed_setting_is_different(changed: tuple[Any, int], data: st.DataObject) -> None:
    """Each setting is compared, and only queues and exchanges are left to a person."""
    kind, index = changed
    setting = data.draw(st.sampled_from(kind.settings))
    broker = applied()
    tampered = {"x-note": "tampered"} if setting == "arguments" else "tampered"
    broker[kind.section][index][setting] = tampered

    (difference,) = compare(TOPOLOGY, broker, PASSWORDS)

    assert difference.standing is Standing.DIFFERENT
    assert difference.repairable is (kind.section not in {"queues", "exchanges"})
    noted = "x-note" if setting == "arguments" else setting
    assert f"{noted} is tampered, should be " in str(difference)


@pytest.mark.parametrize(
    ("section", "entry", "standing"),
    [
        ("policies", {"name": "nexus.old"}, Standing.STALE),
        ("policies", {"name": "theirs"}, Standing.FOREIGN),
        ("queues", {"name": "theirs"}, Standing.FOREIGN),
        ("exchanges", {"name": "theirs"}, Standing.FOREIGN),
        ("exchanges", {"name": RETIRED_TIERS[0].name}, Standing.STALE),
        ("parameters", {"component": "shovel", "name": "Move", "value": {}}, Standing.FOREIGN),
        ("permissions", {"user": "guest"}, Standing.FOREIGN),
        ("topic_permissions", {"user": "usage-ingest", "exchange": "e"}, Standing.FOREIGN),
        (
            "bindings",
            {"source": "events", "destination_type": "exchange", "destination": "internal"},
            Standing.STALE,
        ),
        (
            "bindings",
            {"source": "events", "destination_type": "queue", "destination": "unroutable"},
            Standing.STALE,
        ),
        (
            "bindings",
            {"source": "events", "destination_type": "queue", "destination": "theirs"},
            Standing.FOREIGN,
        ),
        (
            "bindings",
            {"source": "theirs", "destination_type": "queue", "destination": "unroutable"},
            Standing.FOREIGN,
        ),
    ],
)
def test_undescribed_object_is_ours_only_if_others_cannot_have_made_it(
    section: str, entry: dict[str, Any], standing: Standing
) -> None:
    """Our own earlier bindings and policies may be removed; the rest is shown and left alone."""
    broker = applied()
    others: dict[str, dict[str, Any]] = {
        "bindings": {"routing_key": "#", "arguments": {}},
        "policies": {"pattern": "", "apply-to": "all", "definition": {}, "priority": 0},
    }
    broker.setdefault(section, []).append(
        {"vhost": TOPOLOGY.vhost, **others.get(section, {}), **entry}
    )

    (difference,) = compare(TOPOLOGY, broker, PASSWORDS)

    assert difference.standing is standing
    assert difference.repairable is (standing is Standing.STALE)


@pytest.mark.parametrize("password_hash", ["", "x", hash_password("guessed", b"salt")])
def test_other_password_is_drift_and_is_not_shown(password_hash: str) -> None:
    """The hash is compared with its own salt; neither hash nor password is shown."""
    broker = applied()
    broker["users"][0]["password_hash"] = password_hash

    (difference,) = compare(TOPOLOGY, broker, PASSWORDS)

    assert str(difference) == "different user publisher: password is another, should be set"
    assert "secret of publisher" not in repr(difference)
    assert hash_password("guessed", b"salt") not in repr(difference)


def test_password_of_another_hashing_algorithm_is_drift() -> None:
    """Such a hash cannot be compared, so it is replaced."""
    broker = applied()
    broker["users"][0]["hashing_algorithm"] = "rabbit_password_hashing_sha512"

    (difference,) = compare(TOPOLOGY, broker, PASSWORDS)

    assert difference.standing is Standing.DIFFERENT


def test_password_is_hashed_as_documented() -> None:
    """The example of https://www.rabbitmq.com/docs/passwords#this-is-the-algorithm."""
    salt = bytes.fromhex("908dc60a")

    assert hash_password("test12", salt) == "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"


def test_retired_tier_is_kept_with_all_its_parts_while_its_queue_exists() -> None:
    """Processes of the previous release may publish to it, so its policy is repaired."""
    name = RETIRED_TIERS[-1].name
    topology = metering_topology(present=[name])
    broker = applied(topology)

    (kept,) = compare(topology, broker, PASSWORDS)
    broker["policies"] = [each for each in broker["policies"] if name not in each["name"]]
    missing = compare(topology, broker, PASSWORDS)[0]

    assert (kept.subject, kept.standing) == (f"queue {name}", Standing.RETIRED)
    assert kept.acceptable
    assert not kept.repairable
    assert str(missing) == f"missing policy nexus.{name}"


def test_rest_of_a_retired_tier_is_removed_once_its_queue_is_deleted() -> None:
    """Exchange and policy go; topic permissions on an exchange that is gone are ignored."""
    name = RETIRED_TIERS[-1].name
    broker = applied(metering_topology(present=[name]))
    broker["queues"] = [each for each in broker["queues"] if each["name"] != name]
    broker["bindings"] = [each for each in broker["bindings"] if each["destination"] != name]

    differences = compare(TOPOLOGY, broker, PASSWORDS)

    assert all(each.repairable for each in differences)
    assert {each.subject for each in differences if each.standing is Standing.STALE} == {
        f"exchange {name}",
        f"policy nexus.{name}",
    }


def test_user_with_other_tags_is_different() -> None:
    """A tag grants power over the broker."""
    broker = applied()
    broker["users"][0]["tags"] = "administrator"

    (difference,) = compare(TOPOLOGY, broker, PASSWORDS)

    assert str(difference) == "different user publisher: tags is ['administrator'], should be []"
